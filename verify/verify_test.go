package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/verify"
)

var aprilEvents = pipeline.Window{Scope: pipeline.Tenant, Unit: pipeline.Month, From: date("2024-04-01"), To: date("2024-04-03")}

// newFullWorld holds a little of every shape: two windows and a twin, a late and a quarantined record, corrections, unknown fields; events; a snapshot; a
// history with a changed, a vanished and an absent row. One window was restated and confirmed.
func newFullWorld(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.publish(march, marchRecords()[:12]...)
	w.restateMarch()
	w.publish(april, someRecords("2024-04-01", 8)...)
	w.publish(pipeline.Window{Scope: east, Unit: pipeline.Month, From: march.From, To: march.To}, someRecords("2024-03-01", 5)...)
	w.publish(pipeline.Window{Scope: other, Unit: pipeline.Month, From: march.From, To: march.To}, someRecords("2024-03-01", 4)...)

	event := func(id, start string) string {
		return `{"id":"` + id + `","start_time":"` + start + `","severity":"2","colour":"red"}`
	}
	w.hold("audit_logs", aprilEvents, event("1", "2024-04-01 00:00:00"), event("2", "2024-04-02 10:00:00"), event("3", "2024-04-02 11:00:00"), `{"id":"4"}`)
	w.pull("audit_logs", aprilEvents)

	device := func(id, name string) string { return `{"device_id":"` + id + `","name":"` + name + `"}` }
	w.hold("physical_devices", pipeline.WholeWindow(), device("a", "x"), device("b", "y"), device("c", "z"), `{}`)
	w.pull("physical_devices", pipeline.WholeWindow())

	subscription := func(id, name string) string { return `{"id":"` + id + `","resource_name":"` + name + `"}` }
	for _, rows := range [][]string{
		{subscription("a", "0"), subscription("b", "2"), subscription("c", "3"), subscription("d", "4")},
		{subscription("a", "0"), subscription("b", "2"), subscription("c", "3")},
		{subscription("a", "1"), subscription("b", "2")}, // d is gone, and c is absent
	} {
		w.hold("subscriptions", pipeline.WholeWindow(), rows...)
		w.pull("subscriptions", pipeline.WholeWindow())
	}
	w.export(parquet.ExportOptions{})
	return w
}

func marchRecords() []string {
	return append(someRecords("2024-03-01", 10),
		sdr("20240302000000", "vm", "null"), sdr("20240303000000", "vm", "1", "tag", `""`, "new", `{"b":1.50,"a":[true,null]}`), sdr("20240215000000", "late", "2.25"),
		sdr("20240304000000", "twin", "3"), sdr("20240304000000", "twin", "3"),
		sdr("20240304000000", "huge", "-99999999999999999999999999.999999999999", "accumulate_factor_name", "null"),
		`{"begin_time":"never"}`, `{"begin_time":"never"}`)
}

// restateMarch restates the window of March, and has the vendor confirm it.
func (w *world) restateMarch() {
	w.t.Helper()
	for range 2 {
		w.newRun()
		w.publish(march, marchRecords()...)
	}
}

func TestUntouched(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t)
	r := w.verify(nil)
	if len(r.Differences) > 0 || r.Records != 16+8+5+4+3+3+2 || r.Files != 4+1+1+1 {
		t.Errorf("got %+v", r)
	}
	landed, err := verify.Landing(t.Context(), w.config(), nil)
	if err != nil || len(landed.Differences) > 0 || landed.Files != 7 || len(landed.Notes) > 0 {
		t.Errorf("landing: got %+v (%v)", landed, err)
	}
}

func TestNothingThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.verify(nil); len(r.Differences) > 0 || r.Records != 0 || r.Files != 0 {
		t.Errorf("got %+v", r)
	}
	w.export(parquet.ExportOptions{})
	w.clean()
}

// tampering is what somebody does behind the program's back.
type tampering struct {
	name   string
	sql    string   // %[1]d is the window
	what   []string // of the differences, in order
	where  string   // "" is the window
	repair string   // part of it; "" is the replay
}

