package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// The kinds of faults, and the value that some take behind '='.
const (
	FaultStatus        FaultKind = "status"         // =code; with retry_after=seconds, or retry_after=date:seconds
	FaultUnauthorized  FaultKind = "unauthorized"   // 401, and every token is revoked
	FaultReset         FaultKind = "reset"          // connection reset before any answer
	FaultResetBody     FaultKind = "reset_body"     // connection reset amid the body
	FaultTruncate      FaultKind = "truncate"       // the body ends before its Content-Length
	FaultTruncateJSON  FaultKind = "truncate_json"  // half the JSON, of the length announced
	FaultHTML          FaultKind = "html"           // 200 with an HTML page
	FaultEmpty         FaultKind = "empty200"       // 200 without a body
	FaultGarbage       FaultKind = "garbage"        // 200 with what is no JSON
	FaultStall         FaultKind = "stall"          // =duration, or until the client gives up, then the connection is closed
	FaultLatency       FaultKind = "latency"        // =duration, then all goes on
	FaultDropResponse  FaultKind = "drop_response"  // the call is carried out, its answer lost
	FaultRedirect      FaultKind = "redirect"       // =URL, by 307
	FaultGzipBomb      FaultKind = "gzip_bomb"      // =MiB of unpacked body, 1024 if not given
	FaultJobFailure    FaultKind = "job_failure"    // the job polled fails for good
	FaultJobHang       FaultKind = "job_hang"       // the job polled runs for ever; "hang" is the same
	FaultJobForgotten  FaultKind = "job_forgotten"  // the job polled or read is unknown from now on
	FaultUnknownStatus FaultKind = "unknown_status" // the poll answers a status that no document names
	FaultMarkerLoop    FaultKind = "marker_loop"    // =N: the job's markers go round N pages for ever
	FaultMoved         FaultKind = "moved"          // the job's records have shifted under their markers

	// Of lists that are read by page. What the first three do stays: see listing.
	FaultShift  FaultKind = "shift"  // a row leaves a page already read: the total changes, and one row is never seen
	FaultSkip   FaultKind = "skip"   // a row leaves a page already read and another joins at the end: the total agrees, one row is never seen
	FaultRepeat FaultKind = "repeat" // a row joins a page already read and the last leaves: the total agrees, one row is seen twice
	FaultNoRows FaultKind = "empty"  // the list is empty for this call
	FaultHalf   FaultKind = "half"   // the second half of the list is missing for this call
)

// listEndpoints are the calls that return pages of a list.
func listEndpoints() []Endpoint { return slices.Concat(bssEndpoints(), esmEndpoints()) }

// Always is the Times of a fault that never ends.
const Always = -1

// Fault is one rule of what goes wrong. Its text form, in flags, files and JSON alike, is
//
//	endpoint:from[xTimes]:kind[=value][,retry_after=…]
//
// such as "page:3:status=429,retry_after=1" (the third page call), "page:5x2:truncate" (the fifth and sixth), "create:2x*:reset"
// (all from the second), "poll:*:hang" (every one). Calls are counted from when the rule was set.
type Fault struct {
	Endpoint   Endpoint
	From       int // first call that it hits, counted from 1; 0 is 1
	Times      int // 0 is 1
	Kind       FaultKind
	Status     int           // of FaultStatus
	RetryAfter string        // of FaultStatus: seconds, or "date:" and seconds
	For        time.Duration // of FaultLatency and FaultStall
	Count      int           // of FaultMarkerLoop and FaultGzipBomb
	URL        string        // of FaultRedirect
}

// ParseFault reads the text form of one fault.
func ParseFault(text string) (Fault, error) {
	f, err := parseFault(text)
	if err == nil {
		err = f.validate()
	}
	if err != nil {
		return Fault{}, fmt.Errorf("parse fault %q: %w", text, err)
	}
	return f, nil
}

