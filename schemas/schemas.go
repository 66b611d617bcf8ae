// Package schemas is the written form of what sdr-sync stores: one YAML file per stream with every field's name, type, unit,
// meaning and source document. It holds no logic; decoder, tables, Parquet schema and data dictionary follow it.
package schemas

import (
	"bytes"
	_ "embed"
	"fmt"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Type says how a field's values are normalised and stored.
type Type string

// The types of fields.
const (
	Text      Type = "text"      // UTF-8 text as sent; text, STRING
	Timestamp Type = "timestamp" // an instant, microseconds since 1970-01-01 UTC; timestamptz, TIMESTAMP(us, UTC)
	Decimal   Type = "decimal"   // exact, 38 digits of which 12 behind the point; numeric(38,12), DECIMAL(38,12)
	JSON      Type = "json"      // canonical JSON text; jsonb, STRING
	Date      Type = "date"      // a civil date; date, DATE
	Bigint    Type = "bigint"    // 64-bit integer
	Integer   Type = "integer"   // 32-bit integer
	UUID      Type = "uuid"      // 16 bytes; uuid, FIXED_LEN_BYTE_ARRAY(16)
)

// Field is one column of a stream. A vendor's key means the field if it equals the name or an alias after lower-casing and
// dropping '_', '-' and spaces.
type Field struct {
	Name     string   `yaml:"name"`
	Type     Type     `yaml:"type"`
	Aliases  []string `yaml:"aliases"`
	Required bool     `yaml:"required"`
	Unit     string   `yaml:"unit"`
	Meaning  string   `yaml:"meaning"`
	Source   string   `yaml:"source"`
}

// Comment is the field's description as it stands on the database column and in the Parquet file: meaning, then the unit.
func (f Field) Comment() string {
	if f.Unit == "" {
		return f.Meaning
	}
	return f.Meaning + " Unit: " + f.Unit + "."
}

// Stream is one kind of record. Fields are the vendor's, in the order of columns and of the hash's canonical bytes; Derived are
// the columns that sdr-sync adds.
type Stream struct {
	Name      string  `yaml:"stream"`
	Title     string  `yaml:"title"`
	Document  string  `yaml:"document"`
	Table     string  `yaml:"table"`
	Version   int     `yaml:"version"`
	TimeField string  `yaml:"time_field"`
	Fields    []Field `yaml:"fields"`
	Derived   []Field `yaml:"derived"`
}

// Index returns the position of the field called name in Fields, or -1.
func (s *Stream) Index(name string) int {
	for i, f := range s.Fields {
		if f.Name == name {
			return i
		}
	}
	return -1
}

//go:embed sdr.yaml
var sdrYAML []byte

// SDR returns the schema of the metering records. The result is shared: do not change it.
var SDR = sync.OnceValue(func() *Stream { return mustParse(sdrYAML) })

// Parse reads one stream file; unknown keys and unknown types are errors.
func Parse(text []byte) (*Stream, error) {
	var s Stream
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("parse stream schema: %w", err)
	}
	seen := map[string]bool{}
	for _, f := range append(append([]Field{}, s.Fields...), s.Derived...) {
		switch f.Type {
		case Text, Timestamp, Decimal, JSON, Date, Bigint, Integer, UUID:
		default:
			return nil, fmt.Errorf("stream %s: field %s has the unknown type %q", s.Name, f.Name, f.Type)
		}
		if f.Name == "" || f.Meaning == "" || seen[f.Name] {
			return nil, fmt.Errorf("stream %s: field %q needs a name of its own and a meaning", s.Name, f.Name)
		}
		seen[f.Name] = true
	}
	if s.Index(s.TimeField) < 0 {
		return nil, fmt.Errorf("stream %s: time_field %q is no field", s.Name, s.TimeField)
	}
	return &s, nil
}

func mustParse(text []byte) *Stream {
	s, err := Parse(text)
	if err != nil {
		panic(err) // the file is embedded: only a programmer can break it
	}
	return s
}
