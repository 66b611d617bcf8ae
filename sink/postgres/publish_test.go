package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

func TestFirstPublication(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	records := append(someRecords(30), sdr("20240207000000", "late", "null"), sdr("20240401120000", "vm", "1"), `{"begin_time":"never"}`)
	p := d.prepare(t, march, records)
	outcome := d.mustReplace(t, d.replacement(p))[0]

	windows := d.windows(t, north)
	if len(windows) != 1 {
		t.Fatalf("got %d windows", len(windows))
	}
	w := windows[0]
	want := pipeline.WindowState{
		Window: march, ID: outcome.WindowID, Generation: 1, Records: p.Records, MissingAmounts: 1, Quarantined: p.Quarantined, HashVersion: record.HashVersion,
		JobRow: p.Job.Row, JobCreatedAt: p.Job.CreatedAt, PublishedAt: testNow, CheckedAt: testNow,
	}
	if w != want {
		t.Errorf("the window is\n%+v, want\n%+v", w, want)
	}
	if want := (pipeline.Outcome{WindowID: w.ID, Generation: 1, Inserted: 32, ToBefore: march.To}); outcome != want {
		t.Errorf("got %+v, want %+v", outcome, want)
	}
	job, err := d.Job(t.Context(), p.Job.Row)
	if err != nil {
		t.Fatal(err)
	}
	if job.State != pipeline.StatePublished || job.Records != 32 || job.Quarantined != 1 {
		t.Errorf("the job is %+v", job)
	}
	if got := d.dirty(t); len(got) != 3 || got["2024-02-01"] != 1 || got["2024-03-01"] != 1 || got["2024-04-01"] != 1 {
		t.Errorf("dirty partitions: got %v", got)
	}
	if months := query[string](t, d, "SELECT usage_months::text FROM sdr_sync.window"); months != "{2024-02-01,2024-03-01,2024-04-01}" {
		t.Errorf("usage months: got %s", months)
	}
	if n := query[int](t, d, "SELECT count(*)::int FROM sdr_sync.restatement"); n != 0 {
		t.Errorf("%d restatements of a first publication", n)
	}
}

// The same content again, in another order and from another job, writes nothing but the ledger's note that it was checked.
func TestUnchanged(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	records := append(someRecords(30), `{"begin_time":"never"}`, `{"begin_time":"never"}`)
	first := d.publish(t, march, records)
	versions, before := d.versions(t), d.content(t)
	slices.Reverse(records)
	p := d.prepare(t, march, records)
	p.Job.CreatedAt = testNow.Add(5 * time.Minute)
	outcome := d.mustReplace(t, d.replacement(p))[0]
	if want := (pipeline.Outcome{WindowID: first.WindowID, Generation: 1, Unchanged: true, ToBefore: march.To}); outcome != want {
		t.Errorf("got %+v, want %+v", outcome, want)
	}
	checkEqual(t, "versions of rows", d.versions(t), versions)
	changed := slices.DeleteFunc(d.content(t), func(line string) bool { return slices.Contains(before, line) })
	if len(changed) != 2 || !strings.HasPrefix(changed[0], "job ") || !strings.HasPrefix(changed[1], "window ") {
		t.Errorf("changed were %q, want a job and a window", changed)
	}
	w := d.windows(t, north)[0]
	if !w.JobCreatedAt.Equal(p.Job.CreatedAt) || w.JobRow == p.Job.Row || w.Generation != 1 {
		t.Errorf("the window is %+v, want the new job's creation time and the old job's row", w)
	}
	job, err := d.Job(t.Context(), p.Job.Row)
	if err != nil || job.State != pipeline.StateUnchanged {
		t.Errorf("the job is %+v (%v)", job, err)
	}
}

// A replay that comes out equal writes nothing at all.
func TestUnchangedReplay(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.prepare(t, march, someRecords(3))
	d.mustReplace(t, d.replacement(p))
	before := d.content(t)
	r := d.replacement(p)
	r.Replay = true
	if o := d.mustReplace(t, r)[0]; !o.Unchanged || o.Generation != 1 {
		t.Errorf("got %+v", o)
	}
	checkEqual(t, "content", d.content(t), before)
}

