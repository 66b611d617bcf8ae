package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

// relations are the tables and views of a schema, without partitions.
func (d *database) relations(t *testing.T, schema string) []string {
	t.Helper()
	return list[string](t, d, `SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition ORDER BY 1`, schema)
}

// session makes a login in the role and returns sessions whose user it is: unlike those of d.login, they can't take another role.
func (d *database) session(t *testing.T, role string) *pgxpool.Pool {
	t.Helper()
	name := fmt.Sprintf("%s_%d", role, logins.Add(1))
	d.exec(t, "CREATE ROLE "+name+" LOGIN IN ROLE "+role)
	t.Cleanup(func() { _, _ = d.admin.Exec(context.Background(), "DROP ROLE "+name) })
	config, err := pgxpool.ParseConfig(d.url)
	if err != nil {
		t.Fatal(err)
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET SESSION AUTHORIZATION "+name)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// The reader sees every table and view of billing, those of all lists included, and nothing else; it changes nothing.
func TestReaderOfEveryTable(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	reader := d.session(t, "sdr_sync_reader")
	billing := d.relations(t, "billing")
	for _, s := range schemas.All() {
		if !slices.Contains(billing, s.Table) {
			t.Errorf("%s is not among %v", s.Table, billing)
		}
	}
	for _, name := range billing {
		checkAllowed(t, reader, "SELECT * FROM "+name+" LIMIT 1")
		checkRefused(t, reader.Exec, "DELETE FROM "+name, "42501", "55000") // a view that can't be changed at all says so first
		checkRefused(t, reader.Exec, "INSERT INTO "+name+" DEFAULT VALUES", "42501", "55000")
	}
	for _, name := range d.relations(t, "sdr_sync") {
		checkDenied(t, reader, "SELECT FROM "+name, "DELETE FROM "+name, "TRUNCATE "+name)
	}
	for _, name := range list[string](t, d, "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'sdr_sync'::regnamespace") {
		if query[bool](t, d, "SELECT has_function_privilege('sdr_sync_reader', $1::text::regprocedure, 'EXECUTE')", name) {
			t.Errorf("the reader may call %s", name)
		}
	}
	checkDenied(
		t, reader, "CREATE TABLE billing.mine (x int)", "CREATE SCHEMA mine", "CREATE VIEW billing.mine AS SELECT 1", "SET ROLE sdr_sync_writer", "SET ROLE sdr_sync_owner",
		"CREATE FUNCTION billing.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", "COPY billing.subscription TO '/tmp/x'", "COPY billing.subscription FROM PROGRAM 'id'",
		"SELECT pg_read_file('/etc/passwd')", "CREATE ROLE mine", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
	)
}

// The writer writes rows and makes no objects: of no table of a list may it change what a row's shape, its owner or its triggers are.
func TestWriterOfEveryTable(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	writer := d.session(t, "sdr_sync_writer")
	for _, s := range schemas.All() {
		checkAllowed(t, writer, "SELECT * FROM "+s.Table+" LIMIT 1", "GRANT SELECT ON "+s.Table+" TO PUBLIC") // Postgres grants nothing then, and only warns
		if query[bool](t, d, "SELECT has_table_privilege('public', $1, 'SELECT')", s.Table) {
			t.Errorf("the writer lets everybody read %s", s.Table)
		}
		checkDenied(
			t, writer, "ALTER TABLE "+s.Table+" ADD COLUMN mine int", "DROP TABLE "+s.Table, "TRUNCATE "+s.Table, "CREATE INDEX ON "+s.Table+" ((1))",
			"CREATE TRIGGER mine BEFORE INSERT ON "+s.Table+" FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
			"CREATE RULE mine AS ON INSERT TO "+s.Table+" DO INSTEAD NOTHING", "ALTER TABLE "+s.Table+" OWNER TO CURRENT_USER",
		)
	}
	checkDenied(
		t, writer, "CREATE TABLE sdr_sync.mine (x int)", "CREATE TABLE billing.mine (x int)", "CREATE SCHEMA mine", "CREATE ROLE mine",
		"CREATE FUNCTION sdr_sync.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE OR REPLACE FUNCTION sdr_sync.ensure_partition(text, date) RETURNS void LANGUAGE sql AS ''",
		"ALTER FUNCTION sdr_sync.ensure_partition(text, date) RESET search_path", "SELECT sdr_sync.archive_month('2024-03-01')", "SELECT sdr_sync.restore_month('2024-03-01')",
		"UPDATE sdr_sync.goose_db_version SET version_id = 0", "DELETE FROM sdr_sync.archived_month", "ALTER ROLE sdr_sync_reader SUPERUSER", "GRANT sdr_sync_owner TO CURRENT_USER",
		"SELECT pg_read_file('/etc/passwd')", "COPY sdr_sync.run TO PROGRAM 'id'",
	)
}

// Each role as the server itself meets it, at the end of a connection of its own: none of them can log in until an administrator lets it, and
// then it is what it is and can become no other. Roles are the whole server's, so this test is not parallel to any other.
func TestRolesAtTheirOwnConnections(t *testing.T) {
	d := migrated(t, -1)
	d.publish(t, march, someRecords(3))
	for role, c := range map[string]struct{ may, mayNot []string }{
		"sdr_sync_reader": {
			[]string{"SELECT * FROM billing.sdr"},
			[]string{
				"SELECT FROM sdr_sync.run", "INSERT INTO billing.sdr (site) VALUES ('x')", "CREATE TABLE billing.mine (x int)", "CREATE TABLE public.mine (x int)",
				"SET ROLE sdr_sync_writer", "SET ROLE sdr_sync_owner", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres",
			},
		},
		"sdr_sync_writer": {
			[]string{"SELECT * FROM sdr_sync.run", "SELECT * FROM billing.sdr"},
			[]string{
				"UPDATE billing.sdr SET site = 'x'", "DROP TABLE billing.sdr", "CREATE TABLE sdr_sync.mine (x int)", "CREATE TABLE public.mine (x int)",
				"SET ROLE sdr_sync_owner", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres",
			},
		},
		"sdr_sync_owner": {
			[]string{"UPDATE billing.sdr SET tag = 'x'"},
			[]string{"CREATE ROLE mine", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "COPY billing.sdr TO '/tmp/x'", "SELECT pg_read_file('/etc/passwd')"},
		},
	} {
		t.Run(role, func(t *testing.T) {
			url := pgtest.Server(t).URL(role, query[string](t, d, "SELECT current_database()::text"))
			_, err := pgx.Connect(t.Context(), url)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "28000" {
				t.Errorf("connecting: got %v, want a role that is not permitted to log in", err)
			}
			d.exec(t, "ALTER ROLE "+role+" LOGIN")
			t.Cleanup(func() {
				if _, err := d.admin.Exec(context.Background(), "ALTER ROLE "+role+" NOLOGIN"); err != nil {
					t.Error(err)
				}
			})
			pool := adminPool(t, url)
			var who string
			err = pool.QueryRow(t.Context(), `SELECT concat_ws(' ', session_user, current_user, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication)
				FROM pg_roles WHERE rolname = session_user`).Scan(&who)
			if want := role + " " + role + " f f f f f"; err != nil || who != want {
				t.Errorf("connected as %q (%v), want %q", who, err, want)
			}
			checkAllowed(t, pool, c.may...)
			checkDenied(t, pool, c.mayNot...)
		})
	}
}

// Functions that run with their owner's rights take nothing from whoever calls them: no search path, no object, no text.
func TestDefinerFunctions(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	loose := list[string](t, d, `SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace IN ('sdr_sync'::regnamespace, 'billing'::regnamespace) AND prosecdef
		AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)`)
	if len(loose) > 0 {
		t.Errorf("%v run with their owner's rights in their caller's search path", loose)
	}
	if n := query[int64](t, d, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'sdr_sync'::regnamespace AND prosecdef"); n == 0 {
		t.Error("no such function was found, so this proves nothing")
	}
	before := list[string](t, d, "SELECT oid::regclass::text || relowner::regrole FROM pg_class ORDER BY 1")
	writer := d.session(t, "sdr_sync_writer")
	for _, parent := range []string{
		"", "sdr", "billing.", "billing.nothing", "billing.subscription", "billing.usage_daily", "sdr_sync.window", "pg_catalog.pg_class", "billing.sdr; DROP TABLE billing.sdr",
		`billing."sdr"`, "BILLING.SDR", "billing.sdr ", " billing.sdr", "billing.sdr'); DROP TABLE billing.sdr; --", "$$; DROP SCHEMA billing; $$", "%I", "billing.%s",
		strings.Repeat("x", 10_000), "billing.sdr\n--", "пример",
	} {
		checkRefused(t, func(ctx context.Context, sql string, _ ...any) (pgconn.CommandTag, error) {
			return writer.Exec(ctx, sql, parent)
		}, "SELECT sdr_sync.ensure_partition($1, '2024-03-01')", "P0001")
	}
	for _, month := range []string{"'infinity'", "'-infinity'"} {
		checkRefused(t, writer.Exec, "SELECT sdr_sync.ensure_partition('billing.sdr', "+month+")", "22008", "22004", "42P17", "22007")
	}
	for _, call := range []string{"SELECT sdr_sync.ensure_partition('billing.sdr', NULL)", "SELECT sdr_sync.ensure_partition(NULL, '2024-03-01')"} {
		checkRefused(t, writer.Exec, call, "22004", "P0001")
	}
	after := list[string](t, d, "SELECT oid::regclass::text || relowner::regrole FROM pg_class ORDER BY 1")
	if !slices.Equal(before, after) {
		t.Errorf("objects were made: %v", after)
	}
}

// What is read from records is a value wherever it goes in SQL: filters of the quarantine, names of codes and pins.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	hostile := []string{`'; DROP TABLE sdr_sync.run; --`, "$1", `\`, "%s", "..", "line\nbreak", "\u202eabc", strings.Repeat("'", 5000)}
	var records []string
	for _, text := range hostile {
		records = append(records, fmt.Sprintf(`{"begin_time":"20240301000000","resource_id":%q,"accumulate_factor_value":"1","accumulate_factor_name":%q}`, text, text))
	}
	for i := range records { // Go's quotes are not JSON's
		records[i] = strings.ReplaceAll(records[i], `\u202e`, "\u202e")
	}
	d.publish(t, march, records)
	for _, text := range hostile {
		if n := query[int64](t, d, "SELECT count(*) FROM billing.sdr WHERE resource_id = $1 AND accumulate_factor_name = $1", text); n != 1 {
			t.Errorf("%.30q stands %d times, want once", text, n)
		}
		if err := errors.Join(d.Pin(t.Context(), text, text), d.Repin(t.Context(), text, text+text)); err != nil {
			t.Errorf("pin %.30q: %v", text, err)
		}
	}
	if n := query[int64](t, d, "SELECT count(*) FROM sdr_sync.run"); n != 1 {
		t.Errorf("%d runs stand, want the test's one", n)
	}
}

// checkRefused wants Postgres to refuse a statement with one of the codes.
func checkRefused(t *testing.T, exec func(context.Context, string, ...any) (pgconn.CommandTag, error), statement string, codes ...string) {
	t.Helper()
	_, err := exec(t.Context(), statement)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || !slices.Contains(codes, pgErr.Code) {
		t.Errorf("%s: got %v, want one of %v", statement, err, codes)
	}
}
