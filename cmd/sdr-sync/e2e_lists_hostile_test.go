package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/schemas"
)

func schemaOf(stream string) *schemas.Stream { return schemas.ByName(stream) }

// What lists say comes from elsewhere: no text of theirs means anything to SQL, to a path, to a header or to a file.
func TestListsHostileTexts(t *testing.T) {
	t.Parallel()
	hostile := []string{
		`'; DROP TABLE billing.subscription; --`, `"quoted" \ back`, "../../../../etc/passwd", "..", ".", "%2e%2e%2f", "a/b", "a?b=c&d=e#f", "a b+c",
		"{domain_id}", "line\r\nX-Evil: 1", "tab\there", "\u202eright to left", "名字😀", "$1", `\N`, "NaN", strings.Repeat("x", 300), "nul\x00byte", "\xff\xfe",
	}
	w := newListWorld(t)
	rows := func(r *http.Request, body []byte) []byte {
		if r.URL.Query().Get("page_no") != "1" {
			return body
		}
		var answer struct {
			Data  []map[string]any `json:"data"`
			Total int              `json:"total_count"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Error(err)
		}
		for i, text := range hostile {
			row := answer.Data[i]
			row["id"], row["resource_name"], row["region_code"] = text, text, text
			row["cloud_service_type_code"], row["resource_type_code"] = text, text
			if i%2 == 0 { // a bare metal server of that id
				row["cloud_service_type_code"], row["resource_id"] = "hws.service.type.bms", text
			}
			row["extra "+text] = map[string]any{text: text}
		}
		changed, err := json.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		// json.Marshal has made something else of these bytes.
		return []byte(strings.ReplaceAll(string(changed), `\ufffd\ufffd`, "\xff\xfe"))
	}
	w.gate.changeAnswers(sandbox.EndpointResources, rows)
	var mu sync.Mutex
	var uris []string
	vendor := w.gate.vendor
	w.gate.vendor = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		uris = append(uris, r.RequestURI)
		if r.Header.Get("X-Evil") != "" {
			t.Errorf("a text became a header of %s", r.RequestURI)
		}
		mu.Unlock()
		vendor.ServeHTTP(rw, r)
	})
	f := w.want(exitOK, nightly(listDay, "subscriptions", "service_resources", "bms_servers")...)
	w.want(exitOK, "verify")
	w.sameInParquet(schemaOf("subscriptions"))

	stored := map[string]bool{}
	for _, row := range w.ask(`SELECT id FROM billing.subscription_current WHERE resource_name = id AND region_code = id`) {
		stored[row[0]] = true
	}
	quarantined := w.one(`SELECT coalesce(string_agg(reason || ' ' || field, ', ' ORDER BY reason, field), '') FROM sdr_sync.quarantine`)
	for _, text := range hostile {
		bad := strings.ContainsRune(text, 0) || text == "\xff\xfe" // no text of Postgres'
		if stored[text] == bad {
			t.Errorf("%q: stored as it is %t, want %t; quarantined: %s", text, stored[text], !bad, quarantined)
		}
	}
	if n := w.one(`SELECT count(*) + (SELECT count(*) FROM sdr_sync.quarantine) FROM billing.subscription_current`); n != "60" {
		t.Errorf("%s rows stand or are quarantined, want 60", n)
	}

	// Each call is of an API that was meant, and of a value that came.
	mu.Lock()
	called := slices.Clone(uris)
	mu.Unlock()
	asked := map[string]bool{}
	for _, uri := range called {
		path, query, _ := strings.Cut(uri, "?")
		const servers = "/v1/" + sandbox.DefaultProjectID + "/baremetalservers/"
		switch {
		case path == "/v3/auth/tokens", strings.HasSuffix(path, "/common/order-mgr/resources/detail"):
		case path == "/v2/products/service-resources":
			values, err := url.ParseQuery(query)
			code := values.Get("service_type_code")
			if err != nil || len(values) != 3 || !strings.HasPrefix(code, "hws.service.type.") && !slices.Contains(hostile, code) {
				t.Errorf("asked for %s: %v", uri, err)
			}
			asked[code] = true
		case strings.HasPrefix(path, servers):
			id, err := url.PathUnescape(strings.TrimPrefix(path, servers))
			if err != nil || strings.Contains(strings.TrimPrefix(path, servers), "/") || id == ".." || id == "." || query != "" {
				t.Errorf("asked for %s: %v", uri, err)
			}
			asked[id] = true
		default:
			t.Errorf("asked for %s", uri)
		}
	}
	for _, text := range []string{`'; DROP TABLE billing.subscription; --`, `"quoted" \ back`, "%2e%2e%2f", "../../../../etc/passwd", "a/b", "a?b=c&d=e#f", "{domain_id}", "a b+c", "名字😀"} {
		if !asked[text] {
			t.Errorf("never asked by %q; %s", text, f)
		}
	}
	before := w.fingerprint()
	contains(t, w.want(exitOK, nightly(listDay, "subscriptions", "service_resources", "bms_servers")...).out, "nothing changed")
	sameAs(t, "the second run", before, w.fingerprint())
	for _, args := range [][]string{{"streams"}, {"status"}, {"dictionary", "unmapped"}, {"quarantine", "list"}, {"quarantine", "list", "--output", "json"}} {
		f := w.want(exitOK, args...)
		if strings.ContainsAny(f.out, "\x00\r") {
			t.Errorf("%v prints control characters: %q", args, f.out)
		}
	}
}

// Ids of one list are what another is asked by: hostile ones go as one parameter, and what the vendor refuses is skipped with a note.
func TestListsHostileIDs(t *testing.T) {
	t.Parallel()
	w := newListWorld(t)
	hostile := []string{"x&begin_time=0", "../x", "a#b", `"`, "h\x00st"}
	w.gate.changeAnswers(sandbox.EndpointPhysicalDevices, func(r *http.Request, body []byte) []byte {
		if r.URL.Query().Get("offset_value") != "0" {
			return body
		}
		var answer map[string]any
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Error(err)
		}
		for i, row := range answer["list"].([]any)[:len(hostile)] {
			row.(map[string]any)["device_id"] = hostile[i]
		}
		changed, err := json.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		return changed
	})
	var mu sync.Mutex
	asked := map[string]int{}
	vendor := w.gate.vendor
	w.gate.vendor = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if values := r.URL.Query()["host_id"]; values != nil {
			asked[fmt.Sprint(len(values), " ", values[0])]++
			if begin := r.URL.Query()["begin_time"]; len(begin) > 1 || len(begin) == 1 && begin[0] == "0" {
				t.Errorf("an id became a parameter: %s", r.RequestURI)
			}
		}
		mu.Unlock()
		vendor.ServeHTTP(rw, r)
	})
	w.want(exitOK, nightly(listDay, "physical_devices", "host_vms", "host_metrics")...)
	if got := fmt.Sprint(w.ask(`SELECT reason, field FROM sdr_sync.quarantine`)); got != "[[nul_character device_id]]" {
		t.Errorf("quarantine: %s", got)
	}
	mu.Lock()
	for _, id := range hostile[:4] {
		if asked["1 "+id] == 0 {
			t.Errorf("never asked by %q: %v", id, asked)
		}
	}
	mu.Unlock()
	for _, name := range []string{"physical_devices", "host_vms", "host_metrics"} {
		w.sameInParquet(schemaOf(name))
	}
	w.want(exitOK, "verify")
}
