package parquet

import (
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// batch collects up to batchRows rows as columns. Its memory is handed over to each record and never used again: v15 keeps slices
// of it as candidates for min and max until the row group ends, and wrote wrong statistics over reused memory.
type batch struct {
	layout  *layout
	schema  *arrow.Schema
	rows    int
	columns []column

	site []byte // of the row at hand
	lead []record.Value
}

// column is one column of the file. Only the slice of its type is used.
type column struct {
	field    schemas.Field
	typ      arrow.DataType
	validity validity
	text     textColumn
	longs    []int64 // timestamps, bigints, the bits of floats
	ints     []int32 // dates, integers
	decimals []decimal128.Num
	uuids    []byte
}

func newBatch(l *layout, schema *arrow.Schema) *batch {
	b := &batch{layout: l, schema: schema}
	for i, f := range l.columns() {
		b.columns = append(b.columns, column{field: f, typ: schema.Field(i).Type})
	}
	b.start()
	return b
}

func (b *batch) start() {
	b.rows = 0
	for i := range b.columns {
		b.columns[i].start()
	}
}

func (c *column) start() {
	c.validity = validity{}
	switch c.field.Type {
	case schemas.Timestamp, schemas.Bigint, schemas.Float:
		c.longs = make([]int64, 0, batchRows)
	case schemas.Date, schemas.Integer:
		c.ints = make([]int32, 0, batchRows)
	case schemas.Decimal:
		c.decimals = make([]decimal128.Num, 0, batchRows)
	case schemas.UUID:
		c.uuids = make([]byte, 0, batchRows*len(record.Hash{}))
	default:
		c.text.start()
	}
}

// append copies the row. The amount, where the stream has one, comes unscaled already.
func (b *batch) append(row *record.Row, amount record.Int128) error {
	lead := b.leading(row)
	for i := range lead {
		if err := b.columns[i].append(b.rows, &lead[i]); err != nil {
			return err
		}
	}
	for i := range row.Values {
		c, v := &b.columns[len(lead)+i], &row.Values[i]
		if i == b.layout.factorValue && v.Valid {
			c.validity.append(b.rows, true)
			c.decimals = append(c.decimals, decimal128.New(amount.Hi, amount.Lo))
			continue
		}
		if err := c.append(b.rows, v); err != nil {
			return err
		}
	}
	b.rows++
	return nil
}

// leading returns the values of the leading columns, which metering records have beside their fields. They are good until the next row.
func (b *batch) leading(row *record.Row) []record.Value {
	if len(b.layout.leading) == 0 {
		return nil
	}
	b.site = append(b.site[:0], row.Site...)
	b.lead = append(
		b.lead[:0],
		record.Value{Valid: true, Int: int64(row.UsageDate)},
		record.Value{Valid: true, Bytes: b.site},
		record.Value{Valid: true, Int: row.WindowID},
		record.Value{Valid: true, Bytes: row.Key[:]},
		record.Value{Valid: true, Int: int64(row.Ordinal)},
	)
	return b.lead
}

// append adds the value of the batch's given row.
func (c *column) append(row int, v *record.Value) error {
	if !v.Valid && c.field.Required {
		return fmt.Errorf("the required field %s is NULL", c.field.Name)
	}
	c.validity.append(row, v.Valid)
	switch c.field.Type {
	case schemas.Timestamp, schemas.Bigint, schemas.Float:
		c.longs = append(c.longs, v.Int)
	case schemas.Date, schemas.Integer:
		if int64(int32(v.Int)) != v.Int {
			return fmt.Errorf("field %s: %d has more than 32 bits", c.field.Name, v.Int)
		}
		c.ints = append(c.ints, int32(v.Int))
	case schemas.Decimal:
		return c.appendDecimal(v)
	case schemas.UUID:
		return c.appendUUID(v)
	default:
		return c.appendText(v)
	}
	return nil
}

func (c *column) appendDecimal(v *record.Value) error {
	var n record.Int128
	if v.Valid {
		var err error
		if n, err = record.Unscaled(v.Bytes); err != nil {
			return fmt.Errorf("field %s: %w", c.field.Name, err)
		}
	}
	c.decimals = append(c.decimals, decimal128.New(n.Hi, n.Lo))
	return nil
}

func (c *column) appendUUID(v *record.Value) error {
	var id record.Hash
	if v.Valid {
		if len(v.Bytes) != len(id) {
			return fmt.Errorf("field %s: %x is no UUID", c.field.Name, v.Bytes)
		}
		id = record.Hash(v.Bytes)
	}
	c.uuids = append(c.uuids, id[:]...)
	return nil
}

func (c *column) appendText(v *record.Value) error {
	if len(c.text.data)+len(v.Bytes) > math.MaxInt32 {
		return fmt.Errorf("field %s: the texts of %d rows have more than 2 GiB", c.field.Name, len(c.text.offsets))
	}
	if v.Valid {
		c.text.data = append(c.text.data, v.Bytes...)
	}
	c.text.offsets = append(c.text.offsets, int32(len(c.text.data)))
	return nil
}

// record hands the rows over as one Arrow record and starts anew.
func (b *batch) record() arrow.Record {
	var arrays []arrow.Array
	for i := range b.columns {
		arrays = append(arrays, b.columns[i].array(b.rows))
	}
	rec := array.NewRecord(b.schema, arrays, int64(b.rows))
	b.start()
	return rec
}

func (c *column) array(rows int) arrow.Array {
	switch c.field.Type {
	case schemas.Timestamp, schemas.Bigint, schemas.Float:
		return fixed(c.typ, rows, arrow.Int64Traits.CastToBytes(c.longs), c.validity)
	case schemas.Date, schemas.Integer:
		return fixed(c.typ, rows, arrow.Int32Traits.CastToBytes(c.ints), c.validity)
	case schemas.Decimal:
		return fixed(c.typ, rows, arrow.Decimal128Traits.CastToBytes(c.decimals), c.validity)
	case schemas.UUID:
		return fixed(c.typ, rows, c.uuids, c.validity)
	}
	return c.text.array(rows, c.validity)
}

func fixed(typ arrow.DataType, rows int, values []byte, v validity) arrow.Array {
	return array.MakeFromData(array.NewData(typ, rows, []*memory.Buffer{v.buffer(), memory.NewBufferBytes(values)}, nil, v.nulls, 0))
}

// validity is Arrow's bitmap of the values that are not NULL; it exists from the first NULL on.
type validity struct {
	bits  []byte
	nulls int
}

func (v *validity) append(row int, valid bool) {
	switch {
	case valid && v.bits != nil:
		bitutil.SetBit(v.bits, row)
	case !valid && v.bits == nil:
		v.bits = make([]byte, bitutil.BytesForBits(batchRows))
		bitutil.SetBitsTo(v.bits, 0, int64(row), true)
		v.nulls++
	case !valid:
		v.nulls++
	}
}

func (v *validity) buffer() *memory.Buffer {
	if v.bits == nil {
		return nil
	}
	return memory.NewBufferBytes(v.bits)
}

// textColumn is Arrow's form of strings: all bytes in a row, and where each begins.
type textColumn struct {
	offsets []int32
	data    []byte
	size    int // bytes of the largest batch so far: the next one's first guess
}

func (c *textColumn) start() {
	c.size = max(c.size, len(c.data), 64)
	c.offsets = append(make([]int32, 0, batchRows+1), 0)
	// Never nil: v15 takes the "" of a column without bytes for a missing value and leaves it out of the minimum.
	c.data = make([]byte, 0, c.size)
}

func (c *textColumn) array(rows int, v validity) arrow.Array {
	return array.NewStringData(array.NewData(arrow.BinaryTypes.String, rows, []*memory.Buffer{
		v.buffer(), memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.offsets)), memory.NewBufferBytes(c.data),
	}, nil, v.nulls, 0))
}
