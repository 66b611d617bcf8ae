package source_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
)

// Whatever place an answer sends to, no connection is opened but to the endpoint: not to another host or port, not to a cloud's metadata, not by
// another scheme; and nothing of the credentials is in the error.
func TestNothingIsDialledButTheEndpoint(t *testing.T) {
	t.Parallel()
	for _, location := range []string{
		"https://login.example.com/", "http://login.example.com/", "//login.example.com/", "http://169.254.169.254/latest/meta-data/iam", "http://[fd00:ec2::254]/latest",
		"http://127.0.0.1:5432/", "http://localhost/", "http://0x7f000001/", "file:///etc/passwd", "gopher://login.example.com:25/_", "/elsewhere", "?again", "", "http://%zz/", "http://a\tb/",
		"http://user:pass@login.example.com/",
	} {
		for _, code := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
			t.Run(fmt.Sprintf("%d to %s", code, location), func(t *testing.T) {
				t.Parallel()
				asked := 0
				url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					asked++
					w.Header().Set("Location", location)
					w.WriteHeader(code)
				})
				transport := newTransport(t, source.Config{})
				var mu sync.Mutex
				var dialled []string
				transport.SetDial(func(ctx context.Context, network, address string) (net.Conn, error) {
					mu.Lock()
					dialled = append(dialled, address)
					mu.Unlock()
					return new(net.Dialer).DialContext(ctx, network, address)
				})
				req := get(url)
				req.Method, req.Body = http.MethodPost, []byte(`{"password":"canary"}`)
				req.Header = http.Header{"X-Hcso-Appcode": {"canary-appcode"}}
				req.Auth = source.TokenAuth(&tokens{next: []string{"canary-token"}})
				_, err := transport.Do(t.Context(), req)
				if !errors.Is(err, pipeline.ErrRefused) || strings.Contains(fmt.Sprint(err), "canary") || strings.Contains(fmt.Sprint(err), "pass@") {
					t.Errorf("Do = %v", err)
				}
				if want := strings.TrimPrefix(url, "http://"); len(dialled) != 1 || dialled[0] != want || asked != 1 {
					t.Errorf("dialled %v for %d requests, want %s once", dialled, asked, want)
				}
			})
		}
	}
}

// An address that a request is to be sent to is checked when it is sent, too: a token goes encrypted or stays on this machine.
func TestUnsafeAddressesAreNotAsked(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"http://169.254.169.254/", "http://10.0.0.1/", "http://esm.example.com/", "http://0.0.0.0/", "http://127.0.0.1.example.com/", "http://user:pass@127.0.0.1/",
		"https://user:pass@esm.example.com/", "file:///etc/passwd", "ftp://127.0.0.1/", "//127.0.0.1/", "/v3", "", "http://[::ffff:10.0.0.1]/", "http://localhost.example.com/",
		"http://127.1/", "http://2130706433/",
	} {
		transport := newTransport(t, source.Config{})
		transport.SetDial(func(context.Context, string, string) (net.Conn, error) {
			t.Errorf("%q: something was dialled", address)
			return nil, net.ErrClosed
		})
		req := get(address)
		req.Auth = source.TokenAuth(&tokens{next: []string{"canary-token"}})
		if _, err := transport.Do(t.Context(), req); err == nil || strings.Contains(err.Error(), "pass@") {
			t.Errorf("%q: Do = %v", address, err)
		}
	}
}
