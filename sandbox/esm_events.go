package sandbox

import (
	"fmt"
	"strconv"
	"time"
)

// Audit logs and alarms: ESM API Reference 4.1.3, 4.1.5 and 4.1.6 (en), 4.1.4, 4.1.6 and 4.1.7 (zh).

// event is something that happened at one moment.
type event struct {
	at     int64 // milliseconds
	number int64 // unlike any other's of its list
	hash   uint64
}

// lateReachEvents is how many days before its own day a night adds an audit log to.
const lateReachEvents = 3

// The most events of a day in time, and the numbers set aside for them and the ones that come to light later.
const (
	maxEventsPerDay = 50_000
	numbersPerDay   = 100_000
)

// events lists what happened within the span, day by day: so many a day in time, of which the first is on midnight and the last
// just before the next one, then those that have come to light since, as many as late says.
func (v view) events(salt string, sp span, perDay int, late func(day) int, keep func(event) bool) []event {
	sp = v.past(sp)
	var all []event
	for at := sp.from / wholeDay * wholeDay; at < sp.to; at += wholeDay {
		d := day(at / wholeDay)
		count := perDay
		if late != nil {
			count += late(d)
		}
		for i := range count {
			e := event{number: int64(d)*numbersPerDay + int64(i), hash: v.hash(salt, int64(d), int64(i))}
			length := wholeDay / int64(perDay)
			e.at = at + int64(i%perDay)*length
			switch {
			case i >= perDay:
				e.at += int64(e.hash >> 20 % uint64(length))
			case i > 0 && i == perDay-1:
				e.at = at + wholeDay - 1
			case i > 0:
				e.at += int64(e.hash >> 20 % uint64(length))
			}
			if sp.holds(e.at) && (keep == nil || keep(e)) {
				all = append(all, e)
			}
		}
	}
	return all
}

// secondText is a time as audit logs have it, in UTC.
func secondText(at int64) string { return time.UnixMilli(at).UTC().Format(time.DateTime) }

// auditLogs are written in whole seconds.
func auditLogs(v view, a asked) rows {
	late := func(d day) int {
		n := 0
		for _, today := range v.nights {
			if d >= today-lateReachEvents && d < today {
				n++
			}
		}
		return n
	}
	secure := func(e event) string { return strconv.FormatUint(e.hash>>8%4/3, 10) } // one in four is a security log
	keep := func(e event) bool { return a.values["log_type"] == "" || a.values["log_type"] == secure(e) }
	sp := span{(a.span.from + second - 1) / second * second, (a.span.to + second - 1) / second * second} // the moments are cut to seconds
	all := v.events("audit log", sp, v.config.EventsPerDay, late, keep)
	id := func(e event) string { return strconv.FormatInt(e.number, 10) }
	return rowsOf(all, func(e event) item {
		region := v.home.scope.Region
		end := min(e.at+int64(e.hash>>40%30)*second, e.at/wholeDay*wholeDay+wholeDay-second) // all on one day
		return item{
			{"id", id(e)},
			{"operating_name", [...]string{"addScheduleSchedule", "login", "deleteVm", "修改配额"}[e.hash>>16%4]},
			{"operating_source", int(e.hash >> 24 % 3)},
			{"operation_result", strconv.FormatUint(e.hash>>28%8/7, 10)},
			{"operation_detail", "{\"step\":\"1\",\"detail\":\"a \\\"quoted\\\" word\"}"},
			{"resource_name", "CloudCapacity"},
			{"resource_type", "schedule"},
			{"operating_user", [...]string{"capacityApi", "op_svc_dbss", "王小明"}[e.hash>>32%3]},
			{"department", [...]string{"", "null", "信息中心"}[e.hash>>36%3]},
			{"severity", strconv.FormatUint(1+e.hash>>12%4, 10)}, // 4 is critical
			{"type", secure(e)},
			{"start_time", secondText(e.at)},
			{"end_time", secondText(end)},
			{"resource_id", hexText(e.hash, 32)},
			{"resource_region", region},
			{"source_addr", fmt.Sprintf("10.0.%d.%d", e.hash>>44%250, e.hash>>52%250+1)},
			{"region_id", region},
			{"region_name", "北方二一三"},
			{"resource_region_name", "北方二一三"},
		}
	}, id)
}

// alarmKind is what the two alarm lists differ in.
type alarmKind struct {
	salt     string
	serial   int64 // first digit of csn, so that the lists share none
	services []string
	names    []string
	objects  string
}

