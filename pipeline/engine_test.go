package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// TestRun publishes one month from a job with everything in it that the promise speaks of.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	twin := element("vm-twin", "1.50", "20240301220000")
	noTime := `{"resource_id": "vm-lost", "accumulate_factor_value": "3"}`
	w.vendor.files[march.From] = []string{
		twin, element("vm-1", "3600", "20240301000000"), // page 1
		noTime, twin, // page 2
		`{"resource_id": "vm-2", "begin_time": "20240229235959", "colour": "red"}`, // page 4
	}
	w.vendor.files[march.To-1] = []string{
		noTime, // page 4
		element("vm-3", "much", "20240331230000"),  // page 5
		element("vm-twin", "1.5", "202403012200 "), // page 5
		twin, // page 5, full, and the last
	}
	w.vendor.files[march.To] = []string{element("vm-april", "1", "20240401000000")}
	w.vendor.layout = func(_ int, e []string) [][]string { return [][]string{e[0:2], e[2:4], nil, e[4:6], e[6:9]} }
	w.cfg.QuarantineMax = 0.01 // and still up to 100

	r := w.mustRun(pipeline.Published, march)[0]
	w.wantRows(march.From, 1, []string{
		"vm-1 3600 2024-03-01T00:00 usage 2024-03-01 #0",
		"vm-2 NULL 2024-02-29T23:59 usage 2024-02-29 #0",
		"vm-twin 1.5 2024-03-01T22:00 usage 2024-03-01 #0",
		"vm-twin 1.5 2024-03-01T22:00 usage 2024-03-01 #1",
		"vm-twin 1.5 2024-03-01T22:00 usage 2024-03-01 #2",
	})
	stored := w.ledger.window(march.From)
	var rejects []string
	for _, q := range stored.rejects {
		rejects = append(rejects, fmt.Sprintf("page %d, %d: %s #%d %s", q.Page, q.Position, q.Reason, q.Ordinal, q.Raw))
	}
	wantRejects := []string{
		"page 2, 1: missing_begin_time #0 " + noTime,
		"page 4, 2: missing_begin_time #1 " + noTime,
		"page 5, 1: bad_amount #0 " + element("vm-3", "much", "20240331230000"),
		"page 5, 2: bad_time #0 " + element("vm-twin", "1.5", "202403012200 "),
	}
	if !slices.Equal(rejects, wantRejects) {
		t.Errorf("the quarantine is\n%s\nwant\n%s", strings.Join(rejects, "\n"), strings.Join(wantRejects, "\n"))
	}
	if r.Pages != 5 || r.Records != 5 || r.Quarantined != 4 || !maps.Equal(r.Unknown, map[string]int64{"colour": 1}) {
		t.Errorf("the result has %d pages, %d records, %d quarantined, unknown %v; want 5, 5, 4 and one colour", r.Pages, r.Records, r.Quarantined, r.Unknown)
	}
	if stored.state.MissingAmounts != 1 || !maps.Equal(stored.unknown, r.Unknown) {
		t.Errorf("the ledger has %d missing amounts and unknown fields %v, want 1 and %v", stored.state.MissingAmounts, stored.unknown, r.Unknown)
	}
	job := w.ledger.jobs[0]
	if job.State != pipeline.StatePublished || job.Pages != 5 || job.Records != 5 || job.Quarantined != 4 || job.LandedBytes == 0 ||
		job.ReadyAt.IsZero() || job.LandedAt.IsZero() || job.Request != march.Request("d0") || job.RunID != 1 || job.Stream != "sdr" {
		t.Errorf("the ledger's job is %+v", job)
	}
	w.wantAsked(1, 1, 2, 3, 4, 5)
	w.wantLanding(1)
	if key, _, err := w.landing.Kept(march, r.Outcome.WindowID, 1); err != nil || key.JobID != "job-1" {
		t.Errorf("generation 1 is kept of job %q, %v, want job-1", key.JobID, err)
	}
}

// TestRunAgain asks for what is published: nothing new, something else, and nothing at all.
func TestRunAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+3, 5)

	w.mustRun(pipeline.Published, march)
	r := w.mustRun(pipeline.Unchanged, march)[0] // job 2 has other pages
	if !r.Outcome.Unchanged || r.Records != 15 {
		t.Errorf("the result of an equal pull is %+v", r)
	}
	w.wantRows(march.From, 1, rows)
	w.wantLanding(1)

	w.vendor.files[march.To-1] = []string{element("vm-late", "1", "20240301000000")}
	if r := w.mustRun(pipeline.Published, march)[0]; !r.Outcome.Restated || r.Outcome.Generation != 2 {
		t.Errorf("the outcome of a restatement is %+v", r.Outcome)
	}
	w.wantRows(march.From, 2, append(slices.Clone(rows), "vm-late 1 2024-03-01T00:00 usage 2024-03-01 #0"))
	w.wantLanding(2)
	w.wantStates(pipeline.StatePublished, pipeline.StateUnchanged, pipeline.StatePublished)

	skip := []pipeline.Planned{{Window: march, Skip: "published, generation 2"}}
	if r := w.runPlan(t.Context(), fault{}, skip)[0]; r.Status != pipeline.Skipped || r.Reason != skip[0].Skip || r.Err != nil {
		t.Errorf("a window to skip ends as %s because of %q, %v", r.Status, r.Reason, r.Err)
	}
	if got := w.vendor.created(); got != 3 {
		t.Errorf("%d jobs were created, want 3", got)
	}
}

// TestRunEmpty publishes a month without records: one page, and no array in it.
func TestRunEmpty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	if r := w.mustRun(pipeline.Published, march)[0]; r.Pages != 1 || r.Records != 0 {
		t.Errorf("got %d pages and %d records, want 1 and 0", r.Pages, r.Records)
	}
	w.wantRows(march.From, 1, nil)
	w.mustRun(pipeline.Unchanged, march)
	w.wantRows(march.From, 1, nil)
}

