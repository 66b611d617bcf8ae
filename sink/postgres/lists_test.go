package postgres_test

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/migrations"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// The tests' own streams, one of each shape and a snapshot without a key.
const (
	alarmYAML = `
stream: test_alarms
title: Alarms
document: Test 1
table: billing.test_alarm
version: 1
shape: events
time_field: order
key: [csn]
list: {system: esm, method: GET, path: /alarms, rate: {class: a}, items: list, paging: {style: none}, time: {begin: b, end: e, unit: ms, window: month}}
fields:
  - {name: csn, type: bigint, required: true, meaning: Number.}
  - {name: order, type: timestamp, required: true, meaning: "Time, under a name that SQL reserves."}
  - {name: severity, type: integer, meaning: Severity.}
  - {name: text, type: text, meaning: "What the vendor's people call it."}
  - {name: ratio, type: decimal, unit: percent, meaning: Ratio.}
  - {name: day, type: date, meaning: A day.}
  - {name: load, type: float, meaning: What the vendor measures.}
  - {name: extra, type: json, meaning: The rest.}
`
	deviceYAML = `
stream: test_devices
title: Devices
document: Test 2
table: billing.test_device
version: 1
shape: snapshot
key: [user]
list: {system: esm, method: GET, path: /devices, rate: {class: a}, items: list, paging: {style: none}}
fields:
  - {name: user, type: text, required: true, meaning: Key.}
  - {name: value, type: text, meaning: Value.}
  - {name: extra, type: json, meaning: The rest.}
`
	noteYAML = `
stream: test_notes
title: Notes
document: Test 3
table: billing.test_note
version: 1
shape: snapshot
list: {system: esm, method: GET, path: /notes, rate: {class: a}, items: list, paging: {style: none}}
fields:
  - {name: value, type: text, meaning: Value.}
`
	subscriptionYAML = `
stream: test_subscriptions
title: Subscriptions
document: Test 4
table: billing.test_subscription
version: 1
shape: history
key: [id]
list: {system: bss, method: GET, path: /subscriptions, rate: {class: a}, items: list, paging: {style: none}}
fields:
  - {name: id, type: text, required: true, meaning: Key.}
  - {name: value, type: text, meaning: Value.}
  - {name: ordinal, type: integer, meaning: "A name that other shapes use themselves."}
  - {name: extra, type: json, meaning: The rest.}
`
)