func parseFault(text string) (Fault, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return Fault{}, errors.New("want endpoint:call:kind")
	}
	f := Fault{Endpoint: Endpoint(parts[0]), Times: 1}
	var err error
	from, times, many := strings.Cut(parts[1], "x")
	if from == "*" {
		f.From, f.Times = 1, Always
	} else if f.From, err = strconv.Atoi(from); err != nil {
		return f, fmt.Errorf("call %q: want a number or *", from)
	}
	if many && times == "*" {
		f.Times = Always
	} else if many {
		if f.Times, err = strconv.Atoi(times); err != nil {
			return f, fmt.Errorf("times %q: want a number or *", times)
		}
	}
	kind, value, _ := strings.Cut(parts[2], "=")
	kind, _, _ = strings.Cut(kind, ",")
	f.Kind = FaultKind(kind)
	if f.Kind == "hang" {
		f.Kind = FaultJobHang
	}
	if f.Kind == FaultRedirect { // an URL may hold anything
		f.URL = value
		return f, nil
	}
	settings := strings.Split(parts[2], ",")
	for _, setting := range settings[1:] {
		name, after, _ := strings.Cut(setting, "=")
		if name != "retry_after" {
			return f, fmt.Errorf("setting %q is unknown", name)
		}
		f.RetryAfter = after
	}
	_, value, given := strings.Cut(settings[0], "=")
	switch f.Kind {
	case FaultStatus:
		f.Status, err = strconv.Atoi(value)
	case FaultLatency:
		f.For, err = time.ParseDuration(value)
	case FaultStall:
		if given {
			f.For, err = time.ParseDuration(value)
		}
	case FaultMarkerLoop:
		f.Count, err = strconv.Atoi(value)
	case FaultGzipBomb:
		if given {
			f.Count, err = strconv.Atoi(value)
		}
	default:
		if given {
			err = fmt.Errorf("%s takes no value", f.Kind)
		}
	}
	return f, err
}

// ParseFaults reads faults separated by ';'. An empty text has none.
func ParseFaults(text string) ([]Fault, error) {
	var all []Fault
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		f, err := ParseFault(part)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// String returns the text form.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(string(f.Endpoint) + ":")
	from, times := max(1, f.From), f.Times
	switch {
	case times == Always && from == 1:
		b.WriteString("*")
	case times == Always:
		fmt.Fprintf(&b, "%dx*", from)
	case times > 1:
		fmt.Fprintf(&b, "%dx%d", from, times)
	default:
		fmt.Fprintf(&b, "%d", from)
	}
	b.WriteString(":" + string(f.Kind))
	switch {
	case f.Kind == FaultStatus:
		fmt.Fprintf(&b, "=%d", f.Status)
	case f.Kind == FaultRedirect:
		b.WriteString("=" + f.URL)
	case f.For > 0:
		fmt.Fprintf(&b, "=%s", f.For)
	case f.Count > 0:
		fmt.Fprintf(&b, "=%d", f.Count)
	}
	if f.RetryAfter != "" {
		b.WriteString(",retry_after=" + f.RetryAfter)
	}
	return b.String()
}

// MarshalText writes the text form.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the text form.
func (f *Fault) UnmarshalText(text []byte) error {
	parsed, err := ParseFault(string(text))
	*f = parsed
	return err
}

