package verify

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// tally is what was read of a stream's table. Every worker has one of its own; they are added up at the end.
type tally struct {
	layout *layout
	known  map[int64]*window
	source calendar
	seed   maphash.Seed // of the daily sums' sketch
	latest int64        // time that no row of a list can be newer than, in microseconds

	records    int64
	windows    map[int64]*windowTally
	partitions map[partitionKey]*partitionTally
	versions   versionTally // of a history

	lastWindow    *windowTally
	lastKey       partitionKey
	lastPartition *partitionTally
}

// partitionKey is the site, and the first date of the partition.
type partitionKey struct {
	site string
	from day
}

// windowTally is what stands of one window.
type windowTally struct {
	id     int64
	window *window // nil if the ledger does not know it, or has retired it

	content   digest
	badKeys   int64 // of rows that stand
	badPast   int64 // of earlier versions
	missing   int64
	wrongSite int64
	wrongDate int64
	outside   int64
	badTimes  int64
	ordinals  int64 // rows that are not the first of their content
	months    map[day]bool
	facts     sketch
}

func newTally(a *audit, s *streamAudit) *tally {
	latest := a.cfg.Now().UnixMicro()
	for _, w := range s.windows { // a clock that was set back leaves rows of pulls that are yet to come
		latest = max(latest, w.newestPull)
	}
	return &tally{
		layout: s.layout, known: s.windows, source: calendar{zone: a.cfg.SourceZone}, seed: a.seed,
		latest: latest + secondsPerDay*microsPerSecond, // clocks differ

		windows: map[int64]*windowTally{}, partitions: map[partitionKey]*partitionTally{},
	}
}

// empty returns a tally for another worker.
func (t *tally) empty() *tally {
	e := *t
	e.records, e.windows, e.partitions, e.versions = 0, map[int64]*windowTally{}, map[partitionKey]*partitionTally{}, versionTally{}
	e.lastWindow, e.lastPartition = nil, nil
	return &e
}

func (t *tally) window(id int64) *windowTally {
	if t.lastWindow == nil || t.lastWindow.id != id {
		w := t.windows[id]
		if w == nil {
			w = &windowTally{id: id, window: t.known[id], months: map[day]bool{}}
			t.windows[id] = w
		}
		t.lastWindow = w
	}
	return t.lastWindow
}

// row counts a row of the table. unit is the length of partitions.
func (t *tally) row(r *row, unit string) {
	switch {
	case t.layout.metered():
		t.records++
		w := t.fact(r)
		if hashOf(r.derived(t.layout.natural)) != r.naturalOf() && !w.bad(r) {
			w.badKeys++
		}
	case t.layout.timed():
		t.records++
		t.event(r)
	default:
		t.listRow(r)
	}
	t.partition(r, unit).add(r, r.storedHash())
}

// bad tells whether the row's record_key is wrong, for which it is counted already.
func (w *windowTally) bad(r *row) bool { return hashOf(r.derived(r.layout.key)) != r.keyOf() }

// fact counts a metering record, of the table or of the file of an archived month.
func (t *tally) fact(r *row) *windowTally {
	l := t.layout
	w := t.window(intOf(r.derived(l.window)))
	w.content.add(r.content)
	if w.bad(r) {
		w.badKeys++
	}
	if isNull(r.field(l.amount)) {
		w.missing++
	}
	if w.window != nil && string(bytesOf(r.derived(l.site))) != w.window.site {
		w.wrongSite++
	}
	t.dates(w, r)
	w.facts.add(maphash.Bytes(t.seed, r.dimensions()), 1, isNull(r.field(l.amount)), r.amount)
	return w
}

// dates compares the date of the row with its time, and counts its ordinal.
func (t *tally) dates(w *windowTally, r *row) day {
	date := day(intOf(r.derived(t.layout.date)))
	if month := date.month(); !w.months[month] {
		w.months[month] = true
	}
	right := t.source.dayOf(r.time())
	if date != right {
		w.wrongDate++
	}
	if intOf(r.derived(t.layout.ordinal)) != 0 {
		w.ordinals++
	}
	return right
}

func (t *tally) event(r *row) {
	w := t.window(intOf(r.derived(t.layout.window)))
	w.content.add(r.content)
	if w.bad(r) {
		w.badKeys++
	}
	if date := t.dates(w, r); w.window != nil && (date < w.window.from || date >= w.window.to) {
		w.outside++
	}
}