// Each step publishes other records for the same window. Rows that stay equal must stay where they are.
func TestRestatements(t *testing.T) {
	t.Parallel()
	base := someRecords(50)
	twin := sdr("20240310000000", "twin", "7")
	huge := func(amount string) string {
		return sdr("20240311000000", "huge", amount, "accumulate_factor_name", `"upflow"`)
	}
	steps := []struct {
		name              string
		records           []string
		inserted, deleted int64
		amounts           string
		dirty             []string
	}{
		{"first", base, 50, 0, "", []string{"2024-03-01"}},
		{"one more in another month", append(base[:50:50], sdr("20240401000000", "vm", "0.000000000001")), 1, 0, `{"Duration":["1250","1250.000000000001","0.000000000001"]}`, []string{"2024-04-01"}},
		{"it vanishes", base, 0, 1, `{"Duration":["1250.000000000001","1250","-0.000000000001"]}`, []string{"2024-04-01"}},
		{"one amount corrected", append(base[:49:49], sdr("20240303010000", "vm-0049", "-49.5")), 1, 1, `{"Duration":["1250","1151","-99.000000000000"]}`, []string{"2024-03-01"}},
		{"twins come", append(base[:50:50], twin, twin, twin), 4, 1, `{"Duration":["1151","1271","120.000000000000"]}`, []string{"2024-03-01"}},
		{"a twin goes", append(base[:50:50], twin, twin), 0, 1, `{"Duration":["1271","1264","-7.000000000000"]}`, []string{"2024-03-01"}},
		{"38 digits", append(base[:50:50], huge("99999999999999999999999999.999999999999"), huge("99999999999999999999999999.999999999998")), 2, 2, `{"Duration":["1264","1250","-14.000000000000"],"upflow":["","199999999999999999999999999.999999999997","199999999999999999999999999.999999999997"]}`, []string{"2024-03-01"}},
		{"one of them NULL", append(base[:50:50], huge("99999999999999999999999999.999999999999"), huge("null")), 1, 1, `{"upflow":["199999999999999999999999999.999999999997","99999999999999999999999999.999999999999","-99999999999999999999999999.999999999998"]}`, []string{"2024-03-01"}},
		{"only the quarantine", append(base[:50:50], huge("99999999999999999999999999.999999999999"), huge("null"), `{"begin_time":"never"}`), 0, 0, `{}`, nil},
		{"everything else", someRecords(90)[50:], 40, 52, `{"Duration":["1250","2800","1550.000000000000"],"upflow":["99999999999999999999999999.999999999999","","-99999999999999999999999999.999999999999"]}`, []string{"2024-03-01"}},
	}
	d := newDatabase(t)
	var had []string
	seqs := map[string]int64{}
	for i, step := range steps {
		p := d.prepare(t, march, step.records)
		r := d.replacement(p)
		outcome := d.mustReplace(t, r)[0]
		if outcome.Inserted != step.inserted || outcome.Deleted != step.deleted || outcome.Generation != i+1 || outcome.Restated != (i > 0) || outcome.Unchanged {
			t.Errorf("%s: got %+v, want %d inserted and %d deleted", step.name, outcome, step.inserted, step.deleted)
		}
		have := d.versions(t)
		var fresh, gone int64
		for _, v := range have {
			if _, found := slices.BinarySearch(had, v); !found {
				fresh++
			}
		}
		for _, v := range had {
			if _, found := slices.BinarySearch(have, v); !found {
				gone++
			}
		}
		if fresh != step.inserted || gone != step.deleted {
			t.Errorf("%s: %d rows are new and %d are gone, want %d and %d", step.name, fresh, gone, step.inserted, step.deleted)
		}
		had = have
		for _, m := range step.dirty {
			seqs[m]++
		}
		if got := fmt.Sprint(d.dirty(t)); got != fmt.Sprint(seqs) {
			t.Errorf("%s: dirty partitions: got %s, want %v", step.name, got, seqs)
		}
		if i == 0 {
			continue
		}
		checkRestatement(t, d, step.name, p, outcome, step.amounts)
	}
	if w := d.windows(t, north)[0]; w.RestatementCount != len(steps)-1 {
		t.Errorf("%d restatements, want %d", w.RestatementCount, len(steps)-1)
	}
}

