package record_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// FuzzFixedPoint writes what was accepted as a record of its own and decodes that: the content must stay what it is, or equal records
// would be told apart by how the vendor happens to spell them. What is rejected carries the hash of the very bytes that came.
func FuzzFixedPoint(f *testing.F) {
	f.Add(sampleRecord(f))
	for _, seed := range []string{
		`{` + begin + `,"a":{"b":[1,2.50,"\ud83d\ude00"]},"accumulateFactorValue":"-01.50","TimeStamp":"2024-03-01T22:00:00.5+08:00"}`,
		`{"beginTime":1709330400000,"Extra":{"x":1},"extra":[],"tag":{"k":"v"},"resource_id":12}`, `{` + begin + `,"region_code":"a","region_id":"b","x":"null"}`,
		`{` + begin + `,"begin_time":"20240301140000"}`, `{"begin_time":"20240230000000"}`, `[]`, `{"a":`,
	} {
		f.Add([]byte(seed))
	}
	s := schemas.SDR()
	f.Fuzz(func(t *testing.T, element []byte) {
		row := record.NewRow(s)
		if reject := record.NewDecoder(s, record.Options{Site: "s"}).Decode(element, row); reject != nil {
			if reject.RawHash != record.RawHash(element) {
				t.Fatalf("%q is rejected under the hash of something else", element)
			}
			return
		}
		again := record.NewRow(s)
		encoded, ok := encodeRow(t, s, row)
		if !ok {
			return
		}
		if reject := record.NewDecoder(s, record.Options{Site: "s"}).Decode(encoded, again); reject != nil {
			t.Fatalf("%s was accepted, and what it says is not: %s: %+v", element, encoded, reject)
		}
		if again.Hash != row.Hash || again.NaturalKey != row.NaturalKey || again.Key != row.Key || again.UsageDate != row.UsageDate {
			t.Fatalf("%s changes when it is written as %s", element, encoded)
		}
	})
}

// encodeRow writes a row as the plainest record that means it. There is none if the record named a field twice: the spelling that lost stands
// in extra, and may be the one that a plain record would use.
func encodeRow(t *testing.T, s *schemas.Stream, row *record.Row) (encoded []byte, ok bool) {
	t.Helper()
	plain := func(name string) string {
		return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
	}
	means := map[string]bool{}
	for _, f := range s.Fields {
		for _, name := range append([]string{f.Name}, f.Aliases...) {
			means[plain(name)] = f.Name != "extra"
		}
	}
	var object []byte
	add := func(name string, value []byte) {
		key, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		object = append(append(append(append(object, "{,"[min(len(object), 1)]), key...), ':'), value...)
	}
	for i, f := range s.Fields {
		v := row.Values[i]
		if !v.Valid {
			continue
		}
		switch f.Type {
		case schemas.Text:
			var text bytes.Buffer
			encoder := json.NewEncoder(&text)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(string(v.Bytes)); err != nil {
				t.Fatal(err)
			}
			add(f.Name, bytes.TrimSpace(text.Bytes()))
		case schemas.Timestamp:
			add(vendorName(f.Name), []byte(`"`+time.UnixMicro(v.Int).UTC().Format(time.RFC3339Nano)+`"`))
		case schemas.Decimal:
			add(f.Name, v.Bytes)
		case schemas.JSON:
			if f.Name != "extra" {
				add(f.Name, v.Bytes)
				continue
			}
			var members map[string]json.RawMessage
			if err := json.Unmarshal(v.Bytes, &members); err != nil {
				t.Fatalf("extra is %s: %v", v.Bytes, err)
			}
			for _, name := range slices.Sorted(maps.Keys(members)) {
				if means[plain(name)] {
					return nil, false
				}
				add(name, members[name])
			}
		}
	}
	return append(object, '}'), true
}

// vendorName is the vendor's name of a column: all but one are called as it calls them.
func vendorName(column string) string {
	if column == "sdr_time" {
		return "time_stamp"
	}
	return column
}