// TestRunKeepsOrderAndGoesOn runs windows at once, of which one fails.
func TestRunKeepsOrderAndGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Parallel = 3
	first := date(t, "2024-03-01")
	var windows []pipeline.Window
	var rows [][]string
	for i := range 7 {
		windows = append(windows, dayWindow(testScope, first+pipeline.Date(i)))
		rows = append(rows, w.fill(windows[i].From, windows[i].To, 9))
	}
	var finished atomic.Int32
	w.cfg.Observe = func(e pipeline.Event) {
		if e.Phase == pipeline.PhaseDone {
			finished.Add(1)
		}
	}
	w.vendor.onPage = func(j *vendorJob, page int) error {
		if j.request == windows[3].Request("d0") && page == 2 {
			return errInjected
		}
		return nil
	}
	for i, r := range w.run(windows...) {
		if r.Window != windows[i] {
			t.Errorf("result %d is of %s, want %s", i, r.Window, windows[i])
		}
		if i == 3 {
			if r.Status != pipeline.Failed || !errors.Is(r.Err, errInjected) || !strings.Contains(r.Err.Error(), windows[3].String()+": read page 2") {
				t.Errorf("the broken window ends as %s, %v", r.Status, r.Err)
			}
			continue
		}
		if r.Status != pipeline.Published {
			t.Errorf("%s ends as %s, %v, want it published", r.Window, r.Status, r.Err)
		}
		w.wantRows(r.Window.From, 1, rows[i])
	}
	if finished.Load() != 7 {
		t.Errorf("%d windows were reported as done, want 7", finished.Load())
	}
	if w.ledger.window(windows[3].From) != nil {
		t.Error("the broken window is published")
	}
	w.vendor.onPage = nil
	w.mustRun(pipeline.Published, windows[3])
	w.wantRows(windows[3].From, 1, rows[3])
	if got := w.vendor.created(); got != 7 {
		t.Errorf("%d jobs were created, want 7: the broken one is resumed", got)
	}
}

// TestResume interrupts a job after some pages, changes the world, and runs again.
func TestResume(t *testing.T) {
	t.Parallel()
	march := monthWindow(t, testScope, "2024-03-01")
	const landed = 3
	for _, c := range []struct {
		name      string
		meanwhile func(w *world)
		window    pipeline.Window
		states    []string
		asked     [][]int // pages of each job over both runs; nil means 1 to the last
	}{
		{
			name: "nothing happened", meanwhile: func(*world) {},
			states: []string{pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3, 4, 5, 6}},
		},
		{
			name: "just young enough", meanwhile: func(w *world) { w.advance(24*time.Hour - time.Microsecond) },
			states: []string{pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3, 4, 5, 6}},
		},
		{
			name: "too old", meanwhile: func(w *world) { w.advance(24 * time.Hour) },
			states: []string{pipeline.StateAbandoned, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4}, nil},
		},
		{
			name: "another end is asked for", meanwhile: func(*world) {},
			window: pipeline.Window{Scope: testScope, Unit: pipeline.Month, From: march.From, To: march.To - 1},
			states: []string{pipeline.StateAbandoned, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4}, nil},
		},
		{
			name: "another unit is asked for", meanwhile: func(*world) {}, window: dayWindow(testScope, march.From),
			states: []string{pipeline.StateAbandoned, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4}, nil},
		},
		{
			name: "another tenant asks", meanwhile: func(w *world) { w.cfg.DomainID = "d1" },
			states: []string{pipeline.StateAbandoned, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4}, nil},
		},
		{
			name:      "the next marker of the last page changed",
			meanwhile: func(w *world) { p := w.vendor.jobs[0].pages; p[landed-1].next, p[landed].marker = "else", "else" },
			states:    []string{pipeline.StateMoved, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3}, nil},
		},
		{
			name: "the last page now ends the job", meanwhile: func(w *world) { w.vendor.jobs[0].pages[landed-1].next = "" },
			states: []string{pipeline.StateMoved, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3}, nil},
		},
		{
			name: "a value of the last page changed",
			meanwhile: func(w *world) {
				p := &w.vendor.jobs[0].pages[landed-1]
				p.data = `[` + element("vm-else", "1", "20240301000000") + `]`
			},
			states: []string{pipeline.StateMoved, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3}, nil},
		},
		{
			name: "a record of the last page went to the quarantine",
			meanwhile: func(w *world) {
				p := &w.vendor.jobs[0].pages[landed-1]
				p.data = strings.Replace(p.data, `"begin_time": "2`, `"begin_time": "x`, 1)
			},
			states: []string{pipeline.StateMoved, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3}, nil},
		},
		{
			name: "a record of the last page that goes to the quarantine changed",
			meanwhile: func(w *world) {
				last := w.vendor.jobs[0].pages[landed-1]
				w.vendor.jobs[0].pages[landed-1].data = `[{"resource_id": "lost"}]`
				file, err := w.landing.Open(w.ledger.jobs[0].LandingKey())
				if err != nil {
					w.t.Fatal(err)
				}
				defer file.Close()
				// What is landed is another reject.
				if err := file.Restart(); err != nil {
					w.t.Fatal(err)
				}
				for _, p := range w.vendor.jobs[0].pages[:landed-1] {
					appendPage(w, file, p.marker, p.next, p.data)
				}
				appendPage(w, file, last.marker, last.next, `[{"resource_id": "gone"}]`)
			},
			states: []string{pipeline.StateMoved, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3}, nil},
		},
		{
			name: "a twin was added to the last page",
			meanwhile: func(w *world) {
				p := &w.vendor.jobs[0].pages[landed-1]
				first, _, _ := strings.Cut(p.data, "}")
				p.data = strings.TrimSuffix(p.data, "]") + ", " + strings.TrimPrefix(first, "[") + "}]"
			},
			states: []string{pipeline.StateMoved, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3}, nil},
		},
		{
			name: "the records of the last page are written in other words",
			meanwhile: func(w *world) {
				p := &w.vendor.jobs[0].pages[landed-1]
				p.data = strings.NewReplacer(`", "accumulate_factor_value": "`, "\"\n,\t\"AccumulateFactorValue\" : \"0", "}, {", "} ,\r\n{").Replace(p.data)
			},
			states: []string{pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3, 4, 5, 6}},
		},
		{
			name: "the records of the last page stand in another order, their keys too",
			meanwhile: func(w *world) {
				p := &w.vendor.jobs[0].pages[landed-1]
				var elements []string
				for _, e := range strings.Split(strings.Trim(p.data, "[]{}"), "}, {") {
					keys := strings.Split(e, ", ")
					slices.Reverse(keys)
					elements = append(elements, "{"+strings.Join(keys, ", ")+"}")
				}
				slices.Reverse(elements)
				p.data = "[" + strings.Join(elements, ", ") + "]"
			},
			states: []string{pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3, 4, 5, 6}},
		},
		{
			name: "a page before the last changed, which is not noticed", meanwhile: func(w *world) { w.vendor.jobs[0].pages[0].data = "[]" },
			states: []string{pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3, 4, 5, 6}},
		},
		{
			name: "the vendor forgot the job", meanwhile: func(w *world) { w.vendor.jobs[0].id = "gone" },
			states: []string{pipeline.StateForgotten, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4}, nil},
		},
		{
			name: "the vendor forgets the job when the last page is asked again",
			meanwhile: func(w *world) {
				w.vendor.onPage = func(j *vendorJob, _ int) error { return forgotten(j, 1) }
			},
			states: []string{pipeline.StateForgotten, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3}, nil},
		},
		{
			name: "the vendor forgets the job when the next page is asked",
			meanwhile: func(w *world) {
				w.vendor.onPage = func(j *vendorJob, page int) error {
					if page == 4 {
						return forgotten(j, 1)
					}
					return nil
				}
			},
			states: []string{pipeline.StateForgotten, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 3, 4}, nil},
		},
		{
			name: "the job now fails",
			meanwhile: func(w *world) {
				w.vendor.onPoll = func(j *vendorJob) (pipeline.JobStatus, error) {
					if j.number == 1 {
						return pipeline.JobStatus{State: pipeline.JobFailure}, nil
					}
					return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
				}
			},
			states: []string{pipeline.StateFailed, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4}, nil},
		},
		{
			name: "the landing file is lost",
			meanwhile: func(w *world) {
				if err := w.landing.Discard(w.ledger.jobs[0].LandingKey()); err != nil {
					w.t.Fatal(err)
				}
			},
			states: []string{pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4, 1, 2, 3, 4, 5, 6}},
		},
		{
			name: "somebody holds the landing file", meanwhile: holdLanding,
			states: []string{pipeline.StateAbandoned, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4}, nil},
		},
		{
			name: "somebody holds the landing file of a job that is too old",
			meanwhile: func(w *world) {
				holdLanding(w)
				w.advance(24 * time.Hour)
			},
			states: []string{pipeline.StateAbandoned, pipeline.StatePublished}, asked: [][]int{{1, 2, 3, 4}, nil},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.vendor.layout = inPagesOf(2)
			rows := w.fill(march.From, march.From+1, 12)
			resume := w.interruptAfter(landed)
			w.mustFail(march, "read page 4", errInjected.Error())
			resume()
			w.wantStates(pipeline.StateOpen)
			c.meanwhile(w)
			window := c.window
			if window.From == 0 {
				window = march
			}
			w.mustRun(pipeline.Published, window)
			if stored := w.ledger.window(march.From); stored.state.Window != window {
				t.Errorf("%s is published, want %s", stored.state.Window, window)
			}
			w.wantRows(march.From, 1, rows)
			w.wantStates(c.states...)
			for i, asked := range c.asked {
				if asked == nil {
					asked = upTo(6)
				}
				w.wantAsked(i+1, asked...)
			}
		})
	}
}

