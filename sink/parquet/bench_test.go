package parquet_test

import (
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"syscall"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
)

// BenchmarkExport1M exports a million rows as wide as real ones. source-s/op is what producing them alone costs.
func BenchmarkExport1M(b *testing.B) {
	const rows = 1_000_000
	p := month("hcso-213", "2024-03")
	store := &fakeStore{}
	store.publish(p, usage(p, rows, 1))

	before := cpuTime()
	store.find(p).rows(func(*record.Row) bool { return true })
	source := cpuTime() - before

	var size int64
	stop := make(chan struct{})
	peak := make(chan uint64)
	go func() { peak <- watchHeap(stop) }()
	b.ReportAllocs()
	before = cpuTime()
	for b.Loop() {
		lake := open(b, filepath.Join(b.TempDir(), "lake"))
		store.lakeID = ""
		sum, err := lake.Export(b.Context(), store, parquet.ExportOptions{All: true})
		if err != nil {
			b.Fatal(err)
		}
		size = sum.Bytes
	}
	cpu := cpuTime() - before
	close(stop)
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(cpu.Seconds()/float64(b.N)-source.Seconds(), "export-cpu-s/op")
	b.ReportMetric(source.Seconds(), "source-cpu-s/op")
	b.ReportMetric(float64(size)/rows, "bytes/row")
	b.ReportMetric(float64(<-peak)/(1<<20), "peak-heap-MiB")
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(usage.Maxrss)/1024, "peak-RSS-MiB")
	runtime.KeepAlive(store)
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// watchHeap returns the most memory that Go objects took until stop.
func watchHeap(stop <-chan struct{}) (peak uint64) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return peak
		case <-tick.C:
			metrics.Read(sample)
			peak = max(peak, sample[0].Value.Uint64())
		}
	}
}
