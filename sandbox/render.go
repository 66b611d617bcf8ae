package sandbox

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// factor is what is metered.
type factor uint8

const (
	factorDuration factor = iota // seconds
	factorUpflow
	factorFlow
	factorStoreSize
	factorReqNumber
	factorCount
)

func (f factor) String() string {
	return [...]string{"Duration", "upflow", "flow", "DataStoreSize", "reqNumber"}[f]
}

// resourceKind is a sort of resource and the factors it reports every hour.
type resourceKind struct {
	service, resource string
	specs             []string
	factors           []factor
	regional          bool // no availability zone
	endTime           bool // sends end_time, which the document's table lacks
	extend            string
}

var (
	virtualMachine = resourceKind{
		service: "hws.service.type.ec2", resource: "hws.resource.type.vm", extend: "2",
		specs:   []string{"ks1.xlarge.2.linux", "s6.large.2.linux", "c6.2xlarge.4.win", "m6.4xlarge.8.linux"},
		factors: []factor{factorDuration},
	}
	volume = resourceKind{
		service: "hws.service.type.ebs", resource: "hws.resource.type.volume", extend: "100,GPSSD",
		specs: []string{"SAS", "SSD", "GPSSD"}, factors: []factor{factorDuration},
	}
	address = resourceKind{
		service: "hws.service.type.vpc", resource: "hws.resource.type.ip", regional: true,
		specs: []string{"5_bgp"}, factors: []factor{factorDuration},
	}
	bandwidth = resourceKind{
		service: "hws.service.type.vpc", resource: "hws.resource.type.bandwidth", regional: true, extend: "300",
		specs: []string{"19_bgp", "12_bgp"}, factors: []factor{factorUpflow},
	}
	bucket = resourceKind{
		service: "hws.service.type.obs", resource: "hws.resource.type.obs", regional: true,
		specs:   []string{"storage", "storage.warm"},
		factors: []factor{factorStoreSize, factorReqNumber, factorUpflow, factorFlow},
	}
	database = resourceKind{
		service: "hws.service.type.rds", resource: "hws.resource.type.rds.vm", endTime: true,
		specs: []string{"rds.mysql.n1.large.4.ha", "rds.pg.x1.2xlarge.8"}, factors: []factor{factorDuration},
	}

	// resourceCycle is the mix of resources: number n is of the kind n modulo ten.
	resourceCycle = [...]*resourceKind{
		&virtualMachine, &bucket, &volume, &virtualMachine, &address,
		&virtualMachine, &bandwidth, &volume, &virtualMachine, &database,
	}
)

// seriesPerCycle is how many series the resources of one cycle make.
const seriesPerCycle = 13

// tenant owns resources.
type tenant struct{ domainID, domainName, projectID string }

// tenants as in the JSON of a record; the last project's id is no hex number, as in the document's sample.
var tenants = [...]tenant{
	{"d1803845584b4626850ce57a8a020e4f", "op_svc_dbss_e9f3e8381583492191a9d0c4ba725333", "d1803845584b4626850ce57a8a020e4f"},
	{"5f1c9be27d6a4c3f9a0be8127ce04d11", "集团信息中心", "0a4c6de1b77b4a30a3a1fd2b6ce5f201"},
	{"5f1c9be27d6a4c3f9a0be8127ce04d11", "集团信息中心", "7be80c13d3b24cb2b4f1ab7f23e9c6d4"},
	{"91ab02e4c5d84f7f8a1d6a5f0b7c3e29", "hwc_research_dept", "d1803845584b4626850ce57a8a020emf"},
}

// tags are raw JSON values. Escapes are what several JSON writers make of the same text.
var tags = [...]string{
	`""`, `""`, `"部门=研发;环境=生产"`, `""`, `"\u90e8\u95e8=\u8d22\u52a1"`, `null`, `"null"`, `"owner=\"a\\b\";path=a\/b"`, `"team=🚀"`,
}

