package private

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
)

const (
	// startWait is how long a server may take until it listens; crash recovery, which may take longer, comes after that.
	startWait = 60 * time.Second
	// maxLog is the size at which a start puts the log aside.
	maxLog = 16 << 20
)

// ensureRunning joins the server that runs, or starts one.
func (s *Server) ensureRunning(ctx context.Context) error {
	deadline := time.Now().Add(startWait)
	for wait := range waits() {
		running, err := s.findRunning()
		if err != nil {
			return err
		}
		if running.listens {
			s.socketDir = running.socketDir
			err := s.awaitReady(ctx, running.pid)
			if err == nil {
				s.log.Info("joined the private Postgres", zap.String("data_dir", s.dataDir), zap.Int("pid", running.pid))
			}
			if !errors.Is(err, errEnded) || time.Now().After(deadline) {
				return err
			}
			continue // it was on its way down
		}
		// A server that is there but doesn't listen is on its way down, or up; unless the file is an old one whose process id belongs to
		// something else by now, which Postgres itself finds out.
		if !running.alive || time.Now().After(deadline) {
			err = s.spawn(ctx)
			if err == nil || !errors.Is(err, errStillRunning) || time.Now().After(deadline) {
				return err
			}
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
	panic("unreachable: waits never end")
}

// running is the server that the cluster's postmaster.pid names, if any.
type running struct {
	pid       int
	socketDir string
	alive     bool // the process is there
	listens   bool
}

// findRunning reads postmaster.pid: process id, data folder, start time, port, socket folder, ... one a line.
func (s *Server) findRunning() (running, error) {
	text, err := os.ReadFile(filepath.Join(s.cluster(), "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return running{}, nil
	}
	if err != nil {
		return running{}, err
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 1 {
		return running{}, nil // torn or empty: left to Postgres, which knows what to do with it
	}
	r := running{pid: pid, alive: alive(pid) && s.isServer(pid)}
	if len(lines) > 4 {
		r.socketDir = lines[4]
		r.listens = r.alive && r.socketDir != "" && listens(r.socketDir)
	}
	return r, nil
}

// alive tells whether the process is there. One that has ended, but whose parent has not heard of it yet, is not.
func alive(pid int) bool {
	if os.Getpid() == 1 {
		// As the first process of a container we are the parent of all orphans, the server among them.
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // not our child, or not ended: nothing to do
	}
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // "4711 (postgres) S 1 ..."
	if err != nil {
		return true // no /proc here
	}
	return !bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z"))
}

// isServer tells whether the process is the cluster's: after a crash of the machine its process id may be somebody else's. A server
// works in its cluster's folder, which Linux shows; elsewhere the process id must do, as it does for pg_ctl.
func (s *Server) isServer(pid int) bool {
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		return true
	}
	folder, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false // ended meanwhile, or another user's
	}
	cluster, err := os.Stat(s.cluster())
	return err == nil && os.SameFile(folder, cluster)
}

// listens tells whether a process listens on the socket. A socket file that nobody listens on refuses.
func listens(socketDir string) bool {
	conn, err := net.Dial("unix", socketPath(socketDir))
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was sent
	return true
}

// errStillRunning is what Postgres says of another server on its cluster, or of backends that outlive a killed one for a moment.
var errStillRunning = errors.New("another server still uses the cluster")

var errEnded = errors.New("the server ended")

// spawn starts a server and waits until it is ready.
func (s *Server) spawn(ctx context.Context) error {
	begin := time.Now()
	if err := s.configure(); err != nil {
		return err
	}
	socketDir, err := s.makeSocketDir()
	if err != nil {
		return err
	}
	s.socketDir = socketDir
	log, err := s.openLog()
	if err != nil {
		return err
	}
	size, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	pid, err := s.launch(log, s.postgresArgs(socketDir))
	if err = errors.Join(err, log.Close()); err != nil {
		return err
	}
	s.log.Debug("launched the private Postgres", zap.Int("pid", pid))
	if err := s.awaitReady(ctx, pid); err != nil {
		if text := s.logSince(size); strings.Contains(text, "postmaster.pid") || strings.Contains(text, "shared memory block") {
			err = fmt.Errorf("%w: %w", errStillRunning, err)
		}
		return errors.Join(err, s.end(pid)) // nobody can have joined it: the start lock is ours
	}
	s.log.Info("started the private Postgres", zap.String("data_dir", s.dataDir), zap.Int("pid", pid), zap.Duration("took", time.Since(begin)))
	return nil
}

// launch runs the server as an orphan: a shell starts it and ends. As our own child it would, once ended, stay in the process table
// until we asked for it; another process that stops it would wait for that, and a new server would believe that the old one lives.
func (s *Server) launch(log *os.File, args []string) (pid int, err error) {
	const script = `"$0" "$@" </dev/null >&3 2>&3 3>&- & echo $!`
	postgres := filepath.Join(s.binDir, "postgres")
	// Not bound to a context: the server outlives it, and the shell is gone at once.
	cmd := s.account.command(exec.Command("/bin/sh", append([]string{"-c", script, postgres}, args...)...), s.dataDir)
	cmd.ExtraFiles = []*os.File{log} // its descriptor 3
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("run %s as user %s: %w%s", postgres, s.account.name, err, s.barrierHint())
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return 0, fmt.Errorf("run %s as user %s: %w", postgres, s.account.name, err)
	}
	return pid, nil
}

// openLog opens the server's log, putting a large one aside.
func (s *Server) openLog() (*os.File, error) {
	name := filepath.Join(s.dataDir, logName)
	if info, err := os.Lstat(name); err == nil && info.Size() > maxLog {
		if err := os.Rename(name, name+".1"); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, err
	}
	if err := s.giveToOwner(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// awaitReady connects until the server lets us in. While it recovers from a crash it says so, and is waited for as long as ctx
// allows.
func (s *Server) awaitReady(ctx context.Context, pid int) error {
	deadline := time.Now().Add(startWait)
	for wait := range waits() {
		err := s.connectOnce(ctx)
		if err == nil {
			return nil
		}
		var answer *pgconn.PgError
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("wait for the server: %w", context.Cause(ctx))
		case !alive(pid):
			return fmt.Errorf("%w; %s", errEnded, s.quoteLog())
		case errors.As(err, &answer) && answer.Code != cannotConnectNow:
			return fmt.Errorf("connect to the server: %w; %s", err, s.quoteLog())
		case answer == nil && time.Now().After(deadline):
			return fmt.Errorf("the server does not listen after %v: %w; %s", startWait, err, s.quoteLog())
		}
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("wait for the server: %w", err)
		}
	}
	panic("unreachable: waits never end")
}

// cannotConnectNow is the SQLSTATE of a server that starts, recovers or stops.
const cannotConnectNow = "57P03"

func (s *Server) connectOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres", "postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// logSince returns what the log has from the position on, or, if that is negative, its last bytes. A log that can't be read is
// empty: it is only quoted.
func (s *Server) logSince(at int64) string {
	f, err := os.Open(filepath.Join(s.dataDir, logName))
	if err != nil {
		return ""
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	if at < 0 {
		at = max(0, info.Size()+at)
	}
	text := make([]byte, min(max(0, info.Size()-at), 64<<10))
	n, _ := f.ReadAt(text, at)
	return string(text[:n])
}

// stop stops the server, whoever started it, and waits until it has ended. None is no error.
func (s *Server) stop() error {
	r, err := s.findRunning()
	if err != nil || !r.alive {
		return err
	}
	return s.end(r.pid)
}

// end shuts a server down and waits for its end.
func (s *Server) end(pid int) error {
	begin := time.Now()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} { // "fast", then "immediate" shutdown
		ended, err := shutDown(pid, signal)
		if err != nil {
			return err
		}
		if ended {
			s.log.Info("stopped the private Postgres", zap.String("data_dir", s.dataDir), zap.Int("pid", pid),
				zap.Bool("immediate", signal == syscall.SIGQUIT), zap.Duration("took", time.Since(begin)))
			return nil
		}
	}
	return fmt.Errorf("server %d does not end; %s", pid, s.quoteLog())
}

// shutDown signals a server and waits for its end, for stopWait at most; it tells whether that came. It signals again and again,
// which changes nothing for a server that has heard it, because one that has only just been launched may not hear yet.
func shutDown(pid int, signal syscall.Signal) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), stopWait) // a stop that began is not given up for anybody's haste
	defer cancel()
	for wait := range waits() {
		if !alive(pid) {
			return true, nil
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return false, fmt.Errorf("signal server %d: %w", pid, err)
		}
		if pause(ctx, wait) != nil {
			return false, nil
		}
	}
	panic("unreachable: waits never end")
}

// quoteLog says where the server's log is and what stands at its end.
func (s *Server) quoteLog() string {
	return fmt.Sprintf("%s says:\n%s", filepath.Join(s.dataDir, logName), lastLines([]byte(s.logSince(-4096)), 10))
}
