package record_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

func newTwins(tb testing.TB, dir string) *record.Twins {
	tb.Helper()
	twins, err := record.NewTwins(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return twins
}

// oneBucket makes the hashes of ids begin alike, so that one bucket takes all.
const oneBucket = 1 << 40

// hashOf returns a hash of its own for every n.
func hashOf(n uint64) (h record.Hash) {
	binary.BigEndian.PutUint64(h[:], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(h[8:], n)
	if n >= oneBucket {
		h[0] = 0
	}
	return h
}

// checkTwins adds records with the hashes of ids at seqs 0, step, 2*step, … and compares two passes with counting in a map.
func checkTwins(tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, twins *record.Twins, ids []uint64, step int64,
) {
	tb.Helper()
	for i, id := range ids {
		if err := twins.Add(int64(i)*step, hashOf(id)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := twins.Finish(); err != nil {
		tb.Fatal(err)
	}
	var count int64
	for range 2 {
		pass, seen := twins.Pass(), map[uint64]int32{}
		count = 0
		for i, id := range ids {
			got, err := pass.Ordinal(int64(i) * step)
			if err != nil {
				tb.Fatal(err)
			}
			if got != seen[id] {
				tb.Fatalf("record %d of %d: ordinal %d, want %d", i, len(ids), got, seen[id])
			}
			if got > 0 {
				count++
			}
			seen[id]++
		}
	}
	if twins.Count() != count {
		tb.Fatalf("%d twins counted, want %d", twins.Count(), count)
	}
	if err := twins.Close(); err != nil {
		tb.Fatal(err)
	}
}

func TestTwins(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	ids := func(n int, id func(i int) uint64) []uint64 {
		out := make([]uint64, n)
		for i := range out {
			out[i] = id(i)
		}
		return out
	}
	tests := map[string]struct {
		ids  []uint64
		step int64
	}{
		"none":                  {nil, 1},
		"one":                   {[]uint64{7}, 1},
		"all different":         {ids(60_000, func(i int) uint64 { return uint64(i) }), 1},
		"every record twice":    {ids(60_000, func(i int) uint64 { return uint64(i / 2) }), 1},
		"the whole job twice":   {ids(60_000, func(i int) uint64 { return uint64(i % 30_000) }), 1},
		"some":                  {ids(60_000, func(int) uint64 { return random.Uint64N(500_000) }), 1},
		"with gaps":             {ids(60_000, func(int) uint64 { return random.Uint64N(50_000) }), 37},
		"the zero hash":         {[]uint64{0, 1, 0, 0, 1}, 1},
		"all the same, in runs": {ids(700_000, func(int) uint64 { return 3 }), 1},
		"one bucket, in runs":   {ids(600_000, func(int) uint64 { return oneBucket + random.Uint64N(300_000) }), 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkTwins(t, newTwins(t, t.TempDir()), test.ids, test.step)
		})
	}
}

func TestTwinsProperty(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.SliceOfN(rapid.Uint64Range(0, 200), 0, 2000).Draw(rt, "ids")
		checkTwins(rt, newTwins(t, dir), ids, rapid.Int64Range(1, 5000).Draw(rt, "step"))
	})
}

func TestTwinsLeaveNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	twins := newTwins(t, dir)
	for i := range int64(50_000) {
		if err := twins.Add(i, hashOf(uint64(i/3))); err != nil {
			t.Fatal(err)
		}
	}
	if err := twins.Finish(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the folder holds %v (%v) while twins are looked up, want nothing", left, err)
	}
	if err := twins.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := twins.Pass().Ordinal(1); err == nil {
		t.Error("an ordinal after Close, want an error")
	}
}

func TestTwinsMisuse(t *testing.T) {
	t.Parallel()
	if _, err := record.NewTwins(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("twins in a missing folder, want an error")
	}
	twins := newTwins(t, t.TempDir())
	if err := twins.Add(5, hashOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := twins.Add(5, hashOf(1)); err == nil {
		t.Error("the same place was added twice, want an error")
	}
	if _, err := twins.Pass().Ordinal(5); err == nil {
		t.Error("an ordinal before Finish, want an error")
	}
	if err := twins.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := twins.Add(6, hashOf(1)); err == nil {
		t.Error("added after Finish, want an error")
	}
	if err := twins.Finish(); err == nil {
		t.Error("finished twice, want an error")
	}
	for _, seq := range []int64{-1, 6} {
		if _, err := twins.Pass().Ordinal(seq); err == nil {
			t.Errorf("an ordinal for record %d, want an error", seq)
		}
	}
	if err := twins.Close(); err != nil {
		t.Fatal(err)
	}
}
