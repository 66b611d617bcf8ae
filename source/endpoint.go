package source

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ParseEndpoint reads the base URL of an API from the setting called name ("esm.endpoint"). It must be https://; http:// is
// accepted for this machine only, since tokens travel in headers. A slash at the end is cut. Errors are sentences for the person
// who wrote the setting, and never show a password that it holds.
func ParseEndpoint(name, text string) (*url.URL, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, fmt.Errorf("%s is empty: set it to the API's address, such as https://host.example.com", name)
	}
	if strings.Contains(text, "@") {
		return nil, fmt.Errorf("%s holds an '@': an endpoint has no user name or password in it", name)
	}
	u, err := url.Parse(text)
	if err != nil || !strings.Contains(text, "://") {
		return nil, fmt.Errorf("%s %q is no address: want https://host, https://host:port or https://host/path", name, text)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%s %q names no host", name, text)
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, fmt.Errorf("%s %q must end before '?' or '#'", name, text)
	}
	switch {
	case isSafe(u):
	case u.Scheme == "http":
		return nil, fmt.Errorf("%s %q: http:// would send tokens in the clear and is allowed for this machine only "+
			"(127.0.0.0/8, ::1, localhost): use https://", name, text)
	default:
		return nil, fmt.Errorf("%s %q must begin with https://", name, text)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// isSafe tells whether a token may be sent to u: encrypted, or not leaving this machine.
func isSafe(u *url.URL) bool { return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u) }

// isLoopback tells whether u names this machine: by address, or as localhost. Other names are not looked up.
func isLoopback(u *url.URL) bool {
	host := u.Hostname()
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
