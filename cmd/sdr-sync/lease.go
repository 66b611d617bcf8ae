package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

func (a *app) leaseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "lease", Short: "Look at the leases of scopes, or release one"}
	list := &cobra.Command{
		Use:   "list",
		Short: "List who works on which scope",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			named, err := a.namedScopes()
			if err != nil {
				return err
			}
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				leases, err := db.Leases(ctx)
				if err != nil {
					return err
				}
				if len(named) > 0 {
					leases = slices.DeleteFunc(leases, func(l postgres.Lease) bool {
						return !slices.ContainsFunc(named, func(s pipeline.Scope) bool { return s.Covers(l.Scope) })
					})
				}
				if a.output == "json" {
					return a.printJSON(leases)
				}
				t := a.table("STREAM", "SCOPE", "TOKEN", "HOLDER", "SINCE", "EXPIRES", "LIVE")
				for _, l := range leases {
					t.row(l.Stream, l.Scope, l.Token, l.Holder, l.Acquired.UTC().Format(time.DateTime), l.Expires.UTC().Format(time.DateTime), l.Live)
				}
				return t.flush()
			})
		},
	}
	var streams []string
	release := &cobra.Command{
		Use:   "release --scope SITE/REGION | --stream NAME",
		Short: "Take a lease away from a run that is surely dead; if it lives after all, it can no longer publish",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			named, err := a.namedScopes()
			if err != nil {
				return err
			}
			var wanted []pipeline.StreamScope
			for _, scope := range named {
				wanted = append(wanted, pipeline.StreamScope{Stream: streamSDR, Scope: scope})
			}
			for _, name := range streams {
				if schemas.ByName(name) == nil {
					return unknownStream("--stream", name)
				}
				wanted = append(wanted, pipeline.StreamScope{Stream: name, Scope: pipeline.Tenant})
			}
			if len(wanted) == 0 {
				return withCode(exitUsage, errors.New("say whose lease: --scope SITE/REGION of the metering records, or --stream NAME of a list"))
			}
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				for _, s := range wanted {
					released, err := db.ReleaseLease(ctx, s.Stream, s.Scope)
					if err != nil {
						return err
					}
					word := "had no lease"
					if released {
						word = "is released"
					}
					fmt.Fprintf(a.stdout, "%s %s\n", scopeLabel(schemas.ByName(s.Stream), s.Scope), word)
				}
				return nil
			})
		},
	}
	release.Flags().StringSliceVar(&streams, "stream", nil, "the lease of this list (may be repeated)")
	cmd.AddCommand(list, release)
	return cmd
}
