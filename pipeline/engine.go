package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// EngineConfig says how windows are pulled and published. Every field is needed unless it says otherwise.
type EngineConfig struct {
	Stream        *schemas.Stream
	DomainID      string
	RunID         int64
	Leases        map[StreamScope]int64 // fencing tokens
	Parallel      int                   // windows at once
	JobDeadline   time.Duration         // how long a job may take until success, from its creation
	AdoptMaxAge   time.Duration         // an older job answers for nothing any more; 0 for lists, of which no earlier reading does
	PollInitial   time.Duration
	PollMax       time.Duration
	MinRatio      float64
	QuarantineMax float64 // share of a window's records, 0 to 1
	AcceptShrink  bool
	SourceZone    *time.Location
	FileZone      *time.Location // of windows: of file dates; for events it is SourceZone
	IgnoreFields  []string
	SpillDir      string // for the hashes of a window under way; beside the landing files
	Now           Clock
	Log           *zap.Logger
	Observe       func(Event) // optional; called from several goroutines
}

// Engine takes windows from query job to published rows.
type Engine struct {
	source  Source
	ledger  Ledger
	landing Landing
	cfg     EngineConfig
}

// NewEngine returns an engine over the three.
func NewEngine(source Source, ledger Ledger, landing Landing, cfg EngineConfig) *Engine {
	if cfg.Observe == nil {
		cfg.Observe = func(Event) {}
	}
	return &Engine{source: source, ledger: ledger, landing: landing, cfg: cfg}
}

// Phase is where a window stands.
type Phase string

// The phases of a window, in order.
const (
	PhaseJob     Phase = "job"     // the vendor prepares the records
	PhaseDrain   Phase = "drain"   // pages are landed
	PhasePublish Phase = "publish" // rows are published
	PhaseDone    Phase = "done"
)

// Event tells how a window gets on.
type Event struct {
	Stream   string
	Window   Window
	Phase    Phase
	Progress int // of the job, percent
	Pages    int64
	Records  int64
	Result   *Result // with PhaseDone
}

// Status is how a window ended.
type Status string

// The ends of a window.
const (
	Published Status = "published"
	Unchanged Status = "unchanged"
	Skipped   Status = "skipped"
	Failed    Status = "failed"
)

// Result is what became of one planned window.
type Result struct {
	Window      Window
	Status      Status
	Reason      string // of a skip
	Err         error  // of a failure
	Outcome     Outcome
	Pages       int64
	Records     int64
	Quarantined int64
	Outside     int64            // events that came and belong to other windows
	Same        int64            // rows of a list with the key, or without keys the content, of one before: a second reading gave them again
	Unknown     map[string]int64 // unknown fields
	Duration    time.Duration
}

// Run pulls and publishes the planned windows, some at once, and returns a result for each in the plan's order. A failed window does
// not stop the others; what a cancelled context interrupts can be resumed by a later run.
func (e *Engine) Run(ctx context.Context, plan []Planned) []Result {
	results := make([]Result, len(plan))
	var g errgroup.Group
	g.SetLimit(max(1, e.cfg.Parallel))
	for i := range plan {
		g.Go(func() error {
			results[i] = e.pull(ctx, plan[i:i+1])[0]
			return nil
		})
	}
	_ = g.Wait() // failures are in the results
	return results
}

// RunGroups is Run for windows that are published together: each group in one transaction, once all of it is landed.
func (e *Engine) RunGroups(ctx context.Context, groups [][]Planned) []Result {
	var results []Result
	for _, group := range groups {
		results = append(results, e.pull(ctx, group)...)
	}
	return results
}

