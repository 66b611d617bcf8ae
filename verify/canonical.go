package verify

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// hashVersion is the version of the canonical bytes that schemas/README.md specifies.
const hashVersion = 1

// hash is the first 16 bytes of a SHA-256.
type hash [16]byte

// digest adds up the hashes of records; see schemas/README.md.
type digest struct {
	hi, lo uint64
	count  int64
}

func (d *digest) add(h hash) {
	var carry uint64
	d.lo, carry = bits.Add64(d.lo, binary.BigEndian.Uint64(h[8:]), 0)
	d.hi, _ = bits.Add64(d.hi, binary.BigEndian.Uint64(h[:8]), carry)
	d.count++
}

func (d *digest) merge(o digest) {
	var carry uint64
	d.lo, carry = bits.Add64(d.lo, o.lo, 0)
	d.hi, _ = bits.Add64(d.hi, o.hi, carry)
	d.count += o.count
}

// sum is the digest as ledger and manifest write it, without the count.
func (d digest) sum() string {
	return hex.EncodeToString(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, d.hi), d.lo))
}

func (d digest) String() string { return fmt.Sprintf("%d records %s", d.count, d.sum()) }

// stated is a digest as the ledger states it: text that may be anything.
type stated struct {
	count int64
	text  string
}

func (s stated) equals(d digest) bool { return s.count == d.count && s.text == d.sum() }

func (s stated) String() string { return fmt.Sprintf("%d records %s", s.count, s.text) }

// Canonical bytes of a value begin with its presence and, if present, its length in 4 bytes.
const (
	absent     = 0x00
	present    = 0x01
	valueStart = 5
)

func beginValue(dst []byte, n int) []byte {
	return append(dst, present, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func appendInt(dst []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(beginValue(dst, 8), uint64(v))
}

func appendText(dst []byte, text []byte) []byte { return append(beginValue(dst, len(text)), text...) }

// appendFloat appends the bits of a float. There is but one zero.
func appendFloat(dst []byte, f float64) []byte { return appendInt(dst, int64(math.Float64bits(f+0))) }

// appendDecimal appends a decimal's canonical text.
func appendDecimal(dst []byte, v wide) []byte {
	start := len(dst)
	dst = v.appendText(beginValue(dst, 0))
	n := len(dst) - start - valueStart
	dst[start+valueStart-1] = byte(n) // far below 256
	return dst
}

// The values that canonical bytes stand for.

func isNull(value []byte) bool { return value[0] == absent }

func intOf(value []byte) int64 {
	if len(value) != valueStart+8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(value[valueStart:]))
}

func bytesOf(value []byte) []byte {
	if isNull(value) {
		return nil
	}
	return value[valueStart:]
}

func hashOf(value []byte) (h hash) {
	copy(h[:], bytesOf(value))
	return h
}

// describeValue writes a value for people.
func describeValue(t schemas.Type, value []byte) string {
	if isNull(value) {
		return "NULL"
	}
	switch t {
	case schemas.Timestamp:
		return instantText(intOf(value))
	case schemas.Date:
		return day(intOf(value)).String()
	case schemas.Bigint, schemas.Integer:
		return strconv.FormatInt(intOf(value), 10)
	case schemas.Float:
		return strconv.FormatFloat(math.Float64frombits(uint64(intOf(value))), 'g', -1, 64)
	case schemas.Decimal:
		return string(bytesOf(value))
	case schemas.UUID:
		return uuidText(hashOf(value))
	}
	const most = 60
	text := bytesOf(value)
	if len(text) > most {
		return fmt.Sprintf("%q…", text[:most])
	}
	return fmt.Sprintf("%q", text)
}

func uuidText(h hash) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// wide is a decimal as a count of 10^-12, in 192 bits of two's complement, the lowest first: 2^64 of the largest amounts can be added up.
type wide [3]uint64

// scale is how many digits amounts have behind the point.
const scale = 12

func (w wide) add(o wide) wide {
	var carry uint64
	w[0], carry = bits.Add64(w[0], o[0], 0)
	w[1], carry = bits.Add64(w[1], o[1], carry)
	w[2], _ = bits.Add64(w[2], o[2], carry)
	return w
}

// times returns the product modulo 2^192.
func (w wide) times(n uint64) wide {
	h0, l0 := bits.Mul64(w[0], n)
	h1, l1 := bits.Mul64(w[1], n)
	var carry uint64
	var p wide
	p[0] = l0
	p[1], carry = bits.Add64(l1, h0, 0)
	p[2] = w[2]*n + h1 + carry
	return p
}

func (w wide) negative() bool { return int64(w[2]) < 0 }

func (w wide) negated() wide {
	return wide{^w[0], ^w[1], ^w[2]}.add(wide{1})
}

// small tells whether w, which is not negative, surely stays below 2^191 when multiplied by 10^4.
func (w wide) small() bool { return w[2] < 1<<48 }

// wideOf returns the value of a 128-bit count of 10^-12.
func wideOf(hi int64, lo uint64) wide { return wide{lo, uint64(hi), uint64(hi >> 63)} }

// appendText appends the canonical decimal.
func (w wide) appendText(dst []byte) []byte {
	if w.negative() {
		dst, w = append(dst, '-'), w.negated()
	}
	if w[2] != 0 || w[1] >= tera {
		return w.appendLarge(dst)
	}
	// Divide by 10^12: what is left is the fraction.
	high := w[1]
	whole, fraction := bits.Div64(high, w[0], tera)
	dst = strconv.AppendUint(dst, whole, 10)
	return appendFraction(dst, fraction)
}

const tera = 1_000_000_000_000

func appendFraction(dst []byte, fraction uint64) []byte {
	if fraction == 0 {
		return dst
	}
	var digits [scale]byte
	for i := scale - 1; i >= 0; i-- {
		digits[i] = '0' + byte(fraction%10)
		fraction /= 10
	}
	end := scale
	for digits[end-1] == '0' {
		end--
	}
	return append(append(dst, '.'), digits[:end]...)
}

// appendLarge is appendText for numbers whose whole part has more than 64 bits.
func (w wide) appendLarge(dst []byte) []byte {
	n := new(big.Int).SetBytes(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, w[2]), w[1]), w[0]))
	whole, fraction := new(big.Int).QuoRem(n, big.NewInt(tera), new(big.Int))
	return appendFraction(whole.Append(dst, 10), fraction.Uint64())
}

func (w wide) String() string { return string(w.appendText(nil)) }
