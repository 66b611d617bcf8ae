package iam_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/iam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = `canary-p"ss<w&rd`

// clock is a wall clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2024, 4, 10, 1, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// vendor is an IAM that counts and numbers its tokens.
type vendor struct {
	asked    atomic.Int64
	outage   atomic.Int64     // how many more calls are answered 503
	answer   http.HandlerFunc // instead of a token, if set
	describe func() string    // the body's times
}

func (v *vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := v.asked.Add(1)
	if v.outage.Add(-1) >= 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if v.answer != nil {
		v.answer(w, r)
		return
	}
	w.Header().Set("X-Subject-Token", fmt.Sprintf("token-%d", n))
	w.WriteHeader(http.StatusCreated)
	times := ""
	if v.describe != nil {
		times = v.describe()
	}
	_, _ = fmt.Fprintf(w, `{"token":{"methods":["password"]%s,"catalog":[]}}`, times)
}

func newClient(t *testing.T, v *vendor, now pipeline.Clock, config source.Config) *iam.Client {
	t.Helper()
	server := httptest.NewServer(v)
	t.Cleanup(server.Close)
	config.BackoffInitial, config.BackoffMax = time.Millisecond, 2*time.Millisecond
	if config.RetryFor == 0 {
		config.RetryFor = 100 * time.Millisecond
	}
	transport, err := source.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.Close)
	client, err := iam.New(transport, iam.Config{
		Endpoint: server.URL, User: "bob", Domain: "acme", Project: "cn-north-213", Password: password, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func token(t *testing.T, c *iam.Client) string {
	t.Helper()
	got, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got.Reveal()
}

func TestRequestIsTheDocumentedOne(t *testing.T) {
	t.Parallel()
	want := `{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"bob","password":"canary-p\"ss<w&rd","domain":{"name":"acme"}}}},
		"scope":{"project":{"name":"cn-north-213"}}}}`
	for name, suffix := range map[string]string{
		"bare": "", "slash": "/", "v3": "/v3", "v3 slash": "/v3/", "whole": "/v3/auth/tokens", "whole slash": "/v3/auth/tokens/",
		"behind a path": "/gateway/v3",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got, path, contentType string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got, path, contentType = string(body), r.Method+" "+r.URL.Path, r.Header.Get("Content-Type")
				(&vendor{}).ServeHTTP(w, r)
			}))
			defer server.Close()
			transport, err := source.New(source.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer transport.Close()
			client, err := iam.New(transport, iam.Config{
				Endpoint: server.URL + suffix, User: "bob", Domain: "acme", Project: "cn-north-213", Password: password,
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := token(t, client); got != "token-1" {
				t.Errorf("token is %q", got)
			}
			wantPath := "POST /v3/auth/tokens"
			if name == "behind a path" {
				wantPath = "POST /gateway/v3/auth/tokens"
			}
			if path != wantPath || contentType != "application/json;charset=utf8" {
				t.Errorf("asked %s as %s, want %s", path, contentType, wantPath)
			}
			var gotJSON, wantJSON any
			if json.Unmarshal([]byte(got), &gotJSON) != nil || json.Unmarshal([]byte(want), &wantJSON) != nil || !reflect.DeepEqual(gotJSON, wantJSON) {
				t.Errorf("body is %s\nwant    %s", got, want)
			}
		})
	}
}

