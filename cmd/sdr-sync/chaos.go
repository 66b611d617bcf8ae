package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/chaos"
)

// chaosOptions are the flags of sdr-sync chaos.
type chaosOptions struct {
	dir      string
	seed     uint64
	cycles   int
	minutes  float64
	parallel int
	cell     string
	matrix   bool
	list     bool
	checker  string
}

func (a *app) chaosCommand() *cobra.Command {
	var o chaosOptions
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Break the program in every way one machine allows, and prove that nothing is lost or doubled",
		Long: `Break the program in every way one machine allows: kills at named and at random moments, broken networks, databases and disks, a vendor that
misbehaves. Each cycle has a stand-in vendor, a database and folders of its own; one thing goes wrong in it; the program is started again until it
ends well; then tables and files are compared with what the vendor holds, and sdr-sync verify must agree.

Nothing of yours is touched: everything stands below --dir, and the Postgres is a private one, or databases of the harness's own on the server
of $SDR_SYNC_POSTGRES_URL. Exit 7 if anything was found; each finding names the command that repeats it, and its folder stays.`,
		Example: "  sdr-sync chaos --cycles 100\n  sdr-sync chaos --minutes 30 --matrix\n  sdr-sync chaos --list\n  sdr-sync chaos --seed 7 --cell kill/publish.before-commit/first",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.chaos(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "folder for everything (default: a new one among the temporary files)")
	f.Uint64Var(&o.seed, "seed", 0, "what the cycles follow from: cycle i has seed+i (default: the time)")
	f.IntVar(&o.cycles, "cycles", 0, "how many random cycles, or cycles of --cell (default: 20 without --minutes and --matrix, 1 with --cell)")
	f.Float64Var(&o.minutes, "minutes", 0, "how long")
	f.IntVar(&o.parallel, "parallel", 2, "cycles at once")
	f.StringVar(&o.cell, "cell", "", "only this cell: FAULT/STAGE/OCCURRENCE")
	f.BoolVar(&o.matrix, "matrix", false, "every cell once, first")
	f.StringVar(&o.checker, "checker", "", "program that is run on each cycle's folder too, such as bin/chaos-duckdb")
	f.BoolVar(&o.list, "list", false, "print every cell and run none")
	return cmd
}

func (a *app) chaos(ctx context.Context, o chaosOptions) (err error) {
	if o.list {
		for _, c := range chaos.Matrix() {
			fmt.Fprintln(a.stdout, c)
		}
		return nil
	}
	plan := chaos.Plan{Seed: o.seed, Matrix: o.matrix, Cycles: o.cycles, For: time.Duration(o.minutes * float64(time.Minute))}
	if o.seed == 0 {
		plan.Seed = uint64(time.Now().Unix())
	}
	if o.cell != "" {
		cell, err := chaos.ParseCell(o.cell)
		if err == nil {
			err = cell.Check()
		}
		if err != nil {
			return withCode(exitUsage, err)
		}
		plan.Cell = &cell
		if plan.Cycles == 0 && plan.For == 0 {
			plan.Cycles = 1
		}
	}
	if plan.Cycles == 0 && plan.For == 0 && !plan.Matrix {
		plan.Cycles = 20
	}
	url := os.Getenv("SDR_SYNC_POSTGRES_URL")
	dir, err := chaosDir(o.dir)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "chaos: preparing below %s\n", dir)
	h, err := chaos.Open(ctx, chaos.Config{Program: program, Dir: dir, PostgresURL: url, Parallel: o.parallel, Checker: o.checker})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close(ctx)) }()
	told := 0
	plan.Progress = func(r chaos.Report) {
		for ; told < len(r.Found); told++ {
			f := r.Found[told]
			fmt.Fprintf(a.stderr, "chaos: FOUND %s (%s): %s\n  repeat: %s\n  look at: %s\n", f.Cell, f.Scenario, strings.Join(f.Found, "\n    "), f.Repeat(), f.Dir)
		}
		if r.Cycles%10 == 0 {
			fmt.Fprintf(a.stderr, "chaos: seed %d: %d cycles, %d of %d cells, %d runs of the program, %d findings, %s\n",
				r.Seed, r.Cycles, r.Cells(), r.Matrix, r.Runs, len(r.Found), r.Took.Round(time.Second))
		}
	}
	r, err := h.Execute(ctx, plan)
	if printErr := a.printChaos(r); printErr != nil {
		return errors.Join(err, printErr)
	}
	if err == nil && len(r.Found) > 0 {
		err = withCode(exitDifference, fmt.Errorf("%d of %d cycles found something", len(r.Found), r.Cycles))
	}
	return err
}

// chaosDir is the folder for everything. A private Postgres of root's runs as another user, who must be able to pass.
func chaosDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.MkdirTemp("", "sdr-sync-chaos-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func (a *app) printChaos(r chaos.Report) error {
	if a.output == "json" {
		return a.printJSON(r)
	}
	t := a.table("FAULT", "CELLS", "CYCLES", "MET", "FINDINGS")
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		f := r.Faults[name]
		t.row(name, f.Cells, f.Cycles, f.Met, f.Found)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, cell := range slices.Sorted(maps.Keys(r.Skipped)) {
		fmt.Fprintf(a.stdout, "left out: %s: %s\n", cell, r.Skipped[cell])
	}
	_, err := fmt.Fprintf(a.stdout, "\nseed %d: %d cycles of %d cells (of %d), %d runs of the program, %s: %d findings\n",
		r.Seed, r.Cycles, r.Cells(), r.Matrix, r.Runs, r.Took.Round(time.Second), len(r.Found))
	return err
}
