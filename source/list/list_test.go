package list_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/list"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// things is a list in rows, in pages of two.
const things = `
stream: things
table: billing.thing
version: 1
shape: snapshot
key: [id]
list:
  system: bss
  method: GET
  path: /v2/things
  rate: {class: things}
  items: data
  total: total_count
  paging: {style: row, start: offset, limit: limit, size: 2}
fields:
  - {name: id, type: text, required: true, meaning: Its id.}
`

func parse(t testing.TB, text string) *schemas.Stream {
	t.Helper()
	s, err := schemas.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// change returns text with one part replaced.
func change(t testing.TB, text, old, replacement string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("the declaration has no %q", old)
	}
	return strings.Replace(text, old, replacement, 1)
}

var whole = pipeline.WholeWindow().Request("d-1")

// vendor is a server and the client of its list.
type vendor struct {
	client *list.Client
	logged *observer.ObservedLogs

	mu    sync.Mutex
	lines []string // method, path and query of each call, and the body
}

func (v *vendor) asked() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lines
}

// open serves a stream's list by handler.
func open(t *testing.T, s *schemas.Stream, l *schemas.List, handler http.HandlerFunc, spoil func(*list.Config)) *vendor {
	t.Helper()
	v := &vendor{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		v.mu.Lock()
		v.lines = append(v.lines, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+string(body)))
		v.mu.Unlock()
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	core, logged := observer.New(zap.InfoLevel)
	transport, err := source.New(source.Config{
		BackoffInitial: time.Millisecond, BackoffMax: 200 * time.Millisecond, RetryFor: 500 * time.Millisecond, Log: zap.New(core),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.Close)
	config := list.Config{
		Endpoint: server.URL, DomainID: "d-1", ProjectID: "p-1", Header: http.Header{"X-Apig-Appcode": {"canary-appcode"}},
		Auth: source.Auth{Sign: func(r *http.Request) error {
			r.Header.Set("X-Auth-Token", "canary-token")
			return nil
		}},
	}
	if spoil != nil {
		spoil(&config)
	}
	v.logged = logged
	if v.client, err = list.New(transport, s, l, config); err != nil {
		t.Fatal(err)
	}
	return v
}

// values makes the client read every column as these.
func values(v ...string) func(*list.Config) {
	return func(c *list.Config) {
		c.Values = func(context.Context, schemas.Each) ([]string, error) { return v, nil }
	}
}

// create makes a job for a whole list.
func (v *vendor) create(t *testing.T) string {
	t.Helper()
	id, err := v.client.CreateJob(t.Context(), whole)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// read reads a whole list with a new job, and returns each record with what it was asked by.
func (v *vendor) read(t *testing.T) (records []string, err error) {
	t.Helper()
	id := v.create(t)
	for marker, pages := v.client.Start(id), 0; ; pages++ {
		if pages > 100 {
			t.Fatal("the list has no end")
		}
		page, err := v.client.Page(t.Context(), id, marker)
		if err != nil {
			return records, err
		}
		if page.Asked != marker {
			t.Errorf("page of marker %q says that it was asked for by %q", marker, page.Asked)
		}
		for r := range record.Elements(page.Data) {
			records = append(records, string(r))
		}
		if page.Release != nil {
			page.Release()
		}
		if marker = page.Next; marker == "" {
			return records, nil
		}
	}
}

// shelf is n rows, of which at most size are handed out at once, under a total that tell writes.
func shelf(n, size int, tell func(offset, rows int) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		limit, _ := strconv.Atoi(query.Get("limit"))
		from, _ := strconv.Atoi(query.Get("offset"))
		if no := query.Get("page_no"); no != "" {
			page, _ := strconv.Atoi(no)
			from = (page - 1) * min(limit, size)
		}
		var rows []string
		for i := from; i < min(n, from+limit, from+size); i++ {
			rows = append(rows, strconv.Itoa(i))
		}
		_, _ = fmt.Fprintf(w, `{%s"data":[%s]}`, tell(from, len(rows)), strings.Join(rows, ","))
	}
}

func total(text string) func(int, int) string {
	return func(int, int) string { return `"total_count":` + text + "," }
}

func numbers(n int) []string {
	var all []string
	for i := range n {
		all = append(all, strconv.Itoa(i))
	}
	return all
}

func TestPaging(t *testing.T) {
	t.Parallel()
	const beyond, pages = "size: 2, beyond: true}", "{style: page, start: page_no, limit: page_size, size: 2}"
	untold := func(int, int) string { return "" }
	for name, c := range map[string]struct {
		paging string // instead of plain rows
		rows   int
		cap    int // of the server
		tell   func(offset, rows int) string
		calls  int
	}{
		"empty":                   {"", 0, 9, total("0"), 1},
		"one page":                {"", 1, 9, total("1"), 1},
		"full page":               {"", 2, 9, total("2"), 1},
		"pages":                   {"", 5, 9, total("5"), 3},
		"total as text":           {"", 5, 9, total(`" 5"`), 3},
		"short pages end nothing": {"", 5, 1, total("5"), 5},
		"no total":                {"", 5, 9, untold, 4},
		"null for a total":        {"", 4, 9, total("null"), 3},
		"words for a total":       {"", 5, 9, total(`"总数"`), 4},
		"negative total":          {"", 5, 9, total("-1"), 4},
		"beyond, short page":      {beyond, 3, 9, total("3"), 3},
		"beyond, short pages that count themselves": {beyond, 5, 1, total("1"), 6},
		"beyond, full page":                         {beyond, 4, 9, total("4"), 3},
		"beyond, total 0 at the end":                {beyond, 4, 9, func(offset, _ int) string { return total(map[bool]string{true: "4", false: "0"}[offset < 4])(0, 0) }, 3},
		"beyond, total of each page":                {beyond, 5, 9, func(_, rows int) string { return total(strconv.Itoa(rows))(0, 0) }, 4},
		"beyond, no total at the end":               {beyond, 4, 9, func(offset, _ int) string { return map[bool]string{true: `"total_count":4,`}[offset < 4] }, 3},
		"page numbers":                              {pages, 5, 9, total("5"), 3},
		"page numbers, no total":                    {pages, 4, 9, untold, 3},
		"total that comes late counts":              {"", 5, 9, func(offset, _ int) string { return map[bool]string{true: `"total_count":5,`}[offset > 0] }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := things
			switch c.paging {
			case beyond:
				text = change(t, things, "size: 2}", beyond)
			case pages:
				text = change(t, things, "{style: row, start: offset, limit: limit, size: 2}", "{style: page, start: page_no, limit: limit, size: 2}")
			}
			s := parse(t, text)
			v := open(t, s, s.List, shelf(c.rows, c.cap, c.tell), nil)
			got, err := v.read(t)
			if err != nil || !reflect.DeepEqual(got, numbers(c.rows)) {
				t.Errorf("read %v, %v; want %d rows", got, err, c.rows)
			}
			if len(v.asked()) != c.calls {
				t.Errorf("%d calls, want %d: %q", len(v.asked()), c.calls, v.asked())
			}
		})
	}
}

