package main

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/chaos"
	"github.com/sdr-sync/sdr-sync/failpoint"
)

// Every failpoint is crashed once, every fault is made once, every call of the vendor's goes wrong once, and fifty random cycles follow: nothing
// is lost, doubled or left behind. A failure names the command that repeats it. It has the machine to itself: most moments are short ones.
func TestChaos(t *testing.T) {
	h := openChaos(t)
	matrix := h.Matrix()
	plan := chaos.Plan{Seed: uint64(time.Now().Unix()), Cells: oneOfEach(matrix), Cycles: 50}
	told := 0
	plan.Progress = func(r chaos.Report) {
		for ; told < len(r.Found); told++ {
			f := r.Found[told]
			t.Errorf("%s (%s): %s\nrepeat: %s", f.Cell, f.Scenario, strings.Join(f.Found, "\n"), f.Repeat())
		}
		if r.Cycles%25 == 0 {
			t.Logf("%d cycles, %d runs of the program, %s", r.Cycles, r.Runs, r.Took.Round(time.Second))
		}
	}
	r, err := h.Execute(t.Context(), plan)
	if err != nil {
		t.Error(err)
	}
	if r.Cycles < len(plan.Cells)-len(r.Skipped)+plan.Cycles {
		t.Errorf("%d cycles, want %d and %d", r.Cycles, len(plan.Cells), plan.Cycles)
	}
	for cell, why := range r.Skipped {
		t.Logf("left out: %s: %s", cell, why)
	}
	if r.Faults["kill"].Met < len(failpoint.All())*9/10 { // which scenario passes a point may vary with the time it takes
		t.Errorf("%d of %d failpoints were met", r.Faults["kill"].Met, len(failpoint.All()))
	}
	t.Logf("seed %d: %d cycles, %d met, %d runs of the program, %s", r.Seed, r.Cycles, r.Met, r.Runs, r.Took.Round(time.Second))
}

func openChaos(t *testing.T) *chaos.Harness {
	t.Helper()
	dir, err := os.MkdirTemp("", "sdr-sync-chaos-test-") // t.TempDir lets no other user pass, and Postgres is one
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("look at", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Four at once, on two cores: a cycle waits more than it computes.
	h, err := chaos.Open(t.Context(), chaos.Config{Program: program, Environ: []string{asProgram + "=1"}, Dir: dir, Parallel: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// oneOfEach chooses the first kill at each failpoint, one cell of each fault, and such ones that every call goes wrong once.
func oneOfEach(matrix []chaos.Cell) []chaos.Cell {
	var chosen []chaos.Cell
	faults, calls := map[string]bool{}, map[string]bool{}
	for _, c := range matrix {
		if c.Fault == "kill" && c.Occurrence == chaos.First {
			chosen, faults[c.Fault] = append(chosen, c), true
		}
	}
	for _, c := range matrix { // a fault at a call that nothing befell yet, where there is one
		if !faults[c.Fault] && strings.HasPrefix(c.Stage, "http.") && !calls[c.Stage] {
			chosen, faults[c.Fault], calls[c.Stage] = append(chosen, c), true, true
		}
	}
	for _, c := range matrix {
		if !faults[c.Fault] {
			chosen, faults[c.Fault], calls[c.Stage] = append(chosen, c), true, true
		}
	}
	for _, c := range slices.Backward(matrix) {
		if strings.HasPrefix(c.Stage, "http.") && !calls[c.Stage] {
			chosen, calls[c.Stage] = append(chosen, c), true
		}
	}
	for _, text := range []string{"panic/lease.renew/first", "panic/token.got/first", "panic/export.written/first"} { // each ended or hung the process once
		c, err := chaos.ParseCell(text)
		if err == nil && c.Check() == nil {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// The command says what it can't do, and what it found.
func TestChaosCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"half a cell", []string{"--cell", "kill/publish.begun"}, "FAULT/STAGE/OCCURRENCE"},
		{"no such cell", []string{"--cell", "kill/nowhere/first"}, "there is no cell kill/nowhere/first"},
		{"no such fault", []string{"--cell", "earthquake/publish.begun/first"}, "there is no cell earthquake/publish.begun/first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := inProcess(t, t.Context(), append([]string{"chaos"}, c.args...))
			if f.code != exitUsage {
				t.Errorf("want exit 2, got %s", f)
			}
			contains(t, f.err, c.says)
		})
	}
	t.Run("one cell", func(t *testing.T) {
		t.Parallel()
		f := start(t, nil, []string{"chaos", "--seed", "7", "--cell", "kill/publish.before-commit/first", "--output", "json"}).wait()
		var r struct {
			Cycles, Met int
			Found       []any
		}
		if err := json.Unmarshal([]byte(f.out), &r); err != nil || f.code != exitOK || r.Cycles != 1 || r.Met != 1 || len(r.Found) > 0 {
			t.Errorf("%v: got %+v from %s", err, r, f)
		}
	})
}

// Nobody can arm a failpoint where somebody is charged.
func TestFailpointsAreForRehearsals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, endpoint, rules string
		code                  exitCode
		says                  string
	}{
		{"a real vendor", "https://esm.example.com", "publish.begun=kill", exitUsage, "is for rehearsals"},
		{"no vendor at all", "", "publish.begun=kill", exitUsage, "is for rehearsals"},
		{"a stand-in, and nonsense", "http://127.0.0.1:9", "publish.begun=melt", exitUsage, `action "melt"`},
		{"a real BSS", "http://127.0.0.1:9", "publish.begun=kill", exitUsage, "is for rehearsals"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.settings["iam.endpoint"], w.settings["esm.endpoint"] = c.endpoint, c.endpoint
			if c.name == "a real BSS" {
				w.settings["bss.endpoint"] = "https://bss.example.com"
			}
			f := start(t, []string{failpoint.Env + "=" + c.rules}, append([]string{"--config", w.configure()}, w.backfill()...)).wait()
			if f.code != c.code {
				t.Errorf("want exit %d, got %s", c.code, f)
			}
			contains(t, f.err, c.says)
			if n := w.one(`SELECT count(*) FROM sdr_sync.run`); n != "0" {
				t.Errorf("%s runs were stored", n)
			}
		})
	}
}
