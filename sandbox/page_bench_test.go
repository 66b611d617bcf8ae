package sandbox

import (
	"testing"
	"time"
)

func benchmarkServer(b *testing.B) *Server {
	b.Helper()
	c := DefaultConfig()
	c.Resources = ResourcesFor(1_000_000, 31)
	c.Today = func() time.Time { return time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC) }
	s, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkPage renders the pages of a month of a million records into one buffer.
func BenchmarkPage(b *testing.B) {
	s := benchmarkServer(b)
	from := dayOf(time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC))
	j := &job{id: "j", number: 1, result: s.query("", "", from, from+31)}
	var buffer []byte
	var records, n, bytes int64
	at := position{}
	b.ReportAllocs()
	for b.Loop() {
		buffer, n = j.appendPage(buffer[:0], at, 200, state{})
		records += n
		bytes += int64(len(buffer))
		next := j.step(at, 200)
		if at = next.next; next.last {
			at = position{}
		}
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(bytes)/float64(records), "bytes/record")
}

// BenchmarkTruth sums a month of a million records up.
func BenchmarkTruth(b *testing.B) {
	s := benchmarkServer(b)
	from := time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC)
	var records int64
	for b.Loop() {
		records += s.Truth("", "", from, from.AddDate(0, 1, 0)).Records
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}
