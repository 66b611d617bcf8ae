package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

func (a *app) quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "quarantine", Short: "Look at records that could not be normalised"}
	var filter postgres.QuarantineFilter
	list := &cobra.Command{
		Use:   "list",
		Short: "List quarantined records, with their reasons",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if filter.Scopes, err = a.namedScopes(); err != nil {
				return err
			}
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				entries, total, err := db.Quarantine(ctx, filter)
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.printJSON(map[string]any{"total": total, "records": entries})
				}
				t := a.table("STREAM", "WINDOW_ID", "RAW_HASH", "ORDINAL", "PAGE", "POSITION", "REASON", "FIELD", "DETAIL")
				for _, e := range entries {
					t.row(e.Stream, e.WindowID, e.RawHash, e.Ordinal, e.Page, e.Position, e.Reason, e.Field, e.Detail)
				}
				if err := t.flush(); err != nil {
					return err
				}
				_, err = fmt.Fprintf(a.stdout, "%d of %d quarantined records; see one whole: sdr-sync quarantine show WINDOW_ID RAW_HASH\n", len(entries), total)
				return err
			})
		},
	}
	list.Flags().Int64Var(&filter.WindowID, "window", 0, "only this window_id")
	list.Flags().StringVar(&filter.Reason, "reason", "", "only this reason")
	list.Flags().IntVar(&filter.Limit, "limit", 100, "at most so many")
	show := &cobra.Command{
		Use:   "show WINDOW_ID RAW_HASH",
		Short: "Print a quarantined record exactly as the vendor sent it",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return withCode(exitUsage, fmt.Errorf("window_id %q is no number", args[0]))
			}
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				e, err := db.Quarantined(ctx, id, args[1])
				if err != nil {
					return err
				}
				if e == nil {
					return withCode(exitUsage, fmt.Errorf("no quarantined record %s in window %d", args[1], id))
				}
				if a.output == "json" {
					return a.printJSON(e)
				}
				_, err = fmt.Fprintf(a.stdout, "reason    %s\nfield     %s\ndetail    %s\nplace     page %d, record %d of job %d\nas sent:\n%s\n",
					e.Reason, e.Field, e.Detail, e.Page, e.Position, e.JobRow, e.Raw)
				return err
			})
		},
	}
	cmd.AddCommand(list, show)
	return cmd
}
