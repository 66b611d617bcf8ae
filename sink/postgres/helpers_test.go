package postgres_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"go.uber.org/zap/zaptest"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
	"github.com/sdr-sync/sdr-sync/verify"
)

const stream = "sdr"

var (
	north = pipeline.Scope{Site: "hcso-213", Region: "cn-north-213"}
	east  = pipeline.Scope{Site: "hcso-213", Region: "cn-east-264"}
)

// testNow is what the clock of every test database says: whole microseconds, which is what Postgres keeps.
var testNow = time.Date(2024, 4, 3, 2, 1, 0, 123456000, time.UTC)

// database is one migrated database: the code under test, and beside it the superuser's view of the tables.
type database struct {
	*postgres.DB
	url   string
	admin *pgxpool.Pool
	run   int64
	zone  *time.Location    // of usage and event dates; UTC if nil
	lists []*schemas.Stream // whose tables are there besides the metering records'
}

// migrate serialises the migrations of this binary's databases, so that roles, which they share, are contended only where a test
// means it.
var migrate sync.Mutex

// ledgerVersion is the last migration of the ledger and the metering records; those behind it are of lists.
const ledgerVersion = 4

// newDatabase returns an empty database of the test's own, migrated but for the tables of lists.
func newDatabase(t *testing.T) *database {
	t.Helper()
	return migrated(t, ledgerVersion)
}

