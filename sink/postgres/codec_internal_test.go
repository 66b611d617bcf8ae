package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

// decimals returns n canonical decimals of all lengths, those with the most zero groups among them.
func decimals(random *rand.Rand, n int) []string {
	texts := []string{
		"0", "1", "-1", "9999", "10000", "-10000", "100000000", "0.0001", "0.00001", "0.000000000001", "-0.000000000001", "1.0001", "10000.0001",
		"99999999999999999999999999.999999999999", "-99999999999999999999999999.999999999999", "10000000000000000000000000", "10000000000000000000000000.000000000001",
	}
	digits := func(k int) string {
		var b strings.Builder
		for range k {
			if random.IntN(3) == 0 {
				b.WriteByte('0')
			} else {
				b.WriteByte('0' + byte(random.IntN(10)))
			}
		}
		return b.String()
	}
	for len(texts) < n {
		whole := strings.TrimLeft(digits(random.IntN(27)), "0")
		if whole == "" {
			whole = "0"
		}
		text := whole
		if fraction := strings.TrimRight(digits(random.IntN(13)), "0"); fraction != "" {
			text += "." + fraction
		}
		if text != "0" && random.IntN(2) == 0 {
			text = "-" + text
		}
		texts = append(texts, text)
	}
	return texts
}

func connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Postgres reads what we encode as the same number, and we read what it sends back.
func TestNumericAgainstPostgres(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	texts := decimals(rand.New(rand.NewPCG(seed, 1)), 3000)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE n (i int, stored numeric(38,12), free numeric, spelled text)"); err != nil {
		t.Fatal(err)
	}
	stream := append([]byte(nil), copyHeader...)
	for i, text := range texts {
		stream = appendInteger(append(stream, 0, 4), int32(i))
		for range 2 {
			var err error
			if stream, err = appendNumeric(stream, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		stream = appendText(stream, text)
	}
	stream = append(stream, copyTrailer...)
	if _, err := conn.PgConn().CopyFrom(t.Context(), bytes.NewReader(stream), "COPY n FROM STDIN (FORMAT binary)"); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), `
		SELECT spelled, trim_scale(stored)::text, free::text, stored, free, -stored, stored * 10000, (stored || '0000')::numeric FROM n ORDER BY i`,
		pgx.QueryResultFormats{0, 0, 0, 1, 1, 1, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		raw := rows.RawValues()
		want := string(raw[0])
		if string(raw[1]) != want || string(raw[2]) != want {
			t.Errorf("%s: Postgres stored %s and %s", want, raw[1], raw[2])
		}
		negated := "-" + want
		if want == "0" {
			negated = want
		} else if want[0] == '-' {
			negated = want[1:]
		}
		for k, want := range map[int]string{3: want, 4: want, 5: negated, 7: want} {
			got, err := appendNumericText([]byte("x"), raw[k])
			if err != nil || string(got) != "x"+want {
				t.Errorf("%s: read column %d as %s (%v)", want, k, got, err)
			}
		}
		// A number that Postgres computed, compared as an integer with what decimals say of it.
		product, err := appendNumericText(nil, raw[6])
		if err != nil {
			t.Fatal(err)
		}
		if a, errA := record.AppendDecimal(nil, []byte(want+"e4")); errA == nil && !bytes.Equal(a, product) {
			t.Errorf("%s times 10000: got %s, want %s", want, product, a)
		}
		n++
	}
	if err := rows.Err(); err != nil || n != len(texts) {
		t.Fatalf("read %d of %d (%v)", n, len(texts), err)
	}
}

