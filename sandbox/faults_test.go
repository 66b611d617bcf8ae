package sandbox_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

func TestFaultText(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, want string }{
		{"page:3:status=429,retry_after=1", "page:3:status=429,retry_after=1"},
		{"page:3:status=429,retry_after=date:2", "page:3:status=429,retry_after=date:2"},
		{"any:1:status=503", "any:1:status=503"},
		{"page:5:truncate", "page:5:truncate"},
		{"page:5x1:truncate", "page:5:truncate"},
		{"page:5x2:truncate_json", "page:5x2:truncate_json"},
		{"create:2x*:reset", "create:2x*:reset"},
		{"poll:*:hang", "poll:*:job_hang"},
		{"poll:1x*:job_hang", "poll:*:job_hang"},
		{"page:2:marker_loop=3", "page:2:marker_loop=3"},
		{"page:*:latency=20ms", "page:*:latency=20ms"},
		{"token:1:stall", "token:1:stall"},
		{"token:1:stall=5s", "token:1:stall=5s"},
		{"page:1:gzip_bomb=64", "page:1:gzip_bomb=64"},
		{"resources:2:shift", "resources:2:shift"},
		{"service_types:2x*:skip", "service_types:2x*:skip"},
		{"resources_v2:*:half", "resources_v2:*:half"},
		{"bms_job:1:status=503", "bms_job:1:status=503"},
		{"page:1:redirect=http://127.0.0.1:1/x?a=b,c", "page:1:redirect=http://127.0.0.1:1/x?a=b,c"},
	}
	for _, tt := range tests {
		f, err := sandbox.ParseFault(tt.text)
		if err != nil || f.String() != tt.want {
			t.Errorf("%q: got %q, %v; want %q", tt.text, f.String(), err, tt.want)
		}
	}
	for _, text := range []string{
		"", "page", "page:1", "page:1:", "page:1:nonsense", "nowhere:1:reset", "page:x:reset", "page:1xx:reset", "page:-1:reset",
		"page:1:status", "page:1:status=200", "page:1:status=777", "page:1:status=429,retry_after=soon", "page:1:status=429,colour=red",
		"page:1:latency", "page:1:latency=-1s", "page:1:stall=x", "page:1:marker_loop", "page:1:marker_loop=0", "page:1:redirect",
		"page:1:job_hang", "any:1:moved", "create:1:job_forgotten", "page:1:reset=1", "page:1x-2:reset",
		"page:1:shift", "any:1:skip", "bms_server:1:half", "resources:1:moved", "resources:1:repeat=2",
	} {
		if f, err := sandbox.ParseFault(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, f)
		}
	}
	faults, err := sandbox.ParseFaults(" page:1:reset ; poll:2:html;")
	if err != nil || len(faults) != 2 {
		t.Errorf("got %v, %v; want two faults", faults, err)
	}
	if _, err := sandbox.ParseFaults("page:1:reset;x"); err == nil {
		t.Error("got no error for a list with a bad fault")
	}
}

func FuzzParseFault(f *testing.F) {
	f.Add("page:3:status=429,retry_after=1")
	f.Add("page:5x*:marker_loop=3")
	f.Add("token:*:redirect=http://x:1/")
	f.Add("any:1:stall=5s")
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := sandbox.ParseFault(text)
		if err != nil {
			return
		}
		again, err := sandbox.ParseFault(fault.String())
		if err != nil || again.String() != fault.String() {
			t.Errorf("%q: read back %q as %q, %v", text, fault, again, err)
		}
	})
}

// withFault starts a vendor with a job that is done and then one fault.
func withFault(t *testing.T, fault string) (v *vendor, jobID, pagePath string) {
	t.Helper()
	v = start(t, sandbox.Config{Resources: 30, PollsUntilDone: 1}).logIn()
	jobID = v.ready("2024-03-01", "2024-03-03")
	f, err := sandbox.ParseFault(fault)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.server.SetFaults(f); err != nil {
		t.Fatal(err)
	}
	return v, jobID, jobsPath + "/" + jobID + "/sdr"
}

