package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// The section streams says what else runs nightly: when it is due, and not before.
func TestListsDue(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	delete(w.settings, "bss.endpoint") // only what is configured, beside the metering records
	w.settings["sync.lookback"] = "1d"
	w.settings["streams.physical_devices"] = "{every: 24h}"
	w.settings["streams.audit_logs"] = "{every: 3d}"
	w.settings["streams.elbv3"] = "{every: 1w}"
	counts := func() string {
		return strings.Join([]string{w.listJobs("physical_devices"), w.listJobs("audit_logs"), w.listJobs("elbv3")}, "|")
	}
	for _, c := range []struct{ today, want string }{
		{"2024-04-04", "published|published|published"},
		{"2024-04-04", "published|published|published"},
		{"2024-04-05", "published unchanged|published|published"},
		{"2024-04-06", "published unchanged unchanged|published|published"},
		{"2024-04-07", "published unchanged unchanged unchanged|published published|published"},
		{"2024-04-11", "published unchanged unchanged unchanged unchanged|published published published|published unchanged"},
	} {
		w.today.set(c.today)
		w.want(exitOK, nightly(c.today)...)
		if got := counts(); got != c.want {
			t.Errorf("on %s: pulls of devices, logs and clusters %q, want %q", c.today, got, c.want)
		}
	}
	// A stream that runs seldom leaves no gap, however short the lookback.
	if got := w.one(`SELECT string_agg(from_date || ' ' || to_date, ', ') FROM sdr_sync.window WHERE stream = 'audit_logs'`); got != "2024-04-01 2024-04-11" {
		t.Errorf("windows of the logs: %s", got)
	}
	w.listProof("physical_devices", "audit_logs", "elbv3")
	// A pull that fails is due again at once; naming streams asks for those alone, due or not.
	w.fault("physical_devices:*:status=400")
	w.today.set("2024-04-12")
	w.want(exitIncomplete, nightly("2024-04-12")...)
	w.vendor.ClearFaults()
	w.want(exitOK, nightly("2024-04-12")...)
	if got := w.listJobs("physical_devices"); !strings.HasSuffix(got, "failed unchanged") {
		t.Errorf("pulls of devices: %s", got)
	}
	sdr := w.one(`SELECT count(*) FROM sdr_sync.job WHERE stream = 'sdr'`)
	w.want(exitOK, nightly("2024-04-12", "elbv3")...)
	if got := w.one(`SELECT count(*) FROM sdr_sync.job WHERE stream = 'sdr'`); got != sdr || !strings.HasSuffix(w.listJobs("elbv3"), "unchanged unchanged") {
		t.Errorf("a named stream: %s jobs of metering records after %s; pulls of it %s", got, sdr, w.listJobs("elbv3"))
	}
	w.want(exitOK, "verify")
	w.noDebris()
}

// What is stored by day leaves no gap either if it runs seldom.
func TestListsDueByDay(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	delete(w.settings, "bss.endpoint")
	w.settings["sync.lookback"] = "1d"
	w.settings["streams.server_performance"] = "{every: 5d}"
	for _, today := range []string{"2024-04-04", "2024-04-09"} {
		w.today.set(today)
		w.want(exitOK, nightly(today)...)
	}
	if got := w.one(`SELECT string_agg(from_date::text, ' ' ORDER BY from_date) FROM sdr_sync.window WHERE stream = 'server_performance'`); got != "2024-04-03 2024-04-04 2024-04-05 2024-04-06 2024-04-07 2024-04-08" {
		t.Errorf("windows: %s", got)
	}
	w.listProof("server_performance")
}

