// Package iam gets tokens from Huawei's identity service (ESM API Reference 3.2). It is no general client of that service.
package iam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
)

// Config says who asks. All fields but Project and Now are required.
type Config struct {
	Endpoint string // with or without /v3 or /v3/auth/tokens behind it
	User     string // of an IAM user; a HUAWEI ID gets no token
	Domain   string // the account that the user belongs to
	Project  string // the project that tokens are for, as ESM and BMS want them; empty for the whole domain, as BSS does
	Password pipeline.Secret
	Now      pipeline.Clock // default time.Now
}

// Validate says which setting is missing.
func (c Config) Validate() error {
	for _, s := range []struct{ name, value string }{
		{"user", c.User},
		{"domain", c.Domain},
		{"password", c.Password.Reveal()},
	} {
		if s.value == "" {
			return fmt.Errorf("iam.%s is empty", s.name)
		}
	}
	return nil
}

// Client hands out one token to all who ask, and renews it ahead of its end. It is a source.TokenSource, safe for use from several
// goroutines.
type Client struct {
	transport *source.Transport
	config    Config
	url       string
	body      []byte

	mu      sync.Mutex
	current grant
	flight  *flight // the request under way, if any

	refusal *refusal // of all clients of one user
}

// refusal is that the user's credentials were refused. It is for good: every further try brings the account nearer to being locked.
type refusal struct {
	mu  sync.Mutex
	err error
}

func (r *refusal) get() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *refusal) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// grant is a token and its times by our own clock. The zero grant has ended.
type grant struct {
	token pipeline.Secret
	renew time.Time // when to ask for the next one
	ends  time.Time
}

// flight is one request for a token, shared by all who wait for it.
type flight struct {
	done      chan struct{}
	err       error
	abandoned bool // its own caller went away: the others must ask themselves
}