func (f Fault) validate() error {
	allowed := slices.Concat([]Endpoint{EndpointToken, EndpointCreate, EndpointPoll, EndpointPage}, listEndpoints(), bmsEndpoints(), []Endpoint{EndpointAny})
	switch f.Kind {
	case FaultStatus:
		if http.StatusText(f.Status) == "" || f.Status < 400 {
			return fmt.Errorf("status %d: want an error's", f.Status)
		}
		if _, err := strconv.Atoi(strings.TrimPrefix(f.RetryAfter, "date:")); f.RetryAfter != "" && err != nil {
			return fmt.Errorf("retry_after %q: want seconds, or date:seconds", f.RetryAfter)
		}
	case FaultLatency:
		if f.For <= 0 {
			return errors.New("latency wants a duration")
		}
	case FaultRedirect:
		if f.URL == "" {
			return errors.New("redirect wants a URL")
		}
	case FaultUnauthorized, FaultReset, FaultResetBody, FaultTruncate, FaultTruncateJSON, FaultHTML, FaultEmpty, FaultGarbage,
		FaultStall, FaultDropResponse, FaultGzipBomb:
	case FaultJobFailure, FaultJobHang, FaultUnknownStatus:
		allowed = []Endpoint{EndpointPoll}
	case FaultJobForgotten:
		allowed = []Endpoint{EndpointPoll, EndpointPage}
	case FaultMarkerLoop, FaultMoved:
		allowed = []Endpoint{EndpointPage}
		if f.Kind == FaultMarkerLoop && f.Count < 1 {
			return errors.New("marker_loop wants a number of pages")
		}
	case FaultShift, FaultSkip, FaultRepeat, FaultNoRows, FaultHalf:
		allowed = listEndpoints()
	default:
		return fmt.Errorf("kind %q is unknown", f.Kind)
	}
	for _, e := range allowed {
		if f.Endpoint == e {
			if f.From < 0 || f.Times < Always || f.Count < 0 || f.For < 0 {
				return errors.New("want no negative number")
			}
			return nil
		}
	}
	return fmt.Errorf("endpoint %q: %s is for %v", f.Endpoint, f.Kind, allowed)
}

// FaultState is a fault and what came of it.
type FaultState struct {
	Fault Fault `json:"fault"`
	Seen  int   `json:"seen"` // calls of its endpoint since it was set
	Hits  int   `json:"hits"`
}

// faultList holds the rules in force.
type faultList struct {
	failRate float64
	seed     uint64

	mu    sync.Mutex
	calls uint64
	rules []*FaultState
}

func (l *faultList) add(faults []Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range faults {
		l.rules = append(l.rules, &FaultState{Fault: f})
	}
}

func (l *faultList) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = nil
}

func (l *faultList) list() []FaultState {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]FaultState, 0, len(l.rules))
	for _, st := range l.rules {
		all = append(all, *st)
	}
	return all
}

// passing are the faults that FailRate chooses from: all are worth a retry.
var passing = [...]Fault{
	{Kind: FaultStatus, Status: 503},
	{Kind: FaultStatus, Status: 500},
	{Kind: FaultStatus, Status: 502},
	{Kind: FaultStatus, Status: 504},
	{Kind: FaultStatus, Status: 429},
	{Kind: FaultReset},
	{Kind: FaultTruncate},
}

// match counts the call in every rule for its endpoint and returns what is due: the delays of all that hit, and the first other fault.
func (l *faultList) match(e Endpoint) (time.Duration, *Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var delay time.Duration
	var due *Fault
	for _, st := range l.rules {
		f := &st.Fault
		if f.Endpoint != e && f.Endpoint != EndpointAny {
			continue
		}
		st.Seen++
		from := max(1, f.From)
		if st.Seen < from || (f.Times != Always && st.Seen >= from+max(1, f.Times)) {
			continue
		}
		switch {
		case f.Kind == FaultLatency:
			delay += f.For
		case due == nil:
			due = f
		default:
			continue
		}
		st.Hits++
	}
	if due == nil && l.failRate > 0 {
		l.calls++
		h := mix(l.seed ^ l.calls)
		if float64(h>>11)/(1<<53) < l.failRate {
			due = &passing[mix(h)%uint64(len(passing))]
		}
	}
	return delay, due
}

// SetFaults adds rules to those in force.
func (s *Server) SetFaults(faults ...Fault) error {
	for _, f := range faults {
		if err := f.validate(); err != nil {
			return fmt.Errorf("set fault %s: %w", f, err)
		}
	}
	s.faults.add(faults)
	return nil
}

// ClearFaults ends every rule. What they did to jobs stays.
func (s *Server) ClearFaults() { s.faults.clear() }

// Faults lists the rules in force.
func (s *Server) Faults() []FaultState { return s.faults.list() }

// faultsFromJSON reads a list of text forms.
func faultsFromJSON(body []byte) ([]Fault, error) {
	var faults []Fault
	if err := json.Unmarshal(body, &faults); err != nil {
		return nil, fmt.Errorf("read list of faults: %w", err)
	}
	return faults, nil
}