// Streams that do not exist, or lack what they are asked by, are refused before anything is touched.
func TestListsRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*world)
		args   []string
		says   []string
	}{
		{"an unknown stream is named", func(*world) {}, nightly(listDay, "audit_log"), []string{`no stream "audit_log"`, "audit_logs"}},
		{"one of several is unknown", func(*world) {}, nightly(listDay, "sdr", "subscription"), []string{`no stream "subscription"`, "subscriptions"}},
		{"a configured stream is unknown", func(w *world) { w.settings["streams.devices"] = "{every: 1d}" }, nightly(listDay), []string{`no stream "devices"`, "streams"}},
		{"no settings of BSS", func(w *world) { delete(w.settings, "bss.endpoint") }, nightly(listDay, "subscriptions"), []string{"bss.endpoint"}},
		{"no settings of BMS", func(w *world) { delete(w.settings, "bms.project_id") }, nightly(listDay, "bms_servers"), []string{"bms.project_id"}},
		{"a configured stream lacks its settings", func(w *world) {
			delete(w.settings, "bms.project_id")
			w.settings["streams.bms_servers"] = "{every: 1d}"
		}, nightly(listDay), []string{"bms.project_id"}},
		{"nothing to ask for", func(w *world) { delete(w.settings, "esm.share_ids") }, nightly(listDay, "service_health"), []string{"service_health", "esm.share_ids"}},
		{"a key pair by half", func(w *world) { w.settings["bss.access_key"] = "AK" }, nightly(listDay, "subscriptions"), []string{"bss.secret_key"}},
		{"an API that is none", func(w *world) { w.settings["bss.api"] = "v3" }, nightly(listDay, "subscriptions"), []string{"bss.api", "v1 or v2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t)
			c.change(w)
			f := w.want(exitUsage, c.args...)
			contains(t, f.err, c.says...)
			if n := w.one(`SELECT count(*) FROM sdr_sync.run`); n != "0" {
				t.Errorf("%s runs are in the ledger", n)
			}
			for e, calls := range w.vendor.Stats().Calls {
				if calls > 0 {
					t.Errorf("%d calls of %s", calls, e)
				}
			}
		})
	}
}

// TestListCommands compares what commands print about lists with testdata/lists.golden. Run it with -update to rewrite that.
func TestListCommands(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	w.settings["streams.audit_logs"] = "{every: 1d}"
	w.settings["streams.tenant_resources"] = "{every: 12h}"
	w.settings["sync.parallel"] = "1"
	g := golden{w: w, t: t}
	g.show(exitOK, nightly(listDay, "subscriptions,measure_units,audit_logs,server_performance,tenant_resources")...)
	w.vendor.AdvanceNight()
	w.today.set(nextDay)
	g.both(exitOK, nightly(nextDay, "subscriptions,measure_units,tenant_resources")...)
	w.fault("resources:*:empty")
	g.show(exitIncomplete, nightly(nextDay, "subscriptions")...)
	w.vendor.ClearFaults()
	g.show(exitUsage, nightly(nextDay, "no_such_stream")...)
	g.both(exitOK, "status", "--today", nextDay)
	g.show(exitOK, "export")
	g.show(exitOK, "verify")
	g.both(exitOK, "dictionary", "unmapped")
	g.both(exitOK, "bms", "job", sandbox.BMSJobSucceeds)
	administer(t, w.admin, `INSERT INTO sdr_sync.lease (stream, site, region, token, holder, acquired_at, expires_at)
		VALUES ('subscriptions', 'tenant', '', 7, 'billing-1|boot|pid:[1]|4711|99', '2024-04-16 01:00:00+00', '2124-04-16 01:01:00+00')`)
	g.both(exitOK, "lease", "list")
	g.show(exitHeld, nightly(nextDay, "subscriptions")...)
	g.show(exitOK, "lease", "release", "--stream", "subscriptions")
	administer(t, w.admin, `DELETE FROM billing.subscription WHERE id = (SELECT min(id) FROM billing.subscription WHERE valid_to IS NULL)`)
	g.show(exitDifference, "verify")
	g.compare("lists.golden")
}

