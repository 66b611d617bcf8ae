// Package parquet writes the lake: one Parquet file per partition of every stream, derived from the database and comparable with it.
// It knows files and folders; it asks the database only through pipeline.PartitionStore.
package parquet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Errors that callers branch on. Each is found with errors.Is.
var (
	// ErrLakeMismatch: lake, database and configuration don't belong together. Nothing was written; the configuration must change.
	ErrLakeMismatch = errors.New("the lake does not belong to this configuration")
	// ErrLakeMissing: the database has exported partitions, but there is no lake in the folder. Nothing was written.
	ErrLakeMissing = errors.New("the lake is missing")
	// ErrLakeLocked: another process is exporting into the lake. Nothing was written.
	ErrLakeLocked = errors.New("another export holds the lake")
	// ErrArchivedLost: the file of an archived month is not what the ledger says, and its rows are no longer in the database. All else is
	// exported.
	ErrArchivedLost = errors.New("put the files of archived months back from a backup, with the lake's _meta folder")
	// ErrForeignFile: a Parquet file that no export wrote stands in the lake, where readers would count its rows.
	ErrForeignFile = errors.New("a foreign file is in the lake")
)

// Config says where the lake is, what it belongs to, and which of its streams is meant. Partition scheme, domain and zone are pinned in
// the lake at its first use, for all of its streams.
type Config struct {
	Dir        string          // the lake root; its parent must exist and be writable, since files are staged beside the lake
	Stream     *schemas.Stream // what the files hold, as declared: not its Stored form
	Unit       pipeline.Unit   // the length of a partition: pipeline.Month or pipeline.Day; a list that is read whole has one file all the same
	DomainID   string          // the tenant whose records these are
	SourceZone string          // the zone that usage and event dates are in
	Rezone     bool            // take over a lake of another SourceZone: every row has been published anew under this one
	Log        *zap.Logger     // nil logs nothing

	// LockWait is how long Export waits for another process's export, or for who reads the lake under its lock,
	// to end; zero fails at once with ErrLakeLocked.
	LockWait time.Duration
}

// Lake is one stream's share of a folder of Parquet files; every stream has a Lake of its own over the same folder. Its methods may be
// called from several goroutines and processes; exports exclude one another, those of other streams included.
type Lake struct {
	cfg    Config
	others []string // streams with folders of their own in the lake
	parent string   // absolute and free of symlinks: the folder of both lake and staging
	base   string   // the lake's name in parent
	layout *layout
	schema *arrow.Schema
	log    *zap.Logger

	before stepHook
}

// Open checks the configuration and the paths. It writes nothing and reads no lake: Export does.
func Open(cfg Config) (*Lake, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	dir, err := resolve(cfg.Dir)
	if err != nil {
		return nil, err
	}
	l := &Lake{cfg: cfg, parent: filepath.Dir(dir), base: filepath.Base(dir), log: cfg.Log}
	if l.log == nil {
		l.log = zap.NewNop()
	}
	for _, s := range schemas.All() {
		if s.Name != cfg.Stream.Name {
			l.others = append(l.others, s.Name)
		}
	}
	if l.parent == dir {
		return nil, fmt.Errorf("open lake %s: a file system's root can't be a lake, choose a subfolder", dir)
	}
	for _, path := range []string{dir, l.stagingDir()} {
		info, err := os.Lstat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open lake: %w", err)
		}
		if err == nil && !info.IsDir() {
			return nil, fmt.Errorf("open lake: %s is not a folder", path)
		}
	}
	if l.layout, err = newLayout(cfg.Stream); err != nil {
		return nil, err
	}
	if l.schema, err = l.layout.arrowSchema(); err != nil {
		return nil, err
	}
	return l, nil
}

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return errors.New("open lake: the folder is not set")
	case c.Stream == nil:
		return errors.New("open lake: the stream is not set")
	case !isPathWord(c.Stream.Name):
		return fmt.Errorf("open lake: the stream's name %q may not be in a path", c.Stream.Name)
	case c.Unit != pipeline.Month && c.Unit != pipeline.Day:
		return fmt.Errorf("open lake: the partition is %q, want %q or %q", c.Unit, pipeline.Month, pipeline.Day)
	case c.DomainID == "":
		return errors.New("open lake: the domain id is not set")
	case c.SourceZone == "":
		return errors.New("open lake: the source time zone is not set")
	}
	return nil
}

