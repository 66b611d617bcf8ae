// Package sandbox is a stand-in for the vendor: an HTTP server written from the vendor's documents and strict about them, with
// deterministic metering records, the sums they must come to, and faults on demand. It shares no code with the client it tests.
package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

// Server is the stand-in vendor. It may be used from several goroutines.
type Server struct {
	config    Config
	holdings  []*holdings
	mux       *http.ServeMux
	secret    [16]byte // signs markers and makes job ids that no other server has
	faults    faultList
	throttles throttles
	counters  counters
	pages     sync.Pool // *[]byte
	zippers   sync.Pool // *gzip.Writer

	mu       sync.Mutex
	tokens   map[string]token
	jobs     map[string]*job
	made     int   // jobs ever created
	nights   []day // the date of today at each night
	listings map[Endpoint]listing

	subscriptions subscriptions
	key           accessKey
	bmsJobs       map[string]*bmsJob
}

// New returns a vendor that holds what c describes.
func New(c Config) (*Server, error) {
	c.setDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("set up sandbox: %w", err)
	}
	s := &Server{config: c, tokens: map[string]token{}, jobs: map[string]*job{}, listings: map[Endpoint]listing{}, bmsJobs: newBMSJobs()}
	if _, err := rand.Read(s.secret[:]); err != nil {
		return nil, fmt.Errorf("set up sandbox: %w", err)
	}
	for _, sc := range c.Scopes {
		s.holdings = append(s.holdings, newHoldings(&s.config, sc))
	}
	s.subscriptions.fill(s)
	s.faults.add(c.Faults)
	s.faults.failRate, s.faults.seed = c.FailRate, mix(uint64(c.Seed)^0xfa17)
	s.pages.New = func() any { return new([]byte) }
	s.zippers.New = func() any {
		z, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
		if err != nil {
			panic(err) // the level is a constant
		}
		return z
	}
	s.mux = http.NewServeMux()
	s.mount(s.iamRoutes())
	s.mount(s.sdrRoutes())
	s.mount(s.bssRoutes())
	s.mount(s.bmsRoutes())
	s.mount(s.listRoutes())
	s.mountControl()
	return s, nil
}

// AdvanceNight lets a night pass: some late and corrected records join the files of the last five file dates before today. Jobs
// created before do not see them. Some subscriptions and physical devices change, come and go, audit logs of the last three days
// come to light, and alarms are cleared as if a day had passed. It returns the number of nights passed.
func (s *Server) AdvanceNight() int {
	today := dayOf(s.config.Today())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nights = append(s.nights, today)
	s.subscriptions.advance(len(s.nights))
	return len(s.nights)
}

// Night is how many nights have passed.
func (s *Server) Night() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.nights)
}

// Handler serves the vendor's APIs and, under /_sandbox/, what steers the stand-in.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.config.ClockSkew != 0 {
			w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
		}
		if path.Clean(r.URL.Path) != r.URL.Path {
			noSuchAPI().write(w) // the mux would redirect, which the vendor's gateway does not
			return
		}
		s.mux.ServeHTTP(w, r)
	})
}

// now is the vendor's idea of the time.
func (s *Server) now() time.Time { return time.Now().Add(s.config.ClockSkew) }

// ListenAndServe serves on addr ("127.0.0.1:0" takes a free port) until ctx ends, and calls ready with its URL as soon as it
// accepts connections. It returns nil once ctx has ended and every answer under way is done or cut.
func (s *Server) ListenAndServe(ctx context.Context, addr string, ready func(url string)) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if ready != nil {
		ready("http://" + listener.Addr().String())
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", addr, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // whoever is still connected has had the grace
	}
	<-served
	return nil
}

// Endpoint is a call that faults and counters tell apart.
type Endpoint string

// The endpoints of the SDR way.
const (
	EndpointToken  Endpoint = "token"
	EndpointCreate Endpoint = "create"
	EndpointPoll   Endpoint = "poll"
	EndpointPage   Endpoint = "page"
	EndpointAny    Endpoint = "any" // in faults: every one of them
)

// route is one call of one API. An API is one file that returns its routes.
type route struct {
	method   string
	pattern  string // path with {wildcards}
	endpoint Endpoint
	open     bool // needs no token of ESM's: handle does what authentication there is
	handle   func(*call) reply
}

// call is a request whose body has been read.
type call struct {
	*http.Request
	body  []byte
	fault FaultKind // of a list, to be carried out by its handler
}

