// Package chaos breaks the program in every way that one machine allows and judges what is left. It starts the real program as a child
// against a stand-in vendor and a Postgres of its own, lets one thing go wrong, starts the program again until it ends well, and compares tables
// and files with what the vendor holds. It knows the program's outside alone: commands, exit codes, tables, files.
package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// Config says what is broken and where. Program and Dir are needed.
type Config struct {
	Program     string   // path of sdr-sync
	Environ     []string // added to its environment
	Dir         string   // folder for everything; what is found stays there
	PostgresURL string   // a server to make databases on, as a superuser; empty: a private Postgres, which can be crashed too
	Parallel    int      // cycles at once; 0 is 2
	Checker     string   // optional: a program that is run on each world's folder, which holds lake/ and truth.json; exit 1 is a finding
}

// Harness is ready to run cycles. It may be used from several goroutines.
type Harness struct {
	cfg    Config
	dir    string
	server *server
	traces map[string]trace // of undisturbed runs, by scenario

	crashing sync.Mutex // one cycle at a time has the server that is crashed
	crashed  *server    // started when the first one asks for it
}

// trace is what an undisturbed run of a scenario comes to.
type trace struct {
	points map[string]int // how often each failpoint was passed
	calls  map[sandbox.Endpoint]int64
	took   time.Duration
}

// Open starts a Postgres, prepares what worlds begin with, and learns from undisturbed runs which stages each scenario has. Close must be
// called.
func Open(ctx context.Context, cfg Config) (_ *Harness, err error) {
	if cfg.Parallel <= 0 {
		cfg.Parallel = 2
	}
	h := &Harness{cfg: cfg, traces: map[string]trace{}}
	if h.dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(h.dir, 0o755); err != nil { // the server's user must pass
		return nil, err
	}
	if h.server, err = startServer(ctx, cfg.PostgresURL, filepath.Join(h.dir, "postgres"), false); err != nil {
		return nil, err
	}
	if err := h.prepare(ctx); err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	return h, nil
}

// Close stops the servers. What cycles left to look at stays.
func (h *Harness) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var err error
	if !h.server.owned() {
		for _, p := range []prepared{migrated, loaded} {
			err = errors.Join(err, administer(ctx, h.server.url(superuser, "postgres"), "DROP DATABASE IF EXISTS "+template(p)+" WITH (FORCE)"))
		}
	}
	err = errors.Join(err, h.server.close(), os.RemoveAll(filepath.Join(h.dir, string(loaded))))
	if h.crashed != nil {
		err = errors.Join(err, h.crashed.close())
	}
	return err
}

// prepare makes the templates, and traces every scenario.
func (h *Harness) prepare(ctx context.Context) error {
	if err := h.migrate(ctx, h.server); err != nil {
		return err
	}
	w, err := h.newWorld(ctx, h.server, string(loaded), scenarioNamed("first"), nil)
	if err != nil {
		return err
	}
	if err := errors.Join(w.want(ctx, w.backfill()...), w.judge(ctx)); err != nil {
		return errors.Join(fmt.Errorf("the undisturbed first load: %w", err), w.close(ctx, true))
	}
	if err := w.close(ctx, true); err != nil {
		return err
	}
	err = administer(ctx, h.server.url(superuser, "postgres"),
		"DROP DATABASE IF EXISTS "+template(loaded)+" WITH (FORCE)", "ALTER DATABASE "+w.database+" RENAME TO "+template(loaded))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(h.cfg.Parallel)
	for _, s := range scenarios() {
		g.Go(func() error {
			t, err := h.traceOf(ctx, s)
			mu.Lock()
			defer mu.Unlock()
			h.traces[s.name] = t
			return err
		})
	}
	return g.Wait()
}

// migrate makes the template of a migrated database on a server, and the login that the program works as.
func (h *Harness) migrate(ctx context.Context, on *server) error {
	w, err := h.newWorld(ctx, on, "migrate", scenarioNamed("migrate"), nil)
	if err != nil {
		return err
	}
	if err := w.want(ctx, "migrate"); err != nil {
		return errors.Join(err, w.close(ctx, true))
	}
	if on.owned() {
		err = w.administer(ctx, `DO $$ BEGIN CREATE ROLE `+writer+` LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$`, "GRANT sdr_sync_writer TO "+writer)
	}
	database := w.database
	w.database = "" // it becomes the template
	return errors.Join(err, administer(ctx, on.url(superuser, "postgres"), "DROP DATABASE IF EXISTS "+template(migrated)+" WITH (FORCE)",
		"ALTER DATABASE "+database+" RENAME TO "+template(migrated)), w.close(ctx, false))
}

