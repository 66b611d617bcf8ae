package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What stands on the site: ESM API Reference 4.1.4 and 4.1.8 (en); 4.1.1, 4.1.5, 4.1.10 to 4.1.12, 4.1.14 and 4.1.16 (zh).

func physicalDevices(v view, a asked) rows {
	all := slices.DeleteFunc(v.devices(), func(d device) bool {
		return a.values["device_type"] != "" && a.values["device_type"] != d.kind.name
	})
	return rowsOf(all, func(d device) item {
		return item{
			{"device_id", v.deviceID(d)},
			{"name", v.deviceName(d)},
			{"device_type", d.kind.name}, // int32 in the table, text in the sample
			{"running_status", v.status(d)},
			{"model", v.model(d)},
			{"management_ip", d.address()},
			{"os", d.kind.os},
			{"region", v.home.scope.Region},
		}
	}, v.deviceID)
}

// hostDetails tells of the hosts present, whatever the span that must be given: rows have no time, and the document's own sample
// asks from 0 to 0.
func hostDetails(v view, a asked) rows {
	all := slices.DeleteFunc(v.servers(), func(d device) bool {
		return a.values["host_id"] != "" && a.values["host_id"] != v.deviceID(d)
	})
	return rowsOf(all, func(d device) item {
		return item{
			{"REGION_ID", v.home.scope.Region},
			{"HOST_ID", v.deviceID(d)},
			{"HOST_NAME", v.deviceName(d)},
			{"MANUFACTURER", "Huawei"},
			{"KERNEL", "4.18.0-147." + strconv.Itoa(v.changes("kernel", d.number, 6))},
			{"CPU", innerJSON([]item{{
				{"cores", "22"},
				{"model", "Intel(R) Xeon(R) Gold 6161 CPU @ 2.20GHz"},
				{"threads", "2"},
				{"cpu", "2 * 22 * 2 * Intel(R) Xeon(R) Gold 6161 CPU @ 2.20GHz"},
				{"sockets", "2"},
			}})},
			{"MEMORY", innerJSON(slices.Repeat([]item{{
				{"frequency", "2666 MHz"}, {"manufacturer", "Micron"}, {"type", "DDR4"}, {"size", "32 GB"},
			}}, 2+d.number%3))},
			{"DISK", innerJSON([]item{{{"disk", "/dev/sda:599.0GB"}}, {{"disk", "/dev/sdb:1598.0GB"}}})},
			{"MAC_IP", d.address()},
			{"NETWORK_ADAPTER", "1"},
			{"RAID", "1"},
			{"SN", v.serial(d)},
			{"CPU_ARCH", "x86_64"},
			{"AZ_CODE", "1"},
			{"POD_CODE", "1"},
			{"CLUSTER_NAME", "ecs"},
			{"ROOM_CODE", "null"},
			{"RACK_CODE", strconv.Itoa(d.number % 40)},
			{"DC_CODE", ""},
		}
	}, v.deviceID)
}

// innerJSON is JSON within a text, as CPU, MEMORY and DISK are. The samples forget its escapes.
func innerJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // only plain structs come here
	}
	return string(text)
}

// hostVMs is one row for a host, with a list of its virtual machines that is written as Python shows it.
func hostVMs(v view, a asked) rows {
	all := slices.DeleteFunc(v.servers(), func(d device) bool { return v.deviceID(d) != a.values["host_id"] })
	return rowsOf(all, func(d device) item {
		var list strings.Builder
		list.WriteByte('[')
		changed := v.changes("kernel", d.number, 6)
		for i, m := range v.machines() {
			if m.host == d.number/10*serversOfTen+d.number%10 {
				if list.Len() > 1 {
					list.WriteString(", ")
				}
				fmt.Fprintf(&list, `['%s', 'ecs-%04d', 'Euler', '[{"cores":"1","model":"","threads":"1","cpu":"16 * 1 * 1 * ","sockets":"16"}]']`, m.id, i)
			}
		}
		list.WriteByte(']')
		return item{
			{"region_id", v.home.scope.Region},
			{"host_name", v.deviceName(d)},
			{"vm_list", list.String()},
			{"host_id", v.deviceID(d)},
			{"host_ip", d.address()},
			{"last_update_time", milliText(1726819320000 + int64(changed)*wholeDay)},
		}
	}, v.deviceID)
}

