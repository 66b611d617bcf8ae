package parquet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	arrowparquet "github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// WriterVersion names what decides a file's bytes: equal rows give equal bytes under one WriterVersion. The program's own version
// is not in it, so that an upgrade rewrites nothing. Raise the number whenever the bytes change.
const WriterVersion = "sdr-sync lake writer 1, arrow go v15.0.2"

// Batches and row groups have fixed sizes, since both shape the bytes. A row group is a multiple of a batch, so that no batch is
// ever split.
const (
	batchRows    = 4096
	rowGroupRows = 16 * batchRows
)

// compressionLevel is zstd's fastest. v15 makes a new encoder for every page at any level, the default one included, and those of higher
// levels are large: the default took 1.2 to 1.3 times the CPU and 30 MiB more memory for files that were 11 % smaller (measured).
const compressionLevel = 1

// Decimals are DECIMAL(38,12), as in the database.
const (
	decimalPrecision = 38
	decimalScale     = 12
)

// leading are the derived columns of the metering records that stand before their fields. natural_key stays in the database: it can be
// computed.
var leading = [...]string{"usage_date", "site", "window_id", "record_key", "ordinal"}

// freeText are fields whose values may all differ, and be long: a dictionary of them could outgrow the memory.
var freeText = [...]string{"extend_params", "extend_params2", "csb_params", "tag", "bp_info", "error_msg"}

// noLimit is a size that no row group's dictionary reaches. Beyond its limit v15 turns to plain pages and then lists the column's two
// encodings in the random order of a map: equal rows would give unequal bytes.
const noLimit = 1 << 40

// layout is the columns of a stream's files, with the positions that sums, digests and checks need; -1 for what it does not have.
type layout struct {
	declared *schemas.Stream // whose Fields are what the vendor sent: what record keys are made of
	stream   *schemas.Stream // whose Fields are the rows' values: of a list, all stored columns
	leading  []schemas.Field // of metering records, the columns that a row has beside its values; of a list, none

	key         int // position in the values of record_key, which metering records have beside them
	date        int // of the event date
	time        int // of the usage time or event time
	factorName  int // of the factor's name
	factorValue int // of the amount
}

