package private_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sdr-sync/sdr-sync/sink/postgres/private"
)

// holdVariable makes this test binary a process that holds the private Postgres in the folder it names.
const holdVariable = "SDR_SYNC_TEST_HOLD"

// initdbVariable gives that process another folder of server binaries.
const initdbVariable = "SDR_SYNC_TEST_BINARIES"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdVariable); dir != "" {
		if err := hold(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// hold starts, says so, and closes when its input ends.
func hold(dir string) error {
	cfg := testConfig(dir)
	if binaries := os.Getenv(initdbVariable); binaries != "" {
		cfg = private.WithSearch(cfg, binaries)
	}
	s, err := private.Start(context.Background(), cfg)
	if err != nil {
		return err
	}
	fmt.Println("holding")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Close()
}

func testConfig(dir string) private.Config {
	return private.Config{DataDir: dir, UnsafeNoSync: true}
}

// holder is a child process that holds the server.
type holder struct {
	cmd   *exec.Cmd
	input io.Closer
	lines *bufio.Reader
}

func newHolder(t *testing.T, dir string, env ...string) *holder {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), holdVariable+"="+dir), env...)
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
	h := &holder{cmd, input, bufio.NewReader(output)}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // if the test didn't get that far
	return h
}

func (h *holder) await(t *testing.T) {
	t.Helper()
	line, err := h.lines.ReadString('\n')
	if err != nil || line != "holding\n" {
		rest, _ := io.ReadAll(h.lines)
		t.Fatalf("holder: %v: %s%s", err, line, rest)
	}
}

func (h *holder) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Wait(); err == nil {
		t.Fatal("the killed holder ended well")
	}
}

func (h *holder) close(t *testing.T) {
	t.Helper()
	if err := h.input.Close(); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(h.lines)
	if err := h.cmd.Wait(); err != nil {
		t.Fatalf("holder: %v: %s", err, rest)
	}
}

// dataDir returns a folder that the server's user can reach: not t.TempDir, whose parents are closed to other users when the tests
// run as root.
func dataDir(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "sdr-sync-private-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(folder, "pg")
}

func start(t *testing.T, cfg private.Config) *private.Server {
	t.Helper()
	s, err := private.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOrFail(t, s) })
	return s
}

