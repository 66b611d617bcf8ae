package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

const (
	resourcesPath   = "/v1.0/" + sandbox.DefaultDomainID + "/common/order-mgr/resources/detail"
	resourcesV2Path = "/v2/orders/suscriptions/resources/query"
)

// resourcesAnswer is the v1.0 answer; the v2 answer has no error members.
type resourcesAnswer struct {
	Data    []map[string]any
	Code    *string `json:"error_code"`
	Message *string `json:"error_msg"`
	Total   int     `json:"total_count"`
}

func (a resourcesAnswer) ids() []string {
	ids := []string{}
	for _, row := range a.Data {
		ids = append(ids, row["id"].(string))
	}
	return ids
}

func (v *vendor) resources(query string) resourcesAnswer {
	v.t.Helper()
	var a resourcesAnswer
	v.want(http.StatusOK, "GET", resourcesPath+"?"+query, "", &a)
	return a
}

func idsOf(rows []sandbox.Subscription) []string {
	ids := []string{}
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	return ids
}

// only are the ids of the rows that match.
func only(rows []sandbox.Subscription, match func(sandbox.Subscription) bool) []string {
	return idsOf(slices.DeleteFunc(slices.Clone(rows), func(row sandbox.Subscription) bool { return !match(row) }))
}

func TestResourcesStrictness(t *testing.T) {
	t.Parallel()
	fifty := strings.TrimSuffix(strings.Repeat("a,", 50), ",")
	tests := []struct {
		name, query string
		want        int
	}{
		{"nothing", "", 200},
		{"a page", "page_no=2&page_size=500", 200},
		{"null is the default", "page_no=null&page_size=null&only_main_resource=null", 200},
		{"statuses", "status_list=2,4,5", 200},
		{"empty filters", "resource_ids=&order_id=", 200},
		{"fifty ids", "resource_ids=" + fifty, 200},
		{"fifty-one ids", "resource_ids=" + fifty + ",a", 400},
		{"long ids", "resource_ids=" + strings.Repeat("a", 4097), 400},
		{"long order", "order_id=" + strings.Repeat("a", 65), 400},
		{"page 0", "page_no=0", 400},
		{"empty page", "page_no=", 400},
		{"size 0", "page_size=0", 400},
		{"size 501", "page_size=501", 400},
		{"empty size", "page_size=", 400},
		{"size with sign", "page_size=%2B5", 400},
		{"empty statuses", "status_list=", 400},
		{"null statuses", "status_list=null", 400},
		{"closed", "status_list=2,3", 400},
		{"statuses with blank", "status_list=2,%204", 400},
		{"empty only main", "only_main_resource=", 400},
		{"only main 2", "only_main_resource=2", 400},
		{"unknown", "limit=10", 400},
		{"twice", "page_no=1&page_no=2", 400},
		{"bad escape", "page_no=%zz", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := start(t, sandbox.Config{}).logInToDomain()
			var refusal struct {
				Code string `json:"error_code"`
			}
			v.want(tt.want, "GET", resourcesPath+"?"+tt.query, "", &refusal)
			if want := map[int]string{200: "CBC.0000", 400: "CBC.0100"}[tt.want]; refusal.Code != want {
				t.Errorf("got code %q, want %q", refusal.Code, want)
			}
		})
	}
}

func TestResourcesAccess(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{HCSOAppcode: "x", APIGAppcode: "y"})
	v.want(401, "GET", resourcesPath, "", nil)
	v.logIn().want(200, "GET", resourcesPath, "", nil) // the AppCodes are ESM's
	v.logInToDomain().want(200, "GET", resourcesPath, "", nil)
	v.want(403, "GET", strings.Replace(resourcesPath, sandbox.DefaultDomainID, "somebody", 1), "", nil)
	v.want(405, "POST", resourcesPath, "{}", nil)

	domain := start(t, sandbox.Config{}).logInToDomain()
	domain.want(403, "POST", jobsPath, jobBody("", "", "2024-03-01", "2024-03-02"), nil)
}