// TestListLeftOutBehindTheLastRow has a server that has no member for no rows.
func TestListLeftOutBehindTheLastRow(t *testing.T) {
	t.Parallel()
	s := parse(t, change(t, things, "size: 2}", "size: 2, beyond: true}"))
	v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("offset") == "4" {
			_, _ = io.WriteString(w, `{"total_count":4}`)
			return
		}
		shelf(4, 9, total("4"))(w, r)
	}, nil)
	if got, err := v.read(t); err != nil || !reflect.DeepEqual(got, numbers(4)) {
		t.Errorf("read %v, %v; want 4 rows", got, err)
	}
}

func TestMovedList(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		beyond  bool
		want    string // part of the error
	}{
		"rows left":            {shelf(3, 9, total("5")), false, "its total is 5, and 3 rows were read"},
		"rows joined":          {shelf(5, 9, total("3")), false, "its total is 3, and 4 rows were read"},
		"total for no rows":    {shelf(0, 9, total("3")), false, "its total is 3, and 0 rows were read"},
		"default for a total":  {shelf(2, 9, total("0")), false, "its total is 0, and 2 rows were read"},
		"total shrank":         {shelf(5, 9, func(offset, _ int) string { return total(strconv.Itoa(5-offset/2))(0, 0) }), false, "its total was 5 at first and is 4 behind row 2"},
		"half of it left":      {shelf(4, 9, func(offset, _ int) string { return total(strconv.Itoa(4-offset))(0, 0) }), false, "its total was 4 at first and is 2 behind row 2"},
		"more rows beyond":     {shelf(5, 9, total("4")), true, "its total is 4, and 5 rows were read"},
		"joined while beyond":  {shelf(5, 9, func(offset, _ int) string { return total(strconv.Itoa(4+offset/4))(0, 0) }), true, "its total was 4 at first and is 5 behind row 4"},
		"offset is not heeded": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"data":[1,2]}`) }, false, "does the server heed offset?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := things
			if c.beyond {
				text = change(t, things, "size: 2}", "size: 2, beyond: true}")
			}
			s := parse(t, text)
			_, err := open(t, s, s.List, c.handler, nil).read(t)
			if !errors.Is(err, pipeline.ErrListMoved) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("read = %v, want ErrListMoved with %q", err, c.want)
			}
		})
	}
}

func TestAskingAgainCountsNothingTwice(t *testing.T) {
	t.Parallel()
	s := parse(t, things)
	v := open(t, s, s.List, shelf(5, 9, total("5")), nil)
	id := v.create(t)
	marker := v.client.Start(id)
	var got []string
	for marker != "" {
		var next [2]string
		for i := range next {
			page, err := v.client.Page(t.Context(), id, marker)
			if err != nil {
				t.Fatal(err)
			}
			next[i] = page.Next
			if i == 0 {
				got = append(got, string(page.Data))
			}
		}
		if next[0] != next[1] {
			t.Errorf("page %q leads to %q first and to %q then", marker, next[0], next[1])
		}
		marker = next[0]
	}
	if want := []string{"[0,1]", "[2,3]", "[4]"}; !reflect.DeepEqual(got, want) {
		t.Errorf("pages are %q, want %q", got, want)
	}
}

func TestMarkers(t *testing.T) {
	t.Parallel()
	s := parse(t, things)
	v := open(t, s, s.List, shelf(5, 9, total("5")), nil)
	first, second := v.create(t), v.create(t)
	if first == second || first == "" {
		t.Errorf("two jobs have the ids %q and %q", first, second)
	}
	if status, err := v.client.Job(t.Context(), first); err != nil || status.State != pipeline.JobSuccess {
		t.Errorf("Job = %+v, %v", status, err)
	}
	if got := v.client.Start(first); got != "offset=0" {
		t.Errorf("the first marker is %q", got)
	}
	if _, err := v.client.Job(t.Context(), "another"); !errors.Is(err, pipeline.ErrJobForgotten) {
		t.Errorf("Job of another run = %v", err)
	}
	if _, err := v.client.Page(t.Context(), "another", "offset=0"); !errors.Is(err, pipeline.ErrJobForgotten) {
		t.Errorf("Page of another run = %v", err)
	}
	for _, marker := range []string{"", "offset=2", "offset=x", "offset=0&service=x", "%zz"} {
		if _, err := v.client.Page(t.Context(), first, marker); err == nil {
			t.Errorf("the made-up marker %q was read", marker)
		}
	}
	if len(v.asked()) != 0 {
		t.Errorf("the vendor was asked %q", v.asked())
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	shanghai, err := time.LoadLocation("Asia/Shanghai")
	if err != nil {
		t.Fatal(err)
	}
	const events = `