// forgotten is the vendor's answer for the number-th job.
func forgotten(j *vendorJob, number int) error {
	if j.number != number {
		return nil
	}
	return fmt.Errorf("%s: %w", j.id, pipeline.ErrJobForgotten)
}

// holdLanding keeps the first job's landing file locked until the end of the test, as another process would.
func holdLanding(w *world) {
	file, err := openLanding(w.t, w.path).Open(w.ledger.jobs[0].LandingKey())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = file.Close() })
}

// appendPage lands a page without asking for it.
func appendPage(w *world, file pipeline.LandingFile, marker, next, data string) {
	w.t.Helper()
	body := []byte(data)
	if err := file.Append(pipeline.Page{Asked: marker, Next: next, Body: body, Data: body}); err != nil {
		w.t.Fatal(err)
	}
}

// TestResumeLanded finds every page landed: the vendor is asked for nothing, and need not even be there.
func TestResumeLanded(t *testing.T) {
	t.Parallel()
	for _, broken := range []string{"UpdateJob landed", "Publish"} {
		t.Run(broken+" failed", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			march := monthWindow(t, testScope, "2024-03-01")
			rows := w.fill(march.From, march.To, 2)

			if r := w.runPlan(t.Context(), fault{name: broken, at: 1, how: failBefore}, planOf(march))[0]; !errors.Is(r.Err, errInjected) {
				t.Fatalf("the run ends with %v, want the injected fault at %s", r.Err, broken)
			}
			w.vendor.jobs = nil // whatever is asked now is an error
			w.mustRun(pipeline.Published, march)
			w.wantRows(march.From, 1, rows)
			if got := w.vendor.created(); got != 0 {
				t.Errorf("%d jobs were created, want none", got)
			}
		})
	}
}

// TestResumeOtherUnit: on the 2nd, the running month and the day ask the vendor for the same, and are different windows all the same.
func TestResumeOtherUnit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vendor.layout = inPagesOf(2)
	day := dayWindow(testScope, date(t, "2024-06-01"))
	running := day
	running.Unit = pipeline.Month
	rows := w.fill(day.From, day.To, 8)
	resume := w.interruptAfter(3)
	w.mustFail(running)
	resume()
	w.mustRun(pipeline.Published, day)
	w.wantRows(day.From, 1, rows)
	w.wantStates(pipeline.StateAbandoned, pipeline.StatePublished)
	if got := w.ledger.window(day.From).state.Window; got != day {
		t.Errorf("%s %s is published, want the day", got.Unit, got)
	}
}

