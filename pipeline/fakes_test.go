package pipeline_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// vendor is a Source that serves elements by file date. Its jobs are frozen when they are created, as pages with markers of their own;
// tests change them afterwards. Page bodies are overwritten when they are released, so that whoever keeps one is found out.
type vendor struct {
	mu       sync.Mutex
	files    map[pipeline.Date][]string // elements by file date
	layout   func(job int, elements []string) [][]string
	list     func(job int) []vendorPage // if set, the pages of each job: it serves a list instead of files
	polls    int                        // how often a job says running before success
	jobs     []*vendorJob
	problems []string

	outstanding, mostOutstanding int // pages that are not released

	// What goes wrong, if set. They are called without the lock.
	onCreate func(number int) error
	onPoll   func(j *vendorJob) (pipeline.JobStatus, error) // instead of the usual answer
	onPage   func(j *vendorJob, page int) error             // before the usual answer
}

type vendorJob struct {
	number  int // from 1
	id      string
	request pipeline.JobRequest
	pages   []vendorPage
	polled  int
	asked   []int // pages, from 1, in the order they were asked for
}

type vendorPage struct {
	marker string // that asks for the page
	next   string
	data   string // the JSON array or the one record, "" for a page that has none
}

// inPagesOf lays elements out in pages of n, of which the last may be full.
func inPagesOf(n int) func(int, []string) [][]string {
	return func(_ int, elements []string) [][]string {
		if len(elements) == 0 {
			return [][]string{nil}
		}
		return slices.Collect(slices.Chunk(elements, n))
	}
}

// unevenly lays elements out differently for each job: page sizes rise and fall, and one page in the middle is empty.
func unevenly(job int, elements []string) [][]string {
	var pages [][]string
	for size := 2 + job%3; len(elements) > 0; size = 2 + (size+job)%4 {
		n := min(size, len(elements))
		pages, elements = append(pages, elements[:n]), elements[n:]
		if len(pages) == 2 {
			pages = append(pages, nil)
		}
	}
	if len(pages) == 0 {
		return [][]string{nil}
	}
	return pages
}

func (v *vendor) createJob(ctx context.Context, request pipeline.JobRequest) (string, error) {
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	number := len(v.jobs) + 1
	if v.onCreate != nil {
		if err := v.onCreate(number); err != nil {
			return "", err
		}
	}
	j := &vendorJob{number: number, id: fmt.Sprintf("job-%d", number), request: request}
	v.prepare(j)
	v.jobs = append(v.jobs, j)
	return j.id, nil
}

// prepare makes the pages of a job out of what the files hold now.
func (v *vendor) prepare(j *vendorJob) {
	if v.list != nil {
		j.pages = v.list(j.number)
		return
	}
	var elements []string
	for _, day := range slices.Sorted(maps.Keys(v.files)) {
		if text := day.String() + " 00:00:00"; text >= j.request.Min && text < j.request.Max {
			elements = append(elements, v.files[day]...)
		}
	}
	pages := v.layout(j.number, elements)
	j.pages = nil
	marker := ""
	for i, p := range pages {
		next := fmt.Sprintf("%s+/%d==", j.id, i+2)
		if i == len(pages)-1 {
			next = ""
		}
		data := ""
		if p != nil {
			data = "[" + strings.Join(p, ", ") + "]"
		}
		j.pages = append(j.pages, vendorPage{marker, next, data})
		marker = next
	}
}

func (v *vendor) find(jobID string) *vendorJob {
	for _, j := range v.jobs {
		if j.id == jobID {
			return j
		}
	}
	return nil
}

func (v *vendor) job(ctx context.Context, jobID string) (pipeline.JobStatus, error) {
	if ctx.Err() != nil {
		return pipeline.JobStatus{}, ctx.Err()
	}
	v.mu.Lock()
	j := v.find(jobID)
	if j == nil {
		v.mu.Unlock()
		return pipeline.JobStatus{}, fmt.Errorf("job %s: %w", jobID, pipeline.ErrJobForgotten)
	}
	j.polled++
	polled, onPoll := j.polled, v.onPoll
	v.mu.Unlock()
	if onPoll != nil {
		return onPoll(j)
	}
	if polled <= v.polls {
		return pipeline.JobStatus{State: pipeline.JobRunning, Progress: 100 * polled / (v.polls + 1)}, nil
	}
	return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
}

