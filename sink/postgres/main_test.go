package postgres_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(holderVariable); url != "" {
		os.Exit(holdLease(url))
	}
	code := pgtest.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
