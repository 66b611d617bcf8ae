package parquet_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
)

// The streams of these tests: one of each shape of list, with a field of every type between them.
const (
	eventsName, snapshotName, historyName = "test_events", "test_snapshot", "test_history"

	eventsFile   = "test_events/event_month=2024-03/data.parquet"
	snapshotFile = "test_snapshot/data.parquet"
	historyFile  = "test_history/data.parquet"
)

// declare reads a stream file of the given shape. Fields stand one a line: name, type, and whether it is required.
func declare(t testing.TB, name string, shape schemas.Shape, more string, fields ...string) *schemas.Stream {
	t.Helper()
	text := fmt.Sprintf(`
stream: %s
title: A list of tests
document: none
table: billing.%s
version: 3
shape: %s
list:
  system: esm
  method: GET
  path: /list
  rate: {class: test}
  items: list
  paging: {style: none}
%s
fields:
`, name, name, shape, more)
	for _, f := range fields {
		word := strings.Fields(f)
		text += fmt.Sprintf("  - {name: %s, type: %s, required: %t, meaning: A test.}\n", word[0], word[1], len(word) > 2)
	}
	s, err := schemas.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const byTime = "  time: {begin: begin, end: end, unit: ms, window: month}\ntime_field: occurred\n"

// stream returns the test stream of that name.
func stream(t testing.TB, name string) *schemas.Stream {
	t.Helper()
	every := []string{
		"id text required", "level integer", "size bigint", "ratio decimal", "heat float", "day date", "reference uuid", "seen timestamp", "note text", "extra json",
	}
	switch name {
	case eventsName:
		return declare(t, name, schemas.Events, byTime+"key: [id]", append([]string{"occurred timestamp required"}, every...)...)
	case snapshotName:
		return declare(t, name, schemas.Snapshot, "", every...)
	case historyName:
		return declare(t, name, schemas.History, "key: [id]", every...)
	}
	t.Fatalf("there is no test stream %s", name)
	return nil
}

// listLake opens the lake of a list; the other test streams have their folders in it too.
func listLake(t testing.TB, dir string, s *schemas.Stream) *parquet.Lake {
	t.Helper()
	cfg := config(dir)
	cfg.Stream = s
	lake, err := parquet.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	lake.SetOthers(eventsName, snapshotName, historyName)
	return lake
}

// sdrLake opens the lake of the metering records beside the test streams.
func sdrLake(t testing.TB, dir string) *parquet.Lake {
	t.Helper()
	lake := open(t, dir)
	lake.SetOthers(eventsName, snapshotName, historyName)
	return lake
}

// wholeList is the one partition of a list that is read whole.
var wholeList = pipeline.Partition{Site: pipeline.Tenant.Site, Unit: pipeline.Whole}

// partitionOf is the one partition that the tests of a stream fill.
func partitionOf(s *schemas.Stream) pipeline.Partition {
	if s.Shape == schemas.Events {
		return month(pipeline.Tenant.Site, "2024-03")
	}
	return wholeList
}

// sealed computes the derived columns of a list's row from its fields, which stand behind them.
func sealed(s *schemas.Stream, row *record.Row) *record.Row {
	values := row.Values[len(s.Derived):]
	content := record.NewHasher(s).Content(values)
	key := content
	var at int64
	if s.Shape == schemas.Events {
		at = values[s.Index(s.TimeField)].Int
		key = record.KeyOf(at, content)
	}
	natural := record.RawHash(values[s.Index("id")].Bytes)
	row.Hash = content
	for i, f := range s.Derived {
		row.Values[i] = map[string]record.Value{
			"natural_key":   {Valid: true, Bytes: natural[:]},
			"record_key":    {Valid: true, Bytes: key[:]},
			"ordinal":       {Valid: true},
			"window_id":     {Valid: true, Int: 7},
			"event_date":    {Valid: true, Int: int64(record.DateOf(time.UnixMicro(at), time.UTC))},
			"first_seen":    {Valid: true, Int: 1_709_251_200_000_000},
			"valid_from":    {Valid: true, Int: 1_709_251_200_000_000},
			"opened_reason": {Valid: true, Bytes: []byte("appeared")},
		}[f.Name]
	}
	return row
}

// listRows yields n rows of a test stream, the same for the same seed. Every field that may be is now NULL, now empty, now extreme; one
// row is reused for all.
func listRows(s *schemas.Stream, n int, seed uint64) func(yield func(*record.Row) bool) {
	p := partitionOf(s)
	return func(yield func(*record.Row) bool) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		row := record.NewRow(s.Stored())
		for i := range n {
			for f, field := range s.Fields {
				v := record.Value{Valid: true}
				switch field.Type {
				case schemas.Integer, schemas.Date:
					v.Int = [...]int64{math.MinInt32, math.MaxInt32, 0, rnd.Int64N(100)}[rnd.IntN(4)]
				case schemas.Bigint, schemas.Timestamp:
					v.Int = [...]int64{math.MinInt64, math.MaxInt64, 0, rnd.Int64()}[rnd.IntN(4)]
				case schemas.Float:
					heat := [...]float64{-math.MaxFloat64, math.SmallestNonzeroFloat64, 0, rnd.NormFloat64()}[rnd.IntN(4)]
					v.Int = int64(math.Float64bits(heat))
				case schemas.Decimal:
					v.Bytes = record.AppendInt128(nil, int128(randomAmount(rnd)))
				case schemas.UUID:
					id := record.RawHash(fmt.Append(nil, rnd.Uint64()))
					v.Bytes = id[:]
				case schemas.JSON:
					v.Bytes = fmt.Appendf(nil, `{"n":%d}`, rnd.IntN(1000))
				default:
					v.Bytes = fmt.Appendf(nil, "%.*s", rnd.IntN(9), "ä€\x00 text")
				}
				switch {
				case field.Name == s.TimeField:
					v.Int = p.From.Time(time.UTC).UnixMicro() + rnd.Int64N(31*86400e6)
				case field.Name == "id":
					v.Bytes = fmt.Appendf(nil, "row-%07d", i)
				case rnd.IntN(4) == 0:
					v = record.Value{}
				}
				row.Values[len(s.Derived)+f] = v
			}
			if !yield(sealed(s, row)) {
				return
			}
		}
	}
}

