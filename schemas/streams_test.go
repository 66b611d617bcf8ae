package schemas_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// streamsDocument is docs/streams.md.
func streamsDocument() string {
	var out strings.Builder
	out.WriteString(`# Streams

<!-- Written by: go test ./schemas -run TestStreamsDocument -update -->

Every list that sdr-sync can pull besides the metering records, which [schemas/README.md](../schemas/README.md) describes. Each is one file in
` + "`schemas/`" + `; ` + "`make stream NAME=...`" + ` makes its table. ` + "`sdr-sync streams`" + ` shows when each was last pulled.

| stream | table | shape | call | document |
|---|---|---|---|---|
`)
	for _, s := range lists() {
		fmt.Fprintf(&out, "| [`%s`](#%s) | `%s` | %s | `%s %s` | %s |\n", s.Name, s.Name, s.Table, s.Shape, s.List.Method, s.List.Path, s.Document)
	}
	out.WriteString("\nThe columns that sdr-sync adds follow from the shape:\n")
	for _, shape := range []schemas.Shape{schemas.Events, schemas.Snapshot, schemas.History} {
		for _, s := range lists() {
			if s.Shape == shape {
				fmt.Fprintf(&out, "\n### %s\n\n%s", shape, fieldTable(s.Derived, true))
				break
			}
		}
	}
	for _, s := range lists() {
		fmt.Fprintf(&out, "\n## %s\n\n%s. %s. Table `%s`", s.Name, s.Title, s.Document, s.Table)
		if len(s.Key) > 0 {
			fmt.Fprintf(&out, ", key `%s`", strings.Join(s.Key, "`, `"))
		}
		if s.TimeField != "" {
			fmt.Fprintf(&out, ", time `%s`", s.TimeField)
		}
		fmt.Fprintf(&out, ".\n\n%s", fieldTable(s.Fields, false))
	}
	return out.String()
}

func lists() []*schemas.Stream { return schemas.All()[1:] }

// TestStreamsDocument fails when docs/streams.md doesn't say what the schemas say; run it with -update to rewrite it.
func TestStreamsDocument(t *testing.T) {
	const path = "../docs/streams.md"
	want := streamsDocument()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the schemas say: go test ./schemas -run TestStreamsDocument -update", path)
	}
}
