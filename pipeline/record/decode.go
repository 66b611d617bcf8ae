package record

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// Options are what the decoder knows of where records come from.
type Options struct {
	Site       string         // goes into every row and into its natural key; "" for lists
	Region     string         // region that was asked for, "" for all; a record keeps the region that it names itself
	SourceZone *time.Location // zone of time stamps that name none, and of usage and event dates; nil is UTC

	// NotAfter is the first instant that the begin time may no longer have; zero means no bound.
	NotAfter time.Time

	// From and To mark as outside all rows whose date is not in [From, To): a list of events is asked for with an overlap of a second on
	// both sides. What lies further out than overlapSlack was not asked for, and is rejected: the vendor goes by another time then. Both
	// zero means no bound.
	From, To Date

	// Survey leaves Key of rows unset, and NaturalKey unless the stream has a key: whoever only counts and compares does not need them.
	Survey bool

	// IgnoreFields are unknown keys to leave out of the extra field, in any spelling.
	IgnoreFields []string
}

// overlapSlack is the overlap with room for times that are rounded to seconds.
const overlapSlack = 2 * microsPerSecond

// bodyField is the field that takes an answer which is one record as it stands.
const bodyField = "body"

// extraField is the field that takes the keys which no document names. No key of the vendor means it, not even its own name.
const extraField = "extra"

// earliestMicros is 2010-01-01 UTC: before it there was no cloud to meter.
const earliestMicros = 1_262_304_000 * microsPerSecond

// Reasons of rejects besides missing_<field>, for each field that is required, and <field>_out_of_range, for the time field.
const (
	reasonNotObject    = "not_an_object"
	reasonBadJSON      = "bad_json"
	reasonDuplicateKey = "duplicate_key"
	reasonNUL          = "nul_character"
	reasonInvalidUTF8  = "invalid_utf8"
	reasonBadText      = "bad_text"
	reasonBadTime      = "bad_time"
	reasonBadAmount    = "bad_amount"
	reasonAmountRange  = "amount_out_of_range"
	reasonBadNumber    = "bad_number"
	reasonNumberRange  = "number_out_of_range"
	reasonBadExtra     = "bad_extra"
)

// Reject says why a record can't be normalised. Such a record goes to the quarantine.
type Reject struct {
	Reason  string // a stable code; schemas/README.md lists them
	Field   string // the field or key at fault, "" for the whole record
	Detail  string // what is wrong with it, quoting at most 100 bytes of the value
	RawHash Hash   // of the element's exact bytes

	// NaturalKey is that of the row, if the stream has a key and its fields can be read all the same.
	NaturalKey Hash
	HasKey     bool
}

// Decoder normalises the records of one stream. It is not safe for concurrent use.
type Decoder struct {
	fields   []schemas.Field
	list     bool  // the empty text is NULL too, and times have more forms
	body     int   // position of the field that takes an answer as it stands, -1 if the stream's records have members
	extra    int   // position of the extra field, -1 if the stream has none
	when     int   // position of the time field, -1 if there is none
	amount   int   // position of the first decimal field of metering records, -1 if there is none
	required []int // positions of the fields that must not be NULL
	site     string
	survey   bool
	keyed    bool // the stream has a key
	notAfter int64
	from, to Date
	earliest int64 // of the events that were asked for, with the overlap
	latest   int64
	asked    []askedField

	names     *names
	clocks    []clock
	calendar  calendar
	hasher    *Hasher
	canonical canonicalizer
	missing   int64

	// Of the record at hand.
	record int64  // its number, from 1
	before key    // stands before the first key, so that this one is predicted too; its name is empty
	slots  []*key // by field: the key that fills it, if that key's record is this one
	unused []*key // unknown keys, and those that lost a field to another
	lost   bool   // some of unused lost a field
	arena  []byte // bytes that don't stand in the element as they are needed
}

// askedField is a field whose value comes from what the list was asked for.
type askedField struct {
	field int
	value Value
}

