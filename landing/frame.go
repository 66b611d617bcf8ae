package landing

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// MaxBody is the largest page body, in bytes, that a landing file takes.
const MaxBody = 64 << 20

// The format, as docs/landing-format.md describes it. The last byte of magic is its version.
const (
	magic = "SDRLAND\x01"

	typeHeader = 'H'
	typePage   = 'P'

	lengthSize = 4
	crcSize    = 4
	maxMarker  = 64 << 10
	// maxFrame leaves room for two markers and for what zstd adds to a body that doesn't compress (3 bytes in 128 KiB).
	maxFrame = MaxBody + 1<<20
)

// castagnoli is CRC-32C, which processors compute by themselves. The table is never written to.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pageHead is what a page's frame says before its body.
type pageHead struct {
	number     uint64 // from 1
	asked, got string
	rawSize    uint64 // of the body when decompressed
	dataStart  uint64 // of the JSON array of records in the body
	dataSize   uint64
}

// beginFrame starts a frame in buf; sealFrame ends it.
func beginFrame(buf []byte, kind byte) []byte {
	return append(buf, 0, 0, 0, 0, kind)
}

// sealFrame writes the length of the frame that begins at start, and appends its checksum.
func sealFrame(buf []byte, start int) []byte {
	binary.LittleEndian.PutUint32(buf[start:], uint32(len(buf)-start-lengthSize+crcSize))
	return binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf[start:], castagnoli))
}

// encodeHeader returns the beginning of a landing file: magic and header frame.
func encodeHeader(key pipeline.LandingKey) ([]byte, error) {
	text, err := json.Marshal(normalKey(key))
	if err != nil {
		return nil, err
	}
	buf := []byte(magic)
	buf = append(beginFrame(buf, typeHeader), text...)
	return sealFrame(buf, len(magic)), nil
}

// normalKey drops what the ledger would not give back: the zone of CreatedAt, and its part below a microsecond.
func normalKey(key pipeline.LandingKey) pipeline.LandingKey {
	key.CreatedAt = key.CreatedAt.UTC().Truncate(time.Microsecond)
	return key
}

// sameJob tells whether pages landed under a are answers for b: the same job, asked the same, made at the same instant (row
// numbers start again in a new database).
func sameJob(a, b pipeline.LandingKey) bool {
	a, b = normalKey(a), normalKey(b)
	return a.Stream == b.Stream && a.JobRow == b.JobRow && a.JobID == b.JobID && a.Request == b.Request && a.CreatedAt.Equal(b.CreatedAt)
}

// encodePage appends the frame of p to buf.
func encodePage(buf []byte, number uint64, p pipeline.Page, enc *zstd.Encoder) ([]byte, error) {
	if len(p.Body) > MaxBody {
		return nil, fmt.Errorf("its body has %d bytes, a landing file takes %d", len(p.Body), MaxBody)
	}
	if len(p.Asked) > maxMarker || len(p.Next) > maxMarker {
		return nil, fmt.Errorf("a marker has more than %d bytes", maxMarker)
	}
	dataStart := 0
	if len(p.Data) > 0 {
		// Data is a part of Body. Where the same bytes stand twice either place will do.
		if dataStart = bytes.Index(p.Body, p.Data); dataStart < 0 {
			return nil, errors.New("its data is no part of its body")
		}
	}
	start := len(buf)
	buf = beginFrame(buf, typePage)
	buf = binary.AppendUvarint(buf, number)
	buf = append(binary.AppendUvarint(buf, uint64(len(p.Asked))), p.Asked...)
	buf = append(binary.AppendUvarint(buf, uint64(len(p.Next))), p.Next...)
	buf = binary.AppendUvarint(buf, uint64(len(p.Body)))
	buf = binary.AppendUvarint(buf, uint64(dataStart))
	buf = binary.AppendUvarint(buf, uint64(len(p.Data)))
	buf = enc.EncodeAll(p.Body, buf)
	return sealFrame(buf, start), nil
}

// decodePage reads the payload of a page frame; body is still compressed and aliases payload.
func decodePage(payload []byte) (head pageHead, body []byte, err error) {
	rest := payload
	number := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			err, rest = errors.New("its head is cut or overflows"), nil
			return 0
		}
		rest = rest[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > uint64(len(rest)) || n > maxMarker {
			err, rest = errors.New("a marker is cut or too long"), nil
			return ""
		}
		s := string(rest[:n])
		rest = rest[n:]
		return s
	}
	head.number = number()
	head.asked = text()
	head.got = text()
	head.rawSize = number()
	head.dataStart = number()
	head.dataSize = number()
	switch {
	case err != nil:
		return pageHead{}, nil, err
	case head.rawSize > MaxBody:
		return pageHead{}, nil, fmt.Errorf("its body has %d bytes, a landing file takes %d", head.rawSize, MaxBody)
	case head.dataStart > head.rawSize || head.dataSize > head.rawSize-head.dataStart:
		return pageHead{}, nil, errors.New("its data reaches beyond its body")
	}
	return head, rest, nil
}