// `streams` tells of every stream what its declaration says, with or without a database.
func TestListsStreams(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	for _, api := range []string{"v1", "v2"} {
		w.settings["bss.api"] = api
		var told struct {
			Streams []map[string]any `json:"streams"`
		}
		if err := json.Unmarshal([]byte(w.want(exitOK, "streams", "--output", "json").out), &told); err != nil {
			t.Fatal(err)
		}
		for i, s := range schemas.All() {
			got := told.Streams[i]
			if got["stream"] != s.Name || got["table"] != s.Table || got["document"] != s.Document || got["shape"] != string(s.Shape) {
				t.Errorf("got %v, want stream %s", got, s.Name)
			}
			if s.IsList() && (got["path"] != s.List.Variant(api).Path || got["method"] != s.List.Variant(api).Method) {
				t.Errorf("%s under %s: got %v %v", s.Name, api, got["method"], got["path"])
			}
			if _, ok := got["last_sync"]; ok {
				t.Errorf("%s was never pulled: %v", s.Name, got)
			}
		}
		if len(told.Streams) != len(schemas.All()) {
			t.Errorf("%d streams, want %d", len(told.Streams), len(schemas.All()))
		}
	}
	w.settings["streams.physical_devices"] = "{every: 12h}"
	w.want(exitOK, nightly(listDay, "physical_devices", "audit_logs")...)
	w.fault("physical_devices:*:status=400")
	w.want(exitIncomplete, nightly(nextDay, "physical_devices")...)
	lines := strings.Split(w.want(exitOK, "streams").out, "\n")
	for name, parts := range map[string][]string{
		"STREAM":           {"TABLE", "CALL", "PAGING", "RATE", "LAST SYNC", "DOCUMENT"},
		"audit_logs":       {"billing.audit_log", "GET /rest/dataapi/homs/open-api/v1/cloudAuditlog", "offset_value, 1000", "60/min", "--stream", "2024-04-04", "published", ` 18  ESM API Reference "Querying Audit Logs (Operation Logs)"`},
		"physical_devices": {"billing.physical_device", "every 12h", "2024-04-05", "failed", "10", `"Querying Physical Device Details"`},
		"subscriptions":    {"history", "POST /v2/orders/suscriptions/resources/query", "offset, 500", "nightly, backfill", "never"},
		"elbv3":            {"unlimited", "--stream", "never", `"查询 ELBv3 资源明细 (ELBv3 resources)"`},
		"sdr":              {"jobs", "POST /meter/v1/{domain_id}/query-jobs", "marker, 200", "nightly, backfill"},
	} {
		i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, name+" ") })
		if i < 0 {
			t.Errorf("%s is missing in:\n%s", name, strings.Join(lines, "\n"))
			continue
		}
		contains(t, lines[i], parts...)
	}
}

// doctor says of each of the vendor's systems whether it can be reached and read.
func TestListsDoctor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*world)
		vendor func(*sandbox.Config)
		code   exitCode
		says   []string
	}{
		{
			"all is well", func(w *world) { w.settings["streams.audit_logs"] = "{every: 1d}" }, nil, exitOK,
			[]string{"ok    IAM", "ok    ESM jobs", "ok    ESM lists", "ok    BMS", "ok    BSS ", "ok    BSS dictionaries"},
		},
		{
			"only the metering records", func(w *world) {
				for _, key := range []string{"bss.endpoint", "bss.domain_id", "bms.endpoint", "bms.project_id"} {
					delete(w.settings, key)
				}
			}, nil, exitOK,
			[]string{"ok    ESM jobs", "BMS              not configured", "BSS              not configured"},
		},
		{"keys", func(w *world) {
			w.settings["bss.access_key"], w.settings["bss.secret_key"] = sandbox.DefaultAccessKey, sandbox.DefaultSecretKey
		}, func(c *sandbox.Config) { c.ClockSkew = 3 * time.Hour }, exitOK, []string{"ok    BSS "}},
		{"a wrong key", func(w *world) {
			w.settings["bss.access_key"], w.settings["bss.secret_key"] = sandbox.DefaultAccessKey, "wr0ng"
		}, nil, exitCredentials, []string{"FAIL  BSS ", "401", "ok    ESM jobs"}},
		{"another account", func(w *world) { w.settings["bss.domain_id"] = "another" }, nil, exitCredentials, []string{"FAIL  BSS ", "403"}},
		{"another project", func(w *world) { w.settings["bms.project_id"] = "another" }, nil, exitCredentials, []string{"FAIL  BMS ", "403", "ok    BSS "}},
		{"v2", func(w *world) { w.settings["bss.api"] = "v2" }, nil, exitOK, []string{"ok    BSS "}},
		{"dictionaries denied", func(*world) {}, func(c *sandbox.Config) { c.DenyDictionaries = true }, exitOK, []string{"ok    BSS dictionaries", "denied", "dictionary load"}},
		{"ESM lists of no generation's", func(w *world) {
			w.settings["streams.elbv3"] = "{every: 1d}"
			w.fault("physical_devices:*:status=404")
		}, nil, exitOK, []string{"ok    ESM lists", "not offered by this site (404)"}},
		{"BSS is down", func(w *world) { w.settings["bss.endpoint"] = "http://127.0.0.1:9" }, nil, exitIncomplete, []string{"FAIL  BSS ", "ok    ESM jobs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, func(s *sandbox.Config) {
				if c.vendor != nil {
					c.vendor(s)
				}
			})
			w.settings["http.retry_for"] = "1s"
			c.change(w)
			f := w.want(c.code, "doctor")
			contains(t, f.out+f.err, c.says...)
			w.hides(f)
			j := w.want(c.code, "doctor", "--output", "json")
			if !json.Valid([]byte(j.out)) {
				t.Errorf("no JSON alone: %s", j)
			}
			if n := w.one(`SELECT count(*) FROM sdr_sync.job`); n != "0" {
				t.Errorf("doctor left %s jobs", n)
			}
		})
	}
}

