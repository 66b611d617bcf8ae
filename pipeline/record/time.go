package record

import (
	"bytes"
	"time"

	"github.com/sdr-sync/sdr-sync/schemas"
)

const (
	microsPerSecond = 1_000_000
	secondsPerDay   = 86_400
	stampLen        = len("20240301220000")

	minMicros int64 = -62_135_596_800 * microsPerSecond   // 0001-01-01
	maxMicros int64 = 253_402_300_800*microsPerSecond - 1 // the end of 9999
)

// clock reads the timestamps of one field. Neighbouring records mostly share theirs, so it remembers the last.
type clock struct {
	zone   *time.Location
	utc    bool
	list   bool // it is of a list, whose times have more forms
	last   [stampLen]byte
	micros int64 // what last means, while known
	known  bool
}

func newClock(zone *time.Location, list bool) clock {
	return clock{zone: zone, utc: zone == time.UTC, list: list}
}

// wants says what parse reads.
func (c *clock) wants() string {
	if c.list {
		return "seconds (10 digits) or milliseconds (13) since 1970, 14 digits, YYYY-MM-DD h:mm[:ss] or RFC 3339"
	}
	return "14 digits, YYYY-MM-DD hh:mm:ss or RFC 3339"
}

// parse reads 14 digits, "2024-03-01 22:00:00" or "2024-03-01T22:00:00", all in the clock's zone, or RFC 3339 with a zone of its own
// and at most microseconds; of lists also what parseLoose and parseEpoch read. It refuses dates and times that no calendar or no clock of the zone shows. Of an hour that the zone's
// clocks show twice it takes the first.
func (c *clock) parse(text []byte) (micros int64, ok bool) {
	if len(text) == stampLen {
		if c.known && string(text) == string(c.last[:]) {
			return c.micros, true
		}
		wall, ok := parseStamp(text)
		if ok {
			wall, ok = c.instant(wall)
		}
		if !ok || wall < minMicros || wall > maxMicros {
			return 0, false
		}
		c.known, c.micros = true, wall
		copy(c.last[:], text)
		return wall, true
	}

	if c.list {
		if micros, ok := parseEpoch(text); ok {
			return micros, true
		}
	}
	wall, rest, ok := parseISO(text)
	if !ok && c.list {
		wall, rest, ok = parseLoose(text)
	}
	if !ok {
		return 0, false
	}
	fraction, zone, ok := parseFraction(rest)
	switch {
	case !ok:
		return 0, false
	case len(zone) > 0:
		micros, ok = parseZone(wall, zone)
	case len(rest) == 0 || c.list: // RFC 3339 has no fraction without a zone
		micros, ok = c.instant(wall)
	default:
		return 0, false
	}
	micros += fraction
	return micros, ok && micros >= minMicros && micros <= maxMicros
}

// instant returns when the zone's clocks show wall, which is given in microseconds as if the zone were UTC.
func (c *clock) instant(wall int64) (int64, bool) {
	if c.utc {
		return wall, true
	}
	seconds := wall / microsPerSecond
	u := time.Unix(seconds, 0).UTC()
	t := time.Date(u.Year(), u.Month(), u.Day(), u.Hour(), u.Minute(), u.Second(), 0, c.zone)
	if _, offset := t.Zone(); t.Unix()+int64(offset) != seconds {
		return 0, false // clocks were put forward over it
	}
	// time.Date does not promise which of two instants it returns where clocks were put back.
	if start, _ := t.ZoneBounds(); !start.IsZero() {
		_, before := start.Add(-time.Second).Zone()
		if earlier := seconds - int64(before); earlier < start.Unix() {
			return earlier * microsPerSecond, true
		}
	}
	return t.Unix() * microsPerSecond, true
}

// parseStamp reads "20240301220000" as microseconds since 1970, as if in UTC.
func parseStamp(b []byte) (int64, bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	return wallMicros(twoDigits(b)*100+twoDigits(b[2:]), twoDigits(b[4:]), twoDigits(b[6:]), twoDigits(b[8:]), twoDigits(b[10:]), twoDigits(b[12:]))
}

// parseISO reads the "2024-03-01T22:00:00" (or with a space for the T) that text begins with, as if in UTC, and returns what follows.
func parseISO(text []byte) (wall int64, rest []byte, ok bool) {
	const layout = "0000-00-00T00:00:00"
	if len(text) < len(layout) {
		return 0, nil, false
	}
	for i := range len(layout) {
		switch c := text[i]; layout[i] {
		case '0':
			if c < '0' || c > '9' {
				return 0, nil, false
			}
		case 'T':
			if c != 'T' && c != 't' && c != ' ' {
				return 0, nil, false
			}
		default:
			if c != layout[i] {
				return 0, nil, false
			}
		}
	}
	wall, ok = wallMicros(twoDigits(text)*100+twoDigits(text[2:]), twoDigits(text[5:]), twoDigits(text[8:]),
		twoDigits(text[11:]), twoDigits(text[14:]), twoDigits(text[17:]))
	return wall, text[len(layout):], ok
}

