package verify

import (
	"time"
)

const (
	unitMonth = "month"
	unitDay   = "day"
	unitWhole = "whole"

	microsPerSecond = 1_000_000
	secondsPerDay   = 86_400

	tenant = "tenant" // the site of lists, which have none
)

// day is a civil date: days since 1970-01-01.
type day int64

func dayOf(t time.Time) day {
	return day(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay)
}

func (d day) time() time.Time { return time.Unix(int64(d)*secondsPerDay, 0).UTC() }

func (d day) String() string { return d.time().Format(time.DateOnly) }

func (d day) month() day {
	t := d.time()
	return dayOf(time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC))
}

func (d day) nextMonth() day {
	t := d.time()
	return dayOf(time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, time.UTC))
}

// in returns the midnight that begins d in zone.
func (d day) in(zone *time.Location) time.Time {
	t := d.time()
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, zone)
}

// calendar tells the civil date of instants in one zone. It remembers how long the zone's offset last seen holds.
type calendar struct {
	zone       *time.Location
	offset     int64 // seconds
	start, end int64 // seconds since 1970 between which offset holds
}

func (c *calendar) dayOf(micros int64) day {
	seconds := floorDiv(micros, microsPerSecond)
	if seconds < c.start || seconds >= c.end {
		t := time.Unix(seconds, 0).In(c.zone)
		_, offset := t.Zone()
		start, end := t.ZoneBounds()
		c.offset, c.start, c.end = int64(offset), -1<<62, 1<<62
		if !start.IsZero() {
			c.start = start.Unix()
		}
		if !end.IsZero() {
			c.end = end.Unix()
		}
	}
	return day(floorDiv(seconds+c.offset, secondsPerDay))
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// instantText writes microseconds since 1970 as the manifest does.
func instantText(micros int64) string {
	return time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000000Z")
}
