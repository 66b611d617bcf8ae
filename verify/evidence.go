package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// Window is a published window, as Source asks for it.
type Window struct {
	ID                   int64
	Stream, Site, Region string // lists have the site "tenant"; an empty region is all of them
	Unit                 string // month, day, or whole
	From, To             time.Time
	Generation           int
}

func (w *window) public() Window {
	return Window{w.id, w.stream, w.site, w.region, w.unit, w.from.time(), w.to.time(), w.generation}
}

// Landing decodes the kept landing file of each window's current generation with the reference decoder, which is plain and slow, and compares what comes
// out with the tables. Windows without one are noted.
func Landing(ctx context.Context, cfg Config, only Only) (Report, error) {
	report := Report{Differences: []Difference{}}
	if err := errors.Join(cfg.needDatabase(), cfg.complete()); err != nil {
		return report, err
	}
	if cfg.Landing == "" {
		return report, errors.New("verify: the landing folder is not set")
	}
	root, err := os.OpenRoot(cfg.Landing)
	if err != nil {
		return report, fmt.Errorf("open landing folder: %w", err)
	}
	defer root.Close() // only read
	snap, err := openSnapshot(ctx, cfg.URL)
	if err != nil {
		return report, err
	}
	defer snap.close(ctx)
	a := &audit{cfg: cfg, only: only}
	if a.ledger, err = readLedger(ctx, snap.conn, cfg); err != nil {
		return report, err
	}
	if err := a.choose(); err != nil {
		return report, err
	}
	var all []*evidence
	for _, s := range a.streams {
		for _, w := range sortedWindows(s.windows) {
			if a.inArchive(w) {
				report.Notes = append(report.Notes, w.where()+": not compared with its landing file, since a month of it is archived")
				continue
			}
			all = append(all, &evidence{audit: a, stream: s, window: w})
		}
	}
	unkept := 0
	err = a.inParallel(ctx, snap, all, func(ctx context.Context, e *evidence) error {
		if err := e.landing(ctx, root); err != nil {
			return fmt.Errorf("compare %s with its landing file: %w", e.window.where(), err)
		}
		return nil
	})
	for _, e := range all {
		report.Records += e.report.Records
		report.Files += e.report.Files
		report.Differences = append(report.Differences, e.report.Differences...)
		if e.report.Files == 0 {
			unkept++
		}
	}
	if err == nil && unkept > 0 {
		report.Notes = append(report.Notes, fmt.Sprintf("%d windows have no kept landing file of their generation", unkept))
	}
	return report, err
}

