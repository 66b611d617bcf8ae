package parquet

import (
	"context"
	"errors"
	"fmt"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// Totals adds up the amounts of every file that the manifest names by factor, reading the files' columns; nil if the stream has no
// factors.
func (l *Lake) Totals(ctx context.Context) (totals map[string]FactorSum, err error) {
	if l.layout.factorName < 0 {
		return nil, nil
	}
	f, err := l.openFiles()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	id, err := l.readIdentity(f)
	if err != nil || id == nil {
		return nil, err
	}
	m, err := l.readManifest(f, id.LakeID)
	if err != nil {
		return nil, err
	}
	t := newTally(l.layout, pipeline.Partition{})
	for _, e := range m.Files {
		if err := l.addFile(ctx, f, e.Path, t); err != nil {
			return nil, fmt.Errorf("sum %s: %w", e.Path, err)
		}
	}
	var sums Entry
	t.fill(&sums)
	return sums.Factors, nil
}

func (l *Lake) addFile(ctx context.Context, f *files, path string, t *tally) (err error) {
	on, err := f.root.Open(l.base + "/" + path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, on.Close()) }()
	return readRows(ctx, on, l.layout, l.schema, func(row *record.Row) error {
		_, err := t.addAmount(row.Values[l.layout.factorName], row.Values[l.layout.factorValue])
		return err
	})
}
