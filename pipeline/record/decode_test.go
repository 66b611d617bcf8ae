package record_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// sampleRecord returns the one published metering record: ESM API Reference (zh) 4.1.12, as printed.
func sampleRecord(tb testing.TB) []byte {
	tb.Helper()
	body, err := os.ReadFile("../../testdata/esm_external_tenant_resource.json")
	if err != nil {
		tb.Fatal(err)
	}
	var response struct{ List []json.RawMessage }
	if err := json.Unmarshal(body, &response); err != nil || len(response.List) != 1 {
		tb.Fatalf("read the sample: %v, %d records", err, len(response.List))
	}
	return response.List[0]
}

func decode(tb testing.TB, o record.Options, element string) (*record.Row, *record.Reject) {
	tb.Helper()
	row := record.NewRow(schemas.SDR())
	reject := record.NewDecoder(schemas.SDR(), o).Decode([]byte(element), row)
	return row, reject
}

func mustDecode(tb testing.TB, o record.Options, element string) *record.Row {
	tb.Helper()
	row, reject := decode(tb, o, element)
	if reject != nil {
		tb.Fatalf("decode %s: rejected for %+v", element, *reject)
	}
	return row
}

// texts returns the values of a row that are not NULL, by field, as text.
func texts(row *record.Row) map[string]string {
	got := map[string]string{}
	for i, f := range schemas.SDR().Fields {
		switch v := row.Values[i]; {
		case !v.Valid:
		case f.Type == schemas.Timestamp:
			got[f.Name] = time.UnixMicro(v.Int).UTC().Format(time.RFC3339Nano)
		default:
			got[f.Name] = string(v.Bytes)
		}
	}
	return got
}

func TestDecodeSample(t *testing.T) {
	t.Parallel()
	row := mustDecode(t, record.Options{Site: "hcso-213"}, string(sampleRecord(t)))
	want := map[string]string{
		"record_type": "20", "sdr_time": "2024-04-09T23:16:57Z", "site_code": "", "region_code": "cn-north-213",
		"az_code": "cn-north-213a", "domain_id": "d1803845584b4626850ce57a8a020e4f",
		"domain_name": "op_svc_dbss_e9f3e8381583492191a9d0c4ba725333", "project_id": "d1803845584b4626850ce57a8a020emf",
		"enterprise_project_id": "", "cloud_service_type_code": "hws.service.type.ec2", "resource_type_code": "hws.resource.type.vm",
		"resource_spec_code": "ks1.xlarge.2.linux", "resource_id": "f0ae18b6-40d2-4162-9d6a-7697b9b7eacc",
		"begin_time": "2024-03-01T22:00:00Z", "accumulate_factor_name": "Duration", "accumulate_factor_value": "3600",
		"extend_params": "2", "extend_params2": "", "csb_params": "::DBSS-9bae:d8c249f201b34a4eb7f739f3471d1532:", "tag": "",
		"bp_info": "", "error_msg": "", "relate_parent_resource": "", "relate_root_resource": "",
	}
	if got := texts(row); !maps.Equal(got, want) {
		t.Errorf("sample decodes to\n%v, want\n%v", got, want)
	}
	if row.Site != "hcso-213" || row.UsageDate.String() != "2024-03-01" || row.Ordinal != 0 || row.WindowID != 0 {
		t.Errorf("site %q, usage date %s, ordinal %d, window %d", row.Site, row.UsageDate, row.Ordinal, row.WindowID)
	}

	// The hashes are pinned: stored rows carry them, so that a change needs a new HashVersion.
	for _, pin := range []struct {
		name string
		got  record.Hash
		want string
	}{
		{"hash", row.Hash, pinnedHash},
		{"natural key", row.NaturalKey, pinnedNatural},
		{"key", row.Key, "65e24fe0" + pinnedHash[:24]},
	} {
		if got := hex.EncodeToString(pin.got[:]); got != pin.want {
			t.Errorf("%s is %s, want %s", pin.name, got, pin.want)
		}
	}
}

