package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
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
	Dir        string   `json:"dir"`
	Partitions []string `json:"partitions"` // read and marked
	Written    int      `json:"written"`
	Unchanged  int      `json:"unchanged"`
	Rows       int64    `json:"rows"`
}

func newExportReport(dir string) *exportReport {
	return &exportReport{Dir: dir, Partitions: []string{}}
}

// export brings a stream's files up to date, for the sites of the scopes where there are any, adds what it did to the report, and
// returns the partitions that it read.
func (a *app) export(ctx context.Context, db *postgres.DB, one part, all, rezone bool, r *exportReport) ([]pipeline.Partition, error) {
	lake, err := a.openLake(one.stream, rezone)
	if err != nil {
		return nil, err
	}
	var sites []string
	for _, s := range one.scopes {
		sites = append(sites, s.Site)
	}
	sum, err := lake.Export(ctx, db.Store(one.stream.Name), parquet.ExportOptions{All: all, Sites: sites})
	r.Rows += sum.Rows
	r.Unchanged += sum.Clean
	var partitions []pipeline.Partition
	for _, e := range sum.Exported {
		r.Partitions = append(r.Partitions, partitionLabel(one.stream, e.Partition))
		partitions = append(partitions, e.Partition)
		if e.Written {
			r.Written++
		}
	}
	if err != nil {
		return partitions, fmt.Errorf("export: %w", err)
	}
	return partitions, nil
}

// ofWholeLake tells whether an export of any other stream would end the same way.
func ofWholeLake(err error) bool {
	return errors.Is(err, parquet.ErrLakeMissing) || errors.Is(err, parquet.ErrLakeMismatch) || errors.Is(err, parquet.ErrLakeLocked)
}

// partitionLabel is "hcso-213 2024-03" for metering records, "audit_logs 2024-03" and "subscriptions" for lists.
func partitionLabel(s *schemas.Stream, p pipeline.Partition) string {
	switch {
	case !s.IsList():
		return p.String()
	case p.Unit == pipeline.Whole:
		return s.Name
	case p.Unit == pipeline.Day:
		return s.Name + " " + p.From.String()
	}
	return s.Name + " " + p.From.MonthString()
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
			parts, err := a.allParts()
			if err != nil {
				return err
			}
			if len(a.scopeTexts) == 0 {
				for i := range parts {
					parts[i].scopes = nil // every site that the database knows
				}
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				if err := a.checkAgreement(ctx, db); err != nil {
					return err
				}
				started := time.Now()
				r := &report{Command: "export", Export: newExportReport(a.cfg.Parquet.Dir)}
				var failed []error
				for _, one := range parts {
					_, err := a.export(ctx, db, one, all, false, r.Export)
					failed = append(failed, err)
					if ofWholeLake(err) {
						break
					}
				}
				err := errors.Join(failed...)
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
			parts, err := a.allParts()
			if err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				if err := a.checkAgreement(ctx, db); err != nil {
					return err
				}
				started := time.Now()
				r := &report{Command: "verify"}
				var all []stored
				for _, one := range parts {
					s := stored{stream: one.stream}
					if len(a.scopeTexts) > 0 {
						if s, err = holdings(ctx, db, one); err != nil {
							return err
						}
					}
					all = append(all, s)
				}
				verified, err := a.verifyStored(ctx, db, all)
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

// stored is what of a stream is to be verified: windows and partitions, or everything if windows is nil.
type stored struct {
	stream     *schemas.Stream
	windows    []int64
	partitions []pipeline.Partition
}

// holdings are the windows of the scopes and the partitions of their sites.
func holdings(ctx context.Context, db *postgres.DB, one part) (stored, error) {
	s := stored{stream: one.stream, windows: []int64{}, partitions: []pipeline.Partition{}}
	sites := map[string]bool{}
	for _, scope := range one.scopes {
		sites[scope.Site] = true
		states, err := db.Windows(ctx, one.stream.Name, scope)
		if err != nil {
			return s, err
		}
		for _, w := range states {
			s.windows = append(s.windows, w.ID)
		}
	}
	states, err := db.Store(one.stream.Name).Partitions(ctx)
	for _, p := range states {
		if sites[p.Site] {
			s.partitions = append(s.partitions, p.Partition)
		}
	}
	return s, err
}

// verifyStored checks tables and files of every stream. A difference is an error with exit code 7.
func (a *app) verifyStored(ctx context.Context, db *postgres.DB, all []stored) (verifyReport, error) {
	r := verifyReport{Differences: []postgres.Difference{}}
	for _, s := range all {
		if err := a.verifyStream(ctx, db, s, &r); err != nil {
			return r, fmt.Errorf("verify: %w", err)
		}
	}
	if n := len(r.Differences); n > 0 {
		return r, withCode(exitDifference, fmt.Errorf("verify found %d differences", n))
	}
	return r, nil
}

func (a *app) verifyStream(ctx context.Context, db *postgres.DB, s stored, r *verifyReport) error {
	found, records, err := db.Check(ctx, s.stream.Name, s.windows)
	if err != nil {
		return err
	}
	r.Records += records
	r.Differences = append(r.Differences, found...)
	files := len(s.partitions)
	if s.windows == nil {
		states, err := db.Store(s.stream.Name).Partitions(ctx)
		if err != nil {
			return err
		}
		files = len(states)
	}
	r.Files += files
	if s.windows != nil && files == 0 {
		return nil
	}
	busy, err := busySites(ctx, db, s.stream.Name)
	if err != nil {
		return err
	}
	lake, err := a.openLake(s.stream, false)
	if err != nil {
		return err
	}
	differences, err := lake.Check(ctx, db.Store(s.stream.Name), parquet.CheckOptions{Partitions: s.partitions, Busy: busy})
	for _, d := range differences {
		r.Differences = append(r.Differences, postgres.Difference{Where: "lake " + d.Path, What: d.What, Repair: d.Repair})
	}
	return err
}

// busySites are those that a run is at work on, this one included: what it has published and not yet exported differs from no promise.
func busySites(ctx context.Context, db *postgres.DB, stream string) ([]string, error) {
	leases, err := db.Leases(ctx)
	if err != nil {
		return nil, err
	}
	var sites []string
	for _, l := range leases {
		if l.Live && l.Stream == stream {
			sites = append(sites, l.Scope.Site)
		}
	}
	return sites, nil
}
