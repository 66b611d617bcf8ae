package verify_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/verify"
)

// bulk is a vendor with many records in one window, made as they are asked for: hours of so many machines, as wide as real ones.
type bulk struct{ records, machines int }

func (b bulk) CreateJob(context.Context, pipeline.JobRequest) (string, error) { return "bulk", nil }

func (b bulk) Job(context.Context, string) (pipeline.JobStatus, error) {
	return pipeline.JobStatus{State: pipeline.JobSuccess, Progress: 100}, nil
}

func (b bulk) Start(string) string { return "" }

func (b bulk) Page(_ context.Context, _, marker string) (pipeline.Page, error) {
	const size = 200
	at, _ := strconv.Atoi(marker)
	body := []byte(`{"data":[`)
	start := len(body) - 1
	end := min(at+size, b.records)
	for i := at; i < end; i++ {
		if i > at {
			body = append(body, ',')
		}
		begin := march.From.Time(time.UTC).Add(time.Duration(i/b.machines) * time.Minute)
		body = fmt.Appendf(body, `{"record_type":"20","time_stamp":"20240302010000","site_code":"","region_code":"cn-north-213","az_code":"az-%d","domain_id":"0605767b5a80d5ec1f4ac00bc75ab7d0",`+
			`"project_id":"p%031d","enterprise_project_id":"0","cloud_service_type_code":"hws.service.type.ec2","resource_type_code":"hws.resource.type.vm",`+
			`"resource_spec_code":"ks1.xlarge.2.linux","resource_id":"%08x-52ee-4e3a-9c1b-%012x","begin_time":"%s","end_time":"%s","accumulate_factor_name":"Duration",`+
			`"accumulate_factor_value":"%d.25","extend_params":"","csb_params":"%d:1:%d:","tag":"","bp_info":""}`,
			i%3, i%50, i%b.machines, i%b.machines, begin.Format("20060102150405"), begin.Add(time.Minute).Format("20060102150405"), 60+i%7, i, i%11)
	}
	next := ""
	if end < b.records {
		next = strconv.Itoa(end)
	}
	body = append(body, "]}"...)
	return pipeline.Page{Asked: marker, Next: next, Body: body, Data: body[start : len(body)-1]}, nil
}

// BenchmarkMillion audits a million metering records. Run it with -bench Million -benchtime 3x.
func BenchmarkMillion(b *testing.B) {
	const records = 1_000_000
	w := newWorld(b)
	held := []pipeline.StreamScope{{Stream: "sdr", Scope: north}}
	err := w.db.WithLeases(b.Context(), held, func(ctx context.Context, tokens map[pipeline.StreamScope]int64) error {
		e := pipeline.NewEngine(bulk{records, 2000}, w.db, w.land, pipeline.EngineConfig{
			Stream: schemas.SDR(), DomainID: domain, RunID: w.run, Leases: tokens, Parallel: 1, JobDeadline: time.Hour, PollInitial: time.Millisecond,
			PollMax: time.Millisecond, SourceZone: time.UTC, FileZone: time.UTC, SpillDir: w.dir, Now: func() time.Time { return w.now }, Log: zap.NewNop(),
		})
		return e.Run(ctx, []pipeline.Planned{{Window: march}})[0].Err
	})
	if err != nil {
		b.Fatal(err)
	}
	w.export(parquet.ExportOptions{})
	for _, audit := range []struct {
		name string
		run  func(context.Context, verify.Config, verify.Only) (verify.Report, error)
	}{{"tables and files", verify.Run}, {"landing files", verify.Landing}} {
		b.Run(audit.name, func(b *testing.B) {
			for b.Loop() {
				r, err := audit.run(b.Context(), w.config(), nil)
				if err != nil || len(r.Differences) > 0 || r.Records != records {
					b.Fatalf("got %+v (%v)", r, err)
				}
			}
			b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
