package sandbox_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

func TestTokenStrictness(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{})
	tests := []struct {
		name, method, contentType, body string
		want                            int
	}{
		{"as documented", "POST", "application/json", login, 201},
		{"charset suffix", "POST", "application/json;charset=utf8", login, 201},
		{"project with domain", "POST", "application/json", strings.Replace(login, `"cn-north-213"`, `"cn-north-213","domain":{"name":"hcso-operator"}`, 1), 201},
		{"wrong password", "POST", "application/json", strings.Replace(login, "sandbox-password", "x", 1), 401},
		{"wrong user", "POST", "application/json", strings.Replace(login, "sdr-reader", "x", 1), 401},
		{"wrong domain", "POST", "application/json", strings.Replace(login, "hcso-operator", "x", 1), 401},
		{"wrong project", "POST", "application/json", strings.Replace(login, "cn-north-213", "x", 1), 401},
		{"no scope", "POST", "application/json", strings.Replace(login, `,"scope":{"project":{"name":"cn-north-213"}}`, "", 1), 400},
		{"domain scope", "POST", "application/json", domainLogin, 201},
		{"scope of another domain", "POST", "application/json", strings.Replace(login, `"project"`, `"domain"`, 1), 401},
		{"scope of a domain without a name", "POST", "application/json", strings.Replace(domainLogin, `"scope":{"domain":{"name":"hcso-operator"}}`, `"scope":{"domain":{}}`, 1), 400},
		{"both scopes", "POST", "application/json", strings.Replace(domainLogin, `"scope":{`, `"scope":{"project":{"name":"cn-north-213"},`, 1), 400},
		{"no user domain", "POST", "application/json", strings.Replace(login, `,"domain":{"name":"hcso-operator"}`, "", 1), 400},
		{"other method", "POST", "application/json", strings.Replace(login, `["password"]`, `["token"]`, 1), 400},
		{"unknown field", "POST", "application/json", strings.Replace(login, `"methods"`, `"extra":1,"methods"`, 1), 400},
		{"no JSON", "POST", "application/json", "user=x", 400},
		{"no body", "POST", "application/json", "", 400},
		{"two bodies", "POST", "application/json", login + login, 400},
		{"no content type", "POST", "", login, 400},
		{"form", "POST", "application/x-www-form-urlencoded", login, 400},
		{"GET", "GET", "application/json", "", 405},
	}
	for _, tt := range tests {
		v.header.Set("Content-Type", tt.contentType)
		if a := v.do(tt.method, "/v3/auth/tokens?nocatalog=true", tt.body); a.status != tt.want {
			t.Errorf("%s: got status %d, want %d; body %s", tt.name, a.status, tt.want, a.body)
		}
	}
}

func TestTokenForm(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{TokenTTL: time.Hour})
	var body struct {
		Token struct {
			ExpiresAt string `json:"expires_at"`
		} `json:"token"`
	}
	a := v.want(201, "POST", "/v3/auth/tokens", login, &body)
	if token := a.header.Get("X-Subject-Token"); !strings.HasPrefix(token, "MIIP") || len(token) < 1000 {
		t.Errorf("got token %.20q of %d bytes, want some thousand beginning with MIIP", token, len(token))
	}
	expires, err := time.Parse("2006-01-02T15:04:05.000000Z", body.Token.ExpiresAt)
	if left := time.Until(expires); err != nil || left < 59*time.Minute || left > time.Hour {
		t.Errorf("got expires_at %q (%v), want an hour from now", body.Token.ExpiresAt, err)
	}
}

func TestExpiredToken(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{TokenTTL: time.Nanosecond}).logIn()
	v.want(401, "POST", jobsPath, jobBody("", "", "2024-03-01", "2024-03-02"), nil)
}