// NewDecoder returns a decoder for s. It panics if a field of s has a type that vendors' values are not normalised to, which is UUID.
func NewDecoder(s *schemas.Stream, o Options) *Decoder {
	zone := o.SourceZone
	if zone == nil {
		zone = time.UTC
	}
	d := &Decoder{
		fields:   s.Fields,
		list:     s.IsList(),
		body:     -1,
		extra:    s.Index(extraField),
		when:     s.Index(s.TimeField),
		amount:   -1,
		site:     o.Site,
		survey:   o.Survey,
		keyed:    len(s.Key) > 0,
		notAfter: maxMicros + 1,
		earliest: o.From.Time(zone).UnixMicro() - overlapSlack,
		latest:   o.To.Time(zone).UnixMicro() + overlapSlack,
		from:     o.From,
		to:       o.To,
		clocks:   timestampFields(s, zone),
		calendar: calendar{zone: zone},
		hasher:   NewHasher(s),
		slots:    make([]*key, len(s.Fields)),
	}
	if !o.NotAfter.IsZero() {
		d.notAfter = o.NotAfter.UnixMicro()
	}
	if s.Whole() {
		d.body = s.Index(bodyField)
	}
	if !d.list {
		d.amount = slices.IndexFunc(s.Fields, func(f schemas.Field) bool { return f.Type == schemas.Decimal })
	}
	for i, f := range s.Fields {
		if f.Type == schemas.UUID {
			panic("record: stream " + s.Name + ": no vendor's value is normalised to the type of field " + f.Name)
		}
		if f.Required {
			d.required = append(d.required, i)
		}
		if f.Asked {
			d.asked = append(d.asked, askedField{field: i})
		}
	}
	d.names = newNames(s, d.extra, o.IgnoreFields)
	return d
}

// Asked tells what the list was asked for when it gave the records to come. Fields that are marked as asked have these values, by their
// names, until the next call; those without a value are NULL. A value that its field can't have is an error.
func (d *Decoder) Asked(values url.Values) error {
	for i := range d.asked {
		a := &d.asked[i]
		name, text := d.fields[a.field].Name, values.Get(d.fields[a.field].Name)
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return fmt.Errorf("take %s as it was asked for: %q is no text that can be kept", name, text)
		}
		var v Value
		if fault := d.value(a.field, []byte(text), true, &v); fault != nil {
			return fmt.Errorf("take %s as it was asked for: %s", name, fault.detail)
		}
		a.value = Value{Valid: v.Valid, Bytes: bytes.Clone(v.Bytes), Int: v.Int}
	}
	return nil
}

// Decode normalises one element of a page into row and returns nil, or says why that can't be done; row is undefined then. All of row
// is set, with Ordinal and WindowID 0. Row aliases element and memory of the decoder, so it is good until the next Decode.
// Elements that are no valid JSON are rejected too, as far as it is noticed: pages are validated before.
func (d *Decoder) Decode(element []byte, row *Row) *Reject {
	if d.names.forget() {
		d.before.next = nil
		clear(d.slots)
	}
	d.record++
	d.arena, d.unused, d.lost = d.arena[:0], d.unused[:0], false
	if len(row.Values) != len(d.fields) {
		row.Values = make([]Value, len(d.fields))
	}
	if fault := d.normalize(element, row.Values); fault != nil {
		if d.belongsElsewhere() {
			row.Outside = true
			return nil
		}
		reject := fault.reject(element)
		reject.NaturalKey, reject.HasKey = d.rejectKey(row.Values)
		return reject
	}

	if d.amount >= 0 && !row.Values[d.amount].Valid {
		d.missing++
	}
	row.Hash = d.hasher.Content(row.Values)
	if !d.survey || d.keyed {
		row.NaturalKey = d.hasher.Natural(d.site, row.Values)
	}
	row.Site, row.Ordinal, row.WindowID = d.site, 0, 0
	if d.when < 0 {
		row.Key, row.UsageDate, row.Outside = row.Hash, 0, false
		return nil
	}
	at := row.Values[d.when].Int
	if !d.survey {
		row.Key = KeyOf(at, row.Hash)
	}
	row.UsageDate = d.calendar.dateOf(at)
	row.Outside = d.outside(row.UsageDate)
	if row.Outside && (at < d.earliest || at > d.latest) {
		name := d.fields[d.when].Name
		return (&fault{
			reason: name + "_out_of_window", field: name,
			detail: fmt.Sprintf("%s was not asked for: the window is [%s, %s)", formatMicros(at), d.from, d.to),
		}).reject(element)
	}
	return nil
}

// outside tells whether an event of that date is another window's.
func (d *Decoder) outside(date Date) bool { return d.from < d.to && (date < d.from || date >= d.to) }

// belongsElsewhere tells of a record that can't be normalised whether it stands in the overlap, and so in the quarantine of another window.
func (d *Decoder) belongsElsewhere() bool {
	if d.from >= d.to || d.when < 0 {
		return false
	}
	var v Value
	if !d.readSlot(d.when, &v) {
		return false
	}
	return d.outside(d.calendar.dateOf(v.Int)) && v.Int >= d.earliest && v.Int <= d.latest
}

