package postgres_test

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// readPartition returns copies of all rows of a partition.
func readPartition(t *testing.T, db *postgres.DB, p pipeline.Partition) (state pipeline.PartitionState, windows []pipeline.PublishedWindow, rows []*record.Row) {
	t.Helper()
	err := db.Store(stream).ReadPartition(t.Context(), p, func(s pipeline.PartitionState, w []pipeline.PublishedWindow, read iter.Seq2[*record.Row, error]) error {
		state, windows = s, w
		for row, err := range read {
			if err != nil {
				return err
			}
			rows = append(rows, row.Clone())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return state, windows, rows
}

// field returns a row's text, "NULL" for none.
func field(r *record.Row, name string) string {
	v := r.Values[schemas.SDR().Index(name)]
	if !v.Valid {
		return "NULL"
	}
	return string(v.Bytes)
}

func TestReadPartitionOrder(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	// In the order that is wanted: bytes of the service, then of the resource, NULL last; then time. Twins stand side by side.
	type place struct{ service, resource, begin string }
	want := []place{
		{`""`, `"r"`, "20240301000000"},
		{`"A"`, `"Z"`, "20240301000000"},
		{`"A"`, `"a"`, "20240301000000"},
		{`"A"`, `"a"`, "20240302000000"},
		{`"A"`, `"a"`, "20240302000000"},
		{`"A"`, `"é"`, "20240301000000"},
		{`"A"`, `null`, "20240301000000"},
		{`"B"`, `"_"`, "20240301000000"},
		{`"a"`, `"1"`, "20240301000000"},
		{`"云"`, `"1"`, "20240301000000"},
		{`null`, `"1"`, "20240301000000"},
		{`null`, `null`, "20240301000000"},
	}
	var records []string
	for _, p := range want {
		records = append(records, sdr(p.begin, "", "1", "cloud_service_type_code", p.service, "resource_id", p.resource))
	}
	slices.Reverse(records)
	d.publish(t, march, records)
	_, _, rows := readPartition(t, d.DB, pipeline.Partition{Site: "hcso-213", Unit: pipeline.Month, From: date("2024-03")})
	var got, wanted []string
	for _, r := range rows {
		got = append(got, field(r, "cloud_service_type_code")+" "+field(r, "resource_id")+" "+r.UsageDate.String())
	}
	for _, p := range want {
		wanted = append(wanted, strings.NewReplacer(`"`, "", "null", "NULL").Replace(p.service+" "+p.resource)+" "+p.begin[:4]+"-"+p.begin[4:6]+"-"+p.begin[6:8])
	}
	checkEqual(t, "rows", got, wanted)
	if rows[3].Ordinal != 0 || rows[4].Ordinal != 1 || rows[3].Key != rows[4].Key {
		t.Errorf("twins: got ordinals %d and %d", rows[3].Ordinal, rows[4].Ordinal)
	}
}

// Rows of equal key come by window, and only those of the partition's dates and site come at all.
func TestReadPartitionChoosesRows(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	same := sdr("20240331235959", "vm", "1")
	d.publish(t, march, []string{same, sdr("20240301000000", "vm", "1"), sdr("20240229235959", "vm", "1")})
	d.publish(t, window(north, "2024-04-01", "2024-05-01"), []string{same, sdr("20240401000000", "vm", "1")})
	elsewhere := pipeline.Scope{Site: "hcso-9", Region: ""}
	d.publish(t, window(elsewhere, "2024-03-01", "2024-04-01"), []string{same})

	p := pipeline.Partition{Site: "hcso-213", Unit: pipeline.Month, From: date("2024-03")}
	state, windows, rows := readPartition(t, d.DB, p)
	if state.Partition != p || state.DirtySeq != 2 || state.ExportedSeq != 0 {
		t.Errorf("state: got %+v", state)
	}
	ledger := d.windows(t, north)
	want := []pipeline.PublishedWindow{
		{WindowID: ledger[0].ID, Window: march, Generation: 1},
		{WindowID: ledger[1].ID, Window: window(north, "2024-04-01", "2024-05-01"), Generation: 1},
	}
	if !slices.Equal(windows, want) {
		t.Errorf("windows: got %v, want %v", windows, want)
	}
	var got []string
	for _, r := range rows {
		got = append(got, r.Site+" "+r.UsageDate.String())
	}
	checkEqual(t, "rows", got, []string{"hcso-213 2024-03-01", "hcso-213 2024-03-31", "hcso-213 2024-03-31"})
	if !slices.IsSortedFunc(rows[1:], func(a, b *record.Row) int { return cmp.Compare(a.WindowID, b.WindowID) }) || rows[1].WindowID == rows[2].WindowID {
		t.Errorf("got windows %d and %d", rows[1].WindowID, rows[2].WindowID)
	}

	_, _, elsewhereRows := readPartition(t, d.DB, pipeline.Partition{Site: "hcso-9", Unit: pipeline.Month, From: date("2024-03")})
	if len(elsewhereRows) != 1 || elsewhereRows[0].Site != "hcso-9" {
		t.Errorf("got %d rows of the other site", len(elsewhereRows))
	}
	err := d.Store(stream).ReadPartition(t.Context(), pipeline.Partition{Site: "hcso-213", Unit: pipeline.Month, From: date("2020-01")},
		func(pipeline.PartitionState, []pipeline.PublishedWindow, iter.Seq2[*record.Row, error]) error {
			return nil
		})
	if err == nil || !strings.Contains(err.Error(), "hcso-213 2020-01") {
		t.Errorf("a partition that never was: got %v", err)
	}
}

// What is read is one snapshot, though a publication is committed meanwhile.
func TestReadPartitionSnapshot(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(10))
	p := pipeline.Partition{Site: "hcso-213", Unit: pipeline.Month, From: date("2024-03")}
	err := d.Store(stream).ReadPartition(t.Context(), p, func(s pipeline.PartitionState, w []pipeline.PublishedWindow, rows iter.Seq2[*record.Row, error]) error {
		d.publish(t, march, someRecords(20))
		n := 0
		for _, err := range rows {
			if err != nil {
				return err
			}
			n++
		}
		if n != 10 || s.DirtySeq != 1 || w[0].Generation != 1 {
			t.Errorf("got %d rows at seq %d of generation %d, want the 10 of the first", n, s.DirtySeq, w[0].Generation)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMarkExported(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, []string{sdr("20240301000000", "vm", "1"), sdr("20240229235959", "vm", "1")})
	march := pipeline.Partition{Site: "hcso-213", Unit: pipeline.Month, From: date("2024-03")}
	february := pipeline.Partition{Site: "hcso-213", Unit: pipeline.Month, From: date("2024-02")}
	facts := pipeline.FileFacts{Rows: 1, Digest: "00ff", Bytes: 1 << 40, SHA256: "abc"}
	if err := d.Store(stream).MarkExported(t.Context(), march, 1, facts); err != nil {
		t.Fatal(err)
	}
	got, err := d.Store(stream).Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []pipeline.PartitionState{{Partition: february, DirtySeq: 1}, {Partition: march, DirtySeq: 1, ExportedSeq: 1, File: facts}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// With day partitions each touched usage day is dirty.
func TestDayPartitions(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.DB = openConfig(t, postgres.Config{URL: pipeline.Secret(d.url), Unit: pipeline.Day})
	d.publish(t, march, someRecords(30))
	d.publish(t, march, someRecords(29))
	if got := d.dirty(t); len(got) != 2 || got["2024-03-01"] != 1 || got["2024-03-02"] != 2 {
		t.Errorf("got %v, want the day that changed twice and the other once", got)
	}
	_, _, rows := readPartition(t, d.DB, pipeline.Partition{Site: "hcso-213", Unit: pipeline.Day, From: date("2024-03-02")})
	if len(rows) != 5 {
		t.Errorf("got %d rows, want 5", len(rows))
	}
}
