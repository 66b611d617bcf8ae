package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// verify can be asked for more: the kept evidence, and a sample of what the vendor says now.
func TestVerifyEvidenceAndSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.want(exitOK, w.backfill()...)
	contains(t, w.want(exitOK, "verify", "--landing").out, "landing: ", " in 4 landing files decoded again, 0 differences")
	jobs := w.fingerprintOfAll()
	contains(t, w.want(exitOK, "verify", "--source", "2", "--seed", "7").out, "source: ", " records drained anew, 0 differences", "--seed 7")
	sameAs(t, "draining a sample", jobs, w.fingerprintOfAll())

	w.vendor.AdvanceNight() // it restates
	f := w.want(exitDifference, "verify", "--source", "4", "--output", "json")
	var v struct {
		Verify, Source struct {
			Differences []struct{ Where, What, Repair string }
		}
	}
	if err := json.Unmarshal([]byte(f.out), &v); err != nil || len(v.Verify.Differences) > 0 || len(v.Source.Differences) == 0 {
		t.Fatalf("got %v %s", err, f)
	}
	for _, d := range v.Source.Differences {
		if !strings.Contains(d.What, "the vendor now returns") {
			t.Errorf("got %+v", d)
		}
		command, found := strings.CutPrefix(d.Repair, "sdr-sync ")
		if !found {
			t.Fatalf("the repair is no command: %q", d.Repair)
		}
		w.want(exitOK, append(strings.Fields(command), "--today", someday)...)
	}
	w.want(exitOK, "verify", "--source", "4", "--landing")
}

func TestVerifyOfStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.want(exitOK, w.backfill()...)
	tamperSQL(`UPDATE billing.sdr SET tag = 'x' WHERE usage_date = '2024-02-10' AND ctid = (SELECT min(ctid) FROM billing.sdr WHERE usage_date = '2024-02-10')`)(t, w)
	w.want(exitOK, "verify", "--stream", "audit_logs,subscriptions")
	w.want(exitDifference, "verify", "--stream", "sdr")
	w.want(exitUsage, "verify", "--stream", "nonsense")
	w.want(exitUsage, "verify", "--stream", "audit_logs", "--source", "1")
	w.repair()
}

// What a replay can't mend, since only the ledger is wrong, new windows do.
func TestTamperedLedger(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, statement string }{
		{"what the job landed", `UPDATE sdr_sync.job SET records = records + 1 WHERE from_date = '2024-02-01' AND state = 'published'`},
		{"the generation", `UPDATE sdr_sync.window SET generation = 2 WHERE from_date = '2024-02-01'`},
		{"the months", `UPDATE sdr_sync.window SET usage_months = '{2020-01-01}' WHERE from_date = '2024-02-01'`},
		{"a partition that the ledger forgot", `DELETE FROM sdr_sync.partition WHERE from_date = '2024-02-01'`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.want(exitOK, w.backfill()...)
			tamperSQL(c.statement)(t, w)
			w.repair()
		})
	}
}