// pull lands a group of windows and publishes them in one transaction.
func (e *Engine) pull(ctx context.Context, group []Planned) []Result {
	started := e.cfg.Now()
	results := make([]Result, len(group))
	landed := make([]*landedWindow, len(group))
	var g errgroup.Group
	g.SetLimit(max(1, e.cfg.Parallel))
	for i, p := range group {
		results[i].Window = p.Window
		if p.Skip != "" {
			results[i].Status, results[i].Reason = Skipped, p.Skip
			continue
		}
		g.Go(func() (err error) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err = Guard(func() (err error) {
				landed[i], err = e.land(ctx, p.Window)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", p.Window.of(e.cfg.Stream.Name), err)
			}
			return nil
		})
	}
	err := g.Wait()
	toPublish := slices.DeleteFunc(slices.Clone(landed), func(l *landedWindow) bool { return l == nil })
	var outcomes []Outcome // of the windows that are not skipped
	if err == nil && len(toPublish) > 0 {
		err = Guard(func() (err error) {
			outcomes, err = e.publish(ctx, toPublish, group[0].Retire)
			return err
		})
	}
	err = withCause(ctx, err)
	for i := range results {
		r := &results[i]
		switch {
		case r.Status == Skipped:
		case err != nil:
			r.Status, r.Err = Failed, err
		default:
			r.Status, r.Outcome = Published, outcomes[0]
			outcomes = outcomes[1:]
			if r.Outcome.Unchanged {
				r.Status = Unchanged
			}
			landed[i].survey.report(r)
		}
		r.Duration = e.cfg.Now().Sub(started)
		e.observe(Event{Window: r.Window, Phase: PhaseDone, Pages: r.Pages, Records: r.Records, Result: r})
	}
	for _, l := range toPublish {
		l.close()
	}
	return results
}

func (e *Engine) observe(event Event) {
	event.Stream = e.cfg.Stream.Name
	e.cfg.Observe(event)
}

// withCause adds to an error that only says that the context ended why it did.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// landedWindow is a window whose every page is in its landing file, which stays open and locked until it is published.
type landedWindow struct {
	job    Job
	file   LandingFile
	survey *survey
}

func (l *landedWindow) close() {
	_ = l.survey.close() // an unlinked spill
	_ = l.file.Close()   // syncs what the last second wrote; lost to a crash, it would be drained again
}

// startOver asks for a new job: the one at hand will not do. Its landing file and ledger row are dealt with already.
type startOver struct{ err error }

func (s *startOver) Error() string { return s.err.Error() }
func (s *startOver) Unwrap() error { return s.err }

// land brings every page of the window into its landing file, from whatever an earlier run left behind. A job that fails, is
// forgotten or moves is replaced by a new one, twice.
func (e *Engine) land(ctx context.Context, w Window) (*landedWindow, error) {
	const jobs = 3
	var twins contentOf
	for attempt := 1; ; attempt++ {
		l, err := e.landJob(ctx, w, &twins)
		var again *startOver
		if err == nil || !errors.As(err, &again) {
			return l, err
		}
		if attempt == jobs && errors.Is(again.err, ErrListMoved) {
			return nil, fmt.Errorf("%w; so it did %d times, and nothing was published: run again", again.err, attempt)
		}
		if attempt == jobs {
			return nil, fmt.Errorf("%w (the %d. job; giving up)", again.err, attempt)
		}
		e.cfg.Log.Warn("window starts over with a new job", zap.String("stream", e.cfg.Stream.Name), zap.Stringer("window", w), zap.Error(again.err))
	}
}

// contentOf is what a reading of a list gave.
type contentOf struct{ records, quarantined record.Digest }

// areVendors tells whether rows that are the same are the vendor's own: a second reading, by pages of another size where the list has any, has
// given the very same, so nothing moved.
func (e *Engine) areVendors(s *survey, before *contentOf, err error) bool {
	now := contentOf{s.records, s.quarantined}
	same := errors.Is(err, ErrListMoved) && !e.keysRule() && *before == now
	*before = now
	if same {
		e.cfg.Log.Warn("the vendor's rows are not unique; they are published as they are", zap.String("stream", e.cfg.Stream.Name), zap.Error(err))
	}
	return same
}

