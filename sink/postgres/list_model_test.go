package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// listModel is what the rules of a shape say must stand after a number of pulls, told in Go.
type listModel interface {
	// refuses tells whether a pull of the list must be refused.
	refuses(list map[string]string) bool
	// pull applies a pull that was published, and tells whether it confirmed what stood.
	pull(list map[string]string, number int) (same bool)
	// lines are the rows as show reads them.
	lines() string
}

type snapshotModel map[string]snapshotRow

type snapshotRow struct {
	value string
	first int // pull that it first came in
}

func (m snapshotModel) refuses(list map[string]string) bool {
	return len(m) > 0 && 2*len(list) < len(m)
}

func (m snapshotModel) pull(list map[string]string, number int) (same bool) {
	same = number > 1 && len(m) == len(list)
	maps.DeleteFunc(m, func(key string, _ snapshotRow) bool { _, found := list[key]; return !found })
	for key, value := range list {
		row, found := m[key]
		same = same && found && row.value == value
		if !found {
			row.first = number
		}
		row.value = value
		m[key] = row
	}
	return same
}

func (m snapshotModel) lines() string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%s first seen %d", key, m[key].value, m[key].first))
	}
	return strings.Join(lines, "; ")
}

type historyModel map[string][]*modelVersion

func (m historyModel) refuses(list map[string]string) bool {
	gone := false
	for _, all := range m {
		last := all[len(all)-1]
		gone = gone || last.to == 0 && last.absent == 0
	}
	return gone && len(list) == 0
}

func (m historyModel) pull(list map[string]string, number int) bool {
	return modelPull(m, list, number)
}

func (m historyModel) lines() string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		for _, v := range m[key] {
			lines = append(lines, v.line(key))
		}
	}
	return strings.Join(lines, "; ")
}

// TestListModel pulls random lists again and again, with rows that break off, COMMITs that are lost, and leases that are taken over. What
// stands must be what the rules make of the pulls that went through; a pull that did not changes nothing, and an equal one writes its job's row alone.
func TestListModel(t *testing.T) {
	t.Parallel()
	shapes := map[string]struct {
		yaml, key string
		model     func() listModel
		show      func(*database, *testing.T, *schemas.Stream) string
	}{
		"snapshot": {deviceYAML, "user", func() listModel { return snapshotModel{} }, (*database).snapshot},
		"history":  {subscriptionYAML, "id", func() listModel { return historyModel{} }, (*database).history},
	}
	hows := append(slices.Repeat([]string{"", failsInRows, losesLease, losesCommits}, 4), losesCommit) // the last is tried again after a pause
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, lists := newLists(t, shape.yaml)
			s := lists[0]
			p, through := newProxy(t, d)
			proxied := openConfig(t, postgres.Config{URL: pipeline.Secret(through), Streams: []*schemas.Stream{schemas.SDR(), s}})
			rapid.Check(t, func(r *rapid.T) {
				d.exec(t, "TRUNCATE billing.sdr, sdr_sync.usage_rollup, "+s.Table+", sdr_sync.window, sdr_sync.job, sdr_sync.partition, sdr_sync.restatement, sdr_sync.quarantine")
				model, list := shape.model(), map[string]string{}
				published := 0
				for number := range rapid.IntRange(1, 8).Draw(r, "pulls") {
					for range rapid.IntRange(0, 3).Draw(r, "changes") { // often nothing changes
						key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(r, "key")
						if value := rapid.SampledFrom([]string{"0", "1", ""}).Draw(r, "value"); value != "" {
							list[key] = value
						} else {
							delete(list, key)
						}
					}
					var rows []fields
					for _, key := range slices.Sorted(maps.Keys(list)) {
						rows = append(rows, fields{shape.key: key, "value": list[key]})
					}
					how := rapid.SampledFrom(hows).Draw(r, "how")
					publication := d.prepareList(t, s, pull{rows: rows, created: testNow.Add(time.Duration(published+1) * time.Minute)})
					replacement := d.listReplacement(s, publication)
					replacement.AcceptShrink = rapid.Bool().Draw(r, "accept shrink")
					db := d.DB
					if how == losesCommits || how == losesCommit {
						db = proxied
					}
					broke := false
					replacement.Publish[0].Rows = before(publication.Rows, func(int) error {
						switch how {
						case failsInRows:
							broke = true
							return errHitch
						case losesLease:
							broke = true
							_, err := d.ReleaseLease(t.Context(), s.Name, pipeline.Tenant)
							return err
						case losesCommits:
							p.cutNext(cutAnswer)
						case losesCommit:
							p.cutNext(cutRequest)
						}
						how = "" // once
						return nil
					})
					had := d.content(t)
					outcome, err := replaceOne(t.Context(), db, replacement)
					p.cutNext(cutNothing)
					refused := published > 0 && !replacement.AcceptShrink && model.refuses(list)
					var shrink *pipeline.ShrinkError
					var vanish *pipeline.VanishError
					switch {
					case broke:
						if !errors.Is(err, errHitch) && !errors.Is(err, pipeline.ErrFenced) {
							r.Fatalf("pull %d, broken: got %+v, %v", number, outcome, err)
						}
					case errors.As(err, &shrink) || errors.As(err, &vanish):
						if !refused {
							r.Fatalf("pull %d of %v over %s: got %v", number, list, model.lines(), err)
						}
					case err != nil || refused:
						r.Fatalf("pull %d of %v over %s: got %+v, %v, want it refused: %t", number, list, model.lines(), outcome, err, refused)
					default:
						published++
						stood := model.lines()
						if same := model.pull(list, published); outcome.Unchanged != same {
							r.Fatalf("pull %d of %v over %s: got %+v, want unchanged %t", number, list, stood, outcome, same)
						}
					}
					if now := d.content(t); (err != nil || outcome.Unchanged) && !slices.Equal(withoutJobs(now), withoutJobs(had)) {
						r.Fatalf("pull %d of %v changed something: %+v, %v", number, list, outcome, err)
					}
					if got, want := shape.show(d, t, s), model.lines(); got != want {
						r.Fatalf("pull %d of %v: got\n\t%s\nwant\n\t%s", number, list, got, want)
					}
				}
			})
		})
	}
}

func replaceOne(ctx context.Context, db *postgres.DB, r pipeline.Replacement) (pipeline.Outcome, error) {
	outcomes, err := replace(ctx, db, r)
	if err != nil {
		return pipeline.Outcome{}, err
	}
	return outcomes[0], nil
}

// withoutJobs leaves out the ledger's lines of jobs, of which each pull has its own.
func withoutJobs(content []string) []string {
	return slices.DeleteFunc(slices.Clone(content), func(line string) bool { return strings.HasPrefix(line, "job ") })
}

// snapshot shows a snapshot's rows; times are numbers of pulls.
func (d *database) snapshot(t *testing.T, s *schemas.Stream) string {
	t.Helper()
	return strings.Join(list[string](t, d, `
		SELECT format('%s=%s first seen %s', "user", value, (extract(epoch FROM first_seen - $1::timestamptz) / 60)::int) FROM `+s.Table+` ORDER BY 1`, testNow), "; ")
}
