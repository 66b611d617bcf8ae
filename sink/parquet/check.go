package parquet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// CheckOptions say what to check.
type CheckOptions struct {
	Partitions []pipeline.Partition // nil means all of the ledger's, and the lake as a whole
	Busy       []string             // sites that a run is publishing: their dirty partitions are no differences
}

// Difference is one thing in which lake, manifest and ledger differ.
type Difference struct {
	Path   string // relative to the lake root; "" for the lake as a whole
	What   string // what differs, with both values
	Repair string // the command that repairs it
}

// String returns "sdr/…/data.parquet: the file is missing (repair: sdr-sync export)".
func (d Difference) String() string {
	return fmt.Sprintf("%s: %s (repair: %s)", cmp.Or(d.Path, "lake"), d.What, d.Repair)
}

const (
	repairExport = "sdr-sync export"
	repairAll    = "sdr-sync export --all"
)

// repairPartition is the command that writes partition p anew. A list has no scope to name.
func (l *Lake) repairPartition(p pipeline.Partition) string {
	if l.cfg.Stream.IsList() {
		return repairAll
	}
	return repairAll + " --scope " + p.Site
}

// Check compares ledger, manifest and files, and reads every value of every file again: existence, bytes, SHA-256, rows, digest, exact
// sums, span of usage time, each row's key and partition, and files that don't belong in the lake. It changes nothing, and waits for
// an export that is under way. Findings are differences, not errors; ErrLakeMismatch and ErrLakeLocked are errors.
func (l *Lake) Check(ctx context.Context, store pipeline.PartitionStore, opt CheckOptions) (found []Difference, err error) {
	f, err := l.openFiles()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	release, err := l.lockShared(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()

	id, err := l.readIdentity(f)
	if err != nil {
		return nil, err
	}
	states, err := l.partitions(ctx, store)
	if err != nil {
		return nil, err
	}
	c := &check{lake: l, files: f, manifest: l.newManifest(""), sites: opt.Busy}
	if id == nil && len(states) > 0 {
		c.differ("", repairAll, "%s holds no lake (_meta/lake.json is missing)", l.Dir())
		return c.found, nil
	}
	if id != nil {
		c.readManifest(id.LakeID, len(states) > 0)
	}
	for _, s := range states {
		if opt.Partitions != nil && !slices.Contains(opt.Partitions, s.Partition) {
			continue
		}
		c.archived = s.Archived
		if err := c.partition(ctx, s); err != nil {
			return c.found, fmt.Errorf("check partition %s: %w", l.label(s.Partition), err)
		}
	}
	c.archived = false
	if opt.Partitions != nil {
		return c.found, c.refuseUnknown(opt.Partitions, states)
	}
	return c.found, c.whole(states)
}

// check is one run of Check.
type check struct {
	lake     *Lake
	files    *files
	manifest *Manifest
	found    []Difference
	archived bool     // the partition at hand is
	sites    []string // that are busy
}

func (c *check) busy(site string) bool { return slices.Contains(c.sites, site) }

func (c *check) differ(path, repair, what string, args ...any) {
	if c.archived {
		repair = "put the file and the lake's _meta folder back from a backup: the month is archived"
	}
	c.found = append(c.found, Difference{Path: path, What: fmt.Sprintf(what, args...), Repair: repair})
}

func (c *check) readManifest(lakeID string, expected bool) {
	m, problem := c.lake.readManifest(c.files, lakeID)
	c.manifest = m
	if problem != nil && (expected || !errors.Is(problem, fs.ErrNotExist)) {
		c.differ("", repairExport, "the manifest can't be used: %v", problem)
	}
}

// refuseUnknown finds partitions that were asked for by name but that the ledger does not have.
func (c *check) refuseUnknown(asked []pipeline.Partition, states []pipeline.PartitionState) error {
	for _, p := range asked {
		if !slices.ContainsFunc(states, func(s pipeline.PartitionState) bool { return s.Partition == p }) {
			return fmt.Errorf("check partition %s: the ledger has no such partition", c.lake.label(p))
		}
	}
	return nil
}

// whole compares what no single partition shows.
func (c *check) whole(states []pipeline.PartitionState) error {
	known := c.lake.paths(states)
	for _, e := range c.manifest.Files {
		if _, ok := known[e.Path]; !ok {
			c.differ(e.Path, repairExport, "the manifest names it, the ledger has no such partition")
		}
	}
	foreign, err := c.lake.foreign(c.files, states)
	if err != nil {
		return err
	}
	for _, path := range foreign {
		c.differ(path, "move the file out of the lake", "no export wrote it: readers of the lake may count its rows")
	}
	return nil
}

func (c *check) partition(ctx context.Context, s pipeline.PartitionState) error {
	path, err := c.lake.partitionPath(s.Partition)
	if err != nil {
		return err
	}
	// What another scope of the site publishes meanwhile is the next export's.
	if s.DirtySeq > s.ExportedSeq && !c.busy(s.Site) {
		c.differ(path, repairExport, "the partition is dirty: the database is at %d, the file at %d", s.DirtySeq, s.ExportedSeq)
	}
	entry, named := c.manifest.entry(path)
	if !named {
		c.differ(path, repairExport, "the manifest does not name it")
	}
	if named && entry.Facts() != s.File {
		c.differ(path, repairExport, "manifest and ledger disagree: %s, %s", describe(entry.Facts()), describe(s.File))
	}
	name := c.lake.base + "/" + path
	_, present, err := c.files.regular(name)
	if err != nil {
		return err
	}
	if !present {
		c.differ(path, repairExport, "the file is missing")
		return nil
	}
	size, sum, err := c.files.hashFile(name)
	if err != nil {
		return err
	}
	if !named {
		return nil
	}
	// Bytes that no export wrote are not decoded: nothing in them could be believed.
	if size != entry.Bytes || sum != entry.SHA256 {
		c.differ(path, c.lake.repairPartition(s.Partition), "the file's bytes changed: it has %d bytes with SHA-256 %s, the manifest says %d with %s",
			size, sum, entry.Bytes, entry.SHA256)
		return nil
	}
	return c.content(ctx, s, entry, name)
}

func describe(f pipeline.FileFacts) string {
	return fmt.Sprintf("%d rows, digest %s, %d bytes, SHA-256 %s", f.Rows, f.Digest, f.Bytes, f.SHA256)
}

// content compares what the manifest says of the rows with what the columns hold.
func (c *check) content(ctx context.Context, s pipeline.PartitionState, entry Entry, name string) (err error) {
	on, err := c.files.root.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, on.Close()) }()
	if entry.SchemaVersion != c.lake.cfg.Stream.Version || entry.HashVersion != record.HashVersion {
		c.differ(entry.Path, repairExport, "it has schema %d and hash %d, now they are %d and %d",
			entry.SchemaVersion, entry.HashVersion, c.lake.cfg.Stream.Version, record.HashVersion)
		return nil
	}
	if err := checkFooter(on, c.lake.schema, entry.Rows); err != nil {
		c.differ(entry.Path, c.lake.repairPartition(s.Partition), "%v", err)
		return nil
	}
	t := newTally(c.lake.layout, s.Partition)
	err = readRows(ctx, on, c.lake.layout, c.lake.schema, func(row *record.Row) error {
		_, err := t.add(row)
		return err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		c.differ(entry.Path, c.lake.repairPartition(s.Partition), "row %d: %v", t.digest.Count+1, err)
		return nil
	}
	var read Entry
	t.fill(&read)
	for _, v := range []struct{ what, file, manifest string }{
		{"rows", fmt.Sprint(read.Rows), fmt.Sprint(entry.Rows)},
		{"digest", read.Digest, entry.Digest},
		{"min_begin_time", read.MinTime, entry.MinTime},
		{"max_begin_time", read.MaxTime, entry.MaxTime},
		{"sums without a factor", fmt.Sprint(value(read.NoFactor)), fmt.Sprint(value(entry.NoFactor))},
	} {
		if v.file != v.manifest {
			c.differ(entry.Path, c.lake.repairPartition(s.Partition), "%s: the file's columns give %s, the manifest says %s", v.what, v.file, v.manifest)
		}
	}
	names := maps.Clone(read.Factors)
	maps.Copy(names, entry.Factors)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if read.Factors[name] != entry.Factors[name] {
			c.differ(entry.Path, c.lake.repairPartition(s.Partition), "factor %q: the file's columns give %+v, the manifest says %+v",
				name, read.Factors[name], entry.Factors[name])
		}
	}
	return nil
}