// keysRule tells whether rows are known by their keys, which must be unique then. On those of events nothing but the proof rests.
func (e *Engine) keysRule() bool {
	return e.cfg.Stream.Shape != schemas.Events && len(e.cfg.Stream.Key) > 0
}

func (e *Engine) landJob(ctx context.Context, w Window, twins *contentOf) (_ *landedWindow, err error) {
	job, adopted, err := e.adoptOrCreate(ctx, w)
	if err != nil {
		return nil, err
	}
	file, err := e.landing.Open(job.LandingKey())
	if errors.Is(err, ErrLandingLocked) {
		// A run that lost its lease may still hold the file. Costs time only: a new job gets a new file.
		job.State, job.Note = StateAbandoned, err.Error()
		return nil, errors.Join(&startOver{err}, e.ledger.UpdateJob(ctx, job))
	}
	if err != nil {
		return nil, fmt.Errorf("open the landing file: %w", err)
	}
	l := &landedWindow{job: job, file: file}
	if l.survey, err = newSurvey(e.cfg.Stream, e.decoderOptions(w), e.cfg.SpillDir); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	markers, err := e.readLanded(l)
	if err != nil {
		return nil, err
	}
	if !file.Complete() {
		err := e.poll(ctx, &l.job, adopted)
		if err == nil && file.Frames() > 0 {
			err = e.recheck(ctx, l)
		}
		if err == nil {
			err = e.drain(ctx, l, markers)
		}
		if err != nil {
			return nil, e.endJob(ctx, l, err)
		}
	}
	if err := l.survey.finish(); err != nil && !e.areVendors(l.survey, twins, err) {
		return nil, e.endJob(ctx, l, err)
	}
	failpoint.Hit(failpoint.SurveyFinished)
	l.job.Pages, l.job.Records, l.job.Quarantined, l.job.LandedBytes = l.survey.pages, l.survey.records.Count, l.survey.quarantined.Count, file.Size()
	if l.job.State != StateLanded {
		l.job.State, l.job.LandedAt = StateLanded, e.cfg.Now().UTC()
		if err := e.ledger.UpdateJob(ctx, l.job); err != nil {
			return nil, err
		}
		failpoint.Hit(failpoint.JobLandedSaved)
	}
	return l, nil
}

// readLanded surveys what an earlier run landed and returns the markers it asked for. A file that can't be read is emptied: that
// costs time only.
func (e *Engine) readLanded(l *landedWindow) (markerSet, error) {
	markers := markerSet{}
	for p, err := range l.file.Pages() {
		if err != nil {
			e.cfg.Log.Warn("landing file is damaged; the window is drained from its first page", zap.String("stream", e.cfg.Stream.Name), zap.Stringer("window", l.job.Window), zap.Error(err))
			fresh, err := newSurvey(e.cfg.Stream, e.decoderOptions(l.job.Window), e.cfg.SpillDir)
			if err != nil {
				return nil, err
			}
			damaged := l.survey
			l.survey = fresh
			return markerSet{}, errors.Join(damaged.close(), l.file.Restart())
		}
		markers.add(p.Asked, l.survey.pages+1)
		if err := l.survey.add(p); err != nil {
			return nil, err
		}
	}
	return markers, nil
}

func (e *Engine) decoderOptions(w Window) record.Options {
	o := record.Options{SourceZone: e.cfg.SourceZone, IgnoreFields: e.cfg.IgnoreFields}
	switch e.cfg.Stream.Shape {
	case schemas.Jobs:
		o.Site, o.Region, o.NotAfter = w.Scope.Site, w.Scope.Region, (w.To + 2).Time(e.cfg.FileZone)
	case schemas.Events:
		o.From, o.To = w.From, w.To
	}
	return o
}