// start returns the marker of a job's first page.
func (v *vendor) start(jobID string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if j := v.find(jobID); j != nil {
		return j.pages[0].marker
	}
	return ""
}

func (v *vendor) page(ctx context.Context, jobID, marker string) (pipeline.Page, error) {
	if ctx.Err() != nil {
		return pipeline.Page{}, ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	j := v.find(jobID)
	if j == nil {
		return pipeline.Page{}, fmt.Errorf("job %s: %w", jobID, pipeline.ErrJobForgotten)
	}
	i := slices.IndexFunc(j.pages, func(p vendorPage) bool { return p.marker == marker })
	if i < 0 {
		v.problems = append(v.problems, fmt.Sprintf("%s was asked for the marker %q, which it never gave", jobID, marker))
		return pipeline.Page{}, errors.New("no such marker")
	}
	j.asked = append(j.asked, i+1)
	if v.onPage != nil {
		if err := v.onPage(j, i+1); err != nil {
			return pipeline.Page{}, err
		}
	}
	p := j.pages[i]
	before := fmt.Sprintf(`{"job": %q, "data": `, jobID)
	body := []byte(fmt.Sprintf("%s%s, \"marker\": %q}", before, cmp.Or(p.data, "null"), p.next))
	v.outstanding++
	v.mostOutstanding = max(v.mostOutstanding, v.outstanding)
	released := false
	page := pipeline.Page{Next: p.next, Body: body, Release: func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if released {
			v.problems = append(v.problems, fmt.Sprintf("page %d of %s was released twice", i+1, jobID))
		}
		released = true
		v.outstanding--
		for k := range body {
			body[k] = '#'
		}
	}}
	if p.data != "" {
		page.Data = body[len(before) : len(before)+len(p.data)]
	}
	return page, nil
}

// asked returns which pages of the number-th job were asked for so far.
func (v *vendor) asked(number int) []int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.jobs[number-1].asked)
}

func (v *vendor) created() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.jobs)
}

// memoryLedger is a Ledger that holds publications to their contract and keeps what was published as text.
type memoryLedger struct {
	mu       sync.Mutex
	now      pipeline.Clock
	token    int64 // of the lease that is held
	jobs     []pipeline.Job
	windows  []*storedWindow
	problems []string
	writes   int // publications that changed something, checks noted included

	text      func(*record.Row) string           // how rows are kept
	onPublish func(r pipeline.Replacement) error // before anything is written, if set
}

type storedWindow struct {
	state   pipeline.WindowState
	rows    []string // sorted
	rejects []pipeline.Rejected
	dates   map[pipeline.Date]int64
	unknown map[string]int64
	retired bool
}

func (l *memoryLedger) liveWindows() (states []pipeline.WindowState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.windows {
		if !w.retired {
			states = append(states, w.state)
		}
	}
	slices.SortFunc(states, func(a, b pipeline.WindowState) int { return int(a.From - b.From) })
	return states
}

func (l *memoryLedger) liveJobs(scope pipeline.Scope) (live []pipeline.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range slices.Backward(l.jobs) {
		if j.Window.Scope == scope && (j.State == pipeline.StateOpen || j.State == pipeline.StateLanded) {
			live = append(live, j)
		}
	}
	return live
}

func (l *memoryLedger) saveJob(job pipeline.Job) pipeline.Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	job.Row = int64(len(l.jobs) + 1)
	l.jobs = append(l.jobs, job)
	return job
}

func (l *memoryLedger) updateJob(job pipeline.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := &l.jobs[job.Row-1]
	if old.State != pipeline.StateOpen && old.State != pipeline.StateLanded {
		l.problems = append(l.problems, fmt.Sprintf("job %d was %s and is now %s", job.Row, old.State, job.State))
	}
	if old.ID != job.ID || old.Request != job.Request || !old.CreatedAt.Equal(job.CreatedAt) {
		l.problems = append(l.problems, fmt.Sprintf("job %d became another: %+v", job.Row, job))
	}
	*old = job
}

