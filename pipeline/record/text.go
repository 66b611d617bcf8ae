package record

import (
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

// What a JSON string may hold and Postgres can't.
var (
	errNUL         = errors.New("it holds the character U+0000")
	errInvalidUTF8 = errors.New("it is not valid UTF-8, or holds half a surrogate pair")
	errMalformed   = errors.New("it is not valid JSON")
)

// appendUnescaped appends the text that the body of a JSON string (without its quotes) stands for. After an error dst is what it was.
func appendUnescaped(dst, body []byte) ([]byte, error) {
	out := dst
	for i := 0; i < len(body); {
		// Copy up to the next escape, then translate that.
		run := i
		for i < len(body) && body[i] != '\\' {
			if c := body[i]; c < ' ' || c == '"' {
				if c == 0 {
					return dst, errNUL
				}
				return dst, errMalformed
			}
			i++
		}
		if !utf8.Valid(body[run:i]) {
			return dst, errInvalidUTF8
		}
		out = append(out, body[run:i]...)
		if i == len(body) {
			return out, nil
		}
		if i+1 == len(body) {
			return dst, errMalformed
		}
		c := body[i+1]
		i += 2
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(body[i:])
			if !ok {
				return dst, errMalformed
			}
			i += 4
			if utf16.IsSurrogate(r) {
				if len(body) < i+6 || body[i] != '\\' || body[i+1] != 'u' {
					return dst, errInvalidUTF8
				}
				low, ok := hex4(body[i+2:])
				if !ok {
					return dst, errMalformed
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return dst, errInvalidUTF8
				}
				i += 6
			}
			if r == 0 {
				return dst, errNUL
			}
			out = utf8.AppendRune(out, r)
		default:
			return dst, errMalformed
		}
	}
	return out, nil
}

// hex4 reads the four hex digits that b begins with.
func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// excerpt returns at most 100 bytes of b, for messages.
func excerpt(b []byte) []byte {
	const most = 100
	if len(b) <= most {
		return b
	}
	return b[:most]
}
