package schemas_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/schemas"
)

const (
	esmPrefix = "/rest/dataapi/homs/open-api"
	both      = "2025-03 2025-10"
	zhOnly    = "2025-03"
)

// endpoints are the read calls of the vendor's documents, with what the documents say of them.
var endpoints = map[string]struct {
	call, generations string
	shape             schemas.Shape
	window            string
	pageSize          int // the most that the document allows, or its default where it allows any
	perMinute         int // 0: thousands a second
}{
	"subscriptions":             {"GET /v1.0/{domain_id}/common/order-mgr/resources/detail", "", schemas.History, "", 500, 480},
	"service_resources":         {"GET /v2/products/service-resources", "", schemas.Snapshot, "", 100, 240},
	"service_types":             {"GET /v2/products/service-types", "", schemas.Snapshot, "", 100, 240},
	"resource_types":            {"GET /v2/products/resource-types", "", schemas.Snapshot, "", 100, 240},
	"usage_types":               {"GET /v2/products/usage-types", "", schemas.Snapshot, "", 100, 240},
	"measure_units":             {"GET /v2/bases/measurements", "", schemas.Snapshot, "", 0, 240},
	"bms_servers":               {"GET /v1/{project_id}/baremetalservers/{server_id}", "", schemas.Snapshot, "", 0, 600},
	"service_health":            {"POST /rest/dlvapp-engine/v1/screens/data/{share_id}", zhOnly, schemas.Snapshot, "", 0, 60},
	"physical_capacity":         {"GET " + esmPrefix + "/v1/host-physical/capacity", both, schemas.Events, "month", 1000, 60},
	"cloud_service_capacity":    {"GET " + esmPrefix + "/v1/CloudService/capacity", both, schemas.Events, "month", 1000, 60},
	"audit_logs":                {"GET " + esmPrefix + "/v1/cloudAuditlog", both, schemas.Events, "month", 1000, 60},
	"physical_devices":          {"GET " + esmPrefix + "/v1/DeviceAsset/info", both, schemas.Snapshot, "", 1000, 60},
	"cloud_service_alarms":      {"GET " + esmPrefix + "/v1/CloudServiceAlarm/info", both, schemas.Events, "month", 1000, 60},
	"hardware_alarms":           {"GET " + esmPrefix + "/v1/DeviceAlarm/info", both, schemas.Events, "month", 1000, 60},
	"host_metrics":              {"GET " + esmPrefix + "/v1/host/metricdata", both, schemas.Events, "day", 1000, 0},
	"server_performance":        {"GET " + esmPrefix + "/v1/host/performancedata", zhOnly, schemas.Events, "day", 1000, 0},
	"tenant_resources":          {"GET " + esmPrefix + "/v1/TanentCloudResource/InstanceData/{resource_type}", zhOnly, schemas.Snapshot, "", 0, 0},
	"elbv3":                     {"GET " + esmPrefix + "/v1/network/capacity/elbv3", zhOnly, schemas.Snapshot, "", 1000, 0},
	"external_tenant_resources": {"GET " + esmPrefix + "/v2/cloudresource/instancedata/{resource_type}", both, schemas.Events, "day", 1000, 0},
	"network_device_metrics":    {"GET " + esmPrefix + "/v1/network-device/metric-data", zhOnly, schemas.Events, "day", 500, 0},
	"host_details":              {"GET " + esmPrefix + "/v1/host/detail", zhOnly, schemas.Snapshot, "", 500, 0},
	"vm_performance":            {"GET " + esmPrefix + "/v1/ecs/performance", zhOnly, schemas.Events, "day", 500, 0},
	"host_vms":                  {"GET " + esmPrefix + "/v1/host/vms", zhOnly, schemas.Snapshot, "", 500, 0},
}