// state returns the state of the job in row.
func (l *memoryLedger) state(row int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.jobs[row-1].State
}

func (l *memoryLedger) states() (states []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range l.jobs {
		states = append(states, j.State)
	}
	return states
}

// window returns what stands in the window that begins at from, nil if nothing does.
func (l *memoryLedger) window(from pipeline.Date) *storedWindow {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.windows {
		if w.state.From == from && !w.retired {
			return w
		}
	}
	return nil
}

// read ranges the publication's rows and rejects and holds them to what was surveyed.
func (l *memoryLedger) read(p pipeline.Publication) (*storedWindow, error) {
	w := &storedWindow{dates: map[pipeline.Date]int64{}, unknown: p.UnknownFields}
	var records, quarantined record.Digest
	for row, err := range p.Rows {
		if err != nil {
			return nil, err
		}
		records.Add(row.Hash)
		w.dates[row.UsageDate]++
		w.rows = append(w.rows, l.text(row))
	}
	for r, err := range p.Rejects {
		if err != nil {
			return nil, err
		}
		quarantined.Add(r.RawHash)
		r.Raw = bytes.Clone(r.Raw)
		w.rejects = append(w.rejects, r)
	}
	slices.Sort(w.rows)
	if records != p.Records || quarantined != p.Quarantined || !maps.Equal(w.dates, p.UsageDates) {
		return nil, fmt.Errorf("job %d yields %s and %s of %v, and promised %s and %s of %v",
			p.Job.Row, records, quarantined, w.dates, p.Records, p.Quarantined, p.UsageDates)
	}
	return w, nil
}

