// Package envelope reads the outer members of the vendor's answers. It does so by hand: no document fixes the spelling of keys or
// whether a value is a string, and a page's records must not be decoded just to find what stands around them.
package envelope

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// Envelope holds the members of an answer that were asked for.
type Envelope struct {
	members map[string][]byte // by folded name
	others  bool
}

// errorNames are the members of an error (ESM API Reference 3.3; Identity and Access Management writes "error"), folded.
var errorNames = []string{"errorcode", "errormsg", "error"}

// Read finds the members called names, which are folded (see Fold), in the JSON object body, and those of an error. It refuses a body
// that is no object or has a member twice: which of them would be meant? The members are parts of body.
func Read(body []byte, names ...string) (Envelope, error) {
	if text := bytes.TrimLeft(body, " \t\r\n"); len(text) == 0 || text[0] != '{' {
		return Envelope{}, errors.New("answer is no JSON object")
	}
	e := Envelope{members: make(map[string][]byte, len(names)+len(errorNames))}
	var twice string
	record.Members(body, func(key, value []byte) bool {
		name := Fold(key)
		if !slices.Contains(names, name) && !slices.Contains(errorNames, name) {
			e.others = true
			return true
		}
		if _, ok := e.members[name]; ok && !slices.Contains(errorNames, name) {
			twice = name
			return false
		}
		e.members[name] = value
		return true
	})
	if twice != "" {
		return Envelope{}, fmt.Errorf("answer has two members %q", twice)
	}
	return e, nil
}

// Member returns the raw value of the member with the folded name, nil if it is absent.
func (e Envelope) Member(name string) []byte { return e.members[name] }

// HasOthers tells whether the answer has members that were not asked for.
func (e Envelope) HasOthers() bool { return e.others }

// Error returns the error_code and error_msg of an answer that reports an error. ok is false if there is none: the code stands for success, or
// there is neither a code nor a message. A message or an error without a readable code counts: it must not pass for an answer without records.
func (e Envelope) Error() (code, message string, ok bool) {
	code, readable := Scalar(e.members["errorcode"])
	message, _ = Scalar(e.members["errormsg"])
	switch {
	case !readable:
		return "", string(e.members["errorcode"]) + " " + message, true
	case strings.TrimSpace(code) != "":
		return code, message, !MeansSuccess(code)
	case !praises(message):
		return "", message, true
	}
	if text, ok := Scalar(e.members["error"]); !ok && string(e.members["error"]) != "false" || strings.TrimSpace(text) != "" && !MeansSuccess(text) {
		return "", string(e.members["error"]), true
	}
	return "", message, false
}

// MeansSuccess tells whether an error_code stands for none: Huawei's services write it as "", "0", "00000000" or "CBC.0000".
func MeansSuccess(code string) bool {
	code = strings.TrimSpace(code)
	number := code[strings.LastIndexByte(code, '.')+1:]
	return code == "" || number != "" && strings.Trim(number, "0") == "" || strings.EqualFold(code, "success")
}

// IsFine tells whether a return code is one of success: the member "code", which some lists of ESM have and no document explains.
func IsFine(code string) bool {
	code = strings.TrimSpace(code)
	return MeansSuccess(code) || code == "200" || strings.EqualFold(code, "ok")
}

// praises tells whether an error_msg, which came without a code, reports nothing.
func praises(message string) bool {
	message = strings.ToLower(strings.TrimSpace(message))
	return slices.Contains([]string{"", "success", "successful", "succeeded", "ok", "成功", "操作成功", "查询成功"}, message)
}

// Fold returns a member's name without case, underscores, dashes and spaces: job_id, jobId and JobID are one.
func Fold(key []byte) string {
	name := string(key)
	if strings.Contains(name, `\`) {
		// A key with escapes; one that can't be unescaped is none of ours.
		_ = json.Unmarshal([]byte(`"`+name+`"`), &name)
	}
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
}

// IsNull tells whether a member is absent or null.
func IsNull(value []byte) bool { return len(value) == 0 || string(value) == "null" }

// Scalar returns a string's text, or a number as it is written; "" for null or absence. ok is false for anything else.
func Scalar(value []byte) (text string, ok bool) {
	switch {
	case IsNull(value):
		return "", true
	case value[0] == '"':
		err := json.Unmarshal(value, &text)
		return text, err == nil
	case value[0] == '-' || '0' <= value[0] && value[0] <= '9':
		return string(value), true
	}
	return "", false
}
