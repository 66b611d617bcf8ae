package verify

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// window is what the ledger says of a live window.
type window struct {
	id                   int64
	stream, site, region string
	unit                 string
	from, to             day
	generation           int
	records, quarantined stated
	missing              int64
	hashVersion          int
	months               []day
	jobRow               int64
	newestPull           int64 // of its stream: when that began, in microseconds; 0 if there was none
}

// String is "hcso-213/cn-north-213 [2024-03-01, 2024-04-01)".
func (w *window) String() string {
	if w.site == tenant {
		return fmt.Sprintf("[%s, %s)", w.from, w.to)
	}
	return fmt.Sprintf("%s [%s, %s)", w.scope(), w.from, w.to)
}

func (w *window) scope() string {
	if w.region == "" {
		return w.site + "/*"
	}
	return w.site + "/" + w.region
}

// where names the window in differences.
func (w *window) where() string {
	switch {
	case w.unit == unitWhole:
		return "list " + w.stream
	case w.site == tenant:
		return w.stream + " window " + w.String()
	}
	return "window " + w.String()
}

// replay is what mends rows that are not what the ledger says. Asking the vendor again would not do: content equal to the ledger's is not
// written.
func (w *window) replay() string {
	if w.unit == unitWhole {
		return fmt.Sprintf("sdr-sync replay --window %d; if its landing file is gone, the next pull that differs mends it", w.id)
	}
	return fmt.Sprintf("sdr-sync replay --window %d, or if its landing file is gone: %s", w.id, w.reslice())
}

// reslice is what puts a new window in this one's place, with a new entry in the ledger.
func (w *window) reslice() string {
	other := unitDay
	if w.unit == unitDay {
		other = unitMonth
	}
	switch {
	case w.unit == unitWhole:
		return "restore the tables of sdr_sync from a backup"
	case w.site == tenant:
		return fmt.Sprintf("sdr-sync backfill --stream %s --from %s --to %s --reslice=%s", w.stream, w.from, w.to-1, other)
	}
	return fmt.Sprintf("sdr-sync backfill --scope %s --from %s --to %s --reslice=%s", w.scope(), w.from, w.to-1, other)
}

// refresh asks the vendor for the window again.
func (w *window) refresh() string {
	switch {
	case w.unit == unitWhole:
		return "sdr-sync nightly --stream " + w.stream
	case w.site == tenant:
		return fmt.Sprintf("sdr-sync backfill --stream %s --from %s --to %s --refresh", w.stream, w.from, w.to-1)
	}
	return fmt.Sprintf("sdr-sync backfill --scope %s --from %s --to %s --refresh", w.scope(), w.from, w.to-1)
}

// partition is what the ledger says of a Parquet file.
type partition struct {
	stream, site string
	from         day
	unit         string
	dirty        int64
	exported     int64
	rows, bytes  int64
	digest       string
	sha256       string
	archived     bool
}

func (p *partition) waits() bool { return p.dirty > p.exported }

// ledger is what the audit needs of the tables in sdr_sync.
type ledger struct {
	windows    []*window // live ones, in the order of stream, site, region and from
	partitions []*partition
	busy       map[[2]string]bool // stream and site that a run is at work on
	lakeID     string
	archived   map[day]bool

	withoutWindows bool // it is not known which windows there are
}

func readLedger(ctx context.Context, conn *pgx.Conn, cfg Config) (*ledger, error) {
	l := &ledger{busy: map[[2]string]bool{}, archived: map[day]bool{}}
	for _, read := range []func(context.Context, *pgx.Conn) error{l.readWindows, l.readPartitions} {
		if err := read(ctx, conn); err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
	}
	var stream, site, holder string
	rows, _ := conn.Query(ctx, "SELECT stream, site, holder FROM sdr_sync.lease WHERE expires_at >= now()") // ForEachRow gives its error
	_, err := pgx.ForEachRow(rows, []any{&stream, &site, &holder}, func() error {
		if !cfg.Dead(holder) {
			l.busy[[2]string{stream, site}] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the leases: %w", err)
	}
	err = conn.QueryRow(ctx, "SELECT coalesce((SELECT value FROM sdr_sync.pin WHERE name = 'lake_id'), '')").Scan(&l.lakeID)
	if err != nil {
		return nil, fmt.Errorf("read the pins: %w", err)
	}
	var month time.Time
	rows, _ = conn.Query(ctx, "SELECT usage_month FROM sdr_sync.archived_month")
	_, err = pgx.ForEachRow(rows, []any{&month}, func() error {
		l.archived[dayOf(month)] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the archived months: %w", err)
	}
	return l, nil
}

func (l *ledger) readWindows(ctx context.Context, conn *pgx.Conn) error {
	rows, _ := conn.Query(ctx, `
		SELECT window_id, stream, site, region, unit, from_date, to_date, generation, records, digest, quarantined, quarantine_digest,
			missing_amounts, hash_version, usage_months, coalesce(job_row, 0), coalesce(newest, 0)
		FROM sdr_sync.window
		LEFT JOIN (SELECT stream, (extract(epoch FROM max(created_at)) * 1000000)::bigint AS newest FROM sdr_sync.job GROUP BY stream) pulled USING (stream)
		WHERE retired_at IS NULL ORDER BY stream, site, region, from_date, window_id`)
	windows, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*window, error) {
		var w window
		var from, to time.Time
		var months []time.Time
		err := r.Scan(&w.id, &w.stream, &w.site, &w.region, &w.unit, &from, &to, &w.generation, &w.records.count, &w.records.text,
			&w.quarantined.count, &w.quarantined.text, &w.missing, &w.hashVersion, &months, &w.jobRow, &w.newestPull)
		w.from, w.to = dayOf(from), dayOf(to)
		for _, m := range months {
			w.months = append(w.months, dayOf(m))
		}
		slices.Sort(w.months)
		return &w, err
	})
	l.windows = windows
	return err
}

func (l *ledger) readPartitions(ctx context.Context, conn *pgx.Conn) error {
	rows, _ := conn.Query(ctx, `
		SELECT stream, site, from_date, unit, dirty_seq, exported_seq, file_rows, file_bytes, file_digest, file_sha256,
			stream = 'sdr' AND EXISTS (SELECT FROM sdr_sync.archived_month WHERE usage_month = date_trunc('month', from_date)::date)
		FROM sdr_sync.partition ORDER BY stream, site, from_date`)
	partitions, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*partition, error) {
		var p partition
		var from time.Time
		err := r.Scan(&p.stream, &p.site, &from, &p.unit, &p.dirty, &p.exported, &p.rows, &p.bytes, &p.digest, &p.sha256, &p.archived)
		p.from = dayOf(from)
		return &p, err
	})
	l.partitions = partitions
	return err
}

// exportedAny tells whether the ledger knows of a file.
func (l *ledger) exportedAny() bool {
	return slices.ContainsFunc(l.partitions, func(p *partition) bool { return p.sha256 != "" })
}
