package sandbox_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

const openAPI = "/rest/dataapi/homs/open-api"

// esmList is how one list is asked for.
type esmList struct {
	stream  string
	path    string
	spanned bool
	whole   bool   // no paging
	by      string // what must be given besides, and the values to give
	early   bool   // only in the document of 2025-03
	key     string // member that tells rows apart
}

var esmLists = []esmList{
	{stream: "physical_capacity", path: openAPI + "/v1/host-physical/capacity", spanned: true},
	{stream: "cloud_service_capacity", path: openAPI + "/v1/CloudService/capacity", spanned: true},
	{stream: "audit_logs", path: openAPI + "/v1/cloudAuditlog", spanned: true, key: "id"},
	{stream: "physical_devices", path: openAPI + "/v1/DeviceAsset/info", key: "device_id"},
	{stream: "cloud_service_alarms", path: openAPI + "/v1/CloudServiceAlarm/info", spanned: true, key: "csn"},
	{stream: "hardware_alarms", path: openAPI + "/v1/DeviceAlarm/info", spanned: true, key: "csn"},
	{stream: "host_metrics", path: openAPI + "/v1/host/metricdata", spanned: true, by: "host_id"},
	{stream: "server_performance", path: openAPI + "/v1/host/performancedata", spanned: true, early: true},
	{stream: "tenant_resources", path: openAPI + "/v1/TanentCloudResource/InstanceData/{type}", whole: true, early: true},
	{stream: "elbv3", path: openAPI + "/v1/network/capacity/elbv3", early: true, key: "cluster_id"},
	{stream: "external_tenant_resources", path: openAPI + "/v2/cloudresource/instancedata/{type}", spanned: true},
	{stream: "network_device_metrics", path: openAPI + "/v1/network-device/metric-data", spanned: true, early: true},
	{stream: "host_details", path: openAPI + "/v1/host/detail", spanned: true, early: true, key: "HOST_ID"},
	{stream: "vm_performance", path: openAPI + "/v1/ecs/performance", spanned: true, early: true},
	{stream: "host_vms", path: openAPI + "/v1/host/vms", by: "host_id", early: true, key: "host_id"},
}

func listOf(stream string) esmList {
	return esmLists[slices.IndexFunc(esmLists, func(l esmList) bool { return l.stream == stream })]
}

const healthPath = "/rest/dlvapp-engine/v1/screens/data/" + sandbox.DefaultShareID

func ms(text string) string { return strconv.FormatInt(date(text).UnixMilli(), 10) }

// query asks for a list's rows of file days, the first page of many.
func (l esmList) query(from, to string) url.Values {
	q := url.Values{}
	if !l.whole {
		q.Set("offset_value", "0")
		q.Set("page_size", "1000")
	}
	if l.spanned {
		q.Set("begin_time", ms(from))
		q.Set("end_time", ms(to))
	}
	return q
}

type listPage struct {
	Total json.RawMessage
	List  []json.RawMessage
}

func (v *vendor) listPage(path string, q url.Values) listPage {
	v.t.Helper()
	var p listPage
	v.want(http.StatusOK, "GET", path+"?"+q.Encode(), "", &p)
	return p
}

// readAll pages through one list, checking that the total stays what it is.
func (v *vendor) readAll(path string, q url.Values) []json.RawMessage {
	v.t.Helper()
	q = maps.Clone(q)
	var all []json.RawMessage
	for {
		q.Set("offset_value", strconv.Itoa(len(all)))
		p := v.listPage(path, q)
		all = append(all, p.List...)
		total, err := strconv.Atoi(string(p.Total))
		if err != nil || len(all) > total || len(p.List) == 0 && len(all) != total {
			v.t.Fatalf("%s: got %d rows of total %s (%v)", path, len(all), p.Total, err)
		}
		if len(all) == total {
			return all
		}
	}
}

// readList reads all of a list for file days, whatever it has to be asked by.
func (v *vendor) readList(l esmList, from, to, size string) []json.RawMessage {
	v.t.Helper()
	q := l.query(from, to)
	if l.whole {
		var all []json.RawMessage
		for _, kind := range []string{"ECS", "EVS", "OBS", "BMS"} {
			all = append(all, v.want(http.StatusOK, "GET", strings.ReplaceAll(l.path, "{type}", kind), "", nil).body)
		}
		return all
	}
	q.Set("page_size", size)
	var all []json.RawMessage
	switch {
	case strings.Contains(l.path, "{type}"):
		for _, kind := range externalTypes {
			all = append(all, v.readAll(strings.ReplaceAll(l.path, "{type}", kind), q)...)
		}
	case l.by == "host_id":
		for _, id := range v.deviceIDs() {
			q.Set("host_id", id)
			all = append(all, v.readAll(l.path, q)...)
		}
	default:
		all = v.readAll(l.path, q)
	}
	return all
}

