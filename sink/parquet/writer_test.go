package parquet_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	arrowparquet "github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/metadata"
	"github.com/apache/arrow/go/v15/parquet/schema"
	"pgregory.net/rapid"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
)

// valid turns rows into what a store yields.
func valid(rows func(yield func(*record.Row) bool)) iter.Seq2[*record.Row, error] {
	return func(yield func(*record.Row, error) bool) {
		rows(func(r *record.Row) bool { return yield(r, nil) })
	}
}

func encode(t testing.TB, p pipeline.Partition, rows func(yield func(*record.Row) bool)) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := open(t, t.TempDir()).WriteRows(t.Context(), p, &out, valid(rows)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func parse(t testing.TB, b []byte) *file.Reader {
	t.Helper()
	pf, err := file.NewParquetReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return pf
}

var ten38 = new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil)

// int128 is n in two's complement.
func int128(n *big.Int) record.Int128 {
	var b [16]byte
	if n.Sign() < 0 {
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	n.FillBytes(b[:])
	return record.Int128{Hi: int64(binary.BigEndian.Uint64(b[:8])), Lo: binary.BigEndian.Uint64(b[8:])}
}

// randomAmount returns up to 38 digits of either sign.
func randomAmount(rnd *rand.Rand) *big.Int {
	digits := 1 + rnd.IntN(38)
	text := make([]byte, digits)
	for i := range text {
		text[i] = byte('0' + rnd.IntN(10))
	}
	n, _ := new(big.Int).SetString(string(text), 10)
	if rnd.IntN(2) == 0 {
		n.Neg(n)
	}
	return n
}

// wild yields n rows of p whose every field is now NULL, now empty, now extreme; one row with its buffers is reused for all. text, if
// not nil, decides the text of row i instead.
func wild(p pipeline.Partition, n int, seed uint64, text func(i int) record.Value) func(yield func(*record.Row) bool) {
	return func(yield func(*record.Row) bool) {
		s := schemas.SDR()
		h := record.NewHasher(s)
		rnd := rand.New(rand.NewPCG(seed, 2))
		row := record.NewRow(s)
		row.Site = p.Site
		buffers := make([][]byte, len(s.Fields))
		start, span := p.From.Time(time.UTC).UnixMicro(), p.End().Time(time.UTC).UnixMicro()-p.From.Time(time.UTC).UnixMicro()
		for i := range n {
			row.WindowID, row.Ordinal = rnd.Int64()-rnd.Int64(), rnd.Int32()
			for f := range s.Fields {
				v := record.Value{Valid: s.Fields[f].Required || rnd.IntN(4) > 0}
				switch s.Fields[f].Type {
				case schemas.Timestamp:
					v.Int = rnd.Int64N(4e15) - 2e15
				case schemas.Decimal:
					buffers[f] = record.AppendInt128(buffers[f][:0], int128(randomAmount(rnd)))
					v.Bytes = buffers[f]
				case schemas.JSON:
					buffers[f] = fmt.Appendf(buffers[f][:0], `{"n":%d}`, rnd.IntN(1000))
					v.Bytes = buffers[f]
				default:
					buffers[f] = buffers[f][:0]
					if rnd.IntN(5) > 0 {
						buffers[f] = fmt.Appendf(buffers[f], "%c%x", 'A'+rune(rnd.IntN(300)), rnd.IntN(100_000))
					}
					v.Bytes = buffers[f]
					if text != nil {
						v = text(i)
					}
				}
				if s.Fields[f].Name == "begin_time" {
					v.Int = start + rnd.Int64N(span)
				}
				if !v.Valid {
					v = record.Value{}
				}
				row.Values[f] = v
			}
			if !yield(keyed(h, row)) {
				return
			}
			for _, b := range buffers { // what is kept of the row by reference turns into garbage
				for k := range b {
					b[k] = 'z'
				}
			}
		}
	}
}

// bare yields n rows of p with no more than a usage time: cheap ones.
func bare(p pipeline.Partition, n int) func(yield func(*record.Row) bool) {
	return func(yield func(*record.Row) bool) {
		s := schemas.SDR()
		row := record.NewRow(s)
		row.Site = p.Site
		row.Values[s.Index(s.TimeField)] = record.Value{Valid: true, Int: p.From.Time(time.UTC).UnixMicro()}
		keyed(record.NewHasher(s), row)
		for i := range n {
			row.Ordinal = int32(i)
			if !yield(row) {
				return
			}
		}
	}
}

// failOnce fails its k-th write and no other.
type failOnce struct {
	w    io.Writer
	k, n int
}

var errDisk = errors.New("the disk hiccuped")

func (f *failOnce) Write(p []byte) (int, error) {
	f.n++
	if f.n == f.k {
		return 0, errDisk
	}
	return f.w.Write(p)
}

// short writes half of its k-th write and says nothing.
type short struct {
	w    io.Writer
	k, n int
}

func (s *short) Write(p []byte) (int, error) {
	s.n++
	if s.n == s.k {
		n, _ := s.w.Write(p[:len(p)/2])
		return n, nil
	}
	return s.w.Write(p)
}

func TestWriteErrorsAreNeverSwallowed(t *testing.T) {
	t.Parallel()
	p := month("hcso-213", "2024-03")
	lake := open(t, t.TempDir())
	rows := valid(bare(p, parquet.SmallGroupRows+10)) // two row groups: v15 drops the errors of the first one's end
	count := &failOnce{w: io.Discard}
	if err := lake.WriteRows(t.Context(), p, count, rows); err != nil {
		t.Fatal(err)
	}
	if count.n < 60 {
		t.Fatalf("the file took only %d writes: too few to show anything", count.n)
	}
	for k := 1; k <= count.n; k++ {
		if err := lake.WriteRows(t.Context(), p, &failOnce{w: io.Discard, k: k}, rows); !errors.Is(err, errDisk) {
			t.Errorf("write %d of %d failed once: got %v, want %v", k, count.n, err, errDisk)
		}
		if k%8 != 0 {
			continue
		}
		if err := lake.WriteRows(t.Context(), p, &short{w: io.Discard, k: k}, rows); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("write %d of %d was short: got %v, want %v", k, count.n, err, io.ErrShortWrite)
		}
	}
}

