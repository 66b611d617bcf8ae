package verify

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"regexp"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// Landing files, as docs/landing-format.md describes them.
const (
	landingMagic = "SDRLAND\x01"
	maxBody      = 64 << 20
	maxFrame     = 65 << 20
	maxMarker    = 64 << 10
)

// Page is what came for one page of a query job or list.
type Page struct {
	Asked string // marker that was sent; of a list, the URL query that says what it was asked for
	Data  []byte // the JSON array of records, or the one record; empty for a page without records
}

// landingHeader is what a landing file says of its job.
type landingHeader struct {
	Stream string `json:"stream"`
	Window struct {
		Scope struct {
			Site   string `json:"site"`
			Region string `json:"region"`
		} `json:"scope"`
		From string `json:"from"`
	} `json:"window"`
	JobRow int64 `json:"job_row"`
}

var keptForm = regexp.MustCompile(`^[0-9-]+_[0-9-]+\.window-([0-9]+)\.gen-([0-9]{6,})\.landing$`)

// keptFile finds the landing file that a window's current generation came from: the newest that is not newer than it. A generation that a
// replay made has none of its own. The name is relative to root; "" says that none was kept.
func keptFile(root *os.Root, w *window) (name string, err error) {
	region := w.region
	if region == "" {
		region = "@all"
	}
	folder := path.Join(w.stream, w.site, region)
	entries, err := fs.ReadDir(root.FS(), folder)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("list landing files: %w", err)
	}
	newest := -1
	for _, e := range entries {
		m := keptForm.FindStringSubmatch(e.Name())
		if m == nil || m[1] != strconv.FormatInt(w.id, 10) {
			continue
		}
		if generation, err := strconv.Atoi(m[2]); err == nil && generation <= w.generation && generation > newest {
			name, newest = path.Join(folder, e.Name()), generation
		}
	}
	return name, nil
}

// landingFile reads one landing file from its beginning to its end.
type landingFile struct {
	header landingHeader
	file   *os.File
	read   *bufio.Reader
	at     int64
	zstd   *zstd.Decoder
}

func openLanding(root *os.Root, name string) (*landingFile, error) {
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	f := &landingFile{file: file, read: bufio.NewReaderSize(file, 1<<20)}
	if f.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBody+1)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := f.readHeader(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *landingFile) close() error {
	f.zstd.Close()
	return f.file.Close()
}

func (f *landingFile) readHeader() error {
	begin := make([]byte, len(landingMagic))
	if _, err := io.ReadFull(f.read, begin); err != nil || string(begin) != landingMagic {
		return fmt.Errorf("it begins with %q, want %q", begin, landingMagic)
	}
	f.at = int64(len(begin))
	kind, payload, err := f.frame()
	if err != nil {
		return err
	}
	if kind != 'H' {
		return fmt.Errorf("its first frame has type %q", kind)
	}
	return json.Unmarshal(payload, &f.header)
}

// frame returns the next frame's type and payload, io.EOF behind the last one.
func (f *landingFile) frame() (kind byte, payload []byte, err error) {
	var length [4]byte
	if _, err := io.ReadFull(f.read, length[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("the frame at %d is cut", f.at)
	}
	size := binary.LittleEndian.Uint32(length[:])
	if size < 5 || size > maxFrame {
		return 0, nil, fmt.Errorf("the frame at %d has the length %d", f.at, size)
	}
	frame := make([]byte, 4+size)
	copy(frame, length[:])
	if _, err := io.ReadFull(f.read, frame[4:]); err != nil {
		return 0, nil, fmt.Errorf("the frame at %d is cut", f.at)
	}
	end := len(frame) - 4
	if crc32.Checksum(frame[:end], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(frame[end:]) {
		return 0, nil, fmt.Errorf("the frame at %d has another checksum", f.at)
	}
	f.at += int64(len(frame))
	return frame[4], frame[5:end], nil
}

// pages yields the pages, which must be numbered without a gap, each asked with the marker that the one before it got, to the last. It
// may be called once.
func (f *landingFile) pages() iter.Seq2[Page, error] {
	return func(yield func(Page, error) bool) {
		next, last := "", false
		for number := uint64(1); ; number++ {
			at := f.at
			kind, payload, err := f.frame()
			if errors.Is(err, io.EOF) && last {
				return
			}
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("it ends behind page %d, which is not the last", number-1)
			}
			var p Page
			var n uint64
			var got string
			if err == nil && (last || kind != 'P') {
				err = fmt.Errorf("the frame at %d has type %q and follows page %d", at, kind, number-1)
			}
			if err == nil {
				p, n, got, err = f.page(payload)
			}
			if err == nil && (n != number || number > 1 && p.Asked != next) {
				err = fmt.Errorf("page %d, asked with %q, follows page %d, which got %q", n, p.Asked, number-1, next)
			}
			if err != nil {
				yield(Page{}, err)
				return
			}
			next, last = got, got == ""
			if !yield(p, nil) {
				return
			}
		}
	}
}

// page takes the payload of a page's frame apart.
func (f *landingFile) page(payload []byte) (p Page, number uint64, got string, err error) {
	rest := payload
	integer := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			err, rest = errors.New("a page's head is cut"), nil
			return 0
		}
		rest = rest[n:]
		return v
	}
	text := func() string {
		n := integer()
		if n > maxMarker || n > uint64(len(rest)) {
			err, rest = errors.New("a marker is cut"), nil
			return ""
		}
		s := string(rest[:n])
		rest = rest[n:]
		return s
	}
	number = integer()
	p.Asked = text()
	got = text()
	size, start, length := integer(), integer(), integer()
	if err != nil {
		return p, number, got, err
	}
	if size > maxBody || start > size || length > size-start {
		return p, number, got, errors.New("a page's records reach beyond its body")
	}
	var body []byte
	if size > 0 {
		if body, err = f.zstd.DecodeAll(rest, nil); err != nil {
			return p, number, got, fmt.Errorf("decompress page %d: %w", number, err)
		}
	}
	if uint64(len(body)) != size {
		return p, number, got, fmt.Errorf("page %d has %d bytes, its head says %d", number, len(body), size)
	}
	p.Data = body[start : start+length]
	return p, number, got, nil
}
