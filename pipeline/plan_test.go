package pipeline_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// longAgo is the creation of jobs that settled every window of these tests.
var longAgo = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// inLedger is a published window of unit [from, to) whose job was created at the instant.
func inLedger(unit pipeline.Unit, from, to pipeline.Date, created time.Time) pipeline.WindowState {
	return pipeline.WindowState{
		Window: pipeline.Window{Scope: testScope, Unit: unit, From: from, To: to}, ID: int64(from), Generation: 1, JobCreatedAt: created,
	}
}

// inDays is every day of [from, to) as a published window.
func inDays(from, to pipeline.Date) []pipeline.WindowState {
	var days []pipeline.WindowState
	for day := from; day < to; day++ {
		days = append(days, inLedger(pipeline.Day, day, day+1, longAgo))
	}
	return days
}

// lines writes a plan as text, with runs of consecutive days on one line.
func lines(plan []pipeline.Planned) []string {
	var out []string
	for i := 0; i < len(plan); {
		first := plan[i]
		end := i + 1
		for first.Window.Unit == pipeline.Day && end < len(plan) && plan[end].Window.Unit == pipeline.Day &&
			plan[end].Window.From == plan[end-1].Window.To && (plan[end].Skip == "") == (first.Skip == "") {
			end++
		}
		kind, verb := "month", "pull"
		if first.Window.Unit == pipeline.Day {
			kind = fmt.Sprintf("%d days", end-i)
		}
		if first.Skip != "" {
			verb = "skip"
		}
		out = append(out, fmt.Sprintf("%s %s %s to %s", verb, kind, first.Window.From, plan[end-1].Window.To))
		i = end
	}
	return out
}

