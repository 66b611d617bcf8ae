package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// planReport is what a backfill would do.
type planReport struct {
	Windows []plannedWindow `json:"windows"`
	Jobs    int             `json:"jobs"`
	Lists   int             `json:"lists"`            // windows that are read from lists
	Pages   int64           `json:"pages_expected"`   // 0 without history
	Seconds float64         `json:"seconds_expected"` // 0 without history
}

type plannedWindow struct {
	Stream string `json:"stream"`
	pipeline.Window
	Action  string   `json:"action"` // pull or skip
	Reason  string   `json:"reason,omitempty"`
	Pages   int64    `json:"pages_expected"`
	Seconds float64  `json:"seconds_expected"`
	Retires []string `json:"retires,omitempty"`
}

// printPlan prints what the backfill would ask, from the ledger alone.
func (a *app) printPlan(ctx context.Context, p pull) error {
	if err := a.loadConfig(NeedDatabase); err != nil {
		return err
	}
	parts, err := a.parts(p.streams)
	if err != nil {
		return err
	}
	now, err := a.prepare(&p)
	if err != nil {
		return err
	}
	return a.withDatabase(ctx, func(ctx context.Context, db *postgres.DB) error {
		r := planReport{Windows: []plannedWindow{}}
		var work float64
		for _, one := range eachScope(parts) {
			plan, groups, err := a.planPart(ctx, db, one, p, now())
			if err != nil {
				return err
			}
			pace, err := db.Pace(ctx, one.stream.Name, one.scopes[0])
			if err != nil {
				return err
			}
			for _, w := range slices.Concat(append(groups, plan)...) {
				line := plannedWindow{Stream: one.stream.Name, Window: w.Window, Action: "pull", Reason: w.Skip}
				for _, old := range w.Retire {
					line.Retires = append(line.Retires, old.Window.String())
				}
				switch {
				case w.Skip != "":
					line.Action = "skip"
				case one.stream.IsList(): // their pages differ too much to expect anything
					r.Lists++
				default:
					r.Jobs++
					line.Pages = int64(math.Ceil(pace.PagesPerDay * float64(w.Window.To-w.Window.From)))
					line.Seconds = math.Round(10*(pace.JobWait.Seconds()+pace.SecondsPerPage*float64(line.Pages))) / 10
				}
				r.Pages += line.Pages
				work += line.Seconds
				r.Windows = append(r.Windows, line)
			}
		}
		r.Seconds = math.Round(work / float64(max(1, min(a.cfg.Sync.Parallel, r.Jobs))))
		return a.printPlanReport(r)
	})
}

// eachScope is the parts cut into one for each scope.
func eachScope(parts []part) []part {
	var all []part
	for _, one := range parts {
		for _, s := range one.scopes {
			all = append(all, part{stream: one.stream, scopes: []pipeline.Scope{s}, named: one.named})
		}
	}
	return all
}

func (a *app) planPart(ctx context.Context, db *postgres.DB, one part, p pull, now time.Time) ([]pipeline.Planned, [][]pipeline.Planned, error) {
	if !one.stream.IsList() {
		return planWindows(ctx, db, one, p)
	}
	published, err := db.Windows(ctx, one.stream.Name, pipeline.Tenant)
	if err != nil {
		return nil, nil, err
	}
	return planList(ctx, db, one, p, now, a.cfg.Sync.SourceTimezone, published)
}

func (a *app) printPlanReport(r planReport) error {
	if a.output == "json" {
		return a.printJSON(r)
	}
	t := a.table("WINDOW", "ACTION", "PAGES EXPECTED", "SECONDS EXPECTED", "REASON")
	for _, w := range r.Windows {
		reason := w.Reason
		if len(w.Retires) > 0 {
			reason = fmt.Sprintf("replaces %d windows of the month", len(w.Retires))
		}
		t.row(windowLabel(w.Stream, w.Window), w.Action, w.Pages, fmt.Sprintf("%.1f", w.Seconds), reason)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if r.Lists > 0 {
		if _, err := fmt.Fprintf(a.stdout, "%d windows of lists\n", r.Lists); err != nil {
			return err
		}
	}
	if r.Jobs > 0 && r.Pages == 0 {
		_, err := fmt.Fprintf(a.stdout, "%d query jobs; no history yet to expect a time from\n", r.Jobs)
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "%d query jobs, about %d pages and %s; nothing was touched\n", r.Jobs, r.Pages, time.Duration(r.Seconds*float64(time.Second)))
	return err
}
