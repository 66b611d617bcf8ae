package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

// finding is one of doctor's checks.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check every dependency and say what to do",
		Long: `Check the configuration, the folders, the database and its schema, IAM and ESM. Nothing is created: ESM is asked for a job that
does not exist, and its 404 shows that it can be reached and that the token is good.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

func (a *app) doctor(ctx context.Context) error {
	var findings []finding
	var failed []error
	check := func(name string, ok string, err error) bool {
		f := finding{Check: name, OK: err == nil, Detail: ok}
		if err != nil {
			f.Detail = err.Error()
			failed = append(failed, err)
		}
		findings = append(findings, f)
		return err == nil
	}
	if a.output == "text" {
		defer func() {
			for _, f := range findings {
				mark := "ok  "
				if !f.OK {
					mark = "FAIL"
				}
				fmt.Fprintf(a.stdout, "%s  %-14s %s\n", mark, f.Check, f.Detail)
			}
		}()
	}
	if err := a.loadConfig(); err != nil {
		check("configuration", "", err)
	} else {
		a.checkAll(ctx, check)
	}
	err := errors.Join(failed...)
	if a.output == "json" {
		if err := a.printJSON(map[string]any{"checks": findings, "exit_code": codeOf(err)}); err != nil {
			return err
		}
	}
	if err != nil {
		return &reportedError{err}
	}
	return nil
}

// checkAll checks what the configuration names.
func (a *app) checkAll(ctx context.Context, check func(string, string, error) bool) {
	for _, warning := range a.cfg.Warnings() {
		check("configuration", "warning: "+warning, nil)
	}
	check("configuration", "every key is known and in range", a.cfg.Validate(NeedVendor, NeedDatabase, NeedLake, NeedLanding))
	check("landing.dir", a.cfg.Landing.Dir+" is writable, "+freeSpace(a.cfg.Landing.Dir), writable(a.cfg.Landing.Dir))
	check("parquet.dir", a.cfg.Parquet.Dir+" is writable, "+freeSpace(a.cfg.Parquet.Dir), writable(a.cfg.Parquet.Dir))
	a.checkDatabase(ctx, check)
	if a.cfg.Validate(NeedVendor) == nil {
		a.checkVendor(ctx, check)
	}
}

func (a *app) checkDatabase(ctx context.Context, check func(string, string, error) bool) {
	where := "postgres.url"
	if a.cfg.Postgres.URL == "" {
		where = "private Postgres"
		dir, version, err := private.Binaries()
		if !check(where, fmt.Sprintf("server %d in %s", version, dir), err) {
			return
		}
		dataDir := a.cfg.Postgres.DataDir
		if dataDir == "" {
			if dataDir, err = private.DefaultDataDir(); err != nil {
				check(where, "", err)
				return
			}
		}
		if _, err := os.Stat(dataDir); errors.Is(err, fs.ErrNotExist) {
			check(where, "the first run will make it in "+dataDir, nil)
			return
		}
	}
	err := a.withServer(ctx, func(ctx context.Context, url pipeline.Secret) error {
		db, err := a.openDatabase(ctx, url)
		if err != nil {
			return err
		}
		defer db.Close()
		check(where, "can be reached", nil)
		if check("schema", "fits this program", db.CheckSchema(ctx)) {
			check("roles", "the login may write", db.CheckPrivileges(ctx))
			check("agreement", "database and configuration belong together", a.checkAgreement(ctx, db))
		}
		return nil
	})
	if err != nil {
		check(where, "", err)
	}
}

func (a *app) checkVendor(ctx context.Context, check func(string, string, error) bool) {
	vendor, tokens, err := a.openVendor()
	if err != nil {
		check("vendor", "", err)
		return
	}
	_, err = tokens.Token(ctx)
	if !check("IAM", fmt.Sprintf("a token for %s in project %s", a.cfg.IAM.User, a.cfg.IAM.Project), err) {
		return
	}
	_, err = vendor.Job(ctx, "sdr-sync-doctor")
	if errors.Is(err, pipeline.ErrJobForgotten) || errors.Is(err, pipeline.ErrRefused) && !errors.Is(err, pipeline.ErrCredentials) {
		err = nil // a job that never was: the answer we hoped for
	}
	check("ESM", "can be reached, and takes the token", err)
}

// writable tells whether dir, or the nearest parent that exists, can be written to.
func writable(dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	existing := nearest(dir)
	f, err := os.CreateTemp(existing, ".sdr-sync-doctor-*")
	if err != nil {
		return fmt.Errorf("%s can't be written to: %w", existing, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func nearest(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return dir
		}
		dir = parent
	}
}

func freeSpace(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(nearest(dir), &s); err != nil {
		return "free space unknown"
	}
	return fmt.Sprintf("%.1f GiB free", float64(s.Bavail)*float64(s.Bsize)/(1<<30))
}
