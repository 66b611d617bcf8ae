package record

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// HashVersion is the version of the canonical bytes. It is in them, so hashes of different versions never compare equal.
const HashVersion = 1

// naturalFields are what tells metering records that correct one another from others, behind the site and in this order.
var naturalFields = [...]string{
	"region_code", "project_id", "cloud_service_type_code", "resource_type_code", "resource_spec_code", "resource_id", factorField, "begin_time",
}

// factorField is compared without case, as the vendor says factor names are meant.
const factorField = "accumulate_factor_name"

// Hasher computes the hashes of one stream's records. schemas/README.md specifies the bytes that it hashes. It is not safe for
// concurrent use.
type Hasher struct {
	ints          []bool // by field: its values are in Value.Int
	natural       []int
	factor        int // position of the one field that natural keys have without case, -1 if there is none
	contentPrefix string
	naturalPrefix string
	buf           []byte
}

// canonicalTypes are the types that canonical bytes are specified for.
var canonicalTypes = [...]schemas.Type{
	schemas.Text, schemas.Timestamp, schemas.Decimal, schemas.JSON, schemas.Date, schemas.Bigint, schemas.Integer, schemas.Float,
	schemas.UUID,
}

// NewHasher returns the hasher of s. It panics if s has a field of a type that no canonical bytes are specified for.
func NewHasher(s *schemas.Stream) *Hasher {
	h := &Hasher{
		factor:        -1,
		contentPrefix: s.Name + "/" + strconv.Itoa(HashVersion) + "\n",
		naturalPrefix: s.Name + "-natural/" + strconv.Itoa(HashVersion) + "\n",
	}
	for _, f := range s.Fields {
		if !slices.Contains(canonicalTypes[:], f.Type) {
			panic("record: stream " + s.Name + ": no canonical bytes are specified for the type of field " + f.Name)
		}
		h.ints = append(h.ints, isInt(f.Type))
	}
	if !s.IsList() {
		h.factor = s.Index(factorField)
	}
	for _, name := range naturalNames(s) {
		if i := s.Index(name); i >= 0 {
			h.natural = append(h.natural, i)
		}
	}
	return h
}

// naturalNames returns the fields that the natural key of s is made of, in their order.
func naturalNames(s *schemas.Stream) []string {
	if !s.IsList() {
		return naturalFields[:]
	}
	if len(s.Key) > 0 {
		return s.Key
	}
	var all []string
	for _, f := range s.Fields {
		all = append(all, f.Name)
	}
	return all
}

// Content returns the hash of a record: of the values of all fields in schema order, and of nothing else.
func (h *Hasher) Content(values []Value) Hash {
	b := append(h.buf[:0], h.contentPrefix...)
	for i := range values {
		b = appendValue(b, h.ints[i], &values[i])
	}
	h.buf = b
	return RawHash(b)
}

// Natural returns the hash of the record's natural key under site, which is "" for lists. Metering records that share it correct one
// another; of a list, they are versions of one row. The fields are those of the stream's key, or all of them if a list has none.
func (h *Hasher) Natural(site string, values []Value) Hash {
	b := append(h.buf[:0], h.naturalPrefix...)
	b = appendLength(b, len(site))
	b = append(b, site...)
	for _, i := range h.natural {
		start := len(b)
		b = appendValue(b, h.ints[i], &values[i])
		if i == h.factor {
			lowerASCII(b[start:], valueHeader)
		}
	}
	h.buf = b
	return RawHash(b)
}

// A value's canonical bytes begin with its presence and, if present, its length.
const (
	absent      = 0x00
	present     = 0x01
	valueHeader = 1 + 4
)

func appendLength(b []byte, n int) []byte {
	return append(b, present, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func appendValue(b []byte, isInt bool, v *Value) []byte {
	switch {
	case !v.Valid:
		return append(b, absent)
	case isInt:
		return binary.BigEndian.AppendUint64(appendLength(b, 8), uint64(v.Int))
	}
	return append(appendLength(b, len(v.Bytes)), v.Bytes...)
}

// isInt tells whether values of the type are in Value.Int rather than Value.Bytes.
func isInt(t schemas.Type) bool {
	switch t {
	case schemas.Timestamp, schemas.Date, schemas.Bigint, schemas.Integer, schemas.Float:
		return true
	}
	return false
}

// lowerASCII lower-cases the letters A to Z in b from start on. Other letters stay: no two programs agree on how to lower them.
func lowerASCII(b []byte, start int) {
	for i := start; i < len(b); i++ {
		if 'A' <= b[i] && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
}

// KeyOf returns the key of a record: the whole seconds of its begin time (microseconds since 1970) modulo 2^32, big endian, then the
// first 12 bytes of its hash. Keys thus order by time, and equal content has equal keys.
func KeyOf(beginMicros int64, h Hash) Hash {
	seconds := beginMicros / 1e6
	if beginMicros%1e6 < 0 {
		seconds--
	}
	var key Hash
	binary.BigEndian.PutUint32(key[:4], uint32(seconds))
	copy(key[4:], h[:12])
	return key
}

// RawHash returns the first 16 bytes of SHA-256 over element's exact bytes. Quarantined records are known by it.
func RawHash(element []byte) Hash {
	sum := sha256.Sum256(element)
	return Hash(sum[:16])
}
