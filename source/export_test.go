package source

import (
	"context"
	"net"
)

// SetDial makes t connect through dial, and through no proxy.
func (t *Transport) SetDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	t.http.DialContext = dial
	t.http.Proxy = nil
}

// RetryAfter is retryAfter, for the fuzzer.
var RetryAfter = retryAfter