// loadBalancers are the clusters of ELBv3, which report their counters anew each night.
func loadBalancers(v view, _ asked) rows {
	clusters := make([]int, max(1, v.config.Devices/3))
	for i := range clusters {
		clusters[i] = i
	}
	id := func(n int) string { h := v.hash("cluster", int64(n)); return uuidText(h, mix(h)) }
	return rowsOf(clusters, func(n int) item {
		count := func(salt string, below uint64) string {
			return strconv.FormatUint(v.hash(salt, int64(n), int64(v.changes("cluster", n, 3)))%below, 10)
		}
		members := count("l4 members", 30000)
		if n%3 == 0 {
			members = ""
		}
		return item{
			{"ms_nodes_list", ""},
			{"cluster_name", ""},
			{"lb_count", count("lb", 8000)},
			{"time_stamp", milliText(1718259970000 + int64(len(v.nights))*wholeDay)},
			{"l4_member_capacity", "30000"},
			{"l7_member_capacity", "20000"},
			{"region_id", v.home.scope.Region},
			{"type", "ELBv3"},
			{"l4_listener_capacity", "10000"},
			{"l4_listener_count", count("l4 listeners", 10000)},
			{"lb_v5_count", count("lb v5", 100)},
			{"l7_listener_capacity", "5000"},
			{"lb_capacity", "8000"},
			{"cluster_id", id(n)},
			{"l4_member_count", members},
			{"l7_member_count", count("l7 members", 20000)},
			{"l7_listener_count", count("l7 listeners", 5000)},
			{"region_name", ""},
			{"cluster_code", fmt.Sprintf("elbv3-cluster%02d-az1", n)},
		}
	}, id)
}

// tenantTypes are the resources of 4.1.10 (zh), each a path of its own.
func tenantTypes() []string { return []string{"ECS", "EVS", "OBS", "BMS"} }

// tenantResources is an answer that no document describes: some plain list. That of ECS changes each night, the others never do.
func tenantResources(v view, a asked) rows {
	kind := a.values["resource_type"]
	ids := v.instanceIDs(kind, 4)
	return rowsOf(ids, func(id string) item {
		n := slices.Index(ids, id)
		it := item{
			{"id", id},
			{"name", fmt.Sprintf("%s-%04d", strings.ToLower(kind), n)},
			{"project_id", tenants[n%len(tenants)].projectID},
			{"tenant_name", tenants[n%len(tenants)].domainName},
			{"attributes", item{{"size", json.Number("40")}, {"ratio", json.Number("1.50")}, {"tags", []string{}}}},
		}
		if kind == "ECS" {
			it = append(it, member{"status", [...]string{"ACTIVE", "SHUTOFF"}[(n+len(v.nights))%2]})
		}
		return it
	}, nil)
}

// externalType is one value of resource_type of 4.1.8 (en), 4.1.12 (zh).
type externalType struct{ name, service, resource, spec string }

var externalKinds = [...]externalType{
	{"ECS", "hws.service.type.ec2", "hws.resource.type.vm", "ks1.xlarge.2.linux"},
	{"EVS", "hws.service.type.ebs", "hws.resource.type.volume", "SSD"},
	{"EIP", "hws.service.type.vpc", "hws.resource.type.ip", "5_bgp"},
	{"OBS", "hws.service.type.obs", "hws.resource.type.obs", "storage"},
	{"BMS", "hws.service.type.bms", "hws.resource.type.pm", "physical.kd1ne.2xlarge"},
	{"ELB", "hws.service.type.elb", "hws.resource.type.elbv3", "elbv3.basic.1az"},
	{"VPN", "hws.service.type.vpn", "hws.resource.type.vpn", "vpn.gateway"},
	{"DCS", "hws.service.type.dcs", "hws.resource.type.dcs3", "redis.ha.xu1.large.r2.4"},
	{"DMS", "hws.service.type.dms", "hws.resource.type.dms.kafka", "dms.instance.kafka.cluster"},
	{"RDS", "hws.service.type.rds", "hws.resource.type.rds.vm", "rds.pg.x1.2xlarge.8"},
	{"GAUSS", "hws.service.type.gaussdb", "hws.resource.type.gaussdb.vm", "gaussdb.opengauss.ee.dn.m6.2xlarge.8.in"},
	{"MODEL_ARTS_INF", "hws.service.type.modelarts", "hws.resource.type.modelarts.inf", "modelarts.vm.cpu.2u"},
	{"MODEL_ARTS_TRAIN", "hws.service.type.modelarts", "hws.resource.type.modelarts.train", "modelarts.p3.large.public"},
	{"MODEL_ARTS_MAOS", "hws.service.type.modelarts", "hws.resource.type.modelarts.maos", ""},
}

