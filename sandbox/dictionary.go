package sandbox

import (
	"fmt"
	"net/http"
	"strings"
)

// The dictionaries of BSS: "Querying Resources by Cloud Service Type" (2024-05-31), and the lists of service types, resource
// types, usage types and units of measure beside it.

// language is one of the two of X-Language.
type language int

const (
	chinese language = iota
	english
)

// names are a name in each language.
type names [2]string

// dictionary wraps one of them: who may read it, and in which language.
func (s *Server) dictionary(list func(*call, language) reply) func(*call) reply {
	return func(c *call) reply {
		if s.config.DenyDictionaries {
			return denied()
		}
		switch text := c.Header.Get("X-Language"); text {
		case "", "zh_CN":
			return list(c, chinese)
		case "en_US":
			return list(c, english)
		default:
			return invalid("X-Language must be zh_CN or en_US, not %q", text)
		}
	}
}

// place reads offset and limit. The offset counts rows, not pages.
func (q *query) place() (from, size int) {
	return q.number("offset", 0, 0, maxDictionaryRow, true), q.number("limit", defaultPage, 1, 100, false)
}

const servicePrefix = "hws.service.type."

// serviceType is a cloud service.
type serviceType struct {
	code, abbreviation string
	names              names
}

var serviceTypesSold = [...]serviceType{
	{"hws.service.type.ec2", "ECS", names{"弹性云服务器", "Elastic Cloud Server"}},
	{"hws.service.type.ebs", "EVS", names{"云硬盘", "Elastic Volume Service"}},
	{"hws.service.type.vpc", "VPC", names{"虚拟私有云", "Virtual Private Cloud"}},
	{"hws.service.type.obs", "OBS", names{"对象存储服务", "Object Storage Service"}},
	{"hws.service.type.rds", "RDS", names{"云数据库", "Relational Database Service"}},
	{serviceBareMetal, "BMS", names{"裸金属服务器", "Bare Metal Server"}},
	{"hws.service.type.elb", "ELB", names{"弹性负载均衡", "Elastic Load Balance"}},
	{"hws.service.type.sfs", "SFS", names{"弹性文件服务", "Scalable File Service"}},
	{"hws.service.type.dcs", "DCS", names{"分布式缓存服务", "Distributed Cache Service"}},
	{"hws.service.type.nat", "NAT", names{"NAT网关", "NAT Gateway"}},
	{"hws.service.type.vpn", "VPN", names{"虚拟专用网络", "Virtual Private Network"}},
	{"hws.service.type.cbr", "CBR", names{"云备份", "Cloud Backup and Recovery"}},
}

// resourceType is a kind of resource and the services that it is listed under. Its owner is, as in the document's sample, often
// none of these.
type resourceType struct {
	code, owner string
	names       names
	listedUnder []string
}

// resourceTypes are listed so that all of OBS need more than one page of 100.
func resourceTypes() []resourceType {
	under := func(services ...string) []string {
		for i := range services {
			services[i] = servicePrefix + services[i]
		}
		return services
	}
	types := []resourceType{
		// The five of the sample, in its order.
		{"hws.resource.type.general", "hws.service.type.offline", names{"通用规格", "general specifications"}, under("obs")},
		{bandwidth.resource, bandwidth.service, names{"固定带宽", "fixed bandwidth"}, under("obs", "vpc")},
		{address.resource, address.service, names{"弹性公网IP", "EIP"}, under("obs", "vpc")},
		{"hws.resource.type.vm.image", virtualMachine.service, names{"云服务器镜像", "ECS image"}, under("obs", "ec2")},
		{virtualMachine.resource, virtualMachine.service, names{"云服务器", "ECS"}, under("obs", "ec2")},

		{bucket.resource, "hws.service.type.offline", names{"对象存储", "object storage"}, under("obs")},
		{volume.resource, virtualMachine.service, names{"云硬盘", "EVS disk"}, under("ebs", "ec2", "bms")},
		{database.resource, database.service, names{"数据库实例", "DB instance"}, under("rds")},
		{resourceBareMetal, serviceBareMetal, names{"裸金属服务器", "BMS"}, under("bms")},
	}
	for n := range 120 {
		types = append(types, resourceType{
			fmt.Sprintf("hws.resource.type.obs.package.%03d", n+1), "hws.service.type.offline",
			names{fmt.Sprintf("对象存储资源包 %d", n+1), fmt.Sprintf("OBS package %d", n+1)},
			under("obs"),
		})
	}
	return types
}

// serviceName is what a service is called, or nothing.
func serviceName(code string, in language) string {
	for _, t := range serviceTypesSold {
		if t.code == code {
			return t.names[in]
		}
	}
	return ""
}

// resourceTypeNames are what resource types are called.
func resourceTypeNames(in language) map[string]string {
	called := map[string]string{}
	for _, t := range resourceTypes() {
		called[t.code] = t.names[in]
	}
	return called
}

// usageType is a factor of a kind of resource.
type usageType struct {
	code, resource, service string
	names                   names
}

func usageTypes() []usageType {
	called := [factorCount]names{
		factorDuration:  {"使用时长", "Duration"},
		factorUpflow:    {"上行流量", "Upstream traffic"},
		factorFlow:      {"流量", "Traffic"},
		factorStoreSize: {"存储容量", "Stored data"},
		factorReqNumber: {"调用次数", "Requests"},
	}
	var types []usageType
	for _, kind := range [...]*resourceKind{&virtualMachine, &volume, &address, &bandwidth, &bucket, &database} {
		for _, f := range kind.factors {
			code := f.String()
			if kind.regional {
				code = strings.ToLower(code) // factors of records are to be compared without regard to case
			}
			types = append(types, usageType{code, kind.resource, kind.service, called[f]})
		}
	}
	return types
}

