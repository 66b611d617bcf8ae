package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
	"github.com/sdr-sync/sdr-sync/verify"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const domain = "d-1"

var (
	north = pipeline.Scope{Site: "hcso-213", Region: "cn-north-213"}
	east  = pipeline.Scope{Site: "hcso-213", Region: "cn-east-264"}
	other = pipeline.Scope{Site: "hcso-9", Region: "cn-north-213"}

	march = pipeline.Window{Scope: north, Unit: pipeline.Month, From: date("2024-03-01"), To: date("2024-03-05")} // what there is of the month so far
	april = pipeline.Window{Scope: north, Unit: pipeline.Month, From: date("2024-04-01"), To: date("2024-05-01")}
)

func date(text string) pipeline.Date {
	d, err := record.ParseDate(text)
	if err != nil {
		panic(err)
	}
	return d
}

// world is a database, a lake and landing files, filled by the program's own engine from a vendor that lives in memory.
type world struct {
	t      testing.TB
	url    string
	admin  *pgxpool.Pool
	db     *postgres.DB
	land   *landing.Dir
	dir    string
	run    int64
	now    time.Time
	vendor *vendor
	unit   pipeline.Unit
}

// template is a migrated database that those of tests are copied from.
var template struct {
	sync.Mutex
	made  bool
	count int
}

// newDatabase returns the URL of a migrated database of the test's own.
func newDatabase(t testing.TB) string {
	t.Helper()
	server := pgtest.Server(t)
	template.Lock()
	defer template.Unlock()
	if !template.made {
		administer(t, "CREATE DATABASE template_verify")
		db, err := postgres.Open(t.Context(), postgres.Config{URL: pipeline.Secret(server.URL("postgres", "template_verify"))})
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.Migrate(t.Context(), -1)
		db.Close() // a template must have no connections
		if err != nil {
			t.Fatal(err)
		}
		template.made = true
	}
	template.count++
	name := fmt.Sprintf("verify_%d", template.count)
	administer(t, "CREATE DATABASE "+name+" TEMPLATE template_verify")
	t.Cleanup(func() { administer(t, "DROP DATABASE "+name+" WITH (FORCE)") })
	return server.URL("postgres", name)
}

