package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// The lists of the chapter "Data Visualization" of the ESM API Reference: 4.1 of the English document of 2025-10-30 and of the
// Chinese one of 2025-03-30, which has more of them.

// The generations of the ESM API Reference that a site may follow.
const (
	Generation202503 = "2025-03" // the Chinese document, issue 06
	Generation202510 = "2025-10" // the English document, issue 01
)

// The lists of ESM. Each is called as its stream is in Truth.
const (
	EndpointPhysicalCapacity        Endpoint = "physical_capacity"
	EndpointCloudServiceCapacity    Endpoint = "cloud_service_capacity"
	EndpointAuditLogs               Endpoint = "audit_logs"
	EndpointPhysicalDevices         Endpoint = "physical_devices"
	EndpointCloudServiceAlarms      Endpoint = "cloud_service_alarms"
	EndpointHardwareAlarms          Endpoint = "hardware_alarms"
	EndpointHostMetrics             Endpoint = "host_metrics"
	EndpointServerPerformance       Endpoint = "server_performance"
	EndpointTenantResources         Endpoint = "tenant_resources"
	EndpointELBv3                   Endpoint = "elbv3"
	EndpointExternalTenantResources Endpoint = "external_tenant_resources"
	EndpointNetworkDeviceMetrics    Endpoint = "network_device_metrics"
	EndpointHostDetails             Endpoint = "host_details"
	EndpointVMPerformance           Endpoint = "vm_performance"
	EndpointHostVMs                 Endpoint = "host_vms"
	EndpointServiceHealth           Endpoint = "service_health"
)

// list is one list of ESM: how it is asked for, and what it holds.
type list struct {
	endpoint  Endpoint
	method    string
	pattern   string // path with {wildcards}
	params    []param
	pathValue string // the wildcard, if there is one
	allowed   []string
	early     bool // only the document of 2025-03 has it
	perMinute int  // calls; 0 for as many as one likes
	maxMonths int  // the longest span that may be asked for; 0 for any
	envelope  []member
	read      func(v view, a asked) rows
	// each lists what the list is asked by, one value of by for each: a whole list is all of them. Nil if it is asked once.
	by   string
	each func(v view) []string
}

// prefix is what the paths of all lists but one begin with.
const prefix = "/rest/dataapi/homs/open-api"

// What the S60 endpoints allow: "throughput 60 times/min". The cloud services share one path, and so one budget.
const sixtyPerMinute = 60

