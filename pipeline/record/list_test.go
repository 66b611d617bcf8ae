package record_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Streams of each shape of lists.
const (
	plansYAML = `
stream: plans
table: billing.plan
shape: history
key: [language, id]
list:
  {system: bss, method: GET, path: /plans, items: data, rate: {class: plans}, paging: {style: none}, flatten: [basic_info],
   each: [{name: language, values: [en_US]}, {name: size, values: ["1"]}]}
fields:
  - {name: language, type: text, asked: true, meaning: m}
  - {name: size, type: integer, asked: true, meaning: m}
  - {name: id, type: text, required: true, meaning: m}
  - {name: label, type: text, aliases: [name], meaning: m}
  - {name: status, type: integer, meaning: m}
  - {name: quota, type: bigint, meaning: m}
  - {name: price, type: decimal, meaning: m}
  - {name: since, type: date, meaning: m}
  - {name: expires, type: timestamp, meaning: m}
  - {name: project, type: json, meaning: m}
  - {name: extra, type: json, meaning: m}
`
	alarmsYAML = `
stream: alarms
table: billing.alarm
shape: events
time_field: at
list:
  {system: esm, method: GET, path: /alarms, items: list, rate: {class: alarms}, paging: {style: none},
   time: {begin: b, end: e, unit: ms, window: month}}
fields:
  - {name: csn, type: text, required: true, meaning: m}
  - {name: at, type: timestamp, required: true, meaning: m}
  - {name: level, type: text, meaning: m}
`
	bodiesYAML = `
stream: bodies
table: billing.body
shape: snapshot
list: {system: esm, method: GET, path: /bodies, rate: {class: bodies}, paging: {style: none}, each: [{name: kind, values: [ECS]}]}
fields:
  - {name: kind, type: text, asked: true, meaning: m}
  - {name: body, type: json, required: true, meaning: m}
`
)

