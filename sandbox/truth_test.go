package sandbox_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

func gunzip(t *testing.T, packed []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tally sums up rendered records, sharing nothing with the generator: encoding/json, time.Parse and big.Rat.
type tally struct {
	records, noAmount int64
	wrongEnds         int // end_time not within the hour behind begin_time
	rejected          map[string]int64
	days              map[[2]string]*daySum
}

type daySum struct {
	records int64
	sum     big.Rat
}

func (t *tally) add(raw json.RawMessage) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var fields map[string]any
	if err := dec.Decode(&fields); err != nil || fields == nil {
		t.rejected[sandbox.RejectedShape]++
		return
	}
	text := map[string]string{} // by plain key; null, "" and "null" are none
	wrong := map[string]bool{}
	for key, value := range fields {
		key = strings.ToLower(strings.ReplaceAll(key, "_", ""))
		switch v := value.(type) {
		case string:
			if v != "null" {
				text[key] = v
			}
		case json.Number:
			text[key] = v.String()
		case nil:
		default:
			wrong[key] = true
		}
	}
	begin, err := time.Parse("20060102150405", text["begintime"])
	if err != nil || begin.Year() < 2010 || begin.Year() > 2030 {
		t.rejected[sandbox.RejectedBeginTime]++
		return
	}
	var amount big.Rat
	value := text["accumulatefactorvalue"]
	if wrong["accumulatefactorvalue"] || (value != "" && !exact(&amount, value)) {
		t.rejected[sandbox.RejectedAmount]++
		return
	}
	if value == "" {
		t.noAmount++
	}
	t.records++
	if end := text["endtime"]; end != "" {
		at, err := time.Parse("20060102150405", end)
		if long := at.Sub(begin); err != nil || long <= 0 || long > time.Hour {
			t.wrongEnds++
		}
	}
	key := [2]string{begin.Format(time.DateOnly), text["accumulatefactorname"]}
	if t.days[key] == nil {
		t.days[key] = &daySum{}
	}
	t.days[key].records++
	t.days[key].sum.Add(&t.days[key].sum, &amount)
}

// exact reads a decimal that fits numeric(38,12).
func exact(amount *big.Rat, text string) bool {
	if _, ok := amount.SetString(text); !ok || strings.ContainsAny(text, "/_xX") {
		return false
	}
	scaled := new(big.Rat).Mul(amount, big.NewRat(1_000_000_000_000, 1))
	return scaled.IsInt() && new(big.Int).Abs(scaled.Num()).Cmp(new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil)) < 0
}

// compare checks a truth against what was rendered.
func compare(t *testing.T, got sandbox.Truth, records []json.RawMessage) {
	t.Helper()
	want := tally{rejected: map[string]int64{}, days: map[[2]string]*daySum{}}
	for _, raw := range records {
		want.add(raw)
	}
	if got.Records != want.records || got.NoAmount != want.noAmount || fmt.Sprint(got.Rejected) != fmt.Sprint(want.rejected) {
		t.Errorf("got truth of %d records, %d without amount, rejected %v; rendered were %d, %d, %v",
			got.Records, got.NoAmount, got.Rejected, want.records, want.noAmount, want.rejected)
	}
	if got.Records+got.RejectedTotal() != int64(len(records)) {
		t.Errorf("got truth of %d+%d records, rendered were %d", got.Records, got.RejectedTotal(), len(records))
	}
	if want.wrongEnds > 0 {
		t.Errorf("got %d records whose end_time is not within an hour of begin_time", want.wrongEnds)
	}
	if len(got.Days) != len(want.days) {
		t.Errorf("got truth of %d days and factors, rendered were %d", len(got.Days), len(want.days))
	}
	factors := map[string]*daySum{}
	last := ""
	for _, d := range got.Days {
		if order := d.UsageDate + " " + d.Factor; order <= last {
			t.Errorf("day %q stands behind %q", order, last)
		} else {
			last = order
		}
		w := want.days[[2]string{d.UsageDate, d.Factor}]
		var sum big.Rat
		if _, ok := sum.SetString(d.Sum); !ok || w == nil || w.records != d.Records || w.sum.Cmp(&sum) != 0 {
			t.Errorf("got truth %+v, rendered were %+v", d, w)
			continue
		}
		if factors[d.Factor] == nil {
			factors[d.Factor] = &daySum{}
		}
		factors[d.Factor].records += d.Records
		factors[d.Factor].sum.Add(&factors[d.Factor].sum, &sum)
	}
	for name, f := range got.Factors {
		var sum big.Rat
		if _, ok := sum.SetString(f.Sum); !ok || factors[name] == nil || factors[name].records != f.Records || factors[name].sum.Cmp(&sum) != 0 {
			t.Errorf("factor %s: got truth %+v, the days come to %+v", name, f, factors[name])
		}
	}
	if len(factors) != len(got.Factors) {
		t.Errorf("got %d factors, the days have %d", len(got.Factors), len(factors))
	}
}

