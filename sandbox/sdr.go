package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"time"
)

// The query jobs of ESM API Reference 4.2.

func (s *Server) sdrRoutes() []route {
	return []route{
		{http.MethodPost, "/meter/v1/{domain_id}/query-jobs", EndpointCreate, false, s.createJob},
		{http.MethodGet, "/meter/v1/{domain_id}/query-jobs/{job_id}", EndpointPoll, false, s.pollJob},
		{http.MethodPost, "/meter/v1/{domain_id}/query-jobs/{job_id}/sdr", EndpointPage, false, s.pageOfJob},
	}
}

// job is one query job. What changes is guarded by Server.mu.
type job struct {
	id     string
	number int // from 1; some answers differ from job to job
	result result
	key    [32]byte // hides positions in markers

	polls  int
	hung   bool  // never done
	failed bool  // for good
	loop   *loop // markers go round
	moved  int64 // how far the records have shifted
}

// loop makes the page at start follow every page that ends at until or beyond.
type loop struct{ start, until position }

// state is a job's condition at one moment.
type state struct {
	status   string
	progress int
	loop     *loop
	moved    int64
}

// checkTenant compares the path's tenant with the one the token is good for.
func (s *Server) checkTenant(c *call) (reply, bool) {
	id := c.PathValue("domain_id")
	if !idAlphabet.MatchString(id) {
		return badRequest("domain_id must match %s", idAlphabet), false
	}
	if id != s.config.DomainID {
		return refuse(http.StatusForbidden, "AS.0003", "The token is not good for the tenant %s", id), false
	}
	return reply{}, true
}

// createJob is ESM API Reference 4.2.1. Both times are mandatory (en); only their dates count and the end is exclusive (zh).
func (s *Server) createJob(c *call) reply {
	if rep, ok := s.checkTenant(c); !ok {
		return rep
	}
	var site, region, minTime, maxTime string
	err := object(c.body, map[string]any{
		"hcso_id": &site, "region_id": &region, "min_sdr_time": &minTime, "max_sdr_time": &maxTime,
	})
	if err != nil {
		return badRequest("%v", err)
	}
	if !idAlphabet.MatchString(site) {
		return badRequest("hcso_id must match %s", idAlphabet)
	}
	if !regionAlphabet.MatchString(region) {
		return badRequest("region_id must match %s", regionAlphabet)
	}
	from, ok := fileDate(minTime)
	if !ok {
		return badRequest("min_sdr_time must be a date that matches %s", timeForm)
	}
	to, ok := fileDate(maxTime)
	if !ok {
		return badRequest("max_sdr_time must be a date that matches %s", timeForm)
	}
	if from > to {
		return badRequest("min_sdr_time must not be after max_sdr_time")
	}

	id := randomID()
	j := &job{
		id:     id[:8] + "-" + id[8:12] + "-4" + id[13:16] + "-a" + id[17:20] + "-" + id[20:],
		result: s.query(site, region, from, to),
	}
	j.key = sha256.Sum256(append(s.secret[:], j.id...))
	s.mu.Lock()
	s.made++
	j.number = s.made
	s.jobs[j.id] = j
	s.mu.Unlock()
	s.counters.job()
	return jsonReply(http.StatusCreated, map[string]string{"job_id": j.id})
}

// fileDate reads the date part of "2024-03-01 00:00:00".
func fileDate(text string) (day, bool) {
	if !timeForm.MatchString(text) {
		return 0, false
	}
	t, err := time.Parse(time.DateOnly, text[:len(time.DateOnly)])
	return dayOf(t), err == nil
}

// job finds the job of the path.
func (s *Server) job(c *call) (*job, reply, bool) {
	if rep, ok := s.checkTenant(c); !ok {
		return nil, rep, false
	}
	id := c.PathValue("job_id")
	if !idAlphabet.MatchString(id) {
		return nil, badRequest("job_id must match %s", idAlphabet), false
	}
	s.mu.Lock()
	j := s.jobs[id]
	s.mu.Unlock()
	if j == nil {
		return nil, refuse(http.StatusNotFound, "AS.0004", "The job %s does not exist", id), false
	}
	return j, reply{}, true
}

// state reads the job's condition; polled counts this as a poll.
func (s *Server) state(j *job, polled int) state {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.polls += polled
	st := state{loop: j.loop, moved: j.moved}
	need := s.config.PollsUntilDone
	switch {
	case j.failed:
		st.status, st.progress = "failure", min(99, 100*j.polls/need)
	case j.hung:
		st.status, st.progress = "running", 99
	case j.polls >= need:
		st.status, st.progress = "success", 100
	case j.polls <= 1 && need > 2:
		st.status, st.progress = "pending", 0
	default:
		st.status, st.progress = "running", 100*j.polls/need
	}
	return st
}

// jobAnswer is QueryJobVo, ESM API Reference 4.2.2.
type jobAnswer struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Progress int    `json:"progress"`
}

func (s *Server) pollJob(c *call) reply {
	j, rep, ok := s.job(c)
	if !ok {
		return rep
	}
	st := s.state(j, 1)
	return jsonReply(http.StatusOK, jobAnswer{j.id, st.status, st.progress})
}

// The limits of ESM API Reference 4.2.3, table 4-7.
const (
	defaultLimit = 100
	maxLimit     = 200
)

