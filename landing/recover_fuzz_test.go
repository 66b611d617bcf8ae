package landing_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzRecover opens files with any content: opening must succeed, twice with the same result, and what it left must take pages
// again. Half of the inputs get right checksums, to come past them.
func FuzzRecover(f *testing.F) {
	dir := f.TempDir()
	disk := faultyDisk(f, dir)
	disk.skipSync = true
	d := openFaulty(f, disk, 0, time.Now)
	file, err := d.Open(testKey())
	if err != nil {
		f.Fatal(err)
	}
	appendAll(f, file, somePages(5))
	closeOrFail(f, file)
	whole, err := os.ReadFile(filepath.Join(dir, jobFile))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, whole[:8], whole[:9], whole, whole[:len(whole)-1], append(whole[:len(whole):len(whole)], whole[8:]...)} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, content []byte, fix bool) {
		if fix {
			content = bytes.Clone(content) // the fuzzer wants its own back unchanged
			fixChecksums(content)
		}
		writeFile(t, filepath.Join(dir, jobFile), content)
		first := openFile(t, d, testKey())
		frames, size, complete := first.Frames(), first.Size(), first.Complete()
		if err := readAll(first.Pages()); err != nil && !fix { // only a made-up checksum lets nonsense through
			t.Fatal(err)
		}
		closeOrFail(t, first)
		again := openFile(t, d, testKey())
		if again.Frames() != frames || again.Size() != size || again.Complete() != complete {
			t.Fatalf("opened twice: %d frames in %d bytes, then %d in %d", frames, size, again.Frames(), again.Size())
		}
		if !complete && frames == 0 {
			appendAll(t, again, somePages(5))
			checkPages(t, again.Pages(), somePages(5))
		}
		if err := again.Restart(); err != nil {
			t.Fatal(err)
		}
		appendAll(t, again, somePages(5))
		checkPages(t, again.Pages(), somePages(5))
	})
}

// fixChecksums walks the frames as docs/landing-format.md describes them and makes their checksums right.
func fixChecksums(content []byte) {
	for at := 8; at+4 <= len(content); {
		n := int(binary.LittleEndian.Uint32(content[at:]))
		if n < 5 || n > len(content)-at-4 {
			return
		}
		end := at + 4 + n
		sum := crc32.Checksum(content[at:end-4], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(content[end-4:], sum)
		at = end
	}
}
