package list

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// combination is what was read so far for one combination of values that the list is asked by.
type combination struct {
	fronts   map[int64]front // by place: every page that may be asked for, so that asking again counts nothing twice
	total    int64           // the first that was told
	hasTotal bool
	ownTotal bool // total turned out to count each page's own rows: it tells nothing of the list
}

// front is what stands in front of a page.
type front struct {
	rows int64
	hash [sha256.Size]byte // of the page right before it, zero for none
}

func newCombination(first int64) *combination {
	return &combination{fronts: map[int64]front{first: {}}}
}

func newQuestion(values map[string]string) *question {
	query := url.Values{}
	for name, value := range values {
		query.Set(name, value)
	}
	return &question{values: values, asked: query.Encode()}
}

// firstPlace is the row offset or page number of the first page.
func firstPlace(p schemas.Paging) int64 {
	if p.Style == "page" {
		return 1
	}
	return 0
}

// marker names the page at place.
func (c *question) marker(p schemas.Paging, place int64) string {
	query := url.Values{}
	for name, value := range c.values {
		query.Set(name, value)
	}
	if p.Style != "none" {
		query.Set(p.Start, strconv.FormatInt(place, 10))
	}
	return query.Encode()
}

// errRepeats says that a page behind the last one is that one again: it is no part of the list.
var errRepeats = errors.New("the last page again")

// maxPages is how many pages one combination may have before its list counts as endless.
const maxPages = 20_000

// take counts the page at place, and tells whether there is a next one or the combination is proved complete. Its errors are
// pipeline.ErrListMoved with the numbers, or pipeline.ErrRefused for a list without end.
func (c *combination) take(p schemas.Paging, place int64, got page) (next int64, more bool, err error) {
	before := c.fronts[place]
	rows, hash := before.rows+got.rows, sha256.Sum256(got.data)
	if got.rows > 0 && hash == before.hash {
		if p.Beyond && c.hasTotal && !c.ownTotal && before.rows == c.total {
			return 0, false, errRepeats // all was there: only the question behind the end was not heeded
		}
		return 0, false, fmt.Errorf("%w: the page is byte for byte the one before it; does the server heed %s?", pipeline.ErrListMoved, p.Start)
	}
	switch {
	case !got.hasTotal, got.rows == 0 && got.total == 0 && place != firstPlace(p):
		// It tells nothing.
	case got.rows > 0 && before.rows > 0 && got.total == got.rows && (c.ownTotal || c.total == before.rows):
		// A total of the whole list would count the rows before, too.
		c.ownTotal = true
	case !c.hasTotal:
		c.total, c.hasTotal = got.total, true
	case got.total != c.total && !c.ownTotal:
		return 0, false, fmt.Errorf("%w: its total was %d at first and is %d behind row %d", pipeline.ErrListMoved, c.total, got.total, before.rows)
	}
	proof := c.hasTotal && !c.ownTotal
	switch {
	case p.Style == "none" || got.rows == 0:
	case proof && rows == c.total && p.Beyond:
		more = true // a total may count the page's own rows, and a page may be shorter than was asked for
	case proof && rows >= c.total:
	default:
		more = true
	}
	switch {
	case !more && proof && rows != c.total:
		return 0, false, fmt.Errorf("%w: its total is %d, and %d rows were read", pipeline.ErrListMoved, c.total, rows)
	case !more:
		return 0, false, nil
	case len(c.fronts) >= maxPages:
		return 0, false, fmt.Errorf("the list has no end after %d pages and %d rows (%w)", len(c.fronts), rows, pipeline.ErrRefused)
	}
	next = place + 1
	if p.Style == "row" {
		next = place + got.rows
	}
	c.fronts[next] = front{rows: rows, hash: hash}
	return next, true, nil
}