func TestSDRStrictness(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 10, PollsUntilDone: 2}).logIn()
	good := jobBody("hcso-213", "cn-north-213", "2024-03-01", "2024-03-02")
	done, other := v.ready("2024-03-01", "2024-03-04"), v.ready("2024-03-01", "2024-03-04")
	pending := v.create("2024-03-01", "2024-03-02")
	marker, foreign := v.page(done, "", 1).Marker, v.page(other, "", 1).Marker
	if !strings.Contains(marker, "+") || !strings.Contains(marker, "/") || !strings.Contains(marker, "=") {
		t.Errorf("got marker %q, want '+', '/' and '=' in it", marker)
	}
	sdr := jobsPath + "/" + done + "/sdr"
	const unset = "-"
	tests := []struct {
		name, method, path, body string
		header, value            string // changed for this call
		want                     int
	}{
		{name: "create", method: "POST", path: jobsPath, body: good, want: 201},
		{name: "create, charset", method: "POST", path: jobsPath, body: good, header: "Content-Type", value: "application/json; charset=UTF-8", want: 201},
		{name: "all sites and regions", method: "POST", path: jobsPath, body: `{"min_sdr_time":"2024-03-01 00:00:00","max_sdr_time":"2024-03-02 00:00:00"}`, want: 201},
		{name: "only dates count", method: "POST", path: jobsPath, body: strings.ReplaceAll(good, "00:00:00", "99:99:99"), want: 201},
		{name: "empty span", method: "POST", path: jobsPath, body: jobBody("", "", "2024-03-01", "2024-03-01"), want: 201},
		{name: "no token", method: "POST", path: jobsPath, body: good, header: "X-Auth-Token", value: unset, want: 401},
		{name: "unknown token", method: "POST", path: jobsPath, body: good, header: "X-Auth-Token", value: "MIIP", want: 401},
		{name: "no content type", method: "POST", path: jobsPath, body: good, header: "Content-Type", value: unset, want: 400},
		{name: "text content type", method: "POST", path: jobsPath, body: good, header: "Content-Type", value: "text/plain", want: 400},
		{name: "another tenant", method: "POST", path: "/meter/v1/somebody/query-jobs", body: good, want: 403},
		{name: "no tenant at all", method: "POST", path: "/meter/v1//query-jobs", body: good, want: 404},
		{name: "long tenant", method: "POST", path: "/meter/v1/" + strings.Repeat("a", 37) + "/query-jobs", body: good, want: 400},
		{name: "PUT create", method: "PUT", path: jobsPath, body: good, want: 405},
		{name: "GET create", method: "GET", path: jobsPath, want: 405},
		{name: "unknown API", method: "GET", path: "/meter/v2/x", want: 404},
		{name: "no min", method: "POST", path: jobsPath, body: `{"max_sdr_time":"2024-03-02 00:00:00"}`, want: 400},
		{name: "no max", method: "POST", path: jobsPath, body: `{"min_sdr_time":"2024-03-01 00:00:00"}`, want: 400},
		{name: "null max", method: "POST", path: jobsPath, body: `{"min_sdr_time":"2024-03-01 00:00:00","max_sdr_time":null}`, want: 400},
		{name: "date only", method: "POST", path: jobsPath, body: strings.ReplaceAll(good, " 00:00:00", ""), want: 400},
		{name: "RFC 3339", method: "POST", path: jobsPath, body: strings.ReplaceAll(good, " 00:00:00", "T00:00:00Z"), want: 400},
		{name: "month 13", method: "POST", path: jobsPath, body: strings.ReplaceAll(good, "2024-03", "2024-13"), want: 400},
		{name: "backwards", method: "POST", path: jobsPath, body: jobBody("", "", "2024-03-02", "2024-03-01"), want: 400},
		{name: "site alphabet", method: "POST", path: jobsPath, body: jobBody("hcso 213", "", "2024-03-01", "2024-03-02"), want: 400},
		{name: "long site", method: "POST", path: jobsPath, body: jobBody(strings.Repeat("a", 37), "", "2024-03-01", "2024-03-02"), want: 400},
		{name: "region alphabet", method: "POST", path: jobsPath, body: jobBody("", "cn.north", "2024-03-01", "2024-03-02"), want: 400},
		{name: "long region", method: "POST", path: jobsPath, body: jobBody("", strings.Repeat("a", 256), "2024-03-01", "2024-03-02"), want: 400},
		{name: "unknown field", method: "POST", path: jobsPath, body: strings.Replace(good, "{", `{"limit":1,`, 1), want: 400},
		{name: "other case", method: "POST", path: jobsPath, body: strings.Replace(good, "hcso_id", "HCSO_ID", 1), want: 400},
		{name: "number for text", method: "POST", path: jobsPath, body: strings.Replace(good, `"hcso-213"`, "213", 1), want: 400},
		{name: "array", method: "POST", path: jobsPath, body: "[" + good + "]", want: 400},
		{name: "null", method: "POST", path: jobsPath, body: "null", want: 400},
		{name: "empty body", method: "POST", path: jobsPath, body: "", want: 400},
		{name: "huge body", method: "POST", path: jobsPath, body: strings.Repeat(" ", 1<<20+1), want: 413},

		{name: "poll", method: "GET", path: jobsPath + "/" + done, want: 200},
		{name: "poll without content type", method: "GET", path: jobsPath + "/" + done, header: "Content-Type", value: unset, want: 200},
		{name: "poll, unknown job", method: "GET", path: jobsPath + "/nobody", want: 404},
		{name: "poll, long job", method: "GET", path: jobsPath + "/" + strings.Repeat("a", 37), want: 400},
		{name: "poll, another tenant", method: "GET", path: "/meter/v1/somebody/query-jobs/" + done, want: 403},
		{name: "poll without token", method: "GET", path: jobsPath + "/" + done, header: "X-Auth-Token", value: unset, want: 401},
		{name: "POST poll", method: "POST", path: jobsPath + "/" + done, body: "{}", want: 405},
		{name: "DELETE job", method: "DELETE", path: jobsPath + "/" + done, want: 405},

		{name: "page", method: "POST", path: sdr, body: `{}`, want: 200},
		{name: "page with null marker", method: "POST", path: sdr, body: `{"marker":null,"limit":null}`, want: 200},
		{name: "page behind marker", method: "POST", path: sdr, body: pageBody(marker, 200), want: 200},
		{name: "GET page, as the document's sample has it", method: "GET", path: sdr, body: pageBody("", 200), want: 405},
		{name: "page without token", method: "POST", path: sdr, body: `{}`, header: "X-Auth-Token", value: unset, want: 401},
		{name: "page without content type", method: "POST", path: sdr, body: `{}`, header: "Content-Type", value: unset, want: 400},
		{name: "page, unknown job", method: "POST", path: jobsPath + "/nobody/sdr", body: `{}`, want: 404},
		{name: "page before success", method: "POST", path: jobsPath + "/" + pending + "/sdr", body: `{}`, want: 400},
		{name: "limit 0", method: "POST", path: sdr, body: pageBody("", 0), want: 400},
		{name: "limit 201", method: "POST", path: sdr, body: pageBody("", 201), want: 400},
		{name: "limit as text", method: "POST", path: sdr, body: `{"limit":"200"}`, want: 400},
		{name: "limit 1.5", method: "POST", path: sdr, body: `{"limit":1.5}`, want: 400},
		{name: "marker of another job", method: "POST", path: sdr, body: pageBody(foreign, 200), want: 400},
		{name: "made-up marker", method: "POST", path: sdr, body: pageBody("abc", 200), want: 400},
		{name: "changed marker", method: "POST", path: sdr, body: pageBody(marker[:10]+"AAA"+marker[13:], 200), want: 400},
		{name: "marker alphabet", method: "POST", path: sdr, body: pageBody("a b", 200), want: 400},
		{name: "long marker", method: "POST", path: sdr, body: pageBody(strings.Repeat("a", 201), 200), want: 400},
		{name: "unknown page field", method: "POST", path: sdr, body: `{"offset":1}`, want: 400},
		{name: "page without body", method: "POST", path: sdr, body: "", want: 400},
	}
	for _, tt := range tests {
		kept := v.header.Clone()
		if tt.value == unset {
			v.header.Del(tt.header)
		} else if tt.header != "" {
			v.header.Set(tt.header, tt.value)
		}
		a := v.do(tt.method, tt.path, tt.body)
		v.header = kept
		if a.status != tt.want {
			t.Errorf("%s: got status %d, want %d; body %s", tt.name, a.status, tt.want, a.body)
			continue
		}
		if a.header.Get("Content-Type") != "application/json;charset=UTF8" {
			t.Errorf("%s: got Content-Type %q", tt.name, a.header.Get("Content-Type"))
		}
		var problem map[string]string
		if a.status >= 400 && (json.Unmarshal(a.body, &problem) != nil || problem["error_msg"] == "" || problem["error_code"] == "" || len(problem) != 2) {
			t.Errorf("%s: got error body %s, want error_msg and error_code", tt.name, a.body)
		}
	}
}

