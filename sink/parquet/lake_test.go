package parquet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(dir string) parquet.Config {
	return parquet.Config{Dir: dir, Stream: schemas.SDR(), Unit: pipeline.Month, DomainID: "domain-1", SourceZone: "UTC"}
}

func open(t testing.TB, dir string) *parquet.Lake {
	t.Helper()
	lake, err := parquet.Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	return lake
}

func export(t testing.TB, lake *parquet.Lake, store pipeline.PartitionStore, opt parquet.ExportOptions) parquet.Summary {
	t.Helper()
	sum, err := lake.Export(t.Context(), store, opt)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// differences has package verify audit the lake, and returns the findings as one text.
func differences(t testing.TB, lake *parquet.Lake, store pipeline.PartitionStore) string {
	t.Helper()
	cfg := lake.Config()
	zone, err := time.LoadLocation(cfg.SourceZone)
	if err != nil {
		t.Fatal(err)
	}
	states, err := store.Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var files []verify.File
	for _, s := range states {
		files = append(files, verify.File{
			Stream: cfg.Stream.Name, Partition: verify.Partition{Site: s.Site, From: s.From.Time(time.UTC)}, Unit: string(s.Unit), DirtySeq: s.DirtySeq,
			ExportedSeq: s.ExportedSeq, Rows: s.File.Rows, Bytes: s.File.Bytes, Digest: s.File.Digest, SHA256: s.File.SHA256, Archived: s.Archived,
		})
	}
	id, err := store.PinLake(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	streams := []*schemas.Stream{cfg.Stream}
	for _, name := range lake.Others() {
		if name != cfg.Stream.Name {
			streams = append(streams, &schemas.Stream{Name: name})
		}
	}
	report, err := verify.Files(t.Context(), verify.Config{
		Lake: cfg.Dir, Streams: streams, SourceZone: zone, PartitionUnit: string(cfg.Unit), DomainID: cfg.DomainID,
	}, verify.Only{{Stream: cfg.Stream.Name}}, id, files)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, d := range report.Differences {
		text = append(text, fmt.Sprintf("%s: %s (repair: %s)", strings.TrimPrefix(d.Where, "lake "), d.What, d.Repair))
	}
	return strings.Join(text, "\n")
}

// twoSites is a store with three partitions of two sites, the second emptied.
func twoSites() *fakeStore {
	s := &fakeStore{}
	march, april, other := month("hcso-213", "2024-03"), month("hcso-213", "2024-04"), month("hcso-214", "2024-03")
	s.publish(march, usage(march, 1000, 1))
	s.publish(april, none)
	s.publish(other, usage(other, 50, 2))
	return s
}

const (
	marchFile = "sdr/site=hcso-213/usage_month=2024-03/data.parquet"
	aprilFile = "sdr/site=hcso-213/usage_month=2024-04/data.parquet"
	otherFile = "sdr/site=hcso-214/usage_month=2024-03/data.parquet"
	manifest  = "_meta/sdr/manifest.json"
	identity  = "_meta/lake.json"
)

// tree returns every file below dir with its content.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(b)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

// sameTrees compares two trees, lake ids aside.
func sameTrees(t testing.TB, got, want map[string]string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			t.Errorf("%s: got %d bytes, want %d others", path, len(got[path]), len(want[path]))
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is there, and should not be", path)
		}
	}
}

