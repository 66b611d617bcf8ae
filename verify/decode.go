package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// reference is a second decoder of the vendor's records, plain and slow, written from schemas/README.md. The pipeline's fast one must come to the same
// hashes.
type reference struct {
	layout   *layout
	zone     *time.Location
	site     string
	notAfter int64 // of metering records; 0 is no bound
	from, to day   // of events; equal if there is no bound
	names    map[string]int
	own      []string // normalised names, by field
	ignored  map[string]bool
	flatten  map[string]bool
	calendar calendar
	row      *row

	seen []member // of the record at hand, up to the first that it is rejected for
}

func newReference(cfg Config, l *layout, w Window) *reference {
	d := &reference{
		layout: l, zone: cfg.SourceZone, site: w.Site, names: map[string]int{}, ignored: map[string]bool{}, flatten: map[string]bool{},
		calendar: calendar{zone: cfg.SourceZone}, row: newRow(l),
	}
	from, to := dayOf(w.From), dayOf(w.To)
	switch l.stream.Shape {
	case schemas.Jobs:
		d.notAfter = (to + 2).in(cfg.FileZone).UnixMicro()
	case schemas.Events:
		d.from, d.to = from, to
	}
	for i, f := range l.fields {
		d.own = append(d.own, normalName(f.Name))
		if f.Name != "extra" {
			d.names[d.own[i]] = i
		}
	}
	for i, f := range l.fields {
		for _, alias := range f.Aliases {
			if name := normalName(alias); f.Name != "extra" {
				if _, taken := d.names[name]; !taken {
					d.names[name] = i
				}
			}
		}
	}
	for _, name := range slices.Concat(cfg.IgnoreFields, l.stream.Ignore) {
		d.ignored[normalName(name)] = true
	}
	if l.stream.List != nil {
		for _, name := range l.stream.List.Flatten {
			d.flatten[normalName(name)] = true
		}
	}
	return d
}

// normalName is how keys are compared: A to Z lower-cased, without '_', '-' and spaces.
func normalName(name string) string {
	var b []byte
	for i := range len(name) {
		if c := name[i]; c != '_' && c != '-' && c != ' ' {
			b = append(b, c)
		}
	}
	lowerASCII(b)
	return string(b)
}

// rejected says why a record can't be normalised: a reason of schemas/README.md.
type rejected struct{ reason string }

func (r *rejected) Error() string { return r.reason }

func reject(reason string) error { return &rejected{reason} }

// rejectFor translates what keeps a text or JSON from being canonical; otherwise is the reason of all that has none of its own.
func rejectFor(err error, otherwise string) error {
	switch {
	case errors.Is(err, errNUL):
		return reject("nul_character")
	case errors.Is(err, errBadUTF8):
		return reject("invalid_utf8")
	case errors.Is(err, errSyntax):
		return reject("bad_json")
	}
	return reject(otherwise)
}

// member is one key of a record with its value.
type member struct {
	name  string // the key, below a flattened member with that one's name before it
	field int    // that it means, -1 for none
	own   bool   // it spells the field's name rather than an alias
	raw   []byte
}

// decode normalises one record. It returns d.row, good until the next call, or a *rejected. A record whose date is outside of the window, in the
// overlap that events are asked for with, belongs to another window, be it a row or rejected there.
func (d *reference) decode(element []byte, asked url.Values) (r *row, outside bool, err error) {
	d.seen = nil
	r, outside, err = d.normalize(element, asked)
	var bad *rejected
	if errors.As(err, &bad) && d.from != d.to && !d.layout.stream.Whole() && d.inOverlap() {
		return d.row, true, nil
	}
	return r, outside, err
}

// inOverlap tells whether the time of a rejected record can be read, and is one that another window was asked for.
func (d *reference) inOverlap() bool {
	chosen, _ := d.choose(d.seen)
	m, found := chosen[d.layout.when]
	if !found {
		return false
	}
	v, err := d.value(d.layout.when, m.raw)
	if err != nil || v == nil {
		return false
	}
	date := d.calendar.dayOf(intOf(v))
	return (date < d.from || date >= d.to) && d.wasAskedFor(intOf(v))
}

// wasAskedFor tells whether an event's time is in the window or in the overlap around it: a second, and a second for rounded times.
func (d *reference) wasAskedFor(micros int64) bool {
	const slack = 2 * microsPerSecond
	return micros >= d.from.in(d.zone).UnixMicro()-slack && micros <= d.to.in(d.zone).UnixMicro()+slack
}