// New returns a Client. It asks for nothing yet.
func New(transport *source.Transport, config Config) (*Client, error) {
	endpoint, err := source.ParseEndpoint("iam.endpoint", config.Endpoint)
	if err != nil {
		return nil, err
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	body, err := json.Marshal(newTokenRequest(config))
	if err != nil {
		return nil, fmt.Errorf("write token request: %w", err)
	}
	base := strings.TrimSuffix(strings.TrimSuffix(endpoint.String(), "/auth/tokens"), "/v3")
	return &Client{transport: transport, config: config, url: base + "/v3/auth/tokens", body: body, refusal: &refusal{}}, nil
}

// ForAccount returns a client whose tokens are for the user's whole account rather than for a project, as global services want them. What
// IAM refuses the one, the other asks no more.
func (c *Client) ForAccount() (*Client, error) {
	config := c.config
	config.Project = ""
	account, err := New(c.transport, config)
	if err != nil {
		return nil, err
	}
	account.refusal = c.refusal
	return account, nil
}

// Token returns a token that is good for now. One caller asks for it while the others wait, or take the old one while it holds.
// Errors: pipeline.ErrCredentials, which stays for the life of the Client, or what kept the answer away.
func (c *Client) Token(ctx context.Context) (pipeline.Secret, error) {
	for {
		c.mu.Lock()
		now, current, shared := c.config.Now(), c.current, c.flight
		if refused := c.refusal.get(); refused != nil {
			c.mu.Unlock()
			return "", refused
		}
		if now.Before(current.renew) || (shared != nil && now.Before(current.ends)) {
			c.mu.Unlock()
			return current.token, nil
		}
		if shared == nil {
			own := &flight{done: make(chan struct{})}
			c.flight = own
			c.mu.Unlock()
			return c.lead(ctx, own)
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for an IAM token: %w", context.Cause(ctx))
		case <-shared.done:
		}
		if shared.err != nil && !shared.abandoned {
			return "", shared.err
		}
	}
}

// How long to live with the old token after its renewal failed.
const renewAgain = time.Minute

// lead asks for a token on behalf of all who wait for f.
func (c *Client) lead(ctx context.Context, f *flight) (pipeline.Secret, error) {
	var next grant
	err := pipeline.Guard(func() (err error) { // a panic must not leave the others waiting
		next, err = c.ask(ctx)
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	c.flight = nil
	if err == nil {
		c.current = next
		return next.token, nil
	}
	if errors.Is(err, pipeline.ErrCredentials) {
		c.refusal.set(err)
	} else if now := c.config.Now(); now.Before(c.current.ends) {
		c.current.renew = now.Add(renewAgain)
		return c.current.token, nil
	}
	f.err, f.abandoned = err, ctx.Err() != nil
	return "", err
}

// Invalidate forgets token if it is the one that is handed out. Many callers that are refused the same token thus cause one request.
func (c *Client) Invalidate(token pipeline.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.token == token {
		c.current = grant{}
	}
}

// ask gets a token from IAM.
func (c *Client) ask(ctx context.Context) (grant, error) {
	// Before the request, so that time on the way counts as the token's.
	asked := c.config.Now()
	failpoint.Hit(failpoint.TokenAsk)
	answer, err := c.transport.Do(ctx, source.Request{
		API:    "get IAM token",
		Method: http.MethodPost,
		URL:    c.url,
		Path:   "/v3/auth/tokens",
		Header: http.Header{
			"Content-Type": {"application/json;charset=utf8"},
			"Accept":       {"application/json"},
		},
		Body:    c.body,
		Accept:  []int{http.StatusCreated},
		JSON:    true,
		Conceal: []string{c.config.Password.Reveal()},
	})
	if errors.Is(err, pipeline.ErrCredentials) {
		return grant{}, c.wrap(fmt.Errorf("not asked again, since repeated tries lock the account: %w", err))
	}
	if err != nil {
		return grant{}, c.wrap(err)
	}
	defer answer.Release()
	failpoint.Hit(failpoint.TokenGot)
	token := answer.Header.Get("X-Subject-Token")
	if strings.TrimSpace(token) == "" {
		return grant{}, c.wrap(errors.New("POST /v3/auth/tokens: answer has no X-Subject-Token"))
	}
	lifetime := lifetime(answer.Body, asked)
	// Half of a short life, so that a token is used at all.
	ahead := min(renewAhead, lifetime/2)
	return grant{token: pipeline.Secret(token), renew: asked.Add(lifetime - ahead), ends: asked.Add(lifetime)}, nil
}

func (c *Client) wrap(err error) error {
	if c.config.Project == "" {
		return fmt.Errorf("get IAM token for user %q of domain %q: %w", c.config.User, c.config.Domain, err)
	}
	return fmt.Errorf("get IAM token for user %q of domain %q, project %q: %w", c.config.User, c.config.Domain, c.config.Project, err)
}

const (
	renewAhead      = 30 * time.Minute
	defaultLifetime = 24 * time.Hour // ESM API Reference 3.2
)

// lifetime returns how long the token described by body lives. It prefers the vendor's own two times to our clock, which may be
// off. Where they make no sense it is the documented 24 hours: a token that ends earlier is refused with 401 and replaced then.
func lifetime(body []byte, now time.Time) time.Duration {
	var answer struct {
		Token struct {
			IssuedAt  any `json:"issued_at"`
			ExpiresAt any `json:"expires_at"`
		} `json:"token"`
	}
	// A body of another shape leaves the fields empty.
	_ = json.Unmarshal(body, &answer)
	expires, ok := parseTime(answer.Token.ExpiresAt)
	if !ok {
		return defaultLifetime
	}
	if issued, ok := parseTime(answer.Token.IssuedAt); ok {
		now = issued
	}
	if left := expires.Sub(now); left > 0 {
		return min(left, defaultLifetime)
	}
	return defaultLifetime
}

// parseTime reads "2019-02-13T06:52:13.855000Z" and its relatives. Without a zone it is UTC.
func parseTime(v any) (time.Time, bool) {
	text, ok := v.(string)
	if !ok {
		return time.Time{}, false
	}
	text = strings.TrimSpace(text)
	for _, layout := range []string{
		time.RFC3339, // fractions of a second are read too
		"2006-01-02T15:04:05Z0700",
		"2006-01-02T15:04:05",
		"2006-01-02 15:04:05Z07:00",
		"2006-01-02 15:04:05",
	} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

type name struct {
	Name string `json:"name"`
}

// tokenRequest is the body of ESM API Reference 3.2: a password login, for one project. For a domain the scope names that instead
// (IAM API Reference, Obtaining a User Token Through Password Authentication).
type tokenRequest struct {
	Auth struct {
		Identity struct {
			Methods  []string `json:"methods"`
			Password struct {
				User struct {
					Name     string `json:"name"`
					Password string `json:"password"`
					Domain   name   `json:"domain"`
				} `json:"user"`
			} `json:"password"`
		} `json:"identity"`
		Scope struct {
			Project *name `json:"project,omitempty"`
			Domain  *name `json:"domain,omitempty"`
		} `json:"scope"`
	} `json:"auth"`
}

func newTokenRequest(c Config) tokenRequest {
	var r tokenRequest
	r.Auth.Identity.Methods = []string{"password"}
	user := &r.Auth.Identity.Password.User
	user.Name, user.Password, user.Domain.Name = c.User, c.Password.Reveal(), c.Domain
	if c.Project == "" {
		r.Auth.Scope.Domain = &name{c.Domain}
	} else {
		r.Auth.Scope.Project = &name{c.Project}
	}
	return r
}
