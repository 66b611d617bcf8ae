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
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Difference is one thing that verify found, and what repairs it.
type Difference struct {
	Where  string `json:"where"`
	What   string `json:"what"`
	Repair string `json:"repair"`

	mendable bool // a replay mends it
}

// findings are the differences at one place.
type findings struct {
	where  string
	replay string // what mends what a replay can mend
	all    []Difference
}

// report notes what a replay mends.
func (f *findings) report(format string, args ...any) {
	f.all = append(f.all, Difference{Where: f.where, What: fmt.Sprintf(format, args...), Repair: f.replay, mendable: true})
}

// reportLost notes what no pull holds any more.
func (f *findings) reportLost(format string, args ...any) {
	f.all = append(f.all, Difference{Where: f.where, What: fmt.Sprintf(format, args...), Repair: "restore from a backup"})
}

// Check compares the ledger with the stream's table for the windows (all of the stream if ids is nil): every digest, count and key is
// recomputed from the columns, and the daily sums from the facts. It reports how many records it read; of a history, how many stand.
func (db *DB) Check(ctx context.Context, stream string, ids []int64) (found []Difference, records int64, err error) {
	t, err := db.table(stream)
	if err != nil {
		return nil, 0, err
	}
	err = db.inTx(ctx, snapshot, func(tx pgx.Tx) error {
		windows, err := windowsToCheck(ctx, tx, stream, ids)
		if err != nil {
			return err
		}
		for _, w := range windows {
			more, n, err := db.checkWindow(ctx, tx, t, w)
			if err != nil {
				return fmt.Errorf("check %s: %w", t.describe(w.Window), err)
			}
			found, records = append(found, more...), records+n
		}
		if ids != nil {
			return nil
		}
		if t.metered() {
			more, err := checkSites(ctx, tx, stream, windows)
			if err != nil {
				return err
			}
			found = append(found, more...)
		}
		orphans, err := checkOrphans(ctx, tx, t, windows)
		found = append(found, orphans...)
		return err
	})
	return found, records, err
}

func windowsToCheck(ctx context.Context, tx pgx.Tx, stream string, ids []int64) ([]pipeline.WindowState, error) {
	rows, err := tx.Query(ctx, `
		SELECT `+windowColumns+` FROM sdr_sync.window w
		WHERE stream = $1 AND retired_at IS NULL AND ($2::bigint[] IS NULL OR window_id = ANY ($2)) ORDER BY site, region, from_date`, stream, ids)
	if err != nil {
		return nil, wrap(err, "list windows")
	}
	windows, err := pgx.CollectRows(rows, scanWindow)
	return windows, wrap(err, "list windows")
}

func (db *DB) checkWindow(ctx context.Context, tx pgx.Tx, t *table, w pipeline.WindowState) ([]Difference, int64, error) {
	// Asking the vendor again would not do: content equal to the ledger's is not written.
	f := &findings{where: t.describe(w.Window)}
	otherUnit := pipeline.Day
	if w.Unit == pipeline.Day {
		otherUnit = pipeline.Month
	}
	var records int64
	var err error
	switch {
	case t.metered():
		f.replay = fmt.Sprintf("sdr-sync replay --window %d, or if its landing file is gone: sdr-sync backfill --scope %s --from %s --to %s --reslice=%s",
			w.ID, w.Scope, w.From, w.To-1, otherUnit)
		records, err = db.checkMetered(ctx, tx, t, w, f)
	case t.whole():
		f.replay = fmt.Sprintf("sdr-sync replay --window %d; if its landing file is gone, the next pull that differs mends it", w.ID)
		records, err = db.checkWhole(ctx, tx, t, w, f)
	default:
		f.replay = fmt.Sprintf("sdr-sync replay --window %d, or if its landing file is gone: sdr-sync backfill --stream %s --from %s --to %s --reslice=%s",
			w.ID, t.stream.Name, w.From, w.To-1, otherUnit)
		records, err = db.checkEvents(ctx, tx, t, w, f)
	}
	if err == nil {
		err = checkQuarantine(ctx, tx, w, f)
	}
	return f.all, records, err
}

// compareContent reports what differs between the records that stand in the window and the ledger, and keys that do not follow from
// their columns.
func (f *findings) compareContent(t *table, w pipeline.WindowState, content record.Digest, badKeys int64) {
	if w.HashVersion != record.HashVersion { // hashes of other bytes: only counts compare
		if content.Count != w.Records.Count {
			f.report("%s holds %d records, the ledger says %d", t.stream.Table, content.Count, w.Records.Count)
		}
		return
	}
	if content != w.Records {
		f.report("%s holds %s, the ledger says %s", t.stream.Table, content, w.Records)
	}
	if badKeys > 0 {
		f.report("%d records have a record_key or natural_key that does not follow from their columns", badKeys)
	}
}

