package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

func (a *app) demoCommand() *cobra.Command {
	var dir string
	c := sandbox.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch it work: stand-in vendor, three months and the subscriptions, a night that changes both, and the proof",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), dir, c) },
	}
	cmd.Flags().StringVar(&dir, "dir", "demo", "folder for lake, landing files and configuration; what an earlier demo left there goes")
	cmd.Flags().Int64Var(&c.Seed, "seed", c.Seed, "what the stand-in vendor's records follow from")
	cmd.Flags().IntVar(&c.Resources, "resources", 40, "metered resources at the stand-in vendor")
	return cmd
}

// demoDatabase is the demo's database on the server of postgres.url.
const demoDatabase = "sdr_sync_demo"

// The demo plays in the spring of 2024: a backfill on 1 April, a nightly run on 2 April, so that it shows the same every time.
var (
	demoFrom     = record.NewDate(2024, time.January, 1)
	demoBackfill = record.NewDate(2024, time.April, 1)
	demoNight    = record.NewDate(2024, time.April, 2)
)

func (a *app) demo(ctx context.Context, dir string, c sandbox.Config) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	today := demoBackfill
	c.Today = func() time.Time { return today.Time(time.UTC) }
	vendor, err := sandbox.New(c)
	if err != nil {
		return withCode(exitUsage, err)
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	url, served := make(chan string, 1), make(chan error, 1)
	go func() { served <- vendor.ListenAndServe(serving, "127.0.0.1:0", func(u string) { url <- u }) }()
	select {
	case err := <-served:
		return err
	case u := <-url:
		if err := a.demoConfig(ctx, dir, u, c); err != nil {
			return err
		}
	}

	step := func(format string, args ...any) { fmt.Fprintf(a.stdout, "\n== "+format+"\n", args...) }
	err = a.withServer(ctx, func(ctx context.Context, pgURL pipeline.Secret) error { // keeps the private Postgres up between the steps
		if a.cfg.Postgres.URL != "" {
			if err := a.migrateURL(ctx, pgURL); err != nil {
				return err
			}
		}
		step("a first load: sdr-sync backfill --from 2024-01 --to 2024-03")
		a.today = demoBackfill.String()
		if err := a.pull(ctx, pull{command: "backfill", ask: pipeline.Ask{From: demoFrom, To: demoBackfill}}); err != nil {
			return err
		}
		step("a night passes: late and corrected records join files of the last days, subscriptions change; sdr-sync nightly")
		vendor.AdvanceNight()
		today, a.today = demoNight, demoNight.String()
		if err := a.pull(ctx, pull{command: "nightly", ask: pipeline.Ask{Whole: true}}); err != nil {
			return err
		}
		step("another pull confirms that the subscriptions that left are gone: sdr-sync nightly --stream subscriptions")
		if err := a.pull(ctx, pull{command: "nightly", streams: []string{"subscriptions"}, ask: pipeline.Ask{Whole: true}}); err != nil {
			return err
		}
		step("the same again changes nothing: sdr-sync nightly")
		if err := a.pull(ctx, pull{command: "nightly", ask: pipeline.Ask{Whole: true}}); err != nil {
			return err
		}
		return a.withDatabase(ctx, func(ctx context.Context, db *postgres.DB) error {
			step("sdr-sync status")
			scopes, err := a.scopes()
			if err != nil {
				return err
			}
			s, err := a.status(ctx, db, scopes, demoNight)
			if err == nil {
				err = a.printStatus(s)
			}
			if err != nil {
				return err
			}
			step("SQL: the largest services of March, from billing.usage_daily")
			if err := a.demoQuery(ctx, db, demoServices); err != nil {
				return err
			}
			step("SQL: what the night did to the subscriptions, from their history billing.subscription")
			if err := a.demoQuery(ctx, db, demoHistory); err != nil {
				return err
			}
			step("SQL: alarms of the site, from the list that the configuration adds (streams: cloud_service_alarms)")
			if err := a.demoQuery(ctx, db, demoAlarms); err != nil {
				return err
			}
			step("the Parquet files")
			if err := a.demoFiles(); err != nil {
				return err
			}
			step("Postgres, Parquet and the stand-in vendor's truth, side by side")
			return a.demoProof(ctx, db, vendor, c)
		})
	})
	if err != nil {
		return err
	}
	if a.cfg.Postgres.URL != "" {
		fmt.Fprintf(a.stdout, "\nThe tables are in the database %s: let SDR_SYNC_POSTGRES_URL name it for what follows.\n", demoDatabase)
	}
	fmt.Fprintf(a.stdout, `
Look further:
  %[3]s --config %[1]s psql
  duckdb -c "select usage_month, accumulate_factor_name, count(*), sum(accumulate_factor_value) from read_parquet('%[2]s/sdr/**/*.parquet', hive_partitioning = true) group by all order by all"
  %[3]s --config %[1]s verify
  %[3]s --config %[1]s quarantine list
`, filepath.Join(dir, "sdr-sync.yaml"), a.cfg.Parquet.Dir, os.Args[0])
	return nil
}

