package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// snapshot is one view of the database that several connections share: what is published meanwhile is in none of them.
type snapshot struct {
	url  string
	id   string
	conn *pgx.Conn
}

// Nothing is written, nothing waits for a person, and each connection keeps to one processor of the server.
const snapshotSettings = `
	SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL jit = off; SET LOCAL work_mem = '64MB';
	SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL timezone = 'UTC'`

func openSnapshot(ctx context.Context, url string) (*snapshot, error) {
	conn, err := begin(ctx, url, "")
	if err != nil {
		return nil, err
	}
	s := &snapshot{url: url, conn: conn}
	if err := conn.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&s.id); err != nil {
		s.close(ctx)
		return nil, fmt.Errorf("export a snapshot: %w", err)
	}
	return s, nil
}

// begin connects and begins a read-only transaction, in the snapshot called id if that is not empty.
func begin(ctx context.Context, url, id string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("read postgres.url: it can't be parsed")
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "sdr-sync verify"
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 15 * time.Second
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the database: %w", err)
	}
	statement := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
	if id != "" {
		statement += "SET TRANSACTION SNAPSHOT '" + strings.ReplaceAll(id, "'", "") + "';"
	}
	if _, err := conn.Exec(ctx, statement+snapshotSettings); err != nil {
		closeConn(ctx, conn)
		return nil, fmt.Errorf("begin a transaction: %w", err)
	}
	return conn, nil
}

// join returns another connection with the same view. The caller closes it.
func (s *snapshot) join(ctx context.Context) (*pgx.Conn, error) { return begin(ctx, s.url, s.id) }

func (s *snapshot) close(ctx context.Context) { closeConn(ctx, s.conn) }

// closeConn ends a connection, and with it its transaction, in which nothing was written.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
