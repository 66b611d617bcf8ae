package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// many makes lists of more than one page: 2 of subscriptions, 3 of devices, 2 of audit logs.
func many(c *sandbox.Config) {
	c.Subscriptions, c.Devices, c.EventsPerDay = 700, 2500, 400
}

// What stands when faults begin to hit: nothing, or what the vendor held before.
const (
	atFirst = false
	later   = true
)

// Whatever befalls a list, a run ends with the vendor's truth, or publishes nothing and says what to do; a run after the trouble ends
// with the truth.
func TestListsFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		stream   string
		fault    string
		standing bool
		settings map[string]string
		code     exitCode
		says     []string // on standard error
		jobs     string   // states of the pulls of the run, where it matters
	}{
		{name: "subscriptions move once", stream: "subscriptions", fault: "resources:2:shift", jobs: "moved published"},
		{name: "subscriptions move twice", stream: "subscriptions", fault: "resources:2:shift;resources:4:shift", jobs: "moved moved published"},
		{
			name: "subscriptions move all the time", stream: "subscriptions", fault: "resources:2x*:shift", code: exitIncomplete,
			says: []string{"subscriptions", "total was", "nothing was published", "run again"}, jobs: "moved moved moved",
		},
		{
			name: "subscriptions that stand move all the time", stream: "subscriptions", fault: "resources:2x*:shift", standing: later,
			code: exitIncomplete, says: []string{"nothing was published"}, jobs: "moved moved moved",
		},
		{name: "a subscription comes twice", stream: "subscriptions", fault: "resources:2:repeat", jobs: "moved published"},
		{
			name: "subscriptions come twice all the time", stream: "subscriptions", fault: "resources:2x*:repeat", code: exitIncomplete,
			says: []string{"have the same id", "nothing was published"}, jobs: "moved moved moved",
		},
		{name: "the second page is empty", stream: "subscriptions", fault: "resources:2:empty", jobs: "moved published"},
		{name: "half of the list is gone from the second page on", stream: "subscriptions", fault: "resources:2:half", jobs: "moved published"},
		{name: "devices move once", stream: "physical_devices", fault: "physical_devices:2:shift", jobs: "moved published"},
		{name: "a device comes twice", stream: "physical_devices", fault: "physical_devices:3:repeat", jobs: "moved published"},
		{
			name: "devices move all the time", stream: "physical_devices", fault: "physical_devices:2x*:shift", code: exitIncomplete,
			says: []string{"physical_devices", "nothing was published"}, jobs: "moved moved moved",
		},
		{name: "a dictionary moves once", stream: "resource_types", fault: "resource_types:2:shift", jobs: "moved published"},
		{name: "audit logs move once", stream: "audit_logs", fault: "audit_logs:2:shift", jobs: "moved published"},
		{
			name: "audit logs move all the time", stream: "audit_logs", fault: "audit_logs:2x*:shift", code: exitIncomplete,
			says: []string{"audit_logs [2024-04-01, 2024-04-04)", "nothing was published"}, jobs: "moved moved moved",
		},

		{name: "429", stream: "subscriptions", fault: "resources:1:status=429;resources:2:status=429,retry_after=1", jobs: "published"},
		{name: "500 and 503", stream: "subscriptions", fault: "resources:1:status=500;resources:3x2:status=503", jobs: "published"},
		{name: "bodies are cut", stream: "subscriptions", fault: "resources:1:truncate;resources:3:truncate_json", jobs: "published"},
		{name: "connections are reset", stream: "subscriptions", fault: "resources:1:reset;resources:3:reset_body", jobs: "published"},
		{name: "maintenance page, garbage, nothing", stream: "subscriptions", fault: "resources:1:html;resources:3:garbage;resources:4:empty200", jobs: "published"},
		{name: "401 in the middle", stream: "subscriptions", fault: "resources:2:unauthorized", jobs: "published"},
		{name: "401 in the middle of devices", stream: "physical_devices", fault: "physical_devices:2:unauthorized", jobs: "published"},
		{name: "devices are cut and throttled", stream: "physical_devices", fault: "physical_devices:1:truncate;physical_devices:3:status=429", jobs: "published"},
		{name: "audit logs are cut and throttled", stream: "audit_logs", fault: "audit_logs:1:status=429;audit_logs:3:truncate_json", jobs: "published"},
		{name: "bare metal servers fail now and then", stream: "bms_servers", fault: "bms_server:2:status=500;bms_server:4:truncate", jobs: "published"},
		{
			name: "a dictionary is down", stream: "service_types", fault: "service_types:*:status=503", settings: map[string]string{"http.retry_for": "1s"},
			code: exitIncomplete, says: []string{"service_types", "gave up", "status 503"}, jobs: "failed",
		},
		{
			name: "a redirect", stream: "service_types", fault: "service_types:*:redirect=http://127.0.0.1:9/x", code: exitIncomplete,
			says: []string{"redirect"}, jobs: "failed",
		},
		{name: "400", stream: "subscriptions", fault: "resources:2:status=400", standing: later, code: exitIncomplete, says: []string{"status 400"}, jobs: "failed"},
		{name: "403", stream: "subscriptions", fault: "resources:2:status=403", standing: later, code: exitCredentials, says: []string{"status 403"}, jobs: "failed"},
		{name: "404 of a list that the site had", stream: "physical_devices", fault: "physical_devices:*:status=404", standing: later, code: exitIncomplete, says: []string{"physical_devices", "404"}, jobs: "failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			size := many
			if c.stream == "bms_servers" { // asked for one by one
				size = func(*sandbox.Config) {}
			}
			w := newListWorld(t, size)
			usual := w.settings["http.retry_for"]
			if c.standing || c.stream == "bms_servers" {
				w.want(exitOK, nightly(listDay, "subscriptions", c.stream)...)
				w.vendor.AdvanceNight()
			}
			if c.standing {
				before, had := w.holdings(), len(strings.Fields(w.listJobs(c.stream)))
				w.hit(c.fault, c.settings)
				f := w.want(c.code, nightly(listDay, c.stream)...)
				contains(t, f.err, c.says...)
				sameAs(t, "the run that failed", before, w.holdings())
				if got := strings.Join(strings.Fields(w.listJobs(c.stream))[had:], " "); got != c.jobs {
					t.Errorf("pulls: got %q, want %q", got, c.jobs)
				}
			} else {
				jobs := w.listJobs(c.stream)
				w.hit(c.fault, c.settings)
				f := w.want(c.code, nightly(listDay, c.stream)...)
				if c.code == exitOK {
					w.listProof(c.stream)
				} else {
					contains(t, f.err, c.says...)
					if n := w.one("SELECT count(*) FROM sdr_sync.window WHERE stream = $1", c.stream); n != "0" {
						t.Errorf("%s windows are published", n)
					}
				}
				w.hides(f)
				if got := strings.TrimSpace(strings.TrimPrefix(w.listJobs(c.stream), jobs)); got != c.jobs {
					t.Errorf("pulls: got %q, want %q", got, c.jobs)
				}
			}
			for _, f := range w.vendor.Faults() {
				if f.Hits == 0 {
					t.Errorf("the fault %s never hit", f.Fault)
				}
			}

			w.vendor.ClearFaults()
			w.settings["http.retry_for"] = usual
			w.want(exitOK, nightly(listDay, c.stream)...)
			w.listProof(c.stream)
			w.want(exitOK, "verify")
			w.noDebris()
		})
	}
}

