package source_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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
				ctx, cancel := context.WithCancel(t.Context()) // a call that strays would be tried again for minutes
				defer cancel()
				asked := 0
				url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					if asked++; asked > 1 {
						cancel()
					}
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
					if !strings.HasSuffix(url, "//"+address) {
						cancel()
						return nil, net.ErrClosed
					}
					return new(net.Dialer).DialContext(ctx, network, address)
				})
				req := get(url)
				req.Method, req.Body = http.MethodPost, []byte(`{"password":"canary"}`)
				req.Header = http.Header{"X-Hcso-Appcode": {"canary-appcode"}}
				req.Auth = source.TokenAuth(&tokens{next: []string{"canary-token"}})
				_, err := transport.Do(ctx, req)
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

// What a server echoes of a secret is taken out of its text however it spells it, and pieces of it; the words around it stay, for they say
// what is wrong. In base64 up to two bytes at an end share their letters with what stands beside, and stay.
func TestEchoesAreTakenOut(t *testing.T) {
	t.Parallel()
	const token, appcode, password, short = "MIIcanary+tok/en==", `can<a"r&y '?>?>~~app`, "k3y-password-hunter2", "pin8"
	const key, signature = "CANARYACCESSKEY00001", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	plain := base64.StdEncoding.EncodeToString
	for name, c := range map[string]struct{ says, want string }{
		"whole":                     {"token " + token + " and " + password + ", " + short + "!", "token [secret] and [secret], [secret]!"},
		"the beginning of one":      {"token " + token[:9] + "… refused", "token [secret]… refused"},
		"the end of one":            {"token …" + token[len(token)-9:] + " refused", "token …[secret] refused"},
		"the middle of one":         {"token …" + token[5:14] + "… refused", "token …[secret]… refused"},
		"side by side":              {token + password, "[secret]"},
		"a word of one":             {"the password is wrong", "the password is wrong"},
		"base64":                    {"sent " + plain([]byte(token)), "sent [secret]"},
		"base64, one byte before":   {"sent " + plain([]byte(":"+token)), "sent Ok1J[secret]"},
		"base64, two bytes before":  {"sent " + plain([]byte("u:"+token)), "sent dTpN[secret]"},
		"base64, more behind":       {"sent " + plain([]byte("usr"+password+"\n\n")), "sent dXNy[secret]KCg=="},
		"base64 of URLs":            {"sent " + base64.RawURLEncoding.EncodeToString([]byte(appcode+"??")), "sent [secret]_Pw"},
		"base64 of one as JSON has": {"sent " + plain([]byte(strconv.Quote(appcode))), "sent ImNh[secret]CI="},
		"a piece of base64":         {"sent …" + plain([]byte(password))[6:15] + "…", "sent …[secret]…"},
		"HTML":                      {"<b>" + html.EscapeString(appcode) + "</b>", "<b>[secret]</b>"},
		"Go's and others' quotes":   {"code " + strconv.Quote(appcode), `code "[secret]"`},
		"a signed call": {
			"Authorization SDK-HMAC-SHA256 Access=" + key + ", SignedHeaders=x-domain-id;x-sdk-date, Signature=" + signature,
			"Authorization SDK-HMAC-SHA256 Access=[secret], SignedHeaders=x-domain-id;x-sdk-date, Signature=[secret]",
		},
		"parts of a signed call":  {"bad Signature " + signature[10:19] + " of " + key[:9], "bad Signature [secret] of [secret]"},
		"advice on a signed call": {"SignedHeaders must have x-sdk-date, which is 20240301T000000Z", "SignedHeaders must have x-sdk-date, which is 20240301T000000Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := get(serve(t, status(400, c.says)))
			req.Header = http.Header{
				"X-Hcso-Appcode": {appcode}, "X-Sdk-Date": {"20240301T000000Z"},
				"Authorization": {"SDK-HMAC-SHA256 Access=" + key + ", SignedHeaders=x-domain-id;x-sdk-date, Signature=" + signature},
			}
			req.Auth = source.TokenAuth(&tokens{next: []string{token}})
			req.Conceal = []string{password, short}
			_, err := newTransport(t, source.Config{}).Do(t.Context(), req)
			var refusal *source.StatusError
			if !errors.As(err, &refusal) || refusal.Message != c.want {
				t.Errorf("Do = %v\nwant %q in it", err, c.want)
			}
		})
	}
}

// Whoever meets an authority that is not trusted is told of the setting for it; one whose trouble is another is not.
func TestUnknownAuthorityNamesTheSetting(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		cert tls.Certificate
		want bool
	}{
		"unknown authority": {theirs.issue(t, "127.0.0.1", later), true},
		"expired":           {ours.issue(t, "127.0.0.1", past), false},
		"another host":      {ours.issue(t, "127.0.0.2", later), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{c.cert}}, status(200, "{}"))
			_, err := newTransport(t, source.Config{CAFile: ours.file}).Do(t.Context(), get(server.URL))
			if err == nil || strings.Contains(err.Error(), "http.ca_file") != c.want {
				t.Errorf("Do = %v, want http.ca_file in it: %t", err, c.want)
			}
		})
	}
}
