package source_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// answers plays one handler per call, the last one again and again.
func answers(calls *atomic.Int64, handlers ...http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1))
		handlers[min(n, len(handlers))-1](w, r)
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// cut sends less than it promised.
func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, `{"a":`)
}

// reset closes the connection with RST, after the head of an answer if there is one.
func reset(head string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, head)
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

func TestRetriesByClass(t *testing.T) {
	t.Parallel()
	good := status(200, `{"a":1}`)
	for name, c := range map[string]struct {
		first http.HandlerFunc
		tries int64 // 2 if the first answer is worth a retry, else 1
		want  error // of a call that fails
	}{
		"200":                  {good, 1, nil},
		"408":                  {status(408, ""), 2, nil},
		"429":                  {status(429, ""), 2, nil},
		"500":                  {status(500, ""), 2, nil},
		"502 HTML":             {status(502, "<html>"), 2, nil},
		"503":                  {status(503, ""), 2, nil},
		"504":                  {status(504, ""), 2, nil},
		"HTML for JSON":        {status(200, "<html>please log in</html>"), 2, nil},
		"empty 200":            {status(200, ""), 2, nil},
		"204":                  {status(204, ""), 2, nil},
		"202":                  {status(202, `{"a":1}`), 2, nil},
		"two values":           {status(200, `{"a":1}{"a":2}`), 2, nil},
		"cut JSON":             {status(200, `{"a":[1,2`), 2, nil},
		"cut body":             {cut, 2, nil},
		"reset before answer":  {reset(""), 2, nil},
		"reset in the body":    {reset("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"a\""), 2, nil},
		"cut chunks":           {reset("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n"), 2, nil},
		"no HTTP":              {reset("SSH-2.0-OpenSSH_9.2\r\n"), 2, nil},
		"400":                  {status(400, ""), 1, pipeline.ErrRefused},
		"401":                  {status(401, ""), 1, pipeline.ErrCredentials},
		"403":                  {status(403, ""), 1, pipeline.ErrCredentials},
		"404":                  {status(404, ""), 1, pipeline.ErrRefused},
		"405":                  {status(405, ""), 1, pipeline.ErrRefused},
		"409":                  {status(409, ""), 1, pipeline.ErrRefused},
		"301 without location": {status(301, ""), 1, pipeline.ErrRefused},
		"304":                  {status(304, ""), 1, pipeline.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			url := serve(t, answers(&calls, c.first, good))
			resp, err := newTransport(t, source.Config{}).Do(t.Context(), get(url))
			if calls.Load() != c.tries {
				t.Errorf("%d tries, want %d", calls.Load(), c.tries)
			}
			if c.want != nil {
				if !errors.Is(err, c.want) {
					t.Errorf("Do = %v, want %v", err, c.want)
				}
				return
			}
			if err != nil || string(resp.Body) != `{"a":1}` || resp.Status != 200 {
				t.Errorf("Do = %d %q, %v", resp.Status, resp.Body, err)
			}
			resp.Release()
		})
	}
}

func TestRetriedRequestIsWhole(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	var mu sync.Mutex
	var bodies []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		bodies = append(bodies, r.Header.Get("X-Own")+" "+string(body))
		mu.Unlock()
		answers(&calls, status(503, ""), reset(""), status(200, "{}"))(w, r)
	})
	req := get(url)
	req.Method, req.Body, req.Header = http.MethodPost, []byte(`{"marker":"a+b/c=="}`), http.Header{"X-Own": {"yes"}}
	resp, err := newTransport(t, source.Config{}).Do(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Release()
	want := `yes {"marker":"a+b/c=="}`
	if got := strings.Join(bodies, "\n"); got != want+"\n"+want+"\n"+want {
		t.Errorf("server got\n%s", got)
	}
}

func TestGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		transport, end := bubble(t, source.Config{}, answers(&calls, status(503, `{"error_code":"APIG.0201","error_msg":"Backend timeout","request_id":"r-1"}`)))
		defer end()
		req := get("http://127.0.0.1/")
		req.Method = http.MethodPost
		start := time.Now()
		_, err := transport.Do(t.Context(), req)
		var gaveUp *source.GaveUpError
		var refused *source.StatusError
		if !errors.As(err, &gaveUp) || !errors.As(err, &refused) {
			t.Fatalf("Do = %v, want a GaveUpError around a StatusError", err)
		}
		took := time.Since(start)
		if int64(gaveUp.Tries) != calls.Load() || gaveUp.Tries < 8 || gaveUp.After != took || took < 4*time.Minute || took > 5*time.Minute {
			t.Errorf("gave up after %d tries in %s; the server saw %d in %s", gaveUp.Tries, gaveUp.After, calls.Load(), took)
		}
		if got, want := refused.Error(), `POST things/…: status 503 APIG.0201 "Backend timeout" (request_id r-1)`; got != want {
			t.Errorf("cause is %s\nwant     %s", got, want)
		}
		if errors.Is(err, pipeline.ErrRefused) || errors.Is(err, pipeline.ErrCredentials) {
			t.Errorf("%v counts as a refusal", err)
		}
	})
}

func TestLastTryCutShortDoesNotHideTheCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		transport, end := bubble(t, source.Config{RetryFor: 30 * time.Second}, answers(&calls, status(503, ""),
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		defer end()
		_, err := transport.Do(t.Context(), get("http://127.0.0.1/"))
		if got, want := fmt.Sprint(err), "gave up after 2 tries in 30s: GET things/…: status 503"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

func TestStatusErrorReadsVendorBodies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"ESM":      {`{"error_msg":"The format of message is error","error_code":"AS.0001"}`, `AS.0001 "The format of message is error"`},
		"keystone": {`{"error":{"code":401,"message":"wrong","title":"Unauthorized"}}`, `401 "wrong"`},
		"code":     {`{"code":"X.1","message":"no"}`, `X.1 "no"`},
		"HTML":     {"<html>\n<b>no</b>", `"<html>\n<b>no</b>"`},
		"long":     {strings.Repeat("é", 300), `"` + strings.Repeat("é", 100) + `…"`},
		"injected": {`{"error_code":"A\nlevel=error","error_msg":"x\ny"}`, `A?level=error "x\ny"`},
		"text":     {`{"error":"no form"}`, `"{\"error\":\"no form\"}"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newTransport(t, source.Config{}).Do(t.Context(), get(serve(t, status(400, c.body))))
			if got, want := fmt.Sprint(err), "GET things/…: status 400 "+c.want; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestNotFoundHasTheMeaningOfTheRequest(t *testing.T) {
	t.Parallel()
	req := get(serve(t, status(404, "")))
	req.NotFound = pipeline.ErrJobForgotten
	_, err := newTransport(t, source.Config{}).Do(t.Context(), req)
	if !errors.Is(err, pipeline.ErrJobForgotten) || errors.Is(err, pipeline.ErrRefused) {
		t.Errorf("Do = %v, want ErrJobForgotten alone", err)
	}
}

func TestCheckedAnswerIsAskedAgain(t *testing.T) {
	t.Parallel()
	var calls, lost atomic.Int64
	req := get(serve(t, answers(&calls, status(200, `{"page":"old"}`), status(200, `{"page":"new"}`))))
	req.Lost = func() { lost.Add(1) }
	req.Check = func(body []byte) error {
		if !bytes.Contains(body, []byte("new")) {
			return errors.New("old page")
		}
		return nil
	}
	resp, err := newTransport(t, source.Config{}).Do(t.Context(), req)
	if err != nil || calls.Load() != 2 || lost.Load() != 1 {
		t.Fatalf("Do = %q, %v after %d calls, %d lost", resp.Body, err, calls.Load(), lost.Load())
	}
	resp.Release()
}

func TestLostCountsWhatMayHaveHappened(t *testing.T) {
	t.Parallel()
	good := status(200, "{}")
	for name, c := range map[string]struct {
		first http.HandlerFunc
		lost  int64
	}{
		"answered":  {good, 0},
		"reset":     {reset(""), 1},
		"cut":       {cut, 1},
		"500":       {status(500, ""), 1},
		"too many":  {status(429, ""), 0},
		"not JSON":  {status(200, "<html>"), 1},
		"not found": {status(404, ""), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls, lost atomic.Int64
			req := get(serve(t, answers(&calls, c.first, good)))
			req.Lost = func() { lost.Add(1) }
			resp, _ := newTransport(t, source.Config{}).Do(t.Context(), req)
			resp.Release()
			if lost.Load() != c.lost {
				t.Errorf("%d lost, want %d", lost.Load(), c.lost)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		var lost atomic.Int64
		req := get(closedPort(t))
		req.Lost = func() { lost.Add(1) }
		_, err := newTransport(t, source.Config{RetryFor: 20 * time.Millisecond}).Do(t.Context(), req)
		if !errors.Is(err, syscall.ECONNREFUSED) || lost.Load() != 0 {
			t.Errorf("Do = %v, %d lost", err, lost.Load())
		}
	})
}

// closedPort returns the URL of a port where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header func() http.Header
		atmost time.Duration
		want   time.Duration // waited at least
	}{
		"seconds": {func() http.Header { return http.Header{"Retry-After": {"120"}} }, 121 * time.Second, 120 * time.Second},
		"date": {func() http.Header {
			return http.Header{"Retry-After": {time.Now().Add(120 * time.Second).UTC().Format(http.TimeFormat)}}
		}, 121 * time.Second, 119 * time.Second},
		"date by the server's clock": {func() http.Header {
			server := time.Now().Add(-48 * time.Hour).UTC()
			return http.Header{
				"Date":        {server.Format(http.TimeFormat)},
				"Retry-After": {server.Add(120 * time.Second).Format(http.TimeFormat)},
			}
		}, 121 * time.Second, 120 * time.Second},
		"a day":    {func() http.Header { return http.Header{"Retry-After": {"86400"}} }, 150 * time.Second, 149 * time.Second},
		"for ever": {func() http.Header { return http.Header{"Retry-After": {"18446744073709551615"}} }, 150 * time.Second, 149 * time.Second},
		"past date": {func() http.Header {
			return http.Header{"Retry-After": {time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)}}
		}, time.Second, time.Millisecond},
		"nonsense": {func() http.Header { return http.Header{"Retry-After": {"soon"}} }, time.Second, time.Millisecond},
		"negative": {func() http.Header { return http.Header{"Retry-After": {"-5"}} }, time.Second, time.Millisecond},
		"none":     {func() http.Header { return nil }, time.Second, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				transport, end := bubble(t, source.Config{}, func(w http.ResponseWriter, r *http.Request) {
					for name, values := range c.header() {
						w.Header()[name] = values
					}
					answers(&calls, status(429, ""), status(200, "{}"))(w, r)
				})
				defer end()
				start := time.Now()
				resp, err := transport.Do(t.Context(), get("http://127.0.0.1/"))
				if err != nil || calls.Load() != 2 {
					t.Fatalf("Do = %v after %d calls", err, calls.Load())
				}
				resp.Release()
				if took := time.Since(start); took < c.want || took > c.atmost {
					t.Errorf("waited %s, want %s to %s", took, c.want, c.atmost)
				}
			})
		})
	}
}

func TestAbsurdRetryAfterEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport, end := bubble(t, source.Config{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(429)
		})
		defer end()
		start := time.Now()
		_, err := transport.Do(t.Context(), get("http://127.0.0.1/"))
		var gaveUp *source.GaveUpError
		if !errors.As(err, &gaveUp) || gaveUp.Tries < 3 || gaveUp.Tries > 20 || time.Since(start) > 5*time.Minute {
			t.Errorf("Do = %v after %s", err, time.Since(start))
		}
	})
}

func TestBusyAPIPausesAllItsCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		transport, end := bubble(t, source.Config{}, answers(&calls, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(429)
		}, status(200, "{}")))
		defer end()
		start := time.Now()
		done := make(chan time.Duration, 2)
		call := func(api string) {
			req := get("http://127.0.0.1/")
			req.API = api
			resp, err := transport.Do(t.Context(), req)
			if err != nil {
				t.Errorf("%s: %v", api, err)
			}
			resp.Release()
			done <- time.Since(start)
		}
		go call("read")
		synctest.Wait() // the first call is told to wait
		go call("read")
		synctest.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls during the pause, want 1", n)
		}
		call("poll")
		if took := <-done; took > time.Second {
			t.Errorf("another API waited %s", took)
		}
		for range 2 {
			if took := <-done; took < time.Minute || took > 61*time.Second {
				t.Errorf("call took %s, want a minute", took)
			}
		}
	})
}

func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport, end := bubble(t, source.Config{RequestsPerSecond: 4}, status(200, "{}"))
		defer end()
		start := time.Now()
		var calls sync.WaitGroup
		for _, api := range []string{"read", "poll"} {
			for range 9 {
				calls.Go(func() {
					req := get("http://127.0.0.1/")
					req.API = api
					resp, err := transport.Do(t.Context(), req)
					if err != nil {
						t.Error(err)
					}
					resp.Release()
				})
			}
		}
		calls.Wait()
		if took := time.Since(start).Round(time.Millisecond); took != 2*time.Second {
			t.Errorf("9 calls of each of two APIs took %s at 4 a second, want 2s", took)
		}
	})
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		known bool // the host has answered before
		want  time.Duration
		tries int
	}{
		"host never seen":       {false, 15 * time.Second, 1},
		"host answered earlier": {true, 5 * time.Minute, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				transport, end := bubble(t, source.Config{}, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/alive" {
						_, _ = io.WriteString(w, "{}")
						return
					}
					<-r.Context().Done()
				})
				defer end()
				if c.known {
					resp, err := transport.Do(t.Context(), get("http://127.0.0.1/alive"))
					if err != nil {
						t.Fatal(err)
					}
					resp.Release()
				}
				start := time.Now()
				_, err := transport.Do(t.Context(), get("http://127.0.0.1/silent"))
				var gaveUp *source.GaveUpError
				if !errors.As(err, &gaveUp) || gaveUp.Tries != c.tries || !strings.Contains(fmt.Sprint(err), "no whole answer within") {
					t.Errorf("Do = %v, want %d tries", err, c.tries)
				}
				if took := time.Since(start); took != c.want {
					t.Errorf("took %s, want %s", took, c.want)
				}
			})
		})
	}
}

func TestCancelReturnsTheCauseAtOnce(t *testing.T) {
	t.Parallel()
	asked := errors.New("operator asked to stop")
	for name, handler := range map[string]http.HandlerFunc{
		"in an attempt": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in the body": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"a":`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"between attempts": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "100")
			w.WriteHeader(429)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				transport, end := bubble(t, source.Config{}, handler)
				defer end()
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(asked) })
				start := time.Now()
				_, err := transport.Do(ctx, get("http://127.0.0.1/"))
				if !errors.Is(err, asked) || time.Since(start) != time.Second {
					t.Errorf("Do = %v after %s", err, time.Since(start))
				}
				if _, err := transport.Do(ctx, get("http://127.0.0.1/")); !errors.Is(err, asked) {
					t.Errorf("Do afterwards = %v", err)
				}
			})
		})
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			var strayed, asked atomic.Int64
			other := serve(t, func(http.ResponseWriter, *http.Request) { strayed.Add(1) })
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				http.Redirect(w, r, other+"/login?token="+r.Header.Get("X-Auth-Token"), code)
			})
			req := get(url)
			req.Auth = source.TokenAuth(&tokens{next: []string{"canary-token"}})
			_, err := newTransport(t, source.Config{}).Do(t.Context(), req)
			if !errors.Is(err, pipeline.ErrRefused) || strayed.Load() != 0 || asked.Load() != 1 {
				t.Errorf("Do = %v; the other host saw %d requests, the first %d", err, strayed.Load(), asked.Load())
			}
			text := fmt.Sprint(err)
			if !strings.Contains(text, strings.TrimPrefix(other, "http://")) || strings.Contains(text, "login") || strings.Contains(text, "canary") {
				t.Errorf("error should name the host of the location and no more: %s", text)
			}
		})
	}
}

