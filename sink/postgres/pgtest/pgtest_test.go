package pgtest_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	urls := map[string]bool{}
	for range 2 {
		url := pgtest.Database(t)
		if urls[url] {
			t.Fatalf("database %s twice", url)
		}
		urls[url] = true
		conn, err := pgx.Connect(t.Context(), url) // left open: dropping the database must work all the same
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "create table t (x int)"); err != nil {
			t.Error(err)
		}
	}
}

func TestOneServer(t *testing.T) {
	t.Parallel()
	if a, b := pgtest.Server(t), pgtest.Server(t); a != b {
		t.Error("got two servers")
	}
}

// heldVariable makes TestHeld hold a server until its input ends, in a process of its own.
const heldVariable = "SDR_SYNC_TEST_HELD"

func TestHeld(t *testing.T) {
	if os.Getenv(heldVariable) == "" {
		return // not that process
	}
	fmt.Println("\nheld " + pgtest.Server(t).DataDir())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// A killed test binary's server is removed by the next one, a living one's is left alone.
func TestSweep(t *testing.T) {
	t.Parallel()
	temp, err := os.MkdirTemp("", "sdr-sync-sweep-") // t.TempDir is closed to the server's user when run as root
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temp) })
	if err := os.Chmod(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	hold := func() (cmd *exec.Cmd, input io.Closer, dir string) {
		cmd = exec.Command(os.Args[0], "-test.run=^TestHeld$")
		cmd.Env = append(os.Environ(), heldVariable+"=1", "TMPDIR="+temp)
		input, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		output, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if dir, ok := strings.CutPrefix(lines.Text(), "held "); ok {
				return cmd, input, dir
			}
		}
		t.Fatal("the child holds no server")
		return nil, nil, ""
	}
	isRunning := func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "data", "postmaster.pid"))
		return err == nil
	}
	killed, _, orphan := hold()
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()
	if !isRunning(orphan) {
		t.Fatal("the server ended with its holder")
	}
	living, input, held := hold()
	if _, err := os.Stat(orphan); err == nil {
		t.Errorf("%s is still there", orphan)
	}
	second, secondInput, _ := hold()
	if !isRunning(held) {
		t.Error("a server in use was removed")
	}
	for cmd, input := range map[*exec.Cmd]io.Closer{living: input, second: secondInput} {
		if err := input.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if rest, err := os.ReadDir(temp); err != nil || len(rest) != 0 {
		t.Errorf("left behind: %v (%v)", rest, err)
	}
}
