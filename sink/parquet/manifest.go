package parquet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// formatVersion is that of lake.json and manifest.json. Raise it when an older program must not touch a lake.
const formatVersion = 1

// Identity is _meta/lake.json: what the lake belongs to, pinned at its first use. Stream and SchemaVersion are always those of the metering
// records: lakes were theirs alone once. Every other stream's version stands in its manifest.
type Identity struct {
	LakeID         string        `json:"lake_id"`
	FormatVersion  int           `json:"format_version"`
	Partition      pipeline.Unit `json:"partition"`
	DomainID       string        `json:"domain_id"`
	SourceTimezone string        `json:"source_timezone"`
	Stream         string        `json:"stream"`
	SchemaVersion  int           `json:"schema_version"`
}

// Manifest is _meta/<stream>/manifest.json: the consistent set of files, written after all of them.
type Manifest struct {
	LakeID         string        `json:"lake_id"`
	FormatVersion  int           `json:"format_version"`
	Stream         string        `json:"stream"`
	SchemaVersion  int           `json:"schema_version"`
	HashVersion    int           `json:"hash_version"`
	Writer         string        `json:"writer"`
	Partition      pipeline.Unit `json:"partition"`
	SourceTimezone string        `json:"source_timezone"`
	Files          []Entry       `json:"files"` // in the order of their paths
}

// Entry is what the manifest says of one file. Times are RFC 3339 in UTC with microseconds, absent from a file without rows and from a
// list that is read whole.
type Entry struct {
	Path          string                     `json:"path"` // relative to the lake root
	Site          string                     `json:"site"`
	Partition     string                     `json:"partition"` // "2024-03", "2024-03-01", or "whole"
	Rows          int64                      `json:"rows"`
	Bytes         int64                      `json:"bytes"`
	SHA256        string                     `json:"sha256"`
	Digest        string                     `json:"digest"`           // record.Digest's sum over the rows
	Factors       map[string]FactorSum       `json:"factors,omitzero"` // by accumulate_factor_name as stored; nil if the stream has none
	NoFactor      *FactorSum                 `json:"no_factor,omitempty"`
	MinTime       string                     `json:"min_begin_time,omitempty"` // of events, of their time field
	MaxTime       string                     `json:"max_begin_time,omitempty"`
	DirtySeq      int64                      `json:"dirty_seq"` // the partition's in the snapshot that was read
	Windows       []pipeline.PublishedWindow `json:"windows"`   // those with rows in the file, by id
	SchemaVersion int                        `json:"schema_version"`
	HashVersion   int                        `json:"hash_version"`
	Writer        string                     `json:"writer"`
}

// Facts are the entry's part that the ledger pins.
func (e Entry) Facts() pipeline.FileFacts {
	return pipeline.FileFacts{Rows: e.Rows, Digest: e.Digest, Bytes: e.Bytes, SHA256: e.SHA256}
}

func (m *Manifest) find(path string) (int, bool) {
	return slices.BinarySearchFunc(m.Files, path, func(e Entry, path string) int { return strings.Compare(e.Path, path) })
}

func (m *Manifest) entry(path string) (Entry, bool) {
	i, found := m.find(path)
	if !found {
		return Entry{}, false
	}
	return m.Files[i], true
}

func (m *Manifest) put(e Entry) {
	i, found := m.find(e.Path)
	if found {
		m.Files[i] = e
		return
	}
	m.Files = slices.Insert(m.Files, i, e)
}

func (l *Lake) newManifest(lakeID string) *Manifest {
	return &Manifest{
		LakeID: lakeID, FormatVersion: formatVersion, Stream: l.cfg.Stream.Name, SchemaVersion: l.cfg.Stream.Version,
		HashVersion: record.HashVersion, Writer: WriterVersion, Partition: l.unit(), SourceTimezone: l.cfg.SourceZone,
		Files: []Entry{},
	}
}

// readManifest returns the manifest, or an empty one if there is none or it can't be read: a manifest is derived, the next export
// writes it anew.
func (l *Lake) readManifest(f *files, lakeID string) (m *Manifest, problem error) {
	fresh := l.newManifest(lakeID)
	var stored Manifest
	if err := readJSON(f, l.manifestPath(), &stored); err != nil {
		return fresh, err
	}
	if stored.LakeID != lakeID {
		return fresh, fmt.Errorf("read %s: it belongs to lake %s, this is lake %s", l.manifestPath(), stored.LakeID, lakeID)
	}
	slices.SortFunc(stored.Files, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	fresh.Files = append(fresh.Files, stored.Files...)
	return fresh, nil
}

func (l *Lake) writeManifest(f *files, m *Manifest) error {
	text, err := encodeJSON(m)
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := f.replace(l.staging()+"/manifest.json", l.manifestPath(), text); err != nil {
		return fmt.Errorf("write manifest %s: %w", l.manifestPath(), l.explainRename(err))
	}
	return nil
}

// readIdentity returns lake.json, or nil if there is none. One that contradicts the configuration is ErrLakeMismatch.
func (l *Lake) readIdentity(f *files) (*Identity, error) {
	var id Identity
	err := readJSON(f, l.identityPath(), &id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &id, l.compareIdentity(id)
}

func (l *Lake) compareIdentity(id Identity) error {
	for _, pin := range []struct{ what, lake, config string }{
		{"stream", id.Stream, schemas.SDR().Name},
		{"partition", string(id.Partition), string(l.cfg.Unit)},
		{"domain_id", id.DomainID, l.cfg.DomainID},
		{"source_timezone", id.SourceTimezone, l.cfg.SourceZone},
	} {
		if pin.lake != pin.config && !(l.cfg.Rezone && pin.what == "source_timezone") {
			return fmt.Errorf("%w: %s has %s %q, the configuration says %q", ErrLakeMismatch, l.Dir(), pin.what, pin.lake, pin.config)
		}
	}
	if known := schemas.SDR().Version; id.FormatVersion > formatVersion || id.SchemaVersion > known {
		return fmt.Errorf("%w: %s has format %d and schema %d, this program knows %d and %d: use a newer program",
			ErrLakeMismatch, l.Dir(), id.FormatVersion, id.SchemaVersion, formatVersion, known)
	}
	return nil
}

func (l *Lake) identity(lakeID string) Identity {
	return Identity{
		LakeID: lakeID, FormatVersion: formatVersion, Partition: l.cfg.Unit, DomainID: l.cfg.DomainID,
		SourceTimezone: l.cfg.SourceZone, Stream: schemas.SDR().Name, SchemaVersion: schemas.SDR().Version,
	}
}

func (l *Lake) writeIdentity(f *files, lakeID string) error {
	text, err := encodeJSON(l.identity(lakeID))
	if err != nil {
		return fmt.Errorf("write lake identity: %w", err)
	}
	if err := f.replace(l.staging()+"/lake.json", l.identityPath(), text); err != nil {
		return fmt.Errorf("write lake identity %s: %w", l.identityPath(), l.explainRename(err))
	}
	return nil
}

func readJSON(f *files, name string, into any) error {
	text, err := f.root.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// encodeJSON writes v for people and diffs: indented, keys in order, nothing escaped for HTML.
func encodeJSON(v any) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return text.Bytes(), err
}
