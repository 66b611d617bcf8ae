package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The yearly/monthly resources of BSS: "Querying Customer's Yearly/Monthly Resources" (2023-12-13) and its successor, the v2 API
// of the same purpose.

// The endpoints of BSS.
const (
	EndpointResources        Endpoint = "resources"    // yearly/monthly resources, v1.0
	EndpointResourcesV2      Endpoint = "resources_v2" // the same, v2
	EndpointServiceResources Endpoint = "service_resources"
	EndpointServiceTypes     Endpoint = "service_types"
	EndpointResourceTypes    Endpoint = "resource_types"
	EndpointUsageTypes       Endpoint = "usage_types"
	EndpointMeasurements     Endpoint = "measurements"
)

func bssEndpoints() []Endpoint {
	return []Endpoint{
		EndpointResources, EndpointResourcesV2, EndpointServiceResources, EndpointServiceTypes, EndpointResourceTypes,
		EndpointUsageTypes, EndpointMeasurements,
	}
}

// bssPerSecond is how often an account may call an API of BSS.
const bssPerSecond = 10

func (s *Server) bssRoutes() []route {
	routes := []route{
		{http.MethodGet, "/v1.0/{domain_id}/common/order-mgr/resources/detail", EndpointResources, true, s.listResources},
		// The typo is the vendor's.
		{http.MethodPost, "/v2/orders/suscriptions/resources/query", EndpointResourcesV2, true, s.queryResources},
		{http.MethodGet, "/v2/products/service-resources", EndpointServiceResources, true, s.dictionary(s.listServiceResources)},
		{http.MethodGet, "/v2/products/service-types", EndpointServiceTypes, true, s.dictionary(s.listServiceTypes)},
		{http.MethodGet, "/v2/products/resource-types", EndpointResourceTypes, true, s.dictionary(s.listResourceTypes)},
		{http.MethodGet, "/v2/products/usage-types", EndpointUsageTypes, true, s.dictionary(s.listUsageTypes)},
		{http.MethodGet, "/v2/bases/measurements", EndpointMeasurements, true, s.dictionary(s.listMeasurements)},
	}
	for i, rt := range routes {
		routes[i].handle = s.ofTenant(s.throttled(rt.endpoint, bssPerSecond, time.Second, rt.handle))
	}
	return routes
}

// ofTenant lets through what comes with a good token of either scope or, signed, with a good key and the tenant it is for.
func (s *Server) ofTenant(handle func(*call) reply) func(*call) reply {
	return func(c *call) reply {
		if !signed(c) {
			if _, rep, ok := s.checkToken(c); !ok {
				return rep
			}
			return handle(c)
		}
		if rep, ok := s.checkSignature(c); !ok {
			return rep
		}
		// BSS is a global service: without this header the key's owner has no tenant.
		switch c.Header.Get("X-Domain-Id") {
		case "":
			return badToken("x-domain-id not found")
		case s.config.DomainID:
			return handle(c)
		default:
			return denied()
		}
	}
}

// throttled refuses the calls beyond limit in any period, in the words of the gateway.
func (s *Server) throttled(e Endpoint, limit int, period time.Duration, handle func(*call) reply) func(*call) reply {
	unit := map[time.Duration]string{time.Second: "1 second", time.Minute: "1 minute"}[period]
	return func(c *call) reply {
		if !s.throttles.allow(e, limit, period) {
			s.counters.refused(e)
			return refuse(http.StatusTooManyRequests, "APIG.0308",
				"The throttling threshold has been reached: policy user over ratelimit,limit:%d,time:%s", limit, unit)
		}
		return handle(c)
	}
}

// The error answers of BSS.

func denied() reply { return refuse(http.StatusForbidden, "CBC.0151", "Access denied.") }

func invalid(format string, args ...any) reply {
	return refuse(http.StatusBadRequest, "CBC.0100", "Invalid parameter. "+format, args...)
}

// query is a query string that is read strictly: what is unknown or given twice is an error, kept until the end.
type query struct {
	values url.Values
	err    error
}

