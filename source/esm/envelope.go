package esm

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source/envelope"
)

// readEnvelope finds the members called names, and refuses an answer that reports an error in spite of its status.
func readEnvelope(body []byte, names ...string) (envelope.Envelope, error) {
	e, err := envelope.Read(body, names...)
	if err != nil {
		return e, err
	}
	return e, reported(e)
}

// reported is the error that an answer reports, if it does.
func reported(e envelope.Envelope) error {
	if code, message, ok := e.Error(); ok {
		return fmt.Errorf("answer reports error %.64q: %.200q", code, message)
	}
	return nil
}

// parseJobID reads CreateQueryJobResponse (ESM API Reference 4.2.1, table 4-2).
func parseJobID(body []byte) (string, error) {
	e, err := readEnvelope(body, "jobid")
	if err != nil {
		return "", err
	}
	id, ok := envelope.Scalar(e.Member("jobid"))
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
	e, err := envelope.Read(body, "status", "progress")
	if err != nil {
		return pipeline.JobStatus{}, err
	}
	word, _ := envelope.Scalar(e.Member("status"))
	if err := reported(e); err != nil && !strings.EqualFold(strings.TrimSpace(word), string(pipeline.JobFailure)) { // which may well say why
		return pipeline.JobStatus{}, err
	}
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
	text, _ := envelope.Scalar(e.Member("progress"))
	percent, _ := strconv.ParseFloat(strings.Trim(text, " %"), 64)
	if percent > 0 {
		status.Progress = int(min(percent, 100))
	}
	return status, nil
}

// parsePage reads QueryJobSdrResponse (ESM API Reference 4.2.3, table 4-8). The page's bytes are body's.
func parsePage(body []byte) (pipeline.Page, error) {
	e, err := readEnvelope(body, "data", "marker", "code", "msg", "message")
	if err != nil {
		return pipeline.Page{}, err
	}
	data, marker := e.Member("data"), e.Member("marker")
	// Both are optional in the document, but an answer of other members alone is no page, and must not pass for the last one.
	if data == nil && marker == nil && (e.HasOthers() || e.Member("code") != nil || e.Member("msg") != nil || e.Member("message") != nil) {
		return pipeline.Page{}, errors.New("answer has neither data nor marker")
	}
	page := pipeline.Page{Body: body}
	var ok bool
	if page.Next, ok = envelope.Scalar(marker); !ok {
		return pipeline.Page{}, errors.New("answer has a marker that is neither text nor a number")
	}
	if strings.TrimSpace(page.Next) == "" {
		page.Next = ""
	}
	switch {
	case envelope.IsNull(data):
	case data[0] != '[':
		return pipeline.Page{}, errors.New("answer has data that is no array")
	case len(bytes.TrimLeft(data[1:], " \t\r\n")) > 1:
		page.Data = data
	}
	// No document has a return code here. Where it would end the records it is heeded: others of the vendor's lists report failures so.
	if code, ok := envelope.Scalar(e.Member("code")); (page.Next == "" || page.Data == nil) && (!ok || !envelope.IsFine(code)) {
		message, _ := envelope.Scalar(e.Member("msg"))
		if message == "" {
			message, _ = envelope.Scalar(e.Member("message"))
		}
		return pipeline.Page{}, fmt.Errorf("answer has the return code %.64q: %.200q", code, message)
	}
	return page, nil
}
