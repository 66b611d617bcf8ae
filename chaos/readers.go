package chaos

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/jackc/pgx/v5"
)

// readers reads Postgres and the lake again and again while a run changes both. In one snapshot of Postgres every window must hold as many
// records as the ledger says; every file must be one that was there before or is there afterwards, whole. The checker, where there is one,
// reads along with its own engine.
func readers(ctx context.Context, c *cycle) error {
	c.met = true
	c.world.scenario = scenarioNamed(c.cell.Stage)
	c.args = c.world.scenario.command(c.world)
	known, err := c.lakeHashes()
	if err != nil {
		return err
	}
	sums := map[string]bool{}
	for _, sum := range known {
		sums[sum] = true
	}
	watched, err := c.watch(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = watched() }()
	child, err := c.start(nil, c.args...)
	if err != nil {
		return err
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	seen := map[string]string{} // path by sum
	for ended := false; !ended; {
		select {
		case <-child.done:
			ended = true
		default:
		}
		if err := errors.Join(readWindows(ctx, conn), c.readLake(seen)); err != nil {
			child.kill()
			return err
		}
	}
	e, err := child.wait(ctx)
	if err != nil {
		return err
	}
	if e.code != 0 {
		return findingf("%s while it is read: %s", c.args[0], e)
	}
	if err := watched(); err != nil {
		return err
	}
	after, err := c.lakeHashes()
	if err != nil {
		return err
	}
	for _, sum := range after {
		sums[sum] = true
	}
	for sum, path := range seen {
		if !sums[sum] {
			return findingf("a reader saw bytes of %s that stood there neither before nor after the run", path)
		}
	}
	return nil
}

// watch starts the checker beside a run, and returns once it has read the lake. The function it returns ends the checker and says what that
// found; further calls say the same.
func (c *cycle) watch(ctx context.Context) (end func() error, err error) {
	if c.h.cfg.Checker == "" || !slices.Contains(c.streams, "sdr") {
		return func() error { return nil }, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	checker := exec.CommandContext(ctx, c.h.cfg.Checker, "--watch", c.dir)
	var complaint bytes.Buffer
	checker.Stderr = &complaint
	input, err := checker.StdinPipe()
	output, err2 := checker.StdoutPipe()
	if err = errors.Join(err, err2); err == nil {
		err = checker.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("run %s: %w", c.h.cfg.Checker, err)
	}
	lines := bufio.NewReader(output)
	_, _ = lines.ReadString('\n') // "ready", or the end of a checker that failed, of which its exit tells
	return sync.OnceValue(func() error {
		defer cancel()
		_ = input.Close()
		said, err := io.ReadAll(lines)
		return c.judgeChecker(said, errors.Join(err, checker.Wait()), complaint.String())
	}), nil
}

// readWindows compares, in one snapshot, the records of every window with the ledger.
func readWindows(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		SELECT w.window_id, w.generation, w.records, (SELECT count(*) FROM billing.sdr s WHERE s.window_id = w.window_id),
			(SELECT coalesce(sum(u.records), 0)::bigint FROM sdr_sync.usage_rollup u WHERE u.window_id = w.window_id)
		FROM sdr_sync.window w WHERE stream = 'sdr' AND retired_at IS NULL`)
	if err != nil {
		return fmt.Errorf("read the windows: %w", err)
	}
	var window, generation, want, got, sums int64
	var mixed error
	_, err = pgx.ForEachRow(rows, []any{&window, &generation, &want, &got, &sums}, func() error {
		if want != got || want != sums {
			mixed = findingf("a reader saw %d records (%d in the daily sums) of window %d, generation %d, which has %d", got, sums, window, generation, want)
		}
		return nil
	})
	return errors.Join(err, mixed)
}

// readLake reads every file of the metering records and remembers its bytes.
func (c *cycle) readLake(seen map[string]string) error {
	names, err := c.files(filepath.Join("lake", "sdr"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".parquet") {
			return findingf("a reader of the lake saw the file %s", name)
		}
		path := filepath.Join(c.dir, "lake", "sdr", name)
		sum, err := hashOf(path)
		if errors.Is(err, os.ErrNotExist) {
			return findingf("a reader found %s gone", name)
		}
		if err != nil {
			return err
		}
		if _, known := seen[sum]; known {
			continue
		}
		seen[sum] = name
		if err := readParquet(path, func(arrow.Record) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}
