package chaos

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/failpoint"
)

// databaseFaults befall Postgres.
func databaseFaults() []fault {
	return []fault{
		{
			name: "terminate", number: "F23", what: "every connection of the run is terminated at a failpoint", stages: allPoints,
			befall: func(ctx context.Context, c *cycle) error {
				c.accept = []int{0, 3}
				return c.rendezvous(ctx, func(child *child) error {
					_, err := c.ask(ctx, terminateAll)
					child.signal(syscall.SIGCONT)
					return err
				})
			},
		},
		{
			name: "read-only", number: "F23", what: "the database takes no more writes from a failpoint on, as after a failover", stages: allPoints,
			befall: func(ctx context.Context, c *cycle) error {
				c.accept = []int{0, 3}
				database := pgx.Identifier{c.database}.Sanitize()
				return c.rendezvous(ctx, func(child *child) error {
					err := c.administer(ctx, "ALTER DATABASE "+database+" SET default_transaction_read_only = on")
					_, killErr := c.ask(ctx, terminateAll)
					child.signal(syscall.SIGCONT)
					_, waitErr := child.wait(ctx)
					return errors.Join(err, killErr, waitErr, administer(ctx, c.server.url(superuser, "postgres"),
						"ALTER DATABASE "+database+" RESET default_transaction_read_only"))
				})
			},
		},
		{
			name: "crash", number: "F23", what: "Postgres is stopped immediate at a failpoint (mid-COPY too) and comes back", stages: loadPoints, crashes: true,
			befall: func(ctx context.Context, c *cycle) error {
				c.accept = []int{0, 3}
				return c.rendezvous(ctx, func(child *child) error { return c.crashServer(ctx, child) })
			},
		},
		{
			name: "stalled", number: "F23", what: "the sessions of the run stand still beyond its lease, as with a disk that hangs, and go on", crashes: true,
			stages: at(string(failpoint.JobSaved), string(failpoint.PublishBegun), string(failpoint.CopyMiddle), string(failpoint.PublishBeforeCommit), string(failpoint.ExportMark)),
			befall: func(ctx context.Context, c *cycle) error {
				c.accept = []int{0, 3}
				return c.rendezvous(ctx, func(child *child) error { return c.stallSessions(ctx, child) })
			},
		},
		{
			name: "commit-terminated", number: "F23", what: "the connection is terminated while the server is busy with COMMIT", stages: at("commit"), run: "night",
			befall: func(ctx context.Context, c *cycle) error {
				return c.inCommit(ctx, func(*child) error {
					_, err := c.ask(ctx, terminateAll)
					return err
				})
			},
		},
		{
			name: "commit-crashed", number: "F23", what: "Postgres is stopped immediate while it is busy with COMMIT", stages: at("commit"), crashes: true,
			befall: func(ctx context.Context, c *cycle) error {
				return c.inCommit(ctx, func(child *child) error { return c.crashServer(ctx, child) })
			},
		},
		{
			name: "commit-answer-lost", number: "F23", what: "the connection is cut behind a COMMIT that took place", stages: at("commit"), thrice: true, run: "night",
			befall: commitAnswerLost,
		},
		{
			name: "deadlock", number: "F23", what: "another session and the publication lock each other out", stages: at("publish.generation"), run: "night",
			befall: deadlock,
		},
		{
			name: "down", number: "F24", what: "Postgres is away when the run starts", stages: at("start"), crashes: true,
			befall: func(ctx context.Context, c *cycle) error {
				if err := c.server.stopImmediately(); err != nil {
					return err
				}
				c.met, c.accept = true, []int{3}
				e, err := c.world.run(ctx, nil, c.args...)
				return errors.Join(err, c.disturbed(ctx, e), c.server.startAgain(ctx))
			},
		},
	}
}

const terminateAll = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sdr-sync'`

// crashServer stops the server under the run and starts it again, before the run goes on or a little later.
func (c *cycle) crashServer(ctx context.Context, child *child) error {
	if err := c.server.stopImmediately(); err != nil {
		return err
	}
	if c.random.IntN(2) == 0 {
		child.signal(syscall.SIGCONT)
		select {
		case <-child.done:
		case <-time.After(time.Duration(c.random.IntN(300)) * time.Millisecond):
		}
	}
	err := c.server.startAgain(ctx)
	child.signal(syscall.SIGCONT)
	return err
}