func (d *reference) normalize(element []byte, asked url.Values) (r *row, outside bool, err error) {
	values := make([][]byte, len(d.layout.fields)) // canonical bytes; nil is NULL
	if d.layout.stream.Whole() {
		body := d.layout.stream.Index("body")
		if values[body], err = d.value(body, bytes.TrimSpace(element)); err != nil {
			return nil, false, err
		}
	} else if err := d.members(element, values, asked); err != nil {
		return nil, false, err
	}
	for i, f := range d.layout.fields {
		if f.Asked {
			if values[i], err = d.value(i, quoted(asked.Get(f.Name))); err != nil {
				return nil, false, fmt.Errorf("take %s as it was asked for: %w", f.Name, err)
			}
		}
		if f.Required && values[i] == nil {
			return nil, false, reject("missing_" + f.Name)
		}
	}
	d.fill(values)
	if d.layout.when < 0 {
		return d.row, false, nil
	}
	return d.judgeTime()
}

// judgeTime refuses implausible times, and tells events of other windows.
func (d *reference) judgeTime() (r *row, outside bool, err error) {
	at, name := d.row.time(), d.layout.stream.TimeField
	if at < time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() || d.notAfter != 0 && at >= d.notAfter {
		return nil, false, reject(name + "_out_of_range")
	}
	if d.from == d.to {
		return d.row, false, nil
	}
	date := d.calendar.dayOf(at)
	outside = date < d.from || date >= d.to
	if outside && !d.wasAskedFor(at) {
		return nil, false, reject(name + "_out_of_window")
	}
	return d.row, outside, nil
}

// fill makes the row of canonical values.
func (d *reference) fill(values [][]byte) {
	r := d.row
	r.begin()
	for i, f := range d.layout.derived { // only the site counts: it is in natural keys
		r.lead = append(r.lead, absent)
		if i == d.layout.site && f.Type == schemas.Text {
			r.lead = appendText(r.lead[:len(r.lead)-1], []byte(d.site))
		}
		r.leadEnds = append(r.leadEnds, len(r.lead))
	}
	for _, v := range values {
		if v == nil {
			v = []byte{absent}
		}
		r.canonical = append(r.canonical, v...)
		r.ends = append(r.ends, len(r.canonical))
	}
	r.finish()
}

// members finds each field's value among the keys of a record, and puts what is left into the extra field.
func (d *reference) members(element []byte, values [][]byte, asked url.Values) error {
	all, err := d.list(element, "")
	d.seen = all
	if err != nil {
		return err
	}
	all, err = d.withoutRepetitions(all)
	d.seen = all
	if err != nil {
		return err
	}
	chosen, unused := d.choose(all)
	for _, field := range slices.Sorted(maps.Keys(chosen)) {
		if values[field], err = d.value(field, chosen[field].raw); err != nil {
			return err
		}
	}
	unused = slices.DeleteFunc(unused, func(m member) bool { return m.field >= 0 && d.means(m, values, asked) })
	return d.extra(unused, values)
}

// choose finds the key of each field, and returns those that are left.
func (d *reference) choose(all []member) (chosen map[int]member, unused []member) {
	chosen = map[int]member{}
	for _, m := range all {
		if m.field < 0 {
			unused = append(unused, m)
			continue
		}
		before, taken := chosen[m.field]
		switch {
		case d.layout.fields[m.field].Asked:
			if !d.null(m.raw) {
				unused = append(unused, m)
			}
		case !taken, d.null(before.raw): // NULL never hides a value
			chosen[m.field] = m
		case d.null(m.raw):
		case m.own && !before.own:
			chosen[m.field], unused = m, append(unused, before)
		default:
			unused = append(unused, m)
		}
	}
	return chosen, unused
}

// list returns the keys of an object, and of those members of it that are flattened.
func (d *reference) list(object []byte, within string) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, reject("not_an_object")
		}
		return nil, reject("bad_json")
	}
	var all []member
	for dec.More() {
		start := dec.InputOffset()
		token, err := dec.Token()
		if err != nil {
			return all, reject("bad_json")
		}
		key, _ := token.(string)
		if err := checkString(object[start:dec.InputOffset()], key); err != nil {
			return all, reject("bad_extra")
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return all, reject("bad_json")
		}
		m := member{name: key, field: -1, raw: bytes.TrimSpace(raw)}
		normal := normalName(key)
		field, known := d.names[normal]
		switch {
		case within == "" && d.flatten[normal]:
			if m.raw[0] == '{' {
				inner, err := d.list(m.raw, key)
				all = append(all, inner...)
				if err != nil {
					return all, err
				}
				continue
			}
			if text := string(m.raw); text == "null" || text == `"null"` {
				continue
			}
		case known:
			m.field, m.own = field, normal == d.own[field]
		case d.ignored[normal]:
			continue
		}
		if within != "" {
			m.name = within + "." + key
		}
		all = append(all, m)
	}
	return all, nil
}