// measureUnit is a unit of measure. Kinds: 1 money, 2 time, 3 traffic, 4 number, 7 capacity, 16 bandwidth.
type measureUnit struct {
	id, kind     int
	abbreviation string
	names        names
}

const (
	measureMegabitPerSecond = 15
	measureGigabyte         = 17
)

var measureUnits = [...]measureUnit{
	{1, 1, "yuan", names{"元", "Yuan"}},
	{4, 2, "h", names{"小时", "Hour"}},
	{6, 2, "s", names{"秒", "Second"}},
	{10, 3, "GB", names{"GB", "GB"}},
	{11, 3, "MB", names{"MB", "MB"}},
	{14, 4, "", names{"个", "Unit"}},
	{measureMegabitPerSecond, 16, "Mbps", names{"Mbps", "Mbit/s"}},
	{measureGigabyte, 7, "GB", names{"GB", "GB"}},
}

// basicInfo is ResourceBasicInfo, table 4.
type basicInfo struct {
	ResourceTypeCode    string `json:"resource_type_code"`
	ProductOwnerService string `json:"product_owner_service"`
	Name                string `json:"name"`
	Description         string `json:"description"`
}

type serviceResource struct {
	BasicInfo basicInfo `json:"basic_info"`
}

// listServiceResources answers for a service that is not sold with no rows, and refuses what is no service at all; the document
// says neither.
func (s *Server) listServiceResources(c *call, in language) reply {
	q := queryOf(c, "service_type_code", "offset", "limit")
	from, size := q.place()
	code, _ := q.text("service_type_code", 64)
	if !strings.HasPrefix(code, servicePrefix) {
		q.fail("service_type_code must be that of a service, not %q", code)
	}
	if q.err != nil {
		return invalid("%v", q.err)
	}
	var infos []serviceResource
	for _, t := range resourceTypes() {
		for _, service := range t.listedUnder {
			if service == code {
				infos = append(infos, serviceResource{basicInfo{t.code, t.owner, t.names[in], t.names[in]}})
			}
		}
	}
	page, total := sliceOf(s, c, EndpointServiceResources, infos, from, size)
	return jsonReply(http.StatusOK, map[string]any{"total_count": s.total(total), "infos": page})
}

func (s *Server) listServiceTypes(c *call, in language) reply {
	q := queryOf(c, "service_type_code", "service_type_name", "offset", "limit")
	from, size := q.place()
	code, byCode := q.text("service_type_code", 64)
	name, _ := q.text("service_type_name", 256)
	if q.err != nil {
		return invalid("%v", q.err)
	}
	type row struct {
		Code         string `json:"service_type_code"`
		Name         string `json:"service_type_name"`
		Abbreviation string `json:"abbreviation"`
	}
	var rows []row
	for _, t := range serviceTypesSold {
		if (!byCode || t.code == code) && strings.Contains(strings.ToLower(t.names[in]), strings.ToLower(name)) {
			rows = append(rows, row{t.code, t.names[in], t.abbreviation})
		}
	}
	page, total := sliceOf(s, c, EndpointServiceTypes, rows, from, size)
	return jsonReply(http.StatusOK, map[string]any{"total_count": s.total(total), "service_types": page})
}

func (s *Server) listResourceTypes(c *call, in language) reply {
	q := queryOf(c, "resource_type_code", "offset", "limit")
	from, size := q.place()
	code, byCode := q.text("resource_type_code", 64)
	if q.err != nil {
		return invalid("%v", q.err)
	}
	type row struct {
		Code        string `json:"resource_type_code"`
		Name        string `json:"resource_type_name"`
		Description string `json:"resource_type_desc"`
		Service     string `json:"service_type_code"`
	}
	var rows []row
	for _, t := range resourceTypes() {
		if !byCode || t.code == code {
			rows = append(rows, row{t.code, t.names[in], t.names[in], t.owner})
		}
	}
	page, total := sliceOf(s, c, EndpointResourceTypes, rows, from, size)
	return jsonReply(http.StatusOK, map[string]any{"total_count": s.total(total), "resource_types": page})
}

func (s *Server) listUsageTypes(c *call, in language) reply {
	q := queryOf(c, "resource_type_code", "offset", "limit")
	from, size := q.place()
	code, byCode := q.text("resource_type_code", 64)
	if q.err != nil {
		return invalid("%v", q.err)
	}
	type row struct {
		Code         string `json:"code"`
		Name         string `json:"name"`
		ResourceType string `json:"resource_type_code"`
		Service      string `json:"service_type_code"`
	}
	var rows []row
	for _, t := range usageTypes() {
		if !byCode || t.resource == code {
			rows = append(rows, row{t.code, t.names[in], t.resource, t.service})
		}
	}
	page, total := sliceOf(s, c, EndpointUsageTypes, rows, from, size)
	return jsonReply(http.StatusOK, map[string]any{"total_count": s.total(total), "usage_types": page})
}

// listMeasurements returns all units at once; it knows neither pages nor a total.
func (s *Server) listMeasurements(c *call, in language) reply {
	if q := queryOf(c); q.err != nil {
		return invalid("%v", q.err)
	}
	type row struct {
		ID           int    `json:"measure_id"`
		Name         string `json:"measure_name"`
		Abbreviation string `json:"abbreviation"`
		Type         int    `json:"measure_type"`
	}
	var rows []row
	for _, u := range measureUnits {
		rows = append(rows, row{u.id, u.names[in], u.abbreviation, u.kind})
	}
	page, _ := sliceOf(s, c, EndpointMeasurements, rows, 0, len(rows))
	return jsonReply(http.StatusOK, map[string]any{"measure_units": page})
}
