package landing_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

func TestAppendAndRead(t *testing.T) {
	t.Parallel()
	dir, pages := t.TempDir(), somePages(5)
	d := openDir(t, dir, 2)
	f := openFile(t, d, testKey())
	if f.Frames() != 0 || f.Complete() {
		t.Fatalf("a new file has %d frames, complete %t", f.Frames(), f.Complete())
	}
	if _, err := f.Last(); err == nil {
		t.Error("Last of an empty file gave no error")
	}
	for i, p := range pages {
		if err := f.Append(p); err != nil {
			t.Fatal(err)
		}
		last, err := f.Last()
		if err != nil {
			t.Fatal(err)
		}
		checkPage(t, last, p)
		if f.Frames() != i+1 || f.Complete() != (i == 4) {
			t.Fatalf("after page %d: %d frames, complete %t", i+1, f.Frames(), f.Complete())
		}
	}
	checkPages(t, f.Pages(), pages)
	checkPages(t, f.Pages(), pages)
	info, err := os.Stat(filepath.Join(dir, jobFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != f.Size() || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("file has %d bytes and mode %v, want %d and at most -rw-r-----", info.Size(), info.Mode(), f.Size())
	}
	for p, err := range f.Pages() { // stopping early is fine
		if err != nil || p.Asked != "" {
			t.Fatal(p.Asked, err)
		}
		break
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	d, pages := openDir(t, t.TempDir(), 2), somePages(5)
	landed(t, d, testKey(), pages[:2])
	key := testKey()
	key.CreatedAt = key.CreatedAt.In(time.FixedZone("UTC+8", 8*3600)) // the same instant, as a database session may give it
	key.CreatedAt = key.CreatedAt.Add(300 * time.Nanosecond)          // and finer than a database keeps
	landed(t, d, key, pages[2:])
	f := openFile(t, d, testKey())
	checkPages(t, f.Pages(), pages)
	if !f.Complete() {
		t.Error("the file is not complete")
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	pages := somePages(5)
	tests := map[string]struct {
		landed []pipeline.Page
		page   pipeline.Page
		want   string
	}{
		"a gap":                          {pages[:1], pages[2], `page 2 was asked with marker "marker-2", the page before it gave "marker-1"`},
		"a page twice":                   {pages[:2], pages[1], `page 3 was asked with marker "marker-1"`},
		"a page after the last":          {pages, pipeline.Page{}, "page 6 follows the last page"},
		"data that is not in the body":   {nil, pipeline.Page{Body: []byte("{}"), Data: []byte("[1]")}, "no part of its body"},
		"a body beyond the cap":          {nil, pipeline.Page{Body: make([]byte, landing.MaxBody+1)}, "its body has 67108865 bytes"},
		"a marker beyond all reason":     {nil, pipeline.Page{Next: strings.Repeat("m", 1<<20)}, "a marker has more than 65536 bytes"},
		"a second page after a lone one": {[]pipeline.Page{{Body: []byte("{}")}}, pipeline.Page{}, "page 2 follows the last page"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := openFile(t, openDir(t, t.TempDir(), 0), testKey())
			appendAll(t, f, tt.landed)
			size := f.Size()
			err := f.Append(tt.page)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if f.Size() != size {
				t.Errorf("size went from %d to %d", size, f.Size())
			}
			checkPages(t, f.Pages(), tt.landed)
		})
	}
}

// TestFirstPageWithMarker lands the first page of a list, whose marker says what it was asked for.
func TestFirstPageWithMarker(t *testing.T) {
	t.Parallel()
	d, pages := openDir(t, t.TempDir(), 2), somePages(5)[1:]
	landed(t, d, testKey(), pages)
	f := openFile(t, d, testKey())
	checkPages(t, f.Pages(), pages)
	if !f.Complete() {
		t.Error("the file is not complete")
	}
}

func TestLargestBody(t *testing.T) {
	t.Parallel()
	f := openFile(t, openDir(t, t.TempDir(), 0), testKey())
	want := pipeline.Page{Body: make([]byte, landing.MaxBody)}
	want.Data = want.Body
	appendAll(t, f, []pipeline.Page{want})
	got, err := f.Last()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Body, want.Body) || !bytes.Equal(got.Data, want.Data) {
		t.Error("the body came back different")
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir, pages := t.TempDir(), somePages(5)
	d := openDir(t, dir, 2)
	f := openFile(t, d, testKey())
	appendAll(t, f, pages[:3])
	if err := f.Restart(); err != nil {
		t.Fatal(err)
	}
	checkPages(t, f.Pages(), nil)
	appendAll(t, f, pages)
	checkPages(t, f.Pages(), pages)
	closeOrFail(t, f)
	checkPages(t, openFile(t, d, testKey()).Pages(), pages)
}

// A file cut at any byte keeps every whole page, and goes on from there to the very bytes of an undisturbed one.
func TestCutAtEveryByte(t *testing.T) {
	t.Parallel()
	dir, pages := t.TempDir(), somePages(5)
	disk := faultyDisk(t, dir)
	disk.skipSync = true
	d := openFaulty(t, disk, 0, time.Now)
	f := openFile(t, d, testKey())
	ends := []int64{f.Size()}
	for _, p := range pages {
		appendAll(t, f, []pipeline.Page{p})
		ends = append(ends, f.Size())
	}
	closeOrFail(t, f)
	whole := readFile(t, filepath.Join(dir, jobFile))
	for cut := range len(whole) + 1 {
		writeFile(t, filepath.Join(dir, jobFile), whole[:cut])
		want := 0
		for i, end := range ends {
			if int64(cut) >= end {
				want = i
			}
		}
		f, err := d.Open(testKey())
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if f.Frames() != want {
			t.Fatalf("cut at %d: %d pages survived, want %d", cut, f.Frames(), want)
		}
		checkPages(t, f.Pages(), pages[:want])
		appendAll(t, f, pages[want:])
		checkPages(t, f.Pages(), pages)
		closeOrFail(t, f)
		if got := readFile(t, filepath.Join(dir, jobFile)); !bytes.Equal(got, whole) {
			t.Fatalf("cut at %d: the file differs from an undisturbed one", cut)
		}
	}
}

// A flipped bit at any byte is found when the file is opened: the pages before it survive, none from it on. And it is found when it
// comes about while the file is open.
func TestFlipAtEveryByte(t *testing.T) {
	t.Parallel()
	dir, pages := t.TempDir(), somePages(5)
	name := filepath.Join(dir, jobFile)
	d := openDir(t, dir, 0)
	landed(t, d, testKey(), pages)
	whole := readFile(t, name)
	open := openFile(t, d, testKey())
	other := t.TempDir()
	disk := faultyDisk(t, other)
	disk.skipSync = true
	elsewhere := openFaulty(t, disk, 0, time.Now)
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1 << (at % 8)

		writeFile(t, name, damaged) // the same inode
		good := 0
		var damage error
		for _, err := range open.Pages() {
			if err != nil {
				damage = err
				break
			}
			good++
		}
		inHeader := good == 5 && damage == nil
		if !inHeader && damage == nil {
			t.Fatalf("flip at %d: read %d pages and no error", at, good)
		}
		if _, err := open.Last(); good == 4 && damage != nil && err == nil {
			t.Fatalf("flip at %d, in the last page: Last gave no error", at)
		}

		writeFile(t, filepath.Join(other, jobFile), damaged)
		f, err := elsewhere.Open(testKey())
		if err != nil {
			t.Fatalf("flip at %d: %v", at, err)
		}
		want := good
		if inHeader {
			want = 0
		}
		if f.Frames() != want {
			t.Fatalf("flip at %d: %d pages survived, want %d", at, f.Frames(), want)
		}
		appendAll(t, f, pages[want:])
		checkPages(t, f.Pages(), pages)
		closeOrFail(t, f)
	}
}

func TestForeignHeader(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*pipeline.LandingKey){
		"another job":           func(k *pipeline.LandingKey) { k.JobID = "other" },
		"another request":       func(k *pipeline.LandingKey) { k.Request.DomainID = "other" },
		"another creation time": func(k *pipeline.LandingKey) { k.CreatedAt = k.CreatedAt.Add(time.Microsecond) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDir(t, t.TempDir(), 0)
			landed(t, d, testKey(), somePages(5))
			key := testKey()
			change(&key)
			f := openFile(t, d, key)
			if f.Frames() != 0 {
				t.Fatalf("%d pages of another job were taken over", f.Frames())
			}
			appendAll(t, f, somePages(2))
			checkPages(t, f.Pages(), somePages(2))
		})
	}
}