// tokens is a TokenSource of prepared tokens.
type tokens struct {
	mu      sync.Mutex
	next    []string
	refused []string
}

func (s *tokens) Token(context.Context) (pipeline.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return pipeline.Secret(s.next[0]), nil
}

func (s *tokens) Invalidate(token pipeline.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, token.Reveal())
	if len(s.next) > 1 && s.next[0] == token.Reveal() {
		s.next = s.next[1:]
	}
}

func TestUnauthorisedIsReplayedOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		good  string
		calls int64
		want  error
	}{
		"token ended":       {"second", 2, nil},
		"no token is right": {"none", 2, pipeline.ErrCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			req := get(serve(t, func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				if r.Header.Get("X-Auth-Token") != c.good {
					status(401, `{"error_code":"APIG.0301","error_msg":"decrypt token fail"}`)(w, r)
					return
				}
				status(200, "{}")(w, r)
			}))
			given := &tokens{next: []string{"first", "second", "third"}}
			req.Auth = source.TokenAuth(given)
			resp, err := newTransport(t, source.Config{}).Do(t.Context(), req)
			resp.Release()
			if !errors.Is(err, c.want) || calls.Load() != c.calls || strings.Join(given.refused, " ") != "first" {
				t.Errorf("Do = %v after %d calls, %q refused", err, calls.Load(), given.refused)
			}
		})
	}
	t.Run("signing fails", func(t *testing.T) {
		t.Parallel()
		var calls atomic.Int64
		req := get(serve(t, answers(&calls, status(200, "{}"))))
		req.Auth.Sign = func(*http.Request) error { return pipeline.ErrCredentials }
		if _, err := newTransport(t, source.Config{}).Do(t.Context(), req); !errors.Is(err, pipeline.ErrCredentials) || calls.Load() != 0 {
			t.Errorf("Do = %v after %d calls", err, calls.Load())
		}
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		cert tls.Certificate
		most uint16 // TLS version the server speaks
		ok   bool
	}{
		"own authority":   {ours.issue(t, "127.0.0.1", later), 0, true},
		"expired":         {ours.issue(t, "127.0.0.1", past), 0, false},
		"other host":      {ours.issue(t, "esm.example.com", later), 0, false},
		"other authority": {theirs.issue(t, "127.0.0.1", later), 0, false},
		"TLS 1.1":         {ours.issue(t, "127.0.0.1", later), tls.VersionTLS11, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			config := &tls.Config{Certificates: []tls.Certificate{c.cert}, MinVersion: tls.VersionTLS10, MaxVersion: c.most}
			server := serveTLS(t, config, answers(&calls, status(200, "{}")))
			transport := newTransport(t, source.Config{CAFile: ours.file, Unreachable: time.Second})
			resp, err := transport.Do(t.Context(), get(server.URL))
			resp.Release()
			if (err == nil) != c.ok || (calls.Load() > 0) != c.ok {
				t.Errorf("Do = %v, the server saw %d requests, want success: %v", err, calls.Load(), c.ok)
			}
			var gaveUp *source.GaveUpError
			if c.most == 0 && errors.As(err, &gaveUp) {
				t.Errorf("an untrusted certificate was tried again: %v", err)
			}
		})
	}
	t.Run("self-signed", func(t *testing.T) {
		t.Parallel()
		server := serveTLS(t, nil, status(200, "{}"))
		if resp, err := newTransport(t, source.Config{}).Do(t.Context(), get(server.URL)); err == nil {
			resp.Release()
			t.Error("a self-signed certificate was accepted")
		}
	})
	t.Run("plain HTTP on the port", func(t *testing.T) {
		t.Parallel()
		url := serve(t, status(200, "{}"))
		_, err := newTransport(t, source.Config{}).Do(t.Context(), get(strings.Replace(url, "http://", "https://", 1)))
		var gaveUp *source.GaveUpError
		if err == nil || errors.As(err, &gaveUp) {
			t.Errorf("Do = %v, want an error at once", err)
		}
	})
	t.Run("plain HTTP elsewhere", func(t *testing.T) {
		t.Parallel()
		if _, err := newTransport(t, source.Config{}).Do(t.Context(), get("http://esm.example.com/")); err == nil {
			t.Error("http:// to another machine was accepted")
		}
	})
}

