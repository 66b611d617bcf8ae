package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"

	"github.com/go-json-experiment/json/jsontext"
)

// Validate tells what keeps body from being one JSON value. Duplicate names and invalid UTF-8 pass, since the decoder judges them
// record by record; anything behind the value, and nesting deeper than 10,000, does not. A leading byte order mark is the caller's
// to cut off.
func Validate(body []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	switch err := dec.SkipValue(); {
	case errors.Is(err, io.EOF):
		return errors.New("check JSON: there is no value")
	case err != nil:
		return fmt.Errorf("check JSON: %w", err)
	}
	end := dec.InputOffset()
	if rest := skipSpace(body, int(end)); rest < len(body) {
		return fmt.Errorf("check JSON: %q follows the value at byte %d", excerpt(body[rest:]), rest)
	}
	return nil
}

// Members calls yield with each member of a valid JSON object in order until yield returns false: the key without its quotes but
// still escaped, and the raw value. What is no object has no members; of garbage, the members before the damage are seen.
func Members(obj []byte, yield func(key, value []byte) bool) {
	i := skipSpace(obj, 0)
	if i == len(obj) || obj[i] != '{' {
		return
	}
	for {
		i = skipSpace(obj, i+1)
		if i == len(obj) || obj[i] != '"' {
			return
		}
		keyEnd := skipString(obj, i+1)
		if keyEnd < 0 {
			return
		}
		key := obj[i+1 : keyEnd : keyEnd]
		i = skipSpace(obj, keyEnd+1)
		if i == len(obj) || obj[i] != ':' {
			return
		}
		i = skipSpace(obj, i+1)
		end := skipValue(obj, i)
		if end < 0 || !yield(key, obj[i:end:end]) {
			return
		}
		i = skipSpace(obj, end)
		if i == len(obj) || obj[i] != ',' {
			return
		}
	}
}

// Elements returns the raw elements of a valid JSON array in order. What is no array has none; of garbage, those before the damage
// are seen.
func Elements(arr []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		i := skipSpace(arr, 0)
		if i == len(arr) || arr[i] != '[' {
			return
		}
		for {
			i = skipSpace(arr, i+1)
			end := skipValue(arr, i)
			if end < 0 || !yield(arr[i:end:end]) {
				return
			}
			i = skipSpace(arr, end)
			if i == len(arr) || arr[i] != ',' {
				return
			}
		}
	}
}

// skipSpace returns the first index from i on that holds no JSON white space, or len(b).
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the index behind the value that begins at i, or -1 where there is none. It counts brackets without telling them
// apart: the page was validated before.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		if end := skipString(b, i+1); end >= 0 {
			return end + 1
		}
		return -1
	case '{':
		if end := skipFlatObject(b, i); end >= 0 {
			return end
		}
		return skipNested(b, i)
	case '[':
		return skipNested(b, i)
	}
	start := i
	for i < len(b) {
		switch b[i] {
		case ',', ']', '}', ' ', '\n', '\t', '\r', ':', '"', '{', '[':
			if i == start {
				return -1
			}
			return i
		}
		i++
	}
	return i
}

// skipFlatObject is skipNested for the usual record, which has no object inside and no escape, or -1 for all others. It is made of
// the searches that the standard library does 32 bytes at a time.
func skipFlatObject(b []byte, i int) int {
	size := bytes.IndexByte(b[i:], '}')
	if size < 0 {
		return -1
	}
	// With an even number of quotes before it, and none of them escaped, the brace stands outside of strings.
	inside := b[i+1 : i+size]
	if bytes.Count(inside, []byte{'"'})%2 != 0 || bytes.IndexByte(inside, '\\') >= 0 || bytes.IndexByte(inside, '{') >= 0 {
		return -1
	}
	return i + size + 1
}

func skipNested(b []byte, i int) int {
	for depth := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			if i = skipString(b, i+1); i < 0 {
				return -1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// Strings are searched eight bytes at a time. For a word w, zeroBytes(w) has the top bit set in the lowest byte that is zero, and
// perhaps, by a borrow, in bytes above it: only its lowest set bit means something.
const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

func zeroBytes(w uint64) uint64 { return (w - lowBits) &^ w & highBits }

// skipString returns the index of the quote that closes the string whose body begins at i, or -1.
func skipString(b []byte, i int) int {
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		found := zeroBytes(w^lowBits*'"') | zeroBytes(w^lowBits*'\\')
		if found == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(found) / 8
		if b[i] == '"' {
			return i
		}
		i += 2
	}
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return -1
}

// scanString is skipString that also tells whether the body is plain: ASCII without escapes and control characters, which stands
// for itself.
func scanString(b []byte, i int) (end int, plain bool) {
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote := w ^ lowBits*('"'^' ') // quotes become spaces, spaces quotes, and control characters stay below both
		slash := w ^ lowBits*'\\'
		found := ((quote-lowBits*(' '+1))&^quote | (slash-lowBits)&^slash | w) & highBits
		if found == 0 {
			continue
		}
		i += bits.TrailingZeros64(found) / 8
		if b[i] == '"' {
			return i, true
		}
		return skipString(b, i), false
	}
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i, true
		case c == '\\' || c < ' ' || c >= 0x80:
			return skipString(b, i), false
		}
	}
	return -1, false
}
