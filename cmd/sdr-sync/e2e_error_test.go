package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

// closedPort returns an address on this machine at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// What is wrong before anything is touched: the code, and a text that says what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		mistake func(*testing.T, *world)
		args    []string // nightly, if empty
		code    exitCode
		says    []string
	}{
		{
			name:    "an unknown key",
			mistake: func(_ *testing.T, w *world) { w.settings["sync.lookbak"] = "7d" },
			code:    exitUsage, says: []string{"unknown key sync.lookbak", "did you mean sync.lookback?"},
		},
		{
			name: "several missing settings",
			mistake: func(_ *testing.T, w *world) {
				maps.DeleteFunc(w.settings, func(key, _ string) bool { return strings.HasPrefix(key, "iam.") || strings.HasPrefix(key, "esm.") })
			},
			code: exitUsage,
			says: []string{"iam.endpoint", "iam.user", "iam.password", "iam.domain", "iam.project", "esm.endpoint", "esm.domain_id", "esm.scopes", "SDR_SYNC_IAM_PASSWORD"},
		},
		{
			name:    "several values out of range",
			mistake: func(_ *testing.T, w *world) { w.settings["sync.parallel"], w.settings["sync.window"] = "0", "week" },
			code:    exitUsage, says: []string{"sync.parallel", "sync.window"},
		},
		{
			name:    "plain http to another machine",
			mistake: func(_ *testing.T, w *world) { w.settings["esm.endpoint"] = "http://esm.example.com" },
			code:    exitUsage, says: []string{"esm.endpoint"},
		},
		{
			name:    "an endpoint that nobody serves",
			mistake: func(t *testing.T, w *world) { w.settings["iam.endpoint"] = "http://" + closedPort(t) },
			code:    exitIncomplete, says: []string{"connection refused", "gave up after"},
		},
		{
			name:    "a wrong password",
			mistake: func(_ *testing.T, w *world) { w.settings["iam.password"] = "Wr0ng-and-secret" },
			code:    exitCredentials, says: []string{"status 401", "lock the account"},
		},
		{
			name:    "a wrong domain",
			mistake: func(_ *testing.T, w *world) { w.settings["iam.domain"] = "another-operator" },
			code:    exitCredentials, says: []string{"status 401"},
		},
		{
			name:    "another tenant's domain_id",
			mistake: func(_ *testing.T, w *world) { w.settings["esm.domain_id"] = "ffffffffffffffffffffffffffffffff" },
			code:    exitCredentials, says: []string{"status 403"},
		},
		{
			name:    "a database that was never migrated",
			mistake: func(t *testing.T, w *world) { w.settings["postgres.url"] = pgtest.Database(t) },
			code:    exitUsage, says: []string{"run `sdr-sync migrate`"},
		},
		{
			name: "a database that is down",
			mistake: func(t *testing.T, w *world) {
				w.settings["postgres.url"] = "postgres://sdr@" + closedPort(t) + "/billing"
			},
			code: exitIncomplete, says: []string{"reach the database", "connection refused"},
		},
		{
			name:    "a wrong database password",
			mistake: func(t *testing.T, w *world) { w.settings["postgres.url"] = refusingDatabase(t) },
			code:    exitCredentials, says: []string{"password authentication failed"},
		},
		{
			name:    "a database URL that is none",
			mistake: func(_ *testing.T, w *world) { w.settings["postgres.url"] = "postgres://sdr:hunter2@db:port/x" },
			code:    exitUsage, says: []string{"postgres.url"},
		},
		{
			name: "a scope that is not configured",
			args: []string{"nightly", "--scope", "hcso-999/nowhere"},
			code: exitUsage, says: []string{"hcso-999/nowhere", "is not among esm.scopes"},
		},
		{
			name: "no flags for a backfill", args: []string{"backfill"}, code: exitUsage, says: []string{"from", "to"},
		},
		{
			name: "a month that is none", args: []string{"backfill", "--from", "2024-13", "--to", "2024-14"}, code: exitUsage, says: []string{"--from", "2024-13"},
		},
		{
			name: "a span back in time", args: []string{"backfill", "--from", "2024-03", "--to", "2024-01"}, code: exitUsage, says: []string{"is after --to"},
		},
		{
			name: "an unknown unit to reslice by", args: []string{"backfill", "--from", "2024-03", "--to", "2024-03", "--reslice", "week"}, code: exitUsage, says: []string{"month or day"},
		},
		{
			name: "an unknown command", args: []string{"nightlie"}, code: exitUsage, says: []string{"nightlie"},
		},
		{
			name: "an unknown subcommand", args: []string{"quarantine", "empty"}, code: exitUsage, says: []string{"empty"},
		},
		{
			name: "an unknown flag", args: []string{"nightly", "--fast"}, code: exitUsage, says: []string{"--fast"},
		},
		{
			name: "an argument where none is due", args: []string{"nightly", "now"}, code: exitUsage, says: []string{"now"},
		},
		{
			name: "an unknown form of output", args: []string{"status", "--output", "xml"}, code: exitUsage, says: []string{"--output", "text or json"},
		},
		{
			name: "a date that is none", args: []string{"nightly", "--today", "yesterday"}, code: exitUsage, says: []string{"today"},
		},
		{
			name: "a lease of nobody", args: []string{"lease", "release"}, code: exitUsage, says: []string{"--scope"},
		},
		{
			name: "a replay of nothing", args: []string{"replay"}, code: exitUsage, says: []string{"--all"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			good := maps.Clone(w.settings)
			if c.mistake != nil {
				c.mistake(t, w)
			}
			args := c.args
			if args == nil {
				args = []string{"nightly", "--today", someday}
			}
			f := w.want(c.code, args...)
			contains(t, f.err, c.says...)
			w.hides(f)
			if strings.Contains(f.err, "hunter2") {
				t.Errorf("the database's password shows: %s", f)
			}
			if f.out != "" && c.code == exitUsage {
				t.Errorf("a refused command prints %q on standard output", f.out)
			}
			if f.took > 25*time.Second {
				t.Errorf("it took %s to say so", f.took)
			}
			if calls := w.gate.count(sandbox.EndpointToken); c.code == exitCredentials && calls > 1 {
				t.Errorf("IAM was asked %d times: the account locks", calls)
			}
			if c.mistake == nil {
				return
			}
			// Once the mistake is mended, nothing remembers it.
			w.settings = good
			w.want(exitOK, "backfill", "--from", "2024-04", "--to", "2024-04", "--today", someday)
			w.proof("2024-04-01", someday)
		})
	}
}

