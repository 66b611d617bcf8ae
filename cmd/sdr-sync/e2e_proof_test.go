package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// share is what one factor of one usage date comes to.
type share struct {
	records string
	sum     string // exact, without trailing zeros
}

// shares are by usage date and factor: "2024-03-01 Duration".
type shares map[string]share

// differ complains about every entry in which got is not want.
func (want shares) differ(t testing.TB, where string, got shares) {
	t.Helper()
	complaints := 0
	for key := range merged(want, got) {
		if got[key] == want[key] {
			continue
		}
		if complaints++; complaints <= 5 {
			t.Errorf("%s, %s: got %+v, want %+v", where, key, got[key], want[key])
		}
	}
	if complaints > 5 {
		t.Errorf("%s: %d more differences", where, complaints-5)
	}
}

func merged[M ~map[string]V, V any](a, b M) map[string]bool {
	keys := map[string]bool{}
	for _, m := range []M{a, b} {
		for k := range m {
			keys[k] = true
		}
	}
	return keys
}

// proof compares what the vendor holds in the file dates [from, to) with Postgres and with Parquet, in counts and exact sums, and
// the manifest with the files on disk. All three are read with nothing of the program's own.
func (w *world) proof(from, to string) {
	w.t.Helper()
	w.proofOf(theScope.Site, theScope.Region, from, to)
}

func (w *world) proofOf(site, region, from, to string) {
	w.t.Helper()
	truth := w.vendor.Truth(site, region, date(from), date(to))
	want := shares{}
	for _, d := range truth.Days {
		want[d.UsageDate+" "+d.Factor] = share{fmt.Sprint(d.Records), d.Sum}
	}
	want.differ(w.t, "billing.sdr", w.shares(`
		SELECT usage_date::text, accumulate_factor_name, count(*), trim_scale(coalesce(sum(accumulate_factor_value), 0)) FROM billing.sdr GROUP BY 1, 2`))
	want.differ(w.t, "billing.usage_daily", w.shares(`
		SELECT usage_date::text, accumulate_factor_name, sum(records), trim_scale(sum(accumulate_factor_value)) FROM billing.usage_daily GROUP BY 1, 2`))
	want.differ(w.t, "Parquet", w.parquetShares())

	rejected := map[string]string{}
	for _, row := range w.ask(`
		SELECT coalesce(nullif(field, ''), reason), count(*) FROM sdr_sync.quarantine JOIN sdr_sync.window USING (window_id) WHERE stream = 'sdr' GROUP BY 1`) {
		rejected[row[0]] = row[1]
	}
	for reason, n := range truth.Rejected {
		if rejected[reason] != fmt.Sprint(n) {
			w.t.Errorf("quarantine: got %q records for %s, want %d", rejected[reason], reason, n)
		}
		delete(rejected, reason)
	}
	if len(rejected) > 0 {
		w.t.Errorf("quarantine: got %v that the vendor has not", rejected)
	}
	got := w.ask(`SELECT coalesce(sum(records), 0), coalesce(sum(missing_amounts), 0), coalesce(sum(quarantined), 0) FROM sdr_sync.window
		WHERE stream = 'sdr' AND retired_at IS NULL`)[0]
	if ledger := fmt.Sprint(truth.Records, truth.NoAmount, truth.RejectedTotal()); strings.Join(got, " ") != ledger {
		w.t.Errorf("ledger: got %v records, missing amounts and quarantined, want %s", got, ledger)
	}
	if truth.Records == 0 {
		w.t.Error("the vendor holds nothing: this proves nothing")
	}
}

// shares reads the answer of a query: usage date, factor, records, sum.
func (w *world) shares(query string) shares {
	w.t.Helper()
	all := shares{}
	for _, row := range w.ask(query) {
		all[row[0]+" "+row[1]] = share{row[2], row[3]}
	}
	return all
}

