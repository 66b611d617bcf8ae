package list

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/envelope"
)

// page is what an answer says.
type page struct {
	data     []byte // part of the body; empty without records
	rows     int64
	total    int64
	hasTotal bool
	code     string // a return code that stands for no success although there are records
}

// parsePage reads an answer that has before rows in front of it. Its error is a source.BodyStatus if the answer is a refusal.
func parsePage(l *schemas.List, body []byte, before int64) (page, error) {
	if l.Items == "" {
		return parseWhole(body)
	}
	e, err := envelope.Read(body, topNames(l)...)
	if err != nil {
		return page{}, err
	}
	if code, _, ok := e.Error(); ok {
		return page{}, errorStatus(code)
	}
	items, err := find(e, l.Items)
	if err != nil {
		return page{}, err
	}
	p, err := parseItems(items)
	if err != nil {
		return page{}, err
	}
	if l.Total != "" {
		total, err := find(e, l.Total)
		if err != nil {
			return page{}, err
		}
		p.total, p.hasTotal = parseTotal(total)
	}
	// Behind the last row a list may leave its records out; anywhere else that is no answer, least of all the last page.
	missing := items == nil && !(p.hasTotal && p.total <= before)
	code, readable := envelope.Scalar(e.Member("code"))
	if !readable {
		code = string(e.Member("code"))
	}
	switch {
	case (missing || p.rows == 0 && before == 0) && !envelope.IsFine(code): // a list must not pass for an empty one
		return page{}, codeStatus(code)
	case missing:
		return page{}, fmt.Errorf("answer has no %q", l.Items)
	case !envelope.IsFine(code):
		p.code = fmt.Sprintf("%.64s", code)
	}
	return p, nil
}

// parseWhole takes the whole body as one record.
func parseWhole(body []byte) (page, error) {
	data := bytes.TrimSpace(body)
	if e, err := envelope.Read(data); err == nil {
		if code, _, ok := e.Error(); ok {
			return page{}, errorStatus(code)
		}
	}
	if envelope.IsNull(data) {
		return page{}, nil
	}
	return page{data: data, rows: 1}, nil
}

// topNames are the members of the envelope that matter, folded.
func topNames(l *schemas.List) []string {
	names := []string{"code"}
	for _, path := range []string{l.Items, l.Total} {
		top, _, _ := strings.Cut(path, ".")
		if name := envelope.Fold([]byte(top)); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// find returns the member at a path of names with dots between them, nil if it is absent.
func find(e envelope.Envelope, path string) ([]byte, error) {
	top, rest, nested := strings.Cut(path, ".")
	value := e.Member(envelope.Fold([]byte(top)))
	if !nested || envelope.IsNull(value) {
		return value, nil
	}
	next, _, _ := strings.Cut(rest, ".")
	inner, err := envelope.Read(value, envelope.Fold([]byte(next)))
	if err != nil {
		return nil, fmt.Errorf("member %q: %w", top, err)
	}
	return find(inner, rest)
}

// parseItems counts the records: the elements of an array, or one object.
func parseItems(items []byte) (page, error) {
	switch {
	case envelope.IsNull(items):
		return page{}, nil
	case items[0] == '{':
		return page{data: items, rows: 1}, nil
	case items[0] != '[':
		return page{}, errors.New("answer has records that are neither an array nor an object")
	}
	p := page{data: items}
	for range record.Elements(items) {
		p.rows++
	}
	if p.rows == 0 {
		p.data = nil
	}
	return p, nil
}

// parseTotal reads a number, bare or as text. The documents' samples also have words there ("Total number"): those are none.
func parseTotal(value []byte) (total int64, ok bool) {
	text, _ := envelope.Scalar(value)
	total, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return total, err == nil && total >= 0
}

// errorStatus is what an error_code means that came with status 200 (Querying Customer's Yearly/Monthly Resources, Status Code; API
// Gateway for the throttle).
func errorStatus(code string) source.BodyStatus {
	switch strings.ToUpper(strings.TrimSpace(code)) {
	case "", "CBC.0999": // a message without a code tells nothing of the request
		return http.StatusInternalServerError
	case "CBC.0151":
		return http.StatusForbidden
	case "APIG.0308":
		return http.StatusTooManyRequests
	}
	return http.StatusBadRequest
}

// codeStatus is what a return code means where there are no records: itself if it is a status, else an error of the server's.
func codeStatus(code string) source.BodyStatus {
	if status, err := strconv.Atoi(code); err == nil && status >= 400 && status <= 599 {
		return source.BodyStatus(status)
	}
	return http.StatusInternalServerError
}
