package aksk_test

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/aksk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPublishedVectors pins the signature to the examples of the API Request Signing Guide and of the vendor's Go SDK.
func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	const post = `{"Name":"test","Id":1}`
	for name, c := range map[string]struct {
		method, url, body string
		header            http.Header
		signed            []string
		key               pipeline.Secret
		at                time.Time
		hash, want        string
	}{
		"signing guide": {
			method: "GET", url: "https://service.region.example.com/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs?limit=2&marker=13551d6b-755d-4757-b956-536f674975c0",
			header: http.Header{"Content-Type": {"application/json"}, "X-Sdk-Date": {"20191115T033655Z"}},
			signed: []string{"content-type", "host", "x-sdk-date"},
			key:    "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc", at: time.Date(2019, 11, 15, 3, 36, 55, 0, time.UTC),
			hash: "b25362e603ee30f4f25e7858e8a7160fd36e803bb2dfe206278659d71a9bcd7a",
			want: "7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe",
		},
		"SDK, GET": {
			method: "GET", url: "https://example.com/path?limit=1",
			header: http.Header{"X-Sdk-Date": {"20060102T150405Z"}}, signed: []string{"x-sdk-date"},
			key: "SecretKey", at: time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC),
			want: "5a2ce64c865e0e6046321c6f3d5a77ba8413eeaf355c3166c03d58d02ac79624",
		},
		"SDK, POST with the line break that its encoder sends": {
			method: "POST", url: "https://example.com/path?key=value", body: post + "\n",
			header: http.Header{"X-Sdk-Date": {"20060102T150405Z"}}, signed: []string{"x-sdk-date"},
			key: "SecretKey", at: time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC),
			want: "cecc2af119b18ab70b4d094c0750f3b42c02f254903179a0fc2cc72fc9db4f59",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequest(c.method, c.url, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = c.header
			canonical, err := aksk.CanonicalRequest(r, []byte(c.body), c.signed)
			if err != nil {
				t.Fatal(err)
			}
			if got := aksk.HexSHA256([]byte(canonical)); c.hash != "" && got != c.hash {
				t.Errorf("hash of the canonical request is %s, want %s:\n%s", got, c.hash, canonical)
			}
			if got := aksk.Signature(canonical, c.key, c.at); got != c.want {
				t.Errorf("signature is %s, want %s:\n%s", got, c.want, canonical)
			}
			if c.body == "" {
				return
			}
			other, err := aksk.CanonicalRequest(r, []byte(post), c.signed)
			if err != nil {
				t.Fatal(err)
			}
			if got := aksk.Signature(other, c.key, c.at); got == c.want {
				t.Error("the line break behind the body makes no difference")
			}
		})
	}
}

func TestCanonicalQuery(t *testing.T) {
	t.Parallel()
	q := url.Values{"test": {"一 (&=?!#%.*)"}, "path": {"/tmp/123"}, "limit": {"1"}, "enable": {"true"}, "multi": {"3", "1", "2"}}
	const want = "enable=true&limit=1&multi=1&multi=2&multi=3&path=%2Ftmp%2F123&test=%E4%B8%80%20%28%26%3D%3F%21%23%25.%2A%29"
	for name, raw := range map[string]string{"spaces as plus": q.Encode(), "spaces as %20": strings.ReplaceAll(q.Encode(), "+", "%20")} {
		if got, err := aksk.CanonicalQuery(raw); err != nil || got != want {
			t.Errorf("%s: %s, %v\nwant %s", name, got, err, want)
		}
	}
	for raw, want := range map[string]string{"": "", "a=": "a=", "a": "a=", "b=~-_.&a=1": "a=1&b=~-_."} {
		if got, err := aksk.CanonicalQuery(raw); err != nil || got != want {
			t.Errorf("query %q is %q, %v; want %q", raw, got, err, want)
		}
	}
}

const (
	accessKey = "CANARYACCESSKEY00001"
	secretKey = "canary-secret-key"
)

// vendor verifies signatures by its own clock, which is ahead of ours.
type vendor struct {
	ahead    time.Duration
	unsigned atomic.Int64
	signed   atomic.Int64
	answer   http.HandlerFunc // of a good signature
}

func (v *vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now().Add(v.ahead)
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	if r.Header.Get("Authorization") == "" {
		v.unsigned.Add(1)
		w.WriteHeader(http.StatusNotFound)
		return
	}
	v.signed.Add(1)
	if err := v.verify(r, now); err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintf(w, `{"error_code":"APIG.0301","error_msg":"Incorrect IAM authentication information: %s %s"}`, err, r.Header.Get("Authorization"))
		return
	}
	v.answer(w, r)
}