// demoConfig clears what an earlier demo left and writes a configuration for this one, which later commands can use too.
func (a *app) demoConfig(ctx context.Context, dir, url string, c sandbox.Config) error {
	path := filepath.Join(dir, "sdr-sync.yaml")
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		if _, err := os.Stat(path); err != nil {
			return withCode(exitUsage, fmt.Errorf("%s is not empty and no earlier demo's: choose another --dir", dir))
		}
	}
	for _, old := range []string{"lake", "lake.staging", "landing"} {
		if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	dataDir, err := demoDataDir(dir)
	if err != nil {
		return err
	}
	var scopes []string
	for _, s := range c.Scopes {
		scopes = append(scopes, s.Site+"/"+s.Region)
	}
	text := fmt.Sprintf(`# Written by sdr-sync demo. The stand-in vendor is gone when the demo ends; tables and files stay.
iam: {endpoint: %q, user: %q, password: %q, domain: %q, project: %q}
esm: {endpoint: %q, domain_id: %q, scopes: [%s]}
bss: {endpoint: %q, domain_id: %q}
streams: {cloud_service_alarms: {every: 24h}}
postgres: {data_dir: %q}
parquet: {dir: %q}
landing: {dir: %q}
sync: {poll_initial: 100ms}
`, url, c.User, c.Password, c.Domain, c.Project, url, c.DomainID, strings.Join(scopes, ", "), url, c.DomainID, dataDir, filepath.Join(dir, "lake"), filepath.Join(dir, "landing"))
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		return err
	}
	// Only the database may come from outside: everything else of the user's own configuration is about the real vendor.
	var environ []string
	for _, name := range []string{"SDR_SYNC_POSTGRES_URL", "SDR_SYNC_POSTGRES_URL_FILE"} {
		if value := os.Getenv(name); value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	cfg, err := LoadConfig(path, environ, nil)
	if err != nil {
		return err
	}
	a.cfg = cfg
	if cfg.Postgres.URL != "" { // a database of its own beside the one that is named: the demo fills and forgets it
		cfg.Postgres.URL, err = postgres.RecreateDatabase(ctx, cfg.Postgres.URL, demoDatabase)
		return err
	}
	return dropPrivateDatabase(ctx, dataDir, a)
}

// demoDataDir is where a demo in dir has its private Postgres: in dir, unless the server runs as another user who has no way there.
func demoDataDir(dir string) (string, error) {
	if os.Geteuid() != 0 {
		return filepath.Join(dir, "postgres"), nil
	}
	for parent := dir; ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return "", err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Sprintf("/var/lib/sdr-sync/demo-%08x", crc32.ChecksumIEEE([]byte(dir))), nil
		}
		if parent == filepath.Dir(parent) {
			return filepath.Join(dir, "postgres"), nil
		}
	}
}