// lakeManifest is what the tests look at in manifest.json.
type lakeManifest struct {
	Files []struct {
		Path   string `json:"path"`
		Rows   int64  `json:"rows"`
		Bytes  int64  `json:"bytes"`
		SHA256 string `json:"sha256"`
	} `json:"files"`
}

func (w *world) lake() string { return w.settings["parquet.dir"] }

func (w *world) manifestPath() string { return w.manifestPathOf("sdr") }

func (w *world) manifestPathOf(stream string) string {
	return filepath.Join(w.lake(), "_meta", stream, "manifest.json")
}

// manifest reads the lake's manifest of a stream and complains unless it names exactly the stream's files on disk, with their bytes.
func (w *world) manifest(stream string) lakeManifest {
	w.t.Helper()
	var m lakeManifest
	if err := json.Unmarshal([]byte(read(w.t, w.manifestPathOf(stream))), &m); err != nil {
		w.t.Fatal(err)
	}
	var named []string
	for _, f := range m.Files {
		named = append(named, f.Path)
		content := read(w.t, filepath.Join(w.lake(), f.Path))
		sum := sha256.Sum256([]byte(content))
		if got := hex.EncodeToString(sum[:]); got != f.SHA256 || int64(len(content)) != f.Bytes {
			w.t.Errorf("%s has %d bytes with SHA-256 %s, the manifest says %d with %s", f.Path, len(content), got, f.Bytes, f.SHA256)
		}
	}
	onDisk := slices.DeleteFunc(files(w.t, w.lake()), func(path string) bool {
		first, rest, _ := strings.Cut(path, "/")
		if first == "_meta" {
			owner, isManifest := strings.CutSuffix(rest, "/manifest.json")
			return rest == "lake.json" || isManifest && schemas.ByName(owner) != nil
		}
		return first != stream && schemas.ByName(first) != nil
	})
	slices.Sort(named)
	if !slices.Equal(onDisk, named) {
		w.t.Errorf("the lake holds %v, the manifest names %v", onDisk, named)
	}
	return m
}

// files lists the files below a folder, sorted, relative to it. Without the folder there are none.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && !d.IsDir() {
			relative, _ := filepath.Rel(dir, path)
			all = append(all, filepath.ToSlash(relative))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// identity names a record: no two may share it.
type identity struct {
	window  int64
	key     [16]byte
	ordinal int32
}

// parquetShares sums up every file that the manifest names, column by column, and complains about records that stand twice.
func (w *world) parquetShares() shares {
	w.t.Helper()
	type total struct {
		records int64
		sum     big.Int // in units of 1e-12
	}
	totals := map[string]*total{}
	seen := map[identity]bool{}
	for _, f := range w.manifest("sdr").Files {
		rows := int64(0)
		readColumns(w.t, filepath.Join(w.lake(), f.Path), func(r arrow.Record) {
			dates, windows := column[*array.Date32](w.t, r, "usage_date"), column[*array.Int64](w.t, r, "window_id")
			keys, ordinals := column[*array.FixedSizeBinary](w.t, r, "record_key"), column[*array.Int32](w.t, r, "ordinal")
			factors := column[*array.String](w.t, r, "accumulate_factor_name")
			amounts := column[*array.Decimal128](w.t, r, "accumulate_factor_value")
			for i := range int(r.NumRows()) {
				id := identity{windows.Value(i), [16]byte(keys.Value(i)), ordinals.Value(i)}
				if seen[id] {
					w.t.Errorf("%s: the record %v stands there twice", f.Path, id)
				}
				seen[id] = true
				name := dates.Value(i).ToTime().Format("2006-01-02") + " " + factors.Value(i)
				if totals[name] == nil {
					totals[name] = &total{}
				}
				totals[name].records++
				if !amounts.IsNull(i) {
					totals[name].sum.Add(&totals[name].sum, amounts.Value(i).BigInt())
				}
			}
			rows += r.NumRows()
		})
		if rows != f.Rows {
			w.t.Errorf("%s has %d rows, the manifest says %d", f.Path, rows, f.Rows)
		}
	}
	all := shares{}
	for name, t := range totals {
		all[name] = share{fmt.Sprint(t.records), plain(&t.sum)}
	}
	return all
}