// readSlot normalises the field alone, of a record that can't be normalised as a whole.
func (d *Decoder) readSlot(field int, v *Value) bool {
	k := d.slots[field]
	return k != nil && k.record == d.record && d.value(field, k.raw, k.plain, v) == nil && v.Valid
}

// rejectKey returns the natural key of a record that can't be normalised as a whole.
func (d *Decoder) rejectKey(values []Value) (Hash, bool) {
	if !d.keyed || d.body >= 0 {
		return Hash{}, false
	}
	for _, i := range d.hasher.natural {
		a := slices.IndexFunc(d.asked, func(a askedField) bool { return a.field == i })
		switch {
		case a >= 0:
			values[i] = d.asked[a].value
		case !d.readSlot(i, &values[i]):
			return Hash{}, false
		}
	}
	return d.hasher.Natural(d.site, values), true
}

// normalize fills values from element.
func (d *Decoder) normalize(element []byte, values []Value) *fault {
	if d.body >= 0 {
		clear(values)
		if fault := d.wholeBody(element, &values[d.body]); fault != nil {
			return fault
		}
	} else {
		if fault := d.collect(element); fault != nil {
			return fault
		}
		// Every field that the record has is normalised; the others are NULL.
		for i, k := range d.slots {
			v := &values[i]
			if k == nil || k.record != d.record {
				*v = Value{}
			} else if fault := d.value(i, k.raw, k.plain, v); fault != nil {
				return fault
			}
		}
	}
	for _, a := range d.asked {
		values[a.field] = a.value
	}
	for _, i := range d.required {
		if name := d.fields[i].Name; !values[i].Valid {
			return &fault{reason: "missing_" + name, field: name, detail: "the record has no " + name}
		}
	}
	if d.when >= 0 {
		if fault := d.checkTime(values[d.when].Int); fault != nil {
			return fault
		}
	}
	if d.lost {
		d.dropEqualLosers(values)
	}
	if len(d.unused) > 0 && d.extra >= 0 {
		return d.fillExtra(&values[d.extra])
	}
	return nil
}

// wholeBody normalises an answer that is one record as it stands.
func (d *Decoder) wholeBody(element []byte, v *Value) *fault {
	raw := trimSpace(element)
	if end := skipValue(raw, 0); end < 0 || end < len(raw) {
		return badJSON(raw, max(end, 0))
	}
	return d.value(d.body, raw, false, v)
}

// Unknown returns how many records carried each key that means no field, by the key as sent: what the vendor's format has drifted
// by. Rejected records count, ignored keys don't, and beyond 1000 different keys no new ones are noted.
func (d *Decoder) Unknown() map[string]int64 {
	counts := make(map[string]int64, len(d.names.unknown))
	for name, n := range d.names.unknown {
		counts[name] = *n
	}
	return counts
}

// MissingAmounts returns how many normalised metering records have NULL in the stream's first decimal field. It is 0 for lists.
func (d *Decoder) MissingAmounts() int64 { return d.missing }

// collect walks over the members of element and notes which key fills which field, and which keys fill none.
func (d *Decoder) collect(element []byte) *fault {
	i := skipSpace(element, 0)
	if i == len(element) || element[i] != '{' {
		return &fault{reason: reasonNotObject, detail: fmt.Sprintf("want a JSON object, not %q", excerpt(element))}
	}
	end, fault := d.members(element, i, &d.before)
	if fault != nil {
		return fault
	}
	return d.finish(element, end)
}