func parse(t *testing.T, text string) *schemas.Stream {
	t.Helper()
	s, err := schemas.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newLists returns a database with the tables of the streams, made as their migrations make them, and used with the rights of the
// writer alone.
func newLists(t *testing.T, texts ...string) (*database, []*schemas.Stream) {
	t.Helper()
	d := newDatabase(t)
	for _, text := range texts {
		s := parse(t, text)
		up, _, _ := strings.Cut(migrations.Table(s), "-- +goose Down")
		d.exec(t, up)
		d.lists = append(d.lists, s)
	}
	d.DB = openConfig(t, d.writing(t, postgres.Config{}))
	return d, d.lists
}

// writing completes cfg for the writer.
func (d *database) writing(t *testing.T, cfg postgres.Config) postgres.Config {
	t.Helper()
	cfg.URL = pipeline.Secret(asRole(t, d.url, "sdr_sync_writer"))
	cfg.Streams = append([]*schemas.Stream{schemas.SDR()}, d.lists...)
	return cfg
}

// fields are a row's values by name: string, int, float64, time.Time, or nil.
type fields map[string]any

// newRow returns the row as the decoder would.
func newRow(s *schemas.Stream, zone *time.Location, f fields) *record.Row {
	row := record.NewRow(s)
	for i, field := range s.Fields {
		switch v := f[field.Name].(type) {
		case string:
			row.Values[i] = record.Value{Valid: true, Bytes: []byte(v)}
		case int:
			row.Values[i] = record.Value{Valid: true, Int: int64(v)}
		case float64:
			row.Values[i] = record.Value{Valid: true, Int: int64(math.Float64bits(v))}
		case time.Time:
			row.Values[i] = record.Value{Valid: true, Int: v.UnixMicro()}
		}
	}
	hasher := record.NewHasher(s)
	row.Hash, row.NaturalKey = hasher.Content(row.Values), hasher.Natural("", row.Values)
	row.Key = row.Hash
	if s.TimeField != "" {
		micros := row.Values[s.Index(s.TimeField)].Int
		row.Key, row.UsageDate = record.KeyOf(micros, row.Hash), record.DateOf(time.UnixMicro(micros), zone)
	}
	row.Site = pipeline.Tenant.Site
	return row
}

// pull is what a list is published with.
type pull struct {
	window      pipeline.Window // the whole list if zero
	rows        []fields
	quarantined []string
	created     time.Time      // an hour ago if zero
	zone        *time.Location // UTC if nil
}

// prepareList returns the publication of a pull, under a job of its own.
func (d *database) prepareList(t *testing.T, s *schemas.Stream, l pull) pipeline.Publication {
	t.Helper()
	if l.window == (pipeline.Window{}) {
		l.window = pipeline.WholeWindow()
	}
	if l.created.IsZero() {
		l.created = testNow.Add(-time.Hour)
	}
	zone := cmp.Or(l.zone, time.UTC)
	p := pipeline.Publication{Job: d.landedOf(t, s.Name, l.window, l.created), UsageDates: map[pipeline.Date]int64{}}
	var rows []*record.Row
	twins := map[record.Hash]int32{}
	for _, f := range l.rows {
		row := newRow(s, zone, f)
		row.Ordinal = twins[row.Hash]
		twins[row.Hash]++
		rows = append(rows, row)
		p.Records.Add(row.Hash)
		p.UsageDates[row.UsageDate]++
	}
	p.Rows = func(yield func(*record.Row, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
	var rejects []pipeline.Rejected
	for i, raw := range l.quarantined {
		h := record.RawHash([]byte(raw))
		p.Quarantined.Add(h)
		rejects = append(rejects, pipeline.Rejected{
			Reject: record.Reject{Reason: "missing_id", Field: "id", RawHash: h}, Page: 1, Position: i + 1, Ordinal: twins[h], Raw: []byte(raw),
		})
		twins[h]++
	}
	p.Rejects = func(yield func(pipeline.Rejected, error) bool) {
		for _, r := range rejects {
			if !yield(r, nil) {
				return
			}
		}
	}
	return p
}

// listReplacement publishes ps of the stream under the settings of the program.
func (d *database) listReplacement(s *schemas.Stream, ps ...pipeline.Publication) pipeline.Replacement {
	r := d.replacement(ps...)
	r.Stream = s.Name
	return r
}

// pull publishes a pull, which must go well and leave everything consistent.
func (d *database) pull(t *testing.T, s *schemas.Stream, l pull) pipeline.Outcome {
	t.Helper()
	return d.mustReplace(t, d.listReplacement(s, d.prepareList(t, s, l)))[0]
}

// changedLines are the lines of content that were not there before.
func (d *database) changedLines(t *testing.T, before []string) []string {
	t.Helper()
	return slices.DeleteFunc(d.content(t), func(line string) bool { return slices.Contains(before, line) })
}

// readList returns copies of all rows of a list's partition.
func readList(t *testing.T, db *postgres.DB, s *schemas.Stream, p pipeline.Partition) (state pipeline.PartitionState, windows []pipeline.PublishedWindow, rows []*record.Row) {
	t.Helper()
	err := db.Store(s.Name).ReadPartition(t.Context(), p, func(st pipeline.PartitionState, w []pipeline.PublishedWindow, read iter.Seq2[*record.Row, error]) error {
		state, windows = st, w
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

// stored returns the column of a stored row.
func stored(s *schemas.Stream, row *record.Row, column string) record.Value {
	return row.Values[s.Stored().Index(column)]
}

var wholePartition = pipeline.Partition{Site: "tenant", Unit: pipeline.Whole}

// wantVanish tells whether err is a VanishError of so many rows.
func wantVanish(s *schemas.Stream, gone, had int64) func(error) bool {
	return func(err error) bool {
		var v *pipeline.VanishError
		return errors.As(err, &v) && *v == pipeline.VanishError{Stream: s.Name, Gone: gone, Had: had}
	}
}

// pairs reads "a=1 b=2" as rows of key and value.
func pairs(key, text string) []fields {
	var rows []fields
	for _, pair := range strings.Fields(text) {
		k, v, _ := strings.Cut(pair, "=")
		rows = append(rows, fields{key: k, "value": v})
	}
	return rows
}

// numbered returns rows with the keys k0 to k<n-1>.
func numbered(key string, n int) []fields {
	var rows []fields
	for i := range n {
		rows = append(rows, fields{key: fmt.Sprintf("k%d", i), "value": "v"})
	}
	return rows
}

// Each case is a sequence of pulls, one a minute; versions are written as key=value [from,to) with the numbers of pulls, why they
// began and why they ended.
func TestHistory(t *testing.T) {
	t.Parallel()
	type step struct {
		list     string
		want     pipeline.Changes
		same     bool // unchanged
		versions string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"appear and change", []step{
			{list: "a=1 b=2", want: pipeline.Changes{Appeared: 2}, versions: "a=1 [1,) appeared; b=2 [1,) appeared"},
			{list: "b=2 a=1", same: true, versions: "a=1 [1,) appeared; b=2 [1,) appeared"},
			{list: "a=9 b=2 c=3", want: pipeline.Changes{Appeared: 1, Changed: 1}, versions: "a=1 [1,3) appeared changed; a=9 [3,) changed; b=2 [1,) appeared; c=3 [3,) appeared"},
			{list: "a=9 b=2 c=3", same: true, versions: "a=1 [1,3) appeared changed; a=9 [3,) changed; b=2 [1,) appeared; c=3 [3,) appeared"},
			{list: "a=1 b=2 c=3", want: pipeline.Changes{Changed: 1}, versions: "a=1 [1,3) appeared changed; a=9 [3,5) changed changed; a=1 [5,) changed; b=2 [1,) appeared; c=3 [3,) appeared"},
		}},
		{"absent once", []step{
			{list: "a=1 b=2", want: pipeline.Changes{Appeared: 2}, versions: "a=1 [1,) appeared; b=2 [1,) appeared"},
			{list: "a=1", want: pipeline.Changes{Absent: 1}, versions: "a=1 [1,) appeared; b=2 [1,) appeared absent since 2"},
			{list: "a=1 b=2", versions: "a=1 [1,) appeared; b=2 [1,) appeared"},
			{list: "a=1 b=2", same: true, versions: "a=1 [1,) appeared; b=2 [1,) appeared"},
		}},
		{"absent twice, and back as it was", []step{
			{list: "a=1 b=2", want: pipeline.Changes{Appeared: 2}, versions: "a=1 [1,) appeared; b=2 [1,) appeared"},
			{list: "a=1", want: pipeline.Changes{Absent: 1}, versions: "a=1 [1,) appeared; b=2 [1,) appeared absent since 2"},
			{list: "a=1", want: pipeline.Changes{Disappeared: 1}, versions: "a=1 [1,) appeared; b=2 [1,2) appeared disappeared"},
			{list: "a=1", same: true, versions: "a=1 [1,) appeared; b=2 [1,2) appeared disappeared"},
			{list: "a=1 b=2", want: pipeline.Changes{Reappeared: 1}, versions: "a=1 [1,) appeared; b=2 [1,2) appeared disappeared; b=2 [5,) reappeared"},
			{list: "a=1 b=3", want: pipeline.Changes{Changed: 1}, versions: "a=1 [1,) appeared; b=2 [1,2) appeared disappeared; b=2 [5,6) reappeared changed; b=3 [6,) changed"},
		}},
		{"absent once, and back changed", []step{
			{list: "a=1 b=2", want: pipeline.Changes{Appeared: 2}, versions: "a=1 [1,) appeared; b=2 [1,) appeared"},
			{list: "a=1", want: pipeline.Changes{Absent: 1}, versions: "a=1 [1,) appeared; b=2 [1,) appeared absent since 2"},
			{list: "a=1 b=3", want: pipeline.Changes{Changed: 1}, versions: "a=1 [1,) appeared; b=2 [1,3) appeared changed; b=3 [3,) changed"},
		}},
		{"one goes while another is confirmed", []step{
			{list: "a=1 b=2 c=3", want: pipeline.Changes{Appeared: 3}, versions: "a=1 [1,) appeared; b=2 [1,) appeared; c=3 [1,) appeared"},
			{list: "a=1 c=3", want: pipeline.Changes{Absent: 1}, versions: "a=1 [1,) appeared; b=2 [1,) appeared absent since 2; c=3 [1,) appeared"},
			{list: "a=1 d=4", want: pipeline.Changes{Absent: 1, Disappeared: 1, Appeared: 1}, versions: "a=1 [1,) appeared; b=2 [1,2) appeared disappeared; c=3 [1,) appeared absent since 3; d=4 [3,) appeared"},
			{list: "a=1 b=2 c=3 d=4", want: pipeline.Changes{Reappeared: 1}, versions: "a=1 [1,) appeared; b=2 [1,2) appeared disappeared; b=2 [4,) reappeared; c=3 [1,) appeared; d=4 [3,) appeared"},
		}},
		{"from nothing to nothing", []step{
			{list: "", versions: ""},
			{list: "", same: true, versions: ""},
			{list: "a=1", want: pipeline.Changes{Appeared: 1}, versions: "a=1 [3,) appeared"},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, lists := newLists(t, subscriptionYAML)
			s := lists[0]
			generation, dirty := 0, int64(0)
			for i, step := range test.steps {
				before := d.content(t)
				p := d.prepareList(t, s, pull{rows: pairs("id", step.list), created: testNow.Add(time.Duration(i+1) * time.Minute)})
				outcome := d.mustReplace(t, d.listReplacement(s, p))[0]
				if !step.same {
					generation++
					dirty++
				}
				if outcome.Unchanged != step.same || outcome.Changes != step.want || outcome.Generation != generation || outcome.Restated {
					t.Errorf("pull %d: got %+v, want %+v, unchanged %t, in generation %d", i+1, outcome, step.want, step.same, generation)
				}
				if got := d.history(t, s); got != step.versions {
					t.Errorf("pull %d: got\n\t%s\nwant\n\t%s", i+1, got, step.versions)
				}
				if changed := d.changedLines(t, before); step.same && (len(changed) != 1 || !strings.HasPrefix(changed[0], "job ")) {
					t.Errorf("pull %d: an unchanged pull wrote %q, want its job alone", i+1, changed)
				}
				state, windows, rows := readList(t, d.DB, s, wholePartition)
				open := 0
				for _, row := range rows {
					if !stored(s, row, "valid_to").Valid {
						open++
					}
				}
				if standing := len(pairs("id", step.list)); int64(standing) != p.Records.Count || open < standing {
					t.Errorf("pull %d: %d rows are open, %d were pulled", i+1, open, standing)
				}
				if state.Partition != wholePartition || state.DirtySeq != dirty || len(windows) != 1 || windows[0].Window != pipeline.WholeWindow() || windows[0].Generation != generation {
					t.Errorf("pull %d: the partition is %+v with %+v, want it marked %d times", i+1, state, windows, dirty)
				}
			}
		})
	}
}

// history writes the versions of a history down, times as minutes after testNow.
func (d *database) history(t *testing.T, s *schemas.Stream) string {
	t.Helper()
	const minute = "(extract(epoch FROM %s - $1::timestamptz) / 60)::int"
	lines := list[string](t, d, fmt.Sprintf(`
		SELECT concat_ws(' ', id || '=' || value, format('[%%s,%%s)', `+minute+`, `+minute+`), opened_reason, closed_reason, 'absent since ' || `+minute+`)
		FROM %s ORDER BY id, valid_from`, "valid_from", "valid_to", "absent_since", s.Table), testNow)
	return strings.Join(lines, "; ")
}

func TestHistoryRefusesThatManyVanish(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		had, gone int
		refused   bool
	}{
		{"the only one", 1, 1, true},
		{"all of a few", 20, 20, true},
		{"all but one of a few", 21, 20, false},
		{"more than 20, more than a tenth", 22, 21, true},
		{"20 of 100", 100, 20, false},
		{"21 of 100", 100, 21, true},
		{"21, a tenth exactly", 210, 21, false},
		{"22, more than a tenth", 210, 22, true},
		{"nothing of nothing", 0, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, lists := newLists(t, subscriptionYAML)
			s := lists[0]
			all := numbered("id", test.had)
			d.pull(t, s, pull{rows: all})
			rest := func(minutes int) pull {
				return pull{rows: all[test.gone:], created: testNow.Add(time.Duration(minutes) * time.Minute)}
			}
			r := d.listReplacement(s, d.prepareList(t, s, rest(1)))
			if !test.refused {
				d.mustReplace(t, r)
				return
			}
			d.checkUntouched(t, r, wantVanish(s, int64(test.gone), int64(test.had)))
			r.AcceptShrink = true
			if o := d.mustReplace(t, r)[0]; o.Changes != (pipeline.Changes{Absent: int64(test.gone)}) {
				t.Errorf("accepted: got %+v", o)
			}
			// What was accepted once is confirmed without asking again.
			if o := d.pull(t, s, rest(2)); o.Changes != (pipeline.Changes{Disappeared: int64(test.gone)}) {
				t.Errorf("confirmed: got %+v", o)
			}
			if o := d.pull(t, s, rest(3)); !o.Unchanged {
				t.Errorf("again: got %+v", o)
			}
			if o := d.pull(t, s, pull{rows: all, created: testNow.Add(4 * time.Minute)}); o.Changes != (pipeline.Changes{Reappeared: int64(test.gone)}) {
				t.Errorf("all back: got %+v", o)
			}
		})
	}
}

// Rows that are absent already are not newly absent, however many they are.
func TestHistoryVanishesSlowly(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, subscriptionYAML)
	s, all := lists[0], numbered("id", 60)
	for i := range 4 {
		d.pull(t, s, pull{rows: all[i*15:], created: testNow.Add(time.Duration(i) * time.Minute)})
	}
	if got := query[string](t, d, "SELECT string_agg(n::text, ' ' ORDER BY r) FROM (SELECT coalesce(closed_reason, CASE WHEN absent_since IS NULL THEN 'stands' ELSE 'absent' END) AS r, count(*) AS n FROM "+s.Table+" GROUP BY 1) x"); got != "15 30 15" {
		t.Errorf("absent, disappeared, standing: got %s, want 15 30 15", got)
	}
}

// A clock that was set back makes no version end before it begins.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, subscriptionYAML, deviceYAML)
	s, devices := lists[0], lists[1]
	for i, list := range []string{"a=1 b=1", "a=2", "a=3 b=1", "a=4", "a=4", "a=4 b=1"} {
		d.pull(t, s, pull{rows: pairs("id", list), created: testNow.Add(-time.Duration(i) * time.Hour)})
		d.pull(t, devices, pull{rows: append(pairs("user", list), fields{"user": fmt.Sprint("d", i)}), created: testNow.Add(-time.Duration(i) * time.Hour)})
	}
	if n := query[int](t, d, "SELECT count(*)::int FROM "+s.Table); n != 6 {
		t.Errorf("got %d versions, want 4 of a and 2 of b", n)
	}
	if n := query[int](t, d, "SELECT count(*)::int FROM "+s.Table+" WHERE valid_from < $1 OR valid_to <= valid_from", testNow); n != 0 {
		t.Errorf("%d versions have times before the first pull's, or none", n)
	}
	if n := query[int](t, d, "SELECT count(*)::int FROM "+devices.Table+" WHERE first_seen < $1", testNow); n != 0 {
		t.Errorf("%d rows were first seen before the first pull", n)
	}
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, deviceYAML)
	s := lists[0]
	steps := []struct {
		list string
		want pipeline.Changes
		same bool
		rows string // with the pull that saw them first
		new  int    // rows that were written
	}{
		{"a=1 b=2 c=3", pipeline.Changes{Appeared: 3}, false, "a=1 1; b=2 1; c=3 1", 3},
		{"c=3 b=2 a=1", pipeline.Changes{}, true, "a=1 1; b=2 1; c=3 1", 0},
		{"a=1 b=9 d=4", pipeline.Changes{Appeared: 1, Changed: 1, Disappeared: 1}, false, "a=1 1; b=9 1; d=4 3", 2},
		{"a=1 b=2 c=3 d=4", pipeline.Changes{Appeared: 1, Changed: 1}, false, "a=1 1; b=2 1; c=3 4; d=4 3", 2},
		{"d=4 e=5", pipeline.Changes{Appeared: 1, Disappeared: 3}, false, "d=4 3; e=5 5", 1},
	}
	generation := 0
	for i, step := range steps {
		before := d.content(t)
		p := d.prepareList(t, s, pull{rows: pairs("user", step.list), created: testNow.Add(time.Duration(i+1) * time.Minute)})
		o := d.mustReplace(t, d.listReplacement(s, p))[0]
		if !step.same {
			generation++
		}
		if o.Changes != step.want || o.Unchanged != step.same || o.Generation != generation || o.Inserted != step.want.Appeared+step.want.Changed || o.Deleted != step.want.Disappeared+step.want.Changed {
			t.Errorf("pull %d: got %+v, want %+v", i+1, o, step.want)
		}
		rows := strings.Join(list[string](t, d, `SELECT "user" || '=' || value || ' ' || (extract(epoch FROM first_seen - $1::timestamptz) / 60)::int FROM `+s.Table+` ORDER BY 1`, testNow), "; ")
		if rows != step.rows {
			t.Errorf("pull %d: got %s, want %s", i+1, rows, step.rows)
		}
		changed := d.changedLines(t, before)
		written := len(slices.DeleteFunc(slices.Clone(changed), func(line string) bool { return !strings.HasPrefix(line, s.Name+" ") }))
		if written != step.new || step.same && len(changed) != 1 {
			t.Errorf("pull %d: it wrote %q, want %d rows", i+1, changed, step.new)
		}
	}
	w, err := d.Windows(t.Context(), s.Name, pipeline.Tenant)
	if err != nil || len(w) != 1 || w[0].Window != pipeline.WholeWindow() || w[0].Generation != generation || w[0].Records.Count != 2 || w[0].RestatementCount != 0 {
		t.Errorf("the window is %+v (%v)", w, err)
	}
}

