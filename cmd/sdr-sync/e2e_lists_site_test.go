package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

var allDictionaries = []string{"service_types", "service_resources", "resource_types", "usage_types", "measure_units"}

// An account that may not read the dictionaries loses nothing but the names, which a CSV of the user's then gives.
func TestListsDictionariesDenied(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, func(c *sandbox.Config) { c.DenyDictionaries = true })
	f := w.want(exitOK, "backfill", "--from", "2024-03", "--to", "2024-03", "--today", listDay)
	w.proof("2024-03-01", "2024-04-01")
	w.listProof("subscriptions")
	for _, name := range allDictionaries {
		if n := strings.Count(f.out, "note: "+name+": denied to this account"); n != 1 {
			t.Errorf("%s: %d notes, want one: %s", name, n, f)
		}
	}
	contains(t, f.out, "status 403", "denied")
	w.want(exitOK, "verify")
	w.noDebris()
	for _, names := range [][]string{{"service_types"}, {"dictionaries", "service_types"}} {
		contains(t, w.want(exitCredentials, nightly(listDay, names...)...).err, "status 403", "service_types")
	}
	contains(t, w.want(exitOK, nightly(listDay, "dictionaries")...).out, "note: service_types: denied") // a group is no name
	contains(t, w.want(exitOK, "doctor").out, "ok    BSS dictionaries", "denied to this account (403)")

	// Every code of records and subscriptions is listed.
	want := w.one(`SELECT count(*) FROM (
		SELECT 'service_type', cloud_service_type_code, '' FROM billing.sdr UNION SELECT 'service_type', cloud_service_type_code, '' FROM billing.subscription_current
		UNION SELECT 'resource_type', resource_type_code, cloud_service_type_code FROM billing.sdr
		UNION SELECT 'resource_type', resource_type_code, cloud_service_type_code FROM billing.subscription_current
		UNION SELECT 'usage_type', accumulate_factor_name, cloud_service_type_code FROM billing.sdr) codes`)
	var listed struct {
		Codes []struct{ Kind, Code, Service_type_code string }
	}
	if err := json.Unmarshal([]byte(w.want(exitOK, "dictionary", "unmapped", "--output", "json").out), &listed); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(len(listed.Codes)) != want || want == "0" {
		t.Errorf("%d codes without a name, want %s: %v", len(listed.Codes), want, listed.Codes)
	}
	contains(t, w.want(exitOK, "dictionary", "unmapped").out, "service_type", "hws.service.type.obs", "usage_type", "Duration")

	lines := "kind,code,name_en,name_zh,service_type_code\n"
	for _, c := range listed.Codes {
		lines += fmt.Sprintf("%s,%s,\"name, of %s\",,%s\n", c.Kind, c.Code, c.Code, c.Service_type_code)
	}
	loaded := w.load(exitOK, "\ufeff"+lines)
	contains(t, loaded.out, fmt.Sprintf("%d names loaded; 0 codes are left without one", len(listed.Codes)))
	if got := w.one(`SELECT name_en FROM billing.service_type WHERE service_type_code = 'hws.service.type.obs'`); got != "name, of hws.service.type.obs" {
		t.Errorf("the name of a service: %q", got)
	}
	// A bad file changes nothing; a good one replaces all.
	w.load(exitUsage, lines+"service_type,x,,,\n")
	if n := w.one(`SELECT count(*) FROM billing.unmapped_codes`); n != "0" {
		t.Errorf("%s codes are without a name after a file that was refused", n)
	}
	w.load(exitOK, "kind,code,name_en,name_zh\nservice_type,hws.service.type.obs,OBS,对象存储\n")
	if got := fmt.Sprint(w.ask(`SELECT service_type_code, name_en, name_zh FROM billing.service_type`)); got != "[[hws.service.type.obs OBS 对象存储]]" {
		t.Errorf("names of services: %s", got)
	}
	if n := w.one(`SELECT count(*) + 1 FROM billing.unmapped_codes`); n != want {
		t.Errorf("%s codes with the one that has a name, want %s", n, want)
	}
}

// load runs `dictionary load` for a file of the content.
func (w *world) load(code exitCode, content string) finished {
	w.t.Helper()
	path := filepath.Join(w.dir, "names.csv")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.want(code, "dictionary", "load", path)
}