func edit(t testing.TB, path string, change func(map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	change(v)
	if text, err = json.Marshal(v); err != nil {
		t.Fatal(err)
	}
	write(t, path, text)
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o640); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), nil)
	write(t, filepath.Join(dir, "lake.staging"), nil)
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	odd := *schemas.SDR()
	odd.Name = "../sdr"
	tests := map[string]struct {
		change func(*parquet.Config)
		want   string
	}{
		"no folder":             {func(c *parquet.Config) { c.Dir = "" }, "folder is not set"},
		"no stream":             {func(c *parquet.Config) { c.Stream = nil }, "stream is not set"},
		"a stream with a slash": {func(c *parquet.Config) { c.Stream = &odd }, "../sdr"},
		"an unknown partition":  {func(c *parquet.Config) { c.Unit = "week" }, `"week"`},
		"no domain":             {func(c *parquet.Config) { c.DomainID = "" }, "domain id"},
		"no zone":               {func(c *parquet.Config) { c.SourceZone = "" }, "time zone"},
		"a file system's root":  {func(c *parquet.Config) { c.Dir = "/" }, "root"},
		"a file":                {func(c *parquet.Config) { c.Dir = filepath.Join(dir, "file") }, "not a folder"},
		"staging is a file":     {func(c *parquet.Config) { c.Dir = filepath.Join(dir, "lake") }, "lake.staging is not a folder"},
		"a dangling link":       {func(c *parquet.Config) { c.Dir = filepath.Join(dir, "dangling") }, "not mounted"},
		"no parent":             {func(c *parquet.Config) { c.Dir = filepath.Join(dir, "a", "b") }, "parent folder must exist"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(filepath.Join(dir, "new"))
			tt.change(&cfg)
			if _, err := parquet.Open(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	lake, store := open(t, dir), twoSites()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open wrote: %v", err)
	}
	var progress []int64
	sum := export(t, lake, store, parquet.ExportOptions{Progress: func(_ pipeline.Partition, done, _ int64) { progress = append(progress, done) }})
	if len(sum.Exported) != 3 || sum.Clean != 0 || sum.Rows != 1050 || sum.LakeID != store.lakeID {
		t.Errorf("got summary %+v", sum)
	}
	if !slices.Equal(progress, []int64{1000, 50}) {
		t.Errorf("got progress %v, want one call for each batch", progress)
	}
	files := tree(t, dir)
	if got, want := slices.Sorted(maps.Keys(files)), []string{identity, manifest, marchFile, aprilFile, otherFile}; !slices.Equal(got, want) {
		t.Errorf("got files %v, want %v", got, want)
	}
	if got := differences(t, lake, store); got != "" {
		t.Errorf("a fresh lake has differences:\n%s", got)
	}
	for _, p := range store.parts {
		if p.state.ExportedSeq != p.state.DirtySeq || p.state.File.SHA256 == "" {
			t.Errorf("the ledger does not know that %s was exported: %+v", p.state.Partition, p.state)
		}
	}

	var m parquet.Manifest
	if err := json.Unmarshal([]byte(files[manifest]), &m); err != nil {
		t.Fatal(err)
	}
	march, april := m.Files[0], m.Files[1]
	if march.Rows != 1000 || march.MinTime != "2024-03-01T00:00:00.000000Z" || len(march.Windows) != 1 || march.DirtySeq != 1 ||
		march.Facts() != store.parts[0].state.File {
		t.Errorf("got manifest entry %+v", march)
	}
	if got, want := march.Factors, sumsOf(t, store.parts[0].rows); !maps.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if april.Rows != 0 || april.MinTime != "" || april.Digest != (record.Digest{}).Sum() {
		t.Errorf("got manifest entry of an empty file %+v", april)
	}
	for path, want := range map[string]fs.FileMode{marchFile: 0o640, "sdr/site=hcso-213": 0o750} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm()&^want != 0 {
			t.Errorf("%s: got mode %v, want no more than %v (%v)", path, info.Mode(), want, err)
		}
	}
}

// sumsOf adds the amounts of each factor by another way than the package does.
func sumsOf(t testing.TB, rows func(yield func(*record.Row) bool)) map[string]parquet.FactorSum {
	t.Helper()
	s := schemas.SDR()
	sums, totals := map[string]parquet.FactorSum{}, map[string]*big.Rat{}
	for row := range rows {
		name, value := string(row.Values[s.Index("accumulate_factor_name")].Bytes), row.Values[s.Index("accumulate_factor_value")]
		sum := sums[name]
		sum.Records++
		if totals[name] == nil {
			totals[name] = new(big.Rat)
		}
		if !value.Valid {
			sum.NullAmounts++
		} else if amount, ok := new(big.Rat).SetString(string(value.Bytes)); ok {
			totals[name].Add(totals[name], amount)
		} else {
			t.Fatalf("%q is no amount", value.Bytes)
		}
		sums[name] = sum
	}
	for name, sum := range sums {
		sum.Sum = totals[name].FloatString(12)
		sum.Sum = strings.TrimSuffix(strings.TrimRight(sum.Sum, "0"), ".")
		sums[name] = sum
	}
	return sums
}

func TestSecondExportChangesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	lake, store := open(t, dir), twoSites()
	export(t, lake, store, parquet.ExportOptions{})
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	for path := range tree(t, dir) {
		if err := os.Chtimes(filepath.Join(dir, path), old, old); err != nil {
			t.Fatal(err)
		}
	}
	untouched := func(but ...string) {
		t.Helper()
		for path := range tree(t, dir) {
			info, err := os.Stat(filepath.Join(dir, path))
			if err != nil {
				t.Fatal(err)
			}
			if touched := !info.ModTime().Equal(old); touched != slices.Contains(but, path) {
				t.Errorf("%s: touched: got %t", path, touched)
			}
		}
	}
	if sum := export(t, lake, store, parquet.ExportOptions{}); len(sum.Exported) != 0 || sum.Clean != 3 {
		t.Errorf("got summary %+v", sum)
	}
	untouched()
	if sum := export(t, lake, store, parquet.ExportOptions{All: true}); len(sum.Exported) != 3 || sum.Exported[0].Written || sum.Bytes != 0 {
		t.Errorf("got summary %+v", sum)
	}
	untouched()

	// A new generation with equal rows: the ledger and the manifest learn of it, the file stays.
	march := month("hcso-213", "2024-03")
	store.publish(march, usage(march, 1000, 1))
	export(t, lake, store, parquet.ExportOptions{})
	untouched(manifest)
	if s := store.parts[0].state; s.ExportedSeq != 2 {
		t.Errorf("got exported seq %d, want 2", s.ExportedSeq)
	}
	if got := differences(t, lake, store); got != "" {
		t.Error(got)
	}
}

func TestExportOfSites(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	lake, store := open(t, dir), twoSites()
	export(t, lake, store, parquet.ExportOptions{Sites: []string{"hcso-214"}})
	files := tree(t, dir)
	if files[otherFile] == "" || files[marchFile] != "" {
		t.Errorf("got %v, want only the files of hcso-214", slices.Sorted(maps.Keys(files)))
	}
	if got := differences(t, lake, store); !strings.Contains(got, "dirty") || strings.Contains(got, otherFile) {
		t.Errorf("got differences:\n%s", got)
	}
	export(t, lake, store, parquet.ExportOptions{})
	if got := differences(t, lake, store); got != "" {
		t.Error(got)
	}
}

func TestDays(t *testing.T) {
	t.Parallel()
	cfg := config(filepath.Join(t.TempDir(), "lake"))
	cfg.Unit = pipeline.Day
	lake, err := parquet.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	store := &fakeStore{}
	day := month("hcso-213", "2024-03-05")
	day.Unit = pipeline.Day
	store.publish(day, usage(day, 100, 1))
	export(t, lake, store, parquet.ExportOptions{})
	if got := tree(t, lake.Dir()); got["sdr/site=hcso-213/usage_date=2024-03-05/data.parquet"] == "" {
		t.Errorf("got %v", slices.Sorted(maps.Keys(got)))
	}
	if got := differences(t, lake, store); got != "" {
		t.Error(got)
	}
}

