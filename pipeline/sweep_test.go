package pipeline_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// scenario is a run that is broken at each of its calls in turn.
type scenario struct {
	name    string
	prepare func(w *world)                      // what happened before
	plan    func(w *world) [][]pipeline.Planned // groups; made anew for each run
	grouped bool                                // windows are published together
	moved   bool                                // the vendor's results moved meanwhile, so that landed pages may be asked for again
	want    map[string][]string                 // rows of each window in the end, by its first file date
	was     map[string][]string                 // rows of each window before
	final   int                                 // generation in the end
}

func singly(windows ...pipeline.Window) (groups [][]pipeline.Planned) {
	for _, p := range planOf(windows...) {
		groups = append(groups, []pipeline.Planned{p})
	}
	return groups
}

func scenarios(t *testing.T) []scenario {
	first := date(t, "2024-03-01")
	march := func(w *world) pipeline.Window { return monthWindow(t, w.scope, "2024-03-01") }
	april := func(w *world) pipeline.Window { return monthWindow(t, w.scope, "2024-04-01") }
	run := func(w *world) pipeline.Window {
		return pipeline.Window{Scope: w.scope, Unit: pipeline.Month, From: first, To: first + 3}
	}
	months := func(w *world) [][]pipeline.Planned { return singly(march(w), april(w)) }
	// load fills the vendor with records, twins and a reject.
	load := func(w *world, n int) {
		clear(w.vendor.files)
		w.fill(first, first+3, n)
		w.fill(first.AddMonths(1), first.AddMonths(1)+1, n)
		twin := element("twin", "1", "20240302000000")
		w.vendor.files[first+1] = append(w.vendor.files[first+1], twin, `{"resource_id": "lost"}`)
		w.vendor.files[first+2] = append(w.vendor.files[first+2], twin)
	}
	// after returns what an undisturbed run makes of prepare and plan.
	after := func(prepare func(*world), plan func(*world) [][]pipeline.Planned, windows ...string) map[string][]string {
		w := newWorld(t)
		prepare(w)
		engine, _ := w.engine(fault{})
		for _, r := range engine.RunGroups(t.Context(), plan(w)) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		rows := map[string][]string{}
		for _, from := range windows {
			rows[from] = w.ledger.window(date(t, from)).rows
		}
		return rows
	}
	publishAll := func(w *world, groups [][]pipeline.Planned) {
		engine, _ := w.engine(fault{})
		for _, r := range engine.RunGroups(t.Context(), groups) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}

	fresh := func(w *world) { load(w, 3) }
	published := after(fresh, months, "2024-03-01", "2024-04-01")
	if got := len(published["2024-03-01"]); got != 11 {
		t.Fatalf("the undisturbed month has %d rows, want 11", got)
	}
	restated := func(w *world) {
		load(w, 3)
		publishAll(w, months(w))
		load(w, 4)
	}
	moved := func(w *world) {
		load(w, 2)
		resume := w.interruptAfter(2)
		engine, _ := w.engine(fault{})
		engine.RunGroups(t.Context(), singly(march(w)))
		resume()
		load(w, 3)
		w.vendor.prepare(w.vendor.jobs[0]) // with the markers of before
	}
	stale := func(w *world) {
		load(w, 3)
		resume := w.interruptAfter(2)
		engine, _ := w.engine(fault{})
		engine.RunGroups(t.Context(), months(w))
		resume()
		w.advance(25 * time.Hour)
	}
	month := func(w *world) {
		load(w, 3)
		publishAll(w, singly(run(w)))
	}
	days := func(w *world) [][]pipeline.Planned {
		ask := pipeline.Ask{From: first, To: first + 3, Today: first + 3, Unit: pipeline.Month, FileZone: time.UTC, Settle: 24 * time.Hour}
		return pipeline.PlanReslice(w.scope, w.ledger.liveWindows(), ask, pipeline.Day)
	}
	return []scenario{
		{name: "first load", prepare: fresh, plan: months, want: published, final: 1},
		{name: "restatement", prepare: restated, plan: months, want: after(restated, months, "2024-03-01", "2024-04-01"), was: published, final: 2},
		{name: "results that moved", prepare: moved, plan: months, moved: true, want: published, final: 1},
		{name: "jobs that are too old", prepare: stale, plan: months, want: published, final: 1},
		{
			name: "reslice", prepare: month, plan: days, grouped: true, want: after(month, days, "2024-03-01", "2024-03-02", "2024-03-03"),
			was: map[string][]string{"2024-03-01": published["2024-03-01"]}, final: 1,
		},
	}
}

// TestBreakEveryCall breaks the k-th call of a run to vendor, ledger or landing, for every k, in every way; then it runs again,
// undisturbed. What is published in between is what was there or what is there in the end, and the end is that of an undisturbed run.
func TestBreakEveryCall(t *testing.T) {
	t.Parallel()
	for i, s := range scenarios(t) {
		for _, how := range faultModes {
			t.Run(s.name+", which "+string(how), func(t *testing.T) {
				t.Parallel()
				s.breakEach(t, how, func() pipeline.Landing {
					return &memoryLanding{files: map[int64]*memoryFile{}, kept: map[[2]int64]*memoryFile{}}
				})
			})
		}
		if i > 0 {
			continue
		}
		// Once more with files.
		for _, how := range []faultMode{failAfter, dieBefore, dieAfter} {
			t.Run(s.name+" into files, which "+string(how), func(t *testing.T) {
				t.Parallel()
				dir := openLanding(t, t.TempDir())
				s.breakEach(t, how, func() pipeline.Landing { return dir })
			})
		}
	}
}

