package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// streamSDR is the stream of the metering records, which alone has sites, regions and query jobs.
const streamSDR = "sdr"

// part is one stream's part of a run.
type part struct {
	stream *schemas.Stream
	scopes []pipeline.Scope
	named  bool // by --stream, itself and not its group: what the site does not offer, or forbids, is an error then
}

// held is what the run needs the leases of.
func held(parts []part) []pipeline.StreamScope {
	var all []pipeline.StreamScope
	for _, p := range parts {
		for _, s := range p.scopes {
			all = append(all, pipeline.StreamScope{Stream: p.stream.Name, Scope: s})
		}
	}
	return all
}

// parts returns what a run is about: the streams that are named, else the metering records, and if BSS is configured the
// subscriptions and the dictionaries. They stand in the order in which they are pulled.
func (a *app) parts(named []string) ([]part, error) {
	if len(named) == 0 {
		return a.partsOf(func(s *schemas.Stream) bool {
			return s.Name == streamSDR || len(a.scopeTexts) == 0 && a.runsByDefault(s)
		}, false)
	}
	wanted, byName := map[string]bool{}, map[string]bool{}
	for _, name := range named {
		name = strings.TrimSpace(name)
		found := false
		for _, s := range schemas.All() {
			if name != "" && (s.Name == name || s.Group == name) {
				wanted[s.Name], found = true, true
				byName[s.Name] = byName[s.Name] || s.Name == name
			}
		}
		if !found {
			return nil, unknownStream("--stream", name)
		}
	}
	if len(a.scopeTexts) > 0 && !wanted[streamSDR] {
		return nil, withCode(exitUsage, errors.New("--scope is about the metering records, and --stream names none of them: lists have no sites"))
	}
	parts, err := a.partsOf(func(s *schemas.Stream) bool { return wanted[s.Name] }, false)
	for i := range parts {
		parts[i].named = byName[parts[i].stream.Name]
	}
	return parts, err
}

// runsByDefault tells whether nightly and backfill pull the stream without its being named.
func (a *app) runsByDefault(s *schemas.Stream) bool {
	return s.Default && (s.List == nil || s.List.System != "bss" || a.cfg.BSS.Endpoint != "")
}

func unknownStream(where, name string) error {
	var names []string
	for _, s := range schemas.All() {
		names = append(names, s.Name)
		if s.Group != "" && !slices.Contains(names, s.Group) {
			names = append(names, s.Group)
		}
	}
	return withCode(exitUsage, fmt.Errorf("%s: there is no stream %q%s (sdr-sync streams lists them)", where, name, suggestion(name, names, ".")))
}

func (a *app) partsOf(wanted func(*schemas.Stream) bool, named bool) ([]part, error) {
	var parts []part
	for _, s := range schemas.All() {
		if !wanted(s) {
			continue
		}
		scopes := []pipeline.Scope{pipeline.Tenant}
		if s.Name == streamSDR {
			var err error
			if scopes, err = a.scopes(); err != nil {
				return nil, err
			}
		}
		parts = append(parts, part{stream: s, scopes: scopes, named: named})
	}
	return parts, nil
}

// allParts is every stream, for what looks at all that is stored. With --scope it is the metering records alone.
func (a *app) allParts() ([]part, error) {
	return a.partsOf(func(s *schemas.Stream) bool { return s.Name == streamSDR || len(a.scopeTexts) == 0 }, false)
}

// needs are the settings that the parts can't do without.
func needs(parts []part) []Need {
	wanted := []Need{NeedVendor, NeedDatabase, NeedLake, NeedLanding}
	for _, p := range parts {
		if p.stream.List == nil {
			continue
		}
		switch p.stream.List.System {
		case "bss":
			wanted = append(wanted, NeedBSS)
		case "bms":
			wanted = append(wanted, NeedBMS)
		}
	}
	return wanted
}

// dueParts adds the streams that the configuration's section streams wants pulled by now.
func (a *app) dueParts(ctx context.Context, db *postgres.DB, parts []part, now time.Time) ([]part, error) {
	last, err := db.LastSync(ctx)
	if err != nil {
		return nil, err
	}
	due := func(s *schemas.Stream) bool {
		c, configured := a.cfg.Streams[s.Name]
		if !configured {
			return false
		}
		// A nightly run that begins a little earlier than the night before still is the next night's.
		early := min(c.Every/10, time.Hour)
		age := now.Sub(last[s.Name].Good)
		return last[s.Name].Good.IsZero() || age >= c.Every-early || age < -early // the clock was set back
	}
	standing := func(s *schemas.Stream) bool {
		return slices.ContainsFunc(parts, func(p part) bool { return p.stream.Name == s.Name })
	}
	return a.partsOf(func(s *schemas.Stream) bool { return standing(s) || due(s) }, false)
}

