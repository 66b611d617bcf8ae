package migrations_test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/migrations"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Migrations are numbered without a gap, those of tables from 0001 on and what is built on them from 0100 on; they can be taken back, and
// say who owns what they make.
func TestFiles(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.Files, "*")
	number := 0
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
		if number++; number < 100 && strings.HasPrefix(name, "01") {
			number = 100
		}
		if want := fmt.Sprintf("%04d_", number); !strings.HasPrefix(name, want) || !strings.HasSuffix(name, ".sql") {
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

// The migration of every stream that is read from a list is what its schema says.
func TestStreamsHaveMigrations(t *testing.T) {
	t.Parallel()
	for _, s := range schemas.All() {
		if !s.IsList() {
			continue
		}
		names, err := fs.Glob(migrations.Files, "[0-9][0-9][0-9][0-9]_"+s.Name+".sql")
		if err != nil {
			t.Fatal(err)
		}
		if len(names) != 1 {
			t.Errorf("stream %s has the migrations %q, want one: go run ./migrations/generate %s", s.Name, names, s.Name)
			continue
		}
		text, err := fs.ReadFile(migrations.Files, names[0])
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != migrations.Table(s) {
			t.Errorf("%s is not what schemas/%s.yaml says: go run ./migrations/generate %s", names[0], s.Name, s.Name)
		}
	}
}
