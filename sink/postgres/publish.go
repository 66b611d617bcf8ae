package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Publish carries out r in one transaction, or nothing of it. It tries again after errors that ask for it; rows are then read from
// the landing files once more.
func (db *DB) Publish(ctx context.Context, r pipeline.Replacement) ([]pipeline.Outcome, error) {
	const tries = 5
	for try := 1; ; try++ {
		var outcomes []pipeline.Outcome
		err := db.ensurePartitions(ctx, r)
		if err == nil {
			outcomes, err = db.publishOnce(ctx, r)
		}
		if err == nil {
			return outcomes, nil
		}
		var lost *commitError
		if errors.As(err, &lost) && outcomes != nil && ctx.Err() == nil { // without outcomes it was a partition's COMMIT
			// The answer to COMMIT is lost: the ledger knows whether it happened.
			committed, readErr := db.committed(ctx, r, outcomes)
			if readErr != nil {
				return nil, errors.Join(err, readErr)
			}
			if committed {
				return outcomes, nil
			}
		}
		if cause := context.Cause(ctx); cause != nil {
			if !errors.Is(err, cause) { // a connection that is closed for it may say only that
				err = fmt.Errorf("%w: %w", err, cause)
			}
			return nil, err
		}
		if !transient(err) || try == tries {
			return nil, err
		}
		db.cfg.Log.Warn("publication is tried again", zap.Int("try", try), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Duration(try*try) * 200 * time.Millisecond):
		}
	}
}

// ensurePartitions creates the missing partitions in transactions of their own, so that no publication holds their locks. A window that
// is published with the same content needs none: its months may be archived.
func (db *DB) ensurePartitions(ctx context.Context, r pipeline.Replacement) error {
	t, err := db.table(r.Stream)
	if err != nil || t.whole() {
		return err
	}
	months := map[pipeline.Date]bool{}
	for _, p := range r.Publish {
		stands, err := db.stands(ctx, t, r, p)
		if err != nil {
			return err
		}
		if stands && len(r.Retire) == 0 {
			continue
		}
		for date := range p.UsageDates {
			months[date.Month()] = true
		}
	}
	for _, month := range slices.Sorted(maps.Keys(months)) {
		if err := db.ensurePartition(ctx, t, month); err != nil {
			return wrap(hinted(err), "create the partition of %s for %s", t.stream.Table, month.MonthString())
		}
	}
	return nil
}

