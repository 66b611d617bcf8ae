package migrations_test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/migrations"
)

// Migrations are numbered without a gap, can be taken back, and say who owns what they make.
func TestFiles(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.Files, "*")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Fatal("no migrations are embedded")
	}
	for i, name := range names {
		text, err := fs.ReadFile(migrations.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%04d_", i+1); !strings.HasPrefix(name, want) || !strings.HasSuffix(name, ".sql") {
			t.Errorf("%s: want %s….sql", name, want)
		}
		up, down, found := strings.Cut(string(text), "-- +goose Down")
		if !found || !strings.HasPrefix(up, "-- +goose Up\n") || strings.TrimSpace(down) == "" {
			t.Errorf("%s does not go up and down", name)
		}
		if i > 0 && (!strings.Contains(up, "\nSET LOCAL ROLE sdr_sync_owner;\n") || !strings.Contains(up, "\nRESET ROLE;\n")) {
			t.Errorf("%s does not act as the owner", name)
		}
		if strings.Count(up, "StatementBegin") != strings.Count(up, "StatementEnd") {
			t.Errorf("%s has an open statement block", name)
		}
	}
}