func parseStream(tb testing.TB, text string) *schemas.Stream {
	tb.Helper()
	s, err := schemas.Parse([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func decodeList(tb testing.TB, s *schemas.Stream, o record.Options, asked, element string) (*record.Row, *record.Reject) {
	tb.Helper()
	d, row := record.NewDecoder(s, o), record.NewRow(s)
	values, err := url.ParseQuery(asked)
	if err != nil {
		tb.Fatal(err)
	}
	if err := d.Asked(values); err != nil {
		tb.Fatal(err)
	}
	reject := d.Decode([]byte(element), row)
	return row, reject
}

// listTexts returns the values of a list's row that are not NULL, by field, as text.
func listTexts(s *schemas.Stream, row *record.Row) map[string]string {
	got := map[string]string{}
	for i, f := range s.Fields {
		v := row.Values[i]
		if !v.Valid {
			continue
		}
		switch f.Type {
		case schemas.Timestamp:
			got[f.Name] = time.UnixMicro(v.Int).UTC().Format(time.RFC3339Nano)
		case schemas.Date:
			got[f.Name] = record.Date(v.Int).String()
		case schemas.Bigint, schemas.Integer:
			got[f.Name] = strconv.FormatInt(v.Int, 10)
		default:
			got[f.Name] = string(v.Bytes)
		}
	}
	return got
}

const asked = "language=en_US&offset=100&size=2"

func TestDecodeListValues(t *testing.T) {
	t.Parallel()
	s := parseStream(t, plansYAML)
	tests := map[string]struct {
		members string // beside id
		want    map[string]string
	}{
		"all of them": {
			`"name":"Gold","status":2,"quota":"9223372036854775807","price":"1.50","since":"2024-02-29","expires":"2018-06-27T15:59:59Z","project":{"id":"0"},"colour":"red"`,
			map[string]string{
				"label": "Gold", "status": "2", "quota": "9223372036854775807", "price": "1.5", "since": "2024-02-29", "expires": "2018-06-27T15:59:59Z",
				"project": `{"id":"0"}`, "extra": `{"colour":"red"}`,
			},
		},
		"empty is NULL":          {`"label":"","status":"","quota":"","price":"","since":"","expires":"","project":""`, nil},
		"the text null is NULL":  {`"label":"null","status":"null","quota":"null","price":"null","since":"null","expires":"null","project":"null"`, nil},
		"null is NULL":           {`"label":null,"status":null,"quota":null,"price":null,"since":null,"expires":null,"project":null`, nil},
		"empty with an escape":   {`"label":"nul\u006c"`, nil},
		"odd text stays":         {`"label":"x-hcso-domainid：x ","project":" "`, map[string]string{"label": "x-hcso-domainid：x ", "project": `" "`}},
		"empty hides no alias":   {`"label":"","name":"Gold"`, map[string]string{"label": "Gold"}},
		"an alias that is empty": {`"name":"","label":"Gold"`, map[string]string{"label": "Gold"}},
		"empty in extra":         {`"colour":""`, map[string]string{"extra": `{"colour":""}`}},
		"bare integer":           {`"status":-2147483648,"quota":-9223372036854775808`, map[string]string{"status": "-2147483648", "quota": "-9223372036854775808"}},
		"integer with zeros":     {`"status":"2.0","quota":" +02e3 "`, map[string]string{"status": "2", "quota": "2000"}},
		"zero":                   {`"status":0,"quota":"-0.0","price":0`, map[string]string{"status": "0", "quota": "0", "price": "0"}},
		"a text of numbers":      {`"label":1.50`, map[string]string{"label": "1.50"}},
		"numbers said twice":     {`"status":2,"status":"2.0"`, map[string]string{"status": "2"}},
		"flattened": {
			`"basic_info":{"name":"Gold","status":3,"shade":{"a":1.0},"b":[]}`,
			map[string]string{"label": "Gold", "status": "3", "extra": `{"basic_info.b":[],"basic_info.shade":{"a":1}}`},
		},
		"flattened, spelled otherwise": {`"BasicInfo" : { "Status" : "3" }`, map[string]string{"status": "3"}},
		"flattened beside its own":     {`"status":2,"basic_info":{"status":3,"label":"Gold"},"name":"Silver"`, map[string]string{"status": "2", "label": "Gold", "extra": `{"basic_info.status":3,"name":"Silver"}`}},
		"flattened and the same":       {`"status":2,"basic_info":{"status":"2"}`, map[string]string{"status": "2"}},
		"flattened, nothing in it":     {`"basic_info":{}`, nil},
		"flattened, missing":           {`"basic_info":null`, nil},
		"flattened, no object":         {`"basic_info":"none"`, map[string]string{"extra": `{"basic_info":"none"}`}},
		"flattened only once":          {`"basic_info":{"basic_info":{"status":3}}`, map[string]string{"extra": `{"basic_info.basic_info":{"status":3}}`}},
		"what was asked for":           {`"language":"en_US","size":"2.0"`, nil},
		"another than was asked for":   {`"language":"zh_CN","size":3`, map[string]string{"extra": `{"language":"zh_CN","size":3}`}},
		"asked for, and not sent":      {`"language":"","size":null`, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := map[string]string{"id": "p1", "language": "en_US", "size": "2"}
			maps.Copy(want, test.want)
			for _, element := range []string{`{"id":"p1",` + test.members + `}`, ` { ` + test.members + ` , "ID" : "p1" } `} {
				row, reject := decodeList(t, s, record.Options{}, asked, element)
				if reject != nil {
					t.Fatalf("%s is rejected: %+v", element, *reject)
				}
				if got := listTexts(s, row); !maps.Equal(got, want) {
					t.Errorf("%s decodes to\n%q, want\n%q", element, got, want)
				}
				checkNormal(t, s, row)
			}
		})
	}
}

func TestDecodeListRejects(t *testing.T) {
	t.Parallel()
	plans, alarms, bodies := parseStream(t, plansYAML), parseStream(t, alarmsYAML), parseStream(t, bodiesYAML)
	tests := map[string]struct {
		stream  *schemas.Stream
		asked   string
		element string
		reason  string
		field   string
	}{
		"no object":                {plans, asked, `["p1"]`, "not_an_object", ""},
		"no id":                    {plans, asked, `{"name":"Gold"}`, "missing_id", "id"},
		"an empty id":              {plans, asked, `{"id":""}`, "missing_id", "id"},
		"the id null":              {plans, asked, `{"id":"null"}`, "missing_id", "id"},
		"status is a word":         {plans, asked, `{"id":"1","status":"active"}`, "bad_number", "status"},
		"status is true":           {plans, asked, `{"id":"1","status":true}`, "bad_number", "status"},
		"status has a fraction":    {plans, asked, `{"id":"1","status":2.5}`, "bad_number", "status"},
		"status is too large":      {plans, asked, `{"id":"1","status":2147483648}`, "number_out_of_range", "status"},
		"status is too small":      {plans, asked, `{"id":"1","status":"-2147483649"}`, "number_out_of_range", "status"},
		"quota is too large":       {plans, asked, `{"id":"1","quota":9223372036854775808}`, "number_out_of_range", "quota"},
		"quota is far too large":   {plans, asked, `{"id":"1","quota":1e999999999999}`, "number_out_of_range", "quota"},
		"no price":                 {plans, asked, `{"id":"1","price":"free"}`, "bad_amount", "price"},
		"no date":                  {plans, asked, `{"id":"1","since":"2023-02-29"}`, "bad_time", "since"},
		"a date and more":          {plans, asked, `{"id":"1","since":"2024-02-29 00:00:00"}`, "bad_time", "since"},
		"no time":                  {plans, asked, `{"id":"1","expires":"soon"}`, "bad_time", "expires"},
		"said twice":               {plans, asked, `{"id":"1","id":"2"}`, "duplicate_key", "id"},
		"said twice inside":        {plans, asked, `{"id":"1","basic_info":{"status":1,"status":2}}`, "duplicate_key", "basic_info.status"},
		"said twice in two":        {plans, asked, `{"id":"1","basic_info":{"q":1},"basic_info":{"q":2}}`, "duplicate_key", "basic_info.q"},
		"torn inside":              {plans, asked, `{"id":"1","basic_info":{"q":1`, "bad_json", ""},
		"torn behind":              {plans, asked, `{"id":"1","basic_info":{"q":1}`, "bad_json", ""},
		"no time of the event":     {alarms, "", `{"csn":"1"}`, "missing_at", "at"},
		"an event at 0":            {alarms, "", `{"csn":"1","at":0}`, "missing_at", "at"},
		"an event of 2009":         {alarms, "", `{"csn":"1","at":1262303999999}`, "at_out_of_range", "at"},
		"an event without its csn": {alarms, "", `{"at":1709330400000}`, "missing_csn", "csn"},
		"no body":                  {bodies, "kind=ECS", ` `, "bad_json", ""},
		"a torn body":              {bodies, "kind=ECS", `"`, "bad_json", ""},
		"a body and more":          {bodies, "kind=ECS", `{} {}`, "bad_json", ""},
		"a body of null":           {bodies, "kind=ECS", `null`, "missing_body", "body"},
		"a body with a NUL":        {bodies, "kind=ECS", `{"a":"\u0000"}`, "nul_character", "body"},
		"a body nested too deep":   {bodies, "kind=ECS", strings.Repeat("[", 65) + strings.Repeat("]", 65), "bad_text", "body"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, reject := decodeList(t, test.stream, record.Options{}, test.asked, test.element)
			if reject == nil {
				t.Fatalf("%s is accepted, want %s", test.element, test.reason)
			}
			if reject.Reason != test.reason || reject.Field != test.field || reject.Detail == "" {
				t.Errorf("%s is rejected for %q of %q (%s), want %q of %q", test.element, reject.Reason, reject.Field, reject.Detail, test.reason, test.field)
			}
			if reject.RawHash != record.RawHash([]byte(test.element)) {
				t.Errorf("%s has the raw hash %x", test.element, reject.RawHash)
			}
		})
	}
}

func TestDecodeListTimes(t *testing.T) {
	t.Parallel()
	s := parseStream(t, alarmsYAML)
	shanghai := time.FixedZone("+08", 8*3600)
	tests := map[string]struct {
		raw  string
		zone *time.Location
		want string // "" for bad_time
		date string
	}{
		"milliseconds":             {`1709330400123`, shanghai, "2024-03-01T22:00:00.123Z", "2024-03-02"},
		"milliseconds as text":     {`"1709330400000"`, nil, "2024-03-01T22:00:00Z", "2024-03-01"},
		"seconds":                  {`1709330400`, shanghai, "2024-03-01T22:00:00Z", "2024-03-02"},
		"seconds as text":          {`"1709330400"`, nil, "2024-03-01T22:00:00Z", "2024-03-01"},
		"a stamp":                  {`20240301220000`, shanghai, "2024-03-01T14:00:00Z", "2024-03-01"},
		"spaced":                   {`"2020-11-01 01:13:59"`, shanghai, "2020-10-31T17:13:59Z", "2020-11-01"},
		"RFC 3339":                 {`"2018-06-27T15:59:59Z"`, shanghai, "2018-06-27T15:59:59Z", "2018-06-27"},
		"one digit for the hour":   {`"2024-01-08 0:00"`, shanghai, "2024-01-07T16:00:00Z", "2024-01-08"},
		"without seconds":          {`"2024-01-08 23:59"`, nil, "2024-01-08T23:59:00Z", "2024-01-08"},
		"short hour, seconds":      {`"2024-01-08T7:05:09"`, nil, "2024-01-08T07:05:09Z", "2024-01-08"},
		"short hour, zone":         {`"2024-01-08 7:05+08:00"`, nil, "2024-01-07T23:05:00Z", "2024-01-07"},
		"fraction without a zone":  {`"2024-01-08 07:05:09.5"`, shanghai, "2024-01-07T23:05:09.5Z", "2024-01-08"},
		"short hour, nanoseconds":  {`"2024-01-08 7:05:09.000000001"`, nil, "", ""},
		"hour 24":                  {`"2024-01-08 24:00"`, nil, "", ""},
		"minute 60":                {`"2024-01-08 0:60"`, nil, "", ""},
		"second 60":                {`"2024-01-08 0:00:60"`, nil, "", ""},
		"one digit for the minute": {`"2024-01-08 0:0"`, nil, "", ""},
		"three for the hour":       {`"2024-01-08 000:00"`, nil, "", ""},
		"cut behind the colon":     {`"2024-01-08 0:00:"`, nil, "", ""},
		"a sign in it":             {`"2024-01-08 -1:00"`, nil, "", ""},
		"no hour":                  {`"2024-01-08 :00"`, nil, "", ""},
		"a date alone":             {`"2024-01-08"`, nil, "", ""},
		"no day of the calendar":   {`"2023-02-29 0:00"`, nil, "", ""},
		"11 digits":                {`17093304000`, nil, "", ""},
		"a fraction of seconds":    {`1709330400.5`, nil, "", ""},
		"a sign before seconds":    {`"-170933040"`, nil, "", ""},
		"a letter in milliseconds": {`"170933040000x"`, nil, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row, reject := decodeList(t, s, record.Options{SourceZone: test.zone}, "", `{"csn":"1","at":`+test.raw+`}`)
			switch {
			case test.want == "" && (reject == nil || reject.Reason != "bad_time"):
				t.Errorf("%s: reject %+v, want bad_time", test.raw, reject)
			case test.want != "" && reject != nil:
				t.Errorf("%s: reject %+v", test.raw, reject)
			case test.want != "" && (listTexts(s, row)["at"] != test.want || row.UsageDate.String() != test.date):
				t.Errorf("%s is %s on %s, want %s on %s", test.raw, listTexts(s, row)["at"], row.UsageDate, test.want, test.date)
			}
		})
	}
}