// A verified handshake is a sign of life: a right endpoint that is slow at first gets the time of one that answers.
func TestSlowFirstAnswerIsWaitedFor(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	var calls atomic.Int64
	config := &tls.Config{Certificates: []tls.Certificate{ours.issue(t, "127.0.0.1", time.Now().Add(time.Hour))}}
	server := serveTLS(t, config, answers(&calls, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, status(200, "{}")))
	transport := newTransport(t, source.Config{CAFile: ours.file, Unreachable: 500 * time.Millisecond})
	resp, err := transport.Do(t.Context(), get(server.URL))
	if err != nil || calls.Load() != 2 {
		t.Fatalf("Do = %v after %d calls", err, calls.Load())
	}
	resp.Release()
}

func TestAsksForGzipButOnLoopback(t *testing.T) {
	t.Parallel()
	plain := []byte(`{"data":"` + strings.Repeat("metering ", 50_000) + `"}`)
	packed := zipped(t, plain)
	var asked atomic.Value
	server := serveTLS(t, nil, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Header.Get("Accept-Encoding"))
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed)
	})
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	transport := newTransport(t, source.Config{CAFile: file})
	transport.SetDial(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	})
	for url, want := range map[string]string{"https://example.com/": "gzip", server.URL: "identity"} {
		resp, err := transport.Do(t.Context(), get(url))
		if err != nil || !bytes.Equal(resp.Body, plain) {
			t.Fatalf("Do(%s) = %d bytes, %v, want the %d bytes unpacked", url, len(resp.Body), err, len(plain))
		}
		resp.Release()
		if got := asked.Load(); got != want {
			t.Errorf("Do(%s) asked for encoding %q, want %q", url, got, want)
		}
	}
}