// refusingDatabase returns the URL of a server that refuses every password, as Postgres does.
func refusingDatabase(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			refuse(conn)
		}
	}()
	return fmt.Sprintf("postgres://sdr:hunter2@%s/billing?sslmode=disable", l.Addr())
}

func refuse(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	backend.Send(&pgproto3.AuthenticationCleartextPassword{})
	if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	if _, err := backend.Receive(); err != nil {
		return
	}
	backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: `password authentication failed for user "sdr"`})
	_ = backend.Flush() // whoever hung up knows already
}

// Too many records that can't be normalised: nothing is published, and the reasons are shown.
func TestQuarantineThreshold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, func(c *sandbox.Config) { c.BadEvery = 3 })
	f := w.want(exitQuarantine, w.backfill()...)
	contains(t, f.err, "can't be normalised", "sync.quarantine_max", "bad_time", "bad_amount", "not_an_object", "page ")
	for _, what := range []string{"billing.sdr", "billing.usage_daily", "sdr_sync.quarantine", "sdr_sync.window"} {
		if n := w.one("SELECT count(*) FROM " + what); n != "0" {
			t.Errorf("half-published: %s holds %s rows", what, n)
		}
	}
	if lake := files(t, w.lake()); len(lake) > 0 {
		t.Errorf("half-published: the lake holds %v", lake)
	}
	w.want(exitQuarantine, w.backfill()...)
	w.settings["sync.quarantine_max"] = "60%"
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	w.want(exitOK, w.backfill()...) // which tidies away what was kept of the refused jobs
	w.noDebris()
}

// Far fewer records than are published: the old ones stay, and the message names the flag that publishes all the same.
func TestShrink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	w.want(exitOK, w.backfill()...)
	before := w.holdings()
	c := sandbox.DefaultConfig()
	c.Resources, c.Today, c.Seed, c.BadEvery = 1, w.today.now, 7, 700
	w.open(c)
	f := w.want(exitIncomplete, w.backfill("--refresh")...)
	contains(t, f.err, "--accept-shrink", "the published ones stay")
	sameAs(t, "the refused shrink", before, w.holdings())
	if got := w.jobStates(); got != "published published published published refused refused refused refused" {
		t.Errorf("jobs: got %q", got)
	}

	// The message's own command does it, window by window.
	command := regexp.MustCompile(`(backfill [^()]*--accept-shrink)\)`)
	for range 4 {
		hint := command.FindStringSubmatch(f.err)
		if hint == nil {
			t.Fatalf("no command is named: %s", f)
		}
		w.want(exitOK, append(strings.Fields(hint[1]), "--today", someday)...)
		f = w.run(w.backfill("--refresh")...)
	}
	if f.code != exitOK {
		t.Errorf("after accepting every shrink: %s", f)
	}
	w.proof(firstDay, someday)
	w.noDebris()
}

