package verify

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// task is one thing to read: a stretch of a table, or a file.
type task func(ctx context.Context, w *worker) error

// worker reads one thing after the other, over a connection of its own, into tallies of its own.
type worker struct {
	conn    *pgx.Conn
	tallies map[*streamAudit]*tally
	rows    map[*streamAudit]*row
}

func (w *worker) tally(s *streamAudit) *tally {
	if w.tallies[s] == nil {
		w.tallies[s] = s.tally.empty()
	}
	return w.tallies[s]
}

func (w *worker) row(s *streamAudit) *row {
	if w.rows[s] == nil {
		w.rows[s] = newRow(s.layout)
	}
	return w.rows[s]
}

// read does the tasks, as many at once as the configuration says, each worker over a connection that sees the snapshot, if there is one.
func (a *audit) read(ctx context.Context, snap *snapshot, tasks []task) error {
	workers := make([]*worker, min(a.cfg.Parallel, len(tasks)))
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for i := range workers {
		w := &worker{tallies: map[*streamAudit]*tally{}, rows: map[*streamAudit]*row{}}
		workers[i] = w
		g.Go(func() (err error) {
			if snap != nil {
				if w.conn, err = snap.join(ctx); err != nil {
					return err
				}
				defer closeConn(ctx, w.conn)
			}
			for n := next.Add(1) - 1; n < int64(len(tasks)); n = next.Add(1) - 1 {
				if err := tasks[n](ctx, w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, w := range workers {
		for s, t := range w.tallies {
			s.tally.merge(t)
		}
	}
	return nil
}

// fileTasks lists the files to be read, the largest first.
func (a *audit) fileTasks() []task {
	var files []*fileAudit
	for _, s := range a.streams {
		files = append(files, s.files...)
	}
	slices.SortStableFunc(files, func(x, y *fileAudit) int { return cmp.Compare(y.state.bytes, x.state.bytes) })
	var tasks []task
	for _, f := range files {
		tasks = append(tasks, func(ctx context.Context, w *worker) error { return f.read(ctx, a, w) })
	}
	return tasks
}

// tasks lists what is to be read of the tables.
func (a *audit) tasks(ctx context.Context, conn *pgx.Conn) ([]task, error) {
	tasks := []task{a.readQuarantine}
	for _, s := range a.streams {
		if s.layout.metered() {
			tasks = append(tasks, func(ctx context.Context, w *worker) error { return a.readSums(ctx, w, s) })
		}
		queries, err := a.queries(ctx, conn, s)
		if err != nil {
			return nil, fmt.Errorf("list the parts of %s: %w", s.layout.stream.Table, err)
		}
		for _, query := range queries {
			tasks = append(tasks, func(ctx context.Context, w *worker) error { return a.readTable(ctx, w, s, query) })
		}
	}
	return tasks, nil
}

// stretch is how many blocks of a table are read at once: 64 MiB.
const stretch = 8192

// queries returns queries that together read what is audited of a table, each row once.
func (a *audit) queries(ctx context.Context, conn *pgx.Conn, s *streamAudit) ([]string, error) {
	l := s.layout
	all := "SELECT " + l.columns + " FROM " + l.table
	if !l.timed() {
		if !s.whole() && len(s.windows) == 0 {
			return nil, nil
		}
		order := "natural_key, ordinal"
		if l.stream.Shape == schemas.History {
			order = "natural_key, valid_from"
		}
		return []string{all + " ORDER BY " + order}, nil
	}
	var queries []string
	if !s.whole() {
		for _, w := range sortedWindows(s.windows) {
			if !a.inArchive(w) {
				queries = append(queries, all+" WHERE window_id = "+strconv.FormatInt(w.id, 10))
			}
		}
		return queries, nil
	}
	leaves, err := leavesOf(ctx, conn, l)
	if err != nil {
		return nil, err
	}
	for _, leaf := range leaves {
		for at := int64(0); at == 0 || at < leaf.blocks; at += stretch {
			query := all + " WHERE " + leaf.bounds + " AND ctid >= '(" + strconv.FormatInt(at, 10) + ",0)'"
			if at+stretch < leaf.blocks {
				query += " AND ctid < '(" + strconv.FormatInt(at+stretch, 10) + ",0)'"
			}
			queries = append(queries, query)
		}
	}
	return queries, nil
}

// leaf is one partition of a table, chosen by its bounds: only the table itself may be read by everybody who may read its rows.
type leaf struct {
	bounds string // SQL
	blocks int64
}

var boundsForm = regexp.MustCompile(`^FOR VALUES FROM \('([0-9-]+)'\) TO \('([0-9-]+)'\)$`)

func leavesOf(ctx context.Context, conn *pgx.Conn, l *layout) ([]leaf, error) {
	date := pgx.Identifier{l.derived[l.date].Name}.Sanitize()
	rows, _ := conn.Query(ctx, `
		SELECT pg_get_expr(c.relpartbound, c.oid), pg_relation_size(c.oid) / current_setting('block_size')::bigint
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1::text::regclass ORDER BY c.oid`, l.table)
	var leaves []leaf
	var bounds string
	var blocks int64
	plain := true
	_, err := pgx.ForEachRow(rows, []any{&bounds, &blocks}, func() error {
		m := boundsForm.FindStringSubmatch(bounds)
		if m == nil {
			plain = false
			return nil
		}
		leaves = append(leaves, leaf{date + " >= '" + m[1] + "' AND " + date + " < '" + m[2] + "'", blocks})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !plain { // partitioned otherwise than by us: read the table in one go
		return []leaf{{bounds: "true"}}, nil
	}
	return leaves, nil
}

func sortedWindows(windows map[int64]*window) []*window {
	var sorted []*window
	for _, w := range windows {
		sorted = append(sorted, w)
	}
	slices.SortFunc(sorted, func(a, b *window) int {
		return cmp.Or(strings.Compare(a.site, b.site), strings.Compare(a.region, b.region), cmp.Compare(a.from, b.from), cmp.Compare(a.id, b.id))
	})
	return sorted
}

// inArchive tells whether some of a window's rows stand in Parquet alone.
func (a *audit) inArchive(w *window) bool {
	return w.stream == "sdr" && slices.ContainsFunc(w.months, func(m day) bool { return a.ledger.archived[m] })
}

func (a *audit) readTable(ctx context.Context, w *worker, s *streamAudit, query string) error {
	t, r := w.tally(s), w.row(s)
	columns := len(s.layout.derived) + len(s.layout.fields)
	err := copyRows(ctx, w.conn, query, columns, func(raw [][]byte) error {
		if err := r.fill(raw); err != nil {
			return err
		}
		t.row(r, a.cfg.PartitionUnit)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", s.layout.stream.Table, err)
	}
	if s.layout.stream.Shape == schemas.History {
		t.versions.end()
		slices.Sort(t.versions.begins)
		slices.Sort(t.versions.ends)
	}
	return nil
}

// sumTally is what a window's daily sums come to.
type sumTally struct {
	sketch sketch
	rows   int64
	odd    int64 // rows that can't be: no records, or an amount with more than 12 digits behind the point
}

// ofWindows is SQL that chooses the windows that are audited.
func (a *audit) ofWindows(s *streamAudit) string {
	if s.whole() {
		return "true"
	}
	return "window_id = ANY ('{" + joinInts(windowIDs(s.windows)) + "}'::bigint[])"
}

func windowIDs(windows map[int64]*window) []int64 {
	var ids []int64
	for _, w := range sortedWindows(windows) {
		ids = append(ids, w.id)
	}
	return ids
}

func joinInts(ids []int64) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, strconv.FormatInt(id, 10))
	}
	return strings.Join(texts, ",")
}

func (a *audit) readSums(ctx context.Context, w *worker, s *streamAudit) error {
	query := "SELECT window_id, records, missing_amounts, accumulate_factor_value, usage_date, site, " + strings.Join(rollupNames[:], ", ") +
		" FROM sdr_sync.usage_rollup WHERE " + a.ofWindows(s)
	var group []byte
	err := copyRows(ctx, w.conn, query, 6+len(rollupNames), func(raw [][]byte) error {
		t := a.sums[int64Of(raw[0])]
		if t == nil {
			t = &sumTally{}
			a.sums[int64Of(raw[0])] = t
		}
		var err error
		r := w.row(s)
		if group, err = r.appendRaw(group[:0], schemas.Date, raw[4], false); err != nil {
			return err
		}
		for _, text := range raw[5:] {
			if group, err = r.appendRaw(group, schemas.Text, text, false); err != nil {
				return err
			}
		}
		records, missing := int64Of(raw[1]), int64Of(raw[2])
		amount, ok := wideOfNumeric(raw[3])
		if !ok || records < 1 {
			t.odd++
		}
		t.rows++
		t.sketch.addGroup(maphash.Bytes(a.seed, group), records, missing, amount)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read sdr_sync.usage_rollup: %w", err)
	}
	return nil
}

// quarantineTally is what a window's quarantine holds.
type quarantineTally struct {
	content  digest
	wrong    int64 // records that do not match their hash
	ordinals int64
}

func (a *audit) readQuarantine(ctx context.Context, w *worker) error {
	var ids []int64
	for _, s := range a.streams {
		ids = append(ids, windowIDs(s.windows)...)
	}
	query := "SELECT window_id, raw_hash, ordinal, raw FROM sdr_sync.quarantine"
	if !a.everything() {
		query += " WHERE window_id = ANY ('{" + joinInts(ids) + "}'::bigint[])"
	}
	err := copyRows(ctx, w.conn, query, 4, func(raw [][]byte) error {
		id := int64Of(raw[0])
		q := a.quarantine[id]
		if q == nil {
			q = &quarantineTally{}
			a.quarantine[id] = q
		}
		h := shortHash(raw[3])
		q.content.add(h)
		if string(raw[1]) != string(h[:]) {
			q.wrong++
		}
		if [4]byte(raw[2]) != [4]byte{} {
			q.ordinals++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read sdr_sync.quarantine: %w", err)
	}
	return nil
}

// everything tells whether all that there is is audited, and so what belongs to nothing.
func (a *audit) everything() bool { return a.only == nil }