// traceOf runs a scenario undisturbed and counts what it passes.
func (h *Harness) traceOf(ctx context.Context, s scenario) (t trace, err error) {
	w, err := h.newWorld(ctx, h.server, "trace-"+s.name, s, nil)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, w.close(ctx, err != nil)) }()
	w.impatient()
	path := filepath.Join(w.dir, "trace")
	e, err := w.run(ctx, []string{failpointEnv("trace=" + path)}, s.command(w)...)
	if err == nil && e.code != 0 {
		err = findingf("the undisturbed run %s: %s", s.name, e)
	}
	if err != nil {
		return t, err
	}
	t = trace{points: map[string]int{}, calls: w.vendor.Stats().Calls, took: e.took}
	file, err := os.Open(path)
	if err != nil {
		return t, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		t.points[lines.Text()]++
	}
	return t, nil
}

// impatient shortens the lease, so that a run that stands still loses it soon.
func (w *world) impatient() { w.settings["sync"]["lease"] = "600ms" }

// patient lets a run keep its lease however busy the machine is.
func (w *world) patient() { delete(w.settings["sync"], "lease") }

// Outcome is what came of a cycle.
type Outcome struct {
	Cell     Cell          `json:"cell"`
	Seed     uint64        `json:"seed"`
	Scenario string        `json:"scenario"`
	Met      bool          `json:"met"`               // the fault befell the run
	Skipped  string        `json:"skipped,omitempty"` // why the cell can't be made here
	Runs     int           `json:"runs"`              // of the program
	Found    []string      `json:"found,omitempty"`
	Dir      string        `json:"dir,omitempty"` // what is left of the world, if anything was found
	Took     time.Duration `json:"took_ns"`
}

// Repeat is the command line that runs the cycle again.
func (o Outcome) Repeat() string {
	return fmt.Sprintf("sdr-sync chaos --seed %d --cell %s", o.Seed, o.Cell)
}

// cycle is one world, one fault and what follows.
type cycle struct {
	*world
	cell   Cell
	random *rand.Rand
	trace  trace
	met    bool
	args   []string // the command that the fault befalls, and that is repeated until it ends well
	undo   []func() // set settings and vendor right again before the program is run again
	accept []int    // exit codes of the disturbed run; nil is any documented one but 1, 2 and 7
}

// Run runs the cycle of a seed and a cell. An error is trouble of the harness's own; what is found is in the outcome.
func (h *Harness) Run(ctx context.Context, seed uint64, cell Cell) (o Outcome, err error) {
	if err := cell.Check(); err != nil {
		return o, err
	}
	f, _ := faultNamed(cell.Fault)
	random := rand.New(rand.NewPCG(seed, 0xc4a05))
	o = Outcome{Cell: cell, Seed: seed}
	started := time.Now()
	defer func() { o.Took = time.Since(started) }()
	switch {
	case f.root && os.Geteuid() != 0:
		o.Skipped = "only root may mount a small disk"
	case f.crashes && !h.server.owned():
		o.Skipped = "the server is not the harness's own"
	}
	if o.Skipped != "" {
		return o, nil
	}
	on := h.server
	if f.crashes {
		h.crashing.Lock()
		defer h.crashing.Unlock()
		if on, err = h.crashServer(ctx); err != nil {
			return o, err
		}
	}
	s := h.scenarioFor(f, cell, random)
	o.Scenario = s.name
	w, err := h.newWorld(ctx, on, fmt.Sprintf("cycle-%d-%s", seed, strings.ReplaceAll(cell.String(), "/", "-")), s, f.vendor)
	if err != nil {
		return o, err
	}
	c := &cycle{world: w, cell: cell, random: random, trace: h.traces[s.name]}
	c.args = s.command(w)
	within, cancel := context.WithTimeoutCause(ctx, cycleLimit, findingf("the cycle did not end within %s", cycleLimit))
	defer cancel()
	err = c.run(within, f)
	if within.Err() != nil && ctx.Err() == nil {
		err = context.Cause(within)
	}
	o.Met, o.Runs = c.met, w.commands
	if ctx.Err() != nil {
		return o, errors.Join(context.Cause(ctx), w.close(ctx, false))
	}
	found, trouble := findings(err)
	if o.Found = found; len(found) > 0 || trouble != nil {
		o.Dir = w.dir
	}
	return o, errors.Join(trouble, w.close(ctx, o.Dir != ""))
}

// crashServer returns the server that may be stopped under a run. Nobody else's worlds are on it.
func (h *Harness) crashServer(ctx context.Context) (*server, error) {
	if h.crashed != nil {
		return h.crashed, nil
	}
	on, err := startServer(ctx, "", filepath.Join(h.dir, "postgres-crashed"), true)
	if err != nil {
		return nil, err
	}
	if err := h.migrate(ctx, on); err != nil {
		return nil, errors.Join(err, on.close())
	}
	h.crashed = on
	return on, nil
}