// TestEventsOutside: the dates of a window, in the source's zone, decide which events are its own.
func TestEventsOutside(t *testing.T) {
	t.Parallel()
	s := parseStream(t, alarmsYAML)
	march := record.Options{From: record.NewDate(2024, 3, 1), To: record.NewDate(2024, 4, 1)}
	inShanghai := march
	inShanghai.SourceZone = time.FixedZone("+08", 8*3600)
	for _, test := range []struct {
		name    string
		options record.Options
		at      string
		want    bool
	}{
		{"the last moment before", march, "2024-02-29T23:59:59.999999Z", true},
		{"the first moment", march, "2024-03-01T00:00:00Z", false},
		{"the last moment", march, "2024-03-31T23:59:59.999999Z", false},
		{"the first moment after", march, "2024-04-01T00:00:00Z", true},
		{"elsewhere, the last moment before", inShanghai, "2024-02-29T15:59:59Z", true},
		{"elsewhere, the first moment", inShanghai, "2024-02-29T16:00:00Z", false},
		{"elsewhere, the first moment after", inShanghai, "2024-03-31T16:00:00Z", true},
		{"no bounds", record.Options{}, "2031-01-01T00:00:00Z", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			row, reject := decodeList(t, s, test.options, "", `{"csn":"1","at":"`+test.at+`"}`)
			if reject != nil || row.Outside != test.want {
				t.Errorf("%s is outside: %t, reject %v; want %t", test.at, row.Outside, reject, test.want)
			}
		})
	}
}