// members walks over the object that begins at i, and returns the index behind it. The key `before` stands before its first key.
func (d *Decoder) members(element []byte, i int, before *key) (int, *fault) {
	i = skipSpace(element, i+1)
	if i < len(element) && element[i] == '}' {
		return i + 1, nil
	}
	for k := before; ; {
		// The key: most probably the one that followed the last one before.
		if next := k.next; next != nil && hasToken(element[i:], next.token) {
			k = next
			i += len(next.token)
		} else {
			found, after, fault := d.findKey(element, i, before.name)
			if fault != nil {
				return 0, fault
			}
			k.next = found
			k, i = found, after
		}

		// The colon and the value.
		i = skipSpace(element, i)
		if i == len(element) || element[i] != ':' {
			return 0, badJSON(element, i)
		}
		i = skipSpace(element, i+1)
		switch {
		case i < len(element) && element[i] == '"':
			quote, plain := scanString(element, i+1)
			if quote < 0 {
				return 0, badJSON(element, i)
			}
			raw := element[i : quote+1]
			if plain {
				raw = raw[1 : len(raw)-1]
			}
			if fault := d.note(k, raw, plain); fault != nil {
				return 0, fault
			}
			i = quote + 1
		case k.inner != nil && i < len(element) && element[i] == '{':
			end, fault := d.members(element, i, k.inner)
			if fault != nil {
				return 0, fault
			}
			i = end
		default:
			end := skipValue(element, i)
			if end < 0 {
				return 0, badJSON(element, i)
			}
			if fault := d.note(k, element[i:end], false); fault != nil {
				return 0, fault
			}
			i = end
		}

		// The comma, or the end.
		i = skipSpace(element, i)
		if i == len(element) {
			return 0, badJSON(element, i)
		}
		if element[i] == '}' {
			return i + 1, nil
		}
		if element[i] != ',' {
			return 0, badJSON(element, i)
		}
		i = skipSpace(element, i+1)
	}
}

// finish makes sure that nothing follows the object that ends at i, and counts the drift.
func (d *Decoder) finish(element []byte, i int) *fault {
	if skipSpace(element, i) != len(element) {
		return badJSON(element, i)
	}
	for _, k := range d.unused {
		if k.field == unknownKey {
			d.names.countUnknown(k)
		}
	}
	return nil
}

func hasToken(b []byte, token string) bool {
	return token != "" && len(b) >= len(token) && string(b[:len(token)]) == token
}

// findKey reads the key that begins at i, inside the flattened member called within if there is one, and returns the index behind it.
func (d *Decoder) findKey(element []byte, i int, within string) (*key, int, *fault) {
	if i == len(element) || element[i] != '"' {
		return nil, 0, badJSON(element, i)
	}
	end, plain := scanString(element, i+1)
	if end < 0 {
		return nil, 0, badJSON(element, i)
	}
	body := element[i+1 : end]
	if plain {
		return d.names.find(within, body), end + 1, nil
	}
	name, err := d.unescape(body)
	if err != nil {
		return nil, 0, &fault{reason: reasonBadExtra, detail: fmt.Sprintf("the key %q can't be kept: %v", excerpt(body), err)}
	}
	return d.names.find(within, name), end + 1, nil
}

// unescape returns the text of a JSON string's body, on top of the arena.
func (d *Decoder) unescape(body []byte) ([]byte, error) {
	top := len(d.arena)
	var err error
	d.arena, err = appendUnescaped(d.arena, body)
	return d.arena[top:len(d.arena):len(d.arena)], err
}

// note remembers that the record at hand holds raw under k.
func (d *Decoder) note(k *key, raw []byte, plain bool) *fault {
	if k.record == d.record {
		return d.repeated(k, raw, plain)
	}
	switch k.field {
	case ignoredKey:
	case unknownKey:
		if k.inner == nil || string(raw) != "null" { // a flattened member may be missing
			d.unused = append(d.unused, k)
		}
	default:
		rival := d.slots[k.field]
		switch {
		case k.asked:
			if !d.saysNothing(raw, plain) {
				d.unused, d.lost = append(d.unused, k), true // what was asked for has filled the field
			}
		case rival == nil || rival.record != d.record, d.saysNothing(rival.raw, rival.plain):
			d.slots[k.field] = k // NULL says nothing, under whatever name: it never hides a value
		case d.saysNothing(raw, plain):
		case k.own && !rival.own:
			d.slots[k.field] = k
			d.unused, d.lost = append(d.unused, rival), true
		default:
			d.unused, d.lost = append(d.unused, k), true
		}
	}
	k.record, k.raw, k.plain = d.record, raw, plain
	return nil
}

// saysNothing tells whether raw is a spelling of NULL without escapes.
func (d *Decoder) saysNothing(raw []byte, plain bool) bool {
	return string(raw) == "null" || d.list && plain && len(raw) == 0
}

// repeated judges the second value of one key: the same value may be said twice.
func (d *Decoder) repeated(k *key, raw []byte, plain bool) *fault {
	if k.field == ignoredKey || plain == k.plain && bytes.Equal(raw, k.raw) {
		return nil
	}
	same := false
	if k.field == unknownKey {
		a, errA := d.canonicalText(k.raw, k.plain, 1)
		b, errB := d.canonicalText(raw, plain, 1)
		same = errA == nil && errB == nil && bytes.Equal(a, b)
	} else {
		var v Value
		same = d.value(k.field, k.raw, k.plain, &v) == nil && d.means(k.field, raw, plain, &v)
	}
	if same {
		return nil
	}
	return &fault{
		reason: reasonDuplicateKey, field: k.name,
		detail: fmt.Sprintf("the key %q stands twice in the record, with %q and with %q", k.name, k.raw[:min(len(k.raw), 50)], raw[:min(len(raw), 50)]),
	}
}