// withoutRepetitions drops keys that stand there twice with one value, and refuses those with two values.
func (d *reference) withoutRepetitions(all []member) ([]member, error) {
	first := map[string]member{}
	var once []member
	for _, m := range all {
		before, repeated := first[m.name]
		if !repeated {
			first[m.name] = m
			once = append(once, m)
			continue
		}
		if bytes.Equal(before.raw, m.raw) {
			continue
		}
		var a, b []byte
		var errA, errB error
		if m.field >= 0 {
			a, errA = d.value(m.field, before.raw)
			b, errB = d.value(m.field, m.raw)
		} else {
			a, errA = canonicalAt(before.raw, 1)
			b, errB = canonicalAt(m.raw, 1)
		}
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			return once, reject("duplicate_key")
		}
	}
	return once, nil
}

// means tells whether a key that lost its field says the same as what the field has.
func (d *reference) means(m member, values [][]byte, asked url.Values) bool {
	has := values[m.field]
	if f := d.layout.fields[m.field]; f.Asked {
		has, _ = d.value(m.field, quoted(asked.Get(f.Name)))
	}
	v, err := d.value(m.field, m.raw)
	return err == nil && bytes.Equal(v, has)
}

// extra makes one canonical object of the keys that mean no field.
func (d *reference) extra(unused []member, values [][]byte) error {
	field := d.layout.stream.Index("extra")
	if len(unused) == 0 || field < 0 {
		return nil
	}
	slices.SortStableFunc(unused, func(a, b member) int { return strings.Compare(a.name, b.name) })
	text := []byte{'{'}
	for i, m := range unused {
		if i > 0 {
			text = append(text, ',')
		}
		value, err := canonicalAt(m.raw, 1)
		if err != nil {
			return reject("bad_extra")
		}
		text = append(append(appendQuoted(text, m.name), ':'), value...)
	}
	values[field] = appendText(nil, append(text, '}'))
	return nil
}

func quoted(text string) []byte { return appendQuoted(nil, text) }

// null tells whether a value is NULL, whatever the field.
func (d *reference) null(raw []byte) bool {
	text := string(raw)
	return text == "null" || text == `"null"` || d.layout.stream.IsList() && text == `""`
}

// value returns the canonical bytes of a value of the field, nil for NULL.
func (d *reference) value(field int, raw []byte) ([]byte, error) {
	f, list := d.layout.fields[field], d.layout.stream.IsList()
	text, isText := string(raw), false
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, reject("bad_json")
		}
		if err := checkString(raw, text); err != nil {
			return nil, rejectFor(err, "bad_text")
		}
		isText = true
	}
	if text == "null" || list && isText && text == "" {
		return nil, nil
	}
	switch f.Type {
	case schemas.Text:
		if raw[0] == '{' || raw[0] == '[' {
			canonical, err := canonicalJSON(raw)
			if err != nil {
				return nil, rejectFor(err, "bad_text")
			}
			return appendText(nil, canonical), nil
		}
		return appendText(nil, []byte(text)), nil
	case schemas.JSON:
		canonical, err := canonicalJSON(raw)
		if err != nil {
			return nil, rejectFor(err, "bad_text")
		}
		return appendText(nil, canonical), nil
	case schemas.Timestamp:
		if text == "" || list && text == "0" {
			return nil, nil
		}
		micros, ok := parseTime(text, d.zone, list)
		if !ok {
			return nil, reject("bad_time")
		}
		return appendInt(nil, micros), nil
	case schemas.Date:
		t, ok := wallClock(text + " 00:00:00")
		if !ok {
			return nil, reject("bad_time")
		}
		return appendInt(nil, int64(dayOf(t))), nil
	case schemas.Decimal:
		if text == "" {
			return nil, nil
		}
		n, ok := parseNumber(strings.Trim(text, " \n\t\r"))
		if !ok {
			return nil, reject("bad_amount")
		}
		if whole, fraction := n.size(); whole > 38-scale || fraction > scale {
			return nil, reject("amount_out_of_range")
		}
		return appendText(nil, []byte(n.plain())), nil
	case schemas.Float:
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || strings.Trim(text, "0123456789+-.eE") != "" {
			return nil, reject("bad_number")
		}
		return appendFloat(nil, v), nil
	case schemas.Bigint, schemas.Integer:
		return integerValue(f.Type, text)
	}
	return nil, fmt.Errorf("no vendor's value has the type %q", f.Type)
}