// Without a key, rows are told apart by their content, and twins by their ordinals.
func TestSnapshotWithoutKey(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, noteYAML)
	s := lists[0]
	for i, step := range []struct {
		values string
		want   pipeline.Changes
	}{
		{"x x y", pipeline.Changes{Appeared: 3}},
		{"x x x", pipeline.Changes{Appeared: 1, Disappeared: 1}},
		{"x z", pipeline.Changes{Appeared: 1, Disappeared: 2}},
	} {
		var rows []fields
		for _, value := range strings.Fields(step.values) {
			rows = append(rows, fields{"value": value})
		}
		if o := d.pull(t, s, pull{rows: rows}); o.Changes != step.want {
			t.Errorf("pull %d: got %+v, want %+v", i+1, o.Changes, step.want)
		}
		if got := strings.Join(list[string](t, d, "SELECT value FROM "+s.Table+" ORDER BY value, ordinal"), " "); got != step.values {
			t.Errorf("pull %d: got %s, want %s", i+1, got, step.values)
		}
	}
}

func TestSnapshotShrink(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		had, got int
		refused  bool
	}{{"half", 10, 5, false}, {"less than half", 10, 4, true}, {"nothing", 1, 0, true}, {"nothing where nothing was", 0, 0, false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, lists := newLists(t, deviceYAML)
			s := lists[0]
			d.pull(t, s, pull{rows: numbered("user", test.had)})
			r := d.listReplacement(s, d.prepareList(t, s, pull{rows: numbered("user", test.got)}))
			if !test.refused {
				d.mustReplace(t, r)
				return
			}
			d.checkUntouched(t, r, func(err error) bool {
				var shrink *pipeline.ShrinkError
				return errors.As(err, &shrink) && *shrink == pipeline.ShrinkError{Stream: s.Name, Window: pipeline.WholeWindow(), Had: int64(test.had), Got: int64(test.got)}
			})
			r.AcceptShrink = true
			if o := d.mustReplace(t, r)[0]; o.Changes.Disappeared != int64(test.had-test.got) {
				t.Errorf("accepted: got %+v", o)
			}
		})
	}
}

