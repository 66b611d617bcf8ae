package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/source/esm"
)

// pull is what backfill and nightly have in common: they ask the vendor for windows, publish, export and verify.
type pull struct {
	command      string
	streams      []string     // --stream; none: what runs by default
	ask          pipeline.Ask // Today is filled in when the run starts
	reslice      pipeline.Unit
	acceptShrink bool
	noVerify     bool
	rezone       bool // everything is published anew under other time zones: the lake may take them over
}

func (a *app) backfillCommand() *cobra.Command {
	var from, to, reslice string
	var plan bool
	p := pull{command: "backfill"}
	cmd := &cobra.Command{
		Use:   "backfill --from 2024-01 --to 2024-03",
		Short: "Publish a span of file dates; published windows are skipped",
		Long: `Publish every record of a span of file dates. Months are inclusive on both ends, as people speak; dates are too.
Windows that are published and settled are skipped unless --refresh asks the vendor again.`,
		Example: "  sdr-sync backfill --from 2024-01 --to 2024-03\n  sdr-sync backfill --from 2023-01 --to 2023-12 --plan",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" || to == "" {
				return withCode(exitUsage, errors.New("say which file dates to publish: --from and --to"))
			}
			var err error
			if p.ask.From, p.ask.To, err = span(from, to); err != nil {
				return withCode(exitUsage, err)
			}
			switch p.reslice = pipeline.Unit(reslice); p.reslice {
			case "", pipeline.Month, pipeline.Day:
			default:
				return withCode(exitUsage, fmt.Errorf("--reslice %q: want month or day", reslice))
			}
			if plan {
				return a.printPlan(cmd.Context(), p)
			}
			return a.pull(cmd.Context(), p)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "first month (2024-01) or file date (2024-01-15)")
	cmd.Flags().StringVar(&to, "to", "", "last month or file date, inclusive")
	cmd.Flags().BoolVar(&plan, "plan", false, "print what would be asked and touch nothing")
	cmd.Flags().BoolVar(&p.ask.Refresh, "refresh", false, "ask the vendor again for published windows too")
	cmd.Flags().StringVar(&reslice, "reslice", "", "cut what is published in the span into windows of a month or a day anew")
	a.pullFlags(cmd, &p)
	streamFlag(cmd, &p)
	return cmd
}

func (a *app) nightlyCommand() *cobra.Command {
	p := pull{command: "nightly"}
	cmd := &cobra.Command{
		Use:   "nightly",
		Short: "Ask again for every window that the lookback meets, and publish what changed",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.ask.Whole = true
			return a.pull(cmd.Context(), p)
		},
	}
	a.pullFlags(cmd, &p)
	streamFlag(cmd, &p)
	return cmd
}

func streamFlag(cmd *cobra.Command, p *pull) {
	cmd.Flags().StringSliceVar(&p.streams, "stream", nil, "only these streams, separated by commas; dictionaries means all of them (sdr-sync streams lists them)")
}

func (a *app) pullFlags(cmd *cobra.Command, p *pull) {
	cmd.Flags().BoolVar(&p.acceptShrink, "accept-shrink", false, "publish even if far fewer records came than are published, or many rows of a list are gone at once")
	cmd.Flags().BoolVar(&p.noVerify, "no-verify", false, "do not verify the windows that changed at the end")
	cmd.Flags().StringVar(&a.today, "today", "", "take this date for today: for rehearsals, or to repeat a missed night")
}

// span reads --from and --to, both inclusive, as a half-open range.
func span(from, to string) (pipeline.Date, pipeline.Date, error) {
	first, err := record.ParseDate(from)
	if err != nil {
		return 0, 0, fmt.Errorf("--from: %w", err)
	}
	last, err := record.ParseDate(to)
	if err != nil {
		return 0, 0, fmt.Errorf("--to: %w", err)
	}
	end := last + 1
	if len(to) == len("2024-03") {
		end = last.AddMonths(1)
	}
	if first >= end {
		return 0, 0, fmt.Errorf("--from %s is after --to %s", from, to)
	}
	return first, end, nil
}