// TestHeals damages a lake, has Check find it and name a command, and has that command bring back the undamaged lake.
func TestHeals(t *testing.T) {
	t.Parallel()
	flip := func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		write(t, path, b)
	}
	entry := func(name string, value any) func(m map[string]any) {
		return func(m map[string]any) { m["files"].([]any)[0].(map[string]any)[name] = value }
	}
	tests := map[string]struct {
		damage func(t *testing.T, dir string, s *fakeStore)
		want   string
		repair string // "" is sdr-sync export
	}{
		"file gone":        {damage: func(t *testing.T, dir string, _ *fakeStore) { remove(t, filepath.Join(dir, marchFile)) }, want: "missing"},
		"site folder gone": {damage: func(t *testing.T, dir string, _ *fakeStore) { remove(t, filepath.Join(dir, "sdr/site=hcso-213")) }, want: "missing"},
		"file cut": {damage: func(t *testing.T, dir string, _ *fakeStore) {
			if err := os.Truncate(filepath.Join(dir, marchFile), 100); err != nil {
				t.Fatal(err)
			}
		}, want: "bytes changed", repair: "--all --scope hcso-213"},
		"a bit flipped": {
			damage: func(t *testing.T, dir string, _ *fakeStore) { flip(t, filepath.Join(dir, marchFile)) },
			want:   "bytes changed", repair: "--all --scope hcso-213",
		},
		"manifest gone": {damage: func(t *testing.T, dir string, _ *fakeStore) { remove(t, filepath.Join(dir, manifest)) }, want: "manifest can't be used"},
		"manifest torn": {damage: func(t *testing.T, dir string, _ *fakeStore) {
			write(t, filepath.Join(dir, manifest), []byte("{"))
		}, want: "manifest can't be used"},
		"manifest of another lake": {damage: func(t *testing.T, dir string, _ *fakeStore) {
			edit(t, filepath.Join(dir, manifest), func(m map[string]any) { m["lake_id"] = "x" })
		}, want: "belongs to lake x"},
		"entry gone": {damage: func(t *testing.T, dir string, _ *fakeStore) {
			edit(t, filepath.Join(dir, manifest), func(m map[string]any) { m["files"] = m["files"].([]any)[1:] })
		}, want: "does not name"},
		"entry with other rows": {damage: func(t *testing.T, dir string, _ *fakeStore) {
			edit(t, filepath.Join(dir, manifest), entry("rows", 999))
		}, want: "manifest and ledger disagree"},
		"entry with another minimum": {damage: func(t *testing.T, dir string, _ *fakeStore) {
			edit(t, filepath.Join(dir, manifest), entry("min_begin_time", "2024-03-02T00:00:00.000000Z"))
		}, want: "min_begin_time", repair: "--all --scope hcso-213"},
		"entry with another sum": {damage: func(t *testing.T, dir string, _ *fakeStore) {
			edit(t, filepath.Join(dir, manifest), entry("factors", map[string]any{"Duration": map[string]any{"records": 1800, "sum": "6476401"}}))
		}, want: `factor "Duration"`, repair: "--all --scope hcso-213"},
		"entry of an old schema": {damage: func(t *testing.T, dir string, _ *fakeStore) {
			edit(t, filepath.Join(dir, manifest), entry("schema_version", 0))
		}, want: "schema 0"},
		"ledger rolled back": {damage: func(_ *testing.T, _ string, s *fakeStore) {
			s.parts[0].state.File.SHA256 = strings.Repeat("0", 64)
		}, want: "manifest and ledger disagree"},
		"dirty": {damage: func(_ *testing.T, _ string, s *fakeStore) { s.parts[0].state.ExportedSeq = 0 }, want: "dirty"},
		"left in staging": {damage: func(t *testing.T, dir string, s *fakeStore) {
			write(t, filepath.Join(dir+".staging", "old", "x.parquet"), []byte("half"))
			s.parts[0].state.ExportedSeq = 0
		}, want: "dirty"},
		"lake gone": {
			damage: func(t *testing.T, dir string, _ *fakeStore) { remove(t, dir) },
			want:   "holds no lake", repair: "--all",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "lake")
			lake, store := open(t, dir), twoSites()
			export(t, lake, store, parquet.ExportOptions{})
			want, lakeID := tree(t, dir), store.lakeID

			tt.damage(t, dir, store)
			command := strings.TrimSpace("sdr-sync export " + tt.repair)
			if got := differences(t, lake, store); !strings.Contains(got, tt.want) || !strings.Contains(got, "(repair: "+command+")") {
				t.Errorf("got differences %q, want %q and the repair %q", got, tt.want, command)
			}
			opt := parquet.ExportOptions{All: strings.Contains(tt.repair, "--all")}
			if strings.Contains(tt.repair, "--scope") {
				opt.Sites = []string{"hcso-213"}
			}
			export(t, lake, store, opt)
			sameTrees(t, tree(t, dir), want)
			if store.lakeID != lakeID {
				t.Errorf("got lake id %s, want %s", store.lakeID, lakeID)
			}
			if got := differences(t, lake, store); got != "" {
				t.Errorf("after the repair:\n%s", got)
			}
			if got := slices.Sorted(maps.Keys(tree(t, dir+".staging"))); !slices.Equal(got, []string{"lock"}) {
				t.Errorf("staging still holds %v", got)
			}
		})
	}
}

