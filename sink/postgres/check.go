package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// Difference is one thing that verify found, and what repairs it.
type Difference struct {
	Where  string `json:"where"`
	What   string `json:"what"`
	Repair string `json:"repair"`
}

// Check compares the ledger with the tables for the windows (all of the stream if ids is nil): every digest and count is recomputed
// from the columns, and the daily sums from the facts. It reports how many records it read.
func (db *DB) Check(ctx context.Context, ids []int64) (found []Difference, records int64, err error) {
	err = db.inTx(ctx, snapshot, func(tx pgx.Tx) error {
		windows, err := db.windowsToCheck(ctx, tx, ids)
		if err != nil {
			return err
		}
		for _, w := range windows {
			more, n, err := db.checkWindow(ctx, tx, w)
			if err != nil {
				return fmt.Errorf("check window %s: %w", w.Window, err)
			}
			found, records = append(found, more...), records+n
		}
		if ids != nil {
			return nil
		}
		more, err := db.checkSites(ctx, tx, windows)
		if err != nil {
			return err
		}
		found = append(found, more...)
		orphans, err := db.checkOrphans(ctx, tx)
		found = append(found, orphans...)
		return err
	})
	return found, records, err
}

func (db *DB) windowsToCheck(ctx context.Context, tx pgx.Tx, ids []int64) ([]pipeline.WindowState, error) {
	rows, err := tx.Query(ctx, `
		SELECT `+windowColumns+` FROM sdr_sync.window w
		WHERE stream = $1 AND retired_at IS NULL AND ($2::bigint[] IS NULL OR window_id = ANY ($2)) ORDER BY site, region, from_date`, db.stream.Name, ids)
	if err != nil {
		return nil, wrap(err, "list windows")
	}
	windows, err := pgx.CollectRows(rows, scanWindow)
	return windows, wrap(err, "list windows")
}

