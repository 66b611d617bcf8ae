package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// statusReport says how complete each scope is, month by month.
type statusReport struct {
	Scopes          []scopeStatus `json:"scopes"`
	Streams         []listStatus  `json:"streams"`          // lists that were ever pulled
	DirtyPartitions []string      `json:"dirty_partitions"` // newer in Postgres than in Parquet
	LiveJobs        int           `json:"live_jobs"`        // to be resumed by the next run
	LastRun         *runStatus    `json:"last_run,omitempty"`
}

type scopeStatus struct {
	pipeline.Scope
	CompleteFrom string        `json:"complete_from,omitempty"` // first published file date
	CompleteTo   string        `json:"complete_to,omitempty"`   // end of the unbroken run of published file dates, exclusive
	Months       []monthStatus `json:"months"`
}

// monthStatus is one calendar month of file dates.
type monthStatus struct {
	Month       string     `json:"month"`
	State       string     `json:"state"` // published, partial, missing
	Days        int        `json:"days"`  // published file dates
	Of          int        `json:"of"`    // file dates that are over
	Windows     int        `json:"windows"`
	Restated    int        `json:"restated"` // publications that changed what was published before
	Records     int64      `json:"records"`
	Quarantined int64      `json:"quarantined"`
	NoAmount    int64      `json:"missing_amounts"`
	Checked     *time.Time `json:"checked_at,omitempty"` // when the vendor was last asked
}

// listStatus says when a list was last pulled, and how that ended.
type listStatus struct {
	Stream   string    `json:"stream"`
	Table    string    `json:"table"`
	LastSync time.Time `json:"last_sync"`
	State    string    `json:"state"`
	Records  int64     `json:"records"`
}

type runStatus struct {
	ID       int64      `json:"run"`
	Command  string     `json:"command"`
	Started  time.Time  `json:"started_at"`
	Finished *time.Time `json:"finished_at,omitempty"`
	ExitCode int        `json:"exit_code"`
	Outcome  string     `json:"outcome"`
}

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show per scope and month what is published, partial, missing, restated and quarantined",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			scopes, err := a.scopes()
			if err != nil {
				return err
			}
			now, err := a.clock()
			if err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				s, err := a.status(ctx, db, scopes, record.DateOf(now(), a.cfg.Sync.FileTimezone))
				if err != nil {
					return err
				}
				return a.printStatus(s)
			})
		},
	}
	cmd.Flags().StringVar(&a.today, "today", "", "take this date for today")
	return cmd
}

func (a *app) status(ctx context.Context, db *postgres.DB, scopes []pipeline.Scope, today pipeline.Date) (statusReport, error) {
	s := statusReport{DirtyPartitions: []string{}, Streams: []listStatus{}}
	if len(a.scopeTexts) == 0 {
		known, err := db.Scopes(ctx, streamSDR)
		if err != nil {
			return s, err
		}
		scopes = slices.Compact(slices.SortedFunc(slices.Values(append(slices.Clone(scopes), known...)), pipeline.Scope.Compare))
	}
	for _, scope := range scopes {
		windows, err := db.Windows(ctx, streamSDR, scope)
		if err != nil {
			return s, err
		}
		s.Scopes = append(s.Scopes, completeness(scope, windows, today))
		jobs, err := db.LiveJobs(ctx, streamSDR, scope)
		if err != nil {
			return s, err
		}
		s.LiveJobs += len(jobs)
	}
	if err := a.statusOfStreams(ctx, db, &s); err != nil {
		return s, err
	}
	run, found, err := db.LastRun(ctx)
	if found {
		s.LastRun = &runStatus{ID: run.ID, Command: run.Command, Started: run.Started, ExitCode: run.ExitCode, Outcome: run.Outcome}
		if !run.Finished.IsZero() {
			s.LastRun.Finished = &run.Finished
		}
	}
	return s, err
}

