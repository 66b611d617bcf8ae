package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
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
		Long: `Check the configuration, the folders, the database and its schema, and each of the vendor's systems that is configured: IAM, ESM, BSS,
BMS. Nothing is created: ESM is asked for a job that does not exist, whose 404 shows that it can be reached and that the token is good; of lists
one page is read.`,
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
				fmt.Fprintf(a.stdout, "%s  %-16s %s\n", mark, f.Check, f.Detail)
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
		if !a.hasDatabase() {
			check(where, "the first run will make it", nil)
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
		if host := db.UnverifiedHost(); host != "" {
			check(where, "warning: whoever stands between here and "+host+" can read and change what is sent, the password too: add sslmode=verify-full to postgres.url", nil)
		}
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
	v, err := a.openVendor()
	if err != nil {
		check("vendor", "", err)
		return
	}
	_, err = v.tokens.Token(ctx)
	if check("IAM", fmt.Sprintf("a token for %s in project %s", a.cfg.IAM.User, a.cfg.IAM.Project), err) {
		_, err = v.esm.Job(ctx, "sdr-sync-doctor")
		if errors.Is(err, pipeline.ErrJobForgotten) || errors.Is(err, pipeline.ErrRefused) && !errors.Is(err, pipeline.ErrCredentials) {
			err = nil // a job that never was: the answer we hoped for
		}
		check("ESM jobs", "can be reached, and takes the token", err)
		a.checkESMLists(ctx, v, check)
		if a.cfg.Validate(NeedBMS) == nil {
			a.checkBMS(ctx, v, check)
		} else {
			check("BMS", "not configured (bms.endpoint, bms.project_id): bms_servers can't be pulled", nil)
		}
	}
	if a.cfg.BSS.Endpoint == "" {
		check("BSS", "not configured (bss.endpoint): neither subscriptions nor dictionaries are pulled", nil)
		return
	}
	if err := a.cfg.Validate(NeedBSS); err != nil {
		check("BSS", "", err)
		return
	}
	if a.checkList(ctx, v, check, "BSS", "subscriptions") {
		a.checkList(ctx, v, check, "BSS dictionaries", "service_types")
	}
}

// checkESMLists reads a page of a list of ESM. That it can't be read is no failure while none is pulled.
func (a *app) checkESMLists(ctx context.Context, v *vendor, check func(string, string, error) bool) {
	if err := v.probe(ctx, schemas.ByName("physical_devices")); err != nil && !a.usesESMLists() {
		check("ESM lists", fmt.Sprintf("can't be read, and none is in streams: (%v)", err), nil)
		return
	}
	a.checkList(ctx, v, check, "ESM lists", "physical_devices")
}

// usesESMLists tells whether the configuration has lists of ESM pulled.
func (a *app) usesESMLists() bool {
	for name := range a.cfg.Streams {
		if s := schemas.ByName(name); s != nil && s.List != nil && s.List.System == "esm" {
			return true
		}
	}
	return false
}

// checkList reads the first page of a stream.
func (a *app) checkList(ctx context.Context, v *vendor, check func(string, string, error) bool, system, stream string) bool {
	s := schemas.ByName(stream)
	err := v.probe(ctx, s)
	switch {
	case errors.Is(err, pipeline.ErrNotOffered):
		return check(system, "can be reached; "+stream+" is not offered by this site (404)", nil)
	case isDenied(err) && s.List.Denied == "note":
		return check(system, stream+" is denied to this account (403): codes stay without names, but for those of `sdr-sync dictionary load`", nil)
	}
	return check(system, "can be reached and read ("+stream+")", err)
}

func (a *app) checkBMS(ctx context.Context, v *vendor, check func(string, string, error) bool) {
	client, err := v.bms()
	if err == nil {
		_, err = client.Job(ctx, "sdr-sync-doctor")
	}
	if errors.Is(err, pipeline.ErrJobForgotten) {
		err = nil // a task that never was
	}
	check("BMS", "can be reached, and takes the token", err)
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
