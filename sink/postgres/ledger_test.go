package postgres_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

func TestJobs(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := t.Context()
	job := pipeline.Job{
		RunID: d.run, Stream: stream, Window: march, ID: "weird 'id' / 作业", Request: march.Request("d-1"),
		CreatedAt: testNow.Add(-time.Hour), State: pipeline.StateOpen,
	}
	check := func(step string, want pipeline.Job) {
		t.Helper()
		got, err := d.Job(ctx, want.Row)
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if got != want {
			t.Errorf("%s: got\n%+v, want\n%+v", step, got, want)
		}
	}
	job, err := d.SaveJob(ctx, job)
	if err != nil || job.Row == 0 {
		t.Fatalf("got row %d (%v)", job.Row, err)
	}
	check("saved, with zero times", job)

	job.Progress, job.ReadyAt = 73, testNow
	if err := d.UpdateJob(ctx, job); err != nil {
		t.Fatal(err)
	}
	check("ready", job)
	job.State, job.Progress, job.Pages, job.Records, job.Quarantined, job.LandedBytes = pipeline.StateLanded, 100, 1<<33, 1<<34, 1<<35, 1<<40
	job.LandedAt, job.Note = testNow.Add(time.Second), "a note\nof two lines"
	if err := d.UpdateJob(ctx, job); err != nil {
		t.Fatal(err)
	}
	check("landed", job)
	if !query[bool](t, d, "SELECT finished_at IS NULL FROM sdr_sync.job") {
		t.Error("a live job is finished")
	}
	job.ReadyAt, job.LandedAt, job.Note, job.State = time.Time{}, time.Time{}, "", pipeline.StateMoved
	if err := d.UpdateJob(ctx, job); err != nil {
		t.Fatal(err)
	}
	check("moved, with times taken back", job)
	if finished := query[time.Time](t, d, "SELECT finished_at FROM sdr_sync.job"); !finished.Equal(testNow) {
		t.Errorf("finished at %s", finished)
	}
	late := job
	late.State, late.Note = pipeline.StateOpen, "by a run that lost its lease"
	if err := d.UpdateJob(ctx, late); err != nil {
		t.Fatal(err)
	}
	check("at its end, whatever comes after", job)
	if _, err := d.Job(ctx, job.Row+1); err == nil {
		t.Error("a job that is not there was found")
	}

	all := window(pipeline.Scope{Site: "hcso-9"}, "2024-03-01", "2024-03-02")
	allJob, err := d.SaveJob(ctx, pipeline.Job{RunID: d.run, Stream: stream, Window: all, ID: "x", Request: all.Request("d-1"), CreatedAt: testNow, State: pipeline.StateOpen})
	if err != nil {
		t.Fatal(err)
	}
	check("all regions, one day", allJob)
	allJob.State = "lost"
	if err := d.UpdateJob(ctx, allJob); err == nil {
		t.Error("a state that no document names was stored")
	}
}

func TestLiveJobs(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	states := []string{
		pipeline.StateOpen, pipeline.StateLanded, pipeline.StatePublished, pipeline.StateUnchanged, pipeline.StateRefused, pipeline.StateFailed,
		pipeline.StateForgotten, pipeline.StateAbandoned, pipeline.StateMoved, pipeline.StateOpen,
	}
	var rows []int64
	for _, state := range states {
		job := d.landed(t, march)
		job.State = state
		if err := d.UpdateJob(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, job.Row)
	}
	d.landed(t, window(east, "2024-03-01", "2024-04-01"))
	live, err := d.LiveJobs(t.Context(), stream, north)
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, j := range live {
		got = append(got, j.Row)
	}
	checkEqual(t, "live jobs, newest first", got, []int64{rows[9], rows[1], rows[0]})
	if other, err := d.LiveJobs(t.Context(), "subscriptions", north); err != nil || len(other) != 0 {
		t.Errorf("another stream: got %v (%v)", other, err)
	}
}