// TestEventsNotAskedFor: what lies beyond the overlap is no neighbour's, but was selected by another time than ours.
func TestEventsNotAskedFor(t *testing.T) {
	t.Parallel()
	s := parseStream(t, alarmsYAML)
	march := record.Options{From: record.NewDate(2024, 3, 1), To: record.NewDate(2024, 4, 1)}
	for at, rejected := range map[string]bool{
		"2024-02-29T23:59:57Z": true, "2024-02-29T23:59:58Z": false, "2024-04-01T00:00:02Z": false, "2024-04-01T00:00:02.001Z": true, "2023-03-15T00:00:00Z": true,
	} {
		_, reject := decodeList(t, s, march, "", `{"csn":"1","at":"`+at+`"}`)
		if (reject != nil) != rejected || rejected && (reject.Reason != "at_out_of_window" || reject.Field != "at") {
			t.Errorf("%s is rejected with %+v; want %t", at, reject, rejected)
		}
	}
}

// TestListKeys: what rows of each shape are known by.
func TestListKeys(t *testing.T) {
	t.Parallel()
	text := func(s string) []byte { return append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(s))), s...) }
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64([]byte{1, 0, 0, 0, 8}, uint64(n)) }
	null := []byte{0}
	sum := func(parts ...[]byte) record.Hash {
		s := sha256.Sum256(bytes.Join(parts, nil))
		return record.Hash(s[:16])
	}

	plans := parseStream(t, plansYAML)
	row, reject := decodeList(t, plans, record.Options{}, asked, `{"id":"p1","status":-2,"quota":"7","since":"1969-12-31","expires":"1970-01-01T00:00:01Z"}`)
	if reject != nil {
		t.Fatal(*reject)
	}
	hash := sum([]byte("plans/1\n"), text("en_US"), number(2), text("p1"), null, number(-2), number(7), null, number(-1), number(1e6), null, null)
	natural := sum([]byte("plans-natural/1\n"), text(""), text("en_US"), text("p1"))
	if row.Hash != hash || row.Key != hash || row.NaturalKey != natural || row.UsageDate != 0 || row.Site != "" {
		t.Errorf("a keyed row has hash %x, key %x, natural key %x, date %d and site %q; want %x, the same, %x, 0 and none",
			row.Hash, row.Key, row.NaturalKey, row.UsageDate, row.Site, hash, natural)
	}

	bodies := parseStream(t, bodiesYAML)
	if row, reject = decodeList(t, bodies, record.Options{}, "kind=EVS", ` [1.0] `); reject != nil {
		t.Fatal(*reject)
	}
	hash = sum([]byte("bodies/1\n"), text("EVS"), text("[1]"))
	if natural = sum([]byte("bodies-natural/1\n"), text(""), text("EVS"), text("[1]")); row.Hash != hash || row.Key != hash || row.NaturalKey != natural {
		t.Errorf("a row without a key has hash %x, key %x and natural key %x; want %x, the same and %x", row.Hash, row.Key, row.NaturalKey, hash, natural)
	}

	alarms := parseStream(t, alarmsYAML)
	if row, reject = decodeList(t, alarms, record.Options{}, "", `{"csn":"1","at":"1709330400999","level":""}`); reject != nil {
		t.Fatal(*reject)
	}
	hash = sum([]byte("alarms/1\n"), text("1"), number(1709330400999000), null)
	if key := record.Hash(append([]byte{0x65, 0xe2, 0x4f, 0xe0}, hash[:12]...)); row.Hash != hash || row.Key != key {
		t.Errorf("an event has hash %x and key %x; want %x and %x", row.Hash, row.Key, hash, key)
	}
	var uuid [16]byte
	copy(uuid[:], "sixteen bytes of")
	stored := alarms.Stored()
	values := []record.Value{
		{Valid: true, Int: 19783},
		{Valid: true, Int: 5},
		{Valid: true, Bytes: uuid[:]},
		{Valid: true, Int: 1},
		{Valid: true, Bytes: []byte("1")},
		{Valid: true, Int: 1709330400999000},
		{},
	}
	want := sum([]byte("alarms/1\n"), number(19783), number(5), append(binary.BigEndian.AppendUint32([]byte{1}, 16), uuid[:]...), number(1), text("1"), number(1709330400999000), null)
	if got := record.NewHasher(stored).Content(values); got != want {
		t.Errorf("the stored columns have the hash %x, want %x", got, want)
	}
}

