package source_test

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/source"
)

func TestHostTime(t *testing.T) {
	t.Parallel()
	ahead := func(d time.Duration, code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(d).UTC().Format(http.TimeFormat))
			w.WriteHeader(code)
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    time.Duration
	}{
		"ahead":         {ahead(2*time.Hour, 200), 2 * time.Hour},
		"behind":        {ahead(-2*time.Hour, 200), -2 * time.Hour},
		"not there":     {ahead(2*time.Hour, 404), 2 * time.Hour},
		"redirect":      {ahead(2*time.Hour, 302), 2 * time.Hour},
		"server error":  {ahead(2*time.Hour, 500), 2 * time.Hour},
		"no date":       {func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil }, 0},
		"no good date":  {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", "today") }, 0},
		"no answer":     {reset(""), 0},
		"not an answer": {reset("SSH-2.0\r\n"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			endpoint, err := url.Parse(serve(t, func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				if r.Method != "GET" || r.RequestURI != "/" || r.Header.Get("Authorization") != "" {
					t.Errorf("asked %s %s", r.Method, r.RequestURI)
				}
				c.handler(w, r)
			}) + "/base/path")
			if err != nil {
				t.Fatal(err)
			}
			transport := newTransport(t, source.Config{})
			var askers sync.WaitGroup
			for range 5 {
				askers.Go(func() {
					if got := time.Until(transport.HostTime(t.Context(), endpoint)); (got - c.want).Abs() > 30*time.Second {
						t.Errorf("the host is %s ahead, want %s", got, c.want)
					}
				})
			}
			askers.Wait()
			if calls.Load() != 1 {
				t.Errorf("asked %d times, want once", calls.Load())
			}
		})
	}
}

func TestHostTimeIsLearntFromEveryAnswer(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/calls" {
			t.Errorf("asked %s", r.URL.Path)
		}
		w.Header().Set("Date", time.Now().Add(time.Duration(ahead.Add(1))*time.Hour).UTC().Format(http.TimeFormat))
		status(200, "{}")(w, r)
	})
	endpoint, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	transport := newTransport(t, source.Config{})
	for want := time.Hour; want <= 3*time.Hour; want += time.Hour {
		resp, err := transport.Do(t.Context(), get(address+"/calls"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Release()
		if got := time.Until(transport.HostTime(t.Context(), endpoint)); (got - want).Abs() > 30*time.Second {
			t.Errorf("the host is %s ahead, want %s", got, want)
		}
	}
}

func TestInterruptedHostTimeIsAskedByTheNext(t *testing.T) {
	t.Parallel()
	endpoint, err := url.Parse(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	}))
	if err != nil {
		t.Fatal(err)
	}
	transport := newTransport(t, source.Config{})
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if got := time.Until(transport.HostTime(stopped, endpoint)); got.Abs() > 30*time.Second {
		t.Errorf("interrupted, the host is %s ahead", got)
	}
	if got := time.Until(transport.HostTime(t.Context(), endpoint)); (got - time.Hour).Abs() > 30*time.Second {
		t.Errorf("the host is %s ahead, want an hour", got)
	}
}