// ensurePartition creates one month's partition. Creating takes a lock that whoever archives a month holds as well, so a partition that
// is there is left alone. The table of an archived month is there too, but is no partition.
func (db *DB) ensurePartition(ctx context.Context, t *table, month pipeline.Date) error {
	var there bool
	err := db.pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass($1) AND inhrelid = to_regclass($1 || to_char($2::date, '_YYYY_MM')))`,
		t.stream.Table, monthArg(month)).Scan(&there)
	if err != nil || there {
		return err
	}
	failpoint.Hit(failpoint.PartitionEnsure)
	_, err = db.execTx(ctx, "SELECT sdr_sync.ensure_partition($1, $2)", t.stream.Table, monthArg(month))
	failpoint.Hit(failpoint.PartitionEnsured)
	return err
}

// stands tells whether the ledger holds the publication's content already, on the same usage dates: a replay may move those.
func (db *DB) stands(ctx context.Context, t *table, r pipeline.Replacement, p pipeline.Publication) (bool, error) {
	w := p.Job.Window
	var id int64
	err := db.pool.QueryRow(ctx, `
		SELECT window_id FROM sdr_sync.window WHERE stream = $1 AND site = $2 AND region = $3 AND from_date = $4 AND retired_at IS NULL
			AND hash_version = $5 AND records = $6 AND digest = $7 AND quarantined = $8 AND quarantine_digest = $9`,
		r.Stream, w.Scope.Site, w.Scope.Region, dateArg(w.From), record.HashVersion, p.Records.Count, p.Records.Sum(), p.Quarantined.Count,
		p.Quarantined.Sum()).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, wrap(err, "read the window %s", w)
	}
	if !r.Replay {
		return true, nil
	}
	return hasUsageDates(ctx, db.pool, t, id, p.UsageDates)
}

// committed tells whether the publication whose COMMIT answer was lost took place: its jobs then have the end in the ledger that it gave
// them. Locking their rows waits for a COMMIT that the server is still busy with.
func (db *DB) committed(ctx context.Context, r pipeline.Replacement, outcomes []pipeline.Outcome) (bool, error) {
	all := true
	err := db.inTx(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		for i, p := range r.Publish {
			var state string
			var generation int
			err := tx.QueryRow(ctx, "SELECT state, coalesce(generation, 0) FROM sdr_sync.job WHERE job_row = $1 FOR UPDATE", p.Job.Row).Scan(&state, &generation)
			if err != nil {
				return wrap(err, "learn what became of window %s", p.Job.Window)
			}
			if outcomes[i].Unchanged {
				all = all && (r.Replay || state == pipeline.StateUnchanged)
			} else {
				all = all && state == pipeline.StatePublished && generation == outcomes[i].Generation
			}
		}
		return nil
	})
	return all, err
}

func (db *DB) publishOnce(ctx context.Context, r pipeline.Replacement) (outcomes []pipeline.Outcome, err error) {
	t, err := db.table(r.Stream)
	if err != nil {
		return nil, err
	}
	err = db.inTx(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := failpoint.Err(failpoint.PublishBegun); err != nil {
			return err
		}
		touched := touchedDates{}
		for _, old := range r.Retire {
			if err := db.retire(ctx, tx, t, old, touched); err != nil {
				return err
			}
			failpoint.Hit(failpoint.PublishRetired)
		}
		for _, p := range r.Publish {
			outcome, err := db.publishWindow(ctx, tx, t, r, p, touched)
			if err != nil {
				return fmt.Errorf("publish %s: %w", t.describe(p.Job.Window), err)
			}
			outcomes = append(outcomes, outcome)
		}
		// Last, so that rows that several publications want are locked for as short as can be, and always in the same order.
		if err := db.markDirty(ctx, tx, t, touched); err != nil {
			return err
		}
		failpoint.Hit(failpoint.PublishDirty)
		if err := db.fence(ctx, tx, r.Stream, r.Scope, r.LeaseToken); err != nil {
			return err
		}
		failpoint.Hit(failpoint.PublishFenced)
		return failpoint.Err(failpoint.PublishBeforeCommit)
	})
	if err == nil {
		failpoint.Hit(failpoint.PublishAfterCommit)
	}
	return outcomes, err
}

// touchedDates are the dates whose rows a transaction changed, per site. Lists that are read whole have none but the zero date.
type touchedDates map[string]map[pipeline.Date]bool

func (t touchedDates) add(site string, d pipeline.Date) {
	if t[site] == nil {
		t[site] = map[pipeline.Date]bool{}
	}
	t[site][d] = true
}

func (db *DB) publishWindow(ctx context.Context, tx pgx.Tx, t *table, r pipeline.Replacement, p pipeline.Publication, touched touchedDates) (pipeline.Outcome, error) {
	w := p.Job.Window
	old, found, err := lockWindow(ctx, tx, r.Stream, w)
	if err != nil {
		return pipeline.Outcome{}, err
	}
	failpoint.Hit(failpoint.PublishWindowLocked)
	unchanged, damaged := false, false
	if found {
		if unchanged, damaged, err = db.compare(ctx, tx, t, r, p, old); err != nil {
			return pipeline.Outcome{}, err
		}
	}
	if unchanged {
		outcome := pipeline.Outcome{WindowID: old.ID, Generation: old.Generation, Unchanged: true, ToBefore: old.To}
		if r.Replay {
			return outcome, nil
		}
		return outcome, db.noteUnchanged(ctx, tx, t, p, old)
	}
	if err := refuseShrink(t, r, p, old); err != nil {
		return pipeline.Outcome{}, err
	}
	if !found {
		err := tx.QueryRow(ctx, `
			INSERT INTO sdr_sync.window (stream, site, region, unit, from_date, to_date, hash_version) VALUES ($1, $2, $3, $4, $5, $6, $7)
			RETURNING window_id`, r.Stream, w.Scope.Site, w.Scope.Region, w.Unit, dateArg(w.From), dateArg(w.To), record.HashVersion).Scan(&old.ID)
		if err != nil {
			return pipeline.Outcome{}, wrap(err, "store the window")
		}
		old.Window = w
		failpoint.Hit(failpoint.PublishWindowStored)
	}
	outcome := pipeline.Outcome{WindowID: old.ID, Generation: old.Generation + 1, ToBefore: old.To}
	if t.whole() {
		err = db.replaceList(ctx, tx, t, r, p, old, &outcome, touched)
	} else {
		err = db.replaceWindow(ctx, tx, t, r, p, old, damaged, &outcome, touched)
	}
	if err != nil {
		return outcome, err
	}
	if old.Quarantined != p.Quarantined || damaged {
		failpoint.Hit(failpoint.PublishQuarantine)
		if err := replaceQuarantine(ctx, tx, old.ID, p); err != nil {
			return outcome, err
		}
	}
	return outcome, db.noteGeneration(ctx, tx, t, r, p, outcome)
}

// compare tells whether the publication is what stands in the window already, and whether the window's tables no longer hold what the
// ledger says, which only a replay looks at.
func (db *DB) compare(ctx context.Context, tx pgx.Tx, t *table, r pipeline.Replacement, p pipeline.Publication, old pipeline.WindowState) (unchanged, damaged bool, err error) {
	unchanged = old.HashVersion == record.HashVersion && old.Records == p.Records && old.Quarantined == p.Quarantined
	if !r.Replay {
		if unchanged && t.stream.Shape == schemas.History {
			unchanged, err = noneLeaving(ctx, tx, t, p)
		}
		return unchanged, false, err
	}
	// A replay is also what mends a window whose tables no longer hold what the ledger says, and what moves records to the dates of
	// another time zone. Neither shows in the digests.
	if damaged, err = db.damaged(ctx, tx, t, old); err != nil {
		return false, false, err
	}
	sameDates := true
	if !t.whole() {
		if sameDates, err = hasUsageDates(ctx, tx, t, old.ID, p.UsageDates); err != nil {
			return false, false, err
		}
	}
	return unchanged && sameDates && !damaged, damaged, nil
}

// noteUnchanged stores that the vendor was asked and gave what stands. Of a list that is read whole, the job's row alone says so.
func (db *DB) noteUnchanged(ctx context.Context, tx pgx.Tx, t *table, p pipeline.Publication, old pipeline.WindowState) error {
	if !t.whole() {
		_, err := tx.Exec(ctx, `
			UPDATE sdr_sync.window SET to_date = $2, job_created_at = $3, checked_at = $4 WHERE window_id = $1`,
			old.ID, dateArg(p.Job.Window.To), p.Job.CreatedAt, db.cfg.Now())
		if err != nil {
			return wrap(err, "note the check")
		}
	}
	failpoint.Hit(failpoint.PublishUnchanged)
	return db.endJob(ctx, tx, p, pipeline.StateUnchanged, jobResult{windowID: &old.ID})
}

// noteGeneration stores the window's new generation, and that the job became it.
func (db *DB) noteGeneration(ctx context.Context, tx pgx.Tx, t *table, r pipeline.Replacement, p pipeline.Publication, outcome pipeline.Outcome) error {
	unknown, err := json.Marshal(p.UnknownFields)
	if err != nil {
		return wrap(err, "encode unknown fields")
	}
	w, result := p.Job.Window, jobResult{windowID: &outcome.WindowID, generation: &outcome.Generation}
	missing, months := int64(0), []time.Time{}
	if t.metered() {
		missing = p.MissingAmounts
	}
	if !t.whole() {
		months = usageMonths(p.UsageDates)
	} else if !r.Replay { // what a replay mends is not what the pull changed
		result.changes = &outcome.Changes
	}
	_, err = tx.Exec(ctx, `
		UPDATE sdr_sync.window SET unit = $2, to_date = $3, generation = $4, records = $5, missing_amounts = $6, digest = $7, hash_version = $8,
			quarantined = $9, quarantine_digest = $10, usage_months = $11, unknown_fields = nullif($12::jsonb, '{}'), job_row = $13,
			job_created_at = $14, published_at = $15, checked_at = $15
		WHERE window_id = $1`,
		outcome.WindowID, w.Unit, dateArg(w.To), outcome.Generation, p.Records.Count, missing, p.Records.Sum(), record.HashVersion,
		p.Quarantined.Count, p.Quarantined.Sum(), months, string(unknown), p.Job.Row, p.Job.CreatedAt, db.cfg.Now())
	if err != nil {
		return wrap(err, "store the generation")
	}
	failpoint.Hit(failpoint.PublishGeneration)
	return db.endJob(ctx, tx, p, pipeline.StatePublished, result)
}

func (db *DB) endJob(ctx context.Context, tx pgx.Tx, p pipeline.Publication, state string, result jobResult) error {
	job := p.Job
	job.State, job.Records, job.Quarantined = state, p.Records.Count, p.Quarantined.Count
	args, err := updateJobArgs(job, db.cfg.Now(), result)
	if err == nil {
		_, err = tx.Exec(ctx, updateJob, args...)
	}
	return wrap(err, "store the end of job %d", job.Row)
}

// refuseShrink fails with *pipeline.ShrinkError if implausibly few records came. Histories look at each row instead.
func refuseShrink(t *table, r pipeline.Replacement, p pipeline.Publication, old pipeline.WindowState) error {
	had, got := old.Records.Count, p.Records.Count
	if t.stream.Shape == schemas.History || r.AcceptShrink || len(r.Retire) > 0 || had == 0 || got > 0 && float64(got) >= r.MinRatio*float64(had) {
		return nil
	}
	return &pipeline.ShrinkError{Stream: r.Stream, Window: p.Job.Window, Had: had, Got: got}
}

// replaceWindow makes the window's rows those of the publication, with all that follows from them.
func (db *DB) replaceWindow(ctx context.Context, tx pgx.Tx, t *table, r pipeline.Replacement, p pipeline.Publication, old pipeline.WindowState, damaged bool, outcome *pipeline.Outcome, touched touchedDates) error {
	var before map[string]string
	if t.metered() {
		if err := refuseArchived(ctx, tx, old.ID); err != nil {
			return err
		}
		var err error
		if before, err = factorSums(ctx, tx, old.ID); err != nil {
			return err
		}
	}
	var err error
	if damaged {
		if outcome.Deleted, err = clearWindow(ctx, tx, t, old, touched); err != nil {
			return err
		}
	}
	if old.Records.Count == 0 || damaged {
		outcome.Inserted, err = t.load(ctx, tx, t.name, old.ID, p)
		for date := range p.UsageDates {
			touched.add(p.Job.Window.Scope.Site, date)
		}
	} else {
		outcome.Inserted, outcome.Deleted, err = t.merge(ctx, tx, old.ID, p, touched)
	}
	if err != nil {
		return err
	}
	if got := old.Records.Count + outcome.Inserted - outcome.Deleted; got != p.Records.Count && !damaged {
		return fmt.Errorf("%w: the table would hold %d records of the window and %d were landed; `sdr-sync verify` may say more", pipeline.ErrDefect, got, p.Records.Count)
	}
	if t.metered() && (outcome.Inserted+outcome.Deleted > 0 || damaged) {
		failpoint.Hit(failpoint.PublishRollup)
		if err := replaceRollup(ctx, tx, old.ID); err != nil {
			return err
		}
	}
	if old.Generation == 0 {
		return nil
	}
	outcome.Restated = true
	amounts := map[string]amountChange{}
	if t.metered() {
		if amounts, err = amountChanges(ctx, tx, old.ID, before); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.PublishRestatement)
	return logRestatement(ctx, tx, r, p, old, *outcome, amounts)
}

// refuseArchived fails if records of the published window stand in an archived month: they could be neither kept nor deleted.
func refuseArchived(ctx context.Context, tx pgx.Tx, windowID int64) error {
	var months string
	err := tx.QueryRow(ctx, `
		SELECT coalesce(string_agg(to_char(m, 'YYYY-MM'), ', ' ORDER BY m), '')
		FROM sdr_sync.window, unnest(usage_months) m JOIN sdr_sync.archived_month a ON a.usage_month = m WHERE window_id = $1`, windowID).Scan(&months)
	if err == nil && months != "" {
		return fmt.Errorf("usage month %s is archived, and the published window has records of it (as sdr_sync_owner: SELECT sdr_sync.restore_month(...))", months)
	}
	return wrap(err, "look for archived months")
}

// lockWindow reads the window that begins where w does, and keeps it until the transaction ends.
func lockWindow(ctx context.Context, tx pgx.Tx, stream string, w pipeline.Window) (old pipeline.WindowState, found bool, err error) {
	rows, err := tx.Query(ctx, `
		SELECT `+windowColumns+` FROM sdr_sync.window w
		WHERE stream = $1 AND site = $2 AND region = $3 AND from_date = $4 AND retired_at IS NULL FOR UPDATE`,
		stream, w.Scope.Site, w.Scope.Region, dateArg(w.From))
	if err != nil {
		return old, false, wrap(err, "read the window")
	}
	old, err = pgx.CollectExactlyOneRow(rows, scanWindow)
	if errors.Is(err, pgx.ErrNoRows) {
		return old, false, nil
	}
	return old, err == nil, wrap(err, "read the window")
}

// load streams the publication's rows into the table called into and proves that they are the ones that were surveyed.
func (t *table) load(ctx context.Context, tx pgx.Tx, into string, windowID int64, p pipeline.Publication) (int64, error) {
	var seen record.Digest
	n, err := copyIn(ctx, tx, "COPY "+into+" ("+t.loaded.columns+") FROM STDIN (FORMAT binary)", p.Rows,
		func(dst []byte, row *record.Row) ([]byte, error) {
			seen.Add(row.Hash)
			return t.loaded.appendTuple(dst, windowID, row)
		})
	if err != nil {
		return 0, wrap(err, "load records")
	}
	if n != p.Records.Count || seen != p.Records {
		return 0, fmt.Errorf("load records: %d rows with %s were loaded, %s were landed: the landing file changed underneath; run again", n, seen, p.Records)
	}
	return n, nil
}

// loadIncoming loads the publication's rows into a temporary table, which definition makes.
func (t *table) loadIncoming(ctx context.Context, tx pgx.Tx, definition string, windowID int64, p pipeline.Publication) error {
	if _, err := tx.Exec(ctx, "CREATE TEMPORARY TABLE incoming "+definition); err != nil {
		return wrap(err, "create the table of incoming records")
	}
	if _, err := t.load(ctx, tx, "pg_temp.incoming", windowID, p); err != nil {
		return err
	}
	failpoint.Hit(failpoint.MergeLoaded)
	_, err := tx.Exec(ctx, "ANALYZE pg_temp.incoming") // without it the anti-joins behind it may be planned 5 times slower
	return wrap(err, "analyse incoming records")
}

// dropIncoming makes room: another window of the transaction may need the name.
func dropIncoming(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "DROP TABLE pg_temp.incoming")
	return wrap(err, "drop the table of incoming records")
}

// merge makes the window's rows equal to the publication's: rows that are equal on both sides are not touched.
func (t *table) merge(ctx context.Context, tx pgx.Tx, windowID int64, p pipeline.Publication, touched touchedDates) (inserted, deleted int64, err error) {
	if err := t.loadIncoming(ctx, tx, "(LIKE "+t.name+") ON COMMIT DROP", windowID, p); err != nil {
		return 0, 0, err
	}
	// Rows can only vanish in the months that the window had; naming them lets the planner leave other partitions alone.
	var low, high time.Time
	err = tx.QueryRow(ctx, `
		SELECT min(m), (max(m) + interval '1 month')::date FROM sdr_sync.window, unnest(usage_months) m WHERE window_id = $1`, windowID).Scan(&low, &high)
	if err != nil {
		return 0, 0, wrap(err, "read the usage months")
	}
	deleted, err = touchedRows(ctx, tx, touched, `
		WITH gone AS (
			DELETE FROM `+t.name+` s
			WHERE s.window_id = $1 AND s.`+t.date+` >= $2 AND s.`+t.date+` < $3 AND NOT EXISTS (
				SELECT FROM pg_temp.incoming i WHERE i.record_key = s.record_key AND i.ordinal = s.ordinal AND i.`+t.date+` = s.`+t.date+`)
			RETURNING `+t.site+` AS site, `+t.date+` AS date)
		SELECT site, date, count(*) FROM gone GROUP BY 1, 2`, windowID, low, high)
	if err != nil {
		return 0, 0, wrap(err, "delete vanished records")
	}
	failpoint.Hit(failpoint.MergeDeleted)
	inserted, err = touchedRows(ctx, tx, touched, `
		WITH come AS (
			INSERT INTO `+t.name+` (`+t.loaded.columns+`)
			SELECT `+t.loaded.columns+` FROM pg_temp.incoming i WHERE NOT EXISTS (
				SELECT FROM `+t.name+` s WHERE s.window_id = $1 AND s.`+t.date+` >= $2 AND s.`+t.date+` < $3
					AND s.record_key = i.record_key AND s.ordinal = i.ordinal AND s.`+t.date+` = i.`+t.date+`)
			RETURNING `+t.site+` AS site, `+t.date+` AS date)
		SELECT site, date, count(*) FROM come GROUP BY 1, 2`, windowID, low, high)
	if err != nil {
		return 0, 0, wrap(err, "insert new records")
	}
	failpoint.Hit(failpoint.MergeInserted)
	return inserted, deleted, dropIncoming(ctx, tx)
}

// touchedRows runs a statement that gives site, date and how many rows it changed there, and returns their number.
func touchedRows(ctx context.Context, tx pgx.Tx, touched touchedDates, statement string, args ...any) (total int64, err error) {
	rows, err := tx.Query(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	var site string
	var date time.Time
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&site, &date, &n}, func() error {
		touched.add(site, dateOf(date))
		total += n
		return nil
	})
	return total, err
}

// rollupDimensions are the columns that daily sums are grouped by, within a window.
const rollupDimensions = `usage_date, site, region_code, domain_id, project_id, enterprise_project_id, cloud_service_type_code,
	resource_type_code, resource_spec_code, accumulate_factor_name, record_type`

// replaceRollup computes the window's share of the daily sums anew.
func replaceRollup(ctx context.Context, tx pgx.Tx, windowID int64) error {
	if _, err := tx.Exec(ctx, "DELETE FROM sdr_sync.usage_rollup WHERE window_id = $1", windowID); err != nil {
		return wrap(err, "replace the daily sums")
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO sdr_sync.usage_rollup (window_id, `+rollupDimensions+`, records, missing_amounts, accumulate_factor_value)
		SELECT window_id, `+rollupDimensions+`, count(*), count(*) - count(accumulate_factor_value), coalesce(sum(accumulate_factor_value), 0)
		FROM billing.sdr WHERE window_id = $1 GROUP BY window_id, `+rollupDimensions, windowID)
	return wrap(err, "replace the daily sums")
}