func TestDomainToken(t *testing.T) {
	t.Parallel()
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = string(body)
		(&vendor{}).ServeHTTP(w, r)
	}))
	defer server.Close()
	transport, err := source.New(source.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer transport.Close()
	client, err := iam.New(transport, iam.Config{Endpoint: server.URL, User: "bob", Domain: "acme", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	if got := token(t, client); got != "token-1" {
		t.Errorf("token is %q", got)
	}
	if want := `"scope":{"domain":{"name":"acme"}}}}`; !strings.HasSuffix(got, want) {
		t.Errorf("body is %s, want it to end with %s", got, want)
	}
}

func TestMissingSettingsAreNamed(t *testing.T) {
	t.Parallel()
	whole := iam.Config{Endpoint: "https://iam.example.com", User: "u", Domain: "d", Project: "p", Password: "s"}
	for name, spoil := range map[string]func(*iam.Config){
		"iam.endpoint": func(c *iam.Config) { c.Endpoint = "" },
		"iam.user":     func(c *iam.Config) { c.User = "" },
		"iam.domain":   func(c *iam.Config) { c.Domain = "" },
		"iam.password": func(c *iam.Config) { c.Password = "" },
	} {
		config := whole
		spoil(&config)
		if _, err := iam.New(nil, config); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New = %v, want an error that names %s", err, name)
		}
	}
}

func TestTokenLives(t *testing.T) {
	t.Parallel()
	const zone = "2006-01-02T15:04:05.000000Z"
	for name, c := range map[string]struct {
		issued, expires time.Duration // from the test's clock; 0 leaves the field out
		layout          string
		renewed         time.Duration // when a new token is asked for
	}{
		"a day":                     {0, 24 * time.Hour, zone, 24*time.Hour - 30*time.Minute},
		"nothing said":              {0, 0, zone, 24*time.Hour - 30*time.Minute},
		"two hours":                 {0, 2 * time.Hour, time.RFC3339, 90 * time.Minute},
		"no zone":                   {0, 2 * time.Hour, "2006-01-02T15:04:05", 90 * time.Minute},
		"short: half its life":      {0, 40 * time.Minute, zone, 20 * time.Minute},
		"a second":                  {0, time.Second, zone, time.Second / 2},
		"unreadable":                {0, time.Hour, "Jan 2", 24*time.Hour - 30*time.Minute},
		"vendor is two days behind": {-50 * time.Hour, -48 * time.Hour, zone, 90 * time.Minute},
		"ends before it is issued":  {time.Hour, -time.Hour, zone, 24*time.Hour - 30*time.Minute},
		"past, by our clock":        {0, -time.Hour, zone, 24*time.Hour - 30*time.Minute},
		"longer than documented":    {0, 1000 * time.Hour, zone, 24*time.Hour - 30*time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := newClock()
			v := &vendor{describe: func() string {
				text := ""
				if c.issued != 0 {
					text += fmt.Sprintf(`,"issued_at":%q`, now.Now().Add(c.issued).Format(c.layout))
				}
				if c.expires != 0 {
					text += fmt.Sprintf(`,"expires_at":%q`, now.Now().Add(c.expires).Format(c.layout))
				}
				return text
			}}
			client := newClient(t, v, now.Now, source.Config{})
			if got := token(t, client); got != "token-1" {
				t.Fatalf("first token is %s", got)
			}
			now.Advance(c.renewed - time.Millisecond)
			if got := token(t, client); got != "token-1" {
				t.Errorf("just before %s there is %s already", c.renewed, got)
			}
			now.Advance(2 * time.Millisecond)
			if got := token(t, client); got != "token-2" {
				t.Errorf("just after %s there still is %s", c.renewed, got)
			}
		})
	}
}

func TestManyCallersAskOnce(t *testing.T) {
	t.Parallel()
	v := &vendor{}
	client := newClient(t, v, nil, source.Config{})
	old := token(t, client)
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			client.Invalidate(pipeline.Secret(old))
			if got, err := client.Token(t.Context()); err != nil || got.Reveal() != "token-2" {
				t.Errorf("Token = %s, %v, want token-2", got.Reveal(), err)
			}
		})
	}
	callers.Wait()
	client.Invalidate(pipeline.Secret(old)) // a straggler
	if got := token(t, client); got != "token-2" || v.asked.Load() != 2 {
		t.Errorf("IAM was asked %d times, want 2", v.asked.Load())
	}
}

func TestRefusalIsFinal(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var logged bytes.Buffer
			core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&logged), zap.DebugLevel)
			v := &vendor{answer: func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				w.WriteHeader(status)
				_, _ = w.Write(body) // all that it was sent, the password included
			}}
			client := newClient(t, v, nil, source.Config{Log: zap.New(core)})
			var callers sync.WaitGroup
			for range 16 {
				callers.Go(func() {
					_, err := client.Token(t.Context())
					if !errors.Is(err, pipeline.ErrCredentials) {
						t.Errorf("Token = %v, want ErrCredentials", err)
						return
					}
					text := fmt.Sprintf("%v %+v", err, err)
					for _, want := range []string{`"bob"`, `"acme"`, `"cn-north-213"`, "lock the account"} {
						if !strings.Contains(text, want) {
							t.Errorf("error does not say %s: %s", want, text)
						}
					}
					if strings.Contains(text, "canary") {
						t.Errorf("error shows the password: %s", text)
					}
				})
			}
			callers.Wait()
			client.Invalidate("") // the zero token is not a way around
			if _, err := client.Token(t.Context()); !errors.Is(err, pipeline.ErrCredentials) {
				t.Errorf("Token later = %v", err)
			}
			if v.asked.Load() != 1 {
				t.Errorf("IAM was asked %d times, want once", v.asked.Load())
			}
			if strings.Contains(logged.String(), "canary") {
				t.Errorf("the log shows the password: %s", logged.String())
			}
		})
	}
}

