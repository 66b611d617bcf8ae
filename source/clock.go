package source

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// hostClock is what is known of a host's clock.
type hostClock struct {
	ahead atomic.Pointer[time.Duration] // of our clock; nil while unknown

	asking sync.Mutex
	asked  bool
}

func (t *Transport) clock(host string) *hostClock {
	if c, ok := t.clocks.Load(host); ok {
		return c.(*hostClock)
	}
	c, _ := t.clocks.LoadOrStore(host, new(hostClock))
	return c.(*hostClock)
}

// learn reads the clock from an answer that came at now.
func (c *hostClock) learn(h http.Header, now time.Time) {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		ahead := date.Sub(now)
		c.ahead.Store(&ahead)
	}
}

// HostTime returns the time by the clock of endpoint's host, as the Date of its last answer tells it, to a second or so. Before the
// first answer the endpoint's root is asked once, without credentials; whatever it answers, only the Date counts. A host that tells
// no time has ours.
func (t *Transport) HostTime(ctx context.Context, endpoint *url.URL) time.Time {
	c := t.clock(endpoint.Host)
	if c.ahead.Load() == nil {
		t.askTime(ctx, c, endpoint)
	}
	if ahead := c.ahead.Load(); ahead != nil {
		return time.Now().Add(*ahead)
	}
	return time.Now()
}

// askTime learns c from an answer of endpoint's root, once for all who need it.
func (t *Transport) askTime(ctx context.Context, c *hostClock, endpoint *url.URL) {
	c.asking.Lock()
	defer c.asking.Unlock()
	if c.asked || c.ahead.Load() != nil || !isSafe(endpoint) {
		return
	}
	if header, now, err := t.askRoot(ctx, endpoint); err == nil {
		c.learn(header, now)
	}
	// Without an answer the call that needs the time will say what is wrong. One who was interrupted leaves it to the next.
	c.asked = ctx.Err() == nil
}

// askRoot returns what the root of endpoint's host answers, whatever it is, and when.
func (t *Transport) askRoot(ctx context.Context, endpoint *url.URL) (http.Header, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, min(t.config.Timeout, t.config.Unreachable))
	defer cancel()
	root := &url.URL{Scheme: endpoint.Scheme, Host: endpoint.Host, Path: "/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, root.String(), nil)
	if err != nil {
		return nil, time.Time{}, err
	}
	req.Header.Set("User-Agent", "sdr-sync")
	resp, err := t.connections().RoundTrip(req)
	if err != nil {
		return nil, time.Time{}, err
	}
	now := time.Now()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	return resp.Header, now, resp.Body.Close()
}
