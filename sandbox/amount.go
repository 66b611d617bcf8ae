package sandbox

import "strconv"

// fracUnit is how many units of frac make one: amounts have twelve decimals.
const fracUnit = 1_000_000_000_000

// amount is an exact value of a factor and the way it is written.
type amount struct {
	negative bool
	whole    uint64
	frac     uint64 // in 1e-12
	form     amountForm
}

type amountForm uint8

const (
	formText     amountForm = iota // "3600"
	formPadded                     // "3600.000000", as C's %f prints it
	formBare                       // 3600
	formExponent                   // 36E+2, as Java prints some decimals
	formNull                       // null; this and the following carry no amount
	formEmpty                      // ""
	formNullText                   // "null"
	formAbsent                     // no such key
)

func (a amount) missing() bool { return a.form >= formNull }

// amountOf makes the amount of a factor from the record's hash.
func amountOf(f factor, h, odd uint64) amount {
	var a amount
	switch f {
	case factorDuration:
		a.whole = 3600
		if h%64 == 0 {
			a.whole = 1 + (h>>8)%3599
		}
	case factorUpflow, factorFlow:
		a.whole, a.frac = (h>>8)%500, (h>>20)%1_000_000*1_000_000
	case factorStoreSize:
		a.whole = 1_000_000_000 + (h>>4)%900_000_000_000_000
	case factorReqNumber:
		a.whole = (h >> 8) % 2_000_000
	}
	switch o := odd % 8000; {
	case o == 0 && f == factorDuration:
		a.whole, a.frac = 3599, 999_999_999_999
	case (o == 0 || o >= 7997) && f != factorDuration: // beyond what a float64 can hold
		a.whole, a.frac = 9_007_199_254_740_993+(h>>10)%1000*2, 1000*(1+(h>>8)%9)
	case o <= 4:
		a.form = formNull + amountForm(o-1)
	case o <= 6:
		a.form = formExponent
	case o <= 70:
		a.form = formBare
	case o <= 150:
		a.form = formPadded
	}
	return a
}

// corrected returns another amount for the same factor.
func (a amount) corrected(f factor, h uint64) amount {
	if a.missing() {
		a = amount{}
	}
	a.form = formText
	if f == factorDuration {
		a.whole = (a.whole + 1 + h%3600) % 3601
		return a
	}
	a.whole += 1 + h%1000
	a.negative = h>>32%16 == 0
	return a
}

// appendJSON appends the JSON value of the amount; the absent form has none and must not come here.
func (a amount) appendJSON(b []byte) []byte {
	switch a.form {
	case formNull:
		return append(b, "null"...)
	case formEmpty:
		return append(b, `""`...)
	case formNullText:
		return append(b, `"null"`...)
	case formBare:
		return a.appendPlain(b)
	case formExponent:
		return a.appendExponent(b)
	default:
		b = append(b, '"')
		b = a.appendPlain(b)
		return append(b, '"')
	}
}

func (a amount) appendPlain(b []byte) []byte {
	if a.negative {
		b = append(b, '-')
	}
	b = strconv.AppendUint(b, a.whole, 10)
	if a.frac == 0 {
		if a.form == formPadded {
			b = append(b, ".000000"...)
		}
		return b
	}
	b = append(b, '.')
	return appendFraction(b, a.frac)
}

// appendFraction appends the digits behind the point without trailing zeros.
func appendFraction(b []byte, frac uint64) []byte {
	for unit := uint64(fracUnit / 10); frac > 0; unit /= 10 {
		b = append(b, byte('0'+frac/unit))
		frac %= unit
	}
	return b
}

func (a amount) appendExponent(b []byte) []byte {
	if a.frac != 0 || a.whole == 0 || a.whole%10 != 0 {
		return a.appendPlain(b)
	}
	zeros, digits := uint64(0), a.whole
	for ; digits%10 == 0; digits /= 10 {
		zeros++
	}
	if a.negative {
		b = append(b, '-')
	}
	b = strconv.AppendUint(b, digits, 10)
	b = append(b, "E+"...)
	return strconv.AppendUint(b, zeros, 10)
}