func TestResourcesPaging(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Subscriptions: 23}).logInToDomain()
	truth := idsOf(v.server.Subscriptions())
	if len(truth) != 23 {
		t.Fatalf("got %d subscriptions, want 23", len(truth))
	}
	var got []string
	for number, want := range []int{10, 10, 3, 0} {
		a := v.resources(fmt.Sprintf("page_no=%d", number+1))
		if len(a.Data) != want || a.Total != 23 || a.Data == nil {
			t.Errorf("page %d: got %d rows of %d, want %d of 23", number+1, len(a.Data), a.Total, want)
		}
		got = append(got, a.ids()...)
	}
	if !slices.Equal(got, truth) {
		t.Errorf("got ids %v, want %v", got, truth)
	}
	var again []string
	for _, offset := range []int{0, 5, 20} {
		var a resourcesAnswer
		v.want(200, "POST", resourcesV2Path, fmt.Sprintf(`{"offset":%d,"limit":%d}`, offset, max(5, 15*min(offset, 1))), &a)
		if a.Total != 23 || a.Code != nil || a.Message != nil {
			t.Errorf("offset %d: got total %d, code %v, message %v; want 23 and neither", offset, a.Total, a.Code, a.Message)
		}
		again = append(again, a.ids()...)
	}
	if !slices.Equal(again, truth) {
		t.Errorf("v2: got ids %v, want %v", again, truth)
	}
}

func TestResourcesFilters(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{}).logInToDomain()
	all := v.server.Subscriptions()
	main, attached := all[0], all[1]
	if main.IsMainResource != 1 || attached.IsMainResource != 0 || attached.MainResourceID != main.ResourceID {
		t.Fatalf("got %+v and %+v first, want a primary resource and one attached to it", main, attached)
	}
	ofMain := func(r sandbox.Subscription) bool { return r.MainResourceID == main.ResourceID }
	withStatus := func(r sandbox.Subscription) bool { return r.Status == 4 || r.Status == 5 }
	isMain := func(r sandbox.Subscription) bool { return r.IsMainResource == 1 }
	obs := func(r sandbox.Subscription) bool { return r.CloudServiceTypeCode == "hws.service.type.obs" }
	late := func(r sandbox.Subscription) bool { return !r.ExpireTime.Before(date("2024-06-01")) }
	everything := func(sandbox.Subscription) bool { return true }
	nothing := func(sandbox.Subscription) bool { return false }
	tests := []struct {
		name, v1, v2 string // "-" for none
		match        func(sandbox.Subscription) bool
	}{
		{"everything", "", ``, everything},
		{"a resource and what is attached", "resource_ids=" + main.ResourceID, `"resource_ids":["` + main.ResourceID + `"]`, ofMain},
		{
			"a resource alone", "only_main_resource=1&resource_ids=" + main.ResourceID, `"only_main_resource":1,"resource_ids":["` + main.ResourceID + `"]`,
			func(r sandbox.Subscription) bool { return r.ID == main.ID },
		},
		{
			"an attached resource", "only_main_resource=1&resource_ids=" + attached.ResourceID,
			`"only_main_resource":1,"resource_ids":["` + attached.ResourceID + `"]`,
			func(r sandbox.Subscription) bool { return r.ID == attached.ID },
		},
		{"primary resources", "only_main_resource=1", `"only_main_resource":1`, isMain},
		{"statuses", "status_list=4,5", `"status_list":[4,5]`, withStatus},
		{"an order", "order_id=" + main.OrderID, `"order_id":"` + main.OrderID + `"`, ofMain},
		{"a service", "-", `"service_type_code":"hws.service.type.obs"`, obs},
		{"expiry", "-", `"expire_time_begin":"2024-06-01T00:00:00Z"`, late},
		{"empty ids", "resource_ids=", "-", nothing},
		{"null order", "order_id=null", "-", nothing},
		{"empty filters", "-", `"resource_ids":[],"order_id":"","status_list":null,"only_main_resource":null`, everything},
	}
	for _, tt := range tests {
		want := only(all, tt.match)
		if len(want) == 0 && tt.name != "empty ids" && tt.name != "null order" {
			t.Errorf("%s: no subscription matches", tt.name)
		}
		v := start(t, sandbox.Config{}).logInToDomain() // each has its own ten calls a second
		if tt.v1 != "-" {
			if a := v.resources("page_size=500&" + tt.v1); !slices.Equal(a.ids(), want) || a.Total != len(want) {
				t.Errorf("%s: v1 has %v of %d, want %v", tt.name, a.ids(), a.Total, want)
			}
		}
		if tt.v2 != "-" {
			var a resourcesAnswer
			body := strings.TrimSuffix(`{"limit":500,`+tt.v2, ",") + "}"
			v.want(200, "POST", resourcesV2Path, body, &a)
			if !slices.Equal(a.ids(), want) || a.Total != len(want) {
				t.Errorf("%s: v2 has %v of %d, want %v", tt.name, a.ids(), a.Total, want)
			}
		}
	}
}