// fakeDatabase is several streams' stores that feed one lake.
type fakeDatabase struct {
	pins   fakeStore // holds the lake's id
	stores []*fakeStore
}

// sharedStore is the store of one stream of a fakeDatabase.
type sharedStore struct {
	*fakeStore
	db *fakeDatabase
}

// AnyExported tells whether a stream has a file.
func (s sharedStore) AnyExported(context.Context) (bool, error) {
	if err := s.step("any exported"); err != nil {
		return false, err
	}
	return slices.ContainsFunc(s.db.stores, func(f *fakeStore) bool {
		return slices.ContainsFunc(f.parts, func(p *fakePartition) bool { return p.state.File.SHA256 != "" })
	}), nil
}

func (s sharedStore) PinLake(ctx context.Context, id string) (string, error) {
	return s.db.pins.PinLake(ctx, id)
}

func (db *fakeDatabase) add(s *fakeStore) sharedStore {
	db.stores = append(db.stores, s)
	return sharedStore{s, db}
}

// share is one stream's lake with the store that feeds it.
type share struct {
	lake  *parquet.Lake
	store sharedStore
}

// shares is a lake with the metering records and every test stream, none of them exported yet.
func shares(t testing.TB, dir string) map[string]share {
	t.Helper()
	db := &fakeDatabase{pins: fakeStore{lakeID: "11111111-2222-4333-8444-555555555555"}}
	all := map[string]share{"sdr": {sdrLake(t, dir), db.add(twoSites())}}
	for i, name := range []string{eventsName, snapshotName, historyName} {
		s, store := stream(t, name), &fakeStore{}
		store.publish(partitionOf(s), listRows(s, 30, uint64(i)))
		all[name] = share{listLake(t, dir, s), db.add(store)}
	}
	return all
}

func exportAll(t testing.TB, all map[string]share, opt parquet.ExportOptions, order ...string) {
	t.Helper()
	for _, name := range order {
		export(t, all[name].lake, all[name].store, opt)
	}
}

func allDifferences(t testing.TB, all map[string]share) string {
	t.Helper()
	var text []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if found := differences(t, all[name].lake, all[name].store); found != "" {
			text = append(text, name+": "+found)
		}
	}
	return strings.Join(text, "\n")
}

func readManifest(t testing.TB, dir, stream string) parquet.Manifest {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "_meta", stream, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m parquet.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLists(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ file, partition string }{
		eventsName:   {eventsFile, "2024-03"},
		snapshotName: {snapshotFile, "whole"},
		historyName:  {historyFile, "whole"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, dir, store := stream(t, name), filepath.Join(t.TempDir(), "lake"), &fakeStore{}
			lake, rows := listLake(t, dir, s), listRows(s, parquet.BatchRows+77, 5)
			store.publish(partitionOf(s), rows)
			sum := export(t, lake, store, parquet.ExportOptions{})
			files := tree(t, dir)
			if got, want := slices.Sorted(maps.Keys(files)), []string{identity, "_meta/" + name + "/manifest.json", want.file}; !slices.Equal(got, want) {
				t.Errorf("got files %v, want %v", got, want)
			}
			if got := differences(t, lake, store); got != "" {
				t.Errorf("a fresh lake has differences:\n%s", got)
			}

			hasher := record.NewHasher(s.Stored())
			var digest record.Digest
			first, last := int64(math.MaxInt64), int64(math.MinInt64)
			for row := range rows {
				digest.Add(hasher.Content(row.Values))
				if i := s.Stored().Index(s.TimeField); i >= 0 {
					first, last = min(first, row.Values[i].Int), max(last, row.Values[i].Int)
				}
			}
			if got := sum.Exported[0].File; got.Rows != digest.Count || got.Digest != digest.Sum() || got != store.parts[0].state.File {
				t.Errorf("got %+v, want %s", got, digest)
			}
			m := readManifest(t, dir, name)
			e := m.Files[0]
			if e.Path != want.file || e.Partition != want.partition || e.Site != "tenant" || e.SchemaVersion != 3 || m.SchemaVersion != 3 || m.Stream != name {
				t.Errorf("got manifest %+v", m)
			}
			if strings.Contains(files["_meta/"+name+"/manifest.json"], "factor") {
				t.Errorf("the manifest speaks of factors: %s", files["_meta/"+name+"/manifest.json"])
			}
			var wantMin, wantMax string
			if s.Shape == schemas.Events {
				const micros = "2006-01-02T15:04:05.000000Z"
				wantMin, wantMax = time.UnixMicro(first).UTC().Format(micros), time.UnixMicro(last).UTC().Format(micros)
			}
			if e.MinTime != wantMin || e.MaxTime != wantMax {
				t.Errorf("got the times [%s, %s], want [%s, %s]", e.MinTime, e.MaxTime, wantMin, wantMax)
			}
			if totals, err := lake.Totals(t.Context()); totals != nil || err != nil {
				t.Errorf("got totals %v (%v) of a stream without factors", totals, err)
			}

			for _, all := range []bool{false, true} {
				if sum := export(t, lake, store, parquet.ExportOptions{All: all}); sum.Bytes != 0 {
					t.Errorf("a second export (all %t) wrote %+v", all, sum)
				}
			}
			sameTrees(t, tree(t, dir), files)

			again, elsewhere := &fakeStore{lakeID: store.lakeID}, filepath.Join(t.TempDir(), "lake")
			again.publish(partitionOf(s), rows)
			export(t, listLake(t, elsewhere, s), again, parquet.ExportOptions{})
			sameTrees(t, tree(t, elsewhere), files)
		})
	}
}