// TestEndpoints finds a stream for every read call of the documents, asked for as they say.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	for name, want := range endpoints {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := schemas.ByName(name)
			if s == nil {
				t.Fatal("there is no such stream")
			}
			window := ""
			if s.List.Time != nil {
				window = s.List.Time.Window
			}
			if got := s.List.Method + " " + s.List.Path; got != want.call {
				t.Errorf("it calls %s, want %s", got, want.call)
			}
			if got := strings.Join(s.List.Generations, " "); got != want.generations {
				t.Errorf("it is in the documents %q, want %q", got, want.generations)
			}
			if s.Shape != want.shape || window != want.window {
				t.Errorf("it is %s by %q, want %s by %q", s.Shape, window, want.shape, want.window)
			}
			if s.List.Paging.Size != want.pageSize {
				t.Errorf("it asks for pages of %d, want %d", s.List.Paging.Size, want.pageSize)
			}
			if s.List.Rate.PerMinute != want.perMinute {
				t.Errorf("it may call %d times a minute, want %d", s.List.Rate.PerMinute, want.perMinute)
			}
		})
	}
	for _, s := range schemas.All() {
		if _, ok := endpoints[s.Name]; s.IsList() && !ok {
			t.Errorf("stream %s is no call of the documents", s.Name)
		}
	}
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// TestDeclarations checks of every list what Parse can't know to be wrong.
func TestDeclarations(t *testing.T) {
	t.Parallel()
	tables := map[string]string{}
	rates := map[string]int{}
	for _, s := range schemas.All() {
		if other := tables[s.Table]; other != "" {
			t.Errorf("%s and %s share the table %s", s.Name, other, s.Table)
		}
		tables[s.Table] = s.Name
		if !s.IsList() {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			if s.Title == "" || s.Document == "" || s.Version != 1 {
				t.Errorf("title %q, document %q, version %d: want all of them, and 1", s.Title, s.Document, s.Version)
			}
			checkFields(t, s)
			for _, l := range append([]schemas.List{*s.List}, s.List.Variants...) {
				checkPlaceholders(t, &l)
				if l.Items == "" && l.Paging.Style != "none" {
					t.Error("an answer that is one record comes in pages")
				}
				if known, ok := rates[l.Rate.Class]; ok && known != l.Rate.PerMinute {
					t.Errorf("rate class %s has %d calls a minute here and %d elsewhere", l.Rate.Class, l.Rate.PerMinute, known)
				}
				rates[l.Rate.Class] = l.Rate.PerMinute
			}
		})
	}
}

// checkFields: every field names its source and is meant by keys that mean no other; only keys and the time are required; unknown keys
// have a place.
func checkFields(t *testing.T, s *schemas.Stream) {
	t.Helper()
	meant := map[string]string{}
	for _, f := range s.Fields {
		if f.Source == "" {
			t.Errorf("field %s names no source", f.Name)
		}
		if needed := f.Name == s.TimeField || slices.Contains(s.Key, f.Name) && !f.Asked; f.Required != needed {
			t.Errorf("field %s: required is %t, want %t", f.Name, f.Required, needed)
		}
		for _, key := range append([]string{f.Name}, f.Aliases...) {
			if other := meant[normal(key)]; other != "" {
				t.Errorf("the key %s means both %s and %s", key, other, f.Name)
			}
			meant[normal(key)] = f.Name
		}
	}
	last := s.Fields[len(s.Fields)-1]
	if want := map[bool]string{false: "extra", true: "body"}[s.Whole()]; last.Name != want || last.Type != schemas.JSON {
		t.Errorf("the last field is %s (%s), want %s (json)", last.Name, last.Type, want)
	}
}

// checkPlaceholders: what stands for a value has one, and every value that the list is asked by is asked.
func checkPlaceholders(t *testing.T, l *schemas.List) {
	t.Helper()
	known := map[string]bool{"{domain_id}": true, "{project_id}": true}
	for _, e := range l.Each {
		known["{"+e.Name+"}"] = true
	}
	text := l.Path
	for _, m := range []map[string]string{l.Params, l.Headers} {
		for _, value := range m {
			text += " " + value
		}
	}
	used := placeholder.FindAllString(text, -1)
	for _, p := range used {
		if !known[p] {
			t.Errorf("nothing says what %s stands for", p)
		}
	}
	for _, e := range l.Each {
		if !slices.Contains(used, "{"+e.Name+"}") {
			t.Errorf("the list is read for each %s and never asked for it", e.Name)
		}
		for _, c := range e.From {
			checkColumn(t, c)
		}
	}
}

// views are what lists take values from besides the streams' tables, and the streams whose columns they show.
var views = map[string]string{"billing.usage_daily": "sdr", "billing.subscription_current": "subscriptions"}