// statusOfStreams adds when each list was last pulled, and every stream's partitions that wait for their export.
func (a *app) statusOfStreams(ctx context.Context, db *postgres.DB, s *statusReport) error {
	parts, err := a.allParts()
	if err != nil {
		return err
	}
	last, err := db.LastSync(ctx)
	if err != nil {
		return err
	}
	for _, one := range parts {
		if sync, ok := last[one.stream.Name]; ok && one.stream.IsList() {
			s.Streams = append(s.Streams, listStatus{Stream: one.stream.Name, Table: one.stream.Table, LastSync: sync.At, State: sync.State, Records: sync.Records})
		}
		partitions, err := db.Store(one.stream.Name).Partitions(ctx)
		if err != nil {
			return err
		}
		for _, p := range partitions {
			if p.DirtySeq > p.ExportedSeq {
				s.DirtyPartitions = append(s.DirtyPartitions, partitionLabel(one.stream, p.Partition))
			}
		}
	}
	return nil
}

// completeness works out a scope's months from its windows, which are sorted and do not overlap.
func completeness(scope pipeline.Scope, windows []pipeline.WindowState, today pipeline.Date) scopeStatus {
	s := scopeStatus{Scope: scope, Months: []monthStatus{}}
	if len(windows) == 0 {
		return s
	}
	first, end := windows[0].From, windows[0].From
	for _, w := range windows { // freshness is the end of the unbroken run, not the newest window
		if w.From > end {
			break
		}
		end = w.To
	}
	s.CompleteFrom, s.CompleteTo = first.String(), end.String()
	last := max(today, windows[len(windows)-1].To)
	for month := first.Month(); month < last; month = month.AddMonths(1) {
		m := monthStatus{Month: month.MonthString(), Of: int(min(month.AddMonths(1), last) - month)}
		for _, w := range windows {
			if w.From.Month() != month {
				continue
			}
			m.Windows++
			m.Days += int(w.To - w.From)
			m.Restated += w.RestatementCount
			m.Records += w.Records.Count
			m.Quarantined += w.Quarantined.Count
			m.NoAmount += w.MissingAmounts
			if checked := w.CheckedAt; m.Checked == nil || checked.After(*m.Checked) {
				m.Checked = &checked
			}
		}
		switch {
		case m.Days == 0:
			m.State = "missing"
		case m.Days < m.Of:
			m.State = "partial"
		default:
			m.State = "published"
		}
		s.Months = append(s.Months, m)
	}
	return s
}

func (a *app) printStatus(s statusReport) error {
	if a.output == "json" {
		return a.printJSON(s)
	}
	t := a.table("SCOPE", "MONTH", "STATE", "DAYS", "WINDOWS", "RECORDS", "RESTATED", "QUARANTINED", "NO AMOUNT", "ASKED AT")
	for _, scope := range s.Scopes {
		if len(scope.Months) == 0 {
			t.row(scope.Scope, "-", "missing", "0", 0, int64(0), 0, int64(0), int64(0), "never")
		}
		for _, m := range scope.Months {
			asked := "-"
			if m.Checked != nil {
				asked = m.Checked.Format(time.DateTime)
			}
			t.row(scope.Scope, m.Month, m.State, fmt.Sprintf("%d/%d", m.Days, m.Of), m.Windows, m.Records, m.Restated, m.Quarantined, m.NoAmount, asked)
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, scope := range s.Scopes {
		if scope.CompleteTo != "" {
			fmt.Fprintf(a.stdout, "%s is complete from %s up to, not including, %s\n", scope.Scope, scope.CompleteFrom, scope.CompleteTo)
		}
	}
	if len(s.Streams) > 0 {
		t := a.table("STREAM", "TABLE", "LAST PULL", "STATE", "RECORDS")
		for _, l := range s.Streams {
			t.row(l.Stream, l.Table, l.LastSync.UTC().Format(time.DateTime), l.State, l.Records)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	if len(s.DirtyPartitions) > 0 {
		fmt.Fprintf(a.stdout, "newer in Postgres than in Parquet: %s (run sdr-sync export)\n", strings.Join(s.DirtyPartitions, ", "))
	}
	if s.LiveJobs > 0 {
		fmt.Fprintf(a.stdout, "%d query jobs are unfinished; the next run resumes them\n", s.LiveJobs)
	}
	if r := s.LastRun; r != nil {
		end := "is under way, or was killed"
		if r.Finished != nil {
			end = fmt.Sprintf("ended %s with exit code %d: %s", r.Finished.Format(time.DateTime), r.ExitCode, r.Outcome)
		}
		fmt.Fprintf(a.stdout, "last run: %d (%s) began %s, %s\n", r.ID, r.Command, r.Started.Format(time.DateTime), end)
	}
	return nil
}
