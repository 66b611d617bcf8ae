package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// Source is a vendor that hands records out through query jobs. Its methods block until the answer is there, retry what is worth
// retrying within their own deadline, and may be called from several goroutines. Errors:
//
//   - ErrCredentials: the vendor refuses who we are; no retry helps.
//   - ErrJobForgotten: the job is unknown to the vendor (404); only a new job helps.
//   - ErrListMoved: a list's rows and totals disagree; only reading it from the start helps.
//   - ErrNotOffered: the site has no such API (404).
//   - ErrRefused: the vendor refuses the request itself (400, 404 on create, 405, ...); a person must look.
//   - anything else: the vendor could not be reached or did not answer properly in time; a later run may succeed.
type Source interface {
	// CreateJob starts a query job and returns its id, which is never empty. If the answer is lost the job may exist all the same:
	// that orphan is harmless, and Create may have made it more than once.
	CreateJob(ctx context.Context, req JobRequest) (jobID string, err error)
	// Job polls once.
	Job(ctx context.Context, jobID string) (JobStatus, error)
	// Start returns the marker of a job's first page. A list's markers are URL queries: the values it is asked by, and the place.
	Start(jobID string) (marker string)
	// Page reads the page behind marker. Reading is repeatable: asking a marker again changes nothing.
	Page(ctx context.Context, jobID, marker string) (Page, error)
}

// Errors that callers branch on. Each is found with errors.Is.
var (
	ErrCredentials  = errors.New("credentials refused")
	ErrJobForgotten = errors.New("the vendor no longer knows the job")
	ErrRefused      = errors.New("the vendor refused the request")
	ErrListMoved    = errors.New("the list moved while it was read")
	ErrNotOffered   = errors.New("the site does not offer this API")
	ErrDefect       = errors.New("this is a defect of sdr-sync, please report it")
)

// Guard runs do and turns a panic into an error that wraps ErrDefect: in a goroutine a panic would end the process with the exit code
// of wrong usage.
func Guard(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrDefect, p, debug.Stack())
		}
	}()
	return do()
}

// LandingKey names the landing file of one query job.
type LandingKey struct {
	Stream    string     `json:"stream"`
	Window    Window     `json:"window"`
	JobRow    int64      `json:"job_row"` // the ledger's number of the job
	JobID     string     `json:"job_id"`  // the vendor's
	Request   JobRequest `json:"request"`
	CreatedAt time.Time  `json:"created_at"` // when the job was created, UTC
}

// Landing keeps the pages of query jobs as the vendor sent them, one append-only file per job. Errors: ErrLandingLocked when
// another process holds the file, and ErrDiskFull.
type Landing interface {
	// Open locks the job's landing file, creating it if there is none. A torn tail is cut off first, so what Pages then returns is
	// whole. A file whose header belongs to another job, or that can't be read, is replaced by an empty one: landing lost costs time only.
	Open(key LandingKey) (LandingFile, error)
	// Discard removes the job's landing file; none is no error.
	Discard(key LandingKey) error
	// Keep links the job's file to a generation of the window it published, and removes the window's generations beyond the newest
	// `landing.keep`. A file that is already linked is no error, neither is one that was lost.
	Keep(key LandingKey, windowID int64, generation int) error
	// Kept opens the pages of a kept generation for reading; fs.ErrNotExist if it was not kept.
	Kept(w Window, windowID int64, generation int) (LandingKey, iter.Seq2[Page, error], error)
}

// LandingFile is one open landing file. It is not safe for use from several goroutines.
type LandingFile interface {
	// Pages reads every whole frame from the first, in order, checking each checksum. A page's Body is good until the next one.
	Pages() iter.Seq2[Page, error]
	// Frames is how many pages are landed, Last the last of them (its Body is the caller's), Complete whether the end marker came.
	Frames() int
	Last() (Page, error)
	Complete() bool
	// Append writes one page as one frame. After an error nothing of that page is in the file; what was landed before stays.
	Append(p Page) error
	// Restart empties the file, for a job whose results moved or a drain that starts over.
	Restart() error
	// Size is the file's bytes on disk.
	Size() int64
	// Close syncs and unlocks.
	Close() error
}

// Errors of landing files.
var (
	ErrLandingLocked = errors.New("another process holds the landing file")
	ErrDiskFull      = errors.New("the disk is full")
)

// Partition is one Parquet file's share of a stream: a site and a usage month, or a usage day, beginning at From. A list has Tenant's
// site and an event month or day, or, if it is read whole, the unit Whole and WholeWindow's From.
type Partition struct {
	Site string `json:"site"`
	Unit Unit   `json:"unit"`
	From Date   `json:"from"`
}

// End returns the first date after the partition.
func (p Partition) End() Date {
	switch p.Unit {
	case Whole:
		return WholeWindow().To
	case Day:
		return p.From + 1
	}
	return p.From.AddMonths(1)
}

// String returns "hcso-213 2024-03", or with the day, or "tenant whole".
func (p Partition) String() string {
	switch p.Unit {
	case Whole:
		return p.Site + " " + string(Whole)
	case Day:
		return p.Site + " " + p.From.String()
	}
	return p.Site + " " + p.From.MonthString()
}

// PartitionState is what the ledger knows of a partition. It is dirty while DirtySeq > ExportedSeq. The file facts are those of
// the last export, zero before the first.
type PartitionState struct {
	Partition
	DirtySeq    int64
	ExportedSeq int64
	File        FileFacts
	Archived    bool // its rows are no longer in the database: the file is all there is, and must never be written again
}

// FileFacts are what the ledger pins of an exported file.
type FileFacts struct {
	Rows   int64  `json:"rows"`
	Digest string `json:"digest"` // record.Digest of the rows, as text
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // hex
}

// PublishedWindow names a window's generation whose rows stand in a partition.
type PublishedWindow struct {
	WindowID   int64  `json:"window_id"`
	Window     Window `json:"window"`
	Generation int    `json:"generation"`
}

// PartitionStore is what the lake needs of the database that it is derived from.
type PartitionStore interface {
	// PinLake returns the id of the lake that this database feeds, and pins id if none is pinned yet.
	PinLake(ctx context.Context, id string) (pinned string, err error)
	// AnyExported tells whether the database knows of a file of any stream: one lake holds them all.
	AnyExported(ctx context.Context) (bool, error)
	// Partitions lists every partition of the stream that ever held rows, in order.
	Partitions(ctx context.Context) ([]PartitionState, error)
	// ReadPartition calls read inside one REPEATABLE READ snapshot with the partition's state, the windows with rows in it, and its
	// rows ordered by cloud_service_type_code, resource_id (both COLLATE "C", NULL last), begin_time, record_key, window_id, ordinal.
	// A row is good until the next one.
	ReadPartition(ctx context.Context, p Partition, read func(PartitionState, []PublishedWindow, iter.Seq2[*record.Row, error]) error) error
	// MarkExported records that the file holds what was read at seq.
	MarkExported(ctx context.Context, p Partition, seq int64, file FileFacts) error
}