stream: events
table: billing.event
version: 1
shape: events
time_field: at
list:
  system: esm
  method: GET
  path: /v1/events
  params: {kind: "1", none: ""}
  rate: {class: events}
  items: list
  total: total
  paging: {style: row, start: offset_value, limit: page_size, size: 1000, beyond: true}
  time: {begin: begin_time, end: end_time, unit: ms, window: month}
fields:
  - {name: at, type: timestamp, required: true, meaning: When.}
`
	march := pipeline.JobRequest{Min: "2024-03-01 00:00:00", Max: "2024-04-01 00:00:00"}
	for name, c := range map[string]struct {
		text    string
		variant string
		zone    *time.Location
		req     pipeline.JobRequest
		values  []string
		header  string // X-Language
		want    string
	}{
		"page numbers": {
			text: change(t, change(t, things, "/v2/things", "/v1.0/{domain_id}/things"), "{style: row, start: offset, limit: limit, size: 2}", "{style: page, start: page_no, limit: page_size, size: 500}"),
			want: "GET /v1.0/d-1/things?page_no=1&page_size=500",
		},
		"body": {
			text: change(t, things, "method: GET", "method: POST\n  params: {only: \"{domain_id}\", unset: \"\"}"),
			want: `POST /v2/things {"limit":2,"offset":0,"only":"d-1"}`,
		},
		"bare POST": {
			text: change(t, change(t, things, "method: GET", "method: POST"), "{style: row, start: offset, limit: limit, size: 2}", "{style: none}"),
			want: "POST /v2/things",
		},
		"values in path, query and header": {
			text: change(t, things, "path: /v2/things", `path: /v2/{project_id}/{code}
  params: {code: "{code}"}
  headers: {X-Language: "{code}"}
  each: [{name: code, from: [{stream: sdr, table: billing.sdr, column: code}]}]`),
			values: []string{"a/b c+d&e=ü?"}, header: "a/b c+d&e=ü?",
			want: "GET /v2/p-1/a%2Fb%20c+d&e=%C3%BC%3F?code=a%2Fb%20c%2Bd%26e%3D%C3%BC%3F&limit=2&offset=0",
		},
		"event time": {
			text: events, req: march,
			want: "GET /v1/events?begin_time=1709251199000&end_time=1711929601000&kind=1&offset_value=0&page_size=1000",
		},
		"event time in a zone": {
			text: events, req: march, zone: shanghai,
			want: "GET /v1/events?begin_time=1709222399000&end_time=1711900801000&kind=1&offset_value=0&page_size=1000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := parse(t, c.text)
			var header http.Header
			v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
				header = r.Header
				_, _ = io.WriteString(w, `{"data":[],"list":[],"total":0}`)
			}, func(config *list.Config) {
				values(c.values...)(config)
				config.Zone = c.zone
			})
			if c.req.Min == "" {
				c.req = whole
			}
			id, err := v.client.CreateJob(t.Context(), c.req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.client.Page(t.Context(), id, v.client.Start(id)); err != nil {
				t.Fatal(err)
			}
			if got := v.asked(); len(got) != 1 || got[0] != c.want {
				t.Errorf("asked %q\nwant  %q", got, c.want)
			}
			if header.Get("X-Language") != c.header || header.Get("X-Apig-Appcode") != "canary-appcode" || header.Get("X-Auth-Token") != "canary-token" ||
				header.Get("Content-Type") != "application/json" || header.Get("Accept") != "application/json" {
				t.Errorf("headers are %v", header)
			}
		})
	}
}

// named is a list that is asked by a fixed value and by those of a column.
func named(t testing.TB) string {
	return change(t, things, "path: /v2/things", `path: /v2/things
  params: {code: "{code}"}
  headers: {X-Language: "{language}"}
  absent: skip
  each:
    - {name: language, values: [en_US, zh_CN]}
    - {name: code, from: [{stream: sdr, table: billing.sdr, column: cloud_service_type_code}]}`)
}

func TestEach(t *testing.T) {
	t.Parallel()
	s := parse(t, named(t))
	v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		_, _ = fmt.Fprintf(w, `{"total_count":3,"data":["%s %s %s"]}`, r.Header.Get("X-Language"), query.Get("code"), query.Get("offset"))
	}, values("obs", "", "e c2", "obs"))
	var want []string
	for _, language := range []string{"en_US", "zh_CN"} {
		for _, code := range []string{"obs", "e c2"} {
			for offset := range 3 {
				want = append(want, fmt.Sprintf("%q", fmt.Sprint(language, " ", code, " ", offset)))
			}
		}
	}
	if got, err := v.read(t); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %q, %v\nwant %q", got, err, want)
	}
	id := v.create(t)
	asked, err := url.ParseQuery(v.client.Start(id))
	if err != nil || asked.Get("language") != "en_US" || asked.Get("code") != "obs" || asked.Get("offset") != "0" {
		t.Errorf("the first marker is %v, %v", asked, err)
	}
}

func TestNothingToAskBy(t *testing.T) {
	t.Parallel()
	s := parse(t, named(t))
	v := open(t, s, s.List, http.NotFound, values())
	id := v.create(t)
	page, err := v.client.Page(t.Context(), id, v.client.Start(id))
	if err != nil || string(page.Body) != "[]" || len(page.Data) != 0 || page.Next != "" || len(v.asked()) != 0 {
		t.Errorf("Page = %+v, %v after %d calls", page, err, len(v.asked()))
	}
	failing := open(t, s, s.List, http.NotFound, func(c *list.Config) {
		c.Values = func(context.Context, schemas.Each) ([]string, error) { return nil, errors.New("no database") }
	})
	if _, err := failing.client.CreateJob(t.Context(), whole); err == nil || !strings.Contains(err.Error(), "no database") {
		t.Errorf("CreateJob = %v", err)
	}
}

// TestBeyondIsNotHeeded: a server that gives its only page whatever the offset has given all rows by its own count.
func TestBeyondIsNotHeeded(t *testing.T) {
	t.Parallel()
	s := parse(t, change(t, things, "size: 2}", "size: 2, beyond: true}"))
	v := open(t, s, s.List, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":[0,1],"total_count":2}`)
	}, nil)
	if got, err := v.read(t); err != nil || !reflect.DeepEqual(got, numbers(2)) || len(v.asked()) != 2 {
		t.Errorf("read %v, %v after %d calls; want the page once", got, err, len(v.asked()))
	}
}

