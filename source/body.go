package source

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
)

var errEncoding = errors.New("answer has an encoding that was not asked for")

// read returns resp's answer with its whole body, decompressed, in a buffer of the pool. The answer is the caller's to release
// even after an error.
func (t *Transport) read(resp *http.Response) (Response, error) {
	buffer, ok := t.buffers.Get().(*[]byte)
	if !ok {
		buffer = new([]byte)
	}
	answer := Response{Status: resp.StatusCode, Header: resp.Header, lease: &lease{pool: &t.buffers, buffer: buffer}}
	tooLarge := &bodyTooLarge{limit: t.config.MaxBody}
	if resp.ContentLength > t.config.MaxBody {
		return answer, tooLarge
	}
	// What is compressed is capped too: empty gzip members may follow each other without end.
	raw := &io.LimitedReader{R: resp.Body, N: t.config.MaxBody + 1}
	r, done, err := t.decoded(resp, raw)
	if err == nil {
		*buffer, err = readCapped(r, (*buffer)[:0], resp.ContentLength, t.config.MaxBody)
		done()
	}
	if raw.N <= 0 || int64(len(*buffer)) > t.config.MaxBody {
		return answer, tooLarge
	}
	if errors.Is(err, errEncoding) {
		return answer, err
	}
	if err != nil {
		return answer, fmt.Errorf("read answer: %w", err)
	}
	answer.Body = *buffer
	return answer, nil
}

// readCapped reads r to its end into buf, and stops once there is more than limit. size is a guess at how much there is.
func readCapped(r io.Reader, buf []byte, size, limit int64) ([]byte, error) {
	const step = 64 << 10
	// The guess is the server's: it does not get to allocate much before it sends something.
	buf = slices.Grow(buf, int(min(max(size, step), 1<<20)))
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, max(len(buf), step))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		case int64(len(buf)) > limit:
			return buf, nil
		}
	}
}

// decoded returns a reader of body, which is resp's, without its encoding; done is called after the last read.
func (t *Transport) decoded(resp *http.Response, body io.Reader) (r io.Reader, done func(), err error) {
	switch encoding := strings.ToLower(strings.TrimSpace(strings.Join(resp.Header.Values("Content-Encoding"), ","))); encoding {
	case "", "identity":
		return body, func() {}, nil
	case "gzip", "x-gzip":
	default:
		return nil, nil, fmt.Errorf("%w: %q", errEncoding, encoding)
	}
	unzip, ok := t.inflate.Get().(*gzip.Reader)
	if !ok {
		unzip = new(gzip.Reader)
	}
	if err := unzip.Reset(body); err != nil {
		return nil, nil, err
	}
	return unzip, func() { t.inflate.Put(unzip) }, nil
}
