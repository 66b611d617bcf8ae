package private

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Two files in the data folder are flocked, and never removed. startLock is held exclusively while somebody starts or stops the
// server, holdersLock shared by whoever uses it. The kernel drops both when a process dies, however it dies, and Go opens files so
// that no child inherits them.
const (
	startLock   = "start.lock"
	holdersLock = "holders.lock"
)

func openLock(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
}

// tryLock takes or changes a lock, how being LOCK_EX or LOCK_SH. It tells whether it got it.
func tryLock(f *os.File, how int) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// lock waits for the lock until ctx ends. It asks again and again, because a blocking flock could not be told of that.
func lock(ctx context.Context, name string, how int) (*os.File, error) {
	f, err := openLock(name)
	if err != nil {
		return nil, err
	}
	for wait := range waits() {
		got, err := tryLock(f, how)
		if got {
			return f, nil
		}
		if err == nil {
			err = pause(ctx, wait)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("wait for %s: %w", name, err), f.Close())
		}
	}
	panic("unreachable: waits never end")
}

// waits yields ever longer waits, without end.
func waits() func(yield func(time.Duration) bool) {
	return func(yield func(time.Duration) bool) {
		for wait := 2 * time.Millisecond; yield(wait); wait = min(wait*3/2, 100*time.Millisecond) {
		}
	}
}

// pause waits, or returns why ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
