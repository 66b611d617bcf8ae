package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// impatient returns a reader's pool that gives up any lock after 200 ms.
func (d *database) impatient(t *testing.T) *pgxpool.Pool {
	t.Helper()
	url, _ := d.login(t, "sdr_sync_reader")
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.RuntimeParams["lock_timeout"] = "200ms"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Readers never wait for a publication into a month that is new to the table, and a long-running reader holds up neither the
// publication nor, through it, other readers.
func TestReadersAreNotBlocked(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(10))
	reader := d.impatient(t)

	// A report that runs for hours has read the table and stays in its transaction. It is REPEATABLE READ, as a report of several
	// statements must be: in READ COMMITTED, a transaction that has locked billing.sdr sees new rows, but no partitions attached since.
	report, err := d.impatient(t).BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer report.Rollback(context.WithoutCancel(t.Context()))
	if n := countIn(t, report); n != 10 {
		t.Fatalf("the report sees %d records", n)
	}

	// Another reader asks again and again, all through the publication.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	counts := map[int64]int{}
	var readErr error
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			var n, sums int64
			if readErr = reader.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM billing.sdr), (SELECT sum(records)::bigint FROM billing.usage_daily)").Scan(&n, &sums); readErr != nil {
				return
			}
			if n != sums {
				readErr = errors.New("facts and daily sums are not of one moment")
				return
			}
			counts[n]++
		}
	})

	const late = 4000 // rows enough that most are in the server while the iterator waits
	april := window(north, "2024-04-01", "2024-05-01")
	var records []string
	for range late / 4 {
		records = append(records, sdr("20240401000000", "a", "1"), sdr("20240501000000", "b", "1"), sdr("20240229000000", "c", "1"), sdr("20240331000000", "d", "1"))
	}
	p := d.prepare(t, april, records)
	p.Rows = before(p.Rows, func(n int) error {
		if n < late-1 {
			return nil
		}
		d.await(t, "the COPY holds its locks", `
			SELECT count(*) >= 2 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
			WHERE relname IN ('sdr', 'sdr_2024_02', 'sdr_2024_04') AND mode = 'RowExclusiveLock' AND granted`)
		// In the middle of it: a new session, its first query, and one that begins after.
		fresh, err := reader.Acquire(t.Context())
		if err != nil {
			return err
		}
		defer fresh.Release()
		var n64 int64
		for range 20 {
			if err := fresh.QueryRow(t.Context(), "SELECT count(*) FROM billing.sdr").Scan(&n64); err != nil {
				return err
			}
		}
		// A writer of another scope creates the partition of a month that nobody has asked for yet.
		_, err = d.admin.Exec(t.Context(), "SET LOCAL lock_timeout = '5s'; SELECT sdr_sync.ensure_partition('billing.sdr', '2030-01-01')")
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // a publication that waits for the report would wait for ever
	defer cancel()
	if _, err := replace(ctx, d.DB, d.replacement(p)); err != nil {
		t.Errorf("publish beside a long report: %v", err)
	}
	if n := countIn(t, report); n != 10 {
		t.Errorf("the report now sees %d records", n)
	}
	close(stop)
	wg.Wait()
	if readErr != nil {
		t.Errorf("a reader: %v", readErr)
	}
	for n := range counts {
		if n != 10 && n != 10+late {
			t.Errorf("a reader saw %d records, a window in part", n)
		}
	}
	if counts[10] == 0 {
		t.Error("the reader did not run meanwhile")
	}
}

func countIn(t *testing.T, tx pgx.Tx) int64 {
	t.Helper()
	var n int64
	if err := tx.QueryRow(t.Context(), "SELECT count(*) FROM billing.sdr").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A restatement in place and a reslice, held open before their end, leave readers alone too.
func TestReadersDuringRestatement(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(30))
	reader := d.impatient(t)
	check := func() error {
		var n int64
		err := reader.QueryRow(t.Context(), "SELECT count(*) FROM billing.sdr").Scan(&n)
		if err == nil && n != 30 {
			err = errors.New("a reader sees a window in part")
		}
		return err
	}
	r := d.replacement(
		d.prepare(t, window(north, "2024-03-01", "2024-03-02"), someRecords(12)),
		d.prepare(t, window(north, "2024-03-02", "2024-03-03"), someRecords(30)[12:]),
	)
	r.Retire = d.windows(t, north)
	asked := 0
	for i := range r.Publish {
		r.Publish[i].Rows = before(r.Publish[i].Rows, func(int) error { asked++; return check() })
	}
	d.mustReplace(t, r)
	p := d.prepare(t, window(north, "2024-03-02", "2024-03-03"), someRecords(29)[12:])
	p.Rows = before(p.Rows, func(int) error { asked++; return check() })
	d.mustReplace(t, d.replacement(p))
	if asked != 30+17 {
		t.Errorf("readers asked %d times", asked)
	}
}