func answer(w http.ResponseWriter, status int, body string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func TestAbsentCombinations(t *testing.T) {
	t.Parallel()
	const there, gone = `{"total_count":1,"data":[1]}`, `{"error_code":"Common.0001","error_msg":"not found"}`
	for name, c := range map[string]struct {
		values  []string
		status  map[string]int // by code; 200 otherwise
		body    string         // of the refusals
		want    error
		skipped []string
		calls   int
	}{
		"one is gone": {[]string{"a", "b", "c"}, map[string]int{"b": 404}, gone, nil, []string{"code=b&language=en_US", "code=b&language=zh_CN"}, 8},
		"one is no code": {
			[]string{"a", "b"},
			map[string]int{"b": 400},
			gone, nil,
			[]string{"code=b&language=en_US", "code=b&language=zh_CN"},
			6,
		},
		"refused with 200": {
			[]string{"a", "b"},
			map[string]int{"b": 200},
			`{"error_code":"CBC.0100","error_msg":"bad code"}`, nil,
			[]string{"code=b&language=en_US", "code=b&language=zh_CN"},
			6,
		},
		"the last is gone":       {[]string{"a", "b"}, map[string]int{"b": 404}, gone, nil, []string{"code=b&language=en_US", "code=b&language=zh_CN"}, 6},
		"all are gone":           {[]string{"a", "b"}, map[string]int{"a": 404, "b": 404}, gone, pipeline.ErrNotOffered, nil, 8},
		"all are refused":        {[]string{"a"}, map[string]int{"a": 400}, gone, pipeline.ErrRefused, nil, 4},
		"all are no codes":       {[]string{"a"}, map[string]int{"a": 400}, gone, nil, []string{"code=a&language=en_US", "code=a&language=zh_CN"}, 4},
		"denied":                 {[]string{"a", "b"}, map[string]int{"b": 403}, gone, pipeline.ErrCredentials, nil, 2},
		"a path, not a segment":  {[]string{"a", ".", "..", "x\ny"}, nil, gone, nil, []string{"code=.&language=en_US", "code=.&language=zh_CN", "code=..&language=en_US", "code=..&language=zh_CN", "code=x%0Ay&language=en_US", "code=x%0Ay&language=zh_CN"}, 2},
		"nothing can be asked":   {[]string{".."}, nil, gone, nil, []string{"code=..&language=en_US", "code=..&language=zh_CN"}, 0},
		"method is not possible": {[]string{"a"}, map[string]int{"a": 405}, gone, pipeline.ErrRefused, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := named(t)
			if name == "all are no codes" { // a dictionary need not know ours
				text = change(t, text, "absent: skip", "absent: skip\n  denied: note")
			}
			s := parse(t, text)
			v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
				if status := c.status[r.URL.Query().Get("code")]; status != 0 {
					answer(w, status, c.body)
					return
				}
				answer(w, 200, there)
			}, values(c.values...))
			_, err := v.read(t)
			if !errors.Is(err, c.want) {
				t.Errorf("read = %v, want %v", err, c.want)
			}
			var skipped []string
			for _, skip := range v.client.Skipped() {
				skipped = append(skipped, skip.Asked)
				if skip.Err == nil {
					t.Errorf("%s was left out for no reason", skip.Asked)
				}
			}
			if !reflect.DeepEqual(skipped, c.skipped) || len(v.asked()) != c.calls {
				t.Errorf("skipped %q after %d calls, want %q after %d", skipped, len(v.asked()), c.skipped, c.calls)
			}
		})
	}
	for _, status := range []int{400, 404} {
		t.Run(fmt.Sprintf("a stray %d", status), func(t *testing.T) {
			t.Parallel()
			s, strayed := parse(t, named(t)), atomic.Bool{}
			v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("code") == "b" && !strayed.Swap(true) {
					answer(w, status, gone)
					return
				}
				answer(w, 200, there)
			}, values("a", "b"))
			records, err := v.read(t)
			if err != nil || len(records) != 4 || len(v.client.Skipped()) > 0 {
				t.Errorf("read %d records (%v), left out %v; want 4 and nothing left out", len(records), err, v.client.Skipped())
			}
		})
	}
	t.Run("a fixed value is gone", func(t *testing.T) {
		t.Parallel()
		s := parse(t, change(t, named(t), "from: [{stream: sdr, table: billing.sdr, column: cloud_service_type_code}]", "values: [a, b]"))
		for _, standing := range []bool{false, true} {
			v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("code") == "b" {
					answer(w, 404, gone)
					return
				}
				answer(w, 200, there)
			}, func(c *list.Config) {
				c.Standing = func(_ context.Context, asked map[string]string) (bool, error) {
					return standing && asked["code"] == "b", nil
				}
			})
			if _, err := v.read(t); (err != nil) != standing || standing && !strings.Contains(err.Error(), "--accept-shrink") {
				t.Errorf("with its rows standing %t, read = %v", standing, err)
			}
		}
	})
	t.Run("gone behind the first page", func(t *testing.T) {
		t.Parallel()
		s := parse(t, named(t))
		v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("offset") != "0" {
				answer(w, 404, gone)
				return
			}
			answer(w, 200, `{"total_count":3,"data":[1,2]}`)
		}, values("a"))
		if _, err := v.read(t); !errors.Is(err, pipeline.ErrListMoved) {
			t.Errorf("read = %v, want ErrListMoved", err)
		}
	})
	t.Run("no such API, whatever the id", func(t *testing.T) {
		t.Parallel()
		s := parse(t, change(t, change(t, named(t), "    - {name: language, values: [en_US, zh_CN]}\n", ""), `  headers: {X-Language: "{language}"}`+"\n", ""))
		v := open(t, s, s.List, func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 404, `{"error_code":"APIG.0101","error_msg":"The API does not exist"}`)
		}, values("a", "b", "c"))
		if _, err := v.read(t); !errors.Is(err, pipeline.ErrNotOffered) || len(v.asked()) != 1 {
			t.Errorf("read = %v after %d calls, want ErrNotOffered after one", err, len(v.asked()))
		}
	})
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	status := func(code int) func(error) bool {
		return func(err error) bool {
			var s *source.StatusError
			return errors.As(err, &s) && s.Status == code
		}
	}
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	fine := func(err error) bool { return err == nil }
	improper := func(err error) bool {
		var gaveUp *source.GaveUpError
		return errors.As(err, &gaveUp)
	}
	for name, c := range map[string]struct {
		status int
		body   string
		want   func(error) bool
		again  bool
		rows   int
	}{
		"success code of v1":    {200, `{"error_code":"CBC.0000","error_msg":"success","total_count":1,"data":[1]}`, fine, false, 1},
		"code 0":                {200, `{"error_code":0,"total_count":1,"data":[1]}`, fine, false, 1},
		"code null":             {200, `{"error_code":null,"total_count":1,"data":[1]}`, fine, false, 1},
		"server's error in 200": {200, `{"error_code":"CBC.0999","error_msg":"other"}`, status(500), true, 0},
		"throttle in 200":       {200, `{"error_code":"APIG.0308","error_msg":"slow"}`, status(429), true, 0},
		"denied in 200":         {200, `{"error_code":"CBC.0151","error_msg":"no"}`, status(403), false, 0},
		"bad request in 200":    {200, `{"error_code":"CBC.0100","error_msg":"no"}`, status(400), false, 0},
		"another code in 200":   {200, `{"error_code":"CBC.7777","total_count":1,"data":[1]}`, is(pipeline.ErrRefused), false, 0},
		"denied":                {403, `{"error_code":"CBC.0151"}`, status(403), false, 0},
		"not there":             {404, `{}`, is(pipeline.ErrNotOffered), false, 0},
		"return code 0":         {200, `{"code":"0","msg":"ok","total_count":1,"data":[1]}`, fine, false, 1},
		"return code 200":       {200, `{"code":200,"total_count":1,"data":[1]}`, fine, false, 1},
		"odd return code":       {200, `{"code":"AS.0007","msg":"?","total_count":1,"data":[1]}`, fine, false, 1},
		"return code alone":     {200, `{"code":"AS.0007","msg":"broken"}`, status(500), true, 0},
		"return code of 403":    {200, `{"code":403,"msg":"no"}`, status(403), false, 0},
		"a message, no code":    {200, `{"error_msg":"backend timeout","total_count":0,"data":[]}`, status(500), true, 0},
		"a praise, no code":     {200, `{"error_msg":"Success","total_count":0,"data":[]}`, fine, false, 0},
		"a code of no text":     {200, `{"error_code":{},"total_count":0,"data":[]}`, status(500), true, 0},
		"an error, empty list":  {200, `{"error":{"message":"x"},"total_count":0,"data":[]}`, status(500), true, 0},
		"a failure, empty list": {200, `{"code":"500","msg":"x","total_count":0,"data":[]}`, status(500), true, 0},
		"null list":             {200, `{"total_count":0,"data":null}`, fine, false, 0},
		"no list, no rows":      {200, `{"total_count":0}`, fine, false, 0},
		"no list, but rows":     {200, `{"total_count":1}`, improper, true, 0},
		"no list, no total":     {200, `{}`, improper, true, 0},
		"something else":        {200, `{"hello":"world"}`, improper, true, 0},
		"array":                 {200, `[1]`, improper, true, 0},
		"text for a list":       {200, `{"total_count":1,"data":"x"}`, improper, true, 0},
		"two lists":             {200, `{"total_count":1,"data":[1],"Data":[2]}`, improper, true, 0},
		"no JSON":               {200, `<html>`, improper, true, 0},
		"other spelling":        {200, `{"TotalCount":"1","Data":[1]}`, fine, false, 1},
		"an object for a list":  {200, `{"total_count":1,"data":{"id":1}}`, fine, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := parse(t, things)
			v := open(t, s, s.List, func(w http.ResponseWriter, _ *http.Request) { answer(w, c.status, c.body) }, nil)
			id := v.create(t)
			page, err := v.client.Page(t.Context(), id, v.client.Start(id))
			if !c.want(err) || (len(v.asked()) > 1) != c.again {
				t.Errorf("Page = %v after %d calls", err, len(v.asked()))
			}
			if (c.rows > 0) != (len(page.Data) > 0) || !strings.Contains(c.body, string(page.Data)) {
				t.Errorf("data is %s", page.Data)
			}
			if warned := v.logged.FilterMessageSnippet("return code").Len() == 1; warned != (name == "odd return code") {
				t.Errorf("warned: %t", warned)
			}
		})
	}
}

