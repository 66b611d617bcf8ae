package verify_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/verify"
)

// file returns the path of a file of the lake.
func (w *world) file(name string) string { return filepath.Join(w.lake(), name) }

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeFile(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o750), os.WriteFile(name, content, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func removeFile(t testing.TB, name string) {
	t.Helper()
	if err := os.RemoveAll(name); err != nil {
		t.Fatal(err)
	}
}

const (
	februaryFile = "sdr/site=hcso-213/usage_month=2024-02/data.parquet"
	marchFile    = "sdr/site=hcso-213/usage_month=2024-03/data.parquet"
	listFile     = "physical_devices/data.parquet"
	sdrManifest  = "_meta/sdr/manifest.json"
)

// replaceIn changes the first occurrence of a text in a file of the lake.
func replaceIn(name, from, to string) func(*world) {
	return func(w *world) {
		w.t.Helper()
		content := string(readFile(w.t, w.file(name)))
		if !strings.Contains(content, from) {
			w.t.Fatalf("%s does not hold %q", name, from)
		}
		writeFile(w.t, w.file(name), []byte(strings.Replace(content, from, to, 1)))
	}
}

func sqlOf(statement string) func(*world) {
	return func(w *world) { w.t.Helper(); w.exec(statement) }
}

// Each kind of damage to the lake is found where it is, and what the difference names repairs it.
func TestTamperedLake(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	const exportSite = "sdr-sync export --all --scope hcso-213"
	for _, test := range []struct {
		name   string
		tamper func(*world)
		where  string // of the first difference
		what   string
		repair string
	}{
		{"a missing file", func(w *world) { removeFile(w.t, w.file(marchFile)) }, "lake " + marchFile, "the file is missing", "sdr-sync export"},
		{"a missing file of a list", func(w *world) { removeFile(w.t, w.file(listFile)) }, "lake " + listFile, "the file is missing", "sdr-sync export"},
		{"a file that is cut", func(w *world) { writeFile(w.t, w.file(marchFile), readFile(w.t, w.file(marchFile))[:1000]) }, "lake " + marchFile, "bytes changed", exportSite},
		{"bytes behind the file", func(w *world) { writeFile(w.t, w.file(marchFile), append(readFile(w.t, w.file(marchFile)), 0)) }, "lake " + marchFile, "bytes changed", exportSite},
		{"another partition's file", func(w *world) { writeFile(w.t, w.file(februaryFile), readFile(w.t, w.file(marchFile))) }, "lake " + februaryFile, "bytes changed", exportSite},
		{"a folder for the file", func(w *world) { removeFile(w.t, w.file(listFile)); writeFile(w.t, w.file(listFile+"/x"), nil) }, "lake " + listFile, "not a regular file", ""},
		{"no manifest", func(w *world) { removeFile(w.t, w.file(sdrManifest)) }, "lake " + februaryFile, "the manifest does not name it", "sdr-sync export"},
		{"a manifest that is no JSON", func(w *world) { writeFile(w.t, w.file(sdrManifest), []byte("{")) }, "lake " + februaryFile, "the manifest does not name it", "sdr-sync export"},
		{"a manifest of another lake", replaceIn(sdrManifest, `"lake_id": "`, `"lake_id": "x`), "lake " + februaryFile, "the manifest does not name it", "sdr-sync export"},
		{"rows in the manifest", replaceIn(sdrManifest, `"rows": 1,`, `"rows": 2,`), "lake " + februaryFile, "manifest and ledger disagree", "sdr-sync export"},
		{"a digest in the manifest", replaceIn(sdrManifest, `"digest": "`, `"digest": "f`), "lake " + februaryFile, "manifest and ledger disagree", "sdr-sync export"},
		{"a sum in the manifest", replaceIn(sdrManifest, `"sum": "2.25"`, `"sum": "2.250000000001"`), "lake " + februaryFile, `factor "Duration"`, exportSite},
		{"a count in the manifest", replaceIn(sdrManifest, `"null_amounts": 0`, `"null_amounts": 1`), "lake " + februaryFile, `factor "Duration"`, exportSite},
		{"a factor in the manifest", replaceIn(sdrManifest, `"Duration": {`, `"Volume": {`), "lake " + februaryFile, `factor "Duration"`, exportSite},
		{"records without a factor in the manifest", replaceIn(sdrManifest, `"no_factor": {`, `"no_more": {`), "lake " + marchFile, "records without a factor", exportSite},
		{"the first time in the manifest", replaceIn(sdrManifest, `"min_begin_time": "2024-02-15T00:00:00.000000Z"`, `"min_begin_time": "2024-02-15T00:00:00.000001Z"`), "lake " + februaryFile, "min_begin_time", exportSite},
		{"the last time in the manifest", replaceIn(sdrManifest, `"max_begin_time": "2024-02-15T00:00:00.000000Z"`, `"max_begin_time": "2024-02-15T00:00:00.000001Z"`), "lake " + februaryFile, "max_begin_time", exportSite},
		{"a window in the manifest", replaceIn(sdrManifest, `"window_id": 1,`, `"window_id": 888,`), "lake " + februaryFile, "names window 888", exportSite},
		{"a generation in the manifest", replaceIn(sdrManifest, `"generation": 2`, `"generation": 7`), "lake " + februaryFile, "generation 7 of window 1", exportSite},
		{"an old schema in the manifest", replaceIn(sdrManifest, "\"schema_version\": 1,\n      \"hash_version\"", "\"schema_version\": 0,\n      \"hash_version\""), "lake " + februaryFile, "it has schema 0", "sdr-sync export"},
		{"an entry too many in the manifest", replaceIn(sdrManifest, `"files": [`, `"files": [{"path": "sdr/site=x/usage_month=2020-01/data.parquet"},`), "lake sdr/site=x/usage_month=2020-01/data.parquet", "the ledger has no such partition", "sdr-sync export"},
		{"the ledger's rows", sqlOf("UPDATE sdr_sync.partition SET file_rows = 7 WHERE from_date = '2024-02-01'"), "partition hcso-213 2024-02", "holds 1 records", exportSite},
		{"the ledger's digest", sqlOf("UPDATE sdr_sync.partition SET file_digest = repeat('0', 32) WHERE from_date = '2024-02-01'"), "partition hcso-213 2024-02", "holds 1 records", exportSite},
		{"the ledger's SHA-256", sqlOf("UPDATE sdr_sync.partition SET file_sha256 = 'x' WHERE from_date = '2024-02-01'"), "lake " + februaryFile, "manifest and ledger disagree", "sdr-sync export"},
		{"a foreign Parquet file", func(w *world) {
			writeFile(w.t, w.file("sdr/site=hcso-213/copy.parquet"), readFile(w.t, w.file(marchFile)))
		}, "lake sdr/site=hcso-213/copy.parquet", "no export wrote it", "move"},
		{"a foreign file", func(w *world) { writeFile(w.t, w.file("README"), nil) }, "lake README", "no export wrote it", "move"},
		{"a foreign file of a list", func(w *world) { writeFile(w.t, w.file("physical_devices/x/y"), nil) }, "lake physical_devices/x/y", "no export wrote it", "move"},
		{"a foreign file beside the manifest", func(w *world) { writeFile(w.t, w.file("_meta/sdr/old.json"), nil) }, "lake _meta/sdr/old.json", "no export wrote it", "move"},
		{"no lake", func(w *world) { removeFile(w.t, w.lake()) }, "lake", "holds no lake", "sdr-sync export --all"},
	} {
		ok := t.Run(test.name, func(t *testing.T) {
			w.t = t
			test.tamper(w)
			found := w.verify(nil).Differences
			slices.SortStableFunc(found, func(a, b verify.Difference) int { // what is about the table first, as it comes; files by their path
				if strings.HasPrefix(a.Where, "partition") != strings.HasPrefix(b.Where, "partition") {
					return strings.Compare(b.Where, a.Where)
				}
				return 0
			})
			if len(found) == 0 {
				t.Fatal("got no difference")
			}
			first := found[0]
			if first.Where != test.where || !strings.Contains(first.What, test.what) || !strings.Contains(first.Repair, test.repair) {
				t.Errorf("got %+v, want at %s something about %q and the repair %q", found, test.where, test.what, test.repair)
			}
			switch test.repair {
			case "move":
				removeFile(t, w.file(strings.TrimPrefix(first.Where, "lake ")))
			case "":
				removeFile(t, w.file(listFile))
				w.repair("sdr-sync export")
			default:
				w.repair(first.Repair)
			}
			w.clean()
		})
		if !ok {
			t.Fatal("what follows would start from a damaged lake")
		}
	}
}

// No bit of a file can change without notice.
func TestEveryBit(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	only := verify.Only{{Stream: "sdr", Windows: []int64{}, Partitions: []verify.Partition{{Site: "hcso-213", From: date("2024-02-01").Time(time.UTC)}}}}
	name := w.file(februaryFile)
	content := readFile(t, name)
	for i := 0; i < len(content)*8; i += 997 {
		flipped := slices.Clone(content)
		flipped[i/8] ^= 1 << (i % 8)
		writeFile(t, name, flipped)
		if found := w.verify(only).Differences; len(found) != 1 || !strings.Contains(found[0].What, "bytes changed") {
			t.Fatalf("bit %d: got %+v", i, found)
		}
	}
}

// Bytes that ledger and manifest agree on are not believed: the columns are read.
func TestRowsThatWereNeverExported(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		sql  string // before an export that believes it
		what []string
	}{
		{"rows of another month", "UPDATE billing.sdr SET usage_date = '2024-03-09' WHERE resource_id = 'late'", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newFullWorld(t)
			w.exec(test.sql)
			if _, err := w.lakeOf("sdr").Export(t.Context(), w.db.Store("sdr"), parquet.ExportOptions{All: true}); err != nil {
				t.Fatal(err)
			}
			var whats []string
			for _, d := range w.verify(nil).Differences {
				whats = append(whats, d.Where+": "+d.What)
			}
			if all := strings.Join(whats, "\n"); !strings.Contains(all, "rows have a date that is not that of their time") {
				t.Errorf("got %s", all)
			}
		})
	}
}

