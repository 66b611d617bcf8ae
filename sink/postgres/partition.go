package postgres

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// Store returns what the lake needs of the database for one stream. Each of its methods fails if there is no such stream. Rows of metering
// records come as they were published; rows of lists hold every stored column among their values, as schemas.Stream.Stored orders
// them, and nothing else. They are ordered by the time of the event, record_key, window_id and ordinal, and those of lists that are read
// whole by natural_key, then ordinal or valid_from.
func (db *DB) Store(stream string) pipeline.PartitionStore { return partitionStore{db, stream} }

type partitionStore struct {
	db     *DB
	stream string
}

// partitionColumns of sdr_sync.partition. Only months of metering records can be archived.
const partitionColumns = `site, unit, from_date, dirty_seq, exported_seq, file_rows, file_digest, file_bytes, file_sha256,
	stream = 'sdr' AND EXISTS (SELECT FROM sdr_sync.archived_month WHERE usage_month = date_trunc('month', from_date)::date)`

func scanPartition(row pgx.CollectableRow) (p pipeline.PartitionState, err error) {
	var from time.Time
	err = row.Scan(&p.Site, &p.Unit, &from, &p.DirtySeq, &p.ExportedSeq, &p.File.Rows, &p.File.Digest, &p.File.Bytes, &p.File.SHA256, &p.Archived)
	p.From = dateOf(from)
	return p, err
}

// PinLake returns the id of the lake that this database feeds, and pins id if none is pinned yet.
func (s partitionStore) PinLake(ctx context.Context, id string) (string, error) {
	return s.db.pin(ctx, "lake_id", id)
}

// Partitions lists every Parquet partition that ever held rows, in order.
func (s partitionStore) Partitions(ctx context.Context) ([]pipeline.PartitionState, error) {
	if _, err := s.db.table(s.stream); err != nil {
		return nil, err
	}
	rows, err := s.db.pool.Query(ctx, "SELECT "+partitionColumns+" FROM sdr_sync.partition WHERE stream = $1 ORDER BY site, from_date", s.stream)
	if err != nil {
		return nil, wrap(err, "list partitions")
	}
	states, err := pgx.CollectRows(rows, scanPartition)
	return states, wrap(err, "list partitions")
}

// ReadPartition calls read with what stands in the partition; see pipeline.PartitionStore.
func (s partitionStore) ReadPartition(ctx context.Context, p pipeline.Partition, read func(pipeline.PartitionState, []pipeline.PublishedWindow, iter.Seq2[*record.Row, error]) error) error {
	t, err := s.db.table(s.stream)
	if err != nil {
		return err
	}
	return s.db.inTx(ctx, snapshot, func(tx pgx.Tx) error {
		// Its turn to be written may come late.
		if _, err := tx.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
			return wrap(err, "read partition %s", p)
		}
		rows, err := tx.Query(ctx, "SELECT "+partitionColumns+" FROM sdr_sync.partition WHERE stream = $1 AND site = $2 AND from_date = $3",
			s.stream, p.Site, dateArg(p.From))
		if err != nil {
			return wrap(err, "read partition %s", p)
		}
		state, err := pgx.CollectExactlyOneRow(rows, scanPartition)
		if err != nil {
			return wrap(err, "read partition %s", p)
		}
		if state.Archived {
			return fmt.Errorf("read partition %s: its month is archived, so the rows are not in billing.sdr; restore it first", p)
		}
		windows, err := t.windowsIn(ctx, tx, p)
		if err != nil {
			return err
		}
		query, args := "SELECT "+t.stored.columns+" FROM "+t.name, []any{}
		if !t.whole() {
			query += " WHERE " + t.site + " = $1 AND " + t.date + " >= $2 AND " + t.date + " < $3"
			args = []any{p.Site, dateArg(p.From), dateArg(p.End())}
		}
		return read(state, windows, t.stored.rows(ctx, tx, query+" ORDER BY "+t.order, args...))
	})
}

var snapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// windowsIn lists the published windows with rows in the partition; of a list that is read whole, its one window, rows or not.
func (t *table) windowsIn(ctx context.Context, tx pgx.Tx, p pipeline.Partition) ([]pipeline.PublishedWindow, error) {
	query := `
		SELECT window_id, site, region, unit, from_date, to_date, generation FROM sdr_sync.window w
		WHERE stream = $1 AND site = $2 AND retired_at IS NULL`
	args := []any{t.stream.Name, p.Site}
	if !t.whole() {
		rows := t.name
		if t.metered() { // the daily sums are fewer
			rows = "sdr_sync.usage_rollup"
		}
		query += " AND EXISTS (SELECT FROM " + rows + " u WHERE u.window_id = w.window_id AND u." + t.date + " >= $3 AND u." + t.date + " < $4)"
		args = append(args, dateArg(p.From), dateArg(p.End()))
	}
	rows, err := tx.Query(ctx, query+" ORDER BY region, from_date", args...)
	if err != nil {
		return nil, wrap(err, "list the windows in partition %s", p)
	}
	windows, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w pipeline.PublishedWindow, err error) {
		var from, to time.Time
		err = row.Scan(&w.WindowID, &w.Window.Scope.Site, &w.Window.Scope.Region, &w.Window.Unit, &from, &to, &w.Generation)
		w.Window.From, w.Window.To = dateOf(from), dateOf(to)
		return w, err
	})
	return windows, wrap(err, "list the windows in partition %s", p)
}

// MarkExported records that the file of p holds what was read at seq.
func (s partitionStore) MarkExported(ctx context.Context, p pipeline.Partition, seq int64, file pipeline.FileFacts) error {
	_, err := s.db.execTx(ctx, `
		UPDATE sdr_sync.partition SET exported_seq = $4, file_rows = $5, file_digest = $6, file_bytes = $7, file_sha256 = $8, exported_at = $9
		WHERE stream = $1 AND site = $2 AND from_date = $3`,
		s.stream, p.Site, dateArg(p.From), seq, file.Rows, file.Digest, file.Bytes, file.SHA256, s.db.cfg.Now())
	return wrap(err, "mark partition %s as exported", p)
}

// AnyExported tells whether a file of any stream was ever exported: one lake is for all of them.
func (s partitionStore) AnyExported(ctx context.Context) (bool, error) {
	var any bool
	err := s.db.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM sdr_sync.partition WHERE file_sha256 <> '')").Scan(&any)
	return any, wrap(err, "look for exported files")
}
