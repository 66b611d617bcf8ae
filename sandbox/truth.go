package sandbox

import (
	"math/big"
	"math/bits"
	"strings"
	"time"
)

// The reasons why a record can't be normalised, as Truth counts them.
const (
	RejectedBeginTime = "begin_time"              // missing, no time, before 2010 or far in the future
	RejectedAmount    = "accumulate_factor_value" // no number, or beyond 38 digits of which 12 behind the point
	RejectedShape     = "not_an_object"
)

// Truth is what a query job over the same span returns if it is created now, summed up by the generator itself. Sums are exact
// plain decimals without trailing zeros ("0" for none). A record without an amount counts and adds nothing; a rejected one
// counts under its reason only.
type Truth struct {
	Records  int64                  `json:"records"`
	Rejected map[string]int64       `json:"rejected"`
	Days     []DayTruth             `json:"days"` // by usage date (UTC), then factor
	Factors  map[string]FactorTruth `json:"factors"`

	NoAmount    int64 `json:"no_amount"` // of Records, those without an amount
	Twins       int64 `json:"twins"`     // exact second copies, rejected ones included
	Late        int64 `json:"late"`
	Corrections int64 `json:"corrections"`
	Night       int   `json:"night"` // nights passed by then
}

// DayTruth is the sum of one factor's usage on one date.
type DayTruth struct {
	UsageDate string `json:"usage_date"`
	Factor    string `json:"factor"`
	Records   int64  `json:"records"`
	Sum       string `json:"sum"`
}

// FactorTruth is the sum of one factor.
type FactorTruth struct {
	Records int64  `json:"records"`
	Sum     string `json:"sum"`
}

// RejectedTotal is how many records can't be normalised, for whatever reason.
func (t Truth) RejectedTotal() int64 {
	var n int64
	for _, count := range t.Rejected {
		n += count
	}
	return n
}

// Truth sums up what the vendor holds in the file dates [from, to) of a site and region; empty means all. Only the dates of from
// and to count.
func (s *Server) Truth(site, region string, from, to time.Time) Truth {
	return s.truth(site, region, dayOf(from), dayOf(to))
}

// lateReach is how many days before its file date a record's usage may be, with room to spare.
const lateReach = 50

func (s *Server) truth(site, region string, from, to day) Truth {
	res := s.query(site, region, from, to)
	t := Truth{Rejected: map[string]int64{}, Days: []DayTruth{}, Factors: map[string]FactorTruth{}, Night: res.night}
	if len(res.sections) == 0 {
		return t
	}
	first := res.sections[0].day - lateReach
	sums := make([][factorCount]sum, res.sections[len(res.sections)-1].day-first+1)
	res.each(0, res.total, func(r *record) {
		switch r.kind {
		case kindTwin:
			t.Twins++
		case kindLate:
			t.Late++
		case kindCorrection:
			t.Corrections++
		}
		switch r.bad {
		case badBeginTime:
			t.Rejected[RejectedBeginTime]++
			return
		case badAmount:
			t.Rejected[RejectedAmount]++
			return
		case badShape:
			t.Rejected[RejectedShape]++
			return
		}
		t.Records++
		if r.amount.missing() {
			t.NoAmount++
		}
		sums[day(r.begin/86400)-first][r.series.factor].add(r.amount)
	})

	var totals [factorCount]struct {
		records int64
		value   big.Int
	}
	for i := range sums {
		for _, f := range factorsByName {
			sum := &sums[i][f]
			if sum.records == 0 {
				continue
			}
			value := sum.value()
			t.Days = append(t.Days, DayTruth{(first + day(i)).String(), f.String(), sum.records, decimalText(value)})
			totals[f].records += sum.records
			totals[f].value.Add(&totals[f].value, value)
		}
	}
	for _, f := range factorsByName {
		if totals[f].records > 0 {
			t.Factors[f.String()] = FactorTruth{totals[f].records, decimalText(&totals[f].value)}
		}
	}
	return t
}

var factorsByName = [...]factor{factorStoreSize, factorDuration, factorFlow, factorReqNumber, factorUpflow}

// sum adds amounts up as a 128-bit number of 1e-12: room for ten billion of the biggest amounts.
type sum struct {
	records int64
	hi, lo  uint64
}

func (s *sum) add(a amount) {
	s.records++
	if a.missing() {
		return
	}
	hi, lo := bits.Mul64(a.whole, fracUnit)
	lo, carry := bits.Add64(lo, a.frac, 0)
	hi += carry
	if a.negative {
		s.lo, carry = bits.Sub64(s.lo, lo, 0)
		s.hi, _ = bits.Sub64(s.hi, hi, carry)
		return
	}
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi, _ = bits.Add64(s.hi, hi, carry)
}

// value is the sum in units of 1e-12.
func (s *sum) value() *big.Int {
	v := big.NewInt(int64(s.hi)) // two's complement
	v.Lsh(v, 64)
	return v.Add(v, new(big.Int).SetUint64(s.lo))
}

// decimalText writes a number of 1e-12 as a plain decimal.
func decimalText(v *big.Int) string {
	whole, frac := new(big.Int).QuoRem(new(big.Int).Abs(v), big.NewInt(fracUnit), new(big.Int))
	text := whole.String()
	if frac.Sign() != 0 {
		digits := frac.String()
		text += "." + strings.TrimRight(strings.Repeat("0", 12-len(digits))+digits, "0")
	}
	if v.Sign() < 0 {
		text = "-" + text
	}
	return text
}
