package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// layout is where things stand in a stream's rows. Positions of derived columns and fields are -1 for what the stream does not have.
type layout struct {
	stream  *schemas.Stream
	derived []schemas.Field // columns that sdr-sync adds
	fields  []schemas.Field // what the vendor sent
	table   string          // quoted
	columns string          // derived ones, then the fields; quoted, for SQL

	date, site, window, key, ordinal, natural int // of the derived columns
	from, to, opened, closed, missing         int // of those of a snapshot or history

	when           int // the field with the time
	factor, amount int // fields of what has amounts: metering records, and lists with the same two

	naturalFields []int
	rollupFields  []int // behind date and site

	contentPrefix, naturalPrefix string
}

// naturalNames and rollupNames are the fields that make the natural key of metering records, and the dimensions of their daily sums.
var (
	naturalNames = [...]string{
		"region_code", "project_id", "cloud_service_type_code", "resource_type_code", "resource_spec_code", "resource_id",
		"accumulate_factor_name", "begin_time",
	}
	rollupNames = [...]string{
		"region_code", "domain_id", "project_id", "enterprise_project_id", "cloud_service_type_code", "resource_type_code",
		"resource_spec_code", "accumulate_factor_name", "record_type",
	}
)

func newLayout(s *schemas.Stream) *layout {
	schema, table, _ := strings.Cut(s.Table, ".")
	derived := func(name string) int {
		return slices.IndexFunc(s.Derived, func(f schemas.Field) bool { return f.Name == name })
	}
	l := &layout{
		stream: s, derived: s.Derived, fields: s.Fields, table: pgx.Identifier{schema, table}.Sanitize(),
		date: max(derived("usage_date"), derived("event_date")), site: derived("site"), window: derived("window_id"),
		key: derived("record_key"), ordinal: derived("ordinal"), natural: derived("natural_key"),
		from: max(derived("valid_from"), derived("first_seen")), to: derived("valid_to"), opened: derived("opened_reason"),
		closed: derived("closed_reason"), missing: derived("absent_since"),
		when: s.Index(s.TimeField), factor: s.Index("accumulate_factor_name"), amount: s.Index("accumulate_factor_value"),
		contentPrefix: fmt.Sprintf("%s/%d\n", s.Name, hashVersion), naturalPrefix: fmt.Sprintf("%s-natural/%d\n", s.Name, hashVersion),
	}
	var columns []string
	for _, f := range slices.Concat(s.Derived, s.Fields) {
		columns = append(columns, pgx.Identifier{f.Name}.Sanitize())
	}
	l.columns = strings.Join(columns, ", ")
	if l.factor < 0 || l.amount < 0 || s.Fields[l.amount].Type != schemas.Decimal {
		l.factor, l.amount = -1, -1
	}
	natural := s.Key
	if l.metered() {
		natural = naturalNames[:]
		for _, name := range rollupNames {
			l.rollupFields = append(l.rollupFields, s.Index(name))
		}
	}
	for _, name := range natural {
		l.naturalFields = append(l.naturalFields, s.Index(name))
	}
	if l.naturalFields == nil {
		for i := range s.Fields {
			l.naturalFields = append(l.naturalFields, i)
		}
	}
	return l
}

// metered tells whether the rows are metering records, with sites, amounts and daily sums.
func (l *layout) metered() bool { return l.stream.Shape == schemas.Jobs }

// timed tells whether rows belong to windows of dates; a list that is read whole has one window.
func (l *layout) timed() bool { return l.window >= 0 }

// row is one row in canonical bytes: what hashes are made of, and what everything else is read from.
type row struct {
	layout *layout

	lead      []byte // canonical bytes of the derived columns
	leadEnds  []int  // where each of them begins, and the end
	canonical []byte // the hash's prefix, then canonical bytes of the fields
	ends      []int  // where each of them begins, and the end
	amount    wide   // of metering records, 0 if NULL
	content   hash   // of the fields

	scratch []byte
}

func newRow(l *layout) *row { return &row{layout: l} }

// begin empties the row. The derived columns are added first, then the fields, in their order.
func (r *row) begin() {
	r.lead, r.leadEnds = r.lead[:0], append(r.leadEnds[:0], 0)
	r.canonical = append(r.canonical[:0], r.layout.contentPrefix...)
	r.ends = append(r.ends[:0], len(r.canonical))
	r.amount = wide{}
}

func (r *row) derived(i int) []byte { return r.lead[r.leadEnds[i]:r.leadEnds[i+1]] }
func (r *row) field(i int) []byte   { return r.canonical[r.ends[i]:r.ends[i+1]] }

// finish computes the record hash.
func (r *row) finish() { r.content = shortHash(r.canonical) }

func shortHash(b []byte) hash {
	sum := sha256.Sum256(b)
	return hash(sum[:16])
}

// keyOf returns the record_key that the fields demand.
func (r *row) keyOf() hash {
	if r.layout.when < 0 {
		return r.content
	}
	var key hash
	binary.BigEndian.PutUint32(key[:4], uint32(floorDiv(r.time(), microsPerSecond)))
	copy(key[4:], r.content[:12])
	return key
}

// time is the usage or event time in microseconds.
func (r *row) time() int64 { return intOf(r.field(r.layout.when)) }

// naturalOf returns the natural_key that the columns demand.
func (r *row) naturalOf() hash {
	b := append(r.scratch[:0], r.layout.naturalPrefix...)
	if r.layout.metered() {
		b = append(b, r.derived(r.layout.site)...)
	} else {
		b = beginValue(b, 0) // lists have no site
	}
	for _, i := range r.layout.naturalFields {
		start := len(b)
		b = append(b, r.field(i)...)
		if r.layout.metered() && i == r.layout.factor && !isNull(b[start:]) {
			lowerASCII(b[start+valueStart:])
		}
	}
	r.scratch = b
	return shortHash(b)
}

func lowerASCII(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
}

// storedHash is what files of the stream are digested by: the record hash for metering records, for lists the hash of all columns.
func (r *row) storedHash() hash {
	if r.layout.metered() {
		return r.content
	}
	b := append(r.scratch[:0], r.layout.contentPrefix...)
	b = append(b, r.lead...)
	b = append(b, r.canonical[len(r.layout.contentPrefix):]...)
	r.scratch = b
	return shortHash(b)
}

// dimensions are the canonical bytes of what the row's daily sum is grouped by.
func (r *row) dimensions() []byte {
	b := append(r.scratch[:0], r.derived(r.layout.date)...)
	b = append(b, r.derived(r.layout.site)...)
	for _, i := range r.layout.rollupFields {
		b = append(b, r.field(i)...)
	}
	r.scratch = b
	return b
}

// describe writes for people what tells the row from others.
func (r *row) describe() string {
	var parts []string
	for i, f := range r.layout.fields {
		tells := i == r.layout.when || i == r.layout.factor || i == r.layout.amount || slices.Contains(r.layout.stream.Key, f.Name) ||
			r.layout.metered() && f.Name == "resource_id" || len(r.layout.stream.Key) == 0 && !r.layout.metered() && i < 3
		if tells {
			parts = append(parts, f.Name+" "+describeValue(f.Type, r.field(i)))
		}
	}
	return strings.Join(parts, ", ")
}