// esmLists are the lists, in the order of the Chinese document.
func (s *Server) esmLists() []list {
	paged, pagedOptionally := []param{pageSize, offsetValue}, []param{pageSize.orNot(), offsetValue.orNot()}
	spanned := slices.Concat([]param{beginTime, endTime}, paged)
	spannedOptionally := slices.Concat([]param{beginTime, endTime}, pagedOptionally)
	withParams := func(base []param, more ...param) []param { return slices.Concat(more, base) }
	alarms := func(services ...string) []param {
		return withParams(spanned, choice("cleared", "0", "1"), choice("service_type", services...))
	}
	get := http.MethodGet
	return []list{
		{
			endpoint: EndpointServiceHealth, method: http.MethodPost, pattern: "/rest/dlvapp-engine/v1/screens/data/{share_id}", early: true,
			pathValue: "share_id", allowed: []string{s.config.ShareID}, read: serviceHealth,
		},
		{
			endpoint: EndpointPhysicalCapacity, method: get, pattern: prefix + "/v1/host-physical/capacity", perMinute: sixtyPerMinute,
			params:   withParams(spanned, choice("device_type", "ECS", "EVS"), choice("zone_type", "manage", "pod")),
			envelope: s.resultCode(), read: physicalCapacity,
		},
		{
			endpoint: EndpointCloudServiceCapacity, method: get, pattern: prefix + "/v1/CloudService/capacity", perMinute: sixtyPerMinute,
			params:   withParams(spanned, choice("service_type", capacityServices()...), choice("zone_type", zoneTypes()...)),
			envelope: s.resultCode(), read: cloudServiceCapacity,
		},
		{
			endpoint: EndpointAuditLogs, method: get, pattern: prefix + "/v1/cloudAuditlog", perMinute: sixtyPerMinute,
			params: withParams(spanned, choice("log_type", "0", "1")), read: auditLogs,
		},
		{
			endpoint: EndpointPhysicalDevices, method: get, pattern: prefix + "/v1/DeviceAsset/info", perMinute: sixtyPerMinute,
			params: withParams(paged, optional("device_type")), read: physicalDevices,
		},
		{
			endpoint: EndpointCloudServiceAlarms, method: get, pattern: prefix + "/v1/CloudServiceAlarm/info", perMinute: sixtyPerMinute,
			params: alarms("ECS", "EVS"), maxMonths: s.alarmMonths(), read: cloudServiceAlarms,
		},
		{
			endpoint: EndpointHardwareAlarms, method: get, pattern: prefix + "/v1/DeviceAlarm/info", perMinute: sixtyPerMinute,
			params: alarms("Server", "Network"), maxMonths: s.alarmMonths(), read: hardwareAlarms,
		},
		{
			endpoint: EndpointHostMetrics, method: get, pattern: prefix + "/v1/host/metricdata",
			params: withParams(spannedOptionally, mandatory("host_id")), read: hostMetrics, by: "host_id", each: view.hostIDs,
		},
		{
			endpoint: EndpointServerPerformance, method: get, pattern: prefix + "/v1/host/performancedata", early: true,
			params: withParams(spannedOptionally, optional("sn")), read: serverPerformance,
		},
		{
			endpoint: EndpointTenantResources, method: get, pattern: prefix + "/v1/TanentCloudResource/InstanceData/{resource_type}", early: true,
			pathValue: "resource_type", allowed: tenantTypes(), read: tenantResources, by: "resource_type",
			each: func(view) []string { return tenantTypes() },
		},
		{
			endpoint: EndpointELBv3, method: get, pattern: prefix + "/v1/network/capacity/elbv3", early: true,
			params: paged, read: loadBalancers,
		},
		{
			endpoint: EndpointExternalTenantResources, method: get, pattern: prefix + "/v2/cloudresource/instancedata/{resource_type}",
			params: spannedOptionally, pathValue: "resource_type", allowed: externalTypes(), read: externalTenantResources, by: "resource_type",
			each: func(view) []string { return externalTypes() },
		},
		{
			endpoint: EndpointNetworkDeviceMetrics, method: get, pattern: prefix + "/v1/network-device/metric-data", early: true,
			params: withParams(spanned, optional("management_ip"), choice("metric", networkMetrics()...)), read: networkDeviceMetrics,
		},
		{
			endpoint: EndpointHostDetails, method: get, pattern: prefix + "/v1/host/detail", early: true,
			params: withParams(spanned, optional("host_id")), read: hostDetails,
		},
		{
			endpoint: EndpointVMPerformance, method: get, pattern: prefix + "/v1/ecs/performance", early: true,
			params: withParams(spanned, optional("vm_id")), read: vmPerformance,
		},
		{
			endpoint: EndpointHostVMs, method: get, pattern: prefix + "/v1/host/vms", early: true,
			params: withParams(paged, mandatory("host_id")), read: hostVMs, by: "host_id", each: view.hostIDs,
		},
	}
}

// alarmMonths is how many months of alarms may be asked for at once: the Chinese document names no bound.
func (s *Server) alarmMonths() int {
	if s.config.Generation == Generation202503 {
		return 0
	}
	return 2
}

// resultCode is what the capacities' answers hold beside the list: mandatory in the Chinese tables, absent from every sample.
func (s *Server) resultCode() []member {
	if s.config.Generation != Generation202503 {
		return nil
	}
	return []member{{"code", "200"}, {"msg", "success"}}
}

// esmEndpoints are the lists of ESM.
func esmEndpoints() []Endpoint {
	return []Endpoint{
		EndpointPhysicalCapacity, EndpointCloudServiceCapacity, EndpointAuditLogs, EndpointPhysicalDevices, EndpointCloudServiceAlarms,
		EndpointHardwareAlarms, EndpointHostMetrics, EndpointServerPerformance, EndpointTenantResources, EndpointELBv3,
		EndpointExternalTenantResources, EndpointNetworkDeviceMetrics, EndpointHostDetails, EndpointVMPerformance, EndpointHostVMs,
		EndpointServiceHealth,
	}
}

func (s *Server) listRoutes() []route {
	var routes []route
	for _, l := range s.esmLists() {
		rt := route{l.method, l.pattern, l.endpoint, false, func(c *call) reply { return s.readList(c, &l) }}
		if l.perMinute > 0 && !s.config.NoListLimits {
			rt.handle = s.throttled(l.endpoint, l.perMinute, time.Minute, rt.handle)
		}
		if l.early && s.config.Generation == Generation202510 {
			rt.open = true
			rt.handle = func(*call) reply { return noSuchAPI() }
		}
		routes = append(routes, rt)
	}
	return routes
}

// readList answers one call of a list.
func (s *Server) readList(c *call, l *list) reply {
	a, rep, ok := l.asked(c, &s.config)
	if !ok {
		return rep
	}
	if !pause(c.Context(), s.config.PageLatency) {
		return refuse(http.StatusServiceUnavailable, "AS.0005", "The client has gone")
	}
	v := s.view()
	held := l.read(v, a)
	numbers := make([]int, held.total)
	for i := range numbers {
		numbers[i] = i
	}
	if a.size == 0 {
		a.size = held.total // a list without paging
	}
	page, total := sliceOf(s, c, l.endpoint, numbers, a.from, a.size)
	items := make([]json.RawMessage, 0, len(page))
	for _, i := range page {
		text, _ := v.written(held.row(i))
		items = append(items, text)
	}
	s.counters.page(int64(len(items)))
	return jsonReply(http.StatusOK, append(item{{"total", s.total(total)}, {"list", items}}, l.envelope...))
}

