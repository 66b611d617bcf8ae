package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// What is measured every hour: ESM API Reference 4.1.7 (en), 4.1.8, 4.1.9, 4.1.13 and 4.1.15 (zh).

// metersOf are the devices, past ones too, that keep takes.
func (v view) metersOf(keep func(device) bool) []meter {
	var meters []meter
	for _, d := range v.everSeen(keep) {
		meters = append(meters, meter{d.number, v.life(d)})
	}
	return meters
}

// metric is one thing that is measured.
type metric struct{ item, name, data, unit string }

var hostMeasures = [...]metric{
	{"memory", "Memory", "usage", `\%`},
	{"cpu", "CPU", "usage", `\%`},
	{"disk", "Disk", "read_rate", "KB/s"},
}

func hostMetrics(v view, a asked) rows {
	hosts := v.metersOf(func(d device) bool { return d.kind.name == serverKind && v.deviceID(d) == a.values["host_id"] })
	return v.beats(a.span, hour, len(hostMeasures), hosts, func(b beat) item {
		h, m := v.hash("host metric", int64(b.source), int64(b.kind), b.at), hostMeasures[b.kind]
		it := item{
			{"time_stamp", milliText(b.at)},
			{"monitor_item", m.item},
			{"region_id", v.home.scope.Region},
			{"az_name", ""},
			{"metrics_name", m.name},
			{"operator", "AVG"},
			{"host_id", v.deviceID(v.device(b.source))},
			{"az_id", ""},
			{"unit", m.unit},
		}
		if v.chinese(h) {
			return append(it, item{
				{"az_name_en", ""}, {"region_name", ""}, {"data_item", m.data}, {"region_name_en", ""}, {"value", percentText(mix(h))},
			}...)
		}
		// The table has metrics_value, the sample value.
		return append(it, item{{"region_name", ""}, {"data_item", m.data}, {"metrics_value", percentText(mix(h))}}...)
	})
}

var serverMeasures = [...]string{"CPUUsagePercent", "MemoryUsagePercent"}

func serverPerformance(v view, a asked) rows {
	servers := v.metersOf(func(d device) bool {
		return d.kind.name == serverKind && (a.values["sn"] == "" || a.values["sn"] == v.serial(d))
	})
	return v.beats(a.span, hour, len(serverMeasures), servers, func(b beat) item {
		d, at := v.device(b.source), time.UnixMilli(b.at).UTC()
		return item{
			{"dc_code", "WC_WUH_18"},
			{"az_code", v.home.scope.Region},
			{"usage", "mgt|mgt-can"},
			{"room_code", "wuhd22"},
			{"dates", at.Format(time.DateOnly)},
			{"metric", serverMeasures[b.kind]},
			{"pack_code", fmt.Sprintf("wuhd22-c-%02d-7", d.number%40)},
			{"model", v.model(d)},
			{"time", fmt.Sprintf("%s %d:%02d", at.Format(time.DateOnly), at.Hour(), at.Minute())}, // the hour is not padded
			{"sn", v.serial(d)},
			{"value", strconv.FormatUint(v.hash("server metric", int64(b.source), int64(b.kind), b.at)%100, 10)},
			{"region_code", v.home.scope.Region},
			{"slot_number", strconv.Itoa(d.number%20 + 1)},
		}
	})
}

// networkMetrics are the codes of the metrics, whose meaning no document tells.
func networkMetrics() []string { return []string{"59", "60", "14", "18", "101", "102", "61", "52"} }

func networkDeviceMetrics(v view, a asked) rows {
	metrics := networkMetrics()
	if wanted := a.values["metric"]; wanted != "" {
		metrics = []string{wanted}
	}
	address := a.values["management_ip"]
	devices := v.metersOf(func(d device) bool {
		return d.kind.name != serverKind && (address == "" || address == d.address())
	})
	return v.beats(a.span, hour, len(metrics), devices, func(b beat) item {
		d, code := v.device(b.source), metrics[b.kind]
		number, _ := strconv.ParseInt(code, 10, 64) // of our own making
		return item{
			{"device_ip", d.address()},
			{"res_type", strconv.Itoa(2 + slices.Index([]string{"switch", "firewall", "router"}, d.kind.name))},
			{"metric", code},
			{"region_id", v.home.scope.Region},
			{"value", strconv.FormatUint(v.hash("network metric", int64(b.source), number, b.at)%1000, 10)},
			{"timestamp", milliText(b.at)},
		}
	})
}

var machineMeasures = [...]metric{
	{name: "cpu_usage", unit: "%"},
	{name: "mem_usedPercent", unit: "%"},
}

func vmPerformance(v view, a asked) rows {
	machines := v.machines()
	var meters []meter
	for i, m := range machines {
		if wanted := a.values["vm_id"]; wanted == "" || wanted == m.id {
			meters = append(meters, meter{i, span{0, v.now + 1}})
		}
	}
	return v.beats(a.span, hour, len(machineMeasures), meters, func(b beat) item {
		m := machineMeasures[b.kind]
		return item{
			{"SERVICE", "ECS"},
			{"REGION_ID", v.home.scope.Region},
			{"NAMESPACE", "ecs"},
			{"SOURCE_SERVICE", "CES"},
			{"SOURCE_TYPE", "TenantMon"},
			{"SOURCE_TAG", "CN_NORTH_7_ECS"},
			{"TENANT_NAME", tenants[b.source%len(tenants)].domainName},
			{"METRIC_NAME", m.name},
			{"METRIC_VALUE", percentText(v.hash("machine metric", int64(b.source), int64(b.kind), b.at))},
			{"METRIC_UNIT", m.unit},
			{"INSTANCE_ID", machines[b.source].id},
			{"TIMESTAMP", milliText(b.at)},
		}
	})
}