// An empty list has a partition too, so that its file is there.
func TestEmptyListHasAPartition(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, deviceYAML)
	d.pull(t, lists[0], pull{})
	states, err := d.Store(lists[0].Name).Partitions(t.Context())
	if err != nil || len(states) != 1 || states[0].Partition != wholePartition || states[0].DirtySeq != 1 {
		t.Errorf("got %+v (%v)", states, err)
	}
	if others, err := d.Store(stream).Partitions(t.Context()); err != nil || len(others) != 0 {
		t.Errorf("the metering records' partitions: got %+v (%v)", others, err)
	}
}

// What can't be normalised stands in the quarantine of the list's window; it alone is a new generation, but marks no file.
func TestListQuarantine(t *testing.T) {
	t.Parallel()
	for _, text := range []string{deviceYAML, subscriptionYAML} {
		d, lists := newLists(t, text)
		s := lists[0]
		rows := pairs(s.Key[0], "a=1 b=2")
		o := d.pull(t, s, pull{rows: rows, quarantined: []string{"{}", "{}", "[\"\x00\"]"}})
		if n := query[int](t, d, "SELECT count(*)::int FROM sdr_sync.quarantine WHERE window_id = $1", o.WindowID); n != 3 {
			t.Errorf("%s: got %d quarantined rows, want 3", s.Name, n)
		}
		if o := d.pull(t, s, pull{rows: rows, quarantined: []string{"[\"\x00\"]", "{}", "{}"}}); !o.Unchanged {
			t.Errorf("%s: the same again: got %+v", s.Name, o)
		}
		if o := d.pull(t, s, pull{rows: rows, quarantined: []string{"{}"}}); o.Unchanged || o.Generation != 2 || o.Changes != (pipeline.Changes{}) {
			t.Errorf("%s: less of it: got %+v", s.Name, o)
		}
		states, err := d.Store(s.Name).Partitions(t.Context())
		if err != nil || len(states) != 1 || states[0].DirtySeq != 1 {
			t.Errorf("%s: partitions: got %+v (%v)", s.Name, states, err)
		}
	}
}

