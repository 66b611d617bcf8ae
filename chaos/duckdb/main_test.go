package main

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A lake that is the truth passes; one that lost, doubled or changed a record does not.
func TestCompare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, truth string
		keys        []string
		wrong       int
	}{
		{"equal", `{"days":[{"usage_date":"2024-03-01","factor":"Flow","records":2,"sum":"3"}]}`, []string{"a", "b"}, 0},
		{"lost", `{"days":[{"usage_date":"2024-03-01","factor":"Flow","records":2,"sum":"3"}]}`, []string{"a"}, 1},
		{"doubled", `{"days":[{"usage_date":"2024-03-01","factor":"Flow","records":2,"sum":"3"}]}`, []string{"a", "a"}, 1},
		{"invented", `{"days":[]}`, []string{"a"}, 1},
		{"a day is missing", `{"days":[{"usage_date":"2024-03-01","factor":"Flow","records":1,"sum":"1.5"},{"usage_date":"2024-03-02","factor":"Flow","records":1,"sum":"0"}]}`, []string{"a"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "truth.json"), []byte(c.truth), 0o600); err != nil {
				t.Fatal(err)
			}
			publish(t, folder, c.keys...)
			wrong, err := compare(folder)
			if err != nil || len(wrong) != c.wrong {
				t.Errorf("got %q, %v, want %d differences", wrong, err, c.wrong)
			}
		})
	}
}

// A file that is replaced at once while it is watched passes; one that was read half done, or that is gone, does not.
func TestWatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		during [][]string
		wrong  int
	}{
		{"nothing happens", nil, 0},
		{"replaced", [][]string{{"a", "b", "c"}}, 0},
		{"half, then whole", [][]string{{"a"}, {"a", "b", "c"}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			publish(t, folder, "a", "b")
			w, err := newWatcher(folder)
			if err != nil {
				t.Fatal(err)
			}
			defer w.db.Close()
			after := w.before
			for _, keys := range c.during {
				publish(t, folder, keys...)
				if after, err = w.look(); err != nil {
					t.Fatal(err)
				}
			}
			if wrong := w.wrong(after); len(wrong) != c.wrong {
				t.Errorf("got %q, want %d", wrong, c.wrong)
			}
			if wrong := w.wrong(nil); len(wrong) == 0 {
				t.Error("a file that is gone is not missed")
			}
		})
	}
}

// It says when it watches, and ends with its input.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	publish(t, folder, "a", "b")
	input, end := io.Pipe()
	said, output := io.Pipe()
	wrong := make(chan []string)
	go func() {
		defer close(wrong)
		defer output.Close()
		w, err := watch(folder, input, output)
		if err != nil {
			t.Error(err)
		}
		wrong <- w
	}()
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	publish(t, folder, "a", "b", "c")
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	if w := <-wrong; len(w) > 0 {
		t.Error(w)
	}
}

// publish writes records with these keys as the only file of the lake, at once.
func publish(t *testing.T, folder string, keys ...string) {
	t.Helper()
	lake := filepath.Join(folder, "lake", "sdr", "site=s", "usage_month=2024-03")
	if err := os.MkdirAll(lake, 0o750); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var values []string
	for _, key := range keys {
		values = append(values, fmt.Sprintf(`(1, '%s', 0, DATE '2024-03-01', 'Flow', 1.5::DECIMAL(38,12))`, key))
	}
	_, err = db.Exec(fmt.Sprintf(`COPY (SELECT * FROM (VALUES %s) AS t(window_id, record_key, ordinal, usage_date, accumulate_factor_name, accumulate_factor_value))
		TO '%s' (FORMAT parquet)`, strings.Join(values, ", "), filepath.Join(lake, "data.new")))
	if err == nil {
		err = os.Rename(filepath.Join(lake, "data.new"), filepath.Join(lake, "data.parquet"))
	}
	if err != nil {
		t.Fatal(err)
	}
}