func TestFaultsThatAnswer(t *testing.T) {
	t.Parallel()
	type check func(a answer) bool
	header := func(name, want string) check { return func(a answer) bool { return a.header.Get(name) == want } }
	any := func(answer) bool { return true }
	tests := []struct {
		fault string
		want  int
		check check
	}{
		{"page:1:status=429", 429, header("Retry-After", "")},
		{"page:1:status=429,retry_after=7", 429, header("Retry-After", "7")},
		{"page:1:status=503,retry_after=date:60", 503, func(a answer) bool {
			at, err := http.ParseTime(a.header.Get("Retry-After"))
			return err == nil && time.Until(at) > 50*time.Second && time.Until(at) <= time.Minute
		}},
		{"page:1:status=500", 500, any},
		{"page:1:status=502", 502, any},
		{"page:1:status=504", 504, any},
		{"page:1:status=400", 400, any},
		{"page:1:status=403", 403, any},
		{"any:1:status=404", 404, any},
		{"page:1:truncate_json", 200, func(a answer) bool { return len(a.body) > 1000 && !json.Valid(a.body) }},
		{"page:1:html", 200, func(a answer) bool {
			return strings.HasPrefix(a.header.Get("Content-Type"), "text/html") && strings.HasPrefix(string(a.body), "<!DOCTYPE")
		}},
		{"page:1:empty200", 200, func(a answer) bool { return len(a.body) == 0 }},
		{"page:1:garbage", 200, func(a answer) bool { return len(a.body) > 0 && !json.Valid(a.body) }},
		{"page:1:redirect=http://127.0.0.1:1/x", 307, header("Location", "http://127.0.0.1:1/x")},
	}
	for _, tt := range tests {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			v, _, path := withFault(t, tt.fault)
			if a := v.want(tt.want, "POST", path, "{}", nil); !tt.check(a) {
				t.Errorf("got header %v, body %.100q", a.header, a.body)
			}
			v.want(200, "POST", path, "{}", nil)
			if st := v.server.Faults()[0]; st.Seen != 2 || st.Hits != 1 {
				t.Errorf("got %d seen, %d hits; want 2, 1", st.Seen, st.Hits)
			}
		})
	}
}

func TestFaultsThatBreakTheConnection(t *testing.T) {
	t.Parallel()
	reset := func(a answer, err error) bool { return errors.Is(err, syscall.ECONNRESET) }
	for _, tt := range []struct {
		fault string
		check func(a answer, err error) bool
	}{
		{"page:1:reset", func(a answer, err error) bool { return reset(a, err) && a.status == 0 }},
		{"page:1:reset_body", reset},
		{"page:1:truncate", func(a answer, err error) bool {
			return errors.Is(err, io.ErrUnexpectedEOF) && a.status == 200 && len(a.body) > 1000 && a.header.Get("Content-Length") != ""
		}},
		{"page:1:drop_response", reset},
		{"page:1:stall=1ms", func(a answer, err error) bool { return errors.Is(err, io.EOF) }},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			v, _, path := withFault(t, tt.fault)
			v.header.Set("Accept-Encoding", "identity")
			if a, err := v.try("POST", path, "{}"); !tt.check(a, err) {
				t.Errorf("got status %d, %d bytes, %v", a.status, len(a.body), err)
			}
			v.want(200, "POST", path, "{}", nil)
		})
	}
}

func TestStallUntilTheClientGivesUp(t *testing.T) {
	t.Parallel()
	v, _, path := withFault(t, "page:1:stall")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", v.url+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = v.header.Clone()
	if resp, err := v.client.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		if err == nil {
			resp.Body.Close()
		}
		t.Errorf("got %v, want the client's own deadline", err)
	}
	v.want(200, "POST", path, "{}", nil)
}

func TestLatency(t *testing.T) {
	t.Parallel()
	v, _, path := withFault(t, "page:1:latency=30ms")
	if err := v.server.SetFaults(sandbox.Fault{Endpoint: sandbox.EndpointPage, Kind: sandbox.FaultStatus, Status: 503}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	v.want(503, "POST", path, "{}", nil) // both rules hit the same call
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("took %v, want at least 30ms", took)
	}
}

func TestPageLatency(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 1, PollsUntilDone: 1, PageLatency: 30 * time.Millisecond}).logIn()
	id := v.ready("2024-03-01", "2024-03-02")
	began := time.Now()
	v.page(id, "", 200)
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("took %v, want at least 30ms", took)
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 30, PollsUntilDone: 1, PageLatency: 20 * time.Millisecond}).logIn()
	path := jobsPath + "/" + v.ready("2024-03-01", "2024-03-02") + "/sdr"
	type outcome struct {
		answer
		err error
	}
	const clients = 8
	outcomes := make(chan outcome, clients)
	for range clients {
		go func() {
			v.server.AdvanceNight()
			a, err := v.try("POST", path, pageBody("", 200))
			outcomes <- outcome{a, err}
		}()
	}
	var first []byte
	for range clients {
		o := <-outcomes
		if o.err != nil || o.status != 200 {
			t.Fatalf("got status %d, %v", o.status, o.err)
		}
		if first == nil {
			first = o.body
		}
		if !bytes.Equal(o.body, first) {
			t.Error("two clients got different pages")
		}
	}
	if st := v.server.Stats(); st.InFlightMax < 2 || st.InFlightMax > clients || st.Night != clients {
		t.Errorf("got at most %d calls in flight in %d nights, want 2 to %d, %d", st.InFlightMax, st.Night, clients, clients)
	}
}

