package postgres_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// modelFact is one record as the vendor sends it, and the line that the table must show of it; a record for the quarantine has none.
type modelFact struct {
	raw, line string
	missing   bool // it has no amount
}

// modelContent is what a query job answers with: the multiset of its records.
type modelContent struct {
	lines, rejects []string // sorted
	missing        int64
}

func contentOf(facts []modelFact) modelContent {
	var c modelContent
	for _, f := range facts {
		if f.line == "" {
			c.rejects = append(c.rejects, f.raw)
			continue
		}
		c.lines = append(c.lines, f.line)
		if f.missing {
			c.missing++
		}
	}
	slices.Sort(c.lines)
	slices.Sort(c.rejects)
	return c
}

func (c modelContent) equal(o modelContent) bool {
	return slices.Equal(c.lines, o.lines) && slices.Equal(c.rejects, o.rejects)
}

// modelVendor keeps SDR files by date. A job answers for what the files held when it was created, a few records a page.
type modelVendor struct {
	mu       sync.Mutex
	files    map[pipeline.Date][]modelFact
	jobs     map[string]*modelJob
	created  int
	failing  int    // this many jobs from here on fail
	hanging  bool   // no job ever ends
	expired  bool   // no token is good
	onHang   func() // called at each poll of a job that hangs: time passes
	pageSize int
}

type modelJob struct {
	number  int
	content modelContent
	pages   []string // JSON arrays
	fails   bool
}

// between returns what the files of [from, to) hold now.
func (v *modelVendor) between(from, to pipeline.Date) []modelFact {
	var facts []modelFact
	for _, date := range slices.Sorted(maps.Keys(v.files)) {
		if date >= from && date < to {
			facts = append(facts, v.files[date]...)
		}
	}
	return facts
}

func (v *modelVendor) CreateJob(ctx context.Context, request pipeline.JobRequest) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.check(ctx); err != nil {
		return "", err
	}
	from, _ := record.ParseDate(request.Min[:10])
	to, _ := record.ParseDate(request.Max[:10])
	facts := v.between(from, to)
	v.created++
	j := &modelJob{number: v.created, content: contentOf(facts), fails: v.failing > 0}
	v.failing = max(v.failing-1, 0)
	for chunk := range slices.Chunk(facts, v.pageSize) {
		var raws []string
		for _, f := range chunk {
			raws = append(raws, f.raw)
		}
		j.pages = append(j.pages, "["+strings.Join(raws, ",")+"]")
	}
	if len(j.pages) == 0 {
		j.pages = []string{"[]"}
	}
	id := fmt.Sprintf("job-%d", v.created)
	v.jobs[id] = j
	return id, nil
}

func (v *modelVendor) check(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if v.expired {
		return fmt.Errorf("the token is no longer good: %w", pipeline.ErrCredentials)
	}
	return nil
}

func (v *modelVendor) find(ctx context.Context, jobID string) (*modelJob, error) {
	if err := v.check(ctx); err != nil {
		return nil, err
	}
	if j := v.jobs[jobID]; j != nil && j.pages != nil {
		return j, nil
	}
	return nil, fmt.Errorf("job %s: %w", jobID, pipeline.ErrJobForgotten)
}

func (v *modelVendor) Job(ctx context.Context, jobID string) (pipeline.JobStatus, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	j, err := v.find(ctx, jobID)
	switch {
	case err != nil:
		return pipeline.JobStatus{}, err
	case v.hanging:
		v.onHang()
		return pipeline.JobStatus{State: pipeline.JobRunning, Progress: 99}, nil
	case j.fails:
		return pipeline.JobStatus{State: pipeline.JobFailure, Progress: 10}, nil
	}
	return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
}

func (v *modelVendor) Start(string) string { return "" }

