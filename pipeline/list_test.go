package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Streams of lists: a history with a key that is partly asked for, a snapshot without a key, answers kept whole, and events.
const (
	plansYAML = `
stream: plans
table: billing.plan
shape: history
key: [language, id]
list:
  {system: bss, method: GET, path: /plans, items: data, rate: {class: plans}, paging: {style: row, start: offset, limit: limit, size: 2},
   each: [{name: language, values: [en_US, zh_CN]}]}
fields:
  - {name: language, type: text, asked: true, meaning: m}
  - {name: id, type: text, required: true, meaning: m}
  - {name: status, type: integer, meaning: m}
`
	notesYAML = `
stream: notes
table: billing.note
shape: snapshot
list: {system: bss, method: GET, path: /notes, items: data, rate: {class: notes}, paging: {style: none}}
fields:
  - {name: id, type: text, meaning: m}
`
	bodiesYAML = `
stream: bodies
table: billing.body
shape: snapshot
key: [kind]
list: {system: esm, method: GET, path: /bodies, rate: {class: bodies}, paging: {style: none}, each: [{name: kind, values: [ECS]}]}
fields:
  - {name: kind, type: text, asked: true, meaning: m}
  - {name: body, type: json, required: true, meaning: m}
`
	alarmsYAML = `
stream: alarms
table: billing.alarm
shape: events
time_field: at
key: [csn]
list:
  {system: esm, method: GET, path: /alarms, items: list, rate: {class: alarms}, paging: {style: none},
   time: {begin: b, end: e, unit: ms, window: month}, each: [{name: cleared, values: ["0", "1"]}]}
fields:
  - {name: csn, type: text, required: true, meaning: m}
  - {name: at, type: timestamp, required: true, meaning: m}
  - {name: cleared, type: integer, asked: true, meaning: m}
`
)

// newListWorld is newWorld for a list.
func newListWorld(t testing.TB, text string) *world {
	t.Helper()
	path := t.TempDir()
	dir := openLanding(t, path)
	w := newListWorldIn(t, dir, path, text)
	w.dir, w.path = dir, path
	return w
}

func newListWorldIn(t testing.TB, dir pipeline.Landing, spill, text string) *world {
	t.Helper()
	s, err := schemas.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldIn(t, dir, pipeline.Tenant, spill)
	w.cfg.Stream, w.cfg.AdoptMaxAge = s, 0
	w.cfg.Leases = map[pipeline.StreamScope]int64{{Stream: s.Name, Scope: pipeline.Tenant}: leaseToken}
	w.vendor.polls = 0
	w.ledger.text = func(row *record.Row) string { return listRowText(s, row) }
	return w
}

// listRowText writes all fields of a row.
func listRowText(s *schemas.Stream, row *record.Row) string {
	var parts []string
	for i, f := range s.Fields {
		v := row.Values[i]
		switch {
		case !v.Valid:
			parts = append(parts, "NULL")
		case f.Type == schemas.Timestamp:
			parts = append(parts, time.UnixMicro(v.Int).UTC().Format(time.RFC3339))
		case f.Type == schemas.Integer:
			parts = append(parts, strconv.FormatInt(v.Int, 10))
		default:
			parts = append(parts, string(v.Bytes))
		}
	}
	return strings.Join(parts, " ") + fmt.Sprintf(" #%d", row.Ordinal)
}

// listPages lays data out as the pages of a list, whose markers say what each was asked for: "language=en_US" and the like.
func listPages(pages ...[2]string) []vendorPage {
	var out []vendorPage
	for i, p := range pages {
		out = append(out, vendorPage{marker: p[0] + "&offset=" + strconv.Itoa(100*i), data: p[1]})
		if i > 0 {
			out[i-1].next = out[i].marker
		}
	}
	return out
}

// serve makes the list say these pages, whichever job reads it.
func (w *world) serve(pages ...[2]string) {
	w.vendor.list = func(int) []vendorPage { return listPages(pages...) }
}

