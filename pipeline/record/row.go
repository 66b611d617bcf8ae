// Package record is the normal form of one vendor record: decoding, exact values, the content hash, and finding exact twins.
// It knows the stream's schema and nothing of HTTP, files or databases.
package record

import (
	"bytes"
	"fmt"
	"time"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// Value is one normalised value. Bytes holds text as sent, a decimal as trimmed plain text ("-12.5", never an exponent), canonical
// JSON, or the 16 bytes of a UUID; Int holds a timestamp in microseconds since 1970-01-01 UTC, a date in days since then, an integer, or
// the bits of a float. Bytes may alias the page it was decoded from, so a Value is good until the next one is decoded; Row.Clone keeps it.
type Value struct {
	Valid bool // false is NULL
	Bytes []byte
	Int   int64
}

// Hash is 128 bits of SHA-256 over canonical bytes; schemas/README.md specifies them.
type Hash [16]byte

// Row is one normalised record. Values stand in the order of the schema's Fields.
type Row struct {
	Values     []Value
	Hash       Hash // over Values alone: not the window, not the site
	NaturalKey Hash // equal for records that correct one another; of a list, for versions of one row
	Key        Hash // time in seconds, then 12 bytes of Hash: ordered by time; Hash itself where the stream has no time
	UsageDate  Date // date of the usage or of the event; 0 where the stream has no time
	Outside    bool // the date is outside of the window that the events were asked for
	Ordinal    int32
	WindowID   int64
	Site       string
}

// NewRow returns a row with room for the stream's fields, to be filled again and again.
func NewRow(s *schemas.Stream) *Row { return &Row{Values: make([]Value, len(s.Fields))} }

// Clone returns a deep copy that stays good when r is filled again.
func (r *Row) Clone() *Row {
	c := *r
	c.Values = make([]Value, len(r.Values))
	for i, v := range r.Values {
		c.Values[i] = Value{Valid: v.Valid, Bytes: bytes.Clone(v.Bytes), Int: v.Int}
	}
	return &c
}

// Date is a civil date without a zone: days since 1970-01-01.
type Date int32

// NewDate returns the date of year, month and day.
func NewDate(year int, month time.Month, day int) Date {
	return Date(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// DateOf returns the date that t has in loc.
func DateOf(t time.Time, loc *time.Location) Date {
	y, m, d := t.In(loc).Date()
	return NewDate(y, m, d)
}

// ParseDate reads "2024-03-01", or "2024-03" as the first of that month.
func ParseDate(s string) (Date, error) {
	for _, layout := range []string{"2006-01-02", "2006-01"} {
		if t, err := time.Parse(layout, s); err == nil {
			return Date(t.Unix() / 86400), nil
		}
	}
	return 0, fmt.Errorf("parse date %q: want YYYY-MM-DD or YYYY-MM", s)
}

// Time returns the midnight that begins d in loc.
func (d Date) Time(loc *time.Location) time.Time {
	u := time.Unix(int64(d)*86400, 0).UTC()
	return time.Date(u.Year(), u.Month(), u.Day(), 0, 0, 0, 0, loc)
}

// String returns "2024-03-01".
func (d Date) String() string { return d.Time(time.UTC).Format("2006-01-02") }

// MonthString returns "2024-03".
func (d Date) MonthString() string { return d.Time(time.UTC).Format("2006-01") }

// Month returns the first day of d's month.
func (d Date) Month() Date { return d.AddMonths(0) }

// AddMonths returns the first day of the month n months after d's.
func (d Date) AddMonths(n int) Date {
	t := d.Time(time.UTC)
	return NewDate(t.Year(), t.Month()+time.Month(n), 1)
}

// MarshalText writes the date as String does.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDate reads.
func (d *Date) UnmarshalText(text []byte) error {
	v, err := ParseDate(string(text))
	*d = v
	return err
}