// TestResumeUnreadable: landed pages that can't be read back cost time only.
func TestResumeUnreadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vendor.layout = inPagesOf(2)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+1, 12)
	w.vendor.files[march.From][0] = `{"resource_id": "lost"}`
	resume := w.interruptAfter(3)
	w.mustFail(march)
	resume()
	if r := w.runPlan(t.Context(), fault{name: "Pages", at: 1, how: failBefore}, planOf(march))[0]; r.Status != pipeline.Published || r.Quarantined != 1 || r.Pages != 6 {
		t.Errorf("got %+v, want 6 pages published with one reject", r)
	}
	w.wantRows(march.From, 1, rows[1:])
	w.wantAsked(1, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6)
	w.wantStates(pipeline.StatePublished)
}

// TestMovedIsNotForgotten: a job whose results moved is no good, even if the run could not store that.
func TestMovedIsNotForgotten(t *testing.T) {
	t.Parallel()
	for _, how := range faultModes {
		t.Run("storing it "+string(how), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.vendor.layout = inPagesOf(2)
			march := monthWindow(t, testScope, "2024-03-01")
			w.fill(march.From, march.From+1, 8)
			resume := w.interruptAfter(3)
			w.mustFail(march)
			resume()
			clear(w.vendor.files)
			rows := w.fill(march.From, march.From+1, 9)
			w.vendor.jobs[0].pages[2].data = "[]"
			ctx, stop := context.WithCancelCause(t.Context())
			defer stop(nil)
			f := fault{name: "UpdateJob " + pipeline.StateMoved, at: 1, how: how, stop: stop}
			if r := w.runPlan(ctx, f, planOf(march))[0]; r.Status != pipeline.Failed {
				t.Errorf("the broken run ends as %s", r.Status)
			}
			w.mustRun(pipeline.Published, march)
			w.wantRows(march.From, 1, rows)
			w.wantStates(pipeline.StateMoved, pipeline.StatePublished)
		})
	}
}

// TestResumeTwice has two live jobs for one window, which no run leaves: the newer is adopted, the other ends.
func TestResumeTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+1, 10)
	resume := w.interruptAfter(1)
	w.mustFail(march)
	id, err := w.vendor.createJob(t.Context(), march.Request("d0"))
	if err != nil {
		t.Fatal(err)
	}
	w.ledger.saveJob(pipeline.Job{Stream: "sdr", Window: march, ID: id, Request: march.Request("d0"), CreatedAt: w.now(), State: pipeline.StateOpen})
	resume()
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, rows)
	w.wantStates(pipeline.StateAbandoned, pipeline.StatePublished)
	w.wantLanding(1)
}

// TestJobsThatNeverWork are replaced twice, then the window fails and says why.
func TestJobsThatNeverWork(t *testing.T) {
	t.Parallel()
	march := monthWindow(t, testScope, "2024-03-01")
	for _, c := range []struct {
		name  string
		spoil func(v *vendor)
		state string
		says  string
	}{
		{"failure", func(v *vendor) {
			v.onPoll = func(*vendorJob) (pipeline.JobStatus, error) {
				return pipeline.JobStatus{State: pipeline.JobFailure}, nil
			}
		}, pipeline.StateFailed, "failed at the vendor"},
		{"forgotten when polled", func(v *vendor) {
			v.onPoll = func(j *vendorJob) (pipeline.JobStatus, error) {
				return pipeline.JobStatus{}, forgotten(j, j.number)
			}
		}, pipeline.StateForgotten, "no longer knows"},
		{"forgotten at the third page", func(v *vendor) {
			v.onPage = func(j *vendorJob, page int) error {
				if page == 3 {
					return forgotten(j, j.number)
				}
				return nil
			}
		}, pipeline.StateForgotten, "no longer knows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rows := w.fill(march.From, march.From+1, 20)
			c.spoil(w.vendor)
			w.mustFail(march, march.String(), c.says, "the 3. job")
			w.wantStates(c.state, c.state, c.state)
			w.wantLanding(0)
			if w.ledger.window(march.From) != nil {
				t.Error("the window is published")
			}
			w.vendor.onPoll, w.vendor.onPage = nil, nil
			w.mustRun(pipeline.Published, march)
			w.wantRows(march.From, 1, rows)
		})
	}
}

// TestSecondJobWorks replaces one bad job within the run.
func TestSecondJobWorks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+2, 10)
	w.vendor.onPage = func(j *vendorJob, page int) error {
		if page == 4 {
			return forgotten(j, 1)
		}
		return nil
	}
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, rows)
	w.wantStates(pipeline.StateForgotten, pipeline.StatePublished)
}

// hang makes jobs run for ever, an hour for each poll.
func hang(w *world, jobs ...int) {
	w.vendor.onPoll = func(j *vendorJob) (pipeline.JobStatus, error) {
		if len(jobs) > 0 && !slices.Contains(jobs, j.number) {
			return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
		}
		w.advance(time.Hour)
		return pipeline.JobStatus{State: pipeline.JobRunning, Progress: 70}, nil
	}
}

func TestJobThatHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+1, 3)
	hang(w)
	w.mustFail(march, march.String(), "job-1", "running (70 %)", "6h0m0s", "sync.job_deadline")
	w.wantStates(pipeline.StateAbandoned) // and no other was tried: it would hang as long
	if got := w.vendor.jobs[0].polled; got != 6 {
		t.Errorf("the job was polled %d times, want 6", got)
	}
	w.vendor.onPoll = nil
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, rows)
}

// TestAdoptedJobThatHangs is replaced within the run: its deadline passed long ago.
func TestAdoptedJobThatHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+1, 3)
	ctx, cancel := context.WithCancelCause(t.Context())
	w.vendor.onPoll = func(*vendorJob) (pipeline.JobStatus, error) {
		cancel(errStop)
		return pipeline.JobStatus{State: pipeline.JobPending}, nil
	}
	if r := w.runPlan(ctx, fault{}, planOf(march))[0]; !errors.Is(r.Err, errStop) {
		t.Fatalf("the run ends with %v, want %v", r.Err, errStop)
	}
	w.advance(7 * time.Hour)
	hang(w, 1)
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, rows)
	w.wantStates(pipeline.StateAbandoned, pipeline.StatePublished)
	if got := w.vendor.jobs[0].polled; got != 2 {
		t.Errorf("the hung job was polled %d times, want once by each run", got)
	}
}

