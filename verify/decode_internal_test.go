package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Internal, since the reference decoder is nobody's business outside of the package.

// pair is one stream's two decoders under the same settings.
type pair struct {
	fast *record.Decoder
	row  *record.Row
	slow *reference
}

func newPair(s *schemas.Stream, zone *time.Location) pair {
	w := Window{Stream: s.Name, Site: "hcso-213", Region: "cn-north-213", Unit: unitMonth, From: time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2024, 4, 1, 0, 0, 0, 0, time.UTC)}
	o := record.Options{SourceZone: zone, IgnoreFields: append([]string{"noise", "page_no"}, s.Ignore...)}
	from, to := record.NewDate(2024, 3, 1), record.NewDate(2024, 4, 1)
	switch s.Shape {
	case schemas.Jobs:
		o.Site, o.Region, o.NotAfter = w.Site, w.Region, (to + 2).Time(zone)
	case schemas.Events:
		o.From, o.To = from, to
	}
	cfg := Config{URL: "-", SourceZone: zone, FileZone: zone, IgnoreFields: []string{"noise", "page_no"}}
	return pair{record.NewDecoder(s, o), record.NewRow(s), newReference(cfg, newLayout(s), w)}
}

// compare decodes the element both ways and says what differs, "" if nothing does.
func (p pair) compare(element []byte, asked url.Values) string {
	errAsked := p.fast.Asked(asked)
	fast := p.fast.Decode(element, p.row)
	r, outside, err := p.slow.decode(element, asked)
	var bad *rejected
	switch {
	case errAsked != nil:
		return "" // no list is asked for that
	case err != nil && !errors.As(err, &bad):
		return fmt.Sprintf("the reference fails: %v", err)
	case fast != nil && bad == nil:
		return fmt.Sprintf("only the pipeline rejects it: %s %s: %s", fast.Reason, fast.Field, fast.Detail)
	case fast == nil && bad != nil:
		return "only the reference rejects it: " + bad.reason
	case fast != nil:
		if fast.RawHash != record.Hash(shortHash(element)) {
			return "the raw hashes differ"
		}
		return "" // which of several faults is told is each decoder's own
	case p.row.Outside != outside:
		return fmt.Sprintf("outside of the window: %t and %t", p.row.Outside, outside)
	case outside:
		return "" // another window's
	case hash(p.row.Hash) != r.content:
		return fmt.Sprintf("the record hashes differ: %s", differing(p.row, r))
	case hash(p.row.Key) != r.keyOf():
		return "the record keys differ"
	case hash(p.row.NaturalKey) != r.naturalOf():
		return "the natural keys differ"
	}
	return ""
}

func differing(fast *record.Row, slow *row) string {
	var fields []string
	for i, f := range slow.layout.fields {
		v := fast.Values[i]
		text := describeValue(f.Type, slow.field(i))
		if v.Valid == isNull(slow.field(i)) || v.Valid && v.Bytes != nil && string(v.Bytes) != string(bytesOf(slow.field(i))) || v.Valid && v.Bytes == nil && v.Int != intOf(slow.field(i)) {
			fields = append(fields, fmt.Sprintf("%s is %t %q %d and %s", f.Name, v.Valid, v.Bytes, v.Int, text))
		}
	}
	return strings.Join(fields, "; ")
}

