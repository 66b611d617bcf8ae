package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// progress shows how windows get on: bars for a person, log lines otherwise.
type progress struct {
	observe func(pipeline.Event)
	close   func()
}

// newProgress takes how many records each window may bring, 0 for unknown.
func (a *app) newProgress(expected map[pipeline.Window]int64) progress {
	if a.onTerminal() {
		return newBars(a, expected)
	}
	return a.newProgressLog()
}

// newProgressLog logs each phase once, and a long drain about every ten seconds.
func (a *app) newProgressLog() progress {
	var mu sync.Mutex
	phases := map[pipeline.Window]pipeline.Phase{}
	said := map[pipeline.Window]time.Time{}
	return progress{close: func() {}, observe: func(e pipeline.Event) {
		mu.Lock()
		defer mu.Unlock()
		window := zap.Stringer("window", e.Window)
		if e.Phase == pipeline.PhaseDone {
			delete(phases, e.Window)
			r := e.Result
			if r.Err != nil {
				a.log.Error("window failed", window, zap.Error(r.Err))
				return
			}
			a.log.Info("window done", window, zap.String("status", string(r.Status)), zap.Int("generation", r.Outcome.Generation),
				zap.Int64("records", r.Records), zap.Int64("quarantined", r.Quarantined), zap.Duration("took", r.Duration))
			return
		}
		if phases[e.Window] == e.Phase && time.Since(said[e.Window]) < 10*time.Second {
			return
		}
		phases[e.Window], said[e.Window] = e.Phase, time.Now()
		a.log.Info("window", window, zap.String("phase", string(e.Phase)), zap.Int("progress", e.Progress), zap.Int64("pages", e.Pages),
			zap.Int64("records", e.Records))
	}}
}

// newBars draws one bar per window: the job's progress first, then records, their rate and the time left, and the phase.
func newBars(a *app, expected map[pipeline.Window]int64) progress {
	container := mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
	type state struct {
		bar     *mpb.Bar
		started time.Time
		text    string
	}
	var mu sync.Mutex
	states := map[pipeline.Window]*state{}
	observe := func(e pipeline.Event) {
		mu.Lock()
		defer mu.Unlock()
		s := states[e.Window]
		if s == nil {
			if e.Phase == pipeline.PhaseDone {
				return // skipped: no bar for nothing
			}
			s = &state{}
			states[e.Window] = s
			s.bar = container.AddBar(100, mpb.PrependDecorators(decor.Name(e.Window.String(), decor.WC{C: decor.DSyncWidthR})),
				mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
					mu.Lock()
					defer mu.Unlock()
					return s.text
				})))
		}
		switch e.Phase {
		case pipeline.PhaseJob:
			s.text = fmt.Sprintf("job %d %%", e.Progress)
			s.bar.SetCurrent(int64(e.Progress) / 10)
		case pipeline.PhaseDrain:
			if s.started.IsZero() {
				s.started = time.Now()
			}
			rate := float64(e.Records) / max(time.Since(s.started).Seconds(), 0.001)
			s.text = fmt.Sprintf("%d records, %.0f/s", e.Records, rate)
			if want := expected[e.Window]; want > e.Records && e.Records > 0 {
				left := time.Duration(float64(want-e.Records) / rate * float64(time.Second))
				s.text += fmt.Sprintf(", about %s left", left.Round(time.Second))
				s.bar.SetCurrent(10 + 80*e.Records/want)
			} else {
				s.bar.SetCurrent(90)
			}
		case pipeline.PhasePublish:
			s.text = fmt.Sprintf("%d records, publishing", e.Records)
			s.bar.SetCurrent(95)
		case pipeline.PhaseDone:
			s.text = fmt.Sprintf("%s, %d records", e.Result.Status, e.Result.Records)
			if e.Result.Err != nil {
				s.bar.Abort(false)
				return
			}
			s.bar.SetCurrent(100)
		}
	}
	return progress{observe: observe, close: func() {
		mu.Lock()
		for _, s := range states {
			if !s.bar.Completed() {
				s.bar.Abort(false)
			}
		}
		mu.Unlock()
		container.Wait()
	}}
}