// prepare fills in what the configuration and the clock say of the ask.
func (a *app) prepare(p *pull) (pipeline.Clock, error) {
	now, err := a.clock()
	if err != nil {
		return nil, err
	}
	a.now = now
	s := a.cfg.Sync
	p.ask.Unit, p.ask.FileZone, p.ask.Settle = s.Window, s.FileTimezone, s.Settle
	p.ask.Today = record.DateOf(now(), s.FileTimezone)
	if p.ask.Whole {
		p.ask.From, p.ask.To = p.ask.Today-pipeline.Date(s.Lookback/(24*time.Hour)), p.ask.Today
	}
	return now, nil
}

// pull runs a whole pull under the leases of everything it touches, and reports.
func (a *app) pull(ctx context.Context, p pull) error {
	if err := a.loadConfig(NeedVendor, NeedDatabase, NeedLake, NeedLanding); err != nil {
		return err
	}
	parts, err := a.parts(p.streams)
	if err == nil {
		err = errors.Join(a.cfg.Validate(needs(parts)...), a.checkSettings(parts), a.checkStreams())
	}
	if err != nil {
		return err
	}
	now, err := a.prepare(&p)
	if err != nil {
		return err
	}
	v, err := a.openVendor()
	if err != nil {
		return err
	}
	return a.withDatabase(ctx, func(ctx context.Context, db *postgres.DB) error {
		if p.ask.Whole && len(p.streams) == 0 && len(a.scopeTexts) == 0 {
			if parts, err = a.dueParts(ctx, db, parts, now()); err != nil {
				return err
			}
		}
		return a.asRun(ctx, db, parts, p.command, false, now, func(ctx context.Context, r *runInfo) error {
			land, err := a.openLanding()
			if err != nil {
				return err
			}
			defer land.Close()
			if err := a.tidyLanding(ctx, db, land, parts); err != nil {
				return err
			}
			pulling := puller{app: a, db: db, vendor: v, landing: land, run: r, pull: p, now: now}
			var pulled []pulledPart
			var failed []error
			for _, one := range parts {
				if ctx.Err() != nil {
					break
				}
				results, err := pulling.part(ctx, one)
				r.report.addWindows(one.stream, results)
				pulled = append(pulled, pulledPart{part: one, results: results})
				if err != nil && (len(parts) == 1 || codeOf(err) == exitInternal) {
					return err
				}
				failed = append(failed, err)
			}
			if n := v.esm.LostCreates(); n > 0 {
				r.report.Notes = append(r.report.Notes, fmt.Sprintf("the answer to %d job creations was lost; each may have left an orphan job at the vendor, which is harmless", n))
			}
			return errors.Join(append(failed, a.finishPull(ctx, db, r, p, pulled))...)
		})
	})
}

// puller pulls the parts of one run, one after the other.
type puller struct {
	*app
	db      *postgres.DB
	vendor  *vendor
	landing *landing.Dir
	run     *runInfo
	pull    pull
	now     pipeline.Clock
}

// pulledPart is what became of a part.
type pulledPart struct {
	part
	results []pipeline.Result
}

// part pulls one part. What failed of its windows is in the results; an error is why it could not even begin.
func (r *puller) part(ctx context.Context, one part) ([]pipeline.Result, error) {
	if one.stream.IsList() {
		return r.list(ctx, one)
	}
	plan, groups, err := planWindows(ctx, r.db, one, r.pull)
	if err != nil {
		return nil, err
	}
	if err := r.checkPlan(one, plan, groups, r.pull.ask.Today); err != nil {
		return nil, err
	}
	results, err := r.windows(ctx, r.vendor.esm, one, plan, groups)
	if err != nil {
		return nil, err
	}
	return results, r.noteGaps(ctx, one)
}

