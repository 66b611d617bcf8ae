package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// verifyReport is what a verification read and found.
type verifyReport struct {
	Records     int64                 `json:"records"`
	Files       int                   `json:"files"`
	Differences []postgres.Difference `json:"differences"`
}

type exportReport struct {
	Dir        string               `json:"dir"`
	Partitions []string             `json:"partitions"` // read and marked
	Written    int                  `json:"written"`
	Unchanged  int                  `json:"unchanged"`
	Rows       int64                `json:"rows"`
	partitions []pipeline.Partition // the same, for verify
}

// export brings the lake up to date for the sites of the scopes.
func (a *app) export(ctx context.Context, db *postgres.DB, lake *parquet.Lake, scopes []pipeline.Scope, all bool) (exportReport, error) {
	r := exportReport{Dir: a.cfg.Parquet.Dir, Partitions: []string{}}
	var sites []string
	for _, s := range scopes {
		sites = append(sites, s.Site)
	}
	sum, err := lake.Export(ctx, db, parquet.ExportOptions{All: all, Sites: sites})
	r.Rows, r.Unchanged = sum.Rows, sum.Clean
	for _, e := range sum.Exported {
		r.Partitions = append(r.Partitions, e.Partition.String())
		r.partitions = append(r.partitions, e.Partition)
		if e.Written {
			r.Written++
		}
	}
	if err != nil {
		return r, fmt.Errorf("export: %w", err)
	}
	return r, nil
}

func (a *app) exportCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Bring the Parquet lake up to date with Postgres, asking nobody",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadConfig(NeedDatabase, NeedLake); err != nil {
				return err
			}
			scopes, err := a.scopes()
			if err != nil {
				return err
			}
			if len(a.scopeTexts) == 0 {
				scopes = nil // every site that the database knows
			}
			lake, err := a.openLake(false)
			if err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				if err := a.checkAgreement(ctx, db); err != nil {
					return err
				}
				started := time.Now()
				r := &report{Command: "export"}
				exported, err := a.export(ctx, db, lake, scopes, all)
				r.Export = &exported
				r.finish(err, time.Since(started))
				if err == nil {
					r.Message = "the lake is up to date with the ledger (sdr-sync verify proves it)"
				}
				return reported(err, a.printReport(r))
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "write every partition anew; rebuilds a lost lake")
	return cmd
}

// reported marks err as shown to the user in a report, whose own printing may have failed.
func reported(err, printErr error) error {
	if err == nil {
		return printErr
	}
	return errors.Join(&reportedError{err}, printErr)
}

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Prove that ledger, Postgres and Parquet agree; exit 7 if they differ",
		Long: `Recompute every count, exact sum and digest from the columns in Postgres and in Parquet, and the SHA-256 of every file, and compare
them with the ledger and the manifest. Nothing is changed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadConfig(NeedDatabase, NeedLake); err != nil {
				return err
			}
			scopes, err := a.scopes()
			if err != nil {
				return err
			}
			lake, err := a.openLake(false)
			if err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				if err := a.checkAgreement(ctx, db); err != nil {
					return err
				}
				started := time.Now()
				r := &report{Command: "verify"}
				var windows []int64
				var partitions []pipeline.Partition
				if len(a.scopeTexts) > 0 {
					if windows, partitions, err = holdings(ctx, db, scopes); err != nil {
						return err
					}
				}
				verified, err := a.verifyWindows(ctx, db, lake, windows, partitions)
				r.Verify = &verified
				r.finish(err, time.Since(started))
				if err == nil {
					r.Message = "ledger, Postgres and Parquet agree"
				}
				return reported(err, a.printReport(r))
			})
		},
	}
}

// holdings lists the windows of the scopes and the partitions of their sites.
func holdings(ctx context.Context, db *postgres.DB, scopes []pipeline.Scope) (windows []int64, partitions []pipeline.Partition, err error) {
	windows, partitions = []int64{}, []pipeline.Partition{}
	sites := map[string]bool{}
	for _, s := range scopes {
		sites[s.Site] = true
		states, err := db.Windows(ctx, streamSDR, s)
		if err != nil {
			return nil, nil, err
		}
		for _, w := range states {
			windows = append(windows, w.ID)
		}
	}
	states, err := db.Partitions(ctx)
	for _, p := range states {
		if sites[p.Site] {
			partitions = append(partitions, p.Partition)
		}
	}
	return windows, partitions, err
}

// verifyWindows checks the windows and the partitions, or everything if windows is nil. A difference is an error with exit code 7.
func (a *app) verifyWindows(ctx context.Context, db *postgres.DB, lake *parquet.Lake, windows []int64, partitions []pipeline.Partition) (verifyReport, error) {
	r := verifyReport{Differences: []postgres.Difference{}}
	found, records, err := db.Check(ctx, windows)
	if err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	r.Records = records
	r.Differences = append(r.Differences, found...)
	if windows == nil {
		states, err := db.Partitions(ctx)
		if err != nil {
			return r, fmt.Errorf("verify: %w", err)
		}
		r.Files = len(states)
	} else {
		r.Files = len(partitions)
	}
	if windows == nil || len(partitions) > 0 {
		busy, err := busySites(ctx, db)
		if err != nil {
			return r, fmt.Errorf("verify: %w", err)
		}
		differences, err := lake.Check(ctx, db, parquet.CheckOptions{Partitions: partitions, Busy: busy})
		if err != nil {
			return r, fmt.Errorf("verify: %w", err)
		}
		for _, d := range differences {
			r.Differences = append(r.Differences, postgres.Difference{Where: "lake " + d.Path, What: d.What, Repair: d.Repair})
		}
	}
	if n := len(r.Differences); n > 0 {
		return r, withCode(exitDifference, fmt.Errorf("verify found %d differences", n))
	}
	return r, nil
}

// busySites are those that a run is at work on, this one included: what it has published and not yet exported differs from no promise.
func busySites(ctx context.Context, db *postgres.DB) ([]string, error) {
	leases, err := db.Leases(ctx)
	if err != nil {
		return nil, err
	}
	var sites []string
	for _, l := range leases {
		if l.Live {
			sites = append(sites, l.Scope.Site)
		}
	}
	return sites, nil
}
