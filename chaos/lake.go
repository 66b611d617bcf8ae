package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/sdr-sync/sdr-sync/schemas"
)

// manifest is what the harness looks at in manifest.json.
type manifest struct {
	Files []struct {
		Path   string `json:"path"`
		Rows   int64  `json:"rows"`
		SHA256 string `json:"sha256"`
	} `json:"files"`
}

// lakeFiles returns the paths of a stream's files that the manifest names, each proved to have the bytes that it says.
func (w *world) lakeFiles(stream string) (paths []string, err error) {
	text, err := os.ReadFile(filepath.Join(w.dir, "lake", "_meta", stream, "manifest.json"))
	if err != nil {
		return nil, findingf("read the manifest of %s: %v", stream, err)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, findingf("read the manifest of %s: %v", stream, err)
	}
	for _, f := range m.Files {
		path := filepath.Join(w.dir, "lake", f.Path)
		sum, err := hashOf(path)
		if err != nil {
			return nil, findingf("%v", err)
		}
		if sum != f.SHA256 {
			return nil, findingf("%s has the SHA-256 %s, the manifest says %s", f.Path, sum, f.SHA256)
		}
		paths = append(paths, path)
	}
	onDisk, err := w.files(filepath.Join("lake", stream))
	if err == nil && len(onDisk) != len(paths) {
		err = findingf("the lake holds %d files of %s, the manifest names %d", len(onDisk), stream, len(paths))
	}
	return paths, err
}

func hashOf(path string) (string, error) {
	content, err := os.ReadFile(path)
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), err
}