func (l *memoryLedger) publish(ctx context.Context, r pipeline.Replacement) ([]pipeline.Outcome, error) {
	var stored []*storedWindow
	for _, p := range r.Publish {
		// A pass that ends early, as after a lost connection, leaves the next ones whole.
		for range p.Rows {
			break
		}
		for range p.Rejects {
			break
		}
		first, err := l.read(p)
		if err != nil {
			return nil, err
		}
		second, err := l.read(p)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(first.rows, second.rows) || !slices.EqualFunc(first.rejects, second.rejects, equalRejects) {
			return nil, fmt.Errorf("job %d yields other rows the second time", p.Job.Row)
		}
		stored = append(stored, first)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if l.onPublish != nil {
		if err := l.onPublish(r); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.LeaseToken != l.token {
		return nil, pipeline.ErrFenced
	}
	// All or nothing: what follows works on copies of the windows.
	windows := make([]*storedWindow, len(l.windows))
	for i, w := range l.windows {
		c := *w
		windows[i] = &c
		if slices.ContainsFunc(r.Retire, func(s pipeline.WindowState) bool { return s.ID == w.state.ID }) {
			windows[i].retired = true
		}
	}
	jobs := slices.Clone(l.jobs)
	writes := 0
	var outcomes []pipeline.Outcome
	for i, p := range r.Publish {
		w := p.Job.Window
		at := slices.IndexFunc(windows, func(s *storedWindow) bool {
			return !s.retired && s.state.Scope == w.Scope && s.state.From == w.From
		})
		if at < 0 {
			at = len(windows)
			windows = append(windows, &storedWindow{state: pipeline.WindowState{Window: w, ID: int64(at + 1)}})
		}
		old := windows[at]
		if j := jobs[p.Job.Row-1]; !r.Replay && j.State != pipeline.StateLanded {
			return nil, fmt.Errorf("job %d is published while it is %s", j.Row, j.State)
		}
		outcome := pipeline.Outcome{WindowID: old.state.ID, Generation: old.state.Generation, ToBefore: old.state.To}
		switch had, got := old.state.Records.Count, p.Records.Count; {
		case old.state.Generation > 0 && old.state.Records == p.Records && old.state.Quarantined == p.Quarantined:
			outcome.Unchanged = true
			if r.Replay {
				outcomes = append(outcomes, outcome)
				continue
			}
			old.state.To, old.state.JobCreatedAt, old.state.CheckedAt = w.To, p.Job.CreatedAt, l.now()
			jobs[p.Job.Row-1].State = pipeline.StateUnchanged
		case !r.AcceptShrink && len(r.Retire) == 0 && had > 0 && (got == 0 || float64(got) < r.MinRatio*float64(had)):
			return nil, &pipeline.ShrinkError{Stream: r.Stream, Window: w, Had: had, Got: got}
		default:
			outcome.Generation++
			outcome.Restated = old.state.Generation > 0
			stored[i].state = pipeline.WindowState{
				Window: w, ID: old.state.ID, Generation: outcome.Generation, Records: p.Records, Quarantined: p.Quarantined,
				MissingAmounts: p.MissingAmounts, JobRow: p.Job.Row, JobCreatedAt: p.Job.CreatedAt, PublishedAt: l.now(), CheckedAt: l.now(),
			}
			windows[at] = stored[i]
			jobs[p.Job.Row-1].State = pipeline.StatePublished
		}
		writes++
		outcomes = append(outcomes, outcome)
	}
	for i, a := range windows {
		for _, b := range windows[:i] {
			if !a.retired && !b.retired && a.state.Scope == b.state.Scope && a.state.Overlaps(b.state.Window) {
				return nil, fmt.Errorf("%s overlaps %s", a.state.Window, b.state.Window)
			}
		}
	}
	l.windows, l.jobs, l.writes = windows, jobs, l.writes+writes
	return outcomes, nil
}

func equalRejects(a, b pipeline.Rejected) bool {
	return a.Reject == b.Reject && a.Page == b.Page && a.Position == b.Position && a.Ordinal == b.Ordinal && bytes.Equal(a.Raw, b.Raw)
}

// rowText writes the fields that these tests set.
func rowText(row *record.Row) string {
	value := func(name string) string {
		v := row.Values[schemas.SDR().Index(name)]
		if !v.Valid {
			return "NULL"
		}
		return string(v.Bytes)
	}
	begin := time.UnixMicro(row.Values[schemas.SDR().Index("begin_time")].Int).UTC().Format("2006-01-02T15:04")
	return fmt.Sprintf("%s %s %s usage %s #%d", value("resource_id"), value("accumulate_factor_value"), begin, row.UsageDate, row.Ordinal)
}

// outside is all that an engine calls: it implements Source, Ledger and Landing over the world, counts the calls, and breaks one.
type outside struct {
	w      *world
	mu     sync.Mutex
	calls  []string
	seen   int    // calls that the fault may hit
	broken string // the call that broke
	dead   bool   // no call has an effect any more
	fault  fault
}

// fault is how the at-th call, from 1, goes wrong; with a name only calls of that name count.
type fault struct {
	name string
	at   int
	how  faultMode
	stop context.CancelCauseFunc
}

type faultMode string

const (
	failBefore faultMode = "fails before its effect"
	failAfter  faultMode = "has its effect and loses its answer"
	stopBefore faultMode = "is asked to stop"
	stopAfter  faultMode = "is asked to stop after it"
	dieBefore  faultMode = "is killed before it"
	dieAfter   faultMode = "is killed after it"
)

var faultModes = []faultMode{failBefore, failAfter, stopBefore, stopAfter, dieBefore, dieAfter}

var (
	errInjected = errors.New("injected fault")
	errKilled   = errors.New("killed")
	errStop     = errors.New("asked to stop by the test")
)

func (o *outside) call(name string, effect func() error) error {
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		return errKilled
	}
	o.calls = append(o.calls, name)
	if o.fault.name == "" || o.fault.name == name {
		o.seen++
	}
	hit := o.seen == o.fault.at && o.broken == ""
	if hit {
		o.broken = name
		o.dead = o.fault.how == dieBefore || o.fault.how == dieAfter
	}
	o.mu.Unlock()
	if !hit {
		return effect()
	}
	switch o.fault.how {
	case failBefore, dieBefore:
		return errInjected
	case failAfter, dieAfter:
		return errors.Join(effect(), errInjected)
	case stopBefore:
		o.fault.stop(errStop)
		return effect()
	case stopAfter:
		defer o.fault.stop(errStop)
		return effect()
	}
	panic("no such fault: " + o.fault.how)
}

func (o *outside) CreateJob(ctx context.Context, request pipeline.JobRequest) (id string, err error) {
	err = o.call("CreateJob", func() (err error) {
		id, err = o.w.vendor.createJob(ctx, request)
		return err
	})
	return id, err
}

func (o *outside) Job(ctx context.Context, jobID string) (status pipeline.JobStatus, err error) {
	err = o.call("Job", func() (err error) {
		status, err = o.w.vendor.job(ctx, jobID)
		return err
	})
	return status, err
}

// Start is no call: it has nobody to ask.
func (o *outside) Start(jobID string) string { return o.w.vendor.start(jobID) }

func (o *outside) Page(ctx context.Context, jobID, marker string) (page pipeline.Page, err error) {
	err = o.call("Page", func() (err error) {
		page, err = o.w.vendor.page(ctx, jobID, marker)
		return err
	})
	if err != nil && page.Release != nil {
		page.Release() // with an error there is no page
		page = pipeline.Page{}
	}
	return page, err
}

func (o *outside) Windows(ctx context.Context, _ string, _ pipeline.Scope) (states []pipeline.WindowState, err error) {
	err = o.call("Windows", func() error {
		states = o.w.ledger.liveWindows()
		return ctx.Err()
	})
	return states, err
}

func (o *outside) LiveJobs(ctx context.Context, _ string, scope pipeline.Scope) (jobs []pipeline.Job, err error) {
	err = o.call("LiveJobs", func() error {
		jobs = o.w.ledger.liveJobs(scope)
		return ctx.Err()
	})
	return jobs, err
}

func (o *outside) SaveJob(ctx context.Context, job pipeline.Job) (saved pipeline.Job, err error) {
	err = o.call("SaveJob", func() error {
		if ctx.Err() == nil {
			saved = o.w.ledger.saveJob(job)
		}
		return ctx.Err()
	})
	return saved, err
}

func (o *outside) UpdateJob(ctx context.Context, job pipeline.Job) error {
	return o.call("UpdateJob "+job.State, func() error {
		if ctx.Err() == nil {
			o.w.ledger.updateJob(job)
		}
		return ctx.Err()
	})
}

func (o *outside) Publish(ctx context.Context, r pipeline.Replacement) (outcomes []pipeline.Outcome, err error) {
	err = o.call("Publish", func() (err error) {
		outcomes, err = o.w.ledger.publish(ctx, r)
		return err
	})
	return outcomes, err
}

func (o *outside) Open(key pipeline.LandingKey) (file pipeline.LandingFile, err error) {
	err = o.call("Open", func() error {
		inner, err := o.w.landing.Open(key)
		if err == nil {
			file = &outsideFile{LandingFile: inner, o: o, key: key}
		}
		return err
	})
	if err != nil && file != nil {
		return nil, errors.Join(err, file.Close()) // with an error there is no file
	}
	return file, err
}

func (o *outside) Discard(key pipeline.LandingKey) error {
	return o.call("Discard", func() error {
		err := o.w.landing.Discard(key)
		if err == nil {
			o.w.setLanded(key.JobRow, 0)
		}
		return err
	})
}

func (o *outside) Keep(key pipeline.LandingKey, windowID int64, generation int) error {
	return o.call("Keep", func() error { return o.w.landing.Keep(key, windowID, generation) })
}

func (o *outside) Kept(w pipeline.Window, windowID int64, generation int) (key pipeline.LandingKey, pages iter.Seq2[pipeline.Page, error], err error) {
	err = o.call("Kept", func() (err error) {
		key, pages, err = o.w.landing.Kept(w, windowID, generation)
		return err
	})
	return key, pages, err
}

// outsideFile is an open landing file, which must only ever hold pages of its own job.
type outsideFile struct {
	pipeline.LandingFile
	o   *outside
	key pipeline.LandingKey
}

func (f *outsideFile) Append(p pipeline.Page) error {
	return f.o.call("Append", func() error {
		if own := fmt.Sprintf(`{"job": %q,`, f.key.JobID); !bytes.HasPrefix(p.Body, []byte(own)) {
			f.o.w.problem("the landing file of %s got the page %.60q", f.key.JobID, p.Body)
		}
		err := f.LandingFile.Append(p)
		if err == nil {
			f.o.w.setLanded(f.key.JobRow, f.Frames())
		}
		return err
	})
}

func (f *outsideFile) Last() (p pipeline.Page, err error) {
	err = f.o.call("Last", func() (err error) {
		p, err = f.LandingFile.Last()
		return err
	})
	return p, err
}

func (f *outsideFile) Restart() error {
	return f.o.call("Restart", func() error {
		err := f.LandingFile.Restart()
		if err == nil {
			f.o.w.setLanded(f.key.JobRow, 0)
		}
		return err
	})
}

func (f *outsideFile) Pages() iter.Seq2[pipeline.Page, error] {
	return func(yield func(pipeline.Page, error) bool) {
		if err := f.o.call("Pages", func() error { return nil }); err != nil {
			for p, err := range f.LandingFile.Pages() { // it breaks after the first page
				if !yield(p, err) {
					return
				}
				break
			}
			yield(pipeline.Page{}, err)
			return
		}
		f.LandingFile.Pages()(yield)
	}
}

// memoryLanding is a Landing without a disk, for tests that need thousands. What is kept is not pruned.
type memoryLanding struct {
	mu    sync.Mutex
	files map[int64]*memoryFile // by job row
	kept  map[[2]int64]*memoryFile
}

type memoryFile struct {
	key    pipeline.LandingKey
	pages  []pipeline.Page
	locked bool
	over   bool // kept or discarded
}

// Open implements pipeline.Landing.
func (l *memoryLanding) Open(key pipeline.LandingKey) (pipeline.LandingFile, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[key.JobRow]
	if f == nil || f.key != key {
		f = &memoryFile{key: key}
		l.files[key.JobRow] = f
	}
	if f.locked {
		return nil, pipeline.ErrLandingLocked
	}
	f.locked = true
	return f, nil
}

// Discard implements pipeline.Landing.
func (l *memoryLanding) Discard(key pipeline.LandingKey) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[key.JobRow]; f != nil {
		f.over = true
		delete(l.files, key.JobRow)
	}
	return nil
}