func serveTwoLanguages(w *world) (rows []string) {
	w.serve(
		[2]string{"language=en_US", `[{"id":"a","status":1},{"id":"b","status":"2"}]`},
		[2]string{"language=en_US", `[{"id":"c","status":""}]`},
		[2]string{"language=zh_CN", `[{"id":"a","status":1,"language":"zh_CN"}]`},
		[2]string{"language=zh_CN", ""},
	)
	return []string{"en_US a 1 #0", "en_US b 2 #0", "en_US c NULL #0", "zh_CN a 1 #0"}
}

// TestList publishes a list that is read whole, and reads it again.
func TestList(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, plansYAML)
	rows := serveTwoLanguages(w)
	whole := pipeline.WholeWindow()
	var mu sync.Mutex
	phases := map[pipeline.Phase]int{}
	w.cfg.Observe = func(e pipeline.Event) {
		mu.Lock()
		defer mu.Unlock()
		phases[e.Phase]++
		if e.Stream != "plans" || e.Window != whole {
			t.Errorf("an event is of %s, %s", e.Stream, e.Window)
		}
	}
	r := w.mustRun(pipeline.Published, whole)[0]
	if r.Pages != 4 || r.Records != 4 || r.Quarantined != 0 || r.Outside != 0 {
		t.Errorf("the result is %+v, want 4 pages with 4 records", r)
	}
	if phases[pipeline.PhaseJob] != 1 || phases[pipeline.PhaseDrain] != 4 || phases[pipeline.PhasePublish] != 1 || phases[pipeline.PhaseDone] != 1 {
		t.Errorf("the events are %v", phases)
	}
	w.wantRows(whole.From, 1, rows)
	w.wantAsked(1, 1, 2, 3, 4)
	w.wantLanding(1)
	if key, pages, err := w.landing.Kept(whole, r.Outcome.WindowID, 1); err != nil || key.Window != whole {
		t.Errorf("of generation 1 is kept %+v, %v", key, err)
	} else {
		for p, err := range pages {
			if values, perr := url.ParseQuery(p.Asked); err != nil || perr != nil || values.Get("language") == "" {
				t.Errorf("a kept page was asked with %q, %v", p.Asked, err)
			}
		}
	}

	w.mustRun(pipeline.Unchanged, whole)
	w.wantRows(whole.From, 1, rows)
	w.wantLanding(1)
	w.wantStates(pipeline.StatePublished, pipeline.StateUnchanged)
}

