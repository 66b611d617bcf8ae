package main

import (
	"bytes"
	"crypto/rand"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/sink/postgres/pgtest"
)

// hostileTexts mean something to SQL, to COPY, to paths, to formats, to shells, to terminals or to spreadsheets. All are proper text.
func hostileTexts() []string {
	return []string{
		`'); DROP TABLE billing.sdr; --`, `"; DROP SCHEMA billing CASCADE; --`, `$1`, `$$`, `$tag$`, `\.`, `\N`, `\\`, `\x41`, `{"a`, `(1,2)`, `%s%n%d`, `%!s(MISSING)`, `${PATH}`,
		"$(reboot)", "`reboot`", "../../../../etc/passwd", "..", "/etc/passwd", "a/b\\c", "C:\\aux", "line\nbreak", "line\r\nX-Evil: 1", "tab\tand\vmore", "\x1b]0;evil\x07\x1b[2J",
		"\u009b2J", "\u202eright to left\u202c", "zero\u200bwidth", "\ufeffmark", "e\u0301 é", "名字😀", "=cmd|'/C calc'!A0", "+1", "-1", "@SUM(1)", "<script>alert(1)</script>", "&lt;",
		"' OR ''='", "0x00", "true", "1e400", "NaN", strings.Repeat("long ", 2000), strings.Repeat("'", 300), "\x7f", "\x01\x02",
	}
}

// The text columns of a metering record in which codes of the vendor's, or names that tenants give, come.
var textColumns = []string{"cloud_service_type_code", "resource_type_code", "resource_spec_code", "resource_id", "accumulate_factor_name", "tag", "domain_name", "enterprise_project_id"}

// Whatever stands in a metering record goes through unharmed and harms nothing: as it is into Postgres and Parquet, into the daily sums, or
// raw into the quarantine; and no list of it obeys what it says.
func TestHostileRecords(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	mark := rand.Text()
	texts := append(hostileTexts(), mark+`'); DROP TABLE billing.sdr; --`)
	statements := w.logStatements()
	const unfit = "nul\x00byte"
	w.gate.changeAnswers(sandbox.EndpointPage, func(r *http.Request, body []byte) []byte {
		var page map[string]any
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		if err := dec.Decode(&page); err != nil {
			t.Error(err)
			return body
		}
		records, _ := page["data"].([]any)
		if len(records) < len(texts)+2 {
			return body
		}
		for i, text := range texts {
			record := records[i].(map[string]any)
			for _, column := range textColumns {
				record[column] = text
			}
			record["extra "+text] = map[string]any{text: []string{text}}
		}
		records[len(texts)].(map[string]any)["resource_id"] = unfit
		bad := records[len(texts)+1].(map[string]any)
		bad["begin_time"], bad["resource_id"] = texts[24], texts[0]
		changed, err := json.Marshal(page)
		if err != nil {
			t.Error(err)
		}
		return changed
	})
	command := nightly(listDay, "sdr")
	f := w.want(exitOK, command...)
	shown(t, "the run", f)
	w.want(exitOK, "verify")
	w.sameInParquet(schemaOf("sdr"))

	for _, column := range textColumns {
		stored := map[string]bool{}
		for _, row := range w.ask("SELECT DISTINCT " + column + " FROM billing.sdr WHERE extra IS NOT NULL") {
			stored[row[0]] = true
		}
		for _, text := range texts {
			if !stored[text] {
				t.Errorf("%s: %.40q is not stored as it came", column, text)
			}
		}
	}
	for _, text := range texts {
		if n := w.one("SELECT count(*) FROM billing.sdr WHERE extra -> ('extra ' || $1::text) -> $1::text ->> 0 = $1", text); n == "0" {
			t.Errorf("%.40q: its unknown field is not in extra", text)
		}
		if n := w.one("SELECT count(*) FROM billing.usage_daily WHERE resource_spec_code = $1 AND cloud_service_type_code = $1", text); n == "0" {
			t.Errorf("%.40q: not in the daily sums", text)
		}
	}
	if got := fmt.Sprint(w.ask("SELECT DISTINCT reason, field FROM sdr_sync.quarantine ORDER BY 1")); got != "[[bad_time begin_time] [nul_character resource_id]]" {
		t.Errorf("quarantine: %s", got)
	}
	for _, args := range [][]string{
		{"quarantine", "list"}, {"quarantine", "list", "--output", "json"}, {"quarantine", "list", "--reason", texts[len(texts)-1]}, {"dictionary", "unmapped"}, {"status"}, {"streams"},
	} {
		shown(t, strings.Join(args, " "), w.want(exitOK, args...))
	}
	row := w.ask("SELECT window_id, raw_hash FROM sdr_sync.quarantine WHERE reason = 'nul_character' LIMIT 1")[0]
	contains(t, w.want(exitOK, "quarantine", "show", row[0], row[1]).out, `nul\u0000byte`)
	shown(t, "show of nothing", w.want(exitUsage, "quarantine", "show", row[0], texts[0]))

	before := w.fingerprint()
	contains(t, w.want(exitOK, command...).out, "unchanged")
	sameAs(t, "the second run", before, w.fingerprint())
	w.want(exitOK, "export", "--all")
	w.want(exitOK, "replay", "--all")
	w.sameInParquet(schemaOf("sdr"))
	if strings.Contains(statements(), mark) {
		t.Error("a text of a record is part of an SQL statement")
	}
	for _, name := range append(files(t, w.lake()), files(t, w.settings["landing.dir"])...) {
		if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }) || strings.Contains(name, "DROP") {
			t.Errorf("a text became a file's name: %q", name)
		}
	}
}