func (db *DB) checkWindow(ctx context.Context, tx pgx.Tx, w pipeline.WindowState) ([]Difference, int64, error) {
	var found []Difference
	otherUnit := pipeline.Day
	if w.Unit == pipeline.Day {
		otherUnit = pipeline.Month
	}
	report := func(format string, args ...any) {
		found = append(found, Difference{
			Where: "window " + w.Window.String(), What: fmt.Sprintf(format, args...),
			// Asking the vendor again with --refresh would not do: content equal to the ledger's is not written.
			Repair: fmt.Sprintf("sdr-sync replay --window %d, or if its landing file is gone: sdr-sync backfill --scope %s --from %s --to %s --reslice=%s",
				w.ID, w.Scope, w.From, w.To-1, otherUnit),
		})
	}
	var content record.Digest
	var badKeys, missing, wrongSite, wrongDate int64
	amount, begin := -1, db.stream.Index(db.stream.TimeField)
	for i, t := range db.sdr.types {
		if t == "decimal" {
			amount = i
		}
	}
	hasher := db.sdr.hasher()
	var archived bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM sdr_sync.window, unnest(usage_months) m JOIN sdr_sync.archived_month a ON a.usage_month = m WHERE window_id = $1)`, w.ID).Scan(&archived)
	if err != nil {
		return nil, 0, wrap(err, "read the usage months")
	}
	if archived { // a part of its rows is in Parquet only; the lake's own check covers that
		err := db.checkQuarantine(ctx, tx, w, report)
		return found, 0, err
	}
	for row, err := range db.rows(ctx, tx, "SELECT "+db.sdr.columns+" FROM billing.sdr WHERE window_id = $1", w.ID) {
		if err != nil {
			return nil, 0, err
		}
		h := hasher.Content(row.Values)
		content.Add(h)
		if record.KeyOf(row.Values[begin].Int, h) != row.Key || hasher.Natural(row.Site, row.Values) != row.NaturalKey {
			badKeys++
		}
		if !row.Values[amount].Valid {
			missing++
		}
		if row.Site != w.Scope.Site {
			wrongSite++
		}
		if row.UsageDate != record.DateOf(time.UnixMicro(row.Values[begin].Int), db.cfg.SourceZone) {
			wrongDate++
		}
	}
	if content != w.Records && w.HashVersion == record.HashVersion {
		report("billing.sdr holds %s, the ledger says %s", content, w.Records)
	}
	if content.Count != w.Records.Count && w.HashVersion != record.HashVersion {
		report("billing.sdr holds %d records, the ledger says %d", content.Count, w.Records.Count)
	}
	if badKeys > 0 && w.HashVersion == record.HashVersion {
		report("%d records have a record_key or natural_key that does not follow from their columns", badKeys)
	}
	if missing != w.MissingAmounts {
		report("%d records have no amount, the ledger says %d", missing, w.MissingAmounts)
	}
	if wrongSite > 0 {
		report("%d records stand under another site", wrongSite)
	}
	if wrongDate > 0 {
		report("%d records have a usage_date that is not the date of their begin_time in %s", wrongDate, db.cfg.SourceZone)
	}
	if err := db.checkRollup(ctx, tx, w, report); err != nil {
		return nil, 0, err
	}
	err = db.checkQuarantine(ctx, tx, w, report)
	return found, content.Count, err
}

// checkRollup compares the window's daily sums with its facts, both ways.
func (db *DB) checkRollup(ctx context.Context, tx pgx.Tx, w pipeline.WindowState, report func(string, ...any)) error {
	var different int64
	err := tx.QueryRow(ctx, `
		WITH facts AS (
			SELECT `+rollupDimensions+`, count(*) AS records, count(*) - count(accumulate_factor_value) AS missing, coalesce(sum(accumulate_factor_value), 0) AS amount
			FROM billing.sdr WHERE window_id = $1 GROUP BY `+rollupDimensions+`),
		sums AS (
			SELECT `+rollupDimensions+`, records, missing_amounts, accumulate_factor_value FROM sdr_sync.usage_rollup WHERE window_id = $1)
		SELECT (SELECT count(*) FROM (TABLE facts EXCEPT ALL TABLE sums) a) + (SELECT count(*) FROM (TABLE sums EXCEPT ALL TABLE facts) b)`, w.ID).Scan(&different)
	if err != nil {
		return wrap(err, "compare the daily sums")
	}
	if different > 0 {
		report("%d rows of the daily sums differ from the facts", different)
	}
	return nil
}

func (db *DB) checkQuarantine(ctx context.Context, tx pgx.Tx, w pipeline.WindowState, report func(string, ...any)) error {
	var quarantined record.Digest
	var wrong int64
	rows, err := tx.Query(ctx, "SELECT raw_hash::text, raw FROM sdr_sync.quarantine WHERE window_id = $1", w.ID)
	if err != nil {
		return wrap(err, "read the quarantine")
	}
	var text string
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&text, &raw}, func() error {
		h := record.RawHash(raw)
		quarantined.Add(h)
		if text != uuidText(h) {
			wrong++
		}
		return nil
	})
	if err != nil {
		return wrap(err, "read the quarantine")
	}
	if quarantined != w.Quarantined {
		report("the quarantine holds %s, the ledger says %s", quarantined, w.Quarantined)
	}
	if wrong > 0 {
		report("%d quarantined records do not match their hash", wrong)
	}
	return nil
}

// checkSites compares what a site's windows hold with what its Parquet files hold: the same records, cut another way. A site with a
// partition that waits for its export is left out.
func (db *DB) checkSites(ctx context.Context, tx pgx.Tx, windows []pipeline.WindowState) ([]Difference, error) {
	rows, err := tx.Query(ctx, "SELECT "+partitionColumns+" FROM sdr_sync.partition WHERE stream = $1 ORDER BY site, from_date", db.stream.Name)
	if err != nil {
		return nil, wrap(err, "list partitions")
	}
	partitions, err := pgx.CollectRows(rows, scanPartition)
	if err != nil {
		return nil, wrap(err, "list partitions")
	}
	published, exported, waiting := map[string]record.Digest{}, map[string]record.Digest{}, map[string]bool{}
	for _, w := range windows {
		d := published[w.Scope.Site]
		d.Merge(w.Records)
		published[w.Scope.Site] = d
		waiting[w.Scope.Site] = waiting[w.Scope.Site] || w.HashVersion != record.HashVersion
	}
	for _, p := range partitions {
		if p.DirtySeq > p.ExportedSeq {
			waiting[p.Site] = true
			continue
		}
		file, err := record.ParseDigest(p.File.Digest, p.File.Rows)
		if err != nil {
			return nil, wrap(err, "read what partition %s holds", p.Partition)
		}
		d := exported[p.Site]
		d.Merge(file)
		exported[p.Site] = d
	}
	var found []Difference
	for _, site := range slices.Sorted(maps.Keys(published)) {
		if !waiting[site] && published[site] != exported[site] {
			found = append(found, Difference{
				Where: "site " + site, What: fmt.Sprintf("its windows hold %s, its Parquet files %s", published[site], exported[site]),
				Repair: "sdr-sync export --all",
			})
		}
	}
	return found, nil
}

// checkOrphans looks for rows whose window is not in the ledger, or retired.
func (db *DB) checkOrphans(ctx context.Context, tx pgx.Tx) ([]Difference, error) {
	rows, err := tx.Query(ctx, `
		SELECT place, window_id, n FROM (
			SELECT 'billing.sdr' AS place, window_id, count(*) AS n FROM billing.sdr GROUP BY window_id
			UNION ALL SELECT 'sdr_sync.usage_rollup', window_id, count(*) FROM sdr_sync.usage_rollup GROUP BY window_id
			UNION ALL SELECT 'sdr_sync.quarantine', window_id, count(*) FROM sdr_sync.quarantine GROUP BY window_id) found
		WHERE NOT EXISTS (SELECT FROM sdr_sync.window w WHERE w.window_id = found.window_id AND w.retired_at IS NULL) ORDER BY 1, 2`)
	if err != nil {
		return nil, wrap(err, "look for orphans")
	}
	var found []Difference
	var place string
	var id, n int64
	_, err = pgx.ForEachRow(rows, []any{&place, &id, &n}, func() error {
		found = append(found, Difference{
			Where: place, What: fmt.Sprintf("%d rows of window_id %d, which the ledger does not know or has retired", n, id),
			Repair: fmt.Sprintf("restore from a backup, or as sdr_sync_owner: DELETE FROM %s WHERE window_id = %d", place, id),
		})
		return nil
	})
	return found, wrap(err, "look for orphans")
}

func uuidText(h record.Hash) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