func TestPlan(t *testing.T) {
	t.Parallel()
	d := func(text string) pipeline.Date { return date(t, text) }
	month := func(from, to string) pipeline.WindowState { return inLedger(pipeline.Month, d(from), d(to), longAgo) }
	createdAt := func(from, to, created string, unit pipeline.Unit) []pipeline.WindowState {
		at, err := time.Parse(time.RFC3339, created)
		if err != nil {
			t.Fatal(err)
		}
		return []pipeline.WindowState{inLedger(unit, d(from), d(to), at)}
	}
	type ask struct {
		from, to, today string
		unit            pipeline.Unit
		refresh, whole  bool
		zone            *time.Location
		settle          time.Duration
	}
	for _, c := range []struct {
		name     string
		existing []pipeline.WindowState
		ask      ask
		want     []string
	}{
		// What has not been published.
		{
			"three months", nil,
			ask{from: "2024-01-01", to: "2024-04-01", today: "2024-06-15"},
			[]string{"pull month 2024-01-01 to 2024-02-01", "pull month 2024-02-01 to 2024-03-01", "pull month 2024-03-01 to 2024-04-01"},
		},
		{
			"part of a month is days", nil,
			ask{from: "2024-03-10", to: "2024-03-15", today: "2024-06-15"},
			[]string{"pull 5 days 2024-03-10 to 2024-03-15"},
		},
		{
			"tail, months and head", nil,
			ask{from: "2024-01-30", to: "2024-03-03", today: "2024-06-15"},
			[]string{"pull 2 days 2024-01-30 to 2024-02-01", "pull month 2024-02-01 to 2024-03-01", "pull 2 days 2024-03-01 to 2024-03-03"},
		},
		{
			"by day", nil,
			ask{from: "2024-02-01", to: "2024-03-01", today: "2024-06-15", unit: pipeline.Day},
			[]string{"pull 29 days 2024-02-01 to 2024-03-01"},
		},
		{
			"over the end of a year", nil,
			ask{from: "2023-12-01", to: "2024-02-01", today: "2024-06-15"},
			[]string{"pull month 2023-12-01 to 2024-01-01", "pull month 2024-01-01 to 2024-02-01"},
		},

		// The running month.
		{
			"the running month ends today", nil,
			ask{from: "2024-06-01", to: "2024-07-01", today: "2024-06-15"},
			[]string{"pull month 2024-06-01 to 2024-06-15"},
		},
		{
			"the running month in days ends today", nil,
			ask{from: "2024-06-01", to: "2024-07-01", today: "2024-06-15", unit: pipeline.Day},
			[]string{"pull 14 days 2024-06-01 to 2024-06-15"},
		},
		{"on the 1st there is no running month", nil, ask{from: "2024-06-01", to: "2024-07-01", today: "2024-06-01"}, nil},
		{
			"on the 1st the month before is whole", nil,
			ask{from: "2024-05-01", to: "2024-07-01", today: "2024-06-01"},
			[]string{"pull month 2024-05-01 to 2024-06-01"},
		},
		{
			"on the 2nd the running month is a day", nil,
			ask{from: "2024-06-01", to: "2024-07-01", today: "2024-06-02"},
			[]string{"pull month 2024-06-01 to 2024-06-02"},
		},
		{"the future", nil, ask{from: "2024-07-01", to: "2024-08-01", today: "2024-06-15"}, nil},
		{"today", nil, ask{from: "2024-06-15", to: "2024-06-16", today: "2024-06-15"}, nil},
		{"nothing", nil, ask{from: "2024-06-10", to: "2024-06-10", today: "2024-06-15"}, nil},
		{
			"the running month is never skipped",
			[]pipeline.WindowState{month("2024-06-01", "2024-06-15")},
			ask{from: "2024-06-01", to: "2024-07-01", today: "2024-06-15"},
			[]string{"pull month 2024-06-01 to 2024-06-15"},
		},
		{
			"the running month grows",
			[]pipeline.WindowState{month("2024-06-01", "2024-06-10")},
			ask{from: "2024-06-01", to: "2024-07-01", today: "2024-06-15"},
			[]string{"pull month 2024-06-01 to 2024-06-15"},
		},
		{
			"a month that stopped growing is completed",
			[]pipeline.WindowState{month("2024-04-01", "2024-04-10")},
			ask{from: "2024-04-01", to: "2024-05-01", today: "2024-06-15"},
			[]string{"pull month 2024-04-01 to 2024-05-01"},
		},
		{
			"today set back does not shrink a window",
			[]pipeline.WindowState{month("2024-06-01", "2024-06-15")},
			ask{from: "2024-06-01", to: "2024-07-01", today: "2024-06-10"},
			[]string{"pull month 2024-06-01 to 2024-06-15"},
		},

		// What is published.
		{
			"a settled month is skipped",
			[]pipeline.WindowState{month("2024-03-01", "2024-04-01")},
			ask{from: "2024-03-01", to: "2024-04-01", today: "2024-06-15"},
			[]string{"skip month 2024-03-01 to 2024-04-01"},
		},
		{
			"a settled month is skipped for a part of it",
			[]pipeline.WindowState{month("2024-03-01", "2024-04-01")},
			ask{from: "2024-03-05", to: "2024-03-06", today: "2024-06-15"},
			[]string{"skip month 2024-03-01 to 2024-04-01"},
		},
		{
			"a part of a published month refreshes it whole",
			[]pipeline.WindowState{month("2024-03-01", "2024-04-01")},
			ask{from: "2024-03-05", to: "2024-03-06", today: "2024-06-15", refresh: true},
			[]string{"pull month 2024-03-01 to 2024-04-01"},
		},
		{
			"a published month stays one under unit day",
			[]pipeline.WindowState{month("2024-03-01", "2024-04-01")},
			ask{from: "2024-03-30", to: "2024-04-03", today: "2024-06-15", unit: pipeline.Day, refresh: true},
			[]string{"pull month 2024-03-01 to 2024-04-01", "pull 2 days 2024-04-01 to 2024-04-03"},
		},
		{
			"a month in days stays so under unit month", inDays(d("2024-03-01"), d("2024-04-01")),
			ask{from: "2024-03-01", to: "2024-05-01", today: "2024-06-15"},
			[]string{"skip 31 days 2024-03-01 to 2024-04-01", "pull month 2024-04-01 to 2024-05-01"},
		},
		{
			"missing days of a month in days are days", inDays(d("2024-03-10"), d("2024-03-15")),
			ask{from: "2024-03-01", to: "2024-04-01", today: "2024-06-15"},
			[]string{"pull 9 days 2024-03-01 to 2024-03-10", "skip 5 days 2024-03-10 to 2024-03-15", "pull 17 days 2024-03-15 to 2024-04-01"},
		},
		{
			"refresh of days asks those in the span", inDays(d("2024-03-01"), d("2024-04-01")),
			ask{from: "2024-03-30", to: "2024-04-01", today: "2024-06-15", refresh: true},
			[]string{"pull 2 days 2024-03-30 to 2024-04-01"},
		},

		// Settling: the job must be a day younger than the window's end, in the zone of file dates.
		{
			"settled to the instant", createdAt("2024-03-01", "2024-04-01", "2024-04-02T00:00:00Z", pipeline.Month),
			ask{from: "2024-03-01", to: "2024-04-01", today: "2024-06-15"},
			[]string{"skip month 2024-03-01 to 2024-04-01"},
		},
		{
			"not settled by a second", createdAt("2024-03-01", "2024-04-01", "2024-04-01T23:59:59Z", pipeline.Month),
			ask{from: "2024-03-01", to: "2024-04-01", today: "2024-06-15"},
			[]string{"pull month 2024-03-01 to 2024-04-01"},
		},
		{
			"settled earlier where the day begins earlier", createdAt("2024-03-01", "2024-04-01", "2024-04-01T16:00:00Z", pipeline.Month),
			ask{from: "2024-03-01", to: "2024-04-01", today: "2024-06-15", zone: beijing},
			[]string{"skip month 2024-03-01 to 2024-04-01"},
		},
		{
			"not settled there by a second", createdAt("2024-03-01", "2024-04-01", "2024-04-01T15:59:59Z", pipeline.Month),
			ask{from: "2024-03-01", to: "2024-04-01", today: "2024-06-15", zone: beijing},
			[]string{"pull month 2024-03-01 to 2024-04-01"},
		},
		{
			"settled later where the day begins later", createdAt("2024-03-01", "2024-04-01", "2024-04-02T00:00:00Z", pipeline.Month),
			ask{from: "2024-03-01", to: "2024-04-01", today: "2024-06-15", zone: time.FixedZone("UTC-3", -3*3600)},
			[]string{"pull month 2024-03-01 to 2024-04-01"},
		},
		{
			"a settled day", createdAt("2024-03-05", "2024-03-06", "2024-03-07T00:00:00Z", pipeline.Day),
			ask{from: "2024-03-05", to: "2024-03-06", today: "2024-06-15"},
			[]string{"skip 1 days 2024-03-05 to 2024-03-06"},
		},
		{
			"a day not settled", createdAt("2024-03-05", "2024-03-06", "2024-03-06T23:59:59Z", pipeline.Day),
			ask{from: "2024-03-05", to: "2024-03-06", today: "2024-06-15"},
			[]string{"pull 1 days 2024-03-05 to 2024-03-06"},
		},
		{
			"a longer settling", createdAt("2024-03-05", "2024-03-06", "2024-03-07T00:00:00Z", pipeline.Day),
			ask{from: "2024-03-05", to: "2024-03-06", today: "2024-06-15", settle: 72 * time.Hour},
			[]string{"pull 1 days 2024-03-05 to 2024-03-06"},
		},

		// Nightly: a lookback of seven days, every window that it meets, whole.
		{
			"nightly, nothing published", nil,
			ask{from: "2024-06-08", to: "2024-06-15", today: "2024-06-15", whole: true},
			[]string{"pull month 2024-06-01 to 2024-06-15"},
		},
		{
			"nightly over the end of a month", nil,
			ask{from: "2024-05-27", to: "2024-06-03", today: "2024-06-03", whole: true},
			[]string{"pull month 2024-05-01 to 2024-06-01", "pull month 2024-06-01 to 2024-06-03"},
		},
		{
			"nightly on the 1st", nil,
			ask{from: "2024-05-25", to: "2024-06-01", today: "2024-06-01", whole: true},
			[]string{"pull month 2024-05-01 to 2024-06-01"},
		},
		{
			"nightly asks settled windows too",
			[]pipeline.WindowState{month("2024-05-01", "2024-06-01")},
			ask{from: "2024-05-31", to: "2024-06-07", today: "2024-06-07", whole: true},
			[]string{"pull month 2024-05-01 to 2024-06-01", "pull month 2024-06-01 to 2024-06-07"},
		},
		{
			"nightly leaves what the lookback does not meet",
			[]pipeline.WindowState{month("2024-05-01", "2024-06-01")},
			ask{from: "2024-06-01", to: "2024-06-08", today: "2024-06-08", whole: true},
			[]string{"pull month 2024-06-01 to 2024-06-08"},
		},
		{
			"nightly over the end of a year", nil,
			ask{from: "2023-12-28", to: "2024-01-04", today: "2024-01-04", whole: true},
			[]string{"pull month 2023-12-01 to 2024-01-01", "pull month 2024-01-01 to 2024-01-04"},
		},
		{
			"nightly over a leap February", nil,
			ask{from: "2024-02-23", to: "2024-03-01", today: "2024-03-01", whole: true},
			[]string{"pull month 2024-02-01 to 2024-03-01"},
		},
		{
			"nightly over a common February", nil,
			ask{from: "2023-02-26", to: "2023-03-05", today: "2023-03-05", whole: true},
			[]string{"pull month 2023-02-01 to 2023-03-01", "pull month 2023-03-01 to 2023-03-05"},
		},
		{
			"nightly by day over a leap February", nil,
			ask{from: "2024-02-26", to: "2024-03-04", today: "2024-03-04", unit: pipeline.Day, whole: true},
			[]string{"pull 7 days 2024-02-26 to 2024-03-04"},
		},
		{
			"nightly by day over the end of a year", nil,
			ask{from: "2023-12-28", to: "2024-01-04", today: "2024-01-04", unit: pipeline.Day, whole: true},
			[]string{"pull 7 days 2023-12-28 to 2024-01-04"},
		},
		{
			"nightly of a month in days under unit month", inDays(d("2024-05-01"), d("2024-06-01")),
			ask{from: "2024-05-30", to: "2024-06-06", today: "2024-06-06", whole: true},
			[]string{"pull 2 days 2024-05-30 to 2024-06-01", "pull month 2024-06-01 to 2024-06-06"},
		},
		{
			"nightly of a running month in days under unit month", inDays(d("2024-06-10"), d("2024-06-12")),
			ask{from: "2024-06-08", to: "2024-06-15", today: "2024-06-15", whole: true},
			[]string{"pull 7 days 2024-06-08 to 2024-06-15"},
		},
		{
			"nightly of a running month under unit day",
			[]pipeline.WindowState{month("2024-06-01", "2024-06-14")},
			ask{from: "2024-06-08", to: "2024-06-15", today: "2024-06-15", unit: pipeline.Day, whole: true},
			[]string{"pull month 2024-06-01 to 2024-06-15"},
		},
		{
			"nightly with a lookback of several months", nil,
			ask{from: "2024-03-17", to: "2024-06-15", today: "2024-06-15", whole: true},
			[]string{"pull month 2024-03-01 to 2024-04-01", "pull month 2024-04-01 to 2024-05-01", "pull month 2024-05-01 to 2024-06-01", "pull month 2024-06-01 to 2024-06-15"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := pipeline.Ask{
				From: d(c.ask.from), To: d(c.ask.to), Today: d(c.ask.today), Unit: c.ask.unit, FileZone: c.ask.zone, Settle: c.ask.settle,
				Refresh: c.ask.refresh, Whole: c.ask.whole,
			}
			if a.Unit == "" {
				a.Unit = pipeline.Month
			}
			if a.FileZone == nil {
				a.FileZone = time.UTC
			}
			if a.Settle == 0 {
				a.Settle = 24 * time.Hour
			}
			if got := lines(pipeline.Plan(testScope, c.existing, a)); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestPlanReslice(t *testing.T) {
	t.Parallel()
	d := func(text string) pipeline.Date { return date(t, text) }
	march := []pipeline.WindowState{inLedger(pipeline.Month, d("2024-03-01"), d("2024-04-01"), longAgo)}
	running := []pipeline.WindowState{inLedger(pipeline.Month, d("2024-06-01"), d("2024-06-15"), longAgo)}
	april := inDays(d("2024-04-01"), d("2024-05-01"))
	for _, c := range []struct {
		name            string
		existing        []pipeline.WindowState
		from, to, today string
		unit            pipeline.Unit
		want            [][]string
		retired         []int // windows that each group retires
	}{
		{"month to days", march, "2024-03-01", "2024-04-01", "2024-06-15", pipeline.Day, [][]string{{"pull 31 days 2024-03-01 to 2024-04-01"}}, []int{1}},
		{"a part of a month cuts all of it", march, "2024-03-05", "2024-03-06", "2024-06-15", pipeline.Day, [][]string{{"pull 31 days 2024-03-01 to 2024-04-01"}}, []int{1}},
		{"days to month", april, "2024-04-01", "2024-05-01", "2024-06-15", pipeline.Month, [][]string{{"pull month 2024-04-01 to 2024-05-01"}}, []int{30}},
		{"some days to month", april[3:7], "2024-04-01", "2024-05-01", "2024-06-15", pipeline.Month, [][]string{{"pull month 2024-04-01 to 2024-05-01"}}, []int{4}},
		{"days with a gap to days", slices.Concat(april[:7], april[8:]), "2024-04-01", "2024-05-01", "2024-06-15", pipeline.Day, [][]string{{"pull 30 days 2024-04-01 to 2024-05-01"}}, []int{29}},
		{"a month that is one", march, "2024-03-01", "2024-04-01", "2024-06-15", pipeline.Month, nil, nil},
		{"days that are days", april, "2024-04-01", "2024-05-01", "2024-06-15", pipeline.Day, nil, nil},
		{"nothing published", nil, "2024-03-01", "2024-04-01", "2024-06-15", pipeline.Day, nil, nil},
		{"two months, one group each", slices.Concat(march, april), "2024-03-15", "2024-04-15", "2024-06-15", pipeline.Day, [][]string{{"pull 31 days 2024-03-01 to 2024-04-01"}}, []int{1}},
		{"running month to days", running, "2024-06-01", "2024-07-01", "2024-06-15", pipeline.Day, [][]string{{"pull 14 days 2024-06-01 to 2024-06-15"}}, []int{1}},
		{"running month that is one", running, "2024-06-01", "2024-07-01", "2024-06-20", pipeline.Month, nil, nil},
		{"running days to month", inDays(d("2024-06-01"), d("2024-06-15")), "2024-06-01", "2024-07-01", "2024-06-15", pipeline.Month, [][]string{{"pull month 2024-06-01 to 2024-06-15"}}, []int{14}},
		{"running days that are days", inDays(d("2024-06-01"), d("2024-06-15")), "2024-06-01", "2024-07-01", "2024-06-15", pipeline.Day, nil, nil},
		{"on the 1st", march, "2024-04-01", "2024-05-01", "2024-04-01", pipeline.Day, nil, nil},
		// With today set back, what is retired must not reach further than what replaces it.
		{"today set back, month to days", running, "2024-06-01", "2024-07-01", "2024-06-10", pipeline.Day, [][]string{{"pull 14 days 2024-06-01 to 2024-06-15"}}, []int{1}},
		{"today set back, days to month", inDays(d("2024-06-01"), d("2024-06-15")), "2024-06-01", "2024-07-01", "2024-06-10", pipeline.Month, [][]string{{"pull month 2024-06-01 to 2024-06-15"}}, []int{14}},
		{"today set back, days that are days", inDays(d("2024-06-01"), d("2024-06-15")), "2024-06-01", "2024-07-01", "2024-06-10", pipeline.Day, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ask := pipeline.Ask{From: d(c.from), To: d(c.to), Today: d(c.today), Unit: pipeline.Month, FileZone: time.UTC, Settle: 24 * time.Hour}
			groups := pipeline.PlanReslice(testScope, c.existing, ask, c.unit)
			var got [][]string
			var retired []int
			for _, g := range groups {
				got, retired = append(got, lines(g)), append(retired, len(g[0].Retire))
				for _, p := range g[1:] {
					if len(p.Retire) > 0 {
						t.Errorf("%s retires windows too, want only the first of the group to", p.Window)
					}
				}
			}
			if !slices.EqualFunc(got, c.want, slices.Equal) || !slices.Equal(retired, c.retired) {
				t.Errorf("got  %q that retire %v\nwant %q that retire %v", got, retired, c.want, c.retired)
			}
		})
	}
}

// TestResliceThereAndBack cuts a month into days and back, as a ledger would see it.
func TestResliceThereAndBack(t *testing.T) {
	t.Parallel()
	march, today := date(t, "2024-03-01"), date(t, "2024-06-15")
	ask := pipeline.Ask{From: march, To: march + 31, Today: today, Unit: pipeline.Month, FileZone: time.UTC}
	m := &ledgerModel{windows: []pipeline.WindowState{inLedger(pipeline.Month, march, march+31, longAgo)}}
	for _, unit := range []pipeline.Unit{pipeline.Day, pipeline.Month} {
		for _, g := range pipeline.PlanReslice(testScope, m.windows, ask, unit) {
			m.retire(g[0].Retire)
			for _, p := range g {
				m.publish(p.Window, longAgo)
			}
		}
		if again := pipeline.PlanReslice(testScope, m.windows, ask, unit); again != nil {
			t.Errorf("after the reslice by %s, another plans %d groups, want none", unit, len(again))
		}
		if err := m.overlap(); err != nil {
			t.Fatal(err)
		}
		if got := len(m.covered()); got != 31 {
			t.Errorf("after the reslice by %s %d dates are covered, want 31", unit, got)
		}
	}
	if len(m.windows) != 1 || m.windows[0].Window != monthWindow(t, testScope, "2024-03-01") {
		t.Errorf("got %v, want the month again", m.windows)
	}
}

// ledgerModel is what a ledger makes of plans: windows by From.
type ledgerModel struct{ windows []pipeline.WindowState }

func (m *ledgerModel) publish(w pipeline.Window, created time.Time) {
	state := pipeline.WindowState{Window: w, Generation: 1, JobCreatedAt: created}
	i, found := slices.BinarySearchFunc(m.windows, w.From, func(s pipeline.WindowState, from pipeline.Date) int { return int(s.From - from) })
	if found {
		state.Generation = m.windows[i].Generation + 1
		m.windows[i] = state
		return
	}
	m.windows = slices.Insert(m.windows, i, state)
}

func (m *ledgerModel) retire(old []pipeline.WindowState) {
	m.windows = slices.DeleteFunc(m.windows, func(s pipeline.WindowState) bool {
		return slices.ContainsFunc(old, func(o pipeline.WindowState) bool { return o.From == s.From })
	})
}

func (m *ledgerModel) overlap() error {
	for i := 1; i < len(m.windows); i++ {
		if a, b := m.windows[i-1].Window, m.windows[i].Window; a.Overlaps(b) {
			return fmt.Errorf("%s overlaps %s", a, b)
		}
	}
	return nil
}

func (m *ledgerModel) covered() map[pipeline.Date]bool {
	dates := map[pipeline.Date]bool{}
	for _, w := range m.windows {
		for d := w.From; d < w.To; d++ {
			dates[d] = true
		}
	}
	return dates
}

var (
	units = rapid.SampledFrom([]pipeline.Unit{pipeline.Month, pipeline.Day})
	zones = rapid.SampledFrom([]*time.Location{time.UTC, beijing, time.FixedZone("UTC-11", -11*3600)})
)

// drawLedger draws what may stand in a ledger: months that are whole, cut short, in days, in some days, or missing.
func drawLedger(t *rapid.T, first, today pipeline.Date) []pipeline.WindowState {
	var existing []pipeline.WindowState
	for month := first.Month(); month < today; month = month.AddMonths(1) {
		end := min(month.AddMonths(1), today)
		created := func(to pipeline.Date) time.Time {
			return to.Time(time.UTC).Add(time.Duration(rapid.IntRange(-20, 60).Draw(t, "hours until the job")) * time.Hour)
		}
		switch rapid.SampledFrom([]string{"none", "month", "days"}).Draw(t, month.MonthString()) {
		case "month":
			to := rapid.Int32Range(int32(month)+1, int32(end)).Draw(t, "end")
			if rapid.Bool().Draw(t, "whole") {
				to = int32(end)
			}
			existing = append(existing, inLedger(pipeline.Month, month, pipeline.Date(to), created(pipeline.Date(to))))
		case "days":
			all := rapid.Bool().Draw(t, "all")
			for day := month; day < end; day++ {
				if all || rapid.Bool().Draw(t, "day") {
					existing = append(existing, inLedger(pipeline.Day, day, day+1, created(day+1)))
				}
			}
		}
	}
	return existing
}

func TestPlanProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		base := pipeline.Date(19_600) // 2023-08-31
		realToday := base + pipeline.Date(rapid.IntRange(1, 200).Draw(t, "days so far"))
		existing := drawLedger(t, base, realToday)
		today := realToday
		if rapid.Bool().Draw(t, "set back") {
			today -= pipeline.Date(rapid.IntRange(0, 40).Draw(t, "by"))
		}
		from := base + pipeline.Date(rapid.IntRange(-10, 210).Draw(t, "from"))
		ask := pipeline.Ask{
			From: from, To: from + pipeline.Date(rapid.IntRange(0, 120).Draw(t, "days")), Today: today, Unit: units.Draw(t, "unit"),
			FileZone: zones.Draw(t, "zone"), Settle: time.Duration(rapid.IntRange(0, 48).Draw(t, "settle")) * time.Hour,
			Refresh: rapid.Bool().Draw(t, "refresh"), Whole: rapid.Bool().Draw(t, "whole"),
		}
		plan := pipeline.Plan(testScope, existing, ask)

		// In order, each date once, and no date of the span left out.
		planned := map[pipeline.Date]bool{}
		for i, p := range plan {
			w := p.Window
			if w.Scope != testScope || w.From >= w.To || i > 0 && plan[i-1].Window.To > w.From {
				t.Fatalf("window %d is %s in %q", i, w, lines(plan))
			}
			if w.Unit == pipeline.Day && w.To != w.From+1 || w.Unit == pipeline.Month && (w.From != w.From.Month() || w.To > w.From.AddMonths(1)) {
				t.Fatalf("%s is no %s", w, w.Unit)
			}
			for d := w.From; d < w.To; d++ {
				planned[d] = true
				if inSpan := d >= ask.From && d < ask.To && d < ask.Today; !inSpan && w.Unit == pipeline.Day {
					t.Fatalf("%s was not asked for", d)
				}
			}
			if w.From >= ask.To || w.To <= ask.From {
				t.Fatalf("%s does not meet the span", w)
			}
		}
		for d := ask.From; d < min(ask.To, ask.Today); d++ {
			if !planned[d] {
				t.Fatalf("%s is missing in %q", d, lines(plan))
			}
		}

		for _, p := range plan {
			// A window is the one that stands there, and never less of it, or touches none.
			var stands *pipeline.WindowState
			for i, e := range existing {
				switch {
				case e.From == p.Window.From && e.Unit == p.Window.Unit:
					stands = &existing[i]
					if p.Window.To < e.To {
						t.Fatalf("%s would shrink to %s", e.Window, p.Window)
					}
				case e.Overlaps(p.Window):
					t.Fatalf("%s overlaps %s, which is published", p.Window, e.Window)
				}
			}
			if (stands == nil) != (p.Published == nil) || stands != nil && p.Published.Window != stands.Window {
				t.Fatalf("%s says that %v is published, want %v", p.Window, p.Published, stands)
			}
			if p.Window.To > ask.Today && (stands == nil || p.Window.To > stands.To) {
				t.Fatalf("%s reaches beyond today", p.Window)
			}

			// Skipped is exactly what need not be asked.
			w := p.Window
			closed := w.Unit == pipeline.Day || w.To == w.From.AddMonths(1)
			needless := stands != nil && closed && stands.To == w.To && !ask.Refresh && !ask.Whole &&
				stands.JobCreatedAt.Sub(w.To.Time(ask.FileZone)) >= ask.Settle
			if needless != (p.Skip != "") {
				t.Fatalf("%s has the skip %q; published is %v", w, p.Skip, stands)
			}
		}
	})
}