// checkRestatement compares the newest row of the log; amounts are before, after and change of each factor.
func checkRestatement(t *testing.T, d *database, name string, p pipeline.Publication, o pipeline.Outcome, amounts string) {
	t.Helper()
	var logged struct {
		RunID         int64                                             `json:"run_id"`
		JobRow        int64                                             `json:"job_row"`
		Inserted      int64                                             `json:"inserted"`
		Deleted       int64                                             `json:"deleted"`
		RecordsBefore int64                                             `json:"records_before"`
		RecordsAfter  int64                                             `json:"records_after"`
		DigestAfter   string                                            `json:"digest_after"`
		ToDateBefore  pipeline.Date                                     `json:"to_date_before"`
		ToDateAfter   pipeline.Date                                     `json:"to_date_after"`
		Amounts       map[string]struct{ Before, After, Change string } `json:"amounts"`
	}
	text := query[string](t, d, "SELECT to_jsonb(r)::text FROM sdr_sync.restatement r WHERE window_id = $1 AND generation = $2", o.WindowID, o.Generation)
	if err := json.Unmarshal([]byte(text), &logged); err != nil {
		t.Fatal(err)
	}
	if logged.RunID != d.run || logged.JobRow != p.Job.Row || logged.Inserted != o.Inserted || logged.Deleted != o.Deleted ||
		logged.RecordsAfter != p.Records.Count || logged.RecordsBefore != p.Records.Count-o.Inserted+o.Deleted || logged.DigestAfter != p.Records.Sum() ||
		logged.ToDateBefore != o.ToBefore || logged.ToDateAfter != p.Job.Window.To {
		t.Errorf("%s: the restatement is %s", name, text)
	}
	got := map[string][]string{}
	for factor, a := range logged.Amounts {
		got[factor] = []string{a.Before, a.After, a.Change}
	}
	gotText, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(gotText) != amounts {
		t.Errorf("%s: amounts: got %s, want %s", name, gotText, amounts)
	}
}

// What the decoder made of a record comes back from Postgres byte for byte, hash included.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	hostile := []string{
		`'); drop table billing.sdr; --`, `../../etc/passwd`, `\N`, `\.`, "a\tb\nc\rd\be\f", `"quoted" \ back`, "\u007f\u0080\u2028\uFEFF", "🧾💴", strings.Repeat("很长", 50_000),
		"计算型云服务器", "NULL", " ", "", "$1", "%s%n", "{}", "￿", "e\u0301 é",
	}
	var records []string
	for i, text := range hostile {
		records = append(records, sdr(fmt.Sprintf("202403%02d000000", i+1), text, "1", "tag", quote(text), "cloud_service_type_code", quote(text), "accumulate_factor_name", quote(text),
			"unknown "+text, quote(text)))
	}
	for i, amount := range []string{
		"99999999999999999999999999.999999999999", "-99999999999999999999999999.999999999999", "0.000000000001", "-0.000000000001", "0", "-0", "1e-12", "1E25", `"  +.5 "`,
		"10000", "100000000", "12345.6789", "0.00010000", "1234567890123456789012345.6", "null", `""`,
	} {
		records = append(records, sdr("20240320000000", fmt.Sprintf("amount-%d", i), amount))
	}
	for i, extra := range []string{
		`{"b":1.50,"a":[{"z":null,"y":""},true,-0.0,1e30,1e-30]}`, `"text"`, `null`, `[]`, `{"":{"":{}}}`, `"\u00e9\ud83d\ude00\n\/"`, `{"k":1,"k":2}`, `123456789012345678901234567890.123456789012345678901234567890`,
	} {
		records = append(records, sdr("20240321000000", fmt.Sprintf("extra-%d", i), "1", "newField", extra))
	}
	for i, when := range []string{"00010101000000", "19991231235959", "20000101000000", "20240229235959", "99991231235959", "2024-03-01T10:00:00.123456+08:00"} {
		records = append(records, sdr("20240322000000", fmt.Sprintf("time-%d", i), "1", "time_stamp", quote(when), "end_time", quote(when)))
	}
	records = append(
		records,
		sdr("20100101000000", "earliest", "1"),
		sdr("20240323000000", "nulls", "null", "region_code", "null", "project_id", "null", "accumulate_factor_name", `"null"`, "tag", "null"),
		sdr("20240323000000", "empties", `""`, "region_code", `""`, "project_id", `""`, "accumulate_factor_name", `""`, "tag", `""`),
		`{"begin_time":"20240324000000"}`,
	)
	p := d.prepare(t, march, records)
	if p.Quarantined.Count != 0 {
		t.Fatalf("%d records are quarantined", p.Quarantined.Count)
	}
	d.mustReplace(t, d.replacement(p))

	hasher := record.NewHasher(schemas.SDR())
	sent := map[record.Hash]*record.Row{}
	for row, err := range p.Rows {
		if err != nil {
			t.Fatal(err)
		}
		sent[row.Key] = row.Clone()
	}
	states, err := d.Store(stream).Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var content record.Digest
	for _, s := range states {
		_, _, rows := readPartition(t, d.DB, s.Partition)
		for _, got := range rows {
			want := sent[got.Key]
			if want == nil {
				t.Errorf("got a row that was not sent: %s", field(got, "resource_id"))
				continue
			}
			h := hasher.Content(got.Values)
			content.Add(h)
			if h != want.Hash || got.NaturalKey != want.NaturalKey || got.UsageDate != want.UsageDate || got.Site != want.Site || got.Ordinal != want.Ordinal || got.WindowID == 0 {
				t.Errorf("row %q differs in its derived columns", field(want, "resource_id"))
			}
			for i, f := range schemas.SDR().Fields {
				g, w := got.Values[i], want.Values[i]
				if g.Valid != w.Valid || g.Int != w.Int || string(g.Bytes) != string(w.Bytes) {
					t.Errorf("row %.40q, field %s: got %v %.60q %d, want %v %.60q %d", field(want, "resource_id"), f.Name, g.Valid, g.Bytes, g.Int, w.Valid, w.Bytes, w.Int)
				}
			}
		}
	}
	if content != p.Records {
		t.Errorf("read %s, want %s", content, p.Records)
	}
	// NULL and "" are two rows of the daily sums.
	if n := query[int](t, d, "SELECT count(*)::int FROM billing.usage_daily WHERE usage_date = '2024-03-23'"); n != 2 {
		t.Errorf("got %d sums where NULL and the empty text should make 2", n)
	}
	if o := d.publish(t, march, records); !o.Unchanged {
		t.Errorf("again: got %+v", o)
	}
}