// listRow counts a row of a list that is read whole. All of them belong to the one window of the stream.
func (t *tally) listRow(r *row) {
	l := t.layout
	var id int64
	for id = range t.known { // there is but one
		break
	}
	w := t.window(id)
	stands := true
	if l.stream.Shape == schemas.History {
		stands = isNull(r.derived(l.to)) && isNull(r.derived(l.missing))
		if !t.versions.add(r) {
			w.badTimes++
		}
	} else if intOf(r.derived(l.ordinal)) != 0 {
		w.ordinals++
	}
	if from := intOf(r.derived(l.from)); from < earliest || from > t.latest {
		w.badTimes++
	}
	bad := w.bad(r) || hashOf(r.derived(l.natural)) != r.naturalOf()
	switch {
	case stands:
		t.records++
		w.content.add(r.content)
		if bad {
			w.badKeys++
		}
	case bad:
		w.badPast++
	}
}

// earliest is 2010-01-01: before it there was no cloud to list.
const earliest = 1_262_304_000 * microsPerSecond

// versionTally follows the versions of a history's rows, which come in the order of natural_key and valid_from.
type versionTally struct {
	key      hash // of the version before
	to       int64
	open     bool
	closed   string
	overlaps int64
	broken   int64   // versions that don't follow from the one before
	begins   []int64 // when versions began and ended
	ends     []int64
}

// add takes the next version, and tells whether its times and reasons go together.
func (v *versionTally) add(r *row) (plausible bool) {
	l := r.layout
	key, from := hashOf(r.derived(l.natural)), intOf(r.derived(l.from))
	to, missing := r.derived(l.to), r.derived(l.missing)
	opened, closed := string(bytesOf(r.derived(l.opened))), string(bytesOf(r.derived(l.closed)))
	v.begins = append(v.begins, from)
	if !isNull(to) {
		v.ends = append(v.ends, intOf(to))
	}
	first := len(v.begins) == 1 || key != v.key
	switch {
	case first:
		v.end()
		if opened != "appeared" {
			v.broken++
		}
	case v.open || v.to > from:
		v.overlaps++
	case opened == "changed" && (v.closed != "changed" || v.to != from), opened == "reappeared" && (v.closed != "disappeared" || v.to == from),
		opened == "appeared":
		v.broken++
	}
	v.key, v.to, v.open, v.closed = key, intOf(to), isNull(to), closed
	switch {
	case !slices.Contains([]string{"appeared", "changed", "reappeared"}, opened):
		return false
	case !isNull(to):
		return intOf(to) > from && isNull(missing) && (closed == "changed" || closed == "disappeared")
	}
	return closed == "" && (isNull(missing) || intOf(missing) > from)
}

// end is called behind the last version of a key: one that was changed must have been followed.
func (v *versionTally) end() {
	if !v.open && v.closed == "changed" {
		v.broken++
	}
	v.closed = ""
}

// asOf returns how many rows stood at an instant.
func (v *versionTally) asOf(micros int64) int64 {
	begun, _ := slices.BinarySearch(v.begins, micros+1)
	ended, _ := slices.BinarySearch(v.ends, micros+1)
	return int64(begun - ended)
}

// partition returns the tally of the Parquet partition that the row belongs to by its site and date.
func (t *tally) partition(r *row, unit string) *partitionTally {
	l := t.layout
	site, from := []byte(tenant), day(0)
	if l.site >= 0 {
		site = bytesOf(r.derived(l.site))
	}
	if l.timed() {
		from = day(intOf(r.derived(l.date)))
	}
	if t.lastPartition != nil && t.lastPartition.covers(from) && string(site) == t.lastKey.site {
		return t.lastPartition
	}
	key := partitionKey{site: string(site), from: from}
	if unit == unitMonth && l.timed() {
		key.from = from.month()
	}
	p := t.partitions[key]
	if p == nil {
		p = newPartitionTally(l, key, unit)
		t.partitions[key] = p
	}
	t.lastKey, t.lastPartition = key, p
	return p
}