// hit sets faults and settings.
func (w *world) hit(fault string, settings map[string]string) {
	w.t.Helper()
	w.fault(fault)
	for key, value := range settings {
		w.settings[key] = value
	}
}

// A row that the list skips while it is read, all counts agreeing, is never closed.
func TestListsSkippedRow(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, many)
	w.want(exitOK, nightly(listDay, "subscriptions")...)
	skipped := w.vendor.Subscriptions()[500].ID // the first row of page 2 moves up to page 1, which is read already
	w.fault("resources:2:skip")
	f := w.want(exitOK, nightly("2024-04-05", "subscriptions")...)
	contains(t, f.out, "1 rows were absent for the first time")
	state := func() string {
		return fmt.Sprint(w.ask(`SELECT opened_reason, valid_to IS NULL, absent_since IS NULL FROM billing.subscription WHERE id = $1`, skipped))
	}
	if got := state(); got != "[[appeared t f]]" {
		t.Errorf("the skipped row: got %s, want it to stand, absent", got)
	}
	if n := w.one(`SELECT count(*) FROM billing.subscription WHERE valid_to IS NOT NULL`); n != "0" {
		t.Errorf("%s rows closed", n)
	}
	w.vendor.ClearFaults()
	w.want(exitOK, nightly("2024-04-06", "subscriptions")...)
	if got := state(); got != "[[appeared t t]]" {
		t.Errorf("the skipped row: got %s, want it to stand as if nothing had been", got)
	}
	w.listProof("subscriptions")
	w.want(exitOK, "verify")
}

// Too much gone at once is not believed: the old stays until --accept-shrink says otherwise.
func TestListsMassDisappearance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, stream, fault string
		says                string
		rows                int // after --accept-shrink
	}{
		{"no subscriptions", "subscriptions", "resources:*:empty", "210 of 210", 0},
		{"half of the subscriptions", "subscriptions", "resources:*:half", "105 of 210", 105},
		{"no devices", "physical_devices", "physical_devices:*:empty", "31", 0},
		{"fewer than half of the devices", "physical_devices", "physical_devices:*:half", "31", 15},
		{"no audit logs", "audit_logs", "audit_logs:*:empty", "audit_logs", 0},
		{"no names", "service_types", "service_types:*:empty", "24", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, func(c *sandbox.Config) { c.Subscriptions, c.Devices = 210, 31 })
			s := nightly(listDay, c.stream)
			w.want(exitOK, s...)
			before := w.holdings()
			w.fault(c.fault)
			for range 2 {
				f := w.want(exitIncomplete, s...)
				contains(t, f.err, c.stream, c.says, "--accept-shrink")
				sameAs(t, "the refused run", before, w.holdings())
			}
			w.want(exitOK, "verify")
			w.want(exitOK, append(s, "--accept-shrink")...)
			w.want(exitOK, append(s, "--accept-shrink")...) // a history believes it the second time
			table := map[string]string{"subscriptions": "billing.subscription_current", "physical_devices": "billing.physical_device", "audit_logs": "billing.audit_log", "service_types": "billing.service_type_name"}[c.stream]
			if got := w.one("SELECT count(*) FROM " + table); got != fmt.Sprint(c.rows) {
				t.Errorf("got %s rows, want %d", got, c.rows)
			}
			w.want(exitOK, "verify")
			w.vendor.ClearFaults()
			w.want(exitOK, s...)
			w.listProof(c.stream)
			w.want(exitOK, "verify")
			w.noDebris()
		})
	}
}

