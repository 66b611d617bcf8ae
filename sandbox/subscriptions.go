package sandbox

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Subscription is one yearly/monthly resource as the vendor has it now. Its JSON has the names of the v1.0 API; what only its
// successor tells stands behind them.
type Subscription struct {
	ID                   string    `json:"id"`
	Status               int       `json:"status"` // 2 provisioned, 4 frozen, 5 expired
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
	ValidTime            time.Time `json:"valid_time"`  // UTC, whole seconds
	ExpireTime           time.Time `json:"expire_time"` // likewise
	NextOperationPolicy  int       `json:"next_operation_policy"`

	OrderID             string    `json:"order_id"`    // what both APIs filter by, and neither tells
	UpdateTime          time.Time `json:"update_time"` // UTC, whole seconds
	SpecSize            int       `json:"spec_size"`   // GB of volumes and buckets, Mbit/s of bandwidths, else 0
	EnterpriseProjectID string    `json:"enterprise_project_id"`
}

// subscriptions are the yearly/monthly resources of the tenant, in the order in which they are listed.
type subscriptions struct {
	seed    uint64
	pools   map[string][]metered // metered resources that are still to be subscribed to, by resource type
	regions []string

	mu     sync.Mutex
	rows   []Subscription
	orders int // made so far
	serial int // rows made so far
	away   *Subscription
	turns  int // further pages read, for Config.ShiftEvery
}

// metered is a resource that has metering records, too.
type metered struct {
	resource
	region string
}

// subscribed is the date from which the first subscriptions are seen: nights follow it, whatever the real today.
var subscribed = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// subscribable is a kind of resource that is sold by the month. Kinds that are metered share their services, types and specs.
type subscribable struct {
	service, resource string
	specs             []string
	name              string // begins the names of resources
	sizes             []int
}

func soldAs(kind *resourceKind, name string, sizes ...int) *subscribable {
	return &subscribable{kind.service, kind.resource, kind.specs, name, sizes}
}

var (
	soldMachine   = soldAs(&virtualMachine, "ecs")
	soldVolume    = soldAs(&volume, "volume", 40, 100, 500)
	soldAddress   = soldAs(&address, "114.115.169")
	soldBandwidth = soldAs(&bandwidth, "bandwidth", 5, 100, 300)
	soldBucket    = soldAs(&bucket, "资源包", 500, 10240)
	soldDatabase  = soldAs(&database, "rds")
	soldDisk      = &subscribable{"hws.service.type.rds", resourceTypeUnnamed, []string{"rds.volume.ultrahigh"}, "rds-volume", []int{100, 200}}
	soldMetal     = &subscribable{serviceBareMetal, resourceBareMetal, []string{"physical.s4.large.linux", "physical.kl1.3xlarge.linux"}, "bms", nil}
)

const (
	serviceBareMetal  = "hws.service.type.bms"
	resourceBareMetal = "hws.resource.type.pm"
	// resourceTypeUnnamed is subscribed to, but in none of the dictionaries.
	resourceTypeUnnamed = "hws.resource.type.rds.volume"
)

// bundle is what is ordered at once: a primary resource and those attached to it. The pairs are those of BSS "Querying Customer's
// Yearly/Monthly Resources", table 2: the volumes of a machine, the bandwidth of an EIP, the EIPs of a shared bandwidth.
type bundle struct {
	main     *subscribable
	attached []*subscribable
}

var bundles = [...]bundle{
	{soldMachine, []*subscribable{soldVolume}},
	{soldAddress, []*subscribable{soldBandwidth}},
	{soldMachine, []*subscribable{soldVolume, soldVolume}},
	{soldBucket, nil},
	{soldDatabase, []*subscribable{soldDisk}},
	{soldMachine, []*subscribable{soldVolume}},
	{soldMetal, []*subscribable{soldVolume}},
	{soldBandwidth, []*subscribable{soldAddress, soldAddress}},
	{soldVolume, nil},
	{soldMetal, nil},
}

