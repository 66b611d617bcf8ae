// Package verify is the auditor: it proves from outside that ledger, tables, Parquet files and kept landing files say the same. It shares
// no code with what wrote them but the schema files: SQL, canonical bytes, hashes, and the readers of Parquet and of landing files are
// its own, written from schemas/README.md, docs/parquet.md and docs/landing-format.md. It never writes anything.
package verify

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// Config says what is audited, and under which settings it was filled.
type Config struct {
	URL     string // of the database; a secret, never printed
	Lake    string // folder of the Parquet files; "" leaves them out
	Landing string // folder of the landing files, for Landing alone

	SourceZone    *time.Location    // zone of usage and event dates; UTC if nil
	FileZone      *time.Location    // zone of file dates, for the reference decoder; UTC if nil
	PartitionUnit string            // length of a Parquet partition: month or day; month if empty
	DomainID      string            // tenant that the lake must belong to; "" leaves it open
	Streams       []*schemas.Stream // what is stored; schemas.All() if nil
	IgnoreFields  []string          // unknown fields that the decoder leaves out; those of the schema files are added

	// Dead tells whether the holder of a lease is known to be gone. nil believes every lease that has not expired.
	Dead func(holder string) bool

	Parallel int              // connections that read at once, and files; 2 if zero
	LockWait time.Duration    // how long to wait for an export to end; zero fails at once with ErrLakeBusy
	Now      func() time.Time // time.Now if nil
	Log      *zap.Logger      // nil logs nothing
}

// Part is what of one stream is audited.
type Part struct {
	Stream     string
	Windows    []int64     // by window_id; nil is everything of the stream, files included
	Partitions []Partition // Parquet files to read; without meaning if Windows is nil
}

// Partition names a Parquet file of a stream. Lists have the site "tenant", and those that are read whole begin in 1970.
type Partition struct {
	Site string
	From time.Time // first date, as midnight UTC
}

// Only restricts an audit to parts. nil is everything of every stream, and whatever else stands in tables and lake.
type Only []Part

// Difference is one thing in which two of ledger, tables, files, evidence and vendor differ, and what repairs it.
type Difference struct {
	Where  string `json:"where"`
	What   string `json:"what"`
	Repair string `json:"repair"` // a command of sdr-sync, or what a person must do
}

// Report is what an audit read and found.
type Report struct {
	Records     int64        `json:"records"` // rows of the tables of billing; of a history, those that stand
	Files       int          `json:"files"`
	Differences []Difference `json:"differences"`
	Notes       []string     `json:"notes,omitempty"` // what could not be compared, and why
}

// Errors that callers branch on, found with errors.Is. Nothing was compared then.
var (
	// ErrLakeBusy: an export holds the lake.
	ErrLakeBusy = errors.New("an export holds the lake")
	// ErrLakeMismatch: the lake was filled under another configuration.
	ErrLakeMismatch = errors.New("the lake does not belong to this configuration")
)

func (c *Config) needDatabase() error {
	if c.URL == "" {
		return errors.New("verify: the database is not set")
	}
	return nil
}

func (c *Config) complete() error {
	if c.SourceZone == nil {
		c.SourceZone = time.UTC
	}
	if c.FileZone == nil {
		c.FileZone = time.UTC
	}
	if c.PartitionUnit == "" {
		c.PartitionUnit = unitMonth
	}
	if c.PartitionUnit != unitMonth && c.PartitionUnit != unitDay {
		return fmt.Errorf("verify: the partition is %q, want %s or %s", c.PartitionUnit, unitMonth, unitDay)
	}
	if c.Streams == nil {
		c.Streams = schemas.All()
	}
	if c.Dead == nil {
		c.Dead = func(string) bool { return false }
	}
	if c.Parallel < 1 {
		c.Parallel = 2
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return nil
}

// Run audits tables, ledger and lake in one snapshot of the database, while exports are kept out of the lake. Every hash, count, key, sum and
// date is computed again from the columns, in Postgres and in Parquet, and every byte of every file is read. Findings are
// differences, not errors.
func Run(ctx context.Context, cfg Config, only Only) (Report, error) {
	report := Report{Differences: []Difference{}}
	if err := errors.Join(cfg.needDatabase(), cfg.complete()); err != nil {
		return report, err
	}
	a := &audit{
		cfg: cfg, only: only, seed: maphash.MakeSeed(), sums: map[int64]*sumTally{}, quarantine: map[int64]*quarantineTally{},
	}
	err := a.run(ctx, &report)
	return report, err
}

// audit is one Run under way.
type audit struct {
	cfg     Config
	only    Only
	ledger  *ledger
	lake    *lake // nil if files are left out
	streams []*streamAudit
	seed    maphash.Seed

	// Of all streams, by window.
	sums       map[int64]*sumTally
	quarantine map[int64]*quarantineTally
}

// streamAudit is what is audited of one stream, and what was read of it.
type streamAudit struct {
	layout *layout
	part   *Part // nil is all of it

	windows map[int64]*window // live ones, by id; only those that are audited
	tally   *tally            // of the table, and of the files of archived months
	files   []*fileAudit
	found   []Difference
	damaged map[string]bool // sites whose windows differ from the ledger
	suspect map[int64]bool  // those windows
}

// whole tells whether everything of the stream is audited.
func (s *streamAudit) whole() bool { return s.part == nil || s.part.Windows == nil }

func (a *audit) run(ctx context.Context, report *Report) (err error) {
	// First the lake's lock, then the snapshot: no export can come between what is read of the two.
	if a.cfg.Lake != "" {
		if a.lake, err = openLake(ctx, a.cfg); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.lake.close()) }()
	}
	snap, err := openSnapshot(ctx, a.cfg.URL)
	if err != nil {
		return err
	}
	defer snap.close(ctx)
	if a.ledger, err = readLedger(ctx, snap.conn, a.cfg); err != nil {
		return err
	}
	if err := a.choose(); err != nil {
		return err
	}
	if a.lake != nil {
		if err := a.lake.begin(a.ledger); err != nil {
			return err
		}
		if err := a.chooseFiles(); err != nil {
			return err
		}
	}
	tasks, err := a.tasks(ctx, snap.conn)
	if err != nil {
		return err
	}
	if err := a.read(ctx, snap, append(a.fileTasks(), tasks...)); err != nil { // files are larger than stretches of tables
		return err
	}
	for _, s := range a.streams {
		if err := a.judge(ctx, snap.conn, s); err != nil {
			return err
		}
	}
	return a.conclude(report)
}