// TestNights lives through months of nightlies, missed nights, changed settings, backfills, reslices and rehearsals of the past.
func TestNights(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &ledgerModel{}
		today := pipeline.Date(19_650) + pipeline.Date(rapid.IntRange(0, 62).Draw(t, "first night"))
		lookback := pipeline.Date(rapid.IntRange(1, 40).Draw(t, "lookback"))
		zone := zones.Draw(t, "zone")
		var first pipeline.Date
		before := map[pipeline.Date]bool{}
		carryOut := func(what string, groups [][]pipeline.Planned, at pipeline.Date) {
			for _, g := range groups {
				m.retire(g[0].Retire)
				for _, p := range g {
					if p.Skip == "" {
						m.publish(p.Window, at.Time(zone).Add(2*time.Hour))
					}
				}
			}
			if err := m.overlap(); err != nil {
				t.Fatalf("after the %s of %s: %v", what, at, err)
			}
			now := m.covered()
			for d := range before {
				if !now[d] {
					t.Fatalf("after the %s of %s, %s is no longer covered", what, at, d)
				}
			}
			before = now
		}
		single := func(plan []pipeline.Planned) (groups [][]pipeline.Planned) {
			for _, p := range plan {
				groups = append(groups, []pipeline.Planned{p})
			}
			return groups
		}
		unit := units.Draw(t, "unit")
		for range rapid.IntRange(1, 60).Draw(t, "nights") {
			ask := pipeline.Ask{From: today - lookback, To: today, Today: today, Unit: unit, FileZone: zone, Settle: 24 * time.Hour, Whole: true}
			plan := pipeline.Plan(testScope, m.windows, ask)
			for _, p := range plan {
				if p.Skip != "" {
					t.Fatalf("the nightly of %s skips %s", today, p.Window)
				}
			}
			carryOut("nightly", single(plan), today)
			if first == 0 {
				first = today - lookback
			}
			for d := first; d < today; d++ {
				if !before[d] {
					t.Fatalf("after the nightly of %s, %s is not covered", today, d)
				}
			}
			if before[today] {
				t.Fatalf("the nightly of %s covers the date that is still being written", today)
			}

			// What else happens before the next one.
			span := ask
			span.Whole = false
			span.From = today - pipeline.Date(rapid.IntRange(0, 90).Draw(t, "back"))
			span.To = span.From + pipeline.Date(rapid.IntRange(1, 90).Draw(t, "span"))
			switch rapid.SampledFrom([]string{"", "", "", "", "unit", "backfill", "reslice", "rehearsal", "reslice in the past"}).Draw(t, "meanwhile") {
			case "unit":
				unit = units.Draw(t, "unit")
			case "backfill":
				span.Refresh = rapid.Bool().Draw(t, "refresh")
				carryOut("backfill", single(pipeline.Plan(testScope, m.windows, span)), today)
			case "reslice":
				carryOut("reslice", pipeline.PlanReslice(testScope, m.windows, span, units.Draw(t, "into")), today)
			case "rehearsal":
				past := ask
				past.Today -= pipeline.Date(rapid.IntRange(0, 40).Draw(t, "set back"))
				past.From, past.To = past.Today-lookback, past.Today
				carryOut("rehearsal", single(pipeline.Plan(testScope, m.windows, past)), today)
			case "reslice in the past":
				span.Today -= pipeline.Date(rapid.IntRange(0, 40).Draw(t, "set back"))
				carryOut("reslice in the past", pipeline.PlanReslice(testScope, m.windows, span, units.Draw(t, "into")), today)
			}
			today += pipeline.Date(rapid.IntRange(1, int(lookback)).Draw(t, "gap"))
		}
	})
}