func TestListColumns(t *testing.T) {
	t.Parallel()
	for name, derived := range map[string]string{
		eventsName:   "event_date! window_id! record_key! ordinal! occurred!",
		snapshotName: "natural_key! record_key! ordinal! first_seen!",
		historyName:  "natural_key! record_key! valid_from! valid_to opened_reason! closed_reason absent_since",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stream(t, name)
			var out bytes.Buffer
			if err := listLake(t, t.TempDir(), s).WriteRows(t.Context(), partitionOf(s), &out, valid(listRows(s, 10, 1))); err != nil {
				t.Fatal(err)
			}
			pf := parse(t, out.Bytes())
			var got []string
			for i := range pf.MetaData().Schema.NumColumns() {
				c := pf.MetaData().Schema.Column(i)
				column := c.Name()
				if strings.EqualFold(c.SchemaNode().RepetitionType().String(), "required") {
					column += "!"
				}
				got = append(got, column)
			}
			want := derived + " id! level size ratio heat day reference seen note extra"
			if strings.Join(got, " ") != want {
				t.Errorf("got columns %v, want %s (! is NOT NULL)", got, want)
			}
			meta := pf.MetaData().KeyValueMetadata()
			for key, want := range map[string]string{"sdr_sync.stream": name, "sdr_sync.schema_version": "3", "sdr_sync.title": "A list of tests"} {
				if v := meta.FindValue(key); v == nil || *v != want {
					t.Errorf("file metadata %s: got %v, want %q", key, v, want)
				}
			}
		})
	}
}

// TestListStatistics compares the bounds in files with those of the rows, over batches and row groups.
func TestListStatistics(t *testing.T) {
	t.Parallel()
	for _, name := range []string{eventsName, snapshotName, historyName} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stream(t, name)
			rows := listRows(s, parquet.SmallGroupRows+parquet.BatchRows+7, 2)
			var out bytes.Buffer
			if err := listLake(t, t.TempDir(), s).WriteRows(t.Context(), partitionOf(s), &out, valid(rows)); err != nil {
				t.Fatal(err)
			}
			columns := s.Stored().Fields
			want := [][]columnBounds{make([]columnBounds, len(columns)), make([]columnBounds, len(columns))}
			n := 0
			for row := range rows {
				for i, c := range columns {
					b, v := &want[n/parquet.SmallGroupRows][i], row.Values[i]
					if !v.Valid {
						b.nulls++
						continue
					}
					b.include(orderedValue(c.Type, v))
				}
				n++
			}
			pf := parse(t, out.Bytes())
			if pf.NumRowGroups() != len(want) {
				t.Fatalf("got %d row groups, want %d", pf.NumRowGroups(), len(want))
			}
			for g := range want {
				for i, c := range columns {
					chunk, err := pf.MetaData().RowGroup(g).ColumnChunk(i)
					if err != nil {
						t.Fatal(err)
					}
					if got, want := storedBounds(t, chunk), want[g][i]; !bytes.Equal(got.min, want.min) || !bytes.Equal(got.max, want.max) || got.nulls != want.nulls {
						t.Errorf("row group %d, column %s: got [%x, %x] and %d NULLs, want [%x, %x] and %d",
							g, c.Name, got.min, got.max, got.nulls, want.min, want.max, want.nulls)
					}
				}
			}
		})
	}
}

func TestEventsByDay(t *testing.T) {
	t.Parallel()
	s := stream(t, eventsName)
	cfg := config(filepath.Join(t.TempDir(), "lake"))
	cfg.Stream, cfg.Unit = s, pipeline.Day
	lake, err := parquet.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	store := &fakeStore{}
	for day, n := range map[string]int{"2024-03-05": 1, "2024-03-06": 0} {
		p := month(pipeline.Tenant.Site, day)
		p.Unit = pipeline.Day
		store.publish(p, func(yield func(*record.Row) bool) {
			for row := range listRows(s, n, 1) {
				row.Values[s.Stored().Index("occurred")].Int = p.From.Time(time.UTC).UnixMicro() + 1
				yield(sealed(s, row))
			}
		})
	}
	export(t, lake, store, parquet.ExportOptions{})
	for _, day := range []string{"2024-03-05", "2024-03-06"} {
		if tree(t, lake.Dir())["test_events/event_date="+day+"/data.parquet"] == "" {
			t.Errorf("got %v, want a file of %s", slices.Sorted(maps.Keys(tree(t, lake.Dir()))), day)
		}
	}
	if got := differences(t, lake, store); got != "" {
		t.Error(got)
	}
}

