package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/verify"
)

// Two windows that share dates hold records twice. New windows in the place of both repair it.
func TestOverlappingWindows(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	had := w.content()
	w.exec("ALTER TABLE sdr_sync.window DROP CONSTRAINT window_no_overlap")
	w.hold("sdr", pipeline.Window{Scope: north, From: date("2024-03-02")}, sdr("20240302000000", "vm", "null"))
	w.pull("sdr", pipeline.Window{Scope: north, Unit: pipeline.Day, From: date("2024-03-02"), To: date("2024-03-03")})
	w.export(parquet.ExportOptions{})
	found := w.verify(nil).Differences
	if len(found) != 1 || !strings.Contains(found[0].What, "overlaps window") {
		t.Fatalf("got %+v", found)
	}
	_, repair, _ := strings.Cut(found[0].Repair, "both: ")
	w.repair(repair)
	w.clean()
	if got := w.content(); !slices.Equal(got, had) {
		t.Errorf("after the repair: got %d lines, want %d", len(got), len(had))
	}
}

func TestAllRegionsAndNamedOnes(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	all := pipeline.Scope{Site: north.Site}
	w.publish(pipeline.Window{Scope: all, Unit: pipeline.Month, From: march.From, To: march.To}, someRecords("2024-03-01", 2)...)
	w.export(parquet.ExportOptions{})
	found := w.verify(nil).Differences
	if len(found) != 1 || found[0].Where != "site hcso-213" {
		t.Errorf("got %+v", found)
	}
}

// A ledger that forgot things, or was set back without its jobs.
func TestStrayJobs(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	w.exec("UPDATE sdr_sync.job SET window_id = 999 WHERE state = 'unchanged'")
	w.exec("INSERT INTO sdr_sync.window (stream, site, region, unit, from_date, to_date, hash_version) VALUES ('sdr', 'hcso-9', 'x', 'day', '2024-03-01', '2024-03-02', 1)")
	var whats []string
	for _, d := range w.verify(nil).Differences {
		whats = append(whats, d.Where+": "+d.What)
	}
	all := strings.Join(whats, "\n")
	for _, want := range []string{"job 3: it names window 999", "window hcso-9/x [2024-03-01, 2024-03-02): it stands in the ledger and was never published"} {
		if !strings.Contains(all, want) {
			t.Errorf("got %s, want %s", all, want)
		}
	}
}

// Rows that are in no file, since the ledger forgot the partition.
func TestForgottenPartition(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	had := w.content()
	w.exec("DELETE FROM sdr_sync.partition WHERE from_date = '2024-02-01'")
	found := w.verify(nil).Differences
	if len(found) < 2 || found[0].Where != "partition hcso-213 2024-02" || !strings.Contains(found[0].What, "in no file") {
		t.Fatalf("got %+v", found)
	}
	w.repair(found[0].Repair)
	w.clean()
	if got := w.content(); !slices.Equal(got, had) {
		t.Errorf("after the repair: got %d lines, want %d", len(got), len(had))
	}
}

