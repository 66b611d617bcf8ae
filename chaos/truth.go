package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// share is what one factor of one usage date comes to: how many records, and their exact sum without trailing zeros.
type share struct{ records, sum string }

// shares are by usage date and factor: "2024-03-01 Duration".
type shares map[string]share

// differ says in what got is not want.
func (want shares) differ(where string, got shares) error {
	var wrong []string
	for _, key := range merged(want, got) {
		if got[key] != want[key] {
			wrong = append(wrong, fmt.Sprintf("%s: %v, want %v", key, got[key], want[key]))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return findingf("%s: %d of %d sums differ from the vendor's truth: %s", where, len(wrong), len(want), strings.Join(wrong[:min(3, len(wrong))], "; "))
}

// judge compares everything that the world holds with what its vendor holds.
func (w *world) judge(ctx context.Context) error {
	var errs []error
	for _, name := range w.streams {
		if name == "sdr" {
			errs = append(errs, w.judgeRecords(ctx))
		} else {
			errs = append(errs, w.judgeList(ctx, schemas.ByName(name)))
		}
	}
	return errors.Join(errs...)
}

// judgeRecords compares the metering records.
func (w *world) judgeRecords(ctx context.Context) error {
	truth := w.vendor.Truth(sandbox.DefaultSite, sandbox.DefaultRegion, w.first, w.now())
	if truth.Records == 0 {
		return errors.New("the vendor holds nothing: this would prove nothing")
	}
	want := shares{}
	for _, d := range truth.Days {
		want[d.UsageDate+" "+d.Factor] = share{fmt.Sprint(d.Records), d.Sum}
	}
	var errs []error
	for where, query := range map[string]string{
		"billing.sdr":         `SELECT usage_date::text, accumulate_factor_name, count(*), trim_scale(coalesce(sum(accumulate_factor_value), 0)) FROM billing.sdr GROUP BY 1, 2`,
		"billing.usage_daily": `SELECT usage_date::text, accumulate_factor_name, sum(records), trim_scale(sum(accumulate_factor_value)) FROM billing.usage_daily GROUP BY 1, 2`,
	} {
		rows, err := w.ask(ctx, query)
		if err != nil {
			return err
		}
		got := shares{}
		for _, row := range rows {
			got[row[0]+" "+row[1]] = share{row[2], row[3]}
		}
		errs = append(errs, want.differ(where, got))
	}
	inLake, err := w.lakeShares()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, want.differ("Parquet", inLake))

	rows, err := w.ask(ctx, `
		SELECT coalesce(nullif(field, ''), reason), count(*) FROM sdr_sync.quarantine JOIN sdr_sync.window USING (window_id) WHERE stream = 'sdr' GROUP BY 1`)
	if err != nil {
		return err
	}
	rejected, wantRejected := map[string]string{}, map[string]string{}
	for _, row := range rows {
		rejected[row[0]] = row[1]
	}
	for reason, n := range truth.Rejected {
		wantRejected[reason] = fmt.Sprint(n)
	}
	for _, reason := range merged(rejected, wantRejected) {
		if rejected[reason] != wantRejected[reason] {
			errs = append(errs, findingf("quarantine: %q records for %s, want %q", rejected[reason], reason, wantRejected[reason]))
		}
	}
	ledger, err := w.one(ctx, `SELECT coalesce(sum(records), 0) || ' ' || coalesce(sum(missing_amounts), 0) || ' ' || coalesce(sum(quarantined), 0)
		FROM sdr_sync.window WHERE stream = 'sdr' AND retired_at IS NULL`)
	if want := fmt.Sprint(truth.Records, truth.NoAmount, truth.RejectedTotal()); err == nil && ledger != want {
		err = findingf("ledger: %s records, missing amounts and quarantined, want %s", ledger, want)
	}
	return errors.Join(append(errs, err)...)
}

// judgeList compares a list: the numbers and ids of its rows with the vendor's, and each row in Postgres with Parquet.
func (w *world) judgeList(ctx context.Context, s *schemas.Stream) error {
	present := "true"
	if s.Shape == schemas.History {
		present = "valid_to IS NULL AND absent_since IS NULL"
	}
	records, rejected, ids, known, err := w.listTruth(s.Name)
	if err != nil {
		return err
	}
	var errs []error
	if known {
		got, err := w.one(ctx, "SELECT count(*) FROM "+s.Table+" WHERE "+present)
		if err != nil {
			return err
		}
		if got != fmt.Sprint(records) {
			errs = append(errs, findingf("%s: %s rows in Postgres, the vendor holds %d", s.Name, got, records))
		}
		got, err = w.one(ctx, `SELECT count(*) FROM sdr_sync.quarantine JOIN sdr_sync.window USING (window_id) WHERE stream = $1`, s.Name)
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(got, 10, 64)
		if err != nil {
			return err
		}
		// What can't be parsed has no time, so an event that the vendor returns for two neighbouring windows is in the quarantine of both.
		if n != rejected && (s.Shape != schemas.Events || n < rejected) {
			errs = append(errs, findingf("%s: %s rows in the quarantine, the vendor holds %d that can't be parsed", s.Name, got, rejected))
		}
	}
	if len(s.Key) == 1 && ids != nil {
		rows, err := w.ask(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE %s", pgx.Identifier{s.Key[0]}.Sanitize(), s.Table, present))
		if err != nil {
			return err
		}
		var got []string
		for _, row := range rows {
			got = append(got, row[0])
		}
		slices.Sort(got)
		slices.Sort(ids)
		if !slices.Equal(got, ids) {
			errs = append(errs, findingf("%s: the ids in Postgres (%d) are not the vendor's (%d)", s.Name, len(got), len(ids)))
		}
	}
	return errors.Join(append(errs, w.sameInLake(ctx, s))...)
}

// listTruth is what the vendor holds of a list: rows that can be parsed, others, and the ids of the former where rows have any. Of the
// dictionaries nothing is known here but what is in Postgres and in Parquet.
func (w *world) listTruth(stream string) (records, rejected int64, ids []string, known bool, err error) {
	switch stream {
	case "subscriptions":
		for _, s := range w.vendor.Subscriptions() {
			ids = append(ids, s.ID)
		}
		return int64(len(ids)), 0, ids, true, nil
	case "bms_servers":
		for _, s := range w.vendor.Subscriptions() {
			if s.ResourceTypeCode == "hws.resource.type.pm" {
				ids = append(ids, s.ResourceID)
			}
		}
		return int64(len(ids)), 0, ids, true, nil
	}
	if schemas.ByName(stream).List.System == "bss" {
		return 0, 0, nil, false, nil
	}
	truth, err := w.vendor.ListTruth(stream, w.first, w.now())
	return truth.Records, truth.Rejected, truth.IDs, true, err
}

// judgeDebris finds what only a run under way may have. It is asked once all trouble is over: what a run could not clear away, the next one does.
func (w *world) judgeDebris(ctx context.Context) error {
	var errs []error
	staged, err := w.files("lake.staging")
	if err != nil {
		return err
	}
	for _, name := range staged {
		if name != "lock" {
			errs = append(errs, findingf("left in the staging folder: %s", name))
		}
	}
	landed, err := w.files("landing")
	if err != nil {
		return err
	}
	refused, err := w.one(ctx, `SELECT coalesce(string_agg('.job-' || job_row || '.landing', ' '), '') FROM sdr_sync.job WHERE state = 'refused'`)
	if err != nil {
		return err
	}
	for _, name := range landed {
		if at := strings.LastIndex(name, ".job-"); at >= 0 && slices.Contains(strings.Fields(refused), name[at:]) {
			continue // the evidence of what was not published
		}
		// A kill between the making of a spill and its unlinking leaves an empty file of that name.
		spill := strings.HasPrefix(name, "twins-") || strings.HasPrefix(name, ".rejects-")
		if !spill && (!strings.Contains(name, ".gen-") || !strings.HasSuffix(name, ".landing")) {
			errs = append(errs, findingf("left in the landing folder: %s", name))
		}
	}
	for what, query := range map[string]string{
		"live jobs":          `SELECT coalesce(string_agg(job_row || ' ' || stream || ' ' || state, ', '), '') FROM sdr_sync.job WHERE state IN ('open', 'landed')`,
		"leases":             `SELECT coalesce(string_agg(holder, ', '), '') FROM sdr_sync.lease`,
		"dirty partitions":   `SELECT coalesce(string_agg(stream || ' ' || from_date, ', '), '') FROM sdr_sync.partition WHERE dirty_seq > exported_seq`,
		"prepared or locked": `SELECT coalesce(string_agg(query, ', '), '') FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' AND application_name = 'sdr-sync'`,
	} {
		found, err := w.one(ctx, query)
		if err != nil {
			return err
		}
		if found != "" {
			errs = append(errs, findingf("left behind: %s: %s", what, found))
		}
	}
	return errors.Join(errs...)
}

// fingerprint is everything that a run that changes nothing must leave as it was: each row's place and transaction, and each file of the
// lake.
func (w *world) fingerprint(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	tables := []string{"sdr_sync.usage_rollup", "sdr_sync.quarantine", "sdr_sync.partition", "sdr_sync.restatement"}
	for _, name := range w.streams {
		tables = append(tables, schemas.ByName(name).Table)
	}
	for _, table := range tables {
		state, err := w.one(ctx, `SELECT count(*) || ' ' || coalesce(md5(string_agg(tableoid || ' ' || ctid || ' ' || xmin, ',' ORDER BY tableoid, ctid)), '') FROM `+table)
		if err != nil {
			return nil, err
		}
		all[table] = state
	}
	lake, err := w.lakeHashes()
	if err != nil {
		return nil, err
	}
	for name, sum := range lake {
		all[name] = sum
	}
	return all, nil
}

// plain writes a number of 1e-12 without trailing zeros.
func plain(n *big.Int) string {
	text := new(big.Rat).SetFrac(n, big.NewInt(1_000_000_000_000)).FloatString(12)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}
