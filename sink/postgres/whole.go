package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// replaceList brings the table of a list that is read whole up to the publication. Rows that are equal on both sides are not touched;
// one that no longer holds what its record_key stands for is mended in place.
func (db *DB) replaceList(ctx context.Context, tx pgx.Tx, t *table, r pipeline.Replacement, p pipeline.Publication, old pipeline.WindowState, outcome *pipeline.Outcome, touched touchedDates) error {
	definition := "ON COMMIT DROP AS SELECT " + t.loaded.columns + " FROM " + t.name + " WITH NO DATA"
	if err := t.loadIncoming(ctx, tx, definition, old.ID, p); err != nil {
		return err
	}
	taken, err := t.taken(ctx, tx, p.Job.CreatedAt)
	if err != nil {
		return err
	}
	var rows int64
	if t.stream.Shape == schemas.History {
		rows, err = t.mergeHistory(ctx, tx, r, p, taken, outcome)
	} else {
		rows, err = t.mergeSnapshot(ctx, tx, p, taken, outcome)
	}
	if err != nil {
		return err
	}
	if rows > 0 || old.Generation == 0 { // an empty list has a file too
		touched.add(p.Job.Window.Scope.Site, 0)
	}
	return dropIncoming(ctx, tx)
}

// fields returns the stream's fields for SQL, comma separated, each behind the prefix.
func (t *table) fields(prefix string) string {
	return strings.Join(prefixedColumns(prefix, names(t.stream.Fields)), ", ")
}

// taken returns the time of the pull that began at created: a clock that was set back must not make a row end before it begins.
func (t *table) taken(ctx context.Context, tx pgx.Tx, created time.Time) (taken time.Time, err error) {
	latest := "first_seen"
	if t.stream.Shape == schemas.History {
		latest = "greatest(valid_from, valid_to, absent_since)"
	}
	err = tx.QueryRow(ctx, "SELECT greatest($1::timestamptz, (SELECT max("+latest+") + interval '1 microsecond' FROM "+t.name+"))", created).Scan(&taken)
	return taken, wrap(err, "read the times of %s", t.stream.Table)
}

// change runs one step of a merge and adds the number of rows that it changed to each of counts.
func change(ctx context.Context, tx pgx.Tx, what string, counts []*int64, statement string, args ...any) error {
	tag, err := tx.Exec(ctx, statement, args...)
	if err != nil {
		return wrap(err, "%s", what)
	}
	for _, count := range counts {
		*count += tag.RowsAffected()
	}
	return nil
}

// mergeSnapshot makes the table hold the publication and nothing else, keeps when each row was first seen, and returns how many rows
// it touched.
func (t *table) mergeSnapshot(ctx context.Context, tx pgx.Tx, p pipeline.Publication, taken time.Time, outcome *pipeline.Outcome) (rows int64, err error) {
	const same = "i.natural_key = s.natural_key AND i.ordinal = s.ordinal"
	update := `
		UPDATE ` + t.name + ` s SET (record_key, ` + t.fields("") + `) = ROW(i.record_key, ` + t.fields("i.") + `)
		FROM pg_temp.incoming i WHERE ` + same
	c := &outcome.Changes
	err = change(ctx, tx, "delete vanished rows", []*int64{&rows, &c.Disappeared, &outcome.Deleted}, `
		DELETE FROM `+t.name+` s WHERE NOT EXISTS (SELECT FROM pg_temp.incoming i WHERE `+same+`)`)
	if err != nil {
		return 0, err
	}
	failpoint.Hit(failpoint.SnapshotDeleted)
	err = change(ctx, tx, "replace changed rows", []*int64{&rows, &c.Changed, &outcome.Deleted, &outcome.Inserted},
		update+" AND i.record_key <> s.record_key")
	if err != nil {
		return 0, err
	}
	err = change(ctx, tx, "mend damaged rows", []*int64{&rows},
		update+" AND i.record_key = s.record_key AND "+t.distinct())
	if err != nil {
		return 0, err
	}
	err = change(ctx, tx, "insert new rows", []*int64{&rows, &c.Appeared, &outcome.Inserted}, `
		INSERT INTO `+t.name+` (`+t.loaded.columns+`, first_seen)
		SELECT `+t.loaded.columns+`, $1 FROM pg_temp.incoming i WHERE NOT EXISTS (SELECT FROM `+t.name+` s WHERE `+same+`)`, taken)
	if err != nil {
		return 0, err
	}
	failpoint.Hit(failpoint.SnapshotInserted)
	return rows, t.prove(ctx, tx, "true", p)
}

// distinct is SQL for fields that differ between s and the incoming i.
func (t *table) distinct() string {
	return "ROW(" + t.fields("s.") + ") IS DISTINCT FROM ROW(" + t.fields("i.") + ")"
}

