package postgres_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/migrations"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// Damage that no check has found yet is mended by the next pull that differs; a history does not take it for a change.
func TestPullMendsDamage(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, deviceYAML, subscriptionYAML)
	for i, key := range []string{"user", "id"} {
		s := lists[i]
		d.pull(t, s, pull{rows: pairs(key, "a=1 b=2")})
		d.exec(t, "UPDATE "+s.Table+" SET value = 'x' WHERE value = '1'")
		if o := d.pull(t, s, pull{rows: pairs(key, "a=1 b=3"), created: testNow}); o.Changes != (pipeline.Changes{Changed: 1}) {
			t.Errorf("%s: got %+v, want b changed and nothing else", s.Name, o)
		}
		if n := query[int](t, d, "SELECT count(*)::int FROM "+s.Table+" WHERE value = '1'"); n != 1 {
			t.Errorf("%s: the damage was not mended", s.Name)
		}
	}
}

// The log has a line for each pull, whatever became of it, and readers see it.
func TestSnapshotLog(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, subscriptionYAML, alarmYAML)
	s := lists[0]
	at := func(minutes int) time.Time { return testNow.Add(time.Duration(minutes) * time.Minute) }
	d.pull(t, s, pull{rows: pairs("id", "a=1 b=2"), created: at(1), quarantined: []string{"{}"}})
	d.pull(t, s, pull{rows: pairs("id", "a=1 b=2"), created: at(2), quarantined: []string{"{}"}})
	refused := d.listReplacement(s, d.prepareList(t, s, pull{created: at(3)}))
	d.checkUntouched(t, refused, wantVanish(s, 2, 2))
	job := refused.Publish[0].Job
	job.State, job.Note = pipeline.StateRefused, "too much is gone"
	if err := d.UpdateJob(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	d.pull(t, s, pull{rows: pairs("id", "a=2 c=3"), created: at(4)})
	d.landedOf(t, s.Name, pipeline.WholeWindow(), at(5))
	d.pull(t, lists[1], pull{window: aprilAlarms}) // events are not in it

	_, reader := d.login(t, "sdr_sync_reader")
	rows, err := reader.Query(t.Context(), `
		SELECT concat_ws(' ', stream, (extract(epoch FROM taken_at - $1) / 60)::int, state, records, quarantined,
			'+' || appeared, '~' || changed, '<' || reappeared, '-' || disappeared, '?' || absent, 'g' || generation, note, CASE WHEN finished_at IS NULL THEN 'running' END)
		FROM billing.snapshot_log ORDER BY taken_at`, testNow)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
	checkEqual(t, "the log", got, []string{
		"test_subscriptions 1 published 2 1 +2 ~0 <0 -0 ?0 g1",
		"test_subscriptions 2 unchanged 2 1",
		"test_subscriptions 3 refused 0 0 too much is gone",
		"test_subscriptions 4 published 2 0 +1 ~1 <0 -0 ?1 g2",
		"test_subscriptions 5 landed 0 0 running",
	})
}