func replaceQuarantine(ctx context.Context, tx pgx.Tx, windowID int64, p pipeline.Publication) error {
	if _, err := tx.Exec(ctx, "DELETE FROM sdr_sync.quarantine WHERE window_id = $1", windowID); err != nil {
		return wrap(err, "replace the quarantine")
	}
	if p.Quarantined.Count == 0 {
		return nil
	}
	var seen record.Digest
	n, err := copyIn(ctx, tx, `
		COPY sdr_sync.quarantine (window_id, raw_hash, ordinal, job_row, page, position, reason, field, detail, raw) FROM STDIN (FORMAT binary)`,
		p.Rejects, func(dst []byte, r pipeline.Rejected) ([]byte, error) {
			seen.Add(r.RawHash)
			dst = append(dst, 0, 10)
			dst = appendField(appendBigint(dst, windowID), r.RawHash[:])
			dst = appendBigint(appendInteger(dst, r.Ordinal), p.Job.Row)
			dst = appendInteger(appendInteger(dst, int32(r.Page)), int32(r.Position))
			return appendField(appendText(appendText(appendText(dst, r.Reason), storable(r.Field)), storable(r.Detail)), r.Raw), nil
		})
	if err != nil {
		return wrap(err, "fill the quarantine")
	}
	if n != p.Quarantined.Count || seen != p.Quarantined {
		return fmt.Errorf("fill the quarantine: %d records with %s went in, %s were landed: the landing file changed underneath; run again", n, seen, p.Quarantined)
	}
	return nil
}

