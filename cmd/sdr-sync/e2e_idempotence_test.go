package main

import "testing"

// A second run over unchanged data writes no row and touches no file.
func TestSecondRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 9)
	w.want(exitOK, w.backfill()...)
	w.proof(firstDay, someday)
	w.noDebris()
	before := w.fingerprint()
	for _, args := range [][]string{
		{"nightly", "--today", someday},
		{"nightly", "--today", someday},
		w.backfill(),
		w.backfill("--refresh"),
		{"replay", "--all"},
		{"export"},
		{"verify"},
	} {
		f := w.want(exitOK, args...)
		sameAs(t, args[0], before, w.fingerprint())
		if args[0] == "nightly" || args[0] == "backfill" || args[0] == "replay" {
			contains(t, f.out, "nothing changed")
		}
	}
	w.want(exitOK, "export", "--all")
	after := w.fingerprint()
	delete(before, "sdr_sync.partition") // it notes when it was exported
	delete(after, "sdr_sync.partition")
	sameAs(t, "export --all", before, after)
	w.noDebris()
}
