package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	neturl "net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// LastRun returns the newest run.
func (db *DB) LastRun(ctx context.Context) (Run, bool, error) {
	var r Run
	var finished optionalTime
	err := db.pool.QueryRow(ctx, `
		SELECT run_id, command, program_version, host, pid, started_at, coalesce(finished_at, '-infinity'::timestamptz), coalesce(exit_code, 0),
			coalesce(outcome, '')
		FROM sdr_sync.run ORDER BY run_id DESC LIMIT 1`).Scan(&r.ID, &r.Command, &r.Version, &r.Host, &r.PID, &r.Started, &finished, &r.ExitCode, &r.Outcome)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, false, nil
	}
	r.Started, r.Finished = r.Started.UTC(), finished.Time
	return r, err == nil, wrap(err, "read the last run")
}

// QuarantineFilter chooses quarantined records. Zero fields choose all; Limit is 100 if zero.
type QuarantineFilter struct {
	Scopes   []pipeline.Scope // one without a region means every region of its site
	WindowID int64
	Reason   string
	Limit    int
}

// QuarantineEntry is one quarantined record.
type QuarantineEntry struct {
	Stream   string    `json:"stream"`
	WindowID int64     `json:"window_id"`
	RawHash  string    `json:"raw_hash"`
	Ordinal  int       `json:"ordinal"`
	JobRow   int64     `json:"job_row"`
	Page     int       `json:"page"`
	Position int       `json:"position"`
	Reason   string    `json:"reason"`
	Field    string    `json:"field"`
	Detail   string    `json:"detail"`
	Raw      string    `json:"raw"` // as sent; bytes that are no UTF-8 are escaped in JSON output
	At       time.Time `json:"quarantined_at"`
}

const quarantineColumns = "(SELECT stream FROM sdr_sync.window w WHERE w.window_id = quarantine.window_id), window_id, raw_hash::text, ordinal, job_row, page, position, reason, field, detail, raw, quarantined_at"

func scanQuarantine(row pgx.CollectableRow) (e QuarantineEntry, err error) {
	var raw []byte
	err = row.Scan(&e.Stream, &e.WindowID, &e.RawHash, &e.Ordinal, &e.JobRow, &e.Page, &e.Position, &e.Reason, &e.Field, &e.Detail, &raw, &e.At)
	e.Raw = string(raw)
	return e, err
}

// Quarantine lists quarantined records, and says how many the filter chooses in all.
func (db *DB) Quarantine(ctx context.Context, f QuarantineFilter) (entries []QuarantineEntry, total int64, err error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	const where = ` FROM sdr_sync.quarantine WHERE ($1::bigint = 0 OR window_id = $1) AND ($2::text = '' OR reason = $2) AND (cardinality($3::text[]) = 0 OR EXISTS (
		SELECT FROM sdr_sync.window w, unnest($3::text[], $4::text[]) AS s(site, region)
		WHERE w.window_id = quarantine.window_id AND w.site = s.site AND (s.region = '' OR w.region = s.region)))`
	sites, regions := make([]string, len(f.Scopes)), make([]string, len(f.Scopes))
	for i, s := range f.Scopes {
		sites[i], regions[i] = s.Site, s.Region
	}
	if err := db.pool.QueryRow(ctx, "SELECT count(*)"+where, f.WindowID, f.Reason, sites, regions).Scan(&total); err != nil {
		return nil, 0, wrap(err, "count the quarantine")
	}
	rows, err := db.pool.Query(ctx, "SELECT "+quarantineColumns+where+" ORDER BY window_id, page, position LIMIT $5", f.WindowID, f.Reason, sites, regions, f.Limit)
	if err != nil {
		return nil, 0, wrap(err, "list the quarantine")
	}
	entries, err = pgx.CollectRows(rows, scanQuarantine)
	return entries, total, wrap(err, "list the quarantine")
}

// Quarantined returns one quarantined record, nil if there is none of that hash in the window.
func (db *DB) Quarantined(ctx context.Context, windowID int64, rawHash string) (*QuarantineEntry, error) {
	rows, err := db.pool.Query(ctx, "SELECT "+quarantineColumns+" FROM sdr_sync.quarantine WHERE window_id = $1 AND raw_hash::text = $2 ORDER BY ordinal LIMIT 1", windowID, rawHash)
	if err != nil {
		return nil, wrap(err, "read the quarantine")
	}
	e, err := pgx.CollectExactlyOneRow(rows, scanQuarantine)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &e, wrap(err, "read the quarantine")
}