// TestListWithFactors exports a list that carries amounts as the metering records do.
func TestListWithFactors(t *testing.T) {
	t.Parallel()
	s := declare(t, eventsName, schemas.Events, byTime,
		"occurred timestamp required", "id text required", "accumulate_factor_name text", "accumulate_factor_value decimal")
	store, dir := &fakeStore{}, filepath.Join(t.TempDir(), "lake")
	store.publish(partitionOf(s), func(yield func(*record.Row) bool) {
		i := 0
		for row := range listRows(s, 4, 1) {
			row.Values[s.Stored().Index("accumulate_factor_name")] = record.Value{Valid: true, Bytes: []byte("Duration")}
			row.Values[s.Stored().Index("accumulate_factor_value")] = record.Value{Valid: i > 0, Bytes: []byte("0.000000000001")}
			if i++; !yield(sealed(s, row)) {
				return
			}
		}
	})
	lake := listLake(t, dir, s)
	export(t, lake, store, parquet.ExportOptions{})
	want := map[string]parquet.FactorSum{"Duration": {Records: 4, Sum: "0.000000000003", NullAmounts: 1}}
	if got := readManifest(t, dir, eventsName).Files[0].Factors; !maps.Equal(got, want) {
		t.Errorf("got factors %v, want %v", got, want)
	}
	if got, err := lake.Totals(t.Context()); err != nil || !maps.Equal(got, want) {
		t.Errorf("got totals %v (%v), want %v", got, err, want)
	}
	if got := differences(t, lake, store); got != "" {
		t.Error(got)
	}
}

// TestStreamsShareALake exports streams into one folder in every order that matters: nothing of one may move, mar or miss another's.
func TestStreamsShareALake(t *testing.T) {
	t.Parallel()
	alone := filepath.Join(t.TempDir(), "lake")
	sdr := twoSites()
	sdr.lakeID = "11111111-2222-4333-8444-555555555555"
	export(t, open(t, alone), sdr, parquet.ExportOptions{})
	var first map[string]string
	for _, order := range [][]string{
		{"sdr", eventsName, snapshotName, historyName},
		{historyName, snapshotName, eventsName, "sdr"},
		{snapshotName, "sdr", historyName, eventsName},
	} {
		dir := filepath.Join(t.TempDir(), "lake")
		all := shares(t, dir)
		exportAll(t, all, parquet.ExportOptions{}, order...)
		files := tree(t, dir)
		for path, want := range tree(t, alone) {
			if files[path] != want {
				t.Errorf("order %v: %s is not what the metering records alone give", order, path)
			}
		}
		for _, path := range []string{eventsFile, snapshotFile, historyFile} {
			if files[path] == "" {
				t.Errorf("order %v: %s is missing", order, path)
			}
		}
		if got := allDifferences(t, all); got != "" {
			t.Errorf("order %v:\n%s", order, got)
		}
		exportAll(t, all, parquet.ExportOptions{}, order...)
		sameTrees(t, tree(t, dir), files)
		if first == nil {
			first = files
		}
		sameTrees(t, files, first)
	}
}

