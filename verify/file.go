package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// What repairs files.
const (
	exportDirty = "sdr-sync export"
	exportAll   = "sdr-sync export --all"
	putBack     = "put the file and the lake's _meta folder back from a backup: the month is archived"
)

// fileAudit is the audit of one Parquet file.
type fileAudit struct {
	lake   *lake
	stream *streamAudit
	state  *partition
	busy   bool // a run is at work on the site: what it has published and not yet exported breaks no promise
	found  []Difference
}

func (f *fileAudit) differ(path, repair, format string, args ...any) {
	if f.state.archived {
		repair = putBack
	}
	f.found = append(f.found, Difference{Where: "lake " + path, What: fmt.Sprintf(format, args...), Repair: repair})
}

// read compares ledger, manifest and file, and reads all of its bytes and values. The rows of an archived month are counted as facts.
func (f *fileAudit) read(ctx context.Context, a *audit, w *worker) error {
	l := f.stream.layout
	path, err := f.state.path(l)
	if err != nil {
		f.differ("partition "+f.state.label(), "restore the tables of sdr_sync from a backup", "%v", err)
		return nil
	}
	if f.state.waits() { // whatever stands there, the next export replaces it
		if !f.busy {
			f.differ(path, exportDirty, "the partition is dirty: the database is at %d, the file at %d", f.state.dirty, f.state.exported)
		}
		return nil
	}
	if !f.lake.exists { // said once, of the lake
		return nil
	}
	entry := f.lake.manifests[l.stream.Name].entry(path)
	switch {
	case entry == nil:
		f.differ(path, exportDirty, "the manifest does not name it")
	case entry.Rows != f.state.rows || entry.Digest != f.state.digest || entry.Bytes != f.state.bytes || entry.SHA256 != f.state.sha256:
		f.differ(path, exportDirty, "manifest and ledger disagree: %d rows, digest %s, %d bytes, SHA-256 %s; %d rows, digest %s, %d bytes, SHA-256 %s",
			entry.Rows, entry.Digest, entry.Bytes, entry.SHA256, f.state.rows, f.state.digest, f.state.bytes, f.state.sha256)
	case entry.SchemaVersion != l.stream.Version || entry.HashVersion != hashVersion:
		f.differ(path, exportDirty, "it has schema %d and hash %d, now they are %d and %d", entry.SchemaVersion, entry.HashVersion, l.stream.Version, hashVersion)
		return nil
	}
	on, err := f.open(path)
	if on == nil {
		return err
	}
	defer on.Close() // only read: closing can't lose anything
	same, err := f.sameBytes(on, path, entry)
	if err != nil || !same {
		return err
	}
	return f.content(ctx, on, path, entry, a, w)
}

// open opens the file; nil without an error says that it is missing, which is noted.
func (f *fileAudit) open(path string) (*os.File, error) {
	info, err := f.lake.root.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.differ(path, exportDirty, "the file is missing")
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("open lake: %w", err)
	case !info.Mode().IsRegular():
		f.differ(path, "move it out of the lake, then "+exportDirty, "it is a %s, not a regular file", info.Mode().Type())
		return nil, nil
	}
	return f.lake.root.Open(path)
}

// sameBytes compares the file's size and SHA-256 with those of ledger and manifest. Bytes that no export wrote are not decoded: nothing in them could be
// believed.
func (f *fileAudit) sameBytes(on *os.File, path string, entry *manifestEntry) (bool, error) {
	h := sha256.New()
	size, err := io.Copy(h, on)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if size == f.state.bytes && sum == f.state.sha256 {
		return true, nil
	}
	if entry == nil || size != entry.Bytes || sum != entry.SHA256 {
		f.differ(path, repairFile(f.stream.layout, f.state.site), "the file's bytes changed: it has %d bytes with SHA-256 %s, the ledger says %d with %s",
			size, sum, f.state.bytes, f.state.sha256)
	}
	return false, nil
}