// prove fails unless as many rows stand as were landed.
func (t *table) prove(ctx context.Context, tx pgx.Tx, standing string, p pipeline.Publication) error {
	var got int64
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+t.name+" WHERE "+standing).Scan(&got); err != nil {
		return wrap(err, "count the rows of %s", t.stream.Table)
	}
	if got != p.Records.Count {
		return fmt.Errorf("%w: %s would hold %d rows and %d were landed; `sdr-sync verify` may say more", pipeline.ErrDefect, t.stream.Table, got, p.Records.Count)
	}
	return nil
}

// standing is SQL for the rows of a history that the newest complete pull had.
const standing = "valid_to IS NULL AND absent_since IS NULL"

// noneLeaving tells whether no open row is on its way out: a row that the newest complete pull lacked is closed by an equal one, unless
// the quarantine, which is equal too, holds it.
func noneLeaving(ctx context.Context, tx pgx.Tx, t *table, p pipeline.Publication) (none bool, err error) {
	const absent = "SELECT FROM %s s WHERE valid_to IS NULL AND absent_since IS NOT NULL"
	if none, err = noRows(ctx, tx, fmt.Sprintf(absent, t.name)); none || err != nil {
		return none, err
	}
	keyless, err := loadRejectedKeys(ctx, tx, p)
	if err != nil {
		return false, err
	}
	if none, err = noRows(ctx, tx, fmt.Sprintf(absent+" AND NOT EXISTS ("+quarantined+")", t.name)); err != nil {
		return false, err
	}
	return none || keyless, dropRejectedKeys(ctx, tx)
}

func noRows(ctx context.Context, tx pgx.Tx, query string) (none bool, err error) {
	err = tx.QueryRow(ctx, "SELECT NOT EXISTS ("+query+")").Scan(&none)
	return none, wrap(err, "look for absent rows")
}

// quarantined is SQL for the quarantined keys that are the row s's.
const quarantined = "SELECT FROM pg_temp.quarantined q WHERE q.natural_key = s.natural_key"

// mergeHistory closes and opens versions, so that the open ones that are not absent are the publication, and returns how many rows it
// touched. A row that is missing is only marked: lists shift while they are read, so it takes a second complete pull to close it.
func (t *table) mergeHistory(ctx context.Context, tx pgx.Tx, r pipeline.Replacement, p pipeline.Publication, taken time.Time, outcome *pipeline.Outcome) (rows int64, err error) {
	const incoming = "SELECT FROM pg_temp.incoming i WHERE i.natural_key = s.natural_key"
	keyless, err := loadRejectedKeys(ctx, tx, p)
	if err != nil {
		return 0, err
	}
	if err := t.refuseVanish(ctx, tx, r, p, incoming); err != nil {
		return 0, err
	}
	c := &outcome.Changes
	// A replay is no second pull. And a record without a key in the quarantine may be any of the rows.
	if !r.Replay && !keyless {
		err = change(ctx, tx, "close rows that stayed away", []*int64{&rows, &c.Disappeared, &outcome.Deleted}, `
			UPDATE `+t.name+` s SET valid_to = absent_since, closed_reason = 'disappeared', absent_since = NULL
			WHERE valid_to IS NULL AND absent_since IS NOT NULL AND NOT EXISTS (`+incoming+`) AND NOT EXISTS (`+quarantined+`)`)
		if err != nil {
			return 0, err
		}
	}
	failpoint.Hit(failpoint.HistoryClosed)
	// The vendor has what is in the quarantine, so the row goes on; but what it says now is not known.
	err = change(ctx, tx, "keep rows in the quarantine", []*int64{&rows}, `
		UPDATE `+t.name+` s SET absent_since = $1
		WHERE valid_to IS NULL AND absent_since IS NULL AND NOT EXISTS (`+incoming+`) AND EXISTS (`+quarantined+`)`, taken)
	if err != nil {
		return 0, err
	}
	err = change(ctx, tx, "mark absent rows", []*int64{&rows, &c.Absent}, `
		UPDATE `+t.name+` s SET absent_since = $1 WHERE valid_to IS NULL AND absent_since IS NULL AND NOT EXISTS (`+incoming+`)`, taken)
	if err != nil {
		return 0, err
	}
	failpoint.Hit(failpoint.HistoryMarked)
	err = change(ctx, tx, "welcome rows that are back", []*int64{&rows}, `
		UPDATE `+t.name+` s SET absent_since = NULL
		WHERE valid_to IS NULL AND absent_since IS NOT NULL AND EXISTS (`+incoming+` AND i.record_key = s.record_key)`)
	if err != nil {
		return 0, err
	}
	err = change(ctx, tx, "close changed rows", []*int64{&rows, &c.Changed, &outcome.Deleted}, `
		UPDATE `+t.name+` s SET valid_to = $1, closed_reason = 'changed', absent_since = NULL
		WHERE valid_to IS NULL AND EXISTS (`+incoming+` AND i.record_key <> s.record_key)`, taken)
	if err != nil {
		return 0, err
	}
	err = change(ctx, tx, "mend damaged rows", []*int64{&rows}, `
		UPDATE `+t.name+` s SET (`+t.fields("")+`) = ROW(`+t.fields("i.")+`) FROM pg_temp.incoming i
		WHERE i.natural_key = s.natural_key AND valid_to IS NULL AND i.record_key = s.record_key AND `+t.distinct())
	if err != nil {
		return 0, err
	}
	// What has no open version now was just closed as changed, or was closed as disappeared long ago, or is new.
	var opened int64
	err = tx.QueryRow(ctx, `
		WITH come AS (
			INSERT INTO `+t.name+` (`+t.loaded.columns+`, valid_from, opened_reason)
			SELECT `+t.loaded.columns+`, $1, CASE
				WHEN EXISTS (SELECT FROM `+t.name+` s WHERE s.natural_key = i.natural_key AND s.valid_to = $1 AND s.closed_reason = 'changed') THEN 'changed'
				WHEN EXISTS (SELECT FROM `+t.name+` s WHERE s.natural_key = i.natural_key) THEN 'reappeared'
				ELSE 'appeared' END
			FROM pg_temp.incoming i
			WHERE NOT EXISTS (SELECT FROM `+t.name+` s WHERE s.natural_key = i.natural_key AND s.valid_to IS NULL)
			RETURNING opened_reason)
		SELECT count(*), count(*) FILTER (WHERE opened_reason = 'appeared'), count(*) FILTER (WHERE opened_reason = 'reappeared') FROM come`,
		taken).Scan(&opened, &c.Appeared, &c.Reappeared)
	if err != nil {
		return 0, wrap(err, "open versions")
	}
	failpoint.Hit(failpoint.HistoryOpened)
	rows, outcome.Inserted = rows+opened, outcome.Inserted+opened
	if err := dropRejectedKeys(ctx, tx); err != nil {
		return 0, err
	}
	return rows, t.prove(ctx, tx, standing, p)
}