var externalTypes = []string{
	"ECS", "EVS", "EIP", "OBS", "BMS", "ELB", "VPN", "DCS", "DMS", "RDS", "GAUSS", "MODEL_ARTS_INF", "MODEL_ARTS_TRAIN", "MODEL_ARTS_MAOS",
}

func (v *vendor) deviceIDs() []string {
	v.t.Helper()
	l := listOf("physical_devices")
	return column(v.t, v.readAll(l.path, l.query("", "")), "device_id")
}

// column returns one member of every row as text.
func column(t *testing.T, rows []json.RawMessage, key string) []string {
	t.Helper()
	values := make([]string, 0, len(rows))
	for _, raw := range rows {
		var row map[string]any
		if err := json.Unmarshal(raw, &row); err != nil {
			t.Fatalf("%v in row %s", err, raw)
		}
		value, ok := row[key].(string)
		if !ok {
			t.Fatalf("row %s has no text %s", raw, key)
		}
		values = append(values, value)
	}
	return values
}

// bySeed is a small site of both generations, without limits.
func bySeed(seed int64) sandbox.Config {
	return sandbox.Config{Seed: seed, Resources: 60, Devices: 12, NoListLimits: true}
}

func TestListsHoldTheTruth(t *testing.T) {
	t.Parallel()
	for _, l := range esmLists {
		t.Run(l.stream, func(t *testing.T) {
			t.Parallel()
			v := start(t, bySeed(1)).logIn()
			const from, to = "2024-03-30", "2024-04-01"
			truth, err := v.server.ListTruth(l.stream, date(from), date(to))
			if err != nil || truth.Records == 0 {
				t.Fatalf("got truth %+v, %v; want records", truth, err)
			}
			for _, size := range []string{"1000", "97"} {
				rows := v.readList(l, from, to, size)
				if int64(len(rows)) != truth.Records {
					t.Errorf("page size %s: got %d rows, want the truth's %d", size, len(rows), truth.Records)
				}
				seen := map[string]bool{}
				for _, row := range rows {
					if seen[string(row)] {
						t.Errorf("page size %s: got the row %s twice", size, row)
					}
					seen[string(row)] = true
				}
				if l.key != "" && !slices.Equal(column(t, rows, l.key), truth.IDs) {
					t.Errorf("page size %s: got ids %v, want the truth's %v", size, column(t, rows, l.key), truth.IDs)
				}
			}
			var served sandbox.ListTruth
			v.want(http.StatusOK, "GET", "/_sandbox/list?stream="+l.stream+"&from="+from+"&to="+to, "", &served)
			if served.Records != truth.Records || !slices.Equal(served.IDs, truth.IDs) {
				t.Errorf("got truth %+v over HTTP, want %+v", served, truth)
			}
		})
	}
}

func TestBadRowsOfLists(t *testing.T) {
	t.Parallel()
	c := bySeed(1)
	c.BadEvery, c.EventsPerDay = 10, 100
	v := start(t, c).logIn()
	for _, l := range esmLists {
		const from, to = "2024-03-29", "2024-04-01"
		var good, bad int64
		var ids []string
		for _, raw := range v.readList(l, from, to, "1000") {
			var row map[string]any
			if json.Unmarshal(raw, &row) != nil || row == nil {
				bad++
				continue
			}
			good++
			if l.key != "" {
				ids = append(ids, row[l.key].(string))
			}
		}
		truth, err := v.server.ListTruth(l.stream, date(from), date(to))
		if err != nil || truth.Records != good || truth.Rejected != bad || !slices.Equal(truth.IDs, ids) {
			t.Errorf("%s: got %d good and %d bad rows with ids %v, want the truth's %+v (%v)", l.stream, good, bad, ids, truth, err)
		}
		if l.spanned && l.stream != "host_details" && (bad == 0 || bad > good) {
			t.Errorf("%s: got %d bad rows of %d, want about one in ten", l.stream, bad, good+bad)
		}
	}
}

func TestListTruthOfNothing(t *testing.T) {
	t.Parallel()
	v := start(t, bySeed(1))
	for _, query := range []string{"", "stream=nonsense", "stream=audit_logs&from=yesterday"} {
		v.want(http.StatusBadRequest, "GET", "/_sandbox/list?"+query, "", nil)
	}
	if truth, err := v.server.ListTruth("audit_logs", date("2024-05-01"), date("2024-06-01")); err != nil || truth.Records != 0 {
		t.Errorf("got truth %+v, %v of the future; want nothing", truth, err)
	}
	if truth, err := v.server.ListTruth("service_health", time.Time{}, time.Time{}); err != nil || truth.Records != 1 {
		t.Errorf("got truth %+v, %v of the service health; want one answer", truth, err)
	}
}

