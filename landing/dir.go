// Package landing keeps the pages of query jobs on local disk as the vendor sent them: one append-only file per job, one frame per
// page with its markers and checksums. It knows no JSON of the vendor's, no database and no network. docs/landing-format.md describes
// the files.
package landing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// Dir is a folder of landing files; it implements pipeline.Landing. Its methods may be called from several goroutines and from
// several processes over the same folder; a File belongs to one goroutine.
type Dir struct {
	disk    disk
	keep    int
	now     pipeline.Clock // for the interval of syncs alone
	encoder *zstd.Encoder
	decoder *zstd.Decoder

	mu   sync.Mutex
	open map[string]*File // by name: files that this Dir has locked, which Keep and Discard may touch
}

var _ pipeline.Landing = (*Dir)(nil)

// Open opens the folder of landing files, creating it if there is none. keep is how many generations of each window's landing
// file stay as evidence, 0 for none.
func Open(dir string, keep int) (*Dir, error) {
	if keep < 0 {
		return nil, fmt.Errorf("open landing folder %s: keep is %d, want 0 or more", dir, keep)
	}
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return nil, fmt.Errorf("open landing folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open landing folder: %w", err)
	}
	return openOn(rootDisk{root}, keep, time.Now)
}

func openOn(d disk, keep int, now pipeline.Clock) (*Dir, error) {
	encoder, decoder, err := newCodec(min(runtime.GOMAXPROCS(0), 4))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open landing folder: %w", err), d.Close())
	}
	return &Dir{disk: d, keep: keep, now: now, encoder: encoder, decoder: decoder, open: map[string]*File{}}, nil
}

// Close closes the folder. Files opened from it must be closed before.
func (d *Dir) Close() error {
	d.decoder.Close()
	return errors.Join(d.encoder.Close(), d.disk.Close())
}

// Open locks the job's landing file, creating it if there is none, and cuts a torn tail. A file that belongs to another job, or
// whose beginning can't be read, is replaced by an empty one. The error is pipeline.ErrLandingLocked if another process, or another
// File of this one, holds the file.
func (d *Dir) Open(key pipeline.LandingKey) (pipeline.LandingFile, error) {
	f, err := d.openFile(key)
	if err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w, free space and run again: %w", pipeline.ErrDiskFull, err)
		}
		return nil, fmt.Errorf("open landing file of job %d (%s): %w", key.JobRow, key.Window, err)
	}
	return f, nil
}

func (d *Dir) openFile(key pipeline.LandingKey) (*File, error) {
	folder, err := folderOf(key.Stream, key.Window.Scope)
	if err != nil {
		return nil, err
	}
	if err := makeFolder(d.disk, folder); err != nil {
		return nil, err
	}
	name := path.Join(folder, jobName(key))
	handle, err := d.lockUnlinked(name)
	if err != nil {
		return nil, err
	}
	f := &File{dir: d, name: name, disk: handle, synced: d.now()}
	ours, err := f.recover(key)
	if err == nil && !ours {
		if err = f.begin(key); err == nil {
			err = syncFolder(d.disk, folder)
		}
	}
	if err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[name] = f
	return f, nil
}

// lockUnlinked locks the job's file for writing. A file with a second name is evidence already (Keep was killed between its steps)
// and must not change under that name, so the job's name is taken from it and starts anew.
func (d *Dir) lockUnlinked(name string) (diskFile, error) {
	for {
		handle, err := lockFile(d.disk, name, os.O_RDWR|os.O_CREATE)
		if err != nil {
			return nil, err
		}
		info, err := handle.Stat()
		if err != nil {
			return nil, errors.Join(err, handle.Close())
		}
		if links(info) < 2 {
			return handle, nil
		}
		if err := errors.Join(d.disk.Remove(name), handle.Close()); err != nil {
			return nil, err
		}
	}
}

func (d *Dir) forget(f *File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[f.name] == f {
		delete(d.open, f.name)
	}
}

// hold gives access to a job's file that nobody else has: through the File that this Dir has open, or by locking it for the time
// being. release lets go. Without a file the error is fs.ErrNotExist, and pipeline.ErrLandingLocked if somebody else has it.
func (d *Dir) hold(name string) (handle diskFile, own *File, release func() error, err error) {
	d.mu.Lock()
	own = d.open[name]
	d.mu.Unlock()
	if own != nil {
		return own.disk, own, func() error { return nil }, nil
	}
	handle, err = lockFile(d.disk, name, os.O_RDWR)
	if err != nil {
		return nil, nil, nil, err
	}
	return handle, nil, handle.Close, nil
}

// Discard removes the job's landing file; none is no error. A File that is open on it can still be read, but takes no more pages.
func (d *Dir) Discard(key pipeline.LandingKey) error {
	if err := d.discard(key); err != nil {
		return fmt.Errorf("discard landing file of job %d (%s): %w", key.JobRow, key.Window, err)
	}
	return nil
}

