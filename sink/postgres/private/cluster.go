package private

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"go.uber.org/zap"
)

// What stands in the data folder, besides the locks.
const (
	clusterFolder = "data"  // the Postgres cluster, the server account's, 0700
	initPrefix    = "init-" // a cluster in the making
	socketFolder  = "socket"
	logName       = "server.log"
	confName      = "postgresql.conf"
	hbaName       = "pg_hba.conf"
	identName     = "pg_ident.conf"
)

// ensureCluster makes the cluster if there is none. initdb works in a folder of its own, which is renamed when all is done and
// synced: a killed initdb leaves no half cluster, only a folder for the next start to remove.
func (s *Server) ensureCluster(ctx context.Context) error {
	leftovers, err := filepath.Glob(filepath.Join(globEscape(s.dataDir), initPrefix+"*"))
	if err != nil {
		return err
	}
	for _, leftover := range leftovers {
		if err := os.RemoveAll(leftover); err != nil {
			// An initdb that outlived its killed starter may still be writing. It can't harm, and a later start removes its folder.
			s.log.Warn("leave an abandoned initdb folder", zap.String("folder", leftover), zap.Error(err))
		}
	}
	cluster := s.cluster()
	version, err := clusterVersion(cluster)
	if err == nil {
		s.binDir, _, err = s.search.find(version)
		return err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s.binDir, version, err = s.search.find(0); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(s.dataDir, initPrefix)
	if err != nil {
		return err
	}
	if err := s.initdb(ctx, temporary); err != nil {
		return errors.Join(err, os.RemoveAll(temporary))
	}
	if err := os.Rename(temporary, cluster); err != nil {
		return errors.Join(err, os.RemoveAll(temporary))
	}
	s.log.Info("made a private Postgres", zap.String("data_dir", s.dataDir), zap.Int("version", version), zap.String("user", s.account.name))
	return syncFolder(s.dataDir)
}

func (s *Server) initdb(ctx context.Context, folder string) error {
	if err := s.account.own(folder); err != nil {
		return err
	}
	args := []string{
		"--pgdata=" + folder, "--username=postgres", "--auth=peer", "--data-checksums",
		"--encoding=UTF8", "--locale=C", "--no-instructions",
	}
	if s.unsafeNoSync {
		args = append(args, "--no-sync")
	}
	cmd := s.account.command(exec.CommandContext(ctx, filepath.Join(s.binDir, "initdb"), args...), s.dataDir)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	// It leads its own process group: what it has started ends with it.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("run initdb: %w", context.Cause(ctx))
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("run %s as user %s: %w%s", cmd.Path, s.account.name, err, s.barrierHint())
	}
	if err != nil {
		return fmt.Errorf("run initdb as user %s: %w:\n%s", s.account.name, err, lastLines(output.Bytes(), 10))
	}
	return nil
}

// barrierHint says which folder keeps the server's user from its data folder.
func (s *Server) barrierHint() string {
	if b := s.account.barrier(s.dataDir); b != "" {
		return fmt.Sprintf(": user %s may not pass %s: set postgres.data_dir to a folder that it can reach", s.account.name, b)
	}
	return ""
}