// TestPollPace watches the clock: the interval rises to its maximum, and progress that did not change is not stored again.
func TestPollPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.PollInitial, w.cfg.PollMax, w.cfg.Now = 2*time.Second, 30*time.Second, time.Now
		w.cfg.JobDeadline = time.Hour
		march := monthWindow(t, testScope, "2024-03-01")
		rows := w.fill(march.From, march.From+1, 3)
		started := time.Now()
		var polls []time.Duration
		w.vendor.onPoll = func(*vendorJob) (pipeline.JobStatus, error) {
			polls = append(polls, time.Since(started))
			if time.Since(started) > 10*time.Minute {
				return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
			}
			return pipeline.JobStatus{State: pipeline.JobRunning, Progress: 40}, nil
		}
		engine, seen := w.engine(fault{})
		if r := engine.Run(t.Context(), planOf(march))[0]; r.Status != pipeline.Published {
			t.Fatalf("got %s, %v", r.Status, r.Err)
		}
		w.check()
		w.wantRows(march.From, 1, rows)
		if polls[0] != 0 {
			t.Errorf("the first poll waits %s, want none", polls[0])
		}
		if second := polls[1] - polls[0]; second < 1600*time.Millisecond || second > 2400*time.Millisecond {
			t.Errorf("the second poll waits %s, want about 2 s", second)
		}
		for i := 1; i < len(polls); i++ {
			if wait := polls[i] - polls[i-1]; wait > 36*time.Second {
				t.Errorf("poll %d waits %s, want about 30 s at most", i+1, wait)
			}
		}
		if len(polls) > 40 {
			t.Errorf("the job was polled %d times in ten minutes", len(polls))
		}
		updates := 0
		for _, call := range seen.calls {
			if call == "UpdateJob "+pipeline.StateOpen {
				updates++
			}
		}
		if updates != 2 {
			t.Errorf("the open job was stored %d times, want 2: its progress, and that it is ready", updates)
		}
	})
}

func TestMarkerCircles(t *testing.T) {
	t.Parallel()
	march := monthWindow(t, testScope, "2024-03-01")
	const pages = 9
	for length := 1; length <= 5; length++ {
		for _, interrupted := range []int{0, 1, 4, 6} { // pages landed by an earlier run; of 0 there was none
			t.Run(fmt.Sprintf("circle of %d, resumed after %d", length, interrupted), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.vendor.layout = inPagesOf(1)
				w.fill(march.From, march.From+1, pages)
				w.vendor.onPoll = func(j *vendorJob) (pipeline.JobStatus, error) {
					j.pages[6].next = j.pages[7-length].marker // page 7 leads back to page 8 - length
					return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
				}
				want := upTo(7)
				if interrupted > 0 {
					resume := w.interruptAfter(interrupted)
					w.mustFail(march, errInjected.Error())
					resume()
					want = append(upTo(interrupted+1), interrupted)
					for page := interrupted + 1; page <= 7; page++ {
						want = append(want, page)
					}
				}
				w.mustFail(march, "page 7 of job job-1", fmt.Sprintf("page %d:", 8-length), "circle")
				w.wantAsked(1, want...)
				w.wantStates(pipeline.StateFailed)
				w.wantLanding(0)
				if w.ledger.window(march.From) != nil {
					t.Error("the window is published")
				}
			})
		}
	}
}

// TestMarkerEnds lists what ends a drain, and what does not.
func TestMarkerEnds(t *testing.T) {
	t.Parallel()
	march := monthWindow(t, testScope, "2024-03-01")
	for _, c := range []struct {
		name   string
		layout func(e []string) [][]string
	}{
		{"last page full", func(e []string) [][]string { return [][]string{e[:6], e[6:]} }},
		{"last page empty", func(e []string) [][]string { return [][]string{e[:6], e[6:], nil} }},
		{"last page an empty array", func(e []string) [][]string { return [][]string{e[:6], e[6:], {}} }},
		{"first page empty", func(e []string) [][]string { return [][]string{nil, e[:6], e[6:]} }},
		{"several empty pages in a row", func(e []string) [][]string { return [][]string{e[:6], nil, {}, nil, nil, e[6:]} }},
		{"short pages between full ones", func(e []string) [][]string { return [][]string{e[:4], e[4:5], e[5:9], e[9:10], e[10:]} }},
		{"one page", func(e []string) [][]string { return [][]string{e} }},
		{"one record a page", func(e []string) [][]string { return inPagesOf(1)(0, e) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rows := w.fill(march.From, march.From+1, 12)
			w.vendor.layout = func(_ int, e []string) [][]string { return c.layout(e) }
			w.mustRun(pipeline.Published, march)
			w.wantRows(march.From, 1, rows)
			w.wantAsked(1, upTo(len(c.layout(w.vendor.files[march.From])))...)
		})
	}
}

// TestQuarantineThreshold is max(100, 1 %).
func TestQuarantineThreshold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		bad, good int
		refused   bool
	}{
		{"all of 100", 100, 0, false},
		{"100 of 150", 100, 50, false},
		{"101 of 151", 101, 50, true},
		{"101 of 5000", 101, 4899, true},
		{"101 of 10099", 101, 9998, true},
		{"101 of 10100", 101, 9999, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.vendor.layout = inPagesOf(200)
			march := monthWindow(t, testScope, "2024-03-01")
			var elements []string
			for i := range c.bad {
				elements = append(elements, fmt.Sprintf(`{"resource_id": "bad-%d"}`, i))
			}
			for i := range c.good {
				elements = append(elements, element(fmt.Sprintf("vm-%d", i), "1", "20240301000000"))
			}
			w.vendor.files[march.From] = elements
			if !c.refused {
				r := w.mustRun(pipeline.Published, march)[0]
				if int(r.Quarantined) != c.bad || int(r.Records) != c.good {
					t.Errorf("%d are quarantined and %d published, want %d and %d", r.Quarantined, r.Records, c.bad, c.good)
				}
				return
			}
			err := w.mustFail(march, "page 1, record 1", "missing_begin_time")
			var quarantine *pipeline.QuarantineError
			if !errors.As(err, &quarantine) || int(quarantine.Quarantined) != c.bad || int(quarantine.Total) != c.bad+c.good || quarantine.Window != march {
				t.Errorf("the error is %#v", err)
			}
			if w.ledger.window(march.From) != nil {
				t.Error("the window is published")
			}
			w.wantStates(pipeline.StateRefused)
			w.wantLanding(1) // the evidence

			// Once the vendor has put it right, a new job is asked.
			w.vendor.files[march.From] = elements[c.bad:]
			w.mustRun(pipeline.Published, march)
			w.wantStates(pipeline.StateRefused, pipeline.StatePublished)
		})
	}
}