// querier is a transaction or the pool.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// hasUsageDates tells whether the window has as many records on each date as want says.
func hasUsageDates(ctx context.Context, db querier, t *table, windowID int64, want map[pipeline.Date]int64) (bool, error) {
	query := "SELECT " + t.date + ", count(*) FROM " + t.name + " WHERE window_id = $1 GROUP BY 1"
	if t.metered() { // the daily sums have fewer rows
		query = "SELECT usage_date, sum(records)::bigint FROM sdr_sync.usage_rollup WHERE window_id = $1 GROUP BY 1"
	}
	rows, err := db.Query(ctx, query, windowID)
	if err != nil {
		return false, wrap(err, "read the usage dates")
	}
	have := map[pipeline.Date]int64{}
	var date time.Time
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&date, &n}, func() error {
		have[dateOf(date)] = n
		return nil
	})
	return maps.Equal(have, want), wrap(err, "read the usage dates")
}

// clearWindow takes all rows of a window away and returns how many records were among them.
func clearWindow(ctx context.Context, tx pgx.Tx, t *table, w pipeline.WindowState, touched touchedDates) (deleted int64, err error) {
	deleted, err = touchedRows(ctx, tx, touched, `
		WITH gone AS (DELETE FROM `+t.name+` WHERE window_id = $1 RETURNING `+t.site+` AS site, `+t.date+` AS date)
		SELECT site, date, count(*) FROM gone GROUP BY 1, 2`, w.ID)
	if err != nil {
		return 0, wrap(err, "delete the records of window %s", w.Window)
	}
	for _, statement := range []string{
		"DELETE FROM sdr_sync.usage_rollup WHERE window_id = $1",
		"DELETE FROM sdr_sync.quarantine WHERE window_id = $1",
	} {
		if _, err := tx.Exec(ctx, statement, w.ID); err != nil {
			return 0, wrap(err, "clear window %s", w.Window)
		}
	}
	return deleted, nil
}