// series is one factor of one resource: all that its hourly records share, as ready pieces of JSON.
type series struct {
	factor  factor
	endTime bool

	head      []byte // {"accumulate_factor_name":"Duration"
	amountKey []byte // ,"accumulate_factor_value":
	toBegin   []byte // ,"az_code":"cn-north-213a","begin_time":"
	toType    []byte // ","bp_info":"", … "record_type":"
	toStamp   []byte // ","region_code":"cn-north-213", … "time_stamp":"
	tail      []byte // ","project_id":"…"
	endKey    []byte // ,"end_time":"
}

// resource is one metered resource.
type resource struct {
	kind   *resourceKind
	id     string
	spec   string
	tenant tenant
}

// resourceHash is what all of a scope's resource number n follows from.
func resourceHash(seed uint64, n int) uint64 { return mix(seed ^ mix(uint64(n))) }

func newResource(kind *resourceKind, h uint64) resource {
	return resource{
		kind: kind, id: uuidText(h, mix(h+1)), spec: kind.specs[h>>32%uint64(len(kind.specs))], tenant: tenants[h>>8%uint64(len(tenants))],
	}
}

func newSeries(seed uint64, sc Scope, resources int, style KeyStyle) []series {
	var all []series
	for n := range resources {
		kind := resourceCycle[n%len(resourceCycle)]
		h := resourceHash(seed, n)
		for _, f := range kind.factors {
			all = append(all, newSeriesOf(kind, f, h, sc, style))
		}
	}
	return all
}

func newSeriesOf(kind *resourceKind, f factor, h uint64, sc Scope, style KeyStyle) series {
	pick := func(shift uint, n int) int { return int(h >> shift % uint64(n)) }
	res := newResource(kind, h)
	zone := sc.Region + string(rune('a'+pick(12, 3)))
	if kind.regional {
		zone = [...]string{"", "AZ01"}[pick(12, 2)]
	}
	var b pieces
	b.style = style
	b.text.WriteByte('{')
	b.field("accumulate_factor_name", quote(f.String()))
	head := b.cut()
	amountKey := []byte(`,"` + style.spell("accumulate_factor_value") + `":`)
	b.field("az_code", quote(zone))
	b.open("begin_time")
	toBegin := b.cut()
	b.close()
	b.field("bp_info", [...]string{`""`, `""`, `""`, `null`}[pick(16, 4)])
	b.field("cloud_service_type_code", quote(kind.service))
	b.field("csb_params", quote("::"+kind.service[len("hws.service.type."):]+"-"+hexText(h>>20, 4)+":"+hexText(mix(h), 32)+":"))
	b.field("domain_id", quote(res.tenant.domainID))
	b.field("domain_name", quote(res.tenant.domainName))
	b.field("enterprise_project_id", [...]string{`""`, `"0"`, `"0d3f7a52-1b8c-4a8e-9c60-3f1d2c7b9a45"`}[pick(24, 3)])
	b.field("error_msg", `""`)
	b.field("extend_params", quote(kind.extend))
	b.field("extend_params2", [...]string{`""`, `""`, `"null"`}[pick(28, 3)])
	b.open("record_type")
	toType := b.cut()
	b.close()
	b.field("region_code", quote(sc.Region))
	b.field("relate_parent_resource", `""`)
	b.field("relate_root_resource", `""`)
	b.field("resource_id", quote(res.id))
	b.field("resource_spec_code", quote(res.spec))
	b.field("resource_type_code", quote(kind.resource))
	b.field("site_code", [...]string{`""`, quote(sc.Site)}[pick(36, 2)])
	b.field("tag", tags[pick(40, len(tags))])
	b.open("time_stamp")
	toStamp := b.cut()
	b.close()
	b.field("project_id", quote(res.tenant.projectID))
	if pick(48, 16) == 0 {
		b.text.WriteString(`,"meteringRegionAlias":"北方二一三"`) // no document names it
	}
	return series{
		factor: f, endTime: kind.endTime,
		head: head, amountKey: amountKey, toBegin: toBegin, toType: toType, toStamp: toStamp, tail: b.cut(),
		endKey: []byte(`,"` + style.spell("end_time") + `":"`),
	}
}

// pieces writes an object field by field and is cut where a record's own values go.
type pieces struct {
	style KeyStyle
	text  strings.Builder
	any   bool
}

