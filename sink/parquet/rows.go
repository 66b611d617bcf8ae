package parquet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// readRows decodes a file and calls each with every row, in order; the row is reused. It stops at the first error.
func readRows(ctx context.Context, on *os.File, l *layout, schema *arrow.Schema, each func(*record.Row) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.Join(err, fmt.Errorf("decode Parquet: %v", r))
		}
	}()
	pf, err := file.NewParquetReader(on)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	pr, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: batchRows}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	if pf.NumRows() == 0 {
		return sameSchema(pr, schema)
	}
	if err := sameSchema(pr, schema); err != nil {
		return err
	}
	records, err := pr.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	defer records.Release()
	rows := &rowReader{layout: l, row: record.NewRow(l.stream)}
	for records.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := rows.each(records.Record(), each); err != nil {
			return err
		}
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) { // v15 reports the plain end of the rows as an error
		return fmt.Errorf("decode Parquet: %w", err)
	}
	return nil
}

// sameSchema compares names, types and nullability of the file's columns with what an export writes.
func sameSchema(pr *pqarrow.FileReader, want *arrow.Schema) error {
	got, err := pr.Schema()
	if err != nil {
		return fmt.Errorf("decode Parquet: %w", err)
	}
	for i, w := range want.Fields() {
		g := got.Field(i)
		if g.Name != w.Name || g.Nullable != w.Nullable || !arrow.TypeEqual(g.Type, w.Type) {
			return fmt.Errorf("column %d is %s %s (nullable %t), want %s %s (nullable %t)", i, g.Name, g.Type, g.Nullable, w.Name, w.Type, w.Nullable)
		}
	}
	return nil
}

// rowReader turns Arrow records back into rows.
type rowReader struct {
	layout  *layout
	row     *record.Row
	scratch []byte // the row's decimals, as text
}

func (r *rowReader) each(rec arrow.Record, each func(*record.Row) error) error {
	for i := range int(rec.NumRows()) {
		if len(r.layout.leading) > 0 {
			r.lead(rec, i)
		}
		r.scratch = r.scratch[:0]
		for n := range r.layout.stream.Fields {
			r.row.Values[n] = r.value(r.layout.stream.Fields[n].Type, rec.Column(len(r.layout.leading)+n), i)
		}
		if err := each(r.row); err != nil {
			return err
		}
	}
	return nil
}

// lead reads the leading columns, in their order.
func (r *rowReader) lead(rec arrow.Record, i int) {
	r.row.UsageDate = record.Date(rec.Column(0).(*array.Date32).Value(i))
	r.row.Site = rec.Column(1).(*array.String).Value(i)
	r.row.WindowID = rec.Column(2).(*array.Int64).Value(i)
	r.row.Key = record.Hash(rec.Column(3).(*array.FixedSizeBinary).Value(i))
	r.row.Ordinal = rec.Column(4).(*array.Int32).Value(i)
}

func (r *rowReader) value(typ schemas.Type, column arrow.Array, i int) record.Value {
	if column.IsNull(i) {
		return record.Value{}
	}
	switch typ {
	case schemas.Timestamp:
		return record.Value{Valid: true, Int: int64(column.(*array.Timestamp).Value(i))}
	case schemas.Float:
		return record.Value{Valid: true, Int: int64(math.Float64bits(column.(*array.Float64).Value(i)))}
	case schemas.Bigint:
		return record.Value{Valid: true, Int: column.(*array.Int64).Value(i)}
	case schemas.Date:
		return record.Value{Valid: true, Int: int64(column.(*array.Date32).Value(i))}
	case schemas.Integer:
		return record.Value{Valid: true, Int: int64(column.(*array.Int32).Value(i))}
	case schemas.UUID:
		return record.Value{Valid: true, Bytes: column.(*array.FixedSizeBinary).Value(i)}
	case schemas.Decimal:
		n := column.(*array.Decimal128).Value(i)
		from := len(r.scratch)
		r.scratch = record.AppendInt128(r.scratch, record.Int128{Hi: n.HighBits(), Lo: n.LowBits()})
		return record.Value{Valid: true, Bytes: r.scratch[from:]}
	default:
		return record.Value{Valid: true, Bytes: []byte(column.(*array.String).Value(i))}
	}
}