func TestListsFollowFromTheSeed(t *testing.T) {
	t.Parallel()
	a, b, other := start(t, bySeed(1)).logIn(), start(t, bySeed(1)).logIn(), start(t, bySeed(2)).logIn()
	for _, l := range esmLists {
		const from, to = "2024-03-30", "2024-03-31"
		got, again, others := a.readList(l, from, to, "1000"), b.readList(l, from, to, "1000"), other.readList(l, from, to, "1000")
		if string(bytesOf(got)) != string(bytesOf(again)) {
			t.Errorf("%s: the same seed gives other rows", l.stream)
		}
		if string(bytesOf(got)) == string(bytesOf(others)) {
			t.Errorf("%s: another seed gives the same rows", l.stream)
		}
	}
}

func TestListStrictness(t *testing.T) {
	t.Parallel()
	v := start(t, bySeed(1)).logIn()
	with := func(stream string, changes ...string) string {
		l := listOf(stream)
		q := l.query("2024-03-01", "2024-03-02")
		if l.by != "" {
			q.Set(l.by, "00000000-0000-4000-9000-000000000000")
		}
		for i := 0; i < len(changes); i += 2 {
			if changes[i+1] == "-" {
				q.Del(changes[i])
			} else {
				q.Set(changes[i], changes[i+1])
			}
		}
		return strings.ReplaceAll(l.path, "{type}", "ECS") + "?" + q.Encode()
	}
	tests := []struct {
		name, path string
		want       int
		says       string
	}{
		{"good", with("physical_capacity"), 200, ""},
		{"no begin", with("physical_capacity", "begin_time", "-"), 400, "begin_time"},
		{"empty begin", with("audit_logs", "begin_time", ""), 400, "begin_time"},
		{"no end", with("hardware_alarms", "end_time", "-"), 400, "end_time"},
		{"no page size", with("physical_devices", "page_size", "-"), 400, "page_size"},
		{"no offset", with("elbv3", "offset_value", "-"), 400, "offset_value"},
		{"no host", with("host_metrics", "host_id", "-"), 400, "host_id"},
		{"empty host", with("host_vms", "host_id", ""), 400, "host_id"},
		{"unknown host", with("host_metrics"), 200, ""},
		{"page size 0", with("audit_logs", "page_size", "0"), 400, "page_size"},
		{"page size 1001", with("audit_logs", "page_size", "1001"), 400, "page_size"},
		{"negative offset", with("audit_logs", "offset_value", "-1"), 400, "offset_value"},
		{"offset behind the end", with("audit_logs", "offset_value", "100000"), 200, ""},
		{"page size optional", with("host_metrics", "page_size", "-", "offset_value", "-"), 200, ""},
		{"page size optional, servers", with("server_performance", "page_size", "-"), 200, ""},
		{"page size mandatory, network", with("network_device_metrics", "page_size", "-"), 400, "page_size"},
		{"seconds", with("physical_capacity", "begin_time", "1709251200"), 400, "begin_time"},
		{"text for a time", with("physical_capacity", "end_time", "2024-03-02 00:00:00"), 400, "end_time"},
		{"zeros as in the sample", with("host_details", "begin_time", "0", "end_time", "0"), 200, ""},
		{"backwards", with("audit_logs", "end_time", ms("2024-02-01")), 400, "begin_time"},
		{"two months of alarms", with("cloud_service_alarms", "begin_time", ms("2024-01-02")), 200, ""},
		{"more than two months of alarms", with("cloud_service_alarms", "begin_time", ms("2024-01-01")), 400, "2 months"},
		{"more than two months of hardware alarms", with("hardware_alarms", "begin_time", ms("2023-12-30")), 400, "2 months"},
		{"a year of audit logs", with("audit_logs", "begin_time", ms("2023-03-01")), 200, ""},
		{"unknown parameter", with("audit_logs", "offset", "0"), 400, "offset"},
		{"other case", with("audit_logs", "Log_type", "0"), 400, "Log_type"},
		{"parameter twice", with("audit_logs") + "&page_size=10", 400, "page_size"},
		{"page size where there is none", with("tenant_resources", "page_size", "10"), 400, "page_size"},
		{"bad query", with("audit_logs") + "&%zz", 400, "query"},
		{"empty choice", with("audit_logs", "log_type", ""), 400, "log_type"},
		{"log type", with("audit_logs", "log_type", "2"), 400, "log_type"},
		{"cleared", with("hardware_alarms", "cleared", "true"), 400, "cleared"},
		{"service of hardware alarms", with("hardware_alarms", "service_type", "ECS"), 400, "service_type"},
		{"service", with("cloud_service_capacity", "service_type", "CCE"), 400, "service_type"},
		{"service in other case", with("cloud_service_capacity", "service_type", "DEH"), 400, "service_type"},
		{"service as the samples have it", with("cloud_service_capacity", "service_type", "DCC"), 200, ""},
		{"service as the table has it", with("cloud_service_capacity", "service_type", "DCC_GENERATE"), 200, ""},
		{"zone", with("cloud_service_capacity", "zone_type", "EIP_POD"), 200, ""},
		{"unknown zone", with("physical_capacity", "zone_type", "EIP_POD"), 400, "zone_type"},
		{"device of the capacity", with("physical_capacity", "device_type", "server"), 400, "device_type"},
		{"any type of device", with("physical_devices", "device_type", "toaster"), 200, ""},
		{"metric", with("network_device_metrics", "metric", "58"), 400, "metric"},
		{"unknown resource type", strings.ReplaceAll(with("external_tenant_resources"), "ECS", "CCE"), 404, "API"},
		{"unknown tenant resource", strings.ReplaceAll(with("tenant_resources"), "ECS", "EIP"), 404, "API"},
		{"path of the ELBv3 sample", openAPI + "/v1/cloudresource/elbv3?page_size=1&offset_value=0", 404, "API"},
		{"path without the typo", openAPI + "/v1/TenantCloudResource/InstanceData/ECS", 404, "API"},
	}
	for _, tt := range tests {
		a := v.do("GET", tt.path, "")
		var problem struct {
			Message string `json:"error_msg"`
			Code    string `json:"error_code"`
		}
		wantCode := map[int]string{200: "", 400: "AS.0001", 404: "APIG.0101"}[tt.want]
		if err := json.Unmarshal(a.body, &problem); err != nil || a.status != tt.want || problem.Code != wantCode || !strings.Contains(problem.Message, tt.says) {
			t.Errorf("%s: got status %d, body %.300s; want %d, %s, %q", tt.name, a.status, a.body, tt.want, wantCode, tt.says)
		}
	}
	for _, l := range esmLists {
		v.want(http.StatusMethodNotAllowed, "POST", strings.ReplaceAll(l.path, "{type}", "ECS"), "{}", nil)
	}
}

