package record

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Sizes of finding twins.
const (
	twinBuckets  = 64
	twinEntry    = 16 + 8              // hash, seq
	twinBlock    = 8192 / twinEntry    // entries buffered for one bucket
	twinRun      = 1 << 18             // entries sorted in memory at once: 6 MiB
	ordinalEntry = 8 + 4               // seq, ordinal
	ordinalBlock = 4096 / ordinalEntry // entries buffered for one range
	ordinalParts = 256                 // ranges of seq at most
	ordinalRange = 4096                // records in a range at least
)

// Twins finds the records of one job that have equal hashes, in flat memory: it spills the hashes into buckets in a file and
// looks at one bucket at a time. Every occurrence of a hash but the first is a twin, and its ordinal is how many came before it. Use:
// Add all records, Finish, then any number of passes, then Close. It is not safe for concurrent use.
type Twins struct {
	spill   spill
	buckets [twinBuckets]chain
	next    int64 // the lowest seq that may be added
	count   int64 // twins
	done    bool

	ordinals  []chain // by range of seq
	rangeSize int64
}

// NewTwins returns a Twins that spills into dir. Its file has no name from the start, so that a crash leaves nothing behind.
func NewTwins(dir string) (*Twins, error) {
	f, err := os.CreateTemp(dir, "twins-*")
	if err != nil {
		return nil, fmt.Errorf("create twins spill file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink twins spill file: %w", err), f.Close())
	}
	return &Twins{spill: spill{file: f}}, nil
}

// Add notes that the record at place seq of the job has the hash h. Places must rise; they need not be dense.
func (t *Twins) Add(seq int64, h Hash) error {
	if t.done || seq < t.next {
		return fmt.Errorf("add record %d to twins: want a place from %d on, before Finish", seq, t.next)
	}
	t.next = seq + 1
	c := &t.buckets[h[0]%twinBuckets]
	if c.buf == nil {
		c.buf = make([]byte, 0, twinBlock*twinEntry)
	}
	c.buf = append(c.buf, h[:]...)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(seq))
	if len(c.buf) == twinBlock*twinEntry {
		return t.spill.flush(c)
	}
	return nil
}

// Finish finds the twins. The disk needs room for twice the hashes at worst, and for the twins.
func (t *Twins) Finish() error {
	if t.done {
		return errors.New("finish twins: it is done")
	}
	t.done = true
	t.rangeSize = max(ordinalRange, (t.next+ordinalParts-1)/ordinalParts)
	t.ordinals = make([]chain, (t.next+t.rangeSize-1)/t.rangeSize)
	var entries []twin
	for i := range t.buckets {
		var err error
		if entries, err = t.finishBucket(&t.buckets[i], entries); err != nil {
			return fmt.Errorf("find twins: %w", err)
		}
		t.buckets[i] = chain{}
	}
	for i := range t.ordinals {
		if err := t.spill.flush(&t.ordinals[i]); err != nil {
			return fmt.Errorf("find twins: %w", err)
		}
		t.ordinals[i].buf = nil
	}
	return nil
}

// twin is an entry of a bucket.
type twin struct {
	hash Hash
	seq  int64
}

// finishBucket goes through the entries of one bucket, sorted by hash, then seq. A bucket stays small unless a great part of the job is
// twins; then it is sorted in runs on disk, which are merged. It returns entries for reuse.
func (t *Twins) finishBucket(c *chain, entries []twin) ([]twin, error) {
	if err := t.spill.flush(c); err != nil {
		return entries, err
	}
	var runs []chain
	entries = entries[:0]
	for i, block := range c.blocks {
		data, err := t.spill.read(block)
		if err != nil {
			return entries, err
		}
		for ; len(data) > 0; data = data[twinEntry:] {
			entries = append(entries, readTwin(data))
		}
		if last := i == len(c.blocks)-1; len(entries) < twinRun && !(last && len(runs) > 0) {
			continue
		}
		sortTwins(entries)
		run, err := t.writeRun(entries)
		if err != nil {
			return entries, err
		}
		runs, entries = append(runs, run), entries[:0]
	}

	var group twinGroup
	if len(runs) == 0 {
		sortTwins(entries)
		for _, e := range entries {
			if err := t.note(e.seq, group.ordinal(e.hash)); err != nil {
				return entries, err
			}
		}
		return entries, nil
	}
	return entries, t.merge(runs, func(e twin) error { return t.note(e.seq, group.ordinal(e.hash)) })
}

func readTwin(data []byte) twin {
	return twin{hash: Hash(data[:16]), seq: int64(binary.BigEndian.Uint64(data[16:]))}
}

func sortTwins(entries []twin) {
	slices.SortFunc(entries, compareTwins)
}

func compareTwins(a, b twin) int {
	return cmp.Or(
		cmp.Compare(binary.BigEndian.Uint64(a.hash[:8]), binary.BigEndian.Uint64(b.hash[:8])),
		cmp.Compare(binary.BigEndian.Uint64(a.hash[8:]), binary.BigEndian.Uint64(b.hash[8:])),
		cmp.Compare(a.seq, b.seq),
	)
}

// writeRun writes sorted entries to the spill file.
func (t *Twins) writeRun(entries []twin) (chain, error) {
	var run chain
	for _, e := range entries {
		run.buf = append(run.buf, e.hash[:]...)
		run.buf = binary.BigEndian.AppendUint64(run.buf, uint64(e.seq))
		if len(run.buf) == twinBlock*twinEntry {
			if err := t.spill.flush(&run); err != nil {
				return run, err
			}
		}
	}
	err := t.spill.flush(&run)
	run.buf = nil
	return run, err
}

