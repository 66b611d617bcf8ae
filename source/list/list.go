// Package list reads the vendor's lists as their streams declare them: paths, parameters, paging and time are data of a schema, not
// code. It reads envelopes only, and proves that a list was read whole; what a record is, pipeline/record knows.
package list

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/source"
)

// Config says which system is asked, and for whom. Endpoint is required; DomainID, ProjectID and Values are if the list needs them.
type Config struct {
	Endpoint  string
	Header    http.Header // sent with every call; may hold secrets
	Auth      source.Auth
	DomainID  string         // what "{domain_id}" stands for
	ProjectID string         // what "{project_id}" stands for
	Zone      *time.Location // in which windows of event time begin and end; default UTC
	// Values returns the values of columns that a list is asked by.
	Values func(context.Context, schemas.Each) ([]string, error)
	// Standing tells whether rows are published that were asked for by these values. Unset, values that the vendor no longer knows are
	// never missed.
	Standing func(ctx context.Context, asked map[string]string) (bool, error)
}

// Client reads one stream's list. It is a pipeline.Source whose jobs exist only here: creating one settles what the list is asked by.
//
// For every combination of values the pages are proved complete: the total that the vendor tells first, the one it tells last, and the
// rows must agree, else pipeline.ErrListMoved. Where it tells no usable total, only an empty page ends a combination.
type Client struct {
	transport *source.Transport
	stream    *schemas.Stream
	list      *schemas.List
	config    Config
	endpoint  *url.URL
	path      string // as errors show it
	warned    atomic.Bool

	asking sync.Mutex // held while the questions are settled
	asked  *questions // of every job: they hold for the whole run

	mu       sync.Mutex
	jobs     map[string]*job
	readings map[string]int   // how many jobs there were of the same window
	skips    map[string]error // by question: what was left out of the jobs read to their end, and why
}

var _ pipeline.Source = (*Client)(nil)

// New returns a Client for the stream's list, which may be one of its variants. Errors name the setting that is missing, or what the
// declaration contradicts. It asks for nothing yet.
func New(transport *source.Transport, stream *schemas.Stream, list *schemas.List, config Config) (*Client, error) {
	endpoint, err := source.ParseEndpoint(list.System+".endpoint", config.Endpoint)
	if err != nil {
		return nil, err
	}
	if config.Zone == nil {
		config.Zone = time.UTC
	}
	header := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}
	maps.Copy(header, config.Header.Clone())
	config.Header = header
	if err := checkDeclaration(list, config); err != nil {
		return nil, err
	}
	return &Client{
		transport: transport, stream: stream, list: list, config: config, endpoint: endpoint, path: shownPath(list.Path), jobs: map[string]*job{},
		readings: map[string]int{}, skips: map[string]error{},
	}, nil
}

// questions are all that a list is asked, one for each combination of values.
type questions struct {
	all     []*question
	byAsked map[string]int
}

// question is one combination of values.
type question struct {
	values map[string]string
	asked  string // the values as a URL query
}

// job is one reading of the list. It remembers little of what it has read: there may be a thousand of them in a run.
type job struct {
	*questions
	begin, end time.Time // of events, as they are asked for
	size       int       // of a page

	mu      sync.Mutex
	reading map[int]*combination // by question: the one that is read, and the one before it
	absent  map[int]error        // by question: the vendor does not know its values
	seen    bool                 // a page came
}

// Overlap is how much more than its window each end of a span of event time is asked for, since no document says whether they are
// inclusive.
const Overlap = time.Second

// CreateJob settles what the list is asked by and returns a new id; the vendor is not asked. See pipeline.Source.
func (c *Client) CreateJob(ctx context.Context, req pipeline.JobRequest) (string, error) {
	j := &job{reading: map[int]*combination{}, absent: map[int]error{}}
	if c.list.Time != nil {
		begin, err := c.parseTime(req.Min)
		if err != nil {
			return "", err
		}
		end, err := c.parseTime(req.Max)
		if err != nil {
			return "", err
		}
		j.begin, j.end = begin.Add(-Overlap), end.Add(Overlap)
	}
	var err error
	if j.questions, err = c.settle(ctx); err != nil {
		return "", err
	}
	id := "list-" + rand.Text()
	c.mu.Lock()
	defer c.mu.Unlock()
	// A window is read again because it seemed to move. Pages of another size end elsewhere: what stood twice or was missing only because of
	// where a page ended does so in another way now.
	window := req.Min + " " + req.Max
	j.size = max(1, c.list.Paging.Size>>min(c.readings[window], 2))
	c.readings[window]++
	c.jobs[id] = j
	return id, nil
}

// settle returns what the list is asked, the same for every job: the tables that values come from are pulled before.
func (c *Client) settle(ctx context.Context) (*questions, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	if c.asked != nil {
		return c.asked, nil
	}
	combinations, err := c.combinations(ctx)
	if err != nil {
		return nil, err
	}
	q := &questions{byAsked: map[string]int{}}
	for i, values := range combinations {
		one := newQuestion(values)
		q.all, q.byAsked[one.asked] = append(q.all, one), i
	}
	c.asked = q
	return q, nil
}