// run lets the fault befall the program, sets everything right, runs the program until it ends well, and judges.
func (c *cycle) run(ctx context.Context, f fault) error {
	c.impatient()
	err := f.befall(ctx, c)
	for _, right := range slices.Backward(c.undo) {
		right()
	}
	c.patient()
	if _, trouble := findings(err); trouble != nil {
		return err
	}
	if err := errors.Join(err, c.recover(ctx)); err != nil {
		return err
	}
	if c.scenario.from == bare {
		return c.judgeMigrated(ctx)
	}
	if err := errors.Join(c.judge(ctx), c.judgeDebris(ctx), c.want(ctx, "verify"), c.check(ctx)); err != nil {
		return err
	}
	if c.random.IntN(4) > 0 || !c.first.Equal(firstDay) || len(c.streams) == 0 { // a night asks for more than two days
		return nil
	}
	return c.changesNothing(ctx)
}

// check lets another program, which reads Parquet with another engine, compare the lake with the vendor's truth.
func (c *cycle) check(ctx context.Context) error {
	if c.h.cfg.Checker == "" || !slices.Contains(c.streams, "sdr") {
		return nil
	}
	truth, err := json.Marshal(c.world.vendor.Truth(sandbox.DefaultSite, sandbox.DefaultRegion, c.first, c.now()))
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "truth.json"), truth, 0o600)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	checker := exec.CommandContext(ctx, c.h.cfg.Checker, c.dir)
	var complaint bytes.Buffer
	checker.Stderr = &complaint
	said, err := checker.Output()
	return c.judgeChecker(said, err, complaint.String())
}

// judgeChecker turns the end of the checker into a finding or an error: exit 1 says that something differs.
func (c *cycle) judgeChecker(said []byte, err error, complaint string) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return findingf("%s: %s", filepath.Base(c.h.cfg.Checker), bytes.TrimSpace(said))
	}
	if err != nil {
		return fmt.Errorf("run %s: %w: %s%s", c.h.cfg.Checker, err, said, complaint)
	}
	return nil
}

// recover starts the same command again, with nothing repaired or removed, until it ends well.
func (c *cycle) recover(ctx context.Context) error {
	const tries = 4
	var last ended
	for range tries {
		e, err := c.world.run(ctx, nil, c.args...)
		if err != nil {
			return err
		}
		if e.code == 0 {
			return nil
		}
		last = e
		if e.code == 6 { // a lease whose holder can't be proved dead has to expire
			until := time.After(700 * time.Millisecond)
			select {
			case <-until:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return findingf("%s did not end well %d times in a row after the trouble was over: %s", c.args[0], tries, last)
}

// judgeMigrated proves that an interrupted migration was completed: the first load works.
func (c *cycle) judgeMigrated(ctx context.Context) error {
	if err := c.want(ctx, c.backfill()...); err != nil {
		return err
	}
	return errors.Join(c.judge(ctx), c.want(ctx, "verify"))
}

// changesNothing lets a night's run be repeated: the second one must not touch anything. The first may close rows of histories that an earlier
// one found absent.
func (c *cycle) changesNothing(ctx context.Context) error {
	if err := c.want(ctx, c.nightly()...); err != nil {
		return err
	}
	before, err := c.fingerprint(ctx)
	if err != nil {
		return err
	}
	if err := c.want(ctx, c.nightly()...); err != nil {
		return err
	}
	after, err := c.fingerprint(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, what := range merged(before, after) {
		if before[what] != after[what] {
			errs = append(errs, findingf("a second run changed %s: before %q, after %q", what, before[what], after[what]))
		}
	}
	return errors.Join(append(errs, c.judge(ctx))...)
}

// disturbed judges how the run ended that the fault befell. Exit 0 is a promise, so it is held to it at once.
func (c *cycle) disturbed(ctx context.Context, e ended) error {
	if err := c.disturbedUnjudged(e); err != nil {
		return err
	}
	if e.code == 0 && c.scenario.from != bare {
		return c.judge(ctx)
	}
	return nil
}

// disturbedUnjudged judges the exit code alone.
func (c *cycle) disturbedUnjudged(e ended) error {
	if e.signal == syscall.SIGKILL { // that was the harness
		return nil
	}
	documented := c.accept
	if documented == nil {
		documented = []int{0, 3, 4, 5, 6}
	}
	if !slices.Contains(documented, e.code) {
		return findingf("%s under %s: want an exit code of %v, got %s", c.args[0], c.cell, documented, e)
	}
	return nil
}
