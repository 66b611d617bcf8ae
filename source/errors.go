package source

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// StatusError is an answer that says no. For errors.Is it is pipeline.ErrCredentials (401, 403), pipeline.ErrRefused (other 4xx but
// 408 and 429, and redirects), or what the request named for a 404. Nothing in it is secret.
type StatusError struct {
	API       string // the request's
	Method    string
	Path      string // the request's, without ids
	Status    int    // what the answer means
	SentAs    int    // the status that it came with; another than Status for a BodyStatus
	Code      string // error_code of the vendor's body, "" if it has none
	Message   string // error_msg, or else the first 200 bytes of the body
	RequestID string // the vendor's own name for the call, for its support

	kind error
}

// Error returns `POST query-jobs/…/sdr: status 503 APIG.0308 "…"`.
func (e *StatusError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: status %d", e.Method, e.Path, e.SentAs)
	if e.SentAs != e.Status {
		fmt.Fprintf(&b, " that means %d:", e.Status)
	}
	if e.Code != "" && e.Code != strconv.Itoa(e.Status) { // IAM repeats the status as its code
		b.WriteString(" " + e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, " %q", e.Message)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request_id %s)", e.RequestID)
	}
	return b.String()
}

// Unwrap returns the class of the refusal, nil if a later try may succeed.
func (e *StatusError) Unwrap() error { return e.kind }

// GaveUpError is a call that was tried until its time was over.
type GaveUpError struct {
	Tries int
	After time.Duration
	Err   error // of the last try
}

// Error returns "gave up after 7 tries in 5m0s: ", and the last try's error.
func (e *GaveUpError) Error() string {
	tries := "tries"
	if e.Tries == 1 {
		tries = "try"
	}
	return fmt.Sprintf("gave up after %d %s in %s: %v", e.Tries, tries, e.After.Round(time.Millisecond), e.Err)
}

// Unwrap returns the last try's error.
func (e *GaveUpError) Unwrap() error { return e.Err }

// ErrBodyTooLarge is an answer over Config.MaxBody. It isn't asked for again, and is a pipeline.ErrRefused too: a person must look.
var ErrBodyTooLarge = errors.New("answer too large")

type bodyTooLarge struct{ limit int64 }

func (e *bodyTooLarge) Error() string {
	return fmt.Sprintf("answer is over %d bytes decompressed, the limit http.max_body", e.limit)
}

func (*bodyTooLarge) Unwrap() []error { return []error{ErrBodyTooLarge, pipeline.ErrRefused} }

// newStatusError reads what the vendor's body says of the refusal.
func newStatusError(req *Request, sent *http.Request, resp *http.Response, status int, body []byte) *StatusError {
	e := &StatusError{
		API: req.API, Method: req.Method, Path: req.Path, Status: status, SentAs: resp.StatusCode, kind: kindOf(req, status),
	}
	var ok bool
	if e.Code, e.Message, e.RequestID, ok = vendorError(body); !ok {
		e.Message = string(bytes.TrimSpace(body))
	}
	if e.RequestID == "" {
		e.RequestID = resp.Header.Get("X-Request-Id")
	}
	hide := concealer(req, sent)
	e.Code, e.Message, e.RequestID = clean(hide, e.Code), excerpt(hide, e.Message), clean(hide, e.RequestID)
	if resp.StatusCode/100 == 3 {
		// Only the host: a location's query may hold anything.
		e.Code, e.Message = "", "redirects are not followed"
		if to, err := resp.Location(); err == nil {
			e.Message = "redirects to another place are not followed: " + excerpt(hide, to.Host)
		}
	}
	return e
}

func kindOf(req *Request, status int) error {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return pipeline.ErrCredentials
	case status == http.StatusNotFound && req.NotFound != nil:
		return req.NotFound
	case status < 500 && !isTransient(status):
		return pipeline.ErrRefused
	}
	return nil
}

// isTransient tells whether the same request may be answered better later.
func isTransient(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
}