func queryOf(c *call, known ...string) *query {
	values, err := url.ParseQuery(c.URL.RawQuery)
	q := &query{values, err}
	for name, given := range values {
		if !slices.Contains(known, name) {
			q.fail("%s is unknown", name)
		} else if len(given) > 1 {
			q.fail("%s is given twice", name)
		}
	}
	return q
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = fmt.Errorf(format, args...)
	}
}

// text is a parameter of at most limit characters.
func (q *query) text(name string, limit int) (value string, given bool) {
	value = q.values.Get(name)
	if len([]rune(value)) > limit {
		q.fail("%s is longer than %d characters", name, limit)
	}
	return value, q.values.Has(name)
}

// number is a parameter from low to high. Where it may be null, that is as good as absent; empty it never may be.
func (q *query) number(name string, otherwise, low, high int, nullable bool) int {
	text := q.values.Get(name)
	if !q.values.Has(name) || nullable && text == "null" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high || strings.HasPrefix(text, "+") {
		q.fail("%s must be a number from %d to %d, not %q", name, low, high, text)
		return otherwise
	}
	return n
}

// total is a number of rows as it is sent.
func (s *Server) total(n int) any {
	if s.config.StringTotals {
		return strconv.Itoa(n)
	}
	return n
}

// resourceFilter is what both APIs choose rows by. Nil chooses all.
type resourceFilter struct {
	ids      []string
	orderID  *string
	onlyMain bool
	statuses []int
	service  *string
	expires  [2]*time.Time // from and to, both inclusive
}

// match follows table 2: resources that are asked for by their ids bring the resources attached to them along unless only primary
// ones are wanted, and attached resources that are asked for by their own ids come in any case.
func (f *resourceFilter) match(row *Subscription) bool {
	byID := slices.Contains(f.ids, row.ResourceID)
	switch {
	case f.ids != nil && !byID && (f.onlyMain || !slices.Contains(f.ids, row.MainResourceID)):
		return false
	case f.onlyMain && row.IsMainResource == 0 && !byID:
		return false
	case f.orderID != nil && row.OrderID != *f.orderID:
		return false
	case f.statuses != nil && !slices.Contains(f.statuses, row.Status):
		return false
	case f.service != nil && row.CloudServiceTypeCode != *f.service:
		return false
	case f.expires[0] != nil && row.ExpireTime.Before(*f.expires[0]), f.expires[1] != nil && row.ExpireTime.After(*f.expires[1]):
		return false
	}
	return true
}

// The bounds of both APIs.
const (
	maxResourceIDs   = 50
	maxResourcePage  = 500
	maxDictionaryRow = 10_000_000
	defaultPage      = 10
)

// statusesShown are the statuses that one may ask for; closed resources are shown to nobody.
var statusesShown = [...]int{2, 4, 5}

// resourceV1 is ResourceInstance of v1.0, table 3.
type resourceV1 struct {
	ID                   string    `json:"id"`
	Status               int       `json:"status"`
	ResourceID           string    `json:"resource_id"`
	ResourceName         string    `json:"resource_name"`
	RegionCode           string    `json:"region_code"`
	CloudServiceTypeCode string    `json:"cloud_service_type_code"`
	ResourceTypeCode     string    `json:"resource_type_code"`
	ResourceSpecCode     string    `json:"resource_spec_code"`
	ProjectCode          string    `json:"project_code"`
	ProductID            string    `json:"product_id"`
	MainResourceID       string    `json:"main_resource_id"`
	IsMainResource       int       `json:"is_main_resource"`
	ValidTime            time.Time `json:"valid_time"`
	ExpireTime           time.Time `json:"expire_time"`
	NextOperationPolicy  int       `json:"next_operation_policy"`
}