func TestBodyCap(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	text := func(n int) []byte { return []byte(`"` + strings.Repeat("x", n-2) + `"`) }
	send := func(encoding string, body []byte, chunked bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if encoding != "" {
				w.Header().Set("Content-Encoding", encoding)
			}
			if chunked {
				_ = http.NewResponseController(w).Flush()
			}
			_, _ = w.Write(body)
		}
	}
	packed := zipped(t, text(limit))
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    int // bytes; 0 for too large
	}{
		"at the limit":        {send("", text(limit), false), limit},
		"over it":             {send("", text(limit+1), false), 0},
		"chunked, at it":      {send("", text(limit), true), limit},
		"chunked, over it":    {send("", text(limit+1), true), 0},
		"packed, at it":       {send("gzip", packed, false), limit},
		"packed, over it":     {send("gzip", zipped(t, text(limit+1)), false), 0},
		"bomb":                {send("gzip", zipped(t, text(5_000_000)), true), 0},
		"endless empty packs": {send("gzip", bytes.Repeat(zipped(t, nil), 10_000), true), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			resp, err := newTransport(t, source.Config{MaxBody: limit}).Do(t.Context(), get(serve(t, answers(&calls, c.handler))))
			defer resp.Release()
			if calls.Load() != 1 {
				t.Errorf("%d tries, want 1", calls.Load())
			}
			if c.want > 0 {
				if err != nil || len(resp.Body) != c.want {
					t.Errorf("Do = %d bytes, %v", len(resp.Body), err)
				}
				return
			}
			if !errors.Is(err, source.ErrBodyTooLarge) || !errors.Is(err, pipeline.ErrRefused) {
				t.Errorf("Do = %d bytes, %v, want ErrBodyTooLarge", len(resp.Body), err)
			}
		})
	}
}

func TestDamagedGzipIsAskedAgain(t *testing.T) {
	t.Parallel()
	packed := zipped(t, []byte(`{"a":"`+strings.Repeat("text ", 1000)+`"}`))
	flipped := bytes.Clone(packed)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	for name, body := range map[string][]byte{
		"cut":        packed[:len(packed)-10],
		"flipped":    flipped,
		"not packed": []byte(`{"a":1}`),
		"empty":      nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			url := serve(t, answers(&calls, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = w.Write(body)
			}, status(200, `{"a":2}`)))
			resp, err := newTransport(t, source.Config{}).Do(t.Context(), get(url))
			if err != nil || string(resp.Body) != `{"a":2}` || calls.Load() != 2 {
				t.Errorf("Do = %q, %v after %d calls", resp.Body, err, calls.Load())
			}
			resp.Release()
		})
	}
}

func TestByteOrderMarkIsCut(t *testing.T) {
	t.Parallel()
	resp, err := newTransport(t, source.Config{}).Do(t.Context(), get(serve(t, status(200, "\ufeff{}"))))
	if err != nil || string(resp.Body) != "{}" {
		t.Errorf("Do = %q, %v", resp.Body, err)
	}
	resp.Release()
}

func TestReleasedBuffersDoNotMix(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%q", strings.Repeat(r.URL.Query().Get("n"), 20_000))
	})
	transport := newTransport(t, source.Config{})
	var workers sync.WaitGroup
	for worker := range 4 {
		workers.Go(func() {
			letter := string(rune('a' + worker))
			for range 50 {
				resp, err := transport.Do(t.Context(), get(url+"/?n="+letter))
				if err != nil {
					t.Error(err)
					return
				}
				if string(resp.Body) != `"`+strings.Repeat(letter, 20_000)+`"` {
					t.Errorf("worker %s got another's page", letter)
				}
				resp.Release()
				resp.Release() // harmless: twice in the pool would hand it to two workers
			}
		})
	}
	workers.Wait()
}

