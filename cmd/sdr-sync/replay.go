package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

func (a *app) replayCommand() *cobra.Command {
	var from, to string
	var all bool
	var windowIDs []int64
	p := pull{command: "replay"}
	cmd := &cobra.Command{
		Use:   "replay --from 2024-01 --to 2024-03",
		Short: "Publish current generations again from their kept landing files, asking nobody",
		Long: `Decode the kept landing file of each window's current generation anew and publish what came out differently: after a fix of the
decoder, or after a change of sync.source_timezone (with --all).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			first, end := pipeline.Date(-1<<31), pipeline.Date(1<<31-1)
			if from != "" || to != "" {
				var err error
				if first, end, err = span(from, to); err != nil {
					return withCode(exitUsage, err)
				}
			} else if !all && len(windowIDs) == 0 {
				return withCode(exitUsage, errors.New("say what to replay: --from and --to, --window, or --all"))
			}
			wanted := func(w pipeline.WindowState) bool {
				if len(windowIDs) > 0 {
					for _, id := range windowIDs {
						if id == w.ID {
							return true
						}
					}
					return false
				}
				return w.From < end && first < w.To
			}
			if err := a.loadConfig(NeedDatabase, NeedLake, NeedLanding); err != nil {
				return err
			}
			parts, err := a.replayParts(p.streams, all, len(windowIDs) > 0)
			if err != nil {
				return err
			}
			return a.replay(cmd.Context(), p, parts, wanted, all)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "first month or file date")
	cmd.Flags().StringVar(&to, "to", "", "last month or file date, inclusive")
	cmd.Flags().Int64SliceVar(&windowIDs, "window", nil, "only this window_id (may be repeated)")
	cmd.Flags().BoolVar(&all, "all", false, "every window; the only way to change the time zones over existing data")
	a.pullFlags(cmd, &p)
	streamFlag(cmd, &p)
	return cmd
}

// replayParts returns what a replay is about: the streams that are named; else, for a window that is, every stream, for --all those with
// windows of dates, and the metering records alone for dates. A list that is read whole has one window, which no dates choose.
func (a *app) replayParts(named []string, all, byWindow bool) ([]part, error) {
	if len(named) > 0 {
		return a.parts(named)
	}
	return a.partsOf(func(s *schemas.Stream) bool {
		switch s.Shape {
		case schemas.Jobs:
			return true
		case schemas.Events:
			return (all || byWindow) && len(a.scopeTexts) == 0
		}
		return byWindow && len(a.scopeTexts) == 0
	}, false)
}

func (a *app) replay(ctx context.Context, p pull, parts []part, wanted func(pipeline.WindowState) bool, all bool) error {
	p.rezone = all
	now, err := a.prepare(&p)
	if err != nil {
		return err
	}
	return a.withDatabase(ctx, func(ctx context.Context, db *postgres.DB) error {
		return a.asRun(ctx, db, parts, p.command, all, now, func(ctx context.Context, r *runInfo) error {
			changedZones, err := a.changedZones(ctx, db)
			if err != nil {
				return err
			}
			if len(changedZones) > 0 {
				if err := a.mayChangeZones(ctx, db, all); err != nil {
					return err
				}
			}
			if err := a.checkLakes(ctx, db, parts, all); err != nil {
				return err
			}
			land, err := a.openLanding()
			if err != nil {
				return err
			}
			defer land.Close()
			if err := a.tidyLanding(ctx, db, land, parts); err != nil {
				return err
			}
			var pulled []pulledPart
			for _, one := range parts {
				engine := pipeline.NewEngine(nil, db, land, a.engineConfig(one.stream, r, p, now, nil))
				windows, err := replayable(ctx, db, one, wanted)
				if err != nil {
					return err
				}
				if len(windows) == 0 {
					continue
				}
				if len(changedZones) > 0 {
					if err := beginZoneChange(ctx, db, engine, windows, changedZones); err != nil {
						return err
					}
				}
				results, err := replayWindows(ctx, db, engine, windows)
				if err != nil {
					return err
				}
				r.report.addWindows(one.stream, results)
				pulled = append(pulled, pulledPart{part: one, results: results})
			}
			if len(pulled) == 0 {
				return withCode(exitUsage, errors.New("no published window matches"))
			}
			if err := a.finishPull(ctx, db, r, p, pulled); err != nil {
				return err
			}
			for name, value := range changedZones { // only now does everything follow the new settings
				if err := db.Repin(ctx, name, value); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func replayWindows(ctx context.Context, db *postgres.DB, engine *pipeline.Engine, windows []pipeline.WindowState) ([]pipeline.Result, error) {
	var results []pipeline.Result
	for _, w := range windows {
		if ctx.Err() != nil {
			break
		}
		job, err := db.Job(ctx, w.JobRow)
		if err != nil {
			return nil, err
		}
		results = append(results, engine.Replay(ctx, w, job))
	}
	return results, nil
}

// replayable lists the part's windows that are wanted.
func replayable(ctx context.Context, db *postgres.DB, one part, wanted func(pipeline.WindowState) bool) ([]pipeline.WindowState, error) {
	var chosen []pipeline.WindowState
	for _, s := range one.scopes {
		windows, err := db.Windows(ctx, one.stream.Name, s)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, slices.DeleteFunc(windows, func(w pipeline.WindowState) bool { return !wanted(w) })...)
	}
	return chosen, nil
}

// mayChangeZones refuses to change the time zones unless every window in the ledger is replayed.
func (a *app) mayChangeZones(ctx context.Context, db *postgres.DB, all bool) error {
	if !all || len(a.scopeTexts) > 0 {
		return withCode(exitUsage, errors.New("the time zones differ from those that filled this database: only `replay --all` over every scope may change them"))
	}
	for _, s := range schemas.All() {
		windows, err := db.Windows(ctx, s.Name, pipeline.Tenant)
		if err != nil {
			return err
		}
		if s.Shape == schemas.Events && len(windows) > 0 {
			return withCode(exitUsage, fmt.Errorf("the time zones can't change: the windows of %s are dates in sync.source_timezone, and were asked for as such; fill another database under the new setting", s.Name))
		}
	}
	known, err := db.Scopes(ctx, streamSDR)
	if err != nil {
		return err
	}
	for _, s := range known {
		if !slices.Contains(a.cfg.ESM.Scopes, s) {
			return withCode(exitUsage, fmt.Errorf("the time zones can only change for everything at once, and the ledger holds windows of %s, which esm.scopes does not name: add it", s))
		}
	}
	return nil
}

// beginZoneChange makes sure that every window can be replayed, then pins that a change is under way: until a replay has come to its end,
// everything else is refused.
func beginZoneChange(ctx context.Context, db *postgres.DB, engine *pipeline.Engine, windows []pipeline.WindowState, zones map[string]string) error {
	for _, w := range windows {
		if err := engine.CanReplay(w); err != nil {
			return withCode(exitUsage, fmt.Errorf("the time zones can't change: %w", err))
		}
	}
	for name, value := range zones {
		if err := db.Repin(ctx, name, "(replay --all to "+value+" under way)"); err != nil {
			return err
		}
	}
	return nil
}

// changedZones returns the time zone settings that differ from what is pinned.
func (a *app) changedZones(ctx context.Context, db *postgres.DB) (map[string]string, error) {
	changed := map[string]string{}
	for name, value := range a.zonePins() {
		pinned, err := db.Pinned(ctx, name)
		if err != nil {
			return nil, err
		}
		if pinned != "" && pinned != value {
			changed[name] = value
		}
	}
	return changed, nil
}
