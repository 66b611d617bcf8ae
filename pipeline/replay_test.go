package pipeline_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// replay replays the window that begins at from, and returns what the engine called.
func (w *world) replay(from pipeline.Date) (pipeline.Result, []string) {
	w.t.Helper()
	state := w.ledger.window(from).state
	engine, seen := w.engine(fault{})
	r := engine.Replay(w.t.Context(), state, w.ledger.jobs[state.JobRow-1])
	w.check()
	return r, seen.calls
}

func TestReplay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+2, 3)
	w.vendor.files[march.From] = append(w.vendor.files[march.From], `{"resource_id": "vm-lost", "colour": "red"}`)
	w.mustRun(pipeline.Published, march)
	w.vendor.jobs = nil // nobody is asked

	// With the same decoder nothing changes, and nothing is written.
	writes := w.ledger.writes
	r, calls := w.replay(march.From)
	if r.Status != pipeline.Unchanged || r.Err != nil || r.Records != 6 || r.Quarantined != 1 || r.Pages == 0 || r.Unknown["colour"] != 1 {
		t.Errorf("an equal replay ends with %+v", r)
	}
	if w.ledger.writes != writes || !slices.Equal(calls, []string{"Kept", "Publish"}) {
		t.Errorf("an equal replay wrote %d times and called %q", w.ledger.writes-writes, calls)
	}
	w.wantRows(march.From, 1, rows)

	// In another zone the same pages are other rows, and another generation, as often as the setting changes.
	moved := make([]string, len(rows))
	for i, row := range rows {
		moved[i] = strings.NewReplacer(
			"2024-03-01T00:", "2024-02-29T16:", "2024-03-01T01:", "2024-02-29T17:", "2024-03-01T02:", "2024-02-29T18:",
			"2024-03-02T00:", "2024-03-01T16:", "2024-03-02T01:", "2024-03-01T17:", "2024-03-02T02:", "2024-03-01T18:").Replace(row)
	}
	utc := w.cfg.SourceZone
	for generation := 2; generation <= 4; generation++ {
		w.cfg.SourceZone = utc
		want := rows
		if generation%2 == 0 {
			w.cfg.SourceZone, want = beijing, moved
		}
		r, _ := w.replay(march.From)
		if r.Status != pipeline.Published || r.Err != nil || r.Outcome.Generation != generation {
			t.Fatalf("the replay in %s ends with %+v, want generation %d", w.cfg.SourceZone, r, generation)
		}
		w.wantRows(march.From, generation, want)
	}
	w.cfg.SourceZone = utc
	if r, _ := w.replay(march.From); r.Status != pipeline.Published {
		t.Errorf("back in UTC the replay ends with %+v", r)
	}
	w.wantRows(march.From, 5, rows)
}

func TestReplayStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	rows := w.fill(march.From, march.From+2, 3)
	w.mustRun(pipeline.Published, march)
	w.cfg.SourceZone = beijing
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errStop)
	engine, _ := w.engine(fault{})
	if r := engine.Replay(ctx, w.ledger.window(march.From).state, w.ledger.jobs[0]); r.Status != pipeline.Failed || !errors.Is(r.Err, errStop) {
		t.Errorf("the stopped replay ends as %s, %v, want %v", r.Status, r.Err, errStop)
	}
	w.wantRows(march.From, 1, rows)
}

// TestReplayAfterRestatement takes the pages of the current generation, not of another.
func TestReplayAfterRestatement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	march := monthWindow(t, testScope, "2024-03-01")
	w.fill(march.From, march.From+2, 3)
	w.mustRun(pipeline.Published, march)
	clear(w.vendor.files)
	rows := w.fill(march.From+2, march.From+4, 3)
	w.mustRun(pipeline.Published, march)
	if r, _ := w.replay(march.From); r.Status != pipeline.Unchanged || r.Err != nil {
		t.Errorf("the replay ends with %+v, want it unchanged", r)
	}
	w.wantRows(march.From, 2, rows)
}

func TestReplayRefused(t *testing.T) {
	t.Parallel()
	march := monthWindow(t, testScope, "2024-03-01")
	for _, c := range []struct {
		name   string
		change func(w *world, s *pipeline.WindowState, j *pipeline.Job)
		is     func(error) bool
		says   string
	}{
		{
			"the generation was not kept", func(_ *world, s *pipeline.WindowState, _ *pipeline.Job) { s.ID = 99 },
			func(err error) bool { return strings.Contains(err.Error(), "not kept") }, "backfill --refresh",
		},
		{
			"what is kept is of another job", func(_ *world, s *pipeline.WindowState, j *pipeline.Job) { s.JobRow, j.Row, j.ID = 99, 99, "job-99" },
			func(err error) bool { return strings.Contains(err.Error(), "not kept") }, "backfill --refresh",
		},
		{
			"too much goes to the quarantine", func(w *world, s *pipeline.WindowState, _ *pipeline.Job) { s.To = s.From - 20 },
			func(err error) bool { var q *pipeline.QuarantineError; return errors.As(err, &q) }, "can't be normalised",
		},
		{
			"the lease is lost", func(w *world, _ *pipeline.WindowState, _ *pipeline.Job) { w.ledger.token++ },
			func(err error) bool { return errors.Is(err, pipeline.ErrFenced) }, "replay window",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rows := w.fill(march.From, march.From+2, 60)
			w.mustRun(pipeline.Published, march)
			state, job := w.ledger.window(march.From).state, w.ledger.jobs[0]
			c.change(w, &state, &job)
			engine, _ := w.engine(fault{})
			r := engine.Replay(t.Context(), state, job)
			w.check()
			if r.Status != pipeline.Failed || r.Err == nil || !c.is(r.Err) || !strings.Contains(r.Err.Error(), c.says) {
				t.Errorf("the replay ends as %s, %v, want an error that says %q", r.Status, r.Err, c.says)
			}
			w.wantRows(march.From, 1, rows)
			w.wantLanding(1)
		})
	}
}
