package record_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// rfc3339 is the grammar, which is stricter than the standard library's parser: that lets 2:00, a comma and +24:60 pass.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// belowMicros is a fraction that can't be kept whole. The standard library drops what is below nanoseconds without a word.
var belowMicros = regexp.MustCompile(`\.\d{6}\d*[1-9]`)

// FuzzTime compares the times of records with the standard library's parser.
func FuzzTime(f *testing.F) {
	for _, seed := range []string{
		"20240301220000", "20240229235959", "2024-03-01 22:00:00", "2024-03-01T22:00:00", "2024-03-01T22:00:00.123Z", "2024-03-01T22:00:00-08:00", "20241027023000", "00010101000000",
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	s := schemas.SDR()
	sent := s.Index("sdr_time")
	f.Fuzz(func(t *testing.T, text string, utc bool) {
		zone := berlin
		if utc {
			zone = time.UTC
		}
		quoted, err := jsontext.AppendQuote(nil, text)
		if err != nil || text == "" || text == "null" || strings.ContainsRune(text, 0) {
			return
		}
		row := record.NewRow(s)
		reject := record.NewDecoder(s, record.Options{SourceZone: zone}).Decode([]byte(`{`+begin+`,"sdr_time":`+string(quoted)+`}`), row)

		var want time.Time
		known := false
		for _, layout := range []string{"20060102150405", "2006-01-02 15:04:05", "2006-01-02T15:04:05", time.RFC3339} {
			at, err := time.ParseInLocation(layout, text, zone)
			if err != nil || layout == time.RFC3339 && !rfc3339.MatchString(text) {
				continue
			}
			if layout != time.RFC3339 && at.Format(layout) != text {
				continue // spelled loosely, or put forward over a gap
			}
			want, known = at, !belowMicros.MatchString(text) && at.UTC().Year() >= 1 && at.UTC().Year() <= 9999 && at.Year() >= 1
		}
		switch {
		case reject != nil && reject.Reason != "bad_time":
			t.Fatalf("%q: reject %+v", text, reject)
		case reject != nil && known:
			t.Fatalf("%q is %s, but rejected: %s", text, want, reject.Detail)
		case reject == nil && !known:
			// RFC 3339 lets letters be lower case and a space stand for the T; the standard library does not.
			upper := strings.Replace(strings.ToUpper(text), " ", "T", 1)
			if at, err := time.Parse(time.RFC3339, upper); err == nil {
				want = at
			} else if at, err := time.ParseInLocation("2006-01-02T15:04:05", upper, zone); err == nil {
				want = at
			} else {
				t.Fatalf("%q is accepted", text)
			}
		}
		if reject == nil {
			got := row.Values[sent].Int
			// Of an hour shown twice the decoder takes the first.
			if got != want.UnixMicro() && (utc || time.UnixMicro(got).In(zone).Format(time.DateTime) != want.In(zone).Format(time.DateTime) || got > want.UnixMicro()) {
				t.Fatalf("%q is %s, want %s", text, time.UnixMicro(got).UTC(), want.UTC())
			}
		}
	})
}
