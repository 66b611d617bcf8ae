package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// Whatever umask the program is started under, others on the machine can't read what it writes, and its group can't change it. The umask is the
// process's, so this test is not parallel to any other.
func TestFilesAreNotForEverybody(t *testing.T) {
	for _, umask := range []int{0, 0o077} {
		w := newListWorld(t)
		old := syscall.Umask(umask)
		f := w.run(nightly(listDay, "sdr", "subscriptions", "audit_logs")...)
		exported := w.run("export", "--all")
		written := w.run("init", filepath.Join(w.dir, "new.yaml"))
		syscall.Umask(old)
		for _, f := range []finished{f, exported, written} {
			if f.code != exitOK {
				t.Fatal(f)
			}
		}
		seen := 0
		err := filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || path == w.dir {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			seen++
			if info.Mode().Perm()&0o027 != 0 || umask == 0o077 && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("umask %03o: %s has mode %04o", umask, path, info.Mode().Perm())
			}
			return nil
		})
		if err != nil || seen < 20 {
			t.Errorf("umask %03o: %d files and folders (%v)", umask, seen, err)
		}
	}
}

// Secrets that others can read: a file of one is refused, a configuration with one is warned of; neither is shown.
func TestSecretsThatOthersCanRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	config := w.configure()
	if err := os.Chmod(config, 0o644); err != nil {
		t.Fatal(err)
	}
	f := inProcess(t, t.Context(), []string{"--config", config, "doctor"})
	contains(t, f.out, "warning: "+config, "iam.password", "chmod o-rwx")
	w.hides(f)

	path, asked := filepath.Join(w.dir, "password"), w.gate.count(sandbox.EndpointToken)
	for _, mode := range []os.FileMode{0o602, 0o604, 0o644, 0o666} {
		if err := os.WriteFile(path, []byte(w.settings["iam.password"]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		content := strings.Replace(read(t, config), fmt.Sprintf("password: %q", w.settings["iam.password"]), fmt.Sprintf("password_file: %q", path), 1)
		f := inProcess(t, t.Context(), []string{"--config", write(t, content), "nightly", "--today", someday})
		if f.code != exitUsage || w.gate.count(sandbox.EndpointToken) != asked {
			t.Errorf("mode %04o: %s", mode, f)
		}
		contains(t, f.err, "everybody on this machine can read or change the secret file "+path)
		w.hides(f)
	}
}
