package record_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

func TestAppendCanonicalJSON(t *testing.T) {
	t.Parallel()
	nest := func(n int) string { return strings.Repeat(`{"a":[`, n/2) + strings.Repeat(`]}`, n/2) }
	tests := map[string]struct{ src, want string }{ // want "" is an error
		"literals":            {" [ null , true,false ]\n", `[null,true,false]`},
		"empty":               {`{"a":{ },"b":[ ],"":""}`, `{"":"","a":{},"b":[]}`},
		"keys in order":       {`{"b":1,"a":2,"B":3,"aa":4}`, `{"B":3,"a":2,"aa":4,"b":1}`},
		"bytes, not UTF-16":   {`{"😀":1,"￮":2}`, `{"￮":2,"😀":1}`},
		"the last one wins":   {`{"b":1,"a":2,"\u0062":3,"a":{"c":1,"c":2}}`, `{"a":{"c":2},"b":3}`},
		"the last, in order":  {`{"a":1,"a":2}`, `{"a":2}`},
		"nested out of order": {`{"z":{"y":{"d":1,"c":2},"x":3},"a":{"b":[{"n":1,"m":2}]}}`, `{"a":{"b":[{"m":2,"n":1}]},"z":{"x":3,"y":{"c":2,"d":1}}}`},
		"escapes":             {`"\u0041\/\"\\\b\f\n\r\t\u001f\u007f\u00e4\ud83d\ude00"`, `"A/\"\\\b\f\n\r\t\u001f` + "\x7f" + `ä😀"`},
		"numbers":             {`[1.50,-0,0.0,1e3,1.25E-2,-1E+2,100,0.10]`, `[1.5,0,0,1000,0.0125,-100,100,0.1]`},
		"1000 digits":         {`1e999`, "1" + strings.Repeat("0", 999)},
		"1000 behind it":      {`1e-1000`, "0." + strings.Repeat("0", 999) + "1"},
		"1001 digits":         {`1e1000`, ""},
		"1001 behind it":      {`1e-1001`, ""},
		"a huge exponent":     {`1e999999999999999999999`, ""},
		"64 deep":             {nest(64), nest(64)},
		"66 deep":             {nest(66), ""},
		"NUL":                 {`"\u0000"`, ""},
		"NUL in a key":        {`{"a\u0000":1}`, ""},
		"half a pair":         {`"\ud800"`, ""},
		"half a pair and x":   {`"\ud800x"`, ""},
		"two first halves":    {`"\ud800\ud800"`, ""},
		"invalid UTF-8":       {"\"\xc3\"", ""},
		"control character":   {"\"\n\"", ""},
		"nothing":             {" ", ""},
		"two values":          {`1 2`, ""},
		"trailing comma":      {`[1,]`, ""},
		"comma in an object":  {`{"a":1,}`, ""},
		"no colon":            {`{"a"}`, ""},
		"wrong bracket":       {`[1}`, ""},
		"unclosed":            {`{"a":[1`, ""},
		"bare word":           {`nul`, ""},
		"leading zero":        {`01`, ""},
		"leading plus":        {`+1`, ""},
		"trailing point":      {`1.`, ""},
		"unknown escape":      {`"\x"`, ""},
		"short escape":        {`"\u12"`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := record.AppendCanonicalJSON([]byte("x"), []byte(test.src))
			if string(got) != "x"+test.want || (err != nil) != (test.want == "") {
				t.Errorf("%s is %s, %v; want %s", test.src, got[1:], err, test.want)
			}
		})
	}
}