func (s *Server) pageOfJob(c *call) reply {
	j, rep, ok := s.job(c)
	if !ok {
		return rep
	}
	marker, limit := "", int32(defaultLimit)
	if err := object(c.body, map[string]any{"marker": &marker, "limit": &limit}); err != nil {
		return badRequest("%v", err)
	}
	if limit < 1 || limit > maxLimit {
		return badRequest("limit must be 1 to %d, not %d", maxLimit, limit)
	}
	if !markerAlphabet.MatchString(marker) {
		return badRequest("marker must match %s", markerAlphabet)
	}
	st := s.state(j, 0)
	if st.status != "success" {
		return badRequest("the job %s is %s", j.id, st.status)
	}
	at, ok := j.position(marker)
	if !ok {
		return badRequest("the marker is none of the job %s", j.id)
	}
	if !pause(c.Context(), s.config.PageLatency) {
		return refuse(http.StatusServiceUnavailable, "AS.0005", "The client has gone")
	}

	buffer := s.pages.Get().(*[]byte)
	var records int64
	*buffer, records = j.appendPage((*buffer)[:0], at, int64(limit), st)
	s.counters.page(records)
	return reply{status: http.StatusOK, body: *buffer, release: func() { s.pages.Put(buffer) }}
}

// position is where a page begins: the number of its first record, and whether the job's empty page is behind.
type position struct {
	record  int64
	emptied bool
}

func (p position) before(o position) bool {
	return p.record < o.record || (p.record == o.record && !p.emptied && o.emptied)
}

// step is one page: its records are [at.record, end).
type step struct {
	end  int64
	next position
	last bool
}

// step plans the page at a position. A job of more than three pages has an empty page in its middle and a short one thereafter:
// only an empty marker ends a job.
func (j *job) step(at position, limit int64) step {
	total := j.result.total
	end := min(at.record+limit, total)
	emptied := at.emptied
	if total > 3*limit {
		hole := total / 2 / limit * limit
		short := hole + limit + (limit+1)/2
		switch {
		case !emptied && at.record == hole:
			end, emptied = hole, true
		case !emptied && at.record < hole && hole < end:
			end = hole
		case at.record < short && short < end:
			end = short
		}
	}
	return step{end: end, next: position{end, emptied}, last: end == total}
}

// appendPage writes QueryJobSdrResponse and returns how many records it holds.
func (j *job) appendPage(b []byte, at position, limit int64, st state) ([]byte, int64) {
	page := j.step(at, limit)
	if j.result.total == 0 && j.number%3 == 0 {
		return append(b, `{"data":null,"marker":null}`...), 0 // both are optional
	}
	b = append(b, `{"data":[`...)
	open := len(b)
	write := func(r *record) {
		if len(b) > open {
			b = append(b, ',')
		}
		b = r.appendJSON(b)
	}
	if st.moved == 0 {
		j.result.each(at.record, page.end, write)
	} else { // the same pages over records that have shifted round
		from := (at.record + st.moved) % j.result.total
		to := from + page.end - at.record
		j.result.each(from, min(to, j.result.total), write)
		j.result.each(0, max(0, to-j.result.total), write)
	}
	b = append(b, ']')
	switch {
	case st.loop != nil && (page.last || !page.next.before(st.loop.until)):
		b = j.appendMarker(b, st.loop.start)
	case !page.last:
		b = j.appendMarker(b, page.next)
	case j.number%3 == 0: // no marker at all
	case j.number%3 == 1:
		b = append(b, `,"marker":""`...)
	default:
		b = append(b, `,"marker":null`...)
	}
	return append(b, '}'), page.end - at.record
}

// A marker is base64 of: three bytes that show as "+//+", eight of the hidden position, seventeen of checksum. It uses every
// special letter of the marker's alphabet, and belongs to its job alone.
const (
	markerSum  = 17
	markerSize = 3 + 8 + markerSum
)

func (j *job) appendMarker(b []byte, p position) []byte {
	hidden := uint64(p.record) << 1
	if p.emptied {
		hidden |= 1
	}
	raw := [markerSize]byte{0xfb, 0xff, 0xfe}
	binary.BigEndian.PutUint64(raw[3:], hidden^binary.BigEndian.Uint64(j.key[:]))
	sum := j.checksum(raw[3:11])
	copy(raw[11:], sum[:])
	b = append(b, `,"marker":"`...)
	b = base64.StdEncoding.AppendEncode(b, raw[:])
	return append(b, '"')
}

func (j *job) checksum(hidden []byte) [sha256.Size]byte {
	return sha256.Sum256(append(j.key[:len(j.key):len(j.key)], hidden...))
}

// position reads a marker of this job; "" is the first page.
func (j *job) position(marker string) (position, bool) {
	if marker == "" {
		return position{}, true
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(marker)
	if err != nil || len(raw) != markerSize {
		return position{}, false
	}
	sum := j.checksum(raw[3:11])
	if string(sum[:markerSum]) != string(raw[11:]) {
		return position{}, false
	}
	hidden := binary.BigEndian.Uint64(raw[3:]) ^ binary.BigEndian.Uint64(j.key[:])
	return position{int64(hidden >> 1), hidden&1 == 1}, true
}

// loopFrom makes the job's markers go round n pages from the one that the page request c asks for.
func (s *Server) loopFrom(c *call, n int) {
	j, _, ok := s.job(c)
	if !ok {
		return
	}
	var req struct {
		Marker string `json:"marker"`
		Limit  *int64 `json:"limit"`
	}
	if json.Unmarshal(c.body, &req) != nil {
		return // the answer will say what is wrong with it
	}
	at, ok := j.position(req.Marker)
	if !ok {
		return
	}
	limit := int64(defaultLimit)
	if req.Limit != nil {
		limit = max(1, *req.Limit)
	}
	until := at
	for range n {
		until = j.step(until, limit).next
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j.loop = &loop{at, until}
}
