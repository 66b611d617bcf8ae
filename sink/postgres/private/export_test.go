package private

import (
	"context"
	"time"
)

// WithSearch returns cfg with other places to find servers in.
func WithSearch(cfg Config, path string, globs ...string) Config {
	cfg.search = &search{path: path, globs: globs}
	return cfg
}

// WithLessPatience returns cfg with less time for other processes to let go of the start lock, and for the server to answer.
func WithLessPatience(cfg Config, lockWait, askWait time.Duration) Config {
	cfg.lockWait, cfg.askWait = lockWait, askWait
	return cfg
}

// EnsureDatabase is what a start does last.
func EnsureDatabase(ctx context.Context, s *Server) error { return s.ensureDatabase(ctx) }

// FindBinaries is Binaries in other places, for a data folder of version want, 0 for a new one.
func FindBinaries(want int, path string, globs ...string) (dir string, version int, err error) {
	return search{path: path, globs: globs}.find(want)
}

// SharedBuffersMB is for the tests.
func SharedBuffersMB(memory int64) int64 { return sharedBuffersMB(memory) }
