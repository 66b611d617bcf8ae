package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source/bms"
)

func (a *app) bmsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bms", Short: "Ask the bare metal service"}
	var wait bool
	job := &cobra.Command{
		Use:   "job ID",
		Short: "Show how a bare metal task stands",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.Trim(args[0], ".") == "" {
				return withCode(exitUsage, fmt.Errorf("%q is the id of no task", args[0]))
			}
			if err := a.loadConfig(NeedVendor, NeedBMS); err != nil {
				return err
			}
			v, err := a.openVendor()
			if err != nil {
				return err
			}
			client, err := v.bms()
			if err != nil {
				return err
			}
			j, err := a.bmsJob(cmd.Context(), client, args[0], wait)
			if errors.Is(err, pipeline.ErrJobForgotten) {
				return withCode(exitUsage, fmt.Errorf("bare metal knows no task %s in project %s (or it has forgotten it): %w", args[0], a.cfg.BMS.ProjectID, err))
			}
			if err != nil {
				return err
			}
			return a.printBMSJob(j)
		},
	}
	job.Flags().BoolVar(&wait, "wait", false, "ask again until the task has ended, or sync.job_deadline is over")
	cmd.AddCommand(job)
	return cmd
}

// bmsJob asks for a task, with wait until it has ended.
func (a *app) bmsJob(ctx context.Context, client *bms.Client, id string, wait bool) (bms.Job, error) {
	pause, deadline := a.cfg.Sync.PollInitial, time.Now().Add(a.cfg.Sync.JobDeadline)
	for {
		job, err := client.Job(ctx, id)
		if err != nil || !wait || job.Status.IsFinal() {
			return job, err
		}
		if time.Now().Add(pause).After(deadline) {
			return job, fmt.Errorf("task %s is still %s after %s (sync.job_deadline); run again to go on waiting", id, job.Status, a.cfg.Sync.JobDeadline)
		}
		select {
		case <-ctx.Done():
			return job, context.Cause(ctx)
		case <-time.After(pause):
		}
		pause = min(pause*3/2, a.cfg.Sync.PollMax)
	}
}

// printBMSJob prints the task. One that failed at the vendor is an error: whoever waits for it must not go on.
func (a *app) printBMSJob(j bms.Job) error {
	if a.output == "json" {
		if err := a.printJSON(j); err != nil {
			return err
		}
	} else {
		t := a.table("TASK", "TYPE", "STATUS", "BEGAN", "ENDED", "ERROR")
		t.row(j.ID, j.Type, j.Status, instant(j.Begin), instant(j.End), strings.TrimSpace(j.ErrorCode+" "+j.FailReason))
		if err := t.flush(); err != nil {
			return err
		}
	}
	if j.Status == bms.Fail {
		return fmt.Errorf("task %s failed at the vendor: %s %s", j.ID, j.ErrorCode, j.FailReason)
	}
	return nil
}

// instant is a time as tables show it, "-" for none.
func instant(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateTime)
}
