// Package schemas is the written form of what sdr-sync stores: one YAML file per stream with every field's name, type, unit,
// meaning and source document, and for lists how they are asked for. It holds no logic of pulling; client, decoder, tables, Parquet
// schema and data dictionary follow it.
package schemas

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Type says how a field's values are normalised and stored.
type Type string

// The types of fields.
const (
	Text      Type = "text"      // UTF-8 text as sent; text, STRING
	Timestamp Type = "timestamp" // an instant, microseconds since 1970-01-01 UTC; timestamptz, TIMESTAMP(us, UTC)
	Decimal   Type = "decimal"   // exact, 38 digits of which 12 behind the point; numeric(38,12), DECIMAL(38,12)
	Float     Type = "float"     // binary floating point, for what the vendor measures as Float64; double precision, DOUBLE. Never for amounts
	JSON      Type = "json"      // canonical JSON text; jsonb, STRING
	Date      Type = "date"      // a civil date; date, DATE
	Bigint    Type = "bigint"    // 64-bit integer
	Integer   Type = "integer"   // 32-bit integer
	UUID      Type = "uuid"      // 16 bytes; uuid, FIXED_LEN_BYTE_ARRAY(16)
)

// Field is one column of a stream. A vendor's key means the field if it equals the name or an alias after lower-casing and
// dropping '_', '-' and spaces.
type Field struct {
	Name     string   `yaml:"name"`
	Type     Type     `yaml:"type"`
	Aliases  []string `yaml:"aliases"`
	Required bool     `yaml:"required"` // a record without it goes to the quarantine
	Asked    bool     `yaml:"asked"`    // not in the record: the value of the same name that the list was asked for
	Unit     string   `yaml:"unit"`
	Meaning  string   `yaml:"meaning"`
	Source   string   `yaml:"source"`
}

// Comment is the field's description as it stands on the database column and in the Parquet file: meaning, then the unit.
func (f Field) Comment() string {
	if f.Unit == "" {
		return f.Meaning
	}
	return f.Meaning + " Unit: " + f.Unit + "."
}

// Shape says how a stream's records are asked for and kept.
type Shape string

// The shapes of streams.
const (
	Jobs     Shape = "jobs"     // windows of file dates, drained through query jobs: the metering records
	Events   Shape = "events"   // windows of event time, read from a list
	Snapshot Shape = "snapshot" // a list read whole; each complete pull replaces what stands
	History  Shape = "history"  // a list read whole; every version of a row is kept with the time it stood (SCD2)
)

// Stream is one kind of record. Fields are the vendor's, in the order of columns and of the hash's canonical bytes; Derived are
// the columns that sdr-sync adds, which follow from the shape but for jobs.
type Stream struct {
	Name      string   `yaml:"stream"`
	Title     string   `yaml:"title"`
	Document  string   `yaml:"document"`
	Table     string   `yaml:"table"`
	Version   int      `yaml:"version"`
	Shape     Shape    `yaml:"shape"`
	TimeField string   `yaml:"time_field"` // of jobs and events
	Key       []string `yaml:"key"`        // fields that tell a list's rows from one another; none: their whole content does
	Ignore    []string `yaml:"ignore"`     // unknown keys that are not kept in extra, since they may hold secrets
	Group     string   `yaml:"group"`      // a name for several streams on the command line; empty for none
	Default   bool     `yaml:"default"`    // pulled by nightly and backfill without being named, where its system is configured
	List      *List    `yaml:"list"`       // how a list is asked for; nil for jobs
	Fields    []Field  `yaml:"fields"`
	Derived   []Field  `yaml:"derived"`
}

