package landing

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
)

// syncEvery is how much drain a power failure may cost. A killed process loses nothing: the kernel has what was written.
const syncEvery = time.Second

// File is one open, locked landing file; it implements pipeline.LandingFile. Any failed write is taken back; where even that
// fails, or a sync does, the file refuses further pages until it is opened, and thereby recovered, again.
type File struct {
	dir    *Dir
	name   string
	disk   diskFile
	chain  chain
	first  int64 // where the first page's frame begins
	last   int64 // where the last page's frame begins
	size   int64 // where the next page's frame begins: the end of the last whole frame
	synced time.Time
	frame  []byte // room for Append
	unfit  error  // why the file takes no more pages
}

// recover reads what an earlier process left, and cuts it behind the last good frame. It tells whether the file belongs to key;
// if not, nothing was changed.
func (f *File) recover(key pipeline.LandingKey) (ours bool, err error) {
	info, err := f.disk.Stat()
	if err != nil {
		return false, err
	}
	header, frames, err := readHeader(f.disk, info.Size())
	if err != nil || !sameJob(header, key) {
		return false, nil // torn when it was made, damaged, or foreign: all the same, its pages are asked again
	}
	f.first, f.size = frames.at, frames.at
	for {
		start := frames.at
		head, _, err := frames.nextPage()
		if err == nil {
			err = f.chain.add(head.number, head.asked, head.got)
		}
		if err != nil {
			break // the end, or a frame that is torn or damaged: nothing behind it can be trusted
		}
		f.last, f.size = start, frames.at
	}
	if f.size == info.Size() {
		return true, nil
	}
	return true, f.disk.Truncate(f.size)
}

// begin makes the file an empty one of key's.
func (f *File) begin(key pipeline.LandingKey) error {
	header, err := encodeHeader(key)
	if err != nil {
		return err
	}
	if err := f.disk.Truncate(0); err != nil {
		return err
	}
	if err := writeAt(f.disk, header, 0); err != nil {
		return err
	}
	f.first, f.size = int64(len(header)), int64(len(header))
	failpoint.Hit(failpoint.LandingBegun)
	return nil
}

// Pages reads every whole frame from the first, in order, checking each checksum again. A page's Body and Data share a buffer that
// the next iteration uses again: clone what must outlive it. Damage ends the sequence with an error that names the page.
func (f *File) Pages() iter.Seq2[pipeline.Page, error] {
	return func(yield func(pipeline.Page, error) bool) {
		var read chain
		want, frames := f.chain, newFrameReader(f.disk, f.first, f.size)
		if f.dir.yieldPages(f.name, frames, &read, yield) && read != want {
			yield(pipeline.Page{}, fmt.Errorf("read landing file %s: it has %d pages, want %d", f.name, read.pages, want.pages))
		}
	}
}

// yieldPages yields the pages that frames still has. It returns whether it came to the end in good order.
func (d *Dir) yieldPages(name string, frames *frameReader, read *chain, yield func(pipeline.Page, error) bool) bool {
	var room []byte
	for {
		head, body, err := frames.nextPage()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err == nil {
			err = read.add(head.number, head.asked, head.got)
		}
		var p pipeline.Page
		if err == nil {
			p, err = head.page(body, room, d.decoder)
		}
		if err != nil {
			yield(pipeline.Page{}, fmt.Errorf("read page %d of landing file %s: %w", read.pages+1, name, err))
			return false
		}
		if !yield(p, nil) {
			return false
		}
		room = p.Body
	}
}

// Frames is how many pages are landed.
func (f *File) Frames() int { return int(f.chain.pages) }

// Complete tells whether the end marker came.
func (f *File) Complete() bool { return f.chain.complete() }

// Size is the file's bytes on disk.
func (f *File) Size() int64 { return f.size }