func TestTruthIsWhatIsRendered(t *testing.T) {
	t.Parallel()
	for i, style := range []sandbox.KeyStyle{sandbox.Snake, sandbox.Camel, sandbox.Pascal, sandbox.Snake} {
		t.Run(fmt.Sprintf("seed %d, %s", i, style), func(t *testing.T) {
			t.Parallel()
			c := oddities(int64(i))
			c.KeyStyle = style
			v := start(t, c).logIn()
			v.server.AdvanceNight()
			v.server.AdvanceNight()
			records := v.records("2024-03-26", "2024-05-01")
			truth := v.server.Truth(sandbox.DefaultSite, sandbox.DefaultRegion, date("2024-03-26"), date("2024-05-01"))
			compare(t, truth, records)
			if truth.Twins == 0 || truth.Late == 0 || truth.Corrections == 0 || truth.NoAmount == 0 || len(truth.Rejected) != 3 || len(truth.Factors) != 5 {
				t.Errorf("got truth %+v, want some of everything", truth)
			}
			var overHTTP sandbox.Truth
			v.want(200, "GET", "/_sandbox/truth?site=hcso-213&region=cn-north-213&from=2024-03-26&to=2024-05-01", "", &overHTTP)
			if fmt.Sprint(overHTTP) != fmt.Sprint(truth) {
				t.Errorf("got truth %+v over HTTP, want %+v", overHTTP, truth)
			}
		})
	}
}

func TestTruthOfDefaults(t *testing.T) {
	t.Parallel()
	c := sandbox.DefaultConfig()
	c.PollsUntilDone = 1
	v := start(t, c).logIn()
	records := v.records("2024-03-01", "2024-03-04")
	compare(t, v.server.Truth("", "", date("2024-03-01"), date("2024-03-04")), records)
	size := 0
	for _, r := range records {
		size += len(r)
	}
	if mean := size / len(records); mean < 780 || mean > 900 {
		t.Errorf("got records of %d bytes on average, want about 840", mean)
	}
}

func TestTruthOfNothing(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{})
	a := v.want(200, "GET", "/_sandbox/truth?from=2025-01-01&to=2025-02-01", "", nil)
	if want := `{"records":0,"rejected":{},"days":[],"factors":{},"no_amount":0,"twins":0,"late":0,"corrections":0,"night":0}`; string(a.body) != want {
		t.Errorf("got %s, want %s", a.body, want)
	}
	v.want(400, "GET", "/_sandbox/truth?from=2025-01-01", "", nil)
}