// plain writes a number of 1e-12 without trailing zeros.
func plain(n *big.Int) string {
	text := new(big.Rat).SetFrac(n, big.NewInt(1_000_000_000_000)).FloatString(12)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// readColumns reads the columns that the proof needs.
func readColumns(t testing.TB, path string, each func(arrow.Record)) {
	t.Helper()
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	reader, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: 4096}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	var indices []int
	for i := range f.MetaData().Schema.NumColumns() {
		switch f.MetaData().Schema.Column(i).Name() {
		case "usage_date", "window_id", "record_key", "ordinal", "accumulate_factor_name", "accumulate_factor_value":
			indices = append(indices, i)
		}
	}
	if f.NumRows() == 0 {
		return // v15 can't read a file without row groups
	}
	records, err := reader.GetRecordReader(context.Background(), indices, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer records.Release()
	for records.Next() {
		each(records.Record())
	}
}

func column[A arrow.Array](t testing.TB, r arrow.Record, name string) A {
	t.Helper()
	at := r.Schema().FieldIndices(name)
	if len(at) != 1 {
		t.Fatalf("the file has no column %s", name)
	}
	return r.Column(at[0]).(A)
}

// noDebris complains about anything that only a run under way may have: staged files, landing files of jobs, live jobs, leases.
func (w *world) noDebris() {
	w.t.Helper()
	for _, name := range files(w.t, w.lake()+".staging") {
		if name != "lock" {
			w.t.Errorf("left in the staging folder: %s", name)
		}
	}
	var kept []string
	for _, name := range files(w.t, w.settings["landing.dir"]) {
		// A kill between the making of a spill and its unlinking, microseconds apart, leaves an empty file of that name.
		if spill := strings.HasPrefix(name, "twins-") || strings.HasPrefix(name, ".rejects-"); spill && read(w.t, filepath.Join(w.settings["landing.dir"], name)) == "" {
			continue
		}
		if !strings.Contains(name, ".gen-") || !strings.HasSuffix(name, ".landing") {
			w.t.Errorf("left in the landing folder: %s", name)
			continue
		}
		kept = append(kept, name)
	}
	// Evidence of every current generation must be there, and no more than landing.keep of a window. One that a replay made has none
	// of its own.
	for _, row := range w.ask(`
		SELECT w.window_id, w.generation, coalesce(run.command, '') = 'replay' FROM sdr_sync.window w
		LEFT JOIN sdr_sync.restatement r USING (window_id, generation) LEFT JOIN sdr_sync.run ON run.run_id = r.run_id WHERE w.retired_at IS NULL`) {
		of, current := 0, row[2] == "t"
		for _, name := range kept {
			if strings.Contains(name, ".window-"+row[0]+".gen-") {
				of++
				current = current || strings.Contains(name, fmt.Sprintf(".gen-%06s.", row[1]))
			}
		}
		if keep := cmp.Or(w.settings["landing.keep"], "2"); of == 0 || fmt.Sprint(of) > keep || !current {
			w.t.Errorf("window %s, generation %s: got %d landing files (the current one among them: %t), want 1 to %s: %v", row[0], row[1], of, current, keep, kept)
		}
	}
	if live := w.ask(`SELECT job_row, from_date, state FROM sdr_sync.job WHERE state IN ('open', 'landed')`); len(live) > 0 {
		w.t.Errorf("live jobs: %v", live)
	}
	if leases := w.ask(`SELECT holder FROM sdr_sync.lease`); len(leases) > 0 {
		w.t.Errorf("leases: %v", leases)
	}
	if dirty := w.ask(`SELECT from_date FROM sdr_sync.partition WHERE dirty_seq > exported_seq`); len(dirty) > 0 {
		w.t.Errorf("dirty partitions: %v", dirty)
	}
}

// windows lists the published windows as "unit from to generation".
func (w *world) windows() []string {
	w.t.Helper()
	var all []string
	for _, row := range w.ask(`SELECT unit, from_date, to_date, generation FROM sdr_sync.window WHERE stream = 'sdr' AND retired_at IS NULL
		ORDER BY site, region, from_date`) {
		all = append(all, strings.Join(row, " "))
	}
	return all
}

// fingerprint is everything that a run that changes nothing must leave as it was: what the world holds, and that nothing was written
// in between, not even in vain.
func (w *world) fingerprint() map[string]string {
	w.t.Helper()
	all := w.holdings()
	all["rows written to billing"] = w.written()
	return all
}

// holdings is each row's place and transaction, and each file of the lake with its time and bytes.
func (w *world) holdings() map[string]string {
	w.t.Helper()
	all := map[string]string{
		"sdr_sync.usage_rollup":  w.one(`SELECT count(*) || ' ' || coalesce(md5(string_agg(ctid || ' ' || xmin, ',' ORDER BY ctid)), '') FROM sdr_sync.usage_rollup`),
		"sdr_sync.quarantine":    w.one(`SELECT count(*) || ' ' || coalesce(md5(string_agg(ctid || ' ' || xmin, ',' ORDER BY ctid)), '') FROM sdr_sync.quarantine`),
		"sdr_sync.partition":     w.one(`SELECT count(*) || ' ' || coalesce(md5(string_agg(ctid || ' ' || xmin, ',' ORDER BY ctid)), '') FROM sdr_sync.partition`),
		"generations of windows": w.one(`SELECT coalesce(string_agg(window_id || ':' || generation, ',' ORDER BY window_id), '') FROM sdr_sync.window WHERE retired_at IS NULL`),
	}
	for _, s := range schemas.All() {
		all[s.Table] = w.one(`SELECT count(*) || ' ' || coalesce(md5(string_agg(tableoid || ' ' || ctid || ' ' || xmin, ',' ORDER BY tableoid, ctid)), '') FROM ` + s.Table)
	}
	for _, name := range files(w.t, w.lake()) {
		path := filepath.Join(w.lake(), name)
		info, err := os.Stat(path)
		if err != nil {
			w.t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(read(w.t, path)))
		all[name] = info.ModTime().String() + " " + hex.EncodeToString(sum[:])
	}
	return all
}

// written counts rows ever inserted, updated or deleted in the billing schema, once all who did it have reported.
func (w *world) written() string {
	w.t.Helper()
	until(w.t, "connections of the program are gone", func() bool {
		return w.one(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sdr-sync'`) == "0"
	})
	return w.one(`SELECT coalesce(sum(n_tup_ins), 0) || ' ' || coalesce(sum(n_tup_upd), 0) || ' ' || coalesce(sum(n_tup_del), 0)
		FROM pg_stat_all_tables WHERE schemaname = 'billing'`)
}

// sameAs complains about every difference between two fingerprints.
func sameAs(t testing.TB, what string, before, after map[string]string) {
	t.Helper()
	keys := map[string]bool{}
	for _, m := range []map[string]string{before, after} {
		for k := range m {
			keys[k] = true
		}
	}
	for k := range keys {
		if before[k] != after[k] {
			t.Errorf("%s: %s changed: before %q, after %q", what, k, before[k], after[k])
		}
	}
}

// tiles checks that the published windows tile [from, to) without gap or overlap.
func (w *world) tiles(from, to string) {
	w.t.Helper()
	end := dateOf(from)
	for _, row := range w.ask(`SELECT from_date, to_date FROM sdr_sync.window WHERE stream = 'sdr' AND retired_at IS NULL ORDER BY from_date`) {
		first, err := record.ParseDate(row[0])
		if err != nil {
			w.t.Fatal(err)
		}
		if first != end {
			w.t.Errorf("windows: one begins at %s where %s is due: %v", first, end, w.windows())
		}
		end = dateOf(row[1])
	}
	if end != dateOf(to) {
		w.t.Errorf("windows: they end at %s, want %s: %v", end, to, w.windows())
	}
}