// content compares what the rows add up to with ledger and manifest.
func (f *fileAudit) content(ctx context.Context, on *os.File, path string, entry *manifestEntry, a *audit, w *worker) error {
	l := f.stream.layout
	repair := repairFile(l, f.state.site)
	differ := func(format string, args ...any) { f.differ(path, repair, format, args...) }
	t := newPartitionTally(l, partitionKey{f.state.site, f.state.from}, f.state.unit)
	source := calendar{zone: a.cfg.SourceZone}
	var outside, badKeys, badDates int64
	err := readParquet(ctx, on, w.row(f.stream), func(r *row) {
		if l.timed() && !t.covers(day(intOf(r.derived(l.date)))) || l.site >= 0 && string(bytesOf(r.derived(l.site))) != f.state.site {
			outside++
		}
		if l.timed() && day(intOf(r.derived(l.date))) != source.dayOf(r.time()) {
			badDates++
		}
		if hashOf(r.derived(l.key)) != r.keyOf() {
			badKeys++
		}
		t.add(r, r.storedHash())
		if f.state.archived && f.stream.whole() {
			w.tally(f.stream).fact(r)
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		differ("%v", err)
		return nil
	}
	if outside > 0 {
		differ("%d rows belong to another partition", outside)
	}
	if badDates > 0 {
		differ("%d rows have a date that is not that of their time", badDates)
	}
	if badKeys > 0 {
		differ("%d rows have a record_key that does not follow from their values", badKeys)
	}
	if t.content.count != f.state.rows || t.content.sum() != f.state.digest {
		differ("the file's columns give %s, the ledger says %d records %s", t.content, f.state.rows, f.state.digest)
	}
	if entry != nil {
		f.compareEntry(t, entry, differ)
		if !a.ledger.withoutWindows {
			f.compareWindows(a, t, entry, differ)
		}
	}
	return nil
}

func (f *fileAudit) compareEntry(t *partitionTally, entry *manifestEntry, differ func(string, ...any)) {
	low, high := "", ""
	if t.layout.timed() && t.content.count > 0 {
		low, high = instantText(t.min), instantText(t.max)
	}
	for _, v := range []struct{ what, file, manifest string }{
		{"min_begin_time", low, entry.MinTime},
		{"max_begin_time", high, entry.MaxTime},
	} {
		if v.file != v.manifest {
			differ("%s: the file's columns give %s, the manifest says %s", v.what, v.file, v.manifest)
		}
	}
	read := map[string]factorSum{}
	for name, sum := range t.factors {
		read[name] = sum.result()
	}
	names := maps.Clone(read)
	maps.Copy(names, entry.Factors)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if read[name] != entry.Factors[name] {
			differ("factor %q: the file's columns give %+v, the manifest says %+v", name, read[name], entry.Factors[name])
		}
	}
	if without := entry.NoFactor; t.noFactor.records > 0 && (without == nil || *without != t.noFactor.result()) || t.noFactor.records == 0 && without != nil {
		differ("records without a factor: the file's columns give %+v, the manifest says %+v", t.noFactor.result(), without)
	}
}

func (t factorTally) result() factorSum {
	return factorSum{Records: t.records, Sum: t.sum.String(), NullAmounts: t.nulls}
}

// compareWindows compares the windows of the rows with those that the manifest names, and these with the ledger.
func (f *fileAudit) compareWindows(a *audit, t *partitionTally, entry *manifestEntry, differ func(string, ...any)) {
	named := map[int64]bool{}
	for _, w := range entry.Windows {
		named[w.WindowID] = true
		i := slices.IndexFunc(a.ledger.windows, func(l *window) bool { return l.id == w.WindowID && l.stream == f.state.stream })
		switch {
		case i < 0:
			differ("the manifest names window %d, which the ledger does not know or has retired", w.WindowID)
		case w.Generation > a.ledger.windows[i].generation:
			differ("the manifest names generation %d of window %d, the ledger is at %d", w.Generation, w.WindowID, a.ledger.windows[i].generation)
		}
	}
	if t.layout.timed() && !maps.Equal(named, t.windows) {
		differ("the rows are of the windows %v, the manifest names %v", slices.Sorted(maps.Keys(t.windows)), slices.Sorted(maps.Keys(named)))
	}
}

// fileColumns are the columns of the stream's files, with where they go: the position of a derived column, or -1 for a field.
func (l *layout) fileColumns() (columns []schemas.Field) {
	for i, f := range l.derived {
		if l.metered() && i == l.natural { // in the database alone
			continue
		}
		if l.metered() {
			f.Required = true
		}
		columns = append(columns, f)
	}
	return append(columns, l.fields...)
}

// arrowType is what docs/parquet.md says that a type is in Parquet.
func arrowType(t schemas.Type) arrow.DataType {
	switch t {
	case schemas.Timestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	case schemas.Decimal:
		return &arrow.Decimal128Type{Precision: 38, Scale: scale}
	case schemas.Date:
		return arrow.FixedWidthTypes.Date32
	case schemas.Float:
		return arrow.PrimitiveTypes.Float64
	case schemas.Bigint:
		return arrow.PrimitiveTypes.Int64
	case schemas.Integer:
		return arrow.PrimitiveTypes.Int32
	case schemas.UUID:
		return &arrow.FixedSizeBinaryType{ByteWidth: 16}
	}
	return arrow.BinaryTypes.String
}

// readParquet decodes a file and calls each with every row, which is r each time.
func readParquet(ctx context.Context, on *os.File, r *row, each func(*row)) (err error) {
	defer func() {
		if p := recover(); p != nil { // the library panics over some damage
			err = errors.Join(err, fmt.Errorf("decode Parquet: %v", p))
		}
	}()
	pf, err := file.NewParquetReader(on)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	if err := checkMetadata(pf, r.layout.stream); err != nil {
		return err
	}
	const batchRows = 4096
	pr, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: batchRows}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	columns := r.layout.fileColumns()
	if err := checkColumns(pr, columns); err != nil {
		return err
	}
	if pf.NumRows() == 0 {
		return nil
	}
	records, err := pr.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	defer records.Release()
	n := int64(0)
	for records.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec := records.Record()
		for i := range int(rec.NumRows()) {
			r.fillFrom(rec, i)
			each(r)
		}
		n += rec.NumRows()
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) { // v15 reports the plain end of the rows as an error
		return fmt.Errorf("decode Parquet: %w", err)
	}
	if n != pf.NumRows() {
		return fmt.Errorf("decode Parquet: it has %d rows, its footer says %d", n, pf.NumRows())
	}
	return nil
}