func TestUnauthorizedRevokesEveryToken(t *testing.T) {
	t.Parallel()
	v, id, path := withFault(t, "page:1:unauthorized")
	v.want(401, "POST", path, "{}", nil)
	v.want(401, "GET", jobsPath+"/"+id, "", nil)
	v.logIn()
	v.want(200, "POST", path, "{}", nil) // the job outlives the token
}

func TestJobFaults(t *testing.T) {
	t.Parallel()
	t.Run("failure", func(t *testing.T) {
		t.Parallel()
		v, id, path := withFault(t, "poll:1:job_failure")
		for range 2 {
			if got := v.poll(id); got.Status != "failure" {
				t.Errorf("got %+v, want failure", got)
			}
		}
		v.want(400, "POST", path, "{}", nil)
	})
	t.Run("hang", func(t *testing.T) {
		t.Parallel()
		v, id, path := withFault(t, "poll:1:hang")
		for range 5 {
			if got := v.poll(id); got.Status != "running" {
				t.Errorf("got %+v, want running", got)
			}
		}
		v.want(400, "POST", path, "{}", nil)
		if got := v.poll(v.create("2024-03-01", "2024-03-02")); got.Status != "success" {
			t.Errorf("another job: got %+v, want success", got)
		}
	})
	t.Run("forgotten at a page", func(t *testing.T) {
		t.Parallel()
		v, id, path := withFault(t, "page:2:job_forgotten")
		v.want(200, "POST", path, "{}", nil)
		v.want(404, "POST", path, "{}", nil)
		v.want(404, "POST", path, "{}", nil)
		v.want(404, "GET", jobsPath+"/"+id, "", nil)
	})
	t.Run("forgotten at a poll", func(t *testing.T) {
		t.Parallel()
		v, id, _ := withFault(t, "poll:1:job_forgotten")
		v.want(404, "GET", jobsPath+"/"+id, "", nil)
	})
	t.Run("unknown status", func(t *testing.T) {
		t.Parallel()
		v, id, _ := withFault(t, "poll:1:unknown_status")
		if got := v.poll(id); got.Status != "merging" || got.ID != id {
			t.Errorf("got %+v, want a status that no document names", got)
		}
		if got := v.poll(id); got.Status != "success" {
			t.Errorf("got %+v, want success", got)
		}
	})
	t.Run("create's answer lost", func(t *testing.T) {
		t.Parallel()
		v, _, _ := withFault(t, "create:1:drop_response")
		before := v.server.Stats().JobsCreated
		if _, err := v.try("POST", jobsPath, jobBody("", "", "2024-03-01", "2024-03-02")); err == nil {
			t.Error("got an answer")
		}
		if got := v.server.Stats().JobsCreated - before; got != 1 {
			t.Errorf("got %d jobs, want the one whose answer was lost", got)
		}
	})
}

func TestMarkerLoop(t *testing.T) {
	t.Parallel()
	for _, length := range []int{1, 2, 3} {
		v, id, _ := withFault(t, "page:2:marker_loop="+string(rune('0'+length)))
		marker := v.page(id, "", 200).Marker
		start := marker
		for n := 1; n <= 12; n++ {
			marker = v.page(id, marker, 200).Marker
			if back := n%length == 0; back != (marker == start) {
				t.Fatalf("length %d: after %d pages got the first marker of the loop: %v, want %v", length, n, !back, back)
			}
		}
	}
	// A job with fewer pages than the loop goes round all the same.
	v, id, _ := withFault(t, "page:1:marker_loop=500")
	marker := ""
	for range 40 {
		if marker = v.page(id, marker, 200).Marker; marker == "" {
			t.Fatal("the job ended")
		}
	}
}

