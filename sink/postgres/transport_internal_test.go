package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// A connection over a network counts as verified only if no way that pgx would try leaves the server's certificate unread.
func TestUnverifiedHost(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://u@/billing?host=/run/postgresql":                        "",
		"postgres://u@localhost/billing":                                    "",
		"postgres://u@127.0.0.1/billing?sslmode=disable":                    "",
		"postgres://u@[::1]/billing?sslmode=disable":                        "",
		"postgres://u@db.example/billing?sslmode=disable":                   "db.example",
		"postgres://u@db.example/billing?sslmode=allow":                     "db.example",
		"postgres://u@db.example/billing":                                   "db.example",
		"postgres://u@db.example/billing?sslmode=require":                   "db.example",
		"postgres://u@db.example/billing?sslmode=verify-ca":                 "",
		"postgres://u@db.example/billing?sslmode=verify-full":               "",
		"postgres://u@a.example,b.example/billing?sslmode=verify-full":      "",
		"postgres://u@localhost,b.example/billing?sslmode=prefer":           "b.example",
		"host=192.0.2.7 user=u dbname=billing sslmode=require":              "192.0.2.7",
		"host=192.0.2.7 user=u dbname=billing sslmode=verify-full port=777": "",
	} {
		cfg, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if got := unverifiedHost(&cfg.Config); got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
	}
}
