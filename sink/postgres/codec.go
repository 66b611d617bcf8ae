package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Postgres counts dates and timestamps from 2000-01-01.
const (
	epochDays   = 10957
	epochMicros = epochDays * 86400 * 1_000_000
)

// carried is a column that a row carries beside its values.
type carried struct {
	name   string
	append func(dst []byte, windowID int64, r *record.Row) []byte
	decode func(raw []byte, r *record.Row) error
}

// carriedColumn returns the column called name. It panics if rows carry no such thing.
func carriedColumn(name string) carried {
	c := carried{name: name}
	switch name {
	case "usage_date", "event_date":
		c.append = func(dst []byte, _ int64, r *record.Row) []byte { return appendDate(dst, int64(r.UsageDate)) }
		c.decode = func(raw []byte, r *record.Row) error {
			days, err := decodeDate(raw)
			r.UsageDate = record.Date(days)
			return err
		}
	case "site":
		c.append = func(dst []byte, _ int64, r *record.Row) []byte { return appendText(dst, r.Site) }
		c.decode = func(raw []byte, r *record.Row) error {
			if string(raw) != r.Site { // mostly it is the same, and costs no new string
				r.Site = string(raw)
			}
			return nil
		}
	case "window_id":
		c.append = func(dst []byte, windowID int64, _ *record.Row) []byte { return appendBigint(dst, windowID) }
		c.decode = func(raw []byte, r *record.Row) error {
			r.WindowID = int64(binary.BigEndian.Uint64(raw))
			return nil
		}
	case "record_key":
		c.append = func(dst []byte, _ int64, r *record.Row) []byte { return appendField(dst, r.Key[:]) }
		c.decode = func(raw []byte, r *record.Row) error { copy(r.Key[:], raw); return nil }
	case "ordinal":
		c.append = func(dst []byte, _ int64, r *record.Row) []byte { return appendInteger(dst, r.Ordinal) }
		c.decode = func(raw []byte, r *record.Row) error {
			r.Ordinal = int32(binary.BigEndian.Uint32(raw))
			return nil
		}
	case "natural_key":
		c.append = func(dst []byte, _ int64, r *record.Row) []byte { return appendField(dst, r.NaturalKey[:]) }
		c.decode = func(raw []byte, r *record.Row) error { copy(r.NaturalKey[:], raw); return nil }
	default:
		panic("postgres: rows carry no column " + name)
	}
	return c
}

// rowCodec turns rows into binary COPY tuples and binary result columns back into rows. Columns: the carried ones, then the values.
type rowCodec struct {
	carried []carried
	names   []string
	types   []schemas.Type // of the values
	columns string         // quoted and comma separated, for SQL
}

func newRowCodec(beside []string, fields []schemas.Field) rowCodec {
	c := rowCodec{names: slices.Concat(beside, names(fields))}
	for _, name := range beside {
		c.carried = append(c.carried, carriedColumn(name))
	}
	for _, f := range fields {
		c.types = append(c.types, f.Type)
	}
	c.columns = strings.Join(prefixedColumns("", c.names), ", ")
	return c
}

// prefixedColumns returns the names quoted for SQL, each behind the prefix: "s.".
func prefixedColumns(prefix string, names []string) []string {
	quoted := make([]string, 0, len(names))
	for _, name := range names {
		quoted = append(quoted, prefix+pgx.Identifier{name}.Sanitize())
	}
	return quoted
}

// newRow returns a row with room for the values.
func (c rowCodec) newRow() *record.Row {
	return &record.Row{Values: make([]record.Value, len(c.types))}
}

// copyHeader and copyTrailer frame a binary COPY stream.
var (
	copyHeader  = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	copyTrailer = []byte{0xff, 0xff}
)

