package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/source/list"
)

// list pulls one list: whole, or its windows of event time. What the site does not offer, or forbids where that is no failure, is noted.
func (r *puller) list(ctx context.Context, one part) ([]pipeline.Result, error) {
	client, err := r.vendor.list(one.stream, r.db, r.pull.acceptShrink)
	if err != nil {
		return nil, err
	}
	published, err := r.db.Windows(ctx, one.stream.Name, pipeline.Tenant)
	if err != nil {
		return nil, err
	}
	plan, groups, err := planList(ctx, r.db, one, r.pull, r.now(), r.cfg.Sync.SourceTimezone, published)
	if err != nil {
		return nil, err
	}
	if one.stream.Shape == schemas.Events {
		if err := r.checkPlan(one, plan, groups, record.DateOf(r.now(), r.cfg.Sync.SourceTimezone)); err != nil {
			return nil, err
		}
	} else if r.pull.reslice != "" {
		return nil, withCode(exitUsage, fmt.Errorf("%s is read whole: there are no windows to cut anew", one.stream.Name))
	}
	results, err := r.windows(ctx, client, one, plan, groups)
	if err != nil {
		return nil, err
	}
	if skipped := client.Skipped(); len(skipped) > 0 {
		r.note("%s: the vendor has nothing for %s", one.stream.Name, shorten(skipped, 5))
	}
	results = r.excuse(one, results, len(published) > 0)
	for _, result := range results {
		if n := result.Outcome.Changes.Absent; n > 0 {
			r.note("%s: %d rows were absent for the first time; they end when the next complete pull lacks them too", one.stream.Name, n)
		}
	}
	if one.stream.Shape == schemas.Events {
		return results, r.noteGaps(ctx, one)
	}
	return results, nil
}

// planList plans the pull of a list, of which existing windows are published.
func planList(ctx context.Context, db *postgres.DB, one part, p pull, now time.Time, zone *time.Location, existing []pipeline.WindowState) (plan []pipeline.Planned, groups [][]pipeline.Planned, err error) {
	if one.stream.Shape != schemas.Events {
		var published *pipeline.WindowState
		if len(existing) > 0 {
			published = &existing[0]
		}
		return pipeline.PlanWhole(published), nil, nil
	}
	p.ask.Unit, p.ask.FileZone = pipeline.Unit(one.stream.List.Time.Window), zone
	p.ask.Today = record.DateOf(now, zone)
	if p.ask.Whole {
		p.ask.To = p.ask.Today
		if n := len(existing); n > 0 { // a stream that runs seldom must leave no gap
			p.ask.From = min(p.ask.From, existing[n-1].To)
		}
	}
	return planWindows(ctx, db, one, p)
}

// excuse turns failures that are none into notes, unless the stream was asked for by name: an API that the site does not offer, and one
// that it may forbid. What was published before is missed.
func (r *puller) excuse(one part, results []pipeline.Result, published bool) []pipeline.Result {
	var excused error
	var notOffered error // one for all windows: it reads better said once
	for i := range results {
		err := results[i].Err
		missing := errors.Is(err, pipeline.ErrNotOffered) && !published
		if missing && one.named {
			if notOffered == nil {
				notOffered = withCode(exitIncomplete, fmt.Errorf("%s: this site does not offer it, nothing of it was pulled: %w", one.stream.Name, innermost(err)))
			}
			results[i].Err = notOffered
		}
		if one.named || !missing && !(isDenied(err) && one.stream.List.Denied == "note") {
			continue
		}
		excused = err
		results[i].Err, results[i].Status = nil, pipeline.Skipped
		results[i].Reason = "not offered by this site"
		if !missing {
			results[i].Reason = "denied"
		}
	}
	switch {
	case excused == nil:
	case errors.Is(excused, pipeline.ErrNotOffered):
		r.note("%s: this site does not offer it (404); take it out of streams", one.stream.Name)
	default:
		r.note("%s: denied to this account (%v); what is stored stays", one.stream.Name, innermost(excused))
	}
	return results
}

// innermost is the vendor's own answer inside err.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil || errors.Unwrap(next) == nil && (errors.Is(next, pipeline.ErrCredentials) || errors.Is(next, pipeline.ErrNotOffered)) {
			return err
		}
		err = next
	}
}

// shorten lists the first n of what was skipped.
func shorten(skipped []list.Skip, n int) string {
	var names []string
	for _, s := range skipped[:min(n, len(skipped))] {
		names = append(names, s.Asked)
	}
	if more := len(skipped) - n; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