// rows is what a list holds for one request.
type rows struct {
	total int
	row   func(i int) item
	id    func(i int) string // what tells rows apart; nil if the document names nothing that does
}

// rowsOf are rows that are known one by one.
func rowsOf[T any](all []T, row func(T) item, id func(T) string) rows {
	r := rows{total: len(all), row: func(i int) item { return row(all[i]) }}
	if id != nil {
		r.id = func(i int) string { return id(all[i]) }
	}
	return r
}

// item is a JSON object with its members in the order of the document's samples.
type item []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes the members in their order.
func (it item) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range it {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, m.key), ':') // keys are plain ASCII
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b = append(b, value...)
	}
	return append(b, '}'), nil
}

// oddEvery is how many rows there are to one with a member that no document names.
const oddEvery = 50

// written is the row as it is sent, and whether it is one that can't be parsed: about one in Config.BadEvery.
func (v view) written(it item) (text json.RawMessage, bad bool) {
	text = rowText(it)
	h := mixText(v.seed, string(text))
	if every := v.config.BadEvery; every > 0 && h%uint64(every) == 0 {
		return json.RawMessage(badShapes[h>>36%uint64(len(badShapes))]), true
	}
	if h>>8%oddEvery == 0 {
		return rowText(append(it, member{"ext_info", item{{"batch", "b-7"}, {"ratio", json.Number("2.50")}}})), false
	}
	return text, false
}

func rowText(it item) json.RawMessage {
	text, err := json.Marshal(it)
	if err != nil {
		panic(err) // only plain values come here
	}
	return text
}

// param is one query parameter of a list.
type param struct {
	name     string
	optional bool
	allowed  []string       // the values that the document lists; nil for any
	form     *regexp.Regexp // what a value must look like; nil for any
	wants    string         // the form in words
}

func mandatory(name string) param { return param{name: name} }
func optional(name string) param  { return param{name: name, optional: true} }
func choice(name string, allowed ...string) param {
	return param{name: name, optional: true, allowed: allowed}
}
func (p param) orNot() param { p.optional = true; return p }
func (p param) check(value string) (reply, bool) {
	switch {
	case p.allowed != nil && !slices.Contains(p.allowed, value):
		return badRequest("%s must be one of %v, not %q", p.name, p.allowed, value), false
	case p.form != nil && !p.form.MatchString(value):
		return badRequest("%s must be %s, not %q", p.name, p.wants, value), false
	}
	return reply{}, true
}

// The parameters that most lists share. Zero is what the samples of 4.1.13 to 4.1.15 (zh) ask with.
var (
	epochForm   = regexp.MustCompile(`^(0|[1-9]\d{12})$`)
	countForm   = regexp.MustCompile(`^\d{1,9}$`)
	beginTime   = param{name: "begin_time", form: epochForm, wants: "milliseconds since 1970"}
	endTime     = param{name: "end_time", form: epochForm, wants: "milliseconds since 1970"}
	pageSize    = param{name: "page_size", form: countForm, wants: "a number from 1 to 1000"}
	offsetValue = param{name: "offset_value", form: countForm, wants: "a number from 0"}
)

const (
	maxPageSize     = 1000
	defaultPageSize = 500 // what the document names where it makes page_size mandatory all the same
)

// asked is a request that fits its list.
type asked struct {
	values map[string]string // of the parameters and the path
	span   span
	from   int // offset_value
	size   int // page_size; 0 where there is none
}

// span is half open: milliseconds since 1970.
type span struct{ from, to int64 }

func (sp span) holds(at int64) bool { return sp.from <= at && at < sp.to }

// asked reads the request, strictly: every parameter is one that the document has, given once and not empty.
func (l *list) asked(c *call, config *Config) (asked, reply, bool) {
	a := asked{values: map[string]string{}}
	if l.pathValue != "" {
		value := c.PathValue(l.pathValue)
		if !slices.Contains(l.allowed, value) {
			if l.endpoint == EndpointServiceHealth {
				return a, refuse(http.StatusForbidden, "AS.0003", "The URL is not authenticated"), false
			}
			return a, noSuchAPI(), false
		}
		a.values[l.pathValue] = value
	}
	query, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return a, badRequest("the query string is invalid: %v", err), false
	}
	for name := range query {
		if !slices.ContainsFunc(l.params, func(p param) bool { return p.name == name }) {
			return a, badRequest("the parameter %q is unknown", name), false
		}
	}
	for _, p := range l.params {
		given, present := query[p.name]
		switch {
		case !present && p.optional:
			continue
		case len(given) != 1 || given[0] == "":
			return a, badRequest("the parameter %s must be given once and not be empty", p.name), false
		}
		if rep, ok := p.check(given[0]); !ok {
			return a, rep, false
		}
		a.values[p.name] = given[0]
	}
	return l.measured(a, config)
}