// TestQuarantineKeepsEverything: whatever bytes a reject has, it reaches the quarantine as the decoder saw it.
func TestQuarantineKeepsEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vendor.layout = inPagesOf(4)
	march := monthWindow(t, testScope, "2024-03-01")
	raws := []string{
		`{"resource_id": "<b>&amp;\u2028</b>", "begin_time": "<soon>"}`,
		"{\"resource_id\": \"\xff\xfe\", \"begin_time\": \"20240301000000\"}",
		`{"resource_id": "a\u0000b", "begin_time": "20240301000000"}`,
		`{"resource_id": "\ud800", "begin_time": "20240301000000"}`,
		`{"färbung": 1, "färbung": 2, "begin_time": "20240301000000"}`,
		`{"a<b": 1, "a<b": 2, "begin_time": "20240301000000"}`,
		"{\"k\xffy\": 1, \"begin_time\": \"20240301000000\"}",
		`{"begin_time": "20240301000000", "accumulate_factor_value": "1e40"}`,
		`{"begin_time": "20091231235959"}`,
		`"text"`, `17`, `null`, `[]`, `{}`, `{}`, "{\n}",
		`{"resource_id": "` + strings.Repeat("long ", 100_000) + `"}`,
	}
	w.vendor.files[march.From] = raws
	w.mustRun(pipeline.Published, march)
	got := w.ledger.window(march.From).rejects
	if len(got) != len(raws) {
		t.Fatalf("%d records are in the quarantine, want %d", len(got), len(raws))
	}
	decoder, row := record.NewDecoder(w.cfg.Stream, record.Options{Site: testScope.Site}), record.NewRow(w.cfg.Stream)
	seen := map[string]int32{}
	for i, raw := range raws {
		reject := decoder.Decode([]byte(raw), row)
		if reject == nil {
			t.Fatalf("%q is no reject", raw)
		}
		want := pipeline.Rejected{Reject: *reject, Page: i/4 + 1, Position: i%4 + 1, Ordinal: seen[raw], Raw: []byte(raw)}
		seen[raw]++
		if !equalRejects(got[i], want) {
			t.Errorf("reject %d is\n%+v %.300q\nwant\n%+v %.300q", i, got[i].Reject, got[i].Raw, want.Reject, raw)
		}
	}
}

func TestShrink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march, april := monthWindow(t, testScope, "2024-03-01"), monthWindow(t, testScope, "2024-04-01")
	rows := w.fill(march.From, march.From+1, 10)
	w.mustRun(pipeline.Published, march)

	w.vendor.files[march.From] = w.vendor.files[march.From][:4]
	others := w.fill(april.From, april.From+2, 3)
	results := w.run(march, april)
	var shrink *pipeline.ShrinkError
	if !errors.As(results[0].Err, &shrink) || shrink.Had != 10 || shrink.Got != 4 || shrink.Window != march {
		t.Errorf("the shrunk window ends with %v", results[0].Err)
	}
	if results[1].Status != pipeline.Published {
		t.Errorf("the other window ends as %s, %v", results[1].Status, results[1].Err)
	}
	w.wantRows(march.From, 1, rows)
	w.wantRows(april.From, 1, others)
	w.wantStates(pipeline.StatePublished, pipeline.StateRefused, pipeline.StatePublished)

	// A window that would become empty is refused too, whatever the ratio says.
	w.vendor.files[march.From] = nil
	w.cfg.MinRatio = 0
	w.mustFail(march, "--accept-shrink")
	w.wantRows(march.From, 1, rows)

	w.cfg.AcceptShrink = true
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 2, nil)
}

func TestFencedRunPublishesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+1, 10)
	w.ledger.token++ // another run took over
	if err := w.mustFail(march, "publish window "+march.String()); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("got %v, want %v", err, pipeline.ErrFenced)
	}
	if w.ledger.window(march.From) != nil {
		t.Error("the window is published")
	}
	w.cfg.Leases[pipeline.StreamScope{Stream: "sdr", Scope: testScope}]++
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, rows)
	w.wantStates(pipeline.StatePublished) // what the fenced run landed was good
}

// TestErrorsOfTheVendorPassThrough: what callers branch on is found in the result.
func TestErrorsOfTheVendorPassThrough(t *testing.T) {
	t.Parallel()
	march := monthWindow(t, testScope, "2024-03-01")
	for _, sentinel := range []error{pipeline.ErrCredentials, pipeline.ErrRefused} {
		for _, c := range []struct {
			name  string
			spoil func(v *vendor)
			says  string
		}{
			{"create", func(v *vendor) { v.onCreate = func(int) error { return sentinel } }, ""},
			{"poll", func(v *vendor) {
				v.onPoll = func(*vendorJob) (pipeline.JobStatus, error) { return pipeline.JobStatus{}, sentinel }
			}, "poll job job-1"},
			{"page", func(v *vendor) { v.onPage = func(*vendorJob, int) error { return sentinel } }, "read page 1"},
		} {
			t.Run(c.name+": "+sentinel.Error(), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				rows := w.fill(march.From, march.From+1, 5)
				c.spoil(w.vendor)
				if err := w.mustFail(march, march.String(), c.says); !errors.Is(err, sentinel) {
					t.Errorf("got %v, want %v", err, sentinel)
				}
				if got := w.vendor.created(); got > 1 {
					t.Errorf("%d jobs were created, want no second one", got)
				}
				w.vendor.onCreate, w.vendor.onPoll, w.vendor.onPage = nil, nil, nil
				w.mustRun(pipeline.Published, march)
				w.wantRows(march.From, 1, rows)
			})
		}
	}
}

