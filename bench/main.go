// Command bench measures the real program as a user runs it: sandbox, private Postgres and sdr-sync as processes of their own on this
// machine. It prints figures and judges nothing.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	records := flag.Int("records", 1_000_000, "records of a first load")
	large := flag.Int("large", 5_000_000, "records of the load that shows whether memory stays flat however many there are; 0 leaves it out")
	pages := flag.Int("pages", 150, "pages of the drain at 30 ms each")
	lists := flag.Int("subscriptions", 10_000, "resources of the list of subscriptions")
	windows := flag.Int("windows", 1000, "windows of the run that shows whether memory stays flat from window to window; 0 leaves it out")
	binary := flag.String("binary", "bin/sdr-sync", "the program")
	flag.Parse()
	path, err := filepath.Abs(*binary)
	if err == nil {
		err = bench(path, *records, *large, *pages, *lists, *windows)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(binary string, records, large, pages, lists, windows int) error {
	if err := firstLoad(binary, records); err != nil {
		return fmt.Errorf("first load: %w", err)
	}
	if large > 0 {
		if err := firstLoad(binary, large); err != nil {
			return fmt.Errorf("large load: %w", err)
		}
	}
	if err := subscriptions(binary, lists); err != nil {
		return fmt.Errorf("subscriptions: %w", err)
	}
	if windows > 0 {
		if err := longRun(binary, windows); err != nil {
			return fmt.Errorf("long run: %w", err)
		}
	}
	return drain(binary, pages)
}

// firstLoad loads January to March 2024 into an empty database and an empty lake, verifies, and runs again over unchanged data.
func firstLoad(binary string, records int) error {
	s, err := start(binary, "--records", fmt.Sprint(records), "--days", "91", "--today", "2024-04-01")
	if err != nil {
		return err
	}
	defer s.stop()
	load, err := s.run("backfill", "--stream", "sdr", "--from", "2024-01", "--to", "2024-03", "--today", "2024-04-01", "--no-verify")
	if err != nil {
		return err
	}
	verify, err := s.run("verify")
	if err != nil {
		return err
	}
	again, err := s.run("backfill", "--stream", "sdr", "--from", "2024-01", "--to", "2024-03", "--today", "2024-04-01", "--refresh")
	if err != nil {
		return err
	}
	n := load.records()
	fmt.Printf("first load of %d records, without verify: %.1f s, %.0f records/s; %.1f CPU s and %d MiB peak resident of sdr-sync\n",
		n, load.seconds(), float64(n)/load.seconds(), load.cpu.Seconds(), load.rss>>20)
	fmt.Printf("  whole process, with starting, initialising and stopping the private Postgres: %.1f s\n", load.wall.Seconds())
	fmt.Printf("  with the closing verify: %.1f s, %.0f records/s (verify alone %.1f s, %d MiB)\n",
		load.seconds()+verify.seconds(), float64(n)/(load.seconds()+verify.seconds()), verify.seconds(), verify.rss>>20)
	fmt.Printf("  the same again, nothing changed: %.1f s, %.0f records/s, %d MiB\n", again.seconds(), float64(n)/again.seconds(), again.rss>>20)
	return nil
}

// subscriptions pulls a list of so many resources, and once more when nothing has changed.
func subscriptions(binary string, n int) error {
	s, err := start(binary, "--resources", "1", "--subscriptions", fmt.Sprint(n))
	if err != nil {
		return err
	}
	defer s.stop()
	first, err := s.run("nightly", "--stream", "subscriptions")
	if err != nil {
		return err
	}
	again, err := s.run("nightly", "--stream", "subscriptions")
	if err != nil {
		return err
	}
	fmt.Printf("%d subscriptions: %.1f s with export and verify, %d MiB; the same again, nothing changed: %.1f s\n",
		first.records(), first.seconds(), first.rss>>20, again.seconds())
	return nil
}

// longRun loads so many windows of a day in one run, some 500 records each, and tells how resident memory goes over the second half of it.
// What the exports behind the windows take is left out: it is another level, which would look like growth.
func longRun(binary string, windows int) error {
	end := time.Date(2024, time.April, 1, 0, 0, 0, 0, time.UTC)
	s, err := start(binary, "--records", fmt.Sprint(500*windows), "--days", fmt.Sprint(windows), "--today", end.Format(time.DateOnly), "--polls", "1")
	if err != nil {
		return err
	}
	defer s.stop()
	s.env = append(s.env, "SDR_SYNC_SYNC_WINDOW=day")
	var samples []sample
	r, err := s.watch(func(at time.Duration, rss int64) { samples = append(samples, sample{at.Seconds(), float64(rss)}) },
		"backfill", "--stream", "sdr", "--from", end.AddDate(0, 0, -windows).Format(time.DateOnly), "--to", "2024-03-31", "--today", end.Format(time.DateOnly), "--no-verify")
	if err != nil {
		return err
	}
	pulled, err := r.firstExport()
	if err != nil {
		return err
	}
	for len(samples) > 0 && samples[len(samples)-1].at > pulled.Seconds() {
		samples = samples[:len(samples)-1]
	}
	half := samples[len(samples)/2:]
	grown := slope(half) * (half[len(half)-1].at - half[0].at)
	fmt.Printf("%d windows with %d records in one run: %.1f s until the first export; over their second half (%d samples, from %.1f MiB) memory grows by %+.2f MiB\n",
		windows, r.records(), pulled.Seconds(), len(half), half[0].rss/(1<<20), grown/(1<<20))
	return nil
}

// firstExport is when, after the start, the first partition was exported.
func (r ran) firstExport() (time.Duration, error) {
	for line := range bytes.Lines(r.err) {
		var event struct {
			Time    time.Time `json:"ts"`
			Message string    `json:"msg"`
		}
		if json.Unmarshal(line, &event) == nil && event.Message == "partition exported" {
			return event.Time.Sub(r.started), nil
		}
	}
	return 0, fmt.Errorf("the run tells of no export")
}

// sample is the resident memory, in bytes, so many seconds after the start.
type sample struct{ at, rss float64 }

// slope is that of the line through the samples with the least squares, in bytes per second.
func slope(samples []sample) float64 {
	var at, rss, over, under float64
	for _, s := range samples {
		at, rss = at+s.at, rss+s.rss
	}
	n := float64(len(samples))
	at, rss = at/n, rss/n
	for _, s := range samples {
		over += (s.at - at) * (s.rss - rss)
		under += (s.at - at) * (s.at - at)
	}
	if under == 0 {
		return 0
	}
	return over / under
}

// drain compares sdr-sync with a client that follows the markers and does nothing else, at 30 ms a page, three times in turn.
func drain(binary string, pages int) error {
	s, err := start(binary, "--records", fmt.Sprint(200*pages), "--days", "1", "--today", "2024-04-01", "--latency", "30ms", "--polls", "1")
	if err != nil {
		return err
	}
	defer s.stop()
	for range 3 {
		ours, err := s.run("backfill", "--stream", "sdr", "--from", "2024-03-05", "--to", "2024-03-05", "--today", "2024-04-01", "--refresh", "--no-verify", "--verbose")
		if err != nil {
			return err
		}
		took, n, err := s.followMarkers("2024-03-05 00:00:00", "2024-03-06 00:00:00")
		if err != nil {
			return err
		}
		drained, err := ours.drainTime(s)
		if err != nil {
			return err
		}
		fmt.Printf("drain of %d pages at 30 ms: sdr-sync %.3f s, a client that only follows the markers %.3f s, ratio %.3f\n",
			n, drained.Seconds(), took.Seconds(), drained.Seconds()/took.Seconds())
	}
	return nil
}

// site is a sandbox under way with a folder for everything that sdr-sync keeps.
type site struct {
	binary, dir, url string
	env              []string
	sandbox          *exec.Cmd
}

var export = regexp.MustCompile(`(SDR_SYNC_\w+)=(\S+)`)

func start(binary string, args ...string) (*site, error) {
	dir, err := os.MkdirTemp("", "sdr-sync-bench-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // as root, the server runs as another user
		return nil, err
	}
	s := &site{binary: binary, dir: dir, env: append(os.Environ(),
		"SDR_SYNC_POSTGRES_DATA_DIR="+filepath.Join(dir, "postgres"), "SDR_SYNC_PARQUET_DIR="+filepath.Join(dir, "lake"),
		"SDR_SYNC_LANDING_DIR="+filepath.Join(dir, "landing"), "SDR_SYNC_SYNC_POLL_INITIAL=10ms")}
	s.sandbox = exec.Command(binary, append([]string{"sandbox", "--listen", "127.0.0.1:0"}, args...)...)
	s.sandbox.Stderr = os.Stderr
	out, err := s.sandbox.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.sandbox.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		for _, m := range export.FindAllStringSubmatch(lines.Text(), -1) {
			s.env = append(s.env, m[1]+"="+m[2])
			if m[1] == "SDR_SYNC_ESM_ENDPOINT" {
				s.url = m[2]
			}
		}
		if strings.Contains(lines.Text(), "sdr-sync backfill") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("the sandbox did not start")
}

func (s *site) stop() {
	_ = s.sandbox.Process.Signal(syscall.SIGTERM)
	_ = s.sandbox.Wait()
	_ = os.RemoveAll(s.dir)
}

// ran is one finished run of sdr-sync.
type ran struct {
	started   time.Time
	wall, cpu time.Duration
	rss       int64
	out, err  []byte
}

func (s *site) run(args ...string) (ran, error) { return s.watch(nil, args...) }

// watch is run that tells the process's resident memory ten times a second, if anybody asks.
func (s *site) watch(tell func(at time.Duration, rss int64), args ...string) (ran, error) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(context.Background(), s.binary, append(args, "--output", "json")...)
	c.Env, c.Stdout, c.Stderr = s.env, &stdout, &stderr
	started := time.Now()
	err := c.Start()
	if err != nil {
		return ran{}, err
	}
	ended, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		for tick := time.NewTicker(100 * time.Millisecond); tell != nil; {
			select {
			case <-ended:
				tick.Stop()
				return
			case <-tick.C:
				var pages, resident int64
				if statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.Process.Pid)); err == nil {
					if _, err := fmt.Sscan(string(statm), &pages, &resident); err == nil {
						tell(time.Since(started), resident*int64(os.Getpagesize()))
					}
				}
			}
		}
	}()
	err = c.Wait()
	close(ended)
	<-told
	r := ran{started: started, wall: time.Since(started), out: stdout.Bytes(), err: stderr.Bytes()}
	if err != nil {
		return r, fmt.Errorf("sdr-sync %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	r.cpu = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = usage.Maxrss << 10
	}
	return r, nil
}