// administer runs a statement outside of any database of the tests.
func administer(t testing.TB, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a test's own is done when it is cleaned up
	defer cancel()
	conn, err := pgx.Connect(ctx, pgtest.Server(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, url: newDatabase(t), dir: t.TempDir(), now: time.Date(2024, 5, 3, 2, 0, 0, 0, time.UTC), unit: pipeline.Month}
	w.vendor = &vendor{records: map[string][]string{}, months: map[string][]string{}, jobs: map[string]pipeline.JobRequest{}}
	var err error
	if w.admin, err = pgxpool.New(t.Context(), w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.admin.Close)
	if w.db, err = postgres.Open(t.Context(), postgres.Config{URL: pipeline.Secret(w.url), Now: func() time.Time { return w.now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	if w.land, err = landing.Open(filepath.Join(w.dir, "landing"), 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.land.Close() })
	w.newRun()
	return w
}

// openByDay opens the database anew, with Parquet partitions by day.
func (w *world) openByDay() {
	w.t.Helper()
	db, err := postgres.Open(w.t.Context(), postgres.Config{URL: pipeline.Secret(w.url), Unit: pipeline.Day, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	w.db = db
}

// newRun begins another run.
func (w *world) newRun() {
	w.t.Helper()
	var err error
	w.run, err = w.db.StartRun(w.t.Context(), postgres.Run{Command: "test", Version: "v0", Host: "h", PID: 1, Started: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
}

// vendor answers for windows with what it holds for them, three records a page.
type vendor struct {
	stream  string
	records map[string][]string // by stream, site, region and first date
	months  map[string][]string // of those that are spread over their days
	jobs    map[string]pipeline.JobRequest
}

func (v *vendor) key(stream string, s pipeline.Scope, from string) string {
	return strings.Join([]string{stream, s.Site, s.Region, from[:len("2024-03-01")]}, " ")
}

func (v *vendor) CreateJob(_ context.Context, r pipeline.JobRequest) (string, error) {
	id := strconv.Itoa(len(v.jobs) + 1)
	v.jobs[id] = r
	return id, nil
}

func (v *vendor) Job(context.Context, string) (pipeline.JobStatus, error) {
	return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
}

func (v *vendor) Start(string) string { return "" }

func (v *vendor) Page(_ context.Context, id, marker string) (pipeline.Page, error) {
	r := v.jobs[id]
	data, next := v.page(v.records[v.key(v.stream, pipeline.Scope{Site: r.Site, Region: r.Region}, r.Min)], marker)
	body := `{"data":` + data + `}`
	return pipeline.Page{Asked: marker, Next: next, Body: []byte(body), Data: []byte(body)[len(`{"data":`) : len(body)-1]}, nil
}

func (v *vendor) page(records []string, marker string) (data, next string) {
	const size = 3
	at := 0
	if marker != "" {
		at, _ = strconv.Atoi(strings.TrimPrefix(marker, "start="))
	}
	end := min(at+size, len(records))
	if end < len(records) {
		next = "start=" + strconv.Itoa(end)
	}
	return "[" + strings.Join(records[at:end], ", ") + "]", next
}

// hold makes the vendor hold records for a window.
func (w *world) hold(stream string, of pipeline.Window, records ...string) {
	key := w.vendor.key(stream, of.Scope, of.From.String())
	w.vendor.records[key] = records
	delete(w.vendor.months, key)
}

func (w *world) engine(stream string, token map[pipeline.StreamScope]int64) *pipeline.Engine {
	w.vendor.stream = stream
	return pipeline.NewEngine(w.vendor, w.db, w.land, pipeline.EngineConfig{
		Stream: schemas.ByName(stream), DomainID: domain, RunID: w.run, Leases: token, Parallel: 1, JobDeadline: time.Hour, PollInitial: time.Millisecond,
		PollMax: time.Millisecond, MinRatio: 0.1, QuarantineMax: 1, AcceptShrink: true, SourceZone: time.UTC, FileZone: time.UTC,
		SpillDir: w.dir, Now: func() time.Time { return w.now }, Log: zap.NewNop(),
	})
}

// withEngine runs do under the lease of a scope.
func (w *world) withEngine(stream string, s pipeline.Scope, do func(context.Context, *pipeline.Engine) []pipeline.Result) {
	w.t.Helper()
	held := []pipeline.StreamScope{{Stream: stream, Scope: s}}
	err := w.db.WithLeases(w.t.Context(), held, func(ctx context.Context, tokens map[pipeline.StreamScope]int64) error {
		for _, r := range do(ctx, w.engine(stream, tokens)) {
			if r.Err != nil {
				return r.Err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// pull pulls a window anew.
func (w *world) pull(stream string, of pipeline.Window) {
	w.t.Helper()
	w.now = w.now.Add(time.Hour)
	w.withEngine(stream, of.Scope, func(ctx context.Context, e *pipeline.Engine) []pipeline.Result {
		return e.Run(ctx, []pipeline.Planned{{Window: of}})
	})
}

// publish makes the vendor hold records for a window of metering records, and pulls it.
func (w *world) publish(of pipeline.Window, records ...string) {
	w.t.Helper()
	w.hold("sdr", of, records...)
	w.pull("sdr", of)
}

func (w *world) lakeOf(stream string) *parquet.Lake {
	w.t.Helper()
	lake, err := parquet.Open(parquet.Config{
		Dir: w.lake(), Stream: schemas.ByName(stream), Unit: w.unit, DomainID: domain, SourceZone: "UTC",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return lake
}

func (w *world) lake() string { return filepath.Join(w.dir, "lake") }

// export brings every stream's files up to date.
func (w *world) export(options parquet.ExportOptions) {
	w.t.Helper()
	for _, s := range schemas.All() {
		if _, err := w.lakeOf(s.Name).Export(w.t.Context(), w.db.Store(s.Name), options); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) config() verify.Config {
	return verify.Config{
		URL: w.url, Lake: w.lake(), Landing: filepath.Join(w.dir, "landing"), DomainID: domain, PartitionUnit: string(w.unit),
		Now: func() time.Time { return w.now },
	}
}

func (w *world) verify(only verify.Only) verify.Report {
	w.t.Helper()
	r, err := verify.Run(w.t.Context(), w.config(), only)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// clean wants an audit to find nothing.
func (w *world) clean() {
	w.t.Helper()
	for _, d := range w.verify(nil).Differences {
		w.t.Errorf("untouched, and verify found at %s: %s (%s)", d.Where, d.What, d.Repair)
	}
}

// exec runs a statement as the superuser.
func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	if _, err := w.admin.Exec(w.t.Context(), statement, args...); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}

// one returns the one value of a query.
func one[T any](w *world, statement string, args ...any) T {
	w.t.Helper()
	rows, err := w.admin.Query(w.t.Context(), statement, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
	return v
}

// window returns the id of a stream's live window that begins on a date.
func (w *world) window(stream string, of pipeline.Window) int64 {
	w.t.Helper()
	return one[int64](w, "SELECT window_id FROM sdr_sync.window WHERE stream = $1 AND site = $2 AND region = $3 AND from_date = $4::text::date AND retired_at IS NULL",
		stream, of.Scope.Site, of.Scope.Region, of.From.String())
}

// content is all that analysts see, without the numbers that the program gives.
func (w *world) content() []string {
	w.t.Helper()
	rows, err := w.admin.Query(w.t.Context(), `
		SELECT 'sdr ' || (to_jsonb(s) - 'window_id')::text FROM billing.sdr s
		UNION ALL SELECT 'rollup ' || u::text FROM billing.usage_daily u
		UNION ALL SELECT 'event ' || (to_jsonb(e) - 'window_id')::text FROM billing.audit_log e
		UNION ALL SELECT 'row ' || (to_jsonb(d) - 'first_seen')::text FROM billing.physical_device d
		UNION ALL SELECT 'version ' || to_jsonb(v)::text FROM billing.subscription v
		UNION ALL SELECT concat_ws(' ', 'quarantine', raw_hash, ordinal, raw) FROM sdr_sync.quarantine ORDER BY 1`)
	if err != nil {
		w.t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	return lines
}

var (
	replayForm  = regexp.MustCompile(`^sdr-sync replay --window (\d+)`)
	resliceForm = regexp.MustCompile(`^sdr-sync backfill (?:--scope (\S+)|--stream (\S+)) --from (\S+) --to (\S+) --reslice=(\w+)$`)
	deleteForm  = regexp.MustCompile(`as sdr_sync_owner: (DELETE FROM .+)$`)
	restoreForm = regexp.MustCompile(`as sdr_sync_owner: (SELECT sdr_sync.restore_month\(.+?\))`)
)

// repair does what a difference says, as the program does it.
func (w *world) repair(text string) {
	w.t.Helper()
	w.now = w.now.Add(time.Hour)
	if m := restoreForm.FindStringSubmatch(text); m != nil {
		w.exec(m[1])
		_, text, _ = strings.Cut(text, "then ")
	}
	switch {
	case strings.HasPrefix(text, "sdr-sync export --all --scope "):
		site, _, _ := strings.Cut(strings.TrimPrefix(text, "sdr-sync export --all --scope "), "/")
		if _, err := w.lakeOf("sdr").Export(w.t.Context(), w.db.Store("sdr"), parquet.ExportOptions{All: true, Sites: []string{site}}); err != nil {
			w.t.Fatal(err)
		}
		return
	case text == "sdr-sync export --all":
		w.export(parquet.ExportOptions{All: true})
		return
	case text == "sdr-sync export":
	case replayForm.MatchString(text):
		id, _ := strconv.ParseInt(replayForm.FindStringSubmatch(text)[1], 10, 64)
		w.replay(id)
	case resliceForm.MatchString(text):
		m := resliceForm.FindStringSubmatch(text)
		w.reslice(m[1], m[2], m[3], m[4], m[5])
	case deleteForm.MatchString(text):
		w.exec(deleteForm.FindStringSubmatch(text)[1])
	default:
		w.t.Fatalf("the repair %q is none that the program knows", text)
	}
	w.export(parquet.ExportOptions{})
}

// replay publishes a window's generation again from its landing file.
func (w *world) replay(id int64) {
	w.t.Helper()
	stream := one[string](w, "SELECT stream FROM sdr_sync.window WHERE window_id = $1", id)
	scope := pipeline.Scope{
		Site:   one[string](w, "SELECT site FROM sdr_sync.window WHERE window_id = $1", id),
		Region: one[string](w, "SELECT region FROM sdr_sync.window WHERE window_id = $1", id),
	}
	states, err := w.db.Windows(w.t.Context(), stream, scope)
	if err != nil {
		w.t.Fatal(err)
	}
	i := slices.IndexFunc(states, func(s pipeline.WindowState) bool { return s.ID == id })
	job, err := w.db.Job(w.t.Context(), states[i].JobRow)
	if err != nil {
		w.t.Fatal(err)
	}
	w.withEngine(stream, scope, func(ctx context.Context, e *pipeline.Engine) []pipeline.Result {
		return []pipeline.Result{e.Replay(ctx, states[i], job)}
	})
}

// reslice puts new windows in the place of those of a span.
func (w *world) reslice(scopeText, stream, from, to, unit string) {
	w.t.Helper()
	scope := pipeline.Tenant
	if stream == "" {
		stream = "sdr"
		var err error
		if scope, err = pipeline.ParseScope(scopeText); err != nil {
			w.t.Fatal(err)
		}
	}
	states, err := w.db.Windows(w.t.Context(), stream, scope)
	if err != nil {
		w.t.Fatal(err)
	}
	key := w.vendor.key(stream, scope, date(from).Month().String())
	if month, spread := w.vendor.months[key]; unit == string(pipeline.Month) && spread {
		w.vendor.records[key] = month
		delete(w.vendor.months, key)
	}
	if unit == string(pipeline.Day) {
		w.vendor.months[key] = w.vendor.records[key]
		w.spread(stream, scope, date(from), date(to)+1)
	}
	ask := pipeline.Ask{From: date(from), To: date(to) + 1, Today: date(to) + 1, FileZone: time.UTC}
	w.withEngine(stream, scope, func(ctx context.Context, e *pipeline.Engine) []pipeline.Result {
		return e.RunGroups(ctx, pipeline.PlanReslice(scope, states, ask, pipeline.Unit(unit)))
	})
}

// spread gives each day of a month what the vendor holds of it; what is of no day of it, the first.
func (w *world) spread(stream string, s pipeline.Scope, from, to pipeline.Date) {
	days := map[string][]string{}
	for _, text := range w.vendor.records[w.vendor.key(stream, s, from.String())] {
		var r struct {
			Start string `json:"start_time"`
			Begin string `json:"begin_time"`
		}
		day := from
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			w.t.Fatal(err)
		}
		for layout, begin := range map[string]string{"20060102150405": r.Begin, time.DateTime: r.Start} {
			if at, err := time.Parse(layout, begin); err == nil && record.DateOf(at, time.UTC) >= from && record.DateOf(at, time.UTC) < to {
				day = record.DateOf(at, time.UTC)
			}
		}
		days[day.String()] = append(days[day.String()], text)
	}
	for d := from; d < to; d++ {
		w.vendor.records[w.vendor.key(stream, s, d.String())] = days[d.String()]
	}
}

// sdr is a metering record as the vendor sends it: begin as 14 digits, amount as JSON, and further members as pairs of key and JSON value.
func sdr(begin, resource, amount string, more ...string) string {
	members := map[string]json.RawMessage{
		"record_type": json.RawMessage(`"20"`), "region_code": json.RawMessage(`"cn-north-213"`), "project_id": json.RawMessage(`"p-1"`),
		"cloud_service_type_code": json.RawMessage(`"hws.service.type.ec2"`), "resource_type_code": json.RawMessage(`"hws.resource.type.vm"`),
		"resource_spec_code": json.RawMessage(`"s6.large"`), "accumulate_factor_name": json.RawMessage(`"Duration"`),
		"begin_time": json.RawMessage(strconv.Quote(begin)), "resource_id": json.RawMessage(strconv.Quote(resource)), "accumulate_factor_value": json.RawMessage(amount),
	}
	for i := 0; i < len(more); i += 2 {
		members[more[i]] = json.RawMessage(more[i+1])
	}
	return object(members)
}

func object(members map[string]json.RawMessage) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(members)) {
		parts = append(parts, strconv.Quote(key)+":"+string(members[key]))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// someRecords are n records, one an hour from the first of a month on.
func someRecords(month string, n int) []string {
	first := date(month).Time(time.UTC)
	var records []string
	for i := range n {
		begin := first.Add(time.Duration(i) * time.Hour).Format("20060102150405")
		records = append(records, sdr(begin, fmt.Sprintf("vm-%04d", i), fmt.Sprintf("%d.5", i)))
	}
	return records
}