// A table and a file that differ though each agrees with what the ledger says of it.
func TestFileOfOtherRows(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	// The file is written of other rows than stand: as if an export had read a table that was mended behind its back.
	w.exec("CREATE TABLE kept AS SELECT * FROM billing.sdr WHERE resource_id = 'late'; DELETE FROM billing.sdr WHERE resource_id = 'late'")
	if _, err := w.lakeOf("sdr").Export(t.Context(), w.db.Store("sdr"), parquet.ExportOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	w.exec("INSERT INTO billing.sdr TABLE kept")
	found := w.verify(nil).Differences
	if len(found) != 2 || found[1].Where != "partition hcso-213 2024-02" && found[0].Where != "partition hcso-213 2024-02" {
		t.Fatalf("got %+v", found)
	}
	w.repair(found[0].Repair)
	w.clean()
}

// What a run at work has published and not yet exported breaks no promise, but only as long as somebody is at work.
func TestBusySites(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	w.publish(march, append(marchRecords(), sdr("20240304050000", "more", "1"))...)
	lease := func(expires string) {
		w.exec("INSERT INTO sdr_sync.lease VALUES ('sdr', 'hcso-213', 'cn-east-264', 9, 'somebody', now(), now() + $1::text::interval)", expires)
	}
	dirty := func(r verify.Report) bool {
		return len(r.Differences) == 1 && strings.Contains(r.Differences[0].What, "dirty") && r.Differences[0].Repair == "sdr-sync export"
	}
	if r := w.verify(nil); !dirty(r) {
		t.Errorf("nobody at work: got %+v", r.Differences)
	}
	lease("1 hour")
	w.clean()
	cfg := w.config()
	cfg.Dead = func(holder string) bool { return holder == "somebody" }
	if r, err := verify.Run(t.Context(), cfg, nil); err != nil || !dirty(r) {
		t.Errorf("a dead holder: got %+v (%v)", r.Differences, err)
	}
	w.exec("UPDATE sdr_sync.lease SET expires_at = now() - interval '1 second'")
	if r := w.verify(nil); !dirty(r) {
		t.Errorf("an expired lease: got %+v", r.Differences)
	}
	w.repair("sdr-sync export")
	w.clean()
}

// The rows of an archived month stand in its file alone, and count as the window's.
func TestArchivedMonth(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	w.exec("SELECT sdr_sync.archive_month('2024-02-01')")
	r := w.verify(nil)
	if len(r.Differences) > 0 {
		t.Fatalf("got %+v", r.Differences)
	}
	w.exec("UPDATE billing.sdr SET resource_id = 'x' WHERE resource_id = 'vm-0001' AND window_id = $1", w.window("sdr", march))
	found := w.verify(nil).Differences
	if len(found) != 2 || !strings.Contains(found[0].Repair, "restore_month('2024-02-01')") {
		t.Fatalf("a tampered text: got %+v", found)
	}
	w.repair(found[0].Repair)
	w.clean()

	w.exec("SELECT sdr_sync.archive_month('2024-02-01')")
	w.exec("UPDATE sdr_sync.usage_rollup SET records = 2 WHERE usage_date = '2024-02-15'")
	if found := w.verify(nil).Differences; len(found) != 1 || !strings.Contains(found[0].What, "daily sums") {
		t.Errorf("a tampered sum of the archived month: got %+v", found)
	}
	w.exec("UPDATE sdr_sync.usage_rollup SET records = 1 WHERE usage_date = '2024-02-15'")
	file := w.file("sdr/site=hcso-213/usage_month=2024-02/data.parquet")
	content := readFile(t, file)
	removeFile(t, file)
	if found := w.verify(nil).Differences; len(found) != 1 || !strings.Contains(found[0].What, "missing") || !strings.Contains(found[0].Repair, "the month is archived") {
		t.Errorf("a lost file of an archived month: got %+v", found)
	}
	writeFile(t, file, content)
	w.clean()

	cfg := w.config()
	cfg.Lake = ""
	if r, err := verify.Run(t.Context(), cfg, nil); err != nil || len(r.Differences) > 0 || r.Files != 0 {
		t.Errorf("without files: got %+v (%v)", r, err)
	}
}

// Only what is asked for is looked at.
func TestOnly(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	marchID, aprilID := w.window("sdr", march), w.window("sdr", april)
	w.exec("UPDATE billing.sdr SET tag = 'x' WHERE resource_id = 'vm-0003' AND window_id = $1", marchID)
	w.exec("UPDATE billing.physical_device SET name = 'q' WHERE device_id = 'a'")
	w.exec("INSERT INTO sdr_sync.usage_rollup (window_id, usage_date, site, records, missing_amounts, accumulate_factor_value) SELECT window_id, '2024-03-01', 'x', 1, 0, 1 FROM sdr_sync.window WHERE window_id = $1", aprilID)
	february := verify.Partition{Site: "hcso-213", From: time.Date(2024, 2, 1, 0, 0, 0, 0, time.UTC)}
	april := verify.Partition{Site: "hcso-213", From: time.Date(2024, 4, 1, 0, 0, 0, 0, time.UTC)}
	removeFile(t, w.file("sdr/site=hcso-213/usage_month=2024-04/data.parquet"))
	for _, test := range []struct {
		name    string
		only    verify.Only
		where   []string
		records int64
		files   int
	}{
		{"nothing", verify.Only{}, nil, 0, 0},
		{"a window without differences", verify.Only{{Stream: "audit_logs", Windows: []int64{w.window("audit_logs", aprilEvents)}}}, nil, 3, 0},
		{"a window", verify.Only{{Stream: "sdr", Windows: []int64{marchID}}}, []string{"window hcso-213/cn-north-213 [2024-03-01, 2024-03-05)"}, 16, 0},
		{"a window's sums", verify.Only{{Stream: "sdr", Windows: []int64{aprilID}}}, []string{"window hcso-213/cn-north-213 [2024-04-01, 2024-05-01)"}, 8, 0},
		{"a file", verify.Only{{Stream: "sdr", Windows: []int64{}, Partitions: []verify.Partition{february}}}, nil, 0, 1},
		{"a lost file", verify.Only{{Stream: "sdr", Windows: []int64{}, Partitions: []verify.Partition{april}}}, []string{"lake sdr/site=hcso-213/usage_month=2024-04/data.parquet"}, 0, 1},
		{"a stream", verify.Only{{Stream: "physical_devices"}}, []string{"list physical_devices"}, 3, 1},
		{"a stream without differences", verify.Only{{Stream: "subscriptions"}}, nil, 2, 1},
		{"a list's window", verify.Only{{Stream: "physical_devices", Windows: []int64{w.window("physical_devices", pipeline.WholeWindow())}}}, []string{"list physical_devices"}, 3, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := verify.Run(t.Context(), w.config(), test.only)
			if err != nil {
				t.Fatal(err)
			}
			var where []string
			for _, d := range r.Differences {
				where = append(where, d.Where)
			}
			if got := slices.Compact(where); !slices.Equal(got, test.where) || r.Records != test.records || r.Files != test.files {
				t.Errorf("got %+v, want differences at %q, %d records, %d files", r, test.where, test.records, test.files)
			}
		})
	}
	for _, only := range []verify.Only{
		{{Stream: "nonsense"}}, {{Stream: "sdr", Windows: []int64{}, Partitions: []verify.Partition{{Site: "hcso-213", From: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)}}}},
	} {
		if r, err := verify.Run(t.Context(), w.config(), only); err == nil {
			t.Errorf("%v: got %+v, want an error", only, r)
		}
	}
}

// An audit sees one moment: what is published while it reads is in none of its numbers.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	publishing := *w
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 5 {
			records := marchRecords()
			publishing.publish(march, append(records, sdr("20240304050000", fmt.Sprintf("vm-%d", i), "1"))...)
		}
	}()
	for range 10 {
		for _, d := range w.verify(nil).Differences {
			if !strings.Contains(d.What, "dirty") {
				t.Errorf("while records are published: %+v", d)
			}
		}
	}
	<-done
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []verify.Config{{}, {URL: "postgres://nowhere.invalid:1/x?connect_timeout=1"}, {URL: "::", Lake: ""}, {URL: "x", PartitionUnit: "year"}} {
		if _, err := verify.Run(t.Context(), cfg, nil); err == nil {
			t.Errorf("%+v: got no error", cfg)
		}
	}
}
