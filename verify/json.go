package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of canonical JSON.
const (
	jsonDepth  = 64
	jsonDigits = 1000
)

var (
	errNUL     = errors.New("it holds U+0000")
	errBadUTF8 = errors.New("it holds invalid UTF-8 or half a surrogate pair")
	errDepth   = errors.New("it is nested too deep")
	errDigits  = errors.New("it holds a number of too many digits")
	errSyntax  = errors.New("it is no JSON")
)

// canonicalJSON returns the canonical form of a JSON value, as schemas/README.md describes it.
func canonicalJSON(raw []byte) ([]byte, error) { return canonicalAt(raw, 0) }

// canonicalAt is canonicalJSON for a value inside depth arrays or objects.
func canonicalAt(raw []byte, depth int) ([]byte, error) {
	if !json.Valid(raw) {
		return nil, errSyntax
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	out, err := appendJSON(nil, dec, raw, depth)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// appendJSON appends the canonical form of the decoder's next value; raw is all that the decoder reads.
func appendJSON(dst []byte, dec *json.Decoder, raw []byte, depth int) ([]byte, error) {
	start := dec.InputOffset()
	token, err := dec.Token()
	if err != nil {
		return dst, err
	}
	switch v := token.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case json.Number:
		n, ok := parseNumber(v.String())
		if !ok {
			return dst, errSyntax
		}
		if whole, fraction := n.size(); whole+fraction > jsonDigits {
			return dst, errDigits
		}
		return append(dst, n.plain()...), nil
	case string:
		if err := checkString(raw[start:dec.InputOffset()], v); err != nil {
			return dst, err
		}
		return appendQuoted(dst, v), nil
	case json.Delim:
		if depth++; depth > jsonDepth {
			return dst, errDepth
		}
		if v == '[' {
			return appendArray(dst, dec, raw, depth)
		}
		return appendObject(dst, dec, raw, depth)
	}
	return dst, fmt.Errorf("a token of type %T is none of JSON", token)
}

func appendArray(dst []byte, dec *json.Decoder, raw []byte, depth int) ([]byte, error) {
	dst = append(dst, '[')
	for i := 0; dec.More(); i++ {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendJSON(dst, dec, raw, depth); err != nil {
			return dst, err
		}
	}
	_, err := dec.Token()
	return append(dst, ']'), err
}

func appendObject(dst []byte, dec *json.Decoder, raw []byte, depth int) ([]byte, error) {
	members := map[string][]byte{} // of equal keys, the last
	for dec.More() {
		start := dec.InputOffset()
		token, err := dec.Token()
		if err != nil {
			return dst, err
		}
		key, _ := token.(string)
		if err := checkString(raw[start:dec.InputOffset()], key); err != nil {
			return dst, err
		}
		if members[key], err = appendJSON(nil, dec, raw, depth); err != nil {
			return dst, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return dst, err
	}
	dst = append(dst, '{')
	for i, key := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(appendQuoted(dst, key), ':'), members[key]...)
	}
	return append(dst, '}'), nil
}

var unicodeEscape = regexp.MustCompile(`^\\u([0-9a-fA-F]{4})`)

// checkString refuses what encoding/json replaces without a word (invalid UTF-8, halves of surrogate pairs), and U+0000. raw is the string as it
// stands, text what it was decoded to.
func checkString(raw []byte, text string) error {
	if !utf8.Valid(raw) {
		return errBadUTF8
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		code := codeAt(raw[i:])
		switch {
		case 0xD800 <= code && code < 0xDC00:
			low := codeAt(raw[min(i+6, len(raw)):])
			if low < 0xDC00 || low > 0xDFFF {
				return errBadUTF8
			}
			i += 11
		case 0xDC00 <= code && code < 0xE000:
			return errBadUTF8
		case code >= 0:
			i += 5
		default:
			i++
		}
	}
	if strings.ContainsRune(text, 0) {
		return errNUL
	}
	return nil
}

// codeAt returns the code of the \uXXXX that raw begins with, -1 if it begins otherwise.
func codeAt(raw []byte) int64 {
	m := unicodeEscape.FindSubmatch(raw)
	if m == nil {
		return -1
	}
	code, _ := strconv.ParseInt(string(m[1]), 16, 32) // four hex digits
	return code
}

func appendQuoted(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for i := range len(text) {
		switch c := text[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			if c < ' ' {
				dst = fmt.Appendf(dst, `\u%04x`, c)
			} else {
				dst = append(dst, c)
			}
		}
	}
	return append(dst, '"')
}

// number is a decimal: its digits without zeros at either end, "" for zero, and where the point stands: behind so many of them, which may be far
// outside.
type number struct {
	negative bool
	digits   string
	point    int
}

var numberForm = regexp.MustCompile(`^([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?$`)

// parseNumber reads a decimal as people or JSON write it, with at least one digit before or behind the point.
func parseNumber(text string) (number, bool) {
	m := numberForm.FindStringSubmatch(text)
	if m == nil || m[2]+m[3] == "" {
		return number{}, false
	}
	n := number{negative: m[1] == "-", digits: m[2] + m[3], point: len(m[2])}
	if m[4] != "" {
		exponent, err := strconv.Atoi(m[4])
		if err != nil || exponent < -1<<40 || exponent > 1<<40 { // beyond any text's length
			exponent = 1 << 40
			if strings.HasPrefix(m[4], "-") {
				exponent = -1 << 40
			}
		}
		n.point += exponent
	}
	for strings.HasPrefix(n.digits, "0") {
		n.digits, n.point = n.digits[1:], n.point-1
	}
	n.digits = strings.TrimRight(n.digits, "0")
	if n.digits == "" {
		return number{}, true
	}
	return n, true
}

// size returns how many digits the plain form has before and behind the point.
func (n number) size() (whole, fraction int) {
	if n.digits == "" {
		return 1, 0
	}
	return max(n.point, 0), max(len(n.digits)-n.point, 0)
}

// plain returns the canonical decimal. Ask for its size first.
func (n number) plain() string {
	if n.digits == "" {
		return "0"
	}
	digits, point := n.digits, n.point
	if point <= 0 {
		digits, point = strings.Repeat("0", 1-point)+digits, 1
	}
	if point > len(digits) {
		digits += strings.Repeat("0", point-len(digits))
	}
	text := digits[:point]
	if point < len(digits) {
		text += "." + digits[point:]
	}
	if n.negative {
		return "-" + text
	}
	return text
}

// elements returns the raw elements of a JSON array.
func elements(data []byte) ([]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if token, err := dec.Token(); err != nil || token != json.Delim('[') {
		return nil, errors.New("the records are no array")
	}
	var all []json.RawMessage
	for dec.More() {
		var element json.RawMessage
		if err := dec.Decode(&element); err != nil {
			return nil, fmt.Errorf("read record %d: %w", len(all)+1, err)
		}
		all = append(all, element)
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the records")
	}
	return all, nil
}
