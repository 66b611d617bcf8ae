package list_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/list"
)

// FuzzParseDeclared reads answers as the declared lists do: BSS v1 and v2, BMS, and ESM's envelopes. What is taken for records stands in the
// answer as it is, is JSON, and is as many records as were counted.
func FuzzParseDeclared(f *testing.F) {
	var lists []*schemas.List
	for _, s := range schemas.All() {
		if s.List == nil {
			continue
		}
		lists = append(lists, s.List)
		for i := range s.List.Variants {
			lists = append(lists, &s.List.Variants[i])
		}
	}
	samples, err := filepath.Glob("../../testdata/*.json")
	if err != nil || len(samples) < 20 {
		f.Fatalf("the documents' samples are missing: %d, %v", len(samples), err)
	}
	for i, name := range samples {
		body, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(body) < 2000 { // the long ones have nothing that the short ones lack
			f.Add(body, uint8(i), int64(0))
		}
	}
	for i := range lists {
		items := lists[i].Items
		f.Add(fmt.Appendf(nil, `{%q:[{"a":1},{}],"total":2,"total_count":"2","count":2,"error_code":"","code":"200"}`, items), uint8(i), int64(0))
		f.Add([]byte(`{"error_code":"CBC.0155","error_msg":"no","total_count":0}`), uint8(i), int64(7))
	}
	f.Fuzz(func(t *testing.T, body []byte, which uint8, before int64) {
		if record.Validate(body) != nil {
			return // the transport lets nothing else through
		}
		l := lists[int(which)%len(lists)]
		data, rows, err := list.Parse(l, body, before)
		if err != nil {
			if rows != 0 {
				t.Errorf("%s: %d rows, and %v", l.Path, rows, err)
			}
			return
		}
		if (rows == 0) != (len(data) == 0) || !strings.Contains(string(body), string(data)) {
			t.Fatalf("%s: %d rows in %q of %q", l.Path, rows, data, body)
		}
		if rows == 0 {
			return
		}
		var records []json.RawMessage
		switch {
		case !json.Valid(data):
			t.Errorf("%s: the records %q of %q are no JSON", l.Path, data, body)
		case l.Items != "" && json.Unmarshal(data, &records) == nil && int64(len(records)) != rows:
			t.Errorf("%s: %d rows are counted in %q", l.Path, rows, data)
		}
	})
}

// FuzzMarker: the values that a list is asked by reach the vendor as they are, whatever characters they are made of, and the marker leads back
// to the page.
func FuzzMarker(f *testing.F) {
	for _, seed := range []string{"h-1", "a b+c&d=e", "../..", "%41", "ü\x00;", "offset=3", "\xff", "'); drop table x; --"} {
		f.Add(seed)
	}
	s := parse(f, change(f, named(f), "path: /v2/things", "path: /v2/{code}/things"))
	type request struct{ path, param string }
	var asked atomic.Pointer[request]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, _ := url.PathUnescape(strings.TrimSuffix(strings.TrimPrefix(r.URL.EscapedPath(), "/v2/"), "/things"))
		asked.Store(&request{path, r.URL.Query().Get("code")})
		fmt.Fprint(w, `{"total_count":1,"data":[{"id":"x"}]}`)
	}))
	f.Cleanup(server.Close)
	transport, err := source.New(source.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(transport.Close)
	f.Fuzz(func(t *testing.T, value string) {
		client, err := list.New(transport, s, s.List, list.Config{
			Endpoint: server.URL, DomainID: "d-1", ProjectID: "p-1", Values: func(context.Context, schemas.Each) ([]string, error) { return []string{value}, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		job, err := client.CreateJob(t.Context(), whole)
		if err != nil || value == "" {
			return
		}
		asked.Store(nil)
		page, err := client.Page(t.Context(), job, client.Start(job))
		if got := asked.Load(); got != nil && *got != (request{value, value}) {
			t.Errorf("the list is asked by %q, want %q", *got, value)
		}
		if err != nil {
			return // a value that can't stand in a request; nothing else was asked for
		}
		if page.Release != nil {
			page.Release()
		}
	})
}