// One list that fails keeps no other from being published, and the run says which.
func TestListsOneFails(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	w.fault("service_types:*:status=400;physical_devices:*:status=400")
	f := w.want(exitIncomplete, nightly(listDay, "subscriptions", "dictionaries", "physical_devices", "elbv3", "bms_servers")...)
	contains(t, f.err, "service_types", "physical_devices", "status 400")
	w.listProof("subscriptions", "service_resources", "resource_types", "usage_types", "measure_units", "elbv3", "bms_servers")
	for _, name := range []string{"service_types", "physical_devices"} {
		if got := w.listJobs(name); got != "failed" {
			t.Errorf("%s: pulls %q, want one that failed", name, got)
		}
	}
	w.want(exitOK, "verify")
	w.vendor.ClearFaults()
	w.want(exitOK, nightly(listDay, "service_types", "physical_devices")...)
	w.listProof("service_types", "physical_devices")
	w.noDebris()
}

// One call in ten of every list fails, of whatever kind.
func TestListsUnreliableVendor(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, func(c *sandbox.Config) { c.FailRate, c.NoListLimits = 0.1, true })
	streams := []string{"subscriptions", "usage_types", "physical_devices", "host_metrics", "external_tenant_resources", "audit_logs", "tenant_resources"}
	w.want(exitOK, nightly(listDay, streams...)...)
	w.listProof(streams...)
	w.noDebris()
	if w.vendor.Stats().Faults == 0 {
		t.Error("no call failed")
	}
}

// A list whose server does not heed the place that is asked for, or tells no total, is not taken for whole when it is not.
func TestListsOddServers(t *testing.T) {
	t.Parallel()
	page := func(total string, ids ...string) string {
		var rows []string
		for _, id := range ids {
			rows = append(rows, fmt.Sprintf(`{"device_id":%q,"name":"n","device_type":"server"}`, id))
		}
		return `{` + total + `"list":[` + strings.Join(rows, ",") + `]}`
	}
	for _, c := range []struct {
		name   string
		answer func(offset string) string
		code   exitCode
		says   string
		rows   string
	}{
		{"the same page for ever", func(string) string { return page(`"total":10,`, "a", "b") }, exitIncomplete, "does the server heed offset_value?", "0"},
		{"a total that is never reached", func(offset string) string {
			if offset == "0" {
				return page(`"total":"10",`, "a", "b")
			}
			return page(`"total":"10",`)
		}, exitIncomplete, "its total is 10, and 2 rows were read", "0"},
		{"no total", func(offset string) string {
			if offset == "0" {
				return page("", "a", "b")
			}
			return page("")
		}, exitOK, "", "2"},
		{"words for a total, as in a sample", func(offset string) string {
			if offset == "0" {
				return page(`"total":"Total number",`, "a", "b", "c")
			}
			return page(`"total":"Total number",`)
		}, exitOK, "", "3"},
		{"two rows of one key", func(string) string { return page(`"total":2,`, "a", "a") }, exitIncomplete, "have the same device_id", "0"},
		{"no list", func(string) string { return `{"total":2}` }, exitIncomplete, `answer has no \"list\"`, "0"},
		{"an error with status 200", func(string) string { return `{"error_code":"AS.0001","error_msg":"no"}` }, exitIncomplete, "AS.0001", "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t)
			w.settings["http.retry_for"] = "500ms"
			w.gate.replaceAnswers(sandbox.EndpointPhysicalDevices, func(rw http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprint(rw, c.answer(r.URL.Query().Get("offset_value")))
			})
			f := w.want(c.code, nightly(listDay, "physical_devices")...)
			if !strings.Contains(strings.ReplaceAll(f.err, `\"`, `"`), strings.ReplaceAll(c.says, `\"`, `"`)) {
				t.Errorf("%q is missing in %s", c.says, f)
			}
			if got := w.one(`SELECT count(*) FROM billing.physical_device`); got != c.rows {
				t.Errorf("got %s rows, want %s", got, c.rows)
			}
			w.gate.forget()
			w.want(exitOK, append(nightly(listDay, "physical_devices"), "--accept-shrink")...)
			w.listProof("physical_devices")
		})
	}
}