// checkPlan refuses a span that has not begun, and says what of it is left out.
func (r *puller) checkPlan(one part, plan []pipeline.Planned, groups [][]pipeline.Planned, today pipeline.Date) error {
	p, dates := r.pull, "file date"
	if one.stream.IsList() {
		dates = one.stream.Name + ": date"
	}
	if len(plan) == 0 && len(groups) == 0 && p.reslice == "" {
		return withCode(exitUsage, fmt.Errorf("no %s from %s to %s is over yet (today is %s); nothing was asked", dates, p.ask.From, p.ask.To-1, today))
	}
	if p.ask.To > today && !p.ask.Whole {
		r.note("%ss from %s on are not over yet and were left out", dates, today)
	}
	if p.reslice != "" {
		r.note("only months with published windows are cut anew; a plain backfill publishes the others")
	}
	return nil
}

func (r *puller) note(format string, args ...any) {
	r.run.report.Notes = append(r.run.report.Notes, fmt.Sprintf(format, args...))
}

// windows pulls and publishes planned windows, showing how they get on.
func (r *puller) windows(ctx context.Context, source pipeline.Source, one part, plan []pipeline.Planned, groups [][]pipeline.Planned) ([]pipeline.Result, error) {
	expected, err := expectations(ctx, r.db, one.stream.Name, append(groups, plan))
	if err != nil {
		return nil, err
	}
	progress := r.newProgress(one.stream.Name, expected)
	defer progress.close()
	engine := pipeline.NewEngine(source, r.db, r.landing, r.engineConfig(one.stream, r.run, r.pull, r.now, progress.observe))
	return append(engine.Run(ctx, plan), engine.RunGroups(ctx, groups)...), nil
}

// noteGaps says which dates between published ones are missing: a nightly run heals only what its lookback meets.
func (r *puller) noteGaps(ctx context.Context, one part) error {
	if ctx.Err() != nil {
		return nil
	}
	for _, s := range one.scopes {
		windows, err := r.db.Windows(ctx, one.stream.Name, s)
		if err != nil {
			return err
		}
		dates, which := "file dates", ""
		if one.stream.IsList() {
			dates, which = "dates", " --stream "+one.stream.Name
		}
		for i := 1; i < len(windows); i++ {
			if from, to := windows[i-1].To, windows[i].From; from < to {
				r.note("%s has nothing published for the %s %s to %s (run sdr-sync backfill%s --from %s --to %s)",
					scopeLabel(one.stream, s), dates, from, to-1, which, from, to-1)
			}
		}
	}
	return nil
}

// scopeLabel is what a part's slice is called: the scope of metering records, the name of a list.
func scopeLabel(stream *schemas.Stream, s pipeline.Scope) string {
	if stream.IsList() {
		return stream.Name
	}
	return s.String()
}

func (a *app) engineConfig(stream *schemas.Stream, r *runInfo, p pull, now pipeline.Clock, observe func(pipeline.Event)) pipeline.EngineConfig {
	s := a.cfg.Sync
	c := pipeline.EngineConfig{
		Stream: stream, DomainID: a.cfg.ESM.DomainID, RunID: r.id, Leases: r.leases, Parallel: s.Parallel, JobDeadline: s.JobDeadline,
		AdoptMaxAge: s.AdoptMaxAge, PollInitial: s.PollInitial, PollMax: s.PollMax, MinRatio: float64(s.MinRatio), QuarantineMax: float64(s.QuarantineMax),
		AcceptShrink: p.acceptShrink, SourceZone: s.SourceTimezone, FileZone: s.FileTimezone, IgnoreFields: s.IgnoreFields,
		SpillDir: a.cfg.Landing.Dir, Now: now, Log: a.log, Observe: observe,
	}
	if stream.IsList() { // the vendor keeps nothing that a later run could go on with, and events know no files
		c.AdoptMaxAge, c.FileZone, c.IgnoreFields = 0, s.SourceTimezone, slices.Concat(s.IgnoreFields, stream.Ignore)
	}
	return c
}

