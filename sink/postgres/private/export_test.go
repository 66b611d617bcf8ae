package private

// WithSearch returns cfg with other places to find servers in.
func WithSearch(cfg Config, path string, globs ...string) Config {
	cfg.search = &search{path: path, globs: globs}
	return cfg
}

// FindBinaries is Binaries in other places, for a data folder of version want, 0 for a new one.
func FindBinaries(want int, path string, globs ...string) (dir string, version int, err error) {
	return search{path: path, globs: globs}.find(want)
}

// SharedBuffersMB is for the tests.
func SharedBuffersMB(memory int64) int64 { return sharedBuffersMB(memory) }
