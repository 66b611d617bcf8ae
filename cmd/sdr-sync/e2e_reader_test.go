package main

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A reader who waits for no lock longer than 200 ms is never refused while new months and new generations are published, and sees
// each window whole or not at all.
func TestReader(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	w.settings["sync.window"] = "day"
	w.settings["sync.parallel"] = "8"
	conn := connect(t, w.admin)
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(context.Background(), "SET ROLE sdr_sync_reader; SET lock_timeout = '200ms'"); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error)
	looks := 0
	seen := map[string]map[int64]bool{} // counts that were seen of each window
	go func() {
		done <- func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				counts, err := look(conn)
				if err != nil {
					return fmt.Errorf("look %d: %w", looks+1, err)
				}
				looks++
				for window, n := range counts {
					if seen[window] == nil {
						seen[window] = map[int64]bool{}
					}
					seen[window][n] = true
				}
			}
		}()
	}()
	allowed := map[string][]int64{} // what each generation of a window holds
	note := func() {
		for _, row := range w.ask(`SELECT window_id, records FROM sdr_sync.window`) {
			var n int64
			if _, err := fmt.Sscan(row[1], &n); err != nil {
				t.Fatal(err)
			}
			allowed[row[0]] = append(allowed[row[0]], n)
		}
	}
	w.want(exitOK, "backfill", "--from", "2024-01-20", "--to", "2024-04-14", "--today", someday)
	note()
	w.vendor.AdvanceNight()
	w.want(exitOK, "nightly", "--today", someday)
	note()
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("the reader failed: %v", err)
	}
	w.proof("2024-01-20", someday)
	t.Logf("looked %d times, at %d windows", looks, len(seen))
	if looks < 5 {
		t.Errorf("the reader looked %d times only", looks)
	}
	for window, counts := range seen {
		for n := range counts {
			if !slices.Contains(allowed[window], n) {
				t.Errorf("window %s was seen with %d records, it has %v", window, n, allowed[window])
			}
		}
	}
}

// look counts the records of each window, and compares the facts with the daily sums in one snapshot.
func look(conn *pgx.Conn) (map[string]int64, error) {
	counts := map[string]int64{}
	var window string
	var n, daily int64
	rows, err := conn.Query(context.Background(), `
		SELECT window_id::text, count(*), 0 FROM billing.sdr GROUP BY 1
		UNION ALL SELECT 'all', (SELECT count(*) FROM billing.sdr), (SELECT coalesce(sum(records), 0)::bigint FROM billing.usage_daily)`)
	if err != nil {
		return nil, err
	}
	_, err = pgx.ForEachRow(rows, []any{&window, &n, &daily}, func() error {
		if window != "all" {
			counts[window] = n
		} else if n != daily {
			return fmt.Errorf("billing.sdr has %d records, billing.usage_daily %d", n, daily)
		}
		return nil
	})
	return counts, err
}