func TestListHeaders(t *testing.T) {
	t.Parallel()
	c := bySeed(1)
	c.APIGAppcode, c.HCSOAppcode, c.HCSODomainID = "gate", "site", "tenant"
	v := start(t, c)
	steps := []struct {
		header, value string
		want          int
	}{
		{"Accept", "application/json", 401},
		{"X-APIG-Appcode", "gate", 401},
		{"X-Auth-Token", "MIIP", 401},
		{"X-Auth-Token", "", 403}, // a good one
		{"x-hcso-appcode", "site", 403},
		{"x-hcso-domainid", "tenant", 200},
	}
	for _, step := range steps {
		if step.header == "X-Auth-Token" && step.value == "" {
			v.logIn()
		} else {
			v.header.Set(step.header, step.value)
		}
		for _, l := range esmLists {
			path := strings.ReplaceAll(l.path, "{type}", "ECS") + "?" + l.query("2024-03-01", "2024-03-02").Encode()
			if l.by != "" {
				path += "&" + l.by + "=x"
			}
			if a := v.do("GET", path, ""); a.status != step.want {
				t.Errorf("%s after %s %q: got status %d, want %d", l.stream, step.header, step.value, a.status, step.want)
			}
		}
		if a := v.do("POST", healthPath, ""); a.status != step.want {
			t.Errorf("service_health after %s %q: got status %d, want %d", step.header, step.value, a.status, step.want)
		}
	}
}

func TestServiceHealth(t *testing.T) {
	t.Parallel()
	v := start(t, bySeed(1)).logIn()
	before := v.want(http.StatusOK, "POST", healthPath, "", nil).body
	v.want(http.StatusForbidden, "POST", "/rest/dlvapp-engine/v1/screens/data/another", "", nil)
	v.want(http.StatusMethodNotAllowed, "GET", healthPath, "", nil)
	if again := v.want(http.StatusOK, "POST", healthPath, "", nil).body; string(again) != string(before) {
		t.Errorf("got %s, then %s; want the same", before, again)
	}
	v.server.AdvanceNight()
	if after := v.want(http.StatusOK, "POST", healthPath, "", nil).body; string(after) == string(before) {
		t.Errorf("got %s before and after a night, want a change", after)
	}
}

