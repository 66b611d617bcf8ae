package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// judge compares what was read of a stream with the ledger.
func (a *audit) judge(ctx context.Context, conn *pgx.Conn, s *streamAudit) error {
	var found []Difference
	for _, w := range sortedWindows(s.windows) {
		f := &findings{where: w.where(), repair: a.replayOf(w)}
		if err := a.judgeWindow(ctx, conn, s, w, f); err != nil {
			return fmt.Errorf("verify %s: %w", w.where(), err)
		}
		if len(f.all) > 0 {
			s.distrust(w)
		}
		found = append(found, f.all...)
	}
	arithmetic, err := a.judgeLedger(ctx, conn, s)
	if err != nil {
		return fmt.Errorf("verify the ledger of %s: %w", s.layout.stream.Name, err)
	}
	found = append(found, arithmetic...)
	if s.whole() {
		orphans := a.orphans(s)
		found = append(found, orphans...)
		if len(orphans) == 0 {
			found = append(found, a.judgePartitions(s)...)
		}
	}
	s.found = found
	return nil
}

// distrust notes that a window differs from the ledger.
func (s *streamAudit) distrust(w *window) {
	s.damaged[w.site], s.suspect[w.id] = true, true
}

// findings are the differences at one place, which mostly one command repairs.
type findings struct {
	where  string
	repair string
	all    []Difference
}

func (f *findings) differ(format string, args ...any) { f.differRepair(f.repair, format, args...) }

func (f *findings) differRepair(repair, format string, args ...any) {
	f.all = append(f.all, Difference{Where: f.where, What: fmt.Sprintf(format, args...), Repair: repair})
}

// fromBackup repairs what no pull holds any more.
const fromBackup = "restore from a backup"

// replayOf is what mends the rows of a window.
func (a *audit) replayOf(w *window) string {
	for _, m := range w.months {
		if w.stream == "sdr" && a.ledger.archived[m] {
			return fmt.Sprintf("first, as sdr_sync_owner: SELECT sdr_sync.restore_month('%s'); then %s", m, w.replay())
		}
	}
	return w.replay()
}

func (a *audit) judgeWindow(ctx context.Context, conn *pgx.Conn, s *streamAudit, w *window, f *findings) error {
	if a.complete(s, w) {
		t := s.tally.windows[w.id]
		if t == nil {
			t = &windowTally{id: w.id, window: w}
		}
		judgeContent(s, w, t, f)
		if t.ordinals > 0 {
			if err := judgeOrdinals(ctx, conn, s, w, f); err != nil {
				return err
			}
		}
		if s.layout.metered() {
			if err := a.judgeSums(ctx, conn, w, t, f); err != nil {
				return err
			}
		}
		if s.layout.stream.Shape == schemas.History {
			if err := judgePast(ctx, conn, s, w, f); err != nil {
				return err
			}
		}
	}
	return a.judgeQuarantine(ctx, conn, w, f)
}

// complete tells whether all rows of the window were read. Those of archived months stand in files, which may be damaged or not be audited.
func (a *audit) complete(s *streamAudit, w *window) bool {
	if !a.inArchive(w) {
		return true
	}
	if !s.whole() || a.lake == nil {
		return false
	}
	for _, m := range w.months {
		if !a.ledger.archived[m] {
			continue
		}
		found := false
		for _, file := range s.files {
			if file.state.archived && file.state.site == w.site && file.state.from.month() == m {
				found = true
				if len(file.found) > 0 {
					return false
				}
			}
		}
		if !found {
			return false
		}
	}
	return true
}

func judgeContent(s *streamAudit, w *window, t *windowTally, f *findings) {
	table := s.layout.stream.Table
	switch {
	case w.hashVersion != hashVersion: // hashes of other bytes: only counts compare
		if t.content.count != w.records.count {
			f.differ("%s holds %d records, the ledger says %d", table, t.content.count, w.records.count)
		}
	case !w.records.equals(t.content):
		f.differ("%s holds %s, the ledger says %s", table, t.content, w.records)
	}
	if t.badKeys > 0 && w.hashVersion == hashVersion {
		f.differ("%d records have a record_key or natural_key that does not follow from their columns", t.badKeys)
	}
	if s.layout.metered() && t.missing != w.missing {
		f.differ("%d records have no amount, the ledger says %d", t.missing, w.missing)
	}
	if t.wrongSite > 0 {
		f.differ("%d records stand under another site", t.wrongSite)
	}
	if t.wrongDate > 0 {
		f.differ("%d records have a %s that is not the date of their %s in %s", t.wrongDate, s.layout.derived[s.layout.date].Name,
			s.layout.stream.TimeField, s.tally.source.zone)
	}
	if t.outside > 0 {
		f.differ("%d records have a time outside the window", t.outside)
	}
	if s.layout.timed() && len(f.all) == 0 {
		if months := slices.Sorted(maps.Keys(t.months)); !slices.Equal(months, w.months) {
			f.differRepair(w.reslice(), "its records stand in the months %s, the ledger says %s", monthTexts(months), monthTexts(w.months))
		}
	}
	if t.badPast > 0 && w.hashVersion == hashVersion {
		f.differRepair(fromBackup, "%d earlier versions have a record_key or natural_key that does not follow from their columns", t.badPast)
	}
	if t.badTimes > 0 {
		f.differRepair(fromBackup, "%d rows have times or reasons that can't be", t.badTimes)
	}
}