// TestListMoves reads the list again with a new job when it moved, three times at most.
func TestListMoves(t *testing.T) {
	t.Parallel()
	moved := func(number int) error { return fmt.Errorf("%d of 5 rows came: %w", number, pipeline.ErrListMoved) }
	for _, c := range []struct {
		name string
		says string
		// spoil makes the list move for the jobs up to last.
		spoil func(w *world, last int)
	}{
		{"the source says so", "of 5 rows came", func(w *world, last int) {
			w.vendor.onPage = func(j *vendorJob, page int) error {
				if page == 3 && j.number <= last {
					return moved(j.number)
				}
				return nil
			}
		}},
		{"the source says so at once", "read page 1: 1 of 5 rows came", func(w *world, last int) {
			w.vendor.onPage = func(j *vendorJob, _ int) error {
				if j.number <= last {
					return moved(1)
				}
				return nil
			}
		}},
		{"a row comes twice", "1 of 5 rows have the same language, id as one before", func(w *world, last int) {
			list := w.vendor.list
			w.vendor.list = func(job int) []vendorPage {
				pages := list(job)
				if job <= last {
					pages[1].data = `[{"id":"c"},{"id":"b","status":2}]`
				}
				return pages
			}
		}},
		{"a row comes twice and changed", "1 of 5 rows", func(w *world, last int) {
			list := w.vendor.list
			w.vendor.list = func(job int) []vendorPage {
				pages := list(job)
				if job <= last {
					pages[1].data = `[{"id":"c"},{"id":"b","status":3}]`
				}
				return pages
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			whole := pipeline.WholeWindow()
			for last, states := range [][]string{
				1: {pipeline.StateMoved, pipeline.StatePublished},
				2: {pipeline.StateMoved, pipeline.StateMoved, pipeline.StatePublished},
			} {
				if states == nil {
					continue
				}
				w := newListWorld(t, plansYAML)
				rows := serveTwoLanguages(w)
				c.spoil(w, last)
				w.mustRun(pipeline.Published, whole)
				w.wantRows(whole.From, 1, rows)
				w.wantStates(states...)
				w.wantLanding(1)
			}

			w := newListWorld(t, plansYAML)
			serveTwoLanguages(w)
			c.spoil(w, 3)
			err := w.mustFail(whole, "plans: ", c.says, "the list moved while it was read; so it did 3 times, and nothing was published: run again")
			if !errors.Is(err, pipeline.ErrListMoved) {
				t.Errorf("the error %v is not ErrListMoved", err)
			}
			w.wantStates(pipeline.StateMoved, pipeline.StateMoved, pipeline.StateMoved)
			w.wantLanding(0)
			if note := w.ledger.jobs[0].Note; !strings.Contains(note, c.says) || !strings.Contains(note, "the list moved") {
				t.Errorf("the ledger notes %q", note)
			}
			if w.ledger.window(whole.From) != nil {
				t.Error("the list is published")
			}
		})
	}
}

// TestListWithoutKey keeps equal rows apart as twins: nobody can prove that they are one.
func TestListWithoutKey(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, notesYAML)
	w.serve([2]string{"", `[{"id":"a"},{"id":"a"},{}]`})
	w.mustRun(pipeline.Published, pipeline.WholeWindow())
	w.wantRows(0, 1, []string{"NULL #0", "a #0", "a #1"})
}

// TestListThatCannotBeRead ends its job with the reason, and is not tried again: no later run takes its pages up.
func TestListThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		err  error
	}{
		{"the site does not offer it", pipeline.ErrNotOffered},
		{"denied", pipeline.ErrCredentials},
		{"the request is refused", pipeline.ErrRefused},
		{"unreachable", errInjected},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, plansYAML)
			rows := serveTwoLanguages(w)
			w.vendor.onPage = func(_ *vendorJob, page int) error {
				if page == 2 {
					return c.err
				}
				return nil
			}
			whole := pipeline.WholeWindow()
			if err := w.mustFail(whole, "plans: read page 2"); !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			w.wantStates(pipeline.StateFailed)
			w.wantLanding(0)
			if note := w.ledger.jobs[0].Note; !strings.Contains(note, c.err.Error()) {
				t.Errorf("the ledger notes %q, want %q", note, c.err)
			}
			w.vendor.onPage = nil
			w.mustRun(pipeline.Published, whole)
			w.wantRows(whole.From, 1, rows)
			w.wantStates(pipeline.StateFailed, pipeline.StatePublished)
		})
	}
}

// TestMarkerThatCannotBeRead: what a page was asked for must be known.
func TestMarkerThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for marker, says := range map[string]string{"language=%zz": "read the marker", "language=%00": "take language as it was asked for"} {
		w := newListWorld(t, plansYAML)
		w.serve([2]string{marker, `[{"id":"a"}]`})
		w.mustFail(pipeline.WholeWindow(), "plans: page 1", says)
		w.wantStates(pipeline.StateFailed)
		w.wantLanding(0)
	}
}

// TestListIsNeverAdopted: what a run that was stopped or killed left behind answers for nothing, whatever the clock says.
func TestListIsNeverAdopted(t *testing.T) {
	t.Parallel()
	for _, ago := range []time.Duration{-time.Hour, 0, time.Microsecond} {
		t.Run(ago.String(), func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, plansYAML)
			serveTwoLanguages(w)
			ctx, stop := context.WithCancelCause(t.Context())
			w.vendor.onPage = func(_ *vendorJob, page int) error {
				if page == 3 {
					stop(errStop)
				}
				return nil
			}
			whole := pipeline.WholeWindow()
			if r := w.runPlan(ctx, fault{}, planOf(whole))[0]; !errors.Is(r.Err, errStop) {
				t.Fatalf("the run ends with %v, want %v", r.Err, errStop)
			}
			w.wantStates(pipeline.StateOpen)
			w.wantLanding(1)
			w.vendor.onPage = nil
			w.serve([2]string{"language=en_US", `[{"id":"z"}]`})
			w.advance(ago)
			w.mustRun(pipeline.Published, whole)
			w.wantRows(whole.From, 1, []string{"en_US z NULL #0"})
			w.wantStates(pipeline.StateAbandoned, pipeline.StatePublished)
			w.wantAsked(2, 1)
			w.wantLanding(1)
		})
	}
}

