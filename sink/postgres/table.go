package postgres

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// table is where the records of one stream stand.
type table struct {
	stream *schemas.Stream
	name   string   // quoted, with its schema
	date   string   // column that it is partitioned by; "" if the stream is read whole
	site   string   // SQL for the site of a row
	order  string   // of rows in a Parquet file: one order for one content
	loaded rowCodec // what is copied into it, or into the table of incoming records
	stored rowCodec // what is read from it: metering records as they are loaded, of lists all columns as values
}

func newTable(s *schemas.Stream) *table {
	schema, name, _ := strings.Cut(s.Table, ".")
	t := &table{stream: s, name: pgx.Identifier{schema, name}.Sanitize(), site: "'" + pipeline.Tenant.Site + "'"}
	switch s.Shape {
	case schemas.Jobs:
		t.date, t.site = "usage_date", "site"
		t.order = `cloud_service_type_code COLLATE "C", resource_id COLLATE "C", begin_time, record_key, window_id, ordinal`
		t.loaded = newRowCodec(names(s.Derived), s.Fields)
		t.stored = t.loaded
		return t
	case schemas.Events:
		t.date = "event_date"
		t.order = pgx.Identifier{s.TimeField}.Sanitize() + ", record_key, window_id, ordinal"
		t.loaded = newRowCodec(names(s.Derived), s.Fields)
	case schemas.Snapshot:
		t.order = "natural_key, ordinal"
		t.loaded = newRowCodec([]string{"natural_key", "record_key", "ordinal"}, s.Fields)
	case schemas.History:
		t.order = "natural_key, valid_from"
		t.loaded = newRowCodec([]string{"natural_key", "record_key"}, s.Fields) // a key has one row at a time
	}
	t.stored = newRowCodec(nil, s.Stored().Fields)
	return t
}

func names(fields []schemas.Field) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	return names
}

// whole tells whether the table has one window: the list is read whole.
func (t *table) whole() bool { return t.date == "" }

// metered tells whether the table holds metering records: with sites, daily sums, and months that can be archived.
func (t *table) metered() bool { return t.stream.Shape == schemas.Jobs }

// describe names a window of the stream.
func (t *table) describe(w pipeline.Window) string {
	switch {
	case t.metered():
		return "window " + w.String()
	case t.whole():
		return "list " + t.stream.Name
	}
	return t.stream.Name + " window " + w.String()
}

// partitionUnit returns the length of the stream's Parquet partitions where that of others is unit.
func (t *table) partitionUnit(unit pipeline.Unit) pipeline.Unit {
	if t.whole() {
		return pipeline.Whole
	}
	return unit
}

// partitionStart returns the first date of the Parquet partition that a row of the date d stands in.
func (t *table) partitionStart(unit pipeline.Unit, d pipeline.Date) pipeline.Date {
	switch t.partitionUnit(unit) {
	case pipeline.Whole:
		return 0
	case pipeline.Month:
		return d.Month()
	}
	return d
}

// table returns the table of the stream called name.
func (db *DB) table(name string) (*table, error) {
	t := db.tables[name]
	if t == nil {
		return nil, fmt.Errorf("find the table of stream %q: there is no such stream", name)
	}
	return t, nil
}
