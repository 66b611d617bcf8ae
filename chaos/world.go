package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// The worlds play in the spring of 2024: a month of 20 pages, and three days of the running one.
var (
	firstDay = time.Date(2024, time.March, 1, 0, 0, 0, 0, time.UTC)
	loadDay  = time.Date(2024, time.April, 4, 0, 0, 0, 0, time.UTC) // the day of the first load
)

// streams are what most worlds pull: one of each shape.
func streams() []string {
	return []string{"sdr", "subscriptions", "host_details", "vm_performance"}
}

// vendorConfig is what the stand-in vendor of every world holds: some of every oddity, even where there is little.
func vendorConfig(today func() time.Time) sandbox.Config {
	c := sandbox.DefaultConfig()
	c.Resources, c.Subscriptions, c.Devices, c.EventsPerDay = 4, 520, 31, 6
	c.BadEvery, c.TwinEvery, c.LateEvery, c.CorrectionEvery = 700, 300, 200, 300
	c.Today, c.NoListLimits, c.PollsUntilDone = today, true, 3
	return c
}

// world is all that there is around the program in one cycle: a vendor, a database, folders and a configuration, all its own.
type world struct {
	h        *Harness
	server   *server
	dir      string
	database string // name
	scenario scenario
	settings map[string]map[string]any // of the configuration: section, key
	vendor   *sandbox.Server
	front    *front
	url      string    // of the front
	streams  []string  // what it pulls
	first    time.Time // what it pulls from on
	commands int
	children []*child
	closers  []func() error

	mu    sync.Mutex
	today time.Time
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.today
}

func (w *world) setToday(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.today = t
}

// newWorld makes a world for a scenario, in which nothing has gone wrong yet.
func (h *Harness) newWorld(ctx context.Context, on *server, name string, s scenario, change func(*sandbox.Config)) (_ *world, err error) {
	w := &world{h: h, server: on, dir: filepath.Join(h.dir, name), scenario: s, streams: streams(), first: firstDay, today: loadDay}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(ctx, false))
		}
	}()
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		return nil, err
	}
	if s.from == loaded {
		for _, folder := range []string{"lake", "lake.staging", "landing"} {
			if err := os.CopyFS(filepath.Join(w.dir, folder), os.DirFS(filepath.Join(h.dir, string(loaded), folder))); err != nil {
				return nil, fmt.Errorf("copy the prepared world: %w", err)
			}
		}
	}
	if w.database, err = on.makeDatabase(ctx, s.from); err != nil {
		return nil, err
	}
	if err := w.openVendor(change); err != nil {
		return nil, err
	}
	w.settings = map[string]map[string]any{
		"postgres": {"url": on.url(s.login(), w.database)},
		"parquet":  {"dir": filepath.Join(w.dir, "lake")},
		"landing":  {"dir": filepath.Join(w.dir, "landing")},
		"http":     {"retry_for": "4s", "timeout": "2s"},
		"sync":     {"poll_initial": "2ms", "poll_max": "10ms"},
	}
	w.pointAt(w.url)
	if s.night {
		w.passNight()
	}
	return w, nil
}

// openVendor puts a new vendor behind the front, which is opened the first time.
func (w *world) openVendor(change func(*sandbox.Config)) error {
	c := vendorConfig(w.now)
	if w.scenario.change != nil {
		w.scenario.change(&c)
	}
	if change != nil {
		change(&c)
	}
	vendor, err := sandbox.New(c)
	if err != nil {
		return err
	}
	w.vendor = vendor
	if w.front != nil {
		w.front.serve(vendor.Handler())
		return nil
	}
	w.front = newFront(vendor.Handler())
	url, stop, err := serveHTTP(w.front)
	if err != nil {
		return err
	}
	w.url = url
	w.closers = append(w.closers, stop)
	return nil
}

// serveHTTP serves on a free port of this machine.
func serveHTTP(handler http.Handler) (url string, stop func() error, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return "http://" + listener.Addr().String(), func() error {
		err := server.Close()
		<-served
		return err
	}, nil
}

