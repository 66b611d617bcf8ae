package chaos_test

import (
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/chaos"
	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/sandbox"
)

// Every failpoint, every call that the vendor knows and every fault has a cell, and each cell can be named.
func TestMatrixLacksNothing(t *testing.T) {
	t.Parallel()
	stages, faults, seen := map[string]bool{}, map[string]bool{}, map[chaos.Cell]bool{}
	for _, c := range chaos.Matrix() {
		stages[c.Fault+" "+c.Stage], faults[c.Fault] = true, true
		if strings.HasPrefix(c.Stage, "http.") {
			stages[c.Stage] = true
		}
		if seen[c] {
			t.Errorf("%s is there twice", c)
		}
		seen[c] = true
		parsed, err := chaos.ParseCell(c.String())
		if err != nil || parsed != c || parsed.Check() != nil {
			t.Errorf("%s: read as %v, %v, %v", c, parsed, err, parsed.Check())
		}
	}
	for _, p := range failpoint.All() {
		for _, fault := range []string{"kill", "panic", "sigterm", "overtaken", "terminate"} {
			if !stages[fault+" "+string(p)] {
				t.Errorf("the failpoint %s has no cell with %s", p, fault)
			}
		}
		if p.CanFail() && !stages["error "+string(p)] {
			t.Errorf("the failpoint %s has no cell with an error", p)
		}
	}
	vendor, err := sandbox.New(sandbox.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	for endpoint := range vendor.Stats().Calls {
		if !stages["http."+string(endpoint)] {
			t.Errorf("the call %s has no cell", endpoint)
		}
	}
	for _, f := range chaos.Faults() {
		if !faults[f.Name] || f.Number == "" || f.What == "" {
			t.Errorf("the fault %+v has no cell, no number or no meaning", f)
		}
	}
}

func TestNoSuchCell(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "kill", "kill/publish.begun", "kill/publish.begun/first/1", "kill/nowhere/first", "melt/publish.begun/first", "kill/publish.begun/fifth",
		"panic/publish.begun/last", "error/lease.taken/first", "hostile/publish.begun/first",
	} {
		c, err := chaos.ParseCell(text)
		if err == nil {
			err = c.Check()
		}
		if err == nil {
			t.Errorf("%q is taken for a cell", text)
		}
	}
}

// A seed always gives the same cell, and many seeds give many.
func TestRandomCell(t *testing.T) {
	t.Parallel()
	matrix := chaos.Matrix()
	different := map[chaos.Cell]bool{}
	for seed := range uint64(500) {
		c := chaos.RandomCell(matrix, seed)
		if again := chaos.RandomCell(matrix, seed); again != c {
			t.Errorf("seed %d gives %s and %s", seed, c, again)
		}
		different[c] = true
	}
	if len(different) < 150 {
		t.Errorf("500 seeds give %d cells", len(different))
	}
}

func TestRepeat(t *testing.T) {
	t.Parallel()
	o := chaos.Outcome{Cell: chaos.Cell{Fault: "kill", Stage: "copy.middle", Occurrence: chaos.Last}, Seed: 12}
	if got, want := o.Repeat(), "sdr-sync chaos --seed 12 --cell kill/copy.middle/last"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
