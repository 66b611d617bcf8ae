package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// TestCommands compares what commands print, one after the other in one world, with testdata/commands.golden. Run it with -update to
// rewrite that.
func TestCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.settings["sync.parallel"] = "1" // so that windows get their ids in order
	g := golden{w: w, t: t}
	show, both := g.show, g.both
	today := []string{"--today", someday}
	plan := append([]string{"backfill", "--from", "2024-02", "--to", "2024-04", "--plan"}, today...)
	both(exitOK, "version")
	both(exitOK, plan...)
	both(exitOK, append([]string{"status"}, today...)...)
	both(exitOK, "quarantine", "list")
	both(exitOK, "lease", "list")
	both(exitOK, append([]string{"backfill", "--from", "2024-02", "--to", "2024-03"}, today...)...)
	both(exitOK, plan...)
	show(exitOK, append([]string{"backfill", "--from", "2024-02", "--to", "2024-02", "--reslice", "day", "--plan"}, today...)...)
	w.want(exitOK, append([]string{"backfill", "--from", "2024-04", "--to", "2024-04"}, today...)...)
	w.vendor.AdvanceNight()
	w.today.set("2024-04-16")
	show(exitOK, "nightly", "--today", "2024-04-16")
	both(exitOK, "nightly", "--today", "2024-04-16")
	both(exitOK, "status", "--today", "2024-04-16")
	both(exitOK, "quarantine", "list", "--limit", "3")
	show(exitOK, "quarantine", "list", "--reason", "bad_amount")
	both(exitOK, "quarantine", "show", "1", w.one(`SELECT raw_hash FROM sdr_sync.quarantine WHERE window_id = 1 ORDER BY page, position LIMIT 1`))
	show(exitUsage, "quarantine", "show", "1", "00000000-0000-0000-0000-000000000000")
	administer(t, w.admin, `INSERT INTO sdr_sync.lease (stream, site, region, token, holder, acquired_at, expires_at)
		VALUES ('sdr', 'hcso-213', 'cn-north-213', 7, 'billing-1|boot|pid:[1]|4711|99', '2024-04-16 01:00:00+00', '2124-04-16 01:01:00+00')`)
	both(exitOK, "lease", "list")
	show(exitHeld, "nightly", "--today", "2024-04-16")
	show(exitOK, "lease", "release", "--scope", theScope.String())
	both(exitOK, "export")
	both(exitOK, "verify")
	administer(t, w.admin, `UPDATE sdr_sync.window SET records = records + 1 WHERE window_id = 1`)
	both(exitDifference, "verify")

	g.compare("commands.golden")
}

// golden collects what commands print, to be compared with a file.
type golden struct {
	w    *world
	t    *testing.T
	text strings.Builder
}

// show runs a command and takes down what it prints.
func (g *golden) show(code exitCode, args ...string) finished {
	g.t.Helper()
	f := g.w.want(code, args...)
	fmt.Fprintf(&g.text, "$ sdr-sync %s\n%s", strings.Join(args, " "), g.w.timeless(f.out))
	if said := g.w.timeless(withoutLog(f.err)); said != "" {
		fmt.Fprintf(&g.text, "--- standard error\n%s", said)
	}
	fmt.Fprintf(&g.text, "--- exit %d\n\n", f.code)
	return f
}

// both shows a command as text and as JSON.
func (g *golden) both(code exitCode, args ...string) {
	g.t.Helper()
	g.show(code, args...)
	f := g.show(code, append(args, "--output", "json")...)
	if !json.Valid([]byte(f.out)) {
		g.t.Errorf("sdr-sync %s --output json: standard output is no JSON alone:\n%s", strings.Join(args, " "), f.out)
	}
}

// compare compares all that was shown with a file of testdata; -update rewrites that.
func (g *golden) compare(name string) {
	g.t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(g.text.String()), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	got, want := strings.Split(g.text.String(), "\n"), strings.Split(read(g.t, path), "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			from, to := max(0, i-3), i+4
			g.t.Fatalf("line %d (rewrite with -update):\ngot\n%s\nwant\n%s", i+1,
				strings.Join(got[min(from, len(got)):min(to, len(got))], "\n"), strings.Join(want[min(from, len(want)):min(to, len(want))], "\n"))
		}
	}
}