// storable drops what a text column can't hold; the record itself is kept as bytes.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

// retire takes a window's rows away; other windows of the same transaction bring them back as theirs.
func (db *DB) retire(ctx context.Context, tx pgx.Tx, t *table, old pipeline.WindowState, touched touchedDates) error {
	if t.metered() {
		if err := refuseArchived(ctx, tx, old.ID); err != nil {
			return wrap(err, "retire window %s", old.Window)
		}
	}
	if _, err := clearWindow(ctx, tx, t, old, touched); err != nil {
		return wrap(err, "retire window %s", old.Window)
	}
	tag, err := tx.Exec(ctx, "UPDATE sdr_sync.window SET retired_at = $3 WHERE window_id = $1 AND generation = $2 AND retired_at IS NULL", old.ID, old.Generation, db.cfg.Now())
	if err == nil && tag.RowsAffected() != 1 {
		err = errors.New("it changed meanwhile; run again")
	}
	return wrap(err, "retire window %s", old.Window)
}

// markDirty raises the dirty_seq of every Parquet partition that holds a touched date.
func (db *DB) markDirty(ctx context.Context, tx pgx.Tx, t *table, touched touchedDates) error {
	for _, site := range slices.Sorted(maps.Keys(touched)) {
		starts := map[pipeline.Date]bool{}
		for date := range touched[site] {
			starts[t.partitionStart(db.cfg.Unit, date)] = true
		}
		for _, from := range slices.Sorted(maps.Keys(starts)) {
			_, err := tx.Exec(ctx, `
				INSERT INTO sdr_sync.partition AS p (stream, site, from_date, unit) VALUES ($1, $2, $3, $4)
				ON CONFLICT (stream, site, from_date) DO UPDATE SET dirty_seq = p.dirty_seq + 1`,
				t.stream.Name, site, dateArg(from), t.partitionUnit(db.cfg.Unit))
			if err != nil {
				return wrap(err, "mark the partition %s of %s", from, site)
			}
		}
	}
	return nil
}