// appendTuple appends the row as one binary COPY tuple.
func (c rowCodec) appendTuple(dst []byte, windowID int64, r *record.Row) ([]byte, error) {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(c.names)))
	for _, column := range c.carried {
		dst = column.append(dst, windowID, r)
	}
	for i, v := range r.Values {
		if !v.Valid {
			dst = appendLen(dst, -1)
			continue
		}
		switch c.types[i] {
		case schemas.Timestamp:
			dst = appendBigint(dst, v.Int-epochMicros)
		case schemas.Date:
			dst = appendDate(dst, v.Int)
		case schemas.Bigint, schemas.Float:
			dst = appendBigint(dst, v.Int)
		case schemas.Integer:
			if v.Int != int64(int32(v.Int)) {
				return nil, fmt.Errorf("encode integer %d: it needs more than 32 bits", v.Int)
			}
			dst = appendInteger(dst, int32(v.Int))
		case schemas.Decimal:
			var err error
			if dst, err = appendNumeric(dst, v.Bytes); err != nil {
				return nil, err
			}
		case schemas.JSON:
			dst = append(appendLen(dst, 1+len(v.Bytes)), 1) // jsonb's format version
			dst = append(dst, v.Bytes...)
		default:
			dst = append(appendLen(dst, len(v.Bytes)), v.Bytes...)
		}
	}
	return dst, nil
}

// decode fills r from the binary values of one result row in the order of columns. Text and UUIDs alias raw; decimals and JSON live in
// arena, which is returned grown.
func (c rowCodec) decode(raw [][]byte, arena []byte, r *record.Row) ([]byte, error) {
	arena = arena[:0]
	for i, column := range c.carried {
		if err := column.decode(raw[i], r); err != nil {
			return arena, fmt.Errorf("decode column %s: %w", column.name, err)
		}
	}
	for i, t := range c.types {
		b := raw[len(c.carried)+i]
		v := &r.Values[i]
		if b == nil {
			*v = record.Value{}
			continue
		}
		v.Valid, v.Int = true, 0
		start := len(arena)
		var err error
		switch t {
		case schemas.Timestamp:
			v.Int, err = decodeTime(b)
		case schemas.Date:
			v.Int, err = decodeDate(b)
		case schemas.Bigint, schemas.Float:
			v.Int = int64(binary.BigEndian.Uint64(b))
		case schemas.Integer:
			v.Int = int64(int32(binary.BigEndian.Uint32(b)))
		case schemas.Decimal:
			arena, err = appendNumericText(arena, b)
		case schemas.JSON:
			arena, err = record.AppendCanonicalJSON(arena, bytes.TrimPrefix(b, []byte{1}))
		default:
			v.Bytes = b
			continue
		}
		if err != nil {
			return arena, fmt.Errorf("decode column %s: %w", c.names[len(c.carried)+i], err)
		}
		v.Bytes = arena[start:len(arena):len(arena)]
	}
	return arena, nil
}

func decodeTime(b []byte) (micros int64, err error) {
	micros = int64(binary.BigEndian.Uint64(b))
	if micros == math.MaxInt64 || micros == math.MinInt64 {
		return 0, errors.New("an infinite time")
	}
	return micros + epochMicros, nil
}

func decodeDate(b []byte) (days int64, err error) {
	date := int32(binary.BigEndian.Uint32(b))
	if date == math.MaxInt32 || date == math.MinInt32 {
		return 0, errors.New("an infinite date")
	}
	return int64(date) + epochDays, nil
}

func appendDate(dst []byte, days int64) []byte { return appendInteger(dst, int32(days-epochDays)) }

func appendLen(dst []byte, n int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(int32(n))) }

func appendInt32(dst []byte, v int32) []byte { return binary.BigEndian.AppendUint32(dst, uint32(v)) }

func appendInt16(dst []byte, v int) []byte {
	return binary.BigEndian.AppendUint16(dst, uint16(int16(v)))
}

func appendInt64(dst []byte, v int64) []byte   { return binary.BigEndian.AppendUint64(dst, uint64(v)) }
func appendField(dst []byte, b []byte) []byte  { return append(appendLen(dst, len(b)), b...) }
func appendText(dst []byte, s string) []byte   { return append(appendLen(dst, len(s)), s...) }
func appendBigint(dst []byte, v int64) []byte  { return appendInt64(appendLen(dst, 8), v) }
func appendInteger(dst []byte, v int32) []byte { return appendInt32(appendLen(dst, 4), v) }