// clusterVersion reads which major version made the cluster; fs.ErrNotExist if there is none.
func clusterVersion(cluster string) (int, error) {
	text, err := os.ReadFile(filepath.Join(cluster, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(cluster); err == nil {
			return 0, fmt.Errorf("%s is there but is no Postgres cluster: it has no PG_VERSION", cluster)
		}
		return 0, fs.ErrNotExist
	}
	if err != nil {
		return 0, err
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read the version of cluster %s: %w", cluster, err)
	}
	return version, nil
}

// configure writes the server's configuration, anew before each start of it, outside the cluster and owned by us. What a user
// changes with ALTER SYSTEM lives in the cluster and stays, but for the durability and the reach of the server, which the command
// line pins (see postgresArgs).
func (s *Server) configure() error {
	files := map[string]string{confName: s.conf(), hbaName: hba, identName: s.ident()}
	for name, text := range files {
		if err := replaceFile(filepath.Join(s.dataDir, name), text); err != nil {
			return err
		}
	}
	return nil
}

const confHead = "# Written by sdr-sync at each start of its private Postgres: edits are lost. Use ALTER SYSTEM.\n"

func (s *Server) conf() string {
	return confHead + fmt.Sprintf(`hba_file = %s
ident_file = %s
shared_buffers = %dMB
max_connections = 50
password_encryption = 'scram-sha-256'
autovacuum = on
# Loads of millions of rows: fewer, larger checkpoints, and full pages compressed.
max_wal_size = 4GB
checkpoint_timeout = 15min
wal_compression = on
# Our statements are many rows and few plans: compiling them costs more than it saves.
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%%m [%%p] %%u@%%d '
lc_messages = 'C'
`, quoteConf(filepath.Join(s.dataDir, hbaName)), quoteConf(filepath.Join(s.dataDir, identName)), sharedBuffersMB(memoryBytes()))
}

// Who may connect is decided twice, and nothing rests on a password that would have to be kept somewhere. The server listens on a
// Unix socket alone, in a folder of mode 0700 that the server's user owns, so nobody but that user and root can reach the socket. And
// peer authentication asks the kernel who is at the other end: the map lets in just these two, as each of our roles. Both may read
// and rewrite the data files anyway, so the roles keep honest programs apart; they are no wall against these users.
const hba = confHead + "local all all peer map=sdr_sync\n"

// roles are those that the map lets in. Before PostgreSQL 16 a map can't say "any role".
func roles() []string {
	return []string{"postgres", "sdr_sync", "sdr_sync_owner", "sdr_sync_writer", "sdr_sync_reader"}
}

func (s *Server) ident() string {
	var b strings.Builder
	b.WriteString(confHead)
	users := []string{s.account.name}
	if s.account.name != "root" {
		users = append(users, "root")
	}
	for _, user := range users {
		for _, role := range roles() {
			fmt.Fprintf(&b, "sdr_sync \"%s\" %s\n", user, role)
		}
	}
	return b.String()
}

// postgresArgs pins on the command line what no file may change.
func (s *Server) postgresArgs(socketDir string) []string {
	on := "on"
	if s.unsafeNoSync {
		on = "off"
	}
	settings := []string{
		"config_file=" + filepath.Join(s.dataDir, confName),
		"listen_addresses=", "unix_socket_directories=" + quoteList(socketDir), "unix_socket_permissions=0700", "port=" + port,
		"fsync=" + on, "full_page_writes=" + on, "synchronous_commit=" + on,
		"logging_collector=off", "log_destination=stderr",
	}
	args := []string{"-D", s.cluster()}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	return args
}

// sharedBuffersMB is an eighth of the memory, at least 128 MB and at most 512 MB: the rest is worth more as the kernel's cache.
func sharedBuffersMB(memory int64) int64 {
	return min(max(memory>>20/8, 128), 512)
}

// memoryBytes is the memory of the machine or of the container, whichever is less; 0 where neither says.
func memoryBytes() int64 {
	var memory int64
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			memory = kib << 10
		}
	}
	for _, limit := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(limit); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n < memory {
				memory = n
			}
		}
	}
	return memory
}

// quoteConf quotes a value of postgresql.conf.
func quoteConf(value string) string { return "'" + strings.ReplaceAll(value, "'", "''") + "'" }

// quoteList quotes an element of a list setting.
func quoteList(element string) string { return `"` + strings.ReplaceAll(element, `"`, `""`) + `"` }

func globEscape(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// replaceFile writes a file that others may read, whole or not at all.
func replaceFile(name, text string) error {
	temporary, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	_, err = temporary.WriteString(text)
	if err == nil {
		err = temporary.Chmod(0o644)
	}
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}

func syncFolder(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lastLines returns the last n lines of a log, indented.
func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "\t" + strings.Join(lines, "\n\t")
}