// adoptOrCreate returns the live job of an earlier run if it asked for the very same and is young enough, else a new one. Other live
// jobs for the window end here: their pages must never be mixed with these.
func (e *Engine) adoptOrCreate(ctx context.Context, w Window) (_ Job, adopted bool, err error) {
	request := w.Request(e.cfg.DomainID)
	live, err := e.ledger.LiveJobs(ctx, e.cfg.Stream.Name, w.Scope)
	if err != nil {
		return Job{}, false, err
	}
	var adopt *Job
	for _, j := range live {
		if j.Window.From != w.From {
			continue
		}
		age := max(e.cfg.Now().Sub(j.CreatedAt), 0) // clocks may be set back
		if adopt == nil && j.Request == request && j.Window.Unit == w.Unit && age < e.cfg.AdoptMaxAge {
			adopt = &j
			continue
		}
		j.State, j.Note = StateAbandoned, "a later run asks anew"
		if err := e.ledger.UpdateJob(ctx, j); err != nil {
			return Job{}, false, err
		}
		// A run that lost its lease may still hold the file; a later run tidies it away.
		if err := e.landing.Discard(j.LandingKey()); err != nil && !errors.Is(err, ErrLandingLocked) {
			return Job{}, false, err
		}
	}
	if adopt != nil {
		return *adopt, true, nil
	}
	created := e.cfg.Now().UTC().Truncate(time.Microsecond) // before the call: a job is never thought younger than it is
	failpoint.Hit(failpoint.JobCreate)
	id, err := e.source.CreateJob(ctx, request)
	if err != nil {
		return Job{}, false, err
	}
	failpoint.Hit(failpoint.JobCreated)
	// The job exists from here on: it is saved even if the run is being stopped.
	save, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	job, err := e.ledger.SaveJob(save, Job{
		RunID: e.cfg.RunID, Stream: e.cfg.Stream.Name, Window: w, ID: id, Request: request, CreatedAt: created, State: StateOpen,
	})
	failpoint.Hit(failpoint.JobSaved)
	return job, false, err
}

// endJob stores the end of a job that will not do, as err tells, and drops its landing file. Other errors leave the job to be resumed,
// but for those of a list: no later run takes its pages up.
func (e *Engine) endJob(ctx context.Context, l *landedWindow, err error) error {
	var end *jobEnd
	switch {
	case errors.As(err, &end):
	case errors.Is(err, ErrJobForgotten):
		end = &jobEnd{state: StateForgotten, err: err, again: true}
	case errors.Is(err, ErrListMoved):
		end = &jobEnd{state: StateMoved, err: err, again: true}
	case e.cfg.Stream.IsList() && ctx.Err() == nil:
		end = &jobEnd{state: StateFailed, err: err}
	default:
		return err
	}
	// First the ledger: as long as the job is live, its pages are what tells the next run that it will not do.
	l.job.State, l.job.Note = end.state, end.err.Error()
	if err := e.ledger.UpdateJob(ctx, l.job); err != nil {
		return errors.Join(end.err, err)
	}
	if err := e.landing.Discard(l.job.LandingKey()); err != nil {
		return errors.Join(end.err, err)
	}
	if end.again {
		return &startOver{end.err}
	}
	return end.err
}

// jobEnd is an error that ends a job.
type jobEnd struct {
	state string
	err   error
	again bool // a new job may do better
}

func (j *jobEnd) Error() string { return j.err.Error() }
func (j *jobEnd) Unwrap() error { return j.err }

