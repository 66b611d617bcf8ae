// Package pipeline holds the project's words as types, plans the windows of a run, and drives each from query job to published
// rows. It asks vendor and stores only through the small interfaces it declares.
package pipeline

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// Date is a civil date; see record.Date.
type Date = record.Date

// Scope is a site and a region of it: an independent slice of a stream. An empty region asks for all regions of the site at once.
type Scope struct {
	Site   string `json:"site"`
	Region string `json:"region"`
}

// The vendor's own alphabets (ESM API Reference 4.2.1, table 4-1), here without the empty site that its regex lets through. They
// are also what makes a scope safe in a path.
var (
	siteAlphabet   = regexp.MustCompile(`^[-_0-9a-zA-Z]{1,36}$`)
	regionAlphabet = regexp.MustCompile(`^[-_0-9a-zA-Z]{0,255}$`)
)

// ParseScope reads "hcso-213/cn-north-213"; "hcso-213", "hcso-213/" and "hcso-213/*" mean all regions.
func ParseScope(s string) (Scope, error) {
	site, region, _ := strings.Cut(s, "/")
	if region == "*" {
		region = ""
	}
	scope := Scope{Site: site, Region: region}
	return scope, scope.Validate()
}

// Validate says what is wrong with the scope, in the vendor's terms.
func (s Scope) Validate() error {
	if !siteAlphabet.MatchString(s.Site) {
		return fmt.Errorf("scope %q: the site must be 1 to 36 letters, digits, '-' or '_'", s.String())
	}
	if !regionAlphabet.MatchString(s.Region) {
		return fmt.Errorf("scope %q: the region may only have letters, digits, '-' or '_'", s.String())
	}
	return nil
}

// String returns "hcso-213/cn-north-213", or "hcso-213/*" for all regions.
func (s Scope) String() string {
	if s.Region == "" {
		return s.Site + "/*"
	}
	return s.Site + "/" + s.Region
}

// Covers tells whether o is s or, if s means all regions, a region of its site.
func (s Scope) Covers(o Scope) bool {
	return s.Site == o.Site && (s.Region == "" || s.Region == o.Region)
}

// Compare orders scopes by site, then region: the order in which leases are taken.
func (s Scope) Compare(o Scope) int {
	return cmp.Or(cmp.Compare(s.Site, o.Site), cmp.Compare(s.Region, o.Region))
}

// Tenant is the scope of lists, which the vendor keeps for the tenant as a whole and not by site and region.
var Tenant = Scope{Site: "tenant"}

// StreamScope is a scope of one stream: what a run holds the lease of.
type StreamScope struct {
	Stream string `json:"stream"`
	Scope  Scope  `json:"scope"`
}

// Compare orders by stream, then scope: the order in which leases are taken.
func (s StreamScope) Compare(o StreamScope) int {
	return cmp.Or(cmp.Compare(s.Stream, o.Stream), s.Scope.Compare(o.Scope))
}

// String returns "sdr hcso-213/cn-north-213", or the stream's name alone for a list.
func (s StreamScope) String() string {
	if s.Scope == Tenant {
		return s.Stream
	}
	return s.Stream + " " + s.Scope.String()
}

// Unit is the length of a window: a calendar month or a day; or that of a list without time, which is read whole.
type Unit string

// The units of windows.
const (
	Month Unit = "month"
	Day   Unit = "day"
	Whole Unit = "whole"
)

// WholeWindow is the one window of a list that is read whole: a snapshot or a history.
func WholeWindow() Window {
	return Window{Scope: Tenant, Unit: Whole, From: 0, To: record.NewDate(9999, time.December, 31)}
}

// Window is the half-open range [From, To) of file dates (of event dates, for events) for one scope: the unit of query job, retry, commit
// and replacement. Its identity is (Scope, From); To moves only when the window is published.
type Window struct {
	Scope Scope `json:"scope"`
	Unit  Unit  `json:"unit"`
	From  Date  `json:"from"`
	To    Date  `json:"to"`
}

// String returns "hcso-213/cn-north-213 [2024-03-01, 2024-04-01)", of a list "[2024-03-01, 2024-04-01)" or "the whole list".
func (w Window) String() string {
	switch {
	case w.Unit == Whole:
		return "the whole list"
	case w.Scope == Tenant:
		return fmt.Sprintf("[%s, %s)", w.From, w.To)
	}
	return fmt.Sprintf("%s [%s, %s)", w.Scope, w.From, w.To)
}

// of names the window in messages, where a list's says nothing without its stream.
func (w Window) of(stream string) string {
	switch {
	case w.Unit == Whole:
		return stream
	case w.Scope == Tenant:
		return stream + " " + w.String()
	}
	return "window " + w.String()
}

// Overlaps tells whether w and o share a file date.
func (w Window) Overlaps(o Window) bool { return w.From < o.To && o.From < w.To }

// Secret is a string that does not print itself.
type Secret string

const redacted = "[secret]"

// String returns a placeholder; Reveal returns the secret.
func (Secret) String() string { return redacted }

// GoString returns a placeholder.
func (Secret) GoString() string { return redacted }

// Format prints a placeholder under every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText writes a placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Reveal returns the secret itself, for the one place that sends it.
func (s Secret) Reveal() string { return string(s) }

// JobRequest is what a query job is asked for. Two jobs are interchangeable only if their requests are equal.
type JobRequest struct {
	DomainID string `json:"domain_id"`
	Site     string `json:"hcso_id"`
	Region   string `json:"region_id,omitempty"`
	Min      string `json:"min_sdr_time"` // "2024-03-01 00:00:00", inclusive; only the date counts
	Max      string `json:"max_sdr_time"` // "2024-04-01 00:00:00", exclusive; only the date counts
}

// Request returns the query job's request for w under the tenant domainID.
func (w Window) Request(domainID string) JobRequest {
	return JobRequest{
		DomainID: domainID, Site: w.Scope.Site, Region: w.Scope.Region,
		Min: w.From.String() + " 00:00:00", Max: w.To.String() + " 00:00:00",
	}
}

// JobState is where a query job stands at the vendor (ESM API Reference 4.2.2, table 4-5).
type JobState string

// The states of a query job. A state that no document names is JobRunning to us.
const (
	JobPending JobState = "pending"
	JobRunning JobState = "running"
	JobSuccess JobState = "success"
	JobFailure JobState = "failure"
)

// JobStatus is the vendor's answer to a poll. Progress is 0 to 100.
type JobStatus struct {
	State    JobState
	Progress int
}

// Page is one response of a job's records. Body is the response as sent (decompressed); it belongs to the caller of Source.Page
// until Release.
type Page struct {
	Asked string // marker that was sent, Source.Start's for the first page
	Next  string // marker for the next page, "" at the end
	Body  []byte
	Data  []byte // the JSON array of records inside Body, or the one record; empty for a page without records

	// Release, where set, gives Body back for reuse.
	Release func()
}

// Clock tells the time. It decides which data is asked for, so tests and rehearsals set it.
type Clock func() time.Time