func cloudServiceAlarms(v view, a asked) rows {
	return v.alarms(a, alarmKind{
		salt: "cloud service alarm", serial: 1, services: []string{"ECS", "EVS"},
		names: []string{"CPU usage exceeds the threshold", "云硬盘时延过高", "Service process abnormal"}, objects: "microservice",
	})
}

func hardwareAlarms(v view, a asked) rows {
	return v.alarms(a, alarmKind{
		salt: "hardware alarm", serial: 2, services: []string{"Server", "Network"},
		names: []string{"Fan failure", "硬盘故障", "Port down"}, objects: "device",
	})
}

// clearedAt is when an alarm is cleared: within half an hour, the day after, days later, or never.
func clearedAt(e event) (int64, bool) {
	switch e.hash >> 4 % 8 {
	case 0, 1:
		return e.at + hour/2, true
	case 2, 3, 4:
		return e.at + 20*hour, true
	case 5, 6:
		return e.at + 3*wholeDay, true
	default:
		return 0, false
	}
}

// alarms lists alarms by when they first occurred. They change until they are cleared; each night that passes counts as a day.
func (v view) alarms(a asked, kind alarmKind) rows {
	seen := v.now + int64(len(v.nights))*wholeDay
	cleared := func(e event) bool { at, ever := clearedAt(e); return ever && at <= seen }
	digit := func(yes bool) string {
		if yes {
			return "1"
		}
		return "0"
	}
	service := func(e event) string { return kind.services[e.hash>>10%uint64(len(kind.services))] }
	keep := func(e event) bool {
		wanted, wantedService := a.values["cleared"], a.values["service_type"]
		return (wanted == "" || wanted == digit(cleared(e))) && (wantedService == "" || wantedService == service(e))
	}
	id := func(e event) string { return fmt.Sprintf("%d%011d", kind.serial, e.number) }
	return rowsOf(v.events(kind.salt, a.span, max(1, v.config.EventsPerDay/2), nil, keep), func(e event) item {
		name := kind.names[e.hash>>14%uint64(len(kind.names))]
		region := v.home.scope.Region
		unknown := [...]string{"", "null"}[e.hash>>50%2]
		clearUTC, clearUser, clearType := unknown, unknown, unknown
		if at, _ := clearedAt(e); cleared(e) {
			clearUTC, clearUser, clearType = milliText(at), "system", "ADAC"
		}
		acked := e.hash>>18%3 == 0 && e.at+2*hour <= seen
		ackUTC, ackUser := unknown, unknown
		if acked {
			ackUTC, ackUser = milliText(e.at+2*hour), "operator"
		}
		count := 1 + e.hash>>22%3
		latest := min(e.at+int64(count-1)*60*second, e.at/wholeDay*wholeDay+wholeDay-1) // all on one day
		return item{
			{"csn", id(e)},
			{"alarm_name", name},
			{"alarm_id", strconv.FormatUint(1060000+e.hash>>26%90, 10)},
			{"severity", strconv.FormatUint(1+e.hash>>30%4, 10)}, // 1 is critical
			{"event_type", "1"},
			{"origin_system_type", "CES"},
			{"origin_system_name", "cloud-monitor"},
			{"moi", "Region=" + region + ", Object=" + hexText(e.hash, 8)},
			{"additional_information", "threshold=\"90%\"; value=97\nCloudService=" + service(e)},
			{"latest_occur_utc", milliText(latest)},
			{"first_occur_utc", milliText(e.at)},
			{"meName", kind.objects + "-" + hexText(e.hash+1, 6)},
			{"count", strconv.FormatUint(count, 10)},
			{"probable_cause", name},
			{"region", "北方二一三"},
			{"dc_name", "dc01"},
			{"res_pool_name", [...]string{"POD01", ""}[e.hash>>34%2]},
			{"azone_name", "az1"},
			{"tenant", ""},
			{"nativeMeDn", fmt.Sprintf("10.1.%d.%d", e.hash>>38%250, e.hash>>46%250+1)},
			{"moc", kind.objects},
			{"cleared", digit(cleared(e))},
			{"clear_category", "1"},
			{"clear_utc", clearUTC},
			{"clear_user", clearUser},
			{"clear_type", clearType},
			{"acked", digit(acked)},
			{"ack_user", ackUser},
			{"ack_utc", ackUTC},
			{"merge_key", hexText(e.hash+2, 16)},
			{"me_category", service(e)},
			{"me_type", service(e)},
			{"product_name", kind.objects},
			{"LogicalRegionId", region},
			{"serviceAffectedType", "0"},
			{"affectedService", service(e)},
			{"meDn", "NE=" + hexText(e.hash+3, 12)},
		}
	}, id)
}