// FuzzCanonicalJSON: the canonical form means the same, is valid, and survives jsonb; nothing is refused without a reason.
func FuzzCanonicalJSON(f *testing.F) {
	for _, seed := range []string{
		`{"b":[1.50,-0,1e3,{"z":null,"y":true}],"a":"\u00e4\ud83d\ude00\n","b":""}`, `{"aa":1,"b":2,"\u0062":3}`, `"\u0000"`, `[[[]]]`, `1e-999`, "\"\xff\"", `[1,]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := record.AppendCanonicalJSON(nil, src)
		valid := jsontext.Value(src).IsValid(jsontext.AllowDuplicateNames(true))
		if err != nil {
			if valid && strings.Contains(err.Error(), "not valid JSON") {
				t.Fatalf("%q is valid JSON but refused: %v", src, err)
			}
			return
		}
		if !valid {
			t.Fatalf("%q is invalid, but its canonical form is %q", src, got)
		}
		if !jsontext.Value(got).IsValid() {
			t.Fatalf("the canonical form %q of %q is invalid", got, src)
		}
		if a, b := parseJSON(t, src), parseJSON(t, got); !sameJSON(a, b) {
			t.Fatalf("%q has another meaning than %q", got, src)
		}
		printed := jsonbText(parseJSON(t, got))
		if again, err := record.AppendCanonicalJSON(nil, []byte(printed)); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q comes back from jsonb as %q (%v)", got, again, err)
		}
	})
}

func parseJSON(t *testing.T, src []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("parse %q: %v", src, err)
	}
	return v
}

func sameJSON(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, sameJSON)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameJSON)
	case json.Number:
		b, ok := b.(json.Number)
		if !ok {
			return false
		}
		x, okX := new(big.Rat).SetString(string(a))
		y, okY := new(big.Rat).SetString(string(b))
		return okX && okY && x.Cmp(y) == 0
	}
	return a == b
}

// jsonbText prints as Postgres prints jsonb: shorter keys first, a space behind colons and commas, numbers as they are.
func jsonbText(v any) string {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.SortedFunc(maps.Keys(v), func(a, b string) int {
			if len(a) != len(b) {
				return len(a) - len(b)
			}
			return strings.Compare(a, b)
		})
		var members []string
		for _, k := range keys {
			members = append(members, jsonbText(k)+": "+jsonbText(v[k]))
		}
		return "{" + strings.Join(members, ", ") + "}"
	case []any:
		var elements []string
		for _, e := range v {
			elements = append(elements, jsonbText(e))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	case string:
		quoted, err := jsontext.AppendQuote(nil, v)
		if err != nil {
			return err.Error()
		}
		return string(quoted)
	case nil:
		return "null"
	}
	return fmt.Sprint(v)
}

func TestWalk(t *testing.T) {
	t.Parallel()
	var got []string
	record.Members([]byte(` { "a" : 1 ,"b\"":"}\\","c":{"d":[{}]},"e":[ ] , "":null } `), func(key, value []byte) bool {
		got = append(got, string(key)+"="+string(value))
		return true
	})
	if want := []string{`a=1`, `b\"="}\\"`, `c={"d":[{}]}`, `e=[ ]`, `=null`}; !slices.Equal(got, want) {
		t.Errorf("members are %q, want %q", got, want)
	}
	got = nil
	elements := ` [ {"a":"}","b":{}} , {"c":"\""},{"d":[1,2]} ,"x,]", 12 ,[[]],null ] `
	for element := range record.Elements([]byte(elements)) {
		got = append(got, string(element))
	}
	if want := []string{`{"a":"}","b":{}}`, `{"c":"\""}`, `{"d":[1,2]}`, `"x,]"`, `12`, `[[]]`, `null`}; !slices.Equal(got, want) {
		t.Errorf("elements are %q, want %q", got, want)
	}
	for element := range record.Elements([]byte(elements)) {
		if string(element) != got[0] {
			t.Errorf("first element is %q", element)
		}
		break
	}
	for _, none := range []string{``, `{}`, `[]`, `[ ]`, `null`, `[`, `{"a"`, `{"a":`, `{1:2}`} {
		record.Members([]byte(none), func(key, value []byte) bool {
			t.Errorf("%q has the member %q: %q", none, key, value)
			return true
		})
		for element := range record.Elements([]byte(none)) {
			t.Errorf("%q has the element %q", none, element)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body  string
		valid bool
	}{
		"response":              {`{"data": [], "marker": "xxx"}`, true},
		"spaces around":         {" \r\n{}\t\n", true},
		"duplicate names":       {`{"a":1,"a":2}`, true},
		"invalid UTF-8":         {"\"\xff\"", true},
		"half a surrogate pair": {`"\ud800"`, true},
		"deep":                  {strings.Repeat("[", 9000) + strings.Repeat("]", 9000), true},
		"too deep":              {strings.Repeat("[", 11000) + strings.Repeat("]", 11000), false},
		"nothing":               {"", false},
		"spaces":                {"  ", false},
		"torn":                  {`{"data":[{"a":1`, false},
		"trailing comma":        {`{"a":1,}`, false},
		"two values":            {`{} {}`, false},
		"garbage behind":        {`{"a":1}<html>`, false},
		"HTML":                  {`<html>`, false},
		"byte order mark":       {"\ufeff{}", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := record.Validate([]byte(test.body)); (err == nil) != test.valid {
				t.Errorf("%.40q: %v, want valid %t", test.body, err, test.valid)
			} else if err != nil && len(err.Error()) > 600 {
				t.Errorf("%.40q: long error %v", test.body, err)
			}
		})
	}
}

// FuzzWalk compares Members and Elements with jsontext on valid JSON, and sees that they end on everything else.
func FuzzWalk(f *testing.F) {
	for _, seed := range []string{
		`[{"a":"}","b":{"c":[1,"]"]}},{"\"":"\\"},12,[ ]]`, `{"a\\":{"b":"{"},"c":[{}],"d":1.5e3 }`, `[{"a":"\"}`, `{"a":}`, `[1,,2]`, `"x"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got []string
		record.Members(body, func(key, value []byte) bool {
			got = append(got, string(key), string(value))
			return true
		})
		for element := range record.Elements(body) {
			got = append(got, string(element))
		}
		if len(got) > 2*len(body)+1 {
			t.Fatalf("%d parts of %d bytes", len(got), len(body))
		}
		err := record.Validate(body)
		if want := jsontext.Value(body).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); (err == nil) != want {
			t.Fatalf("%q: %v, want valid %t", body, err, want)
		}
		if err != nil {
			return
		}

		dec := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		var want []string
		if kind := dec.PeekKind(); kind == '{' || kind == '[' {
			if _, err := dec.ReadToken(); err != nil {
				t.Fatal(err)
			}
			for dec.PeekKind() != '}' && dec.PeekKind() != ']' {
				value, err := dec.ReadValue()
				if err != nil {
					if errors.Is(err, io.EOF) {
						break
					}
					t.Fatal(err)
				}
				part := string(value)
				if kind == '{' && len(want)%2 == 0 {
					part = part[1 : len(part)-1]
				}
				want = append(want, part)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q has the parts %q, want %q", body, got, want)
		}
	})
}
