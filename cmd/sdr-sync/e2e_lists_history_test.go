package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// spell is one version of a subscription as the history must have it. Pulls are counted from 0; never is none.
type spell struct {
	id, content    string
	from, to       int
	opened, closed string
	absent         int
}

const never = -1

// history works out what a history of pulls must be, pull by pull, from the rule alone: a row ends when it changes, or when two complete
// pulls in a row lack it, and then with the first of them.
type history struct {
	versions []spell
	pulls    int
}

func (h *history) pull(present map[string]string) {
	open := map[string]bool{}
	for i := range h.versions {
		v := &h.versions[i]
		content, here := present[v.id]
		switch {
		case v.to != never:
			continue
		case !here && v.absent != never:
			v.to, v.closed, v.absent = v.absent, "disappeared", never
			continue
		case !here:
			v.absent = h.pulls
		case content != v.content:
			v.to, v.closed, v.absent = h.pulls, "changed", never
			continue
		default:
			v.absent = never
		}
		open[v.id] = true
	}
	for id, content := range present {
		if open[id] {
			continue
		}
		opened := "appeared"
		for _, v := range h.versions {
			if v.id == id {
				opened = "reappeared"
			}
			if v.id == id && v.to == h.pulls && v.closed == "changed" {
				opened = "changed"
				break
			}
		}
		h.versions = append(h.versions, spell{id, content, h.pulls, never, opened, "", never})
	}
	h.pulls++
}

// lines are the versions as text, sorted.
func (h *history) lines() []string {
	var lines []string
	for _, v := range h.versions {
		lines = append(lines, fmt.Sprint(v.id, " ", v.from, " ", v.to, " ", v.opened, " ", v.closed, " ", v.absent, " ", v.content))
	}
	slices.Sort(lines)
	return lines
}

// contentOf is what tells versions of a subscription apart, as far as the API tells what the vendor has.
func contentOf(s sandbox.Subscription, api string) string {
	content := []string{
		s.ResourceID, s.ResourceName, s.RegionCode, s.CloudServiceTypeCode, s.ResourceTypeCode, s.ResourceSpecCode, s.ProjectCode, s.ProductID,
		s.MainResourceID, fmt.Sprint(s.IsMainResource), fmt.Sprint(s.Status), s.ValidTime.Format(time.DateTime), s.ExpireTime.Format(time.DateTime),
		fmt.Sprint(s.NextOperationPolicy),
	}
	if api == "v2" {
		content = append(content, s.UpdateTime.Format(time.DateTime))
	}
	return strings.Join(content, "|")
}

const contentColumns = `concat_ws('|', resource_id, resource_name, region_code, cloud_service_type_code, resource_type_code, resource_spec_code, project_code,
	product_id, main_resource_id, is_main_resource, status, to_char(valid_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
	to_char(expire_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), next_operation_policy, to_char(update_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))`

// subscribed is what the vendor's list of subscriptions holds now.
func (w *world) subscribed() map[string]string {
	rows := map[string]string{}
	for _, s := range w.vendor.Subscriptions() {
		rows[s.ID] = contentOf(s, w.settings["bss.api"])
	}
	return rows
}

// pullTimes numbers the complete pulls of the subscriptions by when they began.
const pullTimes = `pull AS (SELECT created_at AS at, row_number() OVER (ORDER BY job_row) - 1 AS n FROM sdr_sync.job
	WHERE stream = 'subscriptions' AND state IN ('published', 'unchanged'))`

// historyIs complains unless billing.subscription is the history.
func (w *world) historyIs(h *history) {
	w.t.Helper()
	var got []string
	for _, row := range w.ask(`WITH ` + pullTimes + `
		SELECT s.id, f.n, coalesce(t.n, -1), opened_reason, coalesce(closed_reason, ''), coalesce(a.n, -1), ` + contentColumns + `
		FROM billing.subscription s LEFT JOIN pull f ON f.at = valid_from LEFT JOIN pull t ON t.at = valid_to LEFT JOIN pull a ON a.at = absent_since`) {
		got = append(got, strings.Join(row, " "))
	}
	slices.Sort(got)
	want := h.lines()
	if slices.Equal(got, want) {
		return
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			w.t.Errorf("after pull %d: the history has\n%s", h.pulls-1, line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			w.t.Errorf("after pull %d: the history lacks\n%s", h.pulls-1, line)
		}
	}
}

// noOverlaps complains about versions of one row that stand at one time.
func (w *world) noOverlaps() {
	w.t.Helper()
	if n := w.one(`SELECT count(*) FROM billing.subscription a JOIN billing.subscription b
		ON a.id = b.id AND (a.valid_from, a.record_key) < (b.valid_from, b.record_key)
		WHERE tstzrange(a.valid_from, a.valid_to) && tstzrange(b.valid_from, b.valid_to)`); n != "0" {
		w.t.Errorf("%s pairs of versions overlap", n)
	}
}