func TestLastSync(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, deviceYAML, noteYAML)
	name := lists[0].Name
	want := func(what string, want map[string]postgres.LastSync) {
		t.Helper()
		if got, err := d.LastSync(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v (%v), want %+v", what, got, err, want)
		}
	}
	want("before the first pull", map[string]postgres.LastSync{})
	d.pull(t, lists[0], pull{rows: pairs("user", "a=1 b=2")})
	good := postgres.LastSync{At: testNow, State: "published", Records: 2}
	want("a run under way", map[string]postgres.LastSync{name: good})
	d.exec(t, "UPDATE sdr_sync.run SET exit_code = 3")
	want("a run that failed elsewhere", map[string]postgres.LastSync{name: good})
	d.exec(t, "UPDATE sdr_sync.run SET exit_code = 0")
	good.Good = testNow
	want("a good run", map[string]postgres.LastSync{name: good})

	// A job that moved and was replaced leaves nothing to say; one that failed does, whatever came before.
	moved := d.landedOf(t, name, pipeline.WholeWindow(), testNow)
	moved.State = pipeline.StateMoved
	if err := d.UpdateJob(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	d.pull(t, lists[0], pull{rows: pairs("user", "a=1 b=2")})
	good.State = "unchanged"
	want("replaced", map[string]postgres.LastSync{name: good})
	failed := d.landedOf(t, name, pipeline.WholeWindow(), testNow)
	failed.State = pipeline.StateFailed
	if err := d.UpdateJob(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	want("failed", map[string]postgres.LastSync{name: {At: testNow, State: "failed", Records: 2}})
}

func TestDistinct(t *testing.T) {
	t.Parallel()
	d, _ := newLists(t, deviceYAML, noteYAML)
	d.exec(t, `
		INSERT INTO billing.test_device (natural_key, record_key, ordinal, first_seen, "user", value)
		SELECT gen_random_uuid(), gen_random_uuid(), 0, now(), u, v FROM (VALUES ('b', 'x'), ('B', 'x'), ('é', 'y'), ('a', ''), ('a''; --', NULL), ('', 'x'), ('b', 'y')) r (u, v)`)
	d.exec(t, `
		INSERT INTO billing.test_note (natural_key, record_key, ordinal, first_seen, value)
		SELECT gen_random_uuid(), gen_random_uuid(), 0, now(), v FROM (VALUES ('b'), ('c'), (NULL)) r (v)`)
	user, note := schemas.Column{Table: "billing.test_device", Column: "user"}, schemas.Column{Table: "billing.test_note", Column: "value"}
	where := func(values ...string) schemas.Column {
		c := user
		c.Where = map[string][]string{"value": values, "ordinal": {"0", "7"}}
		return c
	}
	for _, test := range []struct {
		name    string
		columns []schemas.Column
		want    []string
	}{
		{"none", nil, nil},
		{"one column", []schemas.Column{user}, []string{"B", "a", "a'; --", "b", "é"}},
		{"two", []schemas.Column{user, note}, []string{"B", "a", "a'; --", "b", "c", "é"}},
		{"chosen rows", []schemas.Column{where("x")}, []string{"B", "b"}},
		{"chosen rows of several values, and another", []schemas.Column{where("y", "'"), note}, []string{"b", "c", "é"}},
		{"no row", []schemas.Column{where("z")}, nil},
		{"a number", []schemas.Column{{Table: "billing.test_device", Column: "ordinal"}}, []string{"0"}},
	} {
		got, err := d.Distinct(t.Context(), test.columns)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q (%v), want %q", test.name, got, err, test.want)
		}
	}
	for _, c := range []schemas.Column{
		{Table: "billing.none", Column: "user"},
		{Table: "billing.test_device", Column: "none"},
		{Table: "billing.test_device; --", Column: "user"},
		{Table: "billing.test_device", Column: "user", Where: map[string][]string{"none": {"x"}}},
	} {
		if got, err := d.Distinct(t.Context(), []schemas.Column{note, c}); err == nil {
			t.Errorf("%+v: got %q, want an error", c, got)
		}
	}
}