func TestResourcesV2Strictness(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, path, body string
		want             int
	}{
		{"nothing", resourcesV2Path, `{}`, 200},
		{"null", resourcesV2Path, `{"offset":null,"limit":null,"service_type_code":null}`, 200},
		{"own customer", resourcesV2Path, `{"customer_id":"` + sandbox.DefaultDomainID + `"}`, 200},
		{"no body", resourcesV2Path, ``, 400},
		{"empty service", resourcesV2Path, `{"service_type_code":""}`, 400},
		{"limit 0", resourcesV2Path, `{"limit":0}`, 400},
		{"limit 501", resourcesV2Path, `{"limit":501}`, 400},
		{"limit as text", resourcesV2Path, `{"limit":"10"}`, 400},
		{"offset below 0", resourcesV2Path, `{"offset":-1}`, 400},
		{"eleven statuses", resourcesV2Path, `{"status_list":[2,2,2,2,2,2,2,2,2,2,2]}`, 400},
		{"closed", resourcesV2Path, `{"status_list":[3]}`, 400},
		{"v1 names", resourcesV2Path, `{"page_no":1}`, 400},
		{"expiry with zone", resourcesV2Path, `{"expire_time_end":"2024-06-01T00:00:00+08:00"}`, 400},
		{"another customer", resourcesV2Path, `{"customer_id":"x"}`, 400},
		{"query", resourcesV2Path + "?limit=10", `{}`, 400},
		{"spelt right", "/v2/orders/subscriptions/resources/query", `{}`, 404},
	}
	for _, tt := range tests {
		v := start(t, sandbox.Config{}).logInToDomain()
		if a := v.do("POST", tt.path, tt.body); a.status != tt.want {
			t.Errorf("%s: got status %d, want %d; body %s", tt.name, a.status, tt.want, a.body)
		}
	}
}

// Both APIs tell the same rows under the names of their documents.
func TestResourcesFields(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{}).logInToDomain()
	v1 := v.resources("page_size=500")
	var v2 resourcesAnswer
	v.want(200, "POST", resourcesV2Path, `{"limit":500}`, &v2)
	names := map[string]string{ // of v1 in v2, where they differ
		"cloud_service_type_code": "service_type_code", "project_code": "project_id", "main_resource_id": "parent_resource_id",
		"valid_time": "effective_time", "next_operation_policy": "expire_policy",
	}
	documented := []string{
		"cloud_service_type_code", "expire_time", "id", "is_main_resource", "main_resource_id", "next_operation_policy", "product_id",
		"project_code", "region_code", "resource_id", "resource_name", "resource_spec_code", "resource_type_code", "status", "valid_time",
	}
	for i, row := range v1.Data {
		if keys := slices.Sorted(maps.Keys(row)); !slices.Equal(keys, documented) {
			t.Fatalf("row %d: got members %v, want %v", i, keys, documented)
		}
		for _, name := range documented {
			other := name
			if renamed, differs := names[name]; differs {
				other = renamed
				if _, old := v2.Data[i][name]; old {
					t.Errorf("row %d: v2 has a member %s", i, name)
				}
			}
			if row[name] != v2.Data[i][other] {
				t.Errorf("row %d: got %s %v in v1, %s %v in v2; want the same", i, name, row[name], other, v2.Data[i][other])
			}
		}
	}
	truth, err := json.Marshal(v.server.Subscriptions())
	if err != nil {
		t.Fatal(err)
	}
	if a := v.want(200, "GET", "/_sandbox/subscriptions", "", nil); !bytes.Equal(a.body, truth) {
		t.Errorf("got %d bytes of truth over HTTP, want the %d of the method", len(a.body), len(truth))
	}
	var told []map[string]any
	if err := json.Unmarshal(truth, &told); err != nil {
		t.Fatal(err)
	}
	for i, row := range v1.Data {
		for name, value := range row {
			if told[i][name] != value {
				t.Errorf("row %d: got %s %v, truth is %v", i, name, value, told[i][name])
			}
		}
	}
}

