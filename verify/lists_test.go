package verify_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

var eventTamperings = []tampering{
	{name: "a text", sql: "UPDATE billing.audit_log SET severity = '9' WHERE id = '1'", what: []string{"billing.audit_log holds", "record_key"}},
	{name: "NULL for a text", sql: "UPDATE billing.audit_log SET severity = NULL WHERE id = '1'", what: []string{"billing.audit_log holds", "record_key"}},
	{name: "the extra fields", sql: `UPDATE billing.audit_log SET extra = '{"colour": "blue"}' WHERE id = '1'`, what: []string{"billing.audit_log holds", "record_key"}},
	{name: "a key", sql: "UPDATE billing.audit_log SET record_key = gen_random_uuid() WHERE id = '1'", what: []string{"record_key"}},
	{name: "an ordinal", sql: "UPDATE billing.audit_log SET ordinal = 1 WHERE id = '1'", what: []string{"an ordinal without the twin"}},
	{name: "a date", sql: "UPDATE billing.audit_log SET event_date = event_date + 1 WHERE id = '1'", what: []string{"event_date that is not the date"}},
	{name: "a time", sql: "UPDATE billing.audit_log SET start_time = start_time - interval '1 day' WHERE id = '1'", what: []string{"billing.audit_log holds", "record_key", "event_date", "outside"}},
	{name: "a time that never ends", sql: "UPDATE billing.audit_log SET end_time = 'infinity' WHERE id = '1'", what: []string{"billing.audit_log holds", "record_key"}},
	{name: "a deleted row", sql: "DELETE FROM billing.audit_log WHERE id = '1'", what: []string{"billing.audit_log holds 2 records"}},
	{name: "all rows deleted", sql: "DELETE FROM billing.audit_log", what: []string{"billing.audit_log holds 0 records"}},
	{name: "a lost quarantined record", sql: "DELETE FROM sdr_sync.quarantine WHERE window_id = %[1]d", what: []string{"the quarantine holds 0 records"}},
	{name: "the ledger's digest", sql: "UPDATE sdr_sync.window SET digest = repeat('1', 32) WHERE window_id = %[1]d", what: []string{"the ledger says", "last restatement"}},
	{name: "what the job landed", sql: "UPDATE sdr_sync.job SET quarantined = 9 WHERE window_id = %[1]d", what: []string{"landed 12 records, 9 of them"}, repair: "--stream audit_logs"},
}

func TestTamperedEvents(t *testing.T) {
	t.Parallel()
	testTamperings(t, "audit_logs", aprilEvents, "audit_logs window [2024-04-01, 2024-04-03)", eventTamperings)
}

var snapshotTamperings = []tampering{
	{name: "a text", sql: "UPDATE billing.physical_device SET name = 'c' WHERE device_id = 'a'", what: []string{"billing.physical_device holds", "record_key"}},
	{name: "a key's text", sql: "UPDATE billing.physical_device SET device_id = 'z' WHERE device_id = 'a'", what: []string{"billing.physical_device holds", "record_key"}},
	{name: "a record key", sql: "UPDATE billing.physical_device SET record_key = gen_random_uuid() WHERE device_id = 'a'", what: []string{"record_key"}},
	{name: "a natural key", sql: "UPDATE billing.physical_device SET natural_key = gen_random_uuid() WHERE device_id = 'a'", what: []string{"natural_key"}},
	{name: "an ordinal", sql: "UPDATE billing.physical_device SET ordinal = 3 WHERE device_id = 'a'", what: []string{"an ordinal without the twin"}},
	{name: "a deleted row", sql: "DELETE FROM billing.physical_device WHERE device_id = 'a'", what: []string{"billing.physical_device holds 2 records"}},
	{name: "a lost quarantined record", sql: "DELETE FROM sdr_sync.quarantine WHERE window_id = %[1]d", what: []string{"the quarantine holds 0 records"}},
	{name: "the ledger's count", sql: "UPDATE sdr_sync.window SET records = 4 WHERE window_id = %[1]d", what: []string{"the ledger says 4 records", "landed 4 records, 1 of them"}},
}

