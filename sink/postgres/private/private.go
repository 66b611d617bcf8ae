// Package private runs the private Postgres: a server that sdr-sync starts from the PostgreSQL binaries on this machine when no
// postgres.url is set. It makes the cluster and an empty database sdr_sync; roles and tables are the migrations' job.
package private

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// Database is the one that Start creates, empty, if it is missing. The bootstrap superuser postgres owns it.
const Database = "sdr_sync"

// Config says where the private Postgres lives.
type Config struct {
	// DataDir is the folder of the private Postgres: the cluster, its log, its socket and its locks. Empty is DefaultDataDir. It must be
	// ours alone, not an existing cluster.
	DataDir string
	// Log is told what happens to the server; nil is nobody.
	Log *zap.Logger
	// UnsafeNoSync is for tests only: nothing is synced, so that a power failure may destroy the cluster.
	UnsafeNoSync bool

	search   *search       // where tests have servers found
	lockWait time.Duration // tests are less patient
	askWait  time.Duration
}

// DefaultDataDir is /var/lib/sdr-sync/postgres for root, else sdr-sync/postgres in $XDG_DATA_HOME or ~/.local/share.
func DefaultDataDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/sdr-sync/postgres", nil
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "sdr-sync", "postgres"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("choose a data folder for the private Postgres, set postgres.data_dir instead: %w", err)
	}
	return filepath.Join(home, ".local", "share", "sdr-sync", "postgres"), nil
}

// Server is a running private Postgres, held by this process. While anybody holds it, it runs; the last who closes it stops it.
type Server struct {
	dataDir      string
	log          *zap.Logger
	search       search
	unsafeNoSync bool
	account      account
	binDir       string
	socketDir    string
	holders      *os.File // locked shared while the server is ours too
	lockWait     time.Duration
	askWait      time.Duration
}

const (
	// lockWait is how long a start may wait for another process that starts or stops the server.
	lockWait = 10 * time.Minute
	// askWait is how long a server that is ready may take for an answer.
	askWait = 60 * time.Second
	// closeWait is how long a connection may take to close.
	closeWait = 5 * time.Second
)

// Start starts the private Postgres, making it first if there is none, or joins one that runs: another process's, or one whose last
// holder was killed. Several processes may start at once. When Start returns, the server accepts connections and has the database
// sdr_sync. The server is no part of our process group: neither Ctrl-C nor our death reaches it. Where no server binaries are
// installed the error wraps ErrNoBinaries.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := prepare(cfg)
	if err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start the private Postgres: %w", err)
	}
	return s, nil
}

// prepare settles folder and user, and makes the folder.
func prepare(cfg Config) (*Server, error) {
	s := &Server{dataDir: cfg.DataDir, log: cfg.Log, search: defaultSearch(), unsafeNoSync: cfg.UnsafeNoSync}
	s.lockWait, s.askWait = cmp.Or(cfg.lockWait, lockWait), cmp.Or(cfg.askWait, askWait)
	if cfg.search != nil {
		s.search = *cfg.search
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	var err error
	if s.dataDir == "" {
		if s.dataDir, err = DefaultDataDir(); err != nil {
			return nil, err
		}
	}
	if s.dataDir, err = filepath.Abs(s.dataDir); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(s.dataDir, "PG_VERSION")); err == nil {
		return nil, fmt.Errorf("%s is a Postgres cluster already: set postgres.data_dir to a folder of its own", s.dataDir)
	}
	if s.account, err = serverAccount(s.dataDir); err != nil {
		return nil, err
	}
	return s, s.makeDataDir()
}

// makeDataDir makes the data folder: ours alone, but as root so that the server's user can pass it.
func (s *Server) makeDataDir() error {
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o711
		if err := os.MkdirAll(filepath.Dir(s.dataDir), 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.dataDir, mode); err != nil {
		return err
	}
	owner, err := ownerOf(s.dataDir)
	if err != nil {
		return err
	}
	if int(owner.Uid) != os.Geteuid() {
		return nil // root, in another user's folder
	}
	return os.Chmod(s.dataDir, mode)
}

func (s *Server) cluster() string { return filepath.Join(s.dataDir, clusterFolder) }

// start does all that must not happen twice at once under the start lock.
func (s *Server) start(ctx context.Context) (err error) {
	starting, err := s.lockStart(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, starting.Close()) }()
	// Stopping happens under the start lock as well, so nobody has this one exclusively.
	if s.holders, err = s.lock(ctx, holdersLock, syscall.LOCK_SH); err != nil {
		return err
	}
	err = s.ensureCluster(ctx)
	if err == nil {
		err = s.ensureRunning(ctx)
	}
	if err == nil {
		err = s.ensureDatabase(ctx)
	}
	if err != nil {
		return errors.Join(err, s.letGo()) // a server that nobody else holds must not stay behind
	}
	return nil
}

// lockStart waits for the start lock. Whoever has it may be stopped, or wait for a server whose recovery does not end.
func (s *Server) lockStart(ctx context.Context) (*os.File, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, s.lockWait, fmt.Errorf(
		"another process has been starting or stopping the server for %v: if the server recovers from a crash, as %s then says, run again later; "+
			"else end that process (`lslocks` names the one that holds %s) and run again", s.lockWait, filepath.Join(s.dataDir, logName), startLock))
	defer cancel()
	return s.lock(waiting, startLock, syscall.LOCK_EX)
}