func TestQuarantineIsReplacedWithItsWindow(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	bad := []string{`{"begin_time":"never"}`, `{"begin_time":"never"}`, "{\"tag\":\"\\u0000\xff\"}", `{"begin_time":"19990101000000"}`}
	other := d.publish(t, window(east, "2024-03-01", "2024-04-01"), bad[:1])
	o := d.publish(t, march, append(bad, someRecords(1)...))
	quarantine := func() []string {
		return list[string](t, d, `SELECT concat_ws(' ', window_id, raw_hash, ordinal, job_row, page, position, reason, field, raw) FROM sdr_sync.quarantine ORDER BY 1`)
	}
	if n := query[int](t, d, "SELECT count(*)::int FROM sdr_sync.quarantine WHERE window_id = $1", o.WindowID); n != len(bad) {
		t.Errorf("got %d quarantined records, want %d", n, len(bad))
	}
	for i, want := range bad {
		var raw []byte
		var ordinal int
		err := d.admin.QueryRow(t.Context(), "SELECT raw, ordinal FROM sdr_sync.quarantine WHERE window_id = $1 AND page = 1 AND position = $2", o.WindowID, i+1).Scan(&raw, &ordinal)
		if err != nil || string(raw) != want || ordinal != min(i, 1)*max(0, 2-i) {
			t.Errorf("record %d: got %q with ordinal %d (%v), want %q", i+1, raw, ordinal, err, want)
		}
	}

	// One is mended at the vendor, one is new.
	d.publish(t, march, append([]string{bad[0], bad[3], `[]`}, someRecords(1)...))
	if n := query[int](t, d, "SELECT count(*)::int FROM sdr_sync.quarantine WHERE window_id = $1", o.WindowID); n != 3 {
		t.Errorf("got %d quarantined records, want 3", n)
	}
	before := quarantine()
	d.publish(t, march, append([]string{bad[0], bad[3], `[]`}, someRecords(2)...))
	checkEqual(t, "an unchanged quarantine", quarantine(), before)
	d.publish(t, march, someRecords(1))
	if rest := list[int64](t, d, "SELECT window_id FROM sdr_sync.quarantine"); len(rest) != 1 || rest[0] != other.WindowID {
		t.Errorf("got quarantined records of windows %v, want one of %d", rest, other.WindowID)
	}
}

// An open month grows. Content that is still the same moves the window's end and nothing else.
func TestWindowGrows(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	first := d.publish(t, window(north, "2024-03-01", "2024-03-15"), someRecords(3))
	versions := d.versions(t)
	o := d.publish(t, window(north, "2024-03-01", "2024-03-20"), someRecords(3))
	if want := (pipeline.Outcome{WindowID: first.WindowID, Generation: 1, Unchanged: true, ToBefore: date("2024-03-15")}); o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	checkEqual(t, "versions", d.versions(t), versions)
	if w := d.windows(t, north); len(w) != 1 || w[0].To != date("2024-03-20") || w[0].Generation != 1 {
		t.Errorf("got %+v", w)
	}
	o = d.publish(t, march, someRecords(4))
	if want := (pipeline.Outcome{WindowID: first.WindowID, Generation: 2, Restated: true, Inserted: 1, ToBefore: date("2024-03-20")}); o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	if w := d.windows(t, north); len(w) != 1 || w[0].To != march.To {
		t.Errorf("got %+v", w)
	}
}