// withoutLog leaves out log lines.
func withoutLog(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, `{"level":`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// timeless replaces what differs from run to run, and with it the width of columns.
func (w *world) timeless(text string) string {
	for _, r := range []struct{ pattern, with string }{
		{regexp.QuoteMeta(w.dir), "DIR"},
		{regexp.QuoteMeta(w.settings["iam.endpoint"]), "ENDPOINT"},
		{`sdr-sync \S+ \(go[^)]*\)`, "sdr-sync VERSION (GO)"},
		{`"version": "[^"]*"`, `"version": "VERSION"`},
		{`"go": "[^"]*"`, `"go": "GO"`},
		{`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[.0-9]*(Z|[-+]\d\d:\d\d)`, "TIME"},
		{`20\d\d-\d\d-\d\d \d\d:\d\d:\d\d`, "TIME"},
		{`"(seconds|seconds_expected)": [0-9.e-]+`, `"$1": SECONDS`},
		{`\(\d+\.\d s\)`, "(SECONDS)"},
		{`(?m) +\d+\.\d( {2}|$)`, "  SECONDS  "},
		{`pages and [0-9msh]+;`, "pages and SECONDS;"},
		{`"raw": ".*"`, `"raw": "RAW"`},
		{`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`, "UUID"},
		{`[0-9a-f]{32}`, "DIGEST"},
		{`(\S) {3,}`, "$1  "}, // columns are as wide as their widest
		{`(?m) +$`, ""},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return text
}

// doctor says of each dependency whether it is well, and what to do.
func TestDoctor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*world)
		code   exitCode
		says   []string
	}{
		{"all is well", func(*world) {}, exitOK, []string{"ok    configuration", "ok    landing.dir", "ok    parquet.dir", "ok    schema", "ok    roles", "ok    IAM", "ok    ESM"}},
		{
			"a wrong password", func(w *world) { w.settings["iam.password"] = "Wr0ng-and-secret" }, exitCredentials,
			[]string{"FAIL  IAM", "status 401", "ok    schema"},
		},
		{"a wrong tenant", func(w *world) { w.settings["esm.domain_id"] = "f" }, exitCredentials, []string{"ok    IAM", "FAIL  ESM", "status 403"}},
		{"settings are missing", func(w *world) { delete(w.settings, "iam.user") }, exitUsage, []string{"FAIL  configuration", "iam.user", "ok    schema"}},
		{"an unknown key", func(w *world) { w.settings["sync.paralel"] = "4" }, exitUsage, []string{"FAIL  configuration", "sync.paralel"}},
		{
			"no migration yet", func(w *world) {
				administer(w.t, w.admin, "DROP SCHEMA sdr_sync CASCADE")
			}, exitUsage,
			[]string{"FAIL  schema", "sdr-sync migrate", "ok    ESM"},
		},
		{
			"the database is down", func(w *world) { w.settings["postgres.url"] = "postgres://u@127.0.0.1:9/x" }, exitIncomplete,
			[]string{"FAIL  postgres.url", "connection refused"},
		},
		{
			"no right to write", func(w *world) {
				w.settings["postgres.url"] = strings.Replace(w.admin, "//postgres@", "//sdr_sync_reader@", 1)
				administer(w.t, w.admin, "ALTER ROLE sdr_sync_reader LOGIN")
			}, exitIncomplete,
			[]string{"FAIL"},
		},
		{
			"a folder that is a file", func(w *world) {
				closeAll(create(w.t, filepath.Join(w.dir, "file")))
				w.settings["landing.dir"] = filepath.Join(w.dir, "file")
			}, exitIncomplete,
			[]string{"FAIL  landing.dir"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.t = t
			c.change(w)
			f := w.want(c.code, "doctor")
			contains(t, f.out+f.err, c.says...)
			w.hides(f)
			j := w.want(c.code, "doctor", "--output", "json")
			if !json.Valid([]byte(j.out)) {
				t.Errorf("no JSON alone: %s", j)
			}
			if n := w.vendor.Stats().JobsCreated; n != 0 {
				t.Errorf("doctor created %d jobs", n)
			}
			if left := files(t, w.dir); len(left) > 2 {
				t.Errorf("doctor left files: %v", left)
			}
		})
	}
}

// What init writes is a configuration: with the required keys from the environment, doctor is content with it.
func TestInit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	path := filepath.Join(w.dir, "fresh.yaml")
	f := start(t, nil, []string{"init", path}).wait()
	if f.code != exitOK {
		t.Fatal(f)
	}
	contains(t, f.out, path, "sdr-sync doctor")
	var environ []string
	for key, value := range w.settings {
		environ = append(environ, envName(key)+"="+strings.Trim(value, "[]"))
	}
	f = start(t, environ, []string{"--config", path, "doctor"}).wait()
	if f.code != exitOK {
		t.Errorf("doctor: %s", f)
	}
	before := read(t, path)
	if f := start(t, nil, []string{"init", path}).wait(); f.code != exitUsage || read(t, path) != before {
		t.Errorf("init over a file that exists: %s", f)
	}
	if f := start(t, []string{envPrefix + "SYNC_LOOKBAK=7d"}, []string{"--config", path, "status"}).wait(); f.code != exitUsage || !strings.Contains(f.err, "SDR_SYNC_SYNC_LOOKBAK") {
		t.Errorf("an unknown variable: %s", f)
	}
}