// Whatever goes wrong, nothing of the pull is published, be it the first or not.
func TestListGoesWrong(t *testing.T) {
	t.Parallel()
	damages := []struct {
		name   string
		damage func(t *testing.T, d *database, p *pipeline.Publication)
		want   func(error) bool
	}{
		{"at the first row", func(_ *testing.T, _ *database, p *pipeline.Publication) {
			p.Rows = before(p.Rows, func(int) error { return errTorn })
		}, is(errTorn)},
		{"in the middle", func(_ *testing.T, _ *database, p *pipeline.Publication) {
			p.Rows = before(p.Rows, func(n int) error {
				if n == 2 {
					return errTorn
				}
				return nil
			})
		}, is(errTorn)},
		{"another row", func(_ *testing.T, _ *database, p *pipeline.Publication) { p.Records.Lo++ }, says("changed underneath")},
		{"rejects torn", func(_ *testing.T, _ *database, p *pipeline.Publication) {
			p.Rejects = func(yield func(pipeline.Rejected, error) bool) { yield(pipeline.Rejected{}, errTorn) }
		}, is(errTorn)},
		{"two rows of one key", func(_ *testing.T, _ *database, p *pipeline.Publication) {
			rows := p.Rows
			p.Rows = func(yield func(*record.Row, error) bool) {
				var first record.Hash
				rows(func(row *record.Row, err error) bool {
					if first == (record.Hash{}) {
						first = row.NaturalKey
					}
					row = row.Clone()
					row.NaturalKey = first
					return yield(row, err)
				})
			}
		}, func(err error) bool {
			return strings.Contains(err.Error(), "duplicate key") || strings.Contains(err.Error(), "would hold")
		}},
		{"the lease lost", func(t *testing.T, d *database, p *pipeline.Publication) {
			p.Rows = before(p.Rows, func(int) error {
				d.exec(t, "DELETE FROM sdr_sync.lease")
				return nil
			})
		}, is(pipeline.ErrFenced)},
	}
	for _, text := range []string{deviceYAML, subscriptionYAML} {
		for _, again := range []bool{false, true} {
			d, lists := newLists(t, text)
			s := lists[0]
			key := s.Key[0]
			if again {
				d.pull(t, s, pull{rows: pairs(key, "a=1 b=2 c=3")})
			}
			for _, test := range damages {
				t.Run(fmt.Sprintf("%s %s, published before %t", s.Name, test.name, again), func(t *testing.T) {
					p := d.prepareList(t, s, pull{rows: pairs(key, "a=2 c=3 d=4 e=5"), quarantined: []string{"{}"}})
					test.damage(t, d, &p)
					d.checkUntouched(t, d.listReplacement(s, p), test.want)
				})
			}
			if o := d.pull(t, s, pull{rows: pairs(key, "a=2 c=3 d=4 e=5")}); o.Inserted == 0 {
				t.Errorf("%s undamaged: got %+v", s.Name, o)
			}
		}
	}
}

var aprilAlarms = pipeline.Window{Scope: pipeline.Tenant, Unit: pipeline.Month, From: date("2024-04-01"), To: date("2024-05-01")}