func monthTexts(months []day) string {
	var texts []string
	for _, m := range months {
		texts = append(texts, m.String()[:len("2024-03")])
	}
	return "[" + strings.Join(texts, " ") + "]"
}

// judgeOrdinals looks for twins that are not numbered one after the other.
func judgeOrdinals(ctx context.Context, conn *pgx.Conn, s *streamAudit, w *window, f *findings) error {
	l := s.layout
	same := "p.natural_key = r.natural_key"
	of := "true"
	if l.timed() {
		date := pgx.Identifier{l.derived[l.date].Name}.Sanitize()
		same = "p.window_id = r.window_id AND p.record_key = r.record_key AND p." + date + " = r." + date
		of = fmt.Sprintf("r.window_id = %d", w.id)
	}
	var n int64
	err := conn.QueryRow(ctx, "SELECT count(*) FROM "+l.table+" r WHERE "+of+" AND r.ordinal <> 0 AND NOT EXISTS (SELECT FROM "+l.table+
		" p WHERE "+same+" AND p.ordinal = r.ordinal - 1)").Scan(&n)
	if err != nil {
		return fmt.Errorf("look at the twins: %w", err)
	}
	if n > 0 {
		f.differ("%d records have an ordinal without the twin before them", n)
	}
	return nil
}

// judgePast looks at the earlier versions of a history.
func judgePast(ctx context.Context, conn *pgx.Conn, s *streamAudit, w *window, f *findings) error {
	v := s.tally.versions
	if v.overlaps > 0 {
		f.differRepair(fromBackup, "%d versions overlap the one before them", v.overlaps)
	}
	if v.broken > 0 {
		f.differRepair(fromBackup, "%d versions do not follow from the one before them", v.broken)
	}
	if len(f.all) > 0 {
		return nil
	}
	// As of each pull there must stand at least the rows that it had. Rows that were absent for one pull alone stand as of it, too. Where
	// a replay has rewritten a pull, or the clock was set back, the pulls say nothing.
	rows, _ := conn.Query(ctx, `
		SELECT (extract(epoch FROM created_at) * 1000000)::bigint, records FROM sdr_sync.job
		WHERE stream = $1 AND state = 'published' AND window_id = $2 ORDER BY job_row`, w.stream, w.id)
	type pull struct{ at, records int64 }
	pulls, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (p pull, err error) {
		err = r.Scan(&p.at, &p.records)
		return p, err
	})
	if err != nil {
		return fmt.Errorf("read the pulls: %w", err)
	}
	if len(pulls) != w.generation {
		return nil
	}
	for i, p := range pulls {
		if i > 0 && p.at <= pulls[i-1].at {
			return nil
		}
	}
	for _, p := range pulls {
		if stood := v.asOf(p.at); stood < p.records {
			f.differRepair(fromBackup, "as of %s %d rows stood, that pull had %d", instantText(p.at), stood, p.records)
			return nil
		}
	}
	return nil
}

// judgeSums compares the window's daily sums with its facts, both ways.
func (a *audit) judgeSums(ctx context.Context, conn *pgx.Conn, w *window, t *windowTally, f *findings) error {
	sums := a.sums[w.id]
	if sums == nil {
		sums = &sumTally{}
	}
	if sums.sketch == t.facts && sums.odd == 0 {
		return nil
	}
	if a.inArchive(w) {
		f.differ("the daily sums differ from the facts")
		return nil
	}
	columns := "usage_date, site, " + strings.Join(rollupNames[:], ", ")
	facts := fmt.Sprintf(`
		SELECT %s, count(*) AS records, count(*) - count(accumulate_factor_value) AS missing, coalesce(sum(accumulate_factor_value), 0) AS amount
		FROM billing.sdr WHERE window_id = %d GROUP BY %[1]s`, columns, w.id)
	held := fmt.Sprintf("SELECT %s, records, missing_amounts, accumulate_factor_value FROM sdr_sync.usage_rollup WHERE window_id = %d", columns, w.id)
	var n int64
	var example string
	err := conn.QueryRow(ctx, `
		WITH facts AS (`+facts+`), sums AS (`+held+`), different AS ((TABLE facts EXCEPT ALL TABLE sums) UNION ALL (TABLE sums EXCEPT ALL TABLE facts))
		SELECT count(*), coalesce(min(usage_date::text || ' ' || coalesce(accumulate_factor_name, 'no factor')), '') FROM different`).Scan(&n, &example)
	if err != nil {
		return fmt.Errorf("compare the daily sums: %w", err)
	}
	f.differ("%d rows of the daily sums differ from the facts (the first: %s)", n, example)
	return nil
}

