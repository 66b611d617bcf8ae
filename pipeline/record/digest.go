package record

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
)

// Digest is the order-independent digest of a set of records: the sum of their hashes modulo 2^128, and their count. Equal digests
// mean equal content, ordinals included, since every twin adds its hash again.
type Digest struct {
	Hi, Lo uint64
	Count  int64
}

// Add counts one record with the hash h.
func (d *Digest) Add(h Hash) {
	var carry uint64
	d.Lo, carry = bits.Add64(d.Lo, binary.BigEndian.Uint64(h[8:]), 0)
	d.Hi, _ = bits.Add64(d.Hi, binary.BigEndian.Uint64(h[:8]), carry)
	d.Count++
}

// Merge adds all that o counted.
func (d *Digest) Merge(o Digest) {
	var carry uint64
	d.Lo, carry = bits.Add64(d.Lo, o.Lo, 0)
	d.Hi, _ = bits.Add64(d.Hi, o.Hi, carry)
	d.Count += o.Count
}

// Sum returns the sum as 32 hex digits, the form in ledger and manifest.
func (d Digest) Sum() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], d.Hi)
	binary.BigEndian.PutUint64(b[8:], d.Lo)
	return hex.EncodeToString(b[:])
}

// ParseDigest reads what Sum wrote.
func ParseDigest(sum string, count int64) (Digest, error) {
	b, err := hex.DecodeString(sum)
	if err != nil || len(b) != 16 {
		return Digest{}, fmt.Errorf("parse digest %q: want 32 hex digits", sum)
	}
	return Digest{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:]), Count: count}, nil
}

// String returns "5000 records 00f1…".
func (d Digest) String() string { return fmt.Sprintf("%d records %s", d.Count, d.Sum()) }