const (
	pinnedHash    = "1ba3faf33fe25d7e8679f1b602874139"
	pinnedNatural = "e2620278f6c120ec6d207ffe230e798a"
)

// TestHashSpecification builds the canonical bytes anew from the sample as schemas/README.md specifies them.
func TestHashSpecification(t *testing.T) {
	t.Parallel()
	row := mustDecode(t, record.Options{Site: "hcso-213"}, strings.Replace(string(sampleRecord(t)), `"tag": ""`, `"tag": null, "b": [1.50], "a": "ü"`, 1))
	text := func(s string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(s))), s...)
	}
	instant := func(s string) []byte {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return binary.BigEndian.AppendUint64([]byte{1, 0, 0, 0, 8}, uint64(at.UnixMicro()))
	}
	null := []byte{0}
	sum := func(parts ...[]byte) record.Hash {
		s := sha256.Sum256(bytes.Join(parts, nil))
		return record.Hash(s[:16])
	}
	content := sum([]byte("sdr/1\n"),
		text("20"), instant("2024-04-09T23:16:57Z"), text(""), text("cn-north-213"), text("cn-north-213a"),
		text("d1803845584b4626850ce57a8a020e4f"), text("op_svc_dbss_e9f3e8381583492191a9d0c4ba725333"), text("d1803845584b4626850ce57a8a020emf"),
		text(""), text("hws.service.type.ec2"), text("hws.resource.type.vm"), text("ks1.xlarge.2.linux"),
		text("f0ae18b6-40d2-4162-9d6a-7697b9b7eacc"), null, instant("2024-03-01T22:00:00Z"), null, text("Duration"), text("3600"),
		text("2"), text(""), text("::DBSS-9bae:d8c249f201b34a4eb7f739f3471d1532:"), null, text(""), text(""), text(""), text(""),
		text(`{"a":"ü","b":[1.5]}`))
	if row.Hash != content {
		t.Errorf("content hash is %x, want %x", row.Hash, content)
	}
	natural := sum([]byte("sdr-natural/1\n"),
		text("hcso-213"), text("cn-north-213"), text("d1803845584b4626850ce57a8a020emf"), text("hws.service.type.ec2"), text("hws.resource.type.vm"),
		text("ks1.xlarge.2.linux"), text("f0ae18b6-40d2-4162-9d6a-7697b9b7eacc"), text("duration"), instant("2024-03-01T22:00:00Z"))
	if row.NaturalKey != natural {
		t.Errorf("natural key is %x, want %x", row.NaturalKey, natural)
	}
	key := append(binary.BigEndian.AppendUint32(nil, 1709330400), content[:12]...)
	if row.Key != record.Hash(key) {
		t.Errorf("key is %x, want %x", row.Key, key)
	}
}

// TestSpellings: one record spelled in all ways that the sibling formats suggest has one hash.
func TestSpellings(t *testing.T) {
	t.Parallel()
	var sample map[string]string
	if err := json.Unmarshal(sampleRecord(t), &sample); err != nil {
		t.Fatal(err)
	}
	want := mustDecode(t, record.Options{Site: "hcso-213"}, string(sampleRecord(t)))
	pascal := func(k string) string {
		var out strings.Builder
		for part := range strings.SplitSeq(k, "_") {
			out.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
		return out.String()
	}
	spell := map[string]func(string) string{
		"camelCase":   func(k string) string { p := pascal(k); return strings.ToLower(p[:1]) + p[1:] },
		"PascalCase":  pascal,
		"UPPER_CASE":  strings.ToUpper,
		"kebab-case":  func(k string) string { return strings.ReplaceAll(k, "_", "-") },
		"with spaces": func(k string) string { return strings.ReplaceAll(pascal(k), "_", " ") },
		"the aliases": func(k string) string {
			alias := map[string]string{
				"region_code": "RegionID", "project_id": "UserID", "csb_params": "BSSParams",
				"cloud_service_type_code": "cloud_service_type", "resource_type_code": "ResourceType",
			}
			if a, ok := alias[k]; ok {
				return a
			}
			return k
		},
	}
	for name, f := range spell {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spelled := map[string]string{}
			for k, v := range sample {
				spelled[f(k)] = v
			}
			element, err := json.Marshal(spelled)
			if err != nil {
				t.Fatal(err)
			}
			got := mustDecode(t, record.Options{Site: "hcso-213"}, string(element))
			if got.Hash != want.Hash || got.NaturalKey != want.NaturalKey {
				t.Errorf("%s decodes to %v, want %v", element, texts(got), texts(want))
			}
		})
	}
}

