package sandbox

import (
	"slices"
	"strings"
)

// The capacities: ESM API Reference 4.1.1 and 4.1.2 (en), 4.1.2 and 4.1.3 (zh).

// capacityEvery is how often capacities are taken: at midnight, at eight, and at sixteen o'clock as in the samples.
const capacityEvery = 8 * hour

// pool is one line of a capacity list.
type pool struct {
	service string // as asked for
	label   string // as answered
	zone    string
	model   string // resource_type of physical devices
	metric  string
}

// inZone tells whether the pool is in the zone asked for: manage, pod, or a service's own.
func (p pool) inZone(asked string) bool {
	switch asked {
	case "":
		return true
	case "manage":
		return p.zone == "MANAGE"
	case "pod":
		return strings.HasSuffix(p.zone, "POD")
	default:
		return strings.EqualFold(p.zone, asked)
	}
}

func (v view) capacities(a asked, pools []pool, service string, row func(p pool, b beat) item) rows {
	var meters []meter
	for i, p := range pools {
		if p.inZone(a.values["zone_type"]) && (service == "" || p.service == service) {
			meters = append(meters, meter{i, span{0, v.now + 1}})
		}
	}
	return v.beats(a.span, capacityEvery, 1, meters, func(b beat) item { return row(pools[b.source], b) })
}

// chinese tells whether a row is spelt as the document of 2025-03 has it. A site of no generation mixes the spellings.
func (v view) chinese(h uint64) bool {
	switch v.config.Generation {
	case Generation202503:
		return true
	case Generation202510:
		return false
	default:
		return h>>60&1 == 0
	}
}

// available is the key of what remains; the Chinese tables misspell it.
func (v view) available(h uint64) string {
	if v.chinese(h) {
		return "avaliable"
	}
	return "available"
}

var physicalPools = [...]pool{
	{service: "EVS", zone: "MANAGE", model: "SAS", metric: "SAS"},
	{service: "EVS", zone: "MANAGE", model: "SSD", metric: "SSD"},
	{service: "EVS", zone: "POD", model: "SAS", metric: "SAS"},
	{service: "EVS", zone: "POD", model: "SSD", metric: "SSD"},
	{service: "ECS", zone: "MANAGE", model: "C6xLarge", metric: "vCpu"},
	{service: "ECS", zone: "MANAGE", model: "C6xLarge", metric: "memory"},
	{service: "ECS", zone: "KVM_POD", model: "C6xLarge", metric: "vCpu"},
	{service: "ECS", zone: "KVM_POD", model: "C6xLarge", metric: "memory"},
	{service: "ECS", zone: "KVM_POD", model: "M6xLarge", metric: "vCpu"},
	{service: "ECS", zone: "KVM_POD", model: "M6xLarge", metric: "memory"},
}

func physicalCapacity(v view, a asked) rows {
	return v.capacities(a, physicalPools[:], a.values["device_type"], func(p pool, b beat) item {
		h := v.hash("physical capacity", int64(b.source), b.at)
		if p.service == "EVS" {
			return item{
				{v.available(h), binaryText(h, 200)},
				{"metric_type", p.metric},
				{"device_type", p.service},
				{"zone_type", p.zone},
				{"region", v.home.scope.Region},
				{"allocated", binaryText(mix(h), 300)},
				{"resource_type", p.model},
				{"timestamp", milliText(b.at)},
			}
		}
		// The samples have service_type for compute, where the table says device_type.
		return item{
			{"service_type", p.service},
			{"total", binaryText(mix(h+1), 20000)},
			{v.available(h), binaryText(h, 6000)},
			{"metric_type", p.metric},
			{"zone_type", p.zone},
			{"used", "0"},
			{"free", binaryText(mix(h+2), 20000)},
			{"used_ratio", "0"},
			{"region", v.home.scope.Region},
			{"resource_count", "0"},
			{"allocated", binaryText(mix(h), 5000)},
			{"resource_type", p.model},
			{"timestamp", milliText(b.at)},
		}
	})
}