// ClientEnvironment returns the environment that makes psql and its kin connect to url.
func ClientEnvironment(url pipeline.Secret) ([]string, error) {
	cfg, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		return nil, fmt.Errorf("read postgres.url: %w", err)
	}
	env := []string{
		"PGHOST=" + cfg.Host, "PGPORT=" + strconv.Itoa(int(cfg.Port)), "PGDATABASE=" + cfg.Database, "PGUSER=" + cfg.User, "PGAPPNAME=sdr-sync psql",
	}
	if cfg.Password != "" {
		env = append(env, "PGPASSWORD="+cfg.Password)
	}
	return append(env, tlsEnvironment(url.Reveal())...), nil
}

// CheckPrivileges tells whether the login may do what publishing needs.
func (db *DB) CheckPrivileges(ctx context.Context) error {
	var user string
	var ok bool
	err := db.pool.QueryRow(ctx, `
		SELECT current_user, has_table_privilege('billing.sdr', 'INSERT') AND has_table_privilege('sdr_sync.window', 'UPDATE')
			AND has_function_privilege('sdr_sync.ensure_partition(text, date)', 'EXECUTE')
			AND has_database_privilege(current_database(), 'TEMPORARY')`).Scan(&user, &ok)
	if err == nil && !ok {
		err = fmt.Errorf("the login %s may not write; run as a superuser: GRANT sdr_sync_writer TO %s", user, pgx.Identifier{user}.Sanitize())
	}
	return wrap(err, "check privileges")
}

// Query runs a query in the role of a reader and returns its columns and rows as text.
func (db *DB) Query(ctx context.Context, query string, args ...any) (columns []string, rows [][]string, err error) {
	err = db.inTx(ctx, snapshot, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL ROLE sdr_sync_reader"); err != nil {
			return err
		}
		result, err := tx.Query(ctx, query, append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)...)
		if err != nil {
			return err
		}
		defer result.Close()
		for _, f := range result.FieldDescriptions() {
			columns = append(columns, f.Name)
		}
		for result.Next() {
			var row []string
			for _, v := range result.RawValues() {
				row = append(row, string(v))
			}
			rows = append(rows, row)
		}
		return result.Err()
	})
	return columns, rows, wrap(err, "query")
}

// FactorTotal is the exact sum of one factor over everything that is published.
type FactorTotal struct {
	Records int64
	Sum     string // plain decimal, trimmed
}