const (
	numericNegative = 0x4000
	numericSpecial  = 0xC000 // NaN and infinities
)

// appendNumeric appends a canonical decimal ("-12.5") as the length and body of a binary numeric: base-10000 digits, the first with
// the weight 10000^weight.
func appendNumeric(dst, text []byte) ([]byte, error) {
	sign := 0
	if len(text) > 0 && text[0] == '-' {
		sign, text = numericNegative, text[1:]
	}
	whole, fraction, _ := bytes.Cut(text, []byte{'.'})
	if len(whole) == 0 || len(whole)+len(fraction) > 60 {
		return nil, fmt.Errorf("encode decimal %q: not canonical", text)
	}
	at := len(dst)
	dst = append(dst, make([]byte, 12)...) // length, ndigits, weight, sign, dscale: filled in below
	digits, weight := 0, (len(whole)+3)/4-1
	for end := (len(whole)-1)%4 + 1; ; end += 4 { // the first group of the whole part may be short
		group := 0
		for _, c := range whole[max(0, end-4):end] {
			group = group*10 + int(c-'0')
		}
		if digits == 0 && group == 0 { // no leading zero groups
			weight--
		} else {
			dst = appendInt16(dst, group)
			digits++
		}
		if end == len(whole) {
			break
		}
	}
	for i := 0; i < len(fraction); i += 4 {
		group := 0
		for j := i; j < i+4; j++ {
			group *= 10
			if j < len(fraction) {
				group += int(fraction[j] - '0')
			}
		}
		if digits == 0 && group == 0 {
			weight--
			continue
		}
		dst = appendInt16(dst, group)
		digits++
	}
	if digits == 0 {
		weight, sign = 0, 0
	}
	head := dst[at:at]
	head = appendLen(head, 8+2*digits)
	head = appendInt16(head, digits)
	head = appendInt16(head, weight)
	head = binary.BigEndian.AppendUint16(head, uint16(sign))
	appendInt16(head, len(fraction))
	return dst, nil
}

// appendNumericText appends a binary numeric as canonical text: trimmed, without an exponent.
func appendNumericText(dst, b []byte) ([]byte, error) {
	if len(b) < 8 {
		return dst, fmt.Errorf("decode numeric: %d bytes", len(b))
	}
	digits := int(binary.BigEndian.Uint16(b))
	weight := int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := binary.BigEndian.Uint16(b[4:])
	if sign&numericSpecial == numericSpecial || len(b) != 8+2*digits {
		return dst, fmt.Errorf("decode numeric: not a finite number")
	}
	digit := func(i int) int { // the base-10000 digit with weight i
		if k := weight - i; k >= 0 && k < digits {
			return int(binary.BigEndian.Uint16(b[8+2*k:]))
		}
		return 0
	}
	if sign == numericNegative {
		dst = append(dst, '-')
	}
	start := len(dst)
	for i := max(weight, 0); i >= 0; i-- {
		d := digit(i)
		for div := 1000; div > 0; div /= 10 {
			if c := byte(d/div%10) + '0'; len(dst) > start || c != '0' || (i == 0 && div == 1) {
				dst = append(dst, c)
			}
		}
	}
	point := len(dst)
	dst = append(dst, '.')
	for i := -1; i >= weight-digits+1; i-- {
		d := digit(i)
		dst = append(dst, byte(d/1000)+'0', byte(d/100%10)+'0', byte(d/10%10)+'0', byte(d%10)+'0')
	}
	for len(dst) > point && (dst[len(dst)-1] == '0' || dst[len(dst)-1] == '.') {
		if last := dst[len(dst)-1]; last == '.' {
			return dst[:len(dst)-1], nil
		}
		dst = dst[:len(dst)-1]
	}
	return dst, nil
}