func TestAppcodes(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{APIGAppcode: "gate", HCSOAppcode: "site", HCSODomainID: "tenant"}).logIn()
	steps := []struct {
		header, value string
		want          int
	}{
		{"Accept", "application/json", 401},
		{"X-APIG-Appcode", "wrong", 401},
		{"X-APIG-Appcode", "gate", 403},
		{"x-hcso-appcode", "wrong", 403},
		{"x-hcso-appcode", "site", 403},
		{"x-hcso-domainid", "wrong", 403},
		{"x-hcso-domainid", "tenant", 201},
	}
	for _, step := range steps {
		v.header.Set(step.header, step.value)
		if a := v.do("POST", jobsPath, jobBody("", "", "2024-03-01", "2024-03-02")); a.status != step.want {
			t.Errorf("after %s %q: got status %d, want %d", step.header, step.value, a.status, step.want)
		}
	}
}

func TestPolls(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{PollsUntilDone: 4}).logIn()
	id := v.create("2024-03-01", "2024-03-02")
	for i, want := range []poll{{id, "pending", 0}, {id, "running", 50}, {id, "running", 75}, {id, "success", 100}, {id, "success", 100}} {
		if got := v.poll(id); got != want {
			t.Errorf("poll %d: got %+v, want %+v", i+1, got, want)
		}
	}
}

