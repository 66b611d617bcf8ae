package postgres_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// cutting says what becomes of a COMMIT on its way through the proxy.
type cutting int

const (
	cutNothing cutting = iota
	cutAnswer          // the server commits and its answer is lost
	cutRequest         // the server never gets it
	cutAtOnce          // the client is cut off while the server is still busy with it
)

// cancelRequest is the code by which a client asks, on a connection of its own, to cancel what another one does.
const cancelRequest = 80877102

// proxy stands between a client and the test's server, reads what the client says, and cuts one connection at COMMIT.
type proxy struct {
	t      *testing.T
	socket string
	listen net.Listener
	all    sync.WaitGroup

	stalled  atomic.Bool
	released chan struct{} // closed when what is stalled goes on

	mu    sync.Mutex
	next  cutting
	cuts  int
	conns []net.Conn
}

// newProxy returns a proxy and the URL of the database behind it.
func newProxy(t *testing.T, d *database) (p *proxy, through string) {
	t.Helper()
	u, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	p = &proxy{t: t, socket: u.Query().Get("host") + "/.s.PGSQL." + u.Query().Get("port"), released: make(chan struct{})}
	if p.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		p.listen.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.all.Wait()
	})
	return p, "postgres://" + u.User.Username() + "@" + p.listen.Addr().String() + u.Path + "?sslmode=disable"
}

// stall lets nothing more through, though connections are taken as ever, until the test ends.
func (p *proxy) stall() {
	if p.stalled.CompareAndSwap(false, true) {
		p.t.Cleanup(func() { close(p.released) })
	}
}

// pass returns when something may get through.
func (p *proxy) pass() {
	if p.stalled.Load() {
		<-p.released
	}
}

// connections is how many were made so far.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

// cutNext makes the next COMMIT end as how says.
func (p *proxy) cutNext(how cutting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = how
}

func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

func (p *proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", p.socket)
		if err != nil {
			p.t.Error(err)
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.all.Go(func() { p.forward(client, server) })
	}
}

// forward copies whole messages to the server, and from the server whatever comes.
func (p *proxy) forward(client, server net.Conn) {
	var answers sync.WaitGroup
	var mute sync.Mutex
	muted := false
	answers.Go(func() {
		defer client.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := server.Read(buf)
			p.pass()
			mute.Lock()
			if !muted {
				client.Write(buf[:n])
			}
			stop := err != nil || muted // the answer to COMMIT came, and is lost
			mute.Unlock()
			if stop {
				return
			}
		}
	})
	defer answers.Wait()
	defer server.Close()
	header := 4 // the first message has no type
	for {
		message := make([]byte, header, 1024)
		if _, err := io.ReadFull(client, message); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint32(message[header-4:])) - 4
		message = append(message, make([]byte, length)...)
		if _, err := io.ReadFull(client, message[header:]); err != nil {
			return
		}
		if header == 4 && length >= 4 && binary.BigEndian.Uint32(message[4:]) == cancelRequest {
			return // a network that loses answers loses these as well
		}
		p.pass()
		isCommit := header == 5 && message[0] == 'Q' && strings.EqualFold(string(message[5:]), "commit\x00")
		header = 5
		how := cutNothing
		if isCommit {
			p.mu.Lock()
			how, p.next = p.next, cutNothing
			if how != cutNothing {
				p.cuts++
			}
			p.mu.Unlock()
		}
		switch how {
		case cutRequest:
			return
		case cutAnswer, cutAtOnce:
			mute.Lock()
			muted = true
			mute.Unlock()
			if how == cutAtOnce {
				client.Close()
			}
			server.Write(message)
			answers.Wait()
			return
		}
		if _, err := server.Write(message); err != nil {
			return
		}
	}
}

