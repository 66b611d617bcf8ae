package parquet_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sdr-sync/sdr-sync/sink/parquet"
)

// Folders have 0750 and files 0640, whatever the process would let others do; a stricter umask is kept to. The umask is the process's, so this
// test is not parallel to any other.
func TestModes(t *testing.T) {
	for _, umask := range []int{0, 0o077} {
		parent := t.TempDir()
		old := syscall.Umask(umask)
		lake, store := open(t, filepath.Join(parent, "lake")), twoSites()
		export(t, lake, store, parquet.ExportOptions{})
		syscall.Umask(old)
		seen := 0
		err := filepath.WalkDir(parent, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || path == parent {
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
		if err != nil || seen < 5 {
			t.Errorf("umask %03o: only %d files (%v)", umask, seen, err)
		}
	}
}

// A link that somebody plants in the lake or in the folder for staged files is never written through, be it there before the export or
// made at the last moment, and wherever it leads.
func TestPlantedLinks(t *testing.T) {
	t.Parallel()
	const precious = "precious"
	folders := map[string]bool{"sdr": true, "_meta": true, "_meta/sdr": true, "sdr/site=hcso-213": true, filepath.Dir(marchFile): true}
	places := []string{"lake.staging/lock", "lake/" + marchFile, "lake/_meta/sdr/manifest.json", "lake/" + identity}
	for folder := range folders {
		places = append(places, "lake/"+folder)
	}
	for _, place := range places {
		for _, within := range []bool{false, true} {
			name := place + " out of the folder"
			if within {
				name = place + " to a neighbour"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				parent, outside := t.TempDir(), t.TempDir()
				lake, store := open(t, filepath.Join(parent, "lake")), twoSites()
				export(t, lake, store, parquet.ExportOptions{})
				target, path := filepath.Join(outside, "target"), filepath.Join(parent, place)
				folder := folders[strings.TrimPrefix(place, "lake/")]
				if within {
					target = filepath.Join(parent, "target")
				}
				if folder {
					if err := os.Mkdir(target, 0o750); err != nil {
						t.Fatal(err)
					}
					write(t, filepath.Join(target, "file"), []byte(precious))
				} else {
					write(t, target, []byte(precious))
				}
				remove(t, path)
				plant(t, target, path, within)
				_, _ = lake.Export(t.Context(), store, parquet.ExportOptions{All: true}) // refused, or done with a file of its own
				if got := string(readBack(t, target)); got != precious {
					t.Errorf("behind the link is %q now", got)
				}
				// Within the lake's own folder its owner may lay out folders as he likes.
				if folder && !within && len(tree(t, target)) != 1 {
					t.Errorf("files were made behind the link: %v", tree(t, target))
				}
			})
		}
	}
	t.Run("at the last moment", func(t *testing.T) {
		t.Parallel()
		for _, within := range []bool{false, true} {
			parent, outside := t.TempDir(), t.TempDir()
			target := filepath.Join(outside, "target")
			if within {
				target = filepath.Join(parent, "target")
			}
			write(t, target, []byte(precious))
			lake, store := open(t, filepath.Join(parent, "lake")), twoSites()
			planted := 0
			lake.SetStepHook(func(step, name string) error {
				if step == "create" {
					path := filepath.Join(parent, name)
					remove(t, path)
					plant(t, target, path, within)
					planted++
				}
				return nil
			})
			if _, err := lake.Export(t.Context(), store, parquet.ExportOptions{}); err == nil {
				t.Error("the export went through the links")
			}
			if got := string(readBack(t, target)); got != precious || planted == 0 {
				t.Errorf("behind %d links is %q now", planted, got)
			}
		}
	})
	t.Run("for the folder of staged files", func(t *testing.T) {
		t.Parallel()
		parent, outside := t.TempDir(), t.TempDir()
		write(t, filepath.Join(outside, "file"), []byte(precious))
		lake, store := open(t, filepath.Join(parent, "lake")), twoSites()
		plant(t, outside, filepath.Join(parent, "lake.staging"), false)
		if _, err := lake.Export(t.Context(), store, parquet.ExportOptions{}); err == nil {
			t.Error("the export went through the link")
		}
		if got := tree(t, outside); len(got) != 1 {
			t.Errorf("behind the link: %v", got)
		}
	})
}

// plant makes path a link to target: relative where it shall stay within the lake's parent, since an absolute one leads out of an os.Root.
func plant(t *testing.T, target, path string, within bool) {
	t.Helper()
	if within {
		var err error
		if target, err = filepath.Rel(filepath.Dir(path), target); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// readBack returns the file's content, or that of the file in the folder.
func readBack(t *testing.T, path string) []byte {
	t.Helper()
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "file")
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
