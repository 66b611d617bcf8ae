package main

import (
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// Whatever the vendor does, a run ends either with the truth or with a documented code and a sentence that says what to do; and a run
// after the trouble ends with the truth in any case.
func TestFaults(t *testing.T) {
	t.Parallel()
	elsewhere := "http://127.0.0.1:9/elsewhere"
	for _, c := range []struct {
		name     string
		fault    string
		settings map[string]string
		code     exitCode
		says     []string // on standard error, where the code is not 0
		jobs     string   // states of the jobs of the first run, sorted, where it matters
	}{
		{name: "429 on every call", fault: "token:1:status=429;create:1:status=429;poll:1:status=429;page:1:status=429;page:5x2:status=429"},
		{name: "429 with seconds to wait", fault: "page:3:status=429,retry_after=1"},
		{name: "429 with a date to wait for", fault: "page:3:status=429,retry_after=date:1"},
		{name: "401 amid the pages", fault: "page:4:unauthorized"},
		{name: "401 on create and poll", fault: "create:1:unauthorized;poll:2:unauthorized"},
		{name: "500 bursts", fault: "create:1x2:status=500;poll:1x2:status=500;page:2x2:status=500"},
		{name: "503 bursts", fault: "token:1:status=503;page:2x3:status=503"},
		{name: "connections reset", fault: "token:1:reset;create:1:reset;poll:1:reset;page:1:reset;page:4:reset_body"},
		{name: "bodies cut", fault: "token:1:truncate;create:1:truncate;poll:1:truncate;page:3x2:truncate"},
		{name: "half JSON", fault: "create:1:truncate_json;poll:1:truncate_json;page:3:truncate_json"},
		{name: "a maintenance page", fault: "create:1:html;poll:1:html;page:3:html"},
		{name: "garbage", fault: "create:1:garbage;poll:1:garbage;page:3:garbage"},
		{name: "empty answers", fault: "create:1:empty200;poll:1:empty200;page:3:empty200"},
		{name: "the answer to a creation is lost", fault: "create:1x2:drop_response"},
		{name: "a failing job", fault: "poll:1:job_failure", jobs: "failed published"},
		{name: "jobs that always fail", fault: "poll:*:job_failure", code: exitIncomplete, says: []string{"failed at the vendor", "giving up"}, jobs: "failed failed failed"},
		{name: "a job forgotten while polled", fault: "poll:2:job_forgotten", jobs: "forgotten published"},
		{name: "a job forgotten amid the pages", fault: "page:4:job_forgotten", jobs: "forgotten published"},
		{
			name: "a job that hangs", fault: "poll:*:hang", settings: map[string]string{"sync.job_deadline": "300ms"},
			code: exitIncomplete, says: []string{"sync.job_deadline", "99 %"}, jobs: "abandoned",
		},
		{name: "a status that no document names", fault: "poll:1x2:unknown_status", jobs: "published"},
		{name: "a marker loop of one page", fault: "page:2:marker_loop=1", code: exitIncomplete, says: []string{"markers"}, jobs: "failed"},
		{name: "a marker loop of three pages", fault: "page:2:marker_loop=3", code: exitIncomplete, says: []string{"markers"}, jobs: "failed"},
		{
			name: "no answer", fault: "page:3x*:stall", settings: map[string]string{"http.timeout": "200ms", "http.retry_for": "1500ms"},
			code: exitIncomplete, says: []string{"no whole answer within"}, jobs: "open",
		},
		{name: "no answer for a while", fault: "page:3x2:stall", settings: map[string]string{"http.timeout": "300ms"}, jobs: "published"},
		{name: "redirected token", fault: "token:*:redirect=" + elsewhere, code: exitIncomplete, says: []string{"redirect", "127.0.0.1:9"}},
		{name: "redirected page", fault: "page:2x*:redirect=" + elsewhere, code: exitIncomplete, says: []string{"redirect", "127.0.0.1:9"}, jobs: "open"},
		{name: "a gzip bomb", fault: "page:2x*:gzip_bomb=64", code: exitIncomplete, says: []string{"http.max_body"}, jobs: "open"},
		{
			name: "a page over http.max_body", settings: map[string]string{"http.max_body": "20KiB"},
			code: exitIncomplete, says: []string{"http.max_body"}, jobs: "open",
		},
		{
			name: "a vendor that is down for long", fault: "page:3x*:status=503", settings: map[string]string{"http.retry_for": "1s"},
			code: exitIncomplete, says: []string{"gave up after", "status 503"}, jobs: "open",
		},
		{name: "a request refused", fault: "create:*:status=400", code: exitIncomplete, says: []string{"status 400"}},
		{name: "403 on create", fault: "create:*:status=403", code: exitCredentials, says: []string{"status 403"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			usual := map[string]string{}
			for key, value := range c.settings {
				usual[key], w.settings[key] = w.settings[key], value
			}
			w.fault(c.fault)
			command := []string{"backfill", "--from", "2024-03", "--to", "2024-03", "--today", someday}
			f := w.want(c.code, command...)
			if c.code == exitOK {
				w.proof("2024-03-01", "2024-04-01")
			} else {
				contains(t, f.err, c.says...)
				if n := w.one("SELECT count(*) FROM billing.sdr"); n != "0" {
					t.Errorf("half-published: %s records", n)
				}
			}
			w.hides(f)
			if got := w.jobStates(); c.jobs != "" && got != c.jobs {
				t.Errorf("jobs: got %q, want %q", got, c.jobs)
			}
			if hits := w.hits(); c.fault != "" && hits == 0 {
				t.Error("the fault never hit")
			}

			w.vendor.ClearFaults()
			for key, value := range usual {
				if value == "" {
					delete(w.settings, key)
				} else {
					w.settings[key] = value
				}
			}
			w.want(exitOK, command...)
			w.proof("2024-03-01", "2024-04-01")
			w.noDebris()
		})
	}
}

// jobStates lists the states of all jobs, sorted.
func (w *world) jobStates() string {
	w.t.Helper()
	return w.one(`SELECT coalesce(string_agg(state, ' ' ORDER BY state), '') FROM sdr_sync.job`)
}

// hits is how many calls were hit by faults.
func (w *world) hits() (n int) {
	for _, f := range w.vendor.Faults() {
		n += f.Hits
	}
	return n
}

// hides complains if a secret shows in what a command printed.
func (w *world) hides(f finished) {
	w.t.Helper()
	for _, secret := range []string{w.settings["iam.password"], "X-Auth-Token"} {
		if secret != "" && strings.Contains(f.out+f.err, secret) {
			w.t.Errorf("%q shows in what the program prints: %s", secret, f)
		}
	}
}

// Results that move between an interruption and the resumption are not mixed with what was landed before.
func TestResultsMoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	command := []string{"backfill", "--from", "2024-03", "--to", "2024-03", "--today", someday}
	w.fault("page:5x*:status=400")
	w.want(exitIncomplete, command...)
	if got := w.jobStates(); got != "open" {
		t.Errorf("jobs: got %q, want one that is open", got)
	}
	w.vendor.ClearFaults()
	w.fault("page:1:moved")
	w.want(exitOK, command...)
	if got := w.jobStates(); got != "moved published" {
		t.Errorf("jobs: got %q, want the one that moved and a new one", got)
	}
	w.proof("2024-03-01", "2024-04-01")
	w.noDebris()
}

