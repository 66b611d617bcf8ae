package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/migrations"
	"github.com/sdr-sync/sdr-sync/schemas"
)

func TestGenerate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		files   []string
		streams []string
		want    string // the file of the last stream
		wrong   string // or what the error says
	}{
		{"the first list", []string{"0001_a.sql", "0004_lists.sql"}, []string{"subscriptions"}, "0005_subscriptions.sql", ""},
		{"two at once", []string{"0004_lists.sql"}, []string{"subscriptions", "bms_servers"}, "0006_bms_servers.sql", ""},
		{"again", []string{"0004_lists.sql", "0007_subscriptions.sql", "0008_x.sql"}, []string{"subscriptions"}, "0007_subscriptions.sql", ""},
		{"below what is built on tables", []string{"0004_lists.sql", "0100_views.sql", "0101_more.sql"}, []string{"subscriptions"}, "0005_subscriptions.sql", ""},
		{"a stream whose name ends like another's", []string{"0021_external_tenant_resources.sql"}, []string{"tenant_resources"}, "0022_tenant_resources.sql", ""},
		{"no number is left", []string{"0099_x.sql"}, []string{"subscriptions"}, "", "below 0100"},
		{"no such stream", []string{"0001_a.sql"}, []string{"none"}, "", `"none"`},
		{"no list", []string{"0001_a.sql"}, []string{"sdr"}, "", `"sdr"`},
		{"no stream", []string{"0001_a.sql"}, nil, "", "names of streams"},
		{"no migrations", nil, []string{"subscriptions"}, "", "root of the repository"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, name := range test.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := generate(dir, test.streams)
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) {
					t.Errorf("got %v, want an error that says %q", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(dir, test.want))
			if err != nil {
				t.Fatal(err)
			}
			if want := migrations.Table(schemas.ByName(test.streams[len(test.streams)-1])); string(got) != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