const marchRow = " WHERE window_id = %[1]d AND ctid = (SELECT min(ctid) FROM billing.sdr WHERE window_id = %[1]d)"

var meteredTamperings = []tampering{
	{name: "an amount", sql: "UPDATE billing.sdr SET accumulate_factor_value = accumulate_factor_value + 0.000000000001" + marchRow, what: []string{"billing.sdr holds", "record_key", "daily sums"}},
	{name: "an amount lost", sql: "UPDATE billing.sdr SET accumulate_factor_value = NULL" + marchRow, what: []string{"billing.sdr holds", "record_key", "no amount", "daily sums"}},
	{name: "an amount that is no number", sql: "UPDATE billing.sdr SET accumulate_factor_value = 'NaN'" + marchRow, what: []string{"billing.sdr holds", "record_key", "daily sums"}},
	{name: "a text", sql: "UPDATE billing.sdr SET resource_id = resource_id || ' '" + marchRow, what: []string{"billing.sdr holds", "record_key"}},
	{name: "NULL for the empty text", sql: "UPDATE billing.sdr SET tag = NULL WHERE window_id = %[1]d AND tag = ''", what: []string{"billing.sdr holds", "record_key"}},
	{name: "a time", sql: "UPDATE billing.sdr SET begin_time = begin_time + interval '1 microsecond'" + marchRow, what: []string{"billing.sdr holds", "record_key"}},
	{name: "two amounts swapped", sql: "UPDATE billing.sdr SET accumulate_factor_value = 2 - accumulate_factor_value WHERE window_id = %[1]d AND resource_id IN ('vm-0000', 'vm-0001')", what: []string{"billing.sdr holds", "record_key"}},
	{name: "the extra fields", sql: "UPDATE billing.sdr SET extra = extra || '{\"x\": 1}' WHERE window_id = %[1]d AND extra IS NOT NULL", what: []string{"billing.sdr holds", "record_key"}},
	{name: "a key", sql: "UPDATE billing.sdr SET record_key = gen_random_uuid()" + marchRow, what: []string{"record_key"}},
	{name: "a natural key", sql: "UPDATE billing.sdr SET natural_key = gen_random_uuid()" + marchRow, what: []string{"natural_key"}},
	{name: "an ordinal", sql: "UPDATE billing.sdr SET ordinal = 7 WHERE window_id = %[1]d AND ordinal = 1", what: []string{"an ordinal without the twin"}},
	{name: "a usage date", sql: "UPDATE billing.sdr SET usage_date = usage_date + 1" + marchRow, what: []string{"usage_date that is not the date", "daily sums"}},
	{name: "a usage date in a month without rows", sql: "SELECT sdr_sync.ensure_partition('billing.sdr', '2023-01-01'); UPDATE billing.sdr SET usage_date = '2023-01-05'" + marchRow, what: []string{"usage_date that is not the date", "daily sums"}},
	{name: "a site", sql: "UPDATE billing.sdr SET site = 'hcso-9'" + marchRow, what: []string{"natural_key", "another site", "daily sums"}},
	{name: "a deleted record", sql: "DELETE FROM billing.sdr" + marchRow, what: []string{"billing.sdr holds 15 records", "daily sums"}},
	{name: "all records deleted", sql: "DELETE FROM billing.sdr WHERE window_id = %[1]d", what: []string{"billing.sdr holds 0 records", "no amount", "daily sums"}},
	{name: "a doubled record", sql: "INSERT INTO billing.sdr SELECT (jsonb_populate_record(s, '{\"ordinal\": 1}')).* FROM billing.sdr s" + marchRow, what: []string{"billing.sdr holds 17 records", "daily sums"}},
	{name: "a daily sum", sql: "UPDATE sdr_sync.usage_rollup SET accumulate_factor_value = accumulate_factor_value - 0.000000000001 WHERE window_id = %[1]d", what: []string{"daily sums"}},
	{name: "a daily sum finer than any amount", sql: "UPDATE sdr_sync.usage_rollup SET accumulate_factor_value = accumulate_factor_value + 0.0000000000001 WHERE window_id = %[1]d", what: []string{"daily sums"}},
	{name: "a daily sum that is no number", sql: "UPDATE sdr_sync.usage_rollup SET accumulate_factor_value = 'NaN' WHERE window_id = %[1]d", what: []string{"daily sums"}},
	{name: "a daily count", sql: "UPDATE sdr_sync.usage_rollup SET records = records + 1 WHERE window_id = %[1]d", what: []string{"daily sums"}},
	{name: "a daily count of missing amounts", sql: "UPDATE sdr_sync.usage_rollup SET missing_amounts = missing_amounts + 1 WHERE window_id = %[1]d", what: []string{"daily sums"}},
	{name: "a dimension of the daily sums", sql: "UPDATE sdr_sync.usage_rollup SET project_id = NULL WHERE window_id = %[1]d", what: []string{"daily sums"}},
	{name: "sums moved between days", sql: "UPDATE sdr_sync.usage_rollup SET accumulate_factor_value = accumulate_factor_value + CASE WHEN usage_date = '2024-03-01' THEN 1 ELSE -1 END WHERE window_id = %[1]d AND usage_date IN ('2024-03-01', '2024-03-03')", what: []string{"daily sums"}},
	{name: "lost daily sums", sql: "DELETE FROM sdr_sync.usage_rollup WHERE window_id = %[1]d", what: []string{"daily sums"}},
	{name: "doubled daily sums", sql: "INSERT INTO sdr_sync.usage_rollup SELECT * FROM sdr_sync.usage_rollup WHERE window_id = %[1]d", what: []string{"daily sums"}},
	{name: "a daily sum of nothing", sql: "INSERT INTO sdr_sync.usage_rollup (window_id, usage_date, site, records, missing_amounts, accumulate_factor_value) VALUES (%[1]d, '2024-03-09', 'hcso-213', 0, 0, 0)", what: []string{"daily sums"}},
	{name: "a quarantined record", sql: "UPDATE sdr_sync.quarantine SET raw = raw || ' ' WHERE window_id = %[1]d AND ordinal = 1", what: []string{"the quarantine holds", "do not match their hash"}},
	{name: "a lost quarantined record", sql: "DELETE FROM sdr_sync.quarantine WHERE window_id = %[1]d AND ordinal = 1", what: []string{"the quarantine holds 1 records"}},
	{name: "a quarantined record's ordinal", sql: "UPDATE sdr_sync.quarantine SET ordinal = 5 WHERE window_id = %[1]d AND ordinal = 1", what: []string{"quarantined records have an ordinal"}},
	{name: "the ledger's count", sql: "UPDATE sdr_sync.window SET records = records + 1 WHERE window_id = %[1]d", what: []string{"the ledger says 17 records", "landed", "last restatement"}},
	{name: "the ledger's digest", sql: "UPDATE sdr_sync.window SET digest = repeat('1', 32) WHERE window_id = %[1]d", what: []string{"the ledger says 16 records 1111", "last restatement"}},
	{name: "the ledger's missing amounts", sql: "UPDATE sdr_sync.window SET missing_amounts = 5 WHERE window_id = %[1]d", what: []string{"no amount"}},
	{name: "the ledger's quarantine", sql: "UPDATE sdr_sync.window SET quarantined = 0, quarantine_digest = repeat('0', 32) WHERE window_id = %[1]d", what: []string{"the quarantine holds", "landed"}},
	{name: "the ledger's months", sql: "UPDATE sdr_sync.window SET usage_months = '{2024-03-01}' WHERE window_id = %[1]d", what: []string{"stand in the months [2024-02 2024-03]"}, repair: "--reslice=day"},
	{name: "the generation", sql: "UPDATE sdr_sync.window SET generation = 3 WHERE window_id = %[1]d", what: []string{"it is generation 3 of job", "1 restatements are logged"}, repair: "--reslice=day"},
	{name: "the window's job", sql: "UPDATE sdr_sync.window SET job_row = 777 WHERE window_id = %[1]d", what: []string{"job 777", "job 777"}, repair: "--reslice=day"},
	{name: "what the job landed", sql: "UPDATE sdr_sync.job SET records = records + 2 WHERE window_id = %[1]d AND state = 'published' AND generation = 2", what: []string{"landed 20 records"}, repair: "--reslice=day"},
	{name: "what a later job confirmed", sql: "UPDATE sdr_sync.job SET records = records - 1 WHERE window_id = %[1]d AND state = 'unchanged'", what: []string{"confirmed it with 15 records"}, repair: "--reslice=day"},
	{name: "the state of the job", sql: "UPDATE sdr_sync.job SET state = 'moved' WHERE window_id = %[1]d AND generation = 2", what: []string{"that job says: moved"}, repair: "--reslice=day"},
	{name: "a lost restatement", sql: "DELETE FROM sdr_sync.restatement WHERE window_id = %[1]d", what: []string{"0 restatements are logged"}, repair: "--reslice=day"},
	{name: "a restatement's digest", sql: "UPDATE sdr_sync.restatement SET digest_after = repeat('2', 32) WHERE window_id = %[1]d", what: []string{"last restatement came to"}, repair: "--reslice=day"},
	{name: "a restatement's number", sql: "UPDATE sdr_sync.restatement SET generation = 9 WHERE window_id = %[1]d", what: []string{"has generation 9 where 2"}, repair: "--reslice=day"},
}