func TestStringTotals(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{StringTotals: true}).logInToDomain()
	for _, path := range []string{resourcesPath, "/v2/products/service-types"} {
		var a struct {
			Total any `json:"total_count"`
		}
		v.want(200, "GET", path, "", &a)
		if text, is := a.Total.(string); !is || text == "" {
			t.Errorf("%s: got total %v, want a text", path, a.Total)
		}
	}
}

func TestSubscriptionsFollowFromTheSeed(t *testing.T) {
	t.Parallel()
	make := func(seed int64, nights int) []sandbox.Subscription {
		v := start(t, sandbox.Config{Seed: seed})
		for range nights {
			v.server.AdvanceNight()
		}
		return v.server.Subscriptions()
	}
	if !slices.Equal(make(1, 3), make(1, 3)) {
		t.Error("the same seed gives other subscriptions")
	}
	if slices.Equal(make(1, 0), make(2, 0)) {
		t.Error("another seed gives the same subscriptions")
	}
}

func TestSubscriptionsAreMixed(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 60}).logIn()
	metered := map[string]map[string]any{}
	for _, raw := range v.records("2024-03-01", "2024-03-02") {
		var r map[string]any
		if json.Unmarshal(raw, &r) == nil {
			metered[fmt.Sprint(r["resource_id"])] = r
		}
	}
	types, statuses, policies, seen := map[string]int{}, map[int]int{}, map[int]int{}, map[string]bool{}
	joined := 0
	for _, row := range v.server.Subscriptions() {
		if seen[row.ID] || seen[row.ResourceID] {
			t.Errorf("id %s or %s stands twice", row.ID, row.ResourceID)
		}
		seen[row.ID], seen[row.ResourceID] = true, true
		types[row.ResourceTypeCode]++
		statuses[row.Status]++
		policies[row.NextOperationPolicy]++
		if (row.IsMainResource == 1) != (row.MainResourceID == row.ResourceID) || !row.ValidTime.Before(row.ExpireTime) {
			t.Errorf("got %+v", row)
		}
		if r, found := metered[row.ResourceID]; found {
			joined++
			if r["resource_type_code"] != row.ResourceTypeCode || r["resource_spec_code"] != row.ResourceSpecCode || r["cloud_service_type_code"] != row.CloudServiceTypeCode {
				t.Errorf("got %+v, metered as %v", row, r)
			}
		}
	}
	if len(types) < 8 || len(statuses) != 3 || len(policies) < 5 {
		t.Errorf("got types %v, statuses %v, policies %v; want 8, 3 and 5 at least", types, statuses, policies)
	}
	if joined < 20 || joined > 60 {
		t.Errorf("got %d of 120 that are metered, want some but not all", joined)
	}
}

// What changes of a night, all of it visible to one who compares.
func TestSubscriptionNights(t *testing.T) {
	t.Parallel()
	for _, count := range []int{120, 1000} {
		v := start(t, sandbox.Config{Subscriptions: count})
		gone := map[string]int{} // id to night
		returned := 0
		before := v.server.Subscriptions()
		for night := 1; night <= 10; night++ {
			v.server.AdvanceNight()
			after := v.server.Subscriptions()
			old, status, expiry, name, appeared := byID(before), 0, 0, 0, 0
			for _, row := range after {
				was, stood := old[row.ID]
				switch last, once := gone[row.ID]; {
				case stood:
					status += differ(row.Status, was.Status)
					expiry += differ(row.ExpireTime.Unix(), was.ExpireTime.Unix())
					name += differ(row.ResourceName, was.ResourceName)
				case once:
					returned++
					if last != night-1 {
						t.Errorf("night %d: %s returned, gone since night %d", night, row.ID, last)
					}
				default:
					appeared++
				}
			}
			now, vanished := byID(after), 0
			for id := range old {
				if _, stands := now[id]; !stands {
					gone[id] = night
					vanished++
				}
			}
			if status == 0 || expiry == 0 || name == 0 || appeared == 0 || vanished < 2 || vanished > 3 {
				t.Errorf("%d, night %d: got %d, %d, %d changes, %d new, %d gone", count, night, status, expiry, name, appeared, vanished)
			}
			before = after
		}
		if returned != 9 {
			t.Errorf("got %d returned in ten nights, want 9", returned)
		}
	}
}

func differ[T comparable](a, b T) int {
	if a == b {
		return 0
	}
	return 1
}

