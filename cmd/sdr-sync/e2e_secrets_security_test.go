package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

// canaries are secrets that nothing but the vendor and the database may ever see. They are looked for in pieces and in every spelling in
// which programs write text.
type canaries struct {
	mu    sync.Mutex
	parts map[int]map[string]string // length of a piece to the piece to what it is of
	heads [1 << 20]bool             // hashes of how pieces begin, to look at little of what is searched
}

func newCanaries() *canaries { return &canaries{parts: map[int]map[string]string{}} }

// head hashes four bytes into the range of heads.
func head(b []byte) uint32 { return binary.LittleEndian.Uint32(b) * 2654435761 >> 12 }

// A piece of this many bytes counts as the secret. Tokens and signatures are of hexadecimal digits mostly, as hashes in our own files are, so
// short pieces of those would be found by chance.
const (
	shortPiece = 8
	longPiece  = 16
)

// plant adds a secret.
func (c *canaries) plant(name, secret string, piece int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	quoted, _ := json.Marshal(secret)
	var unescaped bytes.Buffer
	plain := json.NewEncoder(&unescaped)
	plain.SetEscapeHTML(false)
	_ = plain.Encode(secret) // text always encodes
	spellings := map[string]string{
		"": secret, " in a query": url.QueryEscape(secret), " in a path": url.PathEscape(secret), " as JSON": string(quoted),
		" as plain JSON": strings.Trim(unescaped.String(), "\"\n"), " quoted": strconv.Quote(secret),
	}
	for k := range 3 { // where it stands in the encoded text decides how it looks
		whole := secret[k : k+(len(secret)-k)/3*3]
		spellings[fmt.Sprintf(" as base64 from %d", k)] = base64.StdEncoding.EncodeToString([]byte(whole))
		spellings[fmt.Sprintf(" as base64 of URLs from %d", k)] = base64.URLEncoding.EncodeToString([]byte(whole))
	}
	for spelling, text := range spellings {
		c.add(name+spelling, text, piece)
	}
	c.add(name+" as hex", hex.EncodeToString([]byte(secret)), 2*longPiece)
}

func (c *canaries) add(what, text string, piece int) {
	if c.parts[piece] == nil {
		c.parts[piece] = map[string]string{}
	}
	for i := 0; i+piece <= len(text); i++ {
		c.parts[piece][text[i:i+piece]] = what
		c.heads[head([]byte(text[i:i+4]))] = true
	}
}