// TestListSamples compares the members of every row with those of the documents' own samples. What tables and samples spell
// differently counts as the same.
func TestListSamples(t *testing.T) {
	t.Parallel()
	respelt := map[string]string{"avaliable": "available", "metrics_value": "value"}
	members := func(raw json.RawMessage) string {
		var row map[string]any
		if err := json.Unmarshal(raw, &row); err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
		delete(row, "ext_info") // what no document names
		keys := slices.Collect(maps.Keys(row))
		for i, key := range keys {
			keys[i] = cmp.Or(respelt[key], key)
		}
		slices.Sort(keys)
		return strings.Join(keys, " ")
	}
	for _, generation := range []struct{ name, language, foreign string }{
		{sandbox.Generation202503, "zh", ".en.json"}, {sandbox.Generation202510, "en", ".zh.json"},
	} {
		c := bySeed(1)
		c.Generation = generation.name
		v := start(t, c).logIn()
		for _, l := range esmLists {
			if l.whole || l.early && generation.name == sandbox.Generation202510 {
				continue
			}
			files, err := filepath.Glob("../testdata/" + l.stream + ".*json")
			if err != nil {
				t.Fatal(err)
			}
			samples := map[string]bool{}
			for _, file := range files {
				if strings.HasSuffix(file, generation.foreign) {
					continue
				}
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				var sample listPage
				if err := json.Unmarshal(text, &sample); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				for _, row := range sample.List {
					samples[members(row)] = true
				}
			}
			for _, row := range v.readList(l, "2024-03-30", "2024-03-31", "1000") {
				if got := members(row); !samples[got] {
					t.Errorf("%s of %s: got a row with %s, want those of %v", l.stream, generation.name, got, slices.Collect(maps.Keys(samples)))
					break
				}
			}
		}
	}
}

func TestGenerations(t *testing.T) {
	t.Parallel()
	tests := []struct {
		generation string
		early      int // status of what only the document of 2025-03 has
		spelt      []string
		never      []string
	}{
		{sandbox.Generation202503, 200, []string{`"avaliable"`, `"value"`, `"domain_id"`, `"null"`, `"code":"200"`}, []string{`"metrics_value"`, `"az_id":"cn`}},
		{sandbox.Generation202510, 404, []string{`"available"`, `"metrics_value"`, `"az_id":"cn`, `"metric_type":"null"`}, []string{`"avaliable"`, `"value"`, `"domain_id"`, `"code"`}},
		{"", 200, []string{`"avaliable"`, `"available"`, `"metrics_value"`, `"value"`}, []string{`"code"`}},
	}
	for _, tt := range tests {
		c := bySeed(1)
		c.Generation = tt.generation
		v := start(t, c).logIn()
		var all strings.Builder
		for _, l := range esmLists {
			q := l.query("2024-03-30", "2024-04-01")
			if l.by != "" {
				q.Set(l.by, v.deviceIDs()[0])
			}
			a := v.do("GET", strings.ReplaceAll(l.path, "{type}", "ECS")+"?"+q.Encode(), "")
			want := 200
			if l.early {
				want = tt.early
			}
			if a.status != want || want == 404 && !strings.Contains(string(a.body), "APIG.0101") {
				t.Errorf("%q: %s: got status %d, want %d; body %.200s", tt.generation, l.stream, a.status, want, a.body)
			}
			if !l.early {
				all.Write(a.body)
			}
		}
		for _, text := range tt.spelt {
			if !strings.Contains(all.String(), text) {
				t.Errorf("%q: got no %s", tt.generation, text)
			}
		}
		for _, text := range tt.never {
			if strings.Contains(all.String(), text) {
				t.Errorf("%q: got %s", tt.generation, text)
			}
		}
	}
	if _, err := sandbox.New(sandbox.Config{Generation: "2024-01"}); err == nil {
		t.Error("got no error for an unknown generation")
	}
}

func TestStringTotalsOfLists(t *testing.T) {
	t.Parallel()
	c := bySeed(1)
	c.StringTotals = true
	v := start(t, c).logIn()
	l := listOf("physical_devices")
	if p := v.listPage(l.path, l.query("", "")); string(p.Total) != `"12"` {
		t.Errorf("got total %s, want a text", p.Total)
	}
}

func TestListBounds(t *testing.T) {
	t.Parallel()
	const midnight, next = "2024-03-31", "2024-04-01"
	for _, l := range esmLists {
		if !l.spanned || l.stream == "host_details" {
			continue
		}
		counts := map[[2]bool]int{}
		for _, exclusive := range []bool{false, true} {
			for _, inclusive := range []bool{false, true} {
				c := bySeed(1)
				c.ExclusiveBegin, c.InclusiveEnd = exclusive, inclusive
				v := start(t, c).logIn()
				counts[[2]bool{exclusive, inclusive}] = len(v.readList(l, midnight, next, "1000"))
			}
		}
		base := counts[[2]bool{false, false}]
		atBegin, atEnd := base-counts[[2]bool{true, false}], counts[[2]bool{false, true}]-base
		if atBegin < 1 || atEnd < 1 || counts[[2]bool{true, true}] != base-atBegin+atEnd {
			t.Errorf("%s: got counts %v by exclusive begin and inclusive end, want rows on both bounds", l.stream, counts)
		}
	}
}

