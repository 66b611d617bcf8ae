package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// Each kind of damage is reported with what repairs it, and that does repair it.
func TestCheckAndRepair(t *testing.T) {
	t.Parallel()
	const one = " WHERE window_id = %[1]d AND ctid = (SELECT min(ctid) FROM billing.sdr WHERE window_id = %[1]d)"
	const place = "(window_id, raw_hash, ordinal, job_row, page, position, reason, field, detail, raw)"
	tests := []struct {
		name   string
		damage string // %[1]d is the window
		what   []string
	}{
		{"an amount", "UPDATE billing.sdr SET accumulate_factor_value = accumulate_factor_value + 0.000000000001" + one, []string{"billing.sdr holds", "record_key", "daily sums"}},
		{"an amount lost", "UPDATE billing.sdr SET accumulate_factor_value = NULL" + one, []string{"billing.sdr holds", "record_key", "no amount", "daily sums"}},
		{"a text", "UPDATE billing.sdr SET resource_id = resource_id || ' '" + one, []string{"billing.sdr holds", "record_key"}},
		{"NULL for the empty text", "UPDATE billing.sdr SET tag = NULL WHERE window_id = %[1]d AND tag = ''", []string{"billing.sdr holds", "record_key"}},
		{"a time", "UPDATE billing.sdr SET begin_time = begin_time + interval '1 microsecond'" + one, []string{"billing.sdr holds", "record_key"}},
		{"two amounts swapped", "UPDATE billing.sdr SET accumulate_factor_value = 2 - accumulate_factor_value WHERE window_id = %[1]d AND resource_id IN ('vm-0000', 'vm-0001')", []string{"billing.sdr holds", "record_key"}},
		{"the extra fields", "UPDATE billing.sdr SET extra = extra || '{\"x\": 1}' WHERE window_id = %[1]d AND extra IS NOT NULL", []string{"billing.sdr holds", "record_key"}},
		{"a key", "UPDATE billing.sdr SET record_key = gen_random_uuid()" + one, []string{"record_key"}},
		{"a natural key", "UPDATE billing.sdr SET natural_key = gen_random_uuid()" + one, []string{"natural_key"}},
		{"a usage date", "UPDATE billing.sdr SET usage_date = usage_date + 1" + one, []string{"usage_date that is not the date", "daily sums"}},
		{"a site", "UPDATE billing.sdr SET site = 'hcso-9'" + one, []string{"natural_key", "another site", "daily sums"}},
		{"a deleted record", "DELETE FROM billing.sdr" + one, []string{"billing.sdr holds 11 records", "daily sums"}},
		{"all records deleted", "DELETE FROM billing.sdr WHERE window_id = %[1]d", []string{"billing.sdr holds 0 records", "no amount", "daily sums"}},
		{"a doubled record", `
			CREATE TEMPORARY TABLE double AS SELECT * FROM billing.sdr` + one + `;
			UPDATE double SET ordinal = 1; INSERT INTO billing.sdr TABLE double; DROP TABLE double`, []string{"billing.sdr holds 13 records", "daily sums"}},
		{"a daily sum", "UPDATE sdr_sync.usage_rollup SET accumulate_factor_value = accumulate_factor_value - 1 WHERE window_id = %[1]d", []string{"daily sums"}},
		{"a daily count", "UPDATE sdr_sync.usage_rollup SET records = records + 1 WHERE window_id = %[1]d", []string{"daily sums"}},
		{"lost daily sums", "DELETE FROM sdr_sync.usage_rollup WHERE window_id = %[1]d", []string{"daily sums"}},
		{"doubled daily sums", "INSERT INTO sdr_sync.usage_rollup SELECT * FROM sdr_sync.usage_rollup WHERE window_id = %[1]d", []string{"daily sums"}},
		{"a quarantined record", "UPDATE sdr_sync.quarantine SET raw = raw || ' ' WHERE window_id = %[1]d AND ordinal = 1", []string{"the quarantine holds", "do not match their hash"}},
		{"a lost quarantined record", "DELETE FROM sdr_sync.quarantine WHERE window_id = %[1]d AND ordinal = 1", []string{"the quarantine holds 1 records"}},
		{"a doubled quarantined record", "INSERT INTO sdr_sync.quarantine " + place + " SELECT window_id, raw_hash, 7, job_row, page, position, reason, field, detail, raw FROM sdr_sync.quarantine WHERE window_id = %[1]d AND ordinal = 1", []string{"the quarantine holds 3 records"}},
		{"the ledger's count", "UPDATE sdr_sync.window SET records = records + 1 WHERE window_id = %[1]d", []string{"the ledger says 13 records"}},
		{"the ledger's digest", "UPDATE sdr_sync.window SET digest = repeat('1', 32) WHERE window_id = %[1]d", []string{"the ledger says 12 records 1111"}},
		{"the ledger's missing amounts", "UPDATE sdr_sync.window SET missing_amounts = 5 WHERE window_id = %[1]d", []string{"no amount"}},
		{"the ledger's quarantine", "UPDATE sdr_sync.window SET quarantined = 0, quarantine_digest = repeat('0', 32) WHERE window_id = %[1]d", []string{"the quarantine holds"}},
	}
	d := newDatabase(t)
	records := append(someRecords(10), sdr("20240302000000", "vm", "null"), sdr("20240303000000", "vm", "1", "tag", `""`, "new", `1`), `{"begin_time":"never"}`, `{"begin_time":"never"}`)
	other := d.publish(t, window(east, "2024-03-01", "2024-04-01"), records)
	p := d.prepare(t, march, records)
	id := d.mustReplace(t, d.replacement(p))[0].WindowID
	facts, generation := d.facts(t), 1
	quarantine := func() []string {
		return list[string](t, d, "SELECT concat_ws(' ', window_id, raw_hash, ordinal, page, position, raw) FROM sdr_sync.quarantine ORDER BY 1")
	}
	quarantined := quarantine()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d.exec(t, fmt.Sprintf(test.damage, id))
			found, _, err := d.Check(t.Context(), stream, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range found {
				if f.Where != "window "+march.String() || !strings.Contains(f.Repair, fmt.Sprintf("sdr-sync replay --window %d", id)) {
					t.Errorf("got %+v", f)
				}
				if i < len(test.what) && !strings.Contains(f.What, test.what[i]) {
					t.Errorf("got %q, want something about %q", f.What, test.what[i])
				}
			}
			if len(found) != len(test.what) {
				t.Errorf("got %+v, want %d differences", found, len(test.what))
			}
			if found, _, err := d.Check(t.Context(), stream, []int64{other.WindowID}); err != nil || len(found) > 0 {
				t.Errorf("the other window: got %+v (%v)", found, err)
			}

			r := d.replacement(p)
			r.Replay = true
			generation++
			if o := d.mustReplace(t, r)[0]; o.Unchanged || o.Generation != generation || o.WindowID != id {
				t.Errorf("repair: got %+v", o)
			}
			checkEqual(t, "facts after the repair", d.facts(t), facts)
			checkEqual(t, "quarantine after the repair", quarantine(), quarantined)
		})
	}
}

