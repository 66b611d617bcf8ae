package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// formatVersion is that of lake.json and manifest.json which this program reads.
const formatVersion = 1

// lake is the folder of Parquet files, open for reading, exports kept out.
type lake struct {
	cfg    Config
	dir    string
	root   *os.Root // nil if there is no such folder
	lock   *os.File // nil if there never was an export
	exists bool     // lake.json is there
	strays string   // says that the lake is another database's

	manifests map[string]*manifest // by stream; nil if it can't be used
	problems  map[string]error     // why
}

// identity is _meta/lake.json.
type identity struct {
	LakeID         string `json:"lake_id"`
	FormatVersion  int    `json:"format_version"`
	Partition      string `json:"partition"`
	DomainID       string `json:"domain_id"`
	SourceTimezone string `json:"source_timezone"`
}

// manifest is _meta/<stream>/manifest.json.
type manifest struct {
	LakeID        string          `json:"lake_id"`
	FormatVersion int             `json:"format_version"`
	Stream        string          `json:"stream"`
	Files         []manifestEntry `json:"files"`
}

// manifestEntry is what the manifest says of one file.
type manifestEntry struct {
	Path          string               `json:"path"`
	Rows          int64                `json:"rows"`
	Bytes         int64                `json:"bytes"`
	SHA256        string               `json:"sha256"`
	Digest        string               `json:"digest"`
	Factors       map[string]factorSum `json:"factors"`
	NoFactor      *factorSum           `json:"no_factor"`
	MinTime       string               `json:"min_begin_time"`
	MaxTime       string               `json:"max_begin_time"`
	SchemaVersion int                  `json:"schema_version"`
	HashVersion   int                  `json:"hash_version"`
	Windows       []struct {
		WindowID   int64 `json:"window_id"`
		Generation int   `json:"generation"`
	} `json:"windows"`
}

type factorSum struct {
	Records     int64  `json:"records"`
	Sum         string `json:"sum"`
	NullAmounts int64  `json:"null_amounts"`
}

func (m *manifest) entry(path string) *manifestEntry {
	if m == nil {
		return nil
	}
	i := slices.IndexFunc(m.Files, func(e manifestEntry) bool { return e.Path == path })
	if i < 0 {
		return nil
	}
	return &m.Files[i]
}

// openLake opens the folder and keeps exports out of it until close.
func openLake(ctx context.Context, cfg Config) (*lake, error) {
	dir, err := filepath.Abs(cfg.Lake)
	if err != nil {
		return nil, fmt.Errorf("open lake %s: %w", cfg.Lake, err)
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	l := &lake{cfg: cfg, dir: dir, manifests: map[string]*manifest{}, problems: map[string]error{}}
	l.root, err = os.OpenRoot(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open lake: %w", err)
	}
	if err := l.keepExportsOut(ctx); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *lake) close() error {
	var errs []error
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	if l.root != nil {
		errs = append(errs, l.root.Close())
	}
	return errors.Join(errs...)
}

// keepExportsOut takes the lake's lock, shared. Without a lock file there never was an export.
func (l *lake) keepExportsOut(ctx context.Context) error {
	f, err := os.Open(l.dir + ".staging/lock")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock lake: %w", err)
	}
	l.lock = f
	ctx, cancel := context.WithTimeoutCause(ctx, l.cfg.LockWait, ErrLakeBusy)
	defer cancel()
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock lake %s: %w", l.dir, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock lake %s: %w", l.dir, context.Cause(ctx))
		case <-retry.C:
		}
	}
}