// Keep implements pipeline.Landing.
func (l *memoryLanding) Keep(key pipeline.LandingKey, windowID int64, generation int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[key.JobRow]; f != nil {
		f.over = true
		l.kept[[2]int64{windowID, int64(generation)}] = f
		delete(l.files, key.JobRow)
	}
	return nil
}

// Kept implements pipeline.Landing.
func (l *memoryLanding) Kept(_ pipeline.Window, windowID int64, generation int) (pipeline.LandingKey, iter.Seq2[pipeline.Page, error], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.kept[[2]int64{windowID, int64(generation)}]
	if f == nil {
		return pipeline.LandingKey{}, nil, fs.ErrNotExist
	}
	return f.key, f.Pages(), nil
}

// clonePage copies what p's buffer holds.
func clonePage(p pipeline.Page) pipeline.Page {
	c := pipeline.Page{Asked: p.Asked, Next: p.Next, Body: bytes.Clone(p.Body)}
	if at := bytes.Index(p.Body, p.Data); len(p.Data) > 0 {
		c.Data = c.Body[at : at+len(p.Data)]
	}
	return c
}

// Pages implements pipeline.LandingFile. A page is overwritten when the next one is read.
func (f *memoryFile) Pages() iter.Seq2[pipeline.Page, error] {
	return func(yield func(pipeline.Page, error) bool) {
		for _, p := range f.pages {
			p = clonePage(p)
			more := yield(p, nil)
			for i := range p.Body {
				p.Body[i] = '#'
			}
			if !more {
				return
			}
		}
	}
}