func integerValue(t schemas.Type, text string) ([]byte, error) {
	n, ok := parseNumber(strings.Trim(text, " \n\t\r"))
	if !ok {
		return nil, reject("bad_number")
	}
	whole, fraction := n.size()
	if fraction > 0 {
		return nil, reject("bad_number")
	}
	if whole > 19 {
		return nil, reject("number_out_of_range")
	}
	v, err := strconv.ParseInt(n.plain(), 10, 64)
	if err != nil || t == schemas.Integer && (v < math.MinInt32 || v > math.MaxInt32) {
		return nil, reject("number_out_of_range")
	}
	return appendInt(nil, v), nil
}

var (
	stampForm = regexp.MustCompile(`^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$`)
	isoForm   = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)?$`)
	looseForm = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)[Tt ](\d{1,2}:\d\d)(:\d\d(?:\.\d+)?)?([Zz]|[+-]\d\d:\d\d)?$`)
	epochForm = regexp.MustCompile(`^(\d{10}|\d{13})$`)
)

// parseTime returns the instant that a timestamp stands for, in microseconds since 1970.
func parseTime(text string, zone *time.Location, list bool) (micros int64, ok bool) {
	if m := stampForm.FindStringSubmatch(text); m != nil {
		wall, ok := wallClock(fmt.Sprintf("%s-%s-%s %s:%s:%s", m[1], m[2], m[3], m[4], m[5], m[6]))
		if !ok {
			return 0, false
		}
		return inZone(wall, 0, "", zone)
	}
	if list && epochForm.MatchString(text) {
		n, err := strconv.ParseInt(text, 10, 64)
		if len(text) == 13 {
			return n * 1000, err == nil
		}
		return n * microsPerSecond, err == nil
	}
	date, clock, fraction, own := "", "", "", ""
	if m := isoForm.FindStringSubmatch(text); m != nil {
		date, clock, fraction, own = m[1], m[2], m[3], m[4]
	} else if m := looseForm.FindStringSubmatch(text); m != nil && list {
		date, clock, own = m[1], m[2], m[4]
		seconds := strings.TrimPrefix(m[3], ":")
		if seconds == "" {
			seconds = "00"
		}
		if at := strings.IndexByte(seconds, '.'); at >= 0 {
			seconds, fraction = seconds[:at], seconds[at:]
		}
		if len(clock) == len("h:mm") {
			clock = "0" + clock
		}
		clock += ":" + seconds
	} else {
		return 0, false
	}
	if fraction != "" && own == "" && !list {
		return 0, false
	}
	wall, ok := wallClock(date + " " + clock)
	if !ok {
		return 0, false
	}
	extra, ok := fractionMicros(fraction)
	if !ok {
		return 0, false
	}
	return inZone(wall, extra, own, zone)
}

// wallClock reads a date and time as if in UTC. Years are 1 to 9999.
func wallClock(text string) (time.Time, bool) {
	t, err := time.Parse(time.DateTime, text)
	return t, err == nil && t.Year() >= 1 && len(text) == len(time.DateTime)
}

// fractionMicros reads ".25" as microseconds. Nothing finer may be in it.
func fractionMicros(text string) (int64, bool) {
	if text == "" {
		return 0, true
	}
	digits := strings.TrimRight(text[1:], "0")
	if len(digits) > 6 {
		return 0, false
	}
	v, err := strconv.ParseInt(digits+strings.Repeat("0", 6-len(digits)), 10, 64)
	return v, err == nil
}

// inZone returns when clocks show wall: those of the offset `own` if there is one, else of the zone. Of two such instants it is the first;
// there may be none.
func inZone(wall time.Time, extra int64, own string, zone *time.Location) (micros int64, ok bool) {
	var offsets []int
	switch {
	case own == "Z" || own == "z":
		offsets = []int{0}
	case own != "":
		hours, _ := strconv.Atoi(own[1:3])
		minutes, _ := strconv.Atoi(own[4:6])
		if hours > 23 || minutes > 59 {
			return 0, false
		}
		offset := hours*3600 + minutes*60
		if own[0] == '-' {
			offset = -offset
		}
		offsets = []int{offset}
	default:
		// Every offset that the zone has around that day.
		for hour := -48; hour <= 48; hour += 6 {
			_, offset := wall.Add(time.Duration(hour) * time.Hour).In(zone).Zone()
			if _, is := wall.Add(-time.Duration(offset) * time.Second).In(zone).Zone(); is == offset && !slices.Contains(offsets, offset) {
				offsets = append(offsets, offset)
			}
		}
	}
	if len(offsets) == 0 {
		return 0, false
	}
	t := wall.Add(-time.Duration(slices.Max(offsets)) * time.Second)
	if t.Year() < 1 || t.Year() > 9999 {
		return 0, false
	}
	return t.UnixMicro() + extra, true
}