// listResources is the v1.0 API. Its parameters tell apart what is absent and what is empty: an empty resource_ids or order_id
// is a filter that no row passes, any other empty parameter is an error.
func (s *Server) listResources(c *call) reply {
	if c.PathValue("domain_id") != s.config.DomainID {
		return denied()
	}
	q := queryOf(c, "resource_ids", "order_id", "only_main_resource", "status_list", "page_no", "page_size")
	var f resourceFilter
	if ids, given := q.text("resource_ids", 4096); given {
		f.ids = strings.Split(ids, ",")
		if len(f.ids) > maxResourceIDs {
			q.fail("resource_ids has more than %d ids", maxResourceIDs)
		}
	}
	if id, given := q.text("order_id", 64); given {
		f.orderID = &id
	}
	f.onlyMain = q.number("only_main_resource", 0, 0, 1, true) == 1
	if list := q.values.Get("status_list"); q.values.Has("status_list") {
		for text := range strings.SplitSeq(list, ",") {
			status, err := strconv.Atoi(text)
			if err != nil || !slices.Contains(statusesShown[:], status) {
				q.fail("status_list must be numbers of %v, separated by commas, not %q", statusesShown, list)
			}
			f.statuses = append(f.statuses, status)
		}
	}
	number := q.number("page_no", 1, 1, 1_000_000, true)
	size := q.number("page_size", defaultPage, 1, maxResourcePage, true)
	if q.err != nil {
		return invalid("%v", q.err)
	}

	rows, total := s.resourcePage(c, &f, (number-1)*size, size)
	data := make([]resourceV1, 0, len(rows))
	for _, r := range rows {
		data = append(data, resourceV1{
			r.ID, r.Status, r.ResourceID, r.ResourceName, r.RegionCode, r.CloudServiceTypeCode, r.ResourceTypeCode, r.ResourceSpecCode,
			r.ProjectCode, r.ProductID, r.MainResourceID, r.IsMainResource, r.ValidTime, r.ExpireTime, r.NextOperationPolicy,
		})
	}
	return jsonReply(http.StatusOK, struct {
		Data    []resourceV1 `json:"data"`
		Code    string       `json:"error_code"`
		Message string       `json:"error_msg"`
		Total   any          `json:"total_count"`
	}{data, "CBC.0000", "success", s.total(total)})
}

// resourcePage reads one page of the yearly/monthly resources.
func (s *Server) resourcePage(c *call, f *resourceFilter, from, size int) (page []Subscription, total int) {
	rows := s.subscriptions.read(c, from > 0, s.config.ShiftEvery, f.match)
	return cutOf(c, rows, from, size)
}

// resourceV2 is OrderInstanceV2.
type resourceV2 struct {
	ID                string             `json:"id"`
	ResourceID        string             `json:"resource_id"`
	ResourceName      string             `json:"resource_name"`
	RegionCode        string             `json:"region_code"`
	ServiceTypeCode   string             `json:"service_type_code"`
	ResourceTypeCode  string             `json:"resource_type_code"`
	ServiceTypeName   string             `json:"service_type_name"`
	ResourceTypeName  string             `json:"resource_type_name"`
	ResourceSpecCode  string             `json:"resource_spec_code"`
	ProjectID         string             `json:"project_id"`
	ProductID         string             `json:"product_id"`
	ParentResourceID  string             `json:"parent_resource_id"`
	IsMainResource    int                `json:"is_main_resource"`
	Status            int                `json:"status"`
	EffectiveTime     time.Time          `json:"effective_time"`
	ExpireTime        time.Time          `json:"expire_time"`
	ExpirePolicy      int                `json:"expire_policy"`
	ProductSpecDesc   string             `json:"product_spec_desc"`
	SpecSize          json.Number        `json:"spec_size,omitempty"`
	SpecSizeMeasureID int                `json:"spec_size_measure_id,omitempty"`
	UpdateTime        time.Time          `json:"update_time"`
	EnterpriseProject *enterpriseProject `json:"enterprise_project"`
}

type enterpriseProject struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// queryResources is the v2 API. Here what is null or empty is as good as absent, but for service_type_code.
func (s *Server) queryResources(c *call) reply {
	if c.URL.RawQuery != "" {
		return invalid("the parameters belong into the body")
	}
	f, from, size, err := s.readResourceQuery(c.body)
	if err != nil {
		return invalid("%v", err)
	}
	rows, total := s.resourcePage(c, &f, from, size)
	data, called := make([]resourceV2, 0, len(rows)), resourceTypeNames(chinese)
	for _, r := range rows {
		data = append(data, r.v2(called[r.ResourceTypeCode]))
	}
	return jsonReply(http.StatusOK, struct {
		Data  []resourceV2 `json:"data"`
		Total any          `json:"total_count"`
	}{data, s.total(total)})
}