// checkColumn: the values that a list is asked by stand in columns that exist.
func checkColumn(t *testing.T, c schemas.Column) {
	t.Helper()
	i := slices.IndexFunc(schemas.All(), func(s *schemas.Stream) bool { return s.Table == c.Table || s.Name == views[c.Table] })
	if i < 0 {
		t.Errorf("no stream has the table %s", c.Table)
		return
	}
	columns := []string{c.Column}
	for column := range c.Where {
		columns = append(columns, column)
	}
	for _, column := range columns {
		if schemas.All()[i].Index(column) < 0 {
			t.Errorf("%s has no column %s", c.Table, column)
		}
	}
}

// normal is how a key is compared: in lower case, without '_', '-' and spaces.
func normal(key string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(key))
}

// field returns the field of s that key means, -1 if there is none.
func field(s *schemas.Stream, key string) int {
	return slices.IndexFunc(s.Fields, func(f schemas.Field) bool {
		same := func(name string) bool { return normal(name) == normal(key) }
		return !f.Asked && f.Name != "extra" && (same(f.Name) || slices.ContainsFunc(f.Aliases, same))
	})
}

// sample returns the records of a file in testdata, by key.
func sample(t *testing.T, s *schemas.Stream, path string) []map[string]json.RawMessage {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	items := answer[s.List.Items]
	if _, ok := answer[s.List.Total]; s.List.Total != "" && !ok {
		t.Errorf("the answer has no %s", s.List.Total)
	}
	if strings.HasPrefix(string(items), "{") {
		items = slices.Concat([]byte("["), items, []byte("]"))
	}
	var records []map[string]json.RawMessage
	if err := json.Unmarshal(items, &records); err != nil {
		t.Fatalf("read %s of the answer: %v", s.List.Items, err)
	}
	for _, record := range records {
		for _, name := range s.List.Flatten {
			var inner map[string]json.RawMessage
			if err := json.Unmarshal(record[name], &inner); err != nil {
				t.Fatalf("read %s of a record: %v", name, err)
			}
			delete(record, name)
			for key, value := range inner {
				record[key] = value
			}
		}
	}
	if len(records) == 0 {
		t.Fatal("the answer has no records")
	}
	return records
}

// unnamed are keys of samples that are left to extra on purpose: reserved ones that say nothing.
var unnamed = map[string][]string{"bms_servers": {"accessIPv4", "progress"}}

// TestSamples finds a field for every key of the documents' samples, and every required field in them.
func TestSamples(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	sampled := map[string]bool{}
	for _, path := range paths {
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		s := schemas.ByName(name)
		if s == nil {
			continue // not of a list
		}
		sampled[name] = true
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			for i, record := range sample(t, s, path) {
				found := map[int]bool{}
				for key := range record {
					f := field(s, key)
					if f < 0 && !slices.Contains(unnamed[name], key) {
						t.Errorf("record %d: no field is meant by %q", i, key)
					}
					found[f] = true
				}
				for f := range s.Fields {
					if s.Fields[f].Required && !found[f] {
						t.Errorf("record %d has no %s", i, s.Fields[f].Name)
					}
				}
			}
		})
	}
	for _, s := range schemas.All() {
		if s.IsList() && !s.Whole() && !sampled[s.Name] {
			t.Errorf("testdata has no sample of %s", s.Name)
		}
	}
}

// TestVariantsFillTheSameFields: subscriptions lose no column when bss.api changes from v1 to v2.
func TestVariantsFillTheSameFields(t *testing.T) {
	t.Parallel()
	s := schemas.ByName("subscriptions")
	filled := func(api string) (names []string) {
		for _, record := range sample(t, s, "../testdata/subscriptions."+api+".json") {
			for key := range record {
				names = append(names, s.Fields[field(s, key)].Name)
			}
		}
		return names
	}
	v2 := filled("v2")
	for _, name := range filled("v1") {
		if !slices.Contains(v2, name) {
			t.Errorf("v1 fills %s and v2 does not", name)
		}
	}
	if l := s.List.Variant("v2"); l.Method != "POST" || l.Path != "/v2/orders/suscriptions/resources/query" || l.Paging.Style != "row" {
		t.Errorf("v2 calls %s %s by %s", l.Method, l.Path, l.Paging.Style)
	}
	if l := s.List.Variant("v1"); l.Paging.Style != "page" || l.Paging.Start != "page_no" {
		t.Errorf("v1 pages by %s from %s, want page numbers", l.Paging.Style, l.Paging.Start)
	}
}