// Landing files are wanted for live jobs, and as evidence for a refused one while it is the window's newest.
func TestWantedLanding(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	job := func(w pipeline.Window, state string) int64 {
		j := d.landed(t, w)
		j.State = state
		if err := d.UpdateJob(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		return j.Row
	}
	april := window(north, "2024-04-01", "2024-05-01")
	job(march, pipeline.StateRefused)
	job(march, pipeline.StatePublished)
	live := job(march, pipeline.StateLanded)
	refused := job(april, pipeline.StateRefused)
	job(window(east, "2024-04-01", "2024-05-01"), pipeline.StateFailed)
	wanted, err := d.WantedLanding(t.Context())
	if err != nil || len(wanted) != 2 || wanted[live] == "" || wanted[refused] == "" {
		t.Errorf("got %v (%v), want %d and %d", wanted, err, live, refused)
	}
}

func TestPublishedJob(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	first := d.prepare(t, march, someRecords(3))
	d.mustReplace(t, d.replacement(first))
	p := d.prepare(t, march, someRecords(4))
	o := d.mustReplace(t, d.replacement(p))[0]
	d.publish(t, march, someRecords(4)) // unchanged: the generation's job stays the one before
	if _, found, err := d.PublishedJob(t.Context(), first.Job.Row); err != nil || found {
		t.Errorf("the job of an earlier generation: found %t (%v), want not", found, err)
	}
	got, found, err := d.PublishedJob(t.Context(), p.Job.Row)
	if err != nil || !found {
		t.Fatalf("found %t (%v)", found, err)
	}
	job, err := d.Job(t.Context(), p.Job.Row)
	if err != nil {
		t.Fatal(err)
	}
	want := postgres.PublishedJob{Job: job, WindowID: o.WindowID, Generation: 2}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWindowsAndScopes(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	everywhere := pipeline.Scope{Site: "hcso-1"}
	for _, w := range []pipeline.Window{
		window(north, "2024-04-01", "2024-05-01"), march, window(north, "2024-02-29", "2024-03-01"), window(everywhere, "2023-12-31", "2024-01-01"),
	} {
		d.publish(t, w, nil)
	}
	var got []string
	for _, w := range append(d.windows(t, everywhere), d.windows(t, north)...) {
		got = append(got, string(w.Unit)+" "+w.Window.String())
	}
	checkEqual(t, "windows", got, []string{
		"day hcso-1/* [2023-12-31, 2024-01-01)", "day hcso-213/cn-north-213 [2024-02-29, 2024-03-01)",
		"month hcso-213/cn-north-213 [2024-03-01, 2024-04-01)", "month hcso-213/cn-north-213 [2024-04-01, 2024-05-01)",
	})
	scopes, err := d.Scopes(t.Context(), stream)
	if err != nil || !slices.Equal(scopes, []pipeline.Scope{everywhere, north}) {
		t.Errorf("got %v (%v)", scopes, err)
	}
	if len(d.windows(t, east)) != 0 {
		t.Error("windows of a scope that has none")
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	if p, err := d.Pace(t.Context(), stream, north); err != nil || p != (postgres.Pace{}) {
		t.Errorf("without history: got %+v (%v)", p, err)
	}
	add := func(w pipeline.Window, pages int64, wait, drain time.Duration) {
		job := d.landed(t, w)
		job.Pages, job.ReadyAt = pages, job.CreatedAt.Add(wait)
		job.LandedAt = job.ReadyAt.Add(drain)
		if err := d.UpdateJob(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
	add(window(north, "2023-01-01", "2023-01-02"), 1_000_000, time.Hour, time.Hour) // too long ago to count
	for range 19 {
		add(window(north, "2024-03-01", "2024-03-11"), 50, 10*time.Second, 25*time.Second)
	}
	add(window(north, "2024-03-01", "2024-03-11"), 0, 30*time.Second, 0)
	add(window(east, "2024-03-01", "2024-03-11"), 1, time.Hour, time.Hour)
	p, err := d.Pace(t.Context(), stream, north)
	if want := (postgres.Pace{PagesPerDay: 4.75, SecondsPerPage: 0.5, JobWait: 11 * time.Second}); err != nil || p != want {
		t.Errorf("got %+v (%v), want %+v", p, err, want)
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	want := postgres.Run{Command: "backfill --from '2024'", Version: "v1.2", Host: "host", PID: 4711, Started: testNow}
	var err error
	if want.ID, err = d.StartRun(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got, found, err := d.LastRun(t.Context()); err != nil || !found || got != want {
		t.Errorf("under way: got %+v (%v), want %+v", got, err, want)
	}
	if err := d.FinishRun(t.Context(), want.ID, 3, "incomplete"); err != nil {
		t.Fatal(err)
	}
	want.Finished, want.ExitCode, want.Outcome = testNow, 3, "incomplete"
	if got, found, err := d.LastRun(t.Context()); err != nil || !found || got != want {
		t.Errorf("finished: got %+v (%v), want %+v", got, err, want)
	}
	d.exec(t, "DELETE FROM sdr_sync.run")
	if _, found, err := d.LastRun(t.Context()); err != nil || found {
		t.Errorf("without runs: got %t (%v)", found, err)
	}
}

func TestPins(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := t.Context()
	if v, err := d.Pinned(ctx, "domain_id"); err != nil || v != "" {
		t.Errorf("before: got %q (%v)", v, err)
	}
	for range 2 {
		if err := d.Pin(ctx, "domain_id", "d-1"); err != nil {
			t.Fatal(err)
		}
	}
	err := d.Pin(ctx, "domain_id", "d-2")
	var pin *postgres.PinError
	if !errors.As(err, &pin) || *pin != (postgres.PinError{Name: "domain_id", Pinned: "d-1", Configured: "d-2"}) {
		t.Errorf("another value: got %v", err)
	} else if !strings.Contains(err.Error(), `"d-1"`) || !strings.Contains(err.Error(), `"d-2"`) {
		t.Errorf("%q does not name both values", err)
	}
	if v, err := d.Pinned(ctx, "domain_id"); err != nil || v != "d-1" {
		t.Errorf("after: got %q (%v)", v, err)
	}
	if err := d.Repin(ctx, "domain_id", "d-2"); err != nil {
		t.Fatal(err)
	}
	if err := d.Pin(ctx, "domain_id", "d-2"); err != nil {
		t.Errorf("after pinning again: %v", err)
	}
	for _, id := range []string{"lake-1", "lake-2"} {
		if v, err := d.Store(stream).PinLake(ctx, id); err != nil || v != "lake-1" {
			t.Errorf("lake: got %q (%v), want the first", v, err)
		}
	}
}

func TestQuarantineLists(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	var bad []string
	for i := range 5 {
		bad = append(bad, sdr("never", strings.Repeat("x", i), "1"))
	}
	bad = append(bad, sdr("20240301000000", "r", `"many"`), "{\"tag\": \"\xff\", \"begin_time\":\"20240301000000\"}")
	o := d.publish(t, march, bad)
	d.publish(t, window(east, "2024-03-01", "2024-04-01"), bad[:1])
	for _, test := range []struct {
		name          string
		filter        postgres.QuarantineFilter
		listed, total int
	}{
		{"all", postgres.QuarantineFilter{}, 8, 8},
		{"a window", postgres.QuarantineFilter{WindowID: o.WindowID}, 7, 7},
		{"a reason", postgres.QuarantineFilter{Reason: "bad_amount"}, 1, 1},
		{"the first three", postgres.QuarantineFilter{WindowID: o.WindowID, Limit: 3}, 3, 7},
		{"none", postgres.QuarantineFilter{Reason: "no such"}, 0, 0},
		{"a scope", postgres.QuarantineFilter{Scopes: []pipeline.Scope{east}}, 1, 1},
		{"a site", postgres.QuarantineFilter{Scopes: []pipeline.Scope{{Site: east.Site}}}, 8, 8},
		{"two scopes and a site that is unknown", postgres.QuarantineFilter{Scopes: []pipeline.Scope{east, north, {Site: "elsewhere"}}}, 8, 8},
		{"another site", postgres.QuarantineFilter{Scopes: []pipeline.Scope{{Site: "elsewhere"}}}, 0, 0},
	} {
		entries, total, err := d.Quarantine(t.Context(), test.filter)
		if err != nil || len(entries) != test.listed || total != int64(test.total) {
			t.Errorf("%s: got %d of %d (%v), want %d of %d", test.name, len(entries), total, err, test.listed, test.total)
		}
	}
	entries, _, err := d.Quarantine(t.Context(), postgres.QuarantineFilter{WindowID: o.WindowID})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if e.Raw != bad[i] || e.Page != 1 || e.Position != i+1 || e.Reason == "" || e.Detail == "" || e.JobRow == 0 {
			t.Errorf("entry %d: got %+v", i, e)
		}
		one, err := d.Quarantined(t.Context(), o.WindowID, e.RawHash)
		if err != nil || one == nil || *one != e {
			t.Errorf("entry %d by its hash: got %+v (%v)", i, one, err)
		}
	}
	if one, err := d.Quarantined(t.Context(), o.WindowID, "nothing"); err != nil || one != nil {
		t.Errorf("an unknown hash: got %+v (%v)", one, err)
	}
}

func TestTotalsAndQuery(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, []string{
		sdr("20240301000000", "a", "99999999999999999999999999.999999999999"), sdr("20240301000000", "b", "0.000000000001"),
		sdr("20240301000000", "c", "null", "accumulate_factor_name", `"upflow"`), sdr("20240301000000", "d", "2.50", "accumulate_factor_name", "null"),
	})
	totals, err := d.Totals(t.Context())
	if err != nil || len(totals) != 3 || totals["Duration"] != (postgres.FactorTotal{Records: 2, Sum: "100000000000000000000000000"}) ||
		totals["upflow"] != (postgres.FactorTotal{Records: 1, Sum: "0"}) || totals[""] != (postgres.FactorTotal{Records: 1, Sum: "2.5"}) {
		t.Errorf("got %+v (%v)", totals, err)
	}
	columns, rows, err := d.Query(t.Context(), "SELECT resource_id, accumulate_factor_value AS v FROM billing.sdr WHERE resource_id >= $1 ORDER BY 1", "c")
	if err != nil || !slices.Equal(columns, []string{"resource_id", "v"}) || len(rows) != 2 || !slices.Equal(rows[1], []string{"d", "2.500000000000"}) {
		t.Errorf("got %v, %q (%v)", columns, rows, err)
	}
	if _, _, err := d.Query(t.Context(), "DELETE FROM billing.sdr"); err == nil {
		t.Error("a query could write")
	}
}
