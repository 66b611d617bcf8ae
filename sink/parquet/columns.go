package parquet

import (
	"fmt"

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
	layout *layout
	schema *arrow.Schema
	rows   int

	dates    []int32
	sites    textColumn
	windows  []int64
	keys     []byte
	ordinals []int32
	fields   []fieldColumn
}

// fieldColumn is one field of the stream. Only the slice of its type is used.
type fieldColumn struct {
	field    schemas.Field
	typ      arrow.DataType
	validity validity
	text     textColumn
	times    []int64
	decimals []decimal128.Num
}

func newBatch(l *layout, schema *arrow.Schema) *batch {
	b := &batch{layout: l, schema: schema}
	for i, f := range l.stream.Fields {
		b.fields = append(b.fields, fieldColumn{field: f, typ: schema.Field(len(l.leading) + i).Type})
	}
	b.start()
	return b
}

func (b *batch) start() {
	b.rows = 0
	b.dates = make([]int32, 0, batchRows)
	b.windows = make([]int64, 0, batchRows)
	b.ordinals = make([]int32, 0, batchRows)
	b.keys = make([]byte, 0, batchRows*len(record.Hash{}))
	b.sites.start()
	for i := range b.fields {
		b.fields[i].start()
	}
}

func (c *fieldColumn) start() {
	c.validity = validity{}
	switch c.field.Type {
	case schemas.Timestamp:
		c.times = make([]int64, 0, batchRows)
	case schemas.Decimal:
		c.decimals = make([]decimal128.Num, 0, batchRows)
	default:
		c.text.start()
	}
}

// append copies the row. The amount, where the stream has one, comes unscaled already.
func (b *batch) append(row *record.Row, amount record.Int128) error {
	b.dates = append(b.dates, int32(row.UsageDate))
	b.sites.append(row.Site)
	b.windows = append(b.windows, row.WindowID)
	b.keys = append(b.keys, row.Key[:]...)
	b.ordinals = append(b.ordinals, row.Ordinal)
	for i := range b.fields {
		c, v := &b.fields[i], &row.Values[i]
		if !v.Valid && c.field.Required {
			return fmt.Errorf("the required field %s is NULL", c.field.Name)
		}
		c.validity.append(b.rows, v.Valid)
		switch c.field.Type {
		case schemas.Timestamp:
			c.times = append(c.times, v.Int)
		case schemas.Decimal:
			n := amount
			if i != b.layout.factorValue && v.Valid {
				var err error
				if n, err = record.Unscaled(v.Bytes); err != nil {
					return fmt.Errorf("field %s: %w", c.field.Name, err)
				}
			}
			c.decimals = append(c.decimals, decimal128.New(n.Hi, n.Lo))
		default:
			if v.Valid {
				c.text.data = append(c.text.data, v.Bytes...)
			}
			c.text.end()
		}
	}
	b.rows++
	return nil
}

// record hands the rows over as one Arrow record and starts anew.
func (b *batch) record() arrow.Record {
	arrays := []arrow.Array{
		fixed(arrow.FixedWidthTypes.Date32, b.rows, arrow.Int32Traits.CastToBytes(b.dates), validity{}),
		b.sites.array(b.rows, validity{}),
		fixed(arrow.PrimitiveTypes.Int64, b.rows, arrow.Int64Traits.CastToBytes(b.windows), validity{}),
		fixed(&arrow.FixedSizeBinaryType{ByteWidth: len(record.Hash{})}, b.rows, b.keys, validity{}),
		fixed(arrow.PrimitiveTypes.Int32, b.rows, arrow.Int32Traits.CastToBytes(b.ordinals), validity{}),
	}
	for i := range b.fields {
		c := &b.fields[i]
		switch c.field.Type {
		case schemas.Timestamp:
			arrays = append(arrays, fixed(c.typ, b.rows, arrow.Int64Traits.CastToBytes(c.times), c.validity))
		case schemas.Decimal:
			arrays = append(arrays, fixed(c.typ, b.rows, arrow.Decimal128Traits.CastToBytes(c.decimals), c.validity))
		default:
			arrays = append(arrays, c.text.array(b.rows, c.validity))
		}
	}
	rec := array.NewRecord(b.schema, arrays, int64(b.rows))
	b.start()
	return rec
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

func (c *textColumn) append(s string) {
	c.data = append(c.data, s...)
	c.end()
}

func (c *textColumn) end() { c.offsets = append(c.offsets, int32(len(c.data))) }

func (c *textColumn) array(rows int, v validity) arrow.Array {
	return array.NewStringData(array.NewData(arrow.BinaryTypes.String, rows, []*memory.Buffer{
		v.buffer(), memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.offsets)), memory.NewBufferBytes(c.data),
	}, nil, v.nulls, 0))
}