// List says how a list is asked for. "{name}" in Path, Params and Headers stands for a value of Each, "{domain_id}" and
// "{project_id}" for those of the system's configuration.
type List struct {
	System      string            `yaml:"system"` // esm, bss or bms: whose endpoint and credentials
	API         string            `yaml:"api"`    // bss.api that it is for; empty for any
	Method      string            `yaml:"method"`
	Path        string            `yaml:"path"`
	Generations []string          `yaml:"generations"` // documents that have it: 2025-03 (zh), 2025-10 (en)
	Params      map[string]string `yaml:"params"`      // query parameters, or members of the body if Method is POST
	Headers     map[string]string `yaml:"headers"`
	Rate        Rate              `yaml:"rate"`
	Items       string            `yaml:"items"`   // member of the answer with the records, an array or one object; empty: the whole answer is one record
	Flatten     []string          `yaml:"flatten"` // members of a record whose own members count as the record's
	Total       string            `yaml:"total"`   // member of the answer with the number of all records; empty: there is none
	Paging      Paging            `yaml:"paging"`
	Time        *Span             `yaml:"time"`     // of events
	Each        []Each            `yaml:"each"`     // the list is read once for every combination of these values
	Absent      string            `yaml:"absent"`   // "skip": a 400 or 404 for one combination means that it has no records
	Denied      string            `yaml:"denied"`   // "note": a 403 is noted and fails no run
	Variants    []List            `yaml:"variants"` // other APIs for the same records, chosen by bss.api
}

// Rate is how often an API may be called. APIs that name the same class share one budget.
type Rate struct {
	Class     string `yaml:"class"`
	PerMinute int    `yaml:"per_minute"` // 0: no limit but http.requests_per_second
}

// Paging says how a list is read in pages.
type Paging struct {
	Style string `yaml:"style"` // "row": Start is a row offset, from 0; "page": a page number, from 1; "none"
	Start string `yaml:"start"` // parameter with the row offset or page number
	Limit string `yaml:"limit"` // parameter with the page's size
	Size  int    `yaml:"size"`  // always asked for: the most that the document allows
	// Beyond: ask once more behind a full page even if the total is reached, since the documents leave open what total counts.
	Beyond bool `yaml:"beyond"`
}

// Span says how event time is asked for.
type Span struct {
	Begin  string `yaml:"begin"`  // parameter
	End    string `yaml:"end"`    // parameter
	Unit   string `yaml:"unit"`   // "ms" since 1970
	Window string `yaml:"window"` // month or day: the length of a window, within the span that the document allows
}

// Each is one thing that a list is asked for by. Its value stands under Name in "{name}", and in the field of that name if that is
// marked as asked.
type Each struct {
	Name    string   `yaml:"name"`
	Values  []string `yaml:"values"`  // fixed ones, or
	From    []Column `yaml:"from"`    // the distinct values of columns, or
	Setting string   `yaml:"setting"` // those of a key of the configuration; with Values, these if the key is not set
}

// Column is a column of a table or view, of the rows where Where's columns have one of the values.
type Column struct {
	Stream string              `yaml:"stream"` // that fills the table
	Table  string              `yaml:"table"`  // billing.physical_device
	Column string              `yaml:"column"`
	Where  map[string][]string `yaml:"where"`
}

// Index returns the position of the field called name in Fields, or -1.
func (s *Stream) Index(name string) int {
	return slices.IndexFunc(s.Fields, func(f Field) bool { return f.Name == name })
}

// IsList tells whether the stream is read from a list rather than through query jobs.
func (s *Stream) IsList() bool { return s.Shape != Jobs }

// Whole tells whether an answer of the list is one record as it stands, in the field "body".
func (s *Stream) Whole() bool { return s.List != nil && s.List.Items == "" }

// Stored returns the stream with every stored column, derived ones first, among its fields: what a list's rows are compared and
// exported as. Metering records keep their own form.
func (s *Stream) Stored() *Stream {
	if !s.IsList() {
		return s
	}
	stored := *s
	stored.Fields, stored.Derived = slices.Concat(s.Derived, s.Fields), nil
	return &stored
}

// Variant returns the list with its calls as the given bss.api has them.
func (l *List) Variant(api string) *List {
	for i := range l.Variants {
		if l.Variants[i].API == api {
			return &l.Variants[i]
		}
	}
	return l
}

//go:embed *.yaml
var files embed.FS

// All lists every stream: the metering records, then the lists, those after whose tables others take what they ask by. The result is
// shared: do not change it.
var All = sync.OnceValue(func() []*Stream {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // the files are embedded: only a programmer can break them
	}
	var all []*Stream
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			panic(err)
		}
		s, err := Parse(text)
		if err != nil {
			panic(fmt.Errorf("%s: %w", e.Name(), err))
		}
		if e.Name() != s.Name+".yaml" {
			panic(fmt.Errorf("%s holds stream %s", e.Name(), s.Name))
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Stream) int { return cmp.Or(a.rank()-b.rank(), strings.Compare(a.Name, b.Name)) })
	return all
})

