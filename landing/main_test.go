package landing_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testScope = pipeline.Scope{Site: "hcso-213", Region: "cn-north-213"}

func testKey() pipeline.LandingKey {
	w := pipeline.Window{Scope: testScope, Unit: pipeline.Month, From: record.NewDate(2024, 3, 1), To: record.NewDate(2024, 4, 1)}
	return pipeline.LandingKey{
		Stream: "sdr", Window: w, JobRow: 17, JobID: "a1b2c3", Request: w.Request("d0"),
		CreatedAt: time.Date(2024, 4, 2, 1, 2, 3, 456789000, time.UTC),
	}
}

const (
	scopeFolder = "sdr/hcso-213/cn-north-213"
	jobFile     = scopeFolder + "/2024-03-01_2024-04-01.job-17.landing"
)

// somePages returns a drain of n pages, the fourth of them without records.
func somePages(n int) []pipeline.Page {
	pages := make([]pipeline.Page, n)
	asked := ""
	for i := range pages {
		next := fmt.Sprintf("marker-%d", i+1)
		if i == n-1 {
			next = ""
		}
		data := fmt.Sprintf(`[{"id":%d,"pad":"%s"}]`, i, strings.Repeat("x", 10*i))
		if i == 3 {
			data = ""
		}
		body := fmt.Sprintf(`{"marker":%q,"sdrs":%s}`, next, data)
		pages[i] = pipeline.Page{Asked: asked, Next: next, Body: []byte(body)}
		if at := strings.Index(body, `[`); at >= 0 && data != "" {
			pages[i].Data = pages[i].Body[at : at+len(data)]
		}
		asked = next
	}
	return pages
}

func openDir(t *testing.T, dir string, keep int) *landing.Dir {
	t.Helper()
	d, err := landing.Open(dir, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOrFail(t, d) })
	return d
}

func openFile(t testing.TB, d *landing.Dir, key pipeline.LandingKey) pipeline.LandingFile {
	t.Helper()
	f, err := d.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOrFail(t, f) })
	return f
}

func closeOrFail(t testing.TB, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func appendAll(t testing.TB, f pipeline.LandingFile, pages []pipeline.Page) {
	t.Helper()
	for _, p := range pages {
		if err := f.Append(p); err != nil {
			t.Fatal(err)
		}
	}
}

// landed writes a job's file and closes it.
func landed(t *testing.T, d *landing.Dir, key pipeline.LandingKey, pages []pipeline.Page) {
	t.Helper()
	f, err := d.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, f, pages)
	closeOrFail(t, f)
}

func checkPages(t *testing.T, got func(func(pipeline.Page, error) bool), want []pipeline.Page) {
	t.Helper()
	i := 0
	for p, err := range got {
		if err != nil {
			t.Fatalf("page %d: %v", i+1, err)
		}
		if i == len(want) {
			t.Fatalf("got more than %d pages", len(want))
		}
		checkPage(t, p, want[i])
		i++
	}
	if i != len(want) {
		t.Fatalf("got %d pages, want %d", i, len(want))
	}
}

func checkPage(t *testing.T, got, want pipeline.Page) {
	t.Helper()
	if got.Asked != want.Asked || got.Next != want.Next || string(got.Body) != string(want.Body) || string(got.Data) != string(want.Data) {
		t.Fatalf("got page %q→%q body %q data %q\nwant %q→%q body %q data %q",
			got.Asked, got.Next, got.Body, got.Data, want.Asked, want.Next, want.Body, want.Data)
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o640); err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, name string) bool {
	t.Helper()
	_, err := os.Lstat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// faults is a disk whose calls fail when told to. Calls are counted from 1.
type faults struct {
	landing.Disk
	calls      atomic.Int64
	dieAt      int64 // from this call on all fail, as after a kill; 0 never
	room       int64 // bytes that may still be written, -1 without end
	noTruncate bool
	noSync     bool
	shortWrite bool
	skipSync   bool // syncs do nothing, for tests of thousands of files
	noLink     error
	syncs      int
	writes     int
}

func faultyDisk(t testing.TB, dir string) *faults {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &faults{Disk: landing.RootDisk{Root: root}, room: -1}
}

func openFaulty(t testing.TB, d *faults, keep int, now pipeline.Clock) *landing.Dir {
	t.Helper()
	dir, err := landing.OpenOn(d, keep, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOrFail(t, dir) })
	return dir
}

var errKilled = errors.New("killed")

func (d *faults) step() error {
	if n := d.calls.Add(1); d.dieAt > 0 && n >= d.dieAt {
		return errKilled
	}
	return nil
}

func (d *faults) OpenFile(name string, flag int, perm fs.FileMode) (landing.DiskFile, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	f, err := d.Disk.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultyFile{DiskFile: f, disk: d}, nil
}

func (d *faults) Link(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	if d.noLink != nil {
		return d.noLink
	}
	return d.Disk.Link(from, to)
}

func (d *faults) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.Disk.Rename(from, to)
}

func (d *faults) Remove(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.Disk.Remove(name)
}

type faultyFile struct {
	landing.DiskFile
	disk *faults
}

func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.disk.step(); err != nil {
		return 0, err
	}
	f.disk.writes++
	if f.disk.room < 0 || int64(len(b)) <= f.disk.room {
		if f.disk.room > 0 {
			f.disk.room -= int64(len(b))
		}
		return f.DiskFile.WriteAt(b, at)
	}
	n, err := f.DiskFile.WriteAt(b[:f.disk.room], at)
	f.disk.room = 0
	if err == nil && !f.disk.shortWrite {
		err = syscall.ENOSPC
	}
	return n, err
}

func (f *faultyFile) Truncate(size int64) error {
	if f.disk.noTruncate {
		return syscall.EIO
	}
	return f.DiskFile.Truncate(size)
}

func (f *faultyFile) Sync() error {
	if err := f.disk.step(); err != nil {
		return err
	}
	if f.disk.noSync {
		return syscall.EIO
	}
	f.disk.syncs++
	if f.disk.skipSync {
		return nil
	}
	return f.DiskFile.Sync()
}