// TestListLandingIsTidied: the name of a whole list's landing file is one that the folder knows.
func TestListLandingIsTidied(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, plansYAML)
	file, err := w.dir.Open(pipeline.LandingKey{Stream: "plans", Window: pipeline.WholeWindow(), JobRow: 1, JobID: "local-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	w.wantLanding(1)
	if err := w.dir.Tidy(func(pipeline.LandingKey) bool { return false }); err != nil {
		t.Fatal(err)
	}
	w.wantLanding(0)
}

func TestListMarkerCircles(t *testing.T) {
	t.Parallel()
	for back := range 3 {
		w := newListWorld(t, plansYAML)
		w.vendor.list = func(int) []vendorPage {
			pages := listPages([2]string{"language=en_US", "[]"}, [2]string{"language=en_US", "[]"}, [2]string{"language=en_US", "[]"})
			pages[2].next = pages[back].marker
			return pages
		}
		w.mustFail(pipeline.WholeWindow(), "plans: page 3", fmt.Sprintf("as page %d", back+1), "circle")
		w.wantStates(pipeline.StateFailed)
	}
}

// TestOneRecordAPage: what a page has may be one object.
func TestOneRecordAPage(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, plansYAML)
	w.serve(
		[2]string{"language=en_US", `{"id":"a","status":[]}`}, [2]string{"language=en_US", ` {"id":"b"}`},
		[2]string{"language=en_US", "null"}, [2]string{"language=en_US", `"c"`})
	r := w.mustRun(pipeline.Published, pipeline.WholeWindow())[0]
	w.wantRows(0, 1, []string{"en_US b NULL #0"})
	var rejects []string
	for _, q := range w.ledger.window(0).rejects {
		rejects = append(rejects, fmt.Sprintf("page %d, %d: %s %s", q.Page, q.Position, q.Reason, q.Raw))
	}
	want := []string{`page 1, 1: bad_number {"id":"a","status":[]}`, `page 4, 1: not_an_object "c"`}
	if !slices.Equal(rejects, want) || r.Quarantined != 2 {
		t.Errorf("the quarantine is %q, want %q", rejects, want)
	}
}

func TestWholeBodies(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, bodiesYAML)
	w.serve(
		[2]string{"kind=BMS", `{"total": 2, "list": [{"b":1,"a":2}]}`}, [2]string{"kind=ECS", ` [ {"id":1}, {"id":2} ]`},
		[2]string{"kind=EVS", `"none"`}, [2]string{"kind=OBS", "null"}, [2]string{"kind=EIP", ""})
	w.mustRun(pipeline.Published, pipeline.WholeWindow())
	w.wantRows(0, 1, []string{`BMS {"list":[{"a":2,"b":1}],"total":2} #0`, `ECS [{"id":1},{"id":2}] #0`, `EVS "none" #0`})
	if rejects := w.ledger.window(0).rejects; len(rejects) != 1 || rejects[0].Reason != "missing_body" || string(rejects[0].Raw) != "null" {
		t.Errorf("the quarantine is %+v, want the null", rejects)
	}
}

// serveAlarms has one alarm twice: just before the window's end, and on it. Another has no time.
func serveAlarms(w *world) {
	w.serve(
		[2]string{"cleared=0", `[{"csn":"1","at":"2024-02-29T23:59:59Z"},{"csn":"2","at":1709251200000},{"csn":"3"},{"csn":"4","at":"2024-03-31 23:59:59"}]`},
		[2]string{"cleared=1", `[{"csn":"4","at":"2024-04-01 00:00:00"},{"csn":"5","at":"2024-03-15 0:00"}]`},
	)
}