// One database and one lake belong to one domain_id.
func TestOtherDomain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.want(exitOK, w.backfill()...)
	before := w.fingerprintOfAll()
	w.settings["esm.domain_id"] = "ffffffffffffffffffffffffffffffff"
	contains(t, w.want(exitUsage, "nightly", "--today", someday).err, "domain_id", sandbox.DefaultDomainID, "nothing was touched")
	sameAs(t, "the refused run", before, w.fingerprintOfAll())

	delete(w.settings, "esm.domain_id")
	w.settings["esm.domain_id"], w.settings["parquet.partition"] = sandbox.DefaultDomainID, "day"
	contains(t, w.want(exitUsage, "nightly", "--today", someday).err, "parquet_partition", "nothing was touched")
	sameAs(t, "the refused run", before, w.fingerprintOfAll())
}

// A lake that another database feeds is left alone, and so is a folder that is no lake; the database too.
func TestForeignLake(t *testing.T) {
	t.Parallel()
	other := newWorld(t, 1)
	other.want(exitOK, other.backfill()...)
	foreign := other.holdings()

	w := newWorld(t, 1)
	own := w.lake()
	for _, c := range []struct{ name, dir, says string }{
		{"a database that is empty yet", other.lake(), "the lake does not belong to this configuration"},
		{"a folder of something else", "", "is no lake"},
	} {
		w.settings["parquet.dir"] = c.dir
		if c.dir == "" {
			w.settings["parquet.dir"] = t.TempDir()
			create(t, filepath.Join(w.settings["parquet.dir"], "precious.txt"))
		}
		f := w.want(exitUsage, w.backfill()...)
		contains(t, f.err, c.says)
		if n := w.one("SELECT count(*) FROM billing.sdr"); n != "0" {
			t.Errorf("%s: exit 2 means that nothing was touched, but %s records were published", c.name, n)
		}
	}
	w.settings["parquet.dir"] = own
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	before := w.holdings()
	w.vendor.AdvanceNight() // there is something to publish
	w.settings["parquet.dir"] = other.lake()
	contains(t, w.want(exitUsage, "nightly", "--today", someday).err, "the lake does not belong to this configuration")
	w.settings["parquet.dir"] = own
	sameAs(t, "a nightly into a foreign lake", before, w.holdings())
	sameAs(t, "the foreign lake", foreign, other.holdings())
}

// A lake that is gone is not silently begun anew; the message names what rebuilds it.
func TestLostLake(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.want(exitOK, w.backfill()...)
	whole := w.holdings()
	if err := os.RemoveAll(w.lake()); err != nil {
		t.Fatal(err)
	}
	contains(t, w.want(exitUsage, "nightly", "--today", someday).err, "export --all", "the lake is missing")
	contains(t, w.want(exitUsage, "export").err, "export --all")
	w.want(exitDifference, "verify")
	w.want(exitOK, "export", "--all")
	w.proof(firstDay, someday)
	w.want(exitOK, "verify")
	// Equal content gives equal bytes.
	for name, before := range whole {
		if after := w.holdings()[name]; strings.HasSuffix(name, ".parquet") && lastWord(before) != lastWord(after) {
			t.Errorf("%s: rebuilt with other bytes", name)
		}
	}
}

func lastWord(s string) string { return s[strings.LastIndexByte(s, ' ')+1:] }

// verified is what verify prints with --output json.
type verified struct {
	Verify struct {
		Differences []struct{ Where, What, Repair string }
	}
}

// repair runs verify, which must find something, and then the command that it names.
func (w *world) repair() {
	w.t.Helper()
	f := w.want(exitDifference, "verify", "--output", "json")
	var v verified
	if err := json.Unmarshal([]byte(f.out), &v); err != nil || len(v.Verify.Differences) == 0 {
		w.t.Fatalf("verify names no difference: %v %s", err, f)
	}
	for _, d := range v.Verify.Differences {
		w.t.Logf("%s: %s; repair: %s", d.Where, d.What, d.Repair)
	}
	text, _, _ := strings.Cut(v.Verify.Differences[0].Repair, ",")
	command, found := strings.CutPrefix(text, "sdr-sync ")
	if !found {
		w.t.Fatalf("the repair is no command: %q", text)
	}
	w.want(exitOK, strings.Fields(command)...)
	w.want(exitOK, "verify")
	w.proof(firstDay, someday)
}

