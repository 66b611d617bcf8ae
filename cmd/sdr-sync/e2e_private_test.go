package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

// withPrivate makes the world's database a private one, which does not exist yet.
func (w *world) withPrivate() {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "sdr-sync-e2e-") // as root the server is another user's, who can't pass t.TempDir
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		w.hold()() // stops a server that a killed run left
		if err := os.RemoveAll(dir); err != nil {
			w.t.Error(err)
		}
	})
	delete(w.settings, "postgres.url")
	w.settings["postgres.data_dir"] = filepath.Join(dir, "pg")
}

// hold starts the private Postgres, or joins it, so that the test can look into it.
func (w *world) hold() (release func()) {
	w.t.Helper()
	server, err := private.Start(context.Background(), private.Config{DataDir: w.settings["postgres.data_dir"]})
	if err != nil {
		w.t.Fatal(err)
	}
	w.admin = server.URL("postgres", private.Database)
	return func() {
		if err := server.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

// serverRuns tells whether the private Postgres runs.
func (w *world) serverRuns() bool {
	return exists(filepath.Join(w.settings["postgres.data_dir"], "data", "postmaster.pid"))
}

// Without a URL everything is in a Postgres that sdr-sync starts itself, and stops; one that a killed run left is taken up again.
func TestPrivatePostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.withPrivate()
	first := []string{"backfill", "--from", "2024-01", "--to", "2024-02", "--today", someday}
	if f := w.start(first...).wait(); f.code != exitOK {
		t.Fatal(f)
	}
	if w.serverRuns() {
		t.Error("the server still runs")
	}
	release := w.hold()
	w.proof(firstDay, "2024-03-01")
	release()

	met, killed := make(chan struct{}), make(chan struct{})
	w.gate.after(sandbox.EndpointPage, w.gate.count(sandbox.EndpointPage)+8, func() {
		close(met)
		<-killed
	})
	p := w.start(w.backfill()...)
	p.await(met)
	p.kill()
	close(killed)
	if !w.serverRuns() {
		t.Fatal("the server died with the program")
	}
	f := w.start(w.backfill()...).wait()
	if f.code != exitOK {
		t.Fatal(f)
	}
	contains(t, f.err, "joined the private Postgres")
	if w.serverRuns() {
		t.Error("the server still runs")
	}
	for _, c := range []struct {
		args []string
		code exitCode
		says string
	}{
		{[]string{"verify"}, exitOK, "agree"},
		{[]string{"psql", "--", "-At", "-c", "SELECT 'records: ' || (count(*) > 0) FROM billing.sdr"}, exitOK, "records: true"},
		{[]string{"psql", "--", "-c", "DELETE FROM billing.sdr"}, exitIncomplete, ""},
		{[]string{"doctor"}, exitOK, "private Postgres"},
		{[]string{"migrate"}, exitOK, "up to date"},
	} {
		f := w.start(c.args...).wait()
		if f.code != c.code || !strings.Contains(f.out, c.says) {
			t.Errorf("%v: want exit %d and %q, got %s", c.args, c.code, c.says, f)
		}
	}
	release = w.hold()
	w.proof(firstDay, someday)
	w.noDebris()
	// As if the first run of all had been killed between the migration and the login that it works as.
	administer(t, w.admin, "DROP ROLE "+privateLogin)
	release()
	if f := w.start("status").wait(); f.code != exitOK {
		t.Errorf("without a login: %s", f)
	}
}

// The demo ends with Postgres, Parquet and truth side by side, equal; what it leaves can be looked at with the configuration it wrote.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	database := envPrefix + "POSTGRES_URL=" + pgtest.Database(t)
	f := start(t, []string{database}, []string{"demo", "--dir", dir, "--resources", "5"}).wait()
	if f.code != exitOK {
		t.Fatal(f)
	}
	contains(t, f.out, "equal: ", "stand exactly once in Postgres and exactly once in Parquet", "nothing changed", "restated", "sdr-sync status", "duckdb")
	if strings.Contains(f.out, " NO\n") {
		t.Errorf("something differs: %s", f.out)
	}
	contains(t, f.out, demoDatabase) // it has a database of its own beside the one that was named
	database = envPrefix + "POSTGRES_URL=" + pgtest.Server(t).URL("postgres", demoDatabase)
	for _, args := range [][]string{{"verify"}, {"status"}, {"quarantine", "list"}} {
		args = append([]string{"--config", filepath.Join(dir, "sdr-sync.yaml")}, args...)
		if f := start(t, []string{database}, args).wait(); f.code != exitOK {
			t.Errorf("%v: %s", args, f)
		}
	}
	// A folder that holds something else is not touched.
	other := t.TempDir()
	closeAll(create(t, filepath.Join(other, "precious.txt")))
	if f := start(t, []string{database}, []string{"demo", "--dir", other}).wait(); f.code != exitUsage {
		t.Errorf("a folder of something else: want exit 2, got %s", f)
	}
}
