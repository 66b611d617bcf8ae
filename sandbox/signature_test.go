package sandbox_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// The vectors of the API Request Signing Guide and of the vendor's Go SDK, v0.1.207.
func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, method, url, body string
		header                  http.Header
		headers                 []string
		secret                  string
		hash, want              string
	}{
		{
			name: "signing guide", method: "GET",
			url:    "https://service.region.example.com/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs?limit=2&marker=13551d6b-755d-4757-b956-536f674975c0",
			header: http.Header{"X-Sdk-Date": {"20191115T033655Z"}, "Content-Type": {"application/json"}}, headers: []string{"content-type", "host", "x-sdk-date"},
			secret: "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc",
			hash:   "b25362e603ee30f4f25e7858e8a7160fd36e803bb2dfe206278659d71a9bcd7a",
			want:   "7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe",
		},
		{
			name: "sdk, GET", method: "GET", url: "https://x.example.com/path?limit=1", header: http.Header{"X-Sdk-Date": {"20060102T150405Z"}},
			headers: []string{"x-sdk-date"}, secret: "SecretKey", want: "5a2ce64c865e0e6046321c6f3d5a77ba8413eeaf355c3166c03d58d02ac79624",
		},
		{
			name: "sdk, POST", method: "POST", url: "https://x.example.com/path?key=value", body: `{"Name":"test","Id":1}` + "\n",
			header:  http.Header{"X-Sdk-Date": {"20060102T150405Z"}},
			headers: []string{"x-sdk-date"}, secret: "SecretKey", want: "cecc2af119b18ab70b4d094c0750f3b42c02f254903179a0fc2cc72fc9db4f59",
		},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(tt.method, tt.url, nil)
		r.Header = tt.header
		got, err := sandbox.Signature(tt.secret, r, []byte(tt.body), tt.headers)
		if err != nil || got != tt.want {
			t.Errorf("%s: got signature %s, %v; want %s", tt.name, got, err, tt.want)
		}
		if hash, err := sandbox.CanonicalHash(r, []byte(tt.body), tt.headers); tt.hash != "" && hash != tt.hash {
			t.Errorf("%s: got hash %s, %v; want %s", tt.name, hash, err, tt.hash)
		}
	}
	const query = "enable=true&limit=1&multi=1&multi=2&multi=3&path=%2Ftmp%2F123&test=%E4%B8%80%20%28%26%3D%3F%21%23%25.%2A%29"
	got, err := sandbox.CanonicalQuery("test=%E4%B8%80+(%26%3D%3F!%23%25.*)&multi=3&multi=1&multi=2&path=/tmp/123&limit=1&enable=true")
	if err != nil || got != query {
		t.Errorf("got query %s, %v; want %s", got, err, query)
	}
}

// signer signs as a client does, with knobs for what may go wrong.
type signer struct {
	access, secret string
	domain         string
	headers        []string
	now            func() time.Time
	spoil          func(*http.Request) // after signing
}

func goodSigner() *signer {
	return &signer{sandbox.DefaultAccessKey, sandbox.DefaultSecretKey, sandbox.DefaultDomainID, []string{"host", "x-domain-id", "x-sdk-date"}, time.Now, nil}
}

func (s *signer) sign(r *http.Request, body string) {
	if s.domain != "" {
		r.Header.Set("X-Domain-Id", s.domain)
	}
	r.Header.Set("X-Sdk-Date", s.now().UTC().Format("20060102T150405Z"))
	r.Host = r.URL.Host
	signature, err := sandbox.Signature(s.secret, r, []byte(body), s.headers)
	if err != nil {
		signature = "none: " + err.Error()
	}
	r.Header.Set("Authorization", "SDK-HMAC-SHA256 Access="+s.access+", SignedHeaders="+strings.Join(s.headers, ";")+", Signature="+signature)
	if s.spoil != nil {
		s.spoil(r)
	}
}