func TestNestedAndWholeAnswers(t *testing.T) {
	t.Parallel()
	wholeBody := change(t, change(t, change(t, change(t, things, "  items: data\n  total: total_count\n", ""), "{style: row, start: offset, limit: limit, size: 2}", "{style: none}"),
		"key: [id]\n", ""), "{name: id, type: text, required: true, meaning: Its id.}", "{name: body, type: json, meaning: All.}")
	for name, c := range map[string]struct {
		text, body, data string
		want             error
	}{
		"dotted": {change(t, change(t, things, "items: data", "items: result.page.list"), "total: total_count", "total: result.total"), `{"result":{"total":1,"page":{"list":[1]}}}`, "[1]", nil},
		"one object": {
			change(t, change(t, change(t, things, "items: data", "items: server"), "  total: total_count\n", ""), "{style: row, start: offset, limit: limit, size: 2}", "{style: none}"),
			`{"server":{"id":1}}`, `{"id":1}`, nil,
		},
		"whole object":   {wholeBody, ` {"list":[1],"code":"x"} `, `{"list":[1],"code":"x"}`, nil},
		"whole array":    {wholeBody, `[1,2]`, `[1,2]`, nil},
		"whole null":     {wholeBody, `null`, ``, nil},
		"whole is error": {wholeBody, `{"error_code":"AS.0001","error_msg":"no"}`, ``, pipeline.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := parse(t, c.text)
			v := open(t, s, s.List, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, c.body) }, nil)
			id := v.create(t)
			page, err := v.client.Page(t.Context(), id, v.client.Start(id))
			if !errors.Is(err, c.want) || string(page.Data) != c.data || page.Next != "" {
				t.Errorf("Page = %s then %q, %v; want %s", page.Data, page.Next, err, c.data)
			}
		})
	}
}