// `bms job` tells how a task stands, or waits for its end; a task that failed is no success.
func TestListsBMSJob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		args     []string
		settings map[string]string
		code     exitCode
		says     []string
		calls    int64
	}{
		{"a look", []string{sandbox.BMSJobSucceeds}, nil, exitOK, []string{"INIT", "baremetalBatchCreate"}, 1},
		{"waited for", []string{sandbox.BMSJobSucceeds, "--wait"}, nil, exitOK, []string{"SUCCESS"}, 4},
		{"one that fails", []string{sandbox.BMSJobFails, "--wait"}, nil, exitIncomplete, []string{"FAIL", "failed at the vendor", "BMS.3033", "the volume is in use"}, 4},
		{"one that is not paid", []string{sandbox.BMSJobUnpaid, "--wait"}, map[string]string{"sync.job_deadline": "200ms"}, exitIncomplete, []string{"PENDING_PAYMENT", "sync.job_deadline"}, 0},
		{"an unknown one", []string{"ff80808288d41e1b0189902609556999", "--wait"}, nil, exitUsage, []string{"knows no task", "does not exist"}, 1},
		{"a path", []string{"../jobs"}, nil, exitUsage, []string{"knows no task"}, 0},
		{"no id", []string{""}, nil, exitUsage, []string{"the id of no task"}, 0},
		{"an id that is a path", []string{".."}, nil, exitUsage, []string{"the id of no task"}, 0},
		{"two ids", []string{"a", "b"}, nil, exitUsage, []string{"arg"}, 0},
		{"not configured", []string{sandbox.BMSJobSucceeds}, map[string]string{"bms.endpoint": ""}, exitUsage, []string{"bms.endpoint"}, 0},
		{"another project", []string{sandbox.BMSJobSucceeds}, map[string]string{"bms.project_id": "another"}, exitCredentials, []string{"403"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, func(c *sandbox.Config) { c.PollsUntilDone = 3 })
			for key, value := range c.settings {
				w.settings[key] = value
			}
			f := w.want(c.code, append([]string{"bms", "job"}, c.args...)...)
			contains(t, f.out+f.err, c.says...)
			if n := w.vendor.Stats().Calls[sandbox.EndpointBMSJob]; c.calls > 0 && n != c.calls {
				t.Errorf("%d calls, want %d", n, c.calls)
			}
		})
	}
	w := newListWorld(t)
	var job map[string]any
	if err := json.Unmarshal([]byte(w.want(exitOK, "bms", "job", sandbox.BMSJobSucceeds, "--wait", "--output", "json").out), &job); err != nil || job["status"] != "SUCCESS" {
		t.Errorf("as JSON: %v, %v", job, err)
	}
	// A run without --wait right after is the task's end, too.
	contains(t, w.want(exitOK, "bms", "job", sandbox.BMSJobSucceeds).out, "SUCCESS")
}

// --plan of a backfill asks nobody, whatever it is about.
func TestListsPlan(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	f := w.want(exitOK, "backfill", "--from", "2024-02", "--to", "2024-03", "--today", listDay, "--stream", "audit_logs,server_performance,subscriptions", "--plan")
	for _, part := range []string{"audit_logs [2024-02-01, 2024-03-01)", "server_performance [2024-02-01, 2024-02-02)", "subscriptions"} {
		contains(t, f.out, part)
	}
	if got := w.vendor.Stats(); slices.ContainsFunc([]int64{got.Pages, got.TokensIssued}, func(n int64) bool { return n > 0 }) {
		t.Errorf("a plan asked the vendor: %+v", got)
	}
	if n := w.one(`SELECT count(*) FROM sdr_sync.run`); n != "0" {
		t.Errorf("a plan is a run: %s", fmt.Sprint(n))
	}
}
