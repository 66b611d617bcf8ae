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

const partitionColumns = `site, unit, from_date, dirty_seq, exported_seq, file_rows, file_digest, file_bytes, file_sha256,
	EXISTS (SELECT FROM sdr_sync.archived_month WHERE usage_month = date_trunc('month', from_date)::date)`

func scanPartition(row pgx.CollectableRow) (p pipeline.PartitionState, err error) {
	var from time.Time
	err = row.Scan(&p.Site, &p.Unit, &from, &p.DirtySeq, &p.ExportedSeq, &p.File.Rows, &p.File.Digest, &p.File.Bytes, &p.File.SHA256, &p.Archived)
	p.From = dateOf(from)
	return p, err
}

// Partitions lists every Parquet partition that ever held rows, in order.
func (db *DB) Partitions(ctx context.Context) ([]pipeline.PartitionState, error) {
	rows, err := db.pool.Query(ctx, "SELECT "+partitionColumns+" FROM sdr_sync.partition WHERE stream = $1 ORDER BY site, from_date", db.stream.Name)
	if err != nil {
		return nil, wrap(err, "list partitions")
	}
	states, err := pgx.CollectRows(rows, scanPartition)
	return states, wrap(err, "list partitions")
}

// ReadPartition calls read with what stands in the partition; see pipeline.PartitionStore.
func (db *DB) ReadPartition(ctx context.Context, p pipeline.Partition, read func(pipeline.PartitionState, []pipeline.PublishedWindow, iter.Seq2[*record.Row, error]) error) error {
	return db.inTx(ctx, snapshot, func(tx pgx.Tx) error {
		// Its turn to be written may come late.
		if _, err := tx.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
			return wrap(err, "read partition %s", p)
		}
		rows, err := tx.Query(ctx, "SELECT "+partitionColumns+" FROM sdr_sync.partition WHERE stream = $1 AND site = $2 AND from_date = $3",
			db.stream.Name, p.Site, dateArg(p.From))
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
		windows, err := db.windowsIn(ctx, tx, p)
		if err != nil {
			return err
		}
		return read(state, windows, db.rows(ctx, tx, `
			SELECT `+db.sdr.columns+` FROM billing.sdr WHERE site = $1 AND usage_date >= $2 AND usage_date < $3
			ORDER BY cloud_service_type_code COLLATE "C", resource_id COLLATE "C", begin_time, record_key, window_id, ordinal`,
			p.Site, dateArg(p.From), dateArg(p.End())))
	})
}

var snapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

func (db *DB) windowsIn(ctx context.Context, tx pgx.Tx, p pipeline.Partition) ([]pipeline.PublishedWindow, error) {
	rows, err := tx.Query(ctx, `
		SELECT window_id, site, region, unit, from_date, to_date, generation FROM sdr_sync.window w
		WHERE stream = $1 AND site = $2 AND retired_at IS NULL AND EXISTS (
			SELECT FROM sdr_sync.usage_rollup u WHERE u.window_id = w.window_id AND u.usage_date >= $3 AND u.usage_date < $4)
		ORDER BY region, from_date`, db.stream.Name, p.Site, dateArg(p.From), dateArg(p.End()))
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
func (db *DB) MarkExported(ctx context.Context, p pipeline.Partition, seq int64, file pipeline.FileFacts) error {
	_, err := db.pool.Exec(ctx, `
		UPDATE sdr_sync.partition SET exported_seq = $4, file_rows = $5, file_digest = $6, file_bytes = $7, file_sha256 = $8, exported_at = $9
		WHERE stream = $1 AND site = $2 AND from_date = $3`,
		db.stream.Name, p.Site, dateArg(p.From), seq, file.Rows, file.Digest, file.Bytes, file.SHA256, db.cfg.Now())
	return wrap(err, "mark partition %s as exported", p)
}