func (v *modelVendor) Page(ctx context.Context, jobID, marker string) (pipeline.Page, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	j, err := v.find(ctx, jobID)
	if err != nil {
		return pipeline.Page{}, err
	}
	number := 0
	if marker != "" {
		if _, err := fmt.Sscanf(marker, jobID+"/%d", &number); err != nil {
			return pipeline.Page{}, fmt.Errorf("marker %q is not of %s: %w", marker, jobID, pipeline.ErrRefused)
		}
	}
	next := ""
	if number+1 < len(j.pages) {
		next = fmt.Sprintf("%s/%d", jobID, number+1)
	}
	body := []byte(`{"data": ` + j.pages[number] + `}`)
	return pipeline.Page{Next: next, Body: body, Data: body[len(`{"data": `) : len(body)-1]}, nil
}

// forget makes the vendor lose every job; the model still knows what they held.
func (v *modelVendor) forget() {
	for _, j := range v.jobs {
		j.pages = nil
	}
}

// hitch is what goes wrong in a run: the nth call of that name goes as how says. The zero hitch is none.
type hitch struct {
	call string
	nth  int
	how  string
}

// The ways a call goes wrong, and what else may befall a run.
const (
	failsBefore  = "fails"
	losesAnswer  = "loses its answer"
	isStopped    = "is asked to stop"
	isKilled     = "is killed"
	panics       = "panics"
	losesLease   = "loses its lease to a second writer"
	tokenExpires = "token expires"
	jobsVanish   = "jobs vanish"
	stopsInRows  = "is asked to stop amid the rows"
	failsInRows  = "fails amid the rows"
	losesCommit  = "COMMIT is lost"
	losesCommits = "answer to COMMIT is lost"
)

var (
	errHitch  = errors.New("a hitch of the test's")
	errKilled = errors.New("killed by the test")
)

// modelRun is one process: it stands between the engine and vendor, ledger and landing, and lets one call go wrong.
type modelRun struct {
	m     *model
	db    *postgres.DB
	land  *landing.Dir
	stop  context.CancelCauseFunc
	hitch hitch

	mu     sync.Mutex
	seen   int
	hit    bool
	dead   bool // no call has an effect any more
	fenced bool // a second writer was here
	files  []pipeline.LandingFile
}

func (r *modelRun) call(name string, effect func() error) error {
	r.mu.Lock()
	if r.dead {
		r.mu.Unlock()
		return errKilled
	}
	if r.hitch.call == name {
		r.seen++
	}
	hit := r.hitch.call == name && r.seen == r.hitch.nth && !r.hit
	if hit {
		r.hit, r.dead, r.fenced = true, r.hitch.how == isKilled, r.hitch.how == losesLease
	}
	r.mu.Unlock()
	if !hit {
		return effect()
	}
	switch r.hitch.how {
	case failsBefore:
		return errHitch
	case losesAnswer, isKilled:
		return errors.Join(effect(), errHitch)
	case isStopped:
		r.stop(errHitch)
	case panics:
		panic("a panic of the test's")
	case losesLease:
		r.m.secondWriter()
	case tokenExpires, jobsVanish:
		v := r.m.vendor
		v.mu.Lock()
		if v.expired = r.hitch.how == tokenExpires; !v.expired {
			v.forget()
		}
		v.mu.Unlock()
	}
	return effect()
}

func (r *modelRun) CreateJob(ctx context.Context, request pipeline.JobRequest) (id string, err error) {
	err = r.call("CreateJob", func() (err error) {
		id, err = r.m.vendor.CreateJob(ctx, request)
		return err
	})
	return id, err
}

func (r *modelRun) Job(ctx context.Context, jobID string) (status pipeline.JobStatus, err error) {
	err = r.call("Job", func() (err error) {
		status, err = r.m.vendor.Job(ctx, jobID)
		return err
	})
	return status, err
}

func (r *modelRun) Start(jobID string) string { return r.m.vendor.Start(jobID) }

func (r *modelRun) Page(ctx context.Context, jobID, marker string) (p pipeline.Page, err error) {
	err = r.call("Page", func() (err error) {
		p, err = r.m.vendor.Page(ctx, jobID, marker)
		return err
	})
	return p, err
}

func (r *modelRun) Windows(ctx context.Context, stream string, scope pipeline.Scope) ([]pipeline.WindowState, error) {
	return r.db.Windows(ctx, stream, scope)
}