func TestTamperedSnapshot(t *testing.T) {
	t.Parallel()
	testTamperings(t, "physical_devices", pipeline.WholeWindow(), "list physical_devices", snapshotTamperings)
}

var historyTamperings = []tampering{
	{name: "a text", sql: "UPDATE billing.subscription SET resource_name = 'c' WHERE id = 'b'", what: []string{"billing.subscription holds", "record_key"}},
	{name: "a row that is said to be absent", sql: "UPDATE billing.subscription SET absent_since = valid_from + interval '1 minute' WHERE id = 'b'", what: []string{"billing.subscription holds 1 records"}},
	{name: "an absent row that is not", sql: "UPDATE billing.subscription SET absent_since = NULL WHERE id = 'c'", what: []string{"billing.subscription holds 3 records"}},
	{name: "the ledger's digest", sql: "UPDATE sdr_sync.window SET digest = repeat('1', 32) WHERE window_id = %[1]d", what: []string{"the ledger says"}},
}

func TestTamperedHistory(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	for _, test := range historyTamperings {
		// A replay keeps when rows came and went as it can be known, so what stands is compared, not all versions.
		ok := t.Run(test.name, func(t *testing.T) {
			w.t = t
			id := w.window("subscriptions", pipeline.WholeWindow())
			had := one[string](w, "SELECT string_agg(concat_ws(' ', id, resource_name), ', ' ORDER BY id) FROM billing.subscription WHERE valid_to IS NULL AND absent_since IS NULL")
			statement := test.sql
			if strings.Contains(statement, "%") {
				statement = fmt.Sprintf(statement, id)
			}
			w.exec(statement)
			found := w.verify(nil).Differences
			for i, d := range found {
				if i >= len(test.what) || d.Where != "list subscriptions" || !strings.Contains(d.What, test.what[i]) || !strings.Contains(d.Repair, fmt.Sprintf("replay --window %d", id)) {
					t.Errorf("got %+v", d)
				}
			}
			if len(found) != len(test.what) {
				t.Fatalf("got %d differences, want %d", len(found), len(test.what))
			}
			w.repair(found[0].Repair)
			w.clean()
			if got := one[string](w, "SELECT string_agg(concat_ws(' ', id, resource_name), ', ' ORDER BY id) FROM billing.subscription WHERE valid_to IS NULL AND absent_since IS NULL"); got != had {
				t.Errorf("what stands after the repair: got %s, want %s", got, had)
			}
		})
		if !ok {
			t.Fatal("what follows would start from a damaged world")
		}
	}
}

