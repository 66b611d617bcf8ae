package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SilentError says that the database takes connections or statements and does not answer: it is stopped, its disk hangs, or a proxy does.
type SilentError struct{ For time.Duration }

// Error says for how long.
func (e *SilentError) Error() string {
	return fmt.Sprintf("the database has not answered for %s; run again when it does", e.For.Round(time.Millisecond))
}

// Timeout and Temporary make it a net.Error: of another one pgx would say no more than that the connection is closed.
func (e *SilentError) Timeout() bool   { return true }
func (e *SilentError) Temporary() bool { return false }

// inTime runs what is short, and fails with a SilentError if it takes longer than the database may be silent: one whose disk hangs goes
// on answering those who only read.
func (db *DB) inTime(ctx context.Context, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, db.cfg.Patience)
	defer cancel()
	err := do(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = fmt.Errorf("%w: %w", &SilentError{db.cfg.Patience}, err)
	}
	return err
}

// bePatient makes cfg's connections give up with a SilentError where the database does not answer for so long.
func bePatient(cfg *pgx.ConnConfig, patience time.Duration) {
	another := cfg.Config.Copy()
	another.ValidateConnect = nil // a node that can't write answers, too
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &patientConn{Conn: conn, another: another, patience: patience}, nil
	}
}

// patientConn is a connection on which a statement may take any time, as long as the database answers on another one. Nothing in the
// protocol tells a long statement from a server that is stopped.
type patientConn struct {
	net.Conn
	another  *pgconn.Config
	patience time.Duration
	silent   atomic.Bool
}

// Read waits for what the database says.
func (c *patientConn) Read(b []byte) (int, error) { return c.wait(b, c.Conn.Read) }

// Write waits until the database takes b.
func (c *patientConn) Write(b []byte) (int, error) { return c.wait(b, c.Conn.Write) }

func (c *patientConn) wait(b []byte, do func([]byte) (int, error)) (int, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer time.AfterFunc(c.patience/2, func() { c.watch(ctx) }).Stop()
	n, err := do(b)
	if err != nil && c.silent.Load() {
		err = &SilentError{c.patience}
	}
	return n, err
}

// watch closes the connection once the database answers nobody.
func (c *patientConn) watch(ctx context.Context) {
	for c.answers(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(c.patience / 2):
		}
	}
	c.silent.Store(true)
	_ = c.Conn.Close() // ends the Read or Write that waits
}

// answers tells whether the database answers on another connection, be it with an error. It tries for half of the patience, and gives up
// asking when ctx ends.
func (c *patientConn) answers(ctx context.Context) bool {
	const tries = 3
	for range tries {
		try, cancel := context.WithTimeout(ctx, c.patience/2/tries)
		conn, err := pgconn.ConnectConfig(try, c.another)
		var answer *pgconn.PgError
		answered := err == nil || errors.As(err, &answer)
		if err == nil {
			_ = conn.Close(try)
		}
		if !answered {
			<-try.Done() // a refusal comes at once, and the server may be on its way up
		}
		cancel()
		if answered || ctx.Err() != nil {
			return true
		}
	}
	return false
}