var marchAlarms = []string{"2 2024-03-01T00:00:00Z 0 #0", "4 2024-03-31T23:59:59Z 0 #0", "5 2024-03-15T00:00:00Z 1 #0"}

func TestEvents(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, alarmsYAML)
	serveAlarms(w)
	march := monthWindow(t, pipeline.Tenant, "2024-03-01")
	r := w.mustRun(pipeline.Published, march)[0]
	if r.Records != 3 || r.Outside != 2 || r.Quarantined != 1 {
		t.Errorf("the result is %+v, want 3 records, 2 outside and 1 quarantined", r)
	}
	w.wantRows(march.From, 1, marchAlarms)
	if rejects := w.ledger.window(march.From).rejects; len(rejects) != 1 || rejects[0].Reason != "missing_at" || rejects[0].Position != 3 {
		t.Errorf("the quarantine is %+v, want the alarm without a time", rejects)
	}
	if job := w.ledger.jobs[0]; job.Records != 3 || job.Quarantined != 1 {
		t.Errorf("the job has %d records and %d quarantined, want 3 and 1", job.Records, job.Quarantined)
	}
	w.mustRun(pipeline.Unchanged, march)

	// Its neighbours have the others.
	april := monthWindow(t, pipeline.Tenant, "2024-04-01")
	w.mustRun(pipeline.Published, april)
	w.wantRows(april.From, 1, []string{"4 2024-04-01T00:00:00Z 1 #0"})

	// A replay takes the same.
	w.vendor.jobs = nil
	if r, _ := w.replay(march.From); r.Status != pipeline.Unchanged || r.Err != nil || r.Records != 3 || r.Outside != 2 {
		t.Errorf("the replay ends with %+v, want it unchanged", r)
	}
	w.wantRows(march.From, 1, marchAlarms)
}

// TestEventsElsewhere: the dates of windows are those of the source's zone.
func TestEventsElsewhere(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, alarmsYAML)
	w.cfg.SourceZone, w.cfg.FileZone = beijing, beijing
	w.serve([2]string{"cleared=0", `[{"csn":"1","at":"2024-02-29T15:59:59Z"},{"csn":"2","at":"2024-03-01 0:00"},{"csn":"3","at":"2024-03-31T15:59:59Z"},{"csn":"4","at":"2024-03-31T16:00:00Z"}]`})
	march := monthWindow(t, pipeline.Tenant, "2024-03-01")
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, []string{"2 2024-02-29T16:00:00Z 0 #0", "3 2024-03-31T15:59:59Z 0 #0"})
}

// TestEventsWithEqualKeys: an alarm that is cleared between two pages stands on both, so the list is read again; if that gives the very
// same, the vendor's keys are not unique, and its rows are taken as they are. Outside of the window equal keys say nothing.
func TestEventsWithEqualKeys(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, alarmsYAML)
	w.serve([2]string{"cleared=0", `[{"csn":"1","at":"2024-03-05 0:00"}]`}, [2]string{"cleared=1", `[{"csn":"1","at":"2024-03-06 0:00"}]`})
	march := monthWindow(t, pipeline.Tenant, "2024-03-01")
	w.mustRun(pipeline.Published, march)
	w.wantRows(march.From, 1, []string{"1 2024-03-05T00:00:00Z 0 #0", "1 2024-03-06T00:00:00Z 1 #0"})
	if len(w.ledger.jobs) != 2 || w.ledger.jobs[0].State != pipeline.StateMoved {
		t.Errorf("the jobs are %+v, want one that moved before the one that published", w.ledger.jobs)
	}
	w.vendor.jobs = nil
	if r, _ := w.replay(march.From); r.Status != pipeline.Unchanged || r.Err != nil || r.Same != 1 {
		t.Errorf("the replay ends with %+v, want it unchanged, with one row of a key twice", r)
	}
	april := monthWindow(t, pipeline.Tenant, "2024-04-01")
	w.mustRun(pipeline.Published, april)
	w.wantRows(april.From, 1, nil)
}

