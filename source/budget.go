package source

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// budget paces the calls of one API, of all goroutines together.
type budget struct {
	limiter *rate.Limiter

	mu     sync.Mutex
	resume time.Time // no attempt starts before
}

func newBudget(perSecond float64) *budget {
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	return &budget{limiter: rate.NewLimiter(limit, 1)}
}

// wait blocks until the next attempt may start.
func (b *budget) wait(ctx context.Context) error {
	for {
		if err := sleep(ctx, b.paused()); err != nil {
			return err
		}
		if err := b.limiter.Wait(ctx); err != nil {
			return err
		}
		// While this call queued, another may have been told to wait.
		if b.paused() <= 0 {
			return nil
		}
	}
}

// pause keeps every call of the API waiting for d.
func (b *budget) pause(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until := time.Now().Add(d); until.After(b.resume) {
		b.resume = until
	}
}

func (b *budget) paused() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Until(b.resume)
}

// sleep waits for d, or for ctx to end.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