func TestFirstErrorSticks(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := parquet.NewStickyWriter(&failOnce{w: &out, k: 2})
	for i, want := range []error{nil, errDisk, errDisk, errDisk} {
		if _, err := w.Write([]byte("x")); !errors.Is(err, want) {
			t.Errorf("write %d: got %v, want %v", i+1, err, want)
		}
	}
	if out.String() != "x" {
		t.Errorf("got %q: something was written after the error", out.String())
	}
}

// columnBounds are the least and greatest value of a column in a row group, as bytes that compare in its order.
type columnBounds struct {
	min, max []byte
	nulls    int64
}

func (b *columnBounds) include(key []byte) {
	if b.min == nil || bytes.Compare(key, b.min) < 0 {
		b.min = key
	}
	if b.max == nil || bytes.Compare(key, b.max) > 0 {
		b.max = key
	}
}

// ordered returns the row's value of column c as bytes that compare in its order; ok is false for NULL.
func ordered(row *record.Row, c schemas.Field) (key []byte, ok bool) {
	switch c.Name {
	case "usage_date":
		return signed(int64(row.UsageDate)), true
	case "site":
		return []byte(row.Site), true
	case "window_id":
		return signed(row.WindowID), true
	case "record_key":
		return bytes.Clone(row.Key[:]), true
	case "ordinal":
		return signed(int64(row.Ordinal)), true
	}
	v := row.Values[schemas.SDR().Index(c.Name)]
	if !v.Valid {
		return nil, false
	}
	return orderedValue(c.Type, v), true
}

// orderedValue returns a value that is not NULL as bytes that compare in its order.
func orderedValue(typ schemas.Type, v record.Value) []byte {
	switch typ {
	case schemas.Timestamp, schemas.Bigint, schemas.Date, schemas.Integer:
		return signed(v.Int)
	case schemas.Decimal:
		n, err := record.Unscaled(v.Bytes)
		if err != nil {
			panic(err)
		}
		return binary.BigEndian.AppendUint64(signed(n.Hi), n.Lo)
	case schemas.Float:
		return orderedFloat(uint64(v.Int))
	}
	return append([]byte{}, v.Bytes...)
}