// conclude fills the report with what was found.
func (a *audit) conclude(report *Report) error {
	for _, s := range a.streams {
		report.Records += s.tally.records
		report.Differences = append(report.Differences, s.found...)
		for _, f := range s.files {
			report.Files++
			report.Differences = append(report.Differences, f.found...)
		}
	}
	if a.lake != nil {
		foreign, err := a.lake.foreign(a)
		if err != nil {
			return err
		}
		report.Differences = append(report.Differences, foreign...)
	}
	a.cfg.Log.Debug("audit done", zap.Int64("records", report.Records), zap.Int("files", report.Files), zap.Int("differences", len(report.Differences)))
	return nil
}

// File is what a ledger says of one Parquet file.
type File struct {
	Stream string
	Partition
	Unit                  string // month, day, or whole
	DirtySeq, ExportedSeq int64  // the file is older than its partition while the first is larger
	Rows, Bytes           int64
	Digest, SHA256        string
	Archived              bool // the file is all there is of its rows
}

// Files audits the lake alone, against what a ledger says of it. Without a database nothing is known of windows, so those of the parts have no meaning.
func Files(ctx context.Context, cfg Config, only Only, lakeID string, files []File) (report Report, err error) {
	report.Differences = []Difference{}
	if err := cfg.complete(); err != nil {
		return report, err
	}
	a := &audit{cfg: cfg, only: only, ledger: &ledger{lakeID: lakeID, withoutWindows: true}}
	for _, f := range files {
		a.ledger.partitions = append(a.ledger.partitions, &partition{
			stream: f.Stream, site: f.Site, from: dayOf(f.From), unit: f.Unit, dirty: f.DirtySeq, exported: f.ExportedSeq, rows: f.Rows, bytes: f.Bytes,
			digest: f.Digest, sha256: f.SHA256, archived: f.Archived,
		})
	}
	if a.lake, err = openLake(ctx, cfg); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, a.lake.close()) }()
	if err := errors.Join(a.choose(), a.lake.begin(a.ledger), a.chooseFiles()); err != nil {
		return report, err
	}
	if err := a.read(ctx, nil, a.fileTasks()); err != nil {
		return report, err
	}
	err = a.conclude(&report)
	return report, err
}

// choose makes the audits of the streams that are asked for.
func (a *audit) choose() error {
	for _, p := range a.only {
		if !slices.ContainsFunc(a.cfg.Streams, func(s *schemas.Stream) bool { return s.Name == p.Stream }) {
			return fmt.Errorf("verify: there is no stream %q", p.Stream)
		}
	}
	for _, stream := range a.cfg.Streams {
		s := &streamAudit{layout: newLayout(stream), windows: map[int64]*window{}, damaged: map[string]bool{}, suspect: map[int64]bool{}}
		if a.only != nil {
			i := slices.IndexFunc(a.only, func(p Part) bool { return p.Stream == stream.Name })
			if i < 0 {
				continue
			}
			s.part = &a.only[i]
		}
		for _, w := range a.ledger.windows {
			if w.stream == stream.Name && (s.whole() || slices.Contains(s.part.Windows, w.id)) {
				s.windows[w.id] = w
			}
		}
		s.tally = newTally(a, s)
		a.streams = append(a.streams, s)
	}
	return nil
}
