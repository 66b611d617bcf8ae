package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

// logins numbers the logins of this binary's one cluster.
var logins atomic.Int64

// login makes a login in the role and returns the database as it sees it.
func (d *database) login(t *testing.T, role string) (url string, pool *pgxpool.Pool) {
	t.Helper()
	name := fmt.Sprintf("%s_%d", role, logins.Add(1))
	d.exec(t, "CREATE ROLE "+name+" LOGIN IN ROLE "+role)
	t.Cleanup(func() { d.admin.Exec(context.Background(), "DROP ROLE "+name) })
	url = asRole(t, d.url, name)
	return url, adminPool(t, url)
}

// checkDenied wants Postgres to refuse each statement for lack of privileges.
func checkDenied(t *testing.T, pool *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		_, err := pool.Exec(t.Context(), statement)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "42501" {
			t.Errorf("%s: got %v, want insufficient_privilege", statement, err)
		}
	}
}

func checkAllowed(t *testing.T, pool *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

// ledgerTables are all tables of sdr_sync.
func (d *database) ledgerTables(t *testing.T) []string {
	t.Helper()
	return list[string](t, d, "SELECT format('sdr_sync.%I', relname) FROM pg_class WHERE relnamespace = 'sdr_sync'::regnamespace AND relkind = 'r' ORDER BY 1")
}

func TestReader(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	d.publish(t, march, append(someRecords(3), `{"begin_time":"never"}`))
	_, reader := d.login(t, "sdr_sync_reader")
	var facts, sums int64
	if err := reader.QueryRow(t.Context(), "SELECT count(*), (SELECT sum(records)::bigint FROM billing.usage_daily) FROM billing.sdr").Scan(&facts, &sums); err != nil {
		t.Fatal(err)
	}
	if facts != 3 || sums != 3 {
		t.Errorf("the reader sees %d records and sums of %d, want 3 and 3", facts, sums)
	}
	for _, table := range d.ledgerTables(t) {
		checkDenied(t, reader, "SELECT FROM "+table, "DELETE FROM "+table)
	}
	checkDenied(
		t, reader,
		"INSERT INTO billing.sdr (site) VALUES ('x')", "UPDATE billing.sdr SET site = 'x'", "DELETE FROM billing.sdr", "TRUNCATE billing.sdr",
		"DROP TABLE billing.sdr", "DROP VIEW billing.usage_daily", "DROP TABLE billing.sdr_2024_03", "CREATE TABLE billing.mine (x int)",
		"CREATE TABLE sdr_sync.mine (x int)", "SELECT sdr_sync.ensure_partition('billing.sdr', '2030-01-01')", "SELECT nextval('sdr_sync.lease_token')",
		"CREATE INDEX ON billing.sdr (tag)", "COMMENT ON TABLE billing.sdr IS 'mine'",
	)
}

// The login is the one that the private Postgres gives to the program.
func TestWriter(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	if err := d.CreateWriterLogin(t.Context(), "sdr_sync"); err != nil {
		t.Fatal(err)
	}
	if err := d.CreateWriterLogin(t.Context(), "sdr_sync"); err != nil {
		t.Errorf("again: %v", err)
	}
	url := pgtest.Server(t).URL("sdr_sync", query[string](t, d, "SELECT current_database()::text"))
	pool := adminPool(t, url)
	var who string
	if err := pool.QueryRow(t.Context(), "SELECT session_user || ' ' || rolsuper FROM pg_roles WHERE rolname = session_user").Scan(&who); err != nil || who != "sdr_sync false" {
		t.Fatalf("connected as %q (%v)", who, err)
	}

	// All that a run does.
	w := *d
	w.DB = openURL(t, url)
	ctx := t.Context()
	if err := errors.Join(w.CheckSchema(ctx), w.CheckPrivileges(ctx), w.Pin(ctx, "domain_id", "d-1"), w.Repin(ctx, "domain_id", "d-2")); err != nil {
		t.Error(err)
	}
	if _, err := w.Store(stream).PinLake(ctx, "lake"); err != nil {
		t.Error(err)
	}
	var err error
	if w.run, err = w.StartRun(ctx, postgres.Run{Command: "nightly", Started: testNow}); err != nil {
		t.Fatal(err)
	}
	records := append(someRecords(30), `{"begin_time":"never"}`)
	w.publish(t, march, records)
	if o := w.publish(t, march, records); !o.Unchanged {
		t.Errorf("the same again: got %+v", o)
	}
	if o := w.publish(t, march, append(someRecords(29), sdr("20240401000000", "vm", "1"))); !o.Restated || o.Inserted != 1 || o.Deleted != 1 {
		t.Errorf("restated: got %+v", o)
	}
	r := w.replacement(w.prepare(t, window(north, "2024-03-01", "2024-03-02"), someRecords(29)))
	r.Retire = w.windows(t, north)
	w.mustReplace(t, r)
	states, err := w.Store(stream).Partitions(ctx)
	if err != nil || len(states) != 2 {
		t.Fatalf("partitions: got %v (%v)", states, err)
	}
	for _, s := range states {
		readPartition(t, w.DB, s.Partition)
		if err := w.Store(stream).MarkExported(ctx, s.Partition, s.DirtySeq, pipeline.FileFacts{Rows: 1}); err != nil {
			t.Error(err)
		}
	}
	if err := w.FinishRun(ctx, w.run, 0, "done"); err != nil {
		t.Error(err)
	}

	// And what no run may do.
	checkDenied(
		t, pool,
		"UPDATE billing.sdr SET site = 'x'", "TRUNCATE billing.sdr", "DROP TABLE billing.sdr", "DROP TABLE billing.sdr_2024_03",
		"ALTER TABLE billing.sdr ADD COLUMN x int", "ALTER TABLE billing.sdr_2024_03 ADD COLUMN x int", "ALTER TABLE billing.sdr DETACH PARTITION billing.sdr_2024_03",
		"CREATE TABLE billing.sdr_2031_01 PARTITION OF billing.sdr FOR VALUES FROM ('2031-01-01') TO ('2031-02-01')", "CREATE TABLE billing.mine (x int)",
		"CREATE TABLE sdr_sync.mine (x int)", "DELETE FROM billing.sdr_2024_03", "UPDATE sdr_sync.restatement SET deleted = 0", "DELETE FROM sdr_sync.restatement",
		"DELETE FROM sdr_sync.run", "DELETE FROM sdr_sync.job", "DELETE FROM sdr_sync.window", "DELETE FROM sdr_sync.pin", "DELETE FROM sdr_sync.partition",
		"UPDATE sdr_sync.quarantine SET reason = ''", "UPDATE sdr_sync.usage_rollup SET records = 0", "INSERT INTO sdr_sync.goose_db_version (version_id, is_applied) VALUES (9, true)",
		"TRUNCATE sdr_sync.run CASCADE", "DROP FUNCTION sdr_sync.ensure_partition(text, date)", "SET ROLE sdr_sync_owner",
	)
	checkAllowed(t, pool, "SELECT sdr_sync.ensure_partition('billing.sdr', '2031-01-01')")
	if owner := query[string](t, d, "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'billing.sdr_2031_01'::regclass"); owner != "sdr_sync_owner" {
		t.Errorf("the new partition belongs to %s", owner)
	}
}

// A search path or a temporary table of the caller must not lead the owner's function astray.
func TestEnsurePartitionTrustsNobody(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	_, writer := d.login(t, "sdr_sync_writer")
	conn, err := writer.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, statement := range []string{
		"CREATE TEMPORARY TABLE sdr (LIKE billing.sdr)", "CREATE FUNCTION pg_temp.to_char(date, text) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$",
		"SET search_path = pg_temp, public", "SET DateStyle = 'SQL, DMY'", "SET timezone = 'Pacific/Apia'", "SELECT sdr_sync.ensure_partition('billing.sdr', '2011-12-30')",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	got := query[string](t, d, "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'billing.sdr_2011_12'::regclass")
	if want := "FOR VALUES FROM ('2011-12-01') TO ('2012-01-01')"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOwner(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	d.publish(t, march, someRecords(3))
	strangers := list[string](t, d, `
		SELECT oid::regclass::text FROM pg_class
		WHERE relnamespace IN ('sdr_sync'::regnamespace, 'billing'::regnamespace) AND relowner <> 'sdr_sync_owner'::regrole AND relname !~ '^goose_db_version'
		UNION ALL SELECT proname FROM pg_proc
		WHERE pronamespace IN ('sdr_sync'::regnamespace, 'billing'::regnamespace) AND proowner <> 'sdr_sync_owner'::regrole
		UNION ALL SELECT nspname FROM pg_namespace WHERE nspname IN ('sdr_sync', 'billing') AND nspowner <> 'sdr_sync_owner'::regrole`)
	if len(strangers) > 0 {
		t.Errorf("not the owner's: %s", strings.Join(strangers, ", "))
	}
	if public := list[string](t, d, `
		SELECT proname FROM pg_proc WHERE pronamespace IN ('sdr_sync'::regnamespace, 'billing'::regnamespace) AND has_function_privilege('public', oid, 'EXECUTE')`); len(public) > 0 {
		t.Errorf("anybody may call %q", public)
	}
	_, owner := d.login(t, "sdr_sync_owner")
	checkAllowed(t, owner, "UPDATE billing.sdr SET tag = 'x'", "ALTER TABLE billing.sdr DETACH PARTITION billing.sdr_2024_03", "DROP TABLE billing.sdr_2024_03", "DELETE FROM sdr_sync.restatement")
}

func TestCheckPrivileges(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	url, _ := d.login(t, "sdr_sync_reader")
	err := openURL(t, url).CheckPrivileges(t.Context())
	if err == nil || !strings.Contains(err.Error(), "GRANT sdr_sync_writer TO") {
		t.Errorf("got %v, want the statement that helps", err)
	}
}