func TestAlarmsChangeUntilCleared(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"cloud_service_alarms", "hardware_alarms"} {
		c := bySeed(1)
		c.EventsPerDay = 40
		v := start(t, c).logIn()
		l := listOf(stream)
		read := func() (rows []json.RawMessage, standing int) {
			rows = v.readList(l, "2024-03-31", "2024-04-02", "1000")
			q := l.query("2024-03-31", "2024-04-02")
			q.Set("cleared", "0")
			standing = len(v.readAll(l.path, q))
			for _, row := range rows {
				var alarm struct {
					Cleared string
					ClearAt string `json:"clear_utc"`
				}
				if err := json.Unmarshal(row, &alarm); err != nil {
					t.Fatal(err)
				}
				if _, err := strconv.ParseInt(alarm.ClearAt, 10, 64); (err == nil) != (alarm.Cleared == "1") {
					t.Errorf("%s: got cleared %s with the time %q", stream, alarm.Cleared, alarm.ClearAt)
				}
				if alarm.Cleared == "0" {
					standing--
				}
			}
			if standing != 0 {
				t.Errorf("%s: cleared=0 gives %d alarms more than stand", stream, standing)
			}
			return rows, len(v.readAll(l.path, q))
		}
		before, standing := read()
		v.server.AdvanceNight()
		after, left := read()
		if left >= standing || left == 0 {
			t.Errorf("%s: got %d alarms standing, %d after a night; want fewer, but some", stream, standing, left)
		}
		if !slices.Equal(column(t, before, "csn"), column(t, after, "csn")) {
			t.Errorf("%s: got other alarms after a night, want the same ones changed", stream)
		}
	}
}

func TestFiltersOfLists(t *testing.T) {
	t.Parallel()
	v := start(t, bySeed(1)).logIn()
	devices := v.readList(listOf("physical_devices"), "", "", "1000")
	servers := v.readList(listOf("server_performance"), "2024-03-30", "2024-03-31", "1000")
	machines := v.readList(listOf("vm_performance"), "2024-03-30", "2024-03-31", "1000")
	network := v.readList(listOf("network_device_metrics"), "2024-03-30", "2024-03-31", "1000")
	tests := []struct{ stream, param, value, key, want string }{
		{"physical_devices", "device_type", "switch", "device_type", "switch"},
		{"physical_capacity", "zone_type", "pod", "zone_type", "POD"},
		{"physical_capacity", "zone_type", "manage", "zone_type", "MANAGE"},
		{"cloud_service_capacity", "service_type", "ECS_VM", "service_type", "ecs-vm"},
		{"cloud_service_capacity", "service_type", "DCC_GENERATE", "service_type", "dcc"},
		{"cloud_service_capacity", "zone_type", "DeH_POD", "service_type", "deh"},
		{"audit_logs", "log_type", "1", "type", "1"},
		{"cloud_service_alarms", "service_type", "EVS", "me_type", "EVS"},
		{"hardware_alarms", "cleared", "1", "cleared", "1"},
		{"network_device_metrics", "metric", "101", "metric", "101"},
		{"network_device_metrics", "management_ip", column(t, network, "device_ip")[0], "device_ip", column(t, network, "device_ip")[0]},
		{"server_performance", "sn", column(t, servers, "sn")[0], "sn", column(t, servers, "sn")[0]},
		{"vm_performance", "vm_id", column(t, machines, "INSTANCE_ID")[0], "INSTANCE_ID", column(t, machines, "INSTANCE_ID")[0]},
		{"host_details", "host_id", column(t, devices, "device_id")[0], "HOST_ID", column(t, devices, "device_id")[0]},
	}
	for _, tt := range tests {
		l := listOf(tt.stream)
		q := l.query("2024-03-30", "2024-03-31")
		all := len(v.readAll(l.path, q))
		q.Set(tt.param, tt.value)
		rows := v.readAll(l.path, q)
		if len(rows) == 0 || len(rows) >= all {
			t.Errorf("%s by %s=%s: got %d rows of %d", tt.stream, tt.param, tt.value, len(rows), all)
		}
		for _, got := range column(t, rows, tt.key) {
			if !strings.HasSuffix(got, tt.want) {
				t.Errorf("%s by %s=%s: got %s %q", tt.stream, tt.param, tt.value, tt.key, got)
			}
		}
	}
}

