package pipeline

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// rejects keeps the rejected records of a window under way in an unlinked file, so that memory stays flat however many they are, and
// a crash leaves nothing behind. The file appears with the first of them.
type rejects struct {
	dir  string
	file *os.File
	buf  *bufio.Writer
	enc  *json.Encoder
}

// rejectedAt is a reject with its place among all records of the job.
type rejectedAt struct {
	Seq int64
	Rejected
}

func (r *rejects) add(seq int64, rejected Rejected) error {
	if r.file == nil {
		f, err := os.CreateTemp(r.dir, ".rejects-*")
		if err != nil {
			return fmt.Errorf("create the spill of rejects: %w", err)
		}
		if err := os.Remove(f.Name()); err != nil {
			return errors.Join(fmt.Errorf("unlink the spill of rejects: %w", err), f.Close())
		}
		r.file, r.buf = f, bufio.NewWriter(f)
		r.enc = json.NewEncoder(r.buf)
	}
	if err := r.enc.Encode(rejectedAt{seq, rejected}); err != nil {
		return fmt.Errorf("spill a reject: %w", err)
	}
	return nil
}

// all yields the rejects in the order in which they came, each with its ordinal among exact twins. It may be called repeatedly.
func (r *rejects) all(twins *record.Twins) iter.Seq2[Rejected, error] {
	return func(yield func(Rejected, error) bool) {
		if r.file == nil {
			return
		}
		if err := r.buf.Flush(); err != nil {
			yield(Rejected{}, fmt.Errorf("spill rejects: %w", err))
			return
		}
		ordinals := twins.Pass()
		dec := json.NewDecoder(bufio.NewReader(io.NewSectionReader(r.file, 0, 1<<62)))
		for {
			var at rejectedAt
			err := dec.Decode(&at)
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				at.Ordinal, err = ordinals.Ordinal(at.Seq)
			}
			if err != nil {
				yield(Rejected{}, fmt.Errorf("read a spilled reject: %w", err))
				return
			}
			if !yield(at.Rejected, nil) {
				return
			}
		}
	}
}

func (r *rejects) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