// What the repair changes reaches the partitions that held the damage, though the window never had records there.
func TestRepairMarksDirty(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, window(north, "2024-02-01", "2024-03-01"), []string{sdr("20240215000000", "vm", "1")})
	p := d.prepare(t, march, someRecords(3))
	d.mustReplace(t, d.replacement(p))
	d.exec(t, "UPDATE billing.sdr SET usage_date = '2024-02-10' WHERE resource_id = 'vm-0001'")
	r := d.replacement(p)
	r.Replay = true
	d.mustReplace(t, r)
	if got := d.dirty(t); got["2024-02-01"] != 2 || got["2024-03-01"] != 2 {
		t.Errorf("got %v, want both marked again", got)
	}
}

func TestCheckOrphans(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		make  string // %[1]d is the published window, %[2]d a retired one
		where []string
	}{
		{"records of an unknown window", "UPDATE billing.sdr SET window_id = 999 WHERE window_id = %[1]d", []string{"billing.sdr"}},
		{"records of a retired window", "INSERT INTO billing.sdr SELECT usage_date, site, %[2]d, record_key, ordinal, natural_key, record_type, sdr_time, site_code, region_code, az_code, domain_id, domain_name, project_id, enterprise_project_id, cloud_service_type_code, resource_type_code, resource_spec_code, resource_id, product_id, begin_time FROM billing.sdr WHERE window_id = %[1]d", []string{"billing.sdr"}},
		{"sums of a retired window", "INSERT INTO sdr_sync.usage_rollup (window_id, usage_date, site, records, missing_amounts, accumulate_factor_value) VALUES (%[2]d, '2024-03-01', 'hcso-213', 1, 0, 1)", []string{"sdr_sync.usage_rollup"}},
		{"quarantine of a retired window", "UPDATE sdr_sync.quarantine SET window_id = %[2]d WHERE window_id = %[1]d", []string{"sdr_sync.quarantine"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			retired := d.publish(t, window(north, "2024-03-01", "2024-03-02"), nil)
			r := d.replacement(d.prepare(t, march, append(someRecords(3), `{}`)))
			r.Retire = d.windows(t, north)
			id := d.mustReplace(t, r)[0].WindowID
			d.exec(t, fmt.Sprintf(test.make, id, retired.WindowID))
			found, _, err := d.Check(t.Context(), stream, nil)
			if err != nil {
				t.Fatal(err)
			}
			var where []string
			for _, f := range found {
				if f.Where == "window "+march.String() {
					continue // what the window lost
				}
				where = append(where, f.Where)
				_, statement, ok := strings.Cut(f.Repair, "as sdr_sync_owner: ")
				if !ok {
					t.Errorf("the repair is %q", f.Repair)
				}
				_, owner := d.login(t, "sdr_sync_owner")
				checkAllowed(t, owner, statement)
			}
			if !slices.Equal(where, test.where) {
				t.Errorf("got %+v, want orphans in %q", found, test.where)
			}
			if found, _, err := d.Check(t.Context(), stream, nil); err != nil || slices.ContainsFunc(found, func(f postgres.Difference) bool { return f.Where != "window "+march.String() }) {
				t.Errorf("after the repair: got %+v (%v)", found, err)
			}
		})
	}
}

func TestCheckCountsRecords(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	if found, records, err := d.Check(t.Context(), stream, nil); err != nil || records != 0 || len(found) > 0 {
		t.Errorf("empty: got %v, %d records (%v)", found, records, err)
	}
	a := d.publish(t, march, someRecords(3))
	d.publish(t, window(east, "2024-03-01", "2024-04-01"), someRecords(4))
	for _, test := range []struct {
		ids  []int64
		want int64
	}{{nil, 7}, {[]int64{a.WindowID}, 3}, {[]int64{}, 0}} {
		if found, records, err := d.Check(t.Context(), stream, test.ids); err != nil || records != test.want || len(found) > 0 {
			t.Errorf("windows %v: got %v, %d records (%v), want %d", test.ids, found, records, err, test.want)
		}
	}
}