// alarm returns an event.
func alarm(when string, csn int, text string) fields {
	at, err := time.Parse(time.DateTime, when)
	if err != nil {
		panic(err)
	}
	return fields{"csn": csn, "order": at, "text": text}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, alarmYAML)
	s := lists[0]
	march := aprilAlarms
	march.From, march.To = date("2024-03-01"), date("2024-04-01")
	one, two, three := alarm("2024-04-01 00:00:00", 1, "one"), alarm("2024-04-15 12:00:00", 2, "two"), alarm("2024-04-30 23:59:59", 3, "three")

	first := d.prepareList(t, s, pull{window: aprilAlarms, rows: []fields{one, two, two}, quarantined: []string{"{}"}})
	o := d.mustReplace(t, d.listReplacement(s, first))[0]
	if want := (pipeline.Outcome{WindowID: o.WindowID, Generation: 1, Inserted: 3, ToBefore: aprilAlarms.To}); o != want {
		t.Errorf("first: got %+v, want %+v", o, want)
	}
	d.pull(t, s, pull{window: march, rows: []fields{alarm("2024-03-31 23:59:59", 9, "nine")}})
	if months := query[string](t, d, "SELECT usage_months::text FROM sdr_sync.window WHERE window_id = $1", o.WindowID); months != "{2024-04-01}" {
		t.Errorf("event months: got %s", months)
	}

	before := d.content(t)
	if o := d.pull(t, s, pull{window: aprilAlarms, rows: []fields{two, two, one}, quarantined: []string{"{}"}}); !o.Unchanged {
		t.Errorf("the same again: got %+v", o)
	}
	if changed := d.changedLines(t, before); len(changed) != 2 || !strings.HasPrefix(changed[0], "job ") || !strings.HasPrefix(changed[1], "window ") {
		t.Errorf("the same again wrote %q, want a job and a window", changed)
	}

	// The alarm is cleared, a twin goes, another comes: equal rows stay where they are.
	cleared := alarm("2024-04-01 00:00:00", 1, "one, cleared")
	before = d.content(t)
	o = d.pull(t, s, pull{window: aprilAlarms, rows: []fields{cleared, two, three}, quarantined: []string{"{}"}})
	if o.Inserted != 2 || o.Deleted != 2 || !o.Restated || o.Generation != 2 {
		t.Errorf("restated: got %+v", o)
	}
	written := slices.DeleteFunc(d.changedLines(t, before), func(line string) bool { return !strings.HasPrefix(line, s.Name+" ") })
	if len(written) != 2 {
		t.Errorf("restated: these rows were written: %q, want 2", written)
	}
	if amounts := query[string](t, d, "SELECT amounts::text FROM sdr_sync.restatement WHERE inserted = 2 AND deleted = 2 AND window_id = $1", o.WindowID); amounts != "{}" {
		t.Errorf("amounts of a restatement: got %s", amounts)
	}

	states, err := d.Store(s.Name).Partitions(t.Context())
	want := []pipeline.PartitionState{
		{Partition: pipeline.Partition{Site: "tenant", Unit: pipeline.Month, From: date("2024-03")}, DirtySeq: 1},
		{Partition: pipeline.Partition{Site: "tenant", Unit: pipeline.Month, From: date("2024-04")}, DirtySeq: 2},
	}
	if err != nil || !slices.Equal(states, want) {
		t.Errorf("partitions: got %+v (%v), want %+v", states, err, want)
	}
	_, windows, rows := readList(t, d.DB, s, want[1].Partition)
	if len(windows) != 1 || windows[0].Window != aprilAlarms || windows[0].Generation != 2 {
		t.Errorf("windows: got %+v", windows)
	}
	var texts []string
	for _, row := range rows {
		texts = append(texts, string(stored(s, row, "text").Bytes))
	}
	checkEqual(t, "rows in the order of time", texts, []string{"one, cleared", "two", "three"})

	facts := pipeline.FileFacts{Rows: 3, Digest: "00ff", Bytes: 1, SHA256: "abc"}
	if err := d.Store(s.Name).MarkExported(t.Context(), want[1].Partition, 2, facts); err != nil {
		t.Fatal(err)
	}
	if state, _, _ := readList(t, d.DB, s, want[1].Partition); state.ExportedSeq != 2 || state.File != facts {
		t.Errorf("exported: got %+v", state)
	}

	r := d.listReplacement(s, d.prepareList(t, s, pull{window: aprilAlarms, rows: []fields{two}}))
	d.checkUntouched(t, r, func(err error) bool { return errors.As(err, new(*pipeline.ShrinkError)) })
}

// A month of events becomes days and back, and days are the partitions if so configured.
func TestEventsReslice(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, alarmYAML)
	s := lists[0]
	d.DB = openConfig(t, d.writing(t, postgres.Config{Unit: pipeline.Day}))
	var all []fields
	var days []pipeline.Publication
	for i := range 30 {
		day := aprilAlarms
		day.Unit, day.From = pipeline.Day, aprilAlarms.From+pipeline.Date(i)
		day.To = day.From + 1
		rows := []fields{alarm(day.From.String()+" 06:00:00", i, "early"), alarm(day.From.String()+" 23:59:59", 100+i, "late")}
		all = append(all, rows...)
		days = append(days, d.prepareList(t, s, pull{window: day, rows: rows}))
	}
	d.pull(t, s, pull{window: aprilAlarms, rows: all})
	events := func() []string {
		return list[string](t, d, "SELECT (to_jsonb(e) - 'window_id')::text FROM "+s.Table+" e ORDER BY 1")
	}
	had := events()
	r := d.listReplacement(s, days...)
	var err error
	if r.Retire, err = d.Windows(t.Context(), s.Name, pipeline.Tenant); err != nil {
		t.Fatal(err)
	}
	d.mustReplace(t, r)
	checkEqual(t, "events in days", events(), had)
	states, err := d.Store(s.Name).Partitions(t.Context())
	if err != nil || len(states) != 30 || states[7].Partition != (pipeline.Partition{Site: "tenant", Unit: pipeline.Day, From: date("2024-04-08")}) || states[7].DirtySeq != 2 {
		t.Errorf("partitions: got %+v (%v)", states, err)
	}
	if _, _, rows := readList(t, d.DB, s, states[7].Partition); len(rows) != 2 {
		t.Errorf("got %d rows of a day, want 2", len(rows))
	}
}

// A replay after a change of the time zone moves event dates.
func TestReplayMovesEventDates(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, alarmYAML)
	s := lists[0]
	events := []fields{alarm("2024-04-10 23:00:00", 1, "late"), alarm("2024-04-10 12:00:00", 2, "noon")}
	d.pull(t, s, pull{window: aprilAlarms, rows: events})
	zone := time.FixedZone("two hours ahead", 2*60*60)
	d.zone, d.DB = zone, openConfig(t, d.writing(t, postgres.Config{SourceZone: zone}))
	r := d.listReplacement(s, d.prepareList(t, s, pull{window: aprilAlarms, rows: events, zone: zone}))
	r.Replay = true
	if o := d.mustReplace(t, r)[0]; o.Unchanged {
		t.Errorf("got %+v", o)
	}
	checkEqual(t, "event dates", list[string](t, d, "SELECT event_date::text FROM "+s.Table+" ORDER BY 1"), []string{"2024-04-10", "2024-04-11"})
	before := d.content(t)
	if o := d.mustReplace(t, r)[0]; !o.Unchanged {
		t.Errorf("again: got %+v", o)
	}
	checkEqual(t, "content", d.content(t), before)
}

// Months of metering records can be archived; events of the same month know nothing of it.
func TestArchivedMonthIsOfMeteringRecords(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, alarmYAML, deviceYAML)
	april := window(north, "2024-04-01", "2024-05-01")
	d.publish(t, april, []string{sdr("20240401000000", "vm", "1")})
	d.export(t)
	_, owner := d.login(t, "sdr_sync_owner")
	checkAllowed(t, owner, "SELECT sdr_sync.archive_month('2024-04-01')")
	rows := []fields{alarm("2024-04-10 23:00:00", 1, "x"), alarm("2024-04-11 23:00:00", 2, "y")}
	for _, r := range []pipeline.Replacement{
		d.listReplacement(lists[0], d.prepareList(t, lists[0], pull{window: aprilAlarms, rows: rows[:1]})),
		d.listReplacement(lists[0], d.prepareList(t, lists[0], pull{window: aprilAlarms, rows: rows})),
		d.listReplacement(lists[1], d.prepareList(t, lists[1], pull{rows: pairs("user", "a=1")})),
	} {
		if _, err := replace(t.Context(), d.DB, r); err != nil {
			t.Error(err)
		}
		d.checkClean(t)
	}
	for _, s := range lists {
		states, err := d.Store(s.Name).Partitions(t.Context())
		if err != nil || len(states) != 1 || states[0].Archived {
			t.Errorf("%s: got %+v (%v)", s.Name, states, err)
		}
	}
}