// parseLoose reads the "2024-03-01 22:00[:00]" (or with a T) that text begins with, of which the hour may have one digit, as if in UTC,
// and returns what follows.
func parseLoose(text []byte) (wall int64, rest []byte, ok bool) {
	const dayLen = len("2024-03-01")
	if len(text) <= dayLen || text[dayLen] != 'T' && text[dayLen] != 't' && text[dayLen] != ' ' {
		return 0, nil, false
	}
	days, ok := parseDay(text[:dayLen])
	if !ok {
		return 0, nil, false
	}
	rest = text[dayLen+1:]
	colon := bytes.IndexByte(rest, ':')
	if colon < 1 || colon > 2 || len(rest) < colon+3 || skipDigits(rest[:colon], 0) != colon || skipDigits(rest[:colon+3], colon+1) != colon+3 {
		return 0, nil, false
	}
	hour, minute, second := int(rest[colon-1]-'0'), twoDigits(rest[colon+1:]), 0
	if colon == 2 {
		hour = twoDigits(rest)
	}
	rest = rest[colon+3:]
	if len(rest) > 0 && rest[0] == ':' {
		if len(rest) < 3 || skipDigits(rest[:3], 1) != 3 {
			return 0, nil, false
		}
		second, rest = twoDigits(rest[1:]), rest[3:]
	}
	if hour > 23 || minute > 59 || second > 59 {
		return 0, nil, false
	}
	return (days*secondsPerDay + int64(hour*3600+minute*60+second)) * microsPerSecond, rest, true
}

// parseDay reads "2024-03-01" as days since 1970.
func parseDay(text []byte) (days int64, ok bool) {
	if len(text) != len("2024-03-01") || text[4] != '-' || text[7] != '-' ||
		skipDigits(text, 0) != 4 || skipDigits(text, 5) != 7 || skipDigits(text, 8) != 10 {
		return 0, false
	}
	micros, ok := wallMicros(twoDigits(text)*100+twoDigits(text[2:]), twoDigits(text[5:]), twoDigits(text[8:]), 0, 0, 0)
	return micros / (secondsPerDay * microsPerSecond), ok
}

// parseEpoch reads seconds (10 digits) or milliseconds (13 digits) since 1970 as microseconds.
func parseEpoch(text []byte) (micros int64, ok bool) {
	unit := int64(microsPerSecond)
	switch len(text) {
	case 10:
	case 13:
		unit /= 1000
	default:
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		micros = micros*10 + int64(c-'0')
	}
	return micros * unit, true
}

// parseFraction reads the ".fraction" of a second that rest may begin with, in microseconds, and returns what follows.
func parseFraction(rest []byte) (micros int64, after []byte, ok bool) {
	if len(rest) == 0 || rest[0] != '.' {
		return 0, rest, true
	}
	end := skipDigits(rest, 1)
	if end == 1 {
		return 0, nil, false
	}
	unit := int64(microsPerSecond)
	for _, c := range rest[1:end] {
		unit /= 10
		if unit == 0 && c != '0' {
			return 0, nil, false // finer than microseconds: nothing is rounded
		}
		micros += int64(c-'0') * unit
	}
	return micros, rest[end:], true
}

// parseZone reads the "Z", "+hh:mm" or "-hh:mm" behind an RFC 3339 time and returns the instant meant.
func parseZone(wall int64, rest []byte) (int64, bool) {
	if len(rest) == 1 && (rest[0] == 'Z' || rest[0] == 'z') {
		return wall, true
	}
	if len(rest) != len("+00:00") || rest[0] != '+' && rest[0] != '-' || rest[3] != ':' {
		return 0, false
	}
	for _, i := range [...]int{1, 2, 4, 5} {
		if rest[i] < '0' || rest[i] > '9' {
			return 0, false
		}
	}
	hours, minutes := twoDigits(rest[1:]), twoDigits(rest[4:])
	if hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := int64(hours*60+minutes) * 60 * microsPerSecond
	if rest[0] == '-' {
		offset = -offset
	}
	return wall - offset, true
}

func twoDigits(b []byte) int { return int(b[0]-'0')*10 + int(b[1]-'0') }

// wallMicros returns the microseconds since 1970 of a date and time in UTC, if the calendar has it and the year is 1 or later.
func wallMicros(year, month, day, hour, minute, second int) (int64, bool) {
	if year < 1 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	// Days since 1970 by counting years from March, so that the leap day is the last of its year.
	y, m := year, month-3
	if m < 0 {
		y, m = y-1, m+12
	}
	days := 365*y + y/4 - y/100 + y/400 + (153*m+2)/5 + day - 1 - 719_468
	return (int64(days)*secondsPerDay + int64(hour*3600+minute*60+second)) * microsPerSecond, true
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// calendar tells the civil date of instants in one zone. It remembers the last.
type calendar struct {
	zone   *time.Location
	micros int64
	date   Date
	known  bool
}

func (c *calendar) dateOf(micros int64) Date {
	if !c.known || micros != c.micros {
		c.known, c.micros, c.date = true, micros, DateOf(time.UnixMicro(micros), c.zone)
	}
	return c.date
}

// timestampFields returns a clock for every timestamp field of s, at the field's position.
func timestampFields(s *schemas.Stream, zone *time.Location) []clock {
	clocks := make([]clock, len(s.Fields))
	for i, f := range s.Fields {
		if f.Type == schemas.Timestamp {
			clocks[i] = newClock(zone, s.IsList())
		}
	}
	return clocks
}