func closeOrFail(t *testing.T, s *private.Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func query(t *testing.T, s *private.Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres", private.Database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var text *string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
	if text == nil {
		return ""
	}
	return *text
}

func serverPID(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func checkStopped(t *testing.T, dir string, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, 0); err == nil && !isZombie(pid) { // the first process may take its time to reap an orphan
		t.Errorf("server %d is still there", pid)
	}
	if got := serverPID(t, dir); got != 0 {
		t.Errorf("postmaster.pid still names %d", got)
	}
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestSettings(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	begin := time.Now()
	s, err := private.Start(t.Context(), private.Config{DataDir: dir, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("initdb and first start took %v", time.Since(begin))
	for setting, want := range map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on", "listen_addresses": "",
		"server_encoding": "UTF8", "TimeZone": "UTC", "jit": "off", "max_connections": "50", "max_wal_size": "4GB", "checkpoint_timeout": "15min",
		"password_encryption": "scram-sha-256", "autovacuum": "on", "unix_socket_permissions": "0700", "port": "5432",
	} {
		if got := query(t, s, "show "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	if got := query(t, s, "show wal_compression"); got == "off" {
		t.Error("wal_compression is off")
	}
	for sql, want := range map[string]string{
		"select datcollate||' '||datctype from pg_database where datname = current_database()":        "C C",
		"select pg_get_userbyid(datdba)::text from pg_database where datname = 'sdr_sync'":            "postgres",
		"select string_agg(rolname, ' ') from pg_roles where rolname !~ '^pg_'":                       "postgres",
		"select (pg_size_bytes(current_setting('shared_buffers')) between 128<<20 and 512<<20)::text": "true",
	} {
		if got := query(t, s, sql); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
	pid := serverPID(t, dir)
	if group, err := syscall.Getpgid(pid); err != nil || group == syscall.Getpgrp() {
		t.Errorf("server %d is in our process group %d (%v)", pid, group, err)
	}
	for name, want := range map[string]fs.FileMode{"data": 0o700, "socket": 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", name, info.Mode().Perm(), want, err)
		}
	}
	begin = time.Now()
	closeOrFail(t, s)
	t.Logf("stop took %v", time.Since(begin))
	checkStopped(t, dir, pid)
	closeOrFail(t, s)
}

func TestRestartKeepsData(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := start(t, testConfig(dir))
	query(t, s, "create table kept as select 42 as answer")
	query(t, s, "alter system set work_mem = '7MB'")
	query(t, s, "alter system set listen_addresses = '127.0.0.1'")
	closeOrFail(t, s)
	begin := time.Now()
	s = start(t, testConfig(dir))
	t.Logf("second start took %v", time.Since(begin))
	for sql, want := range map[string]string{"select answer::text from kept": "42", "show work_mem": "7MB", "show listen_addresses": ""} {
		if got := query(t, s, sql); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
}

func TestAdoptAfterKill(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	h := newHolder(t, dir)
	h.await(t)
	pid := serverPID(t, dir)
	h.kill(t)
	begin := time.Now()
	s := start(t, testConfig(dir))
	t.Logf("joining took %v", time.Since(begin))
	if got := serverPID(t, dir); got != pid {
		t.Errorf("server %d was started, though %d was there", got, pid)
	}
	closeOrFail(t, s)
	checkStopped(t, dir, pid)
}

func TestLastHolderStops(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := start(t, testConfig(dir))
	pid := serverPID(t, dir)
	first, second := newHolder(t, dir), newHolder(t, dir)
	first.await(t)
	second.await(t)
	first.close(t)
	if got := query(t, s, "select 'here'"); got != "here" {
		t.Errorf("after one of three left: got %q", got)
	}
	closeOrFail(t, s)
	s = start(t, testConfig(dir))
	if got := serverPID(t, dir); got != pid {
		t.Errorf("server %d was started, though %d was held", got, pid)
	}
	closeOrFail(t, s)
	second.close(t)
	checkStopped(t, dir, pid)
}

// All of them find no cluster and no server.
func TestStartAtOnce(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	var holders []*holder
	for range 4 {
		holders = append(holders, newHolder(t, dir))
	}
	for _, h := range holders {
		h.await(t)
	}
	pid := serverPID(t, dir)
	for _, h := range holders {
		h.close(t)
	}
	checkStopped(t, dir, pid)
}

func TestServerKilled(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	h := newHolder(t, dir)
	h.await(t)
	s := start(t, testConfig(dir))
	query(t, s, "create table kept as select 42 as answer")
	query(t, s, "checkpoint") // nothing is synced here, but the kernel lives on
	pid := serverPID(t, dir)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := start(t, testConfig(dir))
	if got := query(t, again, "select answer::text from kept"); got != "42" {
		t.Errorf("got %q, want 42", got)
	}
	if serverPID(t, dir) == pid {
		t.Error("the killed server is still named")
	}
	h.close(t)
	closeOrFail(t, s)
	if got := query(t, again, "select 'here'"); got != "here" {
		t.Errorf("after two of three left: got %q", got)
	}
}

func TestDeepDataDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(dataDir(t), strings.Repeat("deep-", 15), strings.Repeat("deeper-", 10))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	h := newHolder(t, dir)
	h.await(t)
	s := start(t, testConfig(dir))
	socket := query(t, s, "show unix_socket_directories")
	t.Cleanup(func() { os.RemoveAll(strings.Trim(socket, `"`)) })
	if strings.HasPrefix(socket, dir) {
		t.Errorf("the socket is in %s, whose path is too long", socket)
	}
	pid := serverPID(t, dir)
	h.kill(t)
	closeOrFail(t, s)
	checkStopped(t, dir, pid)
	start(t, testConfig(dir)) // the folder is there already
}

func TestForeignSocketDir(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	closeOrFail(t, start(t, testConfig(dir)))
	socket := filepath.Join(dir, "socket")
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), socket); err != nil {
		t.Fatal(err)
	}
	if _, err := private.Start(t.Context(), testConfig(dir)); err == nil || !strings.Contains(err.Error(), "must be a folder of user") {
		t.Errorf("got error %v, want one about the socket folder", err)
	}
}

func TestDataDirIsCluster(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	closeOrFail(t, start(t, testConfig(dir)))
	_, err := private.Start(t.Context(), testConfig(filepath.Join(dir, "data")))
	if err == nil || !strings.Contains(err.Error(), "is a Postgres cluster already") {
		t.Errorf("got error %v", err)
	}
}

func TestStartQuotesLog(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	closeOrFail(t, start(t, testConfig(dir)))
	auto := filepath.Join(dir, "data", "postgresql.auto.conf")
	if err := os.WriteFile(auto, []byte("max_connections = 'many'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := private.Start(t.Context(), testConfig(dir))
	if err == nil || !strings.Contains(err.Error(), "max_connections") || !strings.Contains(err.Error(), "server.log") {
		t.Errorf("got error %v, want one that quotes the log", err)
	}
}

// A person who runs as nobody in particular gets to no socket, and no role.
func TestOtherUsersStayOut(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(dataDir(t)))
	psql, err := s.Psql("postgres", private.Database, "--no-psqlrc", "--tuples-only", "--command=select 40+2")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := psql.Output(); err != nil || strings.TrimSpace(string(out)) != "42" {
		t.Fatalf("psql as ourselves: %s, %v", out, err)
	}
	if os.Geteuid() == 0 {
		psql, err := s.Psql("postgres", private.Database, "--command=select 1")
		if err != nil {
			t.Fatal(err)
		}
		psql.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := psql.CombinedOutput(); err == nil {
			t.Errorf("another user got in: %s", out)
		}
	}
	conn, err := pgx.Connect(t.Context(), s.URL("root", private.Database))
	if err == nil {
		_ = conn.Close(t.Context())
		t.Error("a role that the map doesn't name got in")
	}
}

func TestRolesGetIn(t *testing.T) {
	t.Parallel()
	s := start(t, testConfig(dataDir(t)))
	for _, role := range []string{"sdr_sync", "sdr_sync_owner", "sdr_sync_writer", "sdr_sync_reader"} {
		query(t, s, "create role "+role+" login")
		conn, err := pgx.Connect(t.Context(), s.URL(role, private.Database))
		if err != nil {
			t.Errorf("role %s: %v", role, err)
			continue
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// fakeBinaries makes scripts that answer for a server, in a folder that the server's user can reach.
func fakeBinaries(t *testing.T, name string, scripts map[string]string) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(dataDir(t)), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for program, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func version(v string) map[string]string {
	return map[string]string{"postgres": "echo 'postgres (PostgreSQL) " + v + "'", "initdb": "exit 1"}
}

func TestFindBinaries(t *testing.T) {
	t.Parallel()
	old := fakeBinaries(t, "13", version("13.22"))
	middle := fakeBinaries(t, "15", version("15.18 (Debian 15.18-0+deb12u1)"))
	beta := fakeBinaries(t, "19", version("19beta1"))
	lone := fakeBinaries(t, "16", map[string]string{"postgres": "echo 'postgres (PostgreSQL) 16.1'"})
	linked := filepath.Dir(dataDir(t))
	if err := os.Symlink(filepath.Join(middle, "postgres"), filepath.Join(linked, "postgres")); err != nil {
		t.Fatal(err)
	}
	many := filepath.Dir(dataDir(t))
	for _, v := range []string{"9", "15", "17"} {
		if err := os.MkdirAll(filepath.Join(many, v), 0o755); err != nil {
			t.Fatal(err)
		}
		for program, script := range version(v + ".1") {
			if err := os.WriteFile(filepath.Join(many, v, program), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := func(dirs ...string) string { return strings.Join(dirs, ":") }
	tests := map[string]struct {
		want    int
		path    string
		glob    string
		dir     string
		version int
	}{
		"the first in the path":            {0, path(middle, beta), many + "/*", middle, 15},
		"an older one is passed over":      {0, path(old, middle), "", middle, 15},
		"a postgres without initdb":        {0, path(lone, beta), "", beta, 19},
		"a link into a whole installation": {0, path(linked), "", middle, 15},
		"the newest of a package":          {0, "", many + "/*", many + "/17", 17},
		"the version of the data folder":   {15, path(beta), many + "/*", many + "/15", 15},
		"never the working folder":         {0, path(".", "", beta), "", beta, 19},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, version, err := private.FindBinaries(tt.want, tt.path, slices.DeleteFunc([]string{tt.glob}, func(g string) bool { return g == "" })...)
			if err != nil {
				t.Fatal(err)
			}
			if dir != tt.dir || version != tt.version {
				t.Errorf("got %s version %d, want %s version %d", dir, version, tt.dir, tt.version)
			}
		})
	}
	if _, v, err := private.Binaries(); err != nil || v < 14 {
		t.Errorf("Binaries on this machine: version %d, %v", v, err)
	}
}

func TestNoBinaries(t *testing.T) {
	t.Parallel()
	old := fakeBinaries(t, "13", version("13.22"))
	for name, tt := range map[string]struct {
		path  string
		wants []string
	}{
		"none":    {"", []string{"postgres.url", "docker compose up", "install"}},
		"too old": {old, []string{"version 13", "version 14 or newer", "install"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDir(t)
			_, err := private.Start(t.Context(), private.WithSearch(testConfig(dir), tt.path))
			if !errors.Is(err, private.ErrNoBinaries) {
				t.Fatalf("got error %v, want ErrNoBinaries", err)
			}
			for _, want := range tt.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
	t.Run("another version than the cluster's", func(t *testing.T) {
		t.Parallel()
		dir := dataDir(t)
		closeOrFail(t, start(t, testConfig(dir)))
		_, err := private.Start(t.Context(), private.WithSearch(testConfig(dir), fakeBinaries(t, "99", version("99.1"))))
		if !errors.Is(err, private.ErrNoBinaries) || !strings.Contains(err.Error(), "which made the data folder") {
			t.Errorf("got error %v", err)
		}
	})
}

// blockingInitdb returns binaries whose initdb leaves half a cluster, and then waits; started is readable when it does.
func blockingInitdb(t *testing.T) (binaries, started string) {
	t.Helper()
	_, v, err := private.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(dataDir(t))
	started, release := filepath.Join(folder, "started"), filepath.Join(folder, "release")
	for _, fifo := range []string{started, release} {
		if err := syscall.Mkfifo(fifo, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(fifo, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	// Read and write, so that opening waits for nobody; closing it lets an abandoned script end.
	f, err := os.OpenFile(release, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	scripts := version(fmt.Sprint(v))
	scripts["initdb"] = fmt.Sprintf("echo %d > ${1#--pgdata=}/PG_VERSION\nexec 3<%s\necho > %s\nexec cat <&3\n", v, release, started)
	return fakeBinaries(t, "bin", scripts), started
}

func awaitFIFO(t *testing.T, name string) {
	t.Helper()
	if _, err := os.ReadFile(name); err != nil {
		t.Fatal(err)
	}
}

func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "init-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestKilledInInitdb(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	binaries, started := blockingInitdb(t)
	h := newHolder(t, dir, initdbVariable+"="+binaries)
	awaitFIFO(t, started)
	h.kill(t)
	if len(leftovers(t, dir)) != 1 {
		t.Fatalf("leftovers %v: the test doesn't test what it says", leftovers(t, dir))
	}
	s := start(t, testConfig(dir))
	if got := query(t, s, "select 'here'"); got != "here" {
		t.Errorf("got %q", got)
	}
	if got := leftovers(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestCancelInInitdb(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	binaries, started := blockingInitdb(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("asked to stop")
	done := make(chan error)
	go func() {
		_, err := private.Start(ctx, private.WithSearch(testConfig(dir), binaries))
		done <- err
	}()
	awaitFIFO(t, started)
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Errorf("got error %v, want the cause", err)
	}
	if got := leftovers(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestSharedBuffers(t *testing.T) {
	t.Parallel()
	for memory, want := range map[int64]int64{0: 128, 512 << 20: 128, 2 << 30: 256, 64 << 30: 512} {
		if got := private.SharedBuffersMB(memory); got != want {
			t.Errorf("with %d bytes: got %d MB, want %d", memory, got, want)
		}
	}
}

func TestDefaultDataDir(t *testing.T) {
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	got, err := private.DefaultDataDir()
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(data, "sdr-sync", "postgres")
	if os.Geteuid() == 0 {
		want = "/var/lib/sdr-sync/postgres"
	}
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A start that is given up after the server was launched leaves none behind.
func TestCancelAfterLaunch(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	closeOrFail(t, start(t, testConfig(dir)))
	ctx, cancel := context.WithCancelCause(t.Context())
	stop, launched := errors.New("asked to stop"), 0
	cfg := testConfig(dir)
	cfg.Log = zap.New(logFunc(func(entry zapcore.Entry, fields []zapcore.Field) {
		if strings.HasPrefix(entry.Message, "launched") {
			launched = int(fields[0].Integer)
			cancel(stop)
		}
	}))
	if _, err := private.Start(ctx, cfg); !errors.Is(err, stop) {
		t.Fatalf("got error %v, want the cause", err)
	}
	if launched == 0 {
		t.Fatal("no server was launched")
	}
	if err := syscall.Kill(launched, 0); err == nil && !isZombie(launched) {
		t.Errorf("server %d was left behind", launched)
	}
	if got := query(t, start(t, testConfig(dir)), "select 'here'"); got != "here" {
		t.Errorf("got %q", got)
	}
}

// Whoever holds the start lock and does not come to an end does not make others wait for ever.
func TestStartLockIsHeld(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	binaries, started := blockingInitdb(t)
	h := newHolder(t, dir, initdbVariable+"="+binaries)
	awaitFIFO(t, started)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := private.Start(ctx, private.WithLessPatience(testConfig(dir), 50*time.Millisecond, 0))
	if err == nil {
		t.Fatal("started under the lock of another process")
	}
	for _, want := range []string{"start.lock", "another process has been starting or stopping the server for 50ms", "lslocks", "run again", filepath.Join(dir, "server.log")} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	h.kill(t)
	start(t, private.WithLessPatience(testConfig(dir), time.Minute, 0))
}

// A server that is ready and then stops answering is given up, or the start lock would be held for ever.
func TestServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := start(t, private.WithLessPatience(testConfig(dir), 0, 100*time.Millisecond))
	pid := serverPID(t, dir)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := private.EnsureDatabase(ctx, s); err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want it to give up in time", err)
	}
}

// logFunc is a log that calls a function for each entry.
type logFunc func(zapcore.Entry, []zapcore.Field)

func (f logFunc) Enabled(zapcore.Level) bool                          { return true }
func (f logFunc) With([]zapcore.Field) zapcore.Core                   { return f }
func (f logFunc) Write(e zapcore.Entry, fields []zapcore.Field) error { f(e, fields); return nil }
func (f logFunc) Sync() error                                         { return nil }
func (f logFunc) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.AddCore(e, f)
}