func (s *Stream) rank() int {
	switch {
	case !s.IsList():
		return 0
	case slices.ContainsFunc(s.List.Each, func(e Each) bool { return len(e.From) > 0 }):
		return 2
	}
	return 1
}

// ByName returns the stream called name, nil if there is none.
func ByName(name string) *Stream {
	i := slices.IndexFunc(All(), func(s *Stream) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return All()[i]
}

// SDR returns the schema of the metering records. The result is shared: do not change it.
func SDR() *Stream { return ByName("sdr") }

// derived are the columns that sdr-sync adds to a list's records, by shape.
func derived(shape Shape) []Field {
	key := Field{Name: "natural_key", Type: UUID, Required: true, Meaning: "Hash of the fields that tell rows from one another."}
	content := Field{Name: "record_key", Type: UUID, Required: true, Meaning: "The first 128 bits of the hash of the record's content."}
	ordinal := Field{Name: "ordinal", Type: Integer, Required: true, Meaning: "0 for the first record of this content, 1 and up for exact twins."}
	switch shape {
	case Events:
		return []Field{
			{Name: "event_date", Type: Date, Required: true, Meaning: "Date of the event in the source time zone; the partition key."},
			{Name: "window_id", Type: Bigint, Required: true, Meaning: "Window that published the record; see sdr_sync.window."},
			{Name: "record_key", Type: UUID, Required: true, Meaning: "Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key."},
			{Name: "ordinal", Type: Integer, Required: true, Meaning: "0 for the first record of this content in its window, 1 and up for exact twins."},
		}
	case Snapshot:
		return []Field{
			key, content, ordinal,
			{Name: "first_seen", Type: Timestamp, Required: true, Meaning: "When a complete pull first had the row. It was last seen by the stream's newest pull in billing.snapshot_log."},
		}
	case History:
		return []Field{
			key, content,
			{Name: "valid_from", Type: Timestamp, Required: true, Meaning: "When the pull began that first had this version of the row."},
			{Name: "valid_to", Type: Timestamp, Meaning: "When the pull began that first no longer had it; NULL while it stands."},
			{Name: "opened_reason", Type: Text, Required: true, Meaning: "Why the version began: appeared, changed, or reappeared after it was gone."},
			{Name: "closed_reason", Type: Text, Meaning: "Why the version ended: changed or disappeared; NULL while it stands."},
			{Name: "absent_since", Type: Timestamp, Meaning: "When the pull began that first lacked the row, while the next complete pull has yet to confirm that it is gone."},
		}
	}
	return nil
}

// word is what stream and column names are made of: safe in SQL and in paths.
var word = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Parse reads one stream file; unknown keys, unknown types, and what contradicts itself are errors.
func Parse(text []byte) (*Stream, error) {
	var s Stream
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("parse stream schema: %w", err)
	}
	if s.IsList() {
		if s.Derived != nil {
			return nil, fmt.Errorf("stream %s: the derived columns of a list follow from its shape", s.Name)
		}
		s.Derived = derived(s.Shape)
	}
	if err := errors.Join(s.checkFields(), s.checkShape()); err != nil {
		return nil, fmt.Errorf("stream %s: %w", s.Name, err)
	}
	return &s, nil
}

