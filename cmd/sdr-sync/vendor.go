package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/aksk"
	"github.com/sdr-sync/sdr-sync/source/bms"
	"github.com/sdr-sync/sdr-sync/source/esm"
	"github.com/sdr-sync/sdr-sync/source/iam"
	"github.com/sdr-sync/sdr-sync/source/list"
)

// vendor is every system of the vendor's that the configuration names. It asks for nothing until it is used.
type vendor struct {
	cfg       *Config
	transport *source.Transport
	tokens    *iam.Client // for ESM and BMS, which belong to a project
	esm       *esm.Client
	bssAuth   source.Auth
}

func (a *app) openVendor() (*vendor, error) {
	v := &vendor{cfg: a.cfg}
	err := v.open(a)
	return v, withCode(exitUsage, err)
}

func (v *vendor) open(a *app) (err error) {
	v.transport, err = source.New(source.Config{
		CAFile: a.cfg.HTTP.CAFile, RequestsPerSecond: a.cfg.HTTP.RequestsPerSecond, MaxBody: int64(a.cfg.HTTP.MaxBody),
		Timeout: a.cfg.HTTP.Timeout, RetryFor: a.cfg.HTTP.RetryFor, Log: a.log,
	})
	if err != nil {
		return err
	}
	identity := iam.Config{
		Endpoint: a.cfg.IAM.Endpoint, User: a.cfg.IAM.User, Domain: a.cfg.IAM.Domain, Project: a.cfg.IAM.Project, Password: a.cfg.IAM.Password,
	}
	if v.tokens, err = iam.New(v.transport, identity); err != nil {
		return err
	}
	v.esm, err = esm.New(v.transport, v.tokens, esm.Config{
		Endpoint: a.cfg.ESM.Endpoint, DomainID: a.cfg.ESM.DomainID, APIGAppcode: a.cfg.ESM.APIGAppcode, HCSOAppcode: a.cfg.ESM.HCSOAppcode,
		HCSODomainID: a.cfg.ESM.HCSODomainID,
	})
	if err != nil || a.cfg.BSS.Endpoint == "" {
		return err
	}
	if a.cfg.BSS.AccessKey != "" {
		v.bssAuth, err = aksk.New(v.transport, aksk.Config{
			Endpoint: a.cfg.BSS.Endpoint, AccessKey: a.cfg.BSS.AccessKey, SecretKey: a.cfg.BSS.SecretKey, DomainID: a.cfg.BSS.DomainID,
		})
		return err
	}
	tokens, err := v.tokens.ForAccount() // BSS is a global service
	if err == nil {
		v.bssAuth = source.TokenAuth(tokens)
	}
	return err
}

// list returns the client of a stream that is read from a list. What it is asked by comes from db's tables.
func (v *vendor) list(s *schemas.Stream, db *postgres.DB, acceptShrink bool) (*list.Client, error) {
	l := *s.List.Variant(v.cfg.BSS.API)
	l.Each = slices.Clone(l.Each)
	for i, e := range l.Each {
		if set := v.cfg.setting(e.Setting); len(set) > 0 {
			l.Each[i].Values = set
		}
	}
	c := list.Config{Zone: v.cfg.Sync.SourceTimezone, Values: valuesOf(s, db)}
	if db != nil && !acceptShrink {
		c.Standing = func(ctx context.Context, asked map[string]string) (bool, error) { return db.HasRows(ctx, s, asked) }
	}
	switch l.System {
	case "esm":
		c.Endpoint, c.DomainID, c.Auth, c.Header = v.cfg.ESM.Endpoint, v.cfg.ESM.DomainID, source.TokenAuth(v.tokens), v.esm.Header()
	case "bss":
		c.Endpoint, c.DomainID, c.Auth = v.cfg.BSS.Endpoint, v.cfg.BSS.DomainID, v.bssAuth
		c.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}
	case "bms":
		c.Endpoint, c.DomainID, c.ProjectID, c.Auth = v.cfg.BMS.Endpoint, v.cfg.ESM.DomainID, v.cfg.BMS.ProjectID, source.TokenAuth(v.tokens)
		c.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}
	}
	client, err := list.New(v.transport, s, &l, c)
	if err != nil {
		return nil, withCode(exitUsage, fmt.Errorf("stream %s: %w", s.Name, err))
	}
	return client, nil
}

// valuesOf reads what the list is asked by from db's tables: once for all windows of a run. If there is nothing because what fills the
// tables was never pulled, it is an error: the list would be published as empty.
func valuesOf(s *schemas.Stream, db *postgres.DB) func(context.Context, schemas.Each) ([]string, error) {
	var mu sync.Mutex
	known := map[string][]string{}
	return func(ctx context.Context, e schemas.Each) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		if values, ok := known[e.Name]; ok {
			return values, nil
		}
		values, err := db.Distinct(ctx, e.From)
		if err == nil && len(values) == 0 {
			err = checkFilled(ctx, db, s, e)
		}
		if err != nil {
			return nil, err
		}
		known[e.Name] = values
		return values, nil
	}
}

// checkFilled fails unless one of the streams that the values come from was pulled.
func checkFilled(ctx context.Context, db *postgres.DB, s *schemas.Stream, e schemas.Each) error {
	var sources []string
	for _, c := range e.From {
		if c.Stream == s.Name {
			continue
		}
		sources = append(sources, c.Stream)
		scopes, err := db.Scopes(ctx, c.Stream)
		if err != nil {
			return err
		}
		for _, scope := range scopes {
			if windows, err := db.Windows(ctx, c.Stream, scope); err != nil || len(windows) > 0 {
				return err
			}
		}
	}
	return fmt.Errorf("%s is asked by %s, and %s was never pulled: pull that first (sdr-sync nightly --stream %s)",
		s.Name, e.Name, strings.Join(sources, " or "), strings.Join(sources, ","))
}

// probe reads the first page of a list that is asked by nothing that our tables must know.
func (v *vendor) probe(ctx context.Context, s *schemas.Stream) error {
	client, err := v.list(s, nil, false)
	if err != nil {
		return err
	}
	id, err := client.CreateJob(ctx, pipeline.WholeWindow().Request(v.cfg.ESM.DomainID))
	if err != nil {
		return err
	}
	page, err := client.Page(ctx, id, client.Start(id))
	if err == nil && page.Release != nil {
		page.Release()
	}
	return err
}

// bms returns the client of the bare metal tasks.
func (v *vendor) bms() (*bms.Client, error) {
	client, err := bms.New(v.transport, source.TokenAuth(v.tokens), bms.Config{Endpoint: v.cfg.BMS.Endpoint, ProjectID: v.cfg.BMS.ProjectID})
	return client, withCode(exitUsage, err)
}

// isDenied tells whether the vendor knows who asks, and forbids it.
func isDenied(err error) bool {
	var status *source.StatusError
	return errors.As(err, &status) && status.Status == http.StatusForbidden
}