// TestSurveyOfLists: a survey needs natural keys only where it compares them.
func TestSurveyOfLists(t *testing.T) {
	t.Parallel()
	plans, bodies := parseStream(t, plansYAML), parseStream(t, bodiesYAML)
	row, _ := decodeList(t, plans, record.Options{Survey: true}, asked, `{"id":"p1"}`)
	full, _ := decodeList(t, plans, record.Options{}, asked, `{"id":"p1"}`)
	if row.NaturalKey != full.NaturalKey || row.NaturalKey == (record.Hash{}) {
		t.Errorf("the survey's natural key is %x, want %x", row.NaturalKey, full.NaturalKey)
	}
	if row, _ := decodeList(t, bodies, record.Options{Survey: true}, "kind=ECS", `{}`); row.NaturalKey != (record.Hash{}) {
		t.Errorf("without a key the survey computes the natural key %x", row.NaturalKey)
	}
}

func TestWholeBodies(t *testing.T) {
	t.Parallel()
	s := parseStream(t, bodiesYAML)
	for element, want := range map[string]string{
		` {"total": "3", "list": [{"B":1, "A":2.50}]}` + "\n": `{"list":[{"A":2.5,"B":1}],"total":"3"}`,
		`[]`: `[]`, `"no\u006ee"`: `"none"`, `true`: `true`, `1e2`: `100`,
	} {
		row, reject := decodeList(t, s, record.Options{}, "kind=ECS", element)
		if reject != nil {
			t.Errorf("%s is rejected: %+v", element, *reject)
			continue
		}
		if got := listTexts(s, row); got["body"] != want || got["kind"] != "ECS" {
			t.Errorf("%s becomes %q, want the body %s of ECS", element, got, want)
		}
	}
}

