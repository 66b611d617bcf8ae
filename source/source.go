// Package source is the one HTTP transport under every vendor API: limits, retries by class, caps, and errors that say what was
// asked and never with which secret. It knows no API; the packages below it do.
package source

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// Request is one call of a vendor API. It is sent again, signed anew each time, while that may help.
type Request struct {
	API    string      // names the call for its budget and the log: "read query job"
	Rate   Rate        // how often the vendor lets it be called
	Method string      // GET, POST, ...
	URL    string      // absolute; built from an endpoint of ParseEndpoint
	Path   string      // the path as errors show it, without ids: "query-jobs/…/sdr"
	Header http.Header // sent as is; may hold secrets
	Body   []byte      // sent as is, empty for none
	Auth   Auth        // how each attempt is authorised
	Accept []int       // the statuses that are an answer; 200 if empty

	// JSON says that an answer is JSON. One that isn't, an empty one included, counts as lost on the way. A leading byte order mark is cut.
	JSON bool
	// Check, where set, looks at an answer's body. Its error means an improper answer, which is asked for again; but a BodyStatus means
	// what an answer of that status would.
	Check func(body []byte) error
	// NotFound is what errors.Is finds in the error of a 404, instead of pipeline.ErrRefused.
	NotFound error
	// Conceal lists what no error may show, even if the server echoes it. Header values are concealed anyway.
	Conceal []string
	// Lost, where set, is called for every attempt that may have had its effect at the vendor although its answer was lost.
	Lost func()
}

// Auth is how a request proves who asks. The zero value sends it as it is.
type Auth struct {
	// Sign authorises one attempt, just before it is sent. Its error ends the call. The body is to be had from GetBody.
	Sign func(*http.Request) error
	// Renew is told of a request that was answered 401. The call is then signed and sent once more. Without it a 401 is final.
	Renew func(refused *http.Request)
	// Settled is told how each attempt that was signed ended: nil for an answer, *StatusError for a refusal, anything else if no
	// proper answer came.
	Settled func(signed *http.Request, end error)
}

// BodyStatus is returned by Request.Check for a refusal that came with the status of an answer: the body stands for this status. BSS
// reports errors so (Querying Customer's Yearly/Monthly Resources, Status Code).
type BodyStatus int

// Error returns "the answer stands for status 403".
func (s BodyStatus) Error() string { return fmt.Sprintf("the answer stands for status %d", int(s)) }

// TokenSource hands out tokens of the identity service.
type TokenSource interface {
	// Token returns a token that is good for now, asking for one if need be. ErrCredentials: none is to be had.
	Token(ctx context.Context) (pipeline.Secret, error)
	// Invalidate says that the vendor refused token, so that Token doesn't return it again.
	Invalidate(token pipeline.Secret)
}

const tokenHeader = "X-Auth-Token"

// TokenAuth signs with X-Auth-Token (ESM API Reference 3.2) and gets a new token after a 401.
func TokenAuth(tokens TokenSource) Auth {
	return Auth{
		Sign: func(r *http.Request) error {
			token, err := tokens.Token(r.Context())
			if err != nil {
				return err
			}
			r.Header.Set(tokenHeader, token.Reveal())
			return nil
		},
		Renew: func(refused *http.Request) {
			tokens.Invalidate(pipeline.Secret(refused.Header.Get(tokenHeader)))
		},
	}
}

// Response is a vendor's answer. Body is decompressed and belongs to the caller until Release.
type Response struct {
	Status int
	Header http.Header
	Body   []byte

	lease *lease
}

// Release gives Body back for reuse. Releasing twice, or a copy, is harmless; reading Body afterwards is not.
func (r Response) Release() {
	if r.lease != nil {
		r.lease.release()
	}
}

// lease returns a buffer to its pool once, however often it is asked to: a buffer in the pool twice would mix two pages.
type lease struct {
	pool     *sync.Pool
	buffer   *[]byte
	released atomic.Bool
}

// Buffers beyond this are left to the garbage collector, so that one huge answer does not stay for good.
const keepBuffer = 4 << 20

func (l *lease) release() {
	if !l.released.Swap(true) && cap(*l.buffer) <= keepBuffer {
		l.pool.Put(l.buffer)
	}
}
