// Package pgtest gives tests a real PostgreSQL server: one private Postgres for each test binary, and in it a database for each
// test. It is imported from test files only.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

// binary is what the tests of this binary share. The functions of a test have no other common ground than the package.
var binary struct {
	mu        sync.Mutex
	managed   bool     // Main is there to clean up
	folder    *os.File // locked
	server    *private.Server
	err       error
	databases atomic.Int64
}

// Main runs the tests, then stops and removes the server, if a test wanted one. TestMain must call it:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// A binary that is killed leaves its server behind; the next one that starts a server removes it.
func Main(m *testing.M) int {
	binary.mu.Lock()
	binary.managed = true
	binary.mu.Unlock()
	code := m.Run()
	if err := tearDown(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	return code
}

// Server returns the binary's server, starting it the first time.
func Server(t testing.TB) *private.Server {
	t.Helper()
	binary.mu.Lock()
	defer binary.mu.Unlock()
	if !binary.managed {
		t.Fatal("pgtest: TestMain must be func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	}
	if binary.server == nil && binary.err == nil {
		binary.server, binary.err = start()
	}
	if binary.err != nil {
		t.Fatal("pgtest:", binary.err)
	}
	return binary.server
}

// Database creates an empty database for the test and returns its URL as the superuser. It is dropped when the test ends, connected
// or not.
func Database(t testing.TB) string {
	t.Helper()
	server := Server(t)
	name := fmt.Sprintf("test_%d", binary.databases.Add(1))
	if err := administer(server, "create database "+name); err != nil {
		t.Fatal("pgtest:", err)
	}
	t.Cleanup(func() {
		if err := administer(server, "drop database "+name+" with (force)"); err != nil {
			t.Error("pgtest:", err)
		}
	})
	return server.URL("postgres", name)
}

// administer runs one statement. A test's own context is done when its database is dropped.
func administer(server *private.Server, statement string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.URL("postgres", "postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

const folderPattern = "sdr-sync-pgtest-"

func start() (*private.Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := sweep(ctx); err != nil {
		return nil, err
	}
	if err := makeFolder(); err != nil {
		return nil, err
	}
	return private.Start(ctx, config(binary.folder.Name()))
}

func config(folder string) private.Config {
	return private.Config{DataDir: filepath.Join(folder, "pg"), UnsafeNoSync: true}
}

// makeFolder makes the binary's folder and locks it, which tells sweep that it is in use.
func makeFolder() error {
	for {
		name, err := os.MkdirTemp("", folderPattern)
		if err != nil {
			return err
		}
		folder, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another binary's sweep was faster
		}
		if err != nil {
			return err
		}
		if syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			_ = folder.Close() // likewise
			continue
		}
		binary.folder = folder
		return os.Chmod(name, 0o755) // run as root, the server is another user's, and must pass
	}
}

func tearDown() error {
	binary.mu.Lock()
	defer binary.mu.Unlock()
	var err error
	if binary.server != nil {
		err = binary.server.Close()
	}
	if binary.folder != nil {
		err = errors.Join(err, os.RemoveAll(binary.folder.Name()), binary.folder.Close())
	}
	return err
}

// sweep removes what killed test binaries left, their servers included.
func sweep(ctx context.Context) error {
	names, err := filepath.Glob(filepath.Join(os.TempDir(), folderPattern+"*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		folder, err := os.Open(name)
		if err != nil {
			continue // gone, or not ours
		}
		info, err := folder.Stat()
		if err == nil && isOurs(info) && syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			err = remove(ctx, name)
		}
		if err = errors.Join(err, folder.Close()); err != nil {
			return fmt.Errorf("remove the server of a killed test: %w", err)
		}
	}
	return nil
}

func isOurs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// remove stops an abandoned server, by joining it and giving it up as the last, and removes its folder.
func remove(ctx context.Context, folder string) error {
	if _, err := os.Stat(filepath.Join(folder, "pg", "data", "postmaster.pid")); err == nil {
		server, err := private.Start(ctx, config(folder))
		if err == nil {
			err = server.Close()
		}
		if err != nil {
			return err
		}
	}
	return os.RemoveAll(folder)
}
