package aksk_test

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/source/aksk"
)

// canonicalText is what a canonical path or query may be made of: RFC 3986's unreserved characters, and escapes in upper case.
var canonicalText = regexp.MustCompile(`^(?:[-A-Za-z0-9_.~/&=]|%[0-9A-F]{2})*$`)

// FuzzCanonical: the canonical form means what the request means, is a fixed point, and is the same however the request spells it.
// Two requests of one form would share a signature, and a form that the gateway reads otherwise none.
func FuzzCanonical(f *testing.F) {
	f.Add("/v2/orders/", "b=2&a=1&a=0&c", "body")
	f.Add("/a%2Fb/%7e/ü//", "q=%20+%2B&q=%C3%BC&%3D=%26", "")
	f.Add("", "&&=&a==", "\x00")
	f.Add("/.//..", "a;b", "{}")
	f.Fuzz(func(t *testing.T, path, query, body string) {
		u := &url.URL{Scheme: "https", Host: "bss.example", RawQuery: query}
		plain, err := url.PathUnescape(path)
		if err != nil || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
			return
		}
		u.Path, u.RawPath = plain, path
		request := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"X-Sdk-Date": {"20240301T000000Z"}}}
		canonical, err := aksk.CanonicalRequest(request, []byte(body), []string{"x-sdk-date"})
		want, queryErr := url.ParseQuery(query)
		if (err == nil) != (queryErr == nil) {
			t.Fatalf("%q %q: %v, and the query alone %v", path, query, err, queryErr)
		}
		if err != nil {
			return
		}
		lines := strings.Split(canonical, "\n")
		if len(lines) != 7 || lines[0] != "GET" || lines[6] != aksk.HexSHA256([]byte(body)) || !canonicalText.MatchString(lines[1]) || !canonicalText.MatchString(lines[2]) {
			t.Fatalf("%q %q become\n%s", path, query, canonical)
		}
		if again, err := url.PathUnescape(lines[1]); err != nil || again != plain && again != plain+"/" {
			t.Errorf("the path %q becomes %q, which means %q (%v)", path, lines[1], again, err)
		}
		got, err := url.ParseQuery(lines[2])
		if err != nil || len(got) != len(want) {
			t.Fatalf("the query %q becomes %q, which means %v (%v)", query, lines[2], got, err)
		}
		for name, values := range want {
			if !slices.Equal(got[name], slices.Sorted(slices.Values(values))) {
				t.Errorf("the query %q becomes %q: %q is %q, want %q in order", query, lines[2], name, got[name], values)
			}
		}
		if again, err := aksk.CanonicalQuery(lines[2]); err != nil || again != lines[2] {
			t.Errorf("the query %q becomes %q, and that %q (%v)", query, lines[2], again, err)
		}
	})
}