// orderedFloat returns the float of these bits as bytes that compare in its order. Both zeros are one, as in every comparison: v15 writes
// -0 for a minimum of 0.
func orderedFloat(bits uint64) []byte {
	if bits == 1<<63 {
		bits = 0
	}
	if bits>>63 == 1 {
		return binary.BigEndian.AppendUint64(nil, ^bits)
	}
	return binary.BigEndian.AppendUint64(nil, bits|1<<63)
}

func signed(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)^1<<63) }

// storedBounds reads a column chunk's statistics in the same form.
func storedBounds(t *testing.T, chunk *metadata.ColumnChunkMetaData) columnBounds {
	t.Helper()
	stats, err := chunk.Statistics()
	if err != nil || stats == nil || !stats.HasNullCount() {
		t.Fatalf("column %s has no statistics: %v", chunk.PathInSchema(), err)
	}
	order := func(raw []byte) []byte {
		switch stats.Descr().PhysicalType() {
		case arrowparquet.Types.Int32:
			return binary.BigEndian.AppendUint64(nil, uint64(int64(int32(binary.LittleEndian.Uint32(raw))))^1<<63)
		case arrowparquet.Types.Double:
			return orderedFloat(binary.LittleEndian.Uint64(raw))
		case arrowparquet.Types.Int64:
			return binary.BigEndian.AppendUint64(nil, binary.LittleEndian.Uint64(raw)^1<<63)
		case arrowparquet.Types.FixedLenByteArray:
			if stats.Descr().LogicalType().Equals(schema.NewDecimalLogicalType(38, 12)) {
				raw = slices.Clone(raw)
				raw[0] ^= 0x80
			}
		}
		return raw
	}
	b := columnBounds{nulls: stats.NullCount()}
	if stats.HasMinMax() {
		b.min, b.max = order(stats.EncodeMin()), order(stats.EncodeMax())
	}
	return b
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	p := month("hcso-213", "2024-03")
	text := func(v func(i int) (string, bool)) func(i int) record.Value {
		return func(i int) record.Value {
			s, valid := v(i)
			return record.Value{Valid: valid, Bytes: []byte(s)}
		}
	}
	tests := map[string]func(yield func(*record.Row) bool){
		"anything, over batches and row groups": wild(p, parquet.SmallGroupRows+2*parquet.BatchRows+77, 1, nil),
		"one row":                               wild(p, 1, 2, nil),
		"one batch":                             wild(p, parquet.BatchRows, 3, nil),
		"empty texts only":                      wild(p, 100, 4, text(func(int) (string, bool) { return "", true })),
		"a batch of empty texts, then others": wild(p, 2*parquet.BatchRows, 5, text(func(i int) (string, bool) {
			if i < parquet.BatchRows {
				return "", true
			}
			return "m", true
		})),
		"others, then a batch of empty texts": wild(p, 2*parquet.BatchRows, 6, text(func(i int) (string, bool) {
			if i >= parquet.BatchRows {
				return "", true
			}
			return "m", true
		})),
		"one empty text among NULLs": wild(p, 3*parquet.BatchRows, 7, text(func(i int) (string, bool) {
			return "", i == parquet.BatchRows+5
		})),
		"NULL texts only": wild(p, parquet.BatchRows+1, 8, text(func(int) (string, bool) { return "", false })),
		"as wide as real": usage(p, parquet.SmallGroupRows+parquet.BatchRows, 9),
	}
	for name, rows := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pf := parse(t, encode(t, p, rows))
			columns := columnsOf(schemas.SDR())
			var want [][]columnBounds
			n := 0
			for row := range rows {
				if n%parquet.SmallGroupRows == 0 {
					want = append(want, make([]columnBounds, len(columns)))
				}
				bounds := want[len(want)-1]
				for i, c := range columns {
					key, ok := ordered(row, c)
					b := &bounds[i]
					if !ok {
						b.nulls++
						continue
					}
					b.include(key)
				}
				n++
			}
			if pf.NumRowGroups() != len(want) {
				t.Fatalf("got %d row groups, want %d", pf.NumRowGroups(), len(want))
			}
			for g := range want {
				for i, c := range columns {
					chunk, err := pf.MetaData().RowGroup(g).ColumnChunk(i)
					if err != nil {
						t.Fatal(err)
					}
					got, want := storedBounds(t, chunk), want[g][i]
					if !bytes.Equal(got.min, want.min) || !bytes.Equal(got.max, want.max) || got.nulls != want.nulls {
						t.Errorf("row group %d, column %s: got [%x, %x] and %d NULLs, want [%x, %x] and %d",
							g, c.Name, got.min, got.max, got.nulls, want.min, want.max, want.nulls)
					}
					if (got.min == nil) != (want.min == nil) {
						t.Errorf("row group %d, column %s: min is there: got %t, want %t", g, c.Name, got.min != nil, want.min != nil)
					}
				}
			}
		})
	}
}