// What no pull brings back is found all the same, and only a backup repairs it.
func TestTamperedPast(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	w.exec(`DO $$ DECLARE c record; BEGIN
		FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'billing.subscription'::regclass AND contype IN ('c', 'x') LOOP
			EXECUTE format('ALTER TABLE billing.subscription DROP CONSTRAINT %I', c.conname);
		END LOOP;
		CREATE TABLE backup AS TABLE billing.subscription;
		CREATE TABLE backup_device AS TABLE billing.physical_device;
	END $$`)
	for _, test := range []struct{ name, sql, what string }{
		{"an earlier version", "UPDATE billing.subscription SET resource_name = 'c' WHERE resource_name = '0'", "1 earlier versions"},
		{"a time before there were clouds", "UPDATE billing.subscription SET valid_from = '1999-01-01' WHERE id = 'b'", "times or reasons"},
		{"a time to come", "UPDATE billing.subscription SET valid_from = '2999-01-01' WHERE id = 'b'", "times or reasons"},
		{"an end before its beginning", "UPDATE billing.subscription SET valid_to = valid_from - interval '1 day' WHERE id = 'd'", "times or reasons"},
		{"a reason", "UPDATE billing.subscription SET closed_reason = 'bored' WHERE id = 'd'", "times or reasons"},
		{"no reason", "UPDATE billing.subscription SET closed_reason = NULL WHERE id = 'd'", "times or reasons"},
		{"an overlap", "UPDATE billing.subscription SET valid_to = valid_to + interval '1 minute' WHERE resource_name = '0'", "overlap"},
		{"a gap", "UPDATE billing.subscription SET valid_to = valid_to - interval '1 minute' WHERE resource_name = '0'", "do not follow"},
		{"a version that begins a row again", "UPDATE billing.subscription SET opened_reason = 'appeared' WHERE resource_name = '1'", "do not follow"},
		{"a first version that was lost", "DELETE FROM billing.subscription WHERE resource_name = '0'", "do not follow"},
		{"a row that vanished with all its versions", "DELETE FROM billing.subscription WHERE id = 'd'", "3 rows stood, that pull had 4"},
		{"a row that stood for a shorter time", "UPDATE billing.subscription SET valid_from = valid_from + interval '5 minutes' WHERE id = 'd'", "3 rows stood, that pull had 4"},
		{"when a device was first seen", "UPDATE billing.physical_device SET first_seen = '1999-01-01' WHERE device_id = 'a'", "times or reasons"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			w.exec(test.sql)
			found := false
			for _, d := range w.verify(nil).Differences {
				found = found || strings.Contains(d.What, test.what)
				if strings.HasPrefix(d.Where, "list ") && d.Repair != "restore from a backup" {
					t.Errorf("got %+v", d)
				}
			}
			if !found {
				t.Errorf("got %+v, want something about %q", w.verify(nil).Differences, test.what)
			}
			w.exec("TRUNCATE billing.subscription, billing.physical_device; INSERT INTO billing.subscription TABLE backup; INSERT INTO billing.physical_device TABLE backup_device")
			w.clean()
		})
	}
}

// Rows that belong to nothing are found wherever they stand, and what is said removes them.
func TestOrphans(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	w.reslice(north.String(), "", "2024-03-01", "2024-03-04", "day") // retires the window of March
	w.backToMonths()
	retired := one[int64](w, "SELECT min(window_id) FROM sdr_sync.window WHERE retired_at IS NOT NULL")
	w.clean()
	had := w.content()
	for _, test := range []struct{ name, sql, where string }{
		{"records of an unknown window", "INSERT INTO billing.sdr SELECT (jsonb_populate_record(s, '{\"window_id\": 999}')).* FROM billing.sdr s WHERE resource_id = 'late'", "billing.sdr"},
		{"records of a retired window", fmt.Sprintf("INSERT INTO billing.sdr SELECT (jsonb_populate_record(s, '{\"window_id\": %d}')).* FROM billing.sdr s WHERE resource_id = 'late'", retired), "billing.sdr"},
		{"sums of a retired window", fmt.Sprintf("INSERT INTO sdr_sync.usage_rollup (window_id, usage_date, site, records, missing_amounts, accumulate_factor_value) VALUES (%d, '2024-03-01', 'hcso-213', 1, 0, 1)", retired), "sdr_sync.usage_rollup"},
		{"quarantine of a retired window", fmt.Sprintf("INSERT INTO sdr_sync.quarantine SELECT (jsonb_populate_record(q, '{\"window_id\": %d}')).* FROM sdr_sync.quarantine q WHERE ordinal = 1", retired), "sdr_sync.quarantine"},
		{"events of another stream's window", fmt.Sprintf("INSERT INTO billing.audit_log SELECT (jsonb_populate_record(e, '{\"window_id\": %d}')).* FROM billing.audit_log e WHERE id = '1'", w.window("sdr", march)), "billing.audit_log"},
		{"rows of a list that was never pulled", "INSERT INTO billing.measure_unit_name (natural_key, record_key, ordinal, first_seen, measure_id, language) VALUES (gen_random_uuid(), gen_random_uuid(), 0, now(), 1, 'en_US')", "billing.measure_unit_name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			w.exec(test.sql)
			found := w.verify(nil).Differences
			if len(found) != 1 || found[0].Where != test.where {
				t.Fatalf("got %+v, want orphans in %s", found, test.where)
			}
			w.repair(found[0].Repair)
			w.clean()
			if got := w.content(); len(got) != len(had) {
				t.Errorf("got %d lines, want %d", len(got), len(had))
			}
		})
	}
}