// Whatever scale Postgres shows a number with, we read its canonical text.
func TestNumericFromPostgres(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	for text, want := range map[string]string{
		"0": "0", "0.000": "0", "-0": "0", "1.50": "1.5", "100": "100", "1e20": "100000000000000000000", "1e-12": "0.000000000001", "-12.3400": "-12.34",
		"10000.00000": "10000", "0.00010000": "0.0001", "123456789.000000010": "123456789.00000001",
	} {
		rows, err := conn.Query(t.Context(), "SELECT $1::text::numeric", pgx.QueryResultFormats{1}, text)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			if got, err := appendNumericText(nil, rows.RawValues()[0]); err != nil || string(got) != want {
				t.Errorf("%s: got %s (%v), want %s", text, got, err, want)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"NaN", "Infinity", "-Infinity"} {
		rows, err := conn.Query(t.Context(), "SELECT $1::text::numeric", pgx.QueryResultFormats{1}, text)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			if got, err := appendNumericText(nil, rows.RawValues()[0]); err == nil {
				t.Errorf("%s was read as %s", text, got)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNumericThatIsNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "-", ".5", "-.5", strings.Repeat("1", 61)} {
		if got, err := appendNumeric(nil, []byte(text)); err == nil {
			t.Errorf("%q was encoded as %x", text, got)
		}
	}
	for _, raw := range [][]byte{nil, make([]byte, 7), {0, 1, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0, 1}} {
		if got, err := appendNumericText(nil, raw); err == nil {
			t.Errorf("%x was read as %s", raw, got)
		}
	}
}

// A whole tuple goes through Postgres with the extremes of each type.
func TestTupleAgainstPostgres(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	stream := schemas.SDR()
	codec := newTable(stream).loaded
	types := map[schemas.Type]string{
		schemas.Text: "text", schemas.Timestamp: "timestamptz", schemas.Decimal: "numeric(38,12)", schemas.JSON: "jsonb", schemas.Date: "date",
		schemas.Bigint: "bigint", schemas.Integer: "integer", schemas.UUID: "uuid", schemas.Float: "double precision",
	}
	var columns []string
	for _, f := range slices.Concat(stream.Derived, stream.Fields) {
		columns = append(columns, f.Name+" "+types[f.Type])
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE r ("+strings.Join(columns, ", ")+")"); err != nil {
		t.Fatal(err)
	}
	instant := func(text string) int64 {
		when, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return when.UnixMicro()
	}
	var want []*record.Row
	for i, text := range []string{
		"0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "1999-12-31T23:59:59.999999Z", "2000-01-01T00:00:00Z",
		"2000-01-01T00:00:00.000001Z", "2024-02-29T12:34:56.789012Z", "9999-12-31T23:59:59.999999Z",
	} {
		row := record.NewRow(stream)
		micros := instant(text)
		row.UsageDate, row.Site, row.WindowID, row.Ordinal = record.DateOf(time.UnixMicro(micros), time.UTC), fmt.Sprint("site-", i), math.MaxInt64-int64(i), math.MaxInt32-int32(i)
		for k := range row.Key {
			row.Key[k], row.NaturalKey[k] = byte(k*i), byte(255-k*i)
		}
		for k, f := range stream.Fields {
			if (k+i)%5 == 0 {
				continue // NULL
			}
			v := record.Value{Valid: true}
			switch f.Type {
			case schemas.Timestamp:
				v.Int = micros
			case schemas.Decimal:
				v.Bytes = []byte("-12345678901234567890123456.789012345678")
			case schemas.JSON:
				v.Bytes = []byte(`{"a":[1,"云",null],"b":{}}`)
			default:
				v.Bytes = []byte(strings.Repeat("很", i))
			}
			row.Values[k] = v
		}
		want = append(want, row)
	}
	data := append([]byte(nil), copyHeader...)
	for _, row := range want {
		var err error
		if data, err = codec.appendTuple(data, row.WindowID, row); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.PgConn().CopyFrom(t.Context(), bytes.NewReader(append(data, copyTrailer...)), "COPY r ("+codec.columns+") FROM STDIN (FORMAT binary)"); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), "SELECT "+codec.columns+" FROM r ORDER BY site", pgx.QueryResultFormats{1})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	got, arena := record.NewRow(stream), []byte(nil)
	n := 0
	for ; rows.Next(); n++ {
		w := want[n]
		if arena, err = codec.decode(rows.RawValues(), arena, got); err != nil {
			t.Fatal(err)
		}
		if got.UsageDate != w.UsageDate || got.Site != w.Site || got.WindowID != w.WindowID || got.Ordinal != w.Ordinal || got.Key != w.Key || got.NaturalKey != w.NaturalKey {
			t.Errorf("row %d: got %+v, want %+v", n, got, w)
		}
		for k, v := range w.Values {
			if g := got.Values[k]; g.Valid != v.Valid || g.Int != v.Int || !bytes.Equal(g.Bytes, v.Bytes) {
				t.Errorf("row %d, field %s: got %+v, want %+v", n, stream.Fields[k].Name, g, v)
			}
		}
	}
	if err := rows.Err(); err != nil || n != len(want) {
		t.Fatalf("read %d of %d rows (%v)", n, len(want), err)
	}
}

// Postgres has infinite dates and times. A record has none: reading one is an error, not a wrong time.
func TestInfinityIsRefused(t *testing.T) {
	t.Parallel()
	stream := schemas.SDR()
	codec := newTable(stream).stored
	finite := func() [][]byte {
		raw := make([][]byte, len(codec.names))
		for i, n := range []int{4, 1, 8, 16, 4, 16} {
			raw[i] = make([]byte, n)
		}
		return raw
	}
	row := record.NewRow(stream)
	if _, err := codec.decode(finite(), nil, row); err != nil {
		t.Fatalf("finite: %v", err)
	}
	end := slices.Index(codec.names, "end_time")
	for name, change := range map[string]func(raw [][]byte){
		"time infinity":  func(raw [][]byte) { raw[end] = binary.BigEndian.AppendUint64(nil, math.MaxInt64) },
		"time -infinity": func(raw [][]byte) { raw[end] = binary.BigEndian.AppendUint64(nil, 1<<63) },
		"date infinity":  func(raw [][]byte) { raw[0] = binary.BigEndian.AppendUint32(nil, math.MaxInt32) },
		"date -infinity": func(raw [][]byte) { raw[0] = binary.BigEndian.AppendUint32(nil, 1<<31) },
	} {
		raw := finite()
		change(raw)
		if _, err := codec.decode(raw, nil, row); err == nil {
			t.Errorf("%s was read as %s and %d", name, row.UsageDate, row.Values[stream.Index("end_time")].Int)
		}
	}
}
