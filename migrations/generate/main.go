// Command generate writes the migrations of streams that are read from lists: `go run ./migrations/generate NAME...`, from the root of the
// repository. The migration of a stream that has none yet gets the next number below 0100: what is built on the tables stands from there
// on. One that is released must not be written again: what changes of a stream then needs a migration by hand.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sdr-sync/sdr-sync/migrations"
	"github.com/sdr-sync/sdr-sync/schemas"
)

func main() {
	if err := generate("migrations", os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// generate writes the migrations of the streams into dir.
func generate(dir string, streams []string) error {
	if len(streams) == 0 {
		return errors.New("want the names of streams")
	}
	for _, name := range streams {
		s := schemas.ByName(name)
		if s == nil || !s.IsList() {
			return fmt.Errorf("schemas/ has no stream %q that is read from a list", name)
		}
		path, err := pathOf(dir, name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(migrations.Table(s)), 0o644); err != nil {
			return fmt.Errorf("write the migration of %s: %w", name, err)
		}
		fmt.Println(path)
	}
	return nil
}

// pathOf returns the file of the stream's migration, which need not be there yet.
func pathOf(dir, stream string) (string, error) {
	own, err := filepath.Glob(filepath.Join(dir, "[0-9][0-9][0-9][0-9]_"+stream+".sql"))
	if err != nil {
		return "", fmt.Errorf("look for the migration of %s: %w", stream, err)
	}
	if len(own) > 0 {
		return own[0], nil
	}
	tables, err := filepath.Glob(filepath.Join(dir, "00[0-9][0-9]_*.sql"))
	if err != nil || len(tables) == 0 {
		return "", errors.Join(fmt.Errorf("%s holds no migrations: run this from the root of the repository", dir), err)
	}
	newest := filepath.Base(slices.Max(tables))
	var number int
	if _, err := fmt.Sscanf(newest, "%04d_", &number); err != nil {
		return "", fmt.Errorf("read the number of %s: %w", newest, err)
	}
	if number == 99 {
		return "", fmt.Errorf("find a number for the migration of %s: all below 0100 are taken", stream)
	}
	return filepath.Join(dir, fmt.Sprintf("%04d_%s.sql", number+1, stream)), nil
}
