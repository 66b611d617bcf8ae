package record_test

import (
	"errors"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

func TestAppendDecimal(t *testing.T) {
	t.Parallel()
	nines := strings.Repeat("9", 26) + "." + strings.Repeat("9", 12)
	tests := map[string]struct {
		text, want string
		err        error
	}{
		"integer":                  {text: "3600", want: "3600"},
		"fraction":                 {text: "3600.000000", want: "3600"},
		"trailing zeros":           {text: "-12.500", want: "-12.5"},
		"leading zeros":            {text: "0012", want: "12"},
		"leading zeros, fraction":  {text: "000.50", want: "0.5"},
		"plus":                     {text: "+1", want: "1"},
		"spaces":                   {text: " \t1.5\n ", want: "1.5"},
		"leading point":            {text: "-.5", want: "-0.5"},
		"trailing point":           {text: "5.", want: "5"},
		"zero":                     {text: "0", want: "0"},
		"minus zero":               {text: "-0.00", want: "0"},
		"zero of a huge exponent":  {text: "0e999999999999999999999", want: "0"},
		"exponent":                 {text: "1e3", want: "1000"},
		"negative exponent":        {text: "-12.5E-3", want: "-0.0125"},
		"exponent moves the point": {text: "0.00123e+5", want: "123"},
		"long zeros that cancel":   {text: "0." + strings.Repeat("0", 500) + "1e503", want: "100"},
		"largest":                  {text: nines, want: nines},
		"smallest":                 {text: "-" + nines, want: "-" + nines},
		"least step":               {text: "1e-12", want: "0.000000000001"},
		"needless digits":          {text: strings.Repeat("0", 50) + "1." + strings.Repeat("0", 50), want: "1"},
		"27 digits":                {text: "1" + strings.Repeat("0", 26), err: record.ErrNumberRange},
		"13 behind the point":      {text: "0.0000000000001", err: record.ErrNumberRange},
		"huge":                     {text: "1e400", err: record.ErrNumberRange},
		"very huge":                {text: "1e999999999", err: record.ErrNumberRange},
		"exponent beyond int64":    {text: "-1e99999999999999999999999999", err: record.ErrNumberRange},
		"very small":               {text: "1e-999999999", err: record.ErrNumberRange},
		"empty":                    {text: "", err: record.ErrNotNumber},
		"spaces alone":             {text: "  ", err: record.ErrNotNumber},
		"sign alone":               {text: "-", err: record.ErrNotNumber},
		"two signs":                {text: "+-1", err: record.ErrNotNumber},
		"point alone":              {text: ".", err: record.ErrNotNumber},
		"two points":               {text: "1.2.3", err: record.ErrNotNumber},
		"exponent alone":           {text: "e5", err: record.ErrNotNumber},
		"no exponent":              {text: "1e", err: record.ErrNotNumber},
		"exponent of a sign":       {text: "1e+", err: record.ErrNotNumber},
		"broken exponent":          {text: "1e1.5", err: record.ErrNotNumber},
		"not a number":             {text: "NaN", err: record.ErrNotNumber},
		"infinity":                 {text: "-Infinity", err: record.ErrNotNumber},
		"hex":                      {text: "0x10", err: record.ErrNotNumber},
		"underscore":               {text: "1_000", err: record.ErrNotNumber},
		"comma":                    {text: "1,5", err: record.ErrNotNumber},
		"space inside":             {text: "1 000", err: record.ErrNotNumber},
		"other digits":             {text: "١", err: record.ErrNotNumber},
		"text":                     {text: "much", err: record.ErrNotNumber},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := record.AppendDecimal([]byte("x"), []byte(test.text))
			if string(got) != "x"+test.want || !errors.Is(err, test.err) {
				t.Errorf("%q is %q, %v; want %q, %v", test.text, got, err, "x"+test.want, test.err)
			}
		})
	}
}

func TestInt128(t *testing.T) {
	t.Parallel()
	for canonical, want := range map[string]record.Int128{
		"0":                     {},
		"0.000000000001":        {Lo: 1},
		"-0.000000000001":       {Hi: -1, Lo: 1<<64 - 1},
		"1":                     {Lo: 1_000_000_000_000},
		"18446744.073709551616": {Hi: 1},
		"99999999999999999999999999.999999999999":  {Hi: 5421010862427522170, Lo: 687399551400673279},
		"-99999999999999999999999999.999999999999": {Hi: -5421010862427522171, Lo: 17759344522308878337},
	} {
		got, err := record.Unscaled([]byte(canonical))
		if err != nil || got != want {
			t.Errorf("unscaled %s is %+v, %v; want %+v", canonical, got, err, want)
		}
		if back := record.AppendInt128([]byte("x"), got); string(back) != "x"+canonical {
			t.Errorf("%+v is %s, want %s", got, back[1:], canonical)
		}
	}
	for _, text := range []string{"", "x", "1e27", "1e-13"} {
		if v, err := record.Unscaled([]byte(text)); err == nil {
			t.Errorf("unscaled %q is %+v, want an error", text, v)
		}
	}
}

var (
	canonicalDecimal = regexp.MustCompile(`^(0|-?([1-9][0-9]{0,25}|0\.[0-9]{0,11}[1-9]|[1-9][0-9]{0,25}\.[0-9]{0,11}[1-9]))$`)
	smallDecimal     = regexp.MustCompile(`^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$`)
)

// FuzzDecimal compares with math/big: what is accepted has the same value in canonical form and as an unscaled integer; what is
// refused is no number or does not fit.
func FuzzDecimal(f *testing.F) {
	for _, seed := range []string{"3600", "-0", "+.5e-3", "00.10", "1e26", "1e-13", "99999999999999999999999999.999999999999", "NaN", "1_0", " 1 "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := record.AppendDecimal(nil, []byte(text))
		trimmed := strings.Trim(text, " \t\r\n")
		exact, known := new(big.Rat), smallDecimal.MatchString(trimmed)
		if known {
			if _, ok := exact.SetString(trimmed); !ok {
				t.Fatalf("math/big does not read %q", trimmed)
			}
		}
		unscaled := new(big.Rat).Mul(exact, big.NewRat(1_000_000_000_000, 1))
		if err != nil {
			limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil)
			if known && unscaled.IsInt() && new(big.Int).Abs(unscaled.Num()).Cmp(limit) < 0 {
				t.Fatalf("%q fits but is refused: %v", text, err)
			}
			if known != errors.Is(err, record.ErrNumberRange) && !strings.ContainsAny(text, "eE") {
				t.Fatalf("%q is refused for the wrong reason: %v", text, err)
			}
			return
		}
		if !canonicalDecimal.Match(got) {
			t.Fatalf("%q is %q, which is not canonical", text, got)
		}
		v, err := record.Unscaled(got)
		if err != nil {
			t.Fatal(err)
		}
		if back := record.AppendInt128(nil, v); string(back) != string(got) {
			t.Fatalf("%q is %+v, which is %q", got, v, back)
		}
		if known {
			value := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(v.Hi), 64), new(big.Int).SetUint64(v.Lo))
			if !unscaled.IsInt() || unscaled.Num().Cmp(value) != 0 {
				t.Fatalf("%q is %s, want %s", text, value, unscaled)
			}
		}
	})
}
