package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// Run is one execution of the program.
type Run struct {
	ID       int64
	Command  string
	Version  string
	Host     string
	PID      int
	Started  time.Time
	Finished time.Time
	ExitCode int
	Outcome  string
}

// StartRun stores a run and returns its id.
func (db *DB) StartRun(ctx context.Context, r Run) (int64, error) {
	var id int64
	err := db.pool.QueryRow(ctx, `
		INSERT INTO sdr_sync.run (command, program_version, host, pid, started_at) VALUES ($1, $2, $3, $4, $5) RETURNING run_id`,
		r.Command, r.Version, r.Host, r.PID, r.Started).Scan(&id)
	return id, wrap(err, "store the run")
}

// FinishRun stores how a run ended.
func (db *DB) FinishRun(ctx context.Context, id int64, exitCode int, outcome string) error {
	_, err := db.pool.Exec(ctx, "UPDATE sdr_sync.run SET finished_at = $2, exit_code = $3, outcome = $4 WHERE run_id = $1",
		id, db.cfg.Now(), exitCode, outcome)
	return wrap(err, "store the end of the run")
}

const windowColumns = `
	window_id, stream, site, region, unit, from_date, to_date, generation, records, missing_amounts, digest, hash_version,
	quarantined, quarantine_digest, coalesce(job_row, 0), coalesce(job_created_at, '-infinity'::timestamptz),
	coalesce(published_at, '-infinity'::timestamptz), coalesce(checked_at, '-infinity'::timestamptz),
	(SELECT count(*) FROM sdr_sync.restatement r WHERE r.window_id = w.window_id)`

func scanWindow(row pgx.CollectableRow) (w pipeline.WindowState, err error) {
	var stream, digest, quarantineDigest string
	var records, quarantined int64
	var from, to time.Time
	var created, published, checked optionalTime
	err = row.Scan(&w.ID, &stream, &w.Scope.Site, &w.Scope.Region, &w.Unit, &from, &to, &w.Generation, &records, &w.MissingAmounts,
		&digest, &w.HashVersion, &quarantined, &quarantineDigest, &w.JobRow, &created, &published, &checked, &w.RestatementCount)
	if err != nil {
		return w, err
	}
	w.From, w.To = dateOf(from), dateOf(to)
	w.JobCreatedAt, w.PublishedAt, w.CheckedAt = created.Time, published.Time, checked.Time
	if w.Records, err = record.ParseDigest(digest, records); err != nil {
		return w, err
	}
	w.Quarantined, err = record.ParseDigest(quarantineDigest, quarantined)
	return w, err
}

// Windows lists the scope's windows that are not retired, by From.
func (db *DB) Windows(ctx context.Context, stream string, scope pipeline.Scope) ([]pipeline.WindowState, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT `+windowColumns+` FROM sdr_sync.window w
		WHERE stream = $1 AND site = $2 AND region = $3 AND retired_at IS NULL ORDER BY from_date`, stream, scope.Site, scope.Region)
	if err != nil {
		return nil, wrap(err, "list windows of %s", scope)
	}
	windows, err := pgx.CollectRows(rows, scanWindow)
	return windows, wrap(err, "list windows of %s", scope)
}

// Scopes lists the scopes that have windows, or jobs that will become some.
func (db *DB) Scopes(ctx context.Context, stream string) ([]pipeline.Scope, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT site, region FROM sdr_sync.window WHERE stream = $1 AND retired_at IS NULL
		UNION SELECT site, region FROM sdr_sync.job WHERE stream = $1 AND state IN ('open', 'landed') ORDER BY 1, 2`, stream)
	if err != nil {
		return nil, wrap(err, "list scopes")
	}
	scopes, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s pipeline.Scope, err error) {
		err = row.Scan(&s.Site, &s.Region)
		return s, err
	})
	return scopes, wrap(err, "list scopes")
}

// jobColumns of sdr_sync.job AS j.
const jobColumns = `
	j.job_row, j.run_id, j.stream, j.site, j.region, j.unit, j.from_date, j.to_date, j.job_id, j.request, j.created_at, j.state, j.progress,
	j.pages, j.records, j.quarantined, j.landed_bytes, coalesce(j.ready_at, '-infinity'::timestamptz),
	coalesce(j.landed_at, '-infinity'::timestamptz), coalesce(j.note, '')`

