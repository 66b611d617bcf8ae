package parquet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"strings"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// tally is what a file is compared by: digest, exact sums, and span of usage or event time, all computed from the columns' values of the rows
// that are written.
type tally struct {
	layout    *layout
	hasher    *record.Hasher // of the row's values
	vendor    *record.Hasher // of those that the vendor sent
	partition pipeline.Partition

	digest   record.Digest
	factors  map[string]*factorTally
	noFactor factorTally
	min, max int64 // microseconds; good once a row is counted
}

type factorTally struct {
	records int64
	nulls   int64
	sum     wideSum
}

func newTally(l *layout, p pipeline.Partition) *tally {
	return &tally{
		layout: l, hasher: record.NewHasher(l.stream), vendor: record.NewHasher(l.declared), partition: p, factors: map[string]*factorTally{},
	}
}

var (
	errKey       = errors.New("the record key is not that of the values")
	errPartition = errors.New("the row belongs to another partition")
)

// add counts one row and returns its amount, unscaled. A row that contradicts itself is an error: errKey if the values don't hash to
// the key they are stored under, errPartition if site or date are of another file.
func (t *tally) add(row *record.Row) (amount record.Int128, err error) {
	if err := t.checkPartition(row); err != nil {
		return amount, err
	}
	hash := t.hasher.Content(row.Values)
	if err := t.checkKey(row, hash); err != nil {
		return amount, err
	}
	if t.layout.factorName >= 0 {
		if amount, err = t.addAmount(row.Values[t.layout.factorName], row.Values[t.layout.factorValue]); err != nil {
			return amount, err
		}
	}
	if t.layout.time >= 0 {
		at := row.Values[t.layout.time].Int
		if t.digest.Count == 0 {
			t.min, t.max = at, at
		}
		t.min, t.max = min(t.min, at), max(t.max, at)
	}
	t.digest.Add(hash)
	return amount, nil
}

func (t *tally) checkPartition(row *record.Row) error {
	within := func(d record.Date) bool { return t.partition.From <= d && d < t.partition.End() }
	switch t.layout.declared.Shape {
	case schemas.Jobs:
		if row.Site != t.partition.Site || !within(row.UsageDate) {
			return fmt.Errorf("%w: site %q, usage date %s", errPartition, row.Site, row.UsageDate)
		}
	case schemas.Events:
		if d := record.Date(row.Values[t.layout.date].Int); !within(d) {
			return fmt.Errorf("%w: event date %s", errPartition, d)
		}
	}
	return nil
}

// checkKey compares the record key with the values; hash is that of all of them.
func (t *tally) checkKey(row *record.Row, hash record.Hash) error {
	stored, key := row.Key[:], hash
	if t.layout.declared.IsList() {
		stored, key = row.Values[t.layout.key].Bytes, t.vendor.Content(row.Values[len(t.layout.declared.Derived):])
	}
	if t.layout.time >= 0 {
		key = record.KeyOf(row.Values[t.layout.time].Int, key)
	}
	if !bytes.Equal(stored, key[:]) {
		return fmt.Errorf("%w: it is %x, the values give %x", errKey, stored, key)
	}
	return nil
}

func (t *tally) addAmount(name, value record.Value) (amount record.Int128, err error) {
	f := t.factor(name)
	if !value.Valid {
		f.records++
		f.nulls++
		return amount, nil
	}
	if amount, err = record.Unscaled(value.Bytes); err != nil {
		return amount, fmt.Errorf("read amount: %w", err)
	}
	f.records++
	f.sum.add(amount)
	return amount, nil
}

func (t *tally) factor(name record.Value) *factorTally {
	if !name.Valid {
		return &t.noFactor
	}
	f := t.factors[string(name.Bytes)]
	if f == nil {
		f = &factorTally{}
		t.factors[string(name.Bytes)] = f
	}
	return f
}

// FactorSum sums the amounts of one factor in one file, exactly. Never add the sums of two factors.
type FactorSum struct {
	Records     int64  `json:"records"`
	Sum         string `json:"sum"`          // plain decimal, trimmed: "-12.5"
	NullAmounts int64  `json:"null_amounts"` // records without an amount
}

func (f *factorTally) result() FactorSum {
	return FactorSum{Records: f.records, Sum: f.sum.String(), NullAmounts: f.nulls}
}

// fill writes the tally into the file's manifest entry.
func (t *tally) fill(e *Entry) {
	e.Rows = t.digest.Count
	e.Digest = t.digest.Sum()
	e.Factors, e.NoFactor, e.MinTime, e.MaxTime = nil, nil, "", ""
	if t.layout.factorName >= 0 {
		e.Factors = map[string]FactorSum{}
	}
	for name, f := range t.factors {
		e.Factors[name] = f.result()
	}
	if t.noFactor.records > 0 {
		sum := t.noFactor.result()
		e.NoFactor = &sum
	}
	if t.digest.Count > 0 && t.layout.time >= 0 {
		e.MinTime, e.MaxTime = instant(t.min), instant(t.max)
	}
}

// instant writes microseconds since 1970 as RFC 3339 in UTC, always with six digits.
func instant(us int64) string { return time.UnixMicro(us).UTC().Format("2006-01-02T15:04:05.000000Z") }

// wideSum adds 128-bit numbers in 192 bits, two's complement: 2^64 of the largest amounts fit.
type wideSum struct{ hi, mid, lo uint64 }

func (s *wideSum) add(v record.Int128) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, v.Lo, 0)
	s.mid, carry = bits.Add64(s.mid, uint64(v.Hi), carry)
	s.hi, _ = bits.Add64(s.hi, uint64(v.Hi>>63), carry)
}

// String returns the sum as a plain decimal without trailing zeros behind the point.
func (s wideSum) String() string {
	var raw [24]byte
	binary.BigEndian.PutUint64(raw[0:], s.hi)
	binary.BigEndian.PutUint64(raw[8:], s.mid)
	binary.BigEndian.PutUint64(raw[16:], s.lo)
	n := new(big.Int).SetBytes(raw[:])
	if int64(s.hi) < 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), 192))
	}
	sign := ""
	if n.Sign() < 0 {
		sign = "-"
		n.Neg(n)
	}
	digits := n.String()
	if pad := decimalScale + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	point := len(digits) - decimalScale
	whole, fraction := digits[:point], strings.TrimRight(digits[point:], "0")
	if fraction == "" {
		return sign + whole
	}
	return sign + whole + "." + fraction
}
