package postgres_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// TestLedgerModel lives through random histories of a scope: late records, restatements, nights, backfills, reslices and replays,
// runs that are stopped, killed, fenced, refused or lose their COMMIT. It runs the engine over real landing files and a real Postgres;
// the vendor and the model of what must stand are the test's own. The model is simple: the jobs that the ledger calls published, in order,
// with what the vendor answered them with.
func TestLedgerModel(t *testing.T) {
	t.Parallel()
	for _, unit := range []pipeline.Unit{pipeline.Month, pipeline.Day} { // 100 histories each, unless -rapid.checks says otherwise
		t.Run(string(unit), func(t *testing.T) {
			t.Parallel()
			f := newModelFixture(t, unit)
			enough, limited := time.Now().Add(modelTime), flag.Lookup("rapid.checks").Value.String() == "100"
			rapid.Check(t, func(t *rapid.T) {
				if limited && !f.failed && time.Now().After(enough) {
					return
				}
				m := f.newModel(t)
				t.Repeat(map[string]func(*rapid.T){
					"":              m.check,
					"late records":  m.lateRecords,
					"restated file": m.restateFile,
					"days pass":     m.daysPass,
					"tear":          m.tearLanding,
					"run":           m.run,
					"run again":     m.runTwice,
					"broken run":    m.brokenRun,
					"broken run 2":  m.brokenRun, // as likely as all others together would be too slow, but this is what it is about
					"replay":        m.replay,
				})
			})
			t.Logf("%d histories", f.histories)
		})
	}
}

// modelTime is the longest that a busy machine lives through histories of one unit, unless -rapid.checks asks for a number of them.
const modelTime = time.Minute

// modelFixture is what the histories of one unit have in common.
type modelFixture struct {
	*database
	unit      pipeline.Unit
	direct    *postgres.DB
	second    *postgres.DB // of another process
	throughIt *postgres.DB // through the proxy
	proxy     *proxy
	folder    string
	histories int
	failed    bool      // rapid looks for the shortest history that fails
	now       time.Time // of the history under way; its steps come one after the other
}