func value(s *FactorSum) FactorSum {
	if s == nil {
		return FactorSum{}
	}
	return *s
}

// readRows decodes a file and calls each with every row, in order; the row is reused. It stops at the first error.
func readRows(ctx context.Context, on *os.File, l *layout, schema *arrow.Schema, each func(*record.Row) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.Join(err, fmt.Errorf("decode Parquet: %v", r))
		}
	}()
	pf, err := file.NewParquetReader(on)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	pr, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: batchRows}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	if pf.NumRows() == 0 {
		return sameSchema(pr, schema)
	}
	if err := sameSchema(pr, schema); err != nil {
		return err
	}
	records, err := pr.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	defer records.Release()
	rows := &rowReader{layout: l, row: record.NewRow(l.stream)}
	for records.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := rows.each(records.Record(), each); err != nil {
			return err
		}
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) { // v15 reports the plain end of the rows as an error
		return fmt.Errorf("decode Parquet: %w", err)
	}
	return nil
}

// sameSchema compares names, types and nullability of the file's columns with what an export writes.
func sameSchema(pr *pqarrow.FileReader, want *arrow.Schema) error {
	got, err := pr.Schema()
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	for i, w := range want.Fields() {
		g := got.Field(i)
		if g.Name != w.Name || g.Nullable != w.Nullable || !arrow.TypeEqual(g.Type, w.Type) {
			return fmt.Errorf("column %d is %s %s (nullable %t), want %s %s (nullable %t)", i, g.Name, g.Type, g.Nullable, w.Name, w.Type, w.Nullable)
		}
	}
	return nil
}