// checkMetadata compares the file's own description with the schema.
func checkMetadata(pf *file.Reader, s *schemas.Stream) error {
	kv := pf.MetaData().KeyValueMetadata()
	for _, pair := range [][2]string{
		{"sdr_sync.stream", s.Name}, {"sdr_sync.schema_version", strconv.Itoa(s.Version)}, {"sdr_sync.hash_version", strconv.Itoa(hashVersion)},
	} {
		if got := kv.FindValue(pair[0]); got == nil || *got != pair[1] {
			return fmt.Errorf("its metadata has another %s than %q", pair[0], pair[1])
		}
	}
	return nil
}

func checkColumns(pr *pqarrow.FileReader, columns []schemas.Field) error {
	schema, err := pr.Schema()
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	if schema.NumFields() != len(columns) {
		return fmt.Errorf("it has %d columns, want %d", schema.NumFields(), len(columns))
	}
	for i, want := range columns {
		got := schema.Field(i)
		if got.Name != want.Name || got.Nullable == want.Required || !arrow.TypeEqual(got.Type, arrowType(want.Type)) {
			return fmt.Errorf("column %d is %s %s (nullable %t), want %s %s (nullable %t)", i, got.Name, got.Type, got.Nullable, want.Name, arrowType(want.Type), !want.Required)
		}
	}
	return nil
}

// fillFrom makes the row of the i-th row of an Arrow record.
func (r *row) fillFrom(rec arrow.Record, i int) {
	r.begin()
	l, column := r.layout, 0
	for d := range l.derived {
		if l.metered() && d == l.natural {
			r.lead = append(r.lead, absent)
		} else {
			r.lead = r.appendArrow(r.lead, l.derived[d].Type, rec.Column(column), i, false)
			column++
		}
		r.leadEnds = append(r.leadEnds, len(r.lead))
	}
	for n := range l.fields {
		r.canonical = r.appendArrow(r.canonical, l.fields[n].Type, rec.Column(column+n), i, n == l.amount)
		r.ends = append(r.ends, len(r.canonical))
	}
	r.finish()
}

// appendArrow appends the canonical bytes of the i-th value of an array.
func (r *row) appendArrow(dst []byte, t schemas.Type, column arrow.Array, i int, amount bool) []byte {
	if column.IsNull(i) {
		return append(dst, absent)
	}
	switch t {
	case schemas.Timestamp:
		return appendInt(dst, int64(column.(*array.Timestamp).Value(i)))
	case schemas.Date:
		return appendInt(dst, int64(column.(*array.Date32).Value(i)))
	case schemas.Bigint:
		return appendInt(dst, column.(*array.Int64).Value(i))
	case schemas.Integer:
		return appendInt(dst, int64(column.(*array.Int32).Value(i)))
	case schemas.Float:
		return appendFloat(dst, column.(*array.Float64).Value(i))
	case schemas.UUID:
		return appendText(dst, column.(*array.FixedSizeBinary).Value(i))
	case schemas.Decimal:
		n := column.(*array.Decimal128).Value(i)
		v := wideOf(n.HighBits(), n.LowBits())
		if amount {
			r.amount = v
		}
		return appendDecimal(dst, v)
	}
	text := column.(*array.String).Value(i)
	return append(beginValue(dst, len(text)), text...)
}