func (s *Server) readResourceQuery(body []byte) (f resourceFilter, from, size int, err error) {
	var ids []string
	var orderID, customerID string
	var service *string
	var statuses []int
	var onlyMain int
	var expires [2]string
	size = defaultPage
	err = object(body, map[string]any{
		"resource_ids": &ids, "order_id": &orderID, "only_main_resource": &onlyMain, "status_list": &statuses, "offset": &from, "limit": &size,
		"expire_time_begin": &expires[0], "expire_time_end": &expires[1], "service_type_code": &service, "customer_id": &customerID,
	})
	switch {
	case err != nil:
		return f, 0, 0, err
	case len(ids) > maxResourceIDs:
		return f, 0, 0, fmt.Errorf("resource_ids has more than %d ids", maxResourceIDs)
	case len(statuses) > 10:
		return f, 0, 0, fmt.Errorf("status_list has more than 10 statuses")
	case onlyMain != 0 && onlyMain != 1:
		return f, 0, 0, fmt.Errorf("only_main_resource must be 0 or 1")
	case from < 0 || size < 1 || size > maxResourcePage:
		return f, 0, 0, fmt.Errorf("offset must be 0 or more, limit 1 to %d", maxResourcePage)
	case service != nil && *service == "":
		return f, 0, 0, fmt.Errorf("service_type_code must not be empty")
	case customerID != "" && customerID != s.config.DomainID:
		return f, 0, 0, fmt.Errorf("customer_id is for partners")
	}
	for _, status := range statuses {
		if !slices.Contains(statusesShown[:], status) {
			return f, 0, 0, fmt.Errorf("status_list must have numbers of %v, not %d", statusesShown, status)
		}
	}
	for i, text := range expires {
		if text == "" {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04:05Z", text)
		if err != nil {
			return f, 0, 0, fmt.Errorf("expire times must be like 2019-05-06T08:05:01Z, not %q", text)
		}
		f.expires[i] = &at
	}
	if len(ids) > 0 {
		f.ids = ids
	}
	if len(statuses) > 0 {
		f.statuses = statuses
	}
	if orderID != "" {
		f.orderID = &orderID
	}
	f.onlyMain, f.service = onlyMain == 1, service
	return f, from, size, nil
}

// v2 is the row as the successor sends it, with names in Chinese as by default.
func (r Subscription) v2(typeName string) resourceV2 {
	row := resourceV2{
		ID: r.ID, ResourceID: r.ResourceID, ResourceName: r.ResourceName, RegionCode: r.RegionCode,
		ServiceTypeCode: r.CloudServiceTypeCode, ServiceTypeName: serviceName(r.CloudServiceTypeCode, chinese),
		ResourceTypeCode: r.ResourceTypeCode, ResourceTypeName: typeName,
		ResourceSpecCode: r.ResourceSpecCode, ProjectID: r.ProjectCode, ProductID: r.ProductID, ParentResourceID: r.MainResourceID,
		IsMainResource: r.IsMainResource, Status: r.Status, EffectiveTime: r.ValidTime, ExpireTime: r.ExpireTime,
		ExpirePolicy: r.NextOperationPolicy, ProductSpecDesc: r.ResourceSpecCode, UpdateTime: r.UpdateTime,
		EnterpriseProject: &enterpriseProject{r.EnterpriseProjectID, "default"},
	}
	if r.EnterpriseProjectID != "0" {
		row.EnterpriseProject.Name = "研发"
	}
	if r.SpecSize > 0 {
		row.SpecSize, row.SpecSizeMeasureID = json.Number(strconv.Itoa(r.SpecSize)), measureGigabyte
		if r.ResourceTypeCode == bandwidth.resource {
			row.SpecSizeMeasureID = measureMegabitPerSecond
		}
	}
	return row
}