// TestSecretsStayOut has a server that echoes all it was sent in every kind of answer, and searches errors and log for it.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	const token, appcode, marker = "canary-token/MIIP+x==canary==", "canary-appcode", "canary+marker/=="
	echo := func(code int, form string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, form, fmt.Sprint(r.Header.Get("X-Auth-Token"), r.Header["X-Hcso-Appcode"], string(body)))
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"text 400":   echo(400, "%s"),
		"text 503":   echo(503, "%s"),
		"JSON 401":   echo(401, `{"error_code":"X","error_msg":%q}`),
		"JSON 429":   echo(429, `{"error_msg":%q}`),
		"code 400":   echo(400, `{"error_code":%q,"error_msg":"no"}`),
		"text 200":   echo(200, "%s"),
		"at the cut": echo(400, strings.Repeat("x", 190)+"%s"),
		"JSON 200":   echo(200, `{"error":%q}`),
		"a part": func(w http.ResponseWriter, r *http.Request) {
			sent := r.Header.Get("X-Auth-Token")
			w.WriteHeader(400)
			_, _ = fmt.Fprintf(w, "token %s… and …%s refused", sent[:17], sent[len(sent)-16:])
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/?"+r.Header.Get("X-Auth-Token"), http.StatusFound)
		},
		"reset":        reset(""),
		"escaped HTML": func(w http.ResponseWriter, _ *http.Request) { status(400, "canary%2Bmarker%2F%3D%3D")(w, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logged bytes.Buffer
			core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&logged), zap.DebugLevel)
			transport := newTransport(t, source.Config{RetryFor: 30 * time.Millisecond, Log: zap.New(core)})
			req := get(serve(t, handler) + "/canary-id")
			req.Method, req.Body = http.MethodPost, []byte(`{"marker":"`+marker+`"}`)
			req.Header = http.Header{"X-Hcso-Appcode": {appcode}}
			req.Auth = source.TokenAuth(&tokens{next: []string{token, token + "2"}})
			req.Conceal = []string{marker}
			req.Check = func(body []byte) error { return fmt.Errorf("improper: %s", body) }
			_, err := transport.Do(t.Context(), req)
			if err == nil {
				t.Fatal("Do succeeded")
			}
			for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), logged.String()} {
				if strings.Contains(text, "canary") {
					t.Errorf("a secret came out:\n%s", text)
				}
			}
		})
	}
}

func TestRetriesAreLogged(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	var logged bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg", LevelKey: "level", EncodeLevel: zapcore.LowercaseLevelEncoder}),
		zapcore.AddSync(&logged), zap.DebugLevel)
	bad := status(503, "")
	url := serve(t, answers(&calls, bad, bad, bad, status(200, "{}")))
	resp, err := newTransport(t, source.Config{Log: zap.New(core)}).Do(t.Context(), get(url))
	if err != nil {
		t.Fatal(err)
	}
	resp.Release()
	lines := strings.Split(strings.TrimSpace(logged.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d log lines, want 3:\n%s", len(lines), logged.String())
	}
	for i, level := range []string{"debug", "debug", "warn"} {
		if !strings.HasPrefix(lines[i], `{"level":"`+level+`","msg":"vendor call failed, trying again","api":"read"`) {
			t.Errorf("line %d is %s, want level %s", i+1, lines[i], level)
		}
	}
}

func TestConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conns := map[string]bool{}
		transport, end := bubble(t, source.Config{}, func(w http.ResponseWriter, r *http.Request) {
			conns[fmt.Sprintf("%p", r.Context().Value(connKey{}))] = true
			_, _ = io.WriteString(w, "{}")
		})
		defer end()
		for range 40 { // every 15 seconds for 10 minutes, so that no connection is idle for long
			resp, err := transport.Do(t.Context(), get("http://127.0.0.1/"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Release()
			time.Sleep(15 * time.Second) // of the bubble's clock
		}
		if len(conns) != 2 {
			t.Errorf("%d connections in 10 minutes, want 2", len(conns))
		}
	})
}

// TestProxy asks for a host through a proxy. The environment's proxy is read once per process, so a child process asks.
func TestProxy(t *testing.T) {
	t.Parallel()
	var asked atomic.Value
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.Host)
		w.WriteHeader(http.StatusForbidden)
	})
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = []string{proxiedURL + "=https://esm.example.com/", "HTTPS_PROXY=" + proxy}
	if out, err := child.CombinedOutput(); err != nil || asked.Load() != "CONNECT esm.example.com:443" {
		t.Errorf("the proxy saw %v, the child said %s (%v)", asked.Load(), out, err)
	}
}