// vendorError reads the forms of error bodies: error_code and error_msg (ESM API Reference 3.3), with request_id from the gateway;
// code and message, or msg; and Keystone's error object. ok is false if body has none of them.
func vendorError(body []byte) (code, message, requestID string, ok bool) {
	type form struct {
		ErrorCode any `json:"error_code"`
		ErrorMsg  any `json:"error_msg"`
		RequestID any `json:"request_id"`
		Code      any `json:"code"`
		Message   any `json:"message"`
		Msg       any `json:"msg"`
	}
	var outer struct {
		form
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &outer) != nil {
		return "", "", "", false
	}
	var inner form
	if len(outer.Error) > 0 {
		_ = json.Unmarshal(outer.Error, &inner) // {"error": "text"} has no form: the body is quoted
	}
	code = first(outer.ErrorCode, outer.Code, inner.ErrorCode, inner.Code)
	message = first(outer.ErrorMsg, outer.Message, outer.Msg, inner.ErrorMsg, inner.Message)
	return code, message, first(outer.RequestID), code != "" || message != ""
}

// first returns the first value that is text or a number.
func first(values ...any) string {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			if v != "" {
				return v
			}
		case float64:
			return fmt.Sprint(v)
		}
	}
	return ""
}

// Headers whose values say nothing about who asks.
func isPublicHeader(name string) bool {
	switch name {
	case "Accept", "Accept-Encoding", "Content-Type", "User-Agent", "X-Language", "X-Sdk-Date":
		return true
	}
	return false
}

// signatureWords are what is public in the header of a signed call: refusals name these words to say what is wrong.
var signatureWords = regexp.MustCompile(`SDK-HMAC-SHA256 Access=|, SignedHeaders=[^,]*, Signature=`)

// concealer returns what replaces the request's secrets in foreign text: header values, and what the request names, also in the
// spellings in which servers echo them.
func concealer(req *Request, sent *http.Request) concealment {
	secrets := slices.Clone(req.Conceal)
	for name, values := range sent.Header {
		if isPublicHeader(name) {
			continue
		}
		for _, value := range values {
			secrets = append(secrets, signatureWords.Split(value, -1)...)
		}
	}
	var c concealment
	for _, s := range secrets {
		if len(s) < 4 {
			continue // too short to be secret, and it would tear any text
		}
		c = append(c, spellings(s)...)
	}
	return c
}

// spellings returns how servers write s where they echo it: plain, in a URL, in HTML, in JSON; and each of these in base64, whose look
// depends on how many bytes stand before.
func spellings(s string) []string {
	asJSON, _ := json.Marshal(s) // text always encodes
	quoted := strconv.Quote(s)
	plain := []string{s, url.QueryEscape(s), url.PathEscape(s), html.EscapeString(s), string(asJSON[1 : len(asJSON)-1]), quoted[1 : len(quoted)-1]}
	slices.Sort(plain)
	plain = slices.Compact(plain)
	all := plain
	for _, text := range plain {
		for k := range min(3, len(text)) {
			rest := []byte(text[k:])
			all = append(all, base64.StdEncoding.EncodeToString(rest), base64.URLEncoding.EncodeToString(rest))
		}
	}
	return all
}

// concealment takes secrets, listed in all their spellings, out of foreign text; parts of them too, since gateways cut what they echo.
type concealment []string

// partOfSecret is how long a part of a secret must be to be one. Shorter ones are words that stand in a secret by chance, as "password"
// does, and a word that is missing would tell as much.
const partOfSecret = 9

// Replace returns text without the secrets.
func (c concealment) Replace(text string) string {
	parts := map[string][]int{} // of the text, to where they begin
	for i := range len(text) - partOfSecret + 1 {
		part := text[i : i+partOfSecret]
		parts[part] = append(parts[part], i)
	}
	hidden := make([]bool, len(text))
	hide := func(from, n int) {
		for i := range n {
			hidden[from+i] = true
		}
	}
	for _, s := range c {
		for i := range len(s) - partOfSecret + 1 {
			part := s[i : i+partOfSecret]
			for _, from := range parts[part] {
				hide(from, partOfSecret)
			}
			delete(parts, part)
		}
		if len(s) >= partOfSecret {
			continue
		}
		for i := range len(text) {
			if strings.HasPrefix(text[i:], s) {
				hide(i, len(s))
			}
		}
	}
	var out strings.Builder
	for i := range len(text) {
		switch {
		case !hidden[i]:
			out.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			out.WriteString(pipeline.Secret("").String())
		}
	}
	return out.String()
}

// excerpt returns the first 200 bytes of foreign text without secrets.
func excerpt(hide concealment, s string) string {
	const limit = 200
	s = hide.Replace(s[:min(len(s), 20*limit)]) // more of it can't show
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for !utf8.ValidString(s) && len(s) > limit-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// clean is excerpt for codes and ids, which are shown without quotes: visible ASCII only.
func clean(hide concealment, s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, strings.TrimSuffix(excerpt(hide, s), "…"))
}
