package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"
)

// Transport sends requests to vendor APIs within their budgets. It follows no redirect, verifies TLS, and honours HTTP_PROXY and
// HTTPS_PROXY. It is safe for use from several goroutines; share one, so that its budgets hold for the process.
type Transport struct {
	config  Config
	buffers sync.Pool // of *[]byte, for bodies
	inflate sync.Pool // of *gzip.Reader
	reached sync.Map  // hosts that have answered
	clocks  sync.Map  // of *hostClock, by host

	mu      sync.Mutex
	http    *http.Transport
	born    time.Time // of http
	budgets map[string]*budget
}

// New returns a Transport. Errors name the setting that can't be used.
func New(config Config) (*Transport, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	authorities, err := trusted(config.CAFile)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	var protocols http.Protocols
	protocols.SetHTTP1(true) // the drain is many parallel chains of short calls: a connection each
	t := &Transport{config: config.withDefaults(), born: time.Now(), budgets: map[string]*budget{}}
	t.http = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true, // Transport inflates itself, to cap what comes out
		MaxIdleConns:        128,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     30 * time.Second,
		ReadBufferSize:      64 << 10,
		Protocols:           &protocols,
	}
	return t, nil
}

// Close closes the idle connections. The Transport stays usable.
func (t *Transport) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.http.CloseIdleConnections()
}

// Connections are replaced after this, so that a long run follows when the endpoint's name moves to other machines.
const connectionLifetime = 5 * time.Minute

// connections returns the pool of connections for an attempt that starts now.
func (t *Transport) connections() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.born) > connectionLifetime {
		old := t.http
		t.http, t.born = old.Clone(), time.Now()
		old.CloseIdleConnections() // those in use close when they become idle
	}
	return t.http
}

func (t *Transport) budget(req *Request) *budget {
	name := "API " + req.API
	if req.Rate.Class != "" {
		name = "class " + req.Rate.Class
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.budgets[name]
	if b == nil {
		b = newBudget(t.config.RequestsPerSecond, req.Rate.PerMinute)
		t.budgets[name] = b
	}
	return b
}

// Do sends req and returns its answer, trying again by class of failure:
//
//   - 429, 408, 5xx, network errors, and answers that are cut, not JSON or fail Check: again, with growing waits, or the one that
//     the vendor asks for, until RetryFor is over; then *GaveUpError around the last failure. A 429 makes every call of the API, or of
//     its class, wait.
//   - 401: once more after Auth.Renew, if there is one; then *StatusError (pipeline.ErrCredentials).
//   - any other status, one that Check reads in the body included: *StatusError at once. An answer over MaxBody: ErrBodyTooLarge at once. A certificate that is not trusted: at once.
//   - ctx ends: its cause at once.
//
// Waiting for the API's budget before the first attempt is not counted against RetryFor.
func (t *Transport) Do(ctx context.Context, req Request) (Response, error) {
	target, err := url.Parse(req.URL)
	if err != nil || target.Host == "" || target.User != nil || !isSafe(target) {
		return Response{}, req.wrap(errors.New("not an address of an endpoint"))
	}
	budget := t.budget(&req)
	if err := budget.wait(ctx); err != nil {
		return Response{}, req.wrap(cause(ctx, err))
	}
	start, waits, renewed := time.Now(), t.waits(), false
	var last error
	for try := 1; ; try++ {
		left := t.patience(target) - time.Since(start)
		resp, failed := t.attempt(ctx, &req, target, min(left, t.config.Timeout))
		if failed == nil {
			return resp, nil
		}
		if ctx.Err() != nil {
			return Response{}, req.wrap(context.Cause(ctx))
		}
		var wait time.Duration
		switch {
		case failed.unauthorised != nil && req.Auth.Renew != nil && !renewed:
			renewed = true
			req.Auth.Renew(failed.unauthorised)
		case !failed.again:
			return Response{}, failed.err
		default:
			wait = waits.NextBackOff()
		}
		left = t.patience(target) - time.Since(start)
		// What the vendor asks for is kept to, but for an absurd time: half of what is left then, so that there are more tries.
		if failed.wait >= left {
			failed.wait = left / 2
		}
		wait = max(wait, failed.wait)
		// A try that only the end of the time cut short says less than the one before.
		if last == nil || !failed.late || left > 0 {
			last = failed.err
		}
		gaveUp := &GaveUpError{Tries: try, After: time.Since(start), Err: last}
		if wait >= left {
			return Response{}, gaveUp
		}
		t.logRetry(&req, try, wait, failed.err)
		if failed.busy {
			budget.pause(wait)
		}
		if err := waitWithin(ctx, left, wait, budget); err != nil {
			if ctx.Err() != nil {
				return Response{}, req.wrap(context.Cause(ctx))
			}
			gaveUp.After = time.Since(start)
			return Response{}, gaveUp
		}
	}
}

// waitWithin waits for d and then for the budget, no longer than left in all.
func waitWithin(ctx context.Context, left, d time.Duration, b *budget) error {
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	if err := sleep(ctx, d); err != nil {
		return err
	}
	return b.wait(ctx)
}

// patience is how long a call may take that asks target.
func (t *Transport) patience(target *url.URL) time.Duration {
	if _, ok := t.reached.Load(target.Host); ok {
		return t.config.RetryFor
	}
	return min(t.config.Unreachable, t.config.RetryFor)
}

func (t *Transport) waits() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(t.config.BackoffInitial),
		backoff.WithMaxInterval(t.config.BackoffMax),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0.5),
		backoff.WithMaxElapsedTime(0), // Do watches the time: patience may grow while it tries
	)
}

// logRetry tells of a failure that is tried again. One hiccup is normal; more are for the operator's eyes.
func (t *Transport) logRetry(req *Request, try int, wait time.Duration, err error) {
	level := zap.DebugLevel
	if try > 2 {
		level = zap.WarnLevel
	}
	t.config.Log.Log(level, "vendor call failed, trying again",
		zap.String("api", req.API), zap.Int("try", try), zap.Duration("wait", wait), zap.Error(err))
}

func (r *Request) wrap(err error) error { return fmt.Errorf("%s %s: %w", r.Method, r.Path, err) }

// cause returns why ctx ended, or err while it has not.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Log returns the logger that the Transport was given, for what clients over it have to tell.
func (t *Transport) Log() *zap.Logger { return t.config.Log }