func TestDefaultLimit(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{PollsUntilDone: 1}).logIn()
	var p page
	v.want(200, "POST", jobsPath+"/"+v.ready("2024-03-01", "2024-03-02")+"/sdr", "{}", &p)
	if len(p.Data) != 100 {
		t.Errorf("got %d records, want the documents' 100", len(p.Data))
	}
}

func TestEndOfJob(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 1, PollsUntilDone: 1}).logIn()
	ends := map[string]int{}
	for _, span := range [][2]string{{"2024-03-01", "2024-03-02"}, {"2024-03-01", "2024-03-01"}} {
		for range 3 {
			body := v.want(200, "POST", jobsPath+"/"+v.ready(span[0], span[1])+"/sdr", `{"limit":200}`, nil).body
			switch text := string(body); {
			case text == `{"data":null,"marker":null}`:
				ends["no data"]++
			case strings.HasSuffix(text, `],"marker":null}`):
				ends["null"]++
			case strings.HasSuffix(text, `],"marker":""}`):
				ends["empty"]++
			case strings.HasSuffix(text, `]}`):
				ends["absent"]++
			default:
				t.Errorf("got page %s, want no marker", text)
			}
		}
	}
	if ends["null"] != 2 || ends["empty"] != 2 || ends["absent"] != 1 || ends["no data"] != 1 {
		t.Errorf("got ends %v, want every form", ends)
	}
}

func TestEmptyAndShortPages(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 10, PollsUntilDone: 1}).logIn()
	big, small := v.ready("2024-03-01", "2024-03-05"), v.ready("2024-03-01", "2024-03-02")
	for _, limit := range []int{1, 2, 7, 100, 200} {
		id, want := small, 312
		if limit >= 100 {
			id, want = big, 4*312
		}
		pages := v.drain(id, limit)
		empty, short, markers := 0, 0, map[string]bool{}
		for i, p := range pages[:len(pages)-1] {
			switch {
			case p.Marker == "" || markers[p.Marker]:
				t.Fatalf("limit %d: page %d has the marker %q, want a new one", limit, i, p.Marker)
			case len(p.Data) == 0 && i > 0:
				empty++
			case len(p.Data) < limit:
				short++
			}
			markers[p.Marker] = true
		}
		wantShort := min(1, limit-1)
		if got := len(join(pages)); empty != 1 || short != wantShort || got != want {
			t.Errorf("limit %d: got %d empty and %d short pages amid %d records, want 1, %d, %d", limit, empty, short, got, wantShort, want)
		}
	}
	if a, b := v.page(big, "", 200), v.page(big, "", 200); a.Marker != b.Marker || string(bytesOf(a.Data)) != string(bytesOf(b.Data)) {
		t.Error("the same page read twice differs")
	}
}