// TestRowsWithoutKeysThatAreTheSame: pages [A, B] and [B, D] of A, B, C, D have the right total. Only that B stands twice tells that the order
// changed in between, so the list is read again, by other pages.
func TestRowsWithoutKeysThatAreTheSame(t *testing.T) {
	t.Parallel()
	paged := strings.Replace(notesYAML, "paging: {style: none}", "paging: {style: row, start: offset, limit: limit, size: 2}", 1)
	whole := pipeline.WholeWindow()
	shifted := listPages([2]string{"", `[{"id":"a"},{"id":"b"}]`}, [2]string{"", `[{"id":"b"},{"id":"d"}]`})
	t.Run("it moved", func(t *testing.T) {
		t.Parallel()
		w := newListWorld(t, paged)
		w.vendor.list = func(number int) []vendorPage {
			if number == 1 {
				return shifted
			}
			return listPages([2]string{"", `[{"id":"a"}]`}, [2]string{"", `[{"id":"b"}]`}, [2]string{"", `[{"id":"c"}]`}, [2]string{"", `[{"id":"d"}]`})
		}
		w.mustRun(pipeline.Published, whole)
		w.wantRows(whole.From, 1, []string{"a #0", "b #0", "c #0", "d #0"})
		w.wantStates(pipeline.StateMoved, pipeline.StatePublished)
	})
	t.Run("they are the vendor's", func(t *testing.T) {
		t.Parallel()
		w := newListWorld(t, paged)
		w.vendor.list = func(int) []vendorPage { return shifted }
		if r := w.mustRun(pipeline.Published, whole)[0]; r.Same != 1 {
			t.Errorf("the result is %+v, want one row that is the same as another", r)
		}
		w.wantRows(whole.From, 1, []string{"a #0", "b #0", "b #1", "d #0"})
		w.wantStates(pipeline.StateMoved, pipeline.StatePublished)
		w.vendor.jobs = nil
		if r, _ := w.replay(whole.From); r.Status != pipeline.Unchanged || r.Err != nil {
			t.Errorf("the replay ends with %+v, want it unchanged", r)
		}
	})
	t.Run("on one page", func(t *testing.T) {
		t.Parallel()
		w := newListWorld(t, notesYAML)
		w.serve([2]string{"", `[{"id":"b"},{"id":"b"}]`})
		w.mustRun(pipeline.Published, whole)
		w.wantStates(pipeline.StatePublished)
	})
}

// TestVanishIsRefused: too many rows gone at once leave what stands, and say so.
func TestVanishIsRefused(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, plansYAML)
	rows := serveTwoLanguages(w)
	whole := pipeline.WholeWindow()
	w.mustRun(pipeline.Published, whole)
	w.ledger.onPublish = func(r pipeline.Replacement) error {
		if r.AcceptShrink {
			return nil
		}
		return fmt.Errorf("in the transaction: %w", &pipeline.VanishError{Stream: r.Stream, Gone: 30, Had: 40})
	}
	w.serve([2]string{"language=en_US", `[{"id":"a","status":1},{"id":"b","status":2}]`})
	err := w.mustFail(whole, "plans: 30 of 40 rows are gone at once", "nightly --stream plans --accept-shrink")
	var vanish *pipeline.VanishError
	if !errors.As(err, &vanish) || vanish.Gone != 30 {
		t.Errorf("got %v, want a VanishError", err)
	}
	w.wantRows(whole.From, 1, rows)
	w.wantStates(pipeline.StatePublished, pipeline.StateRefused)
	w.wantLanding(2) // the evidence

	w.cfg.AcceptShrink = true
	w.mustRun(pipeline.Published, whole)
	w.wantRows(whole.From, 2, []string{"en_US a 1 #0", "en_US b 2 #0"})
}

