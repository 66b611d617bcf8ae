package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/verify"
)

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
	var streams []string
	var landing bool
	var sample int
	var seed uint64
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that ledger, Postgres and Parquet agree; exit 7 if they differ",
		Long: `Recompute every count, exact sum and digest from the columns in Postgres and in Parquet, and the SHA-256 of every file, and compare
them with the ledger and the manifests; look for what should not be there. Nothing is changed, and no code is shared with what wrote it.

--landing also decodes the kept landing files once more, with a decoder of its own, and compares every record. --source drains a sample of
the published windows of metering records anew: a difference there says that the vendor has restated the window since.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			needed := []Need{NeedDatabase, NeedLake}
			if landing {
				needed = append(needed, NeedLanding)
			}
			if sample > 0 {
				needed = append(needed, NeedVendor)
			}
			if err := a.loadConfig(needed...); err != nil {
				return err
			}
			parts, err := a.allParts()
			if len(streams) > 0 {
				parts, err = a.parts(streams)
			}
			if err != nil {
				return err
			}
			if sample > 0 && !slices.ContainsFunc(parts, func(p part) bool { return p.stream.Name == streamSDR }) {
				return withCode(exitUsage, errors.New("--source is about the metering records, and --stream leaves them out"))
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				if err := a.checkAgreement(ctx, db); err != nil {
					return err
				}
				only, err := a.only(ctx, db, parts, len(streams) > 0)
				if err != nil {
					return err
				}
				started := time.Now()
				r := &report{Command: "verify"}
				err = a.audit(ctx, db, only, r, landing, sample, seed)
				r.finish(err, time.Since(started))
				if err == nil {
					r.Message = "ledger, Postgres and Parquet agree"
				}
				return reported(err, a.printReport(r))
			})
		},
	}
	cmd.Flags().StringSliceVar(&streams, "stream", nil, "only these streams, comma separated")
	cmd.Flags().BoolVar(&landing, "landing", false, "compare with the kept landing files, too")
	cmd.Flags().IntVar(&sample, "source", 0, "drain so many published windows anew, and compare them, too")
	cmd.Flags().Uint64Var(&seed, "seed", uint64(time.Now().UnixNano()), "which windows --source chooses")
	cmd.Flags().Lookup("seed").DefValue = "random"
	return cmd
}

// only is what is to be verified: everything (nil), or of the parts the windows of the scopes and the files of their sites.
func (a *app) only(ctx context.Context, db *postgres.DB, parts []part, named bool) (verify.Only, error) {
	if !named && len(a.scopeTexts) == 0 {
		return nil, nil
	}
	var all []stored
	for _, one := range parts {
		s := stored{stream: one.stream}
		if len(a.scopeTexts) > 0 {
			var err error
			if s, err = holdings(ctx, db, one); err != nil {
				return nil, err
			}
		}
		all = append(all, s)
	}
	return onlyStored(all), nil
}

// audit fills the report with what the audits read and found. A difference is an error with exit code 7.
func (a *app) audit(ctx context.Context, db *postgres.DB, only verify.Only, r *report, landing bool, sample int, seed uint64) error {
	cfg, found := a.auditor(db), 0
	run := func(into **verify.Report, audit func() (verify.Report, error)) error {
		v, err := audit()
		*into = &v
		found += len(v.Differences)
		r.Notes = append(r.Notes, v.Notes...)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		return nil
	}
	if err := run(&r.Verify, func() (verify.Report, error) { return verify.Run(ctx, cfg, only) }); err != nil {
		return err
	}
	if landing {
		if err := run(&r.Landing, func() (verify.Report, error) { return verify.Landing(ctx, cfg, only) }); err != nil {
			return err
		}
	}
	if sample > 0 {
		fetch, err := a.fetch()
		if err != nil {
			return err
		}
		metered := verify.Only{{Stream: streamSDR}}
		if i := slices.IndexFunc(only, func(p verify.Part) bool { return p.Stream == streamSDR }); i >= 0 {
			metered = only[i : i+1]
		}
		r.Notes = append(r.Notes, fmt.Sprintf("the windows that were drained anew follow from --seed %d", seed))
		if err := run(&r.Source, func() (verify.Report, error) { return verify.Source(ctx, cfg, metered, fetch, sample, seed) }); err != nil {
			return err
		}
	}
	return differences(found)
}

func differences(n int) error {
	if n == 0 {
		return nil
	}
	return withCode(exitDifference, fmt.Errorf("verify found %d differences", n))
}

// auditor says what verify audits: what the configuration says was stored, and how.
func (a *app) auditor(db *postgres.DB) verify.Config {
	return verify.Config{
		URL: db.URL().Reveal(), Lake: a.cfg.Parquet.Dir, Landing: a.cfg.Landing.Dir, SourceZone: a.cfg.Sync.SourceTimezone,
		FileZone: a.cfg.Sync.FileTimezone, PartitionUnit: string(a.cfg.Parquet.Partition), DomainID: a.cfg.ESM.DomainID,
		IgnoreFields: a.cfg.Sync.IgnoreFields, Dead: postgres.HolderDead, LockWait: 10 * time.Minute, Now: a.now, Log: a.log,
	}
}

// fetch drains windows of metering records without a trace: the ledger hears nothing of these jobs.
func (a *app) fetch() (verify.Fetch, error) {
	vendor, err := a.openVendor()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w verify.Window) iter.Seq2[verify.Page, error] {
		return func(yield func(verify.Page, error) bool) {
			if err := a.drainAnew(ctx, vendor.esm, w, func(p verify.Page) bool { return yield(p, nil) }); err != nil {
				yield(verify.Page{}, err)
			}
		}
	}, nil
}

// drainAnew asks for the window in a job of its own and hands out its pages until each says no.
func (a *app) drainAnew(ctx context.Context, source pipeline.Source, w verify.Window, each func(verify.Page) bool) error {
	window := pipeline.Window{
		Scope: pipeline.Scope{Site: w.Site, Region: w.Region}, Unit: pipeline.Unit(w.Unit),
		From: record.DateOf(w.From, time.UTC), To: record.DateOf(w.To, time.UTC),
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Sync.JobDeadline)
	defer cancel()
	id, err := source.CreateJob(ctx, window.Request(a.cfg.ESM.DomainID))
	if err != nil {
		return err
	}
	for interval := a.cfg.Sync.PollInitial; ; interval = min(2*interval, a.cfg.Sync.PollMax) {
		status, err := source.Job(ctx, id)
		if err != nil {
			return fmt.Errorf("poll job %s: %w", id, err)
		}
		if status.State == pipeline.JobFailure {
			return fmt.Errorf("job %s failed at the vendor, which gives no reason", id)
		}
		if status.State == pipeline.JobSuccess {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(interval):
		}
	}
	seen := map[string]bool{}
	for marker := source.Start(id); ; {
		p, err := source.Page(ctx, id, marker)
		if err != nil {
			return fmt.Errorf("read page %d: %w", len(seen)+1, err)
		}
		more, next := each(verify.Page{Asked: marker, Data: p.Data}), p.Next
		if p.Release != nil {
			p.Release()
		}
		if !more || next == "" {
			return nil
		}
		if seen[next] {
			return fmt.Errorf("page %d of job %s names a next page that was asked for already: the vendor's markers run in a circle", len(seen)+1, id)
		}
		seen[next], marker = true, next
	}
}

// stored is what of a stream is to be verified: windows and partitions, or everything if windows is nil.
type stored struct {
	stream     *schemas.Stream
	windows    []int64
	partitions []pipeline.Partition
}

func onlyStored(all []stored) verify.Only {
	only := verify.Only{}
	for _, s := range all {
		p := verify.Part{Stream: s.stream.Name, Windows: s.windows}
		for _, one := range s.partitions {
			p.Partitions = append(p.Partitions, verify.Partition{Site: one.Site, From: one.From.Time(time.UTC)})
		}
		only = append(only, p)
	}
	return only
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

// verifyStored checks what a run changed of every stream. A difference is an error with exit code 7.
func (a *app) verifyStored(ctx context.Context, db *postgres.DB, all []stored) (verify.Report, error) {
	r, err := verify.Run(ctx, a.auditor(db), onlyStored(all))
	if err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	return r, differences(len(r.Differences))
}