func TestFileDates(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 1, PollsUntilDone: 1, First: date("2024-02-28")}).logIn()
	tests := []struct {
		name, from, to string
		want           int
	}{
		{"end is exclusive", "2024-03-01", "2024-03-02", 24},
		{"one date is no day", "2024-03-01", "2024-03-01", 0},
		{"leap day", "2024-02-28", "2024-03-01", 48},
		{"yesterday", "2024-04-01", "2024-04-02", 24},
		{"today has no file yet", "2024-04-01", "2024-05-01", 24},
		{"before the first file", "2023-01-01", "2024-03-01", 48},
		{"very long", "0001-01-01", "9999-12-31", 24 * 34},
	}
	for _, tt := range tests {
		if got := len(v.records(tt.from, tt.to)); got != tt.want {
			t.Errorf("%s: got %d records, want %d", tt.name, got, tt.want)
		}
	}
	// A file day begins with the last hour of the day before.
	records := v.records("2024-03-01", "2024-03-02")
	for i, want := range map[int]string{0: "20240229230000", 1: "20240301000000", 23: "20240301220000"} {
		var r struct {
			Begin string `json:"begin_time"`
			Stamp string `json:"time_stamp"`
		}
		if err := json.Unmarshal(records[i], &r); err != nil {
			t.Fatal(err)
		}
		if r.Begin[:10] != want[:10] || r.Stamp[:8] != "20240301" {
			t.Errorf("record %d: got begin_time %s, time_stamp %s; want %s.., 20240301..", i, r.Begin, r.Stamp, want[:10])
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	c := sandbox.Config{Resources: 1, PollsUntilDone: 1, Scopes: []sandbox.Scope{{"a", "north"}, {"a", "east"}, {"b", "north"}}}
	v := start(t, c).logIn()
	for _, tt := range []struct {
		site, region string
		want         int
	}{
		{"a", "north", 24},
		{"a", "", 48},
		{"b", "", 24},
		{"b", "east", 0},
		{"", "north", 48},
		{"", "", 72},
		{"elsewhere", "", 0},
	} {
		id := v.createIn(tt.site, tt.region, "2024-03-01", "2024-03-02")
		v.waitFor(id)
		if got := len(join(v.drain(id, 200))); got != tt.want {
			t.Errorf("site %q, region %q: got %d records, want %d", tt.site, tt.region, got, tt.want)
		}
		truth := v.server.Truth(tt.site, tt.region, date("2024-03-01"), date("2024-03-02"))
		if truth.Records != int64(tt.want) {
			t.Errorf("site %q, region %q: got truth of %d records, want %d", tt.site, tt.region, truth.Records, tt.want)
		}
	}
}

func TestGzip(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{PollsUntilDone: 1}).logIn()
	id := v.ready("2024-03-01", "2024-03-02")
	v.client.Transport.(*http.Transport).DisableCompression = true
	path := jobsPath + "/" + id + "/sdr"
	plain := v.want(200, "POST", path, pageBody("", 200), nil)
	v.header.Set("Accept-Encoding", "gzip")
	packed := v.want(200, "POST", path, pageBody("", 200), nil)
	if plain.header.Get("Content-Encoding") != "" || packed.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("got encodings %q and %q, want gzip only where asked", plain.header.Get("Content-Encoding"), packed.header.Get("Content-Encoding"))
	}
	if got := gunzip(t, packed.body); string(got) != string(plain.body) {
		t.Error("the packed page differs from the plain one")
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]sandbox.Config{
		"key style":  {KeyStyle: "kebab"},
		"domain id":  {DomainID: "a b"},
		"site":       {Scopes: []sandbox.Scope{{"", "r"}}},
		"twice":      {Scopes: []sandbox.Scope{{"s", "r"}, {"s", "r"}}},
		"resources":  {Resources: -1},
		"fail rate":  {FailRate: 2},
		"first date": {First: date("2000-01-01")},
		"fault":      {Faults: []sandbox.Fault{{Endpoint: "nowhere", Kind: sandbox.FaultReset}}},
	} {
		if _, err := sandbox.New(c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := sandbox.New(sandbox.DefaultConfig()); err != nil {
		t.Errorf("default: %v", err)
	}
}
