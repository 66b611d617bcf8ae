package sandbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// AK/SK authentication, after the API Request Signing Guide: SDK-HMAC-SHA256 over the request as it came.

const (
	signingAlgorithm = "SDK-HMAC-SHA256"
	signingTime      = "20060102T150405Z" // of X-Sdk-Date
	signingTolerance = 15 * time.Minute   // between X-Sdk-Date and the vendor's clock
	signingFailures  = 5                  // in a row lock the key
	signingLock      = 5 * time.Minute
	unsignedPayload  = "UNSIGNED-PAYLOAD" // of X-Sdk-Content-Sha256
)

// accessKey is what has become of the one key pair. It is guarded by Server.mu.
type accessKey struct {
	failures    int // in a row
	lockedUntil time.Time
}

// signed tells whether the call comes with a signature rather than a token.
func signed(c *call) bool { return strings.HasPrefix(c.Header.Get("Authorization"), signingAlgorithm) }

// checkSignature verifies the call's signature, and counts what fails against the key.
func (s *Server) checkSignature(c *call) (reply, bool) {
	a, err := parseAuthorization(c.Header.Get("Authorization"))
	if err != nil {
		return badToken("authorization header is invalid, " + err.Error()), false
	}
	if !same(a.access, s.config.AccessKey) {
		return badToken("Get secretKey failed,ak:" + a.access + ",err:ak not exist"), false
	}
	now := s.now()
	err = a.verify(c, s.config.SecretKey, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.key.lockedUntil) {
		return badToken("AK access failed to reach the limit,forbidden"), false
	}
	if err == nil {
		s.key.failures = 0
		return reply{}, true
	}
	if s.key.failures++; s.key.failures == signingFailures {
		s.key = accessKey{lockedUntil: now.Add(signingLock)}
	}
	return badToken("verify aksk signature fail, " + err.Error()), false
}

// authorization is the header of that name, taken apart.
type authorization struct {
	access    string
	headers   []string // signed, in the order given
	signature string
}

func parseAuthorization(header string) (authorization, error) {
	var a authorization
	list, found := strings.CutPrefix(header, signingAlgorithm+" ")
	if !found {
		return a, errors.New("it must begin with " + signingAlgorithm + " and a space")
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		parts[name] = value
	}
	a.access, a.signature = parts["Access"], parts["Signature"]
	if len(parts) != 3 || a.access == "" || a.signature == "" || parts["SignedHeaders"] == "" {
		return a, errors.New("it must have Access, SignedHeaders and Signature")
	}
	a.headers = strings.Split(parts["SignedHeaders"], ";")
	return a, nil
}

// verify returns why the signature is not good, or nil. The text never has the secret or the right signature in it.
func (a authorization) verify(c *call, secret string, now time.Time) error {
	date := c.Header.Get("X-Sdk-Date")
	at, err := time.Parse(signingTime, date)
	if err != nil {
		return fmt.Errorf("X-Sdk-Date %q is missing or not of the form %s", date, signingTime)
	}
	if off := now.Sub(at).Abs(); off > signingTolerance {
		return fmt.Errorf("X-Sdk-Date %s is more than %s off", date, signingTolerance)
	}
	if !slices.Contains(a.headers, "x-sdk-date") {
		return errors.New("SignedHeaders must have x-sdk-date")
	}
	if !slices.IsSorted(a.headers) || slices.ContainsFunc(a.headers, func(h string) bool { return h != strings.ToLower(h) }) {
		return errors.New("SignedHeaders must be sorted and in lower case")
	}
	canonical, err := canonicalRequest(c.Request, c.body, a.headers)
	if err != nil {
		return err
	}
	if !same(a.signature, signatureOf(secret, date, canonical)) {
		return errors.New("the signature does not match the request")
	}
	return nil
}

// canonicalRequest is what is signed of a request.
func canonicalRequest(r *http.Request, body []byte, headers []string) (string, error) {
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return "", err
	}
	var lines strings.Builder
	for _, name := range headers {
		values := r.Header.Values(name)
		if name == "host" {
			values = []string{r.Host}
		}
		if len(values) == 0 {
			return "", fmt.Errorf("the signed header %s is missing", name)
		}
		lines.WriteString(name + ":" + strings.TrimSpace(strings.Join(values, ",")) + "\n")
	}
	hash := hexSHA256(string(body))
	switch given := r.Header.Get("X-Sdk-Content-Sha256"); given {
	case "", hash:
	case unsignedPayload:
		hash = unsignedPayload
	default:
		return "", errors.New("X-Sdk-Content-Sha256 is not the body's hash")
	}
	return strings.Join([]string{
		r.Method, canonicalPath(r.URL.Path), query, lines.String(), strings.Join(headers, ";"), hash,
	}, "\n"), nil
}

// canonicalPath escapes every segment and ends with a slash.
func canonicalPath(path string) string {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i] = escape(segment)
	}
	return strings.TrimSuffix(strings.Join(segments, "/"), "/") + "/"
}

// canonicalQuery sorts the parameters by name and value.
func canonicalQuery(raw string) (string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return "", fmt.Errorf("the query string is invalid: %w", err)
	}
	var pairs []string
	for name, all := range values {
		for _, value := range all {
			pairs = append(pairs, escape(name)+"="+escape(value))
		}
	}
	slices.SortFunc(pairs, func(a, b string) int {
		nameA, valueA, _ := strings.Cut(a, "=")
		nameB, valueB, _ := strings.Cut(b, "=")
		if n := strings.Compare(nameA, nameB); n != 0 {
			return n
		}
		return strings.Compare(valueA, valueB)
	})
	return strings.Join(pairs, "&"), nil
}

// escape is that of RFC 3986: all but letters, digits, '-', '_', '.' and '~' becomes %XX.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

func signatureOf(secret, date, canonical string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signingAlgorithm + "\n" + date + "\n" + hexSHA256(canonical)))
	return hex.EncodeToString(mac.Sum(nil))
}

func hexSHA256(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