func columnsOf(s *schemas.Stream) []schemas.Field {
	var columns []schemas.Field
	for _, name := range []string{"usage_date", "site", "window_id", "record_key", "ordinal"} {
		i := slices.IndexFunc(s.Derived, func(f schemas.Field) bool { return f.Name == name })
		columns = append(columns, s.Derived[i])
	}
	return append(columns, s.Fields...)
}

func TestSchema(t *testing.T) {
	t.Parallel()
	p := month("hcso-213", "2024-03")
	pf := parse(t, encode(t, p, usage(p, 10, 1)))
	got := map[string]string{}
	for i := range pf.MetaData().Schema.NumColumns() {
		c := pf.MetaData().Schema.Column(i)
		got[c.Name()] = fmt.Sprintf("%s %s %s", c.SchemaNode().RepetitionType(), c.PhysicalType(), c.LogicalType())
	}
	for _, c := range columnsOf(schemas.SDR()) {
		want := map[schemas.Type]string{
			schemas.Text: "BYTE_ARRAY String", schemas.JSON: "BYTE_ARRAY String", schemas.Date: "INT32 Date",
			schemas.Timestamp: "INT64 Timestamp(isAdjustedToUTC=true, timeUnit=microseconds, is_from_converted_type=false, force_set_converted_type=false)",
			schemas.Decimal:   "FIXED_LEN_BYTE_ARRAY Decimal(precision=38, scale=12)",
			schemas.Bigint:    "INT64 Int(bitWidth=64, isSigned=true)", schemas.Integer: "INT32 Int(bitWidth=32, isSigned=true)",
			schemas.UUID: "FIXED_LEN_BYTE_ARRAY None",
		}[c.Type]
		repetition := "optional"
		if slices.Contains([]string{"usage_date", "site", "window_id", "record_key", "ordinal", "begin_time"}, c.Name) {
			repetition = "required"
		}
		if want = repetition + " " + want; !strings.EqualFold(got[c.Name], want) {
			t.Errorf("column %s: got %s, want %s", c.Name, got[c.Name], want)
		}
	}
	if len(got) != len(columnsOf(schemas.SDR())) {
		t.Errorf("got %d columns, want %d", len(got), len(columnsOf(schemas.SDR())))
	}
	meta := pf.MetaData().KeyValueMetadata()
	for key, want := range map[string]string{
		"sdr_sync.stream": "sdr", "sdr_sync.schema_version": fmt.Sprint(schemas.SDR().Version),
		"sdr_sync.hash_version": fmt.Sprint(record.HashVersion), "sdr_sync.writer": parquet.WriterVersion,
	} {
		if v := meta.FindValue(key); v == nil || *v != want {
			t.Errorf("file metadata %s: got %v, want %q", key, v, want)
		}
	}
	if v := meta.FindValue("sdr_sync.columns"); v == nil || !strings.Contains(*v, "Amount metered, exact.") {
		t.Errorf("the columns' descriptions are not in the file: %v", v)
	}
}