// Nights go by, in some of which the list is pulled twice: at every moment the history is what the rule says, the present is what the
// vendor holds but for rows whose end is yet to be confirmed, and every pull can be asked for again as of its time.
func TestListsHistory(t *testing.T) {
	t.Parallel()
	for _, api := range []string{"v1", "v2"} {
		t.Run(api, func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, func(c *sandbox.Config) { c.Subscriptions = 90 })
			w.settings["bss.api"] = api
			h, pulled := &history{}, []map[string]string{}
			at := date(listDay)
			pull := func() {
				t.Helper()
				at = at.AddDate(0, 0, 1)
				now := w.subscribed()
				w.want(exitOK, nightly(at.Format(time.DateOnly), "subscriptions")...)
				h.pull(now)
				pulled = append(pulled, now)
				w.historyIs(h)
				w.listProof("subscriptions")
				w.noOverlaps()
			}
			pull()
			for night := range 9 {
				w.vendor.AdvanceNight()
				pull()
				if night%3 == 1 { // a second look confirms what is gone, so that what returns later reappears
					pull()
				}
			}
			w.want(exitOK, "verify")
			w.noDebris()
			for _, reason := range []string{"opened_reason = 'reappeared'", "closed_reason = 'disappeared'", "closed_reason = 'changed'", "absent_since IS NOT NULL"} {
				if w.one(`SELECT count(*) FROM billing.subscription WHERE `+reason) == "0" {
					t.Errorf("no version has %s: this proves too little", reason)
				}
			}

			// As of each pull: exactly its rows, and those that it alone lacked.
			for n, want := range pulled {
				got := map[string]string{}
				for _, row := range w.ask(`WITH `+pullTimes+` SELECT id, `+contentColumns+` FROM billing.subscription, pull
					WHERE n = $1 AND valid_from <= at AND at < coalesce(valid_to, 'infinity')`, n) {
					if got[row[0]] != "" {
						t.Errorf("as of pull %d: %s stands twice", n, row[0])
					}
					got[row[0]] = row[1]
				}
				for id := range merged(want, got) {
					switch {
					case got[id] == want[id]:
					case want[id] == "" && n == len(pulled)-1: // its end is yet to be confirmed
					case want[id] == "" && pulled[n+1][id] != "": // it was back at once
					default:
						t.Errorf("as of pull %d: %s is %q, the pull had %q", n, id, got[id], want[id])
					}
				}
			}

			// The log tells what each pull did.
			log := w.ask(`SELECT coalesce(sum(appeared), 0), coalesce(sum(changed), 0), coalesce(sum(reappeared), 0), coalesce(sum(disappeared), 0)
				FROM billing.snapshot_log WHERE stream = 'subscriptions'`)
			table := w.ask(`SELECT count(*) FILTER (WHERE opened_reason = 'appeared'), count(*) FILTER (WHERE closed_reason = 'changed'),
				count(*) FILTER (WHERE opened_reason = 'reappeared'), count(*) FILTER (WHERE closed_reason = 'disappeared') FROM billing.subscription`)
			if fmt.Sprint(log) != fmt.Sprint(table) {
				t.Errorf("the snapshot log sums up to %v (appeared, changed, reappeared, disappeared), the table to %v", log, table)
			}
		})
	}
}

// A clock that stands still, or is set back by a month, makes no version end before it begins.
func TestListsHistoryWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	for _, today := range []string{listDay, listDay, "2024-03-01", "2024-03-01", "2024-05-01"} {
		w.vendor.AdvanceNight()
		for range 2 {
			w.want(exitOK, nightly(today, "subscriptions")...)
		}
		w.listProof("subscriptions")
		w.noOverlaps()
		if n := w.one(`SELECT count(*) FROM billing.subscription WHERE valid_to <= valid_from OR absent_since <= valid_from`); n != "0" {
			t.Errorf("on %s: %s versions end before they begin", today, n)
		}
	}
	w.want(exitOK, "verify")
}

// Snapshots over nights: what stands is what the newest pull had, each row with the time of the pull that first had it.
func TestListsSnapshotsOverNights(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	streams := []string{"physical_devices", "host_details", "host_vms", "elbv3", "tenant_resources", "service_health"}
	first := map[string]int{}
	changed := false
	for night := range 5 {
		today := date(listDay).AddDate(0, 0, night).Format(time.DateOnly)
		w.want(exitOK, nightly(today, streams...)...)
		w.listProof(streams...)
		_, _, ids := w.listTruth("physical_devices")
		for _, id := range ids {
			if _, seen := first[id]; !seen {
				first[id] = night
			}
		}
		for _, row := range w.ask(`WITH pull AS (SELECT created_at AS at, row_number() OVER (ORDER BY job_row) - 1 AS n FROM sdr_sync.job WHERE stream = 'physical_devices')
			SELECT device_id, n FROM billing.physical_device LEFT JOIN pull ON at = first_seen`) {
			if row[1] != fmt.Sprint(first[row[0]]) {
				t.Errorf("after night %d: device %s was first seen by pull %s, want %d", night, row[0], row[1], first[row[0]])
			}
		}
		changed = changed || w.one(`SELECT coalesce(max(changed), 0) FROM billing.snapshot_log WHERE stream = 'physical_devices'`) != "0"
		w.vendor.AdvanceNight()
	}
	if !changed {
		t.Error("no device ever changed: this proves too little")
	}
	w.want(exitOK, "verify")
	w.noDebris()
	for _, name := range streams {
		if schemas.ByName(name).Shape != schemas.Snapshot {
			t.Errorf("%s is no snapshot", name)
		}
	}
}
