package bms_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/bms"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, handler http.HandlerFunc) *bms.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	transport, err := source.New(source.Config{BackoffInitial: time.Millisecond, BackoffMax: 200 * time.Millisecond, RetryFor: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.Close)
	auth := source.Auth{Sign: func(r *http.Request) error {
		r.Header.Set("X-Auth-Token", "canary-token")
		return nil
	}}
	client, err := bms.New(transport, auth, bms.Config{Endpoint: server.URL, ProjectID: "p-1"})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestJob(t *testing.T) {
	t.Parallel()
	begin, end := time.Date(2016, 7, 25, 19, 27, 38, 144e6, time.UTC), time.Date(2016, 7, 25, 19, 30, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		body string
		want bms.Job
	}{
		"success": {
			`{"status":"SUCCESS","entities":{"sub_jobs_total":1,"sub_jobs":[{"status":"SUCCESS"}]},"job_id":"j-1","job_type":"baremetalBatchCreate",
				"begin_time":"2016-07-25T19:27:38.144Z","end_time":"2016-07-25T19:30:00Z","error_code":null,"fail_reason":null}`,
			bms.Job{
				ID: "j-1", Type: "baremetalBatchCreate", Status: bms.Success, Begin: begin, End: end,
				Entities: []byte(`{"sub_jobs_total":1,"sub_jobs":[{"status":"SUCCESS"}]}`),
			},
		},
		"failure": {
			`{"status":"FAIL","job_type":"baremetalAttachVolume","begin_time":"","error_code":"Ecs.0005","fail_reason":"no room"}`,
			bms.Job{ID: "j-1", Type: "baremetalAttachVolume", Status: bms.Fail, ErrorCode: "Ecs.0005", FailReason: "no room"},
		},
		"failure in code and message": {
			`{"status":"FAIL","code":"Ecs.0005","message":"no room"}`,
			bms.Job{ID: "j-1", Status: bms.Fail, ErrorCode: "Ecs.0005", FailReason: "no room"},
		},
		"pending payment": {`{"status":"PENDING_PAYMENT"}`, bms.Job{ID: "j-1", Status: bms.PendingPayment}},
		"init":            {`{"status":"INIT","entities":null}`, bms.Job{ID: "j-1", Status: bms.Init}},
		"unknown":         {`{"status":"ROLLBACK"}`, bms.Job{ID: "j-1", Status: bms.Running}},
		"other case":      {`{"Status":"success","beginTime":"2016-07-25T19:27:38.144Z"}`, bms.Job{ID: "j-1", Status: bms.Success, Begin: begin}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var line string
			client := newClient(t, func(w http.ResponseWriter, r *http.Request) {
				line = r.Method + " " + r.RequestURI
				_, _ = io.WriteString(w, c.body)
			})
			got, err := client.Job(t.Context(), "j-1")
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("Job = %+v, %v\nwant  %+v", got, err, c.want)
			}
			if line != "GET /v1/p-1/jobs/j-1" {
				t.Errorf("asked %s", line)
			}
			if want := c.want.Status == bms.Success || c.want.Status == bms.Fail; got.Status.IsFinal() != want {
				t.Errorf("%s: IsFinal is %t", got.Status, got.Status.IsFinal())
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
		again  bool
	}{
		"no such task":     {404, `{"code":"Common.0001","message":"no such job"}`, pipeline.ErrJobForgotten, false},
		"denied":           {403, `{"error_code":"APIG.0302","error_msg":"no"}`, pipeline.ErrCredentials, false},
		"refused with 200": {200, `{"code":"Common.0011","message":"bad id canary-token"}`, pipeline.ErrRefused, false},
		"no status":        {200, `{"job_id":"j-1"}`, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			client := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := client.Job(t.Context(), "j-1")
			if err == nil || c.want != nil && !errors.Is(err, c.want) || (calls.Load() > 1) != c.again {
				t.Errorf("Job = %v after %d calls, want %v", err, calls.Load(), c.want)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("a secret came out: %v", err)
			}
		})
	}
	for _, id := range []string{"", ".", ".."} {
		if _, err := newClient(t, http.NotFound).Job(t.Context(), id); err == nil || errors.Is(err, pipeline.ErrJobForgotten) {
			t.Errorf("Job(%q) = %v", id, err)
		}
	}
}

func TestMissingSettingsAreNamed(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]bms.Config{
		"bms.endpoint":   {ProjectID: "p"},
		"bms.project_id": {Endpoint: "https://bms.example.com"},
	} {
		if _, err := bms.New(nil, source.Auth{}, config); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New = %v, want an error that names %s", err, name)
		}
	}
}
