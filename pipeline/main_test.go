package pipeline_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testScope = pipeline.Scope{Site: "hcso-213", Region: "cn-north-213"}

// date reads "2024-03-01".
func date(t testing.TB, text string) pipeline.Date {
	t.Helper()
	d, err := record.ParseDate(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// beijing is the zone of the vendor's home, eight hours ahead of UTC.
var beijing = time.FixedZone("UTC+8", 8*3600)

func monthWindow(t testing.TB, scope pipeline.Scope, from string) pipeline.Window {
	t.Helper()
	first := date(t, from)
	return pipeline.Window{Scope: scope, Unit: pipeline.Month, From: first, To: first.AddMonths(1)}
}

func dayWindow(scope pipeline.Scope, day pipeline.Date) pipeline.Window {
	return pipeline.Window{Scope: scope, Unit: pipeline.Day, From: day, To: day + 1}
}