func byID(rows []sandbox.Subscription) map[string]sandbox.Subscription {
	m := map[string]sandbox.Subscription{}
	for _, row := range rows {
		m[row.ID] = row
	}
	return m
}

// pull reads all pages of 40 of three, with a fault on the way.
func pull(t *testing.T, v *vendor) (ids []string, totals []int) {
	t.Helper()
	for number := range 3 {
		a := v.resources(fmt.Sprintf("page_size=40&page_no=%d", number+1))
		ids, totals = append(ids, a.ids()...), append(totals, a.Total)
	}
	return ids, totals
}

func TestListsThatMove(t *testing.T) {
	t.Parallel()
	unique := func(ids []string) int {
		return len(slices.Compact(slices.Sorted(slices.Values(ids))))
	}
	tests := []struct {
		fault        string
		totals       []int
		rows, unique int
		unseen       int // of the rows that stand afterwards
	}{
		{"resources:2:shift", []int{120, 119, 119}, 119, 119, 1},
		{"resources:2:skip", []int{120, 120, 120}, 120, 120, 1},
		{"resources:2:repeat", []int{120, 120, 120}, 120, 119, 1},
		{"resources:*:empty", []int{0, 0, 0}, 0, 0, 120},
		{"resources:*:half", []int{60, 60, 60}, 60, 60, 60},
		{"resources:3:empty", []int{120, 120, 0}, 80, 80, 40},
	}
	for _, tt := range tests {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			v := start(t, sandbox.Config{}).logInToDomain()
			fault, err := sandbox.ParseFault(tt.fault)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.server.SetFaults(fault); err != nil {
				t.Fatal(err)
			}
			ids, totals := pull(t, v)
			if !slices.Equal(totals, tt.totals) || len(ids) != tt.rows || unique(ids) != tt.unique {
				t.Errorf("got totals %v, %d rows, %d ids; want %v, %d, %d", totals, len(ids), unique(ids), tt.totals, tt.rows, tt.unique)
			}
			unseen := only(v.server.Subscriptions(), func(r sandbox.Subscription) bool { return !slices.Contains(ids, r.ID) })
			if len(unseen) != tt.unseen {
				t.Errorf("got %d rows that stand unseen, want %d", len(unseen), tt.unseen)
			}
			v.server.ClearFaults()
			truth := idsOf(v.server.Subscriptions())
			if again, _ := pull(t, v); !slices.Equal(again, truth) {
				t.Errorf("read again without the fault: got %d rows, want the %d that stand", len(again), len(truth))
			}
		})
	}
}

func TestDictionariesThatMove(t *testing.T) {
	t.Parallel()
	read := func(v *vendor) (codes []string, totals []int) {
		for _, offset := range []int{0, 50, 100} {
			a := v.serviceResources("service_type_code=hws.service.type.obs&limit=50&offset=" + fmt.Sprint(offset))
			codes, totals = append(codes, a.codes()...), append(totals, a.Total)
		}
		return codes, totals
	}
	undisturbed, _ := read(start(t, sandbox.Config{}).logInToDomain())
	for fault, want := range map[string]struct{ total, unique int }{
		"service_resources:2:shift": {125, 125}, "service_resources:2:skip": {126, 125}, "service_resources:2:repeat": {126, 125},
	} {
		v := start(t, sandbox.Config{}).logInToDomain()
		f, err := sandbox.ParseFault(fault)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.server.SetFaults(f); err != nil {
			t.Fatal(err)
		}
		codes, totals := read(v)
		if n := len(slices.Compact(slices.Sorted(slices.Values(codes)))); n != want.unique || totals[0] != 126 || totals[2] != want.total {
			t.Errorf("%s: got %d codes, totals %v; want %+v", fault, n, totals, want)
		}
		if again, _ := read(v); !slices.Equal(again, undisturbed) {
			t.Errorf("%s: a second reading has %d codes, want the %d undisturbed ones", fault, len(again), len(undisturbed))
		}
	}
}

func TestFaultsOfBSS(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{}).logInToDomain()
	faults, err := sandbox.ParseFaults("resources:1:status=503;resources:2:garbage;resources_v2:1:unauthorized")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.server.SetFaults(faults...); err != nil {
		t.Fatal(err)
	}
	v.want(503, "GET", resourcesPath, "", nil)
	if a := v.want(200, "GET", resourcesPath, "", nil); json.Valid(a.body) {
		t.Errorf("got %s, want garbage", a.body)
	}
	v.want(401, "POST", resourcesV2Path, "{}", nil)
	v.want(401, "GET", resourcesPath, "", nil)
	v.logInToDomain().want(200, "GET", resourcesPath, "", nil)
}

