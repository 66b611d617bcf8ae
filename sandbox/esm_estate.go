package sandbox

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
)

// What stands on the site that the lists of ESM tell of: devices, hosts and their virtual machines. Like the metering records, all
// of it follows from the seed, the nights passed, and the clock.

// view is the site at one moment.
type view struct {
	config *Config
	seed   uint64
	home   *holdings // the scope whose resources the lists tell of
	nights []day
	now    int64 // milliseconds
}

func (s *Server) view() view {
	s.mu.Lock()
	defer s.mu.Unlock()
	return view{
		config: &s.config,
		seed:   mix(s.holdings[0].seed ^ 0xe53),
		home:   s.holdings[0],
		nights: s.nights[:len(s.nights):len(s.nights)],
		now:    s.config.Today().UnixMilli(),
	}
}

const (
	second   int64 = 1000 // milliseconds
	hour           = 3600 * second
	wholeDay       = 24 * hour
)

// milli is the day's beginning in UTC.
func (d day) milli() int64 { return int64(d) * wholeDay }

func (v view) hash(salt string, numbers ...int64) uint64 {
	h := mixText(v.seed, salt)
	for _, n := range numbers {
		h = mix(h ^ uint64(n))
	}
	return h
}

// past cuts a span to what the site has had: nothing is older than the first day or newer than now.
func (v view) past(sp span) span {
	return span{max(sp.from, dayOf(v.config.First).milli()), min(sp.to, v.now+1)}
}

// changes is how many of the nights passed have changed thing number n: one in so many.
func (v view) changes(salt string, n, oneIn int) int {
	count := 0
	for night := range v.nights {
		if v.hash(salt+" changes", int64(n), int64(night))%uint64(oneIn) == 0 {
			count++
		}
	}
	return count
}

// device is one physical device. Each night takes the lowest number away and adds one at the end.
type device struct {
	number int
	kind   deviceKind
}

type deviceKind struct {
	name, prefix, os string
	models           []string
}

const (
	serverKind   = "server"
	serversOfTen = 7
)

// deviceKindOf gives the mix of devices: of ten, the first seven are servers.
func deviceKindOf(number int) deviceKind {
	switch n := number % 10; {
	case n < serversOfTen:
		return deviceKind{serverKind, "srv", "EulerOS 2.10", []string{"2288X V5", "2288H V6", "TaiShan 200"}}
	case n < 9:
		return deviceKind{"switch", "sw", "null", []string{"CE6881-48S6CQ", "CE12804"}}
	case number%20 == 9:
		return deviceKind{"firewall", "fw", "", []string{"USG6650E"}}
	default:
		return deviceKind{"router", "rt", "VRP 8.191", []string{"NE40E-X8A"}}
	}
}

func (v view) device(number int) device { return device{number, deviceKindOf(number)} }

// devices lists those present, in the order of their numbers.
func (v view) devices() []device {
	gone := len(v.nights)
	all := make([]device, 0, v.config.Devices)
	for n := gone; n < gone+v.config.Devices; n++ {
		all = append(all, v.device(n))
	}
	return all
}

// servers lists the servers present, which are the hosts.
func (v view) servers() []device {
	return slices.DeleteFunc(v.devices(), func(d device) bool { return d.kind.name != serverKind })
}

// everSeen lists the devices that have ever been present, for their past stays as it was.
func (v view) everSeen(keep func(device) bool) []device {
	var all []device
	for n := range v.config.Devices + len(v.nights) {
		if d := v.device(n); keep(d) {
			all = append(all, d)
		}
	}
	return all
}

// life is when the device was there: one that a night brought or took was there from, or until, the beginning of that night's day.
func (v view) life(d device) span {
	sp := span{0, v.now + 1}
	if added := d.number - v.config.Devices; added >= 0 {
		sp.from = v.nights[added].milli()
	}
	if d.number < len(v.nights) {
		sp.to = min(sp.to, v.nights[d.number].milli())
	}
	return sp
}

func (v view) deviceID(d device) string {
	h := v.hash("device", int64(d.number))
	return uuidText(h, mix(h))
}

