package record_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// benchPage returns an array of 200 records as wide as the documents' sample, each its own.
func benchPage(tb testing.TB) []byte {
	tb.Helper()
	var compact bytes.Buffer
	if err := json.Compact(&compact, sampleRecord(tb)); err != nil {
		tb.Fatal(err)
	}
	var page bytes.Buffer
	page.WriteByte('[')
	for i := range 200 {
		if i > 0 {
			page.WriteByte(',')
		}
		rec := bytes.Replace(compact.Bytes(), []byte("f0ae18b6-40d2-4162"), fmt.Appendf(nil, "f0ae%04d-40d2-4162", i), 1)
		rec = bytes.Replace(rec, []byte("20240409231657"), fmt.Appendf(nil, "2024040923%02d%02d", i/10, i%60), 1)
		page.Write(bytes.Replace(rec, []byte(`"3600"`), fmt.Appendf(nil, `"%d.5"`, 1000+i), 1))
	}
	page.WriteByte(']')
	return page.Bytes()
}

func BenchmarkDecodePage(b *testing.B) {
	page := benchPage(b)
	d := record.NewDecoder(schemas.SDR(), record.Options{Site: "hcso-213", NotAfter: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)})
	row := record.NewRow(schemas.SDR())
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for element := range record.Elements(page) {
			if reject := d.Decode(element, row); reject != nil {
				b.Fatal(reject)
			}
			n++
		}
		if n != 200 {
			b.Fatalf("%d records", n)
		}
	}
}

func BenchmarkElements(b *testing.B) {
	page := benchPage(b)
	b.SetBytes(int64(len(page)))
	for b.Loop() {
		for element := range record.Elements(page) {
			_ = element
		}
	}
}

// BenchmarkHash is the share of DecodePage that two SHA-256 per record take, their bytes included.
func BenchmarkHash(b *testing.B) {
	d := record.NewDecoder(schemas.SDR(), record.Options{Site: "hcso-213"})
	row := record.NewRow(schemas.SDR())
	if reject := d.Decode(sampleRecord(b), row); reject != nil {
		b.Fatal(reject)
	}
	h := record.NewHasher(schemas.SDR())
	b.ReportAllocs()
	for b.Loop() {
		h.Content(row.Values)
		h.Natural("hcso-213", row.Values)
	}
}

func BenchmarkValidate(b *testing.B) {
	page := benchPage(b)
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		if err := record.Validate(page); err != nil {
			b.Fatal(err)
		}
	}
}
