package main

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A lake that is the truth passes; one that lost, doubled or changed a record does not.
func TestCompare(t *testing.T) {
	t.Parallel()
	const row = `(1, '%s', 0, DATE '2024-03-01', 'Flow', 1.5::DECIMAL(38,12))`
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
			lake := filepath.Join(folder, "lake", "sdr", "site=s", "usage_month=2024-03")
			if err := os.MkdirAll(lake, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "truth.json"), []byte(c.truth), 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open("duckdb", "")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			values := ""
			for i, key := range c.keys {
				if i > 0 {
					values += ", "
				}
				values += fmt.Sprintf(row, key)
			}
			_, err = db.Exec(fmt.Sprintf(`COPY (SELECT * FROM (VALUES %s) AS t(window_id, record_key, ordinal, usage_date, accumulate_factor_name, accumulate_factor_value))
				TO '%s' (FORMAT parquet)`, values, filepath.Join(lake, "data.parquet")))
			if err != nil {
				t.Fatal(err)
			}
			wrong, err := compare(folder)
			if err != nil || len(wrong) != c.wrong {
				t.Errorf("got %q, %v, want %d differences", wrong, err, c.wrong)
			}
		})
	}
}
