package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// today is the date of every test's vendor.
var today = date("2024-04-02")

func date(text string) time.Time {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return t
}

// vendor is a running sandbox and a plain client of it.
type vendor struct {
	t      *testing.T
	server *sandbox.Server
	url    string
	client *http.Client
	header http.Header // of every request
	sign   func(*http.Request, string)
}

func start(t *testing.T, c sandbox.Config) *vendor {
	t.Helper()
	if c.Today == nil {
		c.Today = func() time.Time { return today }
	}
	server, err := sandbox.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(server.Handler())
	t.Cleanup(ts.Close)
	client := ts.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &vendor{t, server, ts.URL, client, http.Header{"Content-Type": {"application/json"}}, nil}
}

// oddities is a small vendor with much of everything odd.
func oddities(seed int64) sandbox.Config {
	return sandbox.Config{
		Seed: seed, Resources: 30, BadEvery: 40, TwinEvery: 50, LateEvery: 30, CorrectionEvery: 40, PollsUntilDone: 1,
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (v *vendor) try(method, path, body string) (answer, error) {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.url+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header = v.header.Clone()
	if v.sign != nil {
		v.sign(req, body)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, got}, err
}

func (v *vendor) do(method, path, body string) answer {
	v.t.Helper()
	a, err := v.try(method, path, body)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// want does a call, checks its status, and reads the answer into out if there is one.
func (v *vendor) want(status int, method, path, body string, out any) answer {
	v.t.Helper()
	a := v.do(method, path, body)
	if a.status != status {
		v.t.Fatalf("%s %s: got status %d, want %d; body %s", method, path, a.status, status, a.body)
	}
	if out != nil {
		if err := json.Unmarshal(a.body, out); err != nil {
			v.t.Fatalf("%s %s: %v in %s", method, path, err, a.body)
		}
	}
	return a
}

const login = `{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"sdr-reader","password":"sandbox-password","domain":{"name":"hcso-operator"}}}},"scope":{"project":{"name":"cn-north-213"}}}}`

// domainLogin asks for a token of the domain, as global services want it.
const domainLogin = `{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"sdr-reader","password":"sandbox-password","domain":{"name":"hcso-operator"}}}},"scope":{"domain":{"name":"hcso-operator"}}}}`

const jobsPath = "/meter/v1/" + sandbox.DefaultDomainID + "/query-jobs"

// logIn fetches a token for all further calls.
func (v *vendor) logIn() *vendor {
	v.t.Helper()
	a := v.want(http.StatusCreated, "POST", "/v3/auth/tokens", login, nil)
	v.header.Set("X-Auth-Token", a.header.Get("X-Subject-Token"))
	return v
}

// logInToDomain fetches a token of the domain for all further calls.
func (v *vendor) logInToDomain() *vendor {
	v.t.Helper()
	a := v.want(http.StatusCreated, "POST", "/v3/auth/tokens", domainLogin, nil)
	v.header.Set("X-Auth-Token", a.header.Get("X-Subject-Token"))
	return v
}

func jobBody(site, region, from, to string) string {
	return fmt.Sprintf(`{"hcso_id":%q,"region_id":%q,"min_sdr_time":"%s 00:00:00","max_sdr_time":"%s 00:00:00"}`, site, region, from, to)
}

func (v *vendor) create(from, to string) (jobID string) {
	v.t.Helper()
	return v.createIn(sandbox.DefaultSite, sandbox.DefaultRegion, from, to)
}

func (v *vendor) createIn(site, region, from, to string) (jobID string) {
	v.t.Helper()
	var job struct {
		ID string `json:"job_id"`
	}
	v.want(http.StatusCreated, "POST", jobsPath, jobBody(site, region, from, to), &job)
	return job.ID
}

type poll struct {
	ID       string
	Status   string
	Progress int
}

func (v *vendor) poll(jobID string) poll {
	v.t.Helper()
	var p poll
	v.want(http.StatusOK, "GET", jobsPath+"/"+jobID, "", &p)
	return p
}

// ready creates a job and polls it until it is done.
func (v *vendor) ready(from, to string) (jobID string) {
	v.t.Helper()
	id := v.create(from, to)
	v.waitFor(id)
	return id
}

func (v *vendor) waitFor(jobID string) {
	v.t.Helper()
	for range 10 {
		if v.poll(jobID).Status == "success" {
			return
		}
	}
	v.t.Fatalf("job %s is not done", jobID)
}

type page struct {
	Data   []json.RawMessage
	Marker string
}

func pageBody(marker string, limit int) string {
	return fmt.Sprintf(`{"marker":%q,"limit":%d}`, marker, limit)
}

func (v *vendor) page(jobID, marker string, limit int) page {
	v.t.Helper()
	var p page
	v.want(http.StatusOK, "POST", jobsPath+"/"+jobID+"/sdr", pageBody(marker, limit), &p)
	return p
}

// drain reads all pages of a job.
func (v *vendor) drain(jobID string, limit int) []page {
	v.t.Helper()
	var all []page
	for marker := ""; ; {
		p := v.page(jobID, marker, limit)
		all = append(all, p)
		if marker = p.Marker; marker == "" {
			return all
		}
		if len(all) > 10_000 {
			v.t.Fatal("the job has no end")
		}
	}
}

// records reads all records of a span in order.
func (v *vendor) records(from, to string) []json.RawMessage {
	v.t.Helper()
	return join(v.drain(v.ready(from, to), 200))
}

func join(pages []page) []json.RawMessage {
	var all []json.RawMessage
	for _, p := range pages {
		all = append(all, p.Data...)
	}
	return all
}

func bytesOf(records []json.RawMessage) []byte {
	var b bytes.Buffer
	for _, r := range records {
		b.Write(r)
		b.WriteByte('\n')
	}
	return b.Bytes()
}