func (a *audit) judgeQuarantine(ctx context.Context, conn *pgx.Conn, w *window, f *findings) error {
	q := a.quarantine[w.id]
	if q == nil {
		q = &quarantineTally{}
	}
	if !w.quarantined.equals(q.content) {
		f.differ("the quarantine holds %s, the ledger says %s", q.content, w.quarantined)
	}
	if q.wrong > 0 {
		f.differ("%d quarantined records do not match their hash", q.wrong)
	}
	if q.ordinals == 0 {
		return nil
	}
	var n int64
	err := conn.QueryRow(ctx, `
		SELECT count(*) FROM sdr_sync.quarantine r WHERE window_id = $1 AND ordinal <> 0 AND NOT EXISTS (
			SELECT FROM sdr_sync.quarantine p WHERE p.window_id = r.window_id AND p.raw_hash = r.raw_hash AND p.ordinal = r.ordinal - 1)`, w.id).Scan(&n)
	if err != nil {
		return fmt.Errorf("look at the twins in the quarantine: %w", err)
	}
	if n > 0 {
		f.differ("%d quarantined records have an ordinal without the twin before them", n)
	}
	return nil
}

// orphans looks for rows whose window is not in the ledger, or retired. The quarantine, which all streams share, is looked at with the metering
// records.
func (a *audit) orphans(s *streamAudit) []Difference {
	var found []Difference
	l := s.layout
	report := func(place string, id, rows int64) {
		found = append(found, Difference{
			Where: place, What: fmt.Sprintf("%d rows of window_id %d, which the ledger does not know or has retired", rows, id),
			Repair: fmt.Sprintf("restore from a backup, or as sdr_sync_owner: DELETE FROM %s WHERE window_id = %d", place, id),
		})
	}
	for _, id := range slices.Sorted(maps.Keys(s.tally.windows)) {
		t := s.tally.windows[id]
		switch {
		case t.window != nil:
		case l.timed():
			report(l.stream.Table, id, t.content.count)
		default:
			found = append(found, Difference{
				Where: l.stream.Table, What: fmt.Sprintf("%d rows of a list that the ledger does not know", s.tally.partitions[partitionKey{site: tenant}].content.count),
				Repair: "restore from a backup, or as sdr_sync_owner: DELETE FROM " + l.stream.Table,
			})
		}
	}
	if !l.metered() {
		return found
	}
	for _, id := range slices.Sorted(maps.Keys(a.sums)) {
		if s.windows[id] == nil {
			report("sdr_sync.usage_rollup", id, a.sums[id].rows)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(a.quarantine)) {
		if !slices.ContainsFunc(a.ledger.windows, func(w *window) bool { return w.id == id }) {
			report("sdr_sync.quarantine", id, a.quarantine[id].content.count)
		}
	}
	return found
}

// judgePartitions compares the rows of the table, cut as the files are, with what the ledger says of the files. A site whose windows are damaged is left
// out: a replay is what mends it, and exporting it would write the damage down.
func (a *audit) judgePartitions(s *streamAudit) []Difference {
	var found []Difference
	l := s.layout
	known := map[partitionKey]bool{}
	for _, p := range a.ledger.partitions {
		if p.stream != l.stream.Name {
			continue
		}
		key := partitionKey{p.site, p.from}
		known[key] = true
		if p.waits() || p.archived || s.damaged[p.site] {
			continue
		}
		t := s.tally.partitions[key]
		if t == nil {
			t = newPartitionTally(l, key, p.unit)
		}
		if p.rows != t.content.count || p.digest != t.content.sum() {
			found = append(found, Difference{
				Where: "partition " + p.label(), What: fmt.Sprintf("%s holds %s of it, its file %d records %s", l.stream.Table, t.content, p.rows, p.digest),
				Repair: repairFile(l, p.site),
			})
		}
	}
	for key, t := range s.tally.partitions {
		damaged := s.damaged[key.site]
		for id := range t.windows {
			damaged = damaged || s.suspect[id]
		}
		if known[key] || damaged || t.content.count == 0 {
			continue
		}
		repair := "sdr-sync export --all"
		for _, w := range sortedWindows(s.windows) {
			if t.windows[w.id] || !l.timed() {
				repair = w.reslice()
				break
			}
		}
		p := &partition{stream: l.stream.Name, site: key.site, from: key.from, unit: a.cfg.PartitionUnit}
		found = append(found, Difference{
			Where: "partition " + p.label(), What: fmt.Sprintf("%s holds %s of it, and the ledger has no such partition: they are in no file", l.stream.Table, t.content),
			Repair: repair,
		})
	}
	slices.SortFunc(found, func(a, b Difference) int { return strings.Compare(a.Where, b.Where) })
	return found
}

// label is "hcso-213 2024-03", "audit_logs 2024-03", or "subscriptions".
func (p *partition) label() string {
	name := p.site
	if p.site == tenant {
		name = p.stream
	}
	switch p.unit {
	case unitWhole:
		return name
	case unitDay:
		return name + " " + p.from.String()
	}
	return name + " " + p.from.String()[:len("2024-03")]
}

// repairFile is the command that writes the files of a site anew. A list has no scope to name.
func repairFile(l *layout, site string) string {
	if !l.metered() {
		return "sdr-sync export --all"
	}
	return "sdr-sync export --all --scope " + site
}