// verify finds what somebody changed behind the program's back, and the command that it names repairs it.
func TestTampering(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		tamper func(*testing.T, *world)
	}{
		{"a byte of a file", func(t *testing.T, w *world) {
			path := filepath.Join(w.lake(), "sdr/site="+theScope.Site+"/usage_month=2024-02/data.parquet")
			content := []byte(read(t, path))
			content[len(content)/2] ^= 1
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"a file that is gone", func(t *testing.T, w *world) {
			if err := os.Remove(filepath.Join(w.lake(), "sdr/site="+theScope.Site+"/usage_month=2024-02/data.parquet")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a manifest that is gone", func(t *testing.T, w *world) {
			if err := os.Remove(w.manifestPath()); err != nil {
				t.Fatal(err)
			}
		}},
		{"an amount", tamperSQL(`UPDATE billing.sdr SET accumulate_factor_value = accumulate_factor_value + 1 WHERE ctid = (SELECT ctid FROM billing.sdr WHERE usage_date = '2024-02-10' AND accumulate_factor_value IS NOT NULL LIMIT 1) AND usage_date = '2024-02-10'`)},
		{"a text", tamperSQL(`UPDATE billing.sdr SET resource_id = 'somebody else' WHERE usage_date = '2024-02-10' AND ctid = (SELECT min(ctid) FROM billing.sdr WHERE usage_date = '2024-02-10')`)},
		{"a record that is gone", tamperSQL(`DELETE FROM billing.sdr WHERE usage_date = '2024-02-10' AND ctid = (SELECT min(ctid) FROM billing.sdr WHERE usage_date = '2024-02-10')`)},
		{"a record that stands twice", tamperSQL(`INSERT INTO billing.sdr SELECT (jsonb_populate_record(s, '{"ordinal": 77}')).* FROM billing.sdr s WHERE usage_date = '2024-02-10' LIMIT 1`)},
		{"a daily sum", tamperSQL(`UPDATE sdr_sync.usage_rollup SET accumulate_factor_value = accumulate_factor_value + 1 WHERE ctid = (SELECT min(ctid) FROM sdr_sync.usage_rollup)`)},
		{"a quarantined record", tamperSQL(`DELETE FROM sdr_sync.quarantine WHERE ctid = (SELECT min(ctid) FROM sdr_sync.quarantine)`)},
		{"a window's month", tamperSQL(`UPDATE billing.sdr SET begin_time = begin_time + interval '1 hour' WHERE usage_date = '2024-02-10' AND ctid = (SELECT min(ctid) FROM billing.sdr WHERE usage_date = '2024-02-10')`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.want(exitOK, w.backfill()...)
			w.want(exitOK, "verify")
			c.tamper(t, w)
			w.repair()
		})
	}
}

// tamperSQL changes rows as the superuser does who knows better.
func tamperSQL(statement string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		conn := connect(t, w.admin)
		defer func() { _ = conn.Close(t.Context()) }()
		tag, err := conn.Exec(t.Context(), statement)
		if err != nil || tag.RowsAffected() != 1 {
			t.Fatalf("%s: %v rows, error %v", statement, tag.RowsAffected(), err)
		}
	}
}

// A folder that can't take more ends the run with exit 3; nothing that was landed or published is lost, and with room a later run ends
// well.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"landing.dir", "parquet.dir"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 9)
			small := filepath.Join(w.dir, "small")
			if err := os.Mkdir(small, 0o700); err != nil {
				t.Fatal(err)
			}
			w.settings[key] = filepath.Join(small, "data")
			says, makeRoom := fill(t, small)
			for range 2 {
				contains(t, w.want(exitIncomplete, w.backfill()...).err, says)
			}
			makeRoom()
			w.want(exitOK, w.backfill()...)
			w.proof(firstDay, someday)
			w.noDebris()
		})
	}
}

// fill makes the folder a small disk. Only root can mount one; for others it becomes a folder that may not be written to.
func fill(t *testing.T, dir string) (says string, makeRoom func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		return "permission denied", func() {
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return "no space left on device", func() {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
			t.Fatal(err)
		}
	}
}