// Frames implements pipeline.LandingFile.
func (f *memoryFile) Frames() int { return len(f.pages) }

// Last implements pipeline.LandingFile.
func (f *memoryFile) Last() (pipeline.Page, error) {
	if len(f.pages) == 0 {
		return pipeline.Page{}, errors.New("there is no page")
	}
	return clonePage(f.pages[len(f.pages)-1]), nil
}

// Complete implements pipeline.LandingFile.
func (f *memoryFile) Complete() bool {
	return len(f.pages) > 0 && f.pages[len(f.pages)-1].Next == ""
}

// Append implements pipeline.LandingFile.
func (f *memoryFile) Append(p pipeline.Page) error {
	follows := len(f.pages) == 0 || p.Asked == f.pages[len(f.pages)-1].Next
	if f.over || f.Complete() || !follows {
		return fmt.Errorf("the page asked with %q does not follow %d pages", p.Asked, len(f.pages))
	}
	f.pages = append(f.pages, clonePage(p))
	return nil
}

// Restart implements pipeline.LandingFile.
func (f *memoryFile) Restart() error {
	f.pages = nil
	return nil
}

// Size implements pipeline.LandingFile.
func (f *memoryFile) Size() int64 { return int64(100 * len(f.pages)) }

// Close implements pipeline.LandingFile.
func (f *memoryFile) Close() error {
	f.locked = false
	return nil
}

