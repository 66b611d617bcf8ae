package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

func isSilent(err error) bool {
	var silent *postgres.SilentError
	return errors.As(err, &silent)
}

// A database that takes connections and answers nothing ends a run: what it waits for is cancelled, and it learns why.
func TestSilentDatabaseEndsTheRun(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p, through := newProxy(t, d)
	db := openConfig(t, postgres.Config{URL: pipeline.Secret(through), Lease: time.Second, Patience: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := db.WithLeases(ctx, []pipeline.StreamScope{of(north)}, func(ctx context.Context, _ map[pipeline.StreamScope]int64) error {
		p.stall()
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !isSilent(err) || !strings.Contains(err.Error(), "the database has not answered for 1") || !strings.Contains(err.Error(), north.String()) {
		t.Errorf("got %v, want that the database is silent", err)
	}
}

// A publication that waits for such a database ends with its run.
func TestSilentDatabaseEndsAPublication(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	publication := d.prepare(t, march, someRecords(20))
	p, through := newProxy(t, d)
	db := openConfig(t, postgres.Config{URL: pipeline.Secret(through), Lease: time.Second, Patience: time.Second})
	publication.Rows = before(publication.Rows, func(n int) error {
		if n == 10 {
			p.stall()
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := replace(ctx, db, d.replacement(publication)); !isSilent(err) {
		t.Errorf("got %v, want that the database is silent", err)
	}
	d.await(t, "the lease has run out", "SELECT coalesce(max(expires_at), now()) <= now() FROM sdr_sync.lease")
}

// Nor does anything wait for ever that is asked outside of a lease.
func TestSilentDatabaseEndsAQuestion(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for name, ask := range map[string]func(context.Context, *postgres.DB) error{
		"schema":    func(ctx context.Context, db *postgres.DB) error { return db.CheckSchema(ctx) },
		"pin":       func(ctx context.Context, db *postgres.DB) error { return db.Pin(ctx, "a", "b") },
		"migration": func(ctx context.Context, db *postgres.DB) error { _, err := db.Migrate(ctx, ledgerVersion); return err },
		"run": func(ctx context.Context, db *postgres.DB) error {
			_, err := db.StartRun(ctx, postgres.Run{Command: "test", Started: testNow})
			return err
		},
		"export": func(ctx context.Context, db *postgres.DB) error {
			return db.Store(stream).MarkExported(ctx, pipeline.Partition{Site: north.Site, Unit: pipeline.Month, From: date("2024-03-01")}, 1, pipeline.FileFacts{})
		},
		"lease": func(ctx context.Context, db *postgres.DB) error {
			return db.WithLeases(ctx, []pipeline.StreamScope{of(north)}, func(context.Context, map[pipeline.StreamScope]int64) error { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, through := newProxy(t, d)
			db := openConfig(t, postgres.Config{URL: pipeline.Secret(through), Patience: time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			p.stall()
			if err := ask(ctx, db); !isSilent(err) {
				t.Errorf("got %v, want that the database is silent", err)
			}
		})
	}
}

// A database whose disk hangs answers those who read, and its COMMIT never ends.
func TestCommitDoesNotEnd(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(1))
	d.exec(t, `
		CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3600); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON sdr_sync.lease DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang();
		CREATE CONSTRAINT TRIGGER hang AFTER UPDATE ON sdr_sync.partition DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang()`)
	db := openConfig(t, postgres.Config{URL: pipeline.Secret(d.url), Patience: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := db.WithLeases(ctx, []pipeline.StreamScope{of(north)}, func(context.Context, map[pipeline.StreamScope]int64) error { return nil })
	if !isSilent(err) {
		t.Errorf("a lease: got %v, want that the database is silent", err)
	}
	p := pipeline.Partition{Site: north.Site, Unit: pipeline.Month, From: date("2024-03-01")}
	if err := db.Store(stream).MarkExported(ctx, p, 1, pipeline.FileFacts{}); !isSilent(err) {
		t.Errorf("an export: got %v, want that the database is silent", err)
	}
}

// A statement that says nothing for several times as long goes on while the database answers others.
func TestLongStatementIsNotCut(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p, through := newProxy(t, d)
	db := openConfig(t, postgres.Config{URL: pipeline.Secret(through), Patience: 2 * time.Second})
	holder, err := d.admin.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Release()
	if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_lock(42)"); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, _, err := db.Query(t.Context(), "SELECT pg_advisory_xact_lock(42)")
		result <- err
	}()
	had := p.connections()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.connections() < had+3 { // asked for the third time: more than the patience has passed
		select {
		case err := <-result:
			t.Fatalf("the statement was cut: %v", err)
		case <-tick.C:
		}
	}
	if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_unlock(42)"); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}
