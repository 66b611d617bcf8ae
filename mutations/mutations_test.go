// Package mutations proves that the suite would see the bugs it is there for: each patch plants one, and names the tests that must fail then.
// `make mutations` runs them all; the tests here see to it that the patches stay good.
package mutations

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the tree that the patches are for.
const root = ".."

func patches(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*.patch")
	if err != nil || len(names) < 13 {
		t.Fatalf("%d patches are there, want 13 or more (%v)", len(names), err)
	}
	return names
}

var (
	caughtBy = regexp.MustCompile(`^Caught by: (\./[a-z/]+) ([A-Za-z0-9|]+)\nBug: [^\n]+\.\n`)
	changes  = regexp.MustCompile(`(?m)^\+\+\+ b/(\S+)`)
)

// TestPatchesApply: each patch fits the tree as it is, and names tests that exist.
func TestPatchesApply(t *testing.T) {
	t.Parallel()
	for _, name := range patches(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			caught, files := caughtBy.FindStringSubmatch(string(text)), changes.FindAllStringSubmatch(string(text), -1)
			if caught == nil || len(files) == 0 {
				t.Fatalf("want a patch behind the lines `Caught by: ./package TestA|TestB` and `Bug: what.`, got\n%.200s", text)
			}
			checkTestsExist(t, filepath.Join(root, caught[1]), strings.Split(caught[2], "|"))
			copied := t.TempDir()
			for _, file := range files {
				content, err := os.ReadFile(filepath.Join(root, file[1]))
				if err != nil {
					t.Fatal(err)
				}
				to := filepath.Join(copied, file[1])
				if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(to, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			patch, err := filepath.Abs(name)
			if err != nil {
				t.Fatal(err)
			}
			apply := exec.CommandContext(t.Context(), "git", "apply", "--check", patch)
			apply.Dir = copied
			if out, err := apply.CombinedOutput(); err != nil {
				t.Errorf("the patch no longer fits: make it anew (%v)\n%s", err, out)
			}
		})
	}
}

func checkTestsExist(t *testing.T, folder string, tests []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var defined []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			defined = append(defined, test[1])
		}
	}
	for _, test := range tests {
		if !slices.Contains(defined, test) {
			t.Errorf("%s has no test %s", folder, test)
		}
	}
}

// TestQuickOnes plants two bugs whose tests take seconds.
func TestQuickOnes(t *testing.T) {
	t.Parallel()
	run := exec.CommandContext(t.Context(), "./run", "05", "12")
	out, err := run.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "2 of 2 planted bugs were caught") {
		t.Errorf("%v\n%s", err, out)
	}
}