func (s *Stream) checkFields() error {
	schema, table, _ := strings.Cut(s.Table, ".")
	if !word.MatchString(s.Name) || schema != "billing" || !word.MatchString(table) {
		return fmt.Errorf("name and table (billing.…) must be of lower-case letters, digits and '_', not %q", s.Table)
	}
	seen := map[string]bool{}
	for _, f := range slices.Concat(s.Fields, s.Derived) {
		switch f.Type {
		case Text, Timestamp, Decimal, Float, JSON, Date, Bigint, Integer, UUID:
		default:
			return fmt.Errorf("field %s has the unknown type %q", f.Name, f.Type)
		}
		if !word.MatchString(f.Name) || f.Meaning == "" || seen[f.Name] {
			return fmt.Errorf("field %q needs a name of its own, of lower-case letters, digits and '_', and a meaning", f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}

func (s *Stream) checkShape() error {
	timed := s.Shape == Jobs || s.Shape == Events
	i := s.Index(s.TimeField)
	switch {
	case !slices.Contains([]Shape{Jobs, Events, Snapshot, History}, s.Shape):
		return fmt.Errorf("the shape %q is none", s.Shape)
	case timed && (i < 0 || s.Fields[i].Type != Timestamp || !s.Fields[i].Required):
		return fmt.Errorf("time_field %q is no required field with a time", s.TimeField)
	case !timed && s.TimeField != "":
		return fmt.Errorf("a %s has no time_field", s.Shape)
	case s.IsList() != (s.List != nil):
		return errors.New("a list needs to say how it is asked for, and only a list")
	case s.Shape == History && len(s.Key) == 0:
		return errors.New("a history needs a key")
	case (s.Shape == Events) != (s.List != nil && s.List.Time != nil):
		return errors.New("events are asked for by time, and nothing else is")
	}
	for _, name := range s.Key {
		if i := s.Index(name); i < 0 || !s.Fields[i].Required && !s.Fields[i].Asked {
			return fmt.Errorf("key %q is no required field", name)
		}
	}
	if !s.IsList() {
		return nil
	}
	if s.Whole() != (s.Index("body") >= 0) {
		return errors.New("an answer that is one record as a whole goes into the field body")
	}
	for _, f := range s.Fields {
		if f.Asked && !slices.ContainsFunc(s.List.Each, func(e Each) bool { return e.Name == f.Name }) {
			return fmt.Errorf("field %s is none of the values that the list is asked for by", f.Name)
		}
	}
	return errors.Join(s.List.check(), errors.Join(mapped(s.List.Variants, List.check)...))
}

func mapped(lists []List, check func(List) error) []error {
	var errs []error
	for _, l := range lists {
		errs = append(errs, check(l))
	}
	return errs
}

// GenerationNames are the documents that a list may be in: the Chinese one of March 2025 and the English one of October 2025.
var GenerationNames = []string{"2025-03", "2025-10"}

func (l List) check() error {
	switch {
	case !slices.Contains([]string{"esm", "bss", "bms"}, l.System):
		return fmt.Errorf("list.system %q: want esm, bss or bms", l.System)
	case l.Method != "GET" && l.Method != "POST":
		return fmt.Errorf("list.method %q: want GET or POST", l.Method)
	case !strings.HasPrefix(l.Path, "/"):
		return fmt.Errorf("list.path %q must begin with /", l.Path)
	case l.Rate.Class == "":
		return errors.New("list.rate.class is missing")
	case !slices.Contains([]string{"row", "page", "none"}, l.Paging.Style):
		return fmt.Errorf("list.paging.style %q: want row, page or none", l.Paging.Style)
	case l.Paging.Style != "none" && (l.Paging.Start == "" || l.Paging.Limit == "" || l.Paging.Size < 1):
		return errors.New("list.paging needs start, limit and size")
	case l.Absent != "" && l.Absent != "skip", l.Denied != "" && l.Denied != "note":
		return errors.New("list.absent may be skip, list.denied may be note")
	case l.Time != nil && (l.Time.Begin == "" || l.Time.End == "" || l.Time.Unit != "ms" || l.Time.Window != "month" && l.Time.Window != "day"):
		return errors.New("list.time needs begin, end, unit (ms) and window (month or day)")
	}
	for _, g := range l.Generations {
		if !slices.Contains(GenerationNames, g) {
			return fmt.Errorf("list.generations has %q: want %s", g, strings.Join(GenerationNames, " or "))
		}
	}
	for _, e := range l.Each {
		if !word.MatchString(e.Name) || (len(e.From) > 0) == (len(e.Values) > 0 || e.Setting != "") {
			return fmt.Errorf("list.each %q needs a name, and either from or values and a setting", e.Name)
		}
		for _, c := range e.From {
			schema, table, _ := strings.Cut(c.Table, ".")
			if schema != "billing" || !word.MatchString(table) || !word.MatchString(c.Column) || c.Stream == "" {
				return fmt.Errorf("list.each %q: from %q is no column of a billing table, or does not say whose", e.Name, c.Table+"."+c.Column)
			}
			for column := range c.Where {
				if !word.MatchString(column) {
					return fmt.Errorf("list.each %q: where %q is no column", e.Name, column)
				}
			}
		}
	}
	return nil
}
