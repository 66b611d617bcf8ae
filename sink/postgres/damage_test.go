package postgres_test

import "testing"

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
