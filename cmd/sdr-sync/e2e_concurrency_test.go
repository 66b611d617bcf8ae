package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// Of two nightly runs at once one works, and the other says so and touches nothing.
func TestTwoRunsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.want(exitOK, w.backfill()...)
	w.vendor.AdvanceNight()

	met, release := make(chan struct{}), make(chan struct{})
	w.gate.calls = map[sandbox.Endpoint]int{}
	w.gate.after(sandbox.EndpointPage, 1, func() {
		close(met)
		<-release
	})
	first := w.start("nightly", "--today", someday)
	first.await(met)
	before := w.fingerprintOfAll()
	for _, args := range [][]string{
		{"nightly", "--today", someday},
		w.backfill("--refresh"),
		{"replay", "--all"},
	} {
		f := w.want(exitHeld, args...)
		contains(t, f.err, "another run works on "+theScope.String(), "nothing was touched", "lease release --scope "+theScope.String())
		if f.out != "" {
			t.Errorf("%s that touched nothing prints %q", args[0], f.out)
		}
	}
	list := w.want(exitOK, "lease", "list")
	contains(t, list.out, theScope.String(), "true")
	if one := w.want(exitOK, "lease", "list", "--scope", theScope.Site); one.out != list.out {
		t.Errorf("lease list of the site prints %q, want %q", one.out, list.out)
	}
	if other := w.want(exitOK, "lease", "list", "--scope", "elsewhere"); strings.Contains(other.out, theScope.String()) {
		t.Errorf("lease list of another site prints %q", other.out)
	}
	sameAs(t, "the refused runs", before, w.fingerprintOfAll())
	close(release)
	if f := first.wait(); f.code != exitOK {
		t.Fatalf("the first run: want exit 0, got %s", f)
	}
	w.proof(firstDay, someday)
	w.noDebris()
}

// fingerprintOfAll is what a run that is refused must leave as it was, while another run stands still: the ledger too.
func (w *world) fingerprintOfAll() map[string]string {
	all := map[string]string{}
	for _, table := range []string{"pin", "run", "window", "job", "quarantine", "partition", "restatement", "usage_rollup"} {
		all[table] = w.one(`SELECT count(*) || ' ' || coalesce(md5(string_agg(ctid || ' ' || xmin, ',' ORDER BY ctid)), '') FROM sdr_sync.` + table)
	}
	all["billing.sdr"] = w.one(`SELECT count(*) || ' ' || coalesce(md5(string_agg(tableoid || ' ' || ctid || ' ' || xmin, ',' ORDER BY tableoid, ctid)), '') FROM billing.sdr`)
	for _, dir := range []string{w.lake(), w.lake() + ".staging", w.settings["landing.dir"]} {
		all[dir] = strings.Join(files(w.t, dir), " ")
	}
	return all
}

// A run that was stopped for longer than its lease finds itself fenced off when it goes on.
func TestStoppedBeyondItsLease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		endpoint sandbox.Endpoint
		call     int
	}{
		{"while a job is polled", sandbox.EndpointPoll, 1},
		{"amid the pages", sandbox.EndpointPage, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2)
			w.settings["sync.lease"] = "400ms"
			met := make(chan struct{})
			stopped := make(chan struct{})
			w.gate.after(c.endpoint, c.call, func() {
				close(met)
				<-stopped
			})
			first := w.start(w.backfill()...)
			first.await(met)
			first.signal(syscall.SIGSTOP)
			close(stopped)
			until(t, "the lease expires", func() bool { return w.one(`SELECT count(*) FROM sdr_sync.lease WHERE expires_at > now()`) == "0" })

			w.want(exitOK, w.backfill()...)
			w.proof(firstDay, someday)
			before := w.holdings()
			first.signal(syscall.SIGCONT)
			f := first.wait()
			if f.code != exitIncomplete {
				t.Errorf("the fenced run: want exit 3, got %s", f)
			}
			contains(t, f.err, "another run took the lease over")
			sameAs(t, "the fenced run", before, w.holdings())
			w.proof(firstDay, someday)

			w.want(exitOK, w.backfill("--refresh")...) // jobs that it created before it noticed are taken up by whoever asks again
			w.proof(firstDay, someday)
			w.noDebris()
		})
	}
}

// A lease taken away from a live run fences it off just so.
func TestReleasedLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	met, release := make(chan struct{}), make(chan struct{})
	w.gate.after(sandbox.EndpointPage, 3, func() {
		close(met)
		<-release
	})
	first := w.start(w.backfill()...)
	first.await(met)
	contains(t, w.want(exitOK, "lease", "release", "--scope", theScope.String()).out, theScope.String()+" is released")
	close(release)
	f := first.wait()
	if f.code != exitIncomplete {
		t.Errorf("want exit 3, got %s", f)
	}
	contains(t, f.err, "another run took the lease over")
	if n := w.one("SELECT count(*) FROM billing.sdr"); n != "0" {
		t.Errorf("the run without a lease published %s records", n)
	}
	contains(t, w.want(exitOK, "lease", "release", "--scope", theScope.String()).out, theScope.String()+" had no lease")
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	w.noDebris()
}
