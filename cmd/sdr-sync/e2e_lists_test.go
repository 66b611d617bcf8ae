package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// The nightly runs of most tests of lists: the month to date of what is pulled by month, two days of what is pulled by day.
const listDay = "2024-04-04"

// newListWorld makes a world in which every system of the vendor's is configured and holds a little of everything.
func newListWorld(t testing.TB, change ...func(*sandbox.Config)) *world {
	t.Helper()
	w := newWorld(t, 12, append([]func(*sandbox.Config){func(c *sandbox.Config) {
		c.Subscriptions, c.Devices, c.EventsPerDay, c.BadEvery = 60, 10, 6, 0
	}}, change...)...)
	w.today.set(listDay)
	w.settings["sync.lookback"] = "2d"
	w.withLists()
	return w
}

// withLists configures the systems that lists are read from, and what one of them is asked by.
func (w *world) withLists() {
	url := w.settings["esm.endpoint"]
	maps.Copy(w.settings, map[string]string{
		"bss.endpoint": url, "bss.domain_id": sandbox.DefaultDomainID, "bms.endpoint": url, "bms.project_id": sandbox.DefaultProjectID,
		"esm.share_ids": "[" + sandbox.DefaultShareID + "]",
	})
}

// nightly is the command for a night, of the streams if any are named.
func nightly(today string, streams ...string) []string {
	args := []string{"nightly", "--today", today}
	if len(streams) > 0 {
		args = append(args, "--stream", strings.Join(streams, ","))
	}
	return args
}

// lists are the streams that are read from lists and fit.
func lists(fit func(*schemas.Stream) bool) []string {
	var names []string
	for _, s := range schemas.All() {
		if s.IsList() && fit(s) {
			names = append(names, s.Name)
		}
	}
	return names
}

func isWhole(s *schemas.Stream) bool {
	return s.Shape == schemas.Snapshot || s.Shape == schemas.History
}
func isESM(s *schemas.Stream) bool { return s.List.System == "esm" }
func isAny(*schemas.Stream) bool   { return true }

// listEndpointOf finds the stream whose list has the path, and returns the name that the vendor has for its endpoint.
func listEndpointOf(path string) sandbox.Endpoint {
	if strings.Contains(path, "/jobs/") {
		return sandbox.EndpointBMSJob
	}
	for _, s := range schemas.All() {
		if !s.IsList() {
			continue
		}
		for _, l := range append([]schemas.List{*s.List}, s.List.Variants...) {
			if fits(path, l.Path) {
				return endpointName(s.Name, l.API)
			}
		}
	}
	return ""
}

// fits tells whether a path is one of a declaration's, where {name} stands for one segment.
func fits(path, declared string) bool {
	got, want := strings.Split(path, "/"), strings.Split(declared, "/")
	return slices.EqualFunc(got, want, func(g, d string) bool { return g == d || strings.HasPrefix(d, "{") })
}

// endpointName is what the vendor calls the endpoint of a stream.
func endpointName(stream, api string) sandbox.Endpoint {
	switch stream {
	case "subscriptions":
		if api == "v2" {
			return sandbox.EndpointResourcesV2
		}
		return sandbox.EndpointResources
	case "measure_units":
		return sandbox.EndpointMeasurements
	case "bms_servers":
		return sandbox.EndpointBMSServer
	}
	return sandbox.Endpoint(stream)
}

// replaceAnswers lets another handler answer for an endpoint, until forget.
func (g *gate) replaceAnswers(e sandbox.Endpoint, answer http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.instead == nil {
		g.instead = map[sandbox.Endpoint]http.HandlerFunc{}
	}
	g.instead[e] = answer
}

// changeAnswers passes the vendor's answers for an endpoint through change, until forget.
func (g *gate) changeAnswers(e sandbox.Endpoint, change func(r *http.Request, body []byte) []byte) {
	g.replaceAnswers(e, func(rw http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		g.vendor.ServeHTTP(recorded, r)
		rw.WriteHeader(recorded.Code)
		_, _ = rw.Write(change(r, recorded.Body.Bytes()))
	})
}