func TestUnsafeNames(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*pipeline.LandingKey){
		"stream with a path": func(k *pipeline.LandingKey) { k.Stream = "../sdr" },
		"no stream":          func(k *pipeline.LandingKey) { k.Stream = "" },
		"site with a path":   func(k *pipeline.LandingKey) { k.Window.Scope.Site = ".." },
		"region with a path": func(k *pipeline.LandingKey) { k.Window.Scope.Region = "a/b" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, key := openDir(t, t.TempDir(), 1), testKey()
			change(&key)
			if _, err := d.Open(key); err == nil {
				t.Error("Open took it")
			}
			if err := d.Keep(key, 1, 1); err == nil {
				t.Error("Keep took it")
			}
			if err := d.Discard(key); err == nil {
				t.Error("Discard took it")
			}
		})
	}
	t.Run("a link out of the folder", func(t *testing.T) {
		t.Parallel()
		dir, outside := t.TempDir(), t.TempDir()
		if err := os.Symlink(outside, filepath.Join(dir, "sdr")); err != nil {
			t.Fatal(err)
		}
		if _, err := openDir(t, dir, 1).Open(testKey()); err == nil {
			t.Error("Open followed it")
		}
	})
}

func TestLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := openDir(t, dir, 1), openDir(t, dir, 1)
	f := openFile(t, ours, testKey())
	appendAll(t, f, somePages(5))
	for name, do := range map[string]func() error{
		"open elsewhere":    func() error { _, err := theirs.Open(testKey()); return err },
		"open again":        func() error { _, err := ours.Open(testKey()); return err },
		"keep elsewhere":    func() error { return theirs.Keep(testKey(), 1, 1) },
		"discard elsewhere": func() error { return theirs.Discard(testKey()) },
	} {
		if err := do(); !errors.Is(err, pipeline.ErrLandingLocked) {
			t.Errorf("%s: got error %v, want ErrLandingLocked", name, err)
		}
	}
	if err := theirs.Tidy(func(pipeline.LandingKey) bool { return false }); err != nil {
		t.Fatal(err)
	}
	checkPages(t, f.Pages(), somePages(5))
	closeOrFail(t, f)
	checkPages(t, openFile(t, theirs, testKey()).Pages(), somePages(5))
}