func TestAsked(t *testing.T) {
	t.Parallel()
	s := parseStream(t, plansYAML)
	d, row := record.NewDecoder(s, record.Options{}), record.NewRow(s)
	for _, test := range []struct{ asked, want string }{
		{"", "NULL NULL"},
		{"language=zh_CN&size=3", "zh_CN 3"},
		{"size=4.0", "NULL 4"},
		{"language=null&size=", "NULL NULL"},
		{"language=%E4%B8%80%20%28&other=1", "一 ( NULL"},
	} {
		values, err := url.ParseQuery(test.asked)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Asked(values); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a page has more than one record
			if reject := d.Decode([]byte(`{"id":"p1","price":"0.10"}`), row); reject != nil {
				t.Fatal(*reject)
			}
			got := listTexts(s, row)
			for _, name := range []string{"language", "size"} {
				if got[name] == "" {
					got[name] = "NULL"
				}
			}
			if text := got["language"] + " " + got["size"]; text != test.want {
				t.Errorf("asked for %q, a row has %s, want %s", test.asked, text, test.want)
			}
		}
	}
	for _, bad := range []string{"size=large", "language=%00", "language=%ff"} {
		values, err := url.ParseQuery(bad)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Asked(values); err == nil || !strings.Contains(err.Error(), "as it was asked for") {
			t.Errorf("asked for %q: %v, want an error", bad, err)
		}
	}
}