// fromVendor reads something from the vendor with nothing of the program's own: the JSON behind a path, under a fresh token of the account's
// or, with a project, of the project's.
func fromVendor(t testing.TB, vendor *sandbox.Server, project bool, method, path, body string, header map[string]string) map[string]any {
	t.Helper()
	scope := fmt.Sprintf(`{"domain":{"name":%q}}`, sandbox.DefaultDomain)
	if project {
		scope = fmt.Sprintf(`{"project":{"name":%q}}`, sandbox.DefaultProject)
	}
	call := func(method, path, body string, header map[string]string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		for name, value := range header {
			r.Header.Set(name, value)
		}
		answer := httptest.NewRecorder()
		vendor.Handler().ServeHTTP(answer, r)
		return answer
	}
	token := call(http.MethodPost, "/v3/auth/tokens", fmt.Sprintf(`{"auth":{"identity":{"methods":["password"],"password":{"user":
		{"name":%q,"password":%q,"domain":{"name":%q}}}},"scope":%s}}`, sandbox.DefaultUser, sandbox.DefaultPassword, sandbox.DefaultDomain, scope), nil)
	with := map[string]string{"X-Auth-Token": token.Header().Get("X-Subject-Token")}
	maps.Copy(with, header)
	answer := call(method, path, body, with)
	dec := json.NewDecoder(answer.Body)
	dec.UseNumber()
	var value map[string]any
	if err := dec.Decode(&value); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%s %s: status %d, %v", method, path, answer.Code, err)
	}
	return value
}

