package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// killedStreams are of every shape, and one is asked for by what another brought.
var killedStreams = []string{"audit_logs", "physical_devices", "subscriptions", "tenant_resources", "host_vms"}

// nextDay is the day after listDay.
const nextDay = "2024-04-05"

// heldRow is the moment at which the n-th row that is inserted into, or updated in, a table stands still.
func heldRow(table string, n int) moment {
	return func(w *world) (func(*process), func()) {
		release := w.holdRow(table, n)
		return func(p *process) {
			until(w.t, "a row of "+table+" is held", func() bool {
				if p.ended() {
					w.t.Fatalf("the run was over before a row of %s was held: %s", table, p.wait())
				}
				return w.one(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
					WHERE l.locktype = 'advisory' AND NOT l.granted AND a.datname = current_database() AND a.application_name = 'sdr-sync'`) != "0"
			})
		}, release
	}
}

// calledList is the moment around a call of a list: the vendor then stands still until the kill is done.
func calledList(after bool, e sandbox.Endpoint, k int) moment {
	return func(w *world) (func(*process), func()) {
		met, killed := make(chan struct{}), make(chan struct{})
		w.gate.add(step{e, w.gate.count(e) + k, after, func() {
			close(met)
			<-killed
		}})
		release := sync.OnceFunc(func() { close(killed) })
		w.t.Cleanup(release) // the vendor can't be closed before
		return func(p *process) { p.await(met) }, release
	}
}

// seen is the moment at which something can be seen.
func seen(see func(*world) bool) moment {
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

// Killed with -9 at moments that are met, not hoped for, while lists are loaded for the first time or changed by a night: the same
// command again ends with the truth, and the history has every version once.
func TestListsKilledAtEachStep(t *testing.T) {
	t.Parallel()
	published := func(stream string, generation int) moment {
		return seen(func(w *world) bool {
			return w.one(`SELECT coalesce(max(generation), 0) FROM sdr_sync.window WHERE stream = $1`, stream) == fmt.Sprint(generation)
		})
	}
	for _, c := range []struct {
		name   string
		night  bool // it changes what stands
		moment moment
	}{
		{"first token asked", atFirst, calledList(false, sandbox.EndpointToken, 1)},
		{"first list asked", atFirst, calledList(false, sandbox.EndpointAuditLogs, 1)},
		{"first list answered", atFirst, calledList(true, sandbox.EndpointAuditLogs, 1)},
		{"devices answered", atFirst, calledList(true, sandbox.EndpointPhysicalDevices, 1)},
		{"subscriptions answered in part", atFirst, calledList(true, sandbox.EndpointResources, 1)},
		{"second page of the subscriptions asked", atFirst, calledList(false, sandbox.EndpointResources, 2)},
		{"subscriptions answered", atFirst, calledList(true, sandbox.EndpointResources, 2)},
		{"a list in its third part", atFirst, calledList(true, sandbox.EndpointTenantResources, 3)},
		{"what is asked by another list", atFirst, calledList(false, sandbox.EndpointHostVMs, 4)},
		{"amid the rows of events", atFirst, heldRow("billing.audit_log", 9)},
		{"amid the rows of a snapshot", atFirst, heldRow("billing.physical_device", 5)},
		{"amid the rows of a history", atFirst, heldRow("billing.subscription", 300)},
		{"subscriptions published", atFirst, published("subscriptions", 1)},
		{"all published", atFirst, published("host_vms", 1)},
		{"a file staged", atFirst, seen(func(w *world) bool {
			return strings.Contains(strings.Join(files(w.t, w.lake()+".staging"), " "), ".parquet")
		})},
		{"a file in the lake", atFirst, seen(func(w *world) bool { return strings.Contains(strings.Join(files(w.t, w.lake()), " "), ".parquet") })},
		{"the first manifest written", atFirst, seen(func(w *world) bool { return exists(w.manifestPathOf("audit_logs")) })},
		{"the third manifest written", atFirst, seen(func(w *world) bool { return exists(w.manifestPathOf("subscriptions")) })},

		{"a night: subscriptions answered in part", later, calledList(true, sandbox.EndpointResources, 1)},
		{"a night: amid the rows of a snapshot", later, heldRow("billing.physical_device", 2)},
		{"a night: amid the rows of a history", later, heldRow("billing.subscription", 9)},
		{"a night: amid the rows of events", later, heldRow("billing.audit_log", 3)},
		{"a night: subscriptions published", later, published("subscriptions", 2)},
		{"a night: all published", later, published("host_vms", 2)},
		{"a night: a file staged", later, seen(func(w *world) bool {
			return strings.Contains(strings.Join(files(w.t, w.lake()+".staging"), " "), ".parquet")
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, func(s *sandbox.Config) { s.Subscriptions = 600 })
			h, day := &history{}, listDay
			if c.night {
				w.want(exitOK, nightly(listDay, killedStreams...)...)
				h.pull(w.subscribed())
				w.vendor.AdvanceNight()
				day = nextDay
				w.today.set(day)
			}
			meet, release := c.moment(w)
			p := w.start(nightly(day, killedStreams...)...)
			meet(p)
			killed := p.kill()
			release()
			if !killed {
				t.Fatalf("the run was over before the kill: %s", p.wait())
			}
			w.gate.forget()
			w.resumesLists(h, nightly(day, killedStreams...)...)
		})
	}
}

// resumesLists starts the command again, with nothing repaired or removed, and demands that it then ends well and leaves the truth. h is the
// history before; every complete pull since saw what the vendor holds now.
func (w *world) resumesLists(h *history, args ...string) {
	w.t.Helper()
	if f := w.start(args...).wait(); f.code != exitOK {
		w.t.Fatalf("after the kill: want exit 0, got %s", f)
	}
	w.listProof(killedStreams...)
	complete := w.one(`WITH ` + pullTimes + ` SELECT count(*) FROM pull`)
	for fmt.Sprint(h.pulls) != complete {
		if h.pulls > 100 {
			w.t.Fatalf("%s complete pulls", complete)
		}
		h.pull(w.subscribed())
	}
	w.historyIs(h)
	w.noOverlaps()
	w.noDebris()
	if f := w.run("verify"); f.code != exitOK {
		w.t.Errorf("verify: got %s", f)
	}
}

// holdRow makes the n-th row that a statement of the program inserts into or changes in a table wait until release is called.
func (w *world) holdRow(table string, n int) (release func()) {
	w.t.Helper()
	administer(w.t, w.admin,
		`CREATE SEQUENCE public.held`,
		fmt.Sprintf(`CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
			BEGIN IF nextval('public.held') = %d THEN PERFORM pg_advisory_xact_lock(1); END IF; RETURN NEW; END $$`, n),
		`CREATE TRIGGER hold BEFORE INSERT OR UPDATE ON `+table+` FOR EACH ROW EXECUTE FUNCTION public.hold()`)
	conn := connect(w.t, w.admin)
	if _, err := conn.Exec(context.Background(), "SELECT pg_advisory_lock(1)"); err != nil {
		w.t.Fatal(err)
	}
	return func() { _ = conn.Close(context.Background()) }
}

// Killed three times at moments that nobody chose, in a first load and in a night, it ends with the truth all the same.
func TestListsKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -kill-seed=%d", seed)
	for chain := range 2 * thorough {
		t.Run(fmt.Sprintf("chain %d", chain), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, uint64(chain)))
			w := newListWorld(t, func(s *sandbox.Config) { s.Subscriptions = 600 })
			h := &history{}
			for _, day := range []string{listDay, nextDay} {
				w.today.set(day)
				for range 3 {
					p := w.start(nightly(day, killedStreams...)...)
					after := time.Duration(random.Int64N(int64(700 * time.Millisecond)))
					select {
					case <-time.After(after):
					case <-p.done:
					}
					t.Logf("after %s: killed %t", after.Round(time.Millisecond), p.kill())
				}
				w.resumesLists(h, nightly(day, killedStreams...)...)
				w.vendor.AdvanceNight()
			}
		})
	}
}

// While one run works on some streams, another that wants any of them says so and touches nothing; one that wants others works.
func TestListsTwoRunsAtOnce(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	w.want(exitOK, nightly(listDay, "subscriptions", "physical_devices", "elbv3")...)
	w.vendor.AdvanceNight()
	meet, release := calledList(false, sandbox.EndpointResources, 1)(w)
	first := w.start(nightly(nextDay, "subscriptions", "physical_devices", "audit_logs")...)
	meet(first)
	before := w.holdings()
	runs := w.one(`SELECT count(*) FROM sdr_sync.run`)
	for _, streams := range [][]string{{"subscriptions"}, {"elbv3", "physical_devices"}, {"subscriptions", "audit_logs", "physical_devices"}, nil} {
		f := w.want(exitHeld, nightly(nextDay, streams...)...)
		contains(t, f.err, "another run works on", "nothing was touched", "lease release")
	}
	sameAs(t, "the refused runs", before, w.holdings())
	if got := w.one(`SELECT count(*) FROM sdr_sync.run`); got != runs {
		t.Errorf("the refused runs are in the ledger: %s runs, there were %s", got, runs)
	}
	list := w.want(exitOK, "lease", "list").out
	contains(t, list, "subscriptions", "physical_devices", "audit_logs")
	if got := w.ask(`SELECT stream FROM sdr_sync.lease ORDER BY stream`); !slices.EqualFunc(got, []string{"audit_logs", "physical_devices", "subscriptions"}, func(row []string, name string) bool { return row[0] == name }) {
		t.Errorf("leases: %v", got)
	}
	w.want(exitOK, nightly(nextDay, "elbv3", "service_health")...)
	w.want(exitOK, nightly(nextDay, "sdr")...)
	release()
	if f := first.wait(); f.code != exitOK {
		t.Fatalf("the first run: want exit 0, got %s", f)
	}
	w.listProof("subscriptions", "physical_devices", "audit_logs", "elbv3", "service_health")
	w.want(exitOK, "verify")
	w.noDebris()
}

// A run that lost the lease of one of its streams publishes no more of that stream; the others, whose leases it holds, it finishes.
func TestListsReleasedLease(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	w.want(exitOK, nightly(listDay, "subscriptions", "physical_devices")...)
	w.vendor.AdvanceNight()
	before := w.holdings()
	meet, release := calledList(false, sandbox.EndpointPhysicalDevices, 1)(w)
	first := w.start(nightly(nextDay, "subscriptions", "physical_devices")...)
	meet(first)
	w.want(exitOK, "lease", "release", "--stream", "physical_devices")
	release()
	f := first.wait()
	if f.code != exitIncomplete {
		t.Errorf("want exit 3, got %s", f)
	}
	contains(t, f.err, "another run took the lease over")
	after := w.holdings()
	for _, what := range []string{"billing.physical_device", "physical_devices/data.parquet", "_meta/physical_devices/manifest.json"} {
		if before[what] != after[what] || before[what] == "" {
			t.Errorf("the run without a lease: %s changed: before %q, after %q", what, before[what], after[what])
		}
	}
	w.listProof("subscriptions")
	w.want(exitOK, "verify")
	w.want(exitOK, nightly(nextDay, "subscriptions", "physical_devices")...)
	w.listProof("subscriptions", "physical_devices")
	w.noDebris()
}
