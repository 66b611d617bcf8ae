package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

var killSeed = flag.Uint64("kill-seed", 0, "repeat the kills of TestKilledAtAnyMoment that logged this seed")

// resumes starts the command again, with nothing repaired or removed, and demands that it then ends well and leaves the truth.
func (w *world) resumes(args ...string) {
	w.t.Helper()
	if f := w.start(args...).wait(); f.code != exitOK {
		w.t.Fatalf("after the kill: want exit 0, got %s", f)
	}
	w.proof(firstDay, someday)
	w.noDebris()
	if f := w.run("verify"); f.code != exitOK {
		w.t.Errorf("verify: got %s", f)
	}
}

// Killed with -9 three times in a row at moments that nobody chose, a backfill started again ends with the vendor's truth.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -kill-seed=%d", seed)
	slow := func(c *sandbox.Config) { c.PageLatency = 3 * time.Millisecond }
	undisturbed := newWorld(t, 9, slow)
	whole := undisturbed.start(undisturbed.backfill()...).wait()
	if whole.code != exitOK {
		t.Fatal(whole)
	}
	for chain := range 3 * thorough {
		t.Run(fmt.Sprintf("chain %d", chain), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, uint64(chain)))
			w := newWorld(t, 9, slow)
			for range 3 {
				p := w.start(w.backfill()...)
				after := time.Duration(random.Int64N(int64(whole.took)))
				select {
				case <-time.After(after):
				case <-p.done:
				}
				t.Logf("after %s: killed %t", after.Round(time.Millisecond), p.kill())
			}
			w.resumes(w.backfill()...)
		})
	}
}

// Killed just so while it changes what is published: the same command again ends with the truth.
func TestKilledWhileChanging(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -kill-seed=%d", seed)
	night := func(w *world) { w.vendor.AdvanceNight() }
	for number, c := range []struct {
		name    string
		prepare func(*world)
		args    []string
		after   func(*world)
	}{
		{"nightly", night, []string{"nightly", "--today", someday, "--verbose"}, nil},
		{"refresh", night, []string{"backfill", "--from", "2024-01", "--to", "2024-04", "--today", someday, "--refresh"}, nil},
		{"reslice", night, []string{"backfill", "--from", "2024-03", "--to", "2024-04", "--today", someday, "--reslice", "day"}, nil},
		{
			"replay in another zone", func(w *world) { w.settings["sync.source_timezone"] = shanghai },
			[]string{"replay", "--all"},
			func(w *world) { w.zoneIs(shanghai) },
		},
		{"rebuilding the lake", func(w *world) { _ = os.RemoveAll(w.lake()) }, []string{"export", "--all"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, uint64(number)))
			w := newWorld(t, 3)
			w.want(exitOK, w.backfill()...)
			c.prepare(w)
			for range 4 {
				p := w.start(c.args...)
				after := time.Duration(random.Int64N(int64(500 * time.Millisecond)))
				select {
				case <-time.After(after):
				case <-p.done:
				}
				t.Logf("after %s: killed %t", after.Round(time.Millisecond), p.kill())
			}
			w.resumes(c.args...)
			w.tiles(firstDay, someday)
			if c.after != nil {
				c.after(w)
			}
		})
	}
}

// The database drops every connection: the run ends well all the same, or it can be resumed.
func TestDatabaseDropsConnections(t *testing.T) {
	t.Parallel()
	drop := func(w *world) {
		w.one(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sdr-sync'`)
	}
	for _, c := range []struct {
		name   string
		moment moment
	}{
		{"after some calls", func(w *world) (func(*process), func()) {
			for _, call := range []int{1, 3} {
				w.gate.after(sandbox.EndpointCreate, call, func() { drop(w) })
				w.gate.after(sandbox.EndpointPoll, call, func() { drop(w) })
				w.gate.after(sandbox.EndpointPage, 20*call, func() { drop(w) })
			}
			return func(*process) {}, func() {}
		}},
		{"inside COPY", inCopy},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3)
			meet, release := c.moment(w)
			p := w.start(w.backfill()...)
			meet(p)
			drop(w)
			release()
			f := p.wait()
			if f.code != exitOK && f.code != exitIncomplete {
				t.Errorf("want exit 0 or 3, got %s", f)
			}
			t.Logf("exit %d: %s", f.code, withoutLog(f.err))
			w.gate.forget()
			w.resumes(w.backfill()...)
		})
	}
}

