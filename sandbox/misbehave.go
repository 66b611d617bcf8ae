package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// misbehave carries out one fault. answer is what would be said otherwise.
func (s *Server) misbehave(w http.ResponseWriter, c *call, f Fault, answer func() reply) {
	switch f.Kind {
	case FaultStatus:
		s.send(w, c.Request, f.statusReply(s.now()))
	case FaultUnauthorized:
		s.revokeTokens()
		s.send(w, c.Request, badToken("decrypt token fail"))
	case FaultReset:
		hangUp(w, nil, true)
	case FaultResetBody, FaultTruncate:
		rep := answer()
		defer rep.done()
		hangUp(w, halfResponse(rep), f.Kind == FaultResetBody)
	case FaultTruncateJSON:
		rep := answer()
		defer rep.done()
		rep.body = rep.body[:len(rep.body)/2]
		s.send(w, c.Request, rep)
	case FaultHTML:
		page := "<!DOCTYPE html><html><head><title>Maintenance</title></head><body><h1>系统维护中</h1></body></html>"
		s.send(w, c.Request, reply{status: http.StatusOK, header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, body: []byte(page)})
	case FaultEmpty:
		s.send(w, c.Request, reply{status: http.StatusOK})
	case FaultGarbage:
		s.send(w, c.Request, reply{status: http.StatusOK, body: []byte("\x00\x01{\"data\": [}]oops")})
	case FaultStall:
		stall(c, f.For)
		hangUp(w, nil, false)
	case FaultRedirect:
		s.send(w, c.Request, reply{status: http.StatusTemporaryRedirect, header: http.Header{"Location": {f.URL}}})
	case FaultGzipBomb:
		s.counters.answered(http.StatusOK)
		sendBomb(w, f.Count)
	case FaultDropResponse:
		rep := answer()
		defer rep.done()
		hangUp(w, nil, true)
	case FaultUnknownStatus:
		rep := answer()
		defer rep.done()
		s.send(w, c.Request, withUnknownStatus(rep))
	case FaultShift, FaultSkip, FaultRepeat, FaultNoRows, FaultHalf:
		c.fault = f.Kind
		rep := answer()
		defer rep.done()
		s.send(w, c.Request, rep)
	default: // what happened to the job shows in the answer
		s.afflict(c, f)
		rep := answer()
		defer rep.done()
		s.send(w, c.Request, rep)
	}
}

// afflict changes the job that the call is about.
func (s *Server) afflict(c *call, f Fault) {
	if f.Kind == FaultMarkerLoop {
		s.loopFrom(c, f.Count)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[c.PathValue("job_id")]
	if j == nil {
		return
	}
	switch f.Kind {
	case FaultJobFailure:
		j.failed = true
	case FaultJobHang:
		j.hung = true
	case FaultJobForgotten:
		delete(s.jobs, j.id)
	case FaultMoved:
		j.moved++
	}
}

func (f Fault) statusReply(now time.Time) reply {
	codes := map[int]string{http.StatusTooManyRequests: "APIG.0308", http.StatusNotFound: "APIG.0101"}
	code, known := codes[f.Status]
	if !known {
		code = "AS.0" + strconv.Itoa(f.Status)
	}
	rep := refuse(f.Status, code, "%s", http.StatusText(f.Status))
	if f.RetryAfter != "" {
		after := f.RetryAfter
		if secs, dated := strings.CutPrefix(after, "date:"); dated {
			n, _ := strconv.Atoi(secs) // validated
			after = now.Add(time.Duration(n) * time.Second).UTC().Format(http.TimeFormat)
		}
		rep.header = http.Header{"Retry-After": {after}}
	}
	return rep
}

// withUnknownStatus replaces the status of a good poll.
func withUnknownStatus(rep reply) reply {
	var a jobAnswer
	if rep.status != http.StatusOK || json.Unmarshal(rep.body, &a) != nil {
		return rep
	}
	return jsonReply(http.StatusOK, jobAnswer{a.ID, "merging", min(a.Progress, 99)})
}

// halfResponse is the response whose body breaks off in the middle.
func halfResponse(rep reply) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n", rep.status, http.StatusText(rep.status), jsonType, len(rep.body))
	_ = rep.header.Write(&b) // a buffer takes everything
	b.WriteString("\r\n")
	b.Write(rep.body[:len(rep.body)/2])
	return b.Bytes()
}

// hangUp writes raw bytes and closes the connection, by reset or in order.
func hangUp(w http.ResponseWriter, raw []byte, reset bool) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2 has no connection to give; this cuts the stream
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Write(raw) // the client may be gone already
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
}

// stall waits for d, or without d until the client gives up.
func stall(c *call, d time.Duration) {
	if d > 0 {
		pause(c.Context(), d)
		return
	}
	<-c.Context().Done()
}

// sendBomb sends a small body that unpacks to many MiB of well-formed JSON.
func sendBomb(w http.ResponseWriter, mebibytes int) {
	if mebibytes == 0 {
		mebibytes = 1024
	}
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Content-Encoding", "gzip")
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	blanks := bytes.Repeat([]byte{' '}, 1<<20)
	_, err = io.WriteString(z, `{"data":[`)
	for n := 0; n < mebibytes && err == nil; n++ {
		_, err = z.Write(blanks)
	}
	if err == nil {
		_, err = io.WriteString(z, `],"marker":""}`)
	}
	if err == nil {
		_ = z.Close() // an error means that the client has had enough
	}
}