// poll waits until the job succeeds, with a rising interval and a deadline that counts from the job's creation.
func (e *Engine) poll(ctx context.Context, job *Job, adopted bool) error {
	interval := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(e.cfg.PollInitial), backoff.WithMaxInterval(e.cfg.PollMax), backoff.WithMultiplier(1.5),
		backoff.WithRandomizationFactor(0.2), backoff.WithMaxElapsedTime(0))
	for {
		failpoint.Hit(failpoint.PollAsk)
		status, err := e.source.Job(ctx, job.ID)
		if err != nil {
			return fmt.Errorf("poll job %s: %w", job.ID, err)
		}
		failpoint.Hit(failpoint.PollAnswered)
		e.observe(Event{Window: job.Window, Phase: PhaseJob, Progress: status.Progress})
		if status.State == JobFailure {
			return &jobEnd{StateFailed, fmt.Errorf("job %s failed at the vendor, which gives no reason", job.ID), true}
		}
		if status.State == JobSuccess {
			if !job.ReadyAt.IsZero() {
				return nil
			}
			job.ReadyAt, job.Progress = e.cfg.Now().UTC(), 100
			return e.ledger.UpdateJob(ctx, *job)
		}
		if age := e.cfg.Now().Sub(job.CreatedAt); age >= e.cfg.JobDeadline {
			return &jobEnd{StateAbandoned, fmt.Errorf("job %s still says %s (%d %%) %s after its creation, past sync.job_deadline", job.ID, status.State, status.Progress, age.Round(time.Second)), adopted}
		}
		if status.Progress != job.Progress {
			job.Progress = status.Progress
			if err := e.ledger.UpdateJob(ctx, *job); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(interval.NextBackOff()):
		}
	}
}

// recheck asks the last landed page again. If the vendor now answers otherwise, the results moved and the landed pages are worth
// nothing.
func (e *Engine) recheck(ctx context.Context, l *landedWindow) error {
	last, err := l.file.Last()
	if err != nil {
		return fmt.Errorf("read the landing file: %w", err)
	}
	now, err := e.source.Page(ctx, l.job.ID, last.Asked)
	if errors.Is(err, ErrRefused) && !errors.Is(err, ErrCredentials) { // a marker that the vendor took before: its markers grow old
		return &jobEnd{StateMoved, fmt.Errorf("read page %d again: %w", l.file.Frames(), err), true}
	}
	if err != nil {
		return fmt.Errorf("read page %d again: %w", l.file.Frames(), err)
	}
	defer release(now)
	if now.Next != last.Next || !e.samePage(l.job.Window, now, last) {
		return &jobEnd{StateMoved, fmt.Errorf("page %d of job %s is not what it was before the interruption", l.file.Frames(), l.job.ID), true}
	}
	return nil
}

func (e *Engine) samePage(w Window, a, b Page) bool {
	if bytes.Equal(a.Data, b.Data) {
		return true
	}
	digest := func(p Page) (good, bad record.Digest) {
		decoder, row := record.NewDecoder(e.cfg.Stream, e.decoderOptions(w)), record.NewRow(e.cfg.Stream)
		for element := range elements(e.cfg.Stream, p.Data) {
			if reject := decoder.Decode(element, row); reject != nil {
				bad.Add(reject.RawHash)
			} else {
				good.Add(row.Hash)
			}
		}
		return good, bad
	}
	goodA, badA := digest(a)
	goodB, badB := digest(b)
	return goodA == goodB && badA == badB
}

