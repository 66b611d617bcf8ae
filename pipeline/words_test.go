package pipeline_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

func TestParseScope(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("r", 255)
	for _, c := range []struct {
		name, text string
		want       pipeline.Scope
		refused    string // part of the error
	}{
		{"site and region", "hcso-213/cn-north-213", pipeline.Scope{Site: "hcso-213", Region: "cn-north-213"}, ""},
		{"site alone", "hcso-213", pipeline.Scope{Site: "hcso-213"}, ""},
		{"site with a slash", "hcso-213/", pipeline.Scope{Site: "hcso-213"}, ""},
		{"site with a star", "hcso-213/*", pipeline.Scope{Site: "hcso-213"}, ""},
		{"underscores and capitals", "HCSO_213/CN_1", pipeline.Scope{Site: "HCSO_213", Region: "CN_1"}, ""},
		{"longest site and region", strings.Repeat("s", 36) + "/" + long, pipeline.Scope{Site: strings.Repeat("s", 36), Region: long}, ""},
		{"no site", "", pipeline.Scope{}, "the site must be"},
		{"region alone", "/cn-north-213", pipeline.Scope{}, "the site must be"},
		{"site too long", strings.Repeat("s", 37), pipeline.Scope{}, "the site must be"},
		{"site that climbs", "../etc", pipeline.Scope{}, "the site must be"},
		{"region too long", "hcso-213/" + long + "r", pipeline.Scope{}, "the region may only"},
		{"region that climbs", "hcso-213/..", pipeline.Scope{}, "the region may only"},
		{"second slash", "hcso-213/cn/north", pipeline.Scope{}, "the region may only"},
		{"line feed at the end", "hcso-213\n", pipeline.Scope{}, "the site must be"},
		{"space", "hcso-213/cn north", pipeline.Scope{}, "the region may only"},
		{"star as a site", "*", pipeline.Scope{}, "the site must be"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := pipeline.ParseScope(c.text)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("ParseScope(%q) = %v, %v, want an error with %q", c.text, got, err, c.refused)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("ParseScope(%q) = %v, %v, want %v", c.text, got, err, c.want)
			}
			if again, err := pipeline.ParseScope(got.String()); err != nil || again != got {
				t.Errorf("ParseScope(%q) = %v, %v, want what it was printed from, %v", got.String(), again, err, got)
			}
		})
	}
}

