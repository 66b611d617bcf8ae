package failpoint_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/failpoint"
)

// A child of the test takes its rules from the real variable, hits two points, and says how far it came.
func TestMain(m *testing.M) {
	if rules := os.Getenv(failpoint.Env); rules != "" {
		if err := failpoint.Arm(rules); err != nil {
			fmt.Println(err)
			os.Exit(2)
		}
		for range 3 {
			failpoint.Hit(failpoint.CopyMiddle)
			fmt.Println("hit")
		}
		if err := failpoint.Err(failpoint.LandingAppend); err != nil {
			fmt.Println(err, errors.Is(err, failpoint.ErrInjected))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestActions(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(t.TempDir(), "trace")
	for _, c := range []struct {
		name, rules string
		hits        int
		says        string
		signal      syscall.Signal // that it dies of
		exit        int
	}{
		{name: "kill at the first", rules: "copy.middle=kill", signal: syscall.SIGKILL},
		{name: "kill at the third", rules: "copy.middle#3=kill", hits: 2, signal: syscall.SIGKILL},
		{name: "kill at one that never comes", rules: "copy.middle#4=kill", hits: 3},
		{name: "panic", rules: "copy.middle#2=panic", hits: 1, says: "panic: failpoint copy.middle", exit: 2},
		{name: "error", rules: "landing.append=error", hits: 3, says: "landing.append: a failpoint is armed here true"},
		{name: "every time", rules: "copy.middle#*=delay:1ms;landing.append#2=error", hits: 3},
		{name: "trace", rules: "trace=" + trace, hits: 3},
		{name: "unknown point", rules: "nowhere=kill", exit: 2, says: `there is no point "nowhere"`},
		{name: "unknown action", rules: "copy.middle=explode", exit: 2, says: `action "explode"`},
		{name: "an error where none is looked at", rules: "copy.middle=error", exit: 2, says: "copy.middle can't fail"},
		{name: "no occurrence", rules: "copy.middle#0=kill", exit: 2, says: `occurrence "0"`},
		{name: "no rule", rules: "copy.middle", exit: 2, says: "want point[#occurrence]=action"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, state := child(t, c.rules)
			if got := strings.Count(out, "hit\n"); got != c.hits {
				t.Errorf("got %d hits, want %d: %s", got, c.hits, out)
			}
			if !strings.Contains(out, c.says) {
				t.Errorf("got %q, want %q in it", out, c.says)
			}
			status := state.Sys().(syscall.WaitStatus)
			if c.signal != 0 && (!status.Signaled() || status.Signal() != c.signal) || c.signal == 0 && status.ExitStatus() != c.exit {
				t.Errorf("got %v, want signal %d or exit %d", state, c.signal, c.exit)
			}
		})
	}
	t.Run("the trace", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "trace")
		child(t, "trace="+path)
		text, err := os.ReadFile(path)
		if want := "copy.middle\ncopy.middle\ncopy.middle\nlanding.append\n"; err != nil || string(text) != want {
			t.Errorf("got %q, %v, want %q", text, err, want)
		}
	})
}

// A process that stops goes on when it is told to.
func TestStop(t *testing.T) {
	t.Parallel()
	cmd := command(t, "copy.middle#2=stop")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Errorf("got %v, %v, want it stopped", status, err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func command(t *testing.T, rules string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), failpoint.Env+"="+rules)
	return cmd
}

func child(t *testing.T, rules string) (string, *os.ProcessState) {
	t.Helper()
	cmd := command(t, rules)
	out, _ := cmd.CombinedOutput() // how it ended is in its state
	return string(out), cmd.ProcessState
}

// Nothing happens while nothing is armed.
func TestUnarmed(t *testing.T) {
	t.Parallel()
	failpoint.Hit(failpoint.CopyMiddle)
	if err := failpoint.Err(failpoint.LandingAppend); err != nil {
		t.Error(err)
	}
}

func BenchmarkUnarmed(b *testing.B) {
	for b.Loop() {
		failpoint.Hit(failpoint.CopyMiddle)
	}
}

// Every point stands in the program, those that can fail where an error is looked at, and has a name of its own.
func TestEveryPointIsUsed(t *testing.T) {
	t.Parallel()
	constants := map[string]failpoint.Point{}
	file, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			constants[spec.Names[0].Name] = failpoint.Point(strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
		}
		return true
	})
	listed := map[failpoint.Point]bool{}
	for _, p := range failpoint.All() {
		if listed[p] {
			t.Errorf("%s is listed twice", p)
		}
		listed[p] = true
	}
	used := map[string]map[string]bool{}
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "failpoint" || d.Name() == "chaos" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		return collectUses(path, used)
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, point := range constants {
		how := "Hit"
		if point.CanFail() {
			how = "Err"
		}
		if !listed[point] {
			t.Errorf("%s is not in All", name)
		}
		if len(used[name]) != 1 || !used[name][how] {
			t.Errorf("%s: used by %v, want %s", name, used[name], how)
		}
	}
	if len(listed) != len(constants) {
		t.Errorf("All lists %d points, there are %d constants", len(listed), len(constants))
	}
}

// collectUses adds each failpoint.Hit(failpoint.X) and failpoint.Err(failpoint.X) of a file.
func collectUses(path string, used map[string]map[string]bool) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return err
	}
	ofPackage := func(e ast.Expr) (string, bool) {
		s, ok := e.(*ast.SelectorExpr)
		if !ok {
			return "", false
		}
		x, ok := s.X.(*ast.Ident)
		return s.Sel.Name, ok && x.Name == "failpoint"
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return true
		}
		how, ok := ofPackage(call.Fun)
		name, okArg := ofPackage(call.Args[0])
		if ok && okArg {
			if used[name] == nil {
				used[name] = map[string]bool{}
			}
			used[name][how] = true
		}
		return true
	})
	return nil
}