// psql reads as a reader, who can't write; the other roles can do their share.
func TestPsql(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.want(exitOK, w.backfill()...)
	records := w.one("SELECT count(*) FROM billing.sdr")
	for _, c := range []struct {
		name string
		args []string
		code exitCode
		out  string
		err  string
	}{
		{"a reader reads", []string{"psql", "--", "-At", "-c", "SELECT count(*) FROM billing.sdr"}, exitOK, records, ""},
		{"a reader reads the daily sums", []string{"psql", "--", "-At", "-c", "SELECT sum(records) FROM billing.usage_daily"}, exitOK, records, ""},
		{"a reader can't write", []string{"psql", "--", "-c", "DELETE FROM billing.sdr"}, exitIncomplete, "", "permission denied"},
		{"a reader can't truncate", []string{"psql", "--", "-c", "TRUNCATE billing.sdr"}, exitIncomplete, "", "permission denied"},
		{"a reader can't see the ledger", []string{"psql", "--", "-c", "SELECT * FROM sdr_sync.window"}, exitIncomplete, "", "permission denied"},
		{"a writer sees the ledger", []string{"psql", "--role", "writer", "--", "-At", "-c", "SELECT count(*) FROM sdr_sync.window"}, exitOK, "4", ""},
		{"a writer can't drop", []string{"psql", "--role", "writer", "--", "-c", "DROP TABLE billing.sdr"}, exitIncomplete, "", "must be owner"},
		{"an unknown role", []string{"psql", "--role", "god"}, exitUsage, "", "reader, writer or owner"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := inProcessOf(t, w, c.args)
			if f.code != c.code || strings.TrimSpace(f.out) != c.out || !strings.Contains(f.err, c.err) {
				t.Errorf("want exit %d, %q and %q, got %s", c.code, c.out, c.err, f)
			}
		})
	}
	if n := w.one("SELECT count(*) FROM billing.sdr"); n != records {
		t.Errorf("got %s records, there were %s", n, records)
	}
}

func inProcessOf(t *testing.T, w *world, args []string) finished {
	t.Helper()
	return inProcess(t, t.Context(), append([]string{"--config", w.configure()}, args...))
}

// The stand-in vendor prints what the program needs to reach it; with that, a backfill works.
func TestSandboxCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	server := start(t, nil, []string{"sandbox", "--listen", "127.0.0.1:0", "--resources", "1", "--today", someday, "--fault", "page:2:reset"})
	var said string
	until(t, "the sandbox says where it is", func() bool {
		said = read(t, server.out)
		return strings.Contains(said, "sdr-sync backfill")
	})
	environ := []string{envPrefix + "POSTGRES_URL=" + w.database, envPrefix + "PARQUET_DIR=" + w.lake(), envPrefix + "LANDING_DIR=" + w.settings["landing.dir"]}
	for _, word := range strings.Fields(said) {
		if strings.HasPrefix(word, envPrefix) {
			environ = append(environ, word)
		}
	}
	empty := filepath.Join(w.dir, "empty.yaml")
	closeAll(create(t, empty))
	if f := start(t, environ, []string{"--config", empty, "backfill", "--from", "2024-03", "--to", "2024-03", "--today", someday}).wait(); f.code != exitOK {
		t.Fatal(f)
	}
	c := sandbox.DefaultConfig()
	c.Resources, c.Today = 1, w.today.now
	w.open(c) // the same vendor, here, to compare with
	w.proof("2024-03-01", "2024-04-01")

	for _, args := range [][]string{{"--fault", "page:now:explode"}, {"--today", "soon"}, {"--keys", "kebab"}, {"--scope", "a b"}} {
		if f := start(t, nil, append([]string{"sandbox", "--listen", "127.0.0.1:0"}, args...)).wait(); f.code != exitUsage {
			t.Errorf("sandbox %v: want exit 2, got %s", args, f)
		}
	}
}

// Completion, help and the root command itself work without any configuration.
func TestWithoutConfiguration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code exitCode
		says string
	}{
		{[]string{}, exitOK, "Available Commands"},
		{[]string{"--help"}, exitOK, "exactly once"},
		{[]string{"completion", "bash"}, exitOK, "sdr-sync"},
		{[]string{"completion", "zsh"}, exitOK, "sdr-sync"},
		{[]string{"lease"}, exitOK, "release"},
		{[]string{"help", "backfill"}, exitOK, "--reslice"},
		{[]string{"completion", "tcsh"}, exitUsage, ""},
		{[]string{"--config", "/nowhere/sdr-sync.yaml", "status"}, exitUsage, ""},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			f := inProcess(t, t.Context(), c.args)
			if f.code != c.code || !strings.Contains(f.out, c.says) || f.out+f.err == "" {
				t.Errorf("want exit %d and %q, got %s", c.code, c.says, f)
			}
		})
	}
}

// The migrations go back and forth, and twice at once.
func TestMigrateCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.settings["postgres.url"] = w.admin
	contains(t, w.want(exitOK, "migrate").out, "up to date")
	contains(t, w.want(exitOK, "migrate", "--to", "0").out, "ran 0001_")
	contains(t, w.want(exitUsage, "status").err, "sdr-sync migrate")
	done := make(chan finished)
	for range 2 {
		p := w.start("migrate")
		go func() { done <- p.wait() }()
	}
	for range 2 {
		if f := <-done; f.code != exitOK {
			t.Errorf("two at once: %s", f)
		}
	}
	w.settings["postgres.url"] = w.database
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	administer(t, w.admin, "INSERT INTO sdr_sync.goose_db_version (version_id, is_applied) VALUES (9999, true)")
	contains(t, w.want(exitUsage, "nightly", "--today", someday).err, "install the newer sdr-sync")
}