// The name may be given to another file between opening and locking it. The lock must then be that of the new one.
func TestLockAfterDiscard(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	landed(t, openDir(t, dir, 1), testKey(), somePages(5))
	disk := faultyDisk(t, dir)
	replaced := false
	meddler := &meddlingDisk{Disk: disk, opened: func(name string) {
		if name != jobFile || replaced {
			return
		}
		replaced = true
		other := openDir(t, dir, 1)
		if err := other.Discard(testKey()); err != nil {
			t.Error(err)
		}
	}}
	d, err := landing.OpenOn(meddler, 1, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer closeOrFail(t, d)
	f, err := d.Open(testKey())
	if err != nil {
		t.Fatal(err)
	}
	defer closeOrFail(t, f)
	if !replaced || f.Frames() != 0 {
		t.Fatalf("replaced %t, %d pages", replaced, f.Frames())
	}
	appendAll(t, f, somePages(5))
	if got := int64(len(readFile(t, filepath.Join(dir, jobFile)))); got != f.Size() {
		t.Errorf("the named file has %d bytes, the locked one %d", got, f.Size())
	}
}

type meddlingDisk struct {
	landing.Disk
	opened func(name string)
}

func (m *meddlingDisk) OpenFile(name string, flag int, perm fs.FileMode) (landing.DiskFile, error) {
	f, err := m.Disk.OpenFile(name, flag, perm)
	m.opened(name)
	return f, err
}

// A disk that is full at any byte keeps every whole page, says so, and the drain goes on when there is room again.
func TestFullAtEveryByte(t *testing.T) {
	t.Parallel()
	dir, pages := t.TempDir(), somePages(5)
	reference := openFile(t, openDir(t, dir, 0), testKey())
	appendAll(t, reference, pages)
	header := openFile(t, openDir(t, t.TempDir(), 0), testKey()).Size()
	disk := faultyDisk(t, t.TempDir())
	disk.skipSync = true
	d := openFaulty(t, disk, 0, time.Now)
	for _, short := range []bool{false, true} {
		for room := range reference.Size() {
			disk.room, disk.shortWrite = room, short
			wantFull := func(err error) {
				t.Helper()
				if short != !errors.Is(err, pipeline.ErrDiskFull) {
					t.Fatalf("room for %d bytes, short write %t: got error %v", room, short, err)
				}
			}
			f, err := d.Open(testKey())
			if room < header {
				wantFull(err)
				disk.room = -1
				if f, err = d.Open(testKey()); err != nil {
					t.Fatal(err)
				}
			}
			kept := 0
			for kept < len(pages) && err == nil {
				if err = f.Append(pages[kept]); err == nil {
					kept++
				}
			}
			if err != nil {
				wantFull(err)
				if want := fmt.Sprintf("%d pages are kept, free space and run again", kept); !short && !strings.Contains(err.Error(), want) {
					t.Fatalf("got error %v, want one with %q", err, want)
				}
			}
			if f.Frames() != kept {
				t.Fatalf("room for %d bytes: %d frames, want %d", room, f.Frames(), kept)
			}
			checkPages(t, f.Pages(), pages[:kept])
			disk.room = -1
			appendAll(t, f, pages[kept:])
			checkPages(t, f.Pages(), pages)
			closeOrFail(t, f)
			if err := d.Discard(testKey()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestUntakenPagePoisons(t *testing.T) {
	t.Parallel()
	dir, pages := t.TempDir(), somePages(5)
	disk := faultyDisk(t, dir)
	f := openFile(t, openFaulty(t, disk, 0, time.Now), testKey())
	appendAll(t, f, pages[:2])
	disk.room, disk.noTruncate = 10, true
	if err := f.Append(pages[2]); !errors.Is(err, pipeline.ErrDiskFull) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("got error %v, want a full disk and the failed truncate", err)
	}
	disk.room, disk.noTruncate = -1, false
	for name, do := range map[string]func() error{"append": func() error { return f.Append(pages[2]) }, "restart": f.Restart} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "could not be taken back") {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	checkPages(t, f.Pages(), pages[:2])
	closeOrFail(t, f)
	again := openFile(t, openDir(t, dir, 0), testKey())
	checkPages(t, again.Pages(), pages[:2])
	appendAll(t, again, pages[2:])
}

func TestSyncsOncePerSecond(t *testing.T) {
	t.Parallel()
	disk, now, pages := faultyDisk(t, t.TempDir()), time.Unix(0, 0), somePages(40)
	f := openFile(t, openFaulty(t, disk, 0, func() time.Time { return now }), testKey())
	disk.syncs, disk.writes = 0, 0
	for i, p := range pages[:35] {
		now = now.Add(100 * time.Millisecond)
		if err := f.Append(p); err != nil {
			t.Fatal(err)
		}
		if want := (i + 1) / 10; disk.syncs != want || disk.writes != i+1 {
			t.Fatalf("after %d pages in %v: %d syncs and %d writes, want %d and %d", i+1, now.Sub(time.Unix(0, 0)), disk.syncs, disk.writes, want, i+1)
		}
	}
	now, disk.noSync = now.Add(time.Second), true
	if err := f.Append(pages[35]); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got error %v, want the failed sync", err)
	}
	disk.noSync = false
	if err := f.Append(pages[35]); err == nil || !strings.Contains(err.Error(), "sync failed") {
		t.Fatalf("got error %v after a failed sync", err)
	}
	checkPages(t, f.Pages(), pages[:35])
}

func TestAllRegions(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), testKey()
	key.Window.Scope.Region = ""
	landed(t, openDir(t, dir, 0), key, somePages(2))
	if !exists(t, filepath.Join(dir, "sdr/hcso-213/@all/2024-03-01_2024-04-01.job-17.landing")) {
		t.Error("the file is not where the documentation says")
	}
}

func TestDiscardTidyUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDir(t, dir, 2)
	key := func(row int64) pipeline.LandingKey {
		k := testKey()
		k.JobRow = row
		return k
	}
	name := func(row int64) string {
		return filepath.Join(dir, scopeFolder, fmt.Sprintf("2024-03-01_2024-04-01.job-%d.landing", row))
	}
	for row := range int64(6) {
		landed(t, d, key(row), somePages(5))
	}
	if err := d.Keep(key(0), 9, 1); err != nil {
		t.Fatal(err)
	}
	writeFile(t, name(3), []byte("no landing file"))
	writeFile(t, filepath.Join(dir, scopeFolder, "2024-03-01_2024-04-01.window-9.gen-000002.landing.tmp"), []byte("half a copy"))
	writeFile(t, filepath.Join(dir, scopeFolder, "notes.txt"), []byte("somebody's"))
	held := openFile(t, d, key(4))
	if err := d.Discard(key(5)); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(key(5)); err != nil {
		t.Errorf("discard again: %v", err)
	}
	var asked []int64
	if err := d.Tidy(func(k pipeline.LandingKey) bool { asked = append(asked, k.JobRow); return k.JobRow == 1 }); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 2 {
		t.Errorf("asked for jobs %v, want 1 and 2", asked)
	}
	for row, want := range []bool{false, true, false, false, true, false} {
		if got := exists(t, name(int64(row))); got != want {
			t.Errorf("job %d: file there %t, want %t", row, got, want)
		}
	}
	for base, want := range map[string]bool{"2024-03-01_2024-04-01.window-9.gen-000001.landing": true, "notes.txt": true, "2024-03-01_2024-04-01.window-9.gen-000002.landing.tmp": false} {
		if got := exists(t, filepath.Join(dir, scopeFolder, base)); got != want {
			t.Errorf("%s there %t, want %t", base, got, want)
		}
	}
	checkPages(t, held.Pages(), somePages(5))
	size, files, err := d.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if want := 3*held.Size() + int64(len("somebody's")); size != want || files != 4 {
		t.Errorf("usage is %d bytes in %d files, want %d in 4", size, files, want)
	}
}

func TestDiscardOpenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDir(t, dir, 0)
	f := openFile(t, d, testKey())
	appendAll(t, f, somePages(5)[:2])
	if err := d.Discard(testKey()); err != nil {
		t.Fatal(err)
	}
	if err := f.Append(somePages(5)[2]); err == nil {
		t.Error("a discarded file took a page")
	}
	next := openFile(t, d, testKey())
	closeOrFail(t, f) // must not unlock or forget the new one
	if _, err := d.Open(testKey()); !errors.Is(err, pipeline.ErrLandingLocked) {
		t.Errorf("got error %v, want ErrLandingLocked", err)
	}
	appendAll(t, next, somePages(5))
	if err := d.Discard(testKey()); err != nil {
		t.Fatal(err)
	}
}

func TestParallelJobs(t *testing.T) {
	t.Parallel()
	d := openDir(t, t.TempDir(), 1)
	for row := range int64(8) {
		t.Run(fmt.Sprint(row), func(t *testing.T) {
			t.Parallel()
			key := testKey()
			key.JobRow = row
			key.Window.From += record.Date(row)
			f := openFile(t, d, key)
			appendAll(t, f, somePages(50))
			checkPages(t, f.Pages(), somePages(50))
			closeOrFail(t, f)
			if err := d.Keep(key, row, 1); err != nil {
				t.Error(err)
			}
		})
	}
}
