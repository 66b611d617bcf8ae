package record_test

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// undecodable are the samples whose required time is a description: the reason that testdata/README.md names.
var undecodable = map[string]string{
	"cloud_service_alarms.en.json": "bad_time", "cloud_service_alarms.zh.json": "bad_time",
	"hardware_alarms.en.json": "bad_time", "hardware_alarms.zh.json": "bad_time",
	"cloud_service_capacity.ecs_vm.zh.json": "bad_time", "cloud_service_capacity.rds.zh.json": "bad_time",
	"cloud_service_capacity.dcc.zh.json": "bad_time", "cloud_service_capacity.deh.zh.json": "bad_time",
	"cloud_service_capacity.sfs.zh.json": "bad_time", "host_metrics.en.json": "bad_time",
	"external_tenant_resources.en.json": "bad_time",
}

// TestListSamples decodes the documents' own samples: every record becomes a row without unknown keys, or goes to the quarantine with
// the reason that is known.
func TestListSamples(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../../testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, path := range paths {
		file := filepath.Base(path)
		name, _, _ := strings.Cut(file, ".")
		s := schemas.ByName(name)
		if s == nil {
			continue // not of a list
		}
		seen++
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var answer map[string]json.RawMessage
			if err := json.Unmarshal(text, &answer); err != nil {
				t.Fatal(err)
			}
			items := answer[s.List.Items]
			if items[0] == '{' {
				items = slices.Concat([]byte("["), items, []byte("]"))
			}
			var elements []json.RawMessage
			if err := json.Unmarshal(items, &elements); err != nil {
				t.Fatal(err)
			}
			decoder := record.NewDecoder(s, record.Options{IgnoreFields: []string{"accessIPv4", "progress"}})
			asked := url.Values{}
			for _, e := range s.List.Each {
				asked.Set(e.Name, "asked")
			}
			if err := decoder.Asked(asked); err != nil {
				t.Fatal(err)
			}
			for i, element := range elements {
				row := record.NewRow(s)
				reason := ""
				if reject := decoder.Decode(element, row); reject != nil {
					reason = reject.Reason
				}
				if reason != undecodable[file] {
					t.Errorf("record %d is rejected for %q, want %q", i, reason, undecodable[file])
				}
				if extra := row.Values[s.Index("extra")]; reason == "" && extra.Valid {
					t.Errorf("record %d has unknown keys: %s", i, extra.Bytes)
				}
			}
		})
	}
	if seen < len(schemas.All())-3 { // all but the metering records and the two lists without a documented body
		t.Errorf("%d samples are of lists, too few", seen)
	}
}