// One call in twenty fails, of whatever kind, over a whole backfill and a night.
func TestUnreliableVendor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, func(c *sandbox.Config) { c.FailRate = 0.05 })
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	w.vendor.AdvanceNight()
	w.want(exitOK, "nightly", "--today", someday)
	w.proof(firstDay, someday)
	w.noDebris()
	if w.vendor.Stats().Faults == 0 {
		t.Error("no call failed")
	}
}

// A token that ends amid the pages is renewed, as often as that happens.
func TestShortLivedTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.settings["sync.parallel"] = "1" // of several windows one could meet two ends with the same page, which counts as a refusal
	for _, page := range []string{"10", "20", "30"} {
		w.fault("page:" + page + ":unauthorized")
	}
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	if n := w.vendor.Stats().TokensIssued; n != 4 {
		t.Errorf("got %d tokens, want the first and one for each revocation", n)
	}
}

// One window that fails does not keep the others from being published, exported and verified.
func TestOneWindowFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.settings["sync.parallel"] = "1" // so that the first page is January's
	w.fault("page:1:status=400")
	f := w.want(exitIncomplete, w.backfill()...)
	contains(t, f.out, "failed", "published")
	contains(t, f.err, "[2024-01-01, 2024-02-01)", "status 400")
	if got := len(w.windows()); got != 3 {
		t.Errorf("got %d windows, want the three others: %v", got, w.windows())
	}
	w.proof("2024-02-01", someday)
	contains(t, w.want(exitOK, "status", "--today", someday).out, "1 query jobs are unfinished")
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	w.noDebris()
}
