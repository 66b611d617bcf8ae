package chaos

import (
	"context"
	"fmt"
	"io"
	"log"
	"slices"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// quiet is a log that nobody reads.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// httpFault is a fault that the stand-in vendor knows, of one call, some calls or all of them.
type httpFault struct {
	name, number, what string
	kind               string // as the vendor's faults are written
	times              string // "" for once, "x2", "x*"
	stages             func() []string
	unjudged           bool // exit 0 does not mean that the stream was pulled: what is denied or not offered is only noted
	accept             []int
}

// httpFaults befall single calls.
func httpFaults() []fault {
	polls, pages := at("http.poll"), at("http.page")
	var all []fault
	for _, h := range []httpFault{
		{name: "429", number: "F10", what: "too many requests, with seconds to wait", kind: "status=429,retry_after=1"},
		{name: "429-date", number: "F10", what: "too many requests, with a date to wait for", kind: "status=429,retry_after=date:1"},
		{name: "429-day", number: "F10", what: "too many requests, come back tomorrow", kind: "status=429,retry_after=86400"},
		{name: "429-flood", number: "F10", what: "too many requests, three times without a word", kind: "status=429", times: "x3"},
		{name: "500", number: "F9", what: "an error of the server's, twice", kind: "status=500", times: "x2"},
		{name: "502", number: "F9", what: "a bad gateway, twice", kind: "status=502", times: "x2"},
		{name: "503", number: "F9", what: "the service is unavailable, twice", kind: "status=503", times: "x2"},
		{name: "504", number: "F9", what: "a gateway's timeout, twice", kind: "status=504", times: "x2"},
		{name: "503-for-ever", number: "F9", what: "the service stays unavailable", kind: "status=503", times: "x*"},
		{name: "401", number: "F11", what: "every token is revoked", kind: "unauthorized"},
		{name: "401-for-ever", number: "F11", what: "every token is revoked, again and again", kind: "unauthorized", times: "x*"},
		{name: "403", number: "F12", what: "forbidden", kind: "status=403", unjudged: true},
		{name: "404", number: "F12", what: "not found", kind: "status=404", unjudged: true, accept: []int{0, 2, 3, 5}},
		{name: "400", number: "F12", what: "a request refused", kind: "status=400", accept: []int{0, 2, 3, 5}},
		{name: "413", number: "F12", what: "a request too large", kind: "status=413", accept: []int{0, 2, 3, 5}},
		{name: "html", number: "F12", what: "a maintenance page with status 200", kind: "html"},
		{name: "empty-200", number: "F12", what: "nothing with status 200", kind: "empty200"},
		{name: "reset", number: "F8", what: "the connection is reset before the answer", kind: "reset"},
		{name: "reset-body", number: "F8", what: "the connection is reset amid the answer", kind: "reset_body"},
		{name: "cut", number: "F8", what: "the answer ends before its length", kind: "truncate"},
		{name: "hang", number: "F8", what: "no answer", kind: "stall"},
		{name: "half-json", number: "F18", what: "half the JSON, of the length announced", kind: "truncate_json"},
		{name: "garbage", number: "F18", what: "something that is no JSON", kind: "garbage"},
		{name: "gzip-bomb", number: "F19", what: "a small answer that unpacks to 64 MiB, always", kind: "gzip_bomb=64", times: "x*"},
		{name: "answer-lost", number: "F13", what: "the call is carried out, its answer lost", kind: "drop_response"},
		{name: "latency", number: "F8", what: "answers take their time", kind: "latency=20ms", times: "x5"},
		{name: "job-fails", number: "F14", what: "the job fails at the vendor", kind: "job_failure", stages: polls},
		{name: "jobs-fail", number: "F14", what: "every job fails at the vendor", kind: "job_failure", times: "x*", stages: polls},
		{name: "job-hangs", number: "F14", what: "the job runs for ever", kind: "job_hang", stages: polls},
		{name: "job-vanishes", number: "F12", what: "the vendor forgets the job", kind: "job_forgotten", stages: at("http.poll", "http.page")},
		{name: "unknown-status", number: "F14", what: "the job has a status that no document names", kind: "unknown_status", times: "x2", stages: polls},
		{name: "moved", number: "F17", what: "the job's records shift under their markers", kind: "moved", stages: pages, unjudged: true},
		{name: "cycle-1", number: "F15", what: "the markers go round a page for ever", kind: "marker_loop=1", stages: pages},
		{name: "cycle-2", number: "F15", what: "the markers go round two pages for ever", kind: "marker_loop=2", stages: pages},
		{name: "cycle-3", number: "F15", what: "the markers go round three pages for ever", kind: "marker_loop=3", stages: pages},
		{name: "cycle-4", number: "F15", what: "the markers go round four pages for ever", kind: "marker_loop=4", stages: pages},
		{name: "cycle-5", number: "F15", what: "the markers go round five pages for ever", kind: "marker_loop=5", stages: pages},
		{name: "list-shifts", number: "F32", what: "a row leaves a page of a list already read", kind: "shift", stages: listEndpoints, unjudged: true},
		{name: "list-skips", number: "F32", what: "a row leaves and another joins: the totals agree", kind: "skip", stages: listEndpoints, unjudged: true},
		{name: "list-repeats", number: "F32", what: "a row joins a page already read and the last leaves", kind: "repeat", stages: listEndpoints, unjudged: true},
		{name: "list-empty", number: "F32", what: "a list is empty all at once", kind: "empty", times: "x*", stages: listEndpoints, unjudged: true},
		{name: "list-half", number: "F32", what: "half of a list is missing", kind: "half", times: "x*", stages: listEndpoints, unjudged: true},
	} {
		if h.stages == nil {
			h.stages = endpoints
		}
		all = append(all, fault{name: h.name, number: h.number, what: h.what, stages: h.stages, befall: h.befall})
	}
	return all
}

func (h httpFault) befall(ctx context.Context, c *cycle) error {
	e, _ := endpointOf(c.cell.Stage)
	c.pullOf(e)
	parsed, err := sandbox.ParseFaults(fmt.Sprintf("%s:%d%s:%s", e, c.nth(), h.times, h.kind))
	if err != nil {
		return err
	}
	if err := c.world.vendor.SetFaults(parsed...); err != nil {
		return err
	}
	back := []func(){c.world.vendor.ClearFaults}
	if h.times == "x*" || h.name == "429-day" {
		back = append(back, c.set("http", "retry_for", "700ms"))
	}
	if h.name == "hang" {
		back = append(back, c.set("http", "timeout", "300ms"))
	}
	if h.name == "job-hangs" {
		back = append(back, c.set("sync", "job_deadline", "400ms"))
	}
	c.undo = append(c.undo, back...)
	c.accept = h.accept
	run, err := c.world.run(ctx, nil, c.args...)
	for _, state := range c.world.vendor.Faults() {
		c.met = c.met || state.Hits > 0
	}
	if err != nil {
		return err
	}
	if h.unjudged || c.streams == nil {
		err = c.disturbedUnjudged(run)
	} else {
		err = c.disturbed(ctx, run)
	}
	if h.unjudged { // what is published may be what the vendor wrongly said: it has to be asked again
		c.askAgain()
	}
	return err
}

// askAgain makes the run after the trouble ask for everything anew, where the disturbed one may have believed the vendor.
func (c *cycle) askAgain() {
	if c.streams == nil || !slices.Contains([]string{"backfill", "nightly"}, c.args[0]) {
		return
	}
	if c.args[0] == "backfill" && !slices.Contains(c.args, "--reslice") {
		c.args = c.backfill("--refresh")
	}
}