// TestLandingFailureStopsTheDrain: a full disk at page 3 must not cost the hours that the other pages take.
func TestLandingFailureStopsTheDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vendor.layout = inPagesOf(1)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.To, 10)
	r := w.runPlan(t.Context(), fault{name: "Append", at: 3, how: failBefore}, planOf(march))[0]
	if !errors.Is(r.Err, errInjected) || errors.Is(r.Err, context.Canceled) {
		t.Errorf("the run ends with %v, want the injected fault alone", r.Err)
	}
	if asked := len(w.vendor.asked(1)); asked > 20 {
		t.Errorf("%d of 310 pages were asked for, want the drain to stop soon after the fault", asked)
	}
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, rows)
}

// TestDrainOverlaps: the next page is asked for while the last one is still being landed, and pages don't pile up.
func TestDrainOverlaps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vendor.layout = inPagesOf(1)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.To-1, 10)
	second := make(chan struct{})
	w.vendor.onPage = func(_ *vendorJob, page int) error {
		if page == 2 {
			close(second)
		}
		return nil
	}
	w.cfg.Observe = func(e pipeline.Event) {
		if e.Phase == pipeline.PhaseDrain && e.Pages == 1 {
			<-second // the lander waits here, so page 2 must come from elsewhere
		}
	}
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, rows)
	if got := w.vendor.mostOutstanding; got > 5 {
		t.Errorf("%d pages were held at once, want 5 at most of 300", got)
	}
}

// TestStop stops a run at different places; the result names the cause, and the next run goes on.
func TestStop(t *testing.T) {
	t.Parallel()
	march := monthWindow(t, testScope, "2024-03-01")
	for _, c := range []struct {
		name string
		at   func(w *world, stop func())
	}{
		{"before it begins", func(_ *world, stop func()) { stop() }},
		{"while the job is polled", func(w *world, stop func()) {
			w.cfg.PollInitial, w.cfg.PollMax = time.Hour, time.Hour
			w.vendor.onPoll = func(*vendorJob) (pipeline.JobStatus, error) {
				stop()
				return pipeline.JobStatus{State: pipeline.JobRunning}, nil
			}
		}},
		{"when a page is asked for", func(w *world, stop func()) {
			w.vendor.onPage = func(_ *vendorJob, page int) error {
				if page == 3 {
					stop()
					return context.Canceled
				}
				return nil
			}
		}},
		{"when a page is landed", func(w *world, stop func()) {
			w.cfg.Observe = func(e pipeline.Event) {
				if e.Phase == pipeline.PhaseDrain && e.Pages == 2 {
					stop()
				}
			}
		}},
		{"when rows are published", func(w *world, stop func()) {
			w.cfg.Observe = func(e pipeline.Event) {
				if e.Phase == pipeline.PhasePublish {
					stop()
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.vendor.layout = inPagesOf(2)
			rows := w.fill(march.From, march.From+3, 20)
			ctx, cancel := context.WithCancelCause(t.Context())
			before := w.cfg
			c.at(w, func() { cancel(errStop) })
			for _, r := range w.runPlan(ctx, fault{}, planOf(march, monthWindow(t, testScope, "2024-04-01"))) {
				if r.Status != pipeline.Failed || !errors.Is(r.Err, errStop) {
					t.Errorf("%s ends as %s, %v, want %v", r.Window, r.Status, r.Err, errStop)
				}
			}
			w.cfg, w.vendor.onPoll, w.vendor.onPage = before, nil, nil
			w.mustRun(pipeline.Published, march)
			w.wantRows(march.From, 1, rows)
			if got := w.vendor.created(); got != 1 {
				t.Errorf("%d jobs were created, want 1", got)
			}
		})
	}
}

// TestStopWhileCreating: a job that exists is stored even if the run is being stopped, so that it is not an orphan.
func TestStopWhileCreating(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+1, 4)
	ctx, cancel := context.WithCancelCause(t.Context())
	w.vendor.onCreate = func(int) error {
		cancel(errStop)
		return nil
	}
	if r := w.runPlan(ctx, fault{}, planOf(march))[0]; !errors.Is(r.Err, errStop) {
		t.Errorf("got %v, want %v", r.Err, errStop)
	}
	w.wantStates(pipeline.StateOpen)
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, rows)
	w.wantStates(pipeline.StatePublished)
}

// TestLatestUsage: a record may begin until two days after the window's end, in the zone of file dates.
func TestLatestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                string
		zone                *time.Location
		lastGood, firstLate string
	}{
		{"UTC", time.UTC, "20240402235959", "20240403000000"},
		{"eight hours ahead", beijing, "20240402155959", "20240402160000"},
		{"three hours behind", time.FixedZone("UTC-3", -3*3600), "20240403025959", "20240403030000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.cfg.FileZone = c.zone
			march := monthWindow(t, testScope, "2024-03-01")
			w.vendor.files[march.From] = []string{element("good", "1", c.lastGood), element("late", "1", c.firstLate)}
			w.mustRun(pipeline.Published, march)
			stored := w.ledger.window(march.From)
			if len(stored.rows) != 1 || !strings.HasPrefix(stored.rows[0], "good ") {
				t.Errorf("the rows are %q, want the good record", stored.rows)
			}
			if len(stored.rejects) != 1 || stored.rejects[0].Reason != "begin_time_out_of_range" {
				t.Errorf("the quarantine is %+v, want the late record", stored.rejects)
			}
		})
	}
}

// TestIgnoredFields: volatile fields neither restate a window nor move a page.
func TestIgnoredFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.IgnoreFields = []string{"fetch_id"}
	w.vendor.layout = inPagesOf(1)
	march := monthWindow(t, testScope, "2024-03-01")
	volatile := func(n int) string {
		return fmt.Sprintf(`{"resource_id": "vm-1", "begin_time": "20240301000000", "fetch_id": %d}`, n)
	}
	w.vendor.files[march.From] = []string{volatile(1), element("vm-2", "1", "20240301000000")}
	resume := w.interruptAfter(1)
	w.mustFail(march)
	resume()
	w.vendor.jobs[0].pages[0].data = "[" + volatile(2) + "]"
	w.mustRun(pipeline.Published, march)
	w.wantStates(pipeline.StatePublished)
	w.vendor.files[march.From][0] = volatile(3)
	w.mustRun(pipeline.Unchanged, march)
}