func TestListShrinkIsRefused(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, plansYAML)
	rows := serveTwoLanguages(w)
	whole := pipeline.WholeWindow()
	w.mustRun(pipeline.Published, whole)
	w.serve([2]string{"language=en_US", ""})
	w.mustFail(whole, "plans: the vendor returned 0 records where 4 are published", "sdr-sync nightly --stream plans --accept-shrink")
	w.wantRows(whole.From, 1, rows)
	w.wantStates(pipeline.StatePublished, pipeline.StateRefused)
}

// TestChangesAreReported: what a pull did to the rows comes with the result.
func TestChangesAreReported(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, plansYAML)
	serveTwoLanguages(w)
	want := pipeline.Changes{Appeared: 4, Disappeared: 1}
	engine := pipeline.NewEngine(&outside{w: w}, changing{&outside{w: w}, want}, w.landing, w.cfg)
	if r := engine.Run(t.Context(), pipeline.PlanWhole(nil))[0]; r.Status != pipeline.Published || r.Outcome.Changes != want {
		t.Errorf("the result is %+v, want published with %+v", r, want)
	}
	w.check()
}

// changing is a ledger that reports changes.
type changing struct {
	*outside
	changes pipeline.Changes
}

// Publish implements pipeline.Ledger.
func (c changing) Publish(ctx context.Context, r pipeline.Replacement) ([]pipeline.Outcome, error) {
	outcomes, err := c.outside.Publish(ctx, r)
	for i := range outcomes {
		outcomes[i].Changes = c.changes
	}
	return outcomes, err
}

// TestBreakEveryCallOfLists breaks each call of a list's pull in each way; between two pulls only the old or the new stands, and the
// next run makes it the new.
func TestBreakEveryCallOfLists(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, stream string
		window       pipeline.Window
		before       func(w *world)
		serve        func(w *world)
		was, want    []string
	}{
		{
			"a history", plansYAML, pipeline.WholeWindow(),
			func(w *world) { w.serve([2]string{"language=en_US", `[{"id":"a","status":1},{"id":"x"}]`}) },
			func(w *world) { serveTwoLanguages(w) },
			[]string{"en_US a 1 #0", "en_US x NULL #0"},
			[]string{"en_US a 1 #0", "en_US b 2 #0", "en_US c NULL #0", "zh_CN a 1 #0"},
		},
		{
			"events", alarmsYAML, monthWindow(t, pipeline.Tenant, "2024-03-01"),
			func(w *world) { w.serve([2]string{"cleared=0", `[{"csn":"5","at":"2024-03-15 0:00"}]`}) }, serveAlarms,
			[]string{"5 2024-03-15T00:00:00Z 0 #0"},
			marchAlarms,
		},
	} {
		for _, how := range faultModes {
			t.Run(c.name+", which "+string(how), func(t *testing.T) {
				t.Parallel()
				spill := t.TempDir()
				for at := 1; ; at++ {
					w := newListWorldIn(t, &memoryLanding{files: map[int64]*memoryFile{}, kept: map[[2]int64]*memoryFile{}}, spill, c.stream)
					c.before(w)
					w.mustRun(pipeline.Published, c.window)
					c.serve(w)
					ctx, stop := context.WithCancelCause(t.Context())
					engine, seen := w.engine(fault{at: at, how: how, stop: stop})
					engine.Run(ctx, planOf(c.window))
					stop(nil)
					w.check()
					if rows := w.ledger.window(c.window.From).rows; !slices.Equal(rows, c.was) && !slices.Equal(rows, c.want) {
						t.Fatalf("after call %d, %s, the rows are %q", at, seen.broken, rows)
					}
					w.run(c.window)
					w.wantRows(c.window.From, 2, c.want)
					if live := w.ledger.liveJobs(pipeline.Tenant); len(live) > 0 || t.Failed() {
						t.Fatalf("that was with call %d, %s; live are %+v", at, seen.broken, live)
					}
					if seen.broken == "" {
						if at < 10 {
							t.Errorf("the run has %d calls, which is too few to be true", at-1)
						}
						return
					}
				}
			})
		}
	}
}
