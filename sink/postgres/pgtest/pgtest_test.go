package pgtest_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	urls := map[string]bool{}
	for range 2 {
		url := pgtest.Database(t)
		if urls[url] {
			t.Fatalf("database %s twice", url)
		}
		urls[url] = true
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(t.Context()) })
		if _, err := conn.Exec(t.Context(), "create table t (x int)"); err != nil {
			t.Error(err)
		}
	}
}

func TestOneServer(t *testing.T) {
	t.Parallel()
	if a, b := pgtest.Server(t), pgtest.Server(t); a != b {
		t.Error("got two servers")
	}
}
