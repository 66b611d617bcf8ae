package verify

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// judgeLedger compares the tables of the ledger with one another: what was landed is published or quarantined, windows don't overlap, generations
// are what was published.
func (a *audit) judgeLedger(ctx context.Context, conn *pgx.Conn, s *streamAudit) ([]Difference, error) {
	var found []Difference
	for _, judge := range []func(context.Context, *pgx.Conn, *streamAudit) ([]Difference, error){
		a.judgeJobs, a.judgeRestatements, a.judgeTwoSums, a.judgeTiling, a.judgeStrayJobs,
	} {
		more, err := judge(ctx, conn, s)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// judgeJobs compares each window with the jobs that fed and confirmed it.
func (a *audit) judgeJobs(ctx context.Context, conn *pgx.Conn, s *streamAudit) ([]Difference, error) {
	rows, _ := conn.Query(ctx, `
		SELECT w.window_id, j.job_row IS NOT NULL, coalesce(j.state, ''), coalesce(j.window_id, 0), coalesce(j.generation, 0), coalesce(j.records, 0),
			coalesce(j.quarantined, 0), coalesce((j.stream, j.site, j.region, j.from_date) = (w.stream, w.site, w.region, w.from_date), false)
		FROM sdr_sync.window w LEFT JOIN sdr_sync.job j ON j.job_row = w.job_row WHERE w.window_id = ANY ($1)`, windowIDs(s.windows))
	var found []Difference
	var id, of, records, quarantined int64
	var there, same bool
	var state string
	var generation int
	_, err := pgx.ForEachRow(rows, []any{&id, &there, &state, &of, &generation, &records, &quarantined, &same}, func() error {
		w := s.windows[id]
		f := &findings{where: w.where(), repair: w.reslice()}
		switch {
		case !there:
			f.differ("job %d, which it says it came from, is not in the ledger", w.jobRow)
		case !same || state != "published" || of != id || generation != w.generation:
			f.differ("it is generation %d of job %d, and that job says: %s, window %d, generation %d", w.generation, w.jobRow, state, of, generation)
		case records != w.records.count || quarantined != w.quarantined.count:
			f.differ("job %d landed %d records, %d of them to be quarantined; the window holds %d and %d", w.jobRow, records+quarantined, quarantined,
				w.records.count+w.quarantined.count, w.quarantined.count)
		}
		if w.generation < 1 {
			f.differ("it stands in the ledger and was never published")
		}
		found = append(found, f.all...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the jobs: %w", err)
	}
	// A later job that confirmed the window saw as much as stands.
	rows, _ = conn.Query(ctx, `
		SELECT w.window_id, j.job_row, j.records, j.quarantined FROM sdr_sync.window w
		JOIN sdr_sync.job p ON p.job_row = w.job_row
		LEFT JOIN sdr_sync.restatement r ON r.window_id = w.window_id AND r.generation = w.generation
		JOIN sdr_sync.job j ON j.window_id = w.window_id AND j.state = 'unchanged' AND j.run_id > coalesce(r.run_id, p.run_id)
		WHERE w.window_id = ANY ($1) AND (w.generation = 1 OR r.run_id IS NOT NULL) AND (j.records, j.quarantined) <> (w.records, w.quarantined)
		ORDER BY j.job_row`, windowIDs(s.windows))
	var job int64
	_, err = pgx.ForEachRow(rows, []any{&id, &job, &records, &quarantined}, func() error {
		w := s.windows[id]
		found = append(found, Difference{
			Where: w.where(), Repair: w.reslice(),
			What: fmt.Sprintf("job %d confirmed it with %d records and %d quarantined, it holds %d and %d", job, records, quarantined, w.records.count, w.quarantined.count),
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the jobs: %w", err)
	}
	return found, nil
}

// judgeRestatements compares each window with the log of its restatements: one for every generation but the first, each beginning with what the one before
// ended with. Lists that are read whole have no log: their rows or billing.snapshot_log tell.
func (a *audit) judgeRestatements(ctx context.Context, conn *pgx.Conn, s *streamAudit) ([]Difference, error) {
	if !s.layout.timed() {
		return nil, nil
	}
	type entry struct {
		generation    int
		job           int64
		before, after stated
	}
	entries := map[int64][]entry{}
	rows, _ := conn.Query(ctx, `
		SELECT window_id, generation, job_row, records_before, digest_before, records_after, digest_after
		FROM sdr_sync.restatement WHERE window_id = ANY ($1) ORDER BY window_id, generation`, windowIDs(s.windows))
	var id int64
	var e entry
	_, err := pgx.ForEachRow(rows, []any{&id, &e.generation, &e.job, &e.before.count, &e.before.text, &e.after.count, &e.after.text}, func() error {
		entries[id] = append(entries[id], e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the restatements: %w", err)
	}
	var found []Difference
	for _, w := range sortedWindows(s.windows) {
		f := &findings{where: w.where(), repair: w.reslice()}
		log := entries[w.id]
		if len(log) != w.generation-1 || slices.ContainsFunc(log, func(e entry) bool { return e.generation != log[0].generation && e.generation < 2 }) {
			f.differ("it is generation %d, and %d restatements are logged", w.generation, len(log))
		}
		for i, e := range log {
			switch {
			case i < w.generation-1 && e.generation != i+2:
				f.differ("the log of restatements has generation %d where %d should stand", e.generation, i+2)
			case i > 0 && e.before != log[i-1].after:
				f.differ("restatement %d says it replaced %s, the one before ended with %s", e.generation, e.before, log[i-1].after)
			case e.generation == w.generation && (e.after != w.records || e.job != w.jobRow):
				f.differ("its last restatement came to %s from job %d, the ledger says %s from job %d", e.after, e.job, w.records, w.jobRow)
			default:
				continue
			}
			break // what follows differs for the same reason
		}
		found = append(found, f.all...)
	}
	return found, nil
}

// judgeTwoSums looks for groups that have two rows in a window's daily sums, which add up to the right sum.
func (a *audit) judgeTwoSums(ctx context.Context, conn *pgx.Conn, s *streamAudit) ([]Difference, error) {
	if !s.layout.metered() {
		return nil, nil
	}
	columns := "window_id, usage_date, site"
	for _, name := range rollupNames {
		columns += ", " + name
	}
	rows, _ := conn.Query(ctx, "SELECT window_id, count(*) FROM (SELECT window_id FROM sdr_sync.usage_rollup WHERE "+a.ofWindows(s)+" GROUP BY "+columns+
		" HAVING count(*) > 1) twice GROUP BY 1 ORDER BY 1")
	var found []Difference
	var id, n int64
	_, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error {
		w, t := s.windows[id], s.tally.windows[id]
		if w != nil && t != nil && a.complete(s, w) && a.sums[id].sketch == t.facts { // otherwise the sums themselves differ, which is said already
			s.distrust(w)
			found = append(found, Difference{Where: w.where(), What: fmt.Sprintf("%d groups have more than one row in the daily sums", n), Repair: a.replayOf(w)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for doubled daily sums: %w", err)
	}
	return found, nil
}

// judgeTiling looks for live windows that share a date, and for sites that have windows of all regions and of named ones: both hold records twice.
func (a *audit) judgeTiling(_ context.Context, _ *pgx.Conn, s *streamAudit) ([]Difference, error) {
	var found []Difference
	windows := sortedWindows(s.windows)
	for i, w := range windows {
		for _, o := range windows[i+1:] {
			if o.site != w.site || o.region != w.region || o.from >= w.to {
				break
			}
			found = append(found, Difference{
				Where: w.where(), What: fmt.Sprintf("window %d overlaps window %d, %s: what both have stands twice", w.id, o.id, o),
				Repair: fmt.Sprintf("restore from a backup, or put new windows in the place of both: %s", spanOf(w, o).reslice()),
			})
		}
	}
	whole, named := map[string]*window{}, map[string]*window{}
	for _, w := range windows {
		if w.region == "" {
			whole[w.site] = w
		} else {
			named[w.site] = w
		}
	}
	for _, w := range windows {
		if whole[w.site] == w && named[w.site] != nil && w.site != tenant {
			found = append(found, Difference{
				Where: "site " + w.site, What: fmt.Sprintf("it has windows of all regions (%d) and of a region by name (%d): records may stand twice", w.id, named[w.site].id),
				Repair: "restore from a backup",
			})
		}
	}
	return found, nil
}

// spanOf is a window over both.
func spanOf(w, o *window) *window {
	both := *w
	both.to = max(w.to, o.to)
	return &both
}

// judgeStrayJobs looks for jobs that name a window which is not there, or a generation that it never reached.
func (a *audit) judgeStrayJobs(ctx context.Context, conn *pgx.Conn, s *streamAudit) ([]Difference, error) {
	if !s.whole() {
		return nil, nil
	}
	rows, _ := conn.Query(ctx, `
		SELECT j.job_row, j.window_id, coalesce(j.generation, 0), w.window_id IS NOT NULL FROM sdr_sync.job j
		LEFT JOIN sdr_sync.window w USING (window_id)
		WHERE j.stream = $1 AND j.window_id IS NOT NULL AND (w.window_id IS NULL OR j.generation > w.generation) ORDER BY 1`, s.layout.stream.Name)
	var found []Difference
	var job, id int64
	var generation int
	var there bool
	_, err := pgx.ForEachRow(rows, []any{&job, &id, &generation, &there}, func() error {
		what := fmt.Sprintf("it says it published generation %d of window %d, which was never reached", generation, id)
		if !there {
			what = fmt.Sprintf("it names window %d, which the ledger does not have", id)
		}
		found = append(found, Difference{Where: fmt.Sprintf("job %d", job), What: what, Repair: "restore the tables of sdr_sync from a backup"})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for stray jobs: %w", err)
	}
	return found, nil
}