func TestScopeOrder(t *testing.T) {
	t.Parallel()
	ordered := []pipeline.Scope{{Site: "a"}, {Site: "a", Region: "x"}, {Site: "a", Region: "y"}, {Site: "b"}}
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := a.Compare(b), min(1, max(-1, i-j)); got != want {
				t.Errorf("%s compared with %s gives %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestWindowOverlaps(t *testing.T) {
	t.Parallel()
	window := func(from, to pipeline.Date) pipeline.Window { return pipeline.Window{From: from, To: to} }
	for _, c := range []struct {
		name string
		a, b pipeline.Window
		want bool
	}{
		{"apart", window(1, 3), window(4, 6), false},
		{"end to end", window(1, 3), window(3, 6), false},
		{"one date in common", window(1, 4), window(3, 6), true},
		{"one inside the other", window(1, 9), window(3, 4), true},
		{"equal", window(3, 4), window(3, 4), true},
	} {
		if got := c.a.Overlaps(c.b); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		if got := c.b.Overlaps(c.a); got != c.want {
			t.Errorf("%s, turned round: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestWindowRequest(t *testing.T) {
	t.Parallel()
	w := monthWindow(t, testScope, "2024-02-01")
	want := pipeline.JobRequest{
		DomainID: "d0", Site: "hcso-213", Region: "cn-north-213", Min: "2024-02-01 00:00:00", Max: "2024-03-01 00:00:00",
	}
	if got := w.Request("d0"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := w.String(), "hcso-213/cn-north-213 [2024-02-01, 2024-03-01)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.Scope.Region = ""
	body, err := json.Marshal(w.Request("d0"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(body), "region_id") {
		t.Errorf("a request for all regions says %s, want no region_id", body)
	}
}

func TestWindowsOfLists(t *testing.T) {
	t.Parallel()
	whole := pipeline.WholeWindow()
	if got, want := whole.String(), "the whole list"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := monthWindow(t, pipeline.Tenant, "2024-03-01").String(), "[2024-03-01, 2024-04-01)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if whole.From != 0 || !whole.Overlaps(dayWindow(pipeline.Tenant, date(t, "9999-12-30"))) {
		t.Errorf("the whole window is [%s, %s)", whole.From, whole.To)
	}
	for _, published := range []*pipeline.WindowState{nil, {Window: whole, Generation: 3}} {
		plan := pipeline.PlanWhole(published)
		if len(plan) != 1 || plan[0].Window != whole || plan[0].Skip != "" || plan[0].Published != published {
			t.Errorf("the plan over %v is %+v", published, plan)
		}
	}
}

func TestSecretDoesNotPrintItself(t *testing.T) {
	t.Parallel()
	const text = "correct horse"
	s := pipeline.Secret(text)
	type holder struct {
		Password pipeline.Secret
		Nested   map[string]*pipeline.Secret
	}
	h := holder{s, map[string]*pipeline.Secret{"x": &s}}
	var prints []string
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%X", "%d"} {
		prints = append(prints, fmt.Sprintf(verb, s), fmt.Sprintf(verb, h), fmt.Sprintf(verb, []pipeline.Secret{s}))
	}
	asJSON, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	prints = append(prints, string(asJSON), s.String(), s.GoString(), fmt.Sprint(errors.New(s.String())))
	for _, p := range prints {
		for _, leak := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", text)} {
			if strings.Contains(p, leak) {
				t.Errorf("the secret stands in %q", p)
			}
		}
	}
	if got := s.Reveal(); got != text {
		t.Errorf("revealed %q, want %q", got, text)
	}
}

func TestPartition(t *testing.T) {
	t.Parallel()
	month := pipeline.Partition{Site: "hcso-213", Unit: pipeline.Month, From: date(t, "2023-12-01")}
	if got, want := month.End(), date(t, "2024-01-01"); got != want {
		t.Errorf("the month ends at %s, want %s", got, want)
	}
	if got, want := month.String(), "hcso-213 2023-12"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	day := pipeline.Partition{Site: "hcso-213", Unit: pipeline.Day, From: date(t, "2024-02-29")}
	if got, want := day.End(), date(t, "2024-03-01"); got != want {
		t.Errorf("the day ends at %s, want %s", got, want)
	}
	if got, want := day.String(), "hcso-213 2024-02-29"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	whole := pipeline.Partition{Site: pipeline.Tenant.Site, Unit: pipeline.Whole, From: pipeline.WholeWindow().From}
	if got, want := whole.End(), pipeline.WholeWindow().To; got != want {
		t.Errorf("a whole list ends at %s, want %s", got, want)
	}
}

// TestErrorsNameTheWayOut holds the messages to what a user can act on.
func TestErrorsNameTheWayOut(t *testing.T) {
	t.Parallel()
	month, events, whole := monthWindow(t, testScope, "2024-03-01"), monthWindow(t, pipeline.Tenant, "2024-03-01"), pipeline.WholeWindow()
	for _, c := range []struct {
		name  string
		err   error
		parts []string
	}{
		{
			"shrunk month", &pipeline.ShrinkError{Stream: "sdr", Window: month, Had: 10, Got: 3},
			[]string{"window " + month.String(), "returned 3", "where 10", "backfill --scope hcso-213/cn-north-213 --from 2024-03-01 --to 2024-03-31 --refresh --accept-shrink"},
		},
		{
			"shrunk events", &pipeline.ShrinkError{Stream: "alarms", Window: events, Had: 10, Got: 3},
			[]string{"alarms [2024-03-01, 2024-04-01): ", "returned 3", "where 10", "backfill --stream alarms --from 2024-03-01 --to 2024-03-31 --refresh --accept-shrink"},
		},
		{
			"shrunk list", &pipeline.ShrinkError{Stream: "plans", Window: whole, Had: 10, Got: 3},
			[]string{"plans: ", "returned 3", "where 10", "nightly --stream plans --accept-shrink"},
		},
		{
			"vanished rows", &pipeline.VanishError{Stream: "plans", Gone: 21, Had: 30},
			[]string{"plans: 21 of 30 rows are gone", "nightly --stream plans --accept-shrink"},
		},
		{
			"bad month", &pipeline.QuarantineError{Stream: "sdr", Window: month, Quarantined: 101, Total: 5000, Example: "page 1, record 2"},
			[]string{"window " + month.String(), "101 of 5000", "sync.quarantine_max", "page 1, record 2"},
		},
		{
			"bad list", &pipeline.QuarantineError{Stream: "plans", Window: whole, Quarantined: 101, Total: 5000, Example: "page 1, record 2"},
			[]string{"plans: 101 of 5000", "sync.quarantine_max", "page 1, record 2"},
		},
	} {
		for _, part := range c.parts {
			if !strings.Contains(c.err.Error(), part) {
				t.Errorf("%s: %q lacks %q", c.name, c.err, part)
			}
		}
	}
}