// TestEveryStreamHasItsPlace exports an empty partition of every stream of the program into one lake.
func TestEveryStreamHasItsPlace(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	lakeID := "11111111-2222-4333-8444-555555555555"
	lakes, stores := map[string]*parquet.Lake{}, map[string]*fakeStore{}
	for _, s := range schemas.All() {
		cfg := config(dir)
		cfg.Stream = s
		lake, err := parquet.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		p := partitionOf(s)
		if !s.IsList() {
			p = month("hcso-213", "2024-03")
		}
		store := &fakeStore{lakeID: lakeID}
		store.publish(p, none)
		export(t, lake, store, parquet.ExportOptions{})
		lakes[s.Name], stores[s.Name] = lake, store
	}
	files := tree(t, dir)
	for name, lake := range lakes {
		m := readManifest(t, dir, name)
		if len(m.Files) != 1 || files[m.Files[0].Path] == "" || !strings.HasPrefix(m.Files[0].Path, name+"/") {
			t.Errorf("%s: got files %+v, want one in its folder", name, m.Files)
		}
		if got := differences(t, lake, stores[name]); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestLakeFromBeforeLists gives a list the lake.json that a program wrote which knew the metering records alone.
func TestLakeFromBeforeLists(t *testing.T) {
	t.Parallel()
	const old = `{
  "lake_id": "11111111-2222-4333-8444-555555555555",
  "format_version": 1,
  "partition": "month",
  "domain_id": "domain-1",
  "source_timezone": "UTC",
  "stream": "sdr",
  "schema_version": 1
}
`
	dir := filepath.Join(t.TempDir(), "lake")
	write(t, filepath.Join(dir, identity), []byte(old))
	all := shares(t, dir)
	exportAll(t, all, parquet.ExportOptions{}, historyName, "sdr")
	if got := tree(t, dir)[identity]; got != old {
		t.Errorf("got lake.json %s, want it untouched", got)
	}
	if got := differences(t, all[historyName].lake, all[historyName].store); got != "" {
		t.Error(got)
	}
}

func TestStreamThatWasNeverPulledLeavesNoTrace(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	all := shares(t, dir)
	for _, name := range []string{"sdr", eventsName} {
		all[name].store.parts = nil
		exportAll(t, all, parquet.ExportOptions{}, name)
		if got := tree(t, filepath.Dir(dir)); len(got) != 0 {
			t.Errorf("%s: a lake was begun for nothing: %v", name, slices.Sorted(maps.Keys(got)))
		}
	}
	exportAll(t, all, parquet.ExportOptions{}, snapshotName)
	want := tree(t, dir)
	exportAll(t, all, parquet.ExportOptions{}, "sdr", eventsName)
	sameTrees(t, tree(t, dir), want)
	if got := allDifferences(t, map[string]share{"sdr": all["sdr"], eventsName: all[eventsName]}); got != "" {
		t.Error(got)
	}
}

// TestLakeIsMissingForEveryStream takes the lake away, as an unmounted disk does: no stream may begin a new one in its place.
func TestLakeIsMissingForEveryStream(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ exported, asked string }{
		"a list had files, the same list is exported":           {eventsName, eventsName},
		"metering records had files, a list is exported first":  {"sdr", historyName},
		"a list had files, metering records are exported first": {snapshotName, "sdr"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "lake")
			all := shares(t, dir)
			exportAll(t, all, parquet.ExportOptions{}, tt.exported)
			for _, p := range all[tt.asked].store.parts {
				p.state.DirtySeq++ // else an export would have nothing to do
			}
			remove(t, dir)
			remove(t, dir+".staging")
			asked := all[tt.asked]
			if err := asked.lake.Belongs(t.Context(), asked.store); !errors.Is(err, parquet.ErrLakeMissing) {
				t.Errorf("Belongs: got %v, want %v", err, parquet.ErrLakeMissing)
			}
			if _, err := asked.lake.Export(t.Context(), asked.store, parquet.ExportOptions{}); !errors.Is(err, parquet.ErrLakeMissing) {
				t.Errorf("Export: got %v, want %v", err, parquet.ErrLakeMissing)
			}
			if got := tree(t, filepath.Dir(dir)); len(got) != 0 {
				t.Errorf("a refused export left %v", slices.Sorted(maps.Keys(got)))
			}
			// Rebuilt by one stream, the others find their files missing.
			exportAll(t, all, parquet.ExportOptions{All: true}, tt.asked)
			exportAll(t, all, parquet.ExportOptions{}, "sdr", eventsName, snapshotName, historyName)
			if got := allDifferences(t, all); got != "" {
				t.Error(got)
			}
		})
	}
	t.Run("the ledger can't say", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "lake")
		asked := shares(t, dir)[eventsName]
		asked.store.hook(func(call string) error {
			if call == "any exported" {
				return errStore
			}
			return nil
		})
		if _, err := asked.lake.Export(t.Context(), asked.store, parquet.ExportOptions{}); !errors.Is(err, errStore) {
			t.Errorf("got %v, want %v", err, errStore)
		}
	})
}

func TestListInTheWrongLake(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(t *testing.T, dir string, one *share, cfg *parquet.Config)
		want   string
	}{
		"another database": {func(_ *testing.T, _ string, one *share, _ *parquet.Config) {
			one.store.db = &fakeDatabase{pins: fakeStore{lakeID: "lake-2"}}
		}, "lake-2"},
		"another partition scheme": {func(_ *testing.T, _ string, _ *share, cfg *parquet.Config) { cfg.Unit = pipeline.Day }, `"day"`},
		"another zone":             {func(_ *testing.T, _ string, _ *share, cfg *parquet.Config) { cfg.SourceZone = "Asia/Shanghai" }, "Shanghai"},
		"another domain":           {func(_ *testing.T, _ string, _ *share, cfg *parquet.Config) { cfg.DomainID = "domain-2" }, "domain-2"},
		"a newer lake": {func(t *testing.T, dir string, _ *share, _ *parquet.Config) {
			edit(t, filepath.Join(dir, identity), func(m map[string]any) { m["schema_version"] = 99 })
		}, "schema 99"},
		"somebody else's folder": {func(t *testing.T, dir string, one *share, _ *parquet.Config) {
			remove(t, dir)
			write(t, filepath.Join(dir, "photos", "1.jpg"), nil)
			one.store.db = &fakeDatabase{}
			one.store.parts[0].state.File = pipeline.FileFacts{}
		}, "photos"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "lake")
			all := shares(t, dir)
			exportAll(t, all, parquet.ExportOptions{}, "sdr", historyName)
			one, cfg := all[historyName], config(dir)
			cfg.Stream = stream(t, historyName)
			tt.change(t, dir, &one, &cfg)
			want := tree(t, dir)
			lake, err := parquet.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			for call, err := range map[string]error{
				"Belongs": lake.Belongs(t.Context(), one.store),
				"Export": func() error {
					_, err := lake.Export(t.Context(), one.store, parquet.ExportOptions{})
					return err
				}(),
			} {
				if !errors.Is(err, parquet.ErrLakeMismatch) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: got %v, want %v naming %s", call, err, parquet.ErrLakeMismatch, tt.want)
				}
			}
			sameTrees(t, tree(t, dir), want)
		})
	}
}