func (v *vendor) verify(r *http.Request, now time.Time) error {
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Sdk-Date"))
	if err != nil || at.Sub(now).Abs() > 15*time.Minute {
		return fmt.Errorf("signed at %s, now is %s", at, now)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	canonical, err := aksk.CanonicalRequest(r, body, []string{"x-domain-id", "x-sdk-date"})
	if err != nil {
		return err
	}
	want := fmt.Sprintf("SDK-HMAC-SHA256 Access=%s, SignedHeaders=x-domain-id;x-sdk-date, Signature=%s", accessKey, aksk.Signature(canonical, secretKey, at))
	if r.Header.Get("X-Domain-Id") != "d-1" || !hmac.Equal([]byte(r.Header.Get("Authorization")), []byte(want)) {
		return errors.New("verify aksk signature fail")
	}
	return nil
}

func answer(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// call returns a function that sends one request signed with secret.
func call(t *testing.T, v *vendor, secret pipeline.Secret) func() error {
	t.Helper()
	server := httptest.NewServer(v)
	t.Cleanup(server.Close)
	transport, err := source.New(source.Config{BackoffInitial: time.Millisecond, BackoffMax: 2 * time.Millisecond, RetryFor: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.Close)
	auth, err := aksk.New(transport, aksk.Config{Endpoint: server.URL, AccessKey: accessKey, SecretKey: secret, DomainID: "d-1"})
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		answer, err := transport.Do(t.Context(), source.Request{
			API: "query resources", Method: http.MethodPost, URL: server.URL + "/v2/a%20b/query?x=1&b=%E4%B8%80%20c", Path: "query",
			Body: []byte(`{"limit":500}`), Auth: auth, JSON: true,
		})
		answer.Release()
		return err
	}
}

func TestSignsByTheServersClock(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{0, 3 * time.Hour, -3 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			v := &vendor{ahead: ahead, answer: answer(200, "{}")}
			do := call(t, v, secretKey)
			for range 3 {
				if err := do(); err != nil {
					t.Fatal(err)
				}
			}
			if v.unsigned.Load() != 1 || v.signed.Load() != 3 {
				t.Errorf("%d unsigned and %d signed requests, want 1 and 3", v.unsigned.Load(), v.signed.Load())
			}
		})
	}
}

func TestSignsEachAttemptAnew(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	v := &vendor{answer: func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) < 3 {
			answer(503, "{}")(w, r)
			return
		}
		answer(200, "{}")(w, r)
	}}
	if err := call(t, v, secretKey)(); err != nil || v.signed.Load() != 3 {
		t.Errorf("Do = %v after %d signed requests", err, v.signed.Load())
	}
}

func TestRejectedSignatureIsFinal(t *testing.T) {
	t.Parallel()
	forbidden := func(code string) http.HandlerFunc {
		return answer(403, `{"error_code":"`+code+`","error_msg":"no"}`)
	}
	for name, c := range map[string]struct {
		secret pipeline.Secret
		answer http.HandlerFunc
		signed int64 // of twenty calls at once and one more
	}{
		"wrong secret":        {"canary-other", answer(200, "{}"), 1},
		"gateway's 403":       {secretKey, forbidden("APIG.0303"), 1},
		"forbidden, well met": {secretKey, forbidden("CBC.0151"), 21},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &vendor{answer: c.answer}
			do := call(t, v, c.secret)
			var calls sync.WaitGroup
			for range 20 {
				calls.Go(func() {
					if err := do(); !errors.Is(err, pipeline.ErrCredentials) {
						t.Errorf("Do = %v, want ErrCredentials", err)
					}
				})
			}
			calls.Wait()
			err := do()
			if !errors.Is(err, pipeline.ErrCredentials) || v.signed.Load() != c.signed {
				t.Fatalf("Do = %v after %d signed requests, want %d", err, v.signed.Load(), c.signed)
			}
			if c.signed == 1 && !strings.Contains(err.Error(), "five rejected signatures lock it") {
				t.Errorf("Do = %v does not say why it did not try", err)
			}
			if strings.Contains(strings.ToLower(err.Error()), "canary") || strings.Contains(err.Error(), "Signature=") && !strings.Contains(err.Error(), "[secret]") {
				t.Errorf("a secret came out: %v", err)
			}
		})
	}
}

func TestMissingSettingsAreNamed(t *testing.T) {
	t.Parallel()
	whole := aksk.Config{Endpoint: "https://bss.example.com", AccessKey: "a", SecretKey: "s", DomainID: "d"}
	for name, spoil := range map[string]func(*aksk.Config){
		"bss.endpoint":   func(c *aksk.Config) { c.Endpoint = "" },
		"bss.access_key": func(c *aksk.Config) { c.AccessKey = "a\nb" },
		"bss.secret_key": func(c *aksk.Config) { c.SecretKey = "" },
		"bss.domain_id":  func(c *aksk.Config) { c.DomainID = "" },
	} {
		config := whole
		spoil(&config)
		if _, err := aksk.New(nil, config); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New = %v, want an error that names %s", err, name)
		}
	}
}