func (r *modelRun) LiveJobs(ctx context.Context, stream string, scope pipeline.Scope) (jobs []pipeline.Job, err error) {
	err = r.call("LiveJobs", func() (err error) {
		jobs, err = r.db.LiveJobs(ctx, stream, scope)
		return err
	})
	return jobs, err
}

func (r *modelRun) SaveJob(ctx context.Context, job pipeline.Job) (saved pipeline.Job, err error) {
	err = r.call("SaveJob", func() (err error) {
		saved, err = r.db.SaveJob(ctx, job)
		return err
	})
	return saved, err
}

func (r *modelRun) UpdateJob(ctx context.Context, job pipeline.Job) error {
	return r.call("UpdateJob", func() error { return r.db.UpdateJob(ctx, job) })
}

func (r *modelRun) Publish(ctx context.Context, replacement pipeline.Replacement) (outcomes []pipeline.Outcome, err error) {
	err = r.call("Publish", func() (err error) {
		r.mu.Lock()
		fenced := r.fenced
		r.mu.Unlock()
		outcomes, err = r.db.Publish(ctx, r.disturbed(replacement))
		if fenced && err == nil {
			r.m.problem("a run published after a second writer had taken its lease: %+v", outcomes)
		}
		return err
	})
	return outcomes, err
}

// disturbed makes the rows of a publication bring about what the hitch says of the transaction.
func (r *modelRun) disturbed(replacement pipeline.Replacement) pipeline.Replacement {
	amid := map[string]func() error{
		stopsInRows:  func() error { r.stop(errHitch); return nil },
		failsInRows:  func() error { return errHitch },
		losesCommit:  func() error { r.m.fixture.proxy.cutNext(cutRequest); return nil },
		losesCommits: func() error { r.m.fixture.proxy.cutNext(cutAnswer); return nil },
	}[r.hitch.how]
	if amid == nil {
		return replacement
	}
	replacement.Publish = slices.Clone(replacement.Publish)
	for i := range replacement.Publish {
		rows := replacement.Publish[i].Rows
		replacement.Publish[i].Rows = before(rows, func(n int) error {
			if r.hit || n < r.hitch.nth-1 {
				return nil
			}
			r.hit = true
			return amid()
		})
	}
	return replacement
}

func (r *modelRun) Open(key pipeline.LandingKey) (file pipeline.LandingFile, err error) {
	err = r.call("Open", func() error {
		opened, err := r.land.Open(key)
		if err == nil {
			file = &modelFile{LandingFile: opened, r: r}
			r.mu.Lock()
			r.files = append(r.files, file)
			r.mu.Unlock()
		}
		return err
	})
	return file, err
}

// end closes what the run left open, as the end of a process does: a panic leaves its landing file locked until then.
func (r *modelRun) end() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(append(errs, r.land.Close())...)
}

func (r *modelRun) Discard(key pipeline.LandingKey) error {
	return r.call("Discard", func() error { return r.land.Discard(key) })
}

func (r *modelRun) Keep(key pipeline.LandingKey, windowID int64, generation int) error {
	return r.call("Keep", func() error { return r.land.Keep(key, windowID, generation) })
}

func (r *modelRun) Kept(w pipeline.Window, windowID int64, generation int) (pipeline.LandingKey, iter.Seq2[pipeline.Page, error], error) {
	return r.land.Kept(w, windowID, generation)
}

type modelFile struct {
	pipeline.LandingFile
	r      *modelRun
	closed bool
}

func (f *modelFile) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	return f.LandingFile.Close()
}

func (f *modelFile) Append(p pipeline.Page) error {
	return f.r.call("Append", func() error { return f.LandingFile.Append(p) })
}

func (f *modelFile) Restart() error { return f.r.call("Restart", f.LandingFile.Restart) }

// difference returns the members of a that b lacks, both sorted multisets.
func difference[T cmp.Ordered](a, b []T) (missing []T) {
	for i, j := 0, 0; i < len(a); {
		switch {
		case j == len(b) || a[i] < b[j]:
			missing = append(missing, a[i])
			i++
		case a[i] == b[j]:
			i, j = i+1, j+1
		default:
			j++
		}
	}
	return missing
}