// means tells whether raw is normalised to v.
func (d *Decoder) means(field int, raw []byte, plain bool, v *Value) bool {
	var other Value
	return d.value(field, raw, plain, &other) == nil && other.Valid == v.Valid && other.Int == v.Int && bytes.Equal(other.Bytes, v.Bytes)
}

// value normalises raw, a value of the field.
func (d *Decoder) value(field int, raw []byte, plain bool, v *Value) *fault {
	f := &d.fields[field]
	isString := plain
	if !plain {
		switch raw[0] {
		case 'n':
			if string(raw) == "null" {
				*v = Value{}
				return nil
			}
		case '"':
			text, err := d.unescape(raw[1 : len(raw)-1])
			if err != nil {
				return textFault(f.Name, raw, err)
			}
			raw, isString = text, true
		}
	}
	if isString && (string(raw) == "null" || d.list && len(raw) == 0) {
		*v = Value{}
		return nil
	}

	switch f.Type {
	case schemas.Text:
		if isString {
			*v = Value{Valid: true, Bytes: raw}
			return nil
		}
		return d.bareText(f, raw, v)

	case schemas.Timestamp:
		if isString && len(raw) == 0 || d.list && string(raw) == "0" { // since 1970, to say that it has not happened yet
			*v = Value{}
			return nil
		}
		micros, ok := d.clocks[field].parse(raw)
		if !ok {
			return &fault{reason: reasonBadTime, field: f.Name, detail: fmt.Sprintf(
				"%q is no time in %s: want %s", excerpt(raw), d.clocks[field].zone, d.clocks[field].wants())}
		}
		*v = Value{Valid: true, Int: micros}
		return nil

	case schemas.Decimal:
		switch {
		case isString && len(raw) == 0:
			*v = Value{}
			return nil
		case isShortInteger(raw):
			*v = Value{Valid: true, Bytes: raw}
			return nil
		}
		top := len(d.arena)
		var err error
		if d.arena, err = AppendDecimal(d.arena, raw); err != nil {
			reason := reasonBadAmount
			if errors.Is(err, ErrNumberRange) {
				reason = reasonAmountRange
			}
			return &fault{reason: reason, field: f.Name, detail: err.Error()}
		}
		*v = Value{Valid: true, Bytes: d.arena[top:len(d.arena):len(d.arena)]}
		return nil

	case schemas.Date:
		days, ok := parseDay(raw)
		if !ok {
			return &fault{reason: reasonBadTime, field: f.Name, detail: fmt.Sprintf("%q is no date: want YYYY-MM-DD", excerpt(raw))}
		}
		*v = Value{Valid: true, Int: days}
		return nil

	case schemas.Bigint, schemas.Integer:
		return d.integer(f, raw, v)

	case schemas.Float:
		n, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || strings.Trim(string(raw), "0123456789+-.eE") != "" { // neither NaN nor hexadecimal
			return &fault{reason: reasonBadNumber, field: f.Name, detail: fmt.Sprintf("%q is no number of 64 bits", excerpt(raw))}
		}
		*v = Value{Valid: true, Int: int64(math.Float64bits(n + 0))} // there is but one zero
		return nil
	}

	// What is left is JSON.
	if !isString {
		text, err := d.canonicalText(raw, false, 0)
		if err != nil {
			return textFault(f.Name, raw, err)
		}
		*v = Value{Valid: true, Bytes: text}
		return nil
	}
	top := len(d.arena)
	d.arena = appendQuoted(d.arena, raw)
	*v = Value{Valid: true, Bytes: d.arena[top:len(d.arena):len(d.arena)]}
	return nil
}

// integer normalises a whole number. It may be written with a fraction of zeros or with an exponent; nothing is rounded.
func (d *Decoder) integer(f *schemas.Field, raw []byte, v *Value) *fault {
	least, most := int64(math.MinInt64), int64(math.MaxInt64)
	if f.Type == schemas.Integer {
		least, most = math.MinInt32, math.MaxInt32
	}
	n, err := parseInteger(raw)
	switch {
	case errors.Is(err, errIntegerRange), err == nil && (n < least || n > most):
		return &fault{reason: reasonNumberRange, field: f.Name, detail: fmt.Sprintf("%q is not between %d and %d", excerpt(raw), least, most)}
	case err != nil:
		return &fault{reason: reasonBadNumber, field: f.Name, detail: err.Error()}
	}
	*v = Value{Valid: true, Int: n}
	return nil
}

