package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.output == "json" {
				return a.printJSON(map[string]string{"version": programVersion(), "go": runtime.Version()})
			}
			_, err := fmt.Fprintf(a.stdout, "sdr-sync %s (%s)\n", programVersion(), runtime.Version())
			return err
		},
	}
}

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented configuration (default: ./sdr-sync.yaml)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := localConfig
			if len(args) == 1 {
				path = args[0]
			}
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
			if errors.Is(err, fs.ErrExist) {
				return withCode(exitUsage, fmt.Errorf("%s exists already; it was left as it is", path))
			}
			if err != nil {
				return err
			}
			_, err = f.WriteString(InitTemplate())
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("write %s: %w", path, err)
			}
			_, err = fmt.Fprintf(a.stdout, "%s is written; fill it in, then run: sdr-sync doctor\n", path)
			return err
		},
	}
}

func (a *app) migrateCommand() *cobra.Command {
	var to int64
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database schema to this program's version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			if a.cfg.Postgres.URL != "" {
				return a.migrate(cmd.Context(), a.cfg.Postgres.URL, to)
			}
			return a.withPrivate(cmd.Context(), func(ctx context.Context, server *private.Server) error {
				return a.migrate(ctx, pipeline.Secret(server.URL(privateSuperuser, privateDatabase)), to)
			})
		},
	}
	cmd.Flags().Int64Var(&to, "to", -1, "go to this version, back too; 0 removes every table (default: the newest)")
	return cmd
}

func (a *app) migrate(ctx context.Context, url pipeline.Secret, to int64) error {
	db, err := a.openDatabase(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	applied, err := db.Migrate(ctx, to)
	for _, name := range applied {
		fmt.Fprintln(a.stdout, "ran", name)
	}
	if err != nil {
		return err
	}
	if len(applied) == 0 {
		fmt.Fprintln(a.stdout, "the schema is up to date")
	}
	if a.cfg.Postgres.URL == "" && to != 0 {
		return db.CreateWriterLogin(ctx, privateLogin)
	}
	return nil
}

func (a *app) psqlCommand() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use:   "psql [-- ARGUMENT...]",
		Short: "Open psql on the database, as a reader unless told otherwise",
		Example: `  sdr-sync psql
  sdr-sync psql -- -c "select * from billing.usage_daily limit 5"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.psql(cmd.Context(), role, args)
		},
	}
	cmd.Flags().StringVar(&role, "role", "reader", "reader, writer or owner; with postgres.url the URL's own login is used, in that role")
	return cmd
}

func (a *app) psql(ctx context.Context, role string, args []string) error {
	if role != "reader" && role != "writer" && role != "owner" {
		return withCode(exitUsage, fmt.Errorf("--role %q: want reader, writer or owner", role))
	}
	return a.withServer(ctx, func(ctx context.Context, url pipeline.Secret) error {
		path, err := psqlBinary()
		if err != nil {
			return err
		}
		env, err := postgres.ClientEnvironment(url)
		if err != nil {
			return err
		}
		c := exec.Command(path, args...) // not ended by ctx: Ctrl-C belongs to psql
		c.Stdin, c.Stdout, c.Stderr = a.stdin, a.stdout, a.stderr
		// The vendor's secrets are nothing to psql and to the shells that it opens.
		c.Env = slices.DeleteFunc(os.Environ(), func(assignment string) bool { return strings.HasPrefix(assignment, envPrefix) })
		c.Env = append(c.Env, env...) // the password goes through the environment, never through argv
		c.Env = append(c.Env, "PGOPTIONS=-c role=sdr_sync_"+role)
		if a.cfg.Postgres.URL == "" {
			c.Env = append(c.Env, "PGUSER="+privateSuperuser) // of our own server: peer lets us be anyone
		}
		a.deaf.Store(true) // Ctrl-C cancels a query in psql
		defer a.deaf.Store(false)
		var exit *exec.ExitError
		if err := c.Run(); errors.As(err, &exit) {
			return withCode(exitIncomplete, &reportedError{fmt.Errorf("psql ended with %d", exit.ExitCode())})
		} else if err != nil {
			return fmt.Errorf("run psql: %w", err)
		}
		return nil
	})
}

func psqlBinary() (string, error) {
	if path, err := exec.LookPath("psql"); err == nil {
		return path, nil
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/psql", "/usr/pgsql-*/bin/psql", "/opt/homebrew/opt/*/bin/psql", "/usr/local/opt/*/bin/psql"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", withCode(exitUsage, errors.New("psql is not on this machine; install it: apt-get install postgresql-client"))
}