// TestCheckReadsTheColumns swaps a file for a well-formed one with other rows and makes manifest and ledger agree with its bytes, so that
// only the columns can show it.
func TestCheckReadsTheColumns(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	lake, store := open(t, dir), twoSites()
	export(t, lake, store, parquet.ExportOptions{})

	march := month("hcso-213", "2024-03")
	liar := &fakeStore{}
	liar.publish(march, usage(march, 1000, 99))
	liars := open(t, filepath.Join(t.TempDir(), "lake"))
	sum := export(t, liars, liar, parquet.ExportOptions{})
	text, err := os.ReadFile(filepath.Join(liars.Dir(), marchFile))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, marchFile), text)
	edit(t, filepath.Join(dir, manifest), func(m map[string]any) {
		e := m["files"].([]any)[0].(map[string]any)
		e["bytes"], e["sha256"] = sum.Exported[0].File.Bytes, sum.Exported[0].File.SHA256
	})
	store.parts[0].state.File.Bytes, store.parts[0].state.File.SHA256 = sum.Exported[0].File.Bytes, sum.Exported[0].File.SHA256

	got := differences(t, lake, store)
	for _, want := range []string{"the file's columns give", `factor "size"`, "--all --scope hcso-213"} {
		if !strings.Contains(got, want) {
			t.Errorf("got differences:\n%s\nwant one with %q", got, want)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	lake, store := open(t, dir), twoSites()
	export(t, lake, store, parquet.ExportOptions{})
	foreign := "sdr/site=hcso-213/usage_month=2024-03/copy.Parquet"
	write(t, filepath.Join(dir, foreign), []byte("x"))
	write(t, filepath.Join(dir, "notes.txt"), []byte("x"))
	if _, err := lake.Export(t.Context(), store, parquet.ExportOptions{}); !errors.Is(err, parquet.ErrForeignFile) ||
		!strings.Contains(err.Error(), foreign) || strings.Contains(err.Error(), "notes") {
		t.Errorf("got %v, want %v naming the Parquet file alone", err, parquet.ErrForeignFile)
	}
	if got := differences(t, lake, store); !strings.Contains(got, foreign) || !strings.Contains(got, "notes.txt") {
		t.Errorf("got differences:\n%s", got)
	}
	store.parts = store.parts[1:] // a partition that the ledger forgot
	if got := differences(t, lake, store); !strings.Contains(got, marchFile+": the manifest names it") {
		t.Errorf("got differences:\n%s", got)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(t *testing.T, cfg *parquet.Config, s *fakeStore)
		want   error
		text   []string
	}{
		"another partition scheme": {func(_ *testing.T, cfg *parquet.Config, _ *fakeStore) { cfg.Unit = pipeline.Day }, parquet.ErrLakeMismatch, []string{`"month"`, `"day"`}},
		"another domain":           {func(_ *testing.T, cfg *parquet.Config, _ *fakeStore) { cfg.DomainID = "domain-2" }, parquet.ErrLakeMismatch, []string{`"domain-1"`, `"domain-2"`}},
		"another zone": {func(_ *testing.T, cfg *parquet.Config, _ *fakeStore) { cfg.SourceZone = "Asia/Shanghai" }, parquet.ErrLakeMismatch, []string{
			`"UTC"`, `"Asia/Shanghai"`,
		}},
		"another lake": {func(_ *testing.T, _ *parquet.Config, s *fakeStore) { s.lakeID = "lake-2" }, parquet.ErrLakeMismatch, []string{"lake-2"}},
		"a newer lake": {func(t *testing.T, cfg *parquet.Config, _ *fakeStore) {
			edit(t, filepath.Join(cfg.Dir, identity), func(m map[string]any) { m["format_version"] = 99 })
		}, parquet.ErrLakeMismatch, []string{"format 99"}},
		"the lake is gone": {func(t *testing.T, cfg *parquet.Config, _ *fakeStore) { remove(t, cfg.Dir) }, parquet.ErrLakeMissing, []string{"mount", "export --all"}},
		"the lake is empty": {func(t *testing.T, cfg *parquet.Config, _ *fakeStore) {
			remove(t, cfg.Dir)
			write(t, filepath.Join(cfg.Dir, "lost+found", "x"), nil)
		}, parquet.ErrLakeMissing, nil},
		"a folder of somebody else": {func(t *testing.T, cfg *parquet.Config, s *fakeStore) {
			*s = *twoSites()
			remove(t, filepath.Join(cfg.Dir, "_meta"))
		}, parquet.ErrLakeMismatch, []string{"not empty", `"sdr"`}},
		"a ledger by days": {func(_ *testing.T, _ *parquet.Config, s *fakeStore) { s.parts[2].state.Unit = pipeline.Day }, parquet.ErrLakeMismatch, []string{"day", "month"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(filepath.Join(t.TempDir(), "lake"))
			store := twoSites()
			export(t, open(t, cfg.Dir), store, parquet.ExportOptions{})
			tt.change(t, &cfg, store)
			remove(t, cfg.Dir+".staging")
			want := tree(t, cfg.Dir)
			lake, err := parquet.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, err = lake.Export(t.Context(), store, parquet.ExportOptions{})
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			for _, text := range tt.text {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("got %v, want it to name %s", err, text)
				}
			}
			sameTrees(t, tree(t, cfg.Dir), want)
			if _, err := os.Stat(cfg.Dir + ".staging"); err == nil && name != "another lake" {
				t.Error("a refused export left a staging folder")
			}
		})
	}
}

