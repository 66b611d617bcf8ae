package landing_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
)

// Folders have 0750 and files 0640, whatever the process would let others do; a stricter umask is kept to. The umask is the process's, so this
// test is not parallel to any other.
func TestModes(t *testing.T) {
	for _, umask := range []int{0, 0o077} {
		dir := filepath.Join(t.TempDir(), "landing")
		old := syscall.Umask(umask)
		d := openDir(t, dir, 2)
		landed(t, d, testKey(), somePages(3))
		err := d.Keep(testKey(), 1, 1)
		other := testKey()
		other.JobRow++
		landed(t, d, other, somePages(1))
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			want := fs.FileMode(0o640)
			if entry.IsDir() {
				want = 0o750
			} else {
				seen++
			}
			if want &^= fs.FileMode(umask); err == nil && info.Mode().Perm() != want {
				t.Errorf("umask %03o: %s has mode %04o, want %04o", umask, path, info.Mode().Perm(), want)
			}
			return err
		})
		if err != nil || seen != 2 {
			t.Errorf("umask %03o: %d files (%v), want 2", umask, seen, err)
		}
	}
}

// A link that somebody plants where a landing file or its folder shall be is never written through, out of the folder or within it.
func TestPlantedLinks(t *testing.T) {
	t.Parallel()
	const precious = "precious"
	generation := scopeFolder + "/2024-03-01_2024-04-01.window-1.gen-000001.landing"
	for name, c := range map[string]struct {
		place  string // of the link
		within bool   // it leads to another place in the folder, not out of it
		folder bool   // it leads to a folder
	}{
		"for the job's file, out of the folder":    {place: jobFile},
		"for the job's file, within the folder":    {place: jobFile, within: true},
		"for the kept generation":                  {place: generation},
		"for the kept generation, within":          {place: generation, within: true},
		"for the stream's folder":                  {place: "sdr", folder: true},
		"for the region's folder":                  {place: scopeFolder, folder: true},
		"for the temporary file of a copy, within": {place: generation + ".tmp", within: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, outside := t.TempDir(), t.TempDir()
			target := filepath.Join(outside, "target")
			if c.within {
				target = filepath.Join(dir, "sdr", "target")
			}
			if c.folder {
				if err := os.Mkdir(target, 0o750); err != nil {
					t.Fatal(err)
				}
			} else {
				writeFile(t, target, []byte(precious))
			}
			place := filepath.Join(dir, c.place)
			if err := os.MkdirAll(filepath.Dir(place), 0o750); err != nil {
				t.Fatal(err)
			}
			to := target
			if c.within { // an absolute link leads out of an os.Root wherever it ends
				var err error
				if to, err = filepath.Rel(filepath.Dir(place), target); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(to, place); err != nil {
				t.Fatal(err)
			}
			d := openDir(t, dir, 2)
			useAll(t, d)
			if c.folder {
				entries, err := os.ReadDir(target)
				if err != nil || len(entries) > 0 {
					t.Errorf("%v was made behind the link (%v)", entries, err)
				}
			} else if got := string(readFile(t, target)); got != precious {
				t.Errorf("the file behind the link is %q now", got)
			}
		})
	}
}

// useAll does all that can be done with a job's landing file; each step may be refused.
func useAll(t *testing.T, d *landing.Dir) {
	t.Helper()
	key := testKey()
	if f, err := d.Open(key); err == nil {
		for _, p := range somePages(2) {
			_ = f.Append(p)
		}
		_ = f.Close()
	}
	_ = d.Keep(key, 1, 1)
	_ = d.Discard(key)
	_ = d.Tidy(func(pipeline.LandingKey) bool { return false })
	if _, _, err := d.Usage(); err != nil {
		t.Errorf("measure: %v", err)
	}
}