// Last reads the last page landed; its Body is the caller's. Without a page it is an error.
func (f *File) Last() (pipeline.Page, error) {
	if f.chain.pages == 0 {
		return pipeline.Page{}, fmt.Errorf("read the last page of landing file %s: it has none", f.name)
	}
	head, body, err := newFrameReader(f.disk, f.last, f.size).nextPage()
	if err == nil && (head.number != f.chain.pages || head.got != f.chain.got) {
		err = fmt.Errorf("found page %d", head.number)
	}
	var p pipeline.Page
	if err == nil {
		p, err = head.page(body, nil, f.dir.decoder)
	}
	if err != nil {
		return pipeline.Page{}, fmt.Errorf("read page %d of landing file %s: %w", f.chain.pages, f.name, noEOF(err))
	}
	return p, nil
}

// Append writes one page as one frame, data and position in one write, and syncs about once a second. It refuses a page that was
// not asked with the marker of the page before, and any page after the last. After an error nothing of the page is in the file. An
// error that wraps pipeline.ErrDiskFull says how many pages are kept; free space, and a later run goes on behind them.
func (f *File) Append(p pipeline.Page) error {
	number := f.chain.pages + 1
	if err := f.append(number, p); err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w, %d pages are kept, free space and run again: %w", pipeline.ErrDiskFull, f.chain.pages, err)
		}
		return fmt.Errorf("append page %d to landing file %s: %w", number, f.name, err)
	}
	return nil
}

func (f *File) append(number uint64, p pipeline.Page) error {
	if f.unfit != nil {
		return f.unfit
	}
	next := f.chain
	if err := next.add(number, p.Asked, p.Next); err != nil {
		return err
	}
	frame, err := encodePage(f.frame[:0], number, p, f.dir.encoder)
	if err != nil {
		return err
	}
	f.frame = frame
	if err := failpoint.Err(failpoint.LandingAppend); err != nil {
		return err
	}
	err = writeAt(f.disk, frame, f.size)
	if err == nil {
		err = failpoint.Err(failpoint.LandingAppended)
	}
	if err == nil {
		err = f.syncNowAndThen()
	}
	if err != nil {
		return f.takeBack(err)
	}
	f.chain, f.last = next, f.size
	f.size += int64(len(frame))
	return nil
}

// takeBack cuts what a failed append left behind the last whole frame.
func (f *File) takeBack(cause error) error {
	if err := f.disk.Truncate(f.size); err != nil {
		f.unfit = fmt.Errorf("an earlier page could not be taken back: %w", err)
		return errors.Join(cause, f.unfit)
	}
	return cause
}

// syncNowAndThen makes what was written durable if the last time was a second ago. After a failed sync the kernel may have dropped
// what it could not write, and calls the next one a success; so there is no next one.
func (f *File) syncNowAndThen() error {
	now := f.dir.now()
	if now.Sub(f.synced) < syncEvery {
		return nil
	}
	if err := f.sync(); err != nil {
		return err
	}
	f.synced = now
	failpoint.Hit(failpoint.LandingSynced)
	return nil
}

func (f *File) sync() error {
	if err := f.disk.Sync(); err != nil {
		f.unfit = fmt.Errorf("an earlier sync failed: %w", err)
		return err
	}
	return nil
}

// Restart empties the file, for a job whose results moved or a drain that starts over.
func (f *File) Restart() error {
	if f.unfit != nil {
		return fmt.Errorf("empty landing file %s: %w", f.name, f.unfit)
	}
	if err := f.disk.Truncate(f.first); err != nil {
		f.unfit = fmt.Errorf("an earlier restart failed: %w", err)
		return fmt.Errorf("empty landing file %s: %w", f.name, err)
	}
	f.chain, f.last, f.size = chain{}, 0, f.first
	return nil
}

// Close syncs and unlocks. A second Close does nothing.
func (f *File) Close() error {
	if errors.Is(f.unfit, fs.ErrClosed) {
		return nil
	}
	var err error
	if f.unfit == nil {
		err = f.sync()
	}
	f.unfit = fs.ErrClosed
	f.dir.forget(f)
	if err = errors.Join(err, f.disk.Close()); err != nil {
		return fmt.Errorf("close landing file %s: %w", f.name, err)
	}
	return nil
}

// writeAt writes all of b at the position, or says why not; what a short write left there is the caller's to cut.
func writeAt(w io.WriterAt, b []byte, at int64) error {
	n, err := w.WriteAt(b, at)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}