// Every type comes back as it went in, whatever the text says.
func TestListRoundTrip(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, alarmYAML, deviceYAML, subscriptionYAML)
	hostile := []string{
		`'); drop table billing.test_device; --`, `\N`, `\.`, "a\tb\nc\rd\be\f", `"quoted" \ back`, "\u007f\u0080\u2028\uFEFF", "🧾💴", strings.Repeat("很长", 20_000),
		"NULL", " ", "$1", "%s%n", "￿", "e\u0301 é", "é",
	}
	var alarms, devices, subscriptions []fields
	for i, text := range hostile {
		alarms = append(alarms, alarm(fmt.Sprintf("2024-04-%02d 01:02:03", i+1), i, text))
		extra, err := record.AppendCanonicalJSON(nil, []byte(`{`+quote(text)+`:1}`))
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, fields{"user": text, "value": text, "extra": string(extra)})
		subscriptions = append(subscriptions, fields{"id": text, "value": text, "extra": string(extra)})
	}
	for i, f := range []fields{
		{"csn": 1<<63 - 1, "severity": 1<<31 - 1, "ratio": "99999999999999999999999999.999999999999", "day": 2932896, "load": math.MaxFloat64, "extra": `{"a":[1.5,null,"x"]}`},
		{"csn": -1 << 63, "severity": -1 << 31, "ratio": "-0.000000000001", "day": -719162, "load": -0.1, "extra": `[]`},
		{"csn": 0, "severity": 0, "ratio": "0", "day": 0, "load": 0.0, "extra": `"text"`},
		{"csn": 5},
	} {
		f["order"] = time.Date(2024, 4, 20, 0, 0, i, 123456000, time.UTC)
		alarms = append(alarms, f)
	}
	d.pull(t, lists[0], pull{window: aprilAlarms, rows: alarms})
	d.pull(t, lists[1], pull{rows: devices})
	d.pull(t, lists[2], pull{rows: subscriptions})

	for i, sent := range [][]fields{alarms, devices, subscriptions} {
		s := lists[i]
		want := map[record.Hash]*record.Row{}
		for _, f := range sent {
			row := newRow(s, time.UTC, f)
			want[row.Key] = row
		}
		partition := wholePartition
		if s.TimeField != "" {
			partition = pipeline.Partition{Site: "tenant", Unit: pipeline.Month, From: aprilAlarms.From}
		}
		_, _, rows := readList(t, d.DB, s, partition)
		if len(rows) != len(sent) {
			t.Errorf("%s: got %d rows, want %d", s.Name, len(rows), len(sent))
		}
		for _, row := range rows {
			w := want[record.Hash(stored(s, row, "record_key").Bytes)]
			if w == nil {
				t.Errorf("%s: got a row that was not sent", s.Name)
				continue
			}
			for k, g := range row.Values[len(s.Derived):] {
				if v := w.Values[k]; g.Valid != v.Valid || g.Int != v.Int || !bytes.Equal(g.Bytes, v.Bytes) {
					t.Errorf("%s, field %s: got %v %.60q %d, want %v %.60q %d", s.Name, s.Fields[k].Name, g.Valid, g.Bytes, g.Int, v.Valid, v.Bytes, v.Int)
				}
			}
			if s.TimeField != "" && pipeline.Date(stored(s, row, "event_date").Int) != w.UsageDate {
				t.Errorf("%s: got event date %d, want %s", s.Name, stored(s, row, "event_date").Int, w.UsageDate)
			}
		}
	}
	if o := d.pull(t, lists[2], pull{rows: subscriptions}); !o.Unchanged {
		t.Errorf("again: got %+v", o)
	}
}

// An integer that needs more bits than its column has is refused, not cut.
func TestIntegerThatDoesNotFit(t *testing.T) {
	t.Parallel()
	d, lists := newLists(t, subscriptionYAML)
	p := d.prepareList(t, lists[0], pull{rows: []fields{{"id": "a", "ordinal": 1 << 31}}})
	d.checkUntouched(t, d.listReplacement(lists[0], p), says("2147483648"))
}

func TestUnknownStream(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	store := d.Store("none")
	_, listErr := store.Partitions(t.Context())
	r := d.replacement(d.prepare(t, march, nil))
	r.Stream = "none"
	_, publishErr := d.Publish(t.Context(), r)
	for what, err := range map[string]error{
		"list": listErr, "publish": publishErr, "read": store.ReadPartition(t.Context(), wholePartition, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), `"none"`) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// modelVersion is a version of a row as the rules of histories tell it in Go.
type modelVersion struct {
	value, opened, closed string
	from, to, absent      int // numbers of pulls; 0 for none
}

// line is the version as history shows it.
func (v *modelVersion) line(key string) string {
	line := fmt.Sprintf("%s=%s [%d,", key, v.value, v.from)
	if v.to != 0 {
		line += fmt.Sprint(v.to)
	}
	line += ") " + strings.TrimSpace(v.opened+" "+v.closed)
	if v.absent != 0 {
		line += fmt.Sprintf(" absent since %d", v.absent)
	}
	return line
}

// modelPull applies a pull to the versions of each key, and tells whether it confirms what stands and changes nothing.
func modelPull(versions map[string][]*modelVersion, list map[string]string, pull int) (same bool) {
	same = pull > 1
	for key, all := range versions {
		last := all[len(all)-1]
		if _, found := list[key]; found || last.to != 0 {
			continue
		}
		same = false
		if last.absent == 0 {
			last.absent = pull
		} else {
			last.to, last.closed, last.absent = last.absent, "disappeared", 0
		}
	}
	for key, value := range list {
		opened := "appeared"
		if all := versions[key]; len(all) > 0 {
			last := all[len(all)-1]
			if last.to == 0 && last.value == value {
				same = same && last.absent == 0
				last.absent = 0
				continue
			}
			opened = "reappeared"
			if last.to == 0 {
				opened = "changed"
				last.to, last.closed, last.absent = pull, "changed", 0
			}
		}
		same = false
		versions[key] = append(versions[key], &modelVersion{value: value, from: pull, opened: opened})
	}
	return same
}

// Random sequences of pulls come out as the rules say.
func TestHistoryAgainstModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	d, lists := newLists(t, subscriptionYAML)
	s := lists[0]
	versions, list := map[string][]*modelVersion{}, map[string]string{}
	for pullNumber := 1; pullNumber <= 40; pullNumber++ {
		for range random.IntN(4) { // often nothing changes
			key := string(rune('a' + random.IntN(6)))
			if _, found := list[key]; found && random.IntN(2) == 0 {
				delete(list, key)
			} else {
				list[key] = fmt.Sprint(random.IntN(2))
			}
		}
		var rows []fields
		for key, value := range list {
			rows = append(rows, fields{"id": key, "value": value})
		}
		r := d.listReplacement(s, d.prepareList(t, s, pull{rows: rows, created: testNow.Add(time.Duration(pullNumber) * time.Minute)}))
		r.AcceptShrink = true
		o := d.mustReplace(t, r)[0]
		if same := modelPull(versions, list, pullNumber); o.Unchanged != same {
			t.Errorf("pull %d: got %+v, want unchanged %t", pullNumber, o, same)
		}
		var want []string
		for _, key := range slices.Sorted(maps.Keys(versions)) {
			for _, v := range versions[key] {
				want = append(want, v.line(key))
			}
		}
		if got := d.history(t, s); got != strings.Join(want, "; ") {
			t.Fatalf("pull %d of %v: got\n\t%s\nwant\n\t%s", pullNumber, list, got, strings.Join(want, "; "))
		}
	}
}

