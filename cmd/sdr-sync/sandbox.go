package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/sandbox"
)

func (a *app) sandboxCommand() *cobra.Command {
	c := sandbox.DefaultConfig()
	var listen, faults, keys, today string
	var records, days int
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Serve a stand-in vendor: IAM, ESM, BSS and BMS over HTTP, strict, deterministic, with faults on demand",
		Long: `Serve a stand-in vendor written from the vendor's documents, to try sdr-sync against, or anything else that speaks these APIs.

What it holds follows from --seed alone, and can be asked for: GET /_sandbox/truth?site=&region=&from=2024-01-01&to=2024-04-01.
POST /_sandbox/night lets a night pass, after which late and corrected records have joined the last five file dates.
Faults: --fault, or POST /_sandbox/faults; such as 'page:3:status=429,retry_after=1', 'page:5x2:truncate', 'poll:*:hang'.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.Faults, err = sandbox.ParseFaults(faults); err != nil {
				return withCode(exitUsage, err)
			}
			c.KeyStyle = sandbox.KeyStyle(keys)
			if records > 0 {
				c.Resources = sandbox.ResourcesFor(records, days)
			}
			if today != "" {
				date, err := record.ParseDate(today)
				if err != nil {
					return withCode(exitUsage, fmt.Errorf("--today: %w", err))
				}
				c.Today = func() time.Time { return date.Time(time.UTC) }
			}
			if len(a.scopeTexts) > 0 {
				c.Scopes = nil
			}
			for _, text := range a.scopeTexts {
				s, err := pipeline.ParseScope(text)
				if err != nil {
					return withCode(exitUsage, fmt.Errorf("--scope: %w", err))
				}
				c.Scopes = append(c.Scopes, sandbox.Scope{Site: s.Site, Region: s.Region})
			}
			return a.serveSandbox(cmd.Context(), c, listen)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:8080", "address; port 0 takes a free one")
	f.Int64Var(&c.Seed, "seed", c.Seed, "what the records follow from")
	f.IntVar(&c.Resources, "resources", c.Resources, "metered resources per scope")
	f.IntVar(&records, "records", 0, "instead of --resources: about so many records per scope in --days")
	f.IntVar(&days, "days", 91, "file dates that --records is spread over")
	f.StringVar(&today, "today", "", "file dates from this one on have no file yet (default: the real today)")
	f.StringVar(&keys, "keys", string(c.KeyStyle), "spelling of keys: snake, camel or pascal")
	f.IntVar(&c.BadEvery, "bad-every", c.BadEvery, "about one record in so many can't be parsed; 0 for none")
	f.IntVar(&c.PollsUntilDone, "polls", c.PollsUntilDone, "the poll that first answers success")
	f.DurationVar(&c.PageLatency, "latency", c.PageLatency, "how long a page takes")
	f.DurationVar(&c.TokenTTL, "token-ttl", c.TokenTTL, "how long a token is good")
	f.Float64Var(&c.FailRate, "fail-rate", c.FailRate, "share of calls that fail in a way worth retrying")
	f.StringVar(&faults, "fault", "", "faults, separated by ';'")
	f.StringVar(&c.Generation, "generation", "", "whose lists of ESM there are: 2025-03 or 2025-10; both if empty")
	f.IntVar(&c.Subscriptions, "subscriptions", c.Subscriptions, "yearly and monthly resources")
	f.IntVar(&c.ShiftEvery, "shift-every", 0, "about one page of subscriptions in so many finds that a row left an earlier one; 0 for none")
	f.IntVar(&c.Devices, "devices", c.Devices, "physical devices of the site")
	f.IntVar(&c.EventsPerDay, "events-per-day", c.EventsPerDay, "audit logs of a day; half as many alarms of either kind")
	f.BoolVar(&c.StringTotals, "string-totals", false, "tell totals as texts, as some samples of the documents do")
	f.BoolVar(&c.DenyDictionaries, "deny-dictionaries", false, "answer 403 to the dictionaries of BSS")
	f.BoolVar(&c.NoListLimits, "no-list-limits", false, "let the lists of ESM be called more often than documented")
	f.DurationVar(&c.ClockSkew, "clock-skew", 0, "how far the vendor's clock is ahead")
	f.StringVar(&c.HCSOAppcode, "hcso-appcode", "", "check the header x-hcso-appcode against this")
	f.StringVar(&c.APIGAppcode, "apig-appcode", "", "check the header X-APIG-Appcode against this")
	return cmd
}

func (a *app) serveSandbox(ctx context.Context, c sandbox.Config, listen string) error {
	server, err := sandbox.New(c)
	if err != nil {
		return withCode(exitUsage, err)
	}
	return server.ListenAndServe(ctx, listen, func(url string) {
		fmt.Fprintf(a.stdout, `the stand-in vendor serves at %[1]s
try it:
  export SDR_SYNC_IAM_ENDPOINT=%[1]s SDR_SYNC_IAM_USER=%[2]s SDR_SYNC_IAM_PASSWORD=%[3]s
  export SDR_SYNC_IAM_DOMAIN=%[4]s SDR_SYNC_IAM_PROJECT=%[5]s
  export SDR_SYNC_ESM_ENDPOINT=%[1]s SDR_SYNC_ESM_DOMAIN_ID=%[6]s SDR_SYNC_ESM_SCOPES=%[7]s
  export SDR_SYNC_BSS_ENDPOINT=%[1]s SDR_SYNC_BSS_DOMAIN_ID=%[6]s
  export SDR_SYNC_BMS_ENDPOINT=%[1]s SDR_SYNC_BMS_PROJECT_ID=%[8]s
  sdr-sync backfill --from 2024-01 --to 2024-03
`, url, c.User, c.Password, c.Domain, c.Project, c.DomainID, sandboxScopes(c), sandbox.DefaultProjectID)
	})
}

func sandboxScopes(c sandbox.Config) string {
	var text string
	for i, s := range c.Scopes {
		if i > 0 {
			text += ","
		}
		text += s.Site + "/" + s.Region
	}
	return text
}