var servicePools = [...]pool{
	{service: "ECS_VM", label: "ecs-vm", zone: "MANAGE", metric: "C6-2/C6规格"},
	{service: "ECS_VM", label: "ecs-vm", zone: "KVM_POD", metric: "C6-2/C6规格"},
	{service: "ECS_VM", label: "ecs-vm", zone: "KVM_POD", metric: "S6-4/S6规格"},
	{service: "BMS", label: "BMS", zone: "POD", metric: "physical.kd1ne.2xlarge"},
	{service: "BMS", label: "BMS", zone: "POD", metric: "physical.s4.large"},
	{service: "EVS", label: "EVS", zone: "MANAGE", metric: "SAS"},
	{service: "EVS", label: "EVS", zone: "POD", metric: "SAS"},
	{service: "EVS", label: "EVS", zone: "POD", metric: "SSD"},
	{service: "OBS", label: "OBS", zone: "OBS_POD", metric: "a"},
	{service: "EIP", label: "EIP", zone: "EIP_POD", metric: "5_bgp"},
	{service: "RDS", label: "RDS", zone: "RDS_POD", metric: "sqlServer"},
	{service: "RDS", label: "RDS", zone: "RDS_POD", metric: "nosqlServer"},
	{service: "DCC", label: "dcc", zone: "DCC_POD", metric: "主机"},
	{service: "DCC", label: "dcc", zone: "DCC_POD", metric: "内存"},
	{service: "DCC", label: "dcc", zone: "DCC_POD", metric: "vCPU"},
	{service: "DeH", label: "deh", zone: "DEH_POD", metric: "s3"},
	{service: "DeH", label: "deh", zone: "DEH_POD", metric: "l5"},
	{service: "SFS", label: "sfs", zone: "SFS_POD", metric: "null"},
	{service: "VPN", label: "VPN", zone: "VPN_POD", metric: "connection"},
	{service: "VPN", label: "VPN", zone: "VPN_POD", metric: "gateway"},
}

// capacityServices are the values of service_type; DCC_GENERATE is what the table of 4.1.2.7 (en) has for DCC.
func capacityServices() []string {
	types := []string{"DCC_GENERATE"}
	for _, p := range servicePools {
		types = append(types, p.service)
	}
	return slices.Compact(types)
}

// zoneTypes are the values of zone_type in any of the ten sections.
func zoneTypes() []string {
	types := []string{"manage", "pod", "BMS_POD", "DeH_POD"}
	for _, p := range servicePools {
		types = append(types, p.zone)
	}
	return slices.DeleteFunc(types, func(zone string) bool { return zone == "MANAGE" || zone == "POD" || zone == "KVM_POD" })
}

func cloudServiceCapacity(v view, a asked) rows {
	service := a.values["service_type"]
	if service == "DCC_GENERATE" {
		service = "DCC"
	}
	return v.capacities(a, servicePools[:], service, func(p pool, b beat) item {
		h := v.hash("service capacity", int64(b.source), b.at)
		total, used, free, allocated, left := binaryText(mix(h+1), 500), binaryText(mix(h+2), 200), binaryText(mix(h+3), 300), binaryText(mix(h+4), 300), binaryText(h, 100)
		ratio := ratioText(mix(h + 5))
		if !v.chinese(h) {
			az := string(rune('a' + b.source%3))
			return item{
				{"resource_type", ""},
				{"available", left},
				{"az_name", "AZ " + string('1'+az[0]-'a')},
				{"used", used},
				{"used_ratio", ratio},
				{"az_id", v.home.scope.Region + az},
				{"service_type", p.label},
				{"total", total},
				{"az_name_en", "AZ" + string('1'+az[0]-'a')},
				{"metric_type", p.metric},
				{"zone_type", p.zone},
				{"free", free},
				{"region", v.home.scope.Region},
				{"resource_count", milliText(int64(mix(h+6) % 2000))},
				{"allocated", allocated},
				{"timestamp", milliText(b.at)},
			}
		}
		count := milliText(int64(mix(h+6) % 2000))
		switch p.service {
		case "EVS":
			return item{
				{"avaliable", left},
				{"metric_type", p.metric},
				{"service_type", p.label},
				{"zone_type", p.zone},
				{"region", v.home.scope.Region},
				{"allocated", allocated},
				{"timestamp", milliText(b.at)},
			}
		case "ECS_VM":
			total, used, free, ratio, count = "null", "null", "null", "null", "null"
		case "RDS":
			ratio, count = "null", "null"
		case "DCC", "DeH", "SFS":
			count = "null"
		}
		key := "avaliable"
		if p.service == "BMS" { // the one section that spells it right
			key = "available"
		}
		return item{
			{"service_type", p.label},
			{"metric_type", p.metric},
			{"total", total},
			{"used", used},
			{"free", free},
			{"allocated", allocated},
			{key, left},
			{"used_ratio", ratio},
			{"allocated_ratio", ratio},
			{"resource_count", count},
			{"zone_type", p.zone},
			{"timestamp", milliText(b.at)},
			{"region", v.home.scope.Region},
		}
	})
}
