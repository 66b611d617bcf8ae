package main

import (
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// TestBars draws while several windows report: drawing and reporting once waited for each other.
func TestBars(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	drawn := make(chan string)
	go func() {
		text, _ := io.ReadAll(r)
		drawn <- string(text)
	}()
	windows := make([]pipeline.Window, 6)
	expected := map[pipeline.Window]int64{}
	for i := range windows {
		from := record.NewDate(2024, 1, 1).AddMonths(i)
		windows[i] = pipeline.Window{Scope: pipeline.Scope{Site: "s", Region: "r"}, Unit: pipeline.Month, From: from, To: from.AddMonths(1)}
		expected[windows[i]] = 400_000
	}
	p := newBars(&app{stderr: w}, streamSDR, expected)
	var wait sync.WaitGroup
	for i, window := range windows {
		wait.Go(func() {
			for n := range int64(2000) {
				p.observe(pipeline.Event{Window: window, Phase: pipeline.PhaseJob, Progress: int(n / 20)})
				p.observe(pipeline.Event{Window: window, Phase: pipeline.PhaseDrain, Pages: n, Records: 200 * n})
			}
			result := &pipeline.Result{Status: pipeline.Published, Records: 400_000}
			if i == 0 {
				result = &pipeline.Result{Status: pipeline.Failed, Err: io.ErrUnexpectedEOF}
			}
			p.observe(pipeline.Event{Window: window, Phase: pipeline.PhaseDone, Result: result})
		})
	}
	wait.Wait()
	p.close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for text, got := "s/r [2024-06-01, 2024-07-01)", <-drawn; !strings.Contains(got, text) || !strings.Contains(got, "published"); {
		t.Fatalf("the bars show\n%s\nwant %q, published", got, text)
	}
}