func TestOdditiesAreRendered(t *testing.T) {
	t.Parallel()
	c := oddities(5)
	c.Resources = 400
	v := start(t, c).logIn()
	all := string(bytesOf(v.records("2024-03-01", "2024-03-04")))
	for name, part := range map[string]string{
		"bare number":      `"accumulate_factor_value":3600,`,
		"padded":           `"3600.000000"`,
		"exponent":         `:36E+2`,
		"null":             `"accumulate_factor_value":null`,
		"null text":        `"accumulate_factor_value":"null"`,
		"empty":            `"accumulate_factor_value":""`,
		"absent":           `{"accumulate_factor_name":"Duration","az_code"`,
		"big":              `"9007199254`,
		"long":             `"3599.999999999999"`,
		"negative":         `"accumulate_factor_value":"-`,
		"Chinese":          `部门=研发`,
		"escapes":          `\u90e8`,
		"unknown field":    `"meteringRegionAlias"`,
		"unknown object":   `"ext_info":{`,
		"end_time":         `"end_time":"2024`,
		"correction":       `"record_type":"30"`,
		"bad begin_time":   `"begin_time":"yesterday"`,
		"old begin_time":   `"begin_time":"2001`,
		"bad amount":       `"accumulate_factor_value":"abc"`,
		"13 decimals":      `"0.0000000000001"`,
		"no object":        "\n17\n",
		"null for a field": `"tag":null`,
	} {
		if !strings.Contains(all, part) {
			t.Errorf("%s: found no %s", name, part)
		}
	}
}

func TestFieldsOfTheSample(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{Resources: 1, PollsUntilDone: 1}).logIn()
	var fields map[string]any
	if err := json.Unmarshal(v.records("2024-03-01", "2024-03-02")[0], &fields); err != nil {
		t.Fatal(err)
	}
	delete(fields, "meteringRegionAlias")
	// The 24 keys of the sample in ESM API Reference (zh) 4.1.12.
	sample := strings.Fields(`accumulate_factor_name accumulate_factor_value az_code begin_time bp_info cloud_service_type_code
		csb_params domain_id domain_name enterprise_project_id error_msg extend_params extend_params2 record_type region_code
		relate_parent_resource relate_root_resource resource_id resource_spec_code resource_type_code site_code tag time_stamp project_id`)
	for _, key := range sample {
		if _, ok := fields[key]; !ok {
			t.Errorf("got no %s", key)
		}
	}
	if len(fields) != len(sample) {
		t.Errorf("got %d fields, want %d", len(fields), len(sample))
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	t.Parallel()
	read := func(seed int64, from, to string) string {
		return string(bytesOf(start(t, oddities(seed)).logIn().records(from, to)))
	}
	whole := read(1, "2024-03-01", "2024-03-05")
	if again := read(1, "2024-03-01", "2024-03-05"); again != whole {
		t.Error("the same seed gave other records")
	}
	if halves := read(1, "2024-03-01", "2024-03-03") + read(1, "2024-03-03", "2024-03-05"); halves != whole {
		t.Error("two jobs of two days gave other records than one of four")
	}
	if other := read(2, "2024-03-01", "2024-03-05"); other == whole {
		t.Error("another seed gave the same records")
	}
}

func TestTwinsAreExact(t *testing.T) {
	t.Parallel()
	v := start(t, oddities(3)).logIn()
	copies := map[string]int{}
	var got int64
	for _, raw := range v.records("2024-03-01", "2024-03-03") {
		if copies[string(raw)]++; copies[string(raw)] > 1 && raw[0] == '{' {
			got++
		}
	}
	truth := v.server.Truth("", "", date("2024-03-01"), date("2024-03-03"))
	// A twin of a record that is no object can't be told from another such record, hence "at most".
	if got == 0 || got > truth.Twins {
		t.Errorf("found %d twins, want at most %d, and some", got, truth.Twins)
	}
}

