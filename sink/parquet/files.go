package parquet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/sdr-sync/sdr-sync/failpoint"
)

const (
	dirMode  = 0o750
	fileMode = 0o640
)

// stepHook is called before each step that changes the disk; an error makes the step fail instead. Tests set it.
type stepHook func(step, name string) error

// files does the lake's file operations, all below the lake's parent: no name, link or race leads out of it.
type files struct {
	root   *os.Root
	before stepHook
}

func (l *Lake) openFiles() (*files, error) {
	root, err := os.OpenRoot(l.parent)
	if err != nil {
		return nil, fmt.Errorf("open lake %s: %w", l.Dir(), err)
	}
	return &files{root: root, before: l.before}, nil
}

func (f *files) close() error { return f.root.Close() }

func (f *files) step(step, name string) error {
	if f.before == nil {
		return nil
	}
	return f.before(step, name)
}

// mkdirAll makes the folder and its parents, each synced into its own parent.
func (f *files) mkdirAll(name string) error {
	if info, err := f.root.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	if parent := path.Dir(name); parent != "." {
		if err := f.mkdirAll(parent); err != nil {
			return err
		}
	}
	if err := f.step("mkdir", name); err != nil {
		return err
	}
	if err := f.root.Mkdir(name, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return f.syncDir(path.Dir(name))
}

func (f *files) syncDir(name string) error {
	if err := f.step("sync folder", name); err != nil {
		return err
	}
	d, err := f.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// create makes a file that is not there yet: staging was cleared, so what stands there now, a link perhaps, is somebody else's.
func (f *files) create(name string) (*os.File, error) {
	if err := f.step("create", name); err != nil {
		return nil, err
	}
	return f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
}

// sync makes the file's bytes durable and closes it.
func (f *files) sync(file *os.File) error {
	if err := f.step("sync", file.Name()); err != nil {
		return errors.Join(err, file.Close())
	}
	return errors.Join(file.Sync(), file.Close())
}

// rename moves the file over what stands there and makes the move durable.
func (f *files) rename(from, to string) error {
	if err := f.mkdirAll(path.Dir(to)); err != nil {
		return err
	}
	if err := f.step("rename", to); err != nil {
		return err
	}
	if err := failpoint.Err(failpoint.ExportRename); err != nil {
		return err
	}
	if err := f.root.Rename(from, to); err != nil {
		return err
	}
	failpoint.Hit(failpoint.ExportRenamed)
	return f.syncDir(path.Dir(to))
}

func (f *files) remove(name string) error {
	if err := f.step("remove", name); err != nil {
		return err
	}
	return f.root.RemoveAll(name)
}

// replace writes text as the file's whole content, through a staged file. Equal content leaves the file untouched.
func (f *files) replace(staged, name string, text []byte) error {
	old, err := f.root.ReadFile(name)
	if err == nil && string(old) == string(text) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := f.create(staged)
	if err != nil {
		return err
	}
	if _, err := file.Write(text); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := f.sync(file); err != nil {
		return err
	}
	return f.rename(staged, name)
}

// clear removes what an interrupted export left in staging.
func (f *files) clear(staging string) error {
	entries, err := fs.ReadDir(f.root.FS(), staging)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := f.remove(staging + "/" + e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// regular returns the file's size; present is false if there is none. Anything but a regular file is an error.
func (f *files) regular(name string) (size int64, present bool, err error) {
	info, err := f.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if !info.Mode().IsRegular() {
		return 0, false, fmt.Errorf("%s is a %s, not a regular file", name, info.Mode().Type())
	}
	return info.Size(), true, nil
}

const (
	lockName     = "lock"
	lockInterval = 100 * time.Millisecond
)

// lock takes the lake's lock and returns its release. The kernel gives it up when the process dies.
func (l *Lake) lock(ctx context.Context, f *files) (release func() error, err error) {
	if err := f.mkdirAll(l.staging()); err != nil {
		return nil, fmt.Errorf("lock lake %s: %w", l.Dir(), err)
	}
	file, err := f.root.OpenFile(l.staging()+"/"+lockName, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("lock lake %s: %w", l.Dir(), err)
	}
	if err := l.flock(ctx, file, syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file.Close, nil
}

func (l *Lake) flock(ctx context.Context, file *os.File, how int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.cfg.LockWait, ErrLakeLocked)
	defer cancel()
	retry := time.NewTicker(lockInterval)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock lake %s: %w", l.Dir(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock lake %s: %w", l.Dir(), context.Cause(ctx))
		case <-retry.C:
		}
	}
}

// hashFile returns the size and hex SHA-256 of a file's bytes as they are on disk.
func (f *files) hashFile(name string) (size int64, sum string, err error) {
	file, err := f.root.Open(name)
	if err != nil {
		return 0, "", err
	}
	h := sha256.New()
	size, err = io.Copy(h, file)
	return size, hex.EncodeToString(h.Sum(nil)), errors.Join(err, file.Close())
}

// stepWriter writes to a file, each write being a step.
type stepWriter struct {
	files *files
	file  *os.File
	name  string
}

func (w *stepWriter) Write(p []byte) (int, error) {
	if err := w.files.step("write", w.name); err != nil {
		return 0, err
	}
	return w.file.Write(p)
}