// find names the secrets that content has a piece of: as it stands, in what is compressed in it, and in what it has as bytea.
func (c *canaries) find(content []byte) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]bool{}
	for _, text := range append(unpacked(content), content) {
		for i := 0; i+shortPiece <= len(text); i++ {
			if !c.heads[head(text[i:])] {
				continue
			}
			for piece, parts := range c.parts {
				if what, ok := parts[string(text[i:min(i+piece, len(text))])]; ok {
					found[what] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

var byteaText = regexp.MustCompile(`\\x([0-9a-f]{16,})`)

// unpacked returns every zstd frame in content, decoded, and every bytea in it.
func unpacked(content []byte) (all [][]byte) {
	for _, m := range byteaText.FindAllSubmatch(content, -1) {
		if plain, err := hex.DecodeString(string(m[1])); err == nil {
			all = append(all, plain)
		}
	}
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	if !bytes.Contains(content, magic) {
		return all
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	defer decoder.Close()
	for at := 0; ; at++ {
		next := bytes.Index(content[at:], magic)
		if next < 0 {
			return all
		}
		at += next
		plain, _ := decoder.DecodeAll(content[at:], nil) // up to where the frames end and something else begins
		all = append(all, plain)
	}
}

// The search finds what it shall find: without this, all tests below would prove nothing.
func TestCanariesAreFound(t *testing.T) {
	t.Parallel()
	secret := newSecret()
	c := newCanaries()
	c.plant("password", secret, shortPiece)
	packer, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	quoted, _ := json.Marshal(secret)
	for name, content := range map[string]string{
		"whole":          "xx" + secret + "yy",
		"a piece":        secret[7 : 7+shortPiece],
		"the end":        "…" + secret[len(secret)-shortPiece:],
		"query":          url.QueryEscape(secret)[20:40],
		"JSON":           string(quoted),
		"Go syntax":      fmt.Sprintf("%#v", struct{ password string }{secret}),
		"base64":         base64.StdEncoding.EncodeToString([]byte("user:" + secret)),
		"base64 of URLs": base64.RawURLEncoding.EncodeToString([]byte("u:" + secret + "\n")),
		"hex":            fmt.Sprintf("%x", "a"+secret),
		"compressed":     "header" + string(packer.EncodeAll([]byte("body "+secret), nil)) + "trailer",
		"bytea":          fmt.Sprintf(`(1,"\\x%x",2)`, `{"extra":"`+secret[3:20]+`"}`),
	} {
		if len(c.find([]byte(content))) == 0 {
			t.Errorf("%s: not found in %q", name, content)
		}
	}
	if found := c.find([]byte("nothing but [secret] here, and " + secret[:shortPiece-1])); len(found) > 0 {
		t.Errorf("found %v where nothing is", found)
	}
}

// newSecret returns a random secret with all that escapes differently in YAML, JSON, URLs and shells.
func newSecret() string { return rand.Text() + `&"+%<'/ =\$` + rand.Text() }

// secretWorld is a world all of whose secrets are canaries.
type secretWorld struct {
	*world
	canaries *canaries
	skip     map[string]bool // files that hold secrets by right
}

// newSecretWorld makes one. Every system is configured, and BSS by a key pair.
func newSecretWorld(t *testing.T) *secretWorld {
	t.Helper()
	planted := map[string]string{}
	for _, name := range []string{"iam.password", "esm.apig_appcode", "esm.hcso_appcode", "bss.access_key", "bss.secret_key", "postgres.url"} {
		planted[name] = newSecret()
	}
	planted["bss.access_key"] = rand.Text() // of letters and digits, as the vendor's
	planted["bss.secret_key"] = strings.ReplaceAll(planted["bss.secret_key"], " ", "")
	w := &secretWorld{canaries: newCanaries(), skip: map[string]bool{}}
	w.world = newListWorld(t, func(c *sandbox.Config) {
		c.Password, c.APIGAppcode, c.HCSOAppcode = planted["iam.password"], planted["esm.apig_appcode"], planted["esm.hcso_appcode"]
		c.AccessKey, c.SecretKey = planted["bss.access_key"], planted["bss.secret_key"]
		c.BadEvery = 50 // so that there is a quarantine
	})
	for name, secret := range planted {
		w.canaries.plant(name, secret, shortPiece)
		w.settings[name] = secret
	}
	w.settings["postgres.url"] = withPassword(t, w.database, planted["postgres.url"])
	w.settings["http.retry_for"], w.settings["sync.quarantine_max"] = "2s", "100%"
	vendor := w.gate.vendor
	w.gate.vendor = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.seen(r.Header)
		recorded := &watched{ResponseWriter: rw, world: w}
		vendor.ServeHTTP(recorded, r)
	})
	return w
}

// watched learns the tokens that the vendor hands out.
type watched struct {
	http.ResponseWriter
	world *secretWorld
}

func (w *watched) WriteHeader(status int) {
	if token := w.Header().Get("X-Subject-Token"); token != "" {
		w.world.canaries.plant("a token", token, longPiece)
	}
	w.ResponseWriter.WriteHeader(status)
}

// seen learns what a call proves itself by.
func (w *secretWorld) seen(h http.Header) {
	if _, signature, ok := strings.Cut(h.Get("Authorization"), "Signature="); ok {
		w.canaries.plant("a signature", signature, longPiece)
	}
}

func withPassword(t testing.TB, text, password string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String()
}

// silent runs a command and complains about secrets in what it prints.
func (w *secretWorld) silent(args ...string) finished {
	w.t.Helper()
	f := w.run(args...)
	w.clean(strings.Join(args, " "), []byte(f.out+f.err))
	return f
}

// clean complains about secrets in content.
func (w *secretWorld) clean(where string, content []byte) {
	w.t.Helper()
	if found := w.canaries.find(content); len(found) > 0 {
		w.t.Errorf("%s shows %v", where, found)
		w.t.Logf("%.4000q", content)
	}
}

// nowhere complains about secrets in anything that stays: tables, files of ours, the database server's log, and what it says of sessions.
func (w *secretWorld) nowhere() {
	w.t.Helper()
	tables := w.ask(`SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind IN ('r', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
		UNION ALL SELECT unnest(ARRAY['pg_stat_activity', 'pg_description', 'pg_shdescription', 'pg_db_role_setting', 'pg_settings', 'pg_proc', 'pg_authid'])`)
	rows := 0
	for _, table := range tables {
		var text bytes.Buffer
		for _, row := range w.ask("SELECT t::text FROM " + table[0] + " t") {
			rows++
			text.WriteString(row[0] + "\n")
		}
		w.clean("table "+table[0], text.Bytes())
	}
	if rows < 1000 {
		w.t.Errorf("only %d rows of %d tables were searched", rows, len(tables))
	}
	w.clean("the log of the database server", []byte(read(w.t, filepath.Join(pgtest.Server(w.t).DataDir(), "server.log"))))
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		w.clean("the name of a file", []byte(path))
		if d.Type().IsRegular() && !w.skip[path] {
			w.clean(path, []byte(read(w.t, path)))
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

// configure writes the configuration, which holds the secrets by right.
func (w *secretWorld) configure() {
	w.t.Helper()
	w.skip[w.world.configure()] = true
}

// everyCommand is each command that reads the configuration and ends by itself.
func everyCommand() [][]string {
	return [][]string{
		{"doctor"},
		{"status"},
		{"verify"},
		{"export"},
		{"streams"},
		{"quarantine", "list"},
		{"dictionary", "unmapped"},
		{"migrate"},
		{"backfill", "--from", "2024-04", "--to", "2024-04", "--today", listDay, "--plan"},
		{"replay", "--all"},
		nightly(listDay),
	}
}

// Where all goes well: no output in any form, no table, no file has a secret.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	w := newSecretWorld(t)
	w.configure()
	if f := w.silent(append(nightly(listDay), "--verbose")...); f.code != exitOK {
		t.Fatal(f)
	}
	for i, args := range everyCommand() {
		w.silent(append(args, "--verbose", "--output", []string{"json", "text"}[i%2])...)
	}
	for _, args := range everyCommand()[:3] {
		w.silent(args...)
	}
	w.nowhere()
}

// echo answers with everything that the call had, in the spellings that servers use: a misconfigured gateway's idea of help.
func (w *secretWorld) echo(status int) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w.seen(r.Header)
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		var sent []string
		for name, values := range r.Header {
			for _, v := range values {
				sent = append(sent, name+": "+v)
			}
		}
		slices.Sort(sent)
		text := strings.Join(sent, "\n") + "\n" + body.String()
		escaped, _ := json.Marshal(text)
		rw.Header().Set("X-Request-Id", r.Header.Get("X-Auth-Token"))
		switch {
		case status/100 == 3:
			rw.Header().Set("Location", "https://login.example.com/?"+url.Values{"next": {text}}.Encode())
			rw.WriteHeader(status)
		case status == http.StatusBadRequest:
			rw.WriteHeader(status)
			_, _ = fmt.Fprint(rw, url.QueryEscape(text))
		case status == http.StatusOK:
			_, _ = fmt.Fprintf(rw, "<pre>%s</pre>", text)
		case status == http.StatusInternalServerError:
			rw.WriteHeader(status)
			_, _ = fmt.Fprintf(rw, "<pre>%s</pre>", html.EscapeString(text))
		case status == http.StatusNotFound:
			rw.Header().Set("X-Request-Id", base64.URLEncoding.EncodeToString([]byte(r.Header.Get("X-Auth-Token"))))
			rw.WriteHeader(status)
			_, _ = fmt.Fprint(rw, base64.StdEncoding.EncodeToString([]byte(text)))
		case status == http.StatusServiceUnavailable:
			rw.WriteHeader(status)
			_, _ = fmt.Fprint(rw, text)
		default:
			rw.WriteHeader(status)
			_, _ = fmt.Fprintf(rw, `{"error_code":"APIG.0301","error_msg":%s,"request_id":%s}`, escaped, escaped)
		}
	}
}

// Where the vendor refuses, fails or sends elsewhere, and repeats in its answer everything that it was sent: in no error, log or table.
func TestSecretsStaySecretWhenEchoed(t *testing.T) {
	t.Parallel()
	for endpoint, streams := range map[sandbox.Endpoint][]string{
		sandbox.EndpointToken: nil, sandbox.EndpointCreate: {"sdr"}, sandbox.EndpointPoll: {"sdr"}, sandbox.EndpointPage: {"sdr"},
		sandbox.EndpointResources: {"subscriptions"}, sandbox.EndpointServiceTypes: {"service_types"}, sandbox.EndpointAuditLogs: {"audit_logs"},
		sandbox.EndpointBMSServer: {"subscriptions", "bms_servers"},
	} {
		t.Run(string(endpoint), func(t *testing.T) {
			t.Parallel()
			w := newSecretWorld(t)
			w.configure()
			for _, status := range []int{400, 401, 403, 404, 500, 503, 429, 307, 200} {
				w.gate.replaceAnswers(endpoint, w.echo(status))
				before := w.gate.count(endpoint)
				f := w.silent(append(nightly(listDay, streams...), "--verbose", "--output", "json")...)
				if w.gate.count(endpoint) == before {
					t.Fatalf("status %d: the endpoint was never called: %s", status, f)
				}
				if f.code == exitOK || f.code == exitInternal {
					t.Errorf("status %d: %s", status, f)
				}
				if endpoint == sandbox.EndpointToken || endpoint == sandbox.EndpointPoll {
					w.silent("doctor")
				}
			}
			w.gate.instead = nil
			if f := w.silent(nightly(listDay, streams...)...); f.code != exitOK {
				t.Errorf("with a vendor that is well again: %s", f)
			}
			w.silent("status", "--output", "json")
			w.nowhere()
		})
	}
}

// start runs a command as a process of its own, with its secrets in the environment and in files rather than in the configuration.
func (w *secretWorld) start(environ []string, args ...string) *process {
	w.t.Helper()
	config := maps.Clone(w.settings)
	defer func() { w.settings = config }()
	w.settings = maps.Clone(config)
	for i, name := range []string{"iam.password", "esm.apig_appcode", "esm.hcso_appcode", "bss.access_key", "bss.secret_key", "postgres.url"} {
		secret, ok := w.settings[name]
		if !ok {
			continue
		}
		delete(w.settings, name)
		if i%2 == 0 {
			environ = append(environ, envName(name)+"="+secret)
			continue
		}
		path := filepath.Join(w.dir, name)
		if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.skip[path] = true
		environ = append(environ, envName(name)+"_FILE="+path)
	}
	// The file has no secret now, and is searched.
	delete(w.skip, filepath.Join(w.dir, "sdr-sync.yaml"))
	return start(w.t, environ, append([]string{"--config", w.world.configure()}, args...))
}

// While it runs, no process of the machine shows a secret in its arguments; when it panics or is made to show all its goroutines, the
// trace has none.
func TestSecretsStaySecretInProcesses(t *testing.T) {
	t.Parallel()
	t.Run("a dump of all goroutines", func(t *testing.T) {
		t.Parallel()
		w := newSecretWorld(t)
		met, ended := make(chan struct{}), make(chan struct{})
		w.gate.before(sandbox.EndpointPage, 2, func() {
			close(met)
			<-ended
		})
		defer close(ended)
		p := w.start([]string{"GOTRACEBACK=all"}, append(nightly(listDay), "--verbose")...)
		p.await(met)
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil || len(lines) == 0 {
			t.Fatalf("no processes: %v", err)
		}
		own := false
		for _, path := range append(lines, fmt.Sprintf("/proc/%d/comm", p.cmd.Process.Pid)) {
			content, err := os.ReadFile(path)
			if err != nil {
				continue // ended meanwhile
			}
			own = own || path == fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid) && bytes.Contains(content, []byte("nightly"))
			w.clean(path, content)
		}
		if !own {
			t.Error("the program's own arguments were not among those searched")
		}
		if ps, err := exec.LookPath("ps"); err == nil {
			out, err := exec.Command(ps, "-A", "-o", "pid,args").Output()
			if err != nil {
				t.Errorf("ps: %v", err)
			}
			w.clean("ps", out)
		}
		p.signal(syscall.SIGQUIT)
		f := p.wait()
		contains(t, f.err, "goroutine 1 ", "SIGQUIT")
		w.clean("the dump", []byte(f.out+f.err))
	})
	for _, point := range []failpoint.Point{failpoint.TokenAsk, failpoint.PageAnswered, failpoint.PublishBeforeCommit} {
		t.Run("a panic at "+string(point), func(t *testing.T) {
			t.Parallel()
			w := newSecretWorld(t)
			p := w.start([]string{failpoint.Env + "=" + string(point) + "=panic", "GOTRACEBACK=all"}, append(nightly(listDay, "sdr", "subscriptions"), "--verbose")...)
			f := p.wait()
			contains(t, f.err, "panic", "goroutine ")
			w.clean("the trace", []byte(f.out+f.err))
			if f := w.start(nil, nightly(listDay, "sdr", "subscriptions")...).wait(); f.code != exitOK {
				t.Errorf("after the panic: %s", f)
			}
			w.nowhere()
		})
	}
}

// What psql and the private server are started with: no secret of the vendor's is in their environment or arguments.
func TestSecretsStayFromChildren(t *testing.T) {
	t.Parallel()
	w := newSecretWorld(t)
	f := w.start(nil, "psql", "--", "-Atc", `\! cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline`).wait()
	if f.code != exitOK || !strings.Contains(f.out, "PGUSER=") {
		t.Fatalf("psql shows no environment: %s", f)
	}
	// The database's password is psql's to have, by the one way that does not show in a list of processes.
	shown, _, _ := strings.Cut(f.out, "PGPASSWORD=")
	for _, rest := range strings.Split(f.out, "PGPASSWORD=")[1:] {
		_, after, _ := strings.Cut(rest, "\x00")
		shown += after
	}
	w.clean("psql's environment", []byte(shown+f.err))

	private := newSecretWorld(t)
	private.withPrivate()
	if f := private.start(nil, nightly(listDay, "sdr")...).wait(); f.code != exitOK {
		t.Fatal(f)
	}
	release := private.hold()
	defer release()
	pid, _, _ := strings.Cut(read(t, filepath.Join(private.settings["postgres.data_dir"], "data", "postmaster.pid")), "\n")
	for _, name := range []string{"environ", "cmdline"} {
		content, err := os.ReadFile("/proc/" + pid + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		private.clean("the private server's "+name, content)
	}
}

// A configuration that is wrong is quoted, a secret in it never: given in the wrong form, under a wrong name, or in a wrong place.
func TestSecretsStaySecretInWrongConfigurations(t *testing.T) {
	t.Parallel()
	secret := rand.Text() + "-" + rand.Text()
	c := newCanaries()
	c.plant("the secret", secret, shortPiece)
	world := filepath.Join(t.TempDir(), "world-readable")
	if err := os.WriteFile(world, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(world, 0o644); err != nil {
		t.Fatal(err)
	}
	several := filepath.Join(t.TempDir(), "several")
	if err := os.WriteFile(several, []byte("user\n"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"a misspelt key":              "iam: {pasword: " + secret + "}",
		"a misspelt section":          "aim: {password: " + secret + "}",
		"a list":                      "iam: {password: [" + secret + "]}",
		"keys below it":               "iam: {password: {value: " + secret + "}}",
		"twice":                       "iam:\n  password: " + secret + "\n  password: " + secret + "\n",
		"an alias":                    "iam: {password: *" + secret + "}",
		"a tag":                       "iam: {password: !" + secret + " x}",
		"broken behind it":            "iam: {password: " + secret + "\nesm: [",
		"a tab":                       "iam:\n\tpassword: " + secret,
		"in an endpoint":              "iam: {endpoint: 'https://user:" + secret + "@iam.example.com'}",
		"in an endpoint of no scheme": "esm: {endpoint: 'user:" + secret + "@iam.example.com'}",
		"a database of a wrong port":  "postgres: {url: 'postgres://u:" + secret + "@db:port/x'}",
		"a database of no scheme":     "postgres: {url: 'u:" + secret + "@db/x'}",
		"a database of key = value":   "postgres: {url: 'host=db password=" + secret + " port=none'}",
		"a file for all to read":      "iam: {password_file: " + world + "}",
		"a file of several lines":     "iam: {password_file: " + several + "}",
		"half a pair":                 "bss: {access_key: " + secret + "}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := write(t, content)
			for _, args := range [][]string{{"doctor"}, {"nightly"}, {"status", "--output", "json"}, {"migrate", "--verbose"}} {
				f := inProcess(t, t.Context(), append([]string{"--config", path}, args...))
				if f.code == exitOK || f.code == exitInternal {
					t.Errorf("%v: %s", args, f)
				}
				if found := c.find([]byte(f.out + f.err)); len(found) > 0 {
					t.Errorf("%v shows %v: %s", args, found, f)
				}
			}
		})
	}
	t.Run("on the command line", func(t *testing.T) {
		t.Parallel()
		f := inProcess(t, t.Context(), []string{"--config", write(t, ""), "nightly", "--iam.password", secret})
		if f.code != exitUsage || len(c.find([]byte(f.out+f.err))) > 0 {
			t.Error(f)
		}
	})
}

// A database that can't be reached, or refuses, is told of without its password.
func TestDatabasePasswordStaysSecret(t *testing.T) {
	t.Parallel()
	secret := newSecret()
	c := newCanaries()
	c.plant("the password", secret, shortPiece)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, address := range map[string]string{
		"nobody listens": strings.TrimPrefix(closed.URL, "http://"), "no such host": "db.invalid:5432", "refused": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := &url.URL{Scheme: "postgres", User: url.UserPassword("sdr", secret), Host: address, Path: "/billing", RawQuery: "connect_timeout=2&sslmode=disable"}
			if name == "refused" {
				refusing, err := url.Parse(refusingDatabase(t))
				if err != nil {
					t.Fatal(err)
				}
				u.Host = refusing.Host
			}
			path := write(t, fmt.Sprintf("postgres: {url: %q}\n", u))
			for _, args := range [][]string{{"migrate", "--verbose"}, {"doctor"}, {"status", "--output", "json"}, {"psql", "--", "-c", "SELECT 1"}} {
				f := inProcess(t, t.Context(), append([]string{"--config", path}, args...))
				if f.code == exitOK {
					t.Errorf("%v: %s", args, f)
				}
				if found := c.find([]byte(f.out + f.err)); len(found) > 0 {
					t.Errorf("%v shows %v: %s", args, found, f)
				}
			}
		})
	}
}
