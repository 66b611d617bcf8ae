package main

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// Events on midnight and on the bounds of windows stand exactly once, whether or not the vendor takes begin and end inclusively.
func TestListsEventBoundaries(t *testing.T) {
	t.Parallel()
	byMonth := []string{"audit_logs", "cloud_service_alarms", "hardware_alarms"}
	byDay := []string{"server_performance", "vm_performance", "network_device_metrics", "host_metrics"}
	for _, exclusive := range []bool{false, true} {
		for _, inclusive := range []bool{false, true} {
			t.Run(fmt.Sprintf("begin exclusive %t, end inclusive %t", exclusive, inclusive), func(t *testing.T) {
				t.Parallel()
				w := newListWorld(t, func(c *sandbox.Config) { c.ExclusiveBegin, c.InclusiveEnd, c.Devices = exclusive, inclusive, 9 })
				w.want(exitOK, "backfill", "--from", "2024-02", "--to", "2024-03", "--today", listDay, "--stream", strings.Join(byMonth, ","))
				w.listProof(byMonth...)
				w.want(exitOK, nightly(listDay, "physical_devices")...)
				w.want(exitOK, "backfill", "--from", "2024-02-28", "--to", "2024-03-02", "--today", listDay, "--stream", strings.Join(byDay, ","))
				w.listProof(byDay...)
				for _, name := range append(byMonth, byDay...) {
					bounds := w.one(`SELECT string_agg(from_date || ' ' || to_date, ', ' ORDER BY from_date) FROM sdr_sync.window WHERE stream = $1`, name)
					want := "2024-02-01 2024-03-01, 2024-03-01 2024-04-01"
					if slices.Contains(byDay, name) {
						want = "2024-02-28 2024-02-29, 2024-02-29 2024-03-01, 2024-03-01 2024-03-02, 2024-03-02 2024-03-03"
					}
					if bounds != want {
						t.Errorf("%s: windows %s, want %s", name, bounds, want)
					}
				}
				for _, query := range []string{
					`SELECT count(*) FROM billing.audit_log WHERE start_time = '2024-03-01 00:00:00+00'`,
					`SELECT count(*) FROM billing.cloud_service_alarm WHERE first_occur_utc = '2024-03-01 00:00:00+00'`,
					`SELECT count(*) FROM billing.cloud_service_alarm WHERE first_occur_utc = '2024-02-29 23:59:59.999+00'`,
				} {
					if got := w.one(query); got != "1" {
						t.Errorf("%s: got %s", query, got)
					}
				}
				w.want(exitOK, "verify")
				w.noDebris()
				before := w.fingerprint()
				contains(t, w.want(exitOK, "backfill", "--from", "2024-02", "--to", "2024-03", "--today", listDay, "--stream", strings.Join(byMonth, ",")).out, "skipped", "nothing changed")
				sameAs(t, "the second run", before, w.fingerprint())
			})
		}
	}
}

// alarmsAtVendor is each alarm of a span as the vendor has it now: its number to whether and when it was cleared.
func (w *world) alarmsAtVendor(from, to time.Time) map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for offset := 0; ; offset += 1000 {
		answer := fromVendor(w.t, w.vendor, true, http.MethodGet, fmt.Sprintf("/rest/dataapi/homs/open-api/v1/CloudServiceAlarm/info?begin_time=%d&end_time=%d&page_size=1000&offset_value=%d",
			from.UnixMilli(), to.UnixMilli(), offset), "", nil)
		rows := answer["list"].([]any)
		for _, row := range rows {
			alarm := row.(map[string]any)
			at := fmt.Sprint(alarm["clear_utc"])
			if at == "null" {
				at = ""
			}
			all[fmt.Sprint(alarm["csn"])] = fmt.Sprint(alarm["cleared"]) + " " + at
		}
		if len(rows) < 1000 {
			return all
		}
	}
}

func (w *world) alarmsHere() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for _, row := range w.ask(`SELECT csn, cleared, coalesce((extract(epoch FROM clear_utc) * 1000)::bigint::text, '') FROM billing.cloud_service_alarm`) {
		all[row[0]] = row[1] + " " + row[2]
	}
	return all
}

