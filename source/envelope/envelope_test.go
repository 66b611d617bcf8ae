package envelope_test

import (
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/source/envelope"
)

func TestRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body   string
		total  string
		code   string
		others bool
		err    string
	}{
		"plain":            {body: `{"total":3,"list":[{"total":4}]}`, total: "3", others: true},
		"other spelling":   {body: ` {"To_Tal":"3"}`, total: `"3"`},
		"escaped key":      {body: `{"\u0074otal":3}`, total: "3"},
		"null":             {body: `{"total":null}`, total: "null"},
		"empty":            {body: `{}`},
		"error":            {body: `{"errorCode":"AS.0001","error_msg":"no"}`, code: "AS.0001"},
		"success for code": {body: `{"error_code":"CBC.0000"}`},
		"twice":            {body: `{"total":3,"Total":4}`, err: `two members "total"`},
		"array":            {body: `[]`, err: "no JSON object"},
		"nothing":          {body: ``, err: "no JSON object"},
	} {
		e, err := envelope.Read([]byte(c.body), "total")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: Read = %v, want an error with %q", name, err, c.err)
			}
			continue
		}
		code, _, failed := e.Error()
		if err != nil || string(e.Member("total")) != c.total || e.HasOthers() != c.others || failed != (c.code != "") || failed && code != c.code {
			t.Errorf("%s: Read = %+v, %v", name, e, err)
		}
	}
}

// An answer that reports an error in any way must not pass for one without records.
func TestError(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{}`: false, `{"error_code":null,"error_msg":null}`: false, `{"error_code":"","error_msg":""}`: false, `{"error_msg":"Success"}`: false,
		`{"error_code":"0","error_msg":"no record found"}`: false, `{"error_code":"00000000","error_msg":"成功"}`: false, `{"error_msg":"查询成功"}`: false,
		`{"error":null}`: false, `{"error":""}`: false, `{"error":false}`: false, `{"error":0}`: false,
		`{"error_msg":"internal error"}`: true, `{"error_code":null,"error_msg":"backend timeout"}`: true, `{"error_code":{},"error_msg":""}`: true,
		`{"error_code":"ESM.","error_msg":"x"}`: true, `{"error_code":"ESM.0001"}`: true, `{"error":{"message":"x"}}`: true, `{"error":"Bad Gateway"}`: true,
		`{"error":true}`: true, `{"error_code":true}`: true,
	} {
		e, err := envelope.Read([]byte(body))
		if _, _, got := e.Error(); err != nil || got != want {
			t.Errorf("%s: an error %t (%v), want %t", body, got, err, want)
		}
	}
}

func TestMeansSuccess(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{
		"": true, "0": true, " ": true, "ESM.": false, ".": false, "00000000": true, "CBC.0000": true, "success": true, "Success": true, "CBC.0999": false, "200": false, "AS.0001": false,
	} {
		if got := envelope.MeansSuccess(code); got != want {
			t.Errorf("MeansSuccess(%q) = %t", code, got)
		}
	}
}

func TestScalar(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]struct {
		text string
		ok   bool
	}{
		`"a\u0062"`: {"ab", true}, `12.50`: {"12.50", true}, `-1`: {"-1", true}, `null`: {"", true}, ``: {"", true}, `true`: {"", false}, `[1]`: {"", false}, `{}`: {"", false},
	} {
		if text, ok := envelope.Scalar([]byte(value)); text != want.text || ok != want.ok {
			t.Errorf("Scalar(%s) = %q, %t", value, text, ok)
		}
	}
}