func TestMoved(t *testing.T) {
	t.Parallel()
	v, id, _ := withFault(t, "page:4:moved")
	first := v.page(id, "", 200)
	second := v.page(id, first.Marker, 200)
	if again := v.page(id, first.Marker, 200); !bytes.Equal(bytesOf(again.Data), bytesOf(second.Data)) {
		t.Error("the page moved too early")
	}
	moved := v.page(id, first.Marker, 200)
	if bytes.Equal(bytesOf(moved.Data), bytesOf(second.Data)) || len(moved.Data) != len(second.Data) {
		t.Errorf("got the same page of %d records, want another", len(moved.Data))
	}
	if again := v.page(id, first.Marker, 200); !bytes.Equal(bytesOf(again.Data), bytesOf(moved.Data)) {
		t.Error("the page moved twice")
	}
	// No record is lost by that, they only stand elsewhere.
	if got := len(join(v.drain(id, 200))); got != 1872 {
		t.Errorf("got %d records, want 1872", got)
	}
}

func TestGzipBomb(t *testing.T) {
	t.Parallel()
	v, _, path := withFault(t, "page:1:gzip_bomb=20")
	v.client.Transport.(*http.Transport).DisableCompression = true
	a := v.want(200, "POST", path, "{}", nil)
	if a.header.Get("Content-Encoding") != "gzip" || len(a.body) > 1<<20 {
		t.Fatalf("got encoding %q, %d bytes; want less than a MiB of gzip", a.header.Get("Content-Encoding"), len(a.body))
	}
	z, err := gzip.NewReader(bytes.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, z); err != nil || n < 20<<20 {
		t.Errorf("unpacked %d bytes, %v; want 20 MiB", n, err)
	}
}

func TestFaultsOverHTTP(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{})
	var states []struct {
		Fault      string
		Seen, Hits int
	}
	v.want(200, "POST", "/_sandbox/faults", `["token:1x2:status=503","token:*:latency=1ms"]`, &states)
	if len(states) != 2 || states[0].Fault != "token:1x2:status=503" {
		t.Errorf("got %+v", states)
	}
	v.want(400, "POST", "/_sandbox/faults", `["token:1:nonsense"]`, nil)
	v.want(400, "POST", "/_sandbox/faults", `{}`, nil)
	v.want(503, "POST", "/v3/auth/tokens", login, nil)
	v.want(503, "POST", "/v3/auth/tokens", login, nil)
	v.want(201, "POST", "/v3/auth/tokens", login, nil)
	v.want(200, "GET", "/_sandbox/faults", "", &states)
	if states[0].Hits != 2 || states[0].Seen != 3 || states[1].Hits != 3 {
		t.Errorf("got %+v, want 2 of 3 and 3 hits", states)
	}
	v.want(204, "DELETE", "/_sandbox/faults", "", nil)
	v.want(200, "GET", "/_sandbox/faults", "", &states)
	if len(states) != 0 {
		t.Errorf("got %+v, want none", states)
	}
	v.want(201, "POST", "/v3/auth/tokens", login, nil)
}

func TestFailRate(t *testing.T) {
	t.Parallel()
	run := func() (failed int) {
		v := start(t, sandbox.Config{FailRate: 0.3, Seed: 4})
		for range 200 {
			if a, err := v.try("POST", "/v3/auth/tokens", login); err != nil || a.status != 201 {
				failed++
			}
		}
		if st := v.server.Stats(); int(st.Faults) != failed {
			t.Errorf("got %d faults in the counters, want %d", st.Faults, failed)
		}
		return failed
	}
	first := run()
	if first < 40 || first > 80 {
		t.Errorf("got %d of 200 calls failed, want about 60", first)
	}
	if again := run(); again != first {
		t.Errorf("got %d failed calls, then %d; want the same from the same seed", first, again)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 30, PollsUntilDone: 1}).logIn()
	id := v.ready("2024-03-01", "2024-03-02")
	pages := v.drain(id, 200)
	v.want(404, "GET", jobsPath+"/nobody", "", nil)
	var st sandbox.Stats
	v.want(200, "GET", "/_sandbox/stats", "", &st)
	calls := st.Calls
	if calls["token"] != 1 || calls["create"] != 1 || calls["poll"] != 2 || calls["page"] != int64(len(pages)) {
		t.Errorf("got calls %v, want 1, 1, 2, %d", calls, len(pages))
	}
	if st.Pages != int64(len(pages)) || st.Records != 936 || st.JobsCreated != 1 || st.TokensIssued != 1 || st.InFlightMax != 1 || st.InFlight != 0 {
		t.Errorf("got %+v", st)
	}
	if st.Statuses["404"] != 1 || st.Statuses["201"] != 2 {
		t.Errorf("got statuses %v", st.Statuses)
	}
}
