package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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

// newProgress shows the windows of one stream. It takes how many records each may bring, 0 for unknown.
func (a *app) newProgress(stream string, expected map[pipeline.Window]int64) progress {
	if a.onTerminal() {
		return newBars(a, stream, expected)
	}
	return a.newProgressLog(stream)
}

// newProgressLog logs each phase once, and a long drain about every ten seconds.
func (a *app) newProgressLog(stream string) progress {
	var mu sync.Mutex
	phases := map[pipeline.Window]pipeline.Phase{}
	said := map[pipeline.Window]time.Time{}
	return progress{close: func() {}, observe: func(e pipeline.Event) {
		mu.Lock()
		defer mu.Unlock()
		window := zap.String("window", windowLabel(stream, e.Window))
		if e.Phase == pipeline.PhaseDone {
			delete(phases, e.Window)
			r := e.Result
			if errors.Is(r.Err, pipeline.ErrNotOffered) { // the summary says it once
				a.log.Info("window not offered", window, zap.Error(r.Err))
				return
			}
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
func newBars(a *app, stream string, expected map[pipeline.Window]int64) progress {
	container := mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond), mpb.WithAutoRefresh())
	var mu sync.Mutex // guards bars alone: drawing a bar must never wait for it
	bars := map[pipeline.Window]*windowBar{}
	observe := func(e pipeline.Event) {
		mu.Lock()
		defer mu.Unlock()
		b := bars[e.Window]
		if b == nil {
			if e.Phase == pipeline.PhaseDone {
				return // skipped: no bar for nothing
			}
			b = newWindowBar(container, windowLabel(stream, e.Window), expected[e.Window])
			bars[e.Window] = b
		}
		b.show(e)
	}
	return progress{observe: observe, close: func() {
		for _, b := range bars {
			if !b.bar.Completed() {
				b.bar.Abort(false)
			}
		}
		container.Wait()
	}}
}

// windowBar is the bar of one window. Its text is read by the drawing goroutine.
type windowBar struct {
	bar      *mpb.Bar
	text     atomic.Value // string
	expected int64        // records; 0 for unknown
	started  time.Time    // of the drain
}

func newWindowBar(container *mpb.Progress, label string, expected int64) *windowBar {
	b := &windowBar{expected: expected}
	b.text.Store("")
	b.bar = container.AddBar(100, mpb.PrependDecorators(decor.Name(label, decor.WC{C: decor.DSyncWidthR})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return b.text.Load().(string) })))
	return b
}

// show takes a window's bar a step on. The first tenth is the job's, the last fifth the publication's.
func (b *windowBar) show(e pipeline.Event) {
	switch e.Phase {
	case pipeline.PhaseJob:
		b.text.Store(fmt.Sprintf("job %d %%", e.Progress))
		b.bar.SetCurrent(int64(e.Progress) / 10)
	case pipeline.PhaseDrain:
		if b.started.IsZero() {
			b.started = time.Now()
		}
		rate := float64(e.Records) / max(time.Since(b.started).Seconds(), 0.001)
		text := fmt.Sprintf("%d records, %.0f/s", e.Records, rate)
		if b.expected > e.Records && e.Records > 0 {
			left := time.Duration(float64(b.expected-e.Records) / rate * float64(time.Second))
			text += fmt.Sprintf(", about %s left", left.Round(time.Second))
			b.bar.SetCurrent(10 + 70*e.Records/b.expected)
		}
		b.text.Store(text)
	case pipeline.PhasePublish:
		b.text.Store(fmt.Sprintf("%d records, publishing", e.Records))
		b.bar.SetCurrent(80)
	case pipeline.PhaseDone:
		b.text.Store(fmt.Sprintf("%s, %d records", e.Result.Status, e.Result.Records))
		if e.Result.Err != nil {
			b.bar.Abort(false)
			return
		}
		b.bar.SetCurrent(100)
	}
}