// The documents' sample, whose hashes schemas/README.md gives.
func TestReferenceOfTheSample(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, element string }{
		{"a record", `{"begin_time":"20240301220000","resource_id":"r","accumulate_factor_value":"36e2","Region-Code":"x","userId":"p","colour":{"b":1.0,"a":[]}}`},
		{"NULL in every spelling", `{"begin_time":20240301220000,"tag":null,"bp_info":"null","accumulate_factor_value":""}`},
		{"a field twice", `{"begin_time":"20240301220000","beginTime":"20240301230000","region_id":"a","region_code":"b"}`},
		{"a key twice", `{"begin_time":"20240301220000","tag":"a","tag":"b"}`},
		{"a key twice with one value", `{"begin_time":"20240301220000","accumulate_factor_value":"1","accumulate_factor_value":"1.0"}`},
		{"no object", `7`},
		{"no begin time", `{}`},
		{"half a surrogate pair", `{"begin_time":"20240301220000","tag":"\ud800x"}`},
		{"U+0000 in an unknown key", `{"begin_time":"20240301220000","a\u0000":1}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if what := newPair(schemas.SDR(), time.UTC).compare([]byte(test.element), nil); what != "" {
				t.Error(what)
			}
		})
	}
}

// Both decoders agree on whatever may come: of each stream, keys in every spelling, values of every kind, escapes, repetitions.
func TestReferenceAgrees(t *testing.T) {
	t.Parallel()
	zones := []*time.Location{time.UTC, mustZone(t, "Asia/Shanghai"), mustZone(t, "Europe/Berlin"), mustZone(t, "Africa/Cairo")}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SampledFrom(schemas.All()).Draw(t, "stream")
		if rapid.Bool().Draw(t, "metered") {
			s = schemas.SDR()
		}
		p := newPair(s, rapid.SampledFrom(zones).Draw(t, "zone"))
		asked := url.Values{}
		for _, f := range s.Fields {
			if f.Asked {
				asked.Set(f.Name, rapid.SampledFrom([]string{"en_US", "ECS", "", "null", "é"}).Draw(t, "asked"))
			}
		}
		for range 10 {
			element := []byte(drawRecord(t, s))
			if record.Validate(element) != nil {
				continue // such a page is never landed
			}
			if what := p.compare(element, asked); what != "" {
				t.Fatalf("%s %q: %s", s.Name, element, what)
			}
		}
	})
}

func mustZone(t *testing.T, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// drawRecord draws a record of the stream, mostly with the time and key that it needs.
func drawRecord(t *rapid.T, s *schemas.Stream) string {
	if s.Whole() {
		return drawJSON(t, 3)
	}
	var members []string
	for _, f := range s.Fields {
		if (f.Required || f.Name == s.TimeField) && rapid.IntRange(0, 19).Draw(t, "usual") > 0 {
			value := strconv.Quote("k")
			if f.Type != schemas.Text {
				value = drawUsual(t, f.Type)
			}
			members = append(members, strconv.Quote(f.Name)+":"+value)
		}
	}
	for range rapid.IntRange(0, 6).Draw(t, "members") {
		members = append(members, drawMember(t, s))
	}
	if len(members) > 0 && rapid.IntRange(0, 4).Draw(t, "again") == 0 { // a key twice
		members = append(members, rapid.SampledFrom(members).Draw(t, "repeated"))
	}
	space := rapid.SampledFrom([]string{"", " ", "\n\t"}).Draw(t, "space")
	return "{" + space + strings.Join(members, space+","+space) + space + "}"
}

func drawMember(t *rapid.T, s *schemas.Stream) string {
	f := rapid.SampledFrom(s.Fields).Draw(t, "field")
	key := rapid.SampledFrom(append([]string{f.Name}, f.Aliases...)).Draw(t, "key")
	switch rapid.IntRange(0, 8).Draw(t, "spelling") {
	case 0:
		key = camel(key)
	case 1:
		key = strings.ToUpper(key[:1]) + camel(key)[1:]
	case 2:
		key = strings.ReplaceAll(strings.ToUpper(key), "_", "-")
	case 3:
		key = rapid.SampledFrom([]string{"colour", "", "extra", "noise", "Page No", "é", "basic_info", "x\\u0041", "a\\nb", "\\ud83d\\ude00", "b.c"}).Draw(t, "unknown")
	}
	value := drawUsual(t, f.Type)
	if rapid.Bool().Draw(t, "anything") {
		value = drawJSON(t, 2)
	}
	if s.List != nil && len(s.List.Flatten) > 0 && rapid.IntRange(0, 3).Draw(t, "flat") == 0 {
		key, value = s.List.Flatten[0], `{"`+key+`":`+value+`}`
	}
	return `"` + key + `":` + value
}

func camel(key string) string {
	parts := strings.Split(key, "_")
	for i := 1; i < len(parts); i++ {
		if parts[i] != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return strings.Join(parts, "")
}

// drawUsual draws a value that a field of the type may well have, or just may not.
func drawUsual(t *rapid.T, typ schemas.Type) string {
	var values []string
	switch typ {
	case schemas.Timestamp:
		values = []string{
			`"20240301220000"`, `20240331235959`, `"20240401000001"`, `"20240331023000"`, `"20241027023000"`, `"20240426003000"`, `"2024-03-05 10:00:00"`, `"2024-03-05T10:00:00"`, `"2024-03-05t10:00:00Z"`,
			`"2024-03-05T10:00:00.123456+08:00"`, `"2024-03-05T10:00:00.1234560Z"`, `"2024-03-05T10:00:00.1234567Z"`, `"2024-03-05 10:00:00.5"`, `"2024-03-05 9:07"`, `"2024-03-05 09:07"`, `"1709600000"`, `1709600000123`,
			`"0"`, `0`, `""`, `"20240230000000"`, `"00000101000000"`, `"20200101000000"`, `"2009-12-31 23:59:59"`, `"20240301000060"`, `"2024-03-05T24:00:00"`, `"2024-03-05T10:00:00+24:00"`, `" 20240301220000"`,
		}
	case schemas.Decimal:
		values = []string{
			`"3600"`, `0`, `-0`, `"-0.0"`, `12.50`, `"1e3"`, `1E-12`, `1e-13`, `"+5"`, `".5"`, `"5."`, `"00012.500"`, `99999999999999999999999999`, `"99999999999999999999999999.999999999999"`,
			`100000000000000000000000000`, `1e400`, `"1e-400"`, `0e999999999999`, `""`, `" 7 "`, `"\t7"`, `"7\u00a0"`, `"abc"`, `"1,5"`, `"--1"`, `"0x10"`, `"NaN"`, `true`, `[]`, `"1e"`, `"1_000"`,
		}
	case schemas.Bigint, schemas.Integer:
		values = []string{`1`, `"2"`, `2.0`, `"2e3"`, `2.5`, `2147483647`, `2147483648`, `-2147483648`, `9223372036854775807`, `9223372036854775808`, `"-0"`, `1e30`, `""`, `"x"`, `" 4"`}
	case schemas.Float:
		values = []string{`1.5`, `"0.1"`, `-0.0`, `"-0"`, `1e308`, `1e309`, `"NaN"`, `"Inf"`, `"0x1p-2"`, `12.345678901234567`, `""`, `"1e-400"`, `" 1"`, `"+1"`, `"1_0"`}
	case schemas.Date:
		values = []string{`"2024-03-01"`, `"2024-02-30"`, `"2024-3-1"`, `"0000-01-01"`, `20240301`, `""`}
	default:
		values = []string{`"x"`, `""`, `"null"`, `7`, `1.50`, `1e2`, `true`, `"é\u00e9"`, `"a\"b\\c\/d"`, `"\u0000"`, `"\ud800"`, `"\udc00\ud800"`, `"\ud83d\ude00"`, "\"\xff\"", `{"b":1.0,"a":{"c":[]}}`, `[1,2,{}]`, `{"a":1,"a":2}`}
	}
	return rapid.SampledFrom(values).Draw(t, string(typ))
}

// drawJSON draws any JSON value.
func drawJSON(t *rapid.T, depth int) string {
	kind := rapid.IntRange(0, 9).Draw(t, "kind")
	switch {
	case kind == 0 && depth > 0:
		var parts []string
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			parts = append(parts, drawJSON(t, depth-1))
		}
		return "[" + strings.Join(parts, " , ") + "]"
	case kind <= 2 && depth > 0:
		var parts []string
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			key, _ := json.Marshal(rapid.SampledFrom([]string{"a", "b", "", "é", "\n", "a\u2028", "B"}).Draw(t, "name"))
			parts = append(parts, string(key)+": "+drawJSON(t, depth-1))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case kind == 3 && depth == 2:
		n := rapid.SampledFrom([]int{62, 63, 64, 65}).Draw(t, "nested")
		return strings.Repeat("[", n) + strings.Repeat("]", n)
	case kind == 4:
		return rapid.SampledFrom([]string{"null", "true", "false", "0", "-0", "1.0", "10e-1", "1e999", "1e1000", "1e-999", "0.1e1001", "123456789012345678901234567890"}).Draw(t, "scalar")
	case kind == 5:
		text, _ := json.Marshal(rapid.String().Draw(t, "text"))
		return string(text)
	}
	return drawUsual(t, rapid.SampledFrom([]schemas.Type{schemas.Text, schemas.Timestamp, schemas.Decimal, schemas.Integer, schemas.Float, schemas.Date}).Draw(t, "type"))
}

// Whatever an element is, both decoders agree on it.
func FuzzReference(f *testing.F) {
	for _, seed := range []string{
		`{"begin_time":"20240301220000","tag":"a","tag":"a"}`, `{"beginTime":20240301220000,"begin_time":null,"x":{"y":[1e5]}}`, `{"id":"1","start_time":"2024-03-05 9:07"}`, `[]`, `{"begin_time":"20240301220000","":{}}`,
	} {
		f.Add([]byte(seed), uint8(0))
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, element []byte, n uint8) {
		element = []byte(strings.TrimSpace(string(element)))
		if record.Validate(element) != nil {
			return
		}
		all := schemas.All()
		if what := newPair(all[int(n)%len(all)], time.UTC).compare(element, url.Values{}); what != "" {
			t.Errorf("%s %q: %s", all[int(n)%len(all)].Name, element, what)
		}
	})
}

// Canonical decimals come out of every form that they are stored in.
func TestWide(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"0", "1", "-1", "0.5", "-0.000000000001", "99999999999999999999999999.999999999999", "-99999999999999999999999999.999999999999",
		"18446744073709551615", "18446744073709551616", "18446744.073709551616", "-10000", "10000.0001", "1000000000000",
	} {
		n, err := record.Unscaled([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := wideOf(n.Hi, n.Lo).String(); got != text {
			t.Errorf("got %s, want %s", got, text)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		hi, lo := rapid.Int64Range(-1<<62, 1<<62).Draw(t, "hi"), rapid.Uint64().Draw(t, "lo")
		a := wideOf(hi, lo)
		if got, want := a.String(), string(record.AppendInt128(nil, record.Int128{Hi: hi, Lo: lo})); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		factor := rapid.Uint64().Draw(t, "factor")
		if a.add(a.negated()) != (wide{}) || a.times(factor).add(a.negated().times(factor)) != (wide{}) {
			t.Error("a number and its negative don't cancel out")
		}
	})
}

// Two sets of groups have equal sketches if and only if they are the same groups.
func TestSketch(t *testing.T) {
	t.Parallel()
	var facts, sums, others sketch
	for i := range uint64(100) {
		weight := i*0x9E3779B97F4A7C15 + 1
		facts.add(weight, 1, false, wideOf(0, i))
		facts.add(weight, 1, true, wide{})
		sums.addGroup(weight, 2, 1, wideOf(0, i))
		others.addGroup(weight, 2, 1, wideOf(0, (i+1)%100)) // the same total
	}
	if facts != sums {
		t.Error("equal groups have different sketches")
	}
	if facts == others {
		t.Error("different groups have equal sketches")
	}
}

// Keys of more than one record stay apart in every chunking of the stream.
func TestCopyInPieces(t *testing.T) {
	t.Parallel()
	stream := slices.Concat(copySignature, make([]byte, 8))
	for _, text := range []string{"a", "", "long enough to be cut"} {
		stream = append(stream, 0, 2, 0, 0, 0, byte(len(text)))
		stream = append(append(stream, text...), 0xff, 0xff, 0xff, 0xff)
	}
	stream = append(stream, 0xff, 0xff)
	for size := 1; size <= len(stream); size++ {
		var got []string
		c := &tuples{columns: make([][]byte, 2), each: func(columns [][]byte) error {
			got = append(got, fmt.Sprintf("%s %t", columns[0], columns[1] == nil))
			return nil
		}}
		for piece := range slices.Chunk(stream, size) {
			if _, err := c.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{"a true", " true", "long enough to be cut true"}; !slices.Equal(got, want) || !c.ended {
			t.Errorf("in pieces of %d: got %q", size, got)
		}
	}
}