// world is everything that outlives an engine.
type world struct {
	t       testing.TB
	scope   pipeline.Scope
	vendor  *vendor
	ledger  *memoryLedger
	landing pipeline.Landing
	dir     *landing.Dir // that landing is, in most tests
	path    string       // of its folder
	cfg     pipeline.EngineConfig

	mu       sync.Mutex
	clock    time.Time
	landed   map[int64]int // pages in the landing file of each job row
	problems []string
}

const leaseToken = 7

// openLanding opens a real folder of landing files.
func openLanding(t testing.TB, path string) *landing.Dir {
	t.Helper()
	dir, err := landing.Open(path, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newWorld(t testing.TB) *world {
	t.Helper()
	path := t.TempDir()
	dir := openLanding(t, path)
	w := newWorldIn(t, dir, testScope, path)
	w.dir, w.path = dir, path
	return w
}

func newWorldIn(t testing.TB, dir pipeline.Landing, scope pipeline.Scope, spill string) *world {
	t.Helper()
	w := &world{t: t, scope: scope, landing: dir, clock: time.Date(2024, 6, 15, 2, 0, 0, 0, time.UTC), landed: map[int64]int{}}
	w.vendor = &vendor{files: map[pipeline.Date][]string{}, layout: unevenly, polls: 1}
	w.ledger = &memoryLedger{now: w.now, token: leaseToken, text: rowText}
	w.cfg = pipeline.EngineConfig{
		Stream: schemas.SDR(), DomainID: "d0", RunID: 1, Leases: map[pipeline.StreamScope]int64{{Stream: "sdr", Scope: scope}: leaseToken}, Parallel: 1,
		JobDeadline: 6 * time.Hour, AdoptMaxAge: 24 * time.Hour, PollInitial: time.Microsecond, PollMax: time.Microsecond, MinRatio: 0.5, QuarantineMax: 0.01,
		SourceZone: time.UTC, FileZone: time.UTC, SpillDir: spill, Now: w.now, Log: zap.NewNop(),
	}
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

func (w *world) setLanded(row int64, pages int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.landed[row] = pages
}

func (w *world) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// engine returns an engine and what it sees of the world.
func (w *world) engine(f fault) (*pipeline.Engine, *outside) {
	o := &outside{w: w, fault: f}
	return pipeline.NewEngine(o, o, o, w.cfg), o
}

// run pulls windows with an engine of their own, and checks that it leaves no page unreleased.
func (w *world) run(windows ...pipeline.Window) []pipeline.Result {
	w.t.Helper()
	return w.runPlan(w.t.Context(), fault{}, planOf(windows...))
}

func planOf(windows ...pipeline.Window) []pipeline.Planned {
	var plan []pipeline.Planned
	for _, window := range windows {
		plan = append(plan, pipeline.Planned{Window: window})
	}
	return plan
}

func (w *world) runPlan(ctx context.Context, f fault, plan []pipeline.Planned) []pipeline.Result {
	w.t.Helper()
	engine, _ := w.engine(f)
	results := engine.Run(ctx, plan)
	w.check()
	return results
}

// mustRun is run that fails the test unless the windows end with the status.
func (w *world) mustRun(want pipeline.Status, windows ...pipeline.Window) []pipeline.Result {
	w.t.Helper()
	results := w.run(windows...)
	for _, r := range results {
		if r.Status != want || (r.Err != nil) != (want == pipeline.Failed) {
			w.t.Fatalf("%s: got %s, %v, want %s", r.Window, r.Status, r.Err, want)
		}
	}
	return results
}

// mustFail runs one window, which must fail with an error that says all the parts, and returns it.
func (w *world) mustFail(window pipeline.Window, parts ...string) error {
	w.t.Helper()
	err := w.mustRun(pipeline.Failed, window)[0].Err
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			w.t.Errorf("the error is %q, want it to say %q", err, part)
		}
	}
	return err
}

// check fails the test for whatever the fakes found wrong.
func (w *world) check() {
	w.t.Helper()
	w.vendor.mu.Lock()
	defer w.vendor.mu.Unlock()
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range slices.Concat(w.vendor.problems, w.ledger.problems, w.problems) {
		w.t.Errorf("%s", p)
	}
	if w.path != "" {
		entries, err := os.ReadDir(w.path)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			if !e.IsDir() {
				w.t.Errorf("%s is left in the folder for what is spilled", e.Name())
			}
		}
	}
	if w.vendor.outstanding != 0 {
		w.t.Errorf("%d pages were not released", w.vendor.outstanding)
	}
}

