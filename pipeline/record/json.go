package record

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// Bounds of canonical JSON.
const (
	jsonDepth  = 64   // nested arrays and objects
	jsonDigits = 1000 // of one number, written without exponent
)

var (
	errTooDeep   = fmt.Errorf("it is nested deeper than %d", jsonDepth)
	errBigNumber = fmt.Errorf("it holds a number of more than %d digits", jsonDigits)
	errTrailing  = errors.New("something follows the value")
)

// AppendCanonicalJSON appends the canonical form of the JSON value src: no spaces, keys in bytewise order of their UTF-8, of equal keys
// the last, only the escapes that JSON demands (the short ones where there are, else \u00xx), numbers as plain decimals without
// needless zeros. It survives Postgres: the canonical form of what jsonb prints for it is itself. What jsonb can't hold is refused
// (U+0000, halves of surrogate pairs, invalid UTF-8), and so are invalid JSON, nesting deeper than 64 and numbers of more than 1000
// digits without exponent. After an error dst is what it was.
func AppendCanonicalJSON(dst, src []byte) ([]byte, error) {
	var c canonicalizer
	out, err := c.append(dst, src, 0)
	if err != nil {
		return dst, fmt.Errorf("canonicalize JSON %q: %w", excerpt(src), err)
	}
	return out, nil
}

// canonicalizer holds the scratch memory of AppendCanonicalJSON. The slices are stacks: an object takes its share from the top and
// gives it back.
type canonicalizer struct {
	keys    []byte
	members []jsonMember
	shuffle []byte
}

// jsonMember is a member of an object being written: its unescaped key, and where its canonical text stands in the output.
type jsonMember struct {
	key        []byte
	start, end int
}

// append appends the canonical form of the one value that src is, as if inside depth arrays or objects.
func (c *canonicalizer) append(dst, src []byte, depth int) ([]byte, error) {
	c.keys, c.members, c.shuffle = c.keys[:0], c.members[:0], c.shuffle[:0]
	out, end, err := c.value(dst, src, skipSpace(src, 0), depth)
	if err != nil {
		return dst, err
	}
	if skipSpace(src, end) != len(src) {
		return dst, errTrailing
	}
	return out, nil
}

// value appends the value that begins at i, and returns the index behind it.
func (c *canonicalizer) value(dst, src []byte, i, depth int) ([]byte, int, error) {
	if i >= len(src) {
		return dst, i, errMalformed
	}
	switch src[i] {
	case '{':
		return c.object(dst, src, i, depth+1)
	case '[':
		return c.array(dst, src, i, depth+1)
	case '"':
		top := len(c.keys)
		text, end, err := c.text(src, i)
		if err != nil {
			return dst, i, err
		}
		dst = appendQuoted(dst, text)
		c.keys = c.keys[:top]
		return dst, end, nil
	}
	end := skipValue(src, i)
	if end < 0 {
		return dst, i, errMalformed
	}
	scalar := src[i:end]
	switch string(scalar) {
	case "null", "true", "false":
		return append(dst, scalar...), end, nil
	}
	if !isJSONNumber(scalar) {
		return dst, i, errMalformed
	}
	n, _ := parseNumber(scalar)
	if whole, fraction := n.size(); whole+fraction > jsonDigits {
		return dst, i, errBigNumber
	}
	return n.appendPlain(dst), end, nil
}

// text returns the unescaped text of the string whose quote stands at i, and the index behind it. The text lives in src or on top of
// c.keys, where it stays until the caller cuts it off.
func (c *canonicalizer) text(src []byte, i int) ([]byte, int, error) {
	end, plain := scanString(src, i+1)
	if end < 0 {
		return nil, i, errMalformed
	}
	if plain {
		return src[i+1 : end], end + 1, nil
	}
	top := len(c.keys)
	var err error
	c.keys, err = appendUnescaped(c.keys, src[i+1:end])
	return c.keys[top:], end + 1, err
}