func (p *pieces) key(name string) {
	if p.any {
		p.text.WriteByte(',')
	}
	p.any = true
	p.text.WriteString(`"` + p.style.spell(name) + `":`)
}

func (p *pieces) field(name, raw string) { p.key(name); p.text.WriteString(raw) }
func (p *pieces) open(name string)       { p.key(name); p.text.WriteByte('"') }
func (p *pieces) close()                 { p.text.WriteByte('"') }

func (p *pieces) cut() []byte {
	b := []byte(p.text.String())
	p.text.Reset()
	return b
}

// spell writes a snake_case name in the style.
func (k KeyStyle) spell(name string) string {
	if k == Snake {
		return name
	}
	var b strings.Builder
	upper := k == Pascal
	for _, c := range name {
		switch {
		case c == '_':
			upper = true
			continue
		case upper:
			b.WriteString(strings.ToUpper(string(c)))
		default:
			b.WriteRune(c)
		}
		upper = false
	}
	return b.String()
}

// quote is for texts that need no escape.
func quote(text string) string { return `"` + text + `"` }

func hexText(h uint64, n int) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], mix(h))
	binary.BigEndian.PutUint64(raw[8:], mix(h+7))
	return hex.EncodeToString(raw[:])[:n]
}

func uuidText(a, b uint64) string {
	t := hexText(a^b, 32)
	return t[:8] + "-" + t[8:12] + "-4" + t[13:16] + "-9" + t[17:20] + "-" + t[20:]
}

var (
	badBeginTimes = [...]string{"20240230256161", "", "20010101000000", "yesterday", "20990101000000", "2024-03-01"}
	badAmounts    = [...]string{`"abc"`, `"0.0000000000001"`, `"123456789012345678901234567890.5"`, `"12,5"`, `true`}
	badShapes     = [...]string{`"20|20240409231657|d1803845|cn-north-213"`, `17`, `null`, `["20","20240409231657"]`}
)

const bagJSON = `,"ext_info":{"batch":"b-7","parts":[1,2.50,{"zone":null}],"说明":"补充"}`

// appendJSON appends the record as the vendor sends it.
func (r *record) appendJSON(b []byte) []byte {
	if r.bad == badShape {
		return append(b, badShapes[r.pick>>36%uint64(len(badShapes))]...)
	}
	s := r.series
	b = append(b, s.head...)
	switch {
	case r.bad == badAmount:
		b = append(b, s.amountKey...)
		b = append(b, badAmounts[r.pick>>36%uint64(len(badAmounts))]...)
	case r.amount.form != formAbsent:
		b = append(b, s.amountKey...)
		b = r.amount.appendJSON(b)
	}
	b = append(b, s.toBegin...)
	if r.bad == badBeginTime {
		b = append(b, badBeginTimes[r.pick>>36%uint64(len(badBeginTimes))]...)
	} else {
		b = appendStamp(b, r.begin)
	}
	b = append(b, s.toType...)
	if r.kind == kindCorrection {
		b = append(b, '3', '0')
	} else {
		b = append(b, '2', '0')
	}
	b = append(b, s.toStamp...)
	b = appendStamp(b, r.stamp)
	b = append(b, s.tail...)
	if s.endTime {
		b = append(b, s.endKey...)
		b = appendStamp(b, (r.begin/3600+1)*3600)
		b = append(b, '"')
	}
	if r.bag {
		b = append(b, bagJSON...)
	}
	return append(b, '}')
}

// appendStamp appends YYYYMMDDHHMMSS in UTC.
func appendStamp(b []byte, unix int64) []byte {
	days, secs := unix/86400, unix%86400
	// Civil date from days, counted from 0000-03-01 in eras of 400 years.
	z := days + 719468
	era := z / 146097
	dayOfEra := z - era*146097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	shifted := (5*dayOfYear + 2) / 153
	month := shifted + 3
	year := yearOfEra + era*400
	if month > 12 {
		month -= 12
		year++
	}
	b = strconv.AppendInt(b, year, 10)
	for _, two := range [...]int64{month, dayOfYear - (153*shifted+2)/5 + 1, secs / 3600, secs / 60 % 60, secs % 60} {
		b = append(b, byte('0'+two/10), byte('0'+two%10))
	}
	return b
}