func (d *Dir) discard(key pipeline.LandingKey) error {
	folder, err := folderOf(key.Stream, key.Window.Scope)
	if err != nil {
		return err
	}
	name := path.Join(folder, jobName(key))
	_, own, release, err := d.hold(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = removeIfThere(d.disk, name)
	if own != nil && err == nil {
		own.unfit = errGone
	}
	return errors.Join(err, release())
}

var errGone = errors.New("the file was kept or discarded")

// Tidy removes the landing files of jobs that are over: those for which active says no, those whose beginning can't be read, and
// what a killed Keep left half copied. It leaves alone kept generations and whatever is locked.
func (d *Dir) Tidy(active func(key pipeline.LandingKey) bool) error {
	err := d.eachFile(func(folder string, entry fs.DirEntry) error {
		base, name := entry.Name(), path.Join(folder, entry.Name())
		switch {
		case isTemporary(base):
			return d.tidyTemporary(name)
		case jobPattern.MatchString(base):
			return d.tidyJob(name, active)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tidy landing files: %w", err)
	}
	return nil
}

func (d *Dir) tidyJob(name string, active func(pipeline.LandingKey) bool) error {
	handle, err := lockFile(d.disk, name, os.O_RDWR)
	if errors.Is(err, pipeline.ErrLandingLocked) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	key, _, err := openHeader(handle)
	if err != nil || jobName(key) != path.Base(name) || !active(key) {
		err = removeIfThere(d.disk, name)
	}
	return errors.Join(err, handle.Close())
}

// Usage returns the bytes and the number of all landing files, those of jobs and those kept.
func (d *Dir) Usage() (bytes int64, files int, err error) {
	err = d.eachFile(func(_ string, entry fs.DirEntry) error {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed since the folder was read
		}
		if err != nil {
			return err
		}
		bytes += info.Size()
		files++
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("measure landing files: %w", err)
	}
	return bytes, files, nil
}

// eachFile calls do for every file at the depth of landing files: stream, site, region, file.
func (d *Dir) eachFile(do func(folder string, entry fs.DirEntry) error) error {
	return d.descend(".", 3, do)
}

func (d *Dir) descend(folder string, depth int, do func(string, fs.DirEntry) error) error {
	entries, err := readFolder(d.disk, folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if depth > 0 && entry.IsDir() {
			err = d.descend(path.Join(folder, entry.Name()), depth-1, do)
		}
		if depth == 0 && entry.Type().IsRegular() {
			err = do(folder, entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openHeader reads whose file it is.
func openHeader(f diskFile) (pipeline.LandingKey, *frameReader, error) {
	info, err := f.Stat()
	if err != nil {
		return pipeline.LandingKey{}, nil, err
	}
	return readHeader(f, info.Size())
}

// The names of files. A window's end may differ between its generations, so a generation is found by window and number alone.
var (
	streamPattern     = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	jobPattern        = regexp.MustCompile(`^[0-9-]+_[0-9-]+\.job-[0-9]+\.landing$`)
	generationPattern = regexp.MustCompile(`^[0-9-]+_[0-9-]+\.window-([0-9]+)\.gen-([0-9]{6,})\.landing$`)
)

const allRegions = "@all" // no region's alphabet has '@'

// folderOf returns the folder of a scope's landing files. Stream and scope become path elements, so they are checked.
func folderOf(stream string, scope pipeline.Scope) (string, error) {
	if !streamPattern.MatchString(stream) {
		return "", fmt.Errorf("stream %q: want lower-case letters, digits and '_'", stream)
	}
	if err := scope.Validate(); err != nil {
		return "", err
	}
	return path.Join(stream, scopeFolder(scope)), nil
}

func scopeFolder(scope pipeline.Scope) string {
	if scope.Region == "" {
		return path.Join(scope.Site, allRegions)
	}
	return path.Join(scope.Site, scope.Region)
}

func jobName(key pipeline.LandingKey) string {
	return fmt.Sprintf("%s_%s.job-%d.landing", key.Window.From, key.Window.To, key.JobRow)
}

func generationName(w pipeline.Window, windowID int64, generation int) string {
	return fmt.Sprintf("%s_%s.window-%d.gen-%06d.landing", w.From, w.To, windowID, generation)
}

// parseGeneration reads what generationName wrote.
func parseGeneration(base string) (windowID int64, generation int, ok bool) {
	m := generationPattern.FindStringSubmatch(base)
	if m == nil {
		return 0, 0, false
	}
	windowID, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, 0, false
	}
	generation, err = strconv.Atoi(m[2])
	return windowID, generation, err == nil
}