// checkStreams refuses streams in the configuration that do not exist or lack their system's settings.
func (a *app) checkStreams() error {
	for _, name := range sortedKeys(a.cfg.Streams) {
		s := schemas.ByName(name)
		if s == nil {
			return unknownStream("streams", name)
		}
		one := []part{{stream: s}}
		if err := errors.Join(a.cfg.Validate(needs(one)...), a.checkSettings(one)); err != nil {
			return err
		}
	}
	return nil
}

// checkSettings makes sure that what the parts are asked by is configured.
func (a *app) checkSettings(parts []part) error {
	for _, p := range parts {
		if p.stream.List == nil {
			continue
		}
		for _, e := range p.stream.List.Each {
			if e.Setting != "" && len(e.Values) == 0 && len(a.cfg.setting(e.Setting)) == 0 {
				return withCode(exitUsage, fmt.Errorf("stream %s: %s is not set: say what to ask for", p.stream.Name, e.Setting))
			}
		}
	}
	return nil
}

// setting returns the list of texts under a key of the configuration.
func (c *Config) setting(path string) []string {
	for _, k := range configKeys() {
		if texts, ok := k.field(c).(*[]string); ok && k.path == path {
			return *texts
		}
	}
	return nil
}

// streamInfo is one line of `streams`.
type streamInfo struct {
	Stream      string     `json:"stream"`
	Title       string     `json:"title"`
	Shape       string     `json:"shape"`
	Document    string     `json:"document"`
	Generations []string   `json:"generations,omitempty"`
	Method      string     `json:"method"`
	Path        string     `json:"path"`
	Table       string     `json:"table"`
	Paging      string     `json:"paging"`
	Rate        string     `json:"rate"`
	RateClass   string     `json:"rate_class,omitempty"`
	Runs        string     `json:"runs"`
	LastSync    *time.Time `json:"last_sync,omitempty"`
	LastState   string     `json:"last_state,omitempty"`
	Records     int64      `json:"records,omitempty"`
}

func (a *app) streamsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "streams",
		Short: "List what can be pulled: document, method and path, table, paging, rate, last sync",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			last := map[string]postgres.LastSync{}
			if a.hasDatabase() {
				err := a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) (err error) {
					last, err = db.LastSync(ctx)
					return err
				})
				if err != nil {
					return err
				}
			}
			var infos []streamInfo
			for _, s := range schemas.All() {
				infos = append(infos, a.describe(s, last[s.Name]))
			}
			return a.printStreams(infos)
		},
	}
}

// describe says what a stream is, how it is asked for, and when it last was.
func (a *app) describe(s *schemas.Stream, last postgres.LastSync) streamInfo {
	i := streamInfo{
		Stream: s.Name, Title: s.Title, Shape: string(s.Shape), Document: s.Document, Table: s.Table,
		Method: "POST", Path: "/meter/v1/{domain_id}/query-jobs", Paging: "marker, 200", Rate: "-", Runs: a.runs(s),
	}
	if s.List != nil {
		l := s.List.Variant(a.cfg.BSS.API)
		i.Method, i.Path, i.Generations, i.RateClass = l.Method, l.Path, l.Generations, l.Rate.Class
		i.Paging = l.Paging.Style
		if l.Paging.Style != "none" {
			i.Paging = fmt.Sprintf("%s, %d", l.Paging.Start, l.Paging.Size)
		}
		i.Rate = "unlimited"
		if l.Rate.PerMinute > 0 {
			i.Rate = fmt.Sprintf("%d/min", l.Rate.PerMinute)
		}
	}
	if !last.At.IsZero() {
		i.LastSync, i.LastState, i.Records = &last.At, last.State, last.Records
	}
	return i
}

// runs says when a stream is pulled without being named.
func (a *app) runs(s *schemas.Stream) string {
	if a.runsByDefault(s) {
		return "nightly, backfill"
	}
	if c, ok := a.cfg.Streams[s.Name]; ok {
		return "every " + formatDuration(c.Every)
	}
	return "--stream"
}

func (a *app) printStreams(infos []streamInfo) error {
	if a.output == "json" {
		return a.printJSON(map[string]any{"streams": infos})
	}
	t := a.table("STREAM", "SHAPE", "TABLE", "CALL", "PAGING", "RATE", "RATE CLASS", "RUNS", "LAST SYNC", "RECORDS", "DOCUMENT")
	for _, i := range infos {
		last := "never"
		if i.LastSync != nil {
			last = i.LastSync.UTC().Format(time.DateTime) + " " + i.LastState
		}
		document, _, titled := strings.Cut(i.Document, `" (`) // the title; editions and sections are in the JSON
		if titled {
			document += `"`
		} else {
			document, _, _ = strings.Cut(document, " (")
		}
		t.row(i.Stream, i.Shape, i.Table, i.Method+" "+i.Path, i.Paging, i.Rate, i.RateClass, i.Runs, last, i.Records, document)
	}
	return t.flush()
}