func (s scenario) breakEach(t *testing.T, how faultMode, newLanding func() pipeline.Landing) {
	spill := t.TempDir()
	for at := 1; ; at++ {
		scope := pipeline.Scope{Site: fmt.Sprintf("site-%d", at), Region: "r1"} // each its own files
		broken := s.breakAt(newWorldIn(t, newLanding(), scope, spill), at, how)
		if t.Failed() {
			t.Fatalf("that was with call %d, %s", at, broken)
		}
		if broken == "" {
			if at < 20 {
				t.Errorf("the run has %d calls, which is too few to be true", at-1)
			}
			return
		}
	}
}

// breakAt breaks one call, runs again, and returns which call it was.
func (s scenario) breakAt(w *world, at int, how faultMode) (broken string) {
	t := w.t
	s.prepare(w)
	w.check()

	// The broken run.
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	engine, seen := w.engine(fault{at: at, how: how, stop: stop})
	engine.RunGroups(ctx, s.plan(w))
	w.check()
	s.checkBetween(w)

	// The one after it, perhaps of another process, later.
	w.advance(time.Hour)
	plan := s.plan(w)
	before := w.takeSnapshot()
	engine, _ = w.engine(fault{})
	for _, r := range engine.RunGroups(t.Context(), plan) {
		if r.Status != pipeline.Published && r.Status != pipeline.Unchanged {
			t.Errorf("%s ends as %s, %v", r.Window, r.Status, r.Err)
		}
	}
	w.check()
	for from, rows := range s.want {
		w.wantRows(date(t, from), s.final, rows)
	}
	if got := len(w.ledger.liveWindows()); got != len(s.want) {
		t.Errorf("%d windows stand, want %d", got, len(s.want))
	}
	if !s.moved {
		before.checkResumed(w, plan)
	}
	if live := w.ledger.liveJobs(w.scope); len(live) > 0 {
		t.Errorf("the jobs %+v are left alive", live)
	}
	return seen.broken
}

// checkBetween fails the test if a window holds anything but what it held before or will hold in the end.
func (s scenario) checkBetween(w *world) {
	w.t.Helper()
	retired := s.grouped && len(w.ledger.liveWindows()) > 1
	for _, state := range w.ledger.liveWindows() {
		rows, from := w.ledger.window(state.From).rows, state.From.String()
		old, had := s.was[from]
		if !(had && !retired && slices.Equal(rows, old)) && !slices.Equal(rows, s.want[from]) {
			w.t.Errorf("after the broken run, %s has the rows\n%s", state.Window, strings.Join(rows, "\n"))
		}
	}
	if n := len(w.ledger.liveWindows()); s.grouped && n != len(s.was) && n != len(s.want) {
		w.t.Errorf("after the broken run %d windows of the group stand", n)
	}
}

// snapshot is what was done before a run.
type snapshot struct {
	asked  map[string]int // pages of each job
	landed map[int64]int
	live   []pipeline.Job
}

func (w *world) takeSnapshot() snapshot {
	s := snapshot{asked: map[string]int{}, live: w.ledger.liveJobs(w.scope)}
	for _, j := range w.vendor.jobs {
		s.asked[j.id] = len(j.asked)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.landed = maps.Clone(w.landed)
	return s
}

// checkResumed fails the test unless the run since the snapshot took up every live job of its windows that was young enough, and
// asked it for no landed page but the last.
func (s snapshot) checkResumed(w *world, plan [][]pipeline.Planned) {
	w.t.Helper()
	adopted := 0
	for _, j := range s.live {
		if w.now().Sub(j.CreatedAt) >= w.cfg.AdoptMaxAge {
			continue
		}
		adopted++
		job := w.vendor.find(j.ID)
		total, landed := len(job.pages), s.landed[j.Row]
		want := total
		switch landed {
		case 0:
		case total:
			want = 0
		default:
			want = total - landed + 1
		}
		if got := len(job.asked) - s.asked[j.ID]; got != want {
			w.t.Errorf("of %s, with %d of %d pages landed, %d were asked for, want %d", j.ID, landed, total, got, want)
		}
		if end := w.ledger.state(int(j.Row)); end != pipeline.StatePublished && end != pipeline.StateUnchanged {
			w.t.Errorf("the live job %d ends as %s, want it published", j.Row, end)
		}
	}
	windows := 0
	for _, group := range plan {
		windows += len(group)
	}
	if got := len(w.vendor.jobs) - len(s.asked); got != windows-adopted {
		w.t.Errorf("%d jobs were created for %d windows with %d live jobs", got, windows, adopted)
	}
}