const begin = `"begin_time":"20240301220000"`

func TestDecodeValues(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		element string // members beside begin_time
		options record.Options
		want    map[string]string // beside begin_time
	}{
		"null, absent and the text null": {element: `"az_code":null,"tag":"null","accumulate_factor_value":"null","sdr_time":"null","bp_info":"nul\u006c"`},
		"empty":                          {element: `"az_code":"","accumulate_factor_value":"","sdr_time":""`, want: map[string]string{"az_code": ""}},
		"no text null":                   {element: `"az_code":"NULL","tag":" null"`, want: map[string]string{"az_code": "NULL", "tag": " null"}},
		"bare numbers in text":           {element: `"record_type":20,"extend_params":1.50,"tag":-1E+3`, want: map[string]string{"record_type": "20", "extend_params": "1.50", "tag": "-1E+3"}},
		"booleans in text":               {element: `"record_type":true,"tag":false`, want: map[string]string{"record_type": "true", "tag": "false"}},
		"structures in text": {
			element: `"extend_params":{"b": 1.0, "a" :[ ]},"tag":[1e2,"\u00fc"]`,
			want:    map[string]string{"extend_params": `{"a":[],"b":1}`, "tag": `[100,"ü"]`},
		},
		"escapes":              {element: `"tag":"a\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00z"`, want: map[string]string{"tag": "a\"\\/\b\f\n\r\tä😀z"}},
		"UTF-8":                {element: `"domain_name":"对外租户 \u5bf9"`, want: map[string]string{"domain_name": "对外租户 对"}},
		"escaped key":          {element: `"\u0074ag":"x"`, want: map[string]string{"tag": "x"}},
		"decimals":             {element: `"accumulate_factor_value":"-0012.5000"`, want: map[string]string{"accumulate_factor_value": "-12.5"}},
		"bare decimal":         {element: `"accumulate_factor_value":3.6e3`, want: map[string]string{"accumulate_factor_value": "3600"}},
		"escaped decimal":      {element: `"accumulate_factor_value":"\u0033600"`, want: map[string]string{"accumulate_factor_value": "3600"}},
		"zero is not NULL":     {element: `"accumulate_factor_value":"-0.000"`, want: map[string]string{"accumulate_factor_value": "0"}},
		"bare time":            {element: `"time_stamp":20240409231657`, want: map[string]string{"sdr_time": "2024-04-09T23:16:57Z"}},
		"unknown keys":         {element: `"zeta":null,"Alpha":{"b":1,"a":[1.0]},"é":"\/"`, want: map[string]string{"extra": `{"Alpha":{"a":[1],"b":1},"zeta":null,"é":"/"}`}},
		"ignored keys":         {options: record.Options{IgnoreFields: []string{"request-id"}}, element: `"requestId":1,"Request_ID":2,"other":3`, want: map[string]string{"extra": `{"other":3}`}},
		"extra is no field":    {element: `"extra":{"a":1}`, want: map[string]string{"extra": `{"extra":{"a":1}}`}},
		"Extra is no field":    {element: `"Extra":"x"`, want: map[string]string{"extra": `{"Extra":"x"}`}},
		"name before alias":    {element: `"region_code":"a","region_id":"b"`, want: map[string]string{"region_code": "a", "extra": `{"region_id":"b"}`}},
		"alias before name":    {element: `"region_id":"b","region_code":"a"`, want: map[string]string{"region_code": "a", "extra": `{"region_id":"b"}`}},
		"name and alias agree": {element: `"region_id":"a","region_code":"\u0061"`, want: map[string]string{"region_code": "a"}},
		"they agree as times":  {element: `"time_stamp":"2024-04-09T23:16:57Z","sdr_time":"20240409231657"`, want: map[string]string{"sdr_time": "2024-04-09T23:16:57Z"}},
		"the alias is no time": {element: `"time_stamp":"soon","sdr_time":"20240409231657"`, want: map[string]string{"sdr_time": "2024-04-09T23:16:57Z", "extra": `{"time_stamp":"soon"}`}},
		"two spellings":        {element: `"regionCode":"a","region_code":"b","RegionCode":"c"`, want: map[string]string{"region_code": "a", "extra": `{"RegionCode":"c","region_code":"b"}`}},
		"alias, alias, name":   {element: `"regionId":"a","region_id":"b","RegionCode":"c"`, want: map[string]string{"region_code": "c", "extra": `{"regionId":"a","region_id":"b"}`}},
		"the name is NULL":     {element: `"region_id":"b","region_code":null`, want: map[string]string{"region_code": "b"}},
		"NULL before an alias": {element: `"region_code":"null","region_id":"b"`, want: map[string]string{"region_code": "b"}},
		"an alias is NULL":     {element: `"region_code":"b","region_id":null`, want: map[string]string{"region_code": "b"}},
		"said twice":           {element: `"tag":"x","tag":"x"`, want: map[string]string{"tag": "x"}},
		"said twice otherwise": {element: `"tag":"x","\u0074ag":"\u0078","q":1.0,"q":1,"accumulate_factor_value":"1","accumulate_factor_value":1.0`, want: map[string]string{"tag": "x", "accumulate_factor_value": "1", "extra": `{"q":1}`}},
		"keys that need care":  {element: `"a\"b":1,"\\u0061":2,"\u0061":3,"":4`, want: map[string]string{"extra": `{"":4,"\\u0061":2,"a":3,"a\"b":1}`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := map[string]string{"begin_time": "2024-03-01T22:00:00Z"}
			maps.Copy(want, test.want)
			for _, element := range []string{"{" + begin + "," + test.element + "}", " {\n" + test.element + " ,\t" + begin + " } "} {
				row := mustDecode(t, test.options, element)
				if got := texts(row); !maps.Equal(got, want) {
					t.Errorf("%s decodes to\n%q, want\n%q", element, got, want)
				}
				for i, v := range row.Values {
					if !v.Valid && (v.Int != 0 || v.Bytes != nil) {
						t.Errorf("%s: NULL in field %d has a value: %+v", element, i, v)
					}
				}
			}
		})
	}
}