func TestOutageIsRetriedAndNotFinal(t *testing.T) {
	t.Parallel()
	v := &vendor{}
	v.outage.Store(2)
	client := newClient(t, v, nil, source.Config{RetryFor: 10 * time.Second})
	if got := token(t, client); got != "token-3" {
		t.Errorf("token is %s, want the one of the first good answer", got)
	}
}

func TestOutageAtRenewalLeavesTheOldToken(t *testing.T) {
	t.Parallel()
	now := newClock()
	v := &vendor{}
	client := newClient(t, v, now.Now, source.Config{})
	token(t, client)
	v.outage.Store(1 << 40)
	now.Advance(24*time.Hour - 29*time.Minute)
	if got := token(t, client); got != "token-1" {
		t.Errorf("token is %s", got)
	}
	asked := v.asked.Load()
	if token(t, client); v.asked.Load() != asked {
		t.Error("IAM was asked again at once")
	}
	now.Advance(29 * time.Minute)
	if got, err := client.Token(t.Context()); err == nil || errors.Is(err, pipeline.ErrCredentials) {
		t.Errorf("Token = %s, %v after the old one's end, want an outage", got.Reveal(), err)
	}
	v.outage.Store(0)
	if got := token(t, client); got == "token-1" {
		t.Error("the ended token came back")
	}
}

func TestAnswerWithoutTokenIsAnError(t *testing.T) {
	t.Parallel()
	v := &vendor{answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Subject-Token", " ")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "{}")
	}}
	if _, err := newClient(t, v, nil, source.Config{}).Token(t.Context()); err == nil || !strings.Contains(err.Error(), "X-Subject-Token") {
		t.Errorf("Token = %v", err)
	}
}

func TestCallersOutliveTheOneWhoAsks(t *testing.T) {
	t.Parallel()
	v := &vendor{}
	asked, release := make(chan struct{}, 8), make(chan struct{})
	v.answer = func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-release:
			w.Header().Set("X-Subject-Token", "token")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "{}")
		case <-r.Context().Done():
		}
	}
	client := newClient(t, v, nil, source.Config{RetryFor: time.Minute})
	stopped := errors.New("stopped")
	leader, stop := context.WithCancelCause(t.Context())
	var callers sync.WaitGroup
	callers.Go(func() {
		if _, err := client.Token(leader); !errors.Is(err, stopped) {
			t.Errorf("Token of the one who was stopped = %v", err)
		}
	})
	<-asked
	callers.Go(func() {
		if got, err := client.Token(t.Context()); err != nil || got.Reveal() != "token" {
			t.Errorf("Token of the other = %s, %v", got.Reveal(), err)
		}
	})
	impatient, leave := context.WithCancelCause(t.Context())
	leave(stopped)
	if _, err := client.Token(impatient); !errors.Is(err, stopped) {
		t.Errorf("Token of the impatient = %v", err)
	}
	stop(stopped)
	<-asked // the other asks itself
	close(release)
	callers.Wait()
}

// TestRefusalIsForBoth: what IAM refused the client of a project, the client of the account does not ask again: the account would lock.
func TestRefusalIsForBoth(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	transport, err := source.New(source.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer transport.Close()
	project, err := iam.New(transport, iam.Config{Endpoint: server.URL, User: "u", Password: "p", Domain: "d", Project: "cn-north-1"})
	if err != nil {
		t.Fatal(err)
	}
	account, err := project.ForAccount()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*iam.Client{project, account, project} {
		if _, err := c.Token(t.Context()); !errors.Is(err, pipeline.ErrCredentials) {
			t.Errorf("Token = %v, want ErrCredentials", err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("IAM was asked %d times, want once", n)
	}
}