func externalTypes() []string {
	var names []string
	for _, k := range externalKinds {
		names = append(names, k.name)
	}
	return names
}

// instanceIDs are the resources of a type: the metered ones where there are such.
func (v view) instanceIDs(kind string, count int) []string {
	metered := map[string]*resourceKind{"ECS": &virtualMachine, "EVS": &volume, "EIP": &address, "OBS": &bucket, "RDS": &database}
	var ids []string
	if k := metered[kind]; k != nil {
		ids = v.resourceIDs(k, count)
	}
	for n := len(ids); n < count; n++ {
		h := v.hash("instance "+kind, int64(n))
		ids = append(ids, uuidText(h, mix(h)))
	}
	return ids
}

// externalTenantResources are records like the metering ones, one an hour and resource, by the hour of their usage.
func externalTenantResources(v view, a asked) rows {
	kind := externalKinds[slices.IndexFunc(externalKinds[:], func(k externalType) bool { return k.name == a.values["resource_type"] })]
	ids := v.instanceIDs(kind.name, 2)
	var meters []meter
	for i := range ids {
		meters = append(meters, meter{i, span{0, v.now + 1}})
	}
	return v.beats(a.span, hour, 1, meters, func(b beat) item {
		h := v.hash("external "+kind.name, int64(b.source), b.at)
		tenant := tenants[b.source%len(tenants)]
		it := item{
			{"accumulate_factor_name", "Duration"},
			{"accumulate_factor_value", [...]string{"3600", "3600", "2700", "3599.5", ""}[h%5]},
			{"az_code", v.home.scope.Region + "a"},
			{"begin_time", stampText(b.at)},
			{"bp_info", ""},
			{"cloud_service_type_code", kind.service},
			{"csb_params", "::DBSS-" + hexText(h, 4) + ":" + hexText(h+1, 32) + ":"},
		}
		if v.chinese(h) { // the sample has these, the English table lacks them
			it = append(it, item{{"domain_id", tenant.domainID}, {"domain_name", tenant.domainName}}...)
		}
		it = append(it, item{
			{"enterprise_project_id", [...]string{"", "0"}[h>>8%2]},
			{"error_msg", ""},
			{"extend_params", "2"},
			{"extend_params2", [...]string{"", "null"}[h>>12%2]},
			{"record_type", "20"},
			{"region_code", v.home.scope.Region},
			{"relate_parent_resource", ""},
			{"relate_root_resource", ""},
			{"resource_id", ids[b.source]},
			{"resource_spec_code", kind.spec},
			{"resource_type_code", kind.resource},
			{"site_code", ""},
			{"tag", ""},
			{"time_stamp", stampText(b.at + hour + 16*60*second + int64(h>>16%120)*second)},
		}...)
		if v.chinese(h) {
			it = append(it, member{"project_id", tenant.projectID})
		}
		return it
	})
}

// stampText is YYYYMMDDHHMMSS in UTC.
func stampText(at int64) string { return time.UnixMilli(at).UTC().Format("20060102150405") }

// serviceHealth is an answer that no document describes. One service is ill after every other night.
func serviceHealth(v view, _ asked) rows {
	return rowsOf([]string{"ECS", "EVS", "OBS", "VPC"}, func(service string) item {
		health := "normal"
		if service == "OBS" && len(v.nights)%2 == 1 {
			health = "abnormal"
		}
		return item{{"service", service}, {"status", health}}
	}, nil)
}
