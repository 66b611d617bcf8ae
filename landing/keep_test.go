package landing_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
)

func listFolder(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestKeep(t *testing.T) {
	t.Parallel()
	for keep, want := range map[int][]int{0: nil, 1: {3}, 2: {2, 3}, 9: {1, 2, 3}} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := openDir(t, dir, keep)
			for generation := 1; generation <= 3; generation++ {
				key := testKey()
				key.JobRow = int64(generation)
				key.Window.To += pipeline.Date(generation) // the end moves between generations
				f := openFile(t, d, key)
				appendAll(t, f, somePages(generation))
				if generation == 2 {
					closeOrFail(t, f) // kept open or closed, both must do
				}
				for range 2 {
					if err := d.Keep(key, 9, generation); err != nil {
						t.Fatal(err)
					}
				}
			}
			for generation := 1; generation <= 3; generation++ {
				key, pages, err := d.Kept(testKey().Window, 9, generation)
				if !slices.Contains(want, generation) {
					if !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("generation %d: got error %v, want fs.ErrNotExist", generation, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if key.JobRow != int64(generation) {
					t.Errorf("generation %d is of job %d", generation, key.JobRow)
				}
				checkPages(t, pages, somePages(generation))
				checkPages(t, pages, somePages(generation))
			}
			if got := len(listFolder(t, filepath.Join(dir, scopeFolder))); got != len(want) {
				t.Errorf("%d files are left, want %d", got, len(want))
			}
		})
	}
}

func TestKeepNothing(t *testing.T) {
	t.Parallel()
	d := openDir(t, t.TempDir(), 2)
	if err := d.Keep(testKey(), 9, 1); err != nil {
		t.Errorf("a lost file in a lost folder: %v", err)
	}
	other := testKey()
	other.JobID = "other"
	landed(t, d, other, somePages(2))
	if err := d.Keep(testKey(), 9, 1); err != nil {
		t.Errorf("another job's file: %v", err)
	}
	if _, _, err := d.Kept(testKey().Window, 9, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got error %v, want fs.ErrNotExist", err)
	}
	checkPages(t, openFile(t, d, other).Pages(), somePages(2))
}

// Keep killed at any call leaves the window's older generations and the new pages readable, and done again comes to the same end.
func TestKeepKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for name, noLink := range map[string]error{"with links": nil, "without links": &os.LinkError{Op: "link", Err: syscall.EPERM}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for step := int64(1); ; step++ {
				dir := t.TempDir()
				d := openDir(t, dir, 2)
				key := testKey()
				for generation := 1; generation <= 3; generation++ {
					key.JobRow = int64(generation)
					landed(t, d, key, somePages(generation))
					if generation == 3 {
						break
					}
					if err := d.Keep(key, 9, generation); err != nil {
						t.Fatal(err)
					}
				}
				disk := faultyDisk(t, dir)
				disk.dieAt, disk.noLink = step, noLink
				dying := openFaulty(t, disk, 2, time.Now)
				err := dying.Keep(key, 9, 3)
				if err != nil && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				wantReadable(t, d, key)
				if step%2 == 0 { // some other process may tidy up in between
					if err := d.Tidy(func(pipeline.LandingKey) bool { return true }); err != nil {
						t.Fatal(err)
					}
				}
				disk.dieAt = 0
				if err := dying.Keep(key, 9, 3); err != nil {
					t.Fatalf("killed at call %d, again: %v", step, err)
				}
				want := []string{"2024-03-01_2024-04-01.window-9.gen-000002.landing", "2024-03-01_2024-04-01.window-9.gen-000003.landing"}
				if got := listFolder(t, filepath.Join(dir, scopeFolder)); !slices.Equal(got, want) {
					t.Fatalf("killed at call %d: files %v, want %v", step, got, want)
				}
				checkKept(t, d, 2)
				checkKept(t, d, 3)
				if err == nil {
					if step < 8 {
						t.Errorf("Keep made %d calls only: is it the right one?", step-1)
					}
					return
				}
			}
		})
	}
}