// Totals sums billing.sdr by factor.
func (db *DB) Totals(ctx context.Context) (map[string]FactorTotal, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT coalesce(accumulate_factor_name, ''), count(*), trim_scale(coalesce(sum(accumulate_factor_value), 0))::text FROM billing.sdr GROUP BY 1`)
	if err != nil {
		return nil, wrap(err, "sum the records")
	}
	totals := map[string]FactorTotal{}
	var name string
	var t FactorTotal
	_, err = pgx.ForEachRow(rows, []any{&name, &t.Records, &t.Sum}, func() error {
		totals[name] = t
		return nil
	})
	return totals, wrap(err, "sum the records")
}

// DropDatabase drops a database, connections to it included; url names another one of the same server.
func DropDatabase(ctx context.Context, url pipeline.Secret, name string) error {
	conn, err := pgx.Connect(ctx, url.Reveal())
	if err != nil {
		return wrap(err, "drop database %s", name)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	return wrap(err, "drop database %s", name)
}

// RecreateDatabase makes an empty database of the given name on url's server, dropping one that is there, and returns its URL.
func RecreateDatabase(ctx context.Context, url pipeline.Secret, name string) (pipeline.Secret, error) {
	if err := DropDatabase(ctx, url, name); err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, url.Reveal())
	if err != nil {
		return "", wrap(err, "create database %s", name)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", wrap(err, "create database %s", name)
	}
	return withDatabase(url, name)
}

// withDatabase returns url with another database; url has either form that libpq takes.
func withDatabase(url pipeline.Secret, name string) (pipeline.Secret, error) {
	text := url.Reveal()
	if !strings.Contains(text, "://") {
		return pipeline.Secret(text + " dbname=" + name), nil // the last one counts
	}
	u, err := neturl.Parse(text)
	if err != nil {
		return "", errors.New("read postgres.url: not a URL")
	}
	u.Path = "/" + name
	query := u.Query()
	query.Del("dbname")
	query.Del("database")
	u.RawQuery = query.Encode()
	return pipeline.Secret(u.String()), nil
}

// tlsEnvironment is what a connection URL or string says of TLS, as libpq's variables.
func tlsEnvironment(text string) (env []string) {
	settings := map[string]string{}
	if u, err := neturl.Parse(text); err == nil && strings.Contains(text, "://") {
		for name, values := range u.Query() {
			settings[name] = values[0]
		}
	} else {
		for _, word := range strings.Fields(text) {
			name, value, _ := strings.Cut(word, "=")
			settings[name] = strings.Trim(value, "'")
		}
	}
	for _, name := range []string{"sslmode", "sslrootcert", "sslcert", "sslkey"} {
		if value := settings[name]; value != "" {
			env = append(env, "PG"+strings.ToUpper(name)+"="+value)
		}
	}
	return env
}

// LastSync is what a stream's newest run did with it.
type LastSync struct {
	At      time.Time // when its last job ended
	State   string    // how they did: published, unchanged, or how one ended that is neither; see pipeline.Job
	Records int64     // that stand published
	Good    time.Time // At, if all of them and the run itself came to a good end; else zero
}

// LastSync returns for each stream how it was last pulled. Streams that never were are not in it.
func (db *DB) LastSync(ctx context.Context) (map[string]LastSync, error) {
	rows, err := db.pool.Query(ctx, `
		WITH newest AS (
			SELECT stream, max(run_id) AS run_id FROM sdr_sync.job GROUP BY stream),
		ended AS ( -- of each window the last job: those before it moved or failed, and were replaced
			SELECT DISTINCT ON (j.stream, j.site, j.region, j.from_date) j.stream, j.run_id, j.state, j.finished_at
			FROM sdr_sync.job j JOIN newest USING (stream, run_id) ORDER BY j.stream, j.site, j.region, j.from_date, j.job_row DESC)
		SELECT e.stream, coalesce(max(e.finished_at), '-infinity'::timestamptz),
			coalesce(min(e.state) FILTER (WHERE e.state NOT IN ('published', 'unchanged')), min(e.state)),
			coalesce((SELECT sum(w.records) FROM sdr_sync.window w WHERE w.stream = e.stream AND w.retired_at IS NULL), 0)::bigint,
			bool_and(e.state IN ('published', 'unchanged') AND coalesce(r.exit_code = 0, false))
		FROM ended e JOIN sdr_sync.run r USING (run_id) GROUP BY e.stream`)
	if err != nil {
		return nil, wrap(err, "read the last pulls")
	}
	all := map[string]LastSync{}
	var stream string
	var last LastSync
	var at optionalTime
	var good bool
	_, err = pgx.ForEachRow(rows, []any{&stream, &at, &last.State, &last.Records, &good}, func() error {
		last.At, last.Good = at.Time, time.Time{}
		if good {
			last.Good = last.At
		}
		all[stream] = last
		return nil
	})
	return all, wrap(err, "read the last pulls")
}

// HasRows tells whether rows of a list stand that were asked for by these values.
func (db *DB) HasRows(ctx context.Context, s *schemas.Stream, asked map[string]string) (found bool, err error) {
	query, args := "SELECT EXISTS (SELECT FROM "+pgx.Identifier(strings.Split(s.Table, ".")).Sanitize()+" WHERE true", []any{}
	for _, f := range s.Fields {
		if value, ok := asked[f.Name]; ok && f.Asked {
			args = append(args, value)
			query += fmt.Sprintf(" AND %s::text = $%d", pgx.Identifier{f.Name}.Sanitize(), len(args))
		}
	}
	err = db.pool.QueryRow(ctx, query+")", args...).Scan(&found)
	return found, wrap(err, "look for rows of %s", s.Table)
}

// Distinct returns the different values of the columns as text, NULL and the empty text left out, in the order of their bytes. A
// table or column that is not there is an error.
func (db *DB) Distinct(ctx context.Context, columns []schemas.Column) ([]string, error) {
	if len(columns) == 0 {
		return nil, nil
	}
	var parts []string
	var args []any
	for _, c := range columns {
		value := pgx.Identifier{c.Column}.Sanitize() + "::text"
		part := "SELECT " + value + " AS value FROM " + pgx.Identifier(strings.Split(c.Table, ".")).Sanitize() + " WHERE " + value + " <> ''"
		for _, name := range slices.Sorted(maps.Keys(c.Where)) {
			args = append(args, c.Where[name])
			part += fmt.Sprintf(" AND %s::text = ANY ($%d::text[])", pgx.Identifier{name}.Sanitize(), len(args))
		}
		parts = append(parts, part)
	}
	rows, err := db.pool.Query(ctx, `SELECT DISTINCT value COLLATE "C" FROM (`+strings.Join(parts, " UNION ALL ")+`) found ORDER BY 1`, args...)
	if err != nil {
		return nil, wrap(err, "read the values that a list is asked by")
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return values, wrap(err, "read the values that a list is asked by")
}
