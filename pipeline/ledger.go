package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// WindowState is what the ledger knows of a published window.
type WindowState struct {
	Window
	ID               int64
	Generation       int
	Records          record.Digest
	MissingAmounts   int64
	Quarantined      record.Digest
	HashVersion      int
	JobRow           int64
	JobCreatedAt     time.Time
	PublishedAt      time.Time
	CheckedAt        time.Time
	RestatementCount int
}

// Ends and live states of a query job in the ledger.
const (
	StateOpen      = "open"      // to be polled or drained
	StateLanded    = "landed"    // every page is in the landing file
	StatePublished = "published" // became a generation
	StateUnchanged = "unchanged" // confirmed what was published
	StateRefused   = "refused"   // not published: implausible shrink, or too much quarantine
	StateFailed    = "failed"    // the vendor said failure; of a list, it could not be read to its end
	StateForgotten = "forgotten" // the vendor said 404
	StateAbandoned = "abandoned" // past its deadline, too old, or for another request
	StateMoved     = "moved"     // its results changed between two reads, or while they were read
)

// Job is one query job in the ledger, or one reading of a list, which stands there as a job.
type Job struct {
	Row         int64
	RunID       int64
	Stream      string
	Window      Window // as asked: its To is the request's, not the published one
	ID          string // the vendor's
	Request     JobRequest
	CreatedAt   time.Time
	State       string
	Progress    int
	Pages       int64
	Records     int64
	Quarantined int64
	LandedBytes int64
	ReadyAt     time.Time
	LandedAt    time.Time
	Note        string
}

// LandingKey names the job's landing file.
func (j Job) LandingKey() LandingKey {
	return LandingKey{Stream: j.Stream, Window: j.Window, JobRow: j.Row, JobID: j.ID, Request: j.Request, CreatedAt: j.CreatedAt}
}

// Rejected is one record on its way into the quarantine.
type Rejected struct {
	record.Reject
	Page     int // of the job, from 1
	Position int // in the page, from 1
	Ordinal  int32
	Raw      []byte
}

// Publication is a complete window ready to replace what stands there. Rows and Rejects may be ranged over several times and give
// the same each time; what they yield is good until the next one.
type Publication struct {
	Job            Job
	Records        record.Digest
	Quarantined    record.Digest
	MissingAmounts int64
	UsageDates     map[Date]int64 // records per usage or event date; those of a list without time are all at 0
	UnknownFields  map[string]int64
	Rows           iter.Seq2[*record.Row, error]
	Rejects        iter.Seq2[Rejected, error]
}

// Replacement is what one transaction does: it retires windows and publishes others. Mostly it publishes one and retires none.
type Replacement struct {
	Stream       string
	RunID        int64
	Scope        Scope
	LeaseToken   int64
	Retire       []WindowState
	Publish      []Publication
	MinRatio     float64 // a window that shrinks below this share of its records is refused
	AcceptShrink bool
	Replay       bool // the pages are those of the current generation: an equal result writes nothing at all
}

// Outcome is what became of one window of a replacement.
type Outcome struct {
	WindowID   int64
	Generation int
	Unchanged  bool
	Restated   bool // it replaced an earlier generation that differed
	Inserted   int64
	Deleted    int64
	ToBefore   Date
	Changes    Changes // of a list that is read whole
}

// Changes are what a complete pull of a snapshot or history did to its rows.
type Changes struct {
	Appeared    int64 `json:"appeared"`
	Changed     int64 `json:"changed"`
	Reappeared  int64 `json:"reappeared"`  // were gone, and are back
	Disappeared int64 `json:"disappeared"` // of a history: absent from this pull and the one before
	Absent      int64 `json:"absent"`      // of a history: absent for the first time; they stay until the next complete pull
}

// Ledger is the memory of what was asked, fetched and published. Its methods may be called from several goroutines.
type Ledger interface {
	// Windows lists the scope's windows that are not retired, by From.
	Windows(ctx context.Context, stream string, scope Scope) ([]WindowState, error)
	// LiveJobs lists the scope's jobs in state open or landed, newest first.
	LiveJobs(ctx context.Context, stream string, scope Scope) ([]Job, error)
	// SaveJob stores a new job and returns it with its row number.
	SaveJob(ctx context.Context, job Job) (Job, error)
	// UpdateJob stores state, progress, counts, times and note of job.
	UpdateJob(ctx context.Context, job Job) error
	// Publish carries out r in one transaction, or nothing of it. It fails with *ShrinkError, of a history with *VanishError, or with
	// ErrFenced if the lease was lost.
	// An answer lost at COMMIT is resolved by reading the ledger.
	Publish(ctx context.Context, r Replacement) ([]Outcome, error)
}

// ErrFenced says that another run took the scope's lease over, so nothing may be written any more.
var ErrFenced = errors.New("another run took the lease over")

// ShrinkError says that a window was not published because implausibly few records came.
type ShrinkError struct {
	Stream   string
	Window   Window
	Had, Got int64
}

// Error names the flag that publishes all the same.
func (e *ShrinkError) Error() string {
	command := fmt.Sprintf("backfill --scope %s --from %s --to %s --refresh", e.Window.Scope, e.Window.From, e.Window.To-1)
	switch {
	case e.Window.Unit == Whole:
		command = "nightly --stream " + e.Stream
	case e.Window.Scope == Tenant:
		command = fmt.Sprintf("backfill --stream %s --from %s --to %s --refresh", e.Stream, e.Window.From, e.Window.To-1)
	}
	return fmt.Sprintf("%s: the vendor returned %d records where %d are published; the published ones stay (if the shrink is real: sdr-sync %s --accept-shrink)",
		e.Window.of(e.Stream), e.Got, e.Had, command)
}

// VanishError says that a history was not published because implausibly many of its rows are gone at once.
type VanishError struct {
	Stream    string
	Gone, Had int64
}

// Error names the flag that publishes all the same.
func (e *VanishError) Error() string {
	return fmt.Sprintf("%s: %d of %d rows are gone at once; the published ones stay (if that is real: sdr-sync nightly --stream %s --accept-shrink)",
		e.Stream, e.Gone, e.Had, e.Stream)
}

// QuarantineError says that a window was not published because too many of its records can't be normalised.
type QuarantineError struct {
	Stream      string
	Window      Window
	Quarantined int64
	Total       int64
	Example     string
}

// Error names the setting and shows an example.
func (e *QuarantineError) Error() string {
	return fmt.Sprintf("%s: %d of %d records can't be normalised, more than sync.quarantine_max allows; nothing of it was published; for example %s",
		e.Window.of(e.Stream), e.Quarantined, e.Total, e.Example)
}
