// Command duckdb compares the Parquet files of a chaos world with the stand-in vendor's truth, by DuckDB: another reader than the program's
// own, so that a mistake that writer and reader share does not hide. It is a module of its own, since DuckDB is C++ and large.
//
//	duckdb FOLDER
//	duckdb --watch FOLDER
//
// FOLDER holds lake/ and truth.json. With --watch the lake is read again and again, until standard input ends, while another process publishes
// into it (watch). Exit 0: as it should be; 1: not, and standard output says what differs; 2: it could not be told.
package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	_ "github.com/marcboeker/go-duckdb"
)

// truth is what the vendor holds, by usage date and factor, in exact decimals without trailing zeros.
type truth struct {
	Days []struct {
		UsageDate string `json:"usage_date"`
		Factor    string `json:"factor"`
		Records   int64  `json:"records"`
		Sum       string `json:"sum"`
	} `json:"days"`
}

// share is how many records there are, and their sum.
type share struct {
	records int64
	sum     string
}

func main() {
	var wrong []string
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "--watch":
		wrong, err = watch(args[1], os.Stdin, os.Stdout)
	case len(args) == 1:
		wrong, err = compare(args[0])
	default:
		fmt.Fprintln(os.Stderr, "usage: duckdb [--watch] FOLDER")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if len(wrong) > 0 {
		fmt.Println(strings.Join(wrong, "\n"))
		os.Exit(1)
	}
}

// compare says in what the lake is not the truth.
func compare(folder string) (wrong []string, err error) {
	text, err := os.ReadFile(filepath.Join(folder, "truth.json"))
	if err != nil {
		return nil, err
	}
	var t truth
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("read truth.json: %w", err)
	}
	want := map[string]share{}
	for _, d := range t.Days {
		want[d.UsageDate+" "+d.Factor] = share{d.Records, d.Sum}
	}
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	files := filepath.Join(folder, "lake", "sdr", "**", "*.parquet")
	got, err := sums(db, files)
	if err != nil {
		return []string{err.Error()}, nil // a file that can't be read is a difference
	}
	for key, w := range want {
		if got[key] != w {
			wrong = append(wrong, fmt.Sprintf("%s: %v, want %v", key, got[key], w))
		}
		delete(got, key)
	}
	for key, g := range got {
		wrong = append(wrong, fmt.Sprintf("%s: %v, want none", key, g))
	}
	var twice int64
	err = db.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM read_parquet(?, hive_partitioning = false) GROUP BY window_id, record_key, ordinal HAVING count(*) > 1)`,
		files).Scan(&twice)
	if err != nil {
		return nil, err
	}
	if twice > 0 {
		wrong = append(wrong, fmt.Sprintf("%d records stand there more than once", twice))
	}
	return wrong, nil
}

// sums returns the records of each usage date and factor.
func sums(db *sql.DB, files string) (map[string]share, error) {
	rows, err := db.Query(`
		SELECT strftime(usage_date, '%Y-%m-%d'), coalesce(accumulate_factor_name, ''), count(*), coalesce(sum(accumulate_factor_value), 0)::VARCHAR
		FROM read_parquet(?, hive_partitioning = false) GROUP BY 1, 2`, files)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	got := map[string]share{}
	for rows.Next() {
		var date, factor, sum string
		var records int64
		if err := rows.Scan(&date, &factor, &records, &sum); err != nil {
			return nil, err
		}
		got[date+" "+factor] = share{records, plain(sum)}
	}
	return got, rows.Err()
}

// plain takes trailing zeros off a decimal.
func plain(text string) string {
	if !strings.Contains(text, ".") {
		return text
	}
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}