// merge adds what another worker counted.
func (t *tally) merge(o *tally) {
	t.records += o.records
	for id, from := range o.windows {
		w := t.windows[id]
		if w == nil {
			t.windows[id] = from
			continue
		}
		w.content.merge(from.content)
		w.badKeys += from.badKeys
		w.badPast += from.badPast
		w.missing += from.missing
		w.wrongSite += from.wrongSite
		w.wrongDate += from.wrongDate
		w.outside += from.outside
		w.badTimes += from.badTimes
		w.ordinals += from.ordinals
		maps.Copy(w.months, from.months)
		w.facts.merge(from.facts)
	}
	for key, from := range o.partitions {
		if p := t.partitions[key]; p != nil {
			p.merge(from)
		} else {
			t.partitions[key] = from
		}
	}
	if len(o.versions.begins) > 0 { // one worker reads all of a history
		t.versions = o.versions
	}
}

// partitionTally is what the rows of one Parquet partition add up to.
type partitionTally struct {
	layout     *layout
	from, end  day // dates that it covers
	content    digest
	factors    map[string]*factorTally
	noFactor   factorTally
	min, max   int64 // of the time, once there is a row
	windows    map[int64]bool
	lastWindow int64
}

type factorTally struct {
	records, nulls int64
	sum            wide
}

func newPartitionTally(l *layout, key partitionKey, unit string) *partitionTally {
	p := &partitionTally{layout: l, from: -1 << 40, end: 1 << 40, factors: map[string]*factorTally{}, windows: map[int64]bool{}, lastWindow: -1}
	if l.timed() {
		p.from, p.end = key.from, key.from+1
		if unit == unitMonth {
			p.end = key.from.nextMonth()
		}
	}
	return p
}

func (p *partitionTally) covers(d day) bool { return p.from <= d && d < p.end }

func (p *partitionTally) add(r *row, stored hash) {
	l := p.layout
	if l.timed() {
		at := r.time()
		if p.content.count == 0 {
			p.min, p.max = at, at
		}
		p.min, p.max = min(p.min, at), max(p.max, at)
		if id := intOf(r.derived(l.window)); id != p.lastWindow {
			p.lastWindow, p.windows[id] = id, true
		}
	}
	p.content.add(stored)
	if l.factor < 0 {
		return
	}
	f := &p.noFactor
	if name := r.field(l.factor); !isNull(name) {
		f = p.factors[string(name[valueStart:])]
		if f == nil {
			f = &factorTally{}
			p.factors[string(name[valueStart:])] = f
		}
	}
	f.records++
	if isNull(r.field(l.amount)) {
		f.nulls++
		return
	}
	f.sum = f.sum.add(r.amount)
}

func (p *partitionTally) merge(o *partitionTally) {
	if p.content.count == 0 {
		p.min, p.max = o.min, o.max
	}
	if o.content.count > 0 {
		p.min, p.max = min(p.min, o.min), max(p.max, o.max)
	}
	p.content.merge(o.content)
	for name, from := range o.factors {
		f := p.factors[name]
		if f == nil {
			f = &factorTally{}
			p.factors[name] = f
		}
		f.merge(*from)
	}
	p.noFactor.merge(o.noFactor)
	maps.Copy(p.windows, o.windows)
}

func (f *factorTally) merge(o factorTally) {
	f.records += o.records
	f.nulls += o.nulls
	f.sum = f.sum.add(o.sum)
}

// sketch tells whether two sets of groups have the same sums without holding any group. Every group weighs a random number that follows from its
// dimensions, and what is kept is the weighted sum of its counts and amounts. Two sets that differ in any group have equal sketches with a chance of 2^-64;
// where sketches differ, the groups themselves are compared.
type sketch struct {
	records, missing, amount wide
}

func (s *sketch) add(weight uint64, records uint64, missing bool, amount wide) {
	s.records = s.records.add(wide{weight}.times(records))
	if missing {
		s.missing = s.missing.add(wide{weight})
		return
	}
	s.amount = s.amount.add(amount.times(weight))
}

func (s *sketch) merge(o sketch) {
	s.records, s.missing, s.amount = s.records.add(o.records), s.missing.add(o.missing), s.amount.add(o.amount)
}

// addGroup adds a row of the daily sums.
func (s *sketch) addGroup(weight uint64, records, missing int64, amount wide) {
	s.records = s.records.add(wideOf(records>>63, uint64(records)).times(weight))
	s.missing = s.missing.add(wideOf(missing>>63, uint64(missing)).times(weight))
	s.amount = s.amount.add(amount.times(weight))
}

// int64Of reads a binary bigint.
func int64Of(raw []byte) int64 { return int64(binary.BigEndian.Uint64(raw)) }