// The function acts as the owner, for whoever may write: it must take nothing but our partitioned tables.
func TestEnsurePartitionOfLists(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, alarmYAML, deviceYAML)
	_, writer := d.login(t, "sdr_sync_writer")
	d.exec(t, `
		CREATE TABLE public.parts (event_date date) PARTITION BY RANGE (event_date);
		CREATE TABLE billing.two (a date, b date) PARTITION BY RANGE (a, b);
		CREATE TABLE billing.listed (a date) PARTITION BY LIST (a);
		CREATE TABLE billing.numbers (a int) PARTITION BY RANGE (a);
		CREATE TABLE billing.a_name_so_long_that_nothing_more_can_be_put_behind_it_at_all (a date) PARTITION BY RANGE (a)`)
	for _, parent := range []string{
		"", "test_alarm", "billing.", "billing.none", lists[1].Table, "public.parts", "parts", "billing.two", "billing.listed", "billing.numbers", "sdr_sync.window",
		"billing.test_alarm_2024_04", "billing.sdr; drop table billing.sdr", `billing."sdr"`, "BILLING.SDR", "billing.a_name_so_long_that_nothing_more_can_be_put_behind_it_at_all",
	} {
		if _, err := writer.Exec(t.Context(), "SELECT sdr_sync.ensure_partition($1, '2024-04-15')", parent); err == nil {
			t.Errorf("a partition of %q was made", parent)
		}
	}
	for range 2 {
		checkAllowed(t, writer, "SELECT sdr_sync.ensure_partition('billing.test_alarm', '2023-12-31')", "SELECT sdr_sync.ensure_partition('billing.sdr', '2023-12-31')")
	}
	checkEqual(t, "partitions", list[string](t, d, `
		SELECT concat_ws(' ', c.relname, pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid), relowner::regrole) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE c.relkind = 'r' ORDER BY 1`), []string{
		"sdr_2023_12 FOR VALUES FROM ('2023-12-01') TO ('2024-01-01') Usage month 2023-12 of billing.sdr. sdr_sync_owner",
		"test_alarm_2023_12 FOR VALUES FROM ('2023-12-01') TO ('2024-01-01') Event month 2023-12 of billing.test_alarm. sdr_sync_owner",
	})
}

// A publication of a list that is stopped in the middle, or whose server goes away, leaves nothing behind.
func TestListIsStopped(t *testing.T) {
	t.Parallel()
	for _, text := range []string{deviceYAML, subscriptionYAML} {
		d, lists := newLists(t, text)
		s := lists[0]
		key := s.Key[0]
		d.pull(t, s, pull{rows: pairs(key, "a=1 b=2")})
		stop := errors.New("asked to stop")
		p := d.prepareList(t, s, pull{rows: pairs(key, "a=2 c=3")})
		ctx, cancel := context.WithCancelCause(t.Context())
		rows := p.Rows
		p.Rows = before(rows, func(n int) error {
			if n == 1 {
				cancel(stop)
			}
			return nil
		})
		had := d.content(t)
		if _, err := replace(ctx, d.DB, d.listReplacement(s, p)); !errors.Is(err, stop) {
			t.Errorf("%s: got %v, want why it was stopped", s.Name, err)
		}
		checkEqual(t, s.Name+" after the stop", d.content(t), had)

		// The connection is cut once: the publication is tried again, from the first row.
		killed := false
		p.Rows = before(rows, func(n int) error {
			if n == 1 && !killed {
				killed = true
				d.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY pg_temp.incoming%'")
			}
			return nil
		})
		if o := d.mustReplace(t, d.listReplacement(s, p))[0]; !killed || o.Changes.Appeared != 1 || o.Changes.Changed != 1 {
			t.Errorf("%s: got %+v", s.Name, o)
		}
	}
}

// A list's migration that is taken back leaves no ledger that says that its rows stand.
func TestLedgerGoesWithTheTable(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, alarmYAML, deviceYAML)
	s := lists[0]
	events := pull{window: aprilAlarms, rows: []fields{alarm("2024-04-01 00:00:00", 1, "a")}, quarantined: []string{"{}"}}
	d.pull(t, s, events)
	events.rows = append(events.rows, alarm("2024-04-01 00:00:00", 2, "b"))
	d.pull(t, s, events)
	other := d.pull(t, lists[1], pull{rows: pairs("user", "a=1"), quarantined: []string{"{}"}})
	up, down, _ := strings.Cut(migrations.Table(s), "-- +goose Down")
	d.exec(t, down)
	for _, table := range []string{"window", "job", "partition"} {
		checkEqual(t, "streams in "+table, list[string](t, d, "SELECT DISTINCT stream FROM sdr_sync."+table), []string{lists[1].Name})
	}
	checkEqual(t, "windows in quarantine", list[int64](t, d, "SELECT window_id FROM sdr_sync.quarantine UNION SELECT window_id FROM sdr_sync.restatement"), []int64{other.WindowID})
	d.exec(t, up)
	if o := d.pull(t, s, events); o.Unchanged || o.Inserted != 2 || o.Generation != 1 {
		t.Errorf("into the new table: got %+v", o)
	}
}