func TestEqualRowsGiveEqualBytes(t *testing.T) {
	t.Parallel()
	p := month("hcso-213", "2024-03")
	for name, rows := range map[string]func(yield func(*record.Row) bool){
		"none": none,
		"real": usage(p, parquet.SmallGroupRows+100, 1),
		// Every value differs, so that a dictionary with a limit would be given up.
		"wild": wild(p, parquet.SmallGroupRows+100, 1, nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := encode(t, p, rows)
			for range 5 {
				if got := encode(t, p, rows); !bytes.Equal(got, want) {
					t.Fatalf("got other bytes for the same rows (%d, %d)", len(got), len(want))
				}
			}
		})
	}
}

func TestDictionariesNeverFallBack(t *testing.T) {
	t.Parallel()
	p := month("hcso-213", "2024-03")
	long := func(i int) record.Value {
		return record.Value{Valid: true, Bytes: fmt.Appendf(nil, "%0400d", i)}
	}
	pf := parse(t, encode(t, p, wild(p, parquet.BatchRows, 1, long)))
	for i := range pf.MetaData().Schema.NumColumns() {
		chunk, err := pf.MetaData().RowGroup(0).ColumnChunk(i)
		if err != nil {
			t.Fatal(err)
		}
		data := 0
		for _, s := range chunk.EncodingStats() {
			if s.PageType.String() == "DATA_PAGE" {
				data++
			}
		}
		if data != 1 {
			t.Errorf("column %s has data pages of %d encodings: their order in the footer is random", chunk.PathInSchema(), data)
		}
	}
}

func TestBrokenRows(t *testing.T) {
	t.Parallel()
	p := month("hcso-213", "2024-03")
	s := schemas.SDR()
	h := record.NewHasher(s)
	tests := map[string]struct {
		spoil func(*record.Row)
		want  string
	}{
		"values changed under their key": {func(r *record.Row) { r.Values[s.Index("resource_id")].Bytes = []byte("other") }, "record key"},
		"another site":                   {func(r *record.Row) { r.Site = "hcso-214" }, "another partition"},
		"another month":                  {func(r *record.Row) { r.UsageDate += 31 }, "another partition"},
		"no usage time": {func(r *record.Row) {
			r.Values[s.Index("begin_time")] = record.Value{}
			date := r.UsageDate
			keyed(h, r).UsageDate = date
		}, "begin_time is NULL"},
		"an amount that is none": {func(r *record.Row) {
			r.Values[s.Index("accumulate_factor_value")].Bytes = []byte("12x")
			keyed(h, r)
		}, "12x"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows := func(yield func(*record.Row, error) bool) {
				n := 0
				for row := range usage(p, 10, 1) {
					if n++; n == 5 {
						row = row.Clone()
						tt.spoil(row)
					}
					if !yield(row, nil) {
						return
					}
				}
			}
			err := open(t, t.TempDir()).WriteRows(t.Context(), p, io.Discard, rows)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "row 5") {
				t.Errorf("got %v, want an error about row 5 and %q", err, tt.want)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	p := month("hcso-213", "2024-03")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("asked to stop")
	rows := func(yield func(*record.Row, error) bool) {
		n := 0
		for row := range usage(p, 10*parquet.BatchRows, 1) {
			if n++; n == 3*parquet.BatchRows {
				cancel(stop)
			}
			if !yield(row, nil) {
				return
			}
		}
	}
	if err := open(t, t.TempDir()).WriteRows(ctx, p, io.Discard, rows); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

func TestSumsAreExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		want := new(big.Int)
		var numbers []record.Int128
		for range rapid.IntRange(0, 300).Draw(t, "count") {
			n := randomAmount(rnd)
			if rnd.IntN(3) == 0 { // the largest there are, so that 128 bits overflow
				n = new(big.Int).Sub(ten38, big.NewInt(1))
				if rnd.IntN(4) == 0 {
					n.Neg(n)
				}
			}
			want.Add(want, n)
			numbers = append(numbers, int128(n))
		}
		got, ok := new(big.Rat).SetString(parquet.SumOf(numbers))
		if !ok || got.Cmp(new(big.Rat).SetFrac(want, big.NewInt(1e12))) != 0 {
			t.Fatalf("got %s, want %s / 10^12", parquet.SumOf(numbers), want)
		}
	})
}