// checkMetered checks a window of metering records.
func (db *DB) checkMetered(ctx context.Context, tx pgx.Tx, t *table, w pipeline.WindowState, f *findings) (int64, error) {
	var content record.Digest
	var badKeys, missing, wrongSite, wrongDate int64
	amount, begin := t.stream.Index("accumulate_factor_value"), t.stream.Index(t.stream.TimeField)
	hasher := record.NewHasher(t.stream)
	var archived bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM sdr_sync.window, unnest(usage_months) m JOIN sdr_sync.archived_month a ON a.usage_month = m WHERE window_id = $1)`, w.ID).Scan(&archived)
	if err != nil {
		return 0, wrap(err, "read the usage months")
	}
	if archived { // a part of its rows is in Parquet only; the lake's own check covers that
		return 0, nil
	}
	for row, err := range t.stored.rows(ctx, tx, "SELECT "+t.stored.columns+" FROM "+t.name+" WHERE window_id = $1", w.ID) {
		if err != nil {
			return 0, err
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
	f.compareContent(t, w, content, badKeys)
	if missing != w.MissingAmounts {
		f.report("%d records have no amount, the ledger says %d", missing, w.MissingAmounts)
	}
	if wrongSite > 0 {
		f.report("%d records stand under another site", wrongSite)
	}
	if wrongDate > 0 {
		f.report("%d records have a usage_date that is not the date of their begin_time in %s", wrongDate, db.cfg.SourceZone)
	}
	return content.Count, checkRollup(ctx, tx, w, f)
}

// checkEvents checks a window of events.
func (db *DB) checkEvents(ctx context.Context, tx pgx.Tx, t *table, w pipeline.WindowState, f *findings) (int64, error) {
	var content record.Digest
	var badKeys, wrongDate, outside int64
	fields, date, key := len(t.stream.Derived), t.position("event_date"), t.position("record_key")
	when := t.position(t.stream.TimeField)
	hasher := record.NewHasher(t.stream)
	for row, err := range t.stored.rows(ctx, tx, "SELECT "+t.stored.columns+" FROM "+t.name+" WHERE window_id = $1", w.ID) {
		if err != nil {
			return 0, err
		}
		h := hasher.Content(row.Values[fields:])
		content.Add(h)
		if record.KeyOf(row.Values[when].Int, h) != record.Hash(row.Values[key].Bytes) {
			badKeys++
		}
		d := record.DateOf(time.UnixMicro(row.Values[when].Int), db.cfg.SourceZone)
		if pipeline.Date(row.Values[date].Int) != d {
			wrongDate++
		}
		if d < w.From || d >= w.To {
			outside++
		}
	}
	f.compareContent(t, w, content, badKeys)
	if wrongDate > 0 {
		f.report("%d records have an event_date that is not the date of their %s in %s", wrongDate, t.stream.TimeField, db.cfg.SourceZone)
	}
	if outside > 0 {
		f.report("%d records have a time outside the window", outside)
	}
	return content.Count, nil
}

// position returns the place of a column among the values of stored rows of a list.
func (t *table) position(column string) int { return slices.Index(t.stored.names, column) }

// checkWhole checks a list that is read whole: all rows of a snapshot, all versions of a history.
func (db *DB) checkWhole(ctx context.Context, tx pgx.Tx, t *table, w pipeline.WindowState, f *findings) (int64, error) {
	var content record.Digest
	var badKeys, badPast, badTimes, overlaps int64
	fields, natural, key := len(t.stream.Derived), t.position("natural_key"), t.position("record_key")
	latest, err := latestPull(ctx, tx, t.stream.Name, db.cfg.Now())
	if err != nil {
		return 0, err
	}
	hasher := record.NewHasher(t.stream)
	var last version
	for row, err := range t.stored.rows(ctx, tx, "SELECT "+t.stored.columns+" FROM "+t.name+" ORDER BY "+t.order) {
		if err != nil {
			return 0, err
		}
		h := hasher.Content(row.Values[fields:])
		v := t.versionOf(row)
		v.key = record.Hash(row.Values[natural].Bytes)
		if v.standing() {
			content.Add(h)
		}
		if h != record.Hash(row.Values[key].Bytes) || hasher.Natural("", row.Values[fields:]) != v.key {
			if v.standing() {
				badKeys++
			} else {
				badPast++
			}
		}
		if !v.plausible(latest) {
			badTimes++
		}
		if v.overlaps(last) {
			overlaps++
		}
		last = v
	}
	f.compareContent(t, w, content, badKeys)
	if badPast > 0 && w.HashVersion == record.HashVersion {
		f.reportLost("%d earlier versions have a record_key or natural_key that does not follow from their columns", badPast)
	}
	if badTimes > 0 {
		f.reportLost("%d rows have times or reasons that can't be", badTimes)
	}
	if overlaps > 0 {
		f.reportLost("%d versions overlap the one before them", overlaps)
	}
	return content.Count, nil
}

// latestPull returns a time that no row can be newer than: pulls of a clock that was set back since are in the ledger. Clocks differ, too.
func latestPull(ctx context.Context, tx pgx.Tx, stream string, now time.Time) (latest time.Time, err error) {
	err = tx.QueryRow(ctx, "SELECT greatest($2::timestamptz, max(created_at)) + interval '24 hours' FROM sdr_sync.job WHERE stream = $1", stream, now).Scan(&latest)
	return latest, wrap(err, "read when %s was last pulled", stream)
}

// version is what the derived columns of a list that is read whole say of a row. Rows of snapshots stand from when they were first seen.
type version struct {
	key           record.Hash // natural
	snapshot      bool
	from          int64 // microseconds since 1970
	to, absent    record.Value
	opened, ended string // reasons
}

func (t *table) versionOf(row *record.Row) version {
	if t.stream.Shape == schemas.Snapshot {
		return version{snapshot: true, from: row.Values[t.position("first_seen")].Int}
	}
	return version{
		from: row.Values[t.position("valid_from")].Int, to: row.Values[t.position("valid_to")], absent: row.Values[t.position("absent_since")],
		opened: string(row.Values[t.position("opened_reason")].Bytes), ended: string(row.Values[t.position("closed_reason")].Bytes),
	}
}

// standing tells whether the newest complete pull had the version.
func (v version) standing() bool { return !v.to.Valid && !v.absent.Valid }

// plausible tells whether times and reasons go together. Before 2010 there was no cloud to list.
func (v version) plausible(latest time.Time) bool {
	if from := time.UnixMicro(v.from); from.Before(time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)) || from.After(latest) {
		return false
	}
	switch {
	case v.snapshot:
		return true
	case !slices.Contains([]string{"appeared", "changed", "reappeared"}, v.opened):
		return false
	case v.to.Valid:
		return v.to.Int > v.from && !v.absent.Valid && (v.ended == "changed" || v.ended == "disappeared")
	}
	return v.ended == "" && (!v.absent.Valid || v.absent.Int > v.from)
}

// overlaps tells whether v began before last, the version before it, ended.
func (v version) overlaps(last version) bool {
	return !v.snapshot && v.key == last.key && (!last.to.Valid || last.to.Int > v.from)
}

// checkRollup compares the window's daily sums with its facts, both ways.
func checkRollup(ctx context.Context, tx pgx.Tx, w pipeline.WindowState, f *findings) error {
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
		f.report("%d rows of the daily sums differ from the facts", different)
	}
	return nil
}

func checkQuarantine(ctx context.Context, tx pgx.Tx, w pipeline.WindowState, f *findings) error {
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
		f.report("the quarantine holds %s, the ledger says %s", quarantined, w.Quarantined)
	}
	if wrong > 0 {
		f.report("%d quarantined records do not match their hash", wrong)
	}
	return nil
}

// checkSites compares what a site's windows hold with what its Parquet files hold: the same records, cut another way. A site with a
// partition that waits for its export is left out.
func checkSites(ctx context.Context, tx pgx.Tx, stream string, windows []pipeline.WindowState) ([]Difference, error) {
	rows, err := tx.Query(ctx, "SELECT "+partitionColumns+" FROM sdr_sync.partition WHERE stream = $1 ORDER BY site, from_date", stream)
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

// checkOrphans looks for rows whose window is not in the ledger, or retired. The quarantine, which all streams share, is looked at with
// the metering records.
func checkOrphans(ctx context.Context, tx pgx.Tx, t *table, windows []pipeline.WindowState) ([]Difference, error) {
	if t.whole() {
		return checkUnknownList(ctx, tx, t, windows)
	}
	places := "SELECT '" + t.stream.Table + "' AS place, window_id, count(*) AS n FROM " + t.name + " GROUP BY window_id"
	if t.metered() {
		places += `
			UNION ALL SELECT 'sdr_sync.usage_rollup', window_id, count(*) FROM sdr_sync.usage_rollup GROUP BY window_id
			UNION ALL SELECT 'sdr_sync.quarantine', window_id, count(*) FROM sdr_sync.quarantine GROUP BY window_id`
	}
	rows, err := tx.Query(ctx, `
		SELECT place, window_id, n FROM (`+places+`) found
		WHERE NOT EXISTS (
			SELECT FROM sdr_sync.window w
			WHERE w.window_id = found.window_id AND w.retired_at IS NULL AND (w.stream = $1 OR place = 'sdr_sync.quarantine')) ORDER BY 1, 2`, t.stream.Name)
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

// checkUnknownList looks for rows of a list that was never published.
func checkUnknownList(ctx context.Context, tx pgx.Tx, t *table, windows []pipeline.WindowState) ([]Difference, error) {
	if len(windows) > 0 {
		return nil, nil
	}
	var n int64
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+t.name).Scan(&n); err != nil || n == 0 {
		return nil, wrap(err, "look for orphans")
	}
	return []Difference{{
		Where: t.stream.Table, What: fmt.Sprintf("%d rows of a list that the ledger does not know", n),
		Repair: "restore from a backup, or as sdr_sync_owner: DELETE FROM " + t.stream.Table,
	}}, nil
}

func uuidText(h record.Hash) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
