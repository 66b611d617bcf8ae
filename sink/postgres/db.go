// Package postgres keeps the ledger and publishes windows: one transaction replaces a window, its quarantine and its share of the
// daily sums, or brings a list that was read whole up to date, fenced by the scope's lease. It is the only place with SQL at run time.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/migrations"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// Config says which database, and how it is used.
type Config struct {
	URL        pipeline.Secret   // libpq URL or key=value string
	Lease      time.Duration     // how long a lease lives without a heartbeat; 60 s if zero
	Patience   time.Duration     // how long the database may leave a question without any answer; 5 leases, and 5 min at least, if zero
	Parallel   int               // windows published at once; 4 if zero
	Unit       pipeline.Unit     // length of a Parquet partition; month if empty
	Streams    []*schemas.Stream // whose tables the database has; schemas.All() if nil
	SourceZone *time.Location    // zone of usage dates; UTC if nil
	Log        *zap.Logger
	Now        pipeline.Clock
}

// DB is an open database.
type DB struct {
	pool   *pgxpool.Pool
	cfg    Config
	tables map[string]*table // by stream
}

// ErrSchemaVersion says that the database schema and this program do not fit.
var ErrSchemaVersion = errors.New("the database schema does not fit this program")

// Open connects. It does not look at the schema; CheckSchema does.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Lease == 0 {
		cfg.Lease = time.Minute
	}
	if cfg.Patience == 0 {
		cfg.Patience = max(5*cfg.Lease, 5*time.Minute)
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 4
	}
	if cfg.SourceZone == nil {
		cfg.SourceZone = time.UTC
	}
	if cfg.Unit == "" {
		cfg.Unit = pipeline.Month
	}
	if cfg.Streams == nil {
		cfg.Streams = schemas.All()
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	poolCfg, err := pgxpool.ParseConfig(cfg.URL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("read postgres.url: %w", err)
	}
	poolCfg.MaxConns = max(poolCfg.MaxConns, int32(cfg.Parallel)+8) // a publication for each window at once; heartbeats and readers never wait
	conn := poolCfg.ConnConfig
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = 15 * time.Second
	}
	// Only what a transaction pooler lets through; the rest is set inside transactions.
	for name, value := range map[string]string{"application_name": "sdr-sync", "timezone": "UTC"} {
		if conn.RuntimeParams[name] == "" {
			conn.RuntimeParams[name] = value
		}
	}
	// After a failover the pool must not keep a node that can't write.
	if conn.ValidateConnect == nil {
		conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	bePatient(conn, cfg.Patience)
	pool, err := pgxpool.NewWithConfig(ctx, poolCfg)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db := &DB{pool: pool, cfg: cfg, tables: map[string]*table{}}
	for _, s := range cfg.Streams {
		db.tables[s.Name] = newTable(s)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("reach the database: %w", err)
	}
	return db, nil
}

// URL is what the database was opened with.
func (db *DB) URL() pipeline.Secret { return db.cfg.URL }

// Close closes every connection.
func (db *DB) Close() { db.pool.Close() }

// gooseTable stands in the program's own schema, so that nothing of ours is in public.
const gooseTable = "sdr_sync.goose_db_version"

func (db *DB) provider(sqlDB *sql.DB) (*goose.Provider, error) {
	store, err := database.NewStore(database.DialectPostgres, gooseTable)
	if err != nil {
		return nil, fmt.Errorf("prepare the migrations: %w", err)
	}
	// The session lock lets two programs migrate at once: the second asks every second for five minutes, then finds nothing to do.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, fmt.Errorf("prepare the migrations: %w", err)
	}
	p, err := goose.NewProvider("", sqlDB, migrations.Files, goose.WithStore(store), goose.WithSessionLocker(locker),
		goose.WithAllowOutofOrder(true)) // the table of a new stream has a number below that of the views
	if err != nil {
		return nil, fmt.Errorf("prepare the migrations: %w", err)
	}
	return p, nil
}

// Migrate brings the schema to the newest version, or to version if it is not negative (0 takes everything back). It returns the
// names of the migrations that ran.
func (db *DB) Migrate(ctx context.Context, version int64) ([]string, error) {
	if version < 0 && db.CheckSchema(ctx) == nil {
		return nil, nil // a login that may not migrate may still ask
	}
	failpoint.Hit(failpoint.MigrateBegun)
	sqlDB := stdlib.OpenDBFromPool(db.pool)
	defer sqlDB.Close()
	// Goose's own table needs the schema before the first migration. Two programs may get here at once.
	if _, err := db.pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS sdr_sync"); err != nil && !isCode(err, "23505", "42P06") {
		return nil, fmt.Errorf("create schema sdr_sync: %w", err)
	}
	failpoint.Hit(failpoint.MigrateSchema)
	p, err := db.provider(sqlDB)
	if err != nil {
		return nil, err
	}
	var results []*goose.MigrationResult
	current, err := p.GetDBVersion(ctx)
	switch {
	case err != nil:
	case version < 0:
		results, err = p.Up(ctx)
	case version < current:
		results, err = p.DownTo(ctx, version)
	default:
		results, err = p.UpTo(ctx, version)
	}
	failpoint.Hit(failpoint.Migrated)
	var names []string
	for _, r := range results {
		names = append(names, r.Source.Path)
	}
	if err != nil {
		return names, fmt.Errorf("migrate the database: %w", hinted(err))
	}
	return names, nil
}