// measured turns what was asked into numbers.
func (l *list) measured(a asked, config *Config) (asked, reply, bool) {
	number := func(p param, otherwise int64) int64 {
		if n, err := strconv.ParseInt(a.values[p.name], 10, 64); err == nil {
			return n
		}
		return otherwise
	}
	if slices.ContainsFunc(l.params, func(p param) bool { return p.name == pageSize.name }) {
		a.from, a.size = int(number(offsetValue, 0)), int(number(pageSize, defaultPageSize))
		if a.size < 1 || a.size > maxPageSize {
			return a, badRequest("page_size must be 1 to %d", maxPageSize), false
		}
	}
	if a.values[beginTime.name] == "" {
		return a, reply{}, true
	}
	begin, end := number(beginTime, 0), number(endTime, 0)
	switch {
	case begin > end:
		return a, badRequest("begin_time must not be after end_time"), false
	case l.maxMonths > 0 && time.UnixMilli(end).After(time.UnixMilli(begin).UTC().AddDate(0, l.maxMonths, 0)):
		return a, badRequest("end_time must not be more than %d months after begin_time", l.maxMonths), false
	}
	a.span = span{begin, end}
	if config.ExclusiveBegin {
		a.span.from++
	}
	if config.InclusiveEnd {
		a.span.to++
	}
	return a, reply{}, true
}

// throttles remember the calls let through, to refuse what is more than a list allows.
type throttles struct {
	mu    sync.Mutex
	calls map[Endpoint][]time.Time // of the last period
}

// allow counts a call unless as many have been let through within the period before it.
func (t *throttles) allow(e Endpoint, most int, period time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	recent := slices.DeleteFunc(t.calls[e], func(at time.Time) bool { return now.Sub(at) >= period })
	allowed := len(recent) < most
	if allowed {
		recent = append(recent, now)
	}
	if t.calls == nil {
		t.calls = map[Endpoint][]time.Time{}
	}
	t.calls[e] = recent
	return allowed
}

// ListTruth is what a list of ESM holds at one moment.
type ListTruth struct {
	Stream   string   `json:"stream"`
	Records  int64    `json:"records"`
	Rejected int64    `json:"rejected"`      // rows that can't be parsed, not among Records
	IDs      []string `json:"ids,omitempty"` // of Records, in the list's order, where the rows have something that tells them apart
	Night    int      `json:"night"`         // nights passed by then
}

// ListTruth counts what a list of ESM, called by its endpoint's name, holds now with event times from the date of from up to but
// without the date of to, both in UTC. Lists that know no time are counted whole. A list that is asked by host is counted for
// all devices present, and where an answer as a whole is the record, answers are counted.
func (s *Server) ListTruth(stream string, from, to time.Time) (ListTruth, error) {
	lists := s.esmLists()
	n := slices.IndexFunc(lists, func(l list) bool { return string(l.endpoint) == stream })
	if n < 0 {
		return ListTruth{}, fmt.Errorf("stream %q is unknown", stream)
	}
	l, v := lists[n], s.view()
	truth := ListTruth{Stream: stream, Night: len(v.nights)}
	values := []string{""}
	if l.each != nil {
		values = l.each(v)
	}
	if len(l.params) == 0 {
		truth.Records = int64(len(values))
		return truth, nil
	}
	for _, value := range values {
		held := l.read(v, asked{values: map[string]string{l.by: value}, span: span{dayOf(from).milli(), dayOf(to).milli()}})
		for i := range held.total {
			if s.config.BadEvery > 0 {
				if _, bad := v.written(held.row(i)); bad {
					truth.Rejected++
					continue
				}
			}
			truth.Records++
			if held.id != nil {
				truth.IDs = append(truth.IDs, held.id(i))
			}
		}
	}
	return truth, nil
}

func (s *Server) getListTruth(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	var dates [2]time.Time
	for i, name := range []string{"from", "to"} {
		text := query.Get(name)
		if text == "" {
			continue // lists that know no time need none
		}
		var err error
		if dates[i], err = time.Parse(time.DateOnly, text); err != nil {
			badRequest("%s must be a date such as 2024-03-01", name).write(w)
			return
		}
	}
	truth, err := s.ListTruth(query.Get("stream"), dates[0], dates[1])
	if err != nil {
		badRequest("%v", err).write(w)
		return
	}
	jsonReply(http.StatusOK, truth).write(w)
}
