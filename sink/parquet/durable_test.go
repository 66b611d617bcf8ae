package parquet_test

import (
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sdr-sync/sdr-sync/sink/parquet"
)

// TestNamesAreDurableFirst watches the order of an export's steps: after a power failure the ledger must not know of a file whose bytes
// or whose name are lost.
func TestNamesAreDurableFirst(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	lake, store := open(t, dir), twoSites()
	var mu sync.Mutex
	var unsynced, synced, names []string // of files under way: not synced, synced, and renamed into a folder that is not synced
	renames, marks := 0, 0
	without := func(list []string, gone func(string) bool) (rest []string) {
		for _, one := range list {
			if !gone(one) {
				rest = append(rest, one)
			}
		}
		return rest
	}
	lake.SetStepHook(func(step, name string) error {
		mu.Lock()
		defer mu.Unlock()
		base := path.Base(name)
		switch step {
		case "write", "create":
			unsynced = append(unsynced, base)
		case "sync":
			unsynced, synced = without(unsynced, func(s string) bool { return s == base }), append(synced, base)
		case "rename":
			renames++
			if len(unsynced) > 0 || len(synced) == 0 {
				t.Errorf("%s is renamed while %v are not synced", name, unsynced)
			}
			synced, names = nil, append(names, name)
		case "sync folder":
			names = without(names, func(s string) bool { return path.Dir(s) == name })
		}
		return nil
	})
	store.hook(func(call string) error {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(call, "mark") {
			if marks++; len(names) > 0 {
				t.Errorf("the ledger is told of a file while the names %v are not synced", names)
			}
		}
		return nil
	})
	export(t, lake, store, parquet.ExportOptions{})
	if len(names) > 0 {
		t.Errorf("the names %v were never synced", names)
	}
	if renames < 3 || marks < 2 {
		t.Errorf("the export took %d renames and %d marks: nothing was watched", renames, marks)
	}
}