func TestNight(t *testing.T) {
	t.Parallel()
	v := start(t, oddities(1)).logIn()
	const from, to = "2024-03-25", "2024-04-02"
	before := v.ready(from, to)
	old := string(bytesOf(join(v.drain(before, 200))))
	truth := func() sandbox.Truth { return v.server.Truth("", "", date(from), date(to)) }
	base := truth()

	var night map[string]int
	v.want(200, "POST", "/_sandbox/night", "", &night)
	if night["night"] != 1 || v.server.Night() != 1 {
		t.Errorf("got night %v, want 1", night)
	}
	if string(bytesOf(join(v.drain(before, 200)))) != old {
		t.Error("the night changed a job made before it")
	}
	after := v.records(from, to)
	first := truth()
	compare(t, first, after)
	if first.Records <= base.Records || first.Late <= base.Late || first.Corrections <= base.Corrections {
		t.Errorf("got %d records, %d late, %d corrections after the night; before it %d, %d, %d",
			first.Records, first.Late, first.Corrections, base.Records, base.Late, base.Corrections)
	}
	kept := map[string]int{}
	for _, raw := range after {
		kept[string(raw)]++
	}
	for _, raw := range bytes.Split(bytes.TrimSpace([]byte(old)), []byte("\n")) {
		if kept[string(raw)]--; kept[string(raw)] < 0 {
			t.Fatalf("the night took %s away", raw)
		}
	}
	// Only the last five file dates before today grow.
	if early := v.server.Truth("", "", date(from), date("2024-03-28")); early.Night != 1 || early.Records+early.RejectedTotal() != int64(len(v.records(from, "2024-03-28"))) {
		t.Errorf("got %d records before the last five days", early.Records)
	}
	fresh := start(t, oddities(1))
	if a, b := fresh.server.Truth("", "", date(from), date("2024-03-28")), v.server.Truth("", "", date(from), date("2024-03-28")); a.Records != b.Records {
		t.Errorf("the night added %d records to files older than five days", b.Records-a.Records)
	}
	for _, d := range []string{"2024-03-28", "2024-03-29", "2024-03-30", "2024-03-31", "2024-04-01"} {
		if a, b := fresh.server.Truth("", "", date(d), date(d).AddDate(0, 0, 1)), v.server.Truth("", "", date(d), date(d).AddDate(0, 0, 1)); a.Records >= b.Records {
			t.Errorf("the night added nothing to the file of %s", d)
		}
	}
	// The same nights give the same records, and the second adds others.
	fresh.server.AdvanceNight()
	if got := fresh.server.Truth("", "", date(from), date(to)); fmt.Sprint(got) != fmt.Sprint(first) {
		t.Error("the same night of another server added other records")
	}
	v.server.AdvanceNight()
	if second := truth(); second.Records <= first.Records {
		t.Error("the second night added nothing")
	}
}

func TestResourcesFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ records, days int }{{1_000, 1}, {5_000, 31}, {100_000, 30}, {1_000_000, 31}, {1, 365}} {
		c := sandbox.DefaultConfig()
		c.Resources = sandbox.ResourcesFor(tt.records, tt.days)
		c.Today = func() time.Time { return today }
		s, err := sandbox.New(c)
		if err != nil {
			t.Fatal(err)
		}
		truth := s.Truth("", "", date("2023-01-01"), date("2023-01-01").AddDate(0, 0, tt.days))
		got := int(truth.Records + truth.RejectedTotal())
		if c.Resources > 1 && (got < tt.records*9/10 || got > tt.records*11/10) {
			t.Errorf("%d records in %d days: got %d", tt.records, tt.days, got)
		}
	}
}

func TestListenAndServe(t *testing.T) {
	t.Parallel()
	s, err := sandbox.New(sandbox.Config{Faults: []sandbox.Fault{{Endpoint: sandbox.EndpointToken, Kind: sandbox.FaultStall}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	urls, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- s.ListenAndServe(ctx, "127.0.0.1:0", func(url string) { urls <- url }) }()
	url := <-urls
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url + "/_sandbox/stats")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	// A call that is being held must not keep the server from ending.
	held, sent := make(chan error, 1), make(chan struct{})
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(sent) }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", url+"/v3/auth/tokens", strings.NewReader(login))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		held <- err
	}()
	<-sent
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want nil at the end of ctx", err)
	}
	if err := <-held; err == nil {
		t.Error("the held call was answered")
	}
	if err := s.ListenAndServe(t.Context(), "256.0.0.1:0", nil); err == nil {
		t.Error("got no error for an address that is none")
	}
}