// planWindows plans the windows of every scope: single ones, or with a reslice groups that are published together.
func planWindows(ctx context.Context, db *postgres.DB, one part, p pull) (plan []pipeline.Planned, groups [][]pipeline.Planned, err error) {
	for _, s := range one.scopes {
		existing, err := db.Windows(ctx, one.stream.Name, s)
		if err != nil {
			return nil, nil, err
		}
		if p.reslice != "" {
			groups = append(groups, pipeline.PlanReslice(s, existing, p.ask, p.reslice)...)
		} else {
			plan = append(plan, pipeline.Plan(s, existing, p.ask)...)
		}
	}
	return plan, groups, nil
}

// expectations says how many records each window may bring: as many as it holds now, else what the scope's history says.
func expectations(ctx context.Context, db *postgres.DB, stream string, groups [][]pipeline.Planned) (map[pipeline.Window]int64, error) {
	expected, paces := map[pipeline.Window]int64{}, map[pipeline.Scope]postgres.Pace{}
	for _, w := range slices.Concat(groups...) {
		if w.Published != nil && w.Published.To == w.Window.To {
			expected[w.Window] = w.Published.Records.Count
			continue
		}
		if stream != streamSDR { // their pages differ too much to expect anything
			continue
		}
		pace, known := paces[w.Window.Scope]
		if !known {
			var err error
			if pace, err = db.Pace(ctx, stream, w.Window.Scope); err != nil {
				return nil, err
			}
			paces[w.Window.Scope] = pace
		}
		expected[w.Window] = int64(pace.PagesPerDay * esm.PageLimit * float64(w.Window.To-w.Window.From))
	}
	return expected, nil
}

