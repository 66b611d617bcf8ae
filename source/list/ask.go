package list

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/source"
)

// placeholder is "{name}" in a declaration.
var placeholder = regexp.MustCompile(`\{([a-z0-9_]*)\}`)

// shownPath is the path without what stands for ids.
func shownPath(path string) string { return placeholder.ReplaceAllString(path, "…") }

// fill replaces the placeholders of template.
func fill(template string, values map[string]string, escape func(string) string) string {
	return placeholder.ReplaceAllStringFunc(template, func(name string) string { return escape(values[name[1:len(name)-1]]) })
}

func asIs(s string) string { return s }

// checkDeclaration tells what would make every call of the list wrong.
func checkDeclaration(l *schemas.List, config Config) error {
	settings := map[string]string{"domain_id": config.DomainID, "project_id": config.ProjectID}
	unused := map[string]bool{}
	for _, each := range l.Each {
		_, reserved := settings[each.Name]
		if reserved || each.Name == l.Paging.Start {
			return fmt.Errorf("list.each %q has the name of something else", each.Name)
		}
		if slices.ContainsFunc(each.Values, placeholder.MatchString) {
			return fmt.Errorf("list.each %q has no value yet: it has to be configured", each.Name)
		}
		if len(each.From) > 0 && config.Values == nil {
			return fmt.Errorf("list.each %q is of columns, which can't be read here", each.Name)
		}
		unused[each.Name] = true
	}
	templates := []string{l.Path}
	for _, m := range []map[string]string{l.Params, l.Headers} {
		for _, template := range m {
			templates = append(templates, template)
		}
	}
	for _, name := range placeholder.FindAllStringSubmatch(strings.Join(templates, " "), -1) {
		value, setting := settings[name[1]]
		switch {
		case setting && value == "":
			return fmt.Errorf("%s.%s is empty", l.System, name[1])
		case setting:
		case !slices.ContainsFunc(l.Each, func(e schemas.Each) bool { return e.Name == name[1] }):
			return fmt.Errorf("list.each has no %q for %q", name[1], name[0])
		}
		delete(unused, name[1])
	}
	for name := range unused {
		return fmt.Errorf("list.each %q stands in no path, parameter or header", name)
	}
	if l.Paging.Style != "none" && (l.Items == "" || l.Paging.Size < 1) {
		return errors.New("a list in pages needs items and a page size")
	}
	return nil
}

// errUnaskable is a value that no call can be made with.
var errUnaskable = errors.New("no such thing can be asked for")

// checkValues refuses values that would change what a path means, or that no header may have. They come from records.
func checkValues(values map[string]string) error {
	for name, value := range values {
		if value == "." || value == ".." || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%w: %s is %.64q (%w)", errUnaskable, name, value, pipeline.ErrRefused)
		}
	}
	return nil
}

// ask reads one page. The answer is the caller's to release unless there is an error.
func (c *Client) ask(ctx context.Context, j *job, one *question, place, before int64) (page, source.Response, error) {
	if err := checkValues(one.values); err != nil {
		return page{}, source.Response{}, err
	}
	call, err := c.call(j, one, place)
	if err != nil {
		return page{}, source.Response{}, err
	}
	var got page
	call.Check = func(body []byte) (err error) {
		got, err = parsePage(c.list, body, before)
		return err
	}
	answer, err := c.transport.Do(ctx, call)
	if err != nil {
		return page{}, source.Response{}, err
	}
	if got.code != "" {
		c.warn(got.code)
	}
	return got, answer, nil
}

// call builds the request of one page.
func (c *Client) call(j *job, one *question, place int64) (source.Request, error) {
	values := map[string]string{"domain_id": c.config.DomainID, "project_id": c.config.ProjectID}
	for name, value := range one.values {
		values[name] = value
	}
	header := c.config.Header.Clone()
	for name, template := range c.list.Headers {
		header.Set(name, fill(template, values, asIs))
	}
	// Parameters that have no value are left out: to the vendor an empty one is another question than none.
	params := map[string]any{}
	for name, template := range c.list.Params {
		if value := fill(template, values, asIs); value != "" {
			params[name] = value
		}
	}
	if span := c.list.Time; span != nil {
		params[span.Begin], params[span.End] = j.begin.UnixMilli(), j.end.UnixMilli()
	}
	if paging := c.list.Paging; paging.Style != "none" {
		params[paging.Start], params[paging.Limit] = place, j.size
	}
	req := source.Request{
		API: "read list " + c.stream.Name, Rate: source.Rate{Class: c.list.Rate.Class, PerMinute: c.list.Rate.PerMinute},
		Method: c.list.Method, URL: c.endpoint.String() + fill(c.list.Path, values, url.PathEscape), Path: c.path,
		Header: header, Auth: c.config.Auth, JSON: true, NotFound: pipeline.ErrNotOffered,
	}
	if len(params) == 0 {
		return req, nil
	}
	if c.list.Method == http.MethodPost {
		body, err := json.Marshal(params)
		req.Body = body
		return req, err
	}
	req.URL += "?" + encode(params)
	return req, nil
}

// encode writes a query. Spaces are %20, which every server and every signature understands alike.
func encode(params map[string]any) string {
	query := url.Values{}
	for name, value := range params {
		query.Set(name, fmt.Sprint(value))
	}
	return strings.ReplaceAll(query.Encode(), "+", "%20")
}

// find returns the combination and the place that a marker names.
func (j *job) find(paging schemas.Paging, marker string) (i int, place int64, err error) {
	query, err := url.ParseQuery(marker)
	if err != nil {
		return 0, 0, err
	}
	place = firstPlace(paging)
	if paging.Style != "none" {
		if place, err = strconv.ParseInt(query.Get(paging.Start), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("the marker names no place: %w", err)
		}
		query.Del(paging.Start)
	}
	i, ok := j.byAsked[query.Encode()]
	if !ok {
		return 0, 0, errors.New("the marker is of another job")
	}
	return i, place, nil
}