// factorSums returns a window's exact sum per factor.
func factorSums(ctx context.Context, tx pgx.Tx, windowID int64) (map[string]string, error) {
	rows, err := tx.Query(ctx, `
		SELECT coalesce(accumulate_factor_name, ''), trim_scale(sum(accumulate_factor_value))::text
		FROM sdr_sync.usage_rollup WHERE window_id = $1 GROUP BY 1`, windowID)
	if err != nil {
		return nil, wrap(err, "sum the factors")
	}
	sums := map[string]string{}
	var name, sum string
	_, err = pgx.ForEachRow(rows, []any{&name, &sum}, func() error {
		sums[name] = sum
		return nil
	})
	return sums, wrap(err, "sum the factors")
}

// amountChange is one factor's exact sum before and after a restatement.
type amountChange struct {
	Before string `json:"before"`
	After  string `json:"after"`
	Change string `json:"change"`
}

// amountChanges returns what changed since the window's sums were before, per factor.
func amountChanges(ctx context.Context, tx pgx.Tx, windowID int64, before map[string]string) (map[string]amountChange, error) {
	after, err := factorSums(ctx, tx, windowID)
	if err != nil {
		return nil, err
	}
	changes := map[string]amountChange{}
	for _, sums := range []map[string]string{before, after} {
		for name := range sums {
			if before[name] != after[name] {
				changes[name] = changeOf(before[name], after[name])
			}
		}
	}
	return changes, nil
}

