package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// state is what DuckDB read of one file: how many records, and a sum of their hashes that does not depend on their order.
type state struct {
	records int64
	hash    string
}

// watcher remembers every state in which each file was read.
type watcher struct {
	db     *sql.DB
	lake   string
	before map[string]state
	seen   map[string]map[state]bool
	passes int
}

// errReplaced says that DuckDB gave up because a file was replaced under its hands: it opens a file twice, for the footer and for the rows, and
// the footer of one file does not fit the rows of another. It is an error that a reader sees and answers by asking again, not a wrong answer.
var errReplaced = errors.New("a file was replaced between DuckDB's two looks at it")

// watch reads the lake below folder again and again while another process publishes into it, until input ends. It writes "ready" to output
// when it has read the lake once. A file must be, at every look, as it was before or as it is in the end; wrong says which were not.
func watch(folder string, input io.Reader, output io.Writer) (wrong []string, err error) {
	w, err := newWatcher(folder)
	if err != nil {
		return nil, err
	}
	defer w.db.Close()
	if _, err := fmt.Fprintln(output, "ready"); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, input)
	}()
	for reading := true; reading; {
		select {
		case <-ended:
			reading = false
		default:
		}
		if _, err := w.look(); err != nil && !errors.Is(err, errReplaced) {
			return []string{fmt.Sprintf("pass %d: %v", w.passes, err)}, nil
		}
	}
	after, err := w.look()
	if err != nil {
		return []string{err.Error()}, nil
	}
	return w.wrong(after), nil
}

// newWatcher reads the lake below folder once, while nobody writes.
func newWatcher(folder string) (*watcher, error) {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, err
	}
	w := &watcher{db: db, lake: filepath.Join(folder, "lake", "sdr"), seen: map[string]map[state]bool{}}
	if w.before, err = w.look(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return w, nil
}

// wrong says which files were read in a state that is neither the first one nor the last, or went away.
func (w *watcher) wrong(after map[string]state) (wrong []string) {
	for file, states := range w.seen {
		for s := range states {
			if s != w.before[file] && s != after[file] {
				wrong = append(wrong, fmt.Sprintf("%s was read with %d records (%s), which it had neither before (%v) nor afterwards (%v)", file, s.records, s.hash, w.before[file], after[file]))
			}
		}
		if _, there := after[file]; !there {
			wrong = append(wrong, file+" is gone")
		}
	}
	return wrong
}

// look reads every file once, whole, by one statement, and returns what it saw. Its error is errReplaced if a file changed meanwhile.
func (w *watcher) look() (map[string]state, error) {
	w.passes++
	files, err := w.inodes()
	if err != nil {
		return nil, err
	}
	now, err := w.read()
	if err == nil {
		for file, s := range now {
			if w.seen[file] == nil {
				w.seen[file] = map[state]bool{}
			}
			w.seen[file][s] = true
		}
		return now, nil
	}
	later, err2 := w.inodes()
	same := func(a, b fs.FileInfo) bool { return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) }
	if err2 == nil && !maps.EqualFunc(files, later, same) {
		err = fmt.Errorf("%w: %w", errReplaced, err)
	}
	return nil, errors.Join(err, err2)
}

func (w *watcher) read() (map[string]state, error) {
	rows, err := w.db.Query(`SELECT filename, count(*), sum(hash(f)::HUGEINT)::VARCHAR
		FROM read_parquet(?, hive_partitioning = false, filename = true) AS f GROUP BY 1`, filepath.Join(w.lake, "**", "*.parquet"))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	now := map[string]state{}
	for rows.Next() {
		var file string
		var s state
		if err := rows.Scan(&file, &s.records, &s.hash); err != nil {
			return nil, err
		}
		now[file] = s
	}
	return now, rows.Err()
}

// inodes returns what stands under each file's name.
func (w *watcher) inodes() (map[string]fs.FileInfo, error) {
	files := map[string]fs.FileInfo{}
	err := filepath.WalkDir(w.lake, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".parquet") {
			return err
		}
		files[path], err = entry.Info()
		return err
	})
	return files, err
}