func TestShrink(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		had, got int
		refused  bool
	}{
		{"half", 10, 5, false},
		{"less than half", 10, 4, true},
		{"nothing", 10, 0, true},
		{"the only one", 1, 0, true},
		{"nothing where nothing was", 0, 0, false},
		{"growth", 0, 3, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.publish(t, march, someRecords(test.had))
			r := d.replacement(d.prepare(t, march, someRecords(test.got)))
			if !test.refused {
				d.mustReplace(t, r)
				return
			}
			err := d.checkUntouched(t, r, func(err error) bool { return errors.As(err, new(*pipeline.ShrinkError)) })
			var shrink *pipeline.ShrinkError
			if errors.As(err, &shrink) && *shrink != (pipeline.ShrinkError{Stream: stream, Window: march, Had: int64(test.had), Got: int64(test.got)}) {
				t.Errorf("got %+v", shrink)
			}
			r.AcceptShrink = true
			if o := d.mustReplace(t, r)[0]; o.Deleted != int64(test.had-test.got) || o.Generation != 2 {
				t.Errorf("accepted: got %+v", o)
			}
			if n := query[int](t, d, "SELECT count(*)::int FROM billing.sdr"); n != test.got {
				t.Errorf("accepted: %d records, want %d", n, test.got)
			}
			// And it can grow again.
			d.publish(t, march, someRecords(test.had))
		})
	}
}

// A quarantine that swallows the whole window is an empty result like any other.
func TestAllQuarantinedIsAShrink(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(1))
	d.checkUntouched(t, d.replacement(d.prepare(t, march, []string{`{"begin_time":"never"}`})), func(err error) bool { return errors.As(err, new(*pipeline.ShrinkError)) })
}

func TestOverlapIsRefused(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(1))
	for _, w := range []pipeline.Window{
		window(north, "2024-03-15", "2024-03-16"), window(north, "2024-02-15", "2024-03-02"), window(north, "2024-03-31", "2024-05-01"),
	} {
		d.checkUntouched(t, d.replacement(d.prepare(t, w, someRecords(1))), says("window_no_overlap"))
	}
	for _, w := range []pipeline.Window{
		window(north, "2024-02-01", "2024-03-01"), window(north, "2024-04-01", "2024-04-02"), window(east, "2024-03-15", "2024-03-16"),
	} {
		d.publish(t, w, someRecords(1))
	}
	// A window that would grow into the next one.
	d.publish(t, window(north, "2024-04-02", "2024-04-03"), someRecords(1))
	d.checkUntouched(t, d.replacement(d.prepare(t, window(north, "2024-04-01", "2024-04-03"), someRecords(2))), says("window_no_overlap"))
}

func TestReslice(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	// Late usage among it, twins in one file, and something for the quarantine.
	byDay := make([][]string, 31)
	var all []string
	for i := range byDay {
		for k := range 3 {
			byDay[i] = append(byDay[i], sdr(fmt.Sprintf("2024%02d%02d0%d0000", 2+(i+k)%2, i%28+1, k), fmt.Sprintf("vm-%d-%d", i, k), "1.25"))
		}
	}
	byDay[7] = append(byDay[7], byDay[7][0], `{"begin_time":"never"}`)
	for _, records := range byDay {
		all = append(all, records...)
	}
	d.publish(t, march, all)
	east := d.publish(t, window(east, "2024-03-01", "2024-04-01"), all)
	facts, sums := d.facts(t), query[string](t, d, "SELECT sum(accumulate_factor_value)::text FROM billing.usage_daily")

	var days []pipeline.Publication
	for i, records := range byDay {
		from := date("2024-03-01") + pipeline.Date(i)
		days = append(days, d.prepare(t, window(north, from.String(), (from+1).String()), records))
	}
	r := d.replacement(days...)
	r.Retire = d.windows(t, north)
	seqs := d.dirty(t)
	outcomes := d.mustReplace(t, r)
	for i, o := range outcomes {
		if o.Generation != 1 || o.Restated || o.Unchanged || o.Inserted != days[i].Records.Count || o.Deleted != 0 {
			t.Errorf("day %d: got %+v", i+1, o)
		}
	}
	windows := d.windows(t, north)
	if len(windows) != 31 || windows[0].Unit != pipeline.Day || windows[30].To != march.To {
		t.Fatalf("got %d windows", len(windows))
	}
	checkEqual(t, "facts in days", d.facts(t), facts)
	for month, seq := range d.dirty(t) {
		if seq != seqs[month]+1 {
			t.Errorf("in days: partition %s is at %d, was at %d", month, seq, seqs[month])
		}
	}

	// Back again, in an order of no meaning.
	r = d.replacement(d.prepare(t, march, all))
	r.Retire = windows
	slices.Reverse(r.Retire)
	seqs = d.dirty(t)
	d.mustReplace(t, r)
	checkEqual(t, "facts in one month", d.facts(t), facts)
	for month, seq := range d.dirty(t) {
		if seq != seqs[month]+1 {
			t.Errorf("in one month: partition %s is at %d, was at %d", month, seq, seqs[month])
		}
	}
	if got := query[string](t, d, "SELECT sum(accumulate_factor_value)::text FROM billing.usage_daily"); got != sums {
		t.Errorf("sum: got %s, want %s", got, sums)
	}
	if w := d.windows(t, north); len(w) != 1 || w[0].Unit != pipeline.Month || w[0].ID == r.Retire[0].ID {
		t.Errorf("got %+v", w)
	}
	if n := query[int](t, d, "SELECT count(*)::int FROM sdr_sync.window WHERE retired_at IS NOT NULL"); n != 32 {
		t.Errorf("%d windows are retired, want 32", n)
	}
	if n := query[int](t, d, "SELECT count(*)::int FROM billing.sdr WHERE window_id = $1", east.WindowID); n != len(all)-1 {
		t.Errorf("the other scope's window holds %d records", n)
	}
}