func TestNightsChangeDevices(t *testing.T) {
	t.Parallel()
	v := start(t, bySeed(1)).logIn()
	devices, metrics := listOf("physical_devices"), listOf("host_metrics")
	before, ids := v.readList(devices, "", "", "5"), v.deviceIDs()
	measured := map[string]string{}
	past := func(id string) string {
		q := metrics.query("2024-03-30", "2024-04-01")
		q.Set("host_id", id)
		return string(bytesOf(v.readAll(metrics.path, q)))
	}
	for _, id := range ids {
		measured[id] = past(id)
	}
	for range 3 {
		v.server.AdvanceNight()
	}
	after := v.readList(devices, "", "", "5")
	newIDs := v.deviceIDs()
	if !slices.Equal(ids[3:], newIDs[:9]) || len(newIDs) != 12 {
		t.Errorf("got devices %v, three nights later %v; want the first three gone and three new", ids, newIDs)
	}
	changed := 0
	for i := range 9 {
		if string(before[3+i]) != string(after[i]) {
			changed++
		}
	}
	if changed == 0 || changed == 9 {
		t.Errorf("got %d of 9 devices changed in three nights, want some", changed)
	}
	for _, id := range ids {
		if past(id) != measured[id] {
			t.Errorf("the past metrics of %s changed overnight", id)
		}
	}
	for _, id := range newIDs[9:] {
		if past(id) != "" {
			t.Errorf("got metrics of %s from before it was there", id)
		}
	}
}

func TestNightsAddAuditLogs(t *testing.T) {
	t.Parallel()
	v := start(t, bySeed(1)).logIn()
	l := listOf("audit_logs")
	before := column(t, v.readList(l, "2024-03-25", "2024-04-02", "1000"), "id")
	v.server.AdvanceNight()
	after := column(t, v.readList(l, "2024-03-25", "2024-04-02", "1000"), "id")
	if len(after) != len(before)+3 || slices.ContainsFunc(before, func(id string) bool { return !slices.Contains(after, id) }) {
		t.Errorf("got %d audit logs, %d after a night; want three more", len(before), len(after))
	}
}

func TestListLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, err := sandbox.New(sandbox.Config{Today: func() time.Time { return today }})
		if err != nil {
			t.Fatal(err)
		}
		call := func(method, path, body, token string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(context.Background(), method, path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Auth-Token", token)
			w := httptest.NewRecorder()
			server.Handler().ServeHTTP(w, r)
			return w
		}
		token := call("POST", "/v3/auth/tokens", login, "").Header().Get("X-Subject-Token")
		ask := func(stream string, more string) (int, string) {
			l := listOf(stream)
			w := call("GET", l.path+"?"+l.query("2024-03-01", "2024-03-02").Encode()+more, "", token)
			return w.Code, w.Body.String()
		}
		for n := range 59 { // the ten services share one limit
			service := []string{"ECS_VM", "BMS", "EVS", "OBS", "EIP", "RDS", "DCC", "DeH", "SFS", "VPN"}[n%10]
			if status, body := ask("cloud_service_capacity", "&service_type="+service); status != 200 {
				t.Fatalf("call %d: got status %d, body %s", n+1, status, body)
			}
		}
		time.Sleep(30 * time.Second) // of the bubble's clock
		if status, _ := ask("cloud_service_capacity", ""); status != 200 {
			t.Errorf("call 60: got status %d", status)
		}
		if status, body := ask("cloud_service_capacity", ""); status != 429 || !strings.Contains(body, "APIG.0308") || !strings.Contains(body, "limit:60,time:1 minute") {
			t.Errorf("call 61: got status %d, body %s; want 429", status, body)
		}
		if status, _ := ask("physical_capacity", ""); status != 200 {
			t.Errorf("another list: got status %d, want a limit of its own", status)
		}
		for n := range 70 {
			if status, _ := ask("vm_performance", ""); status != 200 {
				t.Fatalf("call %d of a list without such a limit: got status %d", n+1, status)
			}
		}
		time.Sleep(30 * time.Second)
		if status, _ := ask("cloud_service_capacity", ""); status != 200 {
			t.Errorf("a minute after the first calls: got status %d", status)
		}
		if got := server.Stats().Throttled["cloud_service_capacity"]; got != 1 {
			t.Errorf("got %d calls counted as throttled, want 1", got)
		}
	})
}

