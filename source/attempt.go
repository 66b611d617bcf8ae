package source

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// failure is why one attempt failed, and what may be done about it.
type failure struct {
	err          error
	again        bool          // another attempt may do better
	late         bool          // the attempt's time was over
	wait         time.Duration // what the vendor asks to wait
	busy         bool          // the vendor has too many calls: 429
	unauthorised *http.Request // the request whose credentials the vendor refused: 401
}

// attempt signs req, sends it once and reads the whole answer, within the timeout.
func (t *Transport) attempt(ctx context.Context, req *Request, target *url.URL, timeout time.Duration) (Response, *failure) {
	sent, err := newRequest(ctx, req, target)
	if err != nil {
		return Response{}, &failure{err: req.wrap(err)}
	}
	answer, failed := t.exchange(ctx, req, sent, target, timeout)
	if req.Auth.Settled != nil {
		var end error
		if failed != nil {
			end = failed.err
		}
		req.Auth.Settled(sent, end)
	}
	return answer, failed
}

func (t *Transport) exchange(ctx context.Context, req *Request, sent *http.Request, target *url.URL, timeout time.Duration) (Response, *failure) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var wrote atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			// A verified handshake proves that the endpoint is right, however slow its first answer.
			if _, secure := c.Conn.(*tls.Conn); secure {
				t.markReached(target)
			}
		},
		WroteHeaders: func() { wrote.Store(true) },
	})
	resp, err := t.connections().RoundTrip(sent.WithContext(traced))
	if err != nil {
		if wrote.Load() {
			req.lost()
		}
		return Response{}, &failure{
			err:   req.wrap(unreachable(ctx, target, timeout, err)),
			again: !isPermanent(err),
			late:  ctx.Err() != nil,
		}
	}
	defer func() { _ = resp.Body.Close() }() // a connection given up, or read to its end
	t.markReached(target)
	t.clock(target.Host).learn(resp.Header, time.Now())
	if status := resp.StatusCode; !req.accepts(status) && status/100 != 2 {
		return Response{}, newRefusal(req, sent, resp, status, t.refusalBody(resp))
	}
	answer, err := t.read(resp)
	if err == nil {
		err = req.inspect(&answer, sent)
	}
	if err == nil {
		return answer, nil
	}
	defer answer.Release()
	var status BodyStatus
	if errors.As(err, &status) {
		return Response{}, newRefusal(req, sent, resp, int(status), answer.Body)
	}
	req.lost()
	again := !errors.Is(err, ErrBodyTooLarge) && !errors.Is(err, errEncoding)
	if ctx.Err() != nil {
		err = unreachable(ctx, target, timeout, err)
	}
	return Response{}, &failure{err: req.wrap(fmt.Errorf("status %d: %w", resp.StatusCode, err)), again: again, late: ctx.Err() != nil}
}

// newRequest builds and signs what one attempt sends.
func newRequest(ctx context.Context, req *Request, target *url.URL) (*http.Request, error) {
	sent, err := http.NewRequestWithContext(ctx, req.Method, req.URL, bytes.NewReader(req.Body))
	if err != nil {
		return nil, err
	}
	maps.Copy(sent.Header, req.Header.Clone())
	sent.Header.Set("User-Agent", "sdr-sync")
	// Inflating costs more than loopback does.
	if isLoopback(target) {
		sent.Header.Set("Accept-Encoding", "identity")
	} else {
		sent.Header.Set("Accept-Encoding", "gzip")
	}
	if req.Auth.Sign != nil {
		err = req.Auth.Sign(sent)
	}
	return sent, err
}

func (t *Transport) markReached(target *url.URL) {
	if _, ok := t.reached.Load(target.Host); !ok {
		t.reached.Store(target.Host, struct{}{})
	}
}

// unreachable says that the network failed an attempt, and where. ctx is the attempt's.
func unreachable(ctx context.Context, target *url.URL, timeout time.Duration, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no whole answer within %s", timeout.Round(time.Millisecond))
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		err = fmt.Errorf("%w; if it is the site's own, set http.ca_file to a PEM file of it", err)
	}
	return fmt.Errorf("reach %s: %w", target.Host, err)
}

// isPermanent tells whether connecting fails the same way next time: the other side is not who it should be, or speaks no TLS.
func isPermanent(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	return errors.As(err, &untrusted) || errors.As(err, &plain) || errors.Is(err, http.ErrSchemeMismatch)
}

func (r *Request) accepts(status int) bool {
	if len(r.Accept) == 0 {
		return status == http.StatusOK
	}
	return slices.Contains(r.Accept, status)
}

func (r *Request) lost() {
	if r.Lost != nil {
		r.Lost()
	}
}

// inspect tells what makes an answer improper.
func (r *Request) inspect(answer *Response, sent *http.Request) error {
	if !r.accepts(answer.Status) {
		return errors.New("answer has another status than the documented one")
	}
	if r.JSON {
		answer.Body = bytes.TrimPrefix(answer.Body, []byte("\xef\xbb\xbf"))
		if err := record.Validate(answer.Body); err != nil {
			return notJSON(concealer(r, sent), answer.Body, err)
		}
	}
	if r.Check == nil {
		return nil
	}
	var status BodyStatus
	if err := r.Check(answer.Body); errors.As(err, &status) {
		return status
	} else if err != nil {
		return errors.New(concealer(r, sent).Replace(err.Error()))
	}
	return nil
}

// notJSON quotes what came instead, but for what began as JSON: that is cut data.
func notJSON(hide concealment, body []byte, err error) error {
	text := string(bytes.TrimSpace(body))
	if text == "" {
		return errors.New("answer is empty where JSON is due")
	}
	if strings.ContainsRune("{[", rune(text[0])) {
		return fmt.Errorf("answer is no whole JSON: %w", err)
	}
	return fmt.Errorf("answer is %q where JSON is due", excerpt(hide, text))
}

// refusalBody returns what can be had of the body of a refusal: its status alone says enough.
func (t *Transport) refusalBody(resp *http.Response) []byte {
	r, done, err := t.decoded(resp, resp.Body)
	if err != nil {
		return nil
	}
	defer done()
	body, _ := io.ReadAll(io.LimitReader(r, 64<<10))
	return body
}

// newRefusal turns an answer that says no into a failure. status is what it means, which for some APIs is not its own.
func newRefusal(req *Request, sent *http.Request, resp *http.Response, status int, body []byte) *failure {
	if status >= 500 || status == http.StatusRequestTimeout {
		req.lost()
	}
	f := &failure{
		err:   newStatusError(req, sent, resp, status, body),
		again: isTransient(status),
		busy:  status == http.StatusTooManyRequests,
	}
	switch {
	case f.again:
		f.wait = retryAfter(resp.Header, time.Now())
	case status == http.StatusUnauthorized:
		f.unauthorised = sent
	}
	return f
}

// retryAfter reads a Retry-After of seconds or of a date, which is compared with the server's own clock if it tells it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const longest = 365 * 24 * time.Hour
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(longest/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if server, err := http.ParseTime(h.Get("Date")); err == nil {
		now = server
	}
	return min(max(at.Sub(now), 0), longest)
}