// Each of these moments is met, not hoped for.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	const resources = 2
	reference := newWorld(t, resources)
	reference.want(exitOK, reference.backfill()...)
	pages, polls := reference.gate.count(sandbox.EndpointPage), reference.gate.count(sandbox.EndpointPoll)
	t.Logf("%d pages, %d polls", pages, polls)

	// call is the moment around a call: the vendor then stands still until the kill is done.
	call := func(after bool, e sandbox.Endpoint, k int) moment {
		return func(w *world) (func(*process), func()) {
			met, killed := make(chan struct{}), make(chan struct{})
			w.gate.add(step{e, k, after, func() {
				close(met)
				<-killed
			}})
			return func(p *process) { p.await(met) }, func() { close(killed) }
		}
	}
	// sight is the moment at which something can be seen.
	sight := func(see func(*world) bool) moment {
		return func(w *world) (func(*process), func()) {
			return func(p *process) {
				until(w.t, "the moment to kill", func() bool {
					if p.ended() {
						w.t.Fatalf("the run was over before the moment was met: %s", p.wait())
					}
					return see(w)
				})
			}, func() {}
		}
	}
	for _, c := range []struct {
		name   string
		moment moment
	}{
		{"token asked", call(false, sandbox.EndpointToken, 1)},
		{"first job asked", call(false, sandbox.EndpointCreate, 1)},
		{"first job created", call(true, sandbox.EndpointCreate, 1)},
		{"last job created", call(true, sandbox.EndpointCreate, 4)},
		{"first poll", call(true, sandbox.EndpointPoll, 1)},
		{"last poll", call(true, sandbox.EndpointPoll, polls)},
		{"first page asked", call(false, sandbox.EndpointPage, 1)},
		{"first page", call(true, sandbox.EndpointPage, 1)},
		{"middle page", call(true, sandbox.EndpointPage, pages/2)},
		{"last page asked", call(false, sandbox.EndpointPage, pages)},
		{"last page", call(true, sandbox.EndpointPage, pages)},
		{"first bytes landed", sight(func(w *world) bool { return w.landed() > 0 })},
		{"some pages landed", sight(func(w *world) bool { return w.landed() > 50_000 })},
		{"inside COPY", inCopy},
		{"a window committed", sight(func(w *world) bool { return len(w.windows()) > 0 })},
		{"all windows committed", sight(func(w *world) bool { return len(w.windows()) == 4 })},
		{"evidence kept", sight(func(w *world) bool {
			return strings.Contains(strings.Join(files(w.t, w.settings["landing.dir"]), " "), ".gen-")
		})},
		{"file staged", sight(func(w *world) bool {
			return strings.Contains(strings.Join(files(w.t, w.lake()+".staging"), " "), ".parquet")
		})},
		{"file renamed, no manifest", sight(func(w *world) bool { return strings.Contains(strings.Join(files(w.t, w.lake()), " "), ".parquet") })},
		{"manifest written", sight(func(w *world) bool { return exists(w.manifestPath()) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, resources)
			meet, release := c.moment(w)
			p := w.start(w.backfill()...)
			meet(p)
			killed := p.kill()
			release()
			if !killed {
				t.Fatalf("the run was over before the kill: %s", p.wait())
			}
			w.gate.forget()
			w.resumes(w.backfill()...)
		})
	}
}

// moment prepares a world for a moment in a run. meet waits until it has come; release lets the world go on after the kill.
type moment func(*world) (meet func(*process), release func())

// await waits for an event in the process, which must still be there when it comes.
func (p *process) await(event <-chan struct{}) {
	p.t.Helper()
	select {
	case <-event:
	case <-p.done:
		p.t.Fatalf("the run was over before the moment was met: %s", p.wait())
	case <-time.After(patience):
		p.t.Fatal("the moment never came")
	}
}

// forget ends every step.
func (g *gate) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.steps, g.instead = nil, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// landed is the size of the largest landing file.
func (w *world) landed() (most int64) {
	for _, name := range files(w.t, w.settings["landing.dir"]) {
		if info, err := os.Stat(filepath.Join(w.settings["landing.dir"], name)); err == nil {
			most = max(most, info.Size())
		}
	}
	return most
}

// inCopy is the moment at which a backend stands still in the middle of a COPY, with two thousand rows behind it.
func inCopy(w *world) (func(*process), func()) {
	release := w.holdCopy(2000)
	return func(*process) { w.awaitHeld() }, release
}

// holdCopy makes the n-th row that is inserted into billing.sdr wait until release is called.
func (w *world) holdCopy(n int) (release func()) {
	w.t.Helper()
	administer(w.t, w.admin,
		`CREATE SEQUENCE public.held`,
		fmt.Sprintf(`CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
			BEGIN IF nextval('public.held') = %d THEN PERFORM pg_advisory_xact_lock(1); END IF; RETURN NEW; END $$`, n),
		`CREATE TRIGGER hold BEFORE INSERT ON billing.sdr FOR EACH ROW EXECUTE FUNCTION public.hold()`)
	conn := connect(w.t, w.admin)
	if _, err := conn.Exec(context.Background(), "SELECT pg_advisory_lock(1)"); err != nil {
		w.t.Fatal(err)
	}
	return func() { _ = conn.Close(context.Background()) }
}

// awaitHeld waits until a row is held.
func (w *world) awaitHeld() {
	w.t.Helper()
	until(w.t, "a COPY is under way", func() bool {
		return w.one(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'advisory' AND NOT l.granted AND a.datname = current_database() AND a.query LIKE 'COPY%'`) != "0"
	})
}
