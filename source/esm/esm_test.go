package esm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/esm"
	"github.com/sdr-sync/sdr-sync/source/iam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "0d1f2a3b4c"

var march = pipeline.JobRequest{
	DomainID: domain, Site: "hcso-213", Region: "cn-north-213", Min: "2024-03-01 00:00:00", Max: "2024-04-01 00:00:00",
}

// fixed is a TokenSource of one token.
type fixed string

func (f fixed) Token(context.Context) (pipeline.Secret, error) { return pipeline.Secret(f), nil }
func (fixed) Invalidate(pipeline.Secret)                       {}

func newTransport(t *testing.T, config source.Config) *source.Transport {
	t.Helper()
	config.BackoffInitial, config.BackoffMax = time.Millisecond, 2*time.Millisecond
	if config.RetryFor == 0 {
		config.RetryFor = 10 * time.Second
	}
	transport, err := source.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.Close)
	return transport
}

func newClient(t *testing.T, handler http.HandlerFunc, config source.Config) *esm.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client, err := esm.New(newTransport(t, config), fixed("canary-token"), esm.Config{
		Endpoint: server.URL + "/", DomainID: domain,
		APIGAppcode: "canary-apig", HCSOAppcode: "canary-hcso", HCSODomainID: "d-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// always answers every call alike.
func always(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json;charset=UTF8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// once answers the first call so, and later ones with then.
func once(first, then http.HandlerFunc) http.HandlerFunc {
	var calls atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			first(w, r)
			return
		}
		then(w, r)
	}
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

func TestRequestsAreTheDocumentedOnes(t *testing.T) {
	t.Parallel()
	const base = "/meter/v1/" + domain + "/query-jobs"
	for name, c := range map[string]struct {
		call   func(context.Context, *esm.Client) error
		answer string
		line   string
		body   string
	}{
		"create": {
			func(ctx context.Context, c *esm.Client) error { _, err := c.CreateJob(ctx, march); return err },
			`{"job_id":"j"}`, "POST " + base,
			`{"hcso_id":"hcso-213","region_id":"cn-north-213","min_sdr_time":"2024-03-01 00:00:00","max_sdr_time":"2024-04-01 00:00:00"}`,
		},
		"create for all regions": {
			func(ctx context.Context, c *esm.Client) error {
				req := march
				req.Region = ""
				_, err := c.CreateJob(ctx, req)
				return err
			},
			`{"job_id":"j"}`, "POST " + base,
			`{"hcso_id":"hcso-213","min_sdr_time":"2024-03-01 00:00:00","max_sdr_time":"2024-04-01 00:00:00"}`,
		},
		"poll": {
			func(ctx context.Context, c *esm.Client) error { _, err := c.Job(ctx, "job-1"); return err },
			`{"status":"running"}`, "GET " + base + "/job-1", "",
		},
		"odd job id": {
			func(ctx context.Context, c *esm.Client) error { _, err := c.Job(ctx, "a/../b?c#d e"); return err },
			`{"status":"running"}`, "GET " + base + "/a%2F..%2Fb%3Fc%23d%20e", "",
		},
		"first page": {
			func(ctx context.Context, c *esm.Client) error { _, err := c.Page(ctx, "job-1", ""); return err },
			`{"data":[]}`, "POST " + base + "/job-1/sdr", `{"limit":200}`,
		},
		"page": {
			func(ctx context.Context, c *esm.Client) error {
				_, err := c.Page(ctx, "job-1", "a+b/c-_==")
				return err
			},
			`{"data":[]}`, "POST " + base + "/job-1/sdr", `{"marker":"a+b/c-_==","limit":200}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var line, body string
			var header http.Header
			client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
				sent, _ := io.ReadAll(r.Body)
				line, body, header = r.Method+" "+r.RequestURI, string(sent), r.Header
				always(200, c.answer)(w, r)
			}, source.Config{})
			if err := c.call(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			if line != c.line || body != c.body {
				t.Errorf("sent %s\n%s\nwant %s\n%s", line, body, c.line, c.body)
			}
			for name, want := range map[string]string{
				"X-Auth-Token": "canary-token", "X-Hcso-Appcode": "canary-hcso", "X-Apig-Appcode": "canary-apig", "X-Hcso-Domainid": "d-1",
				"Content-Type": "application/json", "Accept": "application/json",
			} {
				if got := header.Get(name); got != want {
					t.Errorf("header %s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestUnsetHeadersAreNotSent(t *testing.T) {
	t.Parallel()
	var header http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		always(201, `{"job_id":"j"}`)(w, r)
	}))
	defer server.Close()
	client, err := esm.New(newTransport(t, source.Config{}), fixed("t"), esm.Config{Endpoint: server.URL, DomainID: domain})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateJob(t.Context(), march); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"X-Hcso-Appcode", "X-Apig-Appcode", "X-Hcso-Domainid"} {
		if _, ok := header[name]; ok {
			t.Errorf("header %s was sent", name)
		}
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]esm.Config{
		"esm.endpoint":       {DomainID: domain},
		"esm.domain_id":      {Endpoint: "https://esm.example.com", DomainID: "a/b"},
		"esm.apig_appcode":   {Endpoint: "https://esm.example.com", DomainID: domain, APIGAppcode: "canary\n"},
		"esm.hcso_appcode":   {Endpoint: "https://esm.example.com", DomainID: domain, HCSOAppcode: "canary\r\nX-A: b"},
		"esm.hcso_domain_id": {Endpoint: "https://esm.example.com", DomainID: domain, HCSODomainID: "ü"},
	} {
		_, err := esm.New(nil, fixed(""), config)
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "canary") {
			t.Errorf("New = %v, want an error that names %s", err, name)
		}
	}
}

func TestCreateJob(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // "" for an error
		is     error
	}{
		"201":              {201, `{"job_id":"j-1"}`, "j-1", nil},
		"200":              {200, `{"job_id":"j-1"}`, "j-1", nil},
		"number":           {201, `{"job_id":12345678901234567890}`, "12345678901234567890", nil},
		"camelCase":        {201, `{"jobId":"j-1","extra":{"job_id":"no"}}`, "j-1", nil},
		"escapes":          {201, "\ufeff" + ` {"job\u005fid":"j\u002d1"} `, "j-1", nil},
		"missing":          {201, `{}`, "", nil},
		"null":             {201, `{"job_id":null}`, "", nil},
		"empty":            {201, `{"job_id":""}`, "", nil},
		"blank":            {201, `{"job_id":"  "}`, "", nil},
		"object":           {201, `{"job_id":{}}`, "", nil},
		"twice":            {201, `{"job_id":"a","jobId":"b"}`, "", nil},
		"path":             {201, `{"job_id":".."}`, "", nil},
		"array":            {201, `[{"job_id":"a"}]`, "", nil},
		"error despite ok": {201, `{"error_code":"ESM.0001","error_msg":"no"}`, "", nil},
		"bad request":      {400, `{"error_code":"AS.0001","error_msg":"The format of message is error"}`, "", pipeline.ErrRefused},
		"not found":        {404, `{}`, "", pipeline.ErrRefused},
		"forbidden":        {403, `{}`, "", pipeline.ErrCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				always(c.status, c.body)(w, r)
			}, source.Config{})
			got, err := client.CreateJob(t.Context(), march)
			if got != c.want || (err == nil) != (c.want != "") || (c.is != nil && !errors.Is(err, c.is)) {
				t.Errorf("CreateJob = %q, %v, want %q, %v", got, err, c.want, c.is)
			}
			if calls.Load() != 1 {
				t.Errorf("%d jobs were created", calls.Load())
			}
		})
	}
	t.Run("for another tenant", func(t *testing.T) {
		t.Parallel()
		req := march
		req.DomainID = "other"
		if _, err := newClient(t, always(201, `{"job_id":"j"}`), source.Config{}).CreateJob(t.Context(), req); err == nil {
			t.Error("a job of another tenant was created")
		}
	})
}

func TestLostCreatesAreCounted(t *testing.T) {
	t.Parallel()
	good := always(201, `{"job_id":"j-1"}`)
	for name, c := range map[string]struct {
		first http.HandlerFunc
		want  int64
	}{
		"none lost": {good, 0},
		"hung up":   {hangUp, 1},
		"gateway":   {always(504, "<html>"), 1},
		"cut":       {always(201, `{"job_`), 1},
		"too many":  {always(429, ""), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, once(c.first, good), source.Config{})
			id, err := client.CreateJob(t.Context(), march)
			if id != "j-1" || err != nil || client.LostCreates() != c.want {
				t.Errorf("CreateJob = %q, %v with %d lost, want %d", id, err, client.LostCreates(), c.want)
			}
		})
	}
}

func TestJob(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body string
		want pipeline.JobStatus
	}{
		"document's sample": {`{"id":"xxx","status":"success","progress":100}`, pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}},
		"pending":           {`{"status":"pending","progress":0}`, pipeline.JobStatus{State: pipeline.JobPending}},
		"failure":           {`{"status":"FAILURE"}`, pipeline.JobStatus{State: pipeline.JobFailure}},
		"mixed case":        {`{"Status":" Success "}`, pipeline.JobStatus{State: pipeline.JobSuccess}},
		"unknown state":     {`{"status":"merging","progress":12}`, pipeline.JobStatus{State: pipeline.JobRunning, Progress: 12}},
		"progress text":     {`{"status":"running","progress":"42"}`, pipeline.JobStatus{State: pipeline.JobRunning, Progress: 42}},
		"progress percent":  {`{"status":"running","progress":"42.9 %"}`, pipeline.JobStatus{State: pipeline.JobRunning, Progress: 42}},
		"progress over":     {`{"status":"running","progress":1e300}`, pipeline.JobStatus{State: pipeline.JobRunning, Progress: 100}},
		"progress under":    {`{"status":"running","progress":-5}`, pipeline.JobStatus{State: pipeline.JobRunning}},
		"progress null":     {`{"status":"running","progress":null}`, pipeline.JobStatus{State: pipeline.JobRunning}},
		"progress words":    {`{"status":"running","progress":"NaN"}`, pipeline.JobStatus{State: pipeline.JobRunning}},
		"failure, and why":  {`{"status":"failure","error_code":"ESM.0017","error_msg":"no file"}`, pipeline.JobStatus{State: pipeline.JobFailure}},
		"code of success":   {`{"status":"running","error_code":"0"}`, pipeline.JobStatus{State: pipeline.JobRunning}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := newClient(t, always(200, c.body), source.Config{}).Job(t.Context(), "j")
			if got != c.want || err != nil {
				t.Errorf("Job = %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestForgottenJob(t *testing.T) {
	t.Parallel()
	client := newClient(t, always(404, `{"error_code":"ESM.0404","error_msg":"job not found"}`), source.Config{})
	_, pollErr := client.Job(t.Context(), "j")
	_, pageErr := client.Page(t.Context(), "j", "m")
	for name, err := range map[string]error{"Job": pollErr, "Page": pageErr} {
		if !errors.Is(err, pipeline.ErrJobForgotten) || errors.Is(err, pipeline.ErrRefused) {
			t.Errorf("%s = %v, want ErrJobForgotten alone", name, err)
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, next, data string }{
		"document's sample":    {`{"data":[],"marker":"xxx"}`, "xxx", ""},
		"records":              {`{"data":[{"a":"1"},{"a":"2"}],"marker":"a+b/c=="}`, "a+b/c==", `[{"a":"1"},{"a":"2"}]`},
		"marker first":         {`{"marker":"m","data":[ {"marker":"inner","data":null} ] }`, "m", `[ {"marker":"inner","data":null} ]`},
		"escaped marker":       {`{"data":[],"marker":"a\/b\u003d"}`, "a/b=", ""},
		"no marker":            {`{"data":[{}]}`, "", `[{}]`},
		"null marker":          {`{"data":[{}],"marker":null}`, "", `[{}]`},
		"empty marker":         {`{"data":[{}],"marker":""}`, "", `[{}]`},
		"blank marker":         {`{"data":[{}],"marker":" \t"}`, "", `[{}]`},
		"number marker":        {`{"data":[{}],"marker":12345678901234567890}`, "12345678901234567890", `[{}]`},
		"no data":              {`{"marker":"m"}`, "m", ""},
		"null data":            {`{"data":null,"marker":"m"}`, "m", ""},
		"spaced empty data":    {"{\"data\":[ \n ]}", "", ""},
		"nothing":              {`{}`, "", ""},
		"other spelling":       {`{"Data":[{}],"MARKER":"m"}`, "m", `[{}]`},
		"unknown keys":         {`{"total":"33","data":[{}],"x":{"data":[1]},"marker":"m"}`, "m", `[{}]`},
		"byte order mark":      {"\ufeff" + `{"data":[{}]}`, "", `[{}]`},
		"error code, success":  {`{"data":[{}],"error_code":"CBC.0000","error_msg":""}`, "", `[{}]`},
		"return code, success": {`{"data":[],"marker":"","code":"200","msg":"ok"}`, "", ""},
		"return code, more":    {`{"data":[{}],"marker":"m","code":"AS.0007","msg":"?"}`, "m", `[{}]`},
		"praise":               {`{"data":[],"error_msg":"Success"}`, "", ""},
		"null error":           {`{"data":[{}],"error_code":null,"error_msg":null}`, "", `[{}]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			page, err := newClient(t, always(200, c.body), source.Config{}).Page(t.Context(), "j", "asked")
			if err != nil {
				t.Fatal(err)
			}
			if page.Asked != "asked" || page.Next != c.next || string(page.Data) != c.data {
				t.Errorf("Page = asked %q, next %q, data %s; want next %q, data %s", page.Asked, page.Next, page.Data, c.next, c.data)
			}
			if string(page.Body) != strings.TrimPrefix(c.body, "\ufeff") {
				t.Errorf("body is %s", page.Body)
			}
			page.Release()
		})
	}
}

func TestImproperPagesAreAskedAgain(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]http.HandlerFunc{
		"data is an object":   always(200, `{"data":{},"marker":"m"}`),
		"data is text":        always(200, `{"data":"[]","marker":"m"}`),
		"marker is an object": always(200, `{"data":[],"marker":{}}`),
		"marker is a bool":    always(200, `{"data":[],"marker":false}`),
		"two data":            always(200, `{"data":[{}],"Data":[{}]}`),
		"two markers":         always(200, `{"data":[{}],"marker":"a","marker":"b"}`),
		"error":               always(200, `{"error_code":"ESM.0500","error_msg":"internal error"}`),
		"error with data":     always(200, `{"error_code":"ESM.0500","error_msg":"internal error","data":[]}`),
		"error, numeric":      always(200, `{"error_code":500,"data":null}`),
		"message alone":       always(200, `{"error_msg":"internal error"}`),
		"message, null code":  always(200, `{"error_code":null,"error_msg":"backend timeout","data":[]}`),
		"message with data":   always(200, `{"error_msg":"backend timeout","data":[{"a":"2"}]}`),
		"code of no text":     always(200, `{"error_code":{},"data":[]}`),
		"half a code":         always(200, `{"error_code":"ESM.","data":[]}`),
		"error object":        always(200, `{"error":{"message":"x"},"data":null}`),
		"return code":         always(200, `{"code":"500","msg":"x","data":null}`),
		"return code, empty":  always(200, `{"code":"500","message":"x","data":[]}`),
		"return code, last":   always(200, `{"code":"500","message":"x","data":[{"a":"2"}]}`),
		"return code alone":   always(200, `{"code":"500","msg":"x"}`),
		"praise alone":        always(200, `{"code":"200","msg":"ok"}`),
		"something else":      always(200, `{"status":"UP"}`),
		"array":               always(200, `[]`),
		"null":                always(200, `null`),
		"HTML":                always(200, `<html>log in</html>`),
		"empty":               always(200, ``),
		"cut":                 always(200, `{"data":[{"a":"1"}`),
		"hung up":             hangUp,
		"too many requests":   always(429, `{"error_code":"APIG.0308","error_msg":"The throttling threshold has been reached"}`),
		"gateway error":       always(502, `<html>`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, once(first, always(200, `{"data":[{"a":"1"}],"marker":"right"}`)), source.Config{})
			page, err := client.Page(t.Context(), "j", "")
			if err != nil || page.Next != "right" || string(page.Data) != `[{"a":"1"}]` {
				t.Fatalf("Page = next %q, data %s, %v", page.Next, page.Data, err)
			}
			page.Release()
		})
	}
}

func TestErrorsTellThePathAndNoSecret(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&logged), zap.DebugLevel)
	client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		message, _ := json.Marshal(fmt.Sprint(string(body), r.Header))
		always(503, `{"error_code":"APIG.0308","error_msg":`+string(message)+`}`)(w, r)
	}, source.Config{RetryFor: 50 * time.Millisecond, Log: zap.New(core)})
	_, err := client.Page(t.Context(), "job-1", "canary+marker/==")
	text := fmt.Sprint(err)
	for _, want := range []string{`read page of query job "job-1": gave up after`, "POST query-jobs/…/sdr: status 503 APIG.0308 "} {
		if !strings.Contains(text, want) {
			t.Errorf("error does not say %q: %s", want, text)
		}
	}
	if strings.Contains(text, "canary") || strings.Contains(logged.String(), "canary") {
		t.Errorf("a secret came out:\n%s\n%s", text, logged.String())
	}
	if logged.Len() == 0 {
		t.Error("no retry was logged")
	}
}

// TestTokenEndsMidDrain drains one job in many goroutines while the token changes, against an IAM that counts.
func TestTokenEndsMidDrain(t *testing.T) {
	t.Parallel()
	const workers, pages = 16, 20
	var asked, refused atomic.Int64
	var valid atomic.Value
	valid.Store("token-1")
	served := make(chan struct{}, workers*pages)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v3/auth/tokens" {
			token := fmt.Sprintf("token-%d", asked.Add(1))
			valid.Store(token)
			w.Header().Set("X-Subject-Token", token)
			always(201, `{"token":{}}`)(w, r)
			return
		}
		if r.Header.Get("X-Auth-Token") != valid.Load() {
			refused.Add(1)
			always(401, `{"error_code":"APIG.0301","error_msg":"Incorrect IAM authentication information: decrypt token fail"}`)(w, r)
			return
		}
		var req struct{ Marker string }
		_ = json.NewDecoder(r.Body).Decode(&req)
		n := len(req.Marker) + 1
		served <- struct{}{}
		if n == pages {
			always(200, fmt.Sprintf(`{"data":[{"n":%d}]}`, n))(w, r)
			return
		}
		always(200, fmt.Sprintf(`{"data":[{"n":%d}],"marker":"%s"}`, n, strings.Repeat("=", n)))(w, r)
	}))
	defer server.Close()
	transport := newTransport(t, source.Config{})
	tokens, err := iam.New(transport, iam.Config{Endpoint: server.URL, User: "u", Domain: "d", Project: "p", Password: "canary"})
	if err != nil {
		t.Fatal(err)
	}
	client, err := esm.New(transport, tokens, esm.Config{Endpoint: server.URL, DomainID: domain})
	if err != nil {
		t.Fatal(err)
	}
	var drains sync.WaitGroup
	for range workers {
		drains.Go(func() {
			marker, records := "", 0
			for {
				page, err := client.Page(t.Context(), "j", marker)
				if err != nil {
					t.Error(err)
					return
				}
				for range record.Elements(page.Data) {
					records++
				}
				marker = page.Next
				page.Release()
				if marker == "" {
					break
				}
			}
			if records != pages {
				t.Errorf("drained %d records, want %d", records, pages)
			}
		})
	}
	for range workers * pages / 2 {
		<-served
	}
	valid.Store("ended") // half way through
	drains.Wait()
	if asked.Load() != 2 || refused.Load() == 0 {
		t.Errorf("IAM was asked %d times for %d refusals, want 2", asked.Load(), refused.Load())
	}
}

func FuzzParsePage(f *testing.F) {
	for _, seed := range []string{
		`{"data":[],"marker":"xxx"}`, `{"data":[{"a":"]}"},{}],"marker":"a+b/=="}`, `{"Data":null,"marker":1}`, `{"error_code":"X"}`,
		`{"d\u0061ta":[1]}`, `{"data":[{"marker":"\\\"}"}]}`, `[]`, `{"marker":`, "\ufeff{}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if record.Validate(body) != nil {
			return // never reaches the parser
		}
		page, err := esm.ParsePage(body)
		if err != nil {
			return
		}
		// The standard library, which also matches keys whatever their case, must agree where it can read the page at all.
		var want struct {
			Data   []json.RawMessage `json:"data"`
			Marker string            `json:"marker"`
		}
		if json.Unmarshal(body, &want) != nil || strings.ContainsAny(string(body), `_- \`) {
			return
		}
		if strings.TrimSpace(want.Marker) != strings.TrimSpace(page.Next) {
			t.Errorf("next marker is %q, want %q, in %s", page.Next, want.Marker, body)
		}
		var records []json.RawMessage
		if len(page.Data) > 0 {
			if err := json.Unmarshal(page.Data, &records); err != nil {
				t.Fatalf("data %q of %s: %v", page.Data, body, err)
			}
		}
		if len(records) != len(want.Data) {
			t.Errorf("%d records, want %d, in %s", len(records), len(want.Data), body)
		}
	})
}

func BenchmarkPage(b *testing.B) {
	one := `{` + strings.Repeat(`"resource_spec_code":"ks1.xlarge.2.linux",`, 19) + `"a":"b"}`
	body := `{"data":[` + strings.Repeat(one+",", 199) + one + `],"marker":"` + strings.Repeat("m", 100) + `"}`
	server := httptest.NewServer(always(200, body))
	defer server.Close()
	transport, err := source.New(source.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer transport.Close()
	client, err := esm.New(transport, fixed("t"), esm.Config{Endpoint: server.URL, DomainID: domain})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		page, err := client.Page(b.Context(), "j", "m")
		if err != nil {
			b.Fatal(err)
		}
		page.Release()
	}
}