func (r ran) records() (n int64) {
	var report struct {
		Windows []struct {
			Records int64 `json:"records"`
		} `json:"windows"`
	}
	_ = json.Unmarshal(r.out, &report)
	for _, w := range report.Windows {
		n += w.Records
	}
	return n
}

// seconds is what the run says of itself: from its leases to its summary, without starting and stopping the private Postgres.
func (r ran) seconds() float64 {
	var report struct {
		Seconds float64 `json:"seconds"`
	}
	_ = json.Unmarshal(r.out, &report)
	return report.Seconds
}

// drainTime is what the ledger says of the newest job: from success to its last page.
func (r ran) drainTime(s *site) (time.Duration, error) {
	c := exec.Command(s.binary, "psql", "--role", "writer", "--", "-qAt", "-c",
		"select extract(epoch from landed_at - ready_at) from sdr_sync.job order by job_row desc limit 1")
	c.Env = s.env
	out, err := c.Output()
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(strings.TrimSpace(string(out)) + "s")
}

// followMarkers drains a job as fast as anybody can: the next page is asked for as soon as the last one is read.
func (s *site) followMarkers(from, to string) (took time.Duration, pages int, err error) {
	env := map[string]string{}
	for _, e := range s.env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	var token string
	call := func(method, url string, body any, answer any) error {
		b, _ := json.Marshal(body)
		req, err := http.NewRequest(method, url, bytes.NewReader(b))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Auth-Token", token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if t := resp.Header.Get("X-Subject-Token"); t != "" {
			token = t
		}
		b, err = io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode > 299 {
			return fmt.Errorf("%s %s: %s %w", method, url, resp.Status, err)
		}
		if page, ok := answer.(*string); ok { // only the marker, from the end of the body
			*page = ""
			if m := lastMarker.FindSubmatch(b[max(0, len(b)-400):]); m != nil {
				*page = string(m[1])
			}
			return nil
		}
		return json.Unmarshal(b, answer)
	}
	login := map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{
			"name": env["SDR_SYNC_IAM_USER"], "password": env["SDR_SYNC_IAM_PASSWORD"], "domain": map[string]any{"name": env["SDR_SYNC_IAM_DOMAIN"]},
		}}},
		"scope": map[string]any{"project": map[string]any{"name": env["SDR_SYNC_IAM_PROJECT"]}},
	}}
	var ignored map[string]any
	if err := call("POST", s.url+"/v3/auth/tokens", login, &ignored); err != nil {
		return 0, 0, err
	}
	site, region, _ := strings.Cut(env["SDR_SYNC_ESM_SCOPES"], "/")
	jobs := s.url + "/meter/v1/" + env["SDR_SYNC_ESM_DOMAIN_ID"] + "/query-jobs"
	var job struct {
		ID     string `json:"job_id"`
		Status string `json:"status"`
	}
	if err := call("POST", jobs, map[string]string{"hcso_id": site, "region_id": region, "min_sdr_time": from, "max_sdr_time": to}, &job); err != nil {
		return 0, 0, err
	}
	for job.Status != "success" {
		if err := call("GET", jobs+"/"+job.ID, nil, &job); err != nil {
			return 0, 0, err
		}
	}
	started := time.Now()
	for marker := ""; ; {
		body := map[string]any{"limit": 200}
		if marker != "" {
			body["marker"] = marker
		}
		if err := call("POST", jobs+"/"+job.ID+"/sdr", body, &marker); err != nil {
			return 0, 0, err
		}
		pages++
		if marker == "" {
			return time.Since(started), pages, nil
		}
	}
}

var lastMarker = regexp.MustCompile(`"marker"\s*:\s*"([^"]*)"`)