func scanJob(row pgx.CollectableRow) (j pipeline.Job, err error) {
	var request []byte
	var from, to time.Time
	var ready, landed optionalTime
	err = row.Scan(&j.Row, &j.RunID, &j.Stream, &j.Window.Scope.Site, &j.Window.Scope.Region, &j.Window.Unit, &from, &to, &j.ID, &request,
		&j.CreatedAt, &j.State, &j.Progress, &j.Pages, &j.Records, &j.Quarantined, &j.LandedBytes, &ready, &landed, &j.Note)
	if err != nil {
		return j, err
	}
	j.CreatedAt = j.CreatedAt.UTC()
	j.Window.From, j.Window.To, j.ReadyAt, j.LandedAt = dateOf(from), dateOf(to), ready.Time, landed.Time
	return j, json.Unmarshal(request, &j.Request)
}

// LiveJobs lists the scope's jobs in state open or landed, newest first.
func (db *DB) LiveJobs(ctx context.Context, stream string, scope pipeline.Scope) ([]pipeline.Job, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT `+jobColumns+` FROM sdr_sync.job j
		WHERE stream = $1 AND site = $2 AND region = $3 AND state IN ('open', 'landed') ORDER BY job_row DESC`, stream, scope.Site, scope.Region)
	if err != nil {
		return nil, wrap(err, "list jobs of %s", scope)
	}
	jobs, err := pgx.CollectRows(rows, scanJob)
	return jobs, wrap(err, "list jobs of %s", scope)
}

// Job reads one job.
func (db *DB) Job(ctx context.Context, jobRow int64) (pipeline.Job, error) {
	rows, err := db.pool.Query(ctx, "SELECT "+jobColumns+" FROM sdr_sync.job j WHERE job_row = $1", jobRow)
	if err != nil {
		return pipeline.Job{}, wrap(err, "read job %d", jobRow)
	}
	job, err := pgx.CollectExactlyOneRow(rows, scanJob)
	return job, wrap(err, "read job %d", jobRow)
}

// SaveJob stores a new job and returns it with its row number.
func (db *DB) SaveJob(ctx context.Context, j pipeline.Job) (pipeline.Job, error) {
	request, err := json.Marshal(j.Request)
	if err != nil {
		return j, wrap(err, "encode the request of job %s", j.ID)
	}
	err = db.pool.QueryRow(ctx, `
		INSERT INTO sdr_sync.job (run_id, stream, site, region, unit, from_date, to_date, job_id, request, created_at, state)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING job_row`,
		j.RunID, j.Stream, j.Window.Scope.Site, j.Window.Scope.Region, j.Window.Unit, dateArg(j.Window.From), dateArg(j.Window.To),
		j.ID, string(request), j.CreatedAt, j.State).Scan(&j.Row)
	return j, wrap(err, "store job %s", j.ID)
}

// UpdateJob stores state, progress, counts, times and note of a live job. One that has come to its end stays there: a run that lost
// its lease must not bring it back to life.
func (db *DB) UpdateJob(ctx context.Context, j pipeline.Job) error {
	args, err := updateJobArgs(j, db.cfg.Now(), jobResult{})
	if err == nil {
		_, err = db.execTx(ctx, updateJob+" AND state IN ('open', 'landed')", args...)
	}
	return wrap(err, "store the state of job %d", j.Row)
}

const updateJob = `
	UPDATE sdr_sync.job SET state = $2, progress = $3, pages = $4, records = $5, quarantined = $6, landed_bytes = $7,
		ready_at = $8, landed_at = $9, note = nullif($10, ''), window_id = $12, generation = $13, changes = coalesce($14::jsonb, changes),
		finished_at = CASE WHEN $2 IN ('open', 'landed') THEN NULL ELSE $11::timestamptz END
	WHERE job_row = $1`

// jobResult is what a job came to; nil where there is none.
type jobResult struct {
	windowID   *int64
	generation *int
	changes    *pipeline.Changes // of a list that is read whole; nil keeps what is noted
}

func updateJobArgs(j pipeline.Job, now time.Time, r jobResult) ([]any, error) {
	var changes *string
	if r.changes != nil {
		text, err := json.Marshal(r.changes)
		if err != nil {
			return nil, wrap(err, "encode the changes")
		}
		changes = new(string(text))
	}
	return []any{
		j.Row, j.State, j.Progress, j.Pages, j.Records, j.Quarantined, j.LandedBytes, timeArg(j.ReadyAt), timeArg(j.LandedAt), j.Note, now,
		r.windowID, r.generation, changes,
	}, nil
}

// Pace is what the ledger's history says about a scope's jobs. Zero values mean that there is no history.
type Pace struct {
	PagesPerDay    float64       // pages per file date
	SecondsPerPage float64       // of draining
	JobWait        time.Duration // from create to success
}

// Pace averages the scope's last 20 landed jobs.
func (db *DB) Pace(ctx context.Context, stream string, scope pipeline.Scope) (Pace, error) {
	var p Pace
	var wait float64
	err := db.pool.QueryRow(ctx, `
		SELECT coalesce(sum(pages) / nullif(sum(to_date - from_date), 0), 0)::float8,
			coalesce(sum(extract(epoch FROM landed_at - ready_at)) / nullif(sum(pages), 0), 0)::float8,
			coalesce(avg(extract(epoch FROM ready_at - created_at)), 0)::float8
		FROM (SELECT * FROM sdr_sync.job WHERE stream = $1 AND site = $2 AND region = $3 AND landed_at IS NOT NULL AND ready_at IS NOT NULL
			ORDER BY job_row DESC LIMIT 20) last`, stream, scope.Site, scope.Region).Scan(&p.PagesPerDay, &p.SecondsPerPage, &wait)
	p.JobWait = time.Duration(wait * float64(time.Second))
	return p, wrap(err, "read the history of %s", scope)
}

func dateOf(t time.Time) pipeline.Date   { return record.DateOf(t, time.UTC) }
func dateArg(d pipeline.Date) time.Time  { return d.Time(time.UTC) }
func monthArg(d pipeline.Date) time.Time { return d.Month().Time(time.UTC) }

// timeArg turns the zero time into NULL.
func timeArg(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// PublishedJob is a job with the generation that it became.
type PublishedJob struct {
	Job        pipeline.Job
	WindowID   int64
	Generation int
}

// PublishedJob returns the job if the window's current generation is what it became. Its landing file is kept as evidence; a run killed
// right after COMMIT may not have come to that.
func (db *DB) PublishedJob(ctx context.Context, jobRow int64) (p PublishedJob, found bool, err error) {
	rows, err := db.pool.Query(ctx, `
		SELECT w.window_id, w.generation, `+jobColumns+`
		FROM sdr_sync.window w JOIN sdr_sync.job j USING (job_row) WHERE w.job_row = $1 AND w.retired_at IS NULL`, jobRow)
	if err != nil {
		return p, false, wrap(err, "read published job %d", jobRow)
	}
	p, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (p PublishedJob, err error) {
		p.Job, err = scanJob(prefixed{row, []any{&p.WindowID, &p.Generation}})
		return p, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return p, false, nil
	}
	return p, err == nil, wrap(err, "read published job %d", jobRow)
}

// prefixed scans further columns in front of those that a scan function knows.
type prefixed struct {
	pgx.CollectableRow
	first []any
}

func (p prefixed) Scan(dest ...any) error { return p.CollectableRow.Scan(append(p.first, dest...)...) }

// AbandonJobs ends the scope's live jobs created before the given time: they are too old to be adopted, and their windows may never be
// asked for again.
func (db *DB) AbandonJobs(ctx context.Context, stream string, scope pipeline.Scope, before time.Time) error {
	_, err := db.execTx(ctx, `
		UPDATE sdr_sync.job SET state = 'abandoned', note = 'too old to be adopted', finished_at = $5
		WHERE stream = $1 AND site = $2 AND region = $3 AND state IN ('open', 'landed') AND created_at < $4`,
		stream, scope.Site, scope.Region, before, db.cfg.Now())
	return wrap(err, "abandon old jobs of %s", scope)
}

// WantedLanding returns the jobs whose landing files are still needed, row to the vendor's id: live jobs, and the newest job of a window
// if it was refused, as evidence.
func (db *DB) WantedLanding(ctx context.Context) (map[int64]string, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT job_row, job_id FROM sdr_sync.job j WHERE state IN ('open', 'landed') OR state = 'refused' AND NOT EXISTS (
			SELECT FROM sdr_sync.job n
			WHERE n.stream = j.stream AND n.site = j.site AND n.region = j.region AND n.from_date = j.from_date AND n.job_row > j.job_row)`)
	if err != nil {
		return nil, wrap(err, "list jobs with landing files")
	}
	wanted := map[int64]string{}
	var row int64
	var id string
	_, err = pgx.ForEachRow(rows, []any{&row, &id}, func() error {
		wanted[row] = id
		return nil
	})
	return wanted, wrap(err, "list jobs with landing files")
}