// finishPull exports what the windows changed, verifies it, and turns everything that went wrong into one error.
func (a *app) finishPull(ctx context.Context, db *postgres.DB, r *runInfo, p pull, pulled []pulledPart) error {
	var failed []error
	for _, one := range pulled {
		for _, result := range one.results {
			if result.Err != nil {
				failed = append(failed, result.Err)
			}
		}
	}
	failed = uniqueErrors(failed) // windows of one group share theirs
	if cause := context.Cause(ctx); cause != nil {
		// Every window under way failed for this one reason: said once, it reads better.
		failed = slices.DeleteFunc(failed, func(err error) bool { return errors.Is(err, cause) || errors.Is(err, context.Canceled) })
		return errors.Join(append(failed, cause)...)
	}
	exported := newExportReport(a.cfg.Parquet.Dir)
	r.report.Export = exported
	var changed []stored
	for _, one := range pulled {
		partitions, err := a.export(ctx, db, one.part, false, p.rezone, exported)
		if err != nil {
			failed = append(failed, err)
			if ofWholeLake(err) {
				break
			}
			continue
		}
		windows := []int64{}
		for _, result := range one.results {
			if result.Status == pipeline.Published {
				windows = append(windows, result.Outcome.WindowID)
			}
		}
		if len(windows)+len(partitions) > 0 { // a killed run may have left nothing but the export to do
			changed = append(changed, stored{stream: one.stream, windows: windows, partitions: partitions})
		}
	}
	failpoint.Hit(failpoint.VerifyBegun)
	if len(changed) > 0 && !p.noVerify && ctx.Err() == nil {
		verified, err := a.verifyStored(ctx, db, changed)
		r.report.Verify = &verified
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func uniqueErrors(errs []error) []error {
	var unique []error
	for _, err := range errs {
		if !slices.Contains(unique, err) {
			unique = append(unique, err)
		}
	}
	return unique
}

// runInfo is a run under way, its leases held.
type runInfo struct {
	id     int64
	leases map[pipeline.StreamScope]int64
	report *report
}

// asRun takes the leases of the scopes, checks that database and configuration belong together, stores the run, and reports how do
// went. Nothing is touched if a lease is held.
func (a *app) asRun(ctx context.Context, db *postgres.DB, parts []part, command string, rezone bool, now pipeline.Clock, do func(context.Context, *runInfo) error) error {
	return db.WithLeases(ctx, held(parts), func(ctx context.Context, leases map[pipeline.StreamScope]int64) error {
		if err := a.checkPins(ctx, db, parts, command, rezone); err != nil {
			return err
		}
		host, _ := os.Hostname()
		id, err := db.StartRun(ctx, postgres.Run{
			Command: command, Version: programVersion(), Host: host, PID: os.Getpid(), Started: now(),
		})
		if err != nil {
			return err
		}
		failpoint.Hit(failpoint.RunBegun)
		r := &runInfo{id: id, leases: leases, report: &report{Command: command, Run: id}}
		started := time.Now()
		err = do(ctx, r)
		if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
			err = errors.Join(cause, err) // "context canceled" alone says too little
		}
		r.report.finish(err, time.Since(started))
		failpoint.Hit(failpoint.RunEnding)
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if finishErr := db.FinishRun(finish, id, int(codeOf(err)), firstLine(r.report.Message)); finishErr != nil {
			a.log.Warn("end of the run not stored", zap.Error(finishErr))
		}
		failpoint.Hit(failpoint.RunEnded)
		if printErr := a.printReport(r.report); printErr != nil {
			return errors.Join(err, printErr)
		}
		if err != nil {
			return &reportedError{err}
		}
		return nil
	})
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// pinned is a fact that the first use of a database fixes, as the configuration has it.
type pinned struct {
	name, value string
	about       func(*schemas.Stream) bool // the streams that it is about
	zone        bool                       // a replay of everything may change it
}

// pins are the facts that are about one of the parts.
func (a *app) pins(parts []part) []pinned {
	every := func(*schemas.Stream) bool { return true }
	of := func(system string) func(*schemas.Stream) bool {
		return func(s *schemas.Stream) bool { return s.List != nil && s.List.System == system }
	}
	all := []pinned{
		{name: "domain_id", value: a.cfg.ESM.DomainID, about: every},
		{name: "parquet_partition", value: string(a.cfg.Parquet.Partition), about: every},
		{name: "source_timezone", value: a.cfg.Sync.SourceTimezone.String(), about: every, zone: true},
		{name: "file_timezone", value: a.cfg.Sync.FileTimezone.String(), about: every, zone: true},
		{name: "bss_domain_id", value: a.cfg.BSS.DomainID, about: of("bss")},
		{name: "bms_project_id", value: a.cfg.BMS.ProjectID, about: of("bms")},
	}
	return slices.DeleteFunc(all, func(p pinned) bool {
		return p.value == "" || !slices.ContainsFunc(parts, func(one part) bool { return p.about(one.stream) })
	})
}

// compare tells whether the database holds another value, and whether something is published that rests on it: before that it binds
// nobody, since a first run may have been mistaken.
func (p pinned) compare(ctx context.Context, db *postgres.DB) (differs, binds bool, err error) {
	stands, err := db.Pinned(ctx, p.name)
	if err != nil || stands == "" || stands == p.value {
		return false, false, err
	}
	for _, s := range schemas.All() {
		if !p.about(s) {
			continue
		}
		scopes, err := db.Scopes(ctx, s.Name)
		if err != nil || len(scopes) > 0 {
			return true, true, err
		}
	}
	return true, false, nil
}

func (p pinned) error(ctx context.Context, db *postgres.DB) error {
	stands, err := db.Pinned(ctx, p.name)
	return errors.Join(&postgres.PinError{Name: p.name, Pinned: stands, Configured: p.value}, err)
}

// checkPins makes sure that this database, this lake, these clocks and this way of asking for regions are the ones that filled it. Only
// when all of it fits is anything fixed.
func (a *app) checkPins(ctx context.Context, db *postgres.DB, parts []part, command string, rezone bool) error {
	pins := a.pins(parts)
	for _, p := range pins {
		differs, binds, err := p.compare(ctx, db)
		switch {
		case err != nil:
			return err
		case !differs || !binds || p.zone && command == "replay": // a replay is what changes zones
		case p.zone:
			return fmt.Errorf("%w; nothing was touched: set it back, or run `sdr-sync replay --all` to publish everything again under the new setting", p.error(ctx, db))
		default:
			return fmt.Errorf("%w; nothing was touched: use another database, or set it back", p.error(ctx, db))
		}
	}
	if err := a.checkRegions(ctx, db); err != nil {
		return err
	}
	if command != "replay" { // it says first what a change of zones needs
		if err := a.checkLakes(ctx, db, parts, rezone); err != nil {
			return err
		}
	}
	for _, p := range pins {
		if p.zone && command == "replay" {
			continue
		}
		err := db.Pin(ctx, p.name, p.value)
		var other *postgres.PinError
		if errors.As(err, &other) {
			err = db.Repin(ctx, p.name, p.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRegions makes sure that no site is asked for all regions at once and region by region.
func (a *app) checkRegions(ctx context.Context, db *postgres.DB) error {
	known, err := db.Scopes(ctx, streamSDR)
	if err != nil {
		return err
	}
	for _, k := range known {
		for _, c := range a.cfg.ESM.Scopes {
			if k.Site == c.Site && (k.Region == "") != (c.Region == "") {
				return withCode(exitUsage, fmt.Errorf("esm.scopes has %s, and the ledger holds windows of %s: a site is asked for all regions at once or region by region, never both, or records would be counted twice; nothing was touched", c, k))
			}
		}
	}
	return nil
}

// zonePins are the time zones as the configuration has them.
func (a *app) zonePins() map[string]string {
	zones := map[string]string{}
	for _, p := range a.pins([]part{{stream: schemas.SDR()}}) {
		if p.zone {
			zones[p.name] = p.value
		}
	}
	return zones
}

// checkAgreement fails if what the database pinned is not what the configuration says. Unlike checkPins it pins nothing.
func (a *app) checkAgreement(ctx context.Context, db *postgres.DB) error {
	parts, err := a.partsOf(func(*schemas.Stream) bool { return true }, false)
	if err != nil {
		return err
	}
	for _, p := range a.pins(parts) {
		if differs, _, err := p.compare(ctx, db); err != nil || differs {
			return errors.Join(err, p.error(ctx, db))
		}
	}
	return nil
}

// tidyLanding settles what a killed run left: files of published jobs become evidence, files of ended jobs go.
func (a *app) tidyLanding(ctx context.Context, db *postgres.DB, land *landing.Dir, parts []part) error {
	failpoint.Hit(failpoint.TidyBegun)
	for _, one := range parts {
		before := a.now().Add(-a.cfg.Sync.AdoptMaxAge)
		if one.stream.IsList() { // a list is always read from its start
			before = a.now()
		}
		for _, s := range one.scopes {
			if err := db.AbandonJobs(ctx, one.stream.Name, s, before); err != nil {
				return err
			}
		}
	}
	var landed []pipeline.LandingKey
	err := land.Tidy(func(key pipeline.LandingKey) bool { // only looks
		landed = append(landed, key)
		return true
	})
	if err != nil || len(landed) == 0 {
		return err
	}
	for _, key := range landed {
		job, found, err := db.PublishedJob(ctx, key.JobRow)
		if err != nil {
			return err
		}
		if found && job.Job.ID == key.JobID {
			if err := land.Keep(key, job.WindowID, job.Generation); err != nil && !errors.Is(err, pipeline.ErrLandingLocked) {
				return err
			}
		}
	}
	wanted, err := db.WantedLanding(ctx)
	if err != nil {
		return err
	}
	return land.Tidy(func(key pipeline.LandingKey) bool { return wanted[key.JobRow] == key.JobID })
}
