package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

// The roles of the databases that the worlds have.
const (
	superuser = "postgres"
	writer    = "sdr_sync" // a login that is a writer and nothing more
)

// server is where the worlds' databases are: a private Postgres of the harness's own, or one that it was given.
type server struct {
	given   string // URL; empty for a private one
	private *private.Server
	durable bool         // it may be crashed, so what it committed must be written; worlds on it are slower
	made    atomic.Int64 // databases
}

// startServer starts a private Postgres in dir unless given names another. Only a durable one keeps what it committed when it is crashed.
func startServer(ctx context.Context, given, dir string, durable bool) (*server, error) {
	if given != "" {
		return &server{given: given}, nil
	}
	p, err := private.Start(ctx, private.Config{DataDir: dir, UnsafeNoSync: !durable})
	if err != nil {
		return nil, err
	}
	return &server{private: p, durable: durable}, nil
}

func (s *server) close() error {
	if s.private == nil {
		return nil
	}
	return s.private.Close()
}

// owned tells whether the server may be stopped.
func (s *server) owned() bool { return s.private != nil }

// url is that of a database as a role sees it. A given server has the one role that its URL names.
func (s *server) url(role, database string) string {
	if s.private != nil {
		return s.private.URL(role, database)
	}
	u, err := url.Parse(s.given)
	if err != nil {
		return s.given // pgx says what is wrong with it
	}
	u.Path = "/" + database
	return u.String()
}

// stopImmediately kills the server as a crash would: no checkpoint, every session cut.
func (s *server) stopImmediately() error {
	text, err := os.ReadFile(filepath.Join(s.private.DataDir(), "data", "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for syscall.Kill(pid, 0) == nil && time.Now().Before(deadline) {
		if zombie(pid) {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}

func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(rest, "Z")
}

// startAgain starts a stopped server from what it left.
func (s *server) startAgain(ctx context.Context) error {
	again, err := private.Start(ctx, private.Config{DataDir: s.private.DataDir(), UnsafeNoSync: !s.durable})
	if err != nil {
		return err
	}
	old := s.private
	s.private = again
	return old.Close() // gives up its hold only: the new one has its own
}

// administer runs statements, each on its own, over a connection of its own.
func administer(ctx context.Context, url string, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// template is the database that those of worlds prepared in a way are copies of.
func template(p prepared) string { return "chaos_" + string(p) }

// makeDatabase makes a database as a world begins with it.
func (s *server) makeDatabase(ctx context.Context, p prepared) (string, error) {
	name := fmt.Sprintf("chaos_%d_%d", os.Getpid(), s.made.Add(1))
	statement := "CREATE DATABASE " + name
	if p != bare {
		statement += " TEMPLATE " + template(p)
	}
	if err := administer(ctx, s.url(superuser, "postgres"), statement); err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	return name, nil
}