// TestListHeals damages a list's part of a shared lake, has an audit of that list alone find it, and has an export bring it back.
func TestListHeals(t *testing.T) {
	t.Parallel()
	files := map[string]string{eventsName: eventsFile, snapshotName: snapshotFile, historyName: historyFile}
	entry := func(t *testing.T, dir, name, key string, value any) {
		edit(t, filepath.Join(dir, "_meta", name, "manifest.json"), func(m map[string]any) { m["files"].([]any)[0].(map[string]any)[key] = value })
	}
	tests := map[string]struct {
		damage func(t *testing.T, dir, name string, s *fakeStore)
		want   string
		all    bool
	}{
		"file gone": {damage: func(t *testing.T, dir, name string, _ *fakeStore) { remove(t, filepath.Join(dir, files[name])) }, want: "missing"},
		"a bit flipped": {damage: func(t *testing.T, dir, name string, _ *fakeStore) {
			path := filepath.Join(dir, files[name])
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			write(t, path, b)
		}, want: "bytes changed", all: true},
		"manifest gone": {damage: func(t *testing.T, dir, name string, _ *fakeStore) { remove(t, filepath.Join(dir, "_meta", name)) }, want: "manifest can't be used"},
		"entry with another digest": {damage: func(t *testing.T, dir, name string, s *fakeStore) {
			wrong := strings.Repeat("0", 32)
			entry(t, dir, name, "digest", wrong)
			s.parts[0].state.File.Digest = wrong
		}, want: "the file's columns give", all: true},
		"entry of an old schema": {damage: func(t *testing.T, dir, name string, _ *fakeStore) { entry(t, dir, name, "schema_version", 2) }, want: "schema 2"},
		"dirty":                  {damage: func(_ *testing.T, _, _ string, s *fakeStore) { s.parts[0].state.ExportedSeq = 0 }, want: "dirty"},
	}
	for name, tt := range tests {
		for streamName := range files {
			t.Run(name+"/"+streamName, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "lake")
				all := shares(t, dir)
				exportAll(t, all, parquet.ExportOptions{}, "sdr", eventsName, snapshotName, historyName)
				want, one := tree(t, dir), all[streamName]

				tt.damage(t, dir, streamName, one.store.fakeStore)
				command := "sdr-sync export"
				if tt.all {
					command += " --all"
				}
				if got := differences(t, one.lake, one.store); !strings.Contains(got, tt.want) || !strings.Contains(got, "(repair: "+command+")") {
					t.Errorf("got differences %q, want %q and the repair %q", got, tt.want, command)
				}
				delete(all, streamName)
				if got := allDifferences(t, all); got != "" {
					t.Errorf("other streams differ too:\n%s", got)
				}
				export(t, one.lake, one.store, parquet.ExportOptions{All: tt.all})
				sameTrees(t, tree(t, dir), want)
				if got := differences(t, one.lake, one.store); got != "" {
					t.Errorf("after the repair:\n%s", got)
				}
			})
		}
	}
}

// TestCheckReadsTheColumnsOfLists swaps a file for a well-formed one with one value changed, and makes manifest and ledger agree with its
// bytes, so that only the columns can show it.
func TestCheckReadsTheColumnsOfLists(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{eventsName: eventsFile, snapshotName: snapshotFile, historyName: historyFile} {
		for _, column := range []string{"level", "size", "ratio", "heat", "day", "reference", "seen", "note", "extra", "ordinal", "valid_from"} {
			s := stream(t, name)
			i := s.Stored().Index(column)
			if i < 0 {
				continue
			}
			t.Run(name+"/"+column, func(t *testing.T) {
				t.Parallel()
				changed := func(yield func(*record.Row) bool) {
					first := true
					for row := range listRows(s, 30, 1) {
						if first {
							first = false
							v := &row.Values[i]
							*v = record.Value{Valid: true, Int: v.Int ^ 1, Bytes: map[schemas.Type][]byte{
								schemas.Text: []byte("other"), schemas.Decimal: []byte("42"), schemas.UUID: []byte("0123456789abcdef"),
							}[s.Stored().Fields[i].Type]}
							if i >= len(s.Derived) {
								sealed(s, row) // the liar knows about record keys
							}
						}
						if !yield(row) {
							return
						}
					}
				}
				dir, store, liar := filepath.Join(t.TempDir(), "lake"), &fakeStore{}, &fakeStore{}
				lake := listLake(t, dir, s)
				store.publish(partitionOf(s), listRows(s, 30, 1))
				export(t, lake, store, parquet.ExportOptions{})
				liars := listLake(t, filepath.Join(t.TempDir(), "lake"), s)
				liar.publish(partitionOf(s), changed)
				facts := export(t, liars, liar, parquet.ExportOptions{}).Exported[0].File
				write(t, filepath.Join(dir, file), []byte(tree(t, liars.Dir())[file]))
				edit(t, filepath.Join(dir, "_meta", name, "manifest.json"), func(m map[string]any) {
					e := m["files"].([]any)[0].(map[string]any)
					e["bytes"], e["sha256"] = facts.Bytes, facts.SHA256
				})
				store.parts[0].state.File.Bytes, store.parts[0].state.File.SHA256 = facts.Bytes, facts.SHA256
				if got := differences(t, lake, store); !strings.Contains(got, "the file's columns give") {
					t.Errorf("got differences %q, want the digest's", got)
				}
			})
		}
	}
}