// dropPrivateDatabase empties an earlier demo's private Postgres.
func dropPrivateDatabase(ctx context.Context, dataDir string, a *app) (err error) {
	if _, err := os.Stat(dataDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	server, err := private.Start(ctx, private.Config{DataDir: dataDir, Log: a.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	return postgres.DropDatabase(ctx, pipeline.Secret(server.URL(privateSuperuser, "postgres")), privateDatabase)
}

func (a *app) migrateURL(ctx context.Context, url pipeline.Secret) error {
	db, err := a.openDatabase(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Migrate(ctx, -1)
	return err
}

// The queries of the demo.
const (
	demoServices = `
select coalesce(n.name_en, u.cloud_service_type_code) as service, u.accumulate_factor_name, sum(u.records) as records, trim_scale(sum(u.accumulate_factor_value)) as amount
from billing.usage_daily u left join billing.service_type n on n.service_type_code = u.cloud_service_type_code
where u.usage_date >= '2024-03-01' and u.usage_date < '2024-04-01'
group by 1, 2 order by records desc, 1, 2 limit 5`
	demoHistory = `
select resource_name, status, expire_time::date as expires, valid_from::date as since, valid_to::date as until, opened_reason, closed_reason, absent_since::date as absent_since
from billing.subscription
where id in (select id from billing.subscription where opened_reason <> 'appeared' or absent_since is not null or valid_from > '2024-04-02')
order by id, valid_from limit 10`
	demoAlarms = `
select severity, cleared, count(*) as alarms, min(event_date) as first, max(event_date) as last
from billing.cloud_service_alarm group by 1, 2 order by 1, 2`
)

func (a *app) demoQuery(ctx context.Context, db *postgres.DB, query string) error {
	fmt.Fprintln(a.stdout, strings.TrimSpace(query))
	columns, rows, err := db.Query(ctx, query)
	if err != nil {
		return err
	}
	t := a.table(columns...)
	for _, row := range rows {
		cells := make([]any, len(row))
		for i, c := range row {
			cells[i] = c
		}
		t.row(cells...)
	}
	return t.flush()
}

func (a *app) demoFiles() error {
	root := a.cfg.Parquet.Dir
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%9d bytes  %s\n", info.Size(), path)
		return err
	})
}

// demoProof prints counts and exact sums of the three, and fails if they differ.
func (a *app) demoProof(ctx context.Context, db *postgres.DB, vendor *sandbox.Server, c sandbox.Config) error {
	lake, err := a.openLake(schemas.SDR(), false)
	if err != nil {
		return err
	}
	inLake, err := lake.Totals(ctx)
	if err != nil {
		return err
	}
	inPostgres, err := db.Totals(ctx)
	if err != nil {
		return err
	}
	truth := vendor.Truth(c.Scopes[0].Site, "", demoFrom.Time(time.UTC), demoNight.Time(time.UTC))
	t := a.table("FACTOR", "RECORDS", "EXACT SUM IN POSTGRES", "EXACT SUM IN PARQUET", "EXACT SUM AT THE VENDOR", "EQUAL")
	equal := len(truth.Factors) == len(inPostgres) && len(truth.Factors) == len(inLake)
	for _, name := range slices.Sorted(maps.Keys(truth.Factors)) {
		want := truth.Factors[name]
		pg, file := inPostgres[name], inLake[name]
		same := pg.Records == want.Records && file.Records == want.Records && pg.Sum == want.Sum && file.Sum == want.Sum
		equal = equal && same
		t.row(name, want.Records, pg.Sum, file.Sum, want.Sum, map[bool]string{true: "yes", false: "NO"}[same])
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, quarantined, err := db.Quarantine(ctx, postgres.QuarantineFilter{})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "records that can't be normalised: %d in the quarantine, %d at the vendor\n", quarantined, truth.RejectedTotal())
	if !equal || quarantined != truth.RejectedTotal() {
		return withCode(exitDifference, errors.New("the sums in Postgres, in Parquet and at the vendor differ"))
	}
	fmt.Fprintf(a.stdout, "equal: %d records stand exactly once in Postgres and exactly once in Parquet\n", truth.Records)
	_, rows, err := db.Query(ctx, "select count(*) from billing.subscription_current where absent_since is null")
	if err != nil {
		return err
	}
	stand, want := rows[0][0], strconv.Itoa(len(vendor.Subscriptions()))
	fmt.Fprintf(a.stdout, "subscriptions that stand: %s in Postgres, %s at the vendor\n", stand, want)
	if stand != want {
		return withCode(exitDifference, errors.New("the subscriptions in Postgres and at the vendor differ"))
	}
	return nil
}
