package parquet_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// fakeStore is a PartitionStore in memory that keeps the contract: rows in order, one row reused, states as the ledger keeps them.
type fakeStore struct {
	mu     sync.Mutex
	lakeID string
	parts  []*fakePartition

	before func(call string) error // called before each call; an error makes it fail
	rowErr func(n int) error       // called before each row; an error ends the rows
}

type fakePartition struct {
	state   pipeline.PartitionState
	windows []pipeline.PublishedWindow
	rows    func(yield func(*record.Row) bool)
}

var errStore = errors.New("the store is gone")

// hook sets what is called before each call; it may be called from several goroutines.
func (s *fakeStore) hook(before func(call string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

func (s *fakeStore) step(call string) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(call)
}

func (s *fakeStore) PinLake(_ context.Context, id string) (string, error) {
	if err := s.step("pin"); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lakeID = cmp.Or(s.lakeID, id)
	return s.lakeID, nil
}

func (s *fakeStore) AnyExported(context.Context) (bool, error) {
	if err := s.step("any exported"); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.parts, func(p *fakePartition) bool { return p.state.File.SHA256 != "" }), nil
}

func (s *fakeStore) Partitions(context.Context) ([]pipeline.PartitionState, error) {
	if err := s.step("partitions"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var states []pipeline.PartitionState
	for _, p := range s.parts {
		states = append(states, p.state)
	}
	return states, nil
}

func (s *fakeStore) find(p pipeline.Partition) *fakePartition {
	i := slices.IndexFunc(s.parts, func(f *fakePartition) bool { return f.state.Partition == p })
	return s.parts[i]
}

func (s *fakeStore) ReadPartition(
	_ context.Context, p pipeline.Partition,
	read func(pipeline.PartitionState, []pipeline.PublishedWindow, iter.Seq2[*record.Row, error]) error,
) error {
	if err := s.step("read"); err != nil {
		return err
	}
	s.mu.Lock() // a partition may be read while the one before is marked
	f := s.find(p)
	state := f.state
	s.mu.Unlock()
	return read(state, f.windows, func(yield func(*record.Row, error) bool) {
		n := 0
		for row := range f.rows {
			if s.rowErr != nil {
				if err := s.rowErr(n); err != nil {
					yield(nil, err)
					return
				}
			}
			if !yield(row, nil) {
				return
			}
			n++
		}
	})
}

func (s *fakeStore) MarkExported(_ context.Context, p pipeline.Partition, seq int64, file pipeline.FileFacts) error {
	if err := s.step("mark"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.find(p)
	f.state.ExportedSeq, f.state.File = seq, file
	return nil
}

// publish replaces a partition's rows, as a publication does.
func (s *fakeStore) publish(p pipeline.Partition, rows func(yield func(*record.Row) bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.parts, func(f *fakePartition) bool { return f.state.Partition == p }) {
		s.parts = append(s.parts, &fakePartition{state: pipeline.PartitionState{Partition: p}})
		slices.SortFunc(s.parts, func(a, b *fakePartition) int {
			return cmp.Or(cmp.Compare(a.state.Site, b.state.Site), cmp.Compare(a.state.From, b.state.From))
		})
	}
	f := s.find(p)
	f.rows = rows
	f.state.DirtySeq++
	w := pipeline.Window{Scope: pipeline.Scope{Site: p.Site}, Unit: pipeline.Month, From: p.From.Month(), To: p.From.AddMonths(1)}
	if p.Unit == pipeline.Whole {
		w = pipeline.WholeWindow()
	}
	f.windows = []pipeline.PublishedWindow{{WindowID: 7, Generation: int(f.state.DirtySeq), Window: w}}
}

// keyed fills what follows from the row's values: hash, key, usage date.
func keyed(h *record.Hasher, row *record.Row) *record.Row {
	begin := row.Values[schemas.SDR().Index("begin_time")].Int
	row.Hash = h.Content(row.Values)
	row.Key = record.KeyOf(begin, row.Hash)
	row.UsageDate = record.DateOf(time.UnixMicro(begin), time.UTC)
	return row
}

// usage yields n rows of partition p as wide as real ones, the same for the same seed, in the order of the contract: hourly amounts of
// resources of several services. One row is reused for all.
func usage(p pipeline.Partition, n int, seed uint64) func(yield func(*record.Row) bool) {
	return func(yield func(*record.Row) bool) {
		s := schemas.SDR()
		h := record.NewHasher(s)
		row := record.NewRow(s)
		row.Site, row.WindowID = p.Site, 7
		rnd := rand.New(rand.NewPCG(seed, 1))
		hours := int64(p.End()-p.From) * 24
		start := p.From.Time(time.UTC).UnixMicro()
		set := func(name string, text []byte) { row.Values[s.Index(name)] = record.Value{Valid: true, Bytes: text} }
		at := func(name string, us int64) { row.Values[s.Index(name)] = record.Value{Valid: true, Int: us} }
		services := [...]string{"bms", "ebs", "ec2", "obs", "vpc"}
		factors := [...]string{"Duration", "Duration", "Duration", "size", "upflow"}
		amount, resource, csb, tag := make([]byte, 0, 64), make([]byte, 0, 64), make([]byte, 0, 200), make([]byte, 0, 64)
		var service int
		for i := 0; i < n; i++ {
			hour := int64(i) % hours
			service = i * len(services) / n
			if hour == 0 || i == 0 {
				r := int64(i) / hours
				resource = fmt.Appendf(resource[:0], "%08x-%04x-4bcd-9def-%012x", r, seed&0xffff, rnd.Uint64()&0xffffffffffff)
				csb = fmt.Appendf(csb[:0], "OP:%s:%s:cn-north-213:%016x:%016x:hws.resource.type.%s:prepaid:order:%d", resource, services[service],
					rnd.Uint64(), rnd.Uint64(), services[service], r)
				tag = tag[:0]
				if r%3 == 0 {
					tag = fmt.Appendf(tag, "department=%d;owner=team-%d", r%40, r%17)
				}
				set("record_type", []byte("20"))
				set("site_code", []byte{})
				set("region_code", []byte("cn-north-213"))
				set("az_code", fmt.Appendf(nil, "cn-north-213%c", 'a'+byte(r%3)))
				set("domain_id", []byte("5f4dcc3b5aa765d61d8327deb882cf99"))
				set("domain_name", []byte("tenant-one"))
				set("project_id", fmt.Appendf(nil, "%032x", r%50))
				set("enterprise_project_id", []byte("0"))
				set("cloud_service_type_code", []byte("hws.service.type."+services[service]))
				set("resource_type_code", []byte("hws.resource.type."+services[service]))
				set("resource_spec_code", fmt.Appendf(nil, "ks1.%s.%d.linux", services[service], r%12))
				set("resource_id", resource)
				set("accumulate_factor_name", []byte(factors[service]))
				set("extend_params", []byte{})
				set("csb_params", csb)
				set("tag", tag)
			}
			at("sdr_time", start+(hour+2)*3600e6+int64(rnd.IntN(600))*1e6)
			at("begin_time", start+hour*3600e6)
			at("end_time", start+(hour+1)*3600e6)
			amount = append(amount[:0], "3600"...)
			if service > 2 {
				amount = strconv.AppendUint(amount[:0], rnd.Uint64N(1e9), 10)
				amount = append(amount, '.')
				amount = strconv.AppendUint(amount, 1+10*rnd.Uint64N(9e5), 10)
			}
			value := s.Index("accumulate_factor_value")
			row.Values[value] = record.Value{Valid: i%1000 != 999, Bytes: amount}
			if !row.Values[value].Valid {
				row.Values[value].Bytes = nil
			}
			if !yield(keyed(h, row)) {
				return
			}
		}
	}
}

func none(func(*record.Row) bool) {}

func month(site, m string) pipeline.Partition {
	d, err := record.ParseDate(m)
	if err != nil {
		panic(err)
	}
	return pipeline.Partition{Site: site, Unit: pipeline.Month, From: d}
}