func TestShiftEvery(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{ShiftEvery: 2}).logInToDomain()
	before := idsOf(v.server.Subscriptions())
	pull(t, v) // the third page is the second further one
	if slices.Equal(idsOf(v.server.Subscriptions()), before) {
		t.Error("got no row moved on the second further page")
	}
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{}).logInToDomain()
	statuses := map[int]int{}
	var refusal answer
	for range 30 {
		a := v.do("GET", "/v2/products/service-types", "")
		statuses[a.status]++
		if a.status == 429 {
			refusal = a
		}
	}
	v.want(200, "GET", "/v2/products/resource-types", "", nil) // each API has its own limit
	const want = `{"error_msg":"The throttling threshold has been reached: policy user over ratelimit,limit:10,time:1 second","error_code":"APIG.0308"}`
	if statuses[200] < 10 || statuses[429] == 0 || string(refusal.body) != want {
		t.Errorf("got statuses %v, refusal %s; want 10 let through at least, some refused", statuses, refusal.body)
	}
	stats := v.server.Stats()
	if n := stats.MaxPerSecond[sandbox.EndpointServiceTypes]; n <= 10 || n > 30 {
		t.Errorf("got at most %d calls in a second, want more than 10", n)
	}
	if n := stats.MaxPerSecond[sandbox.EndpointResourceTypes]; n != 1 {
		t.Errorf("got at most %d calls in a second of an API called once", n)
	}
	if n := stats.Throttled[sandbox.EndpointServiceTypes]; int(n) != statuses[429] {
		t.Errorf("got %d throttled, want %d", n, statuses[429])
	}
}

func (v *vendor) serviceResources(query string) serviceResources {
	v.t.Helper()
	var a serviceResources
	v.want(http.StatusOK, "GET", "/v2/products/service-resources?"+query, "", &a)
	return a
}

type serviceResources struct {
	Total int `json:"total_count"`
	Infos []struct {
		BasicInfo map[string]string `json:"basic_info"`
	} `json:"infos"`
}

func (a serviceResources) codes() []string {
	codes := []string{}
	for _, info := range a.Infos {
		codes = append(codes, info.BasicInfo["resource_type_code"])
	}
	return codes
}

func TestServiceResourcesStrictness(t *testing.T) {
	t.Parallel()
	const obs = "service_type_code=hws.service.type.obs"
	tests := []struct {
		name, query, language string
		want                  int
	}{
		{"as documented", obs + "&limit=5&offset=0", "zh_CN", 200},
		{"no language", obs, "", 200},
		{"English", obs, "en_US", 200},
		{"another language", obs, "de_DE", 400},
		{"no service", "limit=5", "en_US", 400},
		{"empty service", "service_type_code=", "en_US", 400},
		{"long service", obs + strings.Repeat("x", 65), "en_US", 400},
		{"no service's code", "service_type_code=obs", "en_US", 400},
		{"unknown service", "service_type_code=hws.service.type.nothing", "en_US", 200},
		{"limit 100", obs + "&limit=100", "en_US", 200},
		{"limit 101", obs + "&limit=101", "en_US", 400},
		{"limit 0", obs + "&limit=0", "en_US", 400},
		{"empty limit", obs + "&limit=", "en_US", 400},
		{"null limit", obs + "&limit=null", "en_US", 400},
		{"null offset", obs + "&offset=null", "en_US", 200},
		{"empty offset", obs + "&offset=", "en_US", 400},
		{"offset 10000000", obs + "&offset=10000000", "en_US", 200},
		{"offset 10000001", obs + "&offset=10000001", "en_US", 400},
		{"unknown parameter", obs + "&page_no=1", "en_US", 400},
	}
	for _, tt := range tests {
		v := start(t, sandbox.Config{}).logInToDomain()
		if tt.language != "" {
			v.header.Set("X-Language", tt.language)
		}
		if a := v.do("GET", "/v2/products/service-resources?"+tt.query, ""); a.status != tt.want {
			t.Errorf("%s: got status %d, want %d; body %s", tt.name, a.status, tt.want, a.body)
		}
	}
}