func newModelFixture(t *testing.T, unit pipeline.Unit) *modelFixture {
	f := &modelFixture{database: newDatabase(t), unit: unit, folder: t.TempDir(), now: testNow}
	open := func(url string) *postgres.DB {
		db, err := postgres.Open(t.Context(), postgres.Config{URL: pipeline.Secret(url), Now: func() time.Time { return f.now }, Log: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		return db
	}
	p, through := newProxy(t, f.database)
	f.proxy, f.direct, f.second, f.throughIt = p, open(f.url), open(f.url), open(through)
	return f
}

// model is one history.
type model struct {
	t        *rapid.T
	ctx      context.Context
	fixture  *modelFixture
	vendor   *modelVendor
	folder   string // of landing files
	problems []string
	stands   modelState // as of the last check
	second   func()     // what a second writer does
}

// newModel empties tables and folder and begins in the first days of a month.
func (f *modelFixture) newModel(t *rapid.T) *model {
	f.histories++
	f.now = time.Date(2024, 3, 3, 2, 0, 0, 0, time.UTC)
	m := &model{t: t, ctx: f.t(), fixture: f, folder: filepath.Join(f.folder, strconv.Itoa(f.histories))}
	m.vendor = &modelVendor{
		files: map[pipeline.Date][]modelFact{}, jobs: map[string]*modelJob{}, pageSize: 3,
		onHang: func() { f.now = f.now.Add(time.Hour) },
	}
	_, err := f.admin.Exec(m.ctx, `TRUNCATE billing.sdr, sdr_sync.usage_rollup, sdr_sync.quarantine, sdr_sync.restatement, sdr_sync.window, sdr_sync.job,
		sdr_sync.partition, sdr_sync.lease`)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(m.folder); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (f *modelFixture) t() context.Context { return context.Background() }

func (m *model) problem(format string, args ...any) {
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

func (m *model) today() pipeline.Date {
	return date(m.fixture.now.UTC().Format(time.DateOnly))
}

// firstFile is the date of the first file that records come in.
var firstFile = date("2024-03-01")

// drawDate draws the date of a file that is there already.
func (m *model) drawDate(t *rapid.T, what string) pipeline.Date {
	return firstFile + pipeline.Date(rapid.IntRange(0, int(m.today()-firstFile)).Draw(t, what))
}

// lateRecords adds records to a file: twins, missing amounts and records for the quarantine among them, with usage of weeks ago.
func (m *model) lateRecords(t *rapid.T) {
	file := m.drawDate(t, "file")
	for range rapid.IntRange(1, 8).Draw(t, "records") {
		m.vendor.files[file] = append(m.vendor.files[file], m.drawFact(t, file))
	}
}

func (m *model) drawFact(t *rapid.T, file pipeline.Date) modelFact {
	day := file - pipeline.Date(rapid.SampledFrom([]int{0, 0, 0, 1, 2, 31, 45}).Draw(t, "days late"))
	resource := rapid.SampledFrom([]string{"vm-1", "vm-2", "vm-3"}).Draw(t, "resource")
	amount := rapid.SampledFrom([]string{"1.5", "2", `"2.0"`, "0.000000000001", "null", "99999999999999999999999999.999999999999", "bad"}).Draw(t, "amount")
	begin := strings.ReplaceAll(day.String(), "-", "") + "070000"
	if amount == "bad" {
		return modelFact{raw: sdr("20241399000000", resource, "1")}
	}
	shown := strings.TrimSuffix(strings.Trim(amount, `"`), ".0")
	return modelFact{
		raw: sdr(begin, resource, amount), line: fmt.Sprintf("%s|%s|%s", day, resource, shown), missing: amount == "null",
	}
}

// restateFile takes records out of a file, or gives them other amounts.
func (m *model) restateFile(t *rapid.T) {
	file := m.drawDate(t, "file")
	facts := m.vendor.files[file]
	if len(facts) == 0 {
		t.Skip("an empty file")
	}
	i := rapid.IntRange(0, len(facts)-1).Draw(t, "record")
	switch rapid.SampledFrom([]string{"change", "remove", "empty", "sort"}).Draw(t, "how") {
	case "change":
		facts[i] = m.drawFact(t, file)
	case "remove":
		m.vendor.files[file] = slices.Delete(facts, i, i+1)
	case "empty":
		delete(m.vendor.files, file)
	case "sort": // the same records in another order are the same
		slices.SortFunc(facts, func(a, b modelFact) int { return strings.Compare(a.raw, b.raw) })
	}
}

// daysPass moves the clock, now and then back.
func (m *model) daysPass(t *rapid.T) {
	hours := rapid.SampledFrom([]int{1, 7, 20, 25, 49, -3}).Draw(t, "hours")
	if end := time.Date(2024, 3, 14, 0, 0, 0, 0, time.UTC); m.fixture.now.After(end) && hours > 0 {
		t.Skip("late enough: each day is a window more")
	}
	m.fixture.now = m.fixture.now.Add(time.Duration(hours) * time.Hour)
}

// tearLanding cuts the end off a landing file that is still to be published, or all of it.
func (m *model) tearLanding(t *rapid.T) {
	var names []string
	err := filepath.WalkDir(m.folder, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && strings.Contains(name, ".job-") {
			names = append(names, name)
		}
		return nil
	})
	if err != nil || len(names) == 0 {
		t.Skip("nothing is under way", err)
	}
	name := rapid.SampledFrom(names).Draw(t, "file")
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	cut := rapid.SampledFrom([]int64{1, 40, 200, 1 << 20}).Draw(t, "bytes")
	if err := os.Truncate(name, max(info.Size()-cut, 0)); err != nil {
		t.Fatal(err)
	}
}

// modelPlan is what a run is asked for. It is planned anew for each writer.
type modelPlan struct {
	what         string
	ask          pipeline.Ask
	reslice      pipeline.Unit
	acceptShrink bool
}

func (m *model) drawPlan(t *rapid.T) modelPlan {
	p := modelPlan{
		what: rapid.SampledFrom([]string{"night", "night", "backfill", "refresh", "reslice"}).Draw(t, "command"),
		ask:  pipeline.Ask{To: m.today(), Today: m.today(), Unit: m.fixture.unit, FileZone: time.UTC, Settle: 24 * time.Hour},
	}
	p.acceptShrink = rapid.IntRange(0, 3).Draw(t, "accept shrink") == 3
	switch p.what {
	case "night":
		p.ask.From, p.ask.Whole = p.ask.Today-3, true
	case "backfill", "refresh":
		p.ask.From, p.ask.Refresh = m.drawDate(t, "from"), p.what == "refresh"
		p.ask.To = p.ask.From + pipeline.Date(rapid.IntRange(1, 5).Draw(t, "days"))
	case "reslice":
		p.ask.From, p.reslice = firstFile, rapid.SampledFrom([]pipeline.Unit{pipeline.Month, pipeline.Day}).Draw(t, "unit")
	}
	return p
}

// pull runs the plan as one process. Its error is that of the leases.
func (m *model) pull(p modelPlan, db *postgres.DB, h hitch) (results []pipeline.Result, plan []pipeline.Planned, r *modelRun) {
	land, err := landing.Open(m.folder, 1)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(m.ctx)
	defer stop(nil)
	r = &modelRun{m: m, db: db, land: land, stop: stop, hitch: h}
	scope := of(north)
	err = db.WithLeases(ctx, []pipeline.StreamScope{scope}, func(ctx context.Context, leases map[pipeline.StreamScope]int64) error {
		existing, err := db.Windows(ctx, stream, north)
		if err != nil {
			return err
		}
		engine := m.engine(r, leases, p.acceptShrink)
		if p.reslice != "" {
			groups := pipeline.PlanReslice(north, existing, p.ask, p.reslice)
			plan = slices.Concat(groups...)
			results = engine.RunGroups(ctx, groups)
			return nil
		}
		plan = pipeline.Plan(north, existing, p.ask)
		results = engine.Run(ctx, plan)
		return nil
	})
	if err = errors.Join(err, r.end()); err != nil {
		m.t.Fatal(err)
	}
	return results, plan, r
}

func (m *model) engine(r *modelRun, leases map[pipeline.StreamScope]int64, acceptShrink bool) *pipeline.Engine {
	return pipeline.NewEngine(r, r, r, pipeline.EngineConfig{
		Stream: schemas.SDR(), DomainID: "d-1", RunID: m.fixture.run, Leases: leases, Parallel: 1, // else which call is the nth is left to chance
		JobDeadline: 6 * time.Hour, AdoptMaxAge: 24 * time.Hour, PollInitial: time.Microsecond, PollMax: time.Microsecond, MinRatio: 0.5,
		QuarantineMax: 0.01, AcceptShrink: acceptShrink, SourceZone: time.UTC, FileZone: time.UTC, SpillDir: m.fixture.folder,
		Now: func() time.Time { return m.fixture.now }, Log: zap.NewNop(),
	})
}

// run is an undisturbed run: what it was asked for stands in the end.
func (m *model) run(t *rapid.T) { m.undisturbed(m.drawPlan(t)) }

// undisturbed returns the results, and whether all that is published is what the vendor has now: not if a younger job of an earlier run was
// taken up, and not if a shrink was refused.
func (m *model) undisturbed(p modelPlan) (results []pipeline.Result, current bool) {
	created := m.vendor.created
	results, plan, _ := m.pull(p, m.fixture.direct, hitch{})
	now := m.read()
	current = true
	for i, r := range results {
		w := plan[i].Window
		truth := contentOf(m.vendor.between(w.From, w.To))
		var shrink *pipeline.ShrinkError
		switch {
		case r.Status == pipeline.Skipped:
		case errors.As(r.Err, &shrink):
			current = false
			if p.acceptShrink || shrink.Had == 0 || shrink.Got > 0 && 2*shrink.Got >= shrink.Had {
				m.problem("%s: %s is refused: %v", p.what, w, r.Err)
			}
		case r.Err != nil:
			m.problem("%s: %s fails undisturbed: %v", p.what, w, r.Err)
		default:
			stands, found := now.live(w.From)
			if !found || stands.to < w.To || stands.lastJob == nil {
				m.problem("%s: %s is %s, and the ledger has %+v", p.what, w, r.Status, stands)
				continue
			}
			answered := m.vendor.jobs[stands.lastJob.id]
			adopted := answered.number <= created
			current = current && !adopted
			if !adopted && !answered.content.equal(truth) {
				m.problem("%s: %s stands with %v, and the vendor has %v", p.what, w, answered.content, truth)
			}
			if age := m.fixture.now.Sub(stands.lastJob.created); age >= 24*time.Hour {
				m.problem("%s: %s is answered for by a job that is %s old", p.what, w, age)
			}
		}
	}
	return results, current
}

// runTwice wants the second of two equal runs to change nothing.
func (m *model) runTwice(t *rapid.T) {
	p := m.drawPlan(t)
	if _, current := m.undisturbed(p); !current {
		return
	}
	m.check(t)
	had := m.stands.physical
	results, _ := m.undisturbed(p)
	for _, r := range results {
		if r.Status == pipeline.Published {
			m.problem("%s: a second run publishes %s: %+v", p.what, r.Window, r.Outcome)
		}
	}
	if now := m.read(); now.physical != had {
		m.problem("%s: a second run wrote to the tables", p.what)
	}
}

// brokenRun is a run in which something goes wrong. What it leaves is for check to judge, and for later runs to mend.
func (m *model) brokenRun(t *rapid.T) {
	p := m.drawPlan(t)
	h := hitch{
		call: rapid.SampledFrom([]string{"CreateJob", "Job", "Page", "SaveJob", "UpdateJob", "LiveJobs", "Publish", "Open", "Append", "Keep", "Discard"}).Draw(t, "call"),
		nth:  rapid.IntRange(1, 3).Draw(t, "nth"),
		how: rapid.SampledFrom([]string{
			failsBefore, losesAnswer, isStopped, isKilled, panics, losesLease, tokenExpires, jobsVanish, stopsInRows, failsInRows, losesCommit, losesCommits,
			"job fails", "job hangs",
		}).Draw(t, "how"),
	}
	db := m.fixture.direct
	switch h.how {
	case losesCommit, losesCommits:
		db = m.fixture.throughIt
	case "job fails":
		m.vendor.failing = h.nth
	case "job hangs":
		m.vendor.hanging = true
	}
	m.second = func() { m.pull(p, m.fixture.second, hitch{}) }
	m.pull(p, db, h)
	m.fixture.proxy.cutNext(cutNothing) // perhaps there was no COMMIT to lose
	m.vendor.failing, m.vendor.hanging, m.vendor.expired = 0, false, false
	if rapid.Bool().Draw(t, "tidy") {
		m.tidy()
	}
}

// secondWriter takes the lease over and does the same work.
func (m *model) secondWriter() {
	if _, err := m.fixture.second.ReleaseLease(m.ctx, stream, north); err != nil {
		m.problem("release the lease: %v", err)
		return
	}
	m.second()
}

// tidy settles what a killed run left behind, as the program does before its next one.
func (m *model) tidy() {
	land, err := landing.Open(m.folder, 1)
	if err != nil {
		m.t.Fatal(err)
	}
	defer land.Close()
	wanted, err := m.fixture.direct.WantedLanding(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	err = land.Tidy(func(key pipeline.LandingKey) bool {
		job, found, err := m.fixture.direct.PublishedJob(m.ctx, key.JobRow)
		if err != nil {
			m.problem("read the job %d: %v", key.JobRow, err)
		}
		return found && job.Job.ID == key.JobID || wanted[key.JobRow] == key.JobID
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// replay publishes what is kept as evidence again, which changes nothing.
func (m *model) replay(t *rapid.T) {
	land, err := landing.Open(m.folder, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := &modelRun{m: m, db: m.fixture.direct, land: land}
	err = m.fixture.direct.WithLeases(m.ctx, []pipeline.StreamScope{of(north)}, func(ctx context.Context, leases map[pipeline.StreamScope]int64) error {
		engine := m.engine(r, leases, false)
		windows, err := m.fixture.direct.Windows(ctx, stream, north)
		for _, w := range windows {
			if engine.CanReplay(w) != nil {
				continue // a run died before it could keep the file
			}
			job, err := m.fixture.direct.Job(ctx, w.JobRow)
			if err != nil {
				return err
			}
			if result := engine.Replay(ctx, w, job); result.Status != pipeline.Unchanged {
				m.problem("the replay of %s is %s: %+v, %v", w.Window, result.Status, result.Outcome, result.Err)
			}
		}
		return err
	})
	if err = errors.Join(err, r.end()); err != nil {
		t.Fatal(err)
	}
}

// modelState is all that the database says.
type modelState struct {
	windows    []*modelWindow // by id
	partitions map[pipeline.Date]int64
	daily      int64  // rows in which facts and daily sums differ
	strays     int64  // rows of facts, sums or quarantine of no window
	physical   string // of the rows, but for the ledger's own notes
}

type modelWindow struct {
	id                           int64
	from, to                     pipeline.Date
	generation                   int
	records, quarantined, absent int64
	retired                      bool
	content                      modelContent // in the tables
	jobs                         []ledgerJob  // that ended for it, in order
	restatements                 []restatement
	lastJob                      *ledgerJob
}

type ledgerJob struct {
	row        int64
	id, state  string
	generation int
	created    time.Time
}

type restatement struct {
	generation                       int
	inserted, deleted, before, after int64
}

func (s modelState) live(from pipeline.Date) (modelWindow, bool) {
	for _, w := range s.windows {
		if w.from == from && !w.retired {
			return *w, true
		}
	}
	return modelWindow{}, false
}

func (s modelState) byID(id int64) *modelWindow {
	for _, w := range s.windows {
		if w.id == id {
			return w
		}
	}
	return nil
}

const modelDifference = `
	WITH facts AS (SELECT window_id, usage_date, resource_spec_code, accumulate_factor_name, count(*) AS records,
			count(*) FILTER (WHERE accumulate_factor_value IS NULL) AS missing, coalesce(sum(accumulate_factor_value), 0) AS amount
		FROM billing.sdr GROUP BY 1, 2, 3, 4),
	sums AS (SELECT window_id, usage_date, resource_spec_code, accumulate_factor_name, records, missing_amounts, accumulate_factor_value FROM sdr_sync.usage_rollup)
	SELECT count(*) FROM ((TABLE facts EXCEPT ALL TABLE sums) UNION ALL (TABLE sums EXCEPT ALL TABLE facts)) d`

// read reads the database in one round trip.
func (m *model) read() modelState {
	s := modelState{partitions: map[pipeline.Date]int64{}}
	batch := &pgx.Batch{}
	each := func(statement string, dest []any, do func()) {
		batch.Queue(statement).Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, dest, func() error { do(); return nil })
			return err
		})
	}
	var w modelWindow
	var from, to time.Time
	each("SELECT window_id, from_date, to_date, generation, records, quarantined, missing_amounts, retired_at IS NOT NULL FROM sdr_sync.window ORDER BY 1",
		[]any{&w.id, &from, &to, &w.generation, &w.records, &w.quarantined, &w.absent, &w.retired}, func() {
			one := w
			one.from, one.to = date(from.Format(time.DateOnly)), date(to.Format(time.DateOnly))
			s.windows = append(s.windows, &one)
		})
	var id int64
	var text string
	of := func(do func(w *modelWindow)) func() {
		return func() {
			if w := s.byID(id); w != nil {
				do(w)
			} else {
				s.strays++
			}
		}
	}
	each(`SELECT window_id, concat_ws('|', usage_date, resource_id, coalesce(trim_scale(accumulate_factor_value)::text, 'null')) FROM billing.sdr`,
		[]any{&id, &text}, of(func(w *modelWindow) { w.content.lines = append(w.content.lines, text) }))
	var raw []byte
	each("SELECT window_id, raw FROM sdr_sync.quarantine", []any{&id, &raw}, of(func(w *modelWindow) { w.content.rejects = append(w.content.rejects, string(raw)) }))
	var j ledgerJob
	each(`SELECT window_id, job_row, job_id, state, coalesce(generation, 0), created_at FROM sdr_sync.job WHERE state IN ('published', 'unchanged') ORDER BY job_row`,
		[]any{&id, &j.row, &j.id, &j.state, &j.generation, &j.created}, of(func(w *modelWindow) { w.jobs = append(w.jobs, j) }))
	var r restatement
	each("SELECT window_id, generation, inserted, deleted, records_before, records_after FROM sdr_sync.restatement ORDER BY 1, 2",
		[]any{&id, &r.generation, &r.inserted, &r.deleted, &r.before, &r.after}, of(func(w *modelWindow) { w.restatements = append(w.restatements, r) }))
	var seq int64
	each("SELECT from_date, dirty_seq FROM sdr_sync.partition", []any{&from, &seq}, func() { s.partitions[date(from.Format(time.DateOnly))] = seq })
	each(modelDifference, []any{&seq}, func() { s.daily = seq })
	each(`SELECT coalesce(md5(string_agg(line, ' ' ORDER BY line)), '') FROM (
			SELECT concat_ws(' ', tableoid::int, ctid, xmin) AS line FROM billing.sdr
			UNION ALL SELECT concat_ws(' ', tableoid::int, ctid, xmin) FROM sdr_sync.usage_rollup
			UNION ALL SELECT concat_ws(' ', tableoid::int, ctid, xmin) FROM sdr_sync.quarantine
			UNION ALL SELECT concat_ws(' ', tableoid::int, ctid, xmin) FROM sdr_sync.partition
			UNION ALL SELECT concat_ws(' ', tableoid::int, ctid, xmin) FROM sdr_sync.restatement) l`, []any{&text}, func() { s.physical = text })
	if err := m.fixture.admin.SendBatch(m.ctx, batch).Close(); err != nil {
		m.t.Fatal(err)
	}
	for _, w := range s.windows {
		slices.Sort(w.content.lines)
		slices.Sort(w.content.rejects)
		if n := len(w.jobs); n > 0 {
			w.lastJob = &w.jobs[n-1]
		}
	}
	return s
}

// check holds the database against the model.
func (m *model) check(t *rapid.T) {
	now := m.read()
	for _, w := range now.windows {
		m.checkWindow(w)
	}
	if now.strays > 0 || now.daily > 0 {
		m.problem("%d rows belong to no window, %d rows of facts and daily sums differ", now.strays, now.daily)
	}
	m.checkStep(m.stands, now)
	m.stands = now
	for _, p := range m.problems {
		t.Error(p)
	}
	if len(m.problems) > 0 {
		m.fixture.failed = true
		t.FailNow()
	}
}

// checkWindow tells the window's story again from what the vendor answered its jobs with, and wants the tables to agree with its end.
func (m *model) checkWindow(w *modelWindow) {
	var want modelContent
	var restated []restatement
	generation := 0
	for _, j := range w.jobs {
		got := m.vendor.jobs[j.id].content
		switch {
		case j.state == pipeline.StateUnchanged && !got.equal(want):
			m.problem("job %d is noted as unchanged and brought %v, where %v stood", j.row, got, want)
		case j.state == pipeline.StatePublished && (j.generation != generation+1 || generation > 0 && got.equal(want)):
			m.problem("job %d is noted as generation %d after %d; it brought %v, where %v stood", j.row, j.generation, generation, got, want)
		case j.state == pipeline.StatePublished:
			if generation++; generation > 1 {
				restated = append(restated, restatement{
					generation, int64(len(difference(got.lines, want.lines))), int64(len(difference(want.lines, got.lines))), int64(len(want.lines)), int64(len(got.lines)),
				})
			}
			want = got
		}
	}
	if w.generation != generation || w.records != int64(len(want.lines)) || w.quarantined != int64(len(want.rejects)) || w.absent != want.missing {
		m.problem("window %d is in generation %d with %d records, %d in the quarantine, %d amounts missing; want %d and %+v",
			w.id, w.generation, w.records, w.quarantined, w.absent, generation, want)
	}
	if !slices.Equal(w.restatements, restated) {
		m.problem("window %d: restatements %+v, want %+v", w.id, w.restatements, restated)
	}
	if w.retired {
		want = modelContent{}
	}
	if !w.content.equal(want) {
		m.problem("window %d [%s, %s) holds %v, want %v", w.id, w.from, w.to, w.content, want)
	}
}

// checkStep holds what stands now against what stood before the last action.
func (m *model) checkStep(before, now modelState) {
	covered := func(s modelState) map[pipeline.Date]int64 {
		dates := map[pipeline.Date]int64{}
		for _, w := range s.windows {
			for d := w.from; !w.retired && d < w.to; d++ {
				if other, found := dates[d]; found {
					m.problem("windows %d and %d overlap at %s", other, w.id, d)
				}
				dates[d] = w.id
			}
		}
		return dates
	}
	is := covered(now)
	for d := range covered(before) {
		if _, found := is[d]; !found {
			m.problem("%s was published and is no longer", d)
		}
	}
	moved := map[pipeline.Date]bool{} // months of which rows came or went
	for _, w := range now.windows {
		var old modelContent
		if b := before.byID(w.id); b != nil {
			old = b.content
		}
		for _, line := range slices.Concat(difference(old.lines, w.content.lines), difference(w.content.lines, old.lines)) {
			moved[date(line[:len(time.DateOnly)]).Month()] = true
		}
	}
	for _, month := range slices.Sorted(maps.Keys(moved)) {
		if now.partitions[month] <= before.partitions[month] {
			m.problem("rows of %s changed, and its partition is not marked as dirty: %d, was %d", month.MonthString(), now.partitions[month], before.partitions[month])
		}
	}
	if len(moved) == 0 && !maps.Equal(before.partitions, now.partitions) {
		m.problem("no row changed, and partitions are marked as dirty: %v, were %v", now.partitions, before.partitions)
	}
}