// TestUnknownOfLists: drift is told from what is declared, wherever it stands.
func TestUnknownOfLists(t *testing.T) {
	t.Parallel()
	s := parseStream(t, plansYAML)
	d, row := record.NewDecoder(s, record.Options{IgnoreFields: []string{"trace-id"}}), record.NewRow(s)
	for range 3 {
		element := `{"id":"p1","basic_info":{"name":"x","colour":1,"TraceID":7,"basic_info":2},"colour":2,"basicInfo":null,"language":"zh_CN"}`
		if reject := d.Decode([]byte(element), row); reject != nil {
			t.Fatal(*reject)
		}
	}
	want := map[string]int64{"basic_info.colour": 3, "basic_info.basic_info": 3, "colour": 3, "language": 3}
	if got := d.Unknown(); !maps.Equal(got, want) {
		t.Errorf("the unknown fields are %v, want %v", got, want)
	}
	if d.MissingAmounts() != 0 {
		t.Errorf("a list misses %d amounts", d.MissingAmounts())
	}
}

// TestManyFlattenedKeys: a vendor who makes keys up inside a flattened member fills no memory, and confuses nothing.
func TestManyFlattenedKeys(t *testing.T) {
	t.Parallel()
	s := parseStream(t, plansYAML)
	d, row := record.NewDecoder(s, record.Options{}), record.NewRow(s)
	for i := range 10_000 {
		element := fmt.Sprintf(`{"basic_info":{"status":%d,"k%d":1},"id":"p1"}`, i, i)
		if reject := d.Decode([]byte(element), row); reject != nil {
			t.Fatal(*reject)
		}
		if got := listTexts(s, row); got["status"] != strconv.Itoa(i) || got["extra"] != fmt.Sprintf(`{"basic_info.k%d":1}`, i) || got["id"] != "p1" {
			t.Fatalf("%s decodes to %q", element, got)
		}
	}
	if got := len(d.Unknown()); got != 1000 {
		t.Errorf("%d unknown fields are noted, want 1000", got)
	}
}

// TestDecoderRefusesUUID: no vendor's value becomes one; such columns are derived.
func TestDecoderRefusesUUID(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("a decoder of stored columns is made")
		}
	}()
	record.NewDecoder(parseStream(t, plansYAML).Stored(), record.Options{})
}