// rowReader turns Arrow records back into rows.
type rowReader struct {
	layout  *layout
	row     *record.Row
	scratch []byte // the row's decimals, as text
}

func (r *rowReader) each(rec arrow.Record, each func(*record.Row) error) error {
	for i := range int(rec.NumRows()) {
		if len(r.layout.leading) > 0 {
			r.lead(rec, i)
		}
		r.scratch = r.scratch[:0]
		for n := range r.layout.stream.Fields {
			r.row.Values[n] = r.value(r.layout.stream.Fields[n].Type, rec.Column(len(r.layout.leading)+n), i)
		}
		if err := each(r.row); err != nil {
			return err
		}
	}
	return nil
}

// lead reads the leading columns, in their order.
func (r *rowReader) lead(rec arrow.Record, i int) {
	r.row.UsageDate = record.Date(rec.Column(0).(*array.Date32).Value(i))
	r.row.Site = rec.Column(1).(*array.String).Value(i)
	r.row.WindowID = rec.Column(2).(*array.Int64).Value(i)
	r.row.Key = record.Hash(rec.Column(3).(*array.FixedSizeBinary).Value(i))
	r.row.Ordinal = rec.Column(4).(*array.Int32).Value(i)
}

func (r *rowReader) value(typ schemas.Type, column arrow.Array, i int) record.Value {
	if column.IsNull(i) {
		return record.Value{}
	}
	switch typ {
	case schemas.Timestamp:
		return record.Value{Valid: true, Int: int64(column.(*array.Timestamp).Value(i))}
	case schemas.Float:
		return record.Value{Valid: true, Int: int64(math.Float64bits(column.(*array.Float64).Value(i)))}
	case schemas.Bigint:
		return record.Value{Valid: true, Int: column.(*array.Int64).Value(i)}
	case schemas.Date:
		return record.Value{Valid: true, Int: int64(column.(*array.Date32).Value(i))}
	case schemas.Integer:
		return record.Value{Valid: true, Int: int64(column.(*array.Int32).Value(i))}
	case schemas.UUID:
		return record.Value{Valid: true, Bytes: column.(*array.FixedSizeBinary).Value(i)}
	case schemas.Decimal:
		n := column.(*array.Decimal128).Value(i)
		from := len(r.scratch)
		r.scratch = record.AppendInt128(r.scratch, record.Int128{Hi: n.HighBits(), Lo: n.LowBits()})
		return record.Value{Valid: true, Bytes: r.scratch[from:]}
	default:
		return record.Value{Valid: true, Bytes: []byte(column.(*array.String).Value(i))}
	}
}
