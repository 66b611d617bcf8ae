package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/landing"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

// app is one command line under way: its streams, global flags and what they lead to.
type app struct {
	stdin          *os.File
	stdout, stderr *os.File

	configPath string
	output     string   // text or json
	scopeTexts []string // --scope
	today      string   // --today
	verbose    bool
	cpuProfile string
	command    string // the one under way
	printed    bool   // JSON stands on standard output

	cfg  *Config
	log  *zap.Logger
	deaf atomic.Bool    // signals are a child's, not ours
	now  pipeline.Clock // the clock of the command under way; nil is the wall clock
}

func (a *app) commands() *cobra.Command {
	root := &cobra.Command{
		Use:   "sdr-sync",
		Short: "Pull metering records from Huawei's dedicated-cloud APIs into Postgres and Parquet",
		Long: `sdr-sync pulls metering records (SDRs) through the ESM API's query jobs and keeps Postgres tables and Parquet files of them.

Exit 0 means that every record the vendor returned stands exactly once in Postgres and exactly once in Parquet, or in the
quarantine with its reason; and a second run changes nothing.

Start with: sdr-sync demo (watch it work), sdr-sync init (write a configuration), sdr-sync doctor (check it).`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", "", "configuration file (default: $SDR_SYNC_CONFIG, ./sdr-sync.yaml, /etc/sdr-sync/sdr-sync.yaml)")
	flags.StringVarP(&a.output, "output", "o", "text", "form of results on standard output: text or json")
	flags.StringArrayVar(&a.scopeTexts, "scope", nil, "only this scope, SITE/REGION, or SITE for every scope of it (may be repeated)")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log more")
	flags.StringVar(&a.cpuProfile, "cpuprofile", "", "write a CPU profile to this file")
	_ = flags.MarkHidden("cpuprofile")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return withCode(exitUsage, err) })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		a.command = cmd.Name()
		if a.output != "text" && a.output != "json" {
			return withCode(exitUsage, fmt.Errorf("--output %q: want text or json", a.output))
		}
		a.log = a.newLog()
		return a.startProfile()
	}
	root.AddCommand(
		a.initCommand(), a.doctorCommand(), a.migrateCommand(), a.backfillCommand(), a.nightlyCommand(), a.statusCommand(), a.verifyCommand(),
		a.exportCommand(), a.replayCommand(), a.quarantineCommand(), a.psqlCommand(), a.leaseCommand(), a.sandboxCommand(), a.demoCommand(), a.chaosCommand(),
		a.streamsCommand(), a.dictionaryCommand(), a.bmsCommand(), a.versionCommand(),
	)
	root.InitDefaultCompletionCmd()
	usageErrors(root)
	return root
}

// startProfile begins the CPU profile that --cpuprofile asks for; execute ends it.
func (a *app) startProfile() error {
	if a.cpuProfile == "" {
		return nil
	}
	f, err := os.Create(a.cpuProfile)
	if err != nil {
		return withCode(exitUsage, err)
	}
	return pprof.StartCPUProfile(f)
}

// usageErrors makes wrong arguments of any command exit 2.
func usageErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error { return withCode(exitUsage, check(cmd, args)) }
	} else if cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return withCode(exitUsage, fmt.Errorf("unknown command %q; see %s --help", args[0], cmd.CommandPath()))
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && !cmd.Runnable() { // arguments are checked only of what runs
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, sub := range cmd.Commands() {
		usageErrors(sub)
	}
}

// onTerminal tells whether a person watches: progress bars then, log lines otherwise.
func (a *app) onTerminal() bool {
	return term.IsTerminal(int(a.stderr.Fd())) && a.output == "text"
}

func (a *app) newLog() *zap.Logger {
	level := zapcore.InfoLevel
	production := zap.NewProductionEncoderConfig()
	production.EncodeTime, production.EncodeDuration = zapcore.RFC3339NanoTimeEncoder, zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(production)
	if a.onTerminal() { // the bars say what goes on
		level = zapcore.WarnLevel
		config := zap.NewDevelopmentEncoderConfig()
		config.CallerKey = ""
		encoder = zapcore.NewConsoleEncoder(config)
	}
	if a.verbose {
		level = zapcore.DebugLevel
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(a.stderr), level))
}