// A file of names that can't be used is refused with the line that is at fault.
func TestListsBadNames(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	const header = "kind,code,name_en,name_zh,service_type_code\n"
	for _, c := range []struct{ name, content, says string }{
		{"empty", "", "names.csv"},
		{"no header", "service_type,a,A,B\n", `no column "kind"`},
		{"a column is missing", "kind,code,name_en\nservice_type,a,A\n", `no column "name_zh"`},
		{"an unknown kind", header + "service_type,a,A,B,\nservice,b,B,,\n", `names.csv:3: the kind "service"`},
		{"no code", header + "service_type,,A,B,\n", "names.csv:2: a code and at least one name"},
		{"no name", header + "service_type,a,A,B,\n\nservice_type,b, ,,\n", "names.csv:4: a code and at least one name"},
		{"named twice", header + "service_type,a,A,B,\nusage_type,a,A,B,\nservice_type,a,C,D,\n", "names.csv:4: service_type a is named in line 2 already"},
		{"too few cells", header + "service_type,a,A\n", "line 2"},
		{"a quote in the middle", header + "service_type,a,A \"B\",C,\n", "line 2"},
		{"a NUL in a name", header + "service_type,a,A\x00,B,\n", "names.csv:2"},
		{"bytes that are no text", header + "service_type,a,\xff\xfe,B,\n", "names.csv:2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			f := w.load(exitUsage, c.content)
			contains(t, f.err, c.says)
		})
	}
	w.t = t
	if n := w.one("SELECT count(*) FROM sdr_sync.code_name"); n != "0" {
		t.Errorf("%s names were loaded", n)
	}
	contains(t, w.want(exitUsage, "dictionary", "load", "/nowhere/names.csv").err, "no such file")
	contains(t, w.want(exitUsage, "dictionary", "load").err, "arg")
}

// A site of either generation works with every list configured: what it does not have is noted, once each.
func TestListsGenerations(t *testing.T) {
	t.Parallel()
	early := []string{
		"elbv3", "host_details", "host_vms", "network_device_metrics", "server_performance", "service_health", "tenant_resources", "vm_performance",
	}
	for _, generation := range []string{sandbox.Generation202503, sandbox.Generation202510} {
		t.Run(generation, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, func(c *sandbox.Config) { c.Generation = generation })
			delete(w.settings, "bss.endpoint") // what is new at this site is ESM
			configured := lists(isESM)
			for _, name := range configured {
				w.settings["streams."+name] = "{every: 1h}"
			}
			var missing, there []string
			for _, name := range configured {
				if generation == sandbox.Generation202510 && strings.Contains(" "+strings.Join(early, " ")+" ", " "+name+" ") {
					missing = append(missing, name)
				} else {
					there = append(there, name)
				}
			}
			f := w.want(exitOK, nightly(listDay)...)
			for _, name := range missing {
				if n := strings.Count(f.out, "note: "+name+": this site does not offer it (404)"); n != 1 {
					t.Errorf("%s: %d notes, want one: %s", name, n, f)
				}
			}
			if n := strings.Count(f.out, "does not offer"); n != len(missing) {
				t.Errorf("%d notes of what is not offered, want %d: %s", n, len(missing), f)
			}
			w.listProof(there...)
			w.want(exitOK, "verify")
			w.noDebris()
			for _, name := range missing {
				if n := w.one("SELECT count(*) FROM sdr_sync.window WHERE stream = $1", name); n != "0" {
					t.Errorf("%s: %s windows of what is not offered", name, n)
				}
				contains(t, w.want(exitIncomplete, nightly(listDay, name)...).err, name, "does not offer it", "404")
			}
			f = w.run("streams")
			for _, name := range configured {
				contains(t, f.out, name)
			}
		})
	}
}

