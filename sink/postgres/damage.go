package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// damaged tells whether the tables hold something else than the ledger says of the window, or than follows from it. A replay then writes
// everything anew. That is all it is for: what differs, package verify tells.
func (db *DB) damaged(ctx context.Context, tx pgx.Tx, t *table, w pipeline.WindowState) (bool, error) {
	type check func(context.Context, pgx.Tx, *table, pipeline.WindowState) (bool, error)
	checks := []check{db.damagedRows, damagedTwins, damagedQuarantine}
	if t.metered() {
		checks = append(checks, damagedSums)
		var archived bool
		err := tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM sdr_sync.window, unnest(usage_months) m JOIN sdr_sync.archived_month a ON a.usage_month = m WHERE window_id = $1)`, w.ID).Scan(&archived)
		if err != nil {
			return false, wrap(err, "read the usage months")
		}
		if archived { // some of its rows are in Parquet only
			checks = []check{damagedQuarantine}
		}
	}
	for _, check := range checks {
		damaged, err := check(ctx, tx, t, w)
		if damaged || err != nil {
			return damaged, wrap(err, "check what stands there")
		}
	}
	return false, nil
}

// damagedRows computes every hash, key and date from the columns. Of a history only the rows that stand count: no replay brings others back.
func (db *DB) damagedRows(ctx context.Context, tx pgx.Tx, t *table, w pipeline.WindowState) (bool, error) {
	query, args := "SELECT "+t.stored.columns+" FROM "+t.name, []any{}
	if !t.whole() {
		query, args = query+" WHERE window_id = $1", append(args, w.ID)
	} else if t.stream.Shape == schemas.History {
		query += " WHERE " + standing
	}
	var content record.Digest
	var missing int64
	months := map[pipeline.Date]int64{}
	hasher, same := record.NewHasher(t.stream), w.HashVersion == record.HashVersion
	for row, err := range t.stored.rows(ctx, tx, query, args...) {
		if errors.Is(err, errUndecodable) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		values := row.Values
		if !t.metered() {
			values = values[len(t.stream.Derived):]
		}
		content.Add(hasher.Content(values))
		if t.metered() && !values[t.stream.Index("accumulate_factor_value")].Valid {
			missing++
		}
		if same && !t.consistent(hasher, row, values, w) || !t.whole() && t.dateOf(row) != t.rightDate(values, db.cfg.SourceZone) {
			return true, nil
		}
		months[t.dateOf(row).Month()]++
	}
	if content.Count != w.Records.Count || same && content != w.Records || t.metered() && missing != w.MissingAmounts {
		return true, nil
	}
	if t.whole() {
		return false, nil
	}
	var noted bool
	err := tx.QueryRow(ctx, "SELECT usage_months = $2 FROM sdr_sync.window WHERE window_id = $1", w.ID, usageMonths(months)).Scan(&noted)
	return !noted, wrap(err, "read the usage months")
}

// consistent tells whether a row's keys and site follow from its values and window.
func (t *table) consistent(hasher *record.Hasher, row *record.Row, values []record.Value, w pipeline.WindowState) bool {
	content := hasher.Content(values)
	column := func(name string) record.Hash {
		return record.Hash(row.Values[slices.Index(t.stored.names, name)].Bytes)
	}
	switch t.stream.Shape {
	case schemas.Jobs:
		key := record.KeyOf(values[t.stream.Index(t.stream.TimeField)].Int, content)
		return row.Key == key && row.NaturalKey == hasher.Natural(row.Site, values) && row.Site == w.Scope.Site
	case schemas.Events:
		return column("record_key") == record.KeyOf(values[t.stream.Index(t.stream.TimeField)].Int, content)
	}
	return column("record_key") == content && column("natural_key") == hasher.Natural("", values)
}

// dateOf returns the date that a row stands under.
func (t *table) dateOf(row *record.Row) pipeline.Date {
	switch t.stream.Shape {
	case schemas.Jobs:
		return row.UsageDate
	case schemas.Events:
		return pipeline.Date(row.Values[slices.Index(t.stored.names, t.date)].Int)
	}
	return 0
}

// rightDate returns the date that a row must stand under.
func (t *table) rightDate(values []record.Value, zone *time.Location) pipeline.Date {
	return record.DateOf(time.UnixMicro(values[t.stream.Index(t.stream.TimeField)].Int), zone)
}

// damagedTwins looks for twins that are not numbered one after the other.
func damagedTwins(ctx context.Context, tx pgx.Tx, t *table, w pipeline.WindowState) (damaged bool, err error) {
	if t.stream.Shape == schemas.History { // a key has one row at a time
		return false, nil
	}
	of, same := "true", "p.natural_key = r.natural_key"
	if !t.whole() {
		of, same = fmt.Sprintf("r.window_id = %d", w.ID), "p.window_id = r.window_id AND p.record_key = r.record_key"
	}
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.name+" r WHERE "+of+" AND r.ordinal <> 0 AND NOT EXISTS (SELECT FROM "+t.name+
		" p WHERE "+same+" AND p.ordinal = r.ordinal - 1))").Scan(&damaged)
	return damaged, err
}

// damagedSums compares the window's daily sums with its facts, both ways.
func damagedSums(ctx context.Context, tx pgx.Tx, _ *table, w pipeline.WindowState) (damaged bool, err error) {
	err = tx.QueryRow(ctx, `
		WITH facts AS (
			SELECT `+rollupDimensions+`, count(*) AS records, count(*) - count(accumulate_factor_value) AS missing, coalesce(sum(accumulate_factor_value), 0) AS amount
			FROM billing.sdr WHERE window_id = $1 GROUP BY `+rollupDimensions+`),
		sums AS (
			SELECT `+rollupDimensions+`, records, missing_amounts, accumulate_factor_value FROM sdr_sync.usage_rollup WHERE window_id = $1)
		SELECT EXISTS (TABLE facts EXCEPT ALL TABLE sums) OR EXISTS (TABLE sums EXCEPT ALL TABLE facts)`, w.ID).Scan(&damaged)
	return damaged, err
}

func damagedQuarantine(ctx context.Context, tx pgx.Tx, _ *table, w pipeline.WindowState) (bool, error) {
	var quarantined record.Digest
	rows, err := tx.Query(ctx, "SELECT raw_hash::text, ordinal, raw FROM sdr_sync.quarantine WHERE window_id = $1 ORDER BY raw_hash, ordinal", w.ID)
	if err != nil {
		return false, err
	}
	damaged := false
	var text, before string
	var ordinal, next int32
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&text, &ordinal, &raw}, func() error {
		h := record.RawHash(raw)
		quarantined.Add(h)
		if text != before {
			before, next = text, 0
		}
		damaged = damaged || text != uuidText(h) || ordinal != next
		next++
		return nil
	})
	return damaged || quarantined != w.Quarantined, err
}

func uuidText(h record.Hash) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
