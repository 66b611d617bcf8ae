package landing

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
)

// Keep links the job's file to the generation of the window that it published, takes the job's name from it, and removes the
// window's generations beyond the newest `keep`. Called again after a crash at any point it finishes what is left to do. A file
// that was lost, or that belongs to another job, is no error: then there is no evidence to keep. A File that is open on it can still
// be read, but takes no more pages.
func (d *Dir) Keep(key pipeline.LandingKey, windowID int64, generation int) error {
	if err := d.keepJob(key, windowID, generation); err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w, free space and run again: %w", pipeline.ErrDiskFull, err)
		}
		return fmt.Errorf("keep landing file of job %d as window %d generation %d (%s): %w", key.JobRow, windowID, generation, key.Window, err)
	}
	return nil
}

func (d *Dir) keepJob(key pipeline.LandingKey, windowID int64, generation int) error {
	folder, err := folderOf(key.Stream, key.Window.Scope)
	if err != nil {
		return err
	}
	job := path.Join(folder, jobName(key))
	kept := path.Join(folder, generationName(key.Window, windowID, generation))
	if err := d.moveJob(job, kept, key); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SettleUnlinked)
	if err := d.prune(folder, kept); err != nil {
		return err
	}
	err = syncFolder(d.disk, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing ever landed here
	}
	return err
}

// moveJob gives the job's file its generation's name, if generations are kept, and takes the job's name from it.
func (d *Dir) moveJob(job, kept string, key pipeline.LandingKey) error {
	handle, own, release, err := d.hold(job)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	header, _, err := openHeader(handle)
	if err != nil || !sameJob(header, key) {
		return release() // not what was published
	}
	if own != nil {
		own.unfit = errGone // evidence doesn't change
	}
	if d.keep > 0 {
		err = d.link(handle, job, kept)
		failpoint.Hit(failpoint.SettleLinked)
	}
	if err == nil {
		err = removeIfThere(d.disk, job)
	}
	return errors.Join(err, release())
}

// link makes kept a durable second name of the job's file, replacing what another history of the ledger may have left there.
func (d *Dir) link(handle diskFile, job, kept string) error {
	if err := handle.Sync(); err != nil {
		return err
	}
	linked, err := isNamed(d.disk, handle, kept)
	if err != nil {
		return err
	}
	if linked {
		return syncFolder(d.disk, path.Dir(kept)) // before a crash, so perhaps not durably
	}
	if err := removeIfThere(d.disk, kept); err != nil {
		return err
	}
	err = d.disk.Link(job, kept)
	if linkUnsupported(err) {
		err = d.copyTo(kept, handle)
	}
	if err != nil {
		return err
	}
	return syncFolder(d.disk, path.Dir(kept))
}

func linkUnsupported(err error) bool {
	for _, e := range []error{syscall.EPERM, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EMLINK, syscall.EXDEV} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// copyTo copies the file for file systems without hard links (exFAT, some network shares).
func (d *Dir) copyTo(kept string, from diskFile) error {
	temporary := kept + temporarySuffix
	if err := removeIfThere(d.disk, temporary); err != nil {
		return err
	}
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := lockFile(d.disk, temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL) // locked against Tidy
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(to, 0), io.NewSectionReader(from, 0, info.Size()))
	if err == nil {
		err = to.Sync()
	}
	if err == nil {
		err = d.disk.Rename(temporary, kept)
	}
	if err != nil {
		err = errors.Join(err, removeIfThere(d.disk, temporary))
	}
	return errors.Join(err, to.Close())
}

const temporarySuffix = ".tmp"

func isTemporary(base string) bool {
	job, found := strings.CutSuffix(base, temporarySuffix)
	return found && generationPattern.MatchString(job)
}

// tidyTemporary removes what a killed Keep left half copied; a copy under way is locked.
func (d *Dir) tidyTemporary(name string) error {
	handle, err := lockFile(d.disk, name, os.O_RDWR)
	if errors.Is(err, pipeline.ErrLandingLocked) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(removeIfThere(d.disk, name), handle.Close())
}

