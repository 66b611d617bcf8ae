package parquet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"
	"golang.org/x/sync/errgroup"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// fileWriter turns rows into the bytes of one Parquet file.
type fileWriter struct {
	layout   *layout
	schema   *arrow.Schema
	tally    *tally
	group    int              // rows of a row group, a multiple of batchRows
	progress func(rows int64) // called after each batch
}

// write writes the rows to w. A nil error means that w took every byte. Rows are collected here while the batch before them is
// encoded and compressed in a goroutine, which has ended when write returns.
func (fw *fileWriter) write(ctx context.Context, w io.Writer, rows iter.Seq2[*record.Row, error]) (*stickyWriter, error) {
	sticky := &stickyWriter{w: w, hash: sha256.New()}
	batches := make(chan arrow.Record, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return pipeline.Guard(func() error { return fw.encode(ctx, sticky, batches) }) })
	readErr := fw.collect(ctx, rows, batches)
	close(batches)
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return sticky, readErr
}

// collect counts the rows and sends them on as Arrow records.
func (fw *fileWriter) collect(ctx context.Context, rows iter.Seq2[*record.Row, error], batches chan<- arrow.Record) error {
	b := newBatch(fw.layout, fw.schema)
	send := func() error {
		select {
		case batches <- b.record():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if fw.progress != nil {
			fw.progress(fw.tally.digest.Count)
		}
		return nil
	}
	for row, err := range rows {
		if err != nil {
			return fmt.Errorf("read row %d: %w", fw.tally.digest.Count+1, err)
		}
		amount, err := fw.tally.add(row)
		if err != nil {
			return fmt.Errorf("row %d, %s: %w", fw.tally.digest.Count+1, fw.layout.rowName(row), err)
		}
		if err := b.append(row, amount); err != nil {
			return fmt.Errorf("row %d, %s: %w", fw.tally.digest.Count, fw.layout.rowName(row), err)
		}
		if b.rows < batchRows {
			continue
		}
		if err := send(); err != nil {
			return err
		}
	}
	if b.rows == 0 {
		return nil
	}
	return send()
}

// encode writes the batches as row groups. What v15 says of errors is not believed: it drops those of a row group's end.
func (fw *fileWriter) encode(ctx context.Context, sticky *stickyWriter, batches <-chan arrow.Record) (err error) {
	defer func() {
		if r := recover(); r != nil { // v15 panics on some write errors
			err = errors.Join(sticky.err, fmt.Errorf("encode Parquet: %v", r))
		}
	}()
	pw, err := pqarrow.NewFileWriter(fw.schema, sticky, fw.layout.writerProperties(), pqarrow.DefaultWriterProps())
	if err != nil {
		return fmt.Errorf("encode Parquet: %w", err)
	}
	for n := 0; ; n++ {
		var rec arrow.Record
		var more bool
		select {
		case rec, more = <-batches:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !more {
			break
		}
		if n%(fw.group/batchRows) == 0 {
			pw.NewBufferedRowGroup()
		}
		if err := errors.Join(pw.WriteBuffered(rec), sticky.err); err != nil {
			return fmt.Errorf("encode Parquet: %w", err)
		}
	}
	if err := errors.Join(pw.Close(), sticky.err); err != nil {
		return fmt.Errorf("encode Parquet: %w", err)
	}
	return nil
}

// stickyWriter counts and hashes what is written, and repeats its first error for ever. v15 drops write errors: with a file that
// failed once, its Close returned nil in 84 of 130 cases.
type stickyWriter struct {
	w    io.Writer
	hash hash.Hash
	size int64
	err  error
}

// Write writes all of p, or fails now and ever after.
func (s *stickyWriter) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	s.hash.Write(p[:n])
	s.size += int64(n)
	s.err = err
	return n, err
}

func (s *stickyWriter) sha256() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// readBack compares the file on disk with what was written: its bytes by their hash, its footer with the rows.
func (l *Lake) readBack(f *files, name string, want Entry) (err error) {
	size, sum, err := f.hashFile(name)
	if err != nil {
		return fmt.Errorf("read back %s: %w", name, err)
	}
	if size != want.Bytes || sum != want.SHA256 {
		return fmt.Errorf("read back %s: %d bytes with SHA-256 %s were written, %d with %s are there", name, want.Bytes, want.SHA256, size, sum)
	}
	on, err := f.root.Open(name)
	if err != nil {
		return fmt.Errorf("read back %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, on.Close()) }()
	if err := checkFooter(on, l.schema, want.Rows); err != nil {
		return fmt.Errorf("read back %s: %w", name, err)
	}
	return nil
}

// checkFooter compares a file's footer with the rows it must hold.
func checkFooter(on *os.File, schema *arrow.Schema, rows int64) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read footer: %v", r)
		}
	}()
	pf, err := file.NewParquetReader(on)
	if err != nil {
		return fmt.Errorf("read footer: %w", err)
	}
	if pf.NumRows() != rows {
		return fmt.Errorf("the footer says %d rows, %d were written", pf.NumRows(), rows)
	}
	if columns := pf.MetaData().Schema.NumColumns(); columns != schema.NumFields() {
		return fmt.Errorf("the footer says %d columns, want %d", columns, schema.NumFields())
	}
	for i := range pf.NumRowGroups() {
		want := min(rows-int64(i)*rowGroupRows, rowGroupRows)
		group := pf.MetaData().RowGroup(i)
		if group.NumRows() != want {
			return fmt.Errorf("row group %d has %d rows, want %d", i, group.NumRows(), want)
		}
		for c := range group.NumColumns() {
			chunk, err := group.ColumnChunk(c)
			if err != nil {
				return fmt.Errorf("row group %d: column %d: %w", i, c, err)
			}
			if chunk.NumValues() != want {
				return fmt.Errorf("row group %d: column %s has %d values, want %d", i, chunk.PathInSchema(), chunk.NumValues(), want)
			}
		}
	}
	return nil
}
