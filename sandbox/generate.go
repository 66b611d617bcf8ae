package sandbox

import (
	"sort"
	"time"
)

// The records follow from the seed: a record is computed from scope, file day and number whenever it is asked for, and none is kept.

// day is a civil date as days since 1970-01-01.
type day int32

func dayOf(t time.Time) day {
	y, m, d := t.Date()
	return day(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

func (d day) String() string { return time.Unix(int64(d)*86400, 0).UTC().Format(time.DateOnly) }

// mix is the finaliser of splitmix64: every bit of x moves every bit of the result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func mixText(h uint64, text string) uint64 {
	for i := range len(text) {
		h = mix(h ^ uint64(text[i]))
	}
	return mix(h)
}

// holdings are the records of one scope.
type holdings struct {
	scope      Scope
	seed       uint64
	series     []series // report every hour, in time
	stragglers []series // report days late only
	config     *Config
}

func newHoldings(c *Config, sc Scope) *holdings {
	h := &holdings{scope: sc, seed: mixText(mix(uint64(c.Seed)), sc.Site+"/"+sc.Region), config: c}
	h.series = newSeries(h.seed, sc, c.Resources, c.KeyStyle)
	h.stragglers = newSeries(mix(h.seed), sc, max(8, c.Resources/20), c.KeyStyle)
	return h
}

// onTime is how many records of a file day come in time: one per series and hour.
func (h *holdings) onTime() int64 { return 24 * int64(len(h.series)) }

// record is one metering record before it is written.
type record struct {
	series *series
	begin  int64 // seconds since 1970-01-01 UTC
	stamp  int64 // when the record was generated, likewise
	amount amount
	kind   recordKind
	bad    badness
	bag    bool   // carries a nested object that no document names
	pick   uint64 // chooses among spellings of the same badness
}

type recordKind uint8

const (
	kindOnTime recordKind = iota
	kindTwin
	kindLate
	kindCorrection
)

// badness is why a record can't be parsed.
type badness uint8

const (
	good badness = iota
	badBeginTime
	badAmount
	badShape
)

// onTimeRecord is the record of one series for one hour of a file day. The first hour of a file day is 23:00 of the day before:
// a record is written some 17 minutes after its hour has ended, and the file date is the date of writing.
func (h *holdings) onTimeRecord(r *record, d day, number int64) {
	hour := (int64(d)-1)*24 + 23 + number/int64(len(h.series))
	n := number % int64(len(h.series))
	r.series = &h.series[n]
	h.fill(r, hour, mix(h.seed^mix(uint64(hour)<<32|uint64(n))))
	r.stamp = hour*3600 + 3600 + 16*60 + int64(r.pick>>40%120)
	r.kind = kindOnTime
	if every := uint64(h.config.BadEvery); every > 0 && r.pick%every == 0 {
		r.bad = badBeginTime + badness(r.pick>>33%3)
	}
}

// fill sets what follows from the hour and the hash.
func (h *holdings) fill(r *record, hour int64, hash uint64) {
	odd := mix(hash)
	r.begin = hour * 3600
	r.amount = amountOf(r.series.factor, hash, odd)
	if r.series.factor == factorDuration && r.amount.whole < 3599 {
		r.begin += 3600 - int64(r.amount.whole) // begun within the hour
	}
	r.bad = good
	r.bag = odd>>32%5000 == 0
	r.pick = mix(odd)
}

// lateRecord is of usage 1 to 40 days before the file day. Stragglers never report in time, so it contradicts no earlier record.
func (h *holdings) lateRecord(r *record, d day, hash uint64) {
	r.series = &h.stragglers[hash%uint64(len(h.stragglers))]
	back := 1 + int64(hash>>16%40)
	h.fill(r, (int64(d)-back)*24+int64(hash>>24%24), mix(hash))
	r.stamp = int64(d)*86400 + int64(hash>>32%86400)
	r.kind = kindLate
}

// correction is another value for the record of a recent hour: the same natural key under record_type 30.
func (h *holdings) correction(r *record, d day, hash uint64) {
	h.onTimeRecord(r, d-day(hash%6), int64(hash>>8%uint64(h.onTime())))
	r.amount = r.amount.corrected(r.series.factor, hash>>20)
	r.stamp = int64(d)*86400 + 23*3600 + 1800 + int64(hash>>32%1500)
	r.kind, r.bad, r.bag = kindCorrection, good, false
}

// section is what one file day of one scope holds for a result.
type section struct {
	holdings *holdings
	day      day
	start    int64 // number of its first record in the result
	regular  int64 // records of the file as first written
	extra    int64 // of these, the ones that aren't on time
	twins    int64 // weights of the kinds of extra records
	late     int64
	nights   []nightShare
}

// nightShare is what one night added to a file.
type nightShare struct {
	night int // from 1
	count int64
}

// nightReach is how many file days before today a night adds to.
const nightReach = 5

func newSection(h *holdings, d day, start int64, nights []day) section {
	base := h.onTime()
	share := func(every int, salt uint64) int64 {
		if every == 0 {
			return 0
		}
		// Rounding up as often as not lets small scopes have some, too.
		return (base + int64(mix(h.seed^mix(uint64(d)^salt<<40))%uint64(every))) / int64(every)
	}
	s := section{holdings: h, day: d, start: start}
	s.twins, s.late = share(h.config.TwinEvery, 1), share(h.config.LateEvery, 2)
	s.extra = s.twins + s.late + share(h.config.CorrectionEvery, 3)
	s.regular = base + s.extra
	for i, today := range nights {
		if d >= today-nightReach && d < today {
			count := 1 + base/1000 + int64(s.hash(i+1, 0)%4)
			s.nights = append(s.nights, nightShare{i + 1, count})
		}
	}
	return s
}

func (s *section) hash(night int, number int64) uint64 {
	return mix(s.holdings.seed ^ mix(uint64(s.day)<<20^uint64(night)) ^ mix(uint64(number)+0xe7037ed1a0b428db))
}

func (s *section) count() int64 {
	n := s.regular
	for _, share := range s.nights {
		n += share.count
	}
	return n
}

// record computes the i-th record of the section.
func (s *section) record(r *record, i int64) {
	if i >= s.regular {
		s.nightRecord(r, i-s.regular)
		return
	}
	before := i * s.extra / s.regular // extra records in front of i: they are spread evenly
	if (i+1)*s.extra/s.regular == before {
		s.holdings.onTimeRecord(r, s.day, i-before)
		return
	}
	hash := s.hash(0, before)
	switch pick := int64(hash >> 8 % uint64(s.extra)); {
	case pick < s.twins:
		// The twin of one of the last 400 records, so that twins meet on one page as well as across pages.
		last := max(0, i-before-1)
		s.holdings.onTimeRecord(r, s.day, last-int64(hash>>24%uint64(min(last+1, 400))))
		r.kind = kindTwin
	case pick < s.twins+s.late:
		s.holdings.lateRecord(r, s.day, mix(hash))
	default:
		s.holdings.correction(r, s.day, mix(hash))
	}
}

func (s *section) nightRecord(r *record, i int64) {
	for _, share := range s.nights {
		if i >= share.count {
			i -= share.count
			continue
		}
		hash := s.hash(share.night, i+1)
		if hash>>60%2 == 0 {
			s.holdings.lateRecord(r, s.day, mix(hash))
		} else {
			s.holdings.correction(r, s.day, mix(hash))
		}
		return
	}
}

// result is all that a query job returns, fixed when the job is created.
type result struct {
	sections []section
	total    int64
	night    int // nights passed when it was made
}

// query collects the sections of the file days [from, to) in day order. Empty site and region mean all.
func (s *Server) query(site, region string, from, to day) result {
	s.mu.Lock()
	nights := s.nights[:len(s.nights):len(s.nights)]
	s.mu.Unlock()

	from, to = max(from, dayOf(s.config.First)), min(to, dayOf(s.config.Today()))
	res := result{night: len(nights)}
	for d := from; d < to; d++ {
		for _, h := range s.holdings {
			if (site != "" && h.scope.Site != site) || (region != "" && h.scope.Region != region) {
				continue
			}
			sec := newSection(h, d, res.total, nights)
			res.sections = append(res.sections, sec)
			res.total += sec.count()
		}
	}
	return res
}

// each calls visit with the records [from, to) in order. The record is good until the next one.
func (res *result) each(from, to int64, visit func(*record)) {
	var r record
	n := sort.Search(len(res.sections), func(i int) bool { return res.sections[i].start > from }) - 1
	for from < to {
		sec := &res.sections[n]
		end := min(to, sec.start+sec.count())
		for ; from < end; from++ {
			sec.record(&r, from-sec.start)
			visit(&r)
		}
		n++
	}
}