// A lake that was filled under another configuration is nobody's difference; one that another database feeds is.
func TestOtherLake(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	for _, change := range []func(*verify.Config){
		func(c *verify.Config) { c.DomainID = "another" },
		func(c *verify.Config) { c.PartitionUnit = "day" },
	} {
		cfg := w.config()
		change(&cfg)
		if r, err := verify.Run(t.Context(), cfg, nil); !errors.Is(err, verify.ErrLakeMismatch) {
			t.Errorf("got %+v (%v)", r, err)
		}
	}
	replaceIn("_meta/lake.json", `"lake_id": "`, `"lake_id": "x`)(w)
	if found := w.verify(nil).Differences; !slices.ContainsFunc(found, func(d verify.Difference) bool { return strings.HasPrefix(d.What, "it is lake x") }) {
		t.Errorf("another database's lake: got %+v", found)
	}
}

// An export that holds the lake keeps audits out, and an audit under way exports.
func TestLakeLock(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	lock, err := os.Open(w.lake() + ".staging/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Run(t.Context(), w.config(), nil); !errors.Is(err, verify.ErrLakeBusy) {
		t.Errorf("got %v", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH); err != nil { // another reader
		t.Fatal(err)
	}
	w.clean()
}

// Partitions by day.
func TestDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.unit = pipeline.Day
	w.openByDay()
	w.publish(march, marchRecords()...)
	w.export(parquet.ExportOptions{})
	if r := w.verify(nil); len(r.Differences) > 0 || r.Files != 5 {
		t.Errorf("got %+v", r)
	}
	removeFile(t, w.file("sdr/site=hcso-213/usage_date=2024-03-02/data.parquet"))
	found := w.verify(nil).Differences
	if len(found) != 1 || found[0].Where != "lake sdr/site=hcso-213/usage_date=2024-03-02/data.parquet" {
		t.Errorf("got %+v", found)
	}
	w.repair(found[0].Repair)
	w.clean()
}
