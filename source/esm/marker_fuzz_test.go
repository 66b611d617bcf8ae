package esm_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/source"
	"github.com/sdr-sync/sdr-sync/source/esm"
)

// FuzzMarker: the marker that a page names is sent back as it came, and no two markers of the vendor become one. value is its JSON.
func FuzzMarker(f *testing.F) {
	for _, seed := range []string{`"a+b/=="`, `""`, `" "`, `"\u00fc\u0000\n"`, `12345678901234567890`, `1e2`, `"\ud83d\ude00"`, `"\ud800"`, `null`, `true`, `"\/<>&"`} {
		f.Add([]byte(seed))
	}
	var sent atomic.Pointer[[]byte]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct{ Marker json.RawMessage }
		if err := json.NewDecoder(r.Body).Decode(&request); err == nil {
			marker := []byte(request.Marker)
			sent.Store(&marker)
		}
		fmt.Fprint(w, `{"data":[]}`)
	}))
	f.Cleanup(server.Close)
	transport, err := source.New(source.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(transport.Close)
	client, err := esm.New(transport, fixed("t"), esm.Config{Endpoint: server.URL, DomainID: domain})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		body := fmt.Appendf(nil, `{"data":[],"marker":%s}`, value)
		if record.Validate(body) != nil {
			return
		}
		page, err := esm.ParsePage(body)
		if err != nil || page.Next == "" {
			return
		}
		sent.Store(nil)
		answer, err := client.Page(t.Context(), "j", page.Next)
		if err != nil {
			t.Fatalf("the marker %s can't be asked for: %v", value, err)
		}
		answer.Release()
		var want, got string
		if json.Unmarshal(value, &want) != nil {
			want = page.Next // a number, as it stands
		}
		if err := json.Unmarshal(*sent.Load(), &got); err != nil || got != want {
			t.Errorf("the marker %s is sent as %s (%v)", value, *sent.Load(), err)
		}
	})
}