// CheckSchema fails with ErrSchemaVersion unless exactly this program's migrations are applied.
func (db *DB) CheckSchema(ctx context.Context) error {
	known, err := knownMigrations()
	if err != nil {
		return err
	}
	var applied []int64
	rows, err := db.pool.Query(ctx, "SELECT version_id FROM "+gooseTable+" WHERE is_applied AND version_id > 0 ORDER BY 1")
	if err == nil {
		applied, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	if isCode(err, "42P01", "3F000") { // no such table or schema: never migrated
		applied, err = nil, nil
	}
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	have, want := int64(0), slices.Max(known)
	for _, version := range applied {
		have = version
		if !slices.Contains(known, version) {
			return fmt.Errorf("%w: it has migration %d and the program knows them to %d; install the newer sdr-sync", ErrSchemaVersion, version, want)
		}
	}
	for _, version := range known {
		if !slices.Contains(applied, version) {
			return fmt.Errorf("%w: it is at version %d and lacks migration %d; run `sdr-sync migrate`", ErrSchemaVersion, have, version)
		}
	}
	return nil
}

// knownMigrations returns the numbers of this program's migrations.
func knownMigrations() ([]int64, error) {
	names, err := fs.Glob(migrations.Files, "*.sql")
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("list the migrations: %w", err)
	}
	var known []int64
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fmt.Errorf("list the migrations: %w", err)
		}
		known = append(known, version)
	}
	return known, nil
}

// isCode tells whether err is a Postgres error with one of the SQLSTATE codes.
func isCode(err error, codes ...string) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return false
	}
	for _, c := range codes {
		if pgErr.Code == c {
			return true
		}
	}
	return false
}

// hinted adds what Postgres advises to the text of err: pgconn leaves it out.
func hinted(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Hint != "" {
		return fmt.Errorf("%w: %s", err, pgErr.Hint)
	}
	return err
}

// transient tells whether the whole transaction may simply be tried again: the connection or the server went away, or Postgres asks
// for a retry (serialization, deadlock, lock or connection limits, a node that became read-only).
func transient(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "40001", "40P01", "53300", "55P03", "57P01", "57P02", "57P03", "25006":
			return true
		}
		return len(pgErr.Code) == 5 && pgErr.Code[:2] == "08"
	}
	var connectErr *pgconn.ConnectError
	return errors.As(err, &connectErr) || pgconn.SafeToRetry(err) || pgconn.Timeout(err) || isConnectionLoss(err)
}

// A client that died without closing must not hold a window's locks for hours, one that waits must not wait for ever, and sorting a
// partition for export wants memory.
const sessionSettings = `
	SET LOCAL idle_in_transaction_session_timeout = '10min'; SET LOCAL lock_timeout = '2min';
	SET LOCAL jit = off; SET LOCAL work_mem = '128MB'`

// inTx runs do in one transaction that is rolled back unless do returns nil.
func (db *DB) inTx(ctx context.Context, opts pgx.TxOptions, do func(pgx.Tx) error) error {
	tx, err := db.pool.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	defer func() {
		// A cancelled context must not keep the rollback from reaching the server.
		rollback, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tx.Rollback(rollback)
	}()
	if _, err := tx.Exec(ctx, sessionSettings); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	if err := do(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return &commitError{err}
	}
	return nil
}

// execTx runs one short statement, which may have to wait for a lock or for the disk, but not for ever. It returns how many rows that
// changed.
func (db *DB) execTx(ctx context.Context, statement string, args ...any) (rows int64, err error) {
	err = db.inTime(ctx, func(ctx context.Context) error {
		return db.inTx(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, statement, args...)
			rows = tag.RowsAffected()
			return err
		})
	})
	return rows, err
}

// commitError marks an error of COMMIT itself: the transaction may have been committed all the same.
type commitError struct{ err error }

func (e *commitError) Error() string { return fmt.Sprintf("commit: %v", e.err) }
func (e *commitError) Unwrap() error { return e.err }

// CreateWriterLogin creates a login that may do what sdr_sync_writer may, and no more, unless it is there. It has no password: peer
// authentication lets it in.
func (db *DB) CreateWriterLogin(ctx context.Context, name string) error {
	login := pgx.Identifier{name}.Sanitize()
	var exists bool
	const query = "SELECT EXISTS (SELECT FROM pg_auth_members WHERE member = to_regrole($1) AND roleid = to_regrole('sdr_sync_writer'))"
	if err := db.pool.QueryRow(ctx, query, login).Scan(&exists); err != nil || exists {
		return wrap(err, "look for the login %s", name)
	}
	if _, err := db.pool.Exec(ctx, "CREATE ROLE "+login+" LOGIN"); err != nil && !isCode(err, "42710", "23505") {
		return fmt.Errorf("create the login %s: %w", name, err)
	}
	if _, err := db.pool.Exec(ctx, "GRANT sdr_sync_writer TO "+login); err != nil {
		return fmt.Errorf("grant sdr_sync_writer to %s: %w", name, err)
	}
	return nil
}