func TestForeignFilesOfStreams(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		path string
		of   string // who must report it, and nobody else
	}{
		"beside a list's file":               {"test_snapshot/copy.parquet", snapshotName},
		"below a list's folder":              {"test_snapshot/old/data.parquet", snapshotName},
		"a month that the ledger lacks":      {"test_events/event_month=2024-04/data.parquet", eventsName},
		"beside a list's manifest":           {"_meta/test_history/copy.parquet", historyName},
		"beside a metering record's file":    {"sdr/site=hcso-213/copy.parquet", "sdr"},
		"in no stream's folder":              {"archive/copy.parquet", "sdr"},
		"at the top":                         {"copy.parquet", "sdr"},
		"beside lake.json":                   {"_meta/copy.parquet", "sdr"},
		"a folder with a list's name inside": {"archive/test_events/copy.parquet", "sdr"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "lake")
			all := shares(t, dir)
			exportAll(t, all, parquet.ExportOptions{}, "sdr", eventsName, snapshotName, historyName)
			write(t, filepath.Join(dir, tt.path), []byte("x"))
			for streamName, one := range all {
				_, err := one.lake.Export(t.Context(), one.store, parquet.ExportOptions{})
				if got, want := errors.Is(err, parquet.ErrForeignFile) && strings.Contains(err.Error(), tt.path), streamName == tt.of; got != want || !want && err != nil {
					t.Errorf("export of %s: got %v, want it to name the file: %t", streamName, err, want)
				}
				if got, want := differences(t, one.lake, one.store), streamName == tt.of; strings.Contains(got, tt.path) != want || !want && got != "" {
					t.Errorf("check of %s: got %q, want it to name the file: %t", streamName, got, want)
				}
			}
		})
	}
}

func TestListPartitionsThatCannotBe(t *testing.T) {
	t.Parallel()
	day := month(pipeline.Tenant.Site, "2024-03-05")
	day.Unit = pipeline.Day
	later := wholeList
	later.From = 1
	tests := map[string]struct {
		stream string
		p      pipeline.Partition
		want   string
	}{
		"events of a site":                   {eventsName, month("hcso-213", "2024-03"), "no such partition"},
		"events by days in a lake by months": {eventsName, day, "by day"},
		"events as a whole":                  {eventsName, wholeList, "by whole"},
		"a snapshot by months":               {snapshotName, month(pipeline.Tenant.Site, "2024-03"), "by month"},
		"a history of a site":                {historyName, pipeline.Partition{Site: "hcso-213", Unit: pipeline.Whole}, "no such partition"},
		"a second whole of a history":        {historyName, later, "no such partition"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent, store := t.TempDir(), &fakeStore{}
			store.publish(tt.p, none)
			_, err := listLake(t, filepath.Join(parent, "lake"), stream(t, tt.stream)).Export(t.Context(), store, parquet.ExportOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.stream) {
				t.Errorf("got %v, want an error with %q and the stream", err, tt.want)
			}
			if got := tree(t, parent); len(got) != 0 {
				t.Errorf("files were written: %v", slices.Collect(maps.Keys(got)))
			}
		})
	}
}

func TestBrokenRowsOfLists(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		stream string
		spoil  func(s *schemas.Stream, set func(name string, v record.Value))
		seal   bool // the key is that of the spoilt values
		want   string
	}{
		"a value changed under its key": {historyName, func(_ *schemas.Stream, set func(string, record.Value)) {
			set("note", record.Value{Valid: true, Bytes: []byte("other")})
		}, false, "record key"},
		"a key without its time": {eventsName, func(s *schemas.Stream, set func(string, record.Value)) {
			set("record_key", record.Value{Valid: true, Bytes: make([]byte, 16)})
		}, false, "record key"},
		"an event of another month": {eventsName, func(_ *schemas.Stream, set func(string, record.Value)) {
			set("occurred", record.Value{Valid: true, Int: month("x", "2024-04").From.Time(time.UTC).UnixMicro()})
		}, true, "another partition"},
		"a required field that is NULL": {snapshotName, func(_ *schemas.Stream, set func(string, record.Value)) {
			set("id", record.Value{})
		}, true, "id is NULL"},
		"a derived column that is NULL": {historyName, func(_ *schemas.Stream, set func(string, record.Value)) {
			set("valid_from", record.Value{})
		}, false, "valid_from is NULL"},
		"half a UUID": {snapshotName, func(_ *schemas.Stream, set func(string, record.Value)) {
			set("reference", record.Value{Valid: true, Bytes: []byte("12345678")})
		}, true, "reference: 3132333435363738 is no UUID"},
		"an integer of 33 bits": {snapshotName, func(_ *schemas.Stream, set func(string, record.Value)) {
			set("level", record.Value{Valid: true, Int: math.MaxInt32 + 1})
		}, true, "level: 2147483648"},
		"a decimal that is none": {snapshotName, func(_ *schemas.Stream, set func(string, record.Value)) {
			set("ratio", record.Value{Valid: true, Bytes: []byte("1x")})
		}, true, "ratio"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stream(t, tt.stream)
			rows := func(yield func(*record.Row, error) bool) {
				n := 0
				for row := range listRows(s, 10, 1) {
					if n++; n == 5 {
						tt.spoil(s, func(name string, v record.Value) { row.Values[s.Stored().Index(name)] = v })
						if tt.seal {
							sealed(s, row)
						}
					}
					if !yield(row, nil) {
						return
					}
				}
			}
			err := listLake(t, t.TempDir(), s).WriteRows(t.Context(), partitionOf(s), io.Discard, rows)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "row 5, key ") {
				t.Errorf("got %v, want an error about row 5 and %q", err, tt.want)
			}
		})
	}
}

