// Package aksk signs requests with an access key and its secret: SDK-HMAC-SHA256, as the API Request Signing Guide has it. It is for
// global services such as BSS, which want the account's id beside the signature.
package aksk

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
)

// Config says whose requests are signed. Every field is required.
type Config struct {
	Endpoint  string // whose clock the signatures go by
	AccessKey pipeline.Secret
	SecretKey pipeline.Secret
	DomainID  string // the account, sent and signed as X-Domain-Id
}

// Validate says which setting can't be used.
func (c Config) Validate() error {
	for _, s := range []struct{ name, value string }{
		{"access_key", c.AccessKey.Reveal()},
		{"secret_key", c.SecretKey.Reveal()},
		{"domain_id", c.DomainID},
	} {
		if s.value == "" {
			return fmt.Errorf("bss.%s is empty", s.name)
		}
		if strings.ContainsFunc(s.value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("bss.%s holds a space, a line break or another character that no key has", s.name)
		}
	}
	return nil
}

// New returns what signs requests with the key, each attempt over the very bytes that it sends and by the server's own clock. A rejected
// signature is final: from then on nothing is signed any more (pipeline.ErrCredentials), since five in a row lock the key. Until
// the key has proved good, one signed request at a time is under way. Make one for a key and share it.
func New(transport *source.Transport, config Config) (source.Auth, error) {
	endpoint, err := source.ParseEndpoint("bss.endpoint", config.Endpoint)
	if err != nil {
		return source.Auth{}, err
	}
	if err := config.Validate(); err != nil {
		return source.Auth{}, err
	}
	s := &signer{transport: transport, endpoint: endpoint, config: config, trial: make(chan struct{}, 1)}
	return source.Auth{Sign: s.sign, Settled: s.settled}, nil
}

type signer struct {
	transport *source.Transport
	endpoint  *url.URL
	config    Config
	trial     chan struct{} // holds the right to be under way while the key is unproved

	mu       sync.Mutex
	proved   bool          // a signature was accepted
	trying   *http.Request // the one that holds trial
	rejected error         // set once, for good
}

// sign authorises one attempt.
func (s *signer) sign(r *http.Request) error {
	if err := s.begin(r); err != nil {
		return err
	}
	err := s.authorise(r)
	if err != nil {
		s.settled(r, err)
	}
	return err
}

// begin waits until r may be under way.
func (s *signer) begin(r *http.Request) error {
	if proved, err := s.state(); proved || err != nil {
		return err
	}
	select {
	case <-r.Context().Done():
		return context.Cause(r.Context())
	case s.trial <- struct{}{}:
	}
	proved, err := s.state()
	if proved || err != nil {
		<-s.trial
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trying = r
	return nil
}

func (s *signer) state() (proved bool, rejected error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proved, s.rejected
}

// settled learns from the end of an attempt whether the key is good.
func (s *signer) settled(r *http.Request, end error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var refusal *source.StatusError
	switch {
	case end == nil:
		s.proved = true
	case errors.As(end, &refusal) && rejects(refusal) && s.rejected == nil:
		s.rejected = fmt.Errorf("sign request: not tried again with this access key, since five rejected signatures lock it: %w", end)
	}
	if s.trying == r {
		s.trying = nil
		<-s.trial
	}
}

// rejects tells whether the refusal is of the signature, not of what it is asked for. The gateway's codes come with either status.
func rejects(e *source.StatusError) bool {
	switch e.Status {
	case http.StatusUnauthorized:
		return true
	case http.StatusForbidden:
		return slices.Contains([]string{"APIG.0301", "APIG.0303", "APIG.0305", "APIG.0307"}, e.Code)
	}
	return false
}

const (
	algorithm    = "SDK-HMAC-SHA256"
	dateHeader   = "X-Sdk-Date"
	domainHeader = "X-Domain-Id"
	dateLayout   = "20060102T150405Z"
)

// authorise sets the headers of the signature.
func (s *signer) authorise(r *http.Request) error {
	body, err := bodyOf(r)
	if err != nil {
		return fmt.Errorf("sign request: %w", err)
	}
	at := s.transport.HostTime(r.Context(), s.endpoint)
	r.Header.Set(domainHeader, s.config.DomainID)
	r.Header.Set(dateHeader, at.UTC().Format(dateLayout))
	// Only what is ours is signed: proxies may change the other headers.
	signed := []string{"x-domain-id", "x-sdk-date"}
	canonical, err := canonicalRequest(r, body, signed)
	if err != nil {
		return fmt.Errorf("sign request: %w", err)
	}
	r.Header.Set("Authorization", fmt.Sprintf("%s Access=%s, SignedHeaders=%s, Signature=%s",
		algorithm, s.config.AccessKey.Reveal(), strings.Join(signed, ";"), signature(canonical, s.config.SecretKey, at)))
	return nil
}

func bodyOf(r *http.Request) ([]byte, error) {
	if r.GetBody == nil {
		return nil, nil
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, fmt.Errorf("read its body: %w", err)
	}
	defer func() { _ = body.Close() }() // it is memory
	return io.ReadAll(body)
}

// canonicalRequest is the text that a signature vouches for. signed are header names, lower-case and sorted.
func canonicalRequest(r *http.Request, body []byte, signed []string) (string, error) {
	path, err := canonicalPath(r.URL)
	if err != nil {
		return "", err
	}
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return "", err
	}
	var headers strings.Builder
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host
		}
		headers.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	return strings.Join([]string{r.Method, path, query, headers.String(), strings.Join(signed, ";"), hexSHA256(body)}, "\n"), nil
}

// canonicalPath escapes each segment, and ends with a slash whether or not the path does.
func canonicalPath(u *url.URL) (string, error) {
	segments := strings.Split(u.EscapedPath(), "/")
	for i, segment := range segments {
		plain, err := url.PathUnescape(segment)
		if err != nil {
			return "", err
		}
		segments[i] = escape(plain)
	}
	path := strings.Join(segments, "/")
	if !strings.HasSuffix(path, "/") {
		path += "/"
	}
	return path, nil
}

// canonicalQuery sorts parameters by name, then value.
func canonicalQuery(raw string) (string, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return "", err
	}
	type pair struct{ name, value string }
	var pairs []pair
	for name, values := range query {
		for _, value := range values {
			pairs = append(pairs, pair{name, value})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	texts := make([]string, len(pairs))
	for i, p := range pairs {
		texts[i] = escape(p.name) + "=" + escape(p.value)
	}
	return strings.Join(texts, "&"), nil
}

// escape leaves only RFC 3986's unreserved characters as they are. url.QueryEscape does the same but for the space.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// signature is the keyed hash of a canonical request at a time. Unlike AWS's there is no key derived from the secret.
func signature(canonical string, secret pipeline.Secret, at time.Time) string {
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write([]byte(algorithm + "\n" + at.UTC().Format(dateLayout) + "\n" + hexSHA256([]byte(canonical))))
	return hex.EncodeToString(mac.Sum(nil))
}

func hexSHA256(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
