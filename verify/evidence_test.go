package verify_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/verify"
)

func (w *world) evidence(change ...func(*verify.Config)) verify.Report {
	w.t.Helper()
	cfg := w.config()
	for _, f := range change {
		f(&cfg)
	}
	r, err := verify.Landing(w.t.Context(), cfg, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// Whatever stands otherwise than the landing file has it is found, and shown.
func TestLandingAgainstTables(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	for _, test := range []struct {
		name, sql string
		where     string
		what      []string
	}{
		{"an amount", "UPDATE billing.sdr SET accumulate_factor_value = 9.25 WHERE resource_id = 'late'", "window " + march.String(), []string{"1 and 0 of the file do not stand, 1 and 0 that stand are not in it", `resource_id "late"`, "accumulate_factor_value 2.25", "accumulate_factor_value 9.25"}},
		{"a deleted record", "DELETE FROM billing.sdr WHERE resource_id = 'late'", "window " + march.String(), []string{"1 and 0 of the file do not stand, 0 and 0", `resource_id "late"`}},
		{"a lost twin", "DELETE FROM billing.sdr WHERE resource_id = 'twin' AND ordinal = 1", "window " + march.String(), []string{"1 and 0 of the file do not stand, 0 and 0", `resource_id "twin"`}},
		{"a quarantined record", "DELETE FROM sdr_sync.quarantine WHERE ordinal = 1", "window " + march.String(), []string{"0 and 1 of the file do not stand", `not quarantined: bad_time, "{\"begin_time\":\"never\"}"`}},
		{"an event", "UPDATE billing.audit_log SET severity = '1' WHERE id = '2'", "audit_logs window " + aprilEvents.String(), []string{"1 and 0 of the file do not stand, 1 and 0 that stand are not in it", `id "2"`}},
		{"a row of a snapshot", "UPDATE billing.physical_device SET name = 'q' WHERE device_id = 'b'", "list physical_devices", []string{"1 and 0 of the file", `device_id "b"`}},
		{"a row of a history", "UPDATE billing.subscription SET resource_name = 'q' WHERE id = 'b'", "list subscriptions", []string{"1 and 0 of the file", `id "b"`}},
	} {
		ok := t.Run(test.name, func(t *testing.T) {
			w.t = t
			w.exec(test.sql)
			found := w.evidence().Differences
			if len(found) != 1 || found[0].Where != test.where {
				t.Fatalf("got %+v", found)
			}
			for _, what := range test.what {
				if !strings.Contains(found[0].What, what) {
					t.Errorf("got %s, want something about %q", found[0].What, what)
				}
			}
			w.repair(found[0].Repair)
			w.clean()
			if r := w.evidence(); len(r.Differences) > 0 || r.Files != 7 { // the replay's generation came from the same file
				t.Errorf("after the repair: got %+v", r)
			}
		})
		if !ok {
			t.Fatal("what follows would start from a damaged world")
		}
	}
	w.t = t
	// A decoder under other settings than those that filled the tables.
	if found := w.evidence(func(c *verify.Config) { c.IgnoreFields = []string{"New"} }).Differences; len(found) != 1 || found[0].Where != "window "+march.String() {
		t.Errorf("a field that is ignored: got %+v", found)
	}
	w.exec("UPDATE sdr_sync.job SET pages = 99 WHERE window_id = $1", w.window("sdr", april))
	if found := w.evidence().Differences; len(found) != 1 || !strings.Contains(found[0].What, "it has 3 pages") {
		t.Errorf("pages: got %+v", found)
	}
}

// A landing file that is not what was landed says so.
func TestDamagedLandingFiles(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	folder := filepath.Join(w.dir, "landing", "sdr", north.Site, north.Region)
	names, err := filepath.Glob(filepath.Join(folder, "2024-04*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("got %v (%v)", names, err)
	}
	content := readFile(t, names[0])
	damaged := func(name string, content []byte) {
		t.Helper()
		if err := os.Remove(names[0]); err != nil { // it may have a second name
			t.Fatal(err)
		}
		writeFile(t, names[0], content)
		r := w.evidence()
		if len(r.Differences) != 1 || !strings.HasPrefix(r.Differences[0].Where, "landing sdr/") || !strings.Contains(r.Differences[0].What, "can't be read") {
			t.Fatalf("%s: got %+v", name, r)
		}
	}
	for i := 0; i < len(content); i += 97 {
		flipped := slices.Clone(content)
		flipped[i] ^= 0x10
		damaged("a bit", flipped)
	}
	for _, size := range []int{0, 5, 9, 40, len(content) / 2, len(content) - 1} {
		damaged("a cut", content[:size])
	}
	damaged("more", append(slices.Clone(content), content[len(content)-60:]...))
	damaged("nothing but a header", content[:8+4+int(content[8])+int(content[9])<<8])

	removeFile(t, names[0])
	if r := w.evidence(); len(r.Differences) > 0 || r.Files != 6 || len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], "1 windows have no kept") {
		t.Errorf("no file: got %+v", r)
	}
	// The evidence of an earlier generation is none of this one.
	earlier, err := filepath.Glob(filepath.Join(folder, "2024-03*gen-000001*"))
	if err != nil || len(earlier) != 1 {
		t.Fatalf("got %v (%v)", earlier, err)
	}
	removeFile(t, strings.Replace(earlier[0], "gen-000001", "gen-000002", 1))
	if r := w.evidence(); len(r.Differences) > 0 || r.Files != 5 || !strings.HasPrefix(r.Notes[0], "2 windows") {
		t.Errorf("an earlier generation's: got %+v", r)
	}
}

// fetch drains the vendor as a run does, and leaves no trace.
func (w *world) fetch(asked *[]string) verify.Fetch {
	return func(_ context.Context, window verify.Window) iter.Seq2[verify.Page, error] {
		return func(yield func(verify.Page, error) bool) {
			scope := pipeline.Scope{Site: window.Site, Region: window.Region}
			*asked = append(*asked, scope.String()+" "+window.From.Format("2006-01"))
			records := w.vendor.records[w.vendor.key(window.Stream, scope, window.From.Format("2006-01-02"))]
			for marker := ""; ; {
				data, next := w.vendor.page(records, marker)
				if !yield(verify.Page{Asked: marker, Data: []byte(data)}, nil) || next == "" {
					return
				}
				marker = next
			}
		}
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	had, jobs := w.content(), one[int](w, "SELECT count(*)::int FROM sdr_sync.job")
	only := verify.Only{{Stream: "sdr"}}
	source := func(sample int, seed uint64) (verify.Report, []string) {
		t.Helper()
		var asked []string
		r, err := verify.Source(t.Context(), w.config(), only, w.fetch(&asked), sample, seed)
		if err != nil {
			t.Fatal(err)
		}
		return r, asked
	}
	r, asked := source(10, 1)
	if len(r.Differences) > 0 || len(asked) != 4 || r.Records != 16+8+5+4 {
		t.Errorf("got %+v of %q", r, asked)
	}
	for seed := range uint64(20) {
		_, first := source(2, seed)
		_, second := source(2, seed)
		if len(first) != 2 || !slices.Equal(first, second) {
			t.Errorf("seed %d: got %q, then %q", seed, first, second)
		}
	}

	restated := marchRecords()
	restated[3] = sdr("20240301030000", "vm-0003", "99")
	restated = append(restated[:len(restated)-1], sdr("20240304070000", "new", "1"))
	w.hold("sdr", march, restated...)
	r, _ = source(10, 1)
	if len(r.Differences) != 1 || r.Differences[0].Where != "window "+march.String() || !strings.HasSuffix(r.Differences[0].Repair, "--from 2024-03-01 --to 2024-03-04 --refresh") {
		t.Fatalf("got %+v", r.Differences)
	}
	for _, what := range []string{"2 and 0 are new, 1 and 1 that stand are gone", "does not stand: resource_id \"vm-0003\"", "resource_id \"new\""} {
		if !strings.Contains(r.Differences[0].What, what) {
			t.Errorf("got %s, want something about %q", r.Differences[0].What, what)
		}
	}
	if got := w.content(); !slices.Equal(got, had) || one[int](w, "SELECT count(*)::int FROM sdr_sync.job") != jobs {
		t.Error("something was written")
	}
	w.pull("sdr", march)
	if r, _ := source(10, 1); len(r.Differences) > 0 {
		t.Errorf("after a refresh: got %+v", r.Differences)
	}

	failed := errors.New("the vendor is down")
	_, err := verify.Source(t.Context(), w.config(), only, func(context.Context, verify.Window) iter.Seq2[verify.Page, error] {
		return func(yield func(verify.Page, error) bool) { yield(verify.Page{}, failed) }
	}, 1, 1)
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}
