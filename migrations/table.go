package migrations

import (
	"fmt"
	"strings"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// Table writes the migration that makes the table of a stream that is read from a list: columns, keys, comments and grants as its
// schema and shape say. `go run ./migrations/generate` puts it into a file.
func Table(s *schemas.Stream) string {
	_, table, _ := strings.Cut(s.Table, ".")
	var b strings.Builder
	fmt.Fprintf(&b, "-- +goose Up\nSET LOCAL ROLE sdr_sync_owner;\n\n")
	fmt.Fprintf(&b, "-- Made from schemas/%s.yaml: make stream NAME=%s\n", s.Name, s.Name)
	fmt.Fprintf(&b, "CREATE TABLE %s (\n", s.Table)
	for _, f := range s.Stored().Fields {
		notNull := ""
		if f.Required {
			notNull = " NOT NULL"
		}
		fmt.Fprintf(&b, "    %q %s%s,\n", f.Name, columnType(f.Type), notNull)
	}
	fmt.Fprintf(&b, "    %s\n)%s;\n", strings.Join(constraints(s.Shape, table), ",\n    "), partitioning(s.Shape))
	for _, index := range indexes(s, table) {
		fmt.Fprintf(&b, "%s;\n", index)
	}

	fmt.Fprintf(&b, "COMMENT ON TABLE %s IS\n    %s;\n", s.Table, literal(s.Title+": "+holds(s.Shape)+" Source: "+s.Document+"."))
	for _, f := range s.Stored().Fields {
		fmt.Fprintf(&b, "COMMENT ON COLUMN %s.%s IS\n    %s;\n", s.Table, f.Name, literal(f.Comment()))
	}
	fmt.Fprintf(&b, "\nGRANT SELECT ON %s TO sdr_sync_reader;\nGRANT %s ON %s TO sdr_sync_writer;\nRESET ROLE;\n\n", s.Table, privileges(s.Shape), s.Table)

	fmt.Fprintf(&b, "-- +goose Down\nDROP TABLE %s;\n", s.Table)
	fmt.Fprintf(&b, "-- What the ledger says of the stream goes with it: it would say that rows stand which do not.\n")
	for _, child := range []string{"quarantine", "restatement"} {
		fmt.Fprintf(&b, "DELETE FROM sdr_sync.%s WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = '%s');\n", child, s.Name)
	}
	for _, own := range []string{"window", "job", "partition"} {
		fmt.Fprintf(&b, "DELETE FROM sdr_sync.%s WHERE stream = '%s';\n", own, s.Name)
	}
	return b.String()
}

func columnType(t schemas.Type) string {
	switch t {
	case schemas.Timestamp:
		return "timestamptz"
	case schemas.Decimal:
		return "numeric(38,12)"
	case schemas.Float:
		return "double precision"
	case schemas.JSON:
		return "jsonb"
	}
	return string(t) // the others are called as in Postgres
}

// holds says what the rows of the shape are.
func holds(shape schemas.Shape) string {
	switch shape {
	case schemas.Events:
		return "one row each, partitioned by event month. Identity is window, record_key and ordinal."
	case schemas.Snapshot:
		return "the list as its newest complete pull had it."
	}
	return "every version of each row, with the time it stood. The rows without valid_to are the present."
}

func partitioning(shape schemas.Shape) string {
	if shape == schemas.Events {
		return " PARTITION BY RANGE (event_date)"
	}
	return ""
}

func constraints(shape schemas.Shape, table string) []string {
	switch shape {
	case schemas.Events:
		return []string{"PRIMARY KEY (window_id, record_key, ordinal, event_date)"}
	case schemas.Snapshot:
		return []string{"PRIMARY KEY (natural_key, ordinal)"}
	}
	return []string{
		"PRIMARY KEY (natural_key, valid_from)",
		"CHECK (valid_to > valid_from)",
		"CHECK (opened_reason IN ('appeared', 'changed', 'reappeared'))",
		"CHECK (closed_reason IN ('changed', 'disappeared'))",
		"CHECK ((valid_to IS NULL) = (closed_reason IS NULL))",
		"CHECK (absent_since IS NULL OR absent_since > valid_from AND valid_to IS NULL)",
		// Ranges of one number stand in for equality, so that no extension is needed.
		"CONSTRAINT " + table + "_no_overlap EXCLUDE USING gist (\n" +
			"        int8range(uuid_hash_extended(natural_key, 0), uuid_hash_extended(natural_key, 0), '[]') WITH &&,\n" +
			"        tstzrange(valid_from, valid_to) WITH &&)",
	}
}

func indexes(s *schemas.Stream, table string) []string {
	switch s.Shape {
	case schemas.Events:
		return []string{fmt.Sprintf("CREATE INDEX %s_%s ON %s USING brin (%q)", table, s.TimeField, s.Table, s.TimeField)}
	case schemas.History:
		return []string{fmt.Sprintf("CREATE UNIQUE INDEX %s_open ON %s (natural_key) WHERE valid_to IS NULL", table, s.Table)}
	}
	return nil
}

// privileges are what the writer needs. Versions of a history are never deleted, events never updated.
func privileges(shape schemas.Shape) string {
	switch shape {
	case schemas.Events:
		return "INSERT, DELETE"
	case schemas.Snapshot:
		return "INSERT, UPDATE, DELETE"
	}
	return "INSERT, UPDATE"
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
