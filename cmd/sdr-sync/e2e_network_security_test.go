package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// authority is a certificate authority that no machine knows.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue returns a certificate for an address or a name that is good until end.
func (a authority) issue(t *testing.T, name string, end time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: end.Add(-24 * time.Hour), NotAfter: end}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secure puts the vendor behind TLS, under the keys of endpoints given, and counts what comes through.
func (w *world) secure(config *tls.Config, endpoints ...string) (calls *atomic.Int64) {
	w.t.Helper()
	calls = new(atomic.Int64)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.gate.ServeHTTP(rw, r)
	}))
	server.TLS, server.Config.ErrorLog = config, log.New(io.Discard, "", 0)
	server.StartTLS()
	w.t.Cleanup(server.Close)
	for _, name := range endpoints {
		w.settings[name] = server.URL
	}
	return calls
}

var everyEndpoint = []string{"iam.endpoint", "esm.endpoint", "bss.endpoint", "bms.endpoint"}

// An authority of the site's own is trusted once http.ca_file names it, by every system and every way to sign; by none before.
func TestOwnAuthority(t *testing.T) {
	t.Parallel()
	for _, keys := range []bool{false, true} {
		t.Run(fmt.Sprintf("signed with keys %t", keys), func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t)
			if keys {
				w.settings["bss.access_key"], w.settings["bss.secret_key"] = sandbox.DefaultAccessKey, sandbox.DefaultSecretKey
			}
			ours := newAuthority(t)
			calls := w.secure(&tls.Config{Certificates: []tls.Certificate{ours.issue(t, "127.0.0.1", time.Now().Add(time.Hour))}}, everyEndpoint...)
			streams := []string{"sdr", "subscriptions", "bms_servers", "audit_logs"}
			f := w.want(exitIncomplete, nightly(listDay, streams...)...)
			contains(t, f.err, "certificate signed by unknown authority", "set http.ca_file")
			w.hides(f)
			doctor := w.run("doctor")
			contains(t, doctor.out+doctor.err, "certificate signed by unknown authority", "set http.ca_file")
			w.hides(doctor)
			if n := calls.Load(); n != 0 {
				t.Errorf("%d calls got through without trust", n)
			}
			w.settings["http.ca_file"] = ours.file
			// Today's date is the vendor's to know: a stand-in is one by plain http alone.
			w.want(exitOK, nightly(listDay, streams...)...)
			w.want(exitOK, "doctor")
			w.listProof("subscriptions", "bms_servers")
			w.proof("2024-04-01", listDay)
			w.want(exitOK, "verify")
		})
	}
}

// Whoever is not the vendor gets no password, no token and no signature, whichever of the systems he stands in for; the run says why and ends
// with the code for a run that can be repeated, at once.
func TestImpostors(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		config *tls.Config
		says   string
	}{
		"expired":         {&tls.Config{Certificates: []tls.Certificate{ours.issue(t, "127.0.0.1", time.Now().Add(-time.Minute))}}, "certificate has expired"},
		"of another host": {&tls.Config{Certificates: []tls.Certificate{ours.issue(t, "127.0.0.2", later)}}, "certificate is valid for 127.0.0.2, not 127.0.0.1"},
		"of a strange CA": {&tls.Config{Certificates: []tls.Certificate{theirs.issue(t, "127.0.0.1", later)}}, "certificate signed by unknown authority"},
		"self-signed":     {nil, "certificate signed by unknown authority"},
		"TLS 1.1": {
			&tls.Config{Certificates: []tls.Certificate{ours.issue(t, "127.0.0.1", later)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			"protocol version not supported",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t)
			w.settings["http.ca_file"], w.settings["http.retry_for"] = ours.file, "1s"
			w.settings["bss.access_key"], w.settings["bss.secret_key"] = sandbox.DefaultAccessKey, sandbox.DefaultSecretKey
			good := maps.Clone(w.settings)
			for _, c2 := range []struct{ endpoint, stream string }{
				{"iam.endpoint", "sdr"}, {"esm.endpoint", "sdr"}, {"bss.endpoint", "subscriptions"}, {"bms.endpoint", "bms_servers"},
			} {
				w.settings = maps.Clone(good)
				if c2.stream == "bms_servers" {
					w.want(exitOK, nightly(listDay, "subscriptions")...) // the ids it is asked by
				}
				calls := w.secure(c.config, c2.endpoint)
				f := w.want(exitIncomplete, nightly(listDay, c2.stream)...)
				contains(t, f.err, c.says, "reach 127.0.0.1:")
				w.hides(f)
				if n := calls.Load(); n != 0 {
					t.Errorf("%s: the impostor was sent %d requests", c2.endpoint, n)
				}
				if f.took > 20*time.Second {
					t.Errorf("%s: it took %s to say so", c2.endpoint, f.took)
				}
			}
		})
	}
}

// An answer that sends elsewhere is refused: nothing follows it, whatever the code and the place, and the place gets neither token nor body.
func TestRedirectsLeadNowhere(t *testing.T) {
	t.Parallel()
	var strayed atomic.Int64
	stray := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	t.Cleanup(stray.Close)
	host := strings.TrimPrefix(stray.URL, "http://")
	secure := httptest.NewUnstartedServer(stray.Config.Handler)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	places := []string{
		stray.URL + "/v3/auth/tokens", secure.URL + "/", "//" + host + "/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/",
		"file:///etc/passwd", "gopher://" + host + "/_x", "/v3/elsewhere",
	}
	for endpoint, streams := range map[sandbox.Endpoint][]string{
		sandbox.EndpointToken: {"sdr"}, sandbox.EndpointCreate: {"sdr"}, sandbox.EndpointPoll: {"sdr"}, sandbox.EndpointPage: {"sdr"},
		sandbox.EndpointResources: {"subscriptions"}, sandbox.EndpointAuditLogs: {"audit_logs"}, sandbox.EndpointBMSServer: {"subscriptions", "bms_servers"},
	} {
		t.Run(string(endpoint), func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t)
			codes := []int{301, 302, 303, 307, 308}
			for i, place := range places {
				code := codes[i%len(codes)]
				var asked atomic.Int64
				w.gate.replaceAnswers(endpoint, func(rw http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					rw.Header().Set("Location", place)
					rw.WriteHeader(code)
				})
				f := w.run(nightly(listDay, streams...)...)
				if f.code == exitOK || f.code == exitInternal || asked.Load() == 0 {
					t.Errorf("%d to %s: %d calls, %s", code, place, asked.Load(), f)
				}
				contains(t, f.err, "redirects", "not followed")
				w.hides(f)
			}
			elsewhere := slices.Collect(maps.Keys(w.gate.calls))
			if slices.Contains(elsewhere, sandbox.Endpoint("")) {
				t.Errorf("a path that is no API was asked for: %v", elsewhere)
			}
		})
	}
	t.Cleanup(func() {
		if n := strayed.Load(); n != 0 {
			t.Errorf("%d requests strayed to another host", n)
		}
	})
}
