package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Postgres counts dates and timestamps from 2000-01-01.
const (
	epochDays   = 10957
	epochMicros = epochDays * 86400 * 1_000_000
)

// derivedColumns are the columns that sdr-sync adds, in the order of schemas.Stream.Derived.
const derivedColumns = 6

// rowCodec turns rows into binary COPY tuples and binary result columns back into rows. Columns: the derived ones, then the fields.
type rowCodec struct {
	types   []schemas.Type
	columns string // comma separated, for SQL
	hasher  func() *record.Hasher
}

func newRowCodec(s *schemas.Stream) rowCodec {
	c := rowCodec{hasher: func() *record.Hasher { return record.NewHasher(s) }}
	names := make([]string, 0, derivedColumns+len(s.Fields))
	for _, f := range s.Derived {
		names = append(names, f.Name)
	}
	for _, f := range s.Fields {
		names = append(names, f.Name)
		c.types = append(c.types, f.Type)
	}
	c.columns = strings.Join(names, ", ")
	return c
}

// copyHeader and copyTrailer frame a binary COPY stream.
var (
	copyHeader  = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	copyTrailer = []byte{0xff, 0xff}
)

// appendTuple appends the row as one binary COPY tuple.
func (c rowCodec) appendTuple(dst []byte, windowID int64, r *record.Row) ([]byte, error) {
	dst = binary.BigEndian.AppendUint16(dst, uint16(derivedColumns+len(c.types)))
	dst = appendInt32(appendLen(dst, 4), int32(r.UsageDate)-epochDays)
	dst = append(appendLen(dst, len(r.Site)), r.Site...)
	dst = binary.BigEndian.AppendUint64(appendLen(dst, 8), uint64(windowID))
	dst = append(appendLen(dst, 16), r.Key[:]...)
	dst = appendInt32(appendLen(dst, 4), r.Ordinal)
	dst = append(appendLen(dst, 16), r.NaturalKey[:]...)
	for i, v := range r.Values {
		if !v.Valid {
			dst = appendLen(dst, -1)
			continue
		}
		switch c.types[i] {
		case schemas.Timestamp:
			dst = binary.BigEndian.AppendUint64(appendLen(dst, 8), uint64(v.Int-epochMicros))
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

// decode fills r from the binary values of one result row in the order of columns. Text values alias raw; decimals and JSON live in
// arena, which is returned grown.
func (c rowCodec) decode(raw [][]byte, arena []byte, r *record.Row) ([]byte, error) {
	arena = arena[:0]
	date := int32(binary.BigEndian.Uint32(raw[0]))
	if date == math.MaxInt32 || date == math.MinInt32 {
		return arena, fmt.Errorf("decode column 0: an infinite date")
	}
	r.UsageDate = record.Date(date + epochDays)
	if string(raw[1]) != r.Site {
		r.Site = string(raw[1])
	}
	r.WindowID = int64(binary.BigEndian.Uint64(raw[2]))
	copy(r.Key[:], raw[3])
	r.Ordinal = int32(binary.BigEndian.Uint32(raw[4]))
	copy(r.NaturalKey[:], raw[5])
	for i, t := range c.types {
		b := raw[derivedColumns+i]
		v := &r.Values[i]
		if b == nil {
			*v = record.Value{}
			continue
		}
		v.Valid = true
		start := len(arena)
		var err error
		switch t {
		case schemas.Timestamp:
			micros := int64(binary.BigEndian.Uint64(b))
			if micros == math.MaxInt64 || micros == math.MinInt64 {
				return arena, fmt.Errorf("decode column %d: an infinite time", derivedColumns+i)
			}
			v.Int, v.Bytes = micros+epochMicros, nil
			continue
		case schemas.Decimal:
			arena, err = appendNumericText(arena, b)
		case schemas.JSON:
			arena, err = record.AppendCanonicalJSON(arena, bytes.TrimPrefix(b, []byte{1}))
		default:
			v.Bytes = b
			continue
		}
		if err != nil {
			return arena, fmt.Errorf("decode column %d: %w", derivedColumns+i, err)
		}
		v.Bytes = arena[start:len(arena):len(arena)]
	}
	return arena, nil
}

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