func TestDecodeRejects(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	notAfter := record.Options{NotAfter: time.Date(2024, 3, 2, 0, 0, 0, 0, time.UTC)}
	tests := map[string]struct {
		element string
		options record.Options
		reason  string // "" for none
		field   string
	}{
		"no object":              {element: `["a"]`, reason: "not_an_object"},
		"null":                   {element: `null`, reason: "not_an_object"},
		"nothing":                {element: ``, reason: "not_an_object"},
		"torn":                   {element: `{"tag":"x`, reason: "bad_json"},
		"torn after a comma":     {element: `{` + begin + `,`, reason: "bad_json"},
		"something behind":       {element: `{` + begin + `}x`, reason: "bad_json"},
		"no JSON in a text":      {element: `{` + begin + `,"tag":nil}`, reason: "bad_json", field: "tag"},
		"empty object":           {element: `{}`, reason: "missing_begin_time", field: "begin_time"},
		"no begin":               {element: `{"tag":"x"}`, reason: "missing_begin_time", field: "begin_time"},
		"begin is null":          {element: `{"begin_time":null}`, reason: "missing_begin_time", field: "begin_time"},
		"begin is empty":         {element: `{"begin_time":""}`, reason: "missing_begin_time", field: "begin_time"},
		"begin is the text null": {element: `{"begin_time":"null"}`, reason: "missing_begin_time", field: "begin_time"},
		"no date":                {element: `{"begin_time":"20240230000000"}`, reason: "bad_time", field: "begin_time"},
		"bad sdr time":           {element: `{` + begin + `,"time_stamp":"soon"}`, reason: "bad_time", field: "sdr_time"},
		"time is true":           {element: `{` + begin + `,"end_time":true}`, reason: "bad_time", field: "end_time"},
		"last second of 2009":    {element: `{"begin_time":"20091231235959"}`, reason: "begin_time_out_of_range", field: "begin_time"},
		"first second of 2010":   {element: `{"begin_time":"20100101000000"}`},
		"last before the bound":  {element: `{"begin_time":"20240301235959"}`, options: notAfter},
		"on the bound":           {element: `{"begin_time":"20240302000000"}`, options: notAfter, reason: "begin_time_out_of_range", field: "begin_time"},
		"no bound":               {element: `{"begin_time":"99991231235959"}`},
		"no amount":              {element: `{` + begin + `,"accumulate_factor_value":"much"}`, reason: "bad_amount", field: "accumulate_factor_value"},
		"amount is an object":    {element: `{` + begin + `,"accumulate_factor_value":{}}`, reason: "bad_amount", field: "accumulate_factor_value"},
		"amount too large":       {element: `{` + begin + `,"accumulate_factor_value":1e26}`, reason: "amount_out_of_range", field: "accumulate_factor_value"},
		"amount too fine":        {element: `{` + begin + `,"accumulate_factor_value":"0.0000000000001"}`, reason: "amount_out_of_range", field: "accumulate_factor_value"},
		"NUL":                    {element: `{` + begin + `,"tag":"a\u0000"}`, reason: "nul_character", field: "tag"},
		"half a pair":            {element: `{` + begin + `,"tag":"\ud83d"}`, reason: "invalid_utf8", field: "tag"},
		"the other half":         {element: `{` + begin + `,"tag":"\ude00\ud83d"}`, reason: "invalid_utf8", field: "tag"},
		"invalid UTF-8":          {element: `{` + begin + `,"tag":"` + "\xff" + `"}`, reason: "invalid_utf8", field: "tag"},
		"NUL deep in a text":     {element: `{` + begin + `,"tag":["\u0000"]}`, reason: "nul_character", field: "tag"},
		"text nested deep":       {element: `{` + begin + `,"tag":` + deep(65) + `}`, reason: "bad_text", field: "tag"},
		"text nested":            {element: `{` + begin + `,"tag":` + deep(64) + `}`},
		"said twice":             {element: `{` + begin + `,"tag":"x","tag":"y"}`, reason: "duplicate_key", field: "tag"},
		"said thrice":            {element: `{` + begin + `,"tag":"x","tag":"x","tag":""}`, reason: "duplicate_key", field: "tag"},
		"said as null":           {element: `{` + begin + `,"tag":"x","tag":null}`, reason: "duplicate_key", field: "tag"},
		"unknown said twice":     {element: `{` + begin + `,"q":1,"q":"1"}`, reason: "duplicate_key", field: "q"},
		"ignored said twice":     {element: `{` + begin + `,"q":1,"q":2}`, options: record.Options{IgnoreFields: []string{"Q"}}},
		"extra with NUL":         {element: `{` + begin + `,"q":{"a":"\u0000"}}`, reason: "bad_extra", field: "q"},
		"extra nested deep":      {element: `{` + begin + `,"q":` + deep(64) + `}`, reason: "bad_extra", field: "q"},
		"extra nested":           {element: `{` + begin + `,"q":` + deep(63) + `}`},
		"extra with a huge number": {
			element: `{` + begin + `,"q":1e1000}`, reason: "bad_extra", field: "q",
		},
		"key with NUL": {element: `{` + begin + `,"q\u0000":1}`, reason: "bad_extra"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, reject := decode(t, test.options, test.element)
			if reject == nil {
				reject = &record.Reject{RawHash: record.RawHash([]byte(test.element))}
			}
			if reject.Reason != test.reason || reject.Field != test.field {
				t.Errorf("%s is rejected for %q of %q (%s), want %q of %q", test.element, reject.Reason, reject.Field, reject.Detail, test.reason, test.field)
			}
			if sum := sha256.Sum256([]byte(test.element)); reject.RawHash != record.Hash(sum[:16]) {
				t.Errorf("%s: raw hash %x, want %x", test.element, reject.RawHash, sum[:16])
			}
			if test.reason != "" && (reject.Detail == "" || len(reject.Detail) > 600) {
				t.Errorf("%s: detail %q", test.element, reject.Detail)
			}
		})
	}
}

func TestRejectDetailIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("9", 100_000)
	for _, element := range []string{
		`{"begin_time":"` + long + `"}`, `{` + begin + `,"accumulate_factor_value":"` + long + `"}`, `{` + begin + `,"tag":"` + long + `\u0000"}`,
		`{` + begin + `,"q":` + long + `}`, `{"tag":"` + long + `","tag":"` + long + `1"}`, `[` + long, `{"tag":"` + long,
		`{"` + long + `\u0000":1}`,
	} {
		_, reject := decode(t, record.Options{}, element)
		if reject == nil || len(reject.Detail) > 600 {
			t.Errorf("%.60s: reject %.700v", element, reject)
		}
	}
}

func TestDecodeTimes(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	shanghai := time.FixedZone("+08", 8*3600)
	tests := map[string]struct {
		text string
		zone *time.Location
		want string // "" for bad_time
		date string
	}{
		"stamp":                   {"20240301220000", nil, "2024-03-01T22:00:00Z", "2024-03-01"},
		"stamp in a zone":         {"20240301020000", shanghai, "2024-02-29T18:00:00Z", "2024-03-01"},
		"spaced":                  {"2024-03-01 22:00:00", shanghai, "2024-03-01T14:00:00Z", "2024-03-01"},
		"with T":                  {"2024-03-01T22:00:00", nil, "2024-03-01T22:00:00Z", "2024-03-01"},
		"RFC 3339":                {"2024-03-01T22:00:00Z", shanghai, "2024-03-01T22:00:00Z", "2024-03-02"},
		"RFC 3339 with offset":    {"2024-03-01T22:00:00+05:30", nil, "2024-03-01T16:30:00Z", "2024-03-01"},
		"RFC 3339 west":           {"2024-03-01T22:00:00.250-08:00", nil, "2024-03-02T06:00:00.25Z", "2024-03-02"},
		"microseconds":            {"2024-03-01T22:00:00.123456000Z", nil, "2024-03-01T22:00:00.123456Z", "2024-03-01"},
		"nanoseconds":             {"2024-03-01T22:00:00.123456001Z", nil, "", ""},
		"leap day":                {"20240229000000", nil, "2024-02-29T00:00:00Z", "2024-02-29"},
		"leap day of 2100":        {"21000229000000", nil, "", ""},
		"February 30":             {"20240230000000", nil, "", ""},
		"April 31":                {"20240431000000", nil, "", ""},
		"month 13":                {"20241301000000", nil, "", ""},
		"month 0":                 {"20240001000000", nil, "", ""},
		"day 0":                   {"20240300000000", nil, "", ""},
		"hour 24":                 {"20240301240000", nil, "", ""},
		"minute 60":               {"20240301006000", nil, "", ""},
		"leap second":             {"20161231235960", nil, "", ""},
		"13 digits":               {"2024030122000", nil, "", ""},
		"15 digits":               {"202403012200000", nil, "", ""},
		"no digits":               {"2024030122000x", nil, "", ""},
		"spaces around":           {" 20240301220000", nil, "", ""},
		"date":                    {"2024-03-01", nil, "", ""},
		"slashes":                 {"2024/03/01 22:00:00", nil, "", ""},
		"fraction without zone":   {"2024-03-01 22:00:00.0", nil, "", ""},
		"empty fraction":          {"2024-03-01T22:00:00.Z", nil, "", ""},
		"offset without colon":    {"2024-03-01T22:00:00+0800", nil, "", ""},
		"offset of a day":         {"2024-03-01T22:00:00+24:00", nil, "", ""},
		"milliseconds since 1970": {"1709330400000", nil, "", ""},
		"in the spring gap":       {"20240331023000", berlin, "", ""},
		"before the gap":          {"20240331015959", berlin, "2024-03-31T00:59:59Z", "2024-03-31"},
		"after the gap":           {"20240331030000", berlin, "2024-03-31T01:00:00Z", "2024-03-31"},
		"shown twice":             {"20241027023000", berlin, "2024-10-27T00:30:00Z", "2024-10-27"},
		"shown twice, its start":  {"20241027020000", berlin, "2024-10-27T00:00:00Z", "2024-10-27"},
		"after the second":        {"20241027030000", berlin, "2024-10-27T02:00:00Z", "2024-10-27"},
		"winter":                  {"20240101003000", berlin, "2023-12-31T23:30:00Z", "2024-01-01"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row, reject := decode(t, record.Options{SourceZone: test.zone}, `{"begin_time":"`+test.text+`"}`)
			switch {
			case test.want == "" && (reject == nil || reject.Reason != "bad_time"):
				t.Errorf("%s: reject %+v, want bad_time", test.text, reject)
			case test.want != "" && reject != nil:
				t.Errorf("%s: reject %+v", test.text, reject)
			case test.want != "" && (texts(row)["begin_time"] != test.want || row.UsageDate.String() != test.date):
				t.Errorf("%s is %s on %s, want %s on %s", test.text, texts(row)["begin_time"], row.UsageDate, test.want, test.date)
			}
		})
	}
}