func TestServiceResources(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{}).logInToDomain()
	v.header.Set("X-Language", "en_US")
	a := v.serviceResources("service_type_code=hws.service.type.obs&limit=5")
	want := map[string]string{
		"resource_type_code": "hws.resource.type.general", "product_owner_service": "hws.service.type.offline",
		"name": "general specifications", "description": "general specifications",
	}
	if len(a.Infos) != 5 || a.Total != 126 || !maps.Equal(a.Infos[0].BasicInfo, want) {
		t.Errorf("got %d rows of %d, the first %v; want 5 of 126, and %v", len(a.Infos), a.Total, a.Infos[0].BasicInfo, want)
	}
	for _, info := range a.Infos {
		if info.BasicInfo["product_owner_service"] == "hws.service.type.obs" {
			t.Errorf("got %v, want another owner as in the sample", info)
		}
	}
	// The offset counts rows.
	if b := v.serviceResources("service_type_code=hws.service.type.obs&limit=4&offset=1"); !slices.Equal(b.codes(), a.codes()[1:]) {
		t.Errorf("got %v from offset 1, want %v", b.codes(), a.codes()[1:])
	}
	v.header.Set("X-Language", "zh_CN")
	b := v.serviceResources("service_type_code=hws.service.type.obs&limit=5")
	if !slices.Equal(a.codes(), b.codes()) || b.Infos[0].BasicInfo["name"] != "通用规格" {
		t.Errorf("got %v in Chinese, want the same codes", b.Infos)
	}
}

func TestDictionaries(t *testing.T) {
	t.Parallel()
	tests := []struct {
		path, list   string
		total, first int // first is how many are on the first page; total -1 for none
		members      []string
	}{
		{"/v2/products/service-types", "service_types", 12, 10, []string{"abbreviation", "service_type_code", "service_type_name"}},
		{"/v2/products/service-types?service_type_name=server", "service_types", 2, 2, nil},
		{"/v2/products/resource-types?limit=100", "resource_types", 129, 100, []string{"resource_type_code", "resource_type_desc", "resource_type_name", "service_type_code"}},
		{"/v2/products/resource-types?resource_type_code=hws.resource.type.vm", "resource_types", 1, 1, nil},
		{"/v2/products/resource-types?resource_type_code=hws.resource.type.rds.volume", "resource_types", 0, 0, nil},
		{"/v2/products/usage-types", "usage_types", 9, 9, []string{"code", "name", "resource_type_code", "service_type_code"}},
		{"/v2/products/usage-types?resource_type_code=hws.resource.type.obs", "usage_types", 4, 4, nil},
		{"/v2/bases/measurements", "measure_units", -1, 8, []string{"abbreviation", "measure_id", "measure_name", "measure_type"}},
	}
	for _, tt := range tests {
		v := start(t, sandbox.Config{}).logInToDomain()
		v.header.Set("X-Language", "en_US")
		var a map[string]json.RawMessage
		v.want(200, "GET", tt.path, "", &a)
		var rows []map[string]any
		if err := json.Unmarshal(a[tt.list], &rows); err != nil || rows == nil {
			t.Errorf("%s: got %s, want a list %s", tt.path, a[tt.list], tt.list)
			continue
		}
		total := "-1"
		if raw, has := a["total_count"]; has {
			total = string(raw)
		}
		if len(rows) != tt.first || total != fmt.Sprint(tt.total) {
			t.Errorf("%s: got %d rows of %s, want %d of %d", tt.path, len(rows), total, tt.first, tt.total)
		}
		if tt.members != nil && !slices.Equal(slices.Sorted(maps.Keys(rows[0])), tt.members) {
			t.Errorf("%s: got members of %v, want %v", tt.path, rows[0], tt.members)
		}
	}
}

func TestDeniedDictionaries(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{DenyDictionaries: true}).logInToDomain()
	for _, path := range []string{
		"/v2/products/service-types", "/v2/products/resource-types", "/v2/products/usage-types", "/v2/bases/measurements",
		"/v2/products/service-resources?" + url.Values{"service_type_code": {"hws.service.type.obs"}}.Encode(),
	} {
		var refusal struct {
			Code string `json:"error_code"`
		}
		if v.want(403, "GET", path, "", &refusal); refusal.Code != "CBC.0151" {
			t.Errorf("%s: got code %q, want CBC.0151", path, refusal.Code)
		}
	}
	v.want(200, "GET", resourcesPath, "", nil)
}