// page decompresses body into room, which it may replace by a larger one, and returns the page.
func (h pageHead) page(body, room []byte, dec *zstd.Decoder) (pipeline.Page, error) {
	if uint64(cap(room)) < h.rawSize {
		room = make([]byte, 0, h.rawSize)
	}
	raw, err := dec.DecodeAll(body, room[:0:h.rawSize]) // never beyond the capacity given: see newCodec
	if err != nil {
		return pipeline.Page{}, fmt.Errorf("decompress: %w", err)
	}
	if uint64(len(raw)) != h.rawSize {
		return pipeline.Page{}, fmt.Errorf("decompress: got %d bytes, want %d", len(raw), h.rawSize)
	}
	p := pipeline.Page{Asked: h.asked, Next: h.got, Body: raw}
	if h.dataSize > 0 {
		p.Data = raw[h.dataStart : h.dataStart+h.dataSize]
	}
	return p, nil
}

// newCodec returns the one encoder and the one decoder of a Dir. Both work on whole bodies, have no goroutines, and let at most
// `parallel` callers in at once, which bounds their memory.
func newCodec(parallel int) (*zstd.Encoder, *zstd.Decoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(parallel), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(parallel), zstd.WithDecoderMaxMemory(MaxBody+1), zstd.WithDecodeAllCapLimit(true))
	return enc, dec, err
}

// frameReader reads the frames of a landing file in order. What it returns is good until its next call.
type frameReader struct {
	r    *bufio.Reader
	at   int64 // where the next frame begins
	size int64
	buf  []byte
}

func newFrameReader(r io.ReaderAt, at, size int64) *frameReader {
	room := int(min(size-at, 256<<10))
	return &frameReader{r: bufio.NewReaderSize(io.NewSectionReader(r, at, size-at), room), at: at, size: size}
}

// next returns the next frame's type and payload, io.EOF behind the last one. After another error, reading on makes no sense.
func (fr *frameReader) next() (kind byte, payload []byte, err error) {
	left := fr.size - fr.at
	if left == 0 {
		return 0, nil, io.EOF
	}
	var length [lengthSize]byte
	if _, err := io.ReadFull(fr.r, length[:]); err != nil {
		return 0, nil, fmt.Errorf("read the frame at %d: %w", fr.at, noEOF(err))
	}
	n := int64(binary.LittleEndian.Uint32(length[:]))
	// The length is checked before it is believed: a flipped bit must not ask for 4 GiB.
	if n < 1+crcSize || n > maxFrame || n > left-lengthSize {
		return 0, nil, fmt.Errorf("read the frame at %d: its length %d is impossible or it is cut", fr.at, n)
	}
	if int64(cap(fr.buf)) < lengthSize+n {
		fr.buf = make([]byte, lengthSize+n)
	}
	frame := fr.buf[:lengthSize+n]
	copy(frame, length[:])
	if _, err := io.ReadFull(fr.r, frame[lengthSize:]); err != nil {
		return 0, nil, fmt.Errorf("read the frame at %d: %w", fr.at, noEOF(err))
	}
	end := len(frame) - crcSize
	if crc32.Checksum(frame[:end], castagnoli) != binary.LittleEndian.Uint32(frame[end:]) {
		return 0, nil, fmt.Errorf("read the frame at %d: checksum mismatch", fr.at)
	}
	fr.at += int64(len(frame))
	return frame[lengthSize], frame[lengthSize+1 : end], nil
}

// nextPage returns the next page's head and compressed body, io.EOF behind the last one.
func (fr *frameReader) nextPage() (pageHead, []byte, error) {
	at := fr.at
	kind, payload, err := fr.next()
	if err != nil {
		return pageHead{}, nil, err
	}
	if kind != typePage {
		return pageHead{}, nil, fmt.Errorf("read the frame at %d: type %q is no page", at, kind)
	}
	head, body, err := decodePage(payload)
	if err != nil {
		return pageHead{}, nil, fmt.Errorf("read the frame at %d: %w", at, err)
	}
	return head, body, nil
}

// readHeader reads the beginning of a landing file and returns a reader that stands before the first page.
func readHeader(r io.ReaderAt, size int64) (pipeline.LandingKey, *frameReader, error) {
	var key pipeline.LandingKey
	begin := make([]byte, len(magic))
	if _, err := r.ReadAt(begin, 0); err != nil {
		return key, nil, fmt.Errorf("read the header: %w", noEOF(err))
	}
	if string(begin) != magic {
		return key, nil, fmt.Errorf("read the header: it begins with %q, want %q", begin, magic)
	}
	fr := newFrameReader(r, int64(len(magic)), size)
	kind, payload, err := fr.next()
	if err != nil {
		return key, nil, fmt.Errorf("read the header: %w", noEOF(err))
	}
	if kind != typeHeader {
		return key, nil, fmt.Errorf("read the header: the first frame has type %q", kind)
	}
	if err := json.Unmarshal(payload, &key); err != nil {
		return key, nil, fmt.Errorf("read the header: %w", err)
	}
	return key, fr, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// chain is how far a drain got: the pages landed and the marker that the last of them gave.
type chain struct {
	pages uint64
	got   string
}

// complete tells whether the end marker came.
func (c chain) complete() bool { return c.pages > 0 && c.got == "" }

// add takes the next page, or says why it is not the next.
func (c *chain) add(number uint64, asked, got string) error {
	switch {
	case c.complete():
		return fmt.Errorf("page %d follows the last page", number)
	case number != c.pages+1:
		return fmt.Errorf("page %d follows page %d", number, c.pages)
	case number > math.MaxInt32:
		return fmt.Errorf("page %d is more than a file can have", number)
	case number > 1 && asked != c.got: // the first page of a list has a marker too
		return fmt.Errorf("page %d was asked with marker %q, the page before it gave %q", number, asked, c.got)
	}
	c.pages, c.got = number, got
	return nil
}
