package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// Postgres counts dates and timestamps from 2000-01-01.
const (
	epochDays   = 10957
	epochMicros = epochDays * secondsPerDay * microsPerSecond
)

var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

// copyRows runs a query through binary COPY and calls each with the raw columns of every row, nil for NULL, good until it returns.
func copyRows(ctx context.Context, conn *pgx.Conn, query string, columns int, each func(columns [][]byte) error) error {
	t := &tuples{columns: make([][]byte, columns), each: each}
	_, err := conn.PgConn().CopyTo(ctx, t, "COPY ("+query+") TO STDOUT (FORMAT binary)")
	switch {
	case t.err != nil:
		return t.err
	case err != nil:
		return err
	case !t.ended || len(t.rest) > 0:
		return errors.New("the copy is cut off")
	}
	return nil
}

// tuples takes a binary COPY stream apart.
type tuples struct {
	columns [][]byte
	each    func([][]byte) error
	begun   bool
	ended   bool
	rest    []byte // of what came, bytes of a tuple that is not whole yet
	err     error
}

// Write takes the next bytes of the stream, which mostly are one tuple.
func (t *tuples) Write(p []byte) (int, error) {
	b := p
	if len(t.rest) > 0 {
		t.rest = append(t.rest, p...)
		b = t.rest
	}
	for {
		n, err := t.take(b)
		if err != nil {
			t.err = err
			return 0, err
		}
		if n == 0 {
			break
		}
		b = b[n:]
	}
	t.rest = append(t.rest[:0], b...)
	return len(p), nil
}

// take handles the header, tuple or trailer that b begins with and returns its size, 0 if it is not whole.
func (t *tuples) take(b []byte) (int, error) {
	if !t.begun {
		const fixed = 19 // signature, flags, length of the extension
		if len(b) < fixed {
			return 0, nil
		}
		if !bytes.HasPrefix(b, copySignature) {
			return 0, errors.New("read a copy: the header is none")
		}
		size := fixed + int(binary.BigEndian.Uint32(b[15:]))
		if len(b) < size {
			return 0, nil
		}
		t.begun = true
		return size, nil
	}
	if len(b) < 2 {
		return 0, nil
	}
	count := int(int16(binary.BigEndian.Uint16(b)))
	if count == -1 {
		t.ended = true
		return 2, nil
	}
	if count != len(t.columns) {
		return 0, fmt.Errorf("read a copy: a row has %d columns, want %d", count, len(t.columns))
	}
	at := 2
	for i := range t.columns {
		if len(b) < at+4 {
			return 0, nil
		}
		size := int(int32(binary.BigEndian.Uint32(b[at:])))
		at += 4
		if size < 0 {
			t.columns[i] = nil
			continue
		}
		if len(b) < at+size {
			return 0, nil
		}
		t.columns[i] = b[at : at+size : at+size]
		at += size
	}
	return at, t.each(t.columns)
}

// fill makes the row of the raw columns of one tuple.
func (r *row) fill(raw [][]byte) error {
	r.begin()
	var err error
	for i := range r.layout.derived {
		if r.lead, err = r.appendRaw(r.lead, r.layout.derived[i].Type, raw[i], false); err != nil {
			return fmt.Errorf("column %s: %w", r.layout.derived[i].Name, err)
		}
		r.leadEnds = append(r.leadEnds, len(r.lead))
	}
	raw = raw[len(r.layout.derived):]
	for i := range r.layout.fields {
		if r.canonical, err = r.appendRaw(r.canonical, r.layout.fields[i].Type, raw[i], i == r.layout.amount); err != nil {
			return fmt.Errorf("column %s: %w", r.layout.fields[i].Name, err)
		}
		r.ends = append(r.ends, len(r.canonical))
	}
	r.finish()
	return nil
}

// appendRaw appends the canonical bytes of a binary value of Postgres. What has none (NaN, infinite times) gets bytes that no value
// has, so that its hash is wrong.
func (r *row) appendRaw(dst []byte, t schemas.Type, raw []byte, amount bool) ([]byte, error) {
	if raw == nil {
		return append(dst, absent), nil
	}
	switch t {
	case schemas.Text, schemas.UUID:
		return appendText(dst, raw), nil
	case schemas.Timestamp:
		v := int64(binary.BigEndian.Uint64(raw))
		if v != math.MaxInt64 && v != math.MinInt64 {
			v += epochMicros
		}
		return appendInt(dst, v), nil
	case schemas.Date:
		return appendInt(dst, int64(int32(binary.BigEndian.Uint32(raw)))+epochDays), nil
	case schemas.Bigint:
		return appendInt(dst, int64(binary.BigEndian.Uint64(raw))), nil
	case schemas.Integer:
		return appendInt(dst, int64(int32(binary.BigEndian.Uint32(raw)))), nil
	case schemas.Float:
		return appendFloat(dst, math.Float64frombits(binary.BigEndian.Uint64(raw))), nil
	case schemas.Decimal:
		v, ok := wideOfNumeric(raw)
		if !ok {
			return appendText(dst, []byte("no decimal")), nil
		}
		if amount {
			r.amount = v
		}
		return appendDecimal(dst, v), nil
	case schemas.JSON:
		if len(raw) == 0 || raw[0] != 1 {
			return dst, errors.New("jsonb has another format version than 1")
		}
		text, err := canonicalJSON(raw[1:])
		if err != nil {
			text = []byte("no canonical JSON")
		}
		return appendText(dst, text), nil
	}
	return dst, fmt.Errorf("the type %q is unknown", t)
}

// wideOfNumeric reads a binary numeric: base-10000 digits, the first with the weight 10000^weight. ok is false for what is no finite number of at
// most 12 digits behind the point.
func wideOfNumeric(raw []byte) (v wide, ok bool) {
	const negative = 0x4000
	if len(raw) < 8 {
		return v, false
	}
	digits := int(binary.BigEndian.Uint16(raw))
	weight := int(int16(binary.BigEndian.Uint16(raw[2:])))
	sign := binary.BigEndian.Uint16(raw[4:])
	if sign != 0 && sign != negative || len(raw) != 8+2*digits || weight-digits+1 < -scale/4 {
		return v, false
	}
	for i := 0; i <= weight+scale/4; i++ { // down to 10000^-3
		if !v.small() {
			return v, false
		}
		v = v.times(10_000)
		if i < digits {
			v = v.add(wide{uint64(binary.BigEndian.Uint16(raw[8+2*i:]))})
		}
	}
	if sign == negative {
		v = v.negated()
	}
	return v, true
}
