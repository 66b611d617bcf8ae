package chaos

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// vendorFaults befall the vendor, or the way to it, as a whole.
func vendorFaults() []fault {
	return []fault{
		{
			name: "token-dies", number: "F11", what: "tokens are good for a second, in runs that take longer", stages: at("anytime"), run: "slow",
			vendor: func(c *sandbox.Config) { c.TokenTTL = time.Second },
			befall: func(ctx context.Context, c *cycle) error {
				c.met, c.accept = true, []int{0}
				e, err := c.world.run(ctx, nil, c.args...)
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "unreliable", number: "F9", what: "one call in ten fails, of every endpoint", stages: at("anytime"),
			vendor: func(c *sandbox.Config) { c.FailRate = 0.1 },
			befall: func(ctx context.Context, c *cycle) error {
				c.accept = []int{0, 3}
				e, err := c.world.run(ctx, nil, c.args...)
				c.met = c.world.vendor.Stats().Faults > 0
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "shrunk", number: "F22", what: "the vendor returns a quarter of what is published: refused, the old stays", stages: at("records"), run: "night",
			befall: shrunk,
		},
		{
			name: "grown", number: "F22", what: "the vendor returns twice as much as is published: restated", stages: at("records"), run: "night",
			befall: func(ctx context.Context, c *cycle) error {
				c.met, c.accept = true, []int{0}
				c.streams = []string{"sdr"}
				if err := c.openVendor(func(v *sandbox.Config) { v.Resources = 8 }); err != nil {
					return err
				}
				c.args = c.nightly()
				e, err := c.world.run(ctx, nil, c.args...)
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "unreachable", number: "F8", what: "nobody listens at the vendor's address, or its name has none", stages: at("port", "name"), run: "night",
			befall: func(ctx context.Context, c *cycle) error {
				address := map[string]string{"port": "http://127.0.0.1:9", "name": "https://vendor.invalid"}[c.cell.Stage]
				return c.elsewhere(ctx, address, 3)
			},
		},
		{
			name: "impostor", number: "F29", what: "the vendor's certificate is nobody's: nothing is sent", stages: at("tls"), run: "night",
			befall: func(ctx context.Context, c *cycle) error {
				heard := atomic.Int64{}
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard.Add(1) }))
				server.Config.ErrorLog = quiet()
				server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
				server.StartTLS()
				defer server.Close()
				err := c.elsewhere(ctx, server.URL, 3)
				if n := heard.Load(); n > 0 {
					err = errors.Join(err, findingf("a server without a good certificate was sent %d requests", n))
				}
				return err
			},
		},
		{
			name: "redirected", number: "F30", what: "every call is redirected to another host, which must hear nothing", stages: at("301", "302", "307", "308"), run: "night",
			befall: func(ctx context.Context, c *cycle) error {
				heard := atomic.Int64{}
				other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard.Add(1) }))
				defer other.Close()
				var status int
				if _, err := fmt.Sscan(c.cell.Stage, &status); err != nil {
					return err
				}
				c.undo = append(c.undo, c.front.step(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
					http.Redirect(w, r, other.URL+r.URL.Path, status)
				}))
				c.met, c.accept = true, []int{3}
				e, err := c.world.run(ctx, nil, c.args...)
				if n := heard.Load(); n > 0 {
					err = errors.Join(err, findingf("a redirect was followed %d times", n))
				}
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "slow-body", number: "F8", what: "an answer comes byte by byte", stages: at("http.token", "http.create", "http.poll", "http.page", "http.resources"), run: "night",
			befall: func(ctx context.Context, c *cycle) error {
				c.undo = append(c.undo, c.set("http", "timeout", "300ms"), c.front.step(c.onNth(func(w http.ResponseWriter, r *http.Request, vendor http.Handler) {
					answer := recorded(r, vendor)
					for name, values := range answer.Header() {
						w.Header()[name] = values
					}
					w.WriteHeader(answer.Code)
					for _, b := range answer.Body.Bytes() {
						if _, err := w.Write([]byte{b}); err != nil || r.Context().Err() != nil {
							return
						}
						_ = http.NewResponseController(w).Flush()
						pause(r.Context(), 20*time.Millisecond)
					}
				})))
				c.accept = []int{0}
				e, err := c.world.run(ctx, nil, c.args...)
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "hostile", number: "F18", what: "records that nobody should send, on one page", stages: hostileStages, run: "first",
			befall: hostile,
		},
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// elsewhere runs the command with another address of the vendor's.
func (c *cycle) elsewhere(ctx context.Context, url string, code int) error {
	c.met, c.accept = true, []int{code}
	c.undo = append(c.undo, c.set("http", "retry_for", "600ms"), func() { c.pointAt(c.url) })
	c.pointAt(url)
	e, err := c.world.run(ctx, nil, c.args...)
	return errors.Join(err, c.disturbed(ctx, e))
}

// onNth lets answer see one call of the cell's endpoint, and the vendor the others.
func (c *cycle) onNth(answer func(http.ResponseWriter, *http.Request, http.Handler)) func(http.ResponseWriter, *http.Request, http.Handler) {
	e, _ := endpointOf(c.cell.Stage)
	seen := atomic.Int64{}
	return func(w http.ResponseWriter, r *http.Request, vendor http.Handler) {
		if pathOf(r) != e || seen.Add(1) != int64(c.nth()) {
			vendor.ServeHTTP(w, r)
			return
		}
		c.met = true
		answer(w, r, vendor)
	}
}