func TestFaultsOfLists(t *testing.T) {
	t.Parallel()
	const stream = "physical_devices"
	l := listOf(stream)
	tests := []struct {
		fault     string
		totals    []int // of the three pages of five
		rows, ids int   // and how many different ones
	}{
		{"physical_devices:2:shift", []int{12, 11, 11}, 11, 11},
		{"physical_devices:2:skip", []int{12, 12, 12}, 12, 11},
		{"physical_devices:2:repeat", []int{12, 12, 12}, 12, 11},
		{"physical_devices:3:empty", []int{12, 12, 0}, 10, 10},
		{"physical_devices:2x*:half", []int{12, 6, 6}, 6, 6},
	}
	for _, tt := range tests {
		v := start(t, bySeed(1)).logIn()
		fault, err := sandbox.ParseFault(tt.fault)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.server.SetFaults(fault); err != nil {
			t.Fatal(err)
		}
		var totals []int
		var rows []json.RawMessage
		q := l.query("", "")
		q.Set("page_size", "5")
		for n := range 3 {
			q.Set("offset_value", strconv.Itoa(5*n))
			p := v.listPage(l.path, q)
			total, err := strconv.Atoi(string(p.Total))
			if err != nil {
				t.Fatal(err)
			}
			totals, rows = append(totals, total), append(rows, p.List...)
		}
		ids := map[string]bool{}
		for _, id := range column(t, rows, "device_id") {
			ids[id] = true
		}
		if !slices.Equal(totals, tt.totals) || len(rows) != tt.rows || len(ids) != tt.ids {
			t.Errorf("%s: got totals %v, %d rows, %d ids; want %v, %d, %d", tt.fault, totals, len(rows), len(ids), tt.totals, tt.rows, tt.ids)
		}
	}
}

func TestEveryListTakesFaults(t *testing.T) {
	t.Parallel()
	v := start(t, bySeed(1)).logIn()
	for _, l := range esmLists {
		if err := v.server.SetFaults(sandbox.Fault{Endpoint: sandbox.Endpoint(l.stream), Kind: sandbox.FaultStatus, Status: 503}); err != nil {
			t.Fatal(err)
		}
		q := l.query("2024-03-30", "2024-03-31")
		if l.by != "" {
			q.Set(l.by, "x")
		}
		path := strings.ReplaceAll(l.path, "{type}", "ECS") + "?" + q.Encode()
		v.want(http.StatusServiceUnavailable, "GET", path, "", nil)
		v.want(http.StatusOK, "GET", path, "", nil)
		if got := v.server.Stats().Calls[sandbox.Endpoint(l.stream)]; got != 2 {
			t.Errorf("%s: got %d calls counted, want 2", l.stream, got)
		}
	}
}

func TestInnerTexts(t *testing.T) {
	t.Parallel()
	v := start(t, bySeed(1)).logIn()
	details := v.readList(listOf("host_details"), "2024-03-30", "2024-03-31", "1000")
	for _, key := range []string{"CPU", "MEMORY", "DISK"} {
		for _, text := range column(t, details, key) {
			var inner []map[string]string
			if err := json.Unmarshal([]byte(text), &inner); err != nil || len(inner) == 0 {
				t.Errorf("%s: got %q (%v), want JSON in a text", key, text, err)
			}
		}
	}
	placed := 0
	for _, text := range column(t, v.readList(listOf("host_vms"), "", "", "1000"), "vm_list") {
		if !strings.HasPrefix(text, "[") || strings.Contains(text, "&quot;") {
			t.Errorf("got vm_list %q, want a list", text)
		}
		placed += strings.Count(text, "'ecs-")
	}
	machines := map[string]bool{}
	for _, id := range column(t, v.readList(listOf("vm_performance"), "2024-03-30", "2024-03-31", "1000"), "INSTANCE_ID") {
		machines[id] = true
	}
	if placed == 0 || placed != len(machines) {
		t.Errorf("got %d virtual machines on hosts, %d measured", placed, len(machines))
	}
}

func TestBigListsAreRead(t *testing.T) {
	t.Parallel()
	c := bySeed(1)
	c.Devices, c.EventsPerDay = 100, 500
	v := start(t, c).logIn()
	for stream, want := range map[string]int{
		"audit_logs": 31 * 500, "physical_devices": 100, "network_device_metrics": 30 * 8 * 24 * 31,
	} {
		truth, err := v.server.ListTruth(stream, date("2024-03-01"), date("2024-04-01"))
		if err != nil || truth.Records != int64(want) {
			t.Errorf("%s: got %d records, %v; want %d", stream, truth.Records, err, want)
		}
	}
	l := listOf("network_device_metrics")
	q := l.query("2024-03-01", "2024-04-01")
	q.Set("offset_value", fmt.Sprint(30*8*24*31-3))
	if got := len(v.listPage(l.path, q).List); got != 3 {
		t.Errorf("got %d rows on the last page, want 3", got)
	}
}
