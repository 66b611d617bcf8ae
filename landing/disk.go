package landing

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// disk is what a Dir needs of its folder. It is an os.Root, so no name leads out of the folder; tests put one in that fails at the
// k-th call.
type disk interface {
	OpenFile(name string, flag int, perm fs.FileMode) (diskFile, error)
	MkdirAll(name string, perm fs.FileMode) error
	Lstat(name string) (fs.FileInfo, error)
	Link(oldname, newname string) error
	Rename(oldname, newname string) error
	Remove(name string) error
	Close() error
}

// diskFile is what a Dir needs of an open file or folder; *os.File has it all.
type diskFile interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Stat() (fs.FileInfo, error)
	ReadDir(n int) ([]fs.DirEntry, error)
	Fd() uintptr
	Close() error
}

type rootDisk struct{ *os.Root }

// OpenFile returns a nil interface on an error, which a converted nil *os.File would not be.
func (r rootDisk) OpenFile(name string, flag int, perm fs.FileMode) (diskFile, error) {
	f, err := r.Root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

const (
	folderMode = 0o750
	fileMode   = 0o640
)

// makeFolder creates the folder and makes its names durable up to the top, so that a synced file in it can be found after a crash.
func makeFolder(d disk, folder string) error {
	if _, err := d.Lstat(folder); err == nil {
		return nil
	}
	if err := d.MkdirAll(folder, folderMode); err != nil {
		return err
	}
	for up := path.Dir(folder); ; up = path.Dir(up) {
		if err := syncFolder(d, up); err != nil {
			return err
		}
		if up == "." {
			return nil
		}
	}
}

// syncFolder makes the names in a folder durable. File systems that can't sync folders say EINVAL or ENOTSUP; they have their own
// way to keep names.
func syncFolder(d disk, folder string) error {
	f, err := d.OpenFile(folder, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// removeIfThere removes a file; none is no error.
func removeIfThere(d disk, name string) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readFolder lists a folder; one that isn't there is empty.
func readFolder(d disk, folder string) ([]fs.DirEntry, error) {
	f, err := d.OpenFile(folder, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	return entries, errors.Join(err, f.Close())
}

// lockFile opens the named file with flag and locks it for this open file alone. The name may be removed, or moved to a kept
// generation, between opening and locking; the lock then holds a file that the name no longer means, so it is given up and the name
// opened again.
func lockFile(d disk, name string, flag int) (diskFile, error) {
	for range 1000 { // each turn means that somebody else removed the file just now: nobody does that for long
		f, err := d.OpenFile(name, flag, fileMode)
		if err != nil {
			return nil, err
		}
		err = flock(f)
		same := false
		if err == nil {
			same, err = isNamed(d, f, name)
		}
		if same {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return nil, pipeline.ErrLandingLocked
}

// isNamed tells whether name still means the open file f.
func isNamed(d disk, f diskFile, name string) (bool, error) {
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, named), err
}

// flock is advisory and belongs to the open file, so the kernel drops it when the process dies, however it dies.
func flock(f diskFile) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return pipeline.ErrLandingLocked
		default:
			return err
		}
	}
}

// isFull tells a full disk or an exhausted quota from other failures of a write.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