// mount adds routes to the mux, answering other methods on their paths with 405.
func (s *Server) mount(routes []route) {
	byPattern := map[string][]route{}
	for _, rt := range routes {
		byPattern[rt.pattern] = append(byPattern[rt.pattern], rt)
	}
	for pattern, group := range byPattern {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var allowed []string
			for _, rt := range group {
				if rt.method == r.Method {
					s.serve(w, r, rt)
					return
				}
				allowed = append(allowed, rt.method)
			}
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			refuse(http.StatusMethodNotAllowed, "APIG.0102", "The method %s is not allowed", r.Method).write(w)
		})
	}
	s.counters.open(routes)
}

// maxRequestBody is far above any request that the documents describe.
const maxRequestBody = 1 << 20

func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt route) {
	done := s.counters.enter(rt.endpoint)
	defer done()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBody+1))
	if err != nil {
		return // the client is gone
	}
	c := &call{Request: r, body: body}
	answer := func() reply { return s.answer(c, rt) }

	delay, fault := s.faults.match(rt.endpoint)
	if !pause(r.Context(), delay) {
		return
	}
	if fault != nil {
		s.counters.fault()
		s.misbehave(w, c, *fault, answer)
		return
	}
	rep := answer()
	defer rep.done()
	s.send(w, r, rep)
}

// answer is what the vendor says where nothing goes wrong.
func (s *Server) answer(c *call, rt route) reply {
	if !rt.open {
		if rep, ok := s.authenticate(c); !ok {
			return rep
		}
	}
	if rt.method == http.MethodPost {
		// ESM API Reference 3.1, table 3-3: Content-Type is mandatory.
		if kind, _, err := mime.ParseMediaType(c.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return badRequest("Content-Type must be application/json, not %q", c.Header.Get("Content-Type"))
		}
		if len(c.body) > maxRequestBody {
			return refuse(http.StatusRequestEntityTooLarge, "AS.0001", "The request body is too large")
		}
	}
	return rt.handle(c)
}

// reply is one answer before it is sent.
type reply struct {
	status  int
	header  http.Header
	body    []byte
	release func() // gives body back, if set
}

func (rep reply) done() {
	if rep.release != nil {
		rep.release()
	}
}

// jsonType is the Content-Type of the documents' sample responses.
const jsonType = "application/json;charset=UTF8"

func (rep reply) write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range rep.header {
		h[name] = values
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", jsonType)
	}
	h.Set("Content-Length", fmt.Sprint(len(rep.body)))
	w.WriteHeader(rep.status)
	_, _ = w.Write(rep.body) // a client that is gone is no error of the server
}

// minGzip is the smallest body worth compressing.
const minGzip = 1 << 10

// send writes the reply, compressed where the client takes it.
func (s *Server) send(w http.ResponseWriter, r *http.Request, rep reply) {
	s.counters.answered(rep.status)
	if len(rep.body) >= minGzip && acceptsGzip(r) {
		rep.body = s.zip(rep.body)
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Vary", "Accept-Encoding")
	}
	rep.write(w)
}

func acceptsGzip(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == "gzip" && strings.ReplaceAll(params, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

func (s *Server) zip(body []byte) []byte {
	z := s.zippers.Get().(*gzip.Writer)
	defer s.zippers.Put(z)
	var b bytes.Buffer
	z.Reset(&b)
	_, _ = z.Write(body) // a buffer takes everything
	_ = z.Close()
	return b.Bytes()
}

// jsonReply is for small answers; pages are written by hand.
func jsonReply(status int, value any) reply {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // only plain structs come here
	}
	return reply{status: status, body: body}
}

// refuse is the error answer of ESM API Reference 3.3.
func refuse(status int, code, format string, args ...any) reply {
	return jsonReply(status, struct {
		Message string `json:"error_msg"`
		Code    string `json:"error_code"`
	}{fmt.Sprintf(format, args...), code})
}

func badRequest(format string, args ...any) reply {
	return refuse(http.StatusBadRequest, "AS.0001", format, args...)
}

func noSuchAPI() reply {
	return refuse(http.StatusNotFound, "APIG.0101", "The API does not exist or has not been published in the environment")
}

// object reads a JSON object strictly: each key must be in fields, spelt exactly so, and fit the pointer there. Null leaves the
// pointer's value as it is.
func object(body []byte, fields map[string]any) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return fmt.Errorf("the request body is no JSON object: %w", err)
	}
	if raw == nil {
		return errors.New("the request body is no JSON object")
	}
	for key, value := range raw {
		target, known := fields[key]
		if !known {
			return fmt.Errorf("the parameter %q is unknown", key)
		}
		if err := json.Unmarshal(value, target); err != nil {
			return fmt.Errorf("the parameter %s is invalid: %w", key, err)
		}
	}
	return nil
}

// pause waits, and tells whether the client is still there.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// randomID returns 32 random hex digits.
func randomID() string {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		panic(err) // crypto/rand never fails on supported systems
	}
	return hex.EncodeToString(raw[:])
}