// Windows that were published meanwhile are not retired, and a failure of the last window takes back the first.
func TestResliceIsAllOrNothing(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(2))
	stale := d.windows(t, north)
	d.publish(t, march, someRecords(3))
	days := func() pipeline.Replacement {
		return d.replacement(
			d.prepare(t, window(north, "2024-03-01", "2024-03-02"), someRecords(2)),
			d.prepare(t, window(north, "2024-03-02", "2024-03-03"), someRecords(1)),
		)
	}
	r := days()
	r.Retire = stale
	d.checkUntouched(t, r, says("changed meanwhile"))

	r = days()
	r.Retire = d.windows(t, north)
	r.Publish[1].Rows = before(r.Publish[1].Rows, func(int) error { return errTorn })
	d.checkUntouched(t, r, is(errTorn))
}

// A window with records of an archived month is not retired: the windows that follow it could not bring them back.
func TestResliceKeepsArchivedMonths(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	records := append(someRecords(5), sdr("20240207000000", "late", "1"))
	d.publish(t, march, records)
	d.export(t)
	_, owner := d.login(t, "sdr_sync_owner")
	checkAllowed(t, owner, "SELECT sdr_sync.archive_month('2024-02-01')")
	// The vendor no longer returns the late record.
	r := d.replacement(d.prepare(t, window(north, "2024-03-01", "2024-03-02"), records[:5]))
	r.Retire = d.windows(t, north)
	err := d.checkUntouched(t, r, says("retire window "+march.String()+": usage month 2024-02 is archived"))
	if !says("sdr_sync.restore_month")(err) {
		t.Errorf("%q does not say what to do", err)
	}
	checkAllowed(t, owner, "SELECT sdr_sync.restore_month('2024-02-01')")
	d.mustReplace(t, r)
}

// Publishing into months that are there does not wait for whoever archives one.
func TestPartitionsThatAreThere(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, append(someRecords(3), sdr("20240207000000", "late", "1")))
	d.export(t)
	tx, err := d.admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('sdr_sync.ensure_partition', 0))"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := d.replacement(d.prepare(t, march, append(someRecords(4), sdr("20240207000000", "late", "1"))))
	if _, err := replace(ctx, d.DB, r); err != nil {
		t.Fatal(err)
	}
}

// What may wait for somebody's lock does so for two minutes at most. Each statement is made to fail with the limit that it runs under.
func TestNothingWaitsForALockForEver(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	job := d.landed(t, march)
	d.exec(t, `
		CREATE OR REPLACE FUNCTION sdr_sync.ensure_partition(parent text, month date) RETURNS void LANGUAGE plpgsql AS $$
			BEGIN RAISE EXCEPTION 'lock_timeout is %', current_setting('lock_timeout'); END $$;
		CREATE FUNCTION limits() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN RAISE EXCEPTION 'lock_timeout is %', current_setting('lock_timeout'); END $$;
		CREATE TRIGGER limits BEFORE UPDATE ON sdr_sync.job FOR EACH ROW EXECUTE FUNCTION limits()`)
	for name, do := range map[string]func() error{
		"partition": func() error {
			_, err := replace(t.Context(), d.DB, d.replacement(publication(t, job, someRecords(1))))
			return err
		},
		"job":     func() error { return d.UpdateJob(t.Context(), job) },
		"abandon": func() error { return d.AbandonJobs(t.Context(), stream, north, testNow) },
	} {
		if err := do(); err == nil || !says("lock_timeout is 2min")(err) {
			t.Errorf("%s: got %v, want it to run under a lock_timeout of 2 min", name, err)
		}
	}
}

