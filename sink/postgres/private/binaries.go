package private

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
)

// minVersion is the oldest PostgreSQL major version that the migrations are written for.
const minVersion = 14

// ErrNoBinaries is wrapped by the error that says that no usable PostgreSQL server is installed, and what to do about it.
var ErrNoBinaries = errors.New("no PostgreSQL server binaries found")

// search is where server binaries are looked for.
type search struct {
	path  string   // like $PATH: looked through first, in order
	globs []string // folders where packages put them, for they leave servers out of $PATH; of each the newest version first
}

func defaultSearch() search {
	return search{path: os.Getenv("PATH"), globs: []string{
		"/usr/lib/postgresql/*/bin",                               // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                        // the PGDG packages of Red Hat and its kin
		"/usr/libexec/postgresql*",                                // Alpine
		"/opt/homebrew/opt/postgresql*/bin",                       // Homebrew on Apple silicon
		"/usr/local/opt/postgresql*/bin",                          // Homebrew on Intel
		"/Applications/Postgres.app/Contents/Versions/*[0-9]/bin", // Postgres.app
	}}
}

// Binaries returns the folder of the PostgreSQL server binaries that a new private Postgres would use, and their major version. The
// first in $PATH counts, then the newest among the folders of the usual packages. Without any of version 14 or newer the error wraps
// ErrNoBinaries and names the package to install.
func Binaries() (dir string, version int, err error) {
	return defaultSearch().find(0)
}

// find returns the first server of at least minVersion, or, where want is not 0, of exactly that version: a data folder can only be
// used by the major version that made it.
func (s search) find(want int) (dir string, version int, err error) {
	var older []string
	for _, dir := range s.candidates() {
		version, err := serverVersion(dir)
		switch {
		case err != nil:
			older = append(older, fmt.Sprintf("%s (%v)", dir, err))
		case want == 0 && version >= minVersion, version == want:
			return dir, version, nil
		default:
			older = append(older, fmt.Sprintf("%s (version %d)", dir, version))
		}
	}
	wanted := fmt.Sprintf("version %d or newer", minVersion)
	if want != 0 {
		wanted = fmt.Sprintf("version %d, which made the data folder", want)
	}
	passedOver := ""
	if len(older) > 0 {
		passedOver = fmt.Sprintf("; passed over: %q", older)
	}
	return "", 0, fmt.Errorf("%w (%s%s): install them with %s; a server of your own will do as well: set postgres.url, or use `docker compose up`",
		ErrNoBinaries, wanted, passedOver, installHint(want))
}

func installHint(version int) string {
	suffix, brew := "", "16"
	if version != 0 {
		suffix, brew = "-"+strconv.Itoa(version), strconv.Itoa(version)
	}
	if runtime.GOOS == "darwin" {
		return fmt.Sprintf("`brew install postgresql@%s`", brew)
	}
	return fmt.Sprintf("`apt-get install postgresql%s`, `dnf install postgresql-server` or `brew install postgresql@%s`", suffix, brew)
}

// candidates lists folders that hold a whole server: initdb and postgres side by side. A lone `postgres` in $PATH is often a link
// into such a folder, so links are followed.
func (s search) candidates() []string {
	var dirs []string
	add := func(dir string) {
		if !slices.Contains(dirs, dir) && isExecutable(filepath.Join(dir, "postgres")) && isExecutable(filepath.Join(dir, "initdb")) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range filepath.SplitList(s.path) {
		if !filepath.IsAbs(dir) {
			continue // the working folder is no place to take a server from
		}
		if real, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
			add(filepath.Dir(real))
		}
		add(dir)
	}
	for _, glob := range s.globs {
		found, err := filepath.Glob(glob)
		if err != nil {
			panic(err) // a malformed pattern
		}
		slices.SortStableFunc(found, func(a, b string) int { return numberIn(b) - numberIn(a) })
		for _, dir := range found {
			add(dir)
		}
	}
	return dirs
}

func isExecutable(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

var numberPattern = regexp.MustCompile(`[0-9]+`)

// numberIn returns the last number in a folder's name, its version; -1 without one.
func numberIn(dir string) int {
	numbers := numberPattern.FindAllString(dir, -1)
	if len(numbers) == 0 {
		return -1
	}
	n, err := strconv.Atoi(numbers[len(numbers)-1])
	if err != nil {
		return -1
	}
	return n
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ([0-9]+)`)

// serverVersion asks the server: "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", or "17beta1".
func serverVersion(dir string) (int, error) {
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask its version: %w", err)
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("ask its version: answered %q", out)
	}
	return strconv.Atoi(string(m[1]))
}