func checkKept(t *testing.T, d *landing.Dir, generation int) {
	t.Helper()
	_, pages, err := d.Kept(testKey().Window, 9, generation)
	if err != nil {
		t.Fatal(err)
	}
	checkPages(t, pages, somePages(generation))
}

// wantReadable checks that generation 2 is kept and that the pages of generation 3 stand under a name of theirs.
func wantReadable(t *testing.T, d *landing.Dir, key pipeline.LandingKey) {
	t.Helper()
	checkKept(t, d, 2)
	_, pages, err := d.Kept(key.Window, 9, 3)
	if err == nil {
		checkPages(t, pages, somePages(3))
		return
	}
	f, err := d.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	checkPages(t, f.Pages(), somePages(3))
	closeOrFail(t, f)
}

// A file that Keep has linked, but whose job's name was not yet removed, is evidence: opening the job again must not change it.
func TestOpenLeavesEvidenceAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDir(t, dir, 2)
	landed(t, d, testKey(), somePages(3))
	kept := filepath.Join(dir, scopeFolder, "2024-03-01_2024-04-01.window-9.gen-000003.landing")
	if err := os.Link(filepath.Join(dir, jobFile), kept); err != nil {
		t.Fatal(err)
	}
	key := testKey()
	key.JobID = "of another database"
	f := openFile(t, d, key)
	appendAll(t, f, somePages(5))
	checkKept(t, d, 3)
}

// A ledger restored from a backup publishes generation numbers again that were kept already, perhaps with another end.
func TestKeepReplacesAnotherHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDir(t, dir, 2)
	for job, end := range []pipeline.Date{3, 0, 0} {
		key := testKey()
		key.JobRow = int64(100 + job)
		key.Window.To += end
		landed(t, d, key, somePages(job+1))
		if err := d.Keep(key, 9, 3); err != nil {
			t.Fatal(err)
		}
	}
	checkKept(t, d, 3)
	if got := listFolder(t, filepath.Join(dir, scopeFolder)); len(got) != 1 {
		t.Errorf("files %v, want one", got)
	}
}

func TestKeptDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDir(t, dir, 2)
	landed(t, d, testKey(), somePages(5))
	header := openFile(t, openDir(t, t.TempDir(), 0), testKey()).Size()
	if err := d.Keep(testKey(), 9, 3); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, scopeFolder, "2024-03-01_2024-04-01.window-9.gen-000003.landing")
	whole := readFile(t, name)
	for cut := range whole {
		writeFile(t, name, whole[:cut])
		_, pages, err := d.Kept(testKey().Window, 9, 3)
		if (err == nil) != (int64(cut) >= header) {
			t.Fatalf("cut at %d: got error %v", cut, err)
		}
		if err == nil && readAll(pages) == nil {
			t.Fatalf("cut at %d: the pages end without an error", cut)
		}
	}
	writeFile(t, name, whole)
	_, pages, err := d.Kept(testKey().Window, 9, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := readAll(pages); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got error %v, want fs.ErrNotExist", err)
	}
}

func readAll(pages func(func(pipeline.Page, error) bool)) error {
	for _, err := range pages {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestKeepOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := faultyDisk(t, t.TempDir())
	d := openFaulty(t, disk, 2, time.Now)
	landed(t, d, testKey(), somePages(5))
	disk.noLink, disk.room = syscall.ENOTSUP, 20
	if err := d.Keep(testKey(), 9, 3); !errors.Is(err, pipeline.ErrDiskFull) {
		t.Fatalf("got error %v, want ErrDiskFull", err)
	}
	disk.room = -1
	if err := d.Keep(testKey(), 9, 3); err != nil {
		t.Fatal(err)
	}
	_, pages, err := d.Kept(testKey().Window, 9, 3)
	if err != nil {
		t.Fatal(err)
	}
	checkPages(t, pages, somePages(5))
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, nil)
	tests := map[string]struct {
		dir  string
		keep int
		want string
	}{
		"a negative keep": {t.TempDir(), -1, "keep is -1"},
		"a file":          {file, 1, "open landing folder"},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		tt := tests[name]
		if _, err := landing.Open(tt.dir, tt.keep); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tt.want)
		}
	}
}