// dictionary reads a whole dictionary in both languages and returns its rows as JSON. All vendors have the same ones, so another is asked
// whose throttles and counters nobody watches.
func (w *world) dictionary(path, items string, query url.Values) (rows []string) {
	w.t.Helper()
	other, err := sandbox.New(sandbox.Config{Resources: 1, Subscriptions: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, language := range []string{"en_US", "zh_CN"} {
		for offset := 0; ; offset += 100 {
			q := url.Values{}
			maps.Copy(q, query)
			if items != "measure_units" {
				q.Set("offset", strconv.Itoa(offset))
				q.Set("limit", "100")
			}
			answer := fromVendor(w.t, other, false, http.MethodGet, path+"?"+q.Encode(), "", map[string]string{"X-Language": language})
			found := answer[items].([]any)
			for _, row := range found {
				text, _ := json.Marshal(row) // it came from JSON
				rows = append(rows, language+" "+string(text))
			}
			if len(found) < 100 || items == "measure_units" {
				break
			}
		}
	}
	return rows
}

// listTruth is how many records the vendor holds for a stream where it was pulled, how many more can't be parsed, and the ids of
// the rows where they have any.
func (w *world) listTruth(stream string) (records, rejected int64, ids []string) {
	w.t.Helper()
	switch stream {
	case "subscriptions":
		for _, s := range w.vendor.Subscriptions() {
			ids = append(ids, s.ID)
		}
	case "bms_servers":
		for _, s := range w.vendor.Subscriptions() {
			if s.ResourceTypeCode == "hws.resource.type.pm" {
				ids = append(ids, s.ResourceID)
			}
		}
	case "service_types":
		return int64(len(w.dictionary("/v2/products/service-types", "service_types", nil))), 0, nil
	case "resource_types":
		return int64(len(w.dictionary("/v2/products/resource-types", "resource_types", nil))), 0, nil
	case "usage_types":
		return int64(len(w.dictionary("/v2/products/usage-types", "usage_types", nil))), 0, nil
	case "measure_units":
		return int64(len(w.dictionary("/v2/bases/measurements", "measure_units", nil))), 0, nil
	case "service_resources":
		for _, code := range w.ask(`SELECT cloud_service_type_code FROM billing.sdr UNION SELECT cloud_service_type_code FROM billing.subscription_current`) {
			records += int64(len(w.dictionary("/v2/products/service-resources", "infos", url.Values{"service_type_code": {code[0]}})))
		}
		return records, 0, nil
	default:
		span := w.ask(`SELECT coalesce(min(from_date), '2024-01-01'), coalesce(max(to_date), '2024-01-01') FROM sdr_sync.window WHERE stream = $1`, stream)[0]
		if schemas.ByName(stream).Shape != schemas.Events {
			span = []string{"2024-01-01", "2024-01-01"}
		}
		truth, err := w.vendor.ListTruth(stream, date(span[0]), date(span[1]))
		if err != nil {
			w.t.Fatal(err)
		}
		return truth.Records, truth.Rejected, truth.IDs
	}
	return int64(len(ids)), 0, ids
}

// idColumn is the column that holds what the vendor tells a stream's rows apart by.
var idColumn = map[string]string{
	"subscriptions": "id", "bms_servers": "server_id", "audit_logs": "id", "physical_devices": "device_id", "cloud_service_alarms": "csn",
	"hardware_alarms": "csn", "elbv3": "cluster_id", "host_details": "host_id", "host_vms": "host_id",
}

// present is SQL for the rows of a stream that its newest pull had.
func present(s *schemas.Stream) string {
	if s.Shape == schemas.History {
		return "valid_to IS NULL AND absent_since IS NULL"
	}
	return "true"
}

// listProof compares what the vendor holds of the streams with Postgres, and each row in Postgres with Parquet, column by column. All
// is read with nothing of the program's own.
func (w *world) listProof(streams ...string) {
	w.t.Helper()
	for _, name := range streams {
		s := schemas.ByName(name)
		records, rejected, ids := w.listTruth(name)
		if got := w.one("SELECT count(*) FROM " + s.Table + " WHERE " + present(s)); got != fmt.Sprint(records) {
			w.t.Errorf("%s: got %s rows in Postgres, the vendor holds %d", name, got, records)
		}
		if got := w.one(`SELECT count(*) FROM sdr_sync.quarantine JOIN sdr_sync.window USING (window_id) WHERE stream = $1`, name); got != fmt.Sprint(rejected) {
			w.t.Errorf("%s: got %s rows in the quarantine, the vendor holds %d that can't be parsed", name, got, rejected)
		}
		if ids != nil {
			w.sameIDs(s, ids)
		}
		w.sameInParquet(s)
	}
}

func (w *world) sameIDs(s *schemas.Stream, want []string) {
	w.t.Helper()
	var got []string
	for _, row := range w.ask(fmt.Sprintf("SELECT %s FROM %s WHERE %s", idColumn[s.Name], s.Table, present(s))) {
		got = append(got, row[0])
	}
	want = slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: got the ids %v, the vendor has %v", s.Name, got, want)
	}
}

// sameInParquet complains unless the stream's files hold exactly the rows of its table.
func (w *world) sameInParquet(s *schemas.Stream) {
	w.t.Helper()
	want, got := w.tableRows(s), w.parquetRows(s)
	for row := range merged(want, got) {
		if want[row] != got[row] {
			w.t.Errorf("%s: %d rows in Parquet and %d in Postgres of\n%s", s.Name, got[row], want[row], row)
			return
		}
	}
}

const null = "∅"

// tableRows are the rows of a stream's table as text, and how often each stands there.
func (w *world) tableRows(s *schemas.Stream) map[string]int {
	w.t.Helper()
	var columns []string
	for _, f := range s.Stored().Fields {
		name := fmt.Sprintf("%q", f.Name)
		switch f.Type {
		case schemas.Timestamp:
			name = fmt.Sprintf("(extract(epoch FROM %s) * 1000000)::bigint", name)
		case schemas.Decimal:
			name = fmt.Sprintf("trim_scale(%s)", name)
		}
		columns = append(columns, fmt.Sprintf("coalesce(%s::text, '%s')", name, null))
	}
	rows := map[string]int{}
	for _, row := range w.ask("SELECT " + strings.Join(columns, ", ") + " FROM " + s.Table) {
		for i, f := range s.Stored().Fields {
			row[i] = plainValue(w.t, f, row[i])
		}
		rows[strings.Join(row, "\n")]++
	}
	return rows
}

// plainValue writes values alike that may be spelt in several ways.
func plainValue(t testing.TB, f schemas.Field, text string) string {
	t.Helper()
	if text == null {
		return f.Name + "=" + null
	}
	switch f.Type {
	case schemas.JSON:
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		var value any
		if err := dec.Decode(&value); err != nil {
			t.Fatalf("%s: %v in %q", f.Name, err, text)
		}
		var canonical bytes.Buffer
		enc := json.NewEncoder(&canonical)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(value) // it came from JSON
		text = strings.TrimSpace(canonical.String())
	case schemas.Float:
		number, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		text = strconv.FormatFloat(number, 'g', -1, 64)
	case schemas.UUID:
		text = strings.ReplaceAll(text, "-", "")
	}
	return f.Name + "=" + text
}

// parquetRows are the rows of a stream's files as text, and how often each stands there. It complains about files that hold other numbers of
// rows than the manifest says.
func (w *world) parquetRows(s *schemas.Stream) map[string]int {
	w.t.Helper()
	rows := map[string]int{}
	for _, f := range w.manifest(s.Name).Files {
		count := int64(0)
		readFile(w.t, filepath.Join(w.lake(), f.Path), func(r arrow.Record) {
			count += r.NumRows()
			for i := range int(r.NumRows()) {
				var row []string
				for _, field := range s.Stored().Fields {
					row = append(row, plainValue(w.t, field, cell(w.t, column[arrow.Array](w.t, r, field.Name), i)))
				}
				rows[strings.Join(row, "\n")]++
			}
		})
		if count != f.Rows {
			w.t.Errorf("%s has %d rows, the manifest says %d", f.Path, count, f.Rows)
		}
	}
	return rows
}

// readFile reads every column of a file.
func readFile(t testing.TB, path string, each func(arrow.Record)) {
	t.Helper()
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if f.NumRows() == 0 {
		return // v15 can't read a file without row groups
	}
	reader, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: 4096}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	records, err := reader.GetRecordReader(context.Background(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer records.Release()
	for records.Next() {
		each(records.Record())
	}
	if err := records.Err(); err != nil && err != io.EOF {
		t.Fatal(err)
	}
}

// cell is a value in a Parquet file as text.
func cell(t testing.TB, values arrow.Array, i int) string {
	t.Helper()
	if values.IsNull(i) {
		return null
	}
	switch v := values.(type) {
	case *array.String:
		return v.Value(i)
	case *array.Timestamp:
		return strconv.FormatInt(int64(v.Value(i)), 10)
	case *array.Date32:
		return v.Value(i).ToTime().Format(time.DateOnly)
	case *array.Int32:
		return strconv.Itoa(int(v.Value(i)))
	case *array.Int64:
		return strconv.FormatInt(v.Value(i), 10)
	case *array.Float64:
		return strconv.FormatFloat(v.Value(i), 'g', -1, 64)
	case *array.FixedSizeBinary:
		return hex.EncodeToString(v.Value(i))
	case *array.Decimal128:
		return plain(v.Value(i).BigInt())
	}
	t.Fatalf("no way to read %T", values)
	return ""
}

// pulls counts the pulls of a stream's list in the ledger, and in the snapshot log.
func (w *world) pulls(stream string) string {
	w.t.Helper()
	return w.one(`SELECT (SELECT count(*) FROM sdr_sync.job WHERE stream = $1) || ' ' || (SELECT count(*) FROM billing.snapshot_log WHERE stream = $1)`, stream)
}

// listJobs lists the states of a stream's pulls in their order.
func (w *world) listJobs(stream string) string {
	w.t.Helper()
	return w.one(`SELECT coalesce(string_agg(state, ' ' ORDER BY job_row), '') FROM sdr_sync.job WHERE stream = $1`, stream)
}