func TestBadSiteNeverReachesAPath(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"", ".", "..", "a/b", "../x", "a b", "a=b", strings.Repeat("a", 37), "x\x00"} {
		t.Run(fmt.Sprintf("%q", site), func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			store := &fakeStore{}
			p := month(site, "2024-03")
			store.publish(p, none)
			if _, err := open(t, filepath.Join(parent, "lake")).Export(t.Context(), store, parquet.ExportOptions{}); err == nil {
				t.Error("got no error")
			}
			if got := tree(t, parent); len(got) != 0 {
				t.Errorf("files were written: %v", slices.Collect(maps.Keys(got)))
			}
		})
	}
}

func TestLinksLeadNowhere(t *testing.T) {
	t.Parallel()
	dir, outside := filepath.Join(t.TempDir(), "lake"), t.TempDir()
	lake, store := open(t, dir), twoSites()
	export(t, lake, store, parquet.ExportOptions{})
	remove(t, filepath.Join(dir, "sdr/site=hcso-213"))
	if err := os.Symlink(outside, filepath.Join(dir, "sdr/site=hcso-213")); err != nil {
		t.Fatal(err)
	}
	if _, err := lake.Export(t.Context(), store, parquet.ExportOptions{All: true}); err == nil {
		t.Error("a link out of the lake was followed")
	}
	if got := tree(t, outside); len(got) != 0 {
		t.Errorf("files were written outside: %v", slices.Collect(maps.Keys(got)))
	}
}

func TestLakeOnItsOwnMount(t *testing.T) {
	t.Parallel()
	lake := open(t, filepath.Join(t.TempDir(), "lake"))
	lake.SetStepHook(func(step, name string) error {
		if step == "rename" { // what the kernel says there
			return &os.LinkError{Op: "renameat", Old: name, New: name, Err: syscall.EXDEV}
		}
		return nil
	})
	_, err := lake.Export(t.Context(), twoSites(), parquet.ExportOptions{})
	if !errors.Is(err, syscall.EXDEV) || !strings.Contains(err.Error(), "parquet.dir") || !strings.Contains(err.Error(), filepath.Join(lake.Dir(), "lake")) {
		t.Errorf("got %v, want it to name parquet.dir and a folder to use", err)
	}
}

