package schemas_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/schemas"
)

var update = flag.Bool("update", false, "rewrite the field tables of README.md")

// columnTypes are the types of columns in Postgres and in Parquet.
var columnTypes = map[schemas.Type][2]string{
	schemas.Text:      {"text", "STRING"},
	schemas.Timestamp: {"timestamptz", "TIMESTAMP(us, UTC)"},
	schemas.Decimal:   {"numeric(38,12)", "DECIMAL(38,12)"},
	schemas.Float:     {"double precision", "DOUBLE"},
	schemas.JSON:      {"jsonb", "STRING"},
	schemas.Date:      {"date", "DATE"},
	schemas.Bigint:    {"bigint", "INT64"},
	schemas.Integer:   {"integer", "INT32"},
	schemas.UUID:      {"uuid", "FIXED_LEN_BYTE_ARRAY(16)"},
}

// postgresOnly are the columns that no file has.
var postgresOnly = map[string]bool{"natural_key": true}

// fieldTable writes fields as a Markdown table.
func fieldTable(fields []schemas.Field, derived bool) string {
	var out strings.Builder
	lists := slices.ContainsFunc(fields, func(f schemas.Field) bool { return f.Required })
	out.WriteString("| name | Postgres / Parquet | unit | nullable | meaning | source |\n|---|---|---|---|---|---|\n")
	for _, f := range fields {
		types := columnTypes[f.Type]
		if postgresOnly[f.Name] && !lists {
			types[1] = "(no column)"
		}
		nullable, source := "yes", f.Source
		if f.Required || derived && !lists { // those of metering records are never NULL
			nullable = "no"
		}
		if derived {
			source = "sdr-sync"
		}
		name := "`" + f.Name + "`"
		if len(f.Aliases) > 0 {
			name += " (also `" + strings.Join(f.Aliases, "`, `") + "`)"
		}
		cells := []string{name, types[0] + " / " + types[1], f.Unit, nullable, f.Meaning, source}
		for i, cell := range cells {
			cells[i] = strings.ReplaceAll(cell, "|", `\|`)
		}
		fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | "))
	}
	return out.String()
}

// TestDictionary fails when the field tables of README.md don't say what the schema says; run it with -update to rewrite them.
func TestDictionary(t *testing.T) {
	s := schemas.SDR()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := string(readme)
	for name, table := range map[string]string{"fields": fieldTable(s.Fields, false), "derived": fieldTable(s.Derived, true)} {
		opening, closing := "<!-- "+s.Name+" "+name+": generated -->\n", "<!-- end -->"
		before, rest, found := strings.Cut(want, opening)
		_, after, closed := strings.Cut(rest, closing)
		if !found || !closed {
			t.Fatalf("README.md has no table between %q and %q", opening, closing)
		}
		want = before + opening + table + closing + after
	}
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(readme) != want {
		t.Error("README.md is stale; run: go test ./schemas -run Dictionary -update")
	}
}

// TestSchema checks what the dictionary and its readers rely on.
func TestSchema(t *testing.T) {
	t.Parallel()
	s := schemas.SDR()
	for _, f := range append(append([]schemas.Field{}, s.Fields...), s.Derived...) {
		if _, ok := columnTypes[f.Type]; !ok {
			t.Errorf("field %s has the type %s, which has no columns", f.Name, f.Type)
		}
	}
	for _, f := range s.Fields {
		if f.Source == "" {
			t.Errorf("field %s names no source", f.Name)
		}
	}
	if i := s.Index(s.TimeField); !s.Fields[i].Required || s.Fields[i].Type != schemas.Timestamp {
		t.Errorf("the time field is %+v, want a required timestamp", s.Fields[i])
	}
}
