package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

// asProgram in the environment makes the test binary be sdr-sync itself: a process that can be stopped, killed and started again.
const asProgram = "TEST_BINARY_IS_SDR_SYNC"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	for _, assignment := range os.Environ() { // what the developer has set is no part of any test
		if name, _, _ := strings.Cut(assignment, "="); strings.HasPrefix(name, envPrefix) {
			_ = os.Unsetenv(name)
		}
	}
	// These tests wait for throttles, children and clocks more than they compute; -parallel still has the last word.
	if err := flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0))); err != nil {
		panic(err) // there is such a flag
	}
	os.Exit(pgtest.Main(m))
}

// patience is how long one command may take in a test, on a machine that does much else.
const patience = 2 * time.Minute

// world is everything around the program in one test: a vendor, a database, folders and a configuration, all its own.
type world struct {
	t        testing.TB
	dir      string            // of the configuration, the lake and the landing files
	database string            // URL, as a login that is a writer and nothing more
	admin    string            // URL of the same database, as the superuser
	vendor   *sandbox.Server   // what it holds, and what goes wrong at it
	gate     *gate             // in front of the vendor
	settings map[string]string // of the configuration: "sync.lease" to "1s"
	today    *calendar
}

// calendar is the vendor's today. Runs get theirs by --today.
type calendar struct {
	mu   sync.Mutex
	date time.Time
}

func (c *calendar) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.date
}

func (c *calendar) set(today string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.date = date(today)
}

// date reads 2024-03-01.
func date(text string) time.Time {
	d, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return d
}

// The records of most tests: from January 2024 up to the middle of April, which is the running month.
const (
	firstDay = "2024-01-01"
	someday  = "2024-04-15"
)

var theScope = pipeline.Scope{Site: sandbox.DefaultSite, Region: sandbox.DefaultRegion}

// newWorld makes a world whose vendor meters so many resources: about 31 records a day for each. change, where given, has the last word
// on the vendor.
func newWorld(t testing.TB, resources int, change ...func(*sandbox.Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), today: &calendar{date: date(someday)}}
	w.database, w.admin = newDatabase(t)
	w.settings = map[string]string{
		"postgres.url": w.database, "parquet.dir": filepath.Join(w.dir, "lake"), "landing.dir": filepath.Join(w.dir, "landing"),
		"sync.poll_initial": "5ms", "sync.poll_max": "20ms", "http.retry_for": "30s",
	}
	c := sandbox.DefaultConfig()
	c.Resources, c.Today = resources, w.today.now
	c.BadEvery, c.TwinEvery, c.LateEvery, c.CorrectionEvery = 700, 300, 200, 300 // some of everything even where there is little
	for _, f := range change {
		f(&c)
	}
	w.open(c)
	return w
}

// open puts a vendor in place of the one before, if any. The program's settings follow.
func (w *world) open(c sandbox.Config) {
	w.t.Helper()
	vendor, err := sandbox.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.vendor, w.gate = vendor, &gate{vendor: vendor.Handler(), calls: map[sandbox.Endpoint]int{}}
	server := httptest.NewServer(w.gate)
	w.t.Cleanup(server.Close)
	maps.Copy(w.settings, map[string]string{
		"iam.endpoint": server.URL, "iam.user": sandbox.DefaultUser, "iam.password": sandbox.DefaultPassword,
		"iam.domain": sandbox.DefaultDomain, "iam.project": sandbox.DefaultProject, "esm.endpoint": server.URL,
		"esm.domain_id": sandbox.DefaultDomainID, "esm.scopes": "[" + theScope.String() + "]",
	})
}

