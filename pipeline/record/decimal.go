package record

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
)

// Amounts are numeric(38,12): 26 digits before the point, 12 behind it.
const (
	decimalDigits = 38
	decimalScale  = 12
)

// Errors of AppendDecimal, found with errors.Is.
var (
	ErrNotNumber   = errors.New("it is not a number")
	ErrNumberRange = errors.New("it does not fit numeric(38,12)")
)

// AppendDecimal appends the canonical form of text, a decimal number as people or JSON write it: plain digits, no exponent, no plus,
// no needless zeros on either side, and "0" for every zero. Spaces around it, a leading "+" or "." and exponents are understood.
// Nothing is rounded: what numeric(38,12) can't hold exactly is ErrNumberRange, what is no number ErrNotNumber, and then dst is what it was.
func AppendDecimal(dst, text []byte) ([]byte, error) {
	if isShortInteger(text) {
		return append(dst, text...), nil
	}
	n, ok := parseNumber(trimSpace(text))
	if !ok {
		return dst, fmt.Errorf("read decimal %q: %w", excerpt(text), ErrNotNumber)
	}
	whole, fraction := n.size()
	if whole > decimalDigits-decimalScale || fraction > decimalScale {
		return dst, fmt.Errorf("read decimal %q: %w", excerpt(text), ErrNumberRange)
	}
	return n.appendPlain(dst), nil
}

