package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/sdr-sync/sdr-sync/failpoint"
)

// failpointEnv is the assignment that arms a child.
func failpointEnv(rules string) string { return failpoint.Env + "=" + rules }

// rule is the failpoint rule for the cell's stage and occurrence.
func (c *cycle) rule(action string) string {
	return failpointEnv(fmt.Sprintf("%s#%d=%s", c.cell.Stage, c.nth(), action))
}

// processFaults befall the process itself.
func processFaults() []fault {
	return []fault{
		{
			name: "kill", number: "F1", what: "kill -9 at a failpoint", stages: allPoints, thrice: true,
			befall: func(ctx context.Context, c *cycle) error {
				e, err := c.world.run(ctx, []string{c.rule("kill")}, c.args...)
				c.met = e.signal == syscall.SIGKILL
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "kill-chain", number: "F2", what: "kill -9 at moments that nobody chose, up to three times in a row", stages: at("anytime"),
			befall: func(ctx context.Context, c *cycle) error {
				for range 1 + c.random.IntN(3) {
					e, err := c.signalSome(ctx, syscall.SIGKILL)
					if err := errors.Join(err, c.disturbed(ctx, e)); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "sigterm", number: "F3", what: "SIGTERM at a failpoint; the run ends within 10 s", stages: allPoints,
			befall: func(ctx context.Context, c *cycle) error {
				c.accept = []int{0, 3}
				return c.rendezvous(ctx, func(child *child) error {
					child.signal(syscall.SIGTERM)
					child.signal(syscall.SIGCONT)
					return endsWithin(ctx, child, 10*time.Second)
				})
			},
		},
		{
			name: "sigterm-anytime", number: "F3", what: "SIGTERM at a moment that nobody chose", stages: at("anytime"),
			befall: func(ctx context.Context, c *cycle) error {
				c.accept = []int{0, 3}
				e, err := c.signalSome(ctx, syscall.SIGTERM)
				if e.code < 0 { // before the program could ask for signals
					return err
				}
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "overtaken", number: "F4", what: "SIGSTOP beyond the lease; a second run does the work; SIGCONT", stages: allPoints,
			befall: overtaken,
		},
		{
			name: "together", number: "F5", what: "two runs start at once", stages: at("start"), befall: together,
		},
		{
			name: "panic", number: "F6", what: "a panic at a failpoint ends with exit 1", stages: allPoints,
			befall: func(ctx context.Context, c *cycle) error {
				e, err := c.world.run(ctx, []string{c.rule("panic")}, c.args...)
				if c.accept = []int{0}; err == nil && e.code != 0 {
					c.accept, c.met = []int{1}, true
				}
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "error", number: "F25", what: "an error that nobody foresaw, at a failpoint that can fail", stages: failing, thrice: true,
			befall: func(ctx context.Context, c *cycle) error {
				c.accept = []int{0, 3}
				e, err := c.world.run(ctx, []string{c.rule("error")}, c.args...)
				c.met = e.code == 3
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
		{
			name: "clock", number: "F31", what: "the date jumps back, or the process has another time zone", stages: at("back", "zone"), run: "night",
			befall: func(ctx context.Context, c *cycle) error {
				c.met = true
				var environ []string
				if c.cell.Stage == "zone" {
					environ = []string{"TZ=Asia/Shanghai"}
				} else {
					now := c.now()
					c.setToday(now.AddDate(0, 0, -2))
					defer c.setToday(now)
				}
				args := c.nightly()
				if c.cell.Stage == "back" { // the files of the days behind it are not to be lost
					e, err := c.world.run(ctx, environ, args...)
					if err == nil && e.code != 0 && e.code != 3 {
						err = findingf("a night of the day before yesterday: %s", e)
					}
					return err
				}
				e, err := c.world.run(ctx, environ, args...)
				return errors.Join(err, c.disturbed(ctx, e))
			},
		},
	}
}

// signalSome sends a signal at some moment of a run.
func (c *cycle) signalSome(ctx context.Context, s syscall.Signal) (ended, error) {
	child, err := c.start(nil, c.args...)
	if err != nil {
		return ended{}, err
	}
	select {
	case <-time.After(time.Duration(c.random.Int64N(int64(c.trace.took) + 1))):
	case <-child.done:
	case <-ctx.Done():
	}
	select {
	case <-child.done:
	default:
		c.met = true
		child.signal(s)
	}
	return child.wait(ctx)
}

// rendezvous runs the program until it stands still at the cell's stage, and lets meet do something to it or around it. meet must let the
// program go on. If the program does not come there, it just ends.
func (c *cycle) rendezvous(ctx context.Context, meet func(*child) error) error {
	child, err := c.start([]string{c.rule("stop")}, c.args...)
	if err != nil {
		return err
	}
	select {
	case <-child.stopped:
		c.met = true
		if err := meet(child); err != nil {
			child.kill()
			return err
		}
	case <-child.done:
	case <-time.After(patience):
		child.kill()
		return findingf("%s came neither to %s nor to its end within %s", c.args[0], c.cell.Stage, patience)
	case <-ctx.Done():
		child.kill()
		return context.Cause(ctx)
	}
	e, err := child.wait(ctx)
	return errors.Join(err, c.disturbed(ctx, e))
}

// endsWithin is a finding if the process takes longer.
func endsWithin(ctx context.Context, c *child, limit time.Duration) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(limit):
		return findingf("%s did not end within %s after it was told to", c.args[0], limit)
	}
}

// overtaken stops a run until its lease is over, and lets another one work meanwhile. The other may have to wait for locks that the
// first one holds, so it is not waited for for long.
func overtaken(ctx context.Context, c *cycle) error {
	c.accept = []int{0, 3, 6}
	defer func() {
		if c.args[0] == "backfill" { // what a fenced run began is taken up by whoever asks for the same again
			c.args = c.backfill("--refresh")
		}
	}()
	return c.rendezvous(ctx, func(first *child) error {
		if c.scenario.from != bare {
			err := until(ctx, "the lease expires", func() (bool, error) {
				live, err := c.one(ctx, "SELECT count(*) FROM sdr_sync.lease WHERE expires_at > now()")
				return live == "0", err
			})
			if err != nil {
				return err
			}
		}
		second, err := c.start(nil, c.args...)
		if err != nil {
			return err
		}
		select {
		case <-second.done:
		case <-time.After(1500 * time.Millisecond):
		case <-ctx.Done():
		}
		first.signal(syscall.SIGCONT)
		e, err := second.wait(ctx)
		if err != nil {
			return err
		}
		if !slices.Contains(c.accept, e.code) {
			return findingf("the second run: want an exit code of %v, got %s", c.accept, e)
		}
		return nil
	})
}

// together starts two runs at once: each ends well, or says that the other works.
func together(ctx context.Context, c *cycle) error {
	c.met = true
	var both []*child
	for range 2 {
		child, err := c.start(nil, c.args...)
		if err != nil {
			return err
		}
		both = append(both, child)
	}
	well := 0
	for _, child := range both {
		e, err := child.wait(ctx)
		if err != nil {
			return err
		}
		if e.code == 0 {
			well++
		}
		if e.code != 0 && e.code != 6 {
			return findingf("of two runs at once, one: %s", e)
		}
	}
	if well == 0 {
		return findingf("of two runs at once, neither worked")
	}
	return nil
}