// FuzzDecodeList: decoders of all shapes agree with themselves, and yield nothing that can't be stored.
func FuzzDecodeList(f *testing.F) {
	for _, seed := range []string{
		`{"id":"p1","name":"Gold","status":"2.0","quota":9223372036854775807,"price":"1.50","since":"2024-02-29","expires":1709330400000,"project":{"b":1,"a":[]}}`,
		`{"ID":"p1","basic_info":{"label":"x","colour":{"a":1},"status":3},"status":3,"basic_info":{"q":""}}`,
		`{"csn":"1","at":"2024-01-08 0:00","level":"null"}`, `{"csn":1,"at":1709330400,"level":{}}`, `{"csn":"","at":"1709330400000"}`,
		`{"basic_info":{"basic_info":{}},"basic_info":null}`, `{"basic_info":{"`, `{"id":"p1","language":"zh_CN","size":2}`,
		`{"id":"p1","status":1e400,"quota":"-0.0"}`, `[1,{"a":"\u00fc"}]`, `"x"`, `"`, `"a"b`, `null`, ``,
	} {
		f.Add([]byte(seed), "language=en_US&size=2&kind=ECS")
	}
	f.Add([]byte(`{"id":"p1"}`), "size=x&language=%ff")
	type pair struct {
		stream *schemas.Stream
		used   *record.Decoder
	}
	options := record.Options{From: record.NewDate(2024, 1, 1), To: record.NewDate(2024, 2, 1)}
	var pairs []pair
	for _, text := range []string{plansYAML, alarmsYAML, bodiesYAML} {
		s := parseStream(f, text)
		pairs = append(pairs, pair{s, record.NewDecoder(s, options)})
	}
	f.Fuzz(func(t *testing.T, element []byte, asked string) {
		values, err := url.ParseQuery(asked)
		if err != nil {
			return
		}
		for _, p := range pairs {
			row, fresh, again := record.NewRow(p.stream), record.NewDecoder(p.stream, options), record.NewRow(p.stream)
			if err := p.used.Asked(values); (err == nil) != (fresh.Asked(values) == nil) {
				t.Fatalf("two decoders disagree on %q: %v", asked, err)
			} else if err != nil {
				continue
			}
			reject, rejectAgain := p.used.Decode(element, row), fresh.Decode(element, again)
			if reject != nil || rejectAgain != nil {
				if reject == nil || rejectAgain == nil || *reject != *rejectAgain || reject.Reason == "" {
					t.Fatalf("reject %+v, again %+v", reject, rejectAgain)
				}
				continue
			}
			if row.Hash != again.Hash || row.NaturalKey != again.NaturalKey || row.Key != again.Key || row.Outside != again.Outside {
				t.Fatal("two decoders disagree")
			}
			checkNormal(t, p.stream, row)
			if body := p.stream.Index("body"); p.stream.Whole() && json.Valid(element) && !json.Valid(row.Values[body].Bytes) {
				t.Fatalf("the body %q is no JSON", row.Values[body].Bytes)
			}
		}
	})
}

// TestFloats: what the vendor measures as Float64 has more decimals than an amount may have.
func TestFloats(t *testing.T) {
	t.Parallel()
	s := parseStream(t, `
stream: measures
table: billing.measure
shape: snapshot
list: {system: esm, method: GET, path: /measures, items: list, rate: {class: measures}, paging: {style: none}}
fields: [{name: ratio, type: float, meaning: m}]
`)
	for text, want := range map[string]float64{
		`0.33333333333333331`: 1.0 / 3, `"0.33333333333333331"`: 1.0 / 3, `"-0"`: 0, `1e3`: 1000, `" "`: math.NaN(), `"NaN"`: math.NaN(), `"0x1p4"`: math.NaN(), `1e400`: math.NaN(),
	} {
		row, reject := decodeList(t, s, record.Options{}, "", `{"ratio":`+text+`}`)
		if math.IsNaN(want) {
			if reject == nil || reject.Reason != "bad_number" {
				t.Errorf("%s is rejected with %+v, want bad_number", text, reject)
			}
			continue
		}
		if reject != nil || uint64(row.Values[0].Int) != math.Float64bits(want) {
			t.Errorf("%s is %v, reject %+v; want %v", text, row.Values[0], reject, want)
		}
	}
	if row, reject := decodeList(t, s, record.Options{}, "", `{"ratio":"null"}`); reject != nil || row.Values[0].Valid {
		t.Errorf("null is %v, reject %+v; want NULL", row.Values[0], reject)
	}
}
