// Package bms asks the Bare Metal Server service how a task stands (BMS API Overview, Task management). Servers themselves are a
// list, which package list reads.
package bms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/envelope"
)

// State is where a task stands. ESM's query jobs have other words for theirs.
type State string

// The states of a task. One that no document names is Running to us.
const (
	Success        State = "SUCCESS"
	Running        State = "RUNNING"
	Fail           State = "FAIL"
	Init           State = "INIT"
	PendingPayment State = "PENDING_PAYMENT"
)

// IsFinal tells whether the task has ended.
func (s State) IsFinal() bool { return s == Success || s == Fail }

// Job is a task, such as the creation of a server. Times are zero while the vendor tells none.
type Job struct {
	ID         string          `json:"job_id"`
	Type       string          `json:"job_type,omitempty"` // baremetalBatchCreate, baremetalAttachVolume, ...
	Status     State           `json:"status"`
	Begin      time.Time       `json:"begin_time,omitzero"`
	End        time.Time       `json:"end_time,omitzero"`
	ErrorCode  string          `json:"error_code,omitempty"`
	FailReason string          `json:"fail_reason,omitempty"`
	Entities   json.RawMessage `json:"entities,omitempty"` // what the task is about; its form depends on Type
}

// Config says which BMS is asked, and for which project. Both are required.
type Config struct {
	Endpoint  string
	ProjectID string
}

// Client asks BMS.
type Client struct {
	transport *source.Transport
	auth      source.Auth
	jobs      string // URL of the project's tasks
}

// New returns a Client. It asks for nothing yet.
func New(transport *source.Transport, auth source.Auth, config Config) (*Client, error) {
	endpoint, err := source.ParseEndpoint("bms.endpoint", config.Endpoint)
	if err != nil {
		return nil, err
	}
	if !isSegment(config.ProjectID) {
		return nil, fmt.Errorf("bms.project_id %q is no project's id", config.ProjectID)
	}
	return &Client{transport: transport, auth: auth, jobs: endpoint.String() + "/v1/" + url.PathEscape(config.ProjectID) + "/jobs/"}, nil
}

// isSegment tells whether an id stays one segment of a path.
func isSegment(id string) bool { return id != "" && id != "." && id != ".." }

// jobsPerMinute is how often the status of tasks may be asked for (BMS API Overview, table 2).
const jobsPerMinute = 2000

// Job asks once how a task stands. Errors: pipeline.ErrJobForgotten if BMS knows no such task (404), and those of source.Transport.Do.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	if !isSegment(id) {
		return Job{}, fmt.Errorf("query task %q: its id is empty or means another path", id)
	}
	var job Job
	answer, err := c.transport.Do(ctx, source.Request{
		API:      "query task",
		Rate:     source.Rate{Class: "bms-jobs", PerMinute: jobsPerMinute},
		Method:   http.MethodGet,
		URL:      c.jobs + url.PathEscape(id),
		Path:     "/v1/…/jobs/…",
		Header:   http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}},
		Auth:     c.auth,
		JSON:     true,
		NotFound: pipeline.ErrJobForgotten,
		Check: func(body []byte) (err error) {
			job, err = parseJob(id, body)
			return err
		},
	})
	if err != nil {
		return Job{}, fmt.Errorf("query task %q: %w", id, err)
	}
	answer.Release()
	return job, nil
}

// parseJob reads a task. One without a status that has a code is an error of the request.
func parseJob(id string, body []byte) (Job, error) {
	e, err := envelope.Read(body, "status", "jobtype", "begintime", "endtime", "failreason", "entities", "code", "message")
	if err != nil {
		return Job{}, err
	}
	text := func(names ...string) string {
		for _, name := range names {
			if s, _ := envelope.Scalar(e.Member(name)); s != "" {
				return s
			}
		}
		return ""
	}
	status := strings.ToUpper(strings.TrimSpace(text("status")))
	if status == "" {
		if text("code", "errorcode") != "" {
			return Job{}, source.BodyStatus(http.StatusBadRequest)
		}
		return Job{}, errors.New("answer has no status")
	}
	job := Job{
		ID: id, Type: text("jobtype"), Status: State(status), Begin: parseTime(text("begintime")), End: parseTime(text("endtime")),
		ErrorCode: text("errorcode", "code"), FailReason: text("failreason", "message"),
	}
	if !slices.Contains([]State{Success, Running, Fail, Init, PendingPayment}, job.Status) {
		job.Status = Running
	}
	if entities := e.Member("entities"); !envelope.IsNull(entities) {
		job.Entities = slices.Clone(entities) // the body goes back
	}
	return job, nil
}

// parseTime reads "2016-07-25T19:27:38.144Z". It is only shown: what is no time is none.
func parseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}
