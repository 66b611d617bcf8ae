package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Plan says which cycles to run: those of one cell, the whole matrix, or random ones, until their number or their time is over. Cycle i has
// the seed Seed+i.
type Plan struct {
	Seed     uint64
	Cell     *Cell         // only this one, Cycles times
	Matrix   bool          // every cell once, then random ones for the rest of Cycles or For
	Cells    []Cell        // instead of the whole matrix; nil is all of it
	Cycles   int           // 0 with For is any number
	For      time.Duration // 0 is no limit
	Progress func(Report)  // optional; called after each cycle, from one goroutine at a time
}

// Report sums up what cycles came to.
type Report struct {
	Seed    uint64            `json:"seed"`
	Cycles  int               `json:"cycles"`
	Runs    int               `json:"runs"` // of the program
	Met     int               `json:"met"`  // cycles whose fault befell the run
	Matrix  int               `json:"matrix"`
	Faults  map[string]*Tally `json:"faults"`
	Skipped map[string]string `json:"skipped,omitempty"` // cells, and why
	Found   []Outcome         `json:"found,omitempty"`
	Took    time.Duration     `json:"took_ns"`
	cells   map[Cell]bool
}

// Tally counts the cycles of one fault.
type Tally struct {
	Cells  int `json:"cells"` // different ones
	Cycles int `json:"cycles"`
	Met    int `json:"met"`
	Found  int `json:"found"`
}

func (r *Report) add(o Outcome) {
	t := r.Faults[o.Cell.Fault]
	if t == nil {
		t = &Tally{}
		r.Faults[o.Cell.Fault] = t
	}
	if o.Skipped != "" {
		r.Skipped[o.Cell.String()] = o.Skipped
		return
	}
	r.Cycles++
	t.Cycles++
	r.Runs += o.Runs
	if !r.cells[o.Cell] {
		r.cells[o.Cell] = true
		t.Cells++
	}
	if o.Met {
		r.Met++
		t.Met++
	}
	if len(o.Found) > 0 {
		t.Found++
		r.Found = append(r.Found, o)
	}
}

// Cells is how many different cells were run.
func (r *Report) Cells() int { return len(r.cells) }

// Execute runs a plan. What is found is in the report; an error is trouble of the harness's own, or that ctx ended.
func (h *Harness) Execute(ctx context.Context, p Plan) (Report, error) {
	matrix := h.Matrix()
	r := Report{Seed: p.Seed, Matrix: len(matrix), Faults: map[string]*Tally{}, Skipped: map[string]string{}, cells: map[Cell]bool{}}
	started := time.Now()
	first := p.Cells
	if p.Matrix && first == nil {
		first = slices.Clone(matrix)
		rand.New(rand.NewPCG(p.Seed, 0x5f1e)).Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] }) // time may not last
	}
	over := func(i int) bool {
		timedOut := p.For > 0 && time.Since(started) >= p.For
		switch {
		case i < len(first):
			return timedOut
		case p.Cycles > 0 && i >= len(first)+p.Cycles, p.Cycles == 0 && p.For == 0:
			return true
		}
		return timedOut
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(h.cfg.Parallel)
	for i := 0; !over(i) && ctx.Err() == nil; i++ {
		seed := p.Seed + uint64(i)
		cell := RandomCell(matrix, seed)
		switch {
		case i < len(first):
			cell = first[i]
		case p.Cell != nil:
			cell = *p.Cell
		}
		g.Go(func() error {
			o, err := h.Run(ctx, seed, cell)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				return errors.Join(errors.New("harness: "+o.Repeat()), err)
			}
			r.add(o)
			r.Took = time.Since(started)
			if p.Progress != nil {
				p.Progress(r)
			}
			return nil
		})
	}
	err := g.Wait()
	r.Took = time.Since(started)
	slices.SortFunc(r.Found, func(a, b Outcome) int { return int(a.Seed) - int(b.Seed) })
	return r, err
}

// RandomCell is the cell of a random cycle: half of them are signals at moments that nobody chose, the others any fault alike often.
func RandomCell(matrix []Cell, seed uint64) Cell {
	random := rand.New(rand.NewPCG(seed, 0xce11))
	switch n := random.IntN(10); {
	case n < 4:
		return Cell{"kill-chain", "anytime", First}
	case n < 5:
		return Cell{"sigterm-anytime", "anytime", First}
	}
	byFault := map[string][]Cell{}
	var names []string
	for _, c := range matrix {
		if byFault[c.Fault] == nil {
			names = append(names, c.Fault)
		}
		byFault[c.Fault] = append(byFault[c.Fault], c)
	}
	cells := byFault[names[random.IntN(len(names))]]
	return cells[random.IntN(len(cells))]
}