// interruptAfter lets every job fail once it has given n pages, until the returned function is called.
func (w *world) interruptAfter(n int) (resume func()) {
	w.vendor.onPage = func(_ *vendorJob, page int) error {
		if page > n {
			return errInjected
		}
		return nil
	}
	return func() { w.vendor.onPage = nil }
}

// element is a record as the vendor sends it.
func element(resource, value, begin string) string {
	return fmt.Sprintf(`{"resource_id": %q, "accumulate_factor_value": %q, "begin_time": %q}`, resource, value, begin)
}

// fill puts n different records into each file date of [from, to), and returns the rows that they become.
func (w *world) fill(from, to pipeline.Date, n int) (rows []string) {
	for day := from; day < to; day++ {
		for i := range n {
			id, begin := fmt.Sprintf("vm-%s-%d", day, i), day.Time(time.UTC).Add(time.Duration(i%24)*time.Hour)
			w.vendor.files[day] = append(w.vendor.files[day], element(id, fmt.Sprint(i+1), begin.Format("20060102150405")))
			rows = append(rows, fmt.Sprintf("%s %d %s usage %s #0", id, i+1, begin.Format("2006-01-02T15:04"), day))
		}
	}
	slices.Sort(rows)
	return rows
}

// wantRows fails the test unless the window that begins at from is published in that generation with just these rows.
func (w *world) wantRows(from pipeline.Date, generation int, want []string) {
	w.t.Helper()
	stored := w.ledger.window(from)
	if stored == nil {
		w.t.Errorf("no window begins at %s, want %d rows", from, len(want))
		return
	}
	if stored.state.Generation != generation {
		w.t.Errorf("window %s has generation %d, want %d", stored.state.Window, stored.state.Generation, generation)
	}
	if !slices.Equal(stored.rows, want) {
		w.t.Errorf("window %s has the rows\n%s\nwant\n%s", stored.state.Window, strings.Join(stored.rows, "\n"), strings.Join(want, "\n"))
	}
}

// wantStates fails the test unless the ledger's jobs stand so, in the order they were created in.
func (w *world) wantStates(want ...string) {
	w.t.Helper()
	if got := w.ledger.states(); !slices.Equal(got, want) {
		w.t.Errorf("the jobs are %q, want %q", got, want)
	}
}

// wantAsked fails the test unless these pages of the number-th job were asked for, in this order, over all runs.
func (w *world) wantAsked(number int, want ...int) {
	w.t.Helper()
	if got := w.vendor.asked(number); !slices.Equal(got, want) {
		w.t.Errorf("of job %d the pages %v were asked for, want %v", number, got, want)
	}
}

// wantLanding fails the test unless so many landing files are left, those kept included.
func (w *world) wantLanding(want int) {
	w.t.Helper()
	_, files, err := w.dir.Usage()
	if err != nil {
		w.t.Fatal(err)
	}
	if files != want {
		w.t.Errorf("%d landing files are left, want %d", files, want)
	}
}

// upTo returns 1 to n.
func upTo(n int) (numbers []int) {
	for i := range n {
		numbers = append(numbers, i+1)
	}
	return numbers
}