// logStatements has the database server log every statement of the world's database, without parameters, and returns the log's reader.
func (w *world) logStatements() func() string {
	w.t.Helper()
	name := w.one("SELECT current_database()")
	administer(w.t, w.admin, "ALTER DATABASE "+name+" SET log_statement = 'all'", "ALTER DATABASE "+name+" SET log_parameter_max_length = 0",
		"ALTER DATABASE "+name+" SET log_parameter_max_length_on_error = 0", "ALTER DATABASE "+name+" SET log_min_messages = 'log'")
	return func() string {
		w.t.Helper()
		log := read(w.t, filepath.Join(pgtest.Server(w.t).DataDir(), "server.log"))
		if !strings.Contains(log, "COPY ") || !strings.Contains(log, "SELECT sdr_sync.ensure_partition($1") {
			w.t.Error("the server's log has no statements, so it proves nothing")
		}
		return log
	}
}

// shown complains about what a terminal would obey in a command's output.
func shown(t *testing.T, what string, f finished) {
	t.Helper()
	for _, r := range f.out + f.err {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			t.Errorf("%s prints %U: %.2000q", what, r, f.out+f.err)
			return
		}
	}
}

// Names that the operator loads from a file are text too, whatever they look like; what is no text is refused.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	statements := w.logStatements()
	w.want(exitOK, nightly(listDay, "sdr")...)
	mark := rand.Text()
	var content bytes.Buffer
	out := csv.NewWriter(&content)
	lines := [][]string{{"kind", "code", "name_en", "name_zh", "service_type_code"}}
	want := map[string]bool{}
	for _, text := range append(hostileTexts(), mark+`'); --`) {
		text = strings.TrimSpace(strings.ReplaceAll(text, "\r", "")) // as CSV files have it
		lines = append(lines, []string{"resource_type", text, text, "", text})
		want[text] = true
	}
	if err := out.WriteAll(lines); err != nil {
		t.Fatal(err)
	}
	f := w.load(exitOK, content.String())
	shown(t, "dictionary load", f)
	for _, row := range w.ask("SELECT code, name_en, service_type_code FROM sdr_sync.code_name WHERE code = name_en AND code = service_type_code") {
		delete(want, row[0])
	}
	for text := range want {
		t.Errorf("%.40q is not stored as it came", text)
	}
	if strings.Contains(statements(), mark) {
		t.Error("a name is part of an SQL statement")
	}
	for _, bad := range []string{"nul\x00", "\xff\xfe"} {
		f := w.load(exitUsage, fmt.Sprintf("kind,code,name_en,name_zh\nservice_type,%s,x,\n", bad))
		shown(t, "dictionary load", f)
	}
	hostile := filepath.Join(w.dir, "\x1b[2J\u202e.csv")
	if err := os.WriteFile(hostile, []byte("kind\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.want(exitUsage, "dictionary", "load", hostile)
	if n := w.one("SELECT count(*) FROM sdr_sync.code_name"); n != fmt.Sprint(len(lines)-1) {
		t.Errorf("%s names after files that were refused, want %d", n, len(lines)-1)
	}
}

// What the vendor says when it refuses is foreign text too: quoted, cut, and nothing that a terminal or a reader of the log would obey.
func TestHostileRefusals(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	w.settings["http.retry_for"] = "1s"
	for _, endpoint := range []sandbox.Endpoint{sandbox.EndpointToken, sandbox.EndpointCreate, sandbox.EndpointPoll, sandbox.EndpointPage} {
		for _, text := range []string{hostileTexts()[0], "\x1b]0;evil\x07\x1b[2J", "line\r\nsdr-sync: all is well", "\u202eevil\u009b2J", "%s%n%d", strings.Repeat("long ", 20000)} {
			for _, status := range []int{400, 500, 200} {
				w.gate.replaceAnswers(endpoint, func(rw http.ResponseWriter, _ *http.Request) {
					rw.WriteHeader(status)
					if status == 400 {
						body, _ := json.Marshal(map[string]string{"error_code": text, "error_msg": text, "request_id": text})
						_, _ = rw.Write(body)
						return
					}
					_, _ = rw.Write([]byte(text))
				})
				f := w.run(nightly(listDay, "sdr")...)
				what := fmt.Sprintf("%s %d %.20q", endpoint, status, text)
				if f.code == exitOK || f.code == exitInternal {
					t.Errorf("%s: %s", what, f)
				}
				shown(t, what, f)
				if slices.Contains(strings.Split(f.err, "\n"), "sdr-sync: all is well") {
					t.Errorf("%s: the vendor's text stands as a line of ours: %s", what, f)
				}
				if len(f.err) > 20_000 || strings.Contains(f.err, "MISSING") {
					t.Errorf("%s: %d bytes of %.3000s", what, len(f.err), f.err)
				}
			}
		}
	}
}