// isShortInteger tells whether text is a canonical non-negative integer of a size that surely fits.
func isShortInteger(text []byte) bool {
	if len(text) == 0 || len(text) > decimalDigits-decimalScale || text[0] == '0' && len(text) > 1 {
		return false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func trimSpace(text []byte) []byte {
	i := skipSpace(text, 0)
	end := len(text)
	for end > i && skipSpace(text[end-1:end], 0) == 1 {
		end--
	}
	return text[i:end]
}

// number is a parsed decimal: the digits of whole and fraction, one after the other, with the point behind the first `point` of
// them (which may lie far outside); first and last are the outermost digits that are not zero, first > last for zero.
type number struct {
	negative        bool
	whole, fraction []byte
	point           int64
	first, last     int64
}

// parseNumber reads [+-] digits [. digits] [e [+-] digits] with a digit before or behind the point.
func parseNumber(text []byte) (n number, ok bool) {
	i := 0
	if i < len(text) && (text[i] == '-' || text[i] == '+') {
		n.negative = text[i] == '-'
		i++
	}
	start := i
	i = skipDigits(text, i)
	n.whole = text[start:i]
	if i < len(text) && text[i] == '.' {
		start = i + 1
		i = skipDigits(text, start)
		n.fraction = text[start:i]
	}
	if len(n.whole)+len(n.fraction) == 0 {
		return number{}, false
	}
	n.point = int64(len(n.whole))
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		exponent, ok := parseExponent(text[i+1:])
		if !ok {
			return number{}, false
		}
		n.point += exponent
		i = len(text)
	}
	if i < len(text) {
		return number{}, false
	}
	count := int64(len(n.whole) + len(n.fraction))
	for n.first = 0; n.first < count && n.digit(n.first) == '0'; n.first++ {
	}
	for n.last = count - 1; n.last >= n.first && n.digit(n.last) == '0'; n.last-- {
	}
	return n, true
}

func skipDigits(text []byte, i int) int {
	for i < len(text) && '0' <= text[i] && text[i] <= '9' {
		i++
	}
	return i
}

// parseExponent reads [+-] digits. An exponent too large to matter stays at a bound that no text length can make up for.
func parseExponent(text []byte) (int64, bool) {
	const bound = 1 << 50
	i, sign := 0, int64(1)
	if i < len(text) && (text[i] == '-' || text[i] == '+') {
		if text[i] == '-' {
			sign = -1
		}
		i++
	}
	if i == len(text) || skipDigits(text, i) != len(text) {
		return 0, false
	}
	var e int64
	for _, c := range text[i:] {
		e = min(e*10+int64(c-'0'), bound)
	}
	return sign * e, true
}

// digit returns the k-th digit; all beyond the written ones are zeros.
func (n *number) digit(k int64) byte {
	switch {
	case k < 0:
		return '0'
	case k < int64(len(n.whole)):
		return n.whole[k]
	case k-int64(len(n.whole)) < int64(len(n.fraction)):
		return n.fraction[k-int64(len(n.whole))]
	}
	return '0'
}

// size returns how many digits the plain form has before and behind the point.
func (n *number) size() (whole, fraction int64) {
	if n.first > n.last {
		return 1, 0
	}
	return max(n.point-n.first, 0), max(n.last+1-n.point, 0)
}

// appendPlain appends the canonical form. Ask for its size first: it may be huge.
func (n *number) appendPlain(dst []byte) []byte {
	if n.first > n.last {
		return append(dst, '0')
	}
	if n.negative {
		dst = append(dst, '-')
	}
	if n.point <= n.first {
		dst = append(dst, '0')
	}
	for k := n.first; k < n.point; k++ {
		dst = append(dst, n.digit(k))
	}
	if n.last >= n.point {
		dst = append(dst, '.')
	}
	for k := n.point; k <= n.last; k++ {
		dst = append(dst, n.digit(k))
	}
	return dst
}

var errIntegerRange = errors.New("it does not fit 64 bits")

// parseInteger reads a whole number as people or JSON write it, "2.0" and "2e3" among them.
func parseInteger(text []byte) (int64, error) {
	n, ok := parseNumber(trimSpace(text))
	if !ok {
		return 0, fmt.Errorf("read integer %q: %w", excerpt(text), ErrNotNumber)
	}
	whole, fraction := n.size()
	if fraction > 0 {
		return 0, fmt.Errorf("read integer %q: it has a fraction", excerpt(text))
	}
	const digits = 19 // of the largest
	if whole > digits {
		return 0, fmt.Errorf("read integer %q: %w", excerpt(text), errIntegerRange)
	}
	v, err := strconv.ParseInt(string(n.appendPlain(make([]byte, 0, digits+1))), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read integer %q: %w", excerpt(text), errIntegerRange)
	}
	return v, nil
}

// Int128 is an amount as a two's complement 128-bit count of 10^-12: the unscaled value of DECIMAL(38,12).
type Int128 struct {
	Hi int64
	Lo uint64
}

// Unscaled returns the unscaled value of an amount in the form that AppendDecimal writes; other forms of the same value are understood too.
func Unscaled(canonical []byte) (Int128, error) {
	n, ok := parseNumber(canonical)
	if !ok {
		return Int128{}, fmt.Errorf("read decimal %q: %w", excerpt(canonical), ErrNotNumber)
	}
	if whole, fraction := n.size(); whole > decimalDigits-decimalScale || fraction > decimalScale {
		return Int128{}, fmt.Errorf("read decimal %q: %w", excerpt(canonical), ErrNumberRange)
	}
	var hi, lo uint64
	if n.first <= n.last {
		for k := n.first; k < n.point+decimalScale; k++ {
			carry, low := bits.Mul64(lo, 10)
			low, c := bits.Add64(low, uint64(n.digit(k)-'0'), 0)
			hi, lo = hi*10+carry+c, low
		}
	}
	if n.negative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	return Int128{Hi: int64(hi), Lo: lo}, nil
}

// AppendInt128 appends the canonical text of the unscaled value v.
func AppendInt128(dst []byte, v Int128) []byte {
	hi, lo := uint64(v.Hi), v.Lo
	if v.Hi < 0 {
		dst = append(dst, '-')
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	var digits [40]byte // 2^127 has 39 digits
	i := len(digits)
	for hi != 0 || lo != 0 || i > len(digits)-decimalScale-1 {
		var r uint64
		hi, r = hi/10, hi%10
		lo, r = bits.Div64(r, lo, 10)
		i--
		digits[i] = '0' + byte(r)
	}
	point := len(digits) - decimalScale
	end := len(digits)
	for end > point && digits[end-1] == '0' {
		end--
	}
	dst = append(dst, digits[i:point]...)
	if end > point {
		dst = append(append(dst, '.'), digits[point:end]...)
	}
	return dst
}
