package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/migrations"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

// versions are the numbers of all migrations.
func versions(t *testing.T) []int64 {
	t.Helper()
	names, err := fs.Glob(migrations.Files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var all []int64
	for _, name := range names {
		number, err := strconv.ParseInt(name[:4], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, number)
	}
	return all
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	d := &database{DB: openURL(t, url), url: url, admin: adminPool(t, url)}
	run := func(version int64, want int) {
		t.Helper()
		migrate.Lock()
		defer migrate.Unlock()
		names, err := d.Migrate(t.Context(), version)
		if err != nil {
			t.Fatalf("to %d: %v", version, err)
		}
		if len(names) != want {
			t.Errorf("to %d: got %q, want %d migrations", version, names, want)
		}
	}
	objects := func() []string {
		return list[string](t, d, `
			SELECT concat_ws(' ', relkind, oid::regclass, relowner::regrole, relacl) FROM pg_class
			WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('sdr_sync', 'billing')) ORDER BY 1`)
	}

	all := versions(t)
	run(-1, len(all))
	full := objects()
	if len(full) < 10 {
		t.Fatalf("only these objects are there: %q", full)
	}
	run(-1, 0)
	d.exec(t, "SELECT sdr_sync.ensure_partition('billing.sdr', '2024-03-05')")
	run(0, len(all))
	if rest := objects(); len(rest) != 3 { // goose's own table, its key and its sequence
		t.Errorf("after going down: got %q", rest)
	}
	run(-1, len(all))
	checkEqual(t, "objects after down and up", objects(), full)
	for i := len(all) - 1; i > 1; i-- { // each step down and up
		before := objects()
		run(all[i-1], 1)
		run(all[i], 1)
		checkEqual(t, fmt.Sprintf("objects after %d went down and up", all[i]), objects(), before)
		run(all[i-1], 1)
	}
	if public := list[string](t, d, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"); len(public) > 0 {
		t.Errorf("in public: %q", public)
	}
}

func TestMigrateFourAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	db := openURL(t, url)
	migrate.Lock()
	defer migrate.Unlock()
	var wg sync.WaitGroup
	ran := make([]int, 4)
	errs := make([]error, 4)
	for i := range 4 {
		wg.Go(func() {
			var names []string
			names, errs[i] = db.Migrate(t.Context(), -1)
			ran[i] = len(names)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if sum, want := ran[0]+ran[1]+ran[2]+ran[3], len(versions(t)); sum != want {
		t.Errorf("got %v migrations, want %d in all", ran, want)
	}
	if err := db.CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
}

// Roles belong to the cluster, so these tests have one of their own.
func TestMigrateRoles(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "sdr-sync-cluster-") // run as root, the server is another user's, and must pass
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	server, err := private.Start(t.Context(), private.Config{DataDir: filepath.Join(dir, "pg"), UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := pgx.Connect(t.Context(), server.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	do := func(t *testing.T, statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	dropRoles := func(t *testing.T) {
		t.Helper()
		do(t, "DROP ROLE sdr_sync_writer; DROP ROLE sdr_sync_reader; DROP ROLE sdr_sync_owner")
	}
	for name, prepare := range map[string]string{
		"no roles are there":         "SELECT",
		"roles without memberships":  "CREATE ROLE sdr_sync_owner; CREATE ROLE sdr_sync_writer; CREATE ROLE sdr_sync_reader",
		"and once more, for luck":    "CREATE ROLE sdr_sync_owner; CREATE ROLE sdr_sync_writer; CREATE ROLE sdr_sync_reader",
		"only the reader is missing": "CREATE ROLE sdr_sync_owner; CREATE ROLE sdr_sync_writer",
	} {
		t.Run("three databases at once, "+name, func(t *testing.T) {
			do(t, prepare)
			dbs := make([]*postgres.DB, 3)
			for i := range dbs {
				do(t, fmt.Sprintf("CREATE DATABASE d%d", i))
				// Nobody may make temporary tables: the migration has to grant it, in each database.
				do(t, fmt.Sprintf("REVOKE TEMPORARY ON DATABASE d%d FROM PUBLIC", i))
				dbs[i] = openURL(t, server.URL("postgres", fmt.Sprintf("d%d", i)))
			}
			errs := make([]error, len(dbs))
			var wg sync.WaitGroup
			for i, db := range dbs {
				wg.Go(func() { _, errs[i] = db.Migrate(t.Context(), -1) })
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			for i, db := range dbs {
				if err := db.CheckPrivileges(t.Context()); err != nil {
					t.Error(err)
				}
				db.Close()
				do(t, fmt.Sprintf("DROP DATABASE d%d WITH (FORCE)", i))
			}
			dropRoles(t)
		})
	}

	// A login that may create roles needs nobody. One that only owns the database is told what to have done, step by step.
	do(t, "CREATE ROLE sdr_sync LOGIN")
	for name, test := range map[string]struct {
		option string
		steps  int
	}{"may create roles": {"CREATEROLE", 0}, "only owns the database": {"NOCREATEROLE", 4}} {
		t.Run("a login that "+name, func(t *testing.T) {
			do(t, "CREATE DATABASE d OWNER sdr_sync")
			do(t, "ALTER ROLE sdr_sync "+test.option)
			db := openURL(t, server.URL("sdr_sync", "d"))
			steps := 0
			for {
				_, err := db.Migrate(t.Context(), -1)
				if err == nil {
					break
				}
				_, statement, ok := strings.Cut(err.Error(), "Run as a superuser: ")
				if !ok || steps == 10 {
					t.Fatalf("step %d: %v", steps, err)
				}
				do(t, statement)
				steps++
			}
			if steps != test.steps {
				t.Errorf("it took %d steps, want %d", steps, test.steps)
			}
			if err := errors.Join(db.CheckSchema(t.Context()), db.CheckPrivileges(t.Context())); err != nil {
				t.Error(err)
			}
			db.Close()
			do(t, "DROP DATABASE d WITH (FORCE)")
			dropRoles(t)
		})
	}
}

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	if err := d.CheckSchema(t.Context()); err != nil {
		t.Errorf("newest: %v", err)
	}
	tests := []struct {
		name string
		make func(t *testing.T)
		want []string
	}{
		{"newer", func(t *testing.T) {
			d.exec(t, "INSERT INTO sdr_sync.goose_db_version (version_id, is_applied) VALUES (99, true)")
			t.Cleanup(func() {
				d.admin.Exec(context.Background(), "DELETE FROM sdr_sync.goose_db_version WHERE version_id = 99")
			})
		}, []string{"99", "install the newer sdr-sync"}},
		{"older", func(t *testing.T) { mustMigrate(t, d, 2) }, []string{"version 2", "sdr-sync migrate"}},
		{"taken back", func(t *testing.T) { mustMigrate(t, d, 0) }, []string{"version 0", "sdr-sync migrate"}},
		{"never migrated", func(t *testing.T) { d.exec(t, "DROP SCHEMA sdr_sync CASCADE") }, []string{"version 0", "sdr-sync migrate"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.make(t)
			err := d.CheckSchema(t.Context())
			if !errors.Is(err, postgres.ErrSchemaVersion) {
				t.Fatalf("got %v, want ErrSchemaVersion", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, which does not say %q", err, want)
				}
			}
		})
	}
}

// The table of a new stream has a number below that of the views, so a database may lack it in the middle.
func TestMigrateOutOfOrder(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	s := schemas.ByName("physical_capacity")
	names, err := fs.Glob(migrations.Files, "*_"+s.Name+".sql")
	if err != nil || len(names) != 1 {
		t.Fatalf("got the migrations %q (%v)", names, err)
	}
	d.exec(t, "DROP TABLE "+s.Table)
	d.exec(t, "DELETE FROM sdr_sync.goose_db_version WHERE version_id = "+names[0][:4])
	if err := d.CheckSchema(t.Context()); !errors.Is(err, postgres.ErrSchemaVersion) || !strings.Contains(err.Error(), "lacks migration") {
		t.Errorf("got %v, want that it lacks a migration", err)
	}
	migrate.Lock()
	defer migrate.Unlock()
	if ran, err := d.Migrate(t.Context(), -1); err != nil || len(ran) != 1 || ran[0] != names[0] {
		t.Errorf("got %q (%v), want %q alone", ran, err, names[0])
	}
	if err := d.CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
}

func mustMigrate(t *testing.T, d *database, version int64) {
	t.Helper()
	migrate.Lock()
	defer migrate.Unlock()
	if _, err := d.Migrate(t.Context(), version); err != nil {
		t.Fatal(err)
	}
}

func TestEverythingHasAComment(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	d.exec(t, "SELECT sdr_sync.ensure_partition('billing.sdr', '2024-03-05')")
	silent := list[string](t, d, `
		WITH ours AS (
			SELECT oid FROM pg_class
			WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace IN ('sdr_sync'::regnamespace, 'billing'::regnamespace) AND relname <> 'goose_db_version')
		SELECT oid::regclass::text FROM ours WHERE coalesce(obj_description(oid, 'pg_class'), '') = ''
		UNION ALL
		SELECT attrelid::regclass || '.' || attname FROM pg_attribute JOIN ours ON attrelid = oid
		WHERE attnum > 0 AND NOT attisdropped AND coalesce(col_description(attrelid, attnum), '') = ''
		UNION ALL
		SELECT nspname FROM pg_namespace WHERE nspname IN ('sdr_sync', 'billing') AND coalesce(obj_description(oid, 'pg_namespace'), '') = ''
		UNION ALL
		SELECT proname FROM pg_proc
		WHERE pronamespace IN ('sdr_sync'::regnamespace, 'billing'::regnamespace) AND coalesce(obj_description(oid, 'pg_proc'), '') = ''`)
	for _, name := range silent {
		t.Errorf("%s has no comment", name)
	}
}

func TestTablesFollowSchemas(t *testing.T) {
	t.Parallel()
	d := migrated(t, -1)
	types := map[schemas.Type]string{
		schemas.Text: "text", schemas.Timestamp: "timestamp with time zone", schemas.Decimal: "numeric(38,12)", schemas.JSON: "jsonb",
		schemas.Date: "date", schemas.Bigint: "bigint", schemas.Integer: "integer", schemas.UUID: "uuid",
		schemas.Float: "double precision",
	}
	const columns = `
		SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull::text, col_description(attrelid, attnum))
		FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`
	for _, s := range schemas.All() {
		t.Run(s.Name, func(t *testing.T) {
			var want []string
			for _, f := range slices.Concat(s.Derived, s.Fields) {
				required := f.Required || !s.IsList() && slices.ContainsFunc(s.Derived, func(d schemas.Field) bool { return d.Name == f.Name })
				want = append(want, fmt.Sprintf("%s %s %t %s", f.Name, types[f.Type], required, f.Comment()))
			}
			checkEqual(t, "columns of "+s.Table, list[string](t, d, columns, s.Table), want)
			if s.TimeField == "" {
				return
			}
			d.exec(t, "SELECT sdr_sync.ensure_partition('"+s.Table+"', '2024-03-05')")
			checkEqual(t, "columns of the partition", list[string](t, d, columns, s.Table+"_2024_03"), want)
		})
	}
}

func TestEnsurePartition(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	// From ten sides at once, in months that meet a year's end and a leap day.
	var wg sync.WaitGroup
	for i := range 10 {
		month := []string{"2023-12-31", "2024-01-01", "2024-02-29", "2024-12-15", "1999-02-28"}[i%5]
		wg.Go(func() {
			if _, err := d.admin.Exec(t.Context(), "SELECT sdr_sync.ensure_partition('billing.sdr', $1::date)", month); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := list[string](t, d, `
		SELECT c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE inhparent = 'billing.sdr'::regclass ORDER BY 1`)
	checkEqual(t, "partitions", got, []string{
		"sdr_1999_02 FOR VALUES FROM ('1999-02-01') TO ('1999-03-01')",
		"sdr_2023_12 FOR VALUES FROM ('2023-12-01') TO ('2024-01-01')",
		"sdr_2024_01 FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')",
		"sdr_2024_02 FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')",
		"sdr_2024_12 FOR VALUES FROM ('2024-12-01') TO ('2025-01-01')",
	})
}

// An archived month leaves the table for as long as it is archived; nothing that belongs into it is published meanwhile.
func TestArchiveMonth(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	_, owner := d.login(t, "sdr_sync_owner")
	_, writer := d.login(t, "sdr_sync_writer")
	records := append(someRecords(5), sdr("20240207000000", "late", "1"))
	d.publish(t, march, records)
	facts := d.facts(t)
	february := pipeline.Partition{Site: "hcso-213", Unit: pipeline.Month, From: date("2024-02")}
	const archive, restore = "SELECT sdr_sync.archive_month('2024-02-15')", "SELECT sdr_sync.restore_month('2024-02-29')"

	checkDenied(t, writer, archive, restore)
	if _, err := owner.Exec(t.Context(), archive); err == nil || !strings.Contains(err.Error(), "not in Parquet yet") {
		t.Errorf("a dirty month: got %v", err)
	}
	if _, err := owner.Exec(t.Context(), restore); err == nil || !strings.Contains(err.Error(), "not archived") {
		t.Errorf("restored too early: got %v", err)
	}
	checkEqual(t, "facts", d.facts(t), facts)
	d.export(t)
	checkAllowed(t, owner, archive)

	if n := query[int](t, d, "SELECT count(*)::int FROM billing.sdr"); n != 5 {
		t.Errorf("%d records are left, want 5", n)
	}
	d.checkClean(t)
	states, err := d.Store(stream).Partitions(t.Context())
	if err != nil || len(states) != 2 || !states[0].Archived || states[1].Archived {
		t.Errorf("got %+v (%v)", states, err)
	}
	err = d.Store(stream).ReadPartition(t.Context(), february, nil)
	if err == nil || !strings.Contains(err.Error(), "archived") {
		t.Errorf("reading it: got %v", err)
	}
	later := append(records[:len(records):len(records)], sdr("20240208000000", "later", "1"))
	d.checkUntouched(t, d.replacement(d.prepare(t, march, later)), says("As sdr_sync_owner: SELECT sdr_sync.restore_month('2024-02-01');"))

	p := d.prepare(t, march, records)
	for _, replay := range []bool{false, true} { // content that is published already needs no partition
		r := d.replacement(p)
		r.Replay = replay
		if o, err := replace(t.Context(), d.DB, r); err != nil || !o[0].Unchanged {
			t.Errorf("the same content again, replayed %t: got %+v (%v)", replay, o, err)
		}
	}

	checkAllowed(t, owner, restore)
	checkEqual(t, "facts after the restoration", d.facts(t), facts)
	if o := d.publish(t, march, later); o.Inserted != 1 || o.Deleted != 0 {
		t.Errorf("got %+v", o)
	}
}