func (c *canonicalizer) array(dst, src []byte, i, depth int) ([]byte, int, error) {
	if depth > jsonDepth {
		return dst, i, errTooDeep
	}
	dst = append(dst, '[')
	i = skipSpace(src, i+1)
	if i < len(src) && src[i] == ']' {
		return append(dst, ']'), i + 1, nil
	}
	for {
		var err error
		if dst, i, err = c.value(dst, src, i, depth); err != nil {
			return dst, i, err
		}
		i = skipSpace(src, i)
		switch {
		case i < len(src) && src[i] == ']':
			return append(dst, ']'), i + 1, nil
		case i == len(src) || src[i] != ',':
			return dst, i, errMalformed
		}
		dst = append(dst, ',')
		i = skipSpace(src, i+1)
	}
}

func (c *canonicalizer) object(dst, src []byte, i, depth int) ([]byte, int, error) {
	if depth > jsonDepth {
		return dst, i, errTooDeep
	}
	keysTop, membersTop := len(c.keys), len(c.members)
	dst = append(dst, '{')
	body := len(dst)
	i = skipSpace(src, i+1)
	if i < len(src) && src[i] == '}' {
		return append(dst, '}'), i + 1, nil
	}

	// The members are written in the order they came in, and remembered.
	rising := true
	for {
		if i == len(src) || src[i] != '"' {
			return dst, i, errMalformed
		}
		key, end, err := c.text(src, i)
		if err != nil {
			return dst, i, err
		}
		if n := len(c.members); n > membersTop && bytes.Compare(c.members[n-1].key, key) >= 0 {
			rising = false
		}
		start := len(dst)
		dst = append(appendQuoted(dst, key), ':')
		i = skipSpace(src, end)
		if i == len(src) || src[i] != ':' {
			return dst, i, errMalformed
		}
		if dst, i, err = c.value(dst, src, skipSpace(src, i+1), depth); err != nil {
			return dst, i, err
		}
		c.members = append(c.members, jsonMember{key: key, start: start, end: len(dst)})
		i = skipSpace(src, i)
		if i < len(src) && src[i] == '}' {
			break
		}
		if i == len(src) || src[i] != ',' {
			return dst, i, errMalformed
		}
		dst = append(dst, ',')
		i = skipSpace(src, i+1)
	}

	if !rising {
		dst = c.sortMembers(dst, body, c.members[membersTop:])
	}
	c.keys, c.members = c.keys[:keysTop], c.members[:membersTop]
	return append(dst, '}'), i + 1, nil
}

// sortMembers brings the members that stand in dst from body on into order, and drops all but the last of equal keys.
func (c *canonicalizer) sortMembers(dst []byte, body int, members []jsonMember) []byte {
	slices.SortStableFunc(members, func(a, b jsonMember) int { return bytes.Compare(a.key, b.key) })
	top := len(c.shuffle)
	c.shuffle = append(c.shuffle, dst[body:]...)
	dst = dst[:body]
	for k, m := range members {
		if k+1 < len(members) && bytes.Equal(m.key, members[k+1].key) {
			continue
		}
		if len(dst) > body {
			dst = append(dst, ',')
		}
		dst = append(dst, c.shuffle[top+m.start-body:top+m.end-body]...)
	}
	c.shuffle = c.shuffle[:top]
	return dst
}

// appendQuoted appends text, which is valid UTF-8 without U+0000, as a canonical JSON string.
func appendQuoted(dst, text []byte) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	run := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[run:i]...)
		run = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(dst, text[run:]...), '"')
}

// isJSONNumber tells whether text is a number by JSON's grammar: no plus, no leading zeros, digits on both sides of a point.
func isJSONNumber(text []byte) bool {
	i := 0
	if i < len(text) && text[i] == '-' {
		i++
	}
	whole := i
	i = skipDigits(text, i)
	if i == whole || text[whole] == '0' && i > whole+1 {
		return false
	}
	if i < len(text) && text[i] == '.' {
		start := i + 1
		if i = skipDigits(text, start); i == start {
			return false
		}
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		_, ok := parseExponent(text[i+1:])
		return ok
	}
	return i == len(text)
}
