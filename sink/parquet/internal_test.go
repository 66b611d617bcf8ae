package parquet

import (
	"context"
	"crypto/sha256"
	"io"
	"iter"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// The external tests reach the mechanics below through these names.

// SetStepHook has hook called before each step that changes the disk; its error makes the step fail.
func (l *Lake) SetStepHook(hook func(step, name string) error) { l.before = hook }

// SetOthers names the streams that have folders of their own in the lake, besides those of the program.
func (l *Lake) SetOthers(streams ...string) { l.others = append(l.others, streams...) }

// Config returns what the lake was opened with.
func (l *Lake) Config() Config { return l.cfg }

// Others returns the streams that have folders of their own in the lake.
func (l *Lake) Others() []string { return l.others }

// WriteRows writes partition p's rows as one Parquet file to w, in row groups that are small enough to have several in a test.
func (l *Lake) WriteRows(ctx context.Context, p pipeline.Partition, w io.Writer, rows iter.Seq2[*record.Row, error]) error {
	fw := &fileWriter{layout: l.layout, schema: l.schema, tally: newTally(l.layout, p), group: SmallGroupRows}
	_, err := fw.write(ctx, w, rows)
	return err
}

// NewStickyWriter returns the writer that remembers its first error.
func NewStickyWriter(w io.Writer) io.Writer { return &stickyWriter{w: w, hash: sha256.New()} }

// Sizes of batches and row groups.
const (
	BatchRows      = batchRows
	RowGroupRows   = rowGroupRows
	SmallGroupRows = 2 * batchRows // of WriteRows
)

// SumOf adds the numbers and returns the sum as text.
func SumOf(numbers []record.Int128) string {
	var s wideSum
	for _, n := range numbers {
		s.add(n)
	}
	return s.String()
}