// stallSessions stops the run's sessions at the server for longer than the lease, while the run goes on. They are processes of this machine: the
// server is the harness's own.
func (c *cycle) stallSessions(ctx context.Context, child *child) error {
	rows, err := c.ask(ctx, `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sdr-sync'`)
	if err != nil {
		return err
	}
	var pids []int
	for _, row := range rows {
		pid, err := strconv.Atoi(row[0])
		if err != nil {
			return err
		}
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // one that is gone stalls nobody
	}
	child.signal(syscall.SIGCONT)
	select {
	case <-child.done:
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	return nil
}

// inCommit holds the server in the middle of a COMMIT and lets meet do something to it.
func (c *cycle) inCommit(ctx context.Context, meet func(*child) error) error {
	c.accept = []int{0, 3}
	const key = 4711
	err := c.administer(ctx,
		fmt.Sprintf(`CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM pg_advisory_xact_lock(%d); RETURN NULL; END $$`, key),
		`CREATE CONSTRAINT TRIGGER hold AFTER INSERT OR UPDATE ON sdr_sync.window DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.hold()`)
	if err != nil {
		return err
	}
	holder, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = holder.Close(context.WithoutCancel(ctx)) }() // its lock goes with it
	if _, err := holder.Exec(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
		return err
	}
	child, err := c.start(nil, c.args...)
	if err != nil {
		return err
	}
	err = until(ctx, "a COMMIT is under way", func() (bool, error) {
		select {
		case <-child.done:
			return true, nil
		default:
		}
		n, err := c.one(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'commit%' AND wait_event_type = 'Lock'`)
		c.met = n != "0" && err == nil
		return c.met, err
	})
	if err == nil {
		err = meet(child)
	}
	_ = holder.Close(context.WithoutCancel(ctx)) // perhaps cut by meet
	e, waitErr := child.wait(ctx)
	if err = errors.Join(err, waitErr); err != nil {
		return err
	}
	return errors.Join(c.administer(ctx, "DROP TRIGGER hold ON sdr_sync.window", "DROP FUNCTION public.hold()"), c.disturbed(ctx, e))
}

// commitAnswerLost puts a proxy between the run and the server that swallows the answer to one COMMIT and cuts the connection.
func commitAnswerLost(ctx context.Context, c *cycle) error {
	c.accept = []int{0, 3}
	n := map[string]int{First: 1, Middle: 8, Last: 15}[c.cell.Occurrence] + c.random.IntN(4) // of about twenty
	between, err := newProxy(c.world, n)
	if err != nil {
		return err
	}
	c.undo = append(c.undo, between.close)
	back := c.set("postgres", "url", between.url)
	e, err := c.world.run(ctx, nil, c.args...)
	back()
	c.met = between.hasCut()
	return errors.Join(err, c.disturbed(ctx, e))
}

// deadlock lets the run wait for a partition's row that another session holds, which then wants the window that the run holds.
func deadlock(ctx context.Context, c *cycle) error {
	c.accept = []int{0, 3}
	other, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = other.Close(context.WithoutCancel(ctx)) }()
	return c.rendezvous(ctx, func(child *child) error {
		// Another window's publication may hold some of the rows, and stands still: whoever waits for it waits for ever.
		for _, statement := range []string{"BEGIN", "SELECT 1 FROM sdr_sync.partition FOR UPDATE SKIP LOCKED"} {
			if _, err := other.Exec(ctx, statement); err != nil {
				return err
			}
		}
		child.signal(syscall.SIGCONT)
		err := until(ctx, "the run waits for the partition", func() (bool, error) {
			n, err := c.one(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sdr-sync' AND wait_event_type = 'Lock'`)
			select {
			case <-child.done:
				return true, err
			default:
				return n != "0", err
			}
		})
		if err != nil {
			return err
		}
		_, _ = other.Exec(ctx, "SELECT 1 FROM sdr_sync.window FOR UPDATE") // one of the two is refused: perhaps this one
		_, _ = other.Exec(ctx, "ROLLBACK")
		return nil
	})
}
