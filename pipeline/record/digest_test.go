package record_test

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

func TestDigest(t *testing.T) {
	t.Parallel()
	hashes := make([]record.Hash, 1000)
	for i := range hashes {
		for j := range hashes[i] {
			hashes[i][j] = byte(rand.Uint32())
		}
	}
	var forward, backward, left, right record.Digest
	for i, h := range hashes {
		forward.Add(h)
		backward.Add(hashes[len(hashes)-1-i])
		if i%3 == 0 {
			left.Add(h)
		} else {
			right.Add(h)
		}
	}
	left.Merge(right)
	if forward != backward || forward != left || forward.Count != 1000 {
		t.Errorf("digests differ by order: %s, %s, %s", forward, backward, left)
	}
	parsed, err := record.ParseDigest(forward.Sum(), forward.Count)
	if err != nil || parsed != forward {
		t.Errorf("%s parses as %s, %v", forward, parsed, err)
	}
	forward.Add(hashes[0])
	if forward == backward {
		t.Error("a twin does not change the digest")
	}
	for _, sum := range []string{"", "00", "zz" + backward.Sum()[2:]} {
		if d, err := record.ParseDigest(sum, 1); err == nil {
			t.Errorf("%q parses as %s, want an error", sum, d)
		}
	}

	// The carry goes from the lower half into the upper, and out of that into nothing.
	var carried record.Digest
	carried.Add(record.Hash{8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff})
	carried.Add(record.Hash{0: 0xff, 15: 0x02})
	carried.Add(record.Hash{0: 0x01})
	if got, want := carried.Sum(), "00000000000000010000000000000001"; got != want {
		t.Errorf("sum is %s, want %s", got, want)
	}
}

func TestKeyOf(t *testing.T) {
	t.Parallel()
	h := record.Hash{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	for micros, want := range map[int64]string{
		0:                       "00000000000102030405060708090a0b",
		1_709_330_400_999_999:   "65e24fe0000102030405060708090a0b",
		-1:                      "ffffffff000102030405060708090a0b",
		(1<<32 + 5) * 1_000_000: "00000005000102030405060708090a0b",
		-1_000_000:              "ffffffff000102030405060708090a0b",
	} {
		key := record.KeyOf(micros, h)
		if got := hex.EncodeToString(key[:]); got != want {
			t.Errorf("key of %d µs is %s, want %s", micros, got, want)
		}
	}
}