// loadConfig reads the configuration once and checks what the command needs of it.
func (a *app) loadConfig(needs ...Need) error {
	if a.cfg == nil {
		cfg, err := LoadConfig(a.configPath, os.Environ(), nil)
		if err != nil {
			return err
		}
		if err := armFailpoints(cfg, os.Getenv(failpoint.Env)); err != nil {
			return err
		}
		a.cfg = cfg
	}
	return a.cfg.Validate(needs...)
}

// armFailpoints arms what the environment asks for, in a rehearsal only: no run against a real vendor shall ever stop on purpose.
func armFailpoints(cfg *Config, text string) error {
	if text == "" {
		return nil
	}
	for _, endpoint := range []string{cfg.IAM.Endpoint, cfg.ESM.Endpoint, cfg.BSS.Endpoint, cfg.BMS.Endpoint} {
		if endpoint != "" && !standIn(endpoint) || cfg.ESM.Endpoint == "" {
			return withCode(exitUsage, fmt.Errorf("%s is for rehearsals: every endpoint must be a stand-in vendor on this machine (http, loopback), that of ESM named; nothing was touched", failpoint.Env))
		}
	}
	return withCode(exitUsage, failpoint.Arm(text))
}

// standIn tells whether an endpoint can only be a stand-in: plain HTTP on this machine's loopback.
func standIn(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && u.Scheme == "http" && endpointOK(endpoint)
}

// clock is the wall clock, or for a rehearsal noon of --today or $SDR_SYNC_TODAY.
func (a *app) clock() (pipeline.Clock, error) {
	text := a.today
	if text == "" {
		text = os.Getenv(todayEnv)
	}
	if text == "" {
		return time.Now, nil
	}
	today, err := record.ParseDate(text)
	if err != nil {
		return nil, withCode(exitUsage, fmt.Errorf("today: %w", err))
	}
	if real := record.DateOf(time.Now(), a.cfg.Sync.FileTimezone); today > real && !a.rehearsing() {
		return nil, withCode(exitUsage, fmt.Errorf("today %s is in the future (it is %s): windows would be published that have no files yet", today, real))
	}
	started := time.Now()
	noon := today.Time(a.cfg.Sync.FileTimezone).Add(12 * time.Hour)
	return func() time.Time { return noon.Add(time.Since(started)) }, nil
}

// rehearsing tells whether the vendor is one on this machine: a stand-in, whose files may be of any date.
func (a *app) rehearsing() bool {
	u, err := url.Parse(a.cfg.ESM.Endpoint)
	return err == nil && u.Scheme == "http"
}

// namedScopes returns what --scope names, configured or not. One without a region means every region of its site.
func (a *app) namedScopes() ([]pipeline.Scope, error) {
	var scopes []pipeline.Scope
	for _, text := range a.scopeTexts {
		s, err := pipeline.ParseScope(text)
		if err != nil {
			return nil, withCode(exitUsage, fmt.Errorf("--scope: %w", err))
		}
		scopes = append(scopes, s)
	}
	return scopes, nil
}

// scopes returns the configured scopes, or those of them that --scope names.
func (a *app) scopes() ([]pipeline.Scope, error) {
	named, err := a.namedScopes()
	if err != nil {
		return nil, err
	}
	if len(named) == 0 {
		return a.cfg.ESM.Scopes, nil
	}
	var scopes []pipeline.Scope
	for _, s := range named {
		chosen := 0
		for _, c := range a.cfg.ESM.Scopes {
			if s.Covers(c) {
				scopes = append(scopes, c)
				chosen++
			}
		}
		if chosen == 0 {
			return nil, withCode(exitUsage, fmt.Errorf("--scope %s is not among esm.scopes (%s)", s, joinScopes(a.cfg.ESM.Scopes)))
		}
	}
	return slices.Compact(slices.SortedFunc(slices.Values(scopes), pipeline.Scope.Compare)), nil
}

func joinScopes(scopes []pipeline.Scope) string {
	var texts []string
	for _, s := range scopes {
		texts = append(texts, s.String())
	}
	return strings.Join(texts, ", ")
}

// withDatabase opens the configured database, or the private one, and runs do. A private one migrates itself; any other must stand at
// this program's schema unless migrating is what is asked.
func (a *app) withDatabase(ctx context.Context, do func(context.Context, *postgres.DB) error) error {
	return a.withServer(ctx, func(ctx context.Context, url pipeline.Secret) error {
		db, err := a.openDatabase(ctx, url)
		if err != nil {
			return err
		}
		defer db.Close()
		if err := db.CheckSchema(ctx); err != nil {
			return err
		}
		return do(ctx, db)
	})
}