// TestCrashOfAList stops the export of a changed list beside metering records before its k-th step, for every k.
func TestCrashOfAList(t *testing.T) {
	t.Parallel()
	killed := errors.New("killed here")
	setup := func(t *testing.T) (string, share) {
		dir := filepath.Join(t.TempDir(), "lake")
		all := shares(t, dir)
		exportAll(t, all, parquet.ExportOptions{}, "sdr", historyName)
		one := all[historyName]
		one.store.publish(wholeList, listRows(stream(t, historyName), 40, 9))
		return dir, one
	}
	dir, one := setup(t)
	before, steps := tree(t, dir), 0
	count := everyStep(func() error { steps++; return nil })
	one.lake.SetStepHook(count)
	one.store.hook(func(call string) error { return count(call, "") })
	export(t, one.lake, one.store, parquet.ExportOptions{})
	want, ledger := tree(t, dir), states(one.store.fakeStore)
	if steps < 10 || want[historyFile] == before[historyFile] {
		t.Fatalf("an export took %d steps and changed the file: %t", steps, want[historyFile] != before[historyFile])
	}
	for k := 1; k <= steps; k++ {
		dir, one := setup(t)
		n := 0
		hook := everyStep(func() error {
			if n++; n >= k {
				return killed
			}
			return nil
		})
		one.lake.SetStepHook(hook)
		one.store.hook(func(call string) error { return hook(call, "") })
		if _, err := one.lake.Export(t.Context(), one.store, parquet.ExportOptions{}); !errors.Is(err, killed) {
			t.Errorf("step %d: got %v, want %v", k, err, killed)
		}
		for path, content := range tree(t, dir) {
			if strings.HasSuffix(path, ".parquet") && content != before[path] && content != want[path] {
				t.Errorf("step %d: %s is neither the old file nor the new", k, path)
			}
		}
		one.lake.SetStepHook(nil)
		one.store.hook(nil)
		export(t, one.lake, one.store, parquet.ExportOptions{})
		sameTrees(t, tree(t, dir), want)
		if got := states(one.store.fakeStore); got != ledger {
			t.Errorf("step %d: got ledger\n%s\nwant\n%s", k, got, ledger)
		}
	}
}

func TestOpenWantsTheDeclaredStream(t *testing.T) {
	t.Parallel()
	cfg := config(filepath.Join(t.TempDir(), "lake"))
	cfg.Stream = stream(t, eventsName).Stored()
	if _, err := parquet.Open(cfg); err == nil || !strings.Contains(err.Error(), eventsName) {
		t.Errorf("got %v, want the stored form to be refused", err)
	}
	if _, err := os.Stat(cfg.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open wrote: %v", err)
	}
}

// TestBytesOfThisWriter pins the bytes of files: a lake would be rewritten where they change, so WriterVersion must tell. Texts of
// sdr.yaml are in the bytes too; where only they changed, the hash here may just be replaced.
func TestBytesOfThisWriter(t *testing.T) {
	t.Parallel()
	p := month("hcso-213", "2024-03")
	got := map[string]string{"sdr": fmt.Sprintf("%x", sha256.Sum256(encode(t, p, usage(p, 1000, 1))))}
	for _, name := range []string{eventsName, snapshotName, historyName} {
		var out bytes.Buffer
		s := stream(t, name)
		if err := listLake(t, t.TempDir(), s).WriteRows(t.Context(), partitionOf(s), &out, valid(listRows(s, 1000, 1))); err != nil {
			t.Fatal(err)
		}
		got[name] = fmt.Sprintf("%x", sha256.Sum256(out.Bytes()))
	}
	for name, want := range map[string]string{
		"sdr":        "5e2d1ffa6cf0a0c20a64df8ba7d2a4ed73dc483aaada3fba1833895ec9596cbb",
		eventsName:   "dc98a2ae336dbd9c6e4d3c283f8005037b55fab050b755688dcbd583e4d44193",
		snapshotName: "b4a18a10ea3c98cbc5563b3e583a5f83fcac48756b088027a4b67720f7a27389",
		historyName:  "dd081a7e2026d622495bffbd16fd2d4875acdd524b1c107cc03896a727036776",
	} {
		if got[name] != want {
			t.Errorf("%s: got SHA-256 %s, want %s of %s", name, got[name], want, parquet.WriterVersion)
		}
	}
}