// prune removes the generations of kept's window beyond the newest, and namesakes of kept: the same window and generation with
// another end, from a ledger that was set back.
func (d *Dir) prune(folder, kept string) error {
	windowID, generation, _ := parseGeneration(path.Base(kept))
	generations, err := d.generations(folder, windowID)
	if err != nil {
		return err
	}
	isKept := func(g keptFile) bool { return g.base == path.Base(kept) }
	if slices.ContainsFunc(generations, isKept) {
		for _, g := range generations {
			if g.generation == generation && !isKept(g) {
				if err := removeIfThere(d.disk, path.Join(folder, g.base)); err != nil {
					return err
				}
			}
		}
		generations = slices.DeleteFunc(generations, func(g keptFile) bool { return g.generation == generation && !isKept(g) })
	}
	for i, g := range generations {
		if i < d.keep {
			continue
		}
		if err := removeIfThere(d.disk, path.Join(folder, g.base)); err != nil {
			return err
		}
	}
	return nil
}

type keptFile struct {
	base       string
	generation int
}

// generations lists a window's kept files, the newest first.
func (d *Dir) generations(folder string, windowID int64) ([]keptFile, error) {
	entries, err := readFolder(d.disk, folder)
	if err != nil {
		return nil, err
	}
	var kept []keptFile
	for _, entry := range entries {
		if id, generation, ok := parseGeneration(entry.Name()); ok && id == windowID {
			kept = append(kept, keptFile{entry.Name(), generation})
		}
	}
	slices.SortFunc(kept, func(a, b keptFile) int {
		return cmp.Or(cmp.Compare(b.generation, a.generation), cmp.Compare(b.base, a.base))
	})
	return kept, nil
}

// Kept opens the pages of a kept generation for reading, and returns the job that they came from. It is found by window id and
// generation, whatever its dates; fs.ErrNotExist if it was not kept. The pages may be read more than once; each reading opens the
// file, and ends with an error if the file is damaged or lacks its last page. A page's Body is good until the next one.
func (d *Dir) Kept(w pipeline.Window, windowID int64, generation int) (pipeline.LandingKey, iter.Seq2[pipeline.Page, error], error) {
	name, err := d.findKept(w.Scope, windowID, generation)
	if err != nil {
		return pipeline.LandingKey{}, nil, fmt.Errorf("read landing file of window %d generation %d (%s): %w", windowID, generation, w, err)
	}
	key, err := d.readKey(name)
	if err != nil {
		return pipeline.LandingKey{}, nil, fmt.Errorf("read landing file %s: %w", name, err)
	}
	pages := func(yield func(pipeline.Page, error) bool) {
		handle, err := d.disk.OpenFile(name, os.O_RDONLY, 0)
		if err != nil {
			yield(pipeline.Page{}, fmt.Errorf("read landing file %s: %w", name, err))
			return
		}
		defer handle.Close() // only read: closing can't lose anything
		_, frames, err := openHeader(handle)
		if err != nil {
			yield(pipeline.Page{}, fmt.Errorf("read landing file %s: %w", name, err))
			return
		}
		var read chain
		if d.yieldPages(name, frames, &read, yield) && !read.complete() {
			yield(pipeline.Page{}, fmt.Errorf("read landing file %s: it ends after page %d, which is not the last", name, read.pages))
		}
	}
	return key, pages, nil
}

// findKept looks through every stream, since window ids are unique across them.
func (d *Dir) findKept(scope pipeline.Scope, windowID int64, generation int) (string, error) {
	if err := scope.Validate(); err != nil {
		return "", err
	}
	streams, err := readFolder(d.disk, ".")
	if err != nil {
		return "", err
	}
	for _, stream := range streams {
		if !stream.IsDir() {
			continue
		}
		folder := path.Join(stream.Name(), scopeFolder(scope))
		kept, err := d.generations(folder, windowID)
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(kept, func(k keptFile) bool { return k.generation == generation })
		if i >= 0 {
			return path.Join(folder, kept[i].base), nil
		}
	}
	return "", fs.ErrNotExist
}

func (d *Dir) readKey(name string) (pipeline.LandingKey, error) {
	handle, err := d.disk.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return pipeline.LandingKey{}, err
	}
	key, _, err := openHeader(handle)
	return key, errors.Join(err, handle.Close())
}