// Alarms that are cleared later, and logs that come to light later, are put right by the lookback.
func TestListsLateEvents(t *testing.T) {
	t.Parallel()
	w := newListWorld(t, func(c *sandbox.Config) { c.EventsPerDay, c.NoListLimits = 20, true })
	w.settings["sync.lookback"] = "4d"
	streams := []string{"cloud_service_alarms", "audit_logs"}
	w.want(exitOK, nightly("2024-04-03", streams...)...)
	before := w.alarmsHere()
	changed := 0
	for _, today := range []string{"2024-04-04", "2024-04-05", "2024-04-06"} {
		w.vendor.AdvanceNight()
		w.today.set(today)
		f := w.want(exitOK, nightly(today, streams...)...)
		w.listProof(streams...)
		want, got := w.alarmsAtVendor(date("2024-03-01"), date(today)), w.alarmsHere()
		if today == "2024-04-06" { // its lookback no longer meets March
			want = w.alarmsAtVendor(date("2024-04-01"), date(today))
		}
		for csn, state := range want {
			if got[csn] != state {
				t.Errorf("%s: alarm %s is %q, the vendor has %q", today, csn, got[csn], state)
			}
			if was, known := before[csn]; known && was != got[csn] {
				changed++
			}
		}
		before = got
		contains(t, f.out, "restated")
		again := w.fingerprint()
		contains(t, w.want(exitOK, nightly(today, streams...)...).out, "nothing changed")
		sameAs(t, "the second nightly of "+today, again, w.fingerprint())
	}
	if changed == 0 {
		t.Error("no alarm ever changed: this proves nothing")
	}
	w.want(exitOK, "verify")
	w.noDebris()
}

// An event of another time than was asked for is quarantined; one that comes right later is put right.
func TestListsEventsOutside(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	backfill := []string{"backfill", "--from", "2024-03", "--to", "2024-03", "--today", listDay, "--stream", "audit_logs", "--refresh"}
	w.gate.changeAnswers(sandbox.EndpointAuditLogs, func(_ *http.Request, body []byte) []byte {
		for was, is := range map[string]string{"2024-03-05": "2023-03-05", "2024-03-06": "2024-05-06", "2024-03-07": "1999-03-07"} {
			body = bytes.ReplaceAll(body, []byte(`"start_time":"`+was), []byte(`"start_time":"`+is))
		}
		return body
	})
	f := w.want(exitOK, backfill...)
	truth, err := w.vendor.ListTruth("audit_logs", date("2024-03-01"), date("2024-04-01"))
	if err != nil {
		t.Fatal(err)
	}
	const moved = 3 * 6 // three days of EventsPerDay
	if got, want := w.one(`SELECT count(*) FROM billing.audit_log`), fmt.Sprint(truth.Records-moved); got != want {
		t.Errorf("got %s rows, want %s: %s", got, want, f)
	}
	if got := fmt.Sprint(w.ask(`SELECT reason, field, count(*) FROM sdr_sync.quarantine GROUP BY 1, 2 ORDER BY 1`)); got != "[[start_time_out_of_range start_time 6] [start_time_out_of_window start_time 12]]" {
		t.Errorf("quarantine: %s", got)
	}
	w.sameInParquet(schemaOf("audit_logs"))
	w.want(exitOK, "verify")
	contains(t, w.want(exitOK, "quarantine", "list", "--limit", "1").out, "start_time_out_of_window", "was not asked for")
	w.gate.forget()
	w.want(exitOK, backfill...)
	w.listProof("audit_logs")
	w.want(exitOK, "verify")
	w.noDebris()
}

// With another source time zone, windows and dates of events are that zone's.
func TestListsEventsInAnotherZone(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	w.settings["sync.source_timezone"] = shanghai
	zone, err := time.LoadLocation(shanghai)
	if err != nil {
		t.Fatal(err)
	}
	w.want(exitOK, "backfill", "--from", "2024-02", "--to", "2024-03", "--today", listDay, "--stream", "cloud_service_alarms")
	from, to := time.Date(2024, 2, 1, 0, 0, 0, 0, zone), time.Date(2024, 3, 1, 0, 0, 0, 0, zone)
	want := map[string]string{}
	for range 2 { // the vendor allows two months at once
		for csn, state := range w.alarmsAtVendor(from, to) {
			want[csn] = state
		}
		from, to = to, to.AddDate(0, 1, 0)
	}
	got := w.alarmsHere()
	for csn := range merged(want, got) {
		if want[csn] != got[csn] {
			t.Errorf("alarm %s: got %q, want %q", csn, got[csn], want[csn])
		}
	}
	if n := w.one(`SELECT count(*) FROM billing.cloud_service_alarm WHERE event_date <> (first_occur_utc AT TIME ZONE $1)::date`, shanghai); n != "0" {
		t.Errorf("%s alarms have another event_date than that in %s", n, shanghai)
	}
	w.sameInParquet(schemaOf("cloud_service_alarms"))
	w.want(exitOK, "verify")
	w.settings["sync.source_timezone"] = "UTC"
	contains(t, w.want(exitUsage, nightly(listDay, "cloud_service_alarms")...).err, "source_timezone", "nothing was touched")
}

// Files of events are by day where the lake is cut by day.
func TestListsEventsByDay(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	w.settings["parquet.partition"] = "day"
	w.want(exitOK, nightly(listDay, "audit_logs", "server_performance", "physical_devices")...)
	w.listProof("audit_logs", "server_performance", "physical_devices")
	got := strings.Join(files(t, w.lake()), " ")
	contains(t, got, "audit_logs/event_date=2024-04-01/data.parquet", "audit_logs/event_date=2024-04-03/data.parquet", "physical_devices/data.parquet")
	w.want(exitOK, "verify")
	w.noDebris()
}