func (c *Client) parseTime(text string) (time.Time, error) {
	t, err := time.ParseInLocation(time.DateTime, text, c.config.Zone)
	if err != nil {
		return time.Time{}, fmt.Errorf("create job of list %s: %w", c.stream.Name, err)
	}
	return t, nil
}

// combinations returns the product of all that the list is asked by; a list that is asked by nothing has one combination of no values.
func (c *Client) combinations(ctx context.Context) ([]map[string]string, error) {
	product := []map[string]string{{}}
	for _, each := range c.list.Each {
		values := each.Values
		if len(each.From) > 0 {
			var err error
			if values, err = c.config.Values(ctx, each); err != nil {
				return nil, fmt.Errorf("list the values of %s that list %s is asked by: %w", each.Name, c.stream.Name, err)
			}
		}
		var longer []map[string]string
		for _, have := range product {
			seen := map[string]bool{"": true} // an empty value would ask for something else
			for _, value := range values {
				if seen[value] {
					continue
				}
				seen[value] = true
				with := maps.Clone(have)
				with[each.Name] = value
				longer = append(longer, with)
			}
		}
		product = longer
	}
	return product, nil
}

// Job tells that a job of this client's is ready; pipeline.ErrJobForgotten for any other.
func (c *Client) Job(_ context.Context, jobID string) (pipeline.JobStatus, error) {
	if _, err := c.job(jobID); err != nil {
		return pipeline.JobStatus{}, err
	}
	return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
}

func (c *Client) job(id string) (*job, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j := c.jobs[id]
	if j == nil {
		return nil, fmt.Errorf("list %s: %w: %s is of another run", c.stream.Name, pipeline.ErrJobForgotten, id)
	}
	return j, nil
}

// Start returns the marker of a job's first page: the values it is asked by and the place, as a URL query.
func (c *Client) Start(jobID string) string {
	j, err := c.job(jobID)
	if err != nil {
		return ""
	}
	return c.start(j, 0)
}

// start returns the marker of the first page of the i-th question, "" behind the last.
func (c *Client) start(j *job, i int) string {
	if i >= len(j.all) {
		return ""
	}
	return j.all[i].marker(c.list.Paging, firstPlace(c.list.Paging))
}

// Page reads the page behind marker; see pipeline.Source. The page is to be released. Errors besides those of source.Transport.Do:
// pipeline.ErrListMoved with the numbers that disagree; pipeline.ErrNotOffered if every combination was answered 404.
func (c *Client) Page(ctx context.Context, jobID, marker string) (pipeline.Page, error) {
	j, err := c.job(jobID)
	if err != nil {
		return pipeline.Page{}, err
	}
	page, err := c.page(ctx, j, marker)
	if err != nil {
		return pipeline.Page{}, fmt.Errorf("read list %s at %q: %w", c.stream.Name, marker, err)
	}
	page.Asked = marker
	return page, nil
}

func (c *Client) page(ctx context.Context, j *job, marker string) (pipeline.Page, error) {
	if len(j.all) == 0 {
		return pipeline.Page{Body: emptyBody}, c.finish(j, nil)
	}
	i, place, err := j.find(c.list.Paging, marker)
	if err != nil {
		return pipeline.Page{}, err
	}
	one := j.all[i]
	j.mu.Lock()
	combination := j.read(i, firstPlace(c.list.Paging))
	before, ok := combination.fronts[place]
	j.mu.Unlock()
	if !ok {
		return pipeline.Page{}, errors.New("no page has led there")
	}
	got, answer, err := c.ask(ctx, j, one, place, before.rows)
	if err != nil && c.isAbsent(j, one, err) && !errors.Is(err, errUnaskable) {
		got, answer, err = c.ask(ctx, j, one, place, before.rows) // a gateway's stray refusal must not make a row disappear
	}
	if err != nil {
		if !c.isAbsent(j, one, err) {
			return pipeline.Page{}, err
		}
		if before.rows > 0 {
			return pipeline.Page{}, fmt.Errorf("%w: it went away behind row %d: %w", pipeline.ErrListMoved, before.rows, err)
		}
		if err := c.checkGone(ctx, one, err); err != nil {
			return pipeline.Page{}, err
		}
		j.mu.Lock()
		j.absent[i] = err
		j.mu.Unlock()
		return c.skip(j, i, err)
	}
	page := pipeline.Page{Body: answer.Body, Data: got.data, Release: answer.Release}
	j.mu.Lock()
	delete(j.absent, i)
	j.seen = true
	next, more, err := combination.take(c.list.Paging, place, got)
	if err == nil && !more || errors.Is(err, errRepeats) { // all is proved: only its last page may be asked for again, or all of it
		combination.fronts = map[int64]front{firstPlace(c.list.Paging): {}, place: before}
	}
	j.mu.Unlock()
	switch {
	case errors.Is(err, errRepeats):
		answer.Release()
		return c.skip(j, i, nil)
	case err != nil:
	case more:
		page.Next = one.marker(c.list.Paging, next)
	default:
		if page.Next = c.start(j, i+1); page.Next == "" {
			err = c.finish(j, nil)
		}
	}
	if err != nil {
		answer.Release()
		return pipeline.Page{}, err
	}
	return page, nil
}