// loadRejectedKeys fills a temporary table with the keys of the publication's quarantined records, and tells whether one has none.
func loadRejectedKeys(ctx context.Context, tx pgx.Tx, p pipeline.Publication) (keyless bool, err error) {
	if _, err := tx.Exec(ctx, "CREATE TEMPORARY TABLE quarantined (natural_key uuid NOT NULL) ON COMMIT DROP"); err != nil {
		return false, wrap(err, "create the table of quarantined keys")
	}
	withKey := func(yield func(pipeline.Rejected, error) bool) {
		for rejected, err := range p.Rejects {
			if err == nil && !rejected.HasKey {
				keyless = true
				continue
			}
			if !yield(rejected, err) {
				return
			}
		}
	}
	_, err = copyIn(ctx, tx, "COPY pg_temp.quarantined FROM STDIN (FORMAT binary)", withKey, func(dst []byte, rejected pipeline.Rejected) ([]byte, error) {
		return appendField(append(dst, 0, 1), rejected.NaturalKey[:]), nil
	})
	return keyless, wrap(err, "load quarantined keys")
}

// dropRejectedKeys makes room: the transaction may need the name again.
func dropRejectedKeys(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "DROP TABLE pg_temp.quarantined")
	return wrap(err, "drop the table of quarantined keys")
}

// A history refuses that more rows vanish at once than vanishFloor and than one in vanishShare of its open ones.
const (
	vanishFloor = 20
	vanishShare = 10
)

// refuseVanish fails with *pipeline.VanishError if implausibly many rows are missing for the first time.
func (t *table) refuseVanish(ctx context.Context, tx pgx.Tx, r pipeline.Replacement, p pipeline.Publication, incoming string) error {
	if r.AcceptShrink || r.Replay {
		return nil
	}
	var had, gone int64
	err := tx.QueryRow(ctx, `
		SELECT count(*), count(*) FILTER (WHERE absent_since IS NULL AND NOT EXISTS (`+incoming+`) AND NOT EXISTS (`+quarantined+`)) FROM `+t.name+` s WHERE valid_to IS NULL`).Scan(&had, &gone)
	if err != nil {
		return wrap(err, "look for vanished rows")
	}
	many := gone > vanishFloor && gone*vanishShare > had
	if many || gone > 0 && p.Records.Count == 0 {
		return &pipeline.VanishError{Stream: t.stream.Name, Gone: gone, Had: had}
	}
	return nil
}
