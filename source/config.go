package source

import (
	"crypto/x509"
	"fmt"
	"math"
	"os"
	"time"

	"go.uber.org/zap"
)

// Config sets the limits of a Transport. Zero means the default.
type Config struct {
	CAFile            string        // PEM file of authorities trusted besides the system's
	RequestsPerSecond float64       // budget of each API, or of each class of them (Rate); 0 is no limit
	MaxBody           int64         // cap on an answer's decompressed bytes; default 32 MiB
	Timeout           time.Duration // of one attempt, its body included; default 1 minute
	RetryFor          time.Duration // of one call with all its attempts; default 5 minutes
	// Unreachable is what a call gets instead of RetryFor while its host has never answered in this process, so that a wrong
	// endpoint fails soon. Default 15 seconds.
	Unreachable    time.Duration
	BackoffInitial time.Duration // wait before the second attempt, give or take half; default 500 ms
	BackoffMax     time.Duration // longest wait between attempts, give or take half; default 30 s
	Log            *zap.Logger   // is told of retries; default none
}

// Validate says which setting can't be used, by its name in the configuration.
func (c Config) Validate() error {
	if c.RequestsPerSecond < 0 || math.IsNaN(c.RequestsPerSecond) || math.IsInf(c.RequestsPerSecond, 0) {
		return fmt.Errorf("http.requests_per_second is %v: must be 0 (no limit) or more", c.RequestsPerSecond)
	}
	if c.MaxBody < 0 || c.MaxBody > maxMaxBody {
		return fmt.Errorf("http.max_body is %d bytes: must be 1 byte to 1 GiB, or 0 for the default", c.MaxBody)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"timeout", c.Timeout},
		{"retry_for", c.RetryFor},
		{"unreachable", c.Unreachable},
		{"backoff_initial", c.BackoffInitial},
		{"backoff_max", c.BackoffMax},
	} {
		if d.value < 0 {
			return fmt.Errorf("http.%s is %s: must not be negative", d.name, d.value)
		}
	}
	return nil
}

// Answers are held in memory whole.
const maxMaxBody = 1 << 30

func (c Config) withDefaults() Config {
	setDefault(&c.MaxBody, 32<<20)
	setDefault(&c.Timeout, time.Minute)
	setDefault(&c.RetryFor, 5*time.Minute)
	setDefault(&c.Unreachable, 15*time.Second)
	setDefault(&c.BackoffInitial, 500*time.Millisecond)
	setDefault(&c.BackoffMax, 30*time.Second)
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// trusted returns the system's authorities and those of file, if one is named.
func trusted(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
	}
	if file == "" {
		return pool, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read http.ca_file: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read http.ca_file %q: no PEM certificate in it", file)
	}
	return pool, nil
}
