package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sandbox"
)

// A backfill of the running month in its middle and again a month later ends with whole months.
func TestRunningMonth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.today.set("2024-03-15")
	w.want(exitOK, "backfill", "--from", "2024-01", "--to", "2024-03", "--today", "2024-03-15")
	w.proof(firstDay, "2024-03-15")
	if got, want := w.windows(), []string{"month 2024-01-01 2024-02-01 1", "month 2024-02-01 2024-03-01 1", "month 2024-03-01 2024-03-15 1"}; !slices.Equal(got, want) {
		t.Errorf("windows: got %v, want %v", got, want)
	}
	w.today.set("2024-04-15")
	w.want(exitOK, "backfill", "--from", "2024-01", "--to", "2024-03", "--today", "2024-04-15")
	w.proof(firstDay, "2024-04-01")
	if got, want := w.windows(), []string{"month 2024-01-01 2024-02-01 1", "month 2024-02-01 2024-03-01 1", "month 2024-03-01 2024-04-01 2"}; !slices.Equal(got, want) {
		t.Errorf("windows: got %v, want %v", got, want)
	}
	w.noDebris()
}

// On the first of a month there is no running month, and the month before is not settled yet.
func TestFirstOfTheMonth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.today.set("2024-04-01")
	w.want(exitOK, w.backfillUntil("2024-04-01")...)
	w.proof(firstDay, "2024-04-01")
	w.tiles(firstDay, "2024-04-01")
	w.vendor.AdvanceNight()
	w.today.set("2024-04-02")
	f := w.want(exitOK, w.backfillUntil("2024-04-02")...)
	w.proof(firstDay, "2024-04-02")
	w.tiles(firstDay, "2024-04-02")
	contains(t, f.out, "restated") // March was pulled less than sync.settle after its end
	if got := w.windows()[2]; got != "month 2024-03-01 2024-04-01 2" {
		t.Errorf("March: got %q, want its second generation", got)
	}
}

func (w *world) backfillUntil(today string) []string {
	return []string{"backfill", "--from", "2024-01", "--to", "2024-04", "--today", today}
}

// Nights go by over the turn of a month, each with late and corrected records.
func TestNights(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"month", "day"} {
		t.Run(unit, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2)
			w.settings["sync.window"] = unit
			w.settings["parquet.partition"] = unit
			w.today.set("2024-03-29")
			w.want(exitOK, "backfill", "--from", "2024-03-20", "--to", "2024-03-28", "--today", "2024-03-29")
			w.proof("2024-03-20", "2024-03-29")
			var restated int
			for _, today := range []string{"2024-03-30", "2024-03-31", "2024-04-01", "2024-04-02", "2024-04-03"} {
				w.vendor.AdvanceNight()
				w.today.set(today)
				f := w.want(exitOK, "nightly", "--today", today)
				w.proof("2024-03-20", today)
				w.tiles("2024-03-20", today)
				restated += strings.Count(f.out, "restated")
				before := w.fingerprint()
				contains(t, w.want(exitOK, "nightly", "--today", today).out, "nothing changed")
				sameAs(t, "the second nightly of "+today, before, w.fingerprint())
			}
			if n := w.one("SELECT count(*) FROM sdr_sync.restatement"); n != fmt.Sprint(restated) || restated == 0 {
				t.Errorf("restatements: the runs named %d, the ledger has %s", restated, n)
			}
			w.noDebris()
		})
	}
}

// A part of a month is pulled in days, and stays in days until it is cut anew.
func TestReslice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	today := "--today=" + someday
	w.want(exitOK, "backfill", "--from", "2024-02-10", "--to", "2024-02-14", today)
	w.proof("2024-02-10", "2024-02-15")
	w.tiles("2024-02-10", "2024-02-15")
	if got := len(w.windows()); got != 5 {
		t.Errorf("got %d windows, want 5 days", got)
	}
	w.want(exitOK, "backfill", "--from", "2024-02", "--to", "2024-02", today)
	w.proof("2024-02-01", "2024-03-01")
	w.tiles("2024-02-01", "2024-03-01")
	if got := len(w.windows()); got != 29 {
		t.Errorf("got %d windows, want 29 days", got)
	}
	w.want(exitOK, "backfill", "--from", "2024-03", "--to", "2024-04", today)
	w.proof("2024-02-01", someday)

	for _, c := range []struct {
		unit    string
		windows int
	}{
		{"month", 3}, {"day", 29 + 31 + 14}, {"month", 3},
	} {
		plan := w.want(exitOK, "backfill", "--from", "2024-02", "--to", "2024-04", today, "--reslice", c.unit, "--plan")
		contains(t, plan.out, "replaces ")
		w.want(exitOK, "backfill", "--from", "2024-02", "--to", "2024-04", today, "--reslice", c.unit)
		w.proof("2024-02-01", someday)
		w.tiles("2024-02-01", someday)
		if got := len(w.windows()); got != c.windows {
			t.Errorf("resliced by %s: got %d windows, want %d", c.unit, got, c.windows)
		}
		w.noDebris()
		w.want(exitOK, "verify")
		before := w.fingerprint()
		w.want(exitOK, "backfill", "--from", "2024-02", "--to", "2024-04", today, "--reslice", c.unit)
		sameAs(t, "resliced again", before, w.fingerprint())
	}
	w.vendor.AdvanceNight()
	w.today.set("2024-04-16")
	w.want(exitOK, "nightly", "--today", "2024-04-16")
	w.proof("2024-02-01", "2024-04-16")
	w.noDebris()
}