// pointAt makes url every endpoint of the configuration.
func (w *world) pointAt(url string) {
	w.settings["iam"] = map[string]any{
		"endpoint": url, "user": sandbox.DefaultUser, "password": sandbox.DefaultPassword, "domain": sandbox.DefaultDomain, "project": sandbox.DefaultProject,
	}
	w.settings["esm"] = map[string]any{
		"endpoint": url, "domain_id": sandbox.DefaultDomainID, "scopes": []string{sandbox.DefaultSite + "/" + sandbox.DefaultRegion},
		"share_ids": []string{sandbox.DefaultShareID},
	}
	api := "v1"
	if w.settings["bss"] != nil {
		api = w.settings["bss"]["api"].(string)
	}
	w.settings["bss"] = map[string]any{"endpoint": url, "domain_id": sandbox.DefaultDomainID, "api": api}
	w.settings["bms"] = map[string]any{"endpoint": url, "project_id": sandbox.DefaultProjectID}
}

// set changes a setting and returns what sets it back.
func (w *world) set(section, key string, value any) (back func()) {
	old, had := w.settings[section][key]
	w.settings[section][key] = value
	return func() {
		if had {
			w.settings[section][key] = old
		} else {
			delete(w.settings[section], key)
		}
	}
}

// configure writes the configuration file. JSON is YAML too.
func (w *world) configure() (path string, err error) {
	text, err := json.MarshalIndent(w.settings, "", "  ")
	if err != nil {
		return "", err
	}
	path = filepath.Join(w.dir, "sdr-sync.yaml")
	return path, os.WriteFile(path, text, 0o600)
}

// passNight lets a night pass at the vendor, and its date change.
func (w *world) passNight() {
	w.vendor.AdvanceNight()
	w.setToday(w.now().AddDate(0, 0, 1))
}

// rehearsal are the flags that every pull of a world needs.
func (w *world) rehearsal() []string {
	return []string{"--today", w.now().Format(time.DateOnly), "--stream", strings.Join(w.streams, ",")}
}

// backfill publishes all that the world's vendor has had so far; nightly what a night changes.
func (w *world) backfill(more ...string) []string {
	span := []string{"backfill", "--from", w.first.Format(time.DateOnly), "--to", w.now().AddDate(0, 0, -1).Format(time.DateOnly)}
	return slices.Concat(span, w.rehearsal(), more)
}

func (w *world) nightly(more ...string) []string {
	return slices.Concat([]string{"nightly"}, w.rehearsal(), more)
}

// connect opens a connection as the superuser.
func (w *world) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, w.server.url(superuser, w.database))
}

// administer runs statements as the superuser, each on its own.
func (w *world) administer(ctx context.Context, statements ...string) error {
	return administer(ctx, w.server.url(superuser, w.database), statements...)
}

// ask returns the rows of a query as the superuser, each as its columns' text.
func (w *world) ask(ctx context.Context, query string, args ...any) (all [][]string, err error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, query, append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var row []string
		for _, v := range rows.RawValues() {
			row = append(row, string(v))
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return all, nil
}

// one returns the one value that a query gives.
func (w *world) one(ctx context.Context, query string, args ...any) (string, error) {
	rows, err := w.ask(ctx, query, args...)
	if err == nil && (len(rows) != 1 || len(rows[0]) != 1) {
		err = fmt.Errorf("%s: got %v, want one value", query, rows)
	}
	if err != nil {
		return "", err
	}
	return rows[0][0], nil
}

// until waits for something that gives no sign when it happens.
func until(ctx context.Context, what string, happened func() (bool, error)) error {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		if yes, err := happened(); yes || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline:
			return fmt.Errorf("waited %s in vain: %s", patience, what)
		}
	}
}

// files lists the files below a folder of the world, sorted, relative to it. Without the folder there are none.
func (w *world) files(folder string) (all []string, err error) {
	root := filepath.Join(w.dir, folder)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			relative, _ := filepath.Rel(root, path)
			all = append(all, filepath.ToSlash(relative))
		}
		return err
	})
	slices.Sort(all)
	return all, err
}

// close ends all that belongs to the world. keep leaves its folder and its database for a person to look at.
func (w *world) close(ctx context.Context, keep bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for _, c := range w.children {
		c.kill()
	}
	var err error
	for _, closer := range slices.Backward(w.closers) {
		err = errors.Join(err, closer())
	}
	if keep {
		return err
	}
	if w.database != "" {
		err = errors.Join(err, administer(ctx, w.server.url(superuser, "postgres"), "DROP DATABASE IF EXISTS "+w.database+" WITH (FORCE)"))
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// merged returns the keys of both.
func merged[V any](a, b map[string]V) []string {
	keys := maps.Clone(a)
	if keys == nil {
		keys = map[string]V{}
	}
	maps.Copy(keys, b)
	return slices.Sorted(maps.Keys(keys))
}
