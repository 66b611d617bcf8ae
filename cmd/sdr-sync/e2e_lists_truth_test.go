package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Every stream, pulled by name in one night, ends with what the vendor holds in Postgres and in Parquet; the same again writes a line in
// the ledger for each list, and nothing else.
func TestListsHoldTheTruth(t *testing.T) {
	t.Parallel()
	for number, c := range []struct {
		name   string
		change func(*sandbox.Config)
	}{
		{"as in both documents", func(*sandbox.Config) {}},
		{"as in the document of 2025-03, numbers as texts", func(c *sandbox.Config) {
			c.Generation, c.StringTotals = sandbox.Generation202503, true
		}},
		{"some rows can't be parsed", func(c *sandbox.Config) { c.BadEvery = 150 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, c.change)
			var all []string
			for _, s := range schemas.All() {
				all = append(all, s.Name)
			}
			f := w.want(exitOK, nightly(listDay, all...)...)
			w.proof("2024-04-01", listDay)
			w.listProof(lists(isAny)...)
			w.noDebris()
			w.want(exitOK, "verify")
			for _, name := range lists(isAny) {
				if !strings.Contains(f.out, "\n"+name+" ") {
					t.Errorf("the summary does not tell of %s: %s", name, f)
				}
			}
			for _, name := range allDictionaries {
				if most := w.vendor.Stats().MaxPerSecond[endpointName(name, "")]; most < 1 || most > 5 {
					t.Errorf("%s was called up to %d times within a second, want 1 to 5", name, most)
				}
			}
			if refused := w.vendor.Stats().Throttled; len(refused) > 0 {
				t.Errorf("the vendor refused calls for coming too often: %v", refused)
			}

			before, pulls := w.fingerprint(), map[string]string{}
			standing := w.one(`SELECT string_agg(window_id || ' ' || xmin, ',' ORDER BY window_id) FROM sdr_sync.window WHERE unit = 'whole'`)
			for _, name := range lists(isWhole) {
				pulls[name] = w.pulls(name)
			}
			again := all
			if number > 0 { // its sixty calls a minute are what this test waits for
				again = slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == "cloud_service_capacity" })
			}
			contains(t, w.want(exitOK, nightly(listDay, again...)...).out, "nothing changed")
			sameAs(t, "the second run", before, w.fingerprint())
			if got := w.one(`SELECT string_agg(window_id || ' ' || xmin, ',' ORDER BY window_id) FROM sdr_sync.window WHERE unit = 'whole'`); got != standing {
				t.Errorf("the second run wrote to the windows of whole lists: before %s, after %s", standing, got)
			}
			for name, before := range pulls {
				if got := w.pulls(name); before != "1 1" || got != "2 2" {
					t.Errorf("%s: got %s lines in the ledger and the snapshot log after %s, want one more of each", name, got, before)
				}
				if got := w.listJobs(name); got != "published unchanged" {
					t.Errorf("%s: pulls ended as %q", name, got)
				}
			}
			w.noDebris()
		})
	}
}

// What runs by default is the metering records, the subscriptions and the dictionaries; and the codes of both have names then, but for
// the one that the vendor names nowhere.
func TestListsByDefault(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	f := w.want(exitOK, "backfill", "--from", "2024-03", "--to", "2024-03", "--today", listDay)
	w.proof("2024-03-01", "2024-04-01")
	byDefault := []string{"subscriptions", "service_types", "service_resources", "resource_types", "usage_types", "measure_units"}
	w.listProof(byDefault...)
	if got := w.one(`SELECT string_agg(DISTINCT stream, ' ') FROM sdr_sync.job`); len(strings.Fields(got)) != 1+len(byDefault) {
		t.Errorf("pulled by default: %s; %s", got, f)
	}
	if got := fmt.Sprint(w.ask(`SELECT kind, code FROM billing.unmapped_codes`)); got != "[[resource_type hws.resource.type.rds.volume]]" {
		t.Errorf("codes without a name: %s", got)
	}
	names := w.ask(`SELECT name_en, name_zh FROM billing.service_type WHERE service_type_code = 'hws.service.type.obs'`)
	if got := fmt.Sprint(names); got != "[[Object Storage Service 对象存储服务]]" {
		t.Errorf("names of a service: %s", got)
	}
	// Without the settings of BSS neither is asked for; with --scope the metering records alone are.
	w.want(exitOK, append(nightly(listDay), "--scope", theScope.String())...)
	for _, key := range []string{"bss.endpoint", "bss.domain_id"} {
		delete(w.settings, key)
	}
	w.want(exitOK, nightly(listDay)...)
	for _, name := range byDefault {
		if got := w.pulls(name); got != "1 1" {
			t.Errorf("%s was pulled again: %s", name, got)
		}
	}
	contains(t, w.want(exitUsage, nightly(listDay, "subscriptions")...).err, "bss.endpoint")
}