// TestDocumentedSamples reads the documents' own answers with the streams as they are declared.
func TestDocumentedSamples(t *testing.T) {
	t.Parallel()
	for file, c := range map[string]struct {
		stream, api string
		rows        int
		more        bool // the sample tells of more rows than it shows, or of no total
	}{
		"subscriptions.v1.json":                 {"subscriptions", "v1", 2, false},
		"subscriptions.v2.json":                 {"subscriptions", "v2", 2, false},
		"service_resources.json":                {"service_resources", "", 5, true}, // in the other language
		"cloud_service_capacity.ecs_vm.en.json": {"cloud_service_capacity", "", 1, true},
		"physical_capacity.storage.json":        {"physical_capacity", "", 2, true},
		"cloud_service_alarms.en.json":          {"cloud_service_alarms", "", 1, true},
		"cloud_service_alarms.zh.json":          {"cloud_service_alarms", "", 1, true},
		"bms_servers.json":                      {"bms_servers", "", 1, false},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			sample, err := os.ReadFile(filepath.Join("..", "..", "testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			s := schemas.ByName(c.stream)
			v := open(t, s, s.List.Variant(c.api), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(sample) }, values("x"))
			id, err := v.client.CreateJob(t.Context(), pipeline.JobRequest{Min: "2024-03-01 00:00:00", Max: "2024-04-01 00:00:00"})
			if err != nil {
				t.Fatal(err)
			}
			page, err := v.client.Page(t.Context(), id, v.client.Start(id))
			if err != nil {
				t.Fatal(err)
			}
			rows := 0
			for range record.Elements(page.Data) {
				rows++
			}
			if len(page.Data) > 0 && page.Data[0] == '{' {
				rows = 1
			}
			if rows != c.rows || (page.Next != "") != c.more {
				t.Errorf("%d rows then %q, want %d", rows, page.Next, c.rows)
			}
		})
	}
}

