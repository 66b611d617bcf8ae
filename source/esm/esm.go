// Package esm asks Huawei's ESM for metering records through query jobs (ESM API Reference 4.2). It reads envelopes only: what a
// record is, pipeline/record knows.
package esm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
)

// PageLimit is how many records a page is asked for: the most that ESM gives (ESM API Reference 4.2.3, table 4-7).
const PageLimit = 200

// Config says which ESM is asked, and for whom. Endpoint and DomainID are required.
type Config struct {
	Endpoint     string
	DomainID     string          // the tenant whose records are asked for
	APIGAppcode  pipeline.Secret // sent as X-APIG-Appcode if set
	HCSOAppcode  pipeline.Secret // sent as x-hcso-appcode if set: the samples of ESM API Reference 4.2 show it
	HCSODomainID string          // sent as x-hcso-domainid if set
}

// domainAlphabet is the vendor's own (ESM API Reference 4.2.1), here without the empty id that its regex lets through.
var domainAlphabet = regexp.MustCompile(`^[-_0-9a-zA-Z]{1,36}$`)

// Validate says which setting can't be used.
func (c Config) Validate() error {
	if !domainAlphabet.MatchString(c.DomainID) {
		return fmt.Errorf("esm.domain_id %q must be 1 to 36 letters, digits, '-' or '_'", c.DomainID)
	}
	for _, h := range []struct{ name, value string }{
		{"apig_appcode", c.APIGAppcode.Reveal()},
		{"hcso_appcode", c.HCSOAppcode.Reveal()},
		{"hcso_domain_id", c.HCSODomainID},
	} {
		if strings.ContainsFunc(h.value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("esm.%s holds a line break or another character that no header may have", h.name)
		}
	}
	return nil
}

// Client asks ESM for records. It is a pipeline.Source.
type Client struct {
	transport *source.Transport
	auth      source.Auth
	header    http.Header
	domainID  string
	jobs      string // URL of the tenant's query jobs
	lost      atomic.Int64
}

var _ pipeline.Source = (*Client)(nil)

// New returns a Client. It asks for nothing yet.
func New(transport *source.Transport, tokens source.TokenSource, config Config) (*Client, error) {
	endpoint, err := source.ParseEndpoint("esm.endpoint", config.Endpoint)
	if err != nil {
		return nil, err
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}
	for name, value := range map[string]string{
		"X-APIG-Appcode":  config.APIGAppcode.Reveal(),
		"x-hcso-appcode":  config.HCSOAppcode.Reveal(),
		"x-hcso-domainid": config.HCSODomainID,
	} {
		if value != "" {
			header.Set(name, value)
		}
	}
	return &Client{
		transport: transport,
		auth:      source.TokenAuth(tokens),
		header:    header,
		domainID:  config.DomainID,
		jobs:      endpoint.String() + "/meter/v1/" + url.PathEscape(config.DomainID) + "/query-jobs",
	}, nil
}

// Header returns what every call of ESM is sent with besides the token, AppCodes included. It is the caller's.
func (c *Client) Header() http.Header { return c.header.Clone() }

// LostCreates counts the requests for a job that were sent while their answer was lost: each may have left an orphan job at the
// vendor, which is harmless.
func (c *Client) LostCreates() int64 { return c.lost.Load() }

// createRequest is CreateQueryJobRequest (ESM API Reference 4.2.1, table 4-1). Both times are always sent: older documents call
// them optional, newer ones mandatory.
type createRequest struct {
	Site   string `json:"hcso_id"`
	Region string `json:"region_id,omitempty"`
	Min    string `json:"min_sdr_time"`
	Max    string `json:"max_sdr_time"`
}

// CreateJob starts a query job; see pipeline.Source.
func (c *Client) CreateJob(ctx context.Context, req pipeline.JobRequest) (string, error) {
	if req.DomainID != c.domainID {
		return "", fmt.Errorf("create query job: it is for domain_id %q, this client for %q", req.DomainID, c.domainID)
	}
	body, err := json.Marshal(createRequest{Site: req.Site, Region: req.Region, Min: req.Min, Max: req.Max})
	if err != nil {
		return "", fmt.Errorf("create query job: %w", err)
	}
	call := c.call("create query job", http.MethodPost, c.jobs, "query-jobs")
	call.Body = body
	// The document says 201; a gateway in between may make it 200.
	call.Accept = []int{http.StatusCreated, http.StatusOK}
	call.Lost = func() { c.lost.Add(1) }
	answer, err := c.transport.Do(ctx, call)
	if err != nil {
		return "", fmt.Errorf("create query job: %w", err)
	}
	defer answer.Release()
	// Not asked again: a vendor that gives no id now would be left with a job for every try.
	id, err := parseJobID(answer.Body)
	if err != nil {
		c.lost.Add(1)
		return "", fmt.Errorf("create query job: POST query-jobs: %w", err)
	}
	return id, nil
}

// Job polls a query job once; see pipeline.Source.
func (c *Client) Job(ctx context.Context, jobID string) (pipeline.JobStatus, error) {
	var status pipeline.JobStatus
	call := c.call("poll query job", http.MethodGet, c.jobs+"/"+url.PathEscape(jobID), "query-jobs/…")
	call.NotFound = pipeline.ErrJobForgotten
	call.Check = func(body []byte) (err error) {
		status, err = parseStatus(body)
		return err
	}
	answer, err := c.do(ctx, jobID, call)
	if err != nil {
		return pipeline.JobStatus{}, fmt.Errorf("poll query job %q: %w", jobID, err)
	}
	answer.Release()
	return status, nil
}

// Start returns the marker of a job's first page: none (ESM API Reference 4.2.3).
func (c *Client) Start(string) string { return "" }

// pageRequest is QueryJobSdrRequest (ESM API Reference 4.2.3, table 4-7).
type pageRequest struct {
	Marker string `json:"marker,omitempty"`
	Limit  int    `json:"limit"`
}

// Page reads the page behind marker; see pipeline.Source. The page is to be released.
func (c *Client) Page(ctx context.Context, jobID, marker string) (pipeline.Page, error) {
	body, err := json.Marshal(pageRequest{Marker: marker, Limit: PageLimit})
	if err != nil {
		return pipeline.Page{}, fmt.Errorf("read page of query job %q: %w", jobID, err)
	}
	var page pipeline.Page
	// The samples show a GET with a body, which proxies drop; the section itself says POST.
	call := c.call("read query job", http.MethodPost, c.jobs+"/"+url.PathEscape(jobID)+"/sdr", "query-jobs/…/sdr")
	call.Body = body
	call.NotFound = pipeline.ErrJobForgotten
	call.Conceal = []string{marker}
	call.Check = func(body []byte) (err error) {
		page, err = parsePage(body)
		return err
	}
	answer, err := c.do(ctx, jobID, call)
	if err != nil {
		return pipeline.Page{}, fmt.Errorf("read page of query job %q: %w", jobID, err)
	}
	page.Asked, page.Release = marker, answer.Release
	return page, nil
}

// do sends a call about a job, whose id must not change what the URL means.
func (c *Client) do(ctx context.Context, jobID string, call source.Request) (source.Response, error) {
	if err := checkJobID(jobID); err != nil {
		return source.Response{}, err
	}
	return c.transport.Do(ctx, call)
}

func (c *Client) call(api, method, url, path string) source.Request {
	return source.Request{API: api, Method: method, URL: url, Path: path, Header: c.header, Auth: c.auth, JSON: true}
}

func checkJobID(id string) error {
	if id == "" || id == "." || id == ".." {
		return errors.New("its id is empty or means another path")
	}
	return nil
}
