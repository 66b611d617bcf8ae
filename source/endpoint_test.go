package source_test

import (
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/source"
)

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want string // the address, or a part of the error
		ok   bool
	}{
		"plain":               {"https://esm-api.example.com", "https://esm-api.example.com", true},
		"slash and spaces":    {" https://esm-api.example.com/ ", "https://esm-api.example.com", true},
		"port and path":       {"https://h.example.com:8443/gw/", "https://h.example.com:8443/gw", true},
		"loopback name":       {"http://localhost:8080", "http://localhost:8080", true},
		"loopback v4":         {"http://127.8.9.1:8080", "http://127.8.9.1:8080", true},
		"loopback v6":         {"http://[::1]:8080", "http://[::1]:8080", true},
		"mapped loopback":     {"http://[::ffff:127.0.0.1]:80", "http://[::ffff:127.0.0.1]:80", true},
		"http elsewhere":      {"http://esm-api.example.com", "use https://", false},
		"http private":        {"http://10.0.0.1", "use https://", false},
		"http link-local":     {"http://169.254.169.254", "use https://", false},
		"looks like loopback": {"http://localhost.example.com", "use https://", false},
		"loopback prefix":     {"http://127.0.0.1.example.com", "use https://", false},
		"unspecified":         {"http://0.0.0.0", "use https://", false},
		"empty":               {"", "is empty", false},
		"no scheme":           {"esm-api.example.com", "is no address", false},
		"host and port":       {"esm-api.example.com:443", "is no address", false},
		"other scheme":        {"ftp://esm-api.example.com", "must begin with https://", false},
		"no host":             {"https:///v3", "names no host", false},
		"port alone":          {"https://:443", "names no host", false},
		"query":               {"https://h.example.com/?a=b", "must end before", false},
		"fragment":            {"https://h.example.com/#a", "must end before", false},
		"control character":   {"https://h.example.com/\x7f", "is no address", false},
		"bad port":            {"https://h.example.com:port", "is no address", false},
		"password":            {"https://bob:canary@h.example.com", "no user name or password", false},
		"broken password":     {"https://bob:can ary%@h.example.com", "no user name or password", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := source.ParseEndpoint("esm.endpoint", c.text)
			if c.ok {
				if err != nil || u.String() != c.want {
					t.Fatalf("ParseEndpoint(%q) = %v, %v, want %s", c.text, u, err, c.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "esm.endpoint") {
				t.Fatalf("ParseEndpoint(%q) = %v, %v, want an error of esm.endpoint with %q", c.text, u, err, c.want)
			}
			if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "can ary") {
				t.Errorf("ParseEndpoint(%q): error shows the password: %v", c.text, err)
			}
		})
	}
}

func TestValidateNamesTheSetting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config source.Config
		want   string
	}{
		"rate":        {source.Config{RequestsPerSecond: -1}, "http.requests_per_second"},
		"body":        {source.Config{MaxBody: -1}, "http.max_body"},
		"huge body":   {source.Config{MaxBody: 2 << 30}, "http.max_body"},
		"timeout":     {source.Config{Timeout: -1}, "http.timeout"},
		"retry":       {source.Config{RetryFor: -1}, "http.retry_for"},
		"no CA file":  {source.Config{CAFile: "testdata/nothing-here.pem"}, "http.ca_file"},
		"not CA file": {source.Config{CAFile: "endpoint_test.go"}, "http.ca_file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := source.New(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("New = %v, want an error that names %s", err, c.want)
			}
		})
	}
}