func newLayout(s *schemas.Stream) (*layout, error) {
	stored := s.Stored()
	l := &layout{
		declared: s, stream: stored, key: stored.Index("record_key"), date: stored.Index("event_date"), time: stored.Index(s.TimeField),
		factorName: stored.Index("accumulate_factor_name"), factorValue: stored.Index("accumulate_factor_value"),
	}
	if l.factorName < 0 || l.factorValue < 0 || stored.Fields[l.factorValue].Type != schemas.Decimal {
		l.factorName, l.factorValue = -1, -1
	}
	switch {
	case l.timed() && l.time < 0:
		return nil, fmt.Errorf("lay out stream %s: there is no time field %q", s.Name, s.TimeField)
	case s.IsList() && (len(s.Derived) == 0 || l.key < 0), s.Shape == schemas.Events && l.date < 0:
		return nil, fmt.Errorf("lay out stream %s: its derived columns are not those of a list", s.Name)
	case s.IsList():
		return l, nil
	}
	for _, name := range leading {
		i := slices.IndexFunc(s.Derived, func(f schemas.Field) bool { return f.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("lay out stream %s: there is no derived column %q", s.Name, name)
		}
		field := s.Derived[i]
		field.Required = true
		l.leading = append(l.leading, field)
	}
	return l, nil
}

// timed tells whether the files are partitioned by time; a list that is read whole is one file.
func (l *layout) timed() bool {
	return l.declared.Shape == schemas.Jobs || l.declared.Shape == schemas.Events
}

// rowName tells one row of the stream from another in errors.
func (l *layout) rowName(row *record.Row) string {
	if l.declared.IsList() {
		return fmt.Sprintf("key %x", row.Values[l.key].Bytes)
	}
	return fmt.Sprintf("window %d, key %x, ordinal %d", row.WindowID, row.Key, row.Ordinal)
}

// columns are all columns of a file, in order.
func (l *layout) columns() []schemas.Field { return slices.Concat(l.leading, l.stream.Fields) }

// arrowSchema is the schema of every file, with the file's key-value pairs.
func (l *layout) arrowSchema() (*arrow.Schema, error) {
	var fields []arrow.Field
	for _, c := range l.columns() {
		typ, err := arrowType(c.Type)
		if err != nil {
			return nil, fmt.Errorf("lay out stream %s: field %s: %w", l.stream.Name, c.Name, err)
		}
		fields = append(fields, arrow.Field{Name: c.Name, Type: typ, Nullable: !c.Required})
	}
	meta, err := l.fileMetadata()
	if err != nil {
		return nil, err
	}
	return arrow.NewSchema(fields, &meta), nil
}

func arrowType(t schemas.Type) (arrow.DataType, error) {
	switch t {
	case schemas.Text, schemas.JSON:
		return arrow.BinaryTypes.String, nil
	case schemas.Timestamp:
		// Any other zone, "+00:00" included, would be written as a local time.
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, nil
	case schemas.Decimal:
		return &arrow.Decimal128Type{Precision: decimalPrecision, Scale: decimalScale}, nil
	case schemas.Date:
		return arrow.FixedWidthTypes.Date32, nil
	case schemas.Float:
		return arrow.PrimitiveTypes.Float64, nil
	case schemas.Bigint:
		return arrow.PrimitiveTypes.Int64, nil
	case schemas.Integer:
		return arrow.PrimitiveTypes.Int32, nil
	case schemas.UUID:
		return &arrow.FixedSizeBinaryType{ByteWidth: 16}, nil
	}
	return nil, fmt.Errorf("the type %q has no form in Parquet", t)
}

// fileMetadata are the file's own key-value pairs. No clock and no lake is in them: equal rows give equal bytes anywhere.
func (l *layout) fileMetadata() (arrow.Metadata, error) {
	type column struct {
		Name    string `json:"name"`
		Type    string `json:"type"`
		Unit    string `json:"unit,omitempty"`
		Meaning string `json:"meaning"`
		Source  string `json:"source,omitempty"`
	}
	var columns []column
	for _, c := range l.columns() {
		columns = append(columns, column{Name: c.Name, Type: string(c.Type), Unit: c.Unit, Meaning: c.Meaning, Source: c.Source})
	}
	text, err := json.Marshal(columns)
	if err != nil {
		return arrow.Metadata{}, fmt.Errorf("describe the columns of stream %s: %w", l.stream.Name, err)
	}
	return arrow.NewMetadata(
		[]string{
			"sdr_sync.stream", "sdr_sync.title", "sdr_sync.document", "sdr_sync.schema_version", "sdr_sync.hash_version",
			"sdr_sync.writer", "sdr_sync.columns",
		},
		[]string{
			l.stream.Name, l.stream.Title, l.stream.Document, strconv.Itoa(l.stream.Version), strconv.Itoa(record.HashVersion),
			WriterVersion, string(text),
		},
	), nil
}

// writerProperties are the Parquet settings of every file: statistics everywhere, dictionaries where values repeat.
func (l *layout) writerProperties() *arrowparquet.WriterProperties {
	props := []arrowparquet.WriterProperty{
		arrowparquet.WithCompression(compress.Codecs.Zstd),
		arrowparquet.WithCompressionLevel(compressionLevel),
		arrowparquet.WithDictionaryPageSizeLimit(noLimit),
		arrowparquet.WithMaxRowGroupLength(rowGroupRows),
	}
	for _, c := range l.columns() {
		props = append(props, arrowparquet.WithDictionaryFor(c.Name, repeats(c)))
	}
	return arrowparquet.NewWriterProperties(props...)
}

// repeats tells whether the column's values are short and repeat within a row group.
func repeats(c schemas.Field) bool {
	switch c.Type {
	case schemas.UUID, schemas.JSON, schemas.Decimal:
		return false
	}
	return !slices.Contains(freeText[:], c.Name)
}
