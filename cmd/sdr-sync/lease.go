package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

func (a *app) leaseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "lease", Short: "Look at the leases of scopes, or release one"}
	list := &cobra.Command{
		Use:   "list",
		Short: "List who works on which scope",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				leases, err := db.Leases(ctx)
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.printJSON(leases)
				}
				t := a.table("SCOPE", "TOKEN", "HOLDER", "SINCE", "EXPIRES", "LIVE")
				for _, l := range leases {
					t.row(l.Scope, l.Token, l.Holder, l.Acquired.UTC().Format(time.DateTime), l.Expires.UTC().Format(time.DateTime), l.Live)
				}
				return t.flush()
			})
		},
	}
	release := &cobra.Command{
		Use:   "release --scope SITE/REGION",
		Short: "Take a lease away from a run that is surely dead; if it lives after all, it can no longer publish",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(a.scopeTexts) == 0 {
				return withCode(exitUsage, errors.New("say whose lease: --scope SITE/REGION"))
			}
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				for _, text := range a.scopeTexts {
					scope, err := pipeline.ParseScope(text)
					if err != nil {
						return withCode(exitUsage, err)
					}
					released, err := db.ReleaseLease(ctx, streamSDR, scope)
					if err != nil {
						return err
					}
					word := "had no lease"
					if released {
						word = "is released"
					}
					fmt.Fprintf(a.stdout, "%s %s\n", scope, word)
				}
				return nil
			})
		},
	}
	cmd.AddCommand(list, release)
	return cmd
}