// The answer to COMMIT is lost. Whether the server committed or not, the publication ends as one, and once.
func TestCommitAnswerLost(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]cutting{"committed": cutAnswer, "not committed": cutRequest} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			p, through := newProxy(t, d)
			d.DB = openURL(t, through)
			steps := []struct {
				name              string
				records           []string
				replay            bool
				inserted, deleted int64
				generation        int
				unchanged         bool
			}{
				{"first", someRecords(20), false, 20, 0, 1, false},
				{"restated", someRecords(30), false, 10, 0, 2, false},
				{"unchanged", someRecords(30), false, 0, 0, 2, true},
				{"replayed", someRecords(29), true, 0, 1, 3, false},
				{"replayed unchanged", someRecords(29), true, 0, 0, 3, true},
			}
			var published pipeline.Job
			for i, step := range steps {
				publication := d.prepare(t, march, step.records)
				if step.replay {
					publication.Job = published
				} else if !step.unchanged {
					published = publication.Job
				}
				r := d.replacement(publication)
				r.Replay = step.replay
				armed := false
				rows := r.Publish[0].Rows
				arm := func() {
					if !armed {
						armed = true
						p.cutNext(how)
					}
				}
				r.Publish[0].Rows = before(rows, func(int) error { arm(); return nil })
				if step.unchanged { // its rows are not read
					d.exec(t, "SELECT 1")
				}
				var outcome pipeline.Outcome
				if step.unchanged {
					outcome = d.replaceArmed(t, p, how, r)
				} else {
					outcome = d.mustReplace(t, r)[0]
				}
				if outcome.Inserted != step.inserted || outcome.Deleted != step.deleted || outcome.Generation != step.generation || outcome.Unchanged != step.unchanged {
					t.Errorf("%s: got %+v", step.name, outcome)
				}
				if p.cut() != i+1 {
					t.Errorf("%s: %d connections were cut, want %d", step.name, p.cut(), i+1)
				}
				w := d.windows(t, north)
				if len(w) != 1 || w[0].Generation != step.generation || w[0].Records != publication.Records {
					t.Errorf("%s: the ledger says %+v", step.name, w)
				}
				d.checkClean(t)
			}
		})
	}
}

// replaceArmed arms the proxy once the lease is held: the next COMMIT is the publication's.
func (d *database) replaceArmed(t *testing.T, p *proxy, how cutting, r pipeline.Replacement) pipeline.Outcome {
	t.Helper()
	var token int64
	row := d.admin.QueryRow(t.Context(), `
		INSERT INTO sdr_sync.lease VALUES ('sdr', $1, $2, nextval('sdr_sync.lease_token'), 'test', now(), now() + interval '1 minute') RETURNING token`,
		r.Scope.Site, r.Scope.Region)
	if err := row.Scan(&token); err != nil {
		t.Fatal(err)
	}
	r.LeaseToken = token
	p.cutNext(how)
	outcomes, err := d.Publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	d.exec(t, "DELETE FROM sdr_sync.lease")
	return outcomes[0]
}