// bareText normalises a text that was not sent as a string: numbers and booleans as they stand, arrays and objects as canonical JSON.
func (d *Decoder) bareText(f *schemas.Field, raw []byte, v *Value) *fault {
	switch c := raw[0]; {
	case c == '{' || c == '[':
		text, err := d.canonicalText(raw, false, 0)
		if err != nil {
			return textFault(f.Name, raw, err)
		}
		*v = Value{Valid: true, Bytes: text}
		return nil
	case string(raw) == "true" || string(raw) == "false" || isJSONNumber(raw):
		*v = Value{Valid: true, Bytes: raw}
		return nil
	}
	return textFault(f.Name, raw, errMalformed)
}

// canonicalText returns the canonical JSON of a value that stands inside depth objects, on top of the arena.
func (d *Decoder) canonicalText(raw []byte, plain bool, depth int) ([]byte, error) {
	top := len(d.arena)
	if plain {
		d.arena = appendQuoted(d.arena, raw)
	} else {
		var err error
		if d.arena, err = d.canonical.append(d.arena, raw, depth); err != nil {
			return nil, err
		}
	}
	return d.arena[top:len(d.arena):len(d.arena)], nil
}

// checkTime refuses a record without a plausible time.
func (d *Decoder) checkTime(at int64) *fault {
	name := d.fields[d.when].Name
	switch {
	case at < earliestMicros:
		return &fault{reason: name + "_out_of_range", field: name, detail: formatMicros(at) + " is before 2010"}
	case at >= d.notAfter:
		return &fault{reason: name + "_out_of_range", field: name, detail: formatMicros(at) + " is not before " + formatMicros(d.notAfter)}
	}
	return nil
}

func formatMicros(micros int64) string { return time.UnixMicro(micros).UTC().Format(time.RFC3339Nano) }

// dropEqualLosers removes those of unused that lost their field to a key with the same value. A different value is drift.
func (d *Decoder) dropEqualLosers(values []Value) {
	d.unused = slices.DeleteFunc(d.unused, func(k *key) bool {
		return k.field >= 0 && d.means(k.field, k.raw, k.plain, &values[k.field])
	})
	for _, k := range d.unused {
		if k.field >= 0 {
			d.names.countUnknown(k)
		}
	}
}

// fillExtra makes one canonical JSON object of the unused keys.
func (d *Decoder) fillExtra(v *Value) *fault {
	slices.SortFunc(d.unused, func(a, b *key) int { return strings.Compare(a.name, b.name) })
	top := len(d.arena)
	for i, k := range d.unused {
		d.arena = append(d.arena, "{,"[min(i, 1)])
		d.arena = append(d.arena, k.quoted...)
		if _, err := d.canonicalText(k.raw, k.plain, 1); err != nil {
			return &fault{reason: reasonBadExtra, field: k.name, detail: fmt.Sprintf("%q can't be kept: %v", excerpt(k.raw), err)}
		}
	}
	d.arena = append(d.arena, '}')
	*v = Value{Valid: true, Bytes: d.arena[top:len(d.arena):len(d.arena)]}
	return nil
}

// fault is a Reject in the making.
type fault struct{ reason, field, detail string }

func (f *fault) reject(element []byte) *Reject {
	return &Reject{Reason: f.reason, Field: f.field, Detail: f.detail, RawHash: RawHash(element)}
}

func badJSON(element []byte, i int) *fault {
	return &fault{reason: reasonBadJSON, detail: fmt.Sprintf("the record is not valid JSON at byte %d, %q", i, excerpt(element[i:]))}
}

// textFault translates what is wrong with the text of a field.
func textFault(field string, raw []byte, err error) *fault {
	reason := reasonBadText
	switch {
	case errors.Is(err, errNUL):
		reason = reasonNUL
	case errors.Is(err, errInvalidUTF8):
		reason = reasonInvalidUTF8
	case errors.Is(err, errMalformed):
		reason = reasonBadJSON
	}
	return &fault{reason: reason, field: field, detail: fmt.Sprintf("%q can't be kept: %v", excerpt(raw), err)}
}