// groupOf plans the days of [from, to) as one group that retires what stands in the span.
func groupOf(w *world, from, to pipeline.Date) []pipeline.Planned {
	var group []pipeline.Planned
	for day := from; day < to; day++ {
		group = append(group, pipeline.Planned{Window: dayWindow(w.scope, day)})
	}
	group[0].Retire = w.ledger.liveWindows()
	return group
}

// TestGroup replaces a month by its days: all of them or none.
func TestGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Parallel = 2
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.To, 4)
	w.mustRun(pipeline.Published, march)

	group := groupOf(w, march.From, march.To)
	broken := group[17].Window
	w.vendor.onPage = func(j *vendorJob, page int) error {
		if j.request == broken.Request("d0") && page == 1 {
			return errInjected
		}
		return nil
	}
	engine, _ := w.engine(fault{})
	for _, r := range engine.RunGroups(t.Context(), [][]pipeline.Planned{group}) {
		if r.Status != pipeline.Failed || !strings.Contains(r.Err.Error(), broken.String()) {
			t.Errorf("%s ends as %s, %v, want the failure of %s", r.Window, r.Status, r.Err, broken)
		}
	}
	w.check()
	w.wantRows(march.From, 1, rows)
	landed := 0
	for _, state := range w.ledger.states() {
		if state == pipeline.StateLanded {
			landed++
		}
	}
	if landed != 30 {
		t.Errorf("%d of the other 30 days stay landed", landed)
	}

	// The next run adopts what is landed, and asks for the rest alone.
	w.vendor.onPage = nil
	engine, seen := w.engine(fault{})
	for _, r := range engine.RunGroups(t.Context(), [][]pipeline.Planned{group}) {
		if r.Status != pipeline.Published || r.Records != 4 {
			t.Errorf("%s ends as %s with %d records, %v", r.Window, r.Status, r.Records, r.Err)
		}
	}
	w.check()
	pages := 0
	for _, call := range seen.calls {
		if call == "Page" {
			pages++
		}
	}
	if last := w.vendor.jobs[slices.IndexFunc(w.vendor.jobs, func(j *vendorJob) bool { return j.request == broken.Request("d0") })]; pages != len(last.pages) {
		t.Errorf("%d pages were asked for, want the %d of the day that failed", pages, len(last.pages))
	}
	if got := w.vendor.created(); got != 32 {
		t.Errorf("%d jobs were created, want 32", got)
	}
	var all []string
	for _, p := range group {
		all = append(all, w.ledger.window(p.Window.From).rows...)
	}
	if !slices.Equal(all, rows) || len(w.ledger.liveWindows()) != 31 {
		t.Errorf("%d days stand with %d records, want 31 with %d", len(w.ledger.liveWindows()), len(all), len(rows))
	}
}

// TestGroupRefused: what holds for a window holds for the sum of a group.
func TestGroupRefused(t *testing.T) {
	t.Parallel()
	march := monthWindow(t, testScope, "2024-03-01")
	for _, c := range []struct {
		name   string
		change func(w *world)
		is     func(error) bool
	}{
		{"shrunk", func(w *world) {
			for day := march.From; day < march.From+20; day++ {
				delete(w.vendor.files, day)
			}
		}, func(err error) bool {
			var shrink *pipeline.ShrinkError
			return errors.As(err, &shrink) && shrink.Had == 124 && shrink.Got == 44 && shrink.Window == march
		}},
		{"empty", func(w *world) {
			w.cfg.MinRatio = 0
			clear(w.vendor.files)
		}, func(err error) bool {
			var shrink *pipeline.ShrinkError
			return errors.As(err, &shrink) && shrink.Had == 124 && shrink.Got == 0
		}},
		{"one day is bad", func(w *world) {
			for range 101 {
				w.vendor.files[march.From+8] = append(w.vendor.files[march.From+8], "{}")
			}
		}, func(err error) bool {
			var quarantine *pipeline.QuarantineError
			return errors.As(err, &quarantine) && quarantine.Window == dayWindow(testScope, march.From+8)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rows := w.fill(march.From, march.To, 4)
			w.mustRun(pipeline.Published, march)
			c.change(w)
			group := groupOf(w, march.From, march.To)
			engine, _ := w.engine(fault{})
			for _, r := range engine.RunGroups(t.Context(), [][]pipeline.Planned{group}) {
				if r.Status != pipeline.Failed || !c.is(r.Err) {
					t.Errorf("%s ends as %s, %v", r.Window, r.Status, r.Err)
				}
			}
			w.check()
			w.wantRows(march.From, 1, rows)
			for row := 2; row <= 32; row++ {
				if got := w.ledger.state(row); got != pipeline.StateRefused {
					t.Errorf("job %d is %s, want it refused", row, got)
				}
			}
			w.wantLanding(32)
			if c.name == "one day is bad" {
				return
			}
			w.cfg.AcceptShrink = true
			engine, _ = w.engine(fault{})
			for _, r := range engine.RunGroups(t.Context(), [][]pipeline.Planned{group}) {
				if r.Status != pipeline.Published {
					t.Errorf("with the shrink accepted, %s ends as %s, %v", r.Window, r.Status, r.Err)
				}
			}
			w.check()
			if got := len(w.ledger.liveWindows()); got != 31 {
				t.Errorf("%d windows stand, want 31 days", got)
			}
		})
	}
}

// TestGroupWithSkip: a window of a group that needs nothing leaves the others their own results.
func TestGroupWithSkip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := date(t, "2024-03-01")
	rows := w.fill(first, first+3, 4)
	group := groupOf(w, first, first+3)
	group[0].Skip = "published, generation 1"
	engine, _ := w.engine(fault{})
	results := engine.RunGroups(t.Context(), [][]pipeline.Planned{group})
	w.check()
	if results[0].Status != pipeline.Skipped {
		t.Errorf("the first window ends as %s, %v, want it skipped", results[0].Status, results[0].Err)
	}
	for i, r := range results[1:] {
		stored := w.ledger.window(r.Window.From)
		if r.Status != pipeline.Published || stored == nil || stored.state.ID != r.Outcome.WindowID {
			t.Errorf("%s ends as %s, %v, with the outcome %+v of another window", r.Window, r.Status, r.Err, r.Outcome)
			continue
		}
		w.wantRows(r.Window.From, 1, rows[4*(i+1):4*(i+2)])
	}
}
