package source_test

import (
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/source"
)

// FuzzRetryAfter: whatever a server asks for, the wait is neither negative nor longer than a year, and seconds are taken at their word.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{
		"120", "0", "-5", "18446744073709551615", "18446744073709551616", "1e3", " 7 ", "soon", "", "Fri, 01 Mar 2024 00:02:00 GMT",
		"Friday, 01-Mar-24 00:02:00 GMT", "Fri Mar  1 00:02:00 2024", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT",
	} {
		f.Add(seed, "Fri, 01 Mar 2024 00:00:00 GMT", int64(1709251200))
		f.Add(seed, "", int64(0))
	}
	year := 365 * 24 * time.Hour
	f.Fuzz(func(t *testing.T, after, date string, now int64) {
		h := http.Header{"Retry-After": {after}, "Date": {date}}
		clock := time.Unix(now%(1<<36), 0)
		wait := source.RetryAfter(h, clock)
		if wait < 0 || wait > year || wait != source.RetryAfter(h, clock) {
			t.Errorf("Retry-After %q at %q: waits %s", after, date, wait)
		}
		text := strings.TrimSpace(after)
		if text == "" || strings.Trim(text, "0123456789") != "" {
			return
		}
		seconds, _ := new(big.Int).SetString(text, 10)
		switch {
		case !seconds.IsUint64(): // no server means that: the program's own backoff decides
			if wait != 0 {
				t.Errorf("Retry-After %q: waits %s", after, wait)
			}
		case wait != time.Duration(min(seconds.Uint64(), uint64(year/time.Second)))*time.Second:
			t.Errorf("Retry-After %q: waits %s", after, wait)
		}
	})
}