// drain lands the pages that are still to come. The next page is asked for as soon as its marker is known; landing and surveying the
// last one go on meanwhile.
func (e *Engine) drain(ctx context.Context, l *landedWindow, markers markerSet) error {
	asked, number := e.source.Start(l.job.ID), l.survey.pages
	if l.file.Frames() > 0 {
		last, err := l.file.Last()
		if err != nil {
			return fmt.Errorf("read the landing file: %w", err)
		}
		asked = last.Next
	}
	pages := make(chan Page, 2)
	ctx, stop := context.WithCancelCause(ctx)
	var asker errgroup.Group
	defer func() { // waited for below; here once more for a panic in between
		stop(nil)
		_ = asker.Wait()
	}()
	asker.Go(func() error {
		defer close(pages)
		return Guard(func() error {
			for {
				number++
				failpoint.Hit(failpoint.PageAsk)
				p, err := e.source.Page(ctx, l.job.ID, asked)
				if err != nil {
					return fmt.Errorf("read page %d: %w", number, err)
				}
				failpoint.Hit(failpoint.PageAnswered)
				p.Asked = asked
				markers.add(asked, number)
				if seen, ok := markers.page(p.Next); ok {
					release(p)
					return &jobEnd{StateFailed, fmt.Errorf("page %d of job %s names the same next page as was asked for as page %d: the vendor's markers run in a circle", number, l.job.ID, seen), false}
				}
				select {
				case pages <- p:
				case <-ctx.Done():
					release(p)
					return context.Cause(ctx)
				}
				if p.Next == "" {
					return nil
				}
				asked = p.Next
			}
		})
	})
	var failed error
	for p := range pages { // to the end, so that every page is released
		if failed == nil {
			failed = l.file.Append(p)
		}
		if failed == nil {
			failed = l.survey.add(p)
		}
		release(p)
		if failed != nil {
			stop(failed) // what is asked from here on would be lost
			continue
		}
		e.observe(Event{Window: l.job.Window, Phase: PhaseDrain, Progress: 100, Pages: l.survey.pages, Records: l.survey.seq})
	}
	if err := asker.Wait(); failed == nil {
		return err
	}
	return failed
}

func release(p Page) {
	if p.Release != nil {
		p.Release()
	}
}

// markerSet remembers every marker that was asked for, as a hash, with its page: a million pages take some tens of megabytes.
type markerSet map[[16]byte]int64

func markerHash(marker string) [16]byte {
	h := sha256.Sum256([]byte(marker))
	return [16]byte(h[:16])
}

func (m markerSet) add(marker string, page int64) {
	if marker != "" {
		m[markerHash(marker)] = page
	}
}

func (m markerSet) page(marker string) (int64, bool) {
	if marker == "" {
		return 0, false
	}
	page, ok := m[markerHash(marker)]
	return page, ok
}

// publish replaces what stands in the windows by what was landed, in one transaction, and settles the landing files.
func (e *Engine) publish(ctx context.Context, landed []*landedWindow, retire []WindowState) ([]Outcome, error) {
	r := Replacement{
		Stream: e.cfg.Stream.Name, RunID: e.cfg.RunID, Scope: landed[0].job.Window.Scope, Retire: retire, MinRatio: e.cfg.MinRatio, AcceptShrink: e.cfg.AcceptShrink,
	}
	r.LeaseToken = e.cfg.Leases[StreamScope{r.Stream, r.Scope}]
	var had, got int64
	for _, old := range retire {
		had += old.Records.Count
	}
	for _, l := range landed {
		w := l.job.Window
		if err := l.survey.tooBad(w, e.cfg.QuarantineMax); err != nil {
			return nil, e.refuse(ctx, landed, err)
		}
		got += l.survey.records.Count
		r.Publish = append(r.Publish, l.survey.publication(l.job, l.file.Pages))
		e.observe(Event{Window: w, Phase: PhasePublish, Progress: 100, Pages: l.survey.pages, Records: l.survey.seq})
	}
	if had > 0 && !e.cfg.AcceptShrink && (got == 0 || float64(got) < e.cfg.MinRatio*float64(had)) {
		w := landed[0].job.Window
		return nil, e.refuse(ctx, landed, &ShrinkError{Stream: e.cfg.Stream.Name, Window: Window{w.Scope, Month, w.From, landed[len(landed)-1].job.Window.To}, Had: had, Got: got})
	}
	outcomes, err := e.ledger.Publish(ctx, r)
	var shrink *ShrinkError
	if errors.As(err, &shrink) { // it names the window itself
		return nil, e.refuse(ctx, landed, shrink)
	}
	var vanish *VanishError
	if errors.As(err, &vanish) { // and so does it
		return nil, e.refuse(ctx, landed, vanish)
	}
	if err != nil {
		return nil, fmt.Errorf("publish %s: %w", landed[0].job.Window.of(e.cfg.Stream.Name), err)
	}
	for i, l := range landed {
		if err := e.settle(l, outcomes[i]); err != nil {
			// The window is published; its evidence is settled by the next run's tidying.
			e.cfg.Log.Warn("landing file not settled", zap.String("stream", e.cfg.Stream.Name), zap.Stringer("window", l.job.Window), zap.Error(err))
		}
	}
	return outcomes, nil
}

