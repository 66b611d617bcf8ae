package record_test

import (
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

func TestDate(t *testing.T) {
	t.Parallel()
	west := time.FixedZone("-08", -8*3600)
	d := record.NewDate(2024, 2, 29)
	if d.String() != "2024-02-29" || d.MonthString() != "2024-02" || d.Month().String() != "2024-02-01" || d.AddMonths(11).String() != "2025-01-01" {
		t.Errorf("%s, %s, %s, %s", d, d.MonthString(), d.Month(), d.AddMonths(11))
	}
	if at := d.Time(west); !at.Equal(time.Date(2024, 2, 29, 8, 0, 0, 0, time.UTC)) || record.DateOf(at, west) != d || record.DateOf(at.Add(-1), west) != d-1 {
		t.Errorf("%s begins at %s", d, at)
	}
	for text, want := range map[string]record.Date{"1970-01-02": 1, "1969-12-31": -1, "2024-02": d - 28} {
		if got, err := record.ParseDate(text); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2024", "2024-02-30", "2024-2-1", "20240201"} {
		if got, err := record.ParseDate(text); err == nil {
			t.Errorf("%q is %s, want an error", text, got)
		}
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	element := []byte(`{` + begin + `,"tag":"abc","accumulate_factor_value":"1.50"}`)
	row := mustDecode(t, record.Options{}, string(element))
	clone := row.Clone()
	for i := range row.Values {
		clear(row.Values[i].Bytes)
		row.Values[i] = record.Value{}
	}
	if got := texts(clone); got["tag"] != "abc" || got["accumulate_factor_value"] != "1.5" || clone.Key != row.Key {
		t.Errorf("the clone of a row that was filled again holds %v", got)
	}
}
