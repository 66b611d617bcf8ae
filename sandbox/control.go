package sandbox

import (
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// What steers and watches the stand-in, under /_sandbox/. It needs no token and is never hit by faults.

func (s *Server) mountControl() {
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { noSuchAPI().write(w) })
	s.mux.HandleFunc("GET /_sandbox/truth", s.getTruth)
	s.mux.HandleFunc("GET /_sandbox/list", s.getListTruth)
	s.mux.HandleFunc("GET /_sandbox/subscriptions", func(w http.ResponseWriter, _ *http.Request) {
		jsonReply(http.StatusOK, s.Subscriptions()).write(w)
	})
	s.mux.HandleFunc("GET /_sandbox/stats", func(w http.ResponseWriter, _ *http.Request) {
		jsonReply(http.StatusOK, s.Stats()).write(w)
	})
	s.mux.HandleFunc("POST /_sandbox/night", func(w http.ResponseWriter, _ *http.Request) {
		jsonReply(http.StatusOK, map[string]int{"night": s.AdvanceNight()}).write(w)
	})
	s.mux.HandleFunc("GET /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		jsonReply(http.StatusOK, s.Faults()).write(w)
	})
	s.mux.HandleFunc("POST /_sandbox/faults", s.postFaults)
	s.mux.HandleFunc("DELETE /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		reply{status: http.StatusNoContent}.write(w)
	})
}

func (s *Server) getTruth(w http.ResponseWriter, r *http.Request) {
	var dates [2]day
	for i, name := range []string{"from", "to"} {
		t, err := time.Parse(time.DateOnly, r.URL.Query().Get(name))
		if err != nil {
			badRequest("%s must be a date such as 2024-03-01", name).write(w)
			return
		}
		dates[i] = dayOf(t)
	}
	q := r.URL.Query()
	jsonReply(http.StatusOK, s.truth(q.Get("site"), q.Get("region"), dates[0], dates[1])).write(w)
}

func (s *Server) postFaults(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBody))
	if err != nil {
		return // the client is gone
	}
	faults, err := faultsFromJSON(body)
	if err != nil {
		badRequest("%v", err).write(w)
		return
	}
	s.faults.add(faults)
	jsonReply(http.StatusOK, s.Faults()).write(w)
}

// Stats counts what the vendor was asked and did.
type Stats struct {
	Calls        map[Endpoint]int64 `json:"calls"`
	Statuses     map[string]int64   `json:"statuses"` // answers by status code; a broken connection is none
	Pages        int64              `json:"pages"`    // rendered, answered or not
	Records      int64              `json:"records"`  // on those pages
	JobsCreated  int64              `json:"jobs_created"`
	TokensIssued int64              `json:"tokens_issued"`
	Faults       int64              `json:"faults"` // calls that a fault hit, delays not counted
	InFlight     int64              `json:"in_flight"`
	InFlightMax  int64              `json:"in_flight_max"`
	Night        int                `json:"night"`

	MaxPerSecond map[Endpoint]int64 `json:"max_per_second"` // most calls that came within one second
	Throttled    map[Endpoint]int64 `json:"throttled"`      // calls refused for coming too often
}

// Stats returns the counters since the server was made.
func (s *Server) Stats() Stats {
	st := s.counters.snapshot()
	st.Night = s.Night()
	return st
}

// counters guards a Stats.
type counters struct {
	mu     sync.Mutex
	stats  Stats
	recent map[Endpoint][]time.Time // calls of the last second
}

func (c *counters) do(change func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.stats)
}

// open makes the endpoints show up before they are called.
func (c *counters) open(routes []route) {
	c.do(func(s *Stats) {
		if s.Calls == nil {
			s.Calls, s.Statuses = map[Endpoint]int64{}, map[string]int64{}
			s.MaxPerSecond, s.Throttled = map[Endpoint]int64{}, map[Endpoint]int64{}
			c.recent = map[Endpoint][]time.Time{}
		}
		for _, rt := range routes {
			s.Calls[rt.endpoint] = 0
		}
	})
}

func (c *counters) enter(e Endpoint) (leave func()) {
	c.do(func(s *Stats) {
		s.Calls[e]++
		s.InFlight++
		s.InFlightMax = max(s.InFlightMax, s.InFlight)
		now := time.Now()
		c.recent[e] = append(since(c.recent[e], now.Add(-time.Second)), now)
		s.MaxPerSecond[e] = max(s.MaxPerSecond[e], int64(len(c.recent[e])))
	})
	return func() { c.do(func(s *Stats) { s.InFlight-- }) }
}

// since drops the times that aren't after start.
func since(times []time.Time, start time.Time) []time.Time {
	for len(times) > 0 && !times[0].After(start) {
		times = times[1:]
	}
	return times
}

func (c *counters) answered(status int) {
	c.do(func(s *Stats) { s.Statuses[strconv.Itoa(status)]++ })
}

func (c *counters) page(records int64) {
	c.do(func(s *Stats) { s.Pages++; s.Records += records })
}

func (c *counters) refused(e Endpoint) { c.do(func(s *Stats) { s.Throttled[e]++ }) }

func (c *counters) job()   { c.do(func(s *Stats) { s.JobsCreated++ }) }
func (c *counters) token() { c.do(func(s *Stats) { s.TokensIssued++ }) }
func (c *counters) fault() { c.do(func(s *Stats) { s.Faults++ }) }

func (c *counters) snapshot() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stats
	st.Calls, st.Statuses = maps.Clone(st.Calls), maps.Clone(st.Statuses)
	st.MaxPerSecond, st.Throttled = maps.Clone(st.MaxPerSecond), maps.Clone(st.Throttled)
	return st
}