// TestEveryDay compares the calendar with the standard library's, through one decoder.
func TestEveryDay(t *testing.T) {
	t.Parallel()
	d, row := record.NewDecoder(schemas.SDR(), record.Options{}), record.NewRow(schemas.SDR())
	for at := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2110; at = at.Add(24*time.Hour + 61*time.Second) {
		if reject := d.Decode(fmt.Appendf(nil, `{"begin_time":%s}`, at.Format("20060102150405")), row); reject != nil {
			t.Fatalf("%s: %+v", at, reject)
		}
		begin := row.Values[schemas.SDR().Index("begin_time")].Int
		if begin != at.UnixMicro() || row.UsageDate != record.DateOf(at, time.UTC) {
			t.Fatalf("%s decodes to %s on %s", at, time.UnixMicro(begin).UTC(), row.UsageDate)
		}
	}
}

// TestReuse decodes records of changing shape with one decoder: nothing of one record may show in the next.
func TestReuse(t *testing.T) {
	t.Parallel()
	elements := []string{
		`{` + begin + `,"tag":"x","q":1,"region_id":"a"}`,
		`{"region_code":"b",` + begin + `,"q":1,"tag":"x","region_id":"a"}`,
		`{` + begin + `}`,
		`{"tag":"\u00fc","q":"\u00fc",` + begin + `}`,
		`{"bad":`,
		`{` + begin + `,"tag":"x","tag":"y"}`,
		`{"accumulate_factor_value":1.50,` + begin + `,"r":{"b":1,"a":2},"q":2}`,
		`{` + begin + `,"regionCode":"b","q":1,"tag":"x","region_id":"b"}`,
		`{"begin_time":"20240302220000"}`,
	}
	d, row := record.NewDecoder(schemas.SDR(), record.Options{}), record.NewRow(schemas.SDR())
	for round := range 3 {
		for i := range elements {
			element := elements[(i*(round+1)+round)%len(elements)]
			want, wantReject := decode(t, record.Options{}, element)
			buf := []byte(element)
			reject := d.Decode(buf, row)
			if (reject == nil) != (wantReject == nil) || reject != nil && *reject != *wantReject {
				t.Fatalf("%s: reject %+v, want %+v", element, reject, wantReject)
			}
			if reject == nil && (row.Hash != want.Hash || row.Key != want.Key || row.UsageDate != want.UsageDate || !maps.Equal(texts(row), texts(want))) {
				t.Fatalf("%s decodes to %v, want %v", element, texts(row), texts(want))
			}
			clear(buf) // a page's memory is used again
		}
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	d, row := record.NewDecoder(schemas.SDR(), record.Options{IgnoreFields: []string{"request_id"}}), record.NewRow(schemas.SDR())
	for _, element := range []string{
		`{` + begin + `,"a":1,"b":1,"requestId":1}`,
		`{` + begin + `,"a":1,"A":1,"accumulate_factor_value":1}`,
		`{"a":1}`, // rejected, but drift all the same
		`{` + begin + `,"region_id":"x","region_code":"x"}`,
		`{` + begin + `,"region_id":"x","region_code":"y","accumulate_factor_value":"null"}`,
		`{` + begin + `,"a":1,"a":1}`,
	} {
		d.Decode([]byte(element), row)
	}
	if got, want := d.Unknown(), map[string]int64{"a": 4, "A": 1, "b": 1, "region_id": 1}; !maps.Equal(got, want) {
		t.Errorf("drift is %v, want %v", got, want)
	}
	if got := d.MissingAmounts(); got != 4 {
		t.Errorf("%d missing amounts, want 4", got)
	}
	for i := range 20_000 {
		if reject := d.Decode(fmt.Appendf(nil, `{%s,"key%d":%d}`, begin, i, i), row); reject != nil {
			t.Fatal(reject)
		}
	}
	d.Decode([]byte(`{`+begin+`,"a":1}`), row)
	got := d.Unknown()
	if len(got) != 1000 || got["a"] != 5 || got["key0"] != 1 {
		t.Errorf("drift has %d keys, a %d times, key0 %d times; want 1000, 5, 1", len(got), got["a"], got["key0"])
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	d, row := record.NewDecoder(schemas.SDR(), record.Options{Site: "s"}), record.NewRow(schemas.SDR())
	elements := slices.Collect(record.Elements(benchPage(t)))
	elements = append(elements, []byte(`{`+begin+`,"z":1.50,"q":{"b":"\u00fc","a":[1e2]},"tag":"\u00fc","accumulate_factor_value":"1.50"}`))
	round := func() {
		for _, element := range elements {
			if reject := d.Decode(element, row); reject != nil {
				t.Fatal(reject)
			}
		}
	}
	round()
	if allocs := testing.AllocsPerRun(10, round); allocs > 0 {
		t.Errorf("%v allocations for %d records, want none", allocs, len(elements))
	}
}

// FuzzDecode: no input makes the decoder panic, what it accepts is normal, and decoding it again by another decoder gives the same.
func FuzzDecode(f *testing.F) {
	f.Add(sampleRecord(f))
	for _, seed := range []string{
		`{` + begin + `,"a":{"b":[1,2.50,"\ud83d\ude00"]},"accumulate_factor_value":"-01.50"}`, `{"region_id":"a","region_code":"b",` + begin + `}`,
		`{"begin_time":"2024-03-01T22:00:00.5+08:00","begin_time":20240301140000}`, `{"tag":"`, `{"tag":"\u0000"}`, `[]`, `{}`,
	} {
		f.Add([]byte(seed))
	}
	s := schemas.SDR()
	d, row := record.NewDecoder(s, record.Options{Site: "s"}), record.NewRow(s)
	f.Fuzz(func(t *testing.T, element []byte) {
		reject := d.Decode(element, row)
		fresh := record.NewRow(s)
		again := record.NewDecoder(s, record.Options{Site: "s"}).Decode(element, fresh)
		if reject != nil || again != nil {
			if reject == nil || again == nil || *reject != *again || reject.Reason == "" {
				t.Fatalf("reject %+v, again %+v", reject, again)
			}
			return
		}
		if row.Hash != fresh.Hash || row.NaturalKey != fresh.NaturalKey || row.Key != fresh.Key {
			t.Fatal("two decoders disagree")
		}
		checkNormal(t, s, row)
	})
}