// configure writes the configuration file and returns its path.
func (w *world) configure() string {
	w.t.Helper()
	var text strings.Builder
	last := ""
	for _, path := range slices.Sorted(maps.Keys(w.settings)) {
		section, key, _ := strings.Cut(path, ".")
		if section != last {
			fmt.Fprintf(&text, "%s:\n", section)
			last = section
		}
		value := w.settings[path]
		if !strings.HasPrefix(value, "[") && !strings.HasPrefix(value, "{") {
			value = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(&text, "  %s: %s\n", key, value)
	}
	path := filepath.Join(w.dir, "sdr-sync.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// finished is what came of one command.
type finished struct {
	code     exitCode
	out, err string
	took     time.Duration
}

func (f finished) String() string {
	return fmt.Sprintf("exit %d after %s\n--- stdout\n%s--- stderr\n%s", f.code, f.took.Round(time.Millisecond), f.out, f.err)
}

// run runs one command inside the test's process: quick, and seen by the race detector.
func (w *world) run(args ...string) finished {
	w.t.Helper()
	return inProcess(w.t, context.Background(), append([]string{"--config", w.configure()}, args...))
}

// want runs one command that must end with the code.
func (w *world) want(code exitCode, args ...string) finished {
	w.t.Helper()
	f := w.run(args...)
	if f.code != code {
		w.t.Fatalf("sdr-sync %s: want exit %d, got %s", strings.Join(args, " "), code, f)
	}
	return f
}

// backfill pulls all that the vendor has up to someday.
func (w *world) backfill(more ...string) []string {
	return append([]string{"backfill", "--from", "2024-01", "--to", "2024-04", "--today", someday}, more...)
}

// inProcess calls execute as main does.
func inProcess(t testing.TB, ctx context.Context, args []string) finished {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	folder := t.TempDir()
	stdout, stderr := create(t, filepath.Join(folder, "out")), create(t, filepath.Join(folder, "err"))
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(stdin, stdout, stderr)
	started := time.Now()
	code := execute(ctx, args, stdin, stdout, stderr)
	f := finished{code, read(t, stdout.Name()), read(t, stderr.Name()), time.Since(started)}
	hides(t, args, f)
	return f
}

// hides complains if a secret of the worlds shows in what a command printed. The stand-in's own command has to tell them.
func hides(t testing.TB, args []string, f finished) {
	t.Helper()
	if slices.Contains(args, "sandbox") {
		return
	}
	for _, secret := range []string{sandbox.DefaultPassword, sandbox.DefaultSecretKey} {
		if strings.Contains(f.out+f.err, secret) {
			t.Errorf("%q shows in what %q prints: %s", secret, args, f)
		}
	}
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close() // read or written already
	}
}

func create(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// process is the program as a process of its own.
type process struct {
	t       testing.TB
	cmd     *exec.Cmd
	started time.Time
	out     string        // file with its standard output
	err     string        // file with its standard error
	done    chan struct{} // closed when it has ended
}

// start starts one command as a process of its own. It is killed with the test.
func (w *world) start(args ...string) *process {
	w.t.Helper()
	return start(w.t, nil, append([]string{"--config", w.configure()}, args...))
}

func start(t testing.TB, environ, args []string) *process {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	p := &process{
		t: t, cmd: exec.Command(path, args...), started: time.Now(), out: filepath.Join(folder, "out"), err: filepath.Join(folder, "err"),
		done: make(chan struct{}),
	}
	stdout, stderr := create(t, p.out), create(t, p.err)
	defer closeAll(stdout, stderr)
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	p.cmd.Env = append(append(os.Environ(), asProgram+"=1"), environ...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is in ProcessState
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
	})
	return p
}

// signal sends a signal, if the process is still there.
func (p *process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("send %s: %v", s, err)
	}
}

// kill is kill -9. It returns when the process is gone and tells whether the kill was what ended it.
func (p *process) kill() bool {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// wait waits until the process ends by itself.
func (p *process) wait() finished {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.signal(syscall.SIGQUIT) // Go then says where it hangs
		<-p.done
		p.t.Fatalf("the program did not end within %s\n%s", patience, read(p.t, p.err))
	}
	f := finished{exitCode(p.cmd.ProcessState.ExitCode()), read(p.t, p.out), read(p.t, p.err), time.Since(p.started)}
	hides(p.t, p.cmd.Args, f)
	return f
}

// ended tells whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// gate stands in front of the vendor, counts its calls and lets tests step in before or after the k-th of an endpoint, or answer instead.
type gate struct {
	vendor http.Handler

	mu      sync.Mutex
	calls   map[sandbox.Endpoint]int
	steps   []step
	instead map[sandbox.Endpoint]http.HandlerFunc
}

// step is something to do around one call.
type step struct {
	endpoint sandbox.Endpoint
	call     int // from 1
	after    bool
	do       func()
}

// before does something when the k-th call of an endpoint has come in, ahead of its answer.
func (g *gate) before(e sandbox.Endpoint, call int, do func()) { g.add(step{e, call, false, do}) }

// after does something when the k-th call of an endpoint has been answered.
func (g *gate) after(e sandbox.Endpoint, call int, do func()) { g.add(step{e, call, true, do}) }

func (g *gate) add(s step) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.steps = append(g.steps, s)
}

// count says how often an endpoint was called.
func (g *gate) count(e sandbox.Endpoint) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls[e]
}

