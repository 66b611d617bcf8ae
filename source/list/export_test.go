package list

import "github.com/sdr-sync/sdr-sync/schemas"

// Parse is parsePage without its result, for the fuzzer: the records, how many there are, and the error.
func Parse(l *schemas.List, body []byte, before int64) (data []byte, rows int64, err error) {
	p, err := parsePage(l, body, before)
	return p.data, p.rows, err
}