func TestSignedCalls(t *testing.T) {
	t.Parallel()
	shifted := func(by time.Duration) func(*signer) {
		return func(s *signer) { s.now = func() time.Time { return time.Now().Add(by) } }
	}
	spoiled := func(spoil func(*http.Request)) func(*signer) { return func(s *signer) { s.spoil = spoil } }
	tests := []struct {
		name   string
		change func(*signer)
		want   int
	}{
		{"good", func(*signer) {}, 200},
		{"date alone signed", func(s *signer) { s.headers = []string{"x-sdk-date"} }, 200},
		{"content type signed", func(s *signer) { s.headers = []string{"content-type", "x-sdk-date"} }, 200},
		{"fourteen minutes late", shifted(-14 * time.Minute), 200},
		{"fourteen minutes early", shifted(14 * time.Minute), 200},
		{"sixteen minutes late", shifted(-16 * time.Minute), 401},
		{"sixteen minutes early", shifted(16 * time.Minute), 401},
		{"wrong secret", func(s *signer) { s.secret = "x" }, 401},
		{"wrong key", func(s *signer) { s.access = "x" }, 401},
		{"date not signed", func(s *signer) { s.headers = []string{"host"} }, 401},
		{"unsorted headers", func(s *signer) { s.headers = []string{"x-sdk-date", "host"} }, 401},
		{"upper case headers", func(s *signer) { s.headers = []string{"X-Sdk-Date"} }, 401},
		{"missing header", func(s *signer) { s.headers = []string{"x-other", "x-sdk-date"} }, 401},
		{"no domain", func(s *signer) { s.domain, s.headers = "", []string{"x-sdk-date"} }, 401},
		{"another domain", func(s *signer) { s.domain = "somebody" }, 403},
		{"query changed", spoiled(func(r *http.Request) { r.URL.RawQuery = "page_size=12" }), 401},
		{"header changed", spoiled(func(r *http.Request) { r.Header.Set("X-Domain-Id", "somebody") }), 401},
		{"no date", spoiled(func(r *http.Request) { r.Header.Del("X-Sdk-Date") }), 401},
		{"date of another form", spoiled(func(r *http.Request) { r.Header.Set("X-Sdk-Date", time.Now().Format(time.RFC3339)) }), 401},
		{"half a header", spoiled(func(r *http.Request) { r.Header.Set("Authorization", "SDK-HMAC-SHA256 Access=x") }), 401},
		{"wrong body hash", spoiled(func(r *http.Request) { r.Header.Set("X-Sdk-Content-Sha256", "00") }), 401},
		{"a token beside it does not help", func(s *signer) {
			s.secret, s.spoil = "x", func(r *http.Request) { r.Header.Set("X-Auth-Token", "MIIP") }
		}, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := start(t, sandbox.Config{})
			s := goodSigner()
			tt.change(s)
			v.sign = s.sign
			a := v.want(tt.want, "GET", resourcesPath+"?page_size=11&page_no=2", "", nil)
			if tt.want == 401 && !strings.Contains(string(a.body), `"error_code":"APIG.0301"`) {
				t.Errorf("got %s, want APIG.0301", a.body)
			}
			if strings.Contains(string(a.body), sandbox.DefaultSecretKey) {
				t.Errorf("got %s, with the secret in it", a.body)
			}
		})
	}
}

func TestSignedBody(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{})
	v.sign = goodSigner().sign
	v.want(200, "POST", resourcesV2Path, `{"limit":5}`+"\n", nil)
	v.sign = func(r *http.Request, body string) { goodSigner().sign(r, strings.TrimSpace(body)) }
	v.want(401, "POST", resourcesV2Path, `{"limit":5}`+"\n", nil)
	v.sign = func(r *http.Request, _ string) {
		r.Header.Set("X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD")
		goodSigner().sign(r, "")
	}
	v.want(200, "POST", resourcesV2Path, `{"limit":5}`, nil)
	v.want(200, "GET", resourcesPath, "", nil)

	// BMS belongs to a project; the domain is not asked for.
	s := goodSigner()
	s.domain, s.headers = "", []string{"host", "x-sdk-date"}
	v.sign = s.sign
	v.want(404, "GET", bmsPath+"/jobs/unknown", "", nil)
	v.want(403, "GET", "/v1/another/jobs/unknown", "", nil)
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	const skew = 3 * time.Hour
	v := start(t, sandbox.Config{ClockSkew: skew})
	a := v.want(404, "GET", "/", "", nil)
	at, err := http.ParseTime(a.header.Get("Date"))
	if off := at.Sub(time.Now().Add(skew)).Abs(); err != nil || off > 5*time.Second {
		t.Errorf("got date %q, %v; want three hours ahead", a.header.Get("Date"), err)
	}
	s := goodSigner()
	v.sign = s.sign
	v.want(401, "GET", resourcesPath, "", nil)
	s.now = func() time.Time { return time.Now().Add(skew) }
	v.want(200, "GET", resourcesPath, "", nil)
	v.sign = nil
	v.logInToDomain().want(200, "GET", resourcesPath, "", nil)
}

// A locked key stays locked for five minutes, however well its calls are signed.
func TestLockedKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, err := sandbox.New(sandbox.Config{Today: func() time.Time { return today }})
		if err != nil {
			t.Fatal(err)
		}
		call := func(secret string) (status int, body string) {
			s := goodSigner()
			s.secret = secret
			r := httptest.NewRequest("GET", "http://bss.example.com"+resourcesPath, nil)
			r.URL.Host = r.Host
			s.sign(r, "")
			w := httptest.NewRecorder()
			server.Handler().ServeHTTP(w, r)
			return w.Code, w.Body.String()
		}
		want := func(step, secret string, status int, text string) {
			t.Helper()
			if got, body := call(secret); got != status || !strings.Contains(body, text) {
				t.Errorf("%s: got %d %s, want %d and %q", step, got, body, status, text)
			}
		}
		for range 4 {
			want("four failures", "wrong", 401, "verify aksk signature fail")
		}
		want("then a good call", sandbox.DefaultSecretKey, 200, "CBC.0000")
		for range 5 {
			want("five failures", "wrong", 401, "verify aksk signature fail")
		}
		const locked = "AK access failed to reach the limit,forbidden"
		want("locked", sandbox.DefaultSecretKey, 401, locked)
		time.Sleep(5*time.Minute - time.Second)
		want("still locked", sandbox.DefaultSecretKey, 401, locked)
		time.Sleep(time.Second)
		want("free again", sandbox.DefaultSecretKey, 200, "CBC.0000")
	})
}