// TestHistoryHoldsQuarantinedRows: what the vendor sends in a form that can't be normalised has not disappeared.
func TestHistoryHoldsQuarantinedRows(t *testing.T) {
	t.Parallel()
	for _, keyed := range []bool{true, false} {
		d, lists := newLists(t, subscriptionYAML)
		s := lists[0]
		d.pull(t, s, pull{rows: pairs("id", "a=1 b=2 c=3")})
		key := list[string](t, d, "SELECT replace(natural_key::text, '-', '') FROM "+s.Table+" WHERE id = 'b'")[0]
		// b is in the quarantine for two nights, c is gone.
		for minute := 1; minute <= 3; minute++ {
			p := d.prepareList(t, s, pull{rows: pairs("id", "a=1"), quarantined: []string{"{}"}, created: testNow.Add(time.Duration(minute) * time.Minute)})
			rejects := p.Rejects
			p.Rejects = func(yield func(pipeline.Rejected, error) bool) {
				for r, err := range rejects {
					if keyed {
						if _, err := hex.Decode(r.NaturalKey[:], []byte(key)); err != nil {
							t.Error(err)
						}
						r.HasKey = true
					}
					if !yield(r, err) {
						return
					}
				}
			}
			o := d.mustReplace(t, d.listReplacement(s, p))[0]
			want := pipeline.Changes{}
			switch {
			case minute == 1 && keyed:
				want.Absent = 1
			case minute == 1:
				want.Absent = 2 // either of them may be the one in the quarantine
			case minute == 2 && keyed:
				want.Disappeared = 1
			}
			if o.Changes != want {
				t.Errorf("keyed %t, pull %d: got %+v, want %+v", keyed, minute, o.Changes, want)
			}
		}
		open := list[string](t, d, "SELECT id FROM "+s.Table+" WHERE valid_to IS NULL ORDER BY 1")
		if want := map[bool]string{true: "[a b]", false: "[a b c]"}[keyed]; fmt.Sprint(open) != want {
			t.Errorf("keyed %t: %v stand, want %s", keyed, open, want)
		}
		if o := d.pull(t, s, pull{rows: pairs("id", "a=1 b=2"), created: testNow.Add(5 * time.Minute)}); o.Changes.Reappeared != 0 || o.Changes.Changed != 0 {
			t.Errorf("keyed %t: healed: got %+v", keyed, o.Changes)
		}
	}
}

// A row that the quarantine holds night after night changes nothing after the first: no generation, no file.
func TestHistoryQuarantineStays(t *testing.T) {
	t.Parallel()
	for _, keyed := range []bool{true, false} {
		d, lists := newLists(t, subscriptionYAML)
		s := lists[0]
		d.pull(t, s, pull{rows: pairs("id", "a=1 b=2"), created: testNow})
		key := list[string](t, d, "SELECT replace(natural_key::text, '-', '') FROM "+s.Table+" WHERE id = 'b'")[0]
		night := func(minute int, quarantined ...string) pipeline.Outcome {
			p := d.prepareList(t, s, pull{rows: pairs("id", "a=1"), quarantined: quarantined, created: testNow.Add(time.Duration(minute) * time.Minute)})
			rejects := p.Rejects
			p.Rejects = func(yield func(pipeline.Rejected, error) bool) {
				for r, err := range rejects {
					if r.HasKey = keyed; keyed {
						hex.Decode(r.NaturalKey[:], []byte(key))
					}
					if !yield(r, err) {
						return
					}
				}
			}
			return d.mustReplace(t, d.listReplacement(s, p))[0]
		}
		for minute := 1; minute <= 4; minute++ {
			o := night(minute, "{}")
			dirty := query[int64](t, d, "SELECT dirty_seq FROM sdr_sync.partition WHERE stream = $1", s.Name)
			if o.Unchanged != (minute > 1) || o.Generation != 2 || dirty != 2 {
				t.Errorf("keyed %t, night %d: got %+v and dirty_seq %d", keyed, minute, o, dirty)
			}
		}
		// More in the quarantine is a generation, but the row stays as it is, and so does the file.
		o := night(5, "{}", "[]")
		if dirty := query[int64](t, d, "SELECT dirty_seq FROM sdr_sync.partition WHERE stream = $1", s.Name); o.Unchanged || o.Generation != 3 || dirty != 2 {
			t.Errorf("keyed %t, more of it: got %+v and dirty_seq %d", keyed, o, dirty)
		}
		if got, want := d.history(t, s), "a=1 [0,) appeared; b=2 [0,) appeared absent since 1"; got != want {
			t.Errorf("keyed %t: got %s, want %s", keyed, got, want)
		}
		// Out of the quarantine and still away: it is closed.
		if o := night(6); o.Changes != (pipeline.Changes{Disappeared: 1}) {
			t.Errorf("keyed %t, gone: got %+v", keyed, o)
		}
		if o := night(7); !o.Unchanged {
			t.Errorf("keyed %t, still gone: got %+v", keyed, o)
		}
	}
}
