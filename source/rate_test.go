package source_test

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sdr-sync/sdr-sync/source"
)

// starts returns when each call comes to a vendor, counted from the first, if each of apis is called n times at once under the rate.
func starts(t *testing.T, config source.Config, rate source.Rate, n int, apis ...string) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var at []time.Duration
	var begin time.Time
	transport, end := bubble(t, config, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		at = append(at, time.Since(begin).Round(time.Millisecond)) // limiters count in fractions
		mu.Unlock()
		status(200, "{}")(w, r)
	})
	defer end()
	begin = time.Now()
	var calls sync.WaitGroup
	for _, api := range apis {
		for range n {
			calls.Go(func() {
				req := get("http://127.0.0.1/")
				req.API, req.Rate = api, rate
				resp, err := transport.Do(t.Context(), req)
				if err != nil {
					t.Error(err)
				}
				resp.Release()
			})
		}
	}
	calls.Wait()
	return at
}

// most returns the largest number of calls within any span.
func most(at []time.Duration, span time.Duration) int {
	largest := 0
	for i := range at {
		n := 0
		for _, later := range at[i:] {
			if later-at[i] < span {
				n++
			}
		}
		largest = max(largest, n)
	}
	return largest
}

func TestRate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		perSecond float64
		rate      source.Rate
		calls     int           // of each of two APIs
		perMinute int           // the most in any minute
		inASecond int           // the most in any second
		took      time.Duration // at most, for all
	}{
		"60 a minute":                {0, source.Rate{Class: "capacity", PerMinute: 60}, 100, 60, 11, 4 * time.Minute},
		"240 a minute are 4 at most": {0, source.Rate{Class: "dictionary", PerMinute: 240}, 300, 240, 4, 3 * time.Minute},
		"600 a minute":               {0, source.Rate{Class: "servers", PerMinute: 600}, 700, 600, 10, 3 * time.Minute},
		"few":                        {0, source.Rate{Class: "few", PerMinute: 3}, 5, 3, 1, 5 * time.Minute},
		"the second's limit holds":   {1, source.Rate{Class: "capacity", PerMinute: 60}, 20, 60, 1, time.Minute},
		"no limit":                   {0, source.Rate{Class: "metrics"}, 100, 200, 200, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				at := starts(t, source.Config{RequestsPerSecond: c.perSecond}, c.rate, c.calls, "ecs", "evs")
				if got := most(at, time.Minute); got > c.perMinute {
					t.Errorf("%d calls within a minute, want %d at most", got, c.perMinute)
				}
				if got := most(at, time.Second); got > c.inASecond {
					t.Errorf("%d calls within a second, want %d at most", got, c.inASecond)
				}
				if last := at[len(at)-1]; last > c.took {
					t.Errorf("%d calls took %s, want %s at most", len(at), last, c.took)
				}
			})
		})
	}
}

func TestClassesHaveBudgetsOfTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport, end := bubble(t, source.Config{}, status(200, "{}"))
		defer end()
		start := time.Now()
		for _, class := range []string{"a", "b", "c"} {
			req := get("http://127.0.0.1/")
			req.Rate = source.Rate{Class: class, PerMinute: 1}
			resp, err := transport.Do(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Release()
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the first calls of three classes took %s", took)
		}
	})
}
