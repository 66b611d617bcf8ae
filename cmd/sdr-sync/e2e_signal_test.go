package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// A run that is asked to stop does so within ten seconds whatever it is at, and says how to go on; the next one does.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	call := func(e sandbox.Endpoint, k int) moment {
		return func(w *world) (func(*process), func()) {
			met, release := make(chan struct{}), make(chan struct{})
			w.gate.before(e, k, func() { // the vendor does not answer
				close(met)
				<-release
			})
			return func(p *process) { p.await(met) }, func() { close(release) }
		}
	}
	for _, c := range []struct {
		name   string
		moment moment
		signal syscall.Signal
	}{
		{"while a token is asked for", call(sandbox.EndpointToken, 1), syscall.SIGINT},
		{"while a job is created", call(sandbox.EndpointCreate, 2), syscall.SIGTERM},
		{"while a job is polled", call(sandbox.EndpointPoll, 3), syscall.SIGINT},
		{"amid the pages", call(sandbox.EndpointPage, 20), syscall.SIGTERM},
		{"inside COPY", inCopy, syscall.SIGINT},
		{"while the export waits for the lake", atLakeLock, syscall.SIGTERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3)
			meet, release := c.moment(w)
			p := w.start(w.backfill()...)
			meet(p)
			asked := time.Now()
			p.signal(c.signal)
			f := p.wait()
			release()
			if took := time.Since(asked); took > 10*time.Second {
				t.Errorf("it took %s to stop", took)
			}
			if f.code != exitIncomplete {
				t.Errorf("want exit 3, got %s", f)
			}
			contains(t, f.err, errInterrupted.Error())
			if leases := w.ask(`SELECT holder FROM sdr_sync.lease`); len(leases) > 0 {
				t.Errorf("leases left behind: %v", leases)
			}
			if run := w.ask(`SELECT exit_code, outcome FROM sdr_sync.run`)[0]; run[0] != "3" || !strings.Contains(run[1], errInterrupted.Error()) {
				t.Errorf("the ledger says of the run: %v", run)
			}
			w.gate.forget()
			w.resumes(w.backfill()...)
		})
	}
}

// atLakeLock is the moment at which everything is published and somebody else has the lake.
func atLakeLock(w *world) (func(*process), func()) {
	staging := w.lake() + ".staging"
	if err := os.Mkdir(staging, 0o750); err != nil {
		w.t.Fatal(err)
	}
	f := create(w.t, filepath.Join(staging, "lock"))
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		w.t.Fatal(err)
	}
	meet := func(*process) {
		until(w.t, "all windows are published", func() bool { return len(w.windows()) == 4 })
	}
	return meet, func() { closeAll(f) }
}

// The second signal ends the program at once, even where the first can't. While psql runs, Ctrl-C is psql's alone.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	p := w.start("psql", "--", "-c", "SELECT pg_sleep(600)")
	until(t, "psql is connected", func() bool {
		return w.one(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()`) == "1"
	})
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGTERM} {
		p.signal(s)
		select {
		case <-p.done:
			t.Fatalf("%s ended psql's parent: %s", s, p.wait())
		case <-time.After(200 * time.Millisecond):
		}
	}
	p.signal(syscall.SIGTERM)
	if f := p.wait(); f.code != exitIncomplete || f.took > 10*time.Second {
		t.Errorf("want exit 3 at once, got %s", f)
	}
}