var errTorn = errors.New("the landing file is torn")

// Whatever goes wrong with the rows, nothing of the window is published, be it the first time or not.
func TestRowsGoWrong(t *testing.T) {
	t.Parallel()
	records := append(someRecords(20), `{"begin_time":"never"}`, `{}`)
	tests := []struct {
		name   string
		damage func(p *pipeline.Publication)
		want   func(error) bool
	}{
		{"at the first row", func(p *pipeline.Publication) { p.Rows = before(p.Rows, func(int) error { return errTorn }) }, is(errTorn)},
		{"in the middle", func(p *pipeline.Publication) {
			p.Rows = before(p.Rows, func(n int) error {
				if n == 10 {
					return errTorn
				}
				return nil
			})
		}, is(errTorn)},
		{"a row less", func(p *pipeline.Publication) {
			rows := p.Rows
			p.Rows = func(yield func(*record.Row, error) bool) {
				n := 0
				rows(func(row *record.Row, err error) bool { n++; return n == 20 || yield(row, err) })
			}
		}, says("changed underneath")},
		{"another row", func(p *pipeline.Publication) {
			p.Rows = before(p.Rows, func(int) error { return nil })
			p.Records.Lo++
		}, says("changed underneath")},
		{"a row twice", func(p *pipeline.Publication) {
			rows := p.Rows
			p.Rows = func(yield func(*record.Row, error) bool) {
				rows(func(row *record.Row, err error) bool {
					first := yield(row, err)
					return first && yield(row, err)
				})
			}
		}, func(err error) bool {
			return strings.Contains(err.Error(), "changed underneath") || strings.Contains(err.Error(), "duplicate key")
		}},
		{"another reject", func(p *pipeline.Publication) { p.Quarantined.Lo++ }, says("changed underneath")},
		{"rejects torn", func(p *pipeline.Publication) {
			p.Rejects = func(yield func(pipeline.Rejected, error) bool) { yield(pipeline.Rejected{}, errTorn) }
		}, is(errTorn)},
		{"an amount that is none", func(p *pipeline.Publication) {
			rows := p.Rows
			p.Rows = func(yield func(*record.Row, error) bool) {
				rows(func(row *record.Row, err error) bool {
					row = row.Clone()
					row.Values[schemas.SDR().Index("accumulate_factor_value")].Bytes = nil
					return yield(row, err)
				})
			}
		}, says("decimal")},
		{"a usage month that was not announced", func(p *pipeline.Publication) {
			rows := p.Rows
			p.Rows = func(yield func(*record.Row, error) bool) {
				rows(func(row *record.Row, err error) bool { row.UsageDate += 1000; return yield(row, err) })
			}
		}, says("no partition")},
	}
	for _, again := range []bool{false, true} {
		d := newDatabase(t)
		if again {
			d.publish(t, march, someRecords(15))
		}
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s, published before %t", test.name, again), func(t *testing.T) {
				p := d.prepare(t, march, records)
				test.damage(&p)
				d.checkUntouched(t, d.replacement(p), test.want)
			})
		}
		if o := d.publish(t, march, records); o.Inserted == 0 {
			t.Errorf("undamaged: got %+v", o)
		}
	}
}

// The lease is taken over while the rows are being copied: the loser must not commit.
func TestFenced(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.publish(t, march, someRecords(3))
	for name, steal := range map[string]string{
		"taken over": "UPDATE sdr_sync.lease SET token = nextval('sdr_sync.lease_token')", "released": "DELETE FROM sdr_sync.lease",
	} {
		t.Run(name, func(t *testing.T) {
			p := d.prepare(t, march, someRecords(4))
			p.Rows = before(p.Rows, func(n int) error {
				if n == 1 {
					d.exec(t, steal)
				}
				return nil
			})
			d.checkUntouched(t, d.replacement(p), is(pipeline.ErrFenced))
			d.exec(t, "DELETE FROM sdr_sync.lease")
		})
	}
	// A token that never was one.
	r := d.replacement(d.prepare(t, march, someRecords(4)))
	r.LeaseToken = 12345
	if _, err := d.Publish(t.Context(), r); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("without a lease: got %v", err)
	}
	d.checkClean(t)
}

func TestCancelledInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("published before %t", again), func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			if again {
				d.publish(t, march, someRecords(3))
			}
			p := d.prepare(t, march, someRecords(3))
			p.Records.Count++
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			stop := errors.New("asked to stop")
			var cancelled time.Time
			endless := p.Rows
			p.Rows = func(yield func(*record.Row, error) bool) { // only an end of the COPY ends it
				for row, err := range endless {
					for row.Ordinal = 0; time.Since(cancelled) < 20*time.Second || cancelled.IsZero(); row.Ordinal++ {
						if row.Ordinal == 1000 {
							cancelled = time.Now()
							cancel(stop)
						}
						if !yield(row, err) {
							return
						}
					}
					t.Error("the COPY went on")
					return
				}
			}
			had := d.content(t)
			_, err := replace(ctx, d.DB, d.replacement(p))
			if !errors.Is(err, stop) {
				t.Errorf("got %v, want why it was cancelled", err)
			}
			if took := time.Since(cancelled); took > 10*time.Second {
				t.Errorf("it took %s to stop", took)
			}
			checkEqual(t, "content", d.content(t), had)
			// Nothing of it holds a lock any more.
			d.publish(t, march, someRecords(4))
		})
	}
}

// Windows of two scopes that share usage dates are published at once: none is committed before all have copied their rows.
func TestParallelPublications(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	windows := []pipeline.Window{march, window(north, "2024-04-01", "2024-05-01"), window(east, "2024-03-01", "2024-04-01"), window(east, "2024-04-01", "2024-05-01")}
	for round, n := range []int{40, 35} { // by COPY alone, then by merging
		var copying sync.WaitGroup
		copying.Add(len(windows))
		var publications []pipeline.Publication
		for _, w := range windows {
			p := d.prepare(t, w, append(someRecords(n), sdr("20240401000000", "vm", fmt.Sprint(round))))
			p.Rows = before(p.Rows, func(i int) error {
				if i == n-1 {
					copying.Done()
					copying.Wait()
				}
				return nil
			})
			publications = append(publications, p)
		}
		err := d.WithLeases(t.Context(), []pipeline.StreamScope{of(north), of(east)}, func(ctx context.Context, tokens map[pipeline.StreamScope]int64) error {
			errs := make([]error, len(publications))
			var wg sync.WaitGroup
			for i, p := range publications {
				wg.Go(func() {
					r := d.replacement(p)
					r.LeaseToken = tokens[pipeline.StreamScope{Stream: r.Stream, Scope: r.Scope}]
					_, errs[i] = d.Publish(ctx, r)
				})
			}
			wg.Wait()
			return errors.Join(errs...)
		})
		if err != nil {
			t.Fatal(err)
		}
		d.checkSums(t)
		d.checkClean(t)
		want := int64(len(windows) * (round + 1))
		if got := d.dirty(t); got["2024-03-01"] != want || got["2024-04-01"] != want {
			t.Errorf("round %d: dirty partitions: got %v, want each at %d", round, got, want)
		}
		if got := query[int](t, d, "SELECT sum(records)::int FROM billing.usage_daily"); got != len(windows)*(n+1) {
			t.Errorf("round %d: the sums count %d records, want %d", round, got, len(windows)*(n+1))
		}
	}
}

// A replay after a change of the source time zone moves usage dates, and with them rows between partitions.
func TestReplayMovesUsageDates(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.prepare(t, march, []string{sdr("2024-03-31T23:00:00Z", "vm", "1"), sdr("2024-03-15T12:00:00Z", "vm", "1")})
	d.mustReplace(t, d.replacement(p))
	d.zone = time.FixedZone("two hours ahead", 2*60*60)
	d.DB = openConfig(t, postgres.Config{URL: pipeline.Secret(d.url), SourceZone: d.zone})
	moved := p
	moved.UsageDates = map[pipeline.Date]int64{date("2024-04-01"): 1, date("2024-03-15"): 1}
	moved.Rows = func(yield func(*record.Row, error) bool) {
		p.Rows(func(row *record.Row, err error) bool {
			if row.UsageDate == date("2024-03-31") {
				row.UsageDate++
			}
			return yield(row, err)
		})
	}
	r := d.replacement(moved)
	r.Replay = true
	d.mustReplace(t, r)
	checkEqual(t, "usage dates", list[string](t, d, "SELECT usage_date::text FROM billing.sdr ORDER BY 1"), []string{"2024-03-15", "2024-04-01"})
}