// read returns what was read for the i-th question so far. What lies further back than the question before it is forgotten.
func (j *job) read(i int, first int64) *combination {
	maps.DeleteFunc(j.reading, func(k int, _ *combination) bool { return k < i-1 })
	if j.reading[i] == nil {
		j.reading[i] = newCombination(first)
	}
	return j.reading[i]
}

// emptyBody stands for a page that holds nothing of the list.
var emptyBody = []byte("[]")

// skip is an empty page that leads on to the next combination. last is why this one is absent, if it is.
func (c *Client) skip(j *job, i int, last error) (pipeline.Page, error) {
	page := pipeline.Page{Body: emptyBody, Next: c.start(j, i+1)}
	if page.Next == "" {
		return page, c.finish(j, last)
	}
	return page, nil
}

// checkGone refuses that a fixed value is unknown to the vendor while rows that it had for it stand: they would vanish.
func (c *Client) checkGone(ctx context.Context, one *question, absent error) error {
	if c.config.Standing == nil || c.asksByIDs() {
		return nil
	}
	standing, err := c.config.Standing(ctx, one.values)
	if err == nil && standing {
		err = fmt.Errorf("the vendor has nothing for %s any more, and rows of it are published; they stay (if that is real: --accept-shrink): %w", one.asked, absent)
	}
	return err
}

// asksByIDs tells whether the list is asked by values of our tables, which the vendor may have forgotten.
func (c *Client) asksByIDs() bool {
	return slices.ContainsFunc(c.list.Each, func(e schemas.Each) bool { return len(e.From) > 0 })
}

// isAbsent tells whether a question's error means that it has no records.
func (c *Client) isAbsent(j *job, one *question, err error) bool {
	if c.list.Absent != "skip" || len(c.list.Each) == 0 {
		return false
	}
	var status *source.StatusError
	switch {
	case errors.Is(err, errUnaskable):
		return true
	case !errors.As(err, &status):
		return false
	case status.Code == "APIG.0101" && !j.answered() && !one.namesPath() && !slices.ContainsFunc(c.list.Each, func(e schemas.Each) bool { return len(e.From) == 0 }):
		return false // the gateway knows no such API, whatever the id: asking for the others would change nothing
	}
	// Fixed values stand in the documents: whoever refuses them refuses how they are asked for.
	return status.Status == http.StatusNotFound || status.Status == http.StatusBadRequest && c.asksByIDs()
}

// answered tells whether a question was answered with a page: then there is such an API.
func (j *job) answered() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seen
}

// namesPath tells whether a value has a slash. Some gateways take it for a plain one although it is escaped, and know no API of such a path.
func (c *question) namesPath() bool {
	for _, value := range c.values {
		if strings.ContainsAny(value, `/\`) {
			return true
		}
	}
	return false
}

// finish ends the reading. last is the error of the last question if that was absent. If every one of them was, it is the API that is
// absent (404), or the way of asking that is refused (400); but a dictionary need not know any of our codes.
func (c *Client) finish(j *job, last error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	refused, offered := error(nil), false
	for _, i := range slices.Sorted(maps.Keys(j.absent)) {
		err := j.absent[i]
		if !errors.Is(err, pipeline.ErrNotOffered) {
			offered = true
			if !errors.Is(err, errUnaskable) {
				refused = err
			}
		}
	}
	switch present := last == nil || len(j.absent) < len(j.all); {
	case present:
	case refused != nil && c.list.Denied != "note":
		return refused
	case !offered:
		return last
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, err := range j.absent {
		c.skips[j.all[i].asked] = err
	}
	clear(j.absent)
	return nil
}

// Skip is a question without records because the vendor does not know one of its values.
type Skip struct {
	Asked string // the values as a URL query: "host_id=h-17"
	Err   error  // what the vendor answered
}

// Skipped returns the questions that were left out of the jobs read to their end, each once, in order.
func (c *Client) Skipped() []Skip {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sorted []Skip
	for _, asked := range slices.Sorted(maps.Keys(c.skips)) {
		sorted = append(sorted, Skip{Asked: asked, Err: c.skips[asked]})
	}
	return sorted
}

// warn tells once that answers carry a return code that no document explains.
func (c *Client) warn(code string) {
	if !c.warned.Swap(true) {
		c.transport.Log().Warn("list has a return code beside its records, which are taken", zap.String("stream", c.stream.Name), zap.String("code", code))
	}
}