// withServer starts the private Postgres if no URL is configured, brings its schema up to date, and runs do with the URL to work with.
func (a *app) withServer(ctx context.Context, do func(context.Context, pipeline.Secret) error) error {
	if a.cfg.Postgres.URL != "" {
		return do(ctx, a.cfg.Postgres.URL)
	}
	return a.withPrivate(ctx, func(ctx context.Context, server *private.Server) error {
		if err := a.preparePrivate(ctx, server); err != nil {
			return err
		}
		return do(ctx, pipeline.Secret(server.URL(privateLogin, privateDatabase)))
	})
}

// withPrivate runs do while the private Postgres is up.
func (a *app) withPrivate(ctx context.Context, do func(context.Context, *private.Server) error) (err error) {
	server, err := private.Start(ctx, private.Config{DataDir: a.cfg.Postgres.DataDir, Log: a.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	return do(ctx, server)
}

const (
	privateDatabase  = private.Database
	privateLogin     = "sdr_sync" // a login that is a writer and nothing more
	privateSuperuser = "postgres"
)

// preparePrivate brings the private Postgres to this program's schema, and makes the login that the program then works as.
func (a *app) preparePrivate(ctx context.Context, server *private.Server) error {
	db, err := a.openDatabase(ctx, pipeline.Secret(server.URL(privateSuperuser, privateDatabase)))
	if err != nil {
		return err
	}
	defer db.Close()
	err = db.CheckSchema(ctx)
	if errors.Is(err, postgres.ErrSchemaVersion) {
		var applied []string
		if applied, err = db.Migrate(ctx, -1); len(applied) > 0 {
			a.log.Info("private Postgres migrated", zap.Strings("migrations", applied))
		}
		if err == nil {
			err = db.CheckSchema(ctx)
		}
	}
	if err != nil {
		return err
	}
	return db.CreateWriterLogin(ctx, privateLogin) // each time: a kill may have come between it and the migration
}

func (a *app) openDatabase(ctx context.Context, url pipeline.Secret) (*postgres.DB, error) {
	return postgres.Open(ctx, postgres.Config{URL: url, Lease: a.cfg.Sync.Lease, Parallel: a.cfg.Sync.Parallel, SourceZone: a.cfg.Sync.SourceTimezone, Unit: a.cfg.Parquet.Partition, Log: a.log, Now: a.now})
}

// openLake opens the lake for one stream; rezone takes over one of another source time zone.
func (a *app) openLake(stream *schemas.Stream, rezone bool) (*parquet.Lake, error) {
	if err := os.MkdirAll(filepath.Dir(a.cfg.Parquet.Dir), 0o750); err != nil {
		return nil, withCode(exitUsage, fmt.Errorf("parquet.dir: %w", err))
	}
	return parquet.Open(parquet.Config{
		Dir: a.cfg.Parquet.Dir, Stream: stream, Unit: a.cfg.Parquet.Partition, DomainID: a.cfg.ESM.DomainID,
		SourceZone: a.cfg.Sync.SourceTimezone.String(), Rezone: rezone, Log: a.log, LockWait: 10 * time.Minute,
	})
}

func (a *app) openLanding() (*landing.Dir, error) {
	return landing.Open(a.cfg.Landing.Dir, a.cfg.Landing.Keep)
}

// checkLakes makes sure, before anything is published, that an export would not be refused.
func (a *app) checkLakes(ctx context.Context, db *postgres.DB, parts []part, rezone bool) error {
	for _, one := range parts {
		lake, err := a.openLake(one.stream, rezone)
		if err == nil {
			err = lake.Belongs(ctx, db.Store(one.stream.Name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hasDatabase tells whether there is a database to look at, without making a private one.
func (a *app) hasDatabase() bool {
	if a.cfg.Postgres.URL != "" {
		return true
	}
	dir := a.cfg.Postgres.DataDir
	if dir == "" {
		var err error
		if dir, err = private.DefaultDataDir(); err != nil {
			return false
		}
	}
	_, err := os.Stat(dir)
	return err == nil
}

// version is the program's version: the module's, else the commit it was built from, else "dev". The linker may set it.
var version string

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			return v
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return "dev"
}
