package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how long one command may take before it counts as hung. It is far above what any deadline of the worlds' settings allows.
const patience = 90 * time.Second

// cycleLimit is how long a cycle may take, its commands and what the harness does between them: nothing waits for ever, this package included.
const cycleLimit = 4 * patience

// child is the program as a process of its own.
type child struct {
	args     []string
	process  *os.Process
	out, err string // files
	started  time.Time
	stopped  chan struct{} // gets one value each time it is seen stopped
	done     chan struct{} // closed when it has ended
	status   syscall.WaitStatus
}

// ended is what came of a command.
type ended struct {
	code   int // -1 if a signal ended it
	signal syscall.Signal
	took   time.Duration
	out    string
	err    string
}

func (e ended) String() string {
	how := fmt.Sprintf("exit %d", e.code)
	if e.code < 0 {
		how = "ended by " + e.signal.String()
	}
	return fmt.Sprintf("%s after %s: %s", how, e.took.Round(time.Millisecond), lastLines(e.err, 6))
}

// lastLines returns the last lines of what a command wrote that are no log.
func lastLines(text string, n int) string {
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "{") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// start starts the program. What it prints goes to numbered files in the world's folder.
func (w *world) start(environ []string, args ...string) (*child, error) {
	config, err := w.configure()
	if err != nil {
		return nil, err
	}
	w.commands++
	base := filepath.Join(w.dir, fmt.Sprintf("command-%02d", w.commands))
	c := &child{args: args, out: base + ".out", err: base + ".err", started: time.Now(), stopped: make(chan struct{}, 16), done: make(chan struct{})}
	stdout, err := os.Create(c.out)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	stderr, err := os.Create(c.err)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	fmt.Fprintf(stderr, "{\"command\": %q, \"environment\": %q}\n", strings.Join(args, " "), environ)
	cmd := exec.Command(w.h.cfg.Program, append([]string{"--config", config}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = w.dir, stdout, stderr
	for _, assignment := range os.Environ() { // what is set for the harness is no part of a world
		if !strings.HasPrefix(assignment, "SDR_SYNC_") {
			cmd.Env = append(cmd.Env, assignment)
		}
	}
	cmd.Env = append(append(cmd.Env, w.h.cfg.Environ...), environ...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", w.h.cfg.Program, err)
	}
	c.process = cmd.Process
	w.children = append(w.children, c)
	go c.watch()
	return c, nil
}

// watch waits for the process, and tells when it stands still. Nobody else may wait for it.
func (c *child) watch() {
	defer close(c.done)
	for {
		_, err := syscall.Wait4(c.process.Pid, &c.status, syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || !c.status.Stopped() {
			return
		}
		select {
		case c.stopped <- struct{}{}:
		default: // nobody counts stops beyond the first few
		}
	}
}

// signal sends a signal, if the process is still there.
func (c *child) signal(s syscall.Signal) {
	select {
	case <-c.done: // its number may be another's by now
	default:
		_ = syscall.Kill(c.process.Pid, s)
	}
}

// kill is kill -9; it returns when the process is gone.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.done
}

// wait waits until the process ends by itself. One that does not is made to say where it hangs, and is a finding.
func (c *child) wait(ctx context.Context) (ended, error) {
	var hung error
	select {
	case <-c.done:
	case <-ctx.Done():
		c.kill()
		return ended{}, context.Cause(ctx)
	case <-time.After(patience):
		hung = findingf("%s did not end within %s", strings.Join(c.args, " "), patience)
		c.signal(syscall.SIGCONT)
		c.signal(syscall.SIGQUIT)
		select {
		case <-c.done:
		case <-time.After(5 * time.Second):
			c.kill()
		}
	}
	e := ended{code: c.status.ExitStatus(), took: time.Since(c.started)}
	if c.status.Signaled() {
		e.code, e.signal = -1, c.status.Signal()
	}
	out, outErr := os.ReadFile(c.out)
	text, errErr := os.ReadFile(c.err)
	e.out, e.err = string(out), string(text)
	return e, errors.Join(hung, outErr, errErr)
}

// run runs one command to its end.
func (w *world) run(ctx context.Context, environ []string, args ...string) (ended, error) {
	c, err := w.start(environ, args...)
	if err != nil {
		return ended{}, err
	}
	return c.wait(ctx)
}

// want runs one command that must end with exit 0.
func (w *world) want(ctx context.Context, args ...string) error {
	e, err := w.run(ctx, nil, args...)
	if err == nil && e.code != 0 {
		err = findingf("%s: want exit 0, got %s", strings.Join(args, " "), e)
	}
	return err
}