func (v view) serial(d device) string {
	return "21023" + hexText(v.hash("serial", int64(d.number)), 15)
}

func (v view) deviceName(d device) string { return fmt.Sprintf("%s-%04d", d.kind.prefix, d.number) }

func (d device) address() string {
	return fmt.Sprintf("10.0.%d.%d", d.number/250, d.number%250+1)
}

func (v view) model(d device) string {
	return d.kind.models[v.hash("model", int64(d.number))%uint64(len(d.kind.models))]
}

func (v view) status(d device) string {
	states := [...]string{"running", "abnormal", "offline", "running"}
	return states[v.changes("status", d.number, 6)%len(states)]
}

// hostIDs lists what a client that knows the physical devices can ask by. The ones that are no hosts have nothing to tell.
func (v view) hostIDs() []string {
	var ids []string
	for _, d := range v.devices() {
		ids = append(ids, v.deviceID(d))
	}
	return ids
}

// resourceIDs returns the ids of the first metered resources of a kind, which the metering records have, too.
func (v view) resourceIDs(kind *resourceKind, most int) []string {
	var ids []string
	for n := 0; n < v.config.Resources && len(ids) < most; n++ {
		if resourceCycle[n%len(resourceCycle)] == kind {
			ids = append(ids, newResource(kind, resourceHash(v.home.seed, n)).id)
		}
	}
	return ids
}

// machine is one virtual machine on a host.
type machine struct {
	id   string
	host int // which of the hosts that the site began with
}

// machines lists the virtual machines: metered ones, two for each device at most.
func (v view) machines() []machine {
	hosts := 0
	for n := range v.config.Devices {
		if deviceKindOf(n).name == serverKind {
			hosts++
		}
	}
	var all []machine
	for i, id := range v.resourceIDs(&virtualMachine, 2*v.config.Devices) {
		all = append(all, machine{id, i % hosts})
	}
	return all
}

// meter is something that reports in step with the clock while it lives.
type meter struct {
	source int
	life   span
}

// beat is one report of a meter.
type beat struct {
	source int
	kind   int
	at     int64 // milliseconds
}

// beats lists the reports of meters within the span: so many kinds every so often, on the clock of UTC, meter by meter.
func (v view) beats(sp span, every int64, kinds int, meters []meter, row func(beat) item) rows {
	sp = v.past(sp)
	type run struct {
		meter meter
		first int64 // number of the first report's tick
		start int   // number of its first row
	}
	var runs []run
	total := 0
	for _, m := range meters {
		first, end := ticks(max(sp.from, m.life.from), every), ticks(min(sp.to, m.life.to), every)
		if first < end {
			runs = append(runs, run{m, first, total})
			total += int(end-first) * kinds
		}
	}
	return rows{total: total, row: func(i int) item {
		r := runs[sort.Search(len(runs), func(n int) bool { return runs[n].start > i })-1]
		i -= r.start
		return row(beat{r.meter.source, i % kinds, (r.first + int64(i/kinds)) * every})
	}}
}

// ticks is the number of the first tick at or after a moment.
func ticks(at, every int64) int64 {
	return (max(at, 0) + every - 1) / every
}

func milliText(at int64) string { return strconv.FormatInt(at, 10) }

// percentText is a percentage with two digits behind the point.
func percentText(h uint64) string { return fmt.Sprintf("%d.%02d", h%100, h>>8%100) }

// binaryText is a decimal with ten digits behind the point at most, as the vendor's sums of GiB in TiB are.
func binaryText(h uint64, below uint64) string {
	text := strconv.FormatUint(h%below, 10)
	if frac := h >> 32 % 1024; frac > 0 {
		digits := fmt.Sprintf("%010d", frac*9765625)
		for digits[len(digits)-1] == '0' {
			digits = digits[:len(digits)-1]
		}
		text += "." + digits
	}
	return text
}

// ratioText is a ratio as a float64 prints: up to seventeen digits behind the point.
func ratioText(h uint64) string {
	return strconv.FormatFloat(float64(h>>11)/(1<<53), 'f', -1, 64)
}