// lakeHashes returns the SHA-256 of every file in the lake.
func (w *world) lakeHashes() (map[string]string, error) {
	names, err := w.files("lake")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, name := range names {
		if all[name], err = hashOf(filepath.Join(w.dir, "lake", name)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// identity names a record: no two may share it.
type identity struct {
	window  int64
	key     [16]byte
	ordinal int32
}

// lakeShares sums up the metering records in the lake, and finds those that stand there twice.
func (w *world) lakeShares() (shares, error) {
	type total struct {
		records int64
		sum     big.Int // in units of 1e-12
	}
	paths, err := w.lakeFiles("sdr")
	if err != nil {
		return nil, err
	}
	totals, seen := map[string]*total{}, map[identity]bool{}
	twice := 0
	for _, path := range paths {
		err := readParquet(path, func(r arrow.Record) error {
			dates, err1 := column[*array.Date32](r, "usage_date")
			windows, err2 := column[*array.Int64](r, "window_id")
			keys, err3 := column[*array.FixedSizeBinary](r, "record_key")
			ordinals, err4 := column[*array.Int32](r, "ordinal")
			factors, err5 := column[*array.String](r, "accumulate_factor_name")
			amounts, err6 := column[*array.Decimal128](r, "accumulate_factor_value")
			if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
				return err
			}
			for i := range int(r.NumRows()) {
				id := identity{windows.Value(i), [16]byte(keys.Value(i)), ordinals.Value(i)}
				if seen[id] {
					twice++
				}
				seen[id] = true
				name := dates.Value(i).ToTime().Format(time.DateOnly) + " " + factors.Value(i)
				if totals[name] == nil {
					totals[name] = &total{}
				}
				totals[name].records++
				if !amounts.IsNull(i) {
					totals[name].sum.Add(&totals[name].sum, amounts.Value(i).BigInt())
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	all := shares{}
	for name, t := range totals {
		all[name] = share{fmt.Sprint(t.records), plain(&t.sum)}
	}
	if twice > 0 {
		return all, findingf("Parquet: %d records stand there twice", twice)
	}
	return all, nil
}

// readParquet reads every column of a file.
func readParquet(path string, each func(arrow.Record) error) error {
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		return findingf("open %s: %v", path, err)
	}
	defer func() { _ = f.Close() }() // only read
	if f.NumRows() == 0 {
		return nil // v15 can't read a file without row groups
	}
	reader, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: 4096}, memory.DefaultAllocator)
	if err != nil {
		return findingf("read %s: %v", path, err)
	}
	records, err := reader.GetRecordReader(context.Background(), nil, nil)
	if err != nil {
		return findingf("read %s: %v", path, err)
	}
	defer records.Release()
	for records.Next() {
		if err := each(records.Record()); err != nil {
			return err
		}
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) {
		return findingf("read %s: %v", path, err)
	}
	return nil
}

func column[A arrow.Array](r arrow.Record, name string) (a A, err error) {
	at := r.Schema().FieldIndices(name)
	if len(at) != 1 {
		return a, findingf("a file has no column %s", name)
	}
	a, ok := r.Column(at[0]).(A)
	if !ok {
		return a, findingf("the column %s is a %T", name, r.Column(at[0]))
	}
	return a, nil
}

// sameInLake finds rows of a stream that stand in its table and not in its files, or the other way round.
func (w *world) sameInLake(ctx context.Context, s *schemas.Stream) error {
	inTable, err := w.tableRows(ctx, s)
	if err != nil {
		return err
	}
	inFiles, err := w.fileRows(s)
	if err != nil {
		return err
	}
	for _, row := range merged(inTable, inFiles) {
		if inTable[row] != inFiles[row] {
			return findingf("%s: %d rows in Parquet and %d in Postgres of %q", s.Name, inFiles[row], inTable[row], row)
		}
	}
	return nil
}

const null = "∅"

func (w *world) tableRows(ctx context.Context, s *schemas.Stream) (map[string]int, error) {
	var columns []string
	for _, f := range s.Stored().Fields {
		name := fmt.Sprintf("%q", f.Name)
		switch f.Type {
		case schemas.Timestamp:
			name = fmt.Sprintf("(extract(epoch FROM %s) * 1000000)::bigint", name)
		case schemas.Decimal:
			name = fmt.Sprintf("trim_scale(%s)", name)
		}
		columns = append(columns, fmt.Sprintf("coalesce(%s::text, '%s')", name, null))
	}
	all, err := w.ask(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM "+s.Table)
	rows := map[string]int{}
	for _, row := range all {
		for i, f := range s.Stored().Fields {
			if row[i], err = plainValue(f, row[i]); err != nil {
				return nil, err
			}
		}
		rows[strings.Join(row, "\n")]++
	}
	return rows, err
}

func (w *world) fileRows(s *schemas.Stream) (map[string]int, error) {
	rows := map[string]int{}
	paths, err := w.lakeFiles(s.Name)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		err := readParquet(path, func(r arrow.Record) error {
			columns := make([]arrow.Array, len(s.Stored().Fields))
			for i, f := range s.Stored().Fields {
				if columns[i], err = column[arrow.Array](r, f.Name); err != nil {
					return err
				}
			}
			for i := range int(r.NumRows()) {
				row := make([]string, len(columns))
				for j, f := range s.Stored().Fields {
					text, err := cell(columns[j], i)
					if err == nil {
						row[j], err = plainValue(f, text)
					}
					if err != nil {
						return err
					}
				}
				rows[strings.Join(row, "\n")]++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// plainValue writes values alike that may be spelt in several ways.
func plainValue(f schemas.Field, text string) (string, error) {
	if text == null {
		return f.Name + "=" + null, nil
	}
	switch f.Type {
	case schemas.JSON:
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		var value any
		if err := dec.Decode(&value); err != nil {
			return "", findingf("%s: %v in %q", f.Name, err, text)
		}
		var canonical bytes.Buffer
		enc := json.NewEncoder(&canonical)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(value) // it came from JSON
		text = strings.TrimSpace(canonical.String())
	case schemas.Float:
		number, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return "", findingf("%s: %v", f.Name, err)
		}
		text = strconv.FormatFloat(number, 'g', -1, 64)
	case schemas.UUID:
		text = strings.ReplaceAll(text, "-", "")
	}
	return f.Name + "=" + text, nil
}

// cell is a value in a Parquet file as text.
func cell(values arrow.Array, i int) (string, error) {
	if values.IsNull(i) {
		return null, nil
	}
	switch v := values.(type) {
	case *array.String:
		return v.Value(i), nil
	case *array.Timestamp:
		return strconv.FormatInt(int64(v.Value(i)), 10), nil
	case *array.Date32:
		return v.Value(i).ToTime().Format(time.DateOnly), nil
	case *array.Int32:
		return strconv.Itoa(int(v.Value(i))), nil
	case *array.Int64:
		return strconv.FormatInt(v.Value(i), 10), nil
	case *array.Float64:
		return strconv.FormatFloat(v.Value(i), 'g', -1, 64), nil
	case *array.FixedSizeBinary:
		return hex.EncodeToString(v.Value(i)), nil
	case *array.Decimal128:
		return plain(v.Value(i).BigInt()), nil
	}
	return "", fmt.Errorf("no way to read %T", values)
}
