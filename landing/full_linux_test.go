package landing_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
)

// A file system that is really full. Mounting one needs root; without it the same steps run against a disk that says ENOSPC.
func TestRealFullDisk(t *testing.T) {
	t.Parallel()
	var d *landing.Dir
	var makeRoom func()
	if os.Geteuid() == 0 {
		mounted := t.TempDir()
		if err := syscall.Mount("tmpfs", mounted, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(mounted, 0); err != nil {
				t.Error(err)
			}
		})
		d = openDir(t, mounted, 1)
		makeRoom = func() {
			if err := syscall.Mount("tmpfs", mounted, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
				t.Fatal(err)
			}
		}
	} else {
		disk := faultyDisk(t, t.TempDir())
		disk.room = 1 << 20
		d = openFaulty(t, disk, 1, time.Now)
		makeRoom = func() { disk.room = -1 }
	}
	var pages []pipeline.Page
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		body := make([]byte, 100_000) // 40 pages of 100 kB that don't compress
		for j := range body {
			body[j] = byte(random.Uint32())
		}
		p := pipeline.Page{Body: body, Data: body[10:20], Next: strconv.Itoa(i + 1)}
		if i > 0 {
			p.Asked = strconv.Itoa(i)
		}
		if i == 39 {
			p.Next = ""
		}
		pages = append(pages, p)
	}
	f := openFile(t, d, testKey())
	kept := 0
	var err error
	for kept < len(pages) && err == nil {
		if err = f.Append(pages[kept]); err == nil {
			kept++
		}
	}
	if !errors.Is(err, pipeline.ErrDiskFull) || kept < 5 {
		t.Fatalf("after %d pages got error %v, want ErrDiskFull", kept, err)
	}
	if err := f.Append(pages[kept]); !errors.Is(err, pipeline.ErrDiskFull) {
		t.Fatalf("still full: got error %v", err)
	}
	closeOrFail(t, f)
	f = openFile(t, d, testKey())
	checkPages(t, f.Pages(), pages[:kept])
	makeRoom()
	appendAll(t, f, pages[kept:])
	checkPages(t, f.Pages(), pages)
	closeOrFail(t, f)
	if err := d.Keep(testKey(), 9, 1); err != nil {
		t.Fatal(err)
	}
}