func (e *Engine) settle(l *landedWindow, o Outcome) error {
	failpoint.Hit(failpoint.SettleBegun)
	if o.Unchanged {
		err := e.landing.Discard(l.job.LandingKey())
		failpoint.Hit(failpoint.SettleDiscarded)
		return err
	}
	return e.landing.Keep(l.job.LandingKey(), o.WindowID, o.Generation)
}

// refuse stores that the landed jobs are not published, and why; their landing files stay as evidence.
func (e *Engine) refuse(ctx context.Context, landed []*landedWindow, why error) error {
	for _, l := range landed {
		l.job.State, l.job.Note = StateRefused, why.Error()
		if err := e.ledger.UpdateJob(ctx, l.job); err != nil {
			return errors.Join(why, err)
		}
	}
	return why
}

// kept opens the landing file of the job behind a window's current generation. A generation that a replay made has no file of its
// own: it is the one that was replayed.
func (e *Engine) kept(w WindowState) (iter.Seq2[Page, error], error) {
	name := w.of(e.cfg.Stream.Name)
	for generation := w.Generation; generation > 0; generation-- {
		key, pages, err := e.landing.Kept(w.Window, w.ID, generation)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if key.JobRow != w.JobRow {
			break
		}
		return pages, nil
	}
	return nil, fmt.Errorf("%s: the landing file of generation %d was not kept; only backfill --refresh can read it again", name, w.Generation)
}

// CanReplay says why a window can't be replayed, nil if its landing file is there.
func (e *Engine) CanReplay(w WindowState) error {
	_, err := e.kept(w)
	return err
}

// Replay publishes a window's current generation again from its kept landing file, asking nobody.
func (e *Engine) Replay(ctx context.Context, state WindowState, job Job) Result {
	result := Result{Window: state.Window, Status: Failed}
	started := e.cfg.Now()
	defer func() { result.Duration = e.cfg.Now().Sub(started) }()
	pages, err := e.kept(state)
	if err != nil {
		result.Err = err
		return result
	}
	job.Window = state.Window
	s, err := newSurvey(e.cfg.Stream, e.decoderOptions(state.Window), e.cfg.SpillDir)
	if err != nil {
		result.Err = err
		return result
	}
	defer s.close()
	result.Err = func() error {
		for p, err := range pages {
			if err != nil {
				return err
			}
			if err := s.add(p); err != nil {
				return err
			}
		}
		if err := s.finish(); err != nil && (e.keysRule() || !errors.Is(err, ErrListMoved)) { // areVendors let it through when it was pulled
			return err
		}
		if err := s.tooBad(state.Window, e.cfg.QuarantineMax); err != nil {
			return err
		}
		outcomes, err := e.ledger.Publish(ctx, Replacement{
			Stream: e.cfg.Stream.Name, RunID: e.cfg.RunID, Scope: state.Scope, LeaseToken: e.cfg.Leases[StreamScope{e.cfg.Stream.Name, state.Scope}], MinRatio: e.cfg.MinRatio,
			AcceptShrink: e.cfg.AcceptShrink, Replay: true,
			Publish: []Publication{s.publication(job, func() iter.Seq2[Page, error] { return pages })},
		})
		if err != nil {
			return err
		}
		result.Outcome, result.Status = outcomes[0], Published
		if outcomes[0].Unchanged {
			result.Status = Unchanged
		}
		return nil
	}()
	if result.Err != nil {
		result.Err, result.Status = fmt.Errorf("replay %s: %w", state.of(e.cfg.Stream.Name), withCause(ctx, result.Err)), Failed
	}
	s.report(&result)
	return result
}
