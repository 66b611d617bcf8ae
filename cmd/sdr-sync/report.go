package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/schemas"
	"github.com/sdr-sync/sdr-sync/verify"
)

// report is the summary of a run, printed as a table or as JSON.
type report struct {
	Command  string         `json:"command"`
	Run      int64          `json:"run,omitempty"`
	Windows  []windowReport `json:"windows,omitempty"`
	Export   *exportReport  `json:"export,omitempty"`
	Verify   *verify.Report `json:"verify,omitempty"`
	Landing  *verify.Report `json:"landing,omitempty"` // verify --landing
	Source   *verify.Report `json:"source,omitempty"`  // verify --source
	Notes    []string       `json:"notes,omitempty"`   // what a person should know though nothing failed
	Seconds  float64        `json:"seconds"`
	ExitCode exitCode       `json:"exit_code"`
	Message  string         `json:"message"`
}

type windowReport struct {
	Stream string `json:"stream"`
	pipeline.Window
	Status        pipeline.Status   `json:"status"`
	Reason        string            `json:"reason,omitempty"`
	Generation    int               `json:"generation,omitempty"`
	Restated      bool              `json:"restated,omitempty"`
	Records       int64             `json:"records"`
	Inserted      int64             `json:"inserted"`
	Deleted       int64             `json:"deleted"`
	Quarantined   int64             `json:"quarantined"`
	Changes       *pipeline.Changes `json:"changes,omitempty"` // of a list that was read whole
	Pages         int64             `json:"pages"`
	UnknownFields map[string]int64  `json:"unknown_fields,omitempty"`
	Seconds       float64           `json:"seconds"`
}

func (r *report) addWindows(stream *schemas.Stream, results []pipeline.Result) {
	for _, res := range results {
		w := windowReport{
			Stream: stream.Name, Window: res.Window, Status: res.Status, Reason: res.Reason, Generation: res.Outcome.Generation, Restated: res.Outcome.Restated,
			Records: res.Records, Inserted: res.Outcome.Inserted, Deleted: res.Outcome.Deleted, Quarantined: res.Quarantined, Pages: res.Pages,
			UnknownFields: res.Unknown, Seconds: round(res.Duration),
		}
		if res.Err != nil {
			w.Reason = res.Err.Error()
		}
		if res.Window.Unit == pipeline.Whole && res.Err == nil {
			w.Changes = &res.Outcome.Changes
		}
		if res.Same > 0 && (res.Status == pipeline.Published || res.Status == pipeline.Unchanged) {
			r.Notes = append(r.Notes, fmt.Sprintf("%s %s: %d rows are the same as others by all that tells rows apart; the vendor gave them twice and they are published as they are",
				stream.Name, res.Window, res.Same))
		}
		r.Windows = append(r.Windows, w)
	}
}

// finish sets exit code and message.
func (r *report) finish(err error, took time.Duration) {
	r.Seconds, r.ExitCode = round(took), codeOf(err)
	if err != nil {
		r.Message = err.Error()
		return
	}
	r.Message = "everything asked for is published, exported and equal"
	if r.Windows != nil && r.Export != nil && len(r.Export.Partitions) == 0 && !slices.ContainsFunc(r.Windows, func(w windowReport) bool { return w.Status == pipeline.Published }) {
		r.Message = "nothing changed"
	}
}

// windowLabel is what a window is called where several streams are: the metering records' by scope and dates, a list's by its name.
func windowLabel(stream string, w pipeline.Window) string {
	switch {
	case stream == streamSDR:
		return w.String()
	case w.Unit == pipeline.Whole:
		return stream
	}
	return fmt.Sprintf("%s [%s, %s)", stream, w.From, w.To)
}

func (a *app) printReport(r *report) error {
	if a.output == "json" {
		return a.printJSON(r)
	}
	if len(r.Windows) > 0 {
		t := a.table("WINDOW", "STATUS", "GEN", "RECORDS", "NEW", "GONE", "QUARANTINED", "PAGES", "SECONDS")
		for _, w := range r.Windows {
			status := string(w.Status)
			if w.Restated {
				status = "restated"
			}
			t.row(windowLabel(w.Stream, w.Window), status, w.Generation, w.Records, w.Inserted, w.Deleted, w.Quarantined, w.Pages, fmt.Sprintf("%.1f", w.Seconds))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	for _, line := range unknownFields(r.Windows) {
		fmt.Fprintln(a.stdout, line)
	}
	if e := r.Export; e != nil {
		fmt.Fprintf(a.stdout, "export: %d partitions written, %d unchanged, %d rows read (%s)\n", e.Written, e.Unchanged, e.Rows, e.Dir)
	}
	for _, v := range []struct {
		what   string
		report *verify.Report
	}{{"verify: %d records and %d files read again", r.Verify}, {"landing: %d records in %d landing files decoded again", r.Landing}, {"source: %[1]d records drained anew", r.Source}} {
		if v.report == nil {
			continue
		}
		fmt.Fprintf(a.stdout, v.what+", %[3]d differences\n", v.report.Records, v.report.Files, len(v.report.Differences))
		for _, d := range v.report.Differences {
			fmt.Fprintf(a.stdout, "  %s: %s\n    repair: %s\n", d.Where, d.What, d.Repair)
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintln(a.stdout, "note:", note)
	}
	if r.ExitCode == exitOK {
		_, err := fmt.Fprintf(a.stdout, "%s: %s (%.1f s)\n", r.Command, r.Message, r.Seconds)
		return err
	}
	_, err := fmt.Fprintf(a.stderr, "sdr-sync: %s\n", r.Message)
	return err
}

// unknownFields says which fields no document names came in a run's windows.
func unknownFields(windows []windowReport) []string {
	total := map[string]int64{}
	for _, w := range windows {
		for name, n := range w.UnknownFields {
			total[name] += n
		}
	}
	if len(total) == 0 {
		return nil
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(total)) {
		parts = append(parts, fmt.Sprintf("%q (%d records)", name, total[name]))
	}
	return []string{"fields that no document names, kept in the column extra: " + strings.Join(parts, ", ")}
}

func (a *app) printJSON(v any) error {
	a.printed = true
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints aligned columns; numbers stand at the right.
type table struct {
	rows [][]string
	num  []bool
	out  io.Writer
}

func (a *app) table(columns ...string) *table {
	t := &table{out: a.stdout, num: make([]bool, len(columns))}
	t.rows = append(t.rows, columns)
	return t
}

func (t *table) row(cells ...any) {
	var texts []string
	for i, c := range cells {
		switch c.(type) {
		case int, int64, float64:
			t.num[i] = true
		}
		text := fmt.Sprint(c)
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) { // it came from elsewhere, and the terminal would obey it
			text = strconv.Quote(text)
		}
		texts = append(texts, text)
	}
	t.rows = append(t.rows, texts)
}

func (t *table) flush() error {
	width := make([]int, len(t.num))
	for _, row := range t.rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			if t.num[i] {
				fmt.Fprintf(&line, "%*s", width[i], cell)
			} else {
				fmt.Fprintf(&line, "%-*s", width[i], cell)
			}
		}
		if _, err := fmt.Fprintln(t.out, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

func round(d time.Duration) float64 { return float64(d.Round(time.Millisecond)) / float64(time.Second) }