func TestFailedExportLeavesNoStagedFile(t *testing.T) {
	t.Parallel()
	lake, store := open(t, filepath.Join(t.TempDir(), "lake")), twoSites()
	lake.SetStepHook(func(step, name string) error {
		if step == "rename" && strings.HasSuffix(name, marchFile) {
			return syscall.ENOSPC
		}
		return nil
	})
	if _, err := lake.Export(t.Context(), store, parquet.ExportOptions{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want %v", err, syscall.ENOSPC)
	}
	if got := slices.Sorted(maps.Keys(tree(t, lake.Dir()+".staging"))); !slices.Equal(got, []string{"lock"}) {
		t.Errorf("staging holds %v: on a full disk that would stay", got)
	}
}

func TestLakeBehindALink(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(disk, filepath.Join(parent, "lake")); err != nil {
		t.Fatal(err)
	}
	lake, store := open(t, filepath.Join(parent, "lake")), twoSites()
	export(t, lake, store, parquet.ExportOptions{})
	if tree(t, disk)[marchFile] == "" || lake.Dir() != disk {
		t.Errorf("the lake is at %s, want %s", lake.Dir(), disk)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	cfg := config(dir)
	patient := cfg
	patient.LockWait = time.Minute
	store := twoSites()
	tests := map[string]func() error{
		"a second export fails": func() error {
			_, err := open(t, dir).Export(t.Context(), twoSites(), parquet.ExportOptions{})
			return err
		},
	}
	waited := make(chan error, 1)
	asked := make(chan struct{})
	store.before = func(call string) error {
		if call != "mark" || store.lakeID == "" {
			return nil
		}
		store.hook(nil)
		for name, second := range tests {
			if err := second(); !errors.Is(err, parquet.ErrLakeLocked) {
				t.Errorf("%s: got %v, want %v", name, err, parquet.ErrLakeLocked)
			}
		}
		go func() { // waits, and gets its turn
			lake, err := parquet.Open(patient)
			if err == nil {
				second := &fakeStore{lakeID: store.lakeID, parts: twoSites().parts}
				once := false
				second.before = func(string) error {
					if !once {
						once = true
						close(asked)
					}
					return nil
				}
				_, err = lake.Export(t.Context(), second, parquet.ExportOptions{})
			}
			waited <- err
		}()
		<-asked
		return nil
	}
	export(t, open(t, dir), store, parquet.ExportOptions{})
	if err := <-waited; err != nil {
		t.Errorf("a patient export: got %v", err)
	}
	if got := differences(t, open(t, dir), store); got != "" {
		t.Error(got)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("asked to stop")
	store = &fakeStore{lakeID: store.lakeID, parts: twoSites().parts}
	store.before = func(call string) error {
		if call != "mark" {
			return nil
		}
		store.hook(nil)
		cancel(stop)
		lake, err := parquet.Open(patient)
		if err != nil {
			return err
		}
		if _, err := lake.Export(ctx, twoSites(), parquet.ExportOptions{}); !errors.Is(err, stop) {
			t.Errorf("a cancelled wait: got %v, want %v", err, stop)
		}
		return nil
	}
	export(t, open(t, dir), store, parquet.ExportOptions{})
}

// republished is a store with March restated and April no longer empty: what the crash tests export over a first lake.
func republished(s *fakeStore) {
	march, april := month("hcso-213", "2024-03"), month("hcso-213", "2024-04")
	s.publish(march, usage(march, 90, 5))
	s.publish(april, usage(april, 50, 6))
}

// TestCrash stops an export before its k-th step, for every k, as a kill does (nothing after it happens) and as a passing fault does
// (only that step fails). Readers must find whole files at any time, and the next export must complete what the first did not.
func TestCrash(t *testing.T) {
	t.Parallel()
	const lakeID = "11111111-2222-4333-8444-555555555555"
	older := filepath.Join(t.TempDir(), "lake")
	published := twoSites()
	published.lakeID = lakeID
	export(t, open(t, older), published, parquet.ExportOptions{})
	setups := map[string]func(t *testing.T, dir string) *fakeStore{
		"a first export": func(*testing.T, string) *fakeStore {
			s := twoSites()
			s.lakeID = lakeID
			return s
		},
		"an export over an older lake": func(t *testing.T, dir string) *fakeStore {
			if err := os.CopyFS(dir, os.DirFS(older)); err != nil {
				t.Fatal(err)
			}
			s := twoSites()
			s.lakeID = lakeID
			for i, p := range published.parts {
				s.parts[i].state = p.state
			}
			return s
		},
	}
	killed := errors.New("killed here")
	for name, fill := range setups {
		setup := func(t *testing.T, dir string) (*parquet.Lake, *fakeStore) {
			store := fill(t, dir)
			republished(store)
			return open(t, dir), store
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "lake")
			lake, store := setup(t, dir)
			before := tree(t, dir)
			steps := 0
			stops := everyStep(func() error { steps++; return nil })
			lake.SetStepHook(stops)
			store.hook(func(call string) error { return stops(call, "") })
			export(t, lake, store, parquet.ExportOptions{})
			lake.SetStepHook(nil)
			store.hook(nil)
			want, ledger := tree(t, dir), states(store)
			if steps < 20 {
				t.Fatalf("an export took only %d steps", steps)
			}

			for k := 1; k <= steps; k++ {
				for _, dead := range []bool{true, false} {
					dir := filepath.Join(t.TempDir(), "lake")
					lake, store := setup(t, dir)
					n := 0
					hook := everyStep(func() error {
						n++
						if n == k || dead && n > k {
							return killed
						}
						return nil
					})
					lake.SetStepHook(hook)
					store.hook(func(call string) error { return hook(call, "") })
					if _, err := lake.Export(t.Context(), store, parquet.ExportOptions{}); !errors.Is(err, killed) {
						t.Errorf("step %d (dead %t): got %v, want %v", k, dead, err, killed)
					}
					for path, content := range tree(t, dir) {
						if strings.HasSuffix(path, ".parquet") && content != before[path] && content != want[path] {
							t.Errorf("step %d (dead %t): %s is neither the old file nor the new", k, dead, path)
						}
					}
					lake.SetStepHook(nil)
					store.hook(nil)
					export(t, lake, store, parquet.ExportOptions{})
					sameTrees(t, tree(t, dir), want)
					if got := states(store); got != ledger {
						t.Errorf("step %d (dead %t): got ledger\n%s\nwant\n%s", k, dead, got, ledger)
					}
					if got := slices.Sorted(maps.Keys(tree(t, dir+".staging"))); !slices.Equal(got, []string{"lock"}) {
						t.Errorf("step %d (dead %t): staging still holds %v", k, dead, got)
					}
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// everyStep calls stop before each step of an export, but for 15 of 16 writes: they are all alike here.
func everyStep(stop func() error) func(step, name string) error {
	var mu sync.Mutex // the next partition is read while one is written
	writes := 0
	return func(step, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if step == "write" {
			if writes++; writes%16 != 1 {
				return nil
			}
		}
		return stop()
	}
}

// states writes the ledger as text.
func states(s *fakeStore) string {
	var text []string
	for _, p := range s.parts {
		text = append(text, fmt.Sprintf("%+v", p.state))
	}
	return strings.Join(text, "\n")
}

func TestRowsThatBreakOff(t *testing.T) {
	t.Parallel()
	for _, at := range []int{0, 1, parquet.BatchRows - 1, parquet.BatchRows, parquet.BatchRows + 1, 2*parquet.BatchRows + 5} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "lake")
			p := month("hcso-213", "2024-03")
			store := &fakeStore{}
			store.publish(p, usage(p, 3*parquet.BatchRows, 1))
			store.rowErr = func(n int) error {
				if n == at {
					return errStore
				}
				return nil
			}
			lake := open(t, dir)
			if _, err := lake.Export(t.Context(), store, parquet.ExportOptions{}); !errors.Is(err, errStore) {
				t.Fatalf("got %v, want %v", err, errStore)
			}
			if got := tree(t, dir)[marchFile]; got != "" {
				t.Error("half a file was published")
			}
			if s := store.parts[0].state; s.ExportedSeq != 0 {
				t.Error("half a file was marked exported")
			}
			store.rowErr = nil
			export(t, lake, store, parquet.ExportOptions{})
			if got := differences(t, lake, store); got != "" {
				t.Error(got)
			}
		})
	}
}

// TestFilesAreReadBack changes the staged file behind the writer's back, as a bad disk does.
func TestFilesAreReadBack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	lake, store := open(t, dir), twoSites()
	lake.SetStepHook(func(step, name string) error {
		if step != "sync" || !strings.HasSuffix(name, ".parquet") {
			return nil
		}
		staged := filepath.Join(filepath.Dir(dir), "lake.staging", filepath.Base(name))
		b, err := os.ReadFile(staged)
		if err != nil {
			return err
		}
		b[len(b)/3] ^= 1
		return os.WriteFile(staged, b, 0o640)
	})
	if _, err := lake.Export(t.Context(), store, parquet.ExportOptions{}); err == nil || !strings.Contains(err.Error(), "read back") {
		t.Errorf("got %v, want the changed byte to be found", err)
	}
	if got := tree(t, dir)[marchFile]; got != "" {
		t.Error("the bad file was published")
	}
}

// TestValuesSurvive exports rows of every kind and compares what Check's reader gets: the digest is over all values.
func TestValuesSurvive(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	p := month("hcso-213", "2024-03")
	store := &fakeStore{}
	rows := wild(p, parquet.RowGroupRows+parquet.BatchRows+3, 11, nil)
	store.publish(p, rows)
	lake := open(t, dir)
	sum := export(t, lake, store, parquet.ExportOptions{})
	var want record.Digest
	for row := range rows {
		want.Add(row.Hash)
	}
	if got := sum.Exported[0].File; got.Digest != want.Sum() || got.Rows != want.Count {
		t.Errorf("got %+v, want %s", got, want)
	}
	if got := differences(t, lake, store); got != "" {
		t.Error(got)
	}
	if !strings.Contains(tree(t, dir)[manifest], `"no_factor"`) {
		t.Error("the manifest has no sum of the records without a factor")
	}
}