const shanghai = "Asia/Shanghai"

// In another source zone the same stamps are other instants, and a usage date is the date there.
func TestSourceTimezone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.settings["sync.source_timezone"] = shanghai
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday) // the vendor's dates are those of its stamps
	w.zoneIs(shanghai)
	w.want(exitOK, "verify")
	w.noDebris()
}

// zoneIs complains unless every usage date is the date in the zone, and every record's stamp as the landing file has it stands for
// that zone's instant: hours begin on the hour, so at 16:00 the day before in UTC where it is midnight in Shanghai.
func (w *world) zoneIs(zone string) {
	w.t.Helper()
	if n := w.one(`SELECT count(*) FROM billing.sdr WHERE usage_date <> (begin_time AT TIME ZONE $1)::date`, zone); n != "0" {
		w.t.Errorf("%s records have a usage date that is not the date in %s", n, zone)
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		w.t.Fatal(err)
	}
	// The first hour of the first file date is 23:00 of the day before.
	first := time.Date(2023, 12, 31, 23, 0, 0, 0, location)
	if n := w.one(`SELECT count(*) FROM billing.sdr WHERE begin_time >= $1 AND begin_time < $1 + interval '1 hour'`, first); n == "0" {
		w.t.Errorf("no record begins at %s", first)
	}
}

func TestFileTimezone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.settings["sync.file_timezone"] = shanghai
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	w.zoneIs("UTC")
	w.noDebris()
}

// Without --today the file zone decides what today is. A vendor on the other side of the date line proves it at any hour.
func TestTodayIsOfTheFileZone(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"Pacific/Kiritimati", "Pacific/Pago_Pago"} { // UTC+14 and UTC-11: never the same date
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			location, err := time.LoadLocation(zone)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, 1, func(c *sandbox.Config) { c.Today = func() time.Time { return time.Now().In(location) } })
			w.settings["sync.file_timezone"] = zone
			w.settings["sync.lookback"] = "2d"
			before := time.Now().In(location)
			w.want(exitOK, "nightly")
			if after := time.Now().In(location); after.Day() != before.Day() {
				t.Log("midnight passed there meanwhile: whatever was pulled is right")
				return
			}
			if got, want := w.one("SELECT max(to_date) FROM sdr_sync.window"), before.Format(time.DateOnly); got != want {
				t.Errorf("windows end at %s, want today's date in %s, %s", got, zone, want)
			}
		})
	}
}

// Changing a zone over existing data is refused until a replay has published everything again.
func TestZoneChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.want(exitOK, w.backfill()...)
	before := w.fingerprintOfAll()
	w.settings["sync.source_timezone"] = shanghai
	for _, args := range [][]string{
		{"nightly", "--today", someday},
		w.backfill("--refresh"),
		{"replay", "--from", "2024-01", "--to", "2024-02"},
	} {
		f := w.want(exitUsage, args...)
		contains(t, f.err, "replay --all")
	}
	after := w.fingerprintOfAll()
	delete(before, "run") // a refused replay is noted as a run
	delete(after, "run")
	sameAs(t, "the refused runs", before, after)

	w.want(exitOK, "replay", "--all")
	w.proof(firstDay, someday)
	w.zoneIs(shanghai)
	w.want(exitOK, "verify")
	contains(t, w.want(exitOK, "nightly", "--today", someday).out, "nothing changed")
	w.noDebris()
}

// All regions of a site at once: one scope, one query job for all of them.
func TestAllRegions(t *testing.T) {
	t.Parallel()
	other := pipeline.Scope{Site: theScope.Site, Region: "cn-east-264"}
	w := newWorld(t, 2, func(c *sandbox.Config) {
		c.Scopes = []sandbox.Scope{{Site: theScope.Site, Region: theScope.Region}, {Site: other.Site, Region: other.Region}}
	})
	w.settings["esm.scopes"] = "[" + theScope.Site + "]"
	w.want(exitOK, w.backfill()...)
	w.proofOf(theScope.Site, "", firstDay, someday)
	w.noDebris()
	contains(t, w.want(exitOK, "status", "--today", someday).out, theScope.Site+"/*")

	w.settings["esm.scopes"] = "[" + theScope.String() + "]"
	f := w.want(exitUsage, "nightly", "--today", someday)
	contains(t, f.err, "never both", "nothing was touched")
}

// Two regions of a site share the partitions of the lake and of billing.sdr, whose rows come from windows published side by side.
func TestTwoRegions(t *testing.T) {
	t.Parallel()
	other := pipeline.Scope{Site: theScope.Site, Region: "cn-east-264"}
	w := newWorld(t, 2, func(c *sandbox.Config) {
		c.Scopes = []sandbox.Scope{{Site: theScope.Site, Region: theScope.Region}, {Site: other.Site, Region: other.Region}}
	})
	w.settings["esm.scopes"] = "[" + theScope.String() + ", " + other.String() + "]"
	w.settings["sync.parallel"] = "8"
	w.want(exitOK, w.backfill()...)
	w.proofOf(theScope.Site, "", firstDay, someday)
	w.vendor.AdvanceNight()
	w.want(exitOK, "nightly", "--today", someday, "--scope", other.String())
	w.want(exitOK, "nightly", "--today", someday)
	w.proofOf(theScope.Site, "", firstDay, someday)
	w.noDebris()

	w.settings["esm.scopes"] = "[" + theScope.Site + "]"
	contains(t, w.want(exitUsage, "nightly", "--today", someday).err, "never both")
}