func logRestatement(ctx context.Context, tx pgx.Tx, r pipeline.Replacement, p pipeline.Publication, old pipeline.WindowState, outcome pipeline.Outcome, changes map[string]amountChange) error {
	amounts, err := json.Marshal(changes)
	if err != nil {
		return wrap(err, "encode the restatement")
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO sdr_sync.restatement (window_id, generation, run_id, job_row, inserted, deleted, records_before, records_after, digest_before,
			digest_after, to_date_before, to_date_after, amounts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		old.ID, outcome.Generation, r.RunID, p.Job.Row, outcome.Inserted, outcome.Deleted, old.Records.Count, p.Records.Count,
		old.Records.Sum(), p.Records.Sum(), dateArg(old.To), dateArg(p.Job.Window.To), string(amounts))
	return wrap(err, "log the restatement")
}

func changeOf(before, after string) amountChange {
	b, _ := new(big.Rat).SetString(cmp.Or(before, "0"))
	a, _ := new(big.Rat).SetString(cmp.Or(after, "0"))
	if a == nil || b == nil { // a damaged sum may be NaN
		return amountChange{Before: before, After: after}
	}
	return amountChange{Before: before, After: after, Change: a.Sub(a, b).FloatString(12)}
}

func usageMonths(dates map[pipeline.Date]int64) []time.Time {
	months := map[pipeline.Date]bool{}
	for d := range dates {
		months[d.Month()] = true
	}
	out := make([]time.Time, 0, len(months))
	for _, m := range slices.Sorted(maps.Keys(months)) {
		out = append(out, monthArg(m))
	}
	return out
}
