package esm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// The envelopes are read by hand: no document fixes the spelling of keys or whether a value is a string, and a page's records must
// not be decoded just to find its marker.

// envelope holds the members of a response that are asked for, by folded name. A member that is absent is nil.
type envelope struct {
	members map[string][]byte
	others  bool // there are members of other names
}

// readEnvelope finds the members called names, and refuses an answer that isn't an object, has one of them twice (which of them
// would be meant?), or reports an error in spite of its status.
func readEnvelope(body []byte, names ...string) (envelope, error) {
	if text := bytes.TrimLeft(body, " \t\r\n"); len(text) == 0 || text[0] != '{' {
		return envelope{}, errors.New("answer is no JSON object")
	}
	e := envelope{members: make(map[string][]byte, len(names)+2)}
	var twice string
	record.Members(body, func(key, value []byte) bool {
		name := fold(key)
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
		return envelope{}, fmt.Errorf("answer has two members %q", twice)
	}
	if code, _ := scalar(e.members["errorcode"]); !meansSuccess(code) {
		message, _ := scalar(e.members["errormsg"])
		return envelope{}, fmt.Errorf("answer reports error %.64q: %.200q", code, message)
	}
	return e, nil
}

// The members of an error (ESM API Reference 3.3), folded.
var errorNames = []string{"errorcode", "errormsg"}

// meansSuccess tells whether an error_code stands for none: Huawei's services write it as "", "0", "00000000" or "CBC.0000".
func meansSuccess(code string) bool {
	return strings.Trim(code[strings.LastIndexByte(code, '.')+1:], "0") == "" || strings.EqualFold(code, "success")
}

// fold returns a member's name without case, underscores, dashes and spaces: job_id, jobId and JobID are one.
func fold(key []byte) string {
	name := string(key)
	if strings.Contains(name, `\`) {
		// A key with escapes; one that can't be unescaped is none of ours.
		_ = json.Unmarshal([]byte(`"`+name+`"`), &name)
	}
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
}

// isNull tells whether a member is absent or null.
func isNull(value []byte) bool { return len(value) == 0 || string(value) == "null" }

// scalar returns a string's text, or a number as it is written; "" for null or absence. ok is false for anything else.
func scalar(value []byte) (text string, ok bool) {
	switch {
	case isNull(value):
		return "", true
	case value[0] == '"':
		err := json.Unmarshal(value, &text)
		return text, err == nil
	case value[0] == '-' || '0' <= value[0] && value[0] <= '9':
		return string(value), true
	}
	return "", false
}

// parseJobID reads CreateQueryJobResponse (ESM API Reference 4.2.1, table 4-2).
func parseJobID(body []byte) (string, error) {
	e, err := readEnvelope(body, "jobid")
	if err != nil {
		return "", err
	}
	id, ok := scalar(e.members["jobid"])
	if !ok {
		return "", errors.New("answer has a job_id that is neither text nor a number")
	}
	if id = strings.TrimSpace(id); id == "" {
		return "", errors.New("answer has no job_id")
	}
	if err := checkJobID(id); err != nil {
		return "", fmt.Errorf("answer has job_id %q: %w", id, err)
	}
	return id, nil
}

// parseStatus reads QueryJobVo (ESM API Reference 4.2.2, table 4-5).
func parseStatus(body []byte) (pipeline.JobStatus, error) {
	e, err := readEnvelope(body, "status", "progress")
	if err != nil {
		return pipeline.JobStatus{}, err
	}
	word, _ := scalar(e.members["status"])
	if word == "" {
		return pipeline.JobStatus{}, errors.New("answer has no status")
	}
	status := pipeline.JobStatus{State: pipeline.JobState(strings.ToLower(strings.TrimSpace(word)))}
	switch status.State {
	case pipeline.JobPending, pipeline.JobRunning, pipeline.JobSuccess, pipeline.JobFailure:
	default:
		status.State = pipeline.JobRunning
	}
	// Only shown to people: what is no number is 0.
	text, _ := scalar(e.members["progress"])
	percent, _ := strconv.ParseFloat(strings.Trim(text, " %"), 64)
	if percent > 0 {
		status.Progress = int(min(percent, 100))
	}
	return status, nil
}

// parsePage reads QueryJobSdrResponse (ESM API Reference 4.2.3, table 4-8). The page's bytes are body's.
func parsePage(body []byte) (pipeline.Page, error) {
	e, err := readEnvelope(body, "data", "marker")
	if err != nil {
		return pipeline.Page{}, err
	}
	data, marker := e.members["data"], e.members["marker"]
	// Both are optional in the document, but an answer of other members alone is no page, and must not pass for the last one.
	if data == nil && marker == nil && e.others {
		return pipeline.Page{}, errors.New("answer has neither data nor marker")
	}
	page := pipeline.Page{Body: body}
	var ok bool
	if page.Next, ok = scalar(marker); !ok {
		return pipeline.Page{}, errors.New("answer has a marker that is neither text nor a number")
	}
	if strings.TrimSpace(page.Next) == "" {
		page.Next = ""
	}
	switch {
	case isNull(data):
	case data[0] != '[':
		return pipeline.Page{}, errors.New("answer has data that is no array")
	case len(bytes.TrimLeft(data[1:], " \t\r\n")) > 1:
		page.Data = data
	}
	return page, nil
}