// Each kind of tampering with metering records is found at the window that it concerns, and what the difference names repairs it: everything stands as before.
func TestTamperedMetering(t *testing.T) {
	t.Parallel()
	testTamperings(t, "sdr", march, "window "+march.String(), meteredTamperings)
}

func testTamperings(t *testing.T, stream string, of pipeline.Window, where string, tamperings []tampering) {
	t.Helper()
	w := newFullWorld(t)
	had := w.content()
	for _, test := range tamperings {
		ok := t.Run(test.name, func(t *testing.T) {
			w.t = t
			statement := test.sql
			if strings.Contains(statement, "%[1]d") {
				statement = fmt.Sprintf(statement, w.window(stream, of))
			}
			w.exec(statement)
			r := w.verify(nil)
			for i, d := range r.Differences {
				if i >= len(test.what) || !strings.Contains(d.What, test.what[i]) || test.where == "" && d.Where != where || !strings.Contains(d.Where, test.where) {
					t.Errorf("got %+v", d)
				}
			}
			if len(r.Differences) != len(test.what) {
				t.Fatalf("got %d differences, want %d", len(r.Differences), len(test.what))
			}
			wanted := test.repair
			if wanted == "" {
				wanted = "sdr-sync replay --window"
			}
			if !strings.Contains(r.Differences[0].Repair, wanted) {
				t.Errorf("the repair is %q, want %q", r.Differences[0].Repair, wanted)
			}
			// What is about other windows is not disturbed.
			if only := w.verify(verify.Only{{Stream: "sdr", Windows: []int64{w.window("sdr", april)}}}); len(only.Differences) > 0 && !strings.Contains(test.sql, "april") {
				t.Errorf("another window: got %+v", only.Differences)
			}
			for _, d := range r.Differences {
				w.repair(d.Repair)
				if len(w.verify(nil).Differences) == 0 {
					break
				}
			}
			w.clean()
			if got := w.content(); !slices.Equal(got, had) {
				t.Errorf("after the repair: got %d lines, want %d", len(got), len(had))
			}
			w.backToMonths()
		})
		if !ok {
			t.Fatal("what follows would start from a damaged world")
		}
	}
}

// backToMonths undoes reslices to days: the window of March is a restated and confirmed one again.
func (w *world) backToMonths() {
	w.t.Helper()
	if one[string](w, "SELECT unit FROM sdr_sync.window WHERE window_id = $1", w.window("audit_logs", aprilEvents)) == "day" {
		w.reslice("", "audit_logs", "2024-04-01", "2024-04-02", "month")
	}
	if one[string](w, "SELECT unit FROM sdr_sync.window WHERE window_id = $1", w.window("sdr", march)) == "day" {
		w.hold("sdr", march, marchRecords()[:12]...)
		w.reslice(north.String(), "", "2024-03-01", "2024-03-04", "month")
		w.restateMarch()
	}
	w.export(parquet.ExportOptions{})
}
