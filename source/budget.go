package source

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is how often the vendor lets an API be called. APIs of one class share one budget, which the first call of the class sets; the
// zero Rate is an API by itself, without a limit of its own. http.requests_per_second holds in any case.
type Rate struct {
	Class     string
	PerMinute int // never more in any 60 seconds; 0 is no limit
}

// budget paces the calls of one API, or of one class, of all goroutines together.
type budget struct {
	perSecond *rate.Limiter
	perMinute *rate.Limiter

	mu     sync.Mutex
	resume time.Time // no attempt starts before
}

func newBudget(perSecond float64, perMinute int) *budget {
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	return &budget{perSecond: rate.NewLimiter(limit, 1), perMinute: minuteLimiter(perMinute)}
}

// Limits from here on stand for some per second, and are counted so: their calls are spaced evenly.
const evenlyFrom = 120

// minuteLimiter keeps calls to n in any 60 seconds. Small budgets have a burst, so that short work is done at once; its calls are
// taken off what may follow within the minute.
func minuteLimiter(n int) *rate.Limiter {
	switch {
	case n <= 0:
		return rate.NewLimiter(rate.Inf, 1)
	case n >= evenlyFrom:
		// A tenth wider than need be: on the way to the vendor calls catch up with those before them.
		return rate.NewLimiter(rate.Every(time.Minute/time.Duration(n)*11/10), 1)
	}
	burst := max(n/6, 1)
	if burst == n {
		return rate.NewLimiter(rate.Every(time.Minute), 1)
	}
	return rate.NewLimiter(rate.Limit(float64(n-burst)/60), burst)
}

// wait blocks until the next attempt may start.
func (b *budget) wait(ctx context.Context) error {
	for {
		if err := sleep(ctx, b.paused()); err != nil {
			return err
		}
		if err := b.perMinute.Wait(ctx); err != nil {
			return err
		}
		if err := b.perSecond.Wait(ctx); err != nil {
			return err
		}
		// While this call queued, another may have been told to wait.
		if b.paused() <= 0 {
			return nil
		}
	}
}

// pause keeps every call of the budget waiting for d.
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