// begin reads what the lake says of itself, and refuses one that was filled under another configuration.
func (l *lake) begin(ledger *ledger) error {
	var id identity
	err := l.readJSON("_meta/lake.json", &id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l.exists = true
	if ledger.lakeID != "" && id.LakeID != ledger.lakeID {
		l.strays = fmt.Sprintf("it is lake %s, the database feeds lake %s", id.LakeID, ledger.lakeID)
	}
	for _, pin := range []struct{ what, lake, wanted string }{
		{"partition", id.Partition, l.cfg.PartitionUnit},
		{"domain_id", id.DomainID, l.cfg.DomainID},
		{"source_timezone", id.SourceTimezone, l.cfg.SourceZone.String()},
	} {
		if pin.wanted != "" && pin.lake != pin.wanted {
			return fmt.Errorf("%w: %s has %s %q, the configuration says %q", ErrLakeMismatch, l.dir, pin.what, pin.lake, pin.wanted)
		}
	}
	if id.FormatVersion > formatVersion {
		return fmt.Errorf("%w: %s has format %d, this program knows %d: use a newer program", ErrLakeMismatch, l.dir, id.FormatVersion, formatVersion)
	}
	for _, s := range l.cfg.Streams {
		var m manifest
		err := l.readJSON("_meta/"+s.Name+"/manifest.json", &m)
		if err == nil && (m.LakeID != id.LakeID || m.Stream != s.Name || m.FormatVersion > formatVersion) {
			err = fmt.Errorf("it belongs to lake %s, stream %s, format %d", m.LakeID, m.Stream, m.FormatVersion)
		}
		if err != nil {
			l.problems[s.Name] = err
			continue
		}
		l.manifests[s.Name] = &m
	}
	return nil
}

func (l *lake) readJSON(name string, into any) error {
	if l.root == nil {
		return fs.ErrNotExist
	}
	text, err := l.root.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

var siteForm = regexp.MustCompile(`^[-_0-9a-zA-Z]{1,36}$`)

// path returns the partition's file relative to the lake. What no partition can be called is an error.
func (p *partition) path(l *layout) (string, error) {
	if !siteForm.MatchString(p.site) {
		return "", fmt.Errorf("the site %q can't be in a path", p.site)
	}
	key, name := "month", p.from.String()[:len("2024-03")]
	if p.unit == unitDay {
		key, name = "date", p.from.String()
	}
	switch l.stream.Shape {
	case schemas.Jobs:
		return fmt.Sprintf("%s/site=%s/usage_%s=%s/data.parquet", l.stream.Name, p.site, key, name), nil
	case schemas.Events:
		return fmt.Sprintf("%s/event_%s=%s/data.parquet", l.stream.Name, key, name), nil
	}
	return l.stream.Name + "/data.parquet", nil
}

// chooseFiles makes the audits of the files that are asked for.
func (a *audit) chooseFiles() error {
	for _, s := range a.streams {
		name := s.layout.stream.Name
		var asked []partitionKey
		if !s.whole() {
			for _, p := range s.part.Partitions {
				asked = append(asked, partitionKey{p.Site, dayOf(p.From)})
			}
		}
		for _, p := range a.ledger.partitions {
			key := partitionKey{p.site, p.from}
			if p.stream != name || !s.whole() && !slices.Contains(asked, key) {
				continue
			}
			asked = slices.DeleteFunc(asked, func(k partitionKey) bool { return k == key })
			s.files = append(s.files, &fileAudit{lake: a.lake, stream: s, state: p, busy: a.ledger.busy[[2]string{name, p.site}]})
		}
		if len(asked) > 0 {
			return fmt.Errorf("verify: the ledger has no partition of %s for site %s from %s", name, asked[0].site, asked[0].from)
		}
	}
	return nil
}

// foreign compares what no single file shows: the lake as a whole, its manifests, and files that no export wrote.
func (l *lake) foreign(a *audit) ([]Difference, error) {
	var found []Difference
	if !l.exists {
		if a.ledger.exportedAny() && (a.everything() || slices.ContainsFunc(a.streams, func(s *streamAudit) bool { return len(s.files) > 0 })) {
			found = append(found, Difference{Where: "lake", What: l.dir + " holds no lake (_meta/lake.json is missing)", Repair: exportAll})
		}
		return found, nil
	}
	if l.strays != "" {
		found = append(found, Difference{Where: "lake _meta/lake.json", What: l.strays, Repair: "put the right folder in place, or set parquet.dir to it"})
	}
	known := map[string]bool{"_meta/lake.json": true}
	for _, p := range a.ledger.partitions {
		i := slices.IndexFunc(a.cfg.Streams, func(s *schemas.Stream) bool { return s.Name == p.stream })
		if i < 0 {
			continue
		}
		if path, err := p.path(newLayout(a.cfg.Streams[i])); err == nil {
			known[path] = true
		}
	}
	for _, s := range a.streams {
		name := s.layout.stream.Name
		known["_meta/"+name+"/manifest.json"] = true
		problem := l.problems[name]
		if problem != nil && (!errors.Is(problem, fs.ErrNotExist) || slices.ContainsFunc(s.files, func(f *fileAudit) bool { return f.state.exported > 0 })) {
			found = append(found, Difference{Where: "lake _meta/" + name + "/manifest.json", What: fmt.Sprintf("the manifest can't be used: %v", problem), Repair: exportDirty})
		}
		if m := l.manifests[name]; m != nil && s.whole() {
			for _, e := range m.Files {
				if !known[e.Path] {
					found = append(found, Difference{Where: "lake " + e.Path, What: "the manifest names it, the ledger has no such partition", Repair: exportDirty})
				}
			}
		}
	}
	strange, err := l.strange(a, known)
	for _, path := range strange {
		found = append(found, Difference{
			Where: "lake " + path, What: "no export wrote it: readers of the lake may count its rows", Repair: "move the file out of the lake",
		})
	}
	return found, err
}

// strange lists what stands in the lake but is not known. If only some streams are audited, their own folders are looked at, and with the metering records
// all that is in no other stream's.
func (l *lake) strange(a *audit, known map[string]bool) ([]string, error) {
	audited := func(name string) bool {
		first, rest, _ := strings.Cut(name, "/")
		if first == "_meta" {
			first, _, _ = strings.Cut(rest, "/")
		}
		isStream := slices.ContainsFunc(slices.Concat(schemas.All(), l.cfg.Streams), func(s *schemas.Stream) bool { return s.Name == first })
		return slices.ContainsFunc(a.streams, func(s *streamAudit) bool {
			return s.whole() && (s.layout.stream.Name == first || s.layout.metered() && !isStream)
		})
	}
	var strange []string
	err := fs.WalkDir(l.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !known[name] && audited(name) {
			strange = append(strange, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for foreign files: %w", err)
	}
	return strange, nil
}