// The client is cut off while COMMIT is still at work: the ledger must not be read too early, or the window would be published again.
func TestCommitStillUnderWay(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		name := "first"
		if again {
			name = "restated"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			p, through := newProxy(t, d)
			d.DB = openURL(t, through)
			want := pipeline.Outcome{Generation: 1, Inserted: 20, ToBefore: march.To}
			if again {
				d.publish(t, march, someRecords(15))
				want = pipeline.Outcome{Generation: 2, Inserted: 5, Restated: true, ToBefore: march.To}
			}
			// A deferred trigger makes COMMIT wait for a lock that the test holds.
			d.exec(t, `
				CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
				CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON sdr_sync.partition DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
				CREATE CONSTRAINT TRIGGER slow_insert AFTER INSERT ON sdr_sync.partition DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`)
			holder, err := d.admin.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer holder.Release()
			if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_lock(42)"); err != nil {
				t.Fatal(err)
			}
			publication := d.prepare(t, march, someRecords(20))
			publication.Rows = before(publication.Rows, func(n int) error {
				if n == 0 && p.cut() == 0 {
					p.cutNext(cutAtOnce)
				}
				return nil
			})
			var wg sync.WaitGroup
			var outcomes []pipeline.Outcome
			wg.Go(func() { outcomes, err = replace(t.Context(), d.DB, d.replacement(publication)) })
			d.await(t, "the ledger is asked while COMMIT waits", `
				SELECT count(*) >= 2 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
			if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_unlock(42)"); err != nil {
				t.Error(err)
			}
			wg.Wait()
			if err != nil {
				t.Fatal(err)
			}
			want.WindowID = outcomes[0].WindowID
			if outcomes[0] != want {
				t.Errorf("got %+v, want %+v", outcomes[0], want)
			}
			job, err := d.Job(t.Context(), publication.Job.Row)
			if err != nil || job.State != pipeline.StatePublished {
				t.Errorf("the job is %+v (%v)", job, err)
			}
			d.checkClean(t)
		})
	}
}

// The backend dies in the middle of the COPY: the publication is tried again and ends right.
func TestBackendTerminated(t *testing.T) {
	t.Parallel()
	for name, records := range map[string]int{"few rows": 20, "more rows than the buffers hold": 6000} {
		for _, again := range []bool{false, true} {
			if again {
				name += ", published before"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				d := newDatabase(t)
				if again {
					d.publish(t, march, someRecords(15))
				}
				p := d.prepare(t, march, someRecords(records))
				terminated := false
				p.Rows = before(p.Rows, func(n int) error {
					if n != records-1 || terminated {
						return nil
					}
					terminated = true
					d.await(t, "the COPY is under way", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY %')")
					pids := list[int](t, d, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY %'")
					if len(pids) != 1 {
						t.Errorf("backends %v are copying, want one", pids)
						return errTorn
					}
					d.exec(t, "SELECT pg_terminate_backend($1)", pids[0])
					d.await(t, "the backend is gone", "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pids[0])
					return nil
				})
				o := d.mustReplace(t, d.replacement(p))[0]
				if !terminated {
					t.Error("nothing was terminated")
				}
				if o.Generation != len(d.windows(t, north)) && !again {
					t.Errorf("got %+v", o)
				}
				if n := query[int](t, d, "SELECT count(*)::int FROM billing.sdr"); n != records {
					t.Errorf("%d records, want %d", n, records)
				}
			})
		}
	}
}

// The server was restarted between two publications: every pooled connection is dead when the next one begins.
func TestConnectionsAreGone(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(3))
	r := d.replacement(d.prepare(t, march, append(someRecords(3), sdr("20240501000000", "vm", "1"))))
	err := d.WithLeases(t.Context(), []pipeline.StreamScope{of(north)}, func(ctx context.Context, tokens map[pipeline.StreamScope]int64) error {
		const pooled = "pg_stat_activity WHERE datname = current_database() AND application_name = 'sdr-sync'"
		d.exec(t, "SELECT pg_terminate_backend(pid) FROM "+pooled)
		d.await(t, "the backends are gone", "SELECT NOT EXISTS (SELECT FROM "+pooled+")")
		r.LeaseToken = tokens[of(north)]
		_, err := d.Publish(ctx, r)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	d.checkClean(t)
	if w := d.windows(t, north)[0]; w.Generation != 2 {
		t.Errorf("got %+v", w)
	}
}

// An error of the rows is not the database's: it is not tried again.
func TestRowErrorsAreNotRetried(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.prepare(t, march, someRecords(3))
	tries := 0
	p.Rows = func(yield func(*record.Row, error) bool) {
		tries++
		yield(nil, errTorn)
	}
	if _, err := replace(t.Context(), d.DB, d.replacement(p)); !errors.Is(err, errTorn) || tries != 1 {
		t.Errorf("got %v after %d tries, want one try", err, tries)
	}
}
