// Package failpoint names the moments at which a crash must do no harm, and lets a test stop the program at any of them: kill it, panic,
// stand still, fail or dawdle. Nothing happens at any of them unless Arm was called; until then a point costs one atomic load.
package failpoint

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Env is the variable that arms a child process.
const Env = "SDR_SYNC_FAILPOINT"

// ErrInjected is what Err returns at a point that is armed with "error".
var ErrInjected = errors.New("a failpoint is armed here")

// armed is the process's plan, nil in every process that charges anybody. It is a variable of the package because a point that had to be
// handed its plan would change the signature of every function that it stands in.
var armed atomic.Pointer[plan]

// plan is what happens at which points.
type plan struct {
	rules []*rule
	trace *os.File // where each hit is written down; nil for nowhere

	mu   sync.Mutex
	hits map[Point]int
}

// rule is one thing that happens at one point.
type rule struct {
	point      Point
	occurrence int // counted from 1; 0 is every one
	do         string
	delay      time.Duration
}

// Arm makes things happen. text has rules separated by ';':
//
//	point[#occurrence]=action
//
// where occurrence counts from 1, which is also the default, and * is every one. The actions are kill (SIGKILL), panic, stop (SIGSTOP, until
// SIGCONT), error (at points that can fail) and delay:50ms. The rule trace=PATH writes the name of every point passed to the end of a
// file. Arm is called once, before the work begins.
func Arm(text string) error {
	p := &plan{hits: map[Point]int{}}
	for part := range strings.SplitSeq(text, ";") {
		name, action, found := strings.Cut(part, "=")
		if !found {
			return fmt.Errorf("read %s: %q: want point[#occurrence]=action", Env, part)
		}
		if name == "trace" {
			file, err := os.OpenFile(action, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				return fmt.Errorf("read %s: %w", Env, err)
			}
			p.trace = file
			continue
		}
		r, err := parseRule(name, action)
		if err != nil {
			return fmt.Errorf("read %s: %q: %w", Env, part, err)
		}
		p.rules = append(p.rules, r)
	}
	armed.Store(p)
	return nil
}

func parseRule(name, action string) (*rule, error) {
	name, occurrence, numbered := strings.Cut(name, "#")
	r := &rule{point: Point(name), occurrence: 1}
	if !slices.Contains(All(), r.point) {
		return nil, fmt.Errorf("there is no point %q", name)
	}
	if numbered && occurrence == "*" {
		r.occurrence = 0
	} else if numbered {
		n, err := strconv.Atoi(occurrence)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("occurrence %q: want a number from 1, or *", occurrence)
		}
		r.occurrence = n
	}
	var wait string
	r.do, wait, _ = strings.Cut(action, ":")
	switch r.do {
	case "kill", "panic", "stop":
	case "error":
		if !r.point.CanFail() {
			return nil, fmt.Errorf("%s can't fail", r.point)
		}
	case "delay":
		var err error
		if r.delay, err = time.ParseDuration(wait); err != nil {
			return nil, fmt.Errorf("delay: %w", err)
		}
	default:
		return nil, fmt.Errorf("action %q: want kill, panic, stop, error or delay:DURATION", action)
	}
	return r, nil
}

// Hit says that the program has come to a point.
func Hit(p Point) {
	if plan := armed.Load(); plan != nil {
		_ = plan.hit(p) // Arm refuses errors at points that are only hit
	}
}

// Err says that the program has come to a point at which it can fail, and returns ErrInjected where it shall.
func Err(p Point) error {
	if plan := armed.Load(); plan != nil {
		return plan.hit(p)
	}
	return nil
}

func (p *plan) hit(point Point) error {
	due := p.count(point)
	var err error
	for _, r := range due {
		switch r.do {
		case "kill":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal may take a moment to arrive, and nothing more may happen
		case "panic":
			panic("failpoint " + string(point))
		case "stop":
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		case "delay":
			time.Sleep(r.delay)
		case "error":
			err = fmt.Errorf("%s: %w", point, ErrInjected)
		}
	}
	return err
}

// count counts the hit and returns the rules that it meets.
func (p *plan) count(point Point) (due []*rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trace != nil {
		_, _ = p.trace.WriteString(string(point) + "\n") // a lost line makes the trace's reader complain
	}
	p.hits[point]++
	for _, r := range p.rules {
		if r.point == point && (r.occurrence == 0 || r.occurrence == p.hits[point]) {
			due = append(due, r)
		}
	}
	return due
}