// migrated returns an empty database of the test's own, migrated to version.
func migrated(t *testing.T, version int64) *database {
	t.Helper()
	url := pgtest.Database(t)
	d := &database{DB: openURL(t, url), url: url, admin: adminPool(t, url)}
	migrate.Lock()
	_, err := d.Migrate(t.Context(), version)
	migrate.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	d.run, err = d.StartRun(t.Context(), postgres.Run{Command: "test", Version: "v0", Host: "h", PID: 1, Started: testNow})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// openURL opens a database with the tests' settings.
func openURL(t *testing.T, url string) *postgres.DB {
	t.Helper()
	return openConfig(t, postgres.Config{URL: pipeline.Secret(url)})
}

func openConfig(t *testing.T, cfg postgres.Config) *postgres.DB {
	t.Helper()
	cfg.Now = func() time.Time { return testNow }
	cfg.Log = zaptest.NewLogger(t)
	db, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func adminPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// asRole returns url with every session acting as the role from its first statement on, like a login of that role.
func asRole(t *testing.T, text, role string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("options", "-crole="+role)
	u.RawQuery = q.Encode()
	return u.String()
}

// exec runs statements as the superuser.
func (d *database) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	if _, err := d.admin.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// query returns the one value of a query as the superuser sees it.
func query[T any](t *testing.T, d *database, statement string, args ...any) T {
	t.Helper()
	rows, err := d.admin.Query(t.Context(), statement, args...)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return v
}

// list returns the one column of a query.
func list[T any](t *testing.T, d *database, statement string, args ...any) []T {
	t.Helper()
	rows, err := d.admin.Query(t.Context(), statement, args...)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	v, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return v
}

// date reads "2024-03-01", or a month.
func date(text string) pipeline.Date {
	d, err := record.ParseDate(text)
	if err != nil {
		panic(err)
	}
	return d
}

// window returns a window that ends before to: a day if it is one day long.
func window(s pipeline.Scope, from, to string) pipeline.Window {
	w := pipeline.Window{Scope: s, Unit: pipeline.Month, From: date(from), To: date(to)}
	if w.To == w.From+1 {
		w.Unit = pipeline.Day
	}
	return w
}

var march = window(north, "2024-03-01", "2024-04-01")

// sdr returns a vendor's record of a resource: begin as 14 digits, amount as JSON, and further fields as pairs of key and JSON value.
func sdr(begin, resource, amount string, more ...string) string {
	fields := map[string]json.RawMessage{}
	for _, pair := range [][2]string{
		{"record_type", `"20"`},
		{"region_code", `"cn-north-213"`},
		{"project_id", `"p-1"`},
		{"cloud_service_type_code", `"hws.service.type.ec2"`},
		{"resource_type_code", `"hws.resource.type.vm"`},
		{"resource_spec_code", `"s6.large"`},
		{"accumulate_factor_name", `"Duration"`},
		{"begin_time", quote(begin)},
		{"resource_id", quote(resource)},
		{"accumulate_factor_value", amount},
	} {
		fields[pair[0]] = json.RawMessage(pair[1])
	}
	for i := 0; i < len(more); i += 2 {
		fields[more[i]] = json.RawMessage(more[i+1])
	}
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// someRecords returns n records, one an hour from 2024-03-01 on.
func someRecords(n int) []string {
	var records []string
	for i := range n {
		begin := time.Date(2024, 3, 1, i, 0, 0, 0, time.UTC).Format("20060102150405")
		records = append(records, sdr(begin, fmt.Sprintf("vm-%04d", i), fmt.Sprintf("%d.5", i)))
	}
	return records
}

// publication surveys vendor records as the engine does, and offers them under the job.
func publication(t *testing.T, job pipeline.Job, records []string) pipeline.Publication {
	t.Helper()
	options := record.Options{Site: job.Window.Scope.Site, Region: job.Window.Scope.Region}
	p := pipeline.Publication{Job: job, UsageDates: map[pipeline.Date]int64{}}
	decoder, row := record.NewDecoder(schemas.SDR(), options), record.NewRow(schemas.SDR())
	for _, text := range records {
		if reject := decoder.Decode([]byte(text), row); reject != nil {
			p.Quarantined.Add(reject.RawHash)
			continue
		}
		p.Records.Add(row.Hash)
		p.UsageDates[row.UsageDate]++
	}
	p.MissingAmounts, p.UnknownFields = decoder.MissingAmounts(), decoder.Unknown()
	pass := func(visit func(*record.Row, *pipeline.Rejected) bool) {
		decoder, row := record.NewDecoder(schemas.SDR(), options), record.NewRow(schemas.SDR())
		seen := map[record.Hash]int32{}
		for i, text := range records {
			if reject := decoder.Decode([]byte(text), row); reject != nil {
				ordinal := seen[reject.RawHash]
				seen[reject.RawHash]++
				r := pipeline.Rejected{Reject: *reject, Page: i/200 + 1, Position: i%200 + 1, Ordinal: ordinal, Raw: []byte(text)}
				if !visit(nil, &r) {
					return
				}
				continue
			}
			row.Ordinal = seen[row.Hash]
			seen[row.Hash]++
			if !visit(row, nil) {
				return
			}
		}
	}
	p.Rows = func(yield func(*record.Row, error) bool) {
		pass(func(row *record.Row, _ *pipeline.Rejected) bool { return row == nil || yield(row, nil) })
	}
	p.Rejects = func(yield func(pipeline.Rejected, error) bool) {
		pass(func(_ *record.Row, r *pipeline.Rejected) bool { return r == nil || yield(*r, nil) })
	}
	return p
}

// before returns rows that call do before each of rows is yielded; an error of do ends them.
func before(rows iter.Seq2[*record.Row, error], do func(n int) error) iter.Seq2[*record.Row, error] {
	return func(yield func(*record.Row, error) bool) {
		n := 0
		for row, err := range rows {
			if err == nil {
				err = do(n)
			}
			if n++; !yield(row, err) || err != nil {
				return
			}
		}
	}
}

// landed stores a job for w whose pages are all landed.
func (d *database) landed(t *testing.T, w pipeline.Window) pipeline.Job {
	t.Helper()
	return d.landedOf(t, stream, w, testNow.Add(-time.Hour))
}

// landedOf is landed for any stream, with the time at which the job was created.
func (d *database) landedOf(t *testing.T, stream string, w pipeline.Window, created time.Time) pipeline.Job {
	t.Helper()
	job, err := d.SaveJob(t.Context(), pipeline.Job{
		RunID: d.run, Stream: stream, Window: w, ID: "job", Request: w.Request("d-1"), CreatedAt: created, State: pipeline.StateOpen,
	})
	if err != nil {
		t.Fatal(err)
	}
	job.State, job.Progress, job.ReadyAt, job.LandedAt = pipeline.StateLanded, 100, testNow.Add(-time.Minute), testNow
	if err := d.UpdateJob(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	return job
}

// prepare returns the publication of records as the window w, under a job of its own.
func (d *database) prepare(t *testing.T, w pipeline.Window, records []string) pipeline.Publication {
	t.Helper()
	return publication(t, d.landed(t, w), records)
}

// replacement publishes ps, which are all of one scope, under the settings of the program.
func (d *database) replacement(ps ...pipeline.Publication) pipeline.Replacement {
	return pipeline.Replacement{Stream: stream, RunID: d.run, Scope: ps[0].Job.Window.Scope, Publish: ps, MinRatio: 0.5}
}

// of returns the scope of the metering records.
func of(s pipeline.Scope) pipeline.StreamScope { return pipeline.StreamScope{Stream: stream, Scope: s} }

func ofAll(scopes []pipeline.Scope) []pipeline.StreamScope {
	var all []pipeline.StreamScope
	for _, s := range scopes {
		all = append(all, of(s))
	}
	return all
}

// replace carries r out through db under the scope's lease.
func replace(ctx context.Context, db *postgres.DB, r pipeline.Replacement) (outcomes []pipeline.Outcome, err error) {
	err = db.WithLeases(ctx, []pipeline.StreamScope{{Stream: r.Stream, Scope: r.Scope}}, func(ctx context.Context, tokens map[pipeline.StreamScope]int64) error {
		r.LeaseToken = tokens[pipeline.StreamScope{Stream: r.Stream, Scope: r.Scope}]
		outcomes, err = db.Publish(ctx, r)
		return err
	})
	return outcomes, err
}

// publish publishes records as w, which must go well and leave everything consistent.
func (d *database) publish(t *testing.T, w pipeline.Window, records []string) pipeline.Outcome {
	t.Helper()
	return d.mustReplace(t, d.replacement(d.prepare(t, w, records)))[0]
}

func (d *database) mustReplace(t *testing.T, r pipeline.Replacement) []pipeline.Outcome {
	t.Helper()
	outcomes, err := replace(t.Context(), d.DB, r)
	if err != nil {
		t.Fatal(err)
	}
	d.checkSums(t)
	d.checkClean(t)
	return outcomes
}

// checkSums compares the daily sums with the facts, both ways, in SQL of its own.
func (d *database) checkSums(t *testing.T) {
	t.Helper()
	const columns = `usage_date, site, region_code, domain_id, project_id, enterprise_project_id, cloud_service_type_code, resource_type_code,
		resource_spec_code, accumulate_factor_name, record_type`
	const facts = `SELECT ` + columns + `, count(*), count(*) FILTER (WHERE accumulate_factor_value IS NULL), coalesce(sum(accumulate_factor_value), 0)
		FROM billing.sdr GROUP BY ` + columns
	const sums = `SELECT ` + columns + `, records, missing_amounts, accumulate_factor_value FROM billing.usage_daily`
	for _, difference := range []string{facts + " EXCEPT ALL " + sums, sums + " EXCEPT ALL " + facts} {
		if n := query[int64](t, d, "SELECT count(*) FROM ("+difference+") d"); n != 0 {
			t.Errorf("%d rows of facts and daily sums differ: %s", n, difference)
		}
	}
}

// export marks every partition as exported, as it stands.
func (d *database) export(t *testing.T) {
	t.Helper()
	states, err := d.Store(stream).Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hasher := record.NewHasher(schemas.SDR())
	for _, s := range states {
		var content record.Digest
		err := d.Store(stream).ReadPartition(t.Context(), s.Partition, func(_ pipeline.PartitionState, _ []pipeline.PublishedWindow, rows iter.Seq2[*record.Row, error]) error {
			for row, err := range rows {
				if err != nil {
					return err
				}
				content.Add(hasher.Content(row.Values))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Store(stream).MarkExported(t.Context(), s.Partition, s.DirtySeq, pipeline.FileFacts{Rows: content.Count, Digest: content.Sum()}); err != nil {
			t.Fatal(err)
		}
	}
}

// checkClean wants an audit to find nothing in the tables.
func (d *database) checkClean(t *testing.T) {
	t.Helper()
	for _, f := range d.audit(t) {
		t.Errorf("verify found at %s: %s", f.Where, f.What)
	}
}

// audit has package verify look at every table, in the zone of usage dates that the test says.
func (d *database) audit(t *testing.T) []verify.Difference {
	t.Helper()
	r, err := verify.Run(t.Context(), verify.Config{
		URL: d.url, Streams: append([]*schemas.Stream{schemas.SDR()}, d.lists...), SourceZone: d.zone, Now: func() time.Time { return testNow },
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.Differences
}

// versions are the physical versions of all facts: a row that is written anew gets another one even if it is equal.
func (d *database) versions(t *testing.T) []string {
	t.Helper()
	return list[string](t, d, `SELECT concat_ws(' ', record_key, ordinal, tableoid::regclass, ctid, xmin) FROM billing.sdr ORDER BY 1`)
}

// facts are all facts as text, without the window that published them.
func (d *database) facts(t *testing.T) []string {
	t.Helper()
	return list[string](t, d, `SELECT (to_jsonb(s) - 'window_id')::text FROM billing.sdr s ORDER BY (to_jsonb(s) - 'window_id')::text COLLATE "C"`)
}

// content is all that a publication may change, physical versions included.
func (d *database) content(t *testing.T) []string {
	t.Helper()
	lists := ""
	for _, s := range d.lists {
		lists += " UNION ALL SELECT concat_ws(' ', '" + s.Name + "', tableoid::regclass, ctid, xmin, l) FROM " + s.Table + " l"
	}
	return list[string](t, d, `
		SELECT concat_ws(' ', 'sdr', ctid, xmin, s) FROM billing.sdr s`+lists+`
		UNION ALL SELECT concat_ws(' ', 'rollup', ctid, xmin, r) FROM sdr_sync.usage_rollup r
		UNION ALL SELECT concat_ws(' ', 'quarantine', ctid, xmin, q) FROM sdr_sync.quarantine q
		UNION ALL SELECT concat_ws(' ', 'window', ctid, w) FROM sdr_sync.window w
		UNION ALL SELECT concat_ws(' ', 'job', ctid, j) FROM sdr_sync.job j
		UNION ALL SELECT concat_ws(' ', 'partition', ctid, xmin, p) FROM sdr_sync.partition p
		UNION ALL SELECT concat_ws(' ', 'restatement', ctid, xmin, r) FROM sdr_sync.restatement r ORDER BY 1`)
}

// checkUntouched runs do, which must fail as want says, and wants nothing to be changed by it.
func (d *database) checkUntouched(t *testing.T, r pipeline.Replacement, want func(error) bool) error {
	t.Helper()
	had := d.content(t)
	outcomes, err := replace(t.Context(), d.DB, r)
	if err == nil {
		t.Fatalf("got %+v, want an error", outcomes)
	}
	if !want(err) {
		t.Errorf("got the wrong error: %v", err)
	}
	checkEqual(t, "content after a refused publication", d.content(t), had)
	return err
}

// windows are the windows of a scope.
func (d *database) windows(t *testing.T, s pipeline.Scope) []pipeline.WindowState {
	t.Helper()
	w, err := d.Windows(t.Context(), stream, s)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// dirty returns the dirty_seq of each partition of the site, by its first date.
func (d *database) dirty(t *testing.T) map[string]int64 {
	t.Helper()
	states, err := d.Store(stream).Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seqs := map[string]int64{}
	for _, s := range states {
		seqs[s.From.String()] = s.DirtySeq
	}
	return seqs
}

func checkEqual[T cmp.Ordered](t *testing.T, what string, got, want []T) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	var lines []string
	for i := range max(len(got), len(want)) {
		var g, w any = "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w && len(lines) < 5 {
			lines = append(lines, fmt.Sprintf("at %d got %v\n\twant %v", i, g, w))
		}
	}
	t.Errorf("%s: got %d, want %d, different\n\t%s", what, len(got), len(want), strings.Join(lines, "\n\t"))
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

func says(text string) func(error) bool {
	return func(err error) bool { return strings.Contains(err.Error(), text) }
}

// await polls the query until it gives true: an event inside the server that nothing announces.
func (d *database) await(t *testing.T, what, statement string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var done bool
		if err := d.admin.QueryRow(ctx, statement, args...).Scan(&done); err != nil {
			t.Errorf("wait until %s: %v", what, err)
			return
		}
		if done {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("waited in vain until %s", what)
			return
		case <-tick.C:
		}
	}
}