// merge calls yield with the entries of all runs in order. There is one run per 262,144 entries of a bucket, so that the least of
// their heads is found by looking at all.
func (t *Twins) merge(runs []chain, yield func(twin) error) error {
	type head struct {
		entry twin
		buf   []byte // the block being read
		data  []byte // what is left of it
		rest  []block
	}
	var heads []*head
	advance := func(h *head) (more bool, err error) {
		if len(h.data) == 0 {
			if len(h.rest) == 0 {
				return false, nil
			}
			data, err := t.spill.read(h.rest[0])
			if err != nil {
				return false, err
			}
			h.buf = append(h.buf[:0], data...)
			h.data, h.rest = h.buf, h.rest[1:]
		}
		h.entry, h.data = readTwin(h.data), h.data[twinEntry:]
		return true, nil
	}
	for _, run := range runs {
		h := &head{rest: run.blocks}
		if more, err := advance(h); err != nil {
			return err
		} else if more {
			heads = append(heads, h)
		}
	}
	for len(heads) > 0 {
		least := 0
		for i, h := range heads {
			if compareTwins(h.entry, heads[least].entry) < 0 {
				least = i
			}
		}
		if err := yield(heads[least].entry); err != nil {
			return err
		}
		more, err := advance(heads[least])
		if err != nil {
			return err
		}
		if !more {
			heads = slices.Delete(heads, least, least+1)
		}
	}
	return nil
}

// twinGroup counts the occurrences of hashes that come sorted.
type twinGroup struct {
	hash  Hash
	count int32
}

// ordinal returns how often h came before.
func (g *twinGroup) ordinal(h Hash) int32 {
	if h != g.hash {
		g.hash, g.count = h, 0
	}
	g.count++
	return g.count - 1
}

// note keeps an ordinal that is not zero.
func (t *Twins) note(seq int64, ordinal int32) error {
	if ordinal == 0 {
		return nil
	}
	t.count++
	c := &t.ordinals[seq/t.rangeSize]
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(seq))
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(ordinal))
	if len(c.buf) == ordinalBlock*ordinalEntry {
		return t.spill.flush(c)
	}
	return nil
}

// Count returns how many records have an ordinal above 0. It is known after Finish.
func (t *Twins) Count() int64 { return t.count }

// Pass begins a pass over the records of the job, which is good until Close. Call Finish before.
func (t *Twins) Pass() *TwinPass { return &TwinPass{twins: t, part: -1} }

// Close gives the disk space back. Twins and its passes are of no use then.
func (t *Twins) Close() error {
	if err := t.spill.file.Close(); err != nil {
		return fmt.Errorf("close twins spill file: %w", err)
	}
	return nil
}

// TwinPass tells the ordinals of records that come in the order they were added in. It is not safe for concurrent use.
type TwinPass struct {
	twins    *Twins
	part     int64   // range that ordinals holds
	ordinals []int32 // by seq within the range; empty if the range has no twins
}

// Ordinal returns the ordinal of the record at place seq: 0 for all that are no twins. Going back is allowed but slow.
func (p *TwinPass) Ordinal(seq int64) (int32, error) {
	t := p.twins
	if !t.done || seq < 0 || seq >= t.next {
		return 0, fmt.Errorf("look twin ordinal up: record %d was not added, or Finish not called", seq)
	}
	if part := seq / t.rangeSize; part != p.part {
		if err := p.load(part); err != nil {
			return 0, fmt.Errorf("look twin ordinal up for record %d: %w", seq, err)
		}
	}
	if len(p.ordinals) == 0 {
		return 0, nil
	}
	return p.ordinals[seq%t.rangeSize], nil
}

func (p *TwinPass) load(part int64) error {
	t := p.twins
	p.part, p.ordinals = -1, p.ordinals[:0]
	for i, block := range t.ordinals[part].blocks {
		if i == 0 {
			p.ordinals = slices.Grow(p.ordinals, int(t.rangeSize))[:t.rangeSize]
			clear(p.ordinals)
		}
		data, err := t.spill.read(block)
		if err != nil {
			return err
		}
		for ; len(data) > 0; data = data[ordinalEntry:] {
			seq := int64(binary.BigEndian.Uint64(data))
			p.ordinals[seq%t.rangeSize] = int32(binary.BigEndian.Uint32(data[8:]))
		}
	}
	p.part = part
	return nil
}

// spill is an append-only file of blocks. The chains know which blocks are theirs.
type spill struct {
	file *os.File
	end  int64
	buf  []byte
}

// chain is a series of entries: blocks in the spill file, and a buffer of what is not there yet.
type chain struct {
	blocks []block
	buf    []byte
}

type block struct {
	offset int64
	size   int
}

// flush appends the buffer of c to the file as one block.
func (s *spill) flush(c *chain) error {
	if len(c.buf) == 0 {
		return nil
	}
	if _, err := s.file.WriteAt(c.buf, s.end); err != nil {
		return fmt.Errorf("write twins spill file: %w", err)
	}
	c.blocks = append(c.blocks, block{offset: s.end, size: len(c.buf)})
	s.end += int64(len(c.buf))
	c.buf = c.buf[:0]
	return nil
}

// read returns the bytes of b; they are good until the next read.
func (s *spill) read(b block) ([]byte, error) {
	s.buf = slices.Grow(s.buf[:0], b.size)[:b.size]
	if _, err := s.file.ReadAt(s.buf, b.offset); err != nil {
		return nil, fmt.Errorf("read twins spill file: %w", err)
	}
	return s.buf, nil
}