// pathOf is the endpoint of a call, for those that the front tells apart itself.
func pathOf(r *http.Request) sandbox.Endpoint {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/auth/tokens"):
		return sandbox.EndpointToken
	case strings.HasSuffix(path, "/query-jobs"):
		return sandbox.EndpointCreate
	case strings.HasSuffix(path, "/sdr"):
		return sandbox.EndpointPage
	case strings.Contains(path, "/query-jobs/"):
		return sandbox.EndpointPoll
	case strings.HasSuffix(path, "/resources/detail"):
		return sandbox.EndpointResources
	}
	return ""
}

// shrunk swaps the vendor for a poorer one: the run is refused, and what stood there stands.
func shrunk(ctx context.Context, c *cycle) error {
	c.met = true
	c.streams = []string{"sdr"}
	c.args = c.nightly()
	before, err := c.fingerprint(ctx)
	if err != nil {
		return err
	}
	rich := c.world.vendor
	if err := c.openVendor(func(v *sandbox.Config) { v.Resources = 1 }); err != nil {
		return err
	}
	e, err := c.world.run(ctx, nil, c.args...)
	if err == nil && e.code != 3 {
		err = findingf("a pull of a quarter of the records: want exit 3, got %s", e)
	}
	after, fingerErr := c.fingerprint(ctx)
	for _, what := range merged(before, after) {
		// The running month may have grown in between; the closed one is what shrank.
		if before[what] != after[what] && what == "sdr_sync.quarantine" {
			err = errors.Join(err, findingf("a refused pull changed %s", what))
		}
	}
	c.world.vendor = rich
	c.front.serve(rich.Handler())
	return errors.Join(err, fingerErr)
}

// hostileRecords are elements that nobody should find on a page. Each must be stored or be in the quarantine, or the page be refused.
func hostileRecords() map[string]string {
	record := func(more string) string {
		return `{"begin_time":"20240305000000","end_time":"20240305010000","resource_id":"r-hostile",` + more + `}`
	}
	return map[string]string{
		"nul":            record(`"resource_name":"a\u0000b"`),
		"huge-number":    record(`"accumulate_factor_value":1e400`),
		"minus-zero":     record(`"accumulate_factor_value":-0`),
		"nesting":        record(`"ext":` + strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000)),
		"duplicate-keys": record(`"resource_id":"again","resource_id":"and again"`),
		"long-text":      record(`"resource_name":"` + strings.Repeat("x", 10<<20) + `"`),
		"wrong-types":    record(`"accumulate_factor_value":{"a":[1]},"region_code":[],"tag":7`),
		"surrogate":      record(`"resource_name":"\ud800"`),
		"sql":            record(`"resource_spec_code":"'); DROP TABLE billing.sdr; --","region_code":"../../etc"`),
		"bare":           `null`,
		"number":         `7`,
		"empty":          `{}`,
		"invalid-utf8":   record("\"resource_name\":\"\xff\xfe\""),
		"garbage-date":   `{"begin_time":"99999999999999"}`,
		"control":        record("\"resource_name\":\"a\nb\""),
		"bom":            "\ufeff" + record(`"a":1`),
	}
}

func hostileStages() []string {
	var names []string
	for name := range hostileRecords() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// hostile puts one hostile record on a page, however often that page is asked for. The run may refuse the page; if it says that all is well,
// each record of the page must be somewhere.
func hostile(ctx context.Context, c *cycle) error {
	bad := hostileRecords()[c.cell.Stage]
	var page atomic.Pointer[string] // what the page that has it is asked by
	met := atomic.Bool{}
	c.streams = []string{"sdr"}
	c.args = c.backfill()
	back := c.front.step(func(w http.ResponseWriter, r *http.Request, vendor http.Handler) {
		if pathOf(r) != sandbox.EndpointPage {
			vendor.ServeHTTP(w, r)
			return
		}
		asked, err := io.ReadAll(r.Body)
		if err != nil { // the caller is gone
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(asked))
		this := r.URL.Path + string(asked)
		if chosen := page.Load(); chosen != nil && *chosen != this {
			vendor.ServeHTTP(w, r)
			return
		}
		answer := recorded(r, vendor)
		body := answer.Body.Bytes()
		i := bytes.IndexByte(body, '[')
		if i >= 0 && bytes.IndexByte(body[i:], '{') > 0 && (page.CompareAndSwap(nil, &this) || *page.Load() == this) {
			met.Store(true)
			body = bytes.Join([][]byte{body[:i+1], []byte(bad + ","), body[i+1:]}, nil)
		}
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.WriteHeader(answer.Code)
		_, _ = w.Write(body) // a client that is gone is no matter
	})
	e, err := c.world.run(ctx, nil, c.args...)
	back()
	c.met = met.Load()
	if err := errors.Join(err, c.disturbedUnjudged(e)); err != nil {
		return err
	}
	if e.code == 0 && c.met {
		truth := c.world.vendor.Truth(sandbox.DefaultSite, sandbox.DefaultRegion, c.first, c.now())
		got, err := c.one(ctx, `SELECT coalesce(sum(records + quarantined), 0) FROM sdr_sync.window WHERE stream = 'sdr' AND retired_at IS NULL`)
		stored, err2 := c.one(ctx, `SELECT (SELECT count(*) FROM billing.sdr) + (SELECT count(*) FROM sdr_sync.quarantine)`)
		if want := fmt.Sprint(truth.Records + truth.RejectedTotal() + 1); err == nil && err2 == nil && (got != want || stored != want) {
			err = findingf("with a hostile record (%s) the ledger has %s records and the tables %s, want %s", c.cell.Stage, got, stored, want)
		}
		if err := errors.Join(err, err2, c.want(ctx, "verify")); err != nil {
			return err
		}
	}
	c.args = c.backfill("--refresh") // the record is gone again: a restatement
	return nil
}