// lock waits for one of the two locks. What root makes in another user's folder is given to that user, who could not open it else.
func (s *Server) lock(ctx context.Context, base string, how int) (*os.File, error) {
	f, err := lock(ctx, filepath.Join(s.dataDir, base), how)
	if err != nil {
		return nil, err
	}
	if err := s.giveToOwner(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// giveToOwner makes a file the data folder's owner's.
func (s *Server) giveToOwner(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	owner, err := ownerOf(s.dataDir)
	if err != nil {
		return err
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// ensureDatabase creates the database if it is missing. The start lock is held, so it gives up on a server that does not answer.
func (s *Server) ensureDatabase(ctx context.Context) (err error) {
	asking, cancel := context.WithTimeout(ctx, s.askWait)
	defer cancel()
	conn, err := pgx.Connect(asking, s.URL("postgres", "postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	var exists bool
	const query = `select exists (select from pg_database where datname = $1)`
	if err := conn.QueryRow(asking, query, Database).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", Database, err)
	}
	if exists {
		return nil
	}
	creating, cancel := context.WithTimeout(ctx, s.lockWait) // it copies files, which a slow disk may take long for
	defer cancel()
	if _, err := conn.Exec(creating, "create database "+pgx.Identifier{Database}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", Database, err)
	}
	return nil
}

// URL returns the URL of a database as the role sees it, over the Unix socket and without a password, for pgx and libpq alike. Roles
// other than postgres are the migrations' to create; only those named in pg_ident.conf are let in.
func (s *Server) URL(role, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(role), Path: "/" + database}
	u.RawQuery = url.Values{"host": {s.socketDir}, "port": {port}}.Encode()
	return u.String()
}

// DataDir returns the folder of the private Postgres.
func (s *Server) DataDir() string { return s.dataDir }

// Psql returns psql, connected to the database as the role, ready to be given its standard streams. Run it as a child and Close
// afterwards: a process that replaces itself by psql gives up its hold, and leaves a server without a holder.
func (s *Server) Psql(role, database string, args ...string) (*exec.Cmd, error) {
	psql := filepath.Join(s.binDir, "psql")
	if !isExecutable(psql) {
		found, err := exec.LookPath("psql")
		if err != nil {
			return nil, fmt.Errorf("find psql: %w: install it with `apt-get install postgresql-client` or `dnf install postgresql`", err)
		}
		psql = found
	}
	return exec.Command(psql, append([]string{"--dbname=" + s.URL(role, database)}, args...)...), nil
}

// Close gives the server up, and stops it if nobody else holds it: fast, and at once if that takes longer than 30 s. It returns when
// the server has ended. A second Close does nothing.
func (s *Server) Close() error {
	if s.holders == nil {
		return nil
	}
	if err := s.close(); err != nil {
		return fmt.Errorf("stop the private Postgres: %w", err)
	}
	return nil
}

func (s *Server) close() (err error) {
	// Whoever starts or stops it now is done in a minute or so; waiting for longer would hang an exit.
	ctx, cancel := context.WithTimeout(context.Background(), 4*stopWait)
	defer cancel()
	starting, err := s.lock(ctx, startLock, syscall.LOCK_EX)
	if err != nil {
		holders := s.holders
		s.holders = nil
		return errors.Join(err, holders.Close())
	}
	defer func() { err = errors.Join(err, starting.Close()) }()
	return s.letGo()
}

// letGo stops the server if nobody else holds it. The start lock must be held.
func (s *Server) letGo() error {
	holders := s.holders
	s.holders = nil
	alone, err := tryLock(holders, syscall.LOCK_EX)
	if err == nil && alone {
		err = s.stop()
	}
	if err == nil && !alone {
		s.log.Info("left the private Postgres to its other users", zap.String("data_dir", s.dataDir))
	}
	return errors.Join(err, holders.Close())
}

// port names the socket in its folder, nothing else.
const port = "5432"

// maxSocketPath is what fits into sun_path with its final zero: 104 bytes on macOS and the BSDs, 108 on Linux.
const maxSocketPath = 103

// makeSocketDir returns a folder for the socket: in the data folder, or, where that makes a path longer than a socket may have, in
// the folder for temporary files, named by the data folder. There anybody may make folders, so one that is not the server user's
// own, or lets others in, is refused.
func (s *Server) makeSocketDir() (string, error) {
	name := filepath.Join(s.dataDir, socketFolder)
	if !fitsSocket(name) {
		hash := sha256.Sum256([]byte(s.dataDir))
		base := "sdr-sync-" + hex.EncodeToString(hash[:8])
		if name = filepath.Join(os.TempDir(), base); !fitsSocket(name) {
			name = filepath.Join("/tmp", base)
		}
	}
	err := os.Mkdir(name, 0o700)
	if err == nil {
		return name, s.account.own(name)
	}
	if !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(name)
	if err != nil {
		return "", err
	}
	owner, err := ownerOf(name)
	if err != nil {
		return "", err
	}
	if info.IsDir() && int(owner.Uid) == os.Geteuid() {
		return name, errors.Join(os.Chmod(name, 0o700), s.account.own(name)) // a start may have been killed in between
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || int(owner.Uid) != s.account.uid {
		return "", fmt.Errorf("socket folder %s must be a folder of user %s with mode 0700: remove it", name, s.account.name)
	}
	return name, nil
}

func fitsSocket(folder string) bool { return len(socketPath(folder)) <= maxSocketPath }

func socketPath(folder string) string { return filepath.Join(folder, ".s.PGSQL."+port) }

// stopWait is how long a fast shutdown may take before it becomes an immediate one.
const stopWait = 30 * time.Second