// fill orders what stands on the first day.
func (b *subscriptions) fill(s *Server) {
	b.seed = mix(uint64(s.config.Seed) ^ 0xb55)
	b.pools = map[string][]metered{}
	for _, h := range s.holdings {
		b.regions = append(b.regions, h.scope.Region)
		for n := range min(s.config.Resources, 2*s.config.Subscriptions) {
			kind := resourceCycle[n%len(resourceCycle)]
			b.pools[kind.resource] = append(b.pools[kind.resource], metered{newResource(kind, resourceHash(h.seed, n)), h.scope.Region})
		}
	}
	for len(b.rows) < s.config.Subscriptions {
		number := b.orders
		hash := b.nextOrder()
		since := subscribed.AddDate(0, 0, -int(hash>>8%900)).Add(-time.Duration(hash>>20%86400) * time.Second)
		b.rows = append(b.rows, b.order(bundles[number%len(bundles)], hash, since)...)
	}
	b.rows = b.rows[:s.config.Subscriptions]
}

func (b *subscriptions) nextOrder() (hash uint64) {
	b.orders++
	return mix(b.seed ^ mix(uint64(b.orders)))
}

// order makes the rows of one order.
func (b *subscriptions) order(what bundle, hash uint64, since time.Time) []Subscription {
	main := b.subscribe(what.main, mix(hash), since)
	main.IsMainResource, main.MainResourceID = 1, main.ResourceID
	rows := []Subscription{main}
	for i, kind := range what.attached {
		row := b.subscribe(kind, mix(hash+uint64(i)+1), since)
		row.MainResourceID = main.ResourceID
		row.RegionCode, row.ProjectCode, row.EnterpriseProjectID = main.RegionCode, main.ProjectCode, main.EnterpriseProjectID
		row.Status, row.ExpireTime, row.NextOperationPolicy = main.Status, main.ExpireTime, main.NextOperationPolicy
		rows = append(rows, row)
	}
	for i := range rows {
		rows[i].OrderID = fmt.Sprintf("CS%s%06d", since.Format("060102150405"), b.orders)
	}
	return rows
}

// subscribe makes one row; every other one is of a resource that has metering records, as long as there are any.
func (b *subscriptions) subscribe(kind *subscribable, hash uint64, since time.Time) Subscription {
	b.serial++
	row := Subscription{
		ID:                   fmt.Sprintf("01154-%08d-0", 21800000+b.serial),
		Status:               2,
		ResourceID:           uuidText(hash, mix(hash+1)),
		RegionCode:           b.regions[hash>>8%uint64(len(b.regions))],
		CloudServiceTypeCode: kind.service,
		ResourceTypeCode:     kind.resource,
		ResourceSpecCode:     kind.specs[hash>>16%uint64(len(kind.specs))],
		ProjectCode:          tenants[hash>>24%uint64(len(tenants))].projectID,
		ProductID:            fmt.Sprintf("00301-%05d-0--0", hash>>28%100_000),
		ValidTime:            since,
		ExpireTime:           endOfMonths(since, 1+int(hash>>32%12)),
		NextOperationPolicy:  [...]int{3, 3, 3, 0, 1, 2, 4, 5}[hash>>36%8],
		UpdateTime:           since,
		EnterpriseProjectID:  [...]string{"0", "0d3f7a52-1b8c-4a8e-9c60-3f1d2c7b9a45"}[hash>>40%2],
	}
	if pool := b.pools[kind.resource]; len(pool) > 0 && hash>>44%2 == 0 {
		b.pools[kind.resource] = pool[1:]
		row.ResourceID, row.ResourceSpecCode = pool[0].id, pool[0].spec
		row.RegionCode, row.ProjectCode = pool[0].region, pool[0].tenant.projectID
	}
	row.ResourceName = fmt.Sprintf("%s-%s-%04d", kind.name, hexText(hash, 4), b.serial%10_000)
	if kind == soldAddress {
		row.ResourceName = fmt.Sprintf("%s.%d", kind.name, hash>>48%256)
	}
	if len(kind.sizes) > 0 {
		row.SpecSize = kind.sizes[hash>>50%uint64(len(kind.sizes))]
	}
	// Most are renewed in time; the others have expired of late, and one in thirty is frozen.
	for last := subscribed.AddDate(0, 0, -int(hash>>52%32)); row.ExpireTime.Before(last); {
		row.UpdateTime = row.ExpireTime
		row.ExpireTime = endOfMonths(row.ExpireTime, 1+int(hash>>32%12))
	}
	switch {
	case row.ExpireTime.Before(subscribed) && since.Before(subscribed):
		row.Status = 5
	case hash>>56%30 == 0:
		row.Status = 4
	}
	return row
}

