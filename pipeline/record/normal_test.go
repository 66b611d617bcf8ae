package record_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// checkNormal fails if a decoded row holds what its columns can't, or a value that is not in its normal form.
func checkNormal(t *testing.T, s *schemas.Stream, row *record.Row) {
	t.Helper()
	for i, f := range s.Fields {
		v := row.Values[i]
		if f.Required && !v.Valid {
			t.Fatalf("accepted without %s", f.Name)
		}
		if !v.Valid {
			continue
		}
		var want []byte
		var err error
		switch f.Type {
		case schemas.Text:
			if !utf8.Valid(v.Bytes) || bytes.IndexByte(v.Bytes, 0) >= 0 {
				t.Fatalf("%s is no text for Postgres: %q", f.Name, v.Bytes)
			}
			continue
		case schemas.Timestamp, schemas.Bigint:
			continue
		case schemas.Integer:
			if v.Int != int64(int32(v.Int)) {
				t.Fatalf("%s is no integer of 32 bits: %d", f.Name, v.Int)
			}
			continue
		case schemas.Date:
			if d, err := record.ParseDate(record.Date(v.Int).String()); err != nil || int64(d) != v.Int {
				t.Fatalf("%s is no date: %d", f.Name, v.Int)
			}
			continue
		case schemas.Decimal:
			want, err = record.AppendDecimal(nil, v.Bytes)
		case schemas.JSON:
			want, err = record.AppendCanonicalJSON(nil, v.Bytes)
		}
		if err != nil || !bytes.Equal(v.Bytes, want) {
			t.Fatalf("%s holds %q, whose normal form is %q (%v)", f.Name, v.Bytes, want, err)
		}
	}
}