func TestDeclarationsAreChecked(t *testing.T) {
	t.Parallel()
	config := list.Config{Endpoint: "https://bss.example.com", Values: func(context.Context, schemas.Each) ([]string, error) { return nil, nil }}
	for name, c := range map[string]struct {
		text  string
		spoil func(*list.Config)
		want  string
	}{
		"no endpoint":     {things, func(c *list.Config) { c.Endpoint = "" }, "bss.endpoint"},
		"no domain":       {change(t, things, "/v2/things", "/{domain_id}/things"), nil, "bss.domain_id is empty"},
		"no project":      {change(t, things, "/v2/things", "/{project_id}/things"), nil, "bss.project_id is empty"},
		"no such value":   {change(t, things, "/v2/things", "/{other}/things"), nil, `no "other"`},
		"no columns":      {named(t), func(c *list.Config) { c.Values = nil }, "can't be read here"},
		"value not asked": {change(t, named(t), `{code: "{code}"}`, `{code: x}`), nil, `"code" stands in no path`},
		"name is taken":   {change(t, named(t), "name: language", "name: offset"), nil, "name of something else"},
		"not configured":  {change(t, named(t), "[en_US, zh_CN]", `["{language}"]`), nil, "has to be configured"},
	} {
		given := config
		if c.spoil != nil {
			c.spoil(&given)
		}
		s := parse(t, c.text)
		if _, err := list.New(nil, s, s.List, given); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: New = %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"refused": 400, "denied": 403, "broken": 503, "in 200": 200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := parse(t, things)
			v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
				answer(w, status, fmt.Sprintf(`{"error_code":"X.1","error_msg":"%s %s"}`, r.Header.Get("X-Auth-Token"), r.Header.Get("X-Apig-Appcode")))
			}, nil)
			_, err := v.read(t)
			if err == nil {
				t.Fatal("read succeeded")
			}
			logged := fmt.Sprint(v.logged.All())
			if strings.Contains(err.Error()+logged, "canary") {
				t.Errorf("a secret came out: %v\n%s", err, logged)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"total_count":1,"data":[1]}`, `{"error_code":"CBC.0000","total_count":"1","data":{"a":1}}`, `{"data":[1,`, `[]`, `null`, `{"code":1}`, `{"data":[[{"data":[]}]]}`,
	} {
		f.Add([]byte(seed), int64(0))
	}
	s := parse(f, things)
	f.Fuzz(func(t *testing.T, body []byte, before int64) {
		if record.Validate(body) != nil {
			return // the transport lets nothing else through
		}
		data, rows, err := list.Parse(s.List, body, before)
		if (rows == 0) != (len(data) == 0) || err != nil && rows != 0 || !strings.Contains(string(body), string(data)) {
			t.Errorf("%d rows in %q, %v", rows, data, err)
		}
	})
}