func endpointOf(r *http.Request) sandbox.Endpoint {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/auth/tokens"):
		return sandbox.EndpointToken
	case strings.HasSuffix(path, "/query-jobs"):
		return sandbox.EndpointCreate
	case strings.HasSuffix(path, "/sdr"):
		return sandbox.EndpointPage
	case strings.Contains(path, "/query-jobs/"):
		return sandbox.EndpointPoll
	default:
		return listEndpointOf(path)
	}
}

// ServeHTTP passes a call on to the vendor.
func (g *gate) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	e := endpointOf(r)
	g.mu.Lock()
	g.calls[e]++
	var first, last []func()
	answer := g.vendor.ServeHTTP
	if g.instead[e] != nil {
		answer = g.instead[e]
	}
	for _, s := range g.steps {
		switch {
		case s.endpoint != e || s.call != g.calls[e]:
		case s.after:
			last = append(last, s.do)
		default:
			first = append(first, s.do)
		}
	}
	g.mu.Unlock()
	for _, do := range first {
		do()
	}
	answer(rw, r)
	if len(last) > 0 {
		_ = http.NewResponseController(rw).Flush() // the answer is on its way before anything is done
	}
	for _, do := range last {
		do()
	}
}

// template is the migrated database that those of the tests are copies of.
var template struct {
	once sync.Once
	err  error
}

const templateName = "e2e_template"

// newDatabase makes a migrated database and returns its URL as a plain writer and as the superuser.
func newDatabase(t testing.TB) (writer, admin string) {
	t.Helper()
	server := pgtest.Server(t)
	template.once.Do(func() {
		template.err = makeTemplate(t, server.URL("postgres", "postgres"), server.URL("postgres", templateName))
	})
	if template.err != nil {
		t.Fatal(template.err)
	}
	name := fmt.Sprintf("e2e_%d_%d", os.Getpid(), time.Now().UnixNano())
	administer(t, server.URL("postgres", "postgres"), "CREATE DATABASE "+name+" TEMPLATE "+templateName)
	t.Cleanup(func() { administer(t, server.URL("postgres", "postgres"), "DROP DATABASE "+name+" WITH (FORCE)") })
	return server.URL(privateLogin, name), server.URL("postgres", name)
}

// makeTemplate migrates with the program's own command.
func makeTemplate(t testing.TB, maintenance, url string) error {
	administer(t, maintenance, "CREATE DATABASE "+templateName)
	path := filepath.Join(t.TempDir(), "template.yaml")
	if err := os.WriteFile(path, []byte(fmt.Sprintf("postgres: {url: %q}\n", url)), 0o600); err != nil {
		return err
	}
	if f := inProcess(t, context.Background(), []string{"--config", path, "migrate"}); f.code != exitOK {
		return fmt.Errorf("migrate: %s", f)
	}
	administer(t, maintenance, "CREATE ROLE "+privateLogin+" LOGIN", "GRANT sdr_sync_writer TO "+privateLogin)
	return nil
}

// administer runs statements, each on its own, over a connection of its own.
func administer(t testing.TB, url string, statements ...string) {
	t.Helper()
	conn := connect(t, url)
	defer func() { _ = conn.Close(context.Background()) }()
	for _, s := range statements {
		if _, err := conn.Exec(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// connect opens a connection. Close it before the test ends, or its database can't be copied.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// ask returns the rows of a query as the superuser, each as its columns' text.
func (w *world) ask(query string, args ...any) [][]string {
	w.t.Helper()
	conn := connect(w.t, w.admin)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(context.Background(), query, append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)...)
	if err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var all [][]string
	for rows.Next() {
		var row []string
		for _, v := range rows.RawValues() {
			row = append(row, string(v))
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return all
}

// one returns the one value that a query gives.
func (w *world) one(query string, args ...any) string {
	w.t.Helper()
	rows := w.ask(query, args...)
	if len(rows) != 1 || len(rows[0]) != 1 {
		w.t.Fatalf("%s: got %v, want one value", query, rows)
	}
	return rows[0][0]
}

// until waits for something that gives no sign when it happens. give tells what was waited for in vain.
func until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for !happened() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

// contains complains unless text has every one of the parts.
func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}

// fault sets faults, by their text form.
func (w *world) fault(text string) {
	w.t.Helper()
	faults, err := sandbox.ParseFaults(text)
	if err == nil {
		err = w.vendor.SetFaults(faults...)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// dateOf turns a date of a test into the program's.
func dateOf(text string) pipeline.Date { return record.DateOf(date(text), time.UTC) }