// inParallel does something with each window's evidence, each over a connection that sees the snapshot.
func (a *audit) inParallel(ctx context.Context, snap *snapshot, all []*evidence, do func(context.Context, *evidence) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(a.cfg.Parallel, len(all)) {
		g.Go(func() error {
			conn, err := snap.join(ctx)
			if err != nil {
				return err
			}
			defer closeConn(ctx, conn)
			for n := next.Add(1) - 1; n < int64(len(all)); n = next.Add(1) - 1 {
				all[n].conn = conn
				if err := do(ctx, all[n]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// Fetch drains a window at the vendor once more and yields its pages, in order.
type Fetch func(ctx context.Context, w Window) iter.Seq2[Page, error]

// Source drains a sample of the published windows anew and compares what the vendor returns with the tables. The sample follows from the seed. No
// transaction is open meanwhile, and nothing is written: a difference says that the vendor restated the window since it was published.
func Source(ctx context.Context, cfg Config, only Only, fetch Fetch, sample int, seed uint64) (Report, error) {
	report := Report{Differences: []Difference{}}
	if err := errors.Join(cfg.needDatabase(), cfg.complete()); err != nil {
		return report, err
	}
	a := &audit{cfg: cfg, only: only}
	var all []*evidence
	err := inSnapshot(ctx, cfg.URL, func(conn *pgx.Conn) (err error) {
		if a.ledger, err = readLedger(ctx, conn, cfg); err != nil {
			return err
		}
		return a.choose()
	})
	if err != nil {
		return report, err
	}
	for _, s := range a.streams {
		for _, w := range sortedWindows(s.windows) {
			if !a.inArchive(w) {
				all = append(all, &evidence{audit: a, stream: s, window: w})
			}
		}
	}
	random := rand.New(rand.NewPCG(seed, seed))
	random.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	for _, e := range all[:min(sample, len(all))] {
		if err := e.source(ctx, fetch); err != nil {
			return report, fmt.Errorf("compare %s with the vendor: %w", e.window.where(), err)
		}
		report.Records += e.report.Records
		report.Differences = append(report.Differences, e.report.Differences...)
	}
	return report, nil
}

func inSnapshot(ctx context.Context, url string, do func(*pgx.Conn) error) error {
	snap, err := openSnapshot(ctx, url)
	if err != nil {
		return err
	}
	defer snap.close(ctx)
	return do(snap.conn)
}

// evidence compares pages of the vendor's with what stands of one window.
type evidence struct {
	audit  *audit
	stream *streamAudit
	window *window
	conn   *pgx.Conn
	report Report

	pages       int64
	records     digest
	quarantined digest

	have       map[hash]int64 // records that stand, by hash; what is left of them at the end is in no page
	unknown    int64          // records of the pages that do not stand
	quarantine map[hash]int64
	unknownBad int64
	examples   []string
}

// mostExamples is how many records a difference shows.
const mostExamples = 3

// decode takes the pages. With have set, each record is looked for among what stands.
func (e *evidence) decode(pages iter.Seq2[Page, error]) error {
	l := e.stream.layout
	d := newReference(e.audit.cfg, l, e.window.public())
	for p, err := range pages {
		if err != nil {
			return err
		}
		e.pages++
		records, err := recordsOf(l.stream, p.Data)
		if err != nil {
			return fmt.Errorf("page %d: %w", e.pages, err)
		}
		var asked url.Values
		if l.stream.IsList() {
			if asked, err = url.ParseQuery(p.Asked); err != nil {
				return fmt.Errorf("page %d: read the marker %q: %w", e.pages, p.Asked, err)
			}
		}
		for _, element := range records {
			if err := e.decodeRecord(d, element, asked); err != nil {
				return fmt.Errorf("page %d: %w", e.pages, err)
			}
		}
	}
	return nil
}

func (e *evidence) decodeRecord(d *reference, element []byte, asked url.Values) error {
	r, outside, err := d.decode(element, asked)
	var bad *rejected
	switch {
	case errors.As(err, &bad):
		h := shortHash(element)
		e.quarantined.add(h)
		if e.quarantine != nil {
			if e.quarantine[h]--; e.quarantine[h] < 0 {
				e.unknownBad++
				e.example("not quarantined: %s, %.100q", bad.reason, element)
			}
		}
		return nil
	case err != nil:
		return err
	case outside:
		return nil
	}
	e.records.add(r.content)
	if e.have == nil {
		return nil
	}
	if e.have[r.content]--; e.have[r.content] < 0 {
		e.unknown++
		e.example("does not stand: %s", r.describe())
	}
	return nil
}

func (e *evidence) example(format string, args ...any) {
	if len(e.examples) < mostExamples {
		e.examples = append(e.examples, fmt.Sprintf(format, args...))
	}
}

// recordsOf returns the records of a page: the elements of an array, or the one record.
func recordsOf(s *schemas.Stream, data []byte) ([][]byte, error) {
	data = bytes.TrimSpace(data)
	switch {
	case len(data) == 0, !s.Whole() && string(data) == "null":
		return nil, nil
	case s.Whole() || data[0] != '[':
		return [][]byte{data}, nil
	}
	all, err := elements(data)
	var records [][]byte
	for _, element := range all {
		records = append(records, element)
	}
	return records, err
}

// standing calls each with every row that stands of the window.
func (e *evidence) standing(ctx context.Context, each func(*row)) error {
	l := e.stream.layout
	query := "SELECT " + l.columns + " FROM " + l.table
	switch {
	case l.timed():
		query += fmt.Sprintf(" WHERE window_id = %d", e.window.id)
	case l.stream.Shape == schemas.History:
		query += " WHERE valid_to IS NULL AND absent_since IS NULL"
	}
	r := newRow(l)
	err := copyRows(ctx, e.conn, query, len(l.derived)+len(l.fields), func(raw [][]byte) error {
		if err := r.fill(raw); err != nil {
			return err
		}
		each(r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", l.stream.Table, err)
	}
	return nil
}

// bad calls each with the hash of every quarantined record of the window.
func (e *evidence) bad(ctx context.Context, each func(hash)) error {
	query := fmt.Sprintf("SELECT raw FROM sdr_sync.quarantine WHERE window_id = %d", e.window.id)
	err := copyRows(ctx, e.conn, query, 1, func(raw [][]byte) error {
		each(shortHash(raw[0]))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read sdr_sync.quarantine: %w", err)
	}
	return nil
}

// holdings loads the hashes of all that stands.
func (e *evidence) holdings(ctx context.Context) error {
	e.have, e.quarantine = map[hash]int64{}, map[hash]int64{}
	if err := e.standing(ctx, func(r *row) { e.have[r.content]++ }); err != nil {
		return err
	}
	return e.bad(ctx, func(h hash) { e.quarantine[h]++ })
}

// left counts the records that stand and that no page has, and shows some. It reads the table again for that.
func (e *evidence) left(ctx context.Context) (records, quarantined int64, err error) {
	for _, n := range e.have {
		records += max(n, 0)
	}
	for _, n := range e.quarantine {
		quarantined += max(n, 0)
	}
	if records == 0 || len(e.examples) >= mostExamples {
		return records, quarantined, nil
	}
	err = e.standing(ctx, func(r *row) {
		if e.have[r.content] > 0 {
			e.have[r.content]--
			e.example("stands, and is in no page: %s", r.describe())
		}
	})
	return records, quarantined, err
}

// landing compares the window with its kept landing file, if there is one.
func (e *evidence) landing(ctx context.Context, root *os.Root) error {
	w := e.window
	name, err := keptFile(root, w)
	if err != nil || name == "" {
		return err
	}
	header, damage := e.readLanding(root, name)
	if damage == nil && header.JobRow != w.jobRow { // the evidence of an earlier generation
		return nil
	}
	e.report.Files, e.report.Records = 1, e.records.count
	const remove = "remove the file: nothing depends on it"
	scope := header.Window.Scope
	switch {
	case damage != nil:
		e.differ("landing "+name, remove, "it can't be read: %v", damage)
		return nil
	case header.Stream != w.stream || scope.Site != w.site || scope.Region != w.region || header.Window.From != w.from.String():
		e.differ("landing "+name, remove, "it is of %s %s/%s from %s", header.Stream, scope.Site, scope.Region, header.Window.From)
		return nil
	}
	var pages int64
	if err := e.conn.QueryRow(ctx, "SELECT coalesce((SELECT pages FROM sdr_sync.job WHERE job_row = $1), 0)", w.jobRow).Scan(&pages); err != nil {
		return fmt.Errorf("read job %d: %w", w.jobRow, err)
	}
	if pages != e.pages {
		e.differ("landing "+name, w.reslice(), "it has %d pages, job %d says it landed %d", e.pages, w.jobRow, pages)
	}
	var records, quarantined digest
	if err := e.standing(ctx, func(r *row) { records.add(r.content) }); err != nil {
		return err
	}
	if err := e.bad(ctx, func(h hash) { quarantined.add(h) }); err != nil {
		return err
	}
	if records == e.records && quarantined == e.quarantined {
		return nil
	}
	return e.detail(ctx, root, name, records, quarantined)
}

// readLanding decodes the file, if it is of the window's job.
func (e *evidence) readLanding(root *os.Root, name string) (header landingHeader, damage error) {
	f, err := openLanding(root, name)
	if err != nil {
		return header, err
	}
	defer f.close() // only read
	if f.header.JobRow != e.window.jobRow {
		return f.header, nil
	}
	return f.header, e.decode(f.pages())
}

// detail compares the landing file once more, record by record.
func (e *evidence) detail(ctx context.Context, root *os.Root, name string, records, quarantined digest) error {
	landed, bad := e.records, e.quarantined
	if err := e.holdings(ctx); err != nil {
		return err
	}
	if _, err := e.readLanding(root, name); err != nil {
		return err
	}
	gone, goneBad, err := e.left(ctx)
	if err != nil {
		return err
	}
	e.differ(e.window.where(), e.audit.replayOf(e.window),
		"its landing file holds %s and %d to be quarantined; %s and %d quarantined stand: %d and %d of the file do not stand, %d and %d that stand are not in it%s",
		landed, bad.count, records, quarantined.count, e.unknown, e.unknownBad, gone, goneBad, e.shown())
	return nil
}

func (e *evidence) differ(where, repair, format string, args ...any) {
	e.report.Differences = append(e.report.Differences, Difference{Where: where, What: fmt.Sprintf(format, args...), Repair: repair})
}

func (e *evidence) shown() string {
	if len(e.examples) == 0 {
		return ""
	}
	return "; for example " + strings.Join(e.examples, "; ")
}

// source compares the window with what the vendor returns now.
func (e *evidence) source(ctx context.Context, fetch Fetch) error {
	w := e.window
	err := inSnapshot(ctx, e.audit.cfg.URL, func(conn *pgx.Conn) error {
		e.conn = conn
		return e.holdings(ctx)
	})
	if err != nil {
		return err
	}
	if err := e.decode(fetch(ctx, w.public())); err != nil {
		return err
	}
	e.report.Records = e.records.count
	var gone, goneBad int64
	err = inSnapshot(ctx, e.audit.cfg.URL, func(conn *pgx.Conn) (err error) {
		e.conn = conn
		gone, goneBad, err = e.left(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if e.unknown+e.unknownBad+gone+goneBad == 0 {
		return nil
	}
	e.differ(w.where(), w.refresh(),
		"the vendor now returns %d records and %d that can't be normalised: %d and %d are new, %d and %d that stand are gone; it restated them since%s",
		e.records.count, e.quarantined.count, e.unknown, e.unknownBad, gone, goneBad, e.shown())
	return nil
}