// Both APIs of the subscriptions give the same rows in the columns that both have, whatever form numbers come in; what only v2 tells
// fills up when the setting changes, and every id stays.
func TestListsBothSubscriptionAPIs(t *testing.T) {
	t.Parallel()
	const both = `SELECT id, resource_id, resource_name, region_code, cloud_service_type_code, resource_type_code, resource_spec_code, project_code, product_id,
		main_resource_id, is_main_resource, status, status_name, valid_time, expire_time, next_operation_policy, renews FROM billing.subscription_current ORDER BY id`
	rows := map[string]string{}
	for _, c := range []struct {
		api     string
		strings bool
		keys    bool
	}{{"v1", false, false}, {"v1", true, true}, {"v2", false, true}, {"v2", true, false}} {
		w := newListWorld(t, many, func(s *sandbox.Config) { s.StringTotals = c.strings })
		w.settings["bss.api"] = c.api
		if c.keys {
			w.settings["bss.access_key"], w.settings["bss.secret_key"] = sandbox.DefaultAccessKey, sandbox.DefaultSecretKey
		}
		w.want(exitOK, nightly(listDay, "subscriptions")...)
		w.listProof("subscriptions")
		name := fmt.Sprintf("%s, numbers as texts %t, keys %t", c.api, c.strings, c.keys)
		rows[name] = fmt.Sprint(w.ask(both))
		other := sandbox.EndpointResourcesV2
		if c.api == "v2" {
			other = sandbox.EndpointResources
		}
		if calls := w.vendor.Stats().Calls; calls[other] != 0 {
			t.Errorf("%s: %d calls of the other API", name, calls[other])
		}
		if c.api == "v1" && c.strings {
			w.settings["bss.api"] = "v2"
			w.want(exitOK, nightly("2024-04-05", "subscriptions")...)
			w.listProof("subscriptions")
			if got := fmt.Sprint(w.ask(both)); got != rows[name] {
				t.Error("the rows of v2 after those of v1 differ")
			}
			if got := fmt.Sprint(w.ask(`SELECT count(*), count(*) FILTER (WHERE update_time IS NOT NULL AND enterprise_project IS NOT NULL), count(DISTINCT opened_reason), min(opened_reason)
				FROM billing.subscription_current`)); got != "[[700 700 1 changed]]" {
				t.Errorf("after v1 came v2: %s", got)
			}
		}
	}
	for name, got := range rows {
		if want := rows["v1, numbers as texts false, keys false"]; got != want {
			t.Errorf("%s: the rows differ from those of v1: got\n%.500s\nwant\n%.500s", name, got, want)
		}
	}
}

// Signatures go by the vendor's clock, however far it is off. A key that is refused is used once, whatever else would be asked.
func TestListsSignedCalls(t *testing.T) {
	t.Parallel()
	signed := func(w *world) (calls int64) {
		for e, n := range w.vendor.Stats().Calls {
			switch e {
			case sandbox.EndpointResources, sandbox.EndpointServiceTypes, sandbox.EndpointServiceResources, sandbox.EndpointResourceTypes,
				sandbox.EndpointUsageTypes, sandbox.EndpointMeasurements:
				calls += n
			}
		}
		return calls
	}
	keys := func(w *world, secret string) {
		w.settings["bss.access_key"], w.settings["bss.secret_key"] = sandbox.DefaultAccessKey, secret
	}
	for _, skew := range []time.Duration{-7 * time.Hour, 5 * time.Hour, 400 * 24 * time.Hour} {
		t.Run("the vendor's clock is "+skew.String()+" off", func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, func(c *sandbox.Config) { c.ClockSkew = skew })
			keys(w, sandbox.DefaultSecretKey)
			w.want(exitOK, nightly(listDay, "subscriptions", "usage_types")...)
			w.listProof("subscriptions", "usage_types")
			if n := w.vendor.Stats().Statuses["401"]; n != 0 {
				t.Errorf("%d signatures were rejected", n)
			}
		})
	}
	for _, streams := range [][]string{nil, {"subscriptions"}, {"dictionaries", "subscriptions"}} {
		t.Run(fmt.Sprintf("a wrong secret key, streams %v", streams), func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t)
			keys(w, "a-wrong-secret-key")
			f := w.want(exitCredentials, nightly(listDay, streams...)...)
			contains(t, f.err, "status 401", "signature does not match")
			if n := signed(w); n != 1 {
				t.Errorf("%d signed calls reached the vendor, want one", n)
			}
			if strings.Contains(f.out+f.err, "a-wrong-secret-key") {
				t.Error("the key shows in what the program prints")
			}
			if streams == nil { // what needs no key is published all the same
				w.proof("2024-04-01", listDay)
			}
			w.want(exitOK, "verify")
			keys(w, sandbox.DefaultSecretKey)
			w.want(exitOK, nightly(listDay, streams...)...)
			w.listProof("subscriptions")
			w.noDebris()
		})
	}
}