// endOfMonths is the end of the day in China so many months after t, which is when subscriptions expire.
func endOfMonths(t time.Time, months int) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m+time.Month(months), d, 15, 59, 59, 0, time.UTC)
}

// advance lets a night pass: some rows change, two or three leave, the first one that left the night before returns as it was,
// and an order or two join at the end.
func (b *subscriptions) advance(night int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hash := mix(b.seed ^ mix(uint64(night))<<1)
	pick := func() int { hash = mix(hash); return int(hash % uint64(len(b.rows))) }
	now := subscribed.AddDate(0, 0, night).Add(2 * time.Hour)
	count := len(b.rows)

	if count > 0 {
		for range 1 + count/40 {
			row := &b.rows[pick()]
			row.Status, row.UpdateTime = map[int]int{2: 4, 4: 2, 5: 2}[row.Status], now
		}
		for range 1 + count/30 {
			row := &b.rows[pick()]
			row.ExpireTime, row.UpdateTime = endOfMonths(row.ExpireTime, 1), now
		}
		for range 1 + count/60 {
			row := &b.rows[pick()]
			row.ResourceName, row.UpdateTime = fmt.Sprintf("%s-v%d", row.ResourceName, night), now
		}
	}
	var left []Subscription
	for range min(2+int(hash>>8%2), count/4) {
		i := pick()
		left = append(left, b.rows[i])
		b.rows = slices.Delete(b.rows, i, i+1)
	}
	if b.away != nil {
		b.rows = append(b.rows, *b.away)
		b.away = nil
	}
	if len(left) > 0 {
		b.away = &left[0]
	}
	for range 1 + hash>>16%2 {
		order := b.nextOrder()
		b.rows = append(b.rows, b.order(bundles[order%uint64(len(bundles))], order, now)...)
	}
}

// shift does what a fault does to the rows while a client is paging. Unlike those of other lists, rows that leave stay away.
func (b *subscriptions) shift(kind FaultKind) {
	if len(b.rows) == 0 {
		return
	}
	join := func() Subscription { return b.order(bundle{main: soldBucket}, b.nextOrder(), subscribed)[0] }
	switch kind {
	case FaultShift:
		b.rows = slices.Delete(b.rows, 0, 1)
	case FaultSkip:
		b.rows = append(slices.Delete(b.rows, 0, 1), join())
	case FaultRepeat:
		b.rows = slices.Insert(b.rows[:len(b.rows)-1], 0, join())
	}
}

// read returns the rows that match, after whatever befalls them under this call.
func (b *subscriptions) read(c *call, further bool, every int, match func(*Subscription) bool) []Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	kind := c.fault
	if further && every > 0 && kind == "" {
		if b.turns++; b.turns%every == 0 {
			kind = [...]FaultKind{FaultShift, FaultSkip, FaultRepeat}[b.turns/every%3]
		}
	}
	b.shift(kind)
	var rows []Subscription
	for i := range b.rows {
		if match(&b.rows[i]) {
			rows = append(rows, b.rows[i])
		}
	}
	return rows
}

func (b *subscriptions) find(resourceID string) (row Subscription, found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.rows, func(row Subscription) bool { return row.ResourceID == resourceID })
	if i < 0 {
		return row, false
	}
	return b.rows[i], true
}

// Subscriptions returns the yearly/monthly resources as they stand now, in the order in which they are listed.
func (s *Server) Subscriptions() []Subscription {
	s.subscriptions.mu.Lock()
	defer s.subscriptions.mu.Unlock()
	return slices.Clone(s.subscriptions.rows)
}