// resolve returns dir as an absolute path without symlinks, so that two ways to write it share one lock and one staging folder.
// The last element need not exist yet.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("open lake %s: %w", dir, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err == nil {
		return real, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("open lake %s: %w", dir, err)
	}
	if _, err := os.Lstat(abs); err == nil {
		return "", fmt.Errorf("open lake %s: it is a link to nowhere; perhaps a disk is not mounted", dir)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", fmt.Errorf("open lake %s: its parent folder must exist: %w", dir, err)
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}

// Dir is the lake root, absolute.
func (l *Lake) Dir() string { return filepath.Join(l.parent, l.base) }

func (l *Lake) stagingDir() string { return filepath.Join(l.parent, l.base+stagingSuffix) }

// Names below are relative to the lake's parent, with slashes: what os.Root wants.
const stagingSuffix = ".staging"

func (l *Lake) staging() string { return l.base + stagingSuffix }

func (l *Lake) identityPath() string { return l.base + "/_meta/lake.json" }

func (l *Lake) manifestPath() string { return l.metaDir(l.cfg.Stream.Name) + "/manifest.json" }

// streamDir is the folder of a stream's files, metaDir that of its manifest.
func (l *Lake) streamDir(stream string) string { return l.base + "/" + stream }

func (l *Lake) metaDir(stream string) string { return l.base + "/_meta/" + stream }

// partitionPath returns the partition's file relative to the lake root. Only names of streams, sites of the vendor's alphabet, and dates
// are in it.
func (l *Lake) partitionPath(p pipeline.Partition) (string, error) {
	if err := (pipeline.Scope{Site: p.Site}).Validate(); err != nil {
		return "", fmt.Errorf("path of partition %s: %w", l.label(p), err)
	}
	whole := pipeline.WholeWindow()
	if l.cfg.Stream.IsList() && p.Site != whole.Scope.Site || p.Unit == whole.Unit && p.From != whole.From {
		return "", fmt.Errorf("path of partition %s of %s: a list has no such partition", p, l.cfg.Stream.Name)
	}
	if p.Unit != l.unit() {
		return "", fmt.Errorf("%w: the database keeps partition %s by %s, the configuration says %s",
			ErrLakeMismatch, l.label(p), p.Unit, l.unit())
	}
	name := l.cfg.Stream.Name
	switch l.cfg.Stream.Shape {
	case schemas.Jobs:
		return fmt.Sprintf("%s/site=%s/usage_%s=%s/data.parquet", name, p.Site, partitionKey(p.Unit), partitionName(p)), nil
	case schemas.Events:
		return fmt.Sprintf("%s/event_%s=%s/data.parquet", name, partitionKey(p.Unit), partitionName(p)), nil
	}
	return name + "/data.parquet", nil
}

// unit is that of the stream's partitions.
func (l *Lake) unit() pipeline.Unit {
	if l.layout.timed() {
		return l.cfg.Unit
	}
	return pipeline.Whole
}

// label names the partition in errors: "hcso-213 2024-03", "audit_logs 2024-03", "subscriptions".
func (l *Lake) label(p pipeline.Partition) string {
	switch l.cfg.Stream.Shape {
	case schemas.Jobs:
		return p.String()
	case schemas.Events:
		return l.cfg.Stream.Name + " " + partitionName(p)
	}
	return l.cfg.Stream.Name
}

func partitionKey(u pipeline.Unit) string {
	if u == pipeline.Day {
		return "date"
	}
	return "month"
}

func partitionName(p pipeline.Partition) string {
	switch p.Unit {
	case pipeline.Whole:
		return string(pipeline.Whole)
	case pipeline.Day:
		return p.From.String()
	}
	return p.From.MonthString()
}

// isPathWord tells whether s has only characters that mean nothing to a file system or a query engine.
func isPathWord(s string) bool {
	const alphabet = "-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return s != "" && strings.Trim(s, alphabet) == ""
}

// explainRename says what a rename across devices means here: staging stands beside the lake, so the lake must be no mount point.
func (l *Lake) explainRename(err error) error {
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	return fmt.Errorf("%w (files are staged in %s and renamed into the lake, which must be on the same file system; if %s is a mount "+
		"point, set parquet.dir to a folder in it, such as %s)", err, l.stagingDir(), l.Dir(), filepath.Join(l.Dir(), "lake"))
}
