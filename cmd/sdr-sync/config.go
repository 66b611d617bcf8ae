package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a static binary must know its time zones in an empty container too

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
)

// Config is the whole configuration of a run: defaults, overridden by the file, by the environment, by flags. What each field
// means is told once, in configKeys. Secrets print as "[secret]".
type Config struct {
	IAM      IAMConfig
	ESM      ESMConfig
	BSS      BSSConfig
	BMS      BMSConfig
	Postgres PostgresConfig
	Parquet  ParquetConfig
	Landing  LandingConfig
	HTTP     HTTPConfig
	Sync     SyncConfig
	Streams  map[string]StreamConfig // by stream name; whether a stream of that name exists is not checked here

	file     string            // path of the file that was read, "" for none
	origins  map[string]string // where the value of a key came from; a default has no entry
	warnings []string
}

// Warnings says what is risky, though not wrong, about the configuration.
func (c *Config) Warnings() []string { return c.warnings }

// IAMConfig says where tokens come from and for whom.
type IAMConfig struct {
	Endpoint string
	User     string
	Password pipeline.Secret
	Domain   string
	Project  string
}

// ESMConfig says which metering API is asked, and for which scopes.
type ESMConfig struct {
	Endpoint     string
	DomainID     string
	Scopes       []pipeline.Scope
	APIGAppcode  pipeline.Secret
	HCSOAppcode  pipeline.Secret
	HCSODomainID string
	ShareIDs     []string
}

// BSSConfig says which order API is asked. API is "v1" or "v2".
type BSSConfig struct {
	Endpoint  string
	DomainID  string
	API       string
	AccessKey pipeline.Secret
	SecretKey pipeline.Secret
}

// BMSConfig says which bare metal API is asked.
type BMSConfig struct {
	Endpoint  string
	ProjectID string
}

// PostgresConfig says where the tables are. With an empty URL they are in a private Postgres under DataDir.
type PostgresConfig struct {
	URL     pipeline.Secret
	DataDir string
}

// ParquetConfig says where the lake is and how it is cut.
type ParquetConfig struct {
	Dir       string
	Partition pipeline.Unit
}

// LandingConfig says where landing files are, and how many generations of each window stay.
type LandingConfig struct {
	Dir  string
	Keep int
}

// HTTPConfig limits the calls to the vendor. RequestsPerSecond is 0 for no limit.
type HTTPConfig struct {
	CAFile            string
	RequestsPerSecond float64
	MaxBody           Bytes
	Timeout           time.Duration
	RetryFor          time.Duration
}

// SyncConfig says what a run asks for and when it gives up.
type SyncConfig struct {
	Window         pipeline.Unit
	Lookback       time.Duration // whole days
	Settle         time.Duration
	Parallel       int
	SourceTimezone *time.Location
	FileTimezone   *time.Location
	JobDeadline    time.Duration
	AdoptMaxAge    time.Duration
	Lease          time.Duration
	MinRatio       Share
	QuarantineMax  Share
	IgnoreFields   []string
	PollInitial    time.Duration
	PollMax        time.Duration
}

// StreamConfig says how often a further stream is pulled by the nightly run.
type StreamConfig struct {
	Every time.Duration
}

// ConfigError holds everything that is wrong with the configuration, one problem per line. Nothing was touched.
type ConfigError struct {
	Problems error // joined with errors.Join
}

// Error returns the problems, one per line.
func (e *ConfigError) Error() string { return e.Problems.Error() }

// Unwrap returns the joined problems.
func (e *ConfigError) Unwrap() error { return e.Problems }

// configError returns a *ConfigError, or nil if there are no problems.
func configError(problems []error) error {
	if len(problems) == 0 {
		return nil
	}
	return &ConfigError{Problems: errors.Join(problems...)}
}

// The names of the environment that are no keys, and where the file is looked for if nothing names it.
const (
	envPrefix    = "SDR_SYNC_"
	configEnv    = envPrefix + "CONFIG" // path of the configuration file
	todayEnv     = envPrefix + "TODAY"  // the date that a rehearsal takes for today
	localConfig  = "./sdr-sync.yaml"
	systemConfig = "/etc/sdr-sync/sdr-sync.yaml"
)

// LoadConfig reads the configuration: defaults, then the file, then SDR_SYNC_* of environ ("NAME=value" as in os.Environ; an empty
// value counts as not set), then overrides ("section.key" to text, from flags). With an empty path the file is the one that SDR_SYNC_CONFIG
// names, else ./sdr-sync.yaml, else /etc/sdr-sync/sdr-sync.yaml, else none. All that is wrong is reported together, as a
// *ConfigError. What is merely missing is not wrong yet: see Validate.
func LoadConfig(path string, environ []string, overrides map[string]string) (*Config, error) {
	l := loader{values: koanf.New("."), keys: configKeys(), config: &Config{origins: map[string]string{}}}
	env := environment(environ)
	if path == "" {
		path = findConfig(env)
	}
	if path != "" {
		l.addFile(path)
	}
	l.addEnvironment(env)
	l.addOverrides(overrides)
	l.fill()

	problems := append(l.problems, l.config.problems()...)
	if err := configError(problems); err != nil {
		return nil, err
	}
	return l.config, nil
}

// environment returns the SDR_SYNC_* names of environ.
func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, assignment := range environ {
		name, value, _ := strings.Cut(assignment, "=")
		if strings.HasPrefix(name, envPrefix) {
			env[name] = value
		}
	}
	return env
}

// findConfig returns the path of the configuration file that nobody named on the command line, "" for none.
func findConfig(env map[string]string) string {
	if path := env[configEnv]; path != "" {
		return path
	}
	for _, path := range []string{localConfig, systemConfig} {
		// A file that is there but can't be read is chosen all the same: reading it says why.
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path
		}
	}
	return ""
}

// loader merges the layers and remembers where each value came from and what is wrong.
type loader struct {
	values   *koanf.Koanf
	keys     []configKey
	config   *Config
	problems []error
}

func (l *loader) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Errorf(format, args...))
}

// addFile adds the configuration file.
func (l *loader) addFile(path string) {
	info, err := os.Stat(path)
	if err != nil {
		l.problem("read configuration: %w", err)
		return
	}
	l.config.file = path
	parser := &yamlParser{path: path, lines: map[string]int{}}
	layer := koanf.New(".")
	if err := layer.Load(file.Provider(path), parser); err != nil {
		l.problem("read configuration: %w", err)
		return
	}
	l.problems = append(l.problems, parser.problems...)

	var literal []string
	for _, k := range l.keys {
		if text, ok := layer.Get(k.path).(string); ok && k.isSecret() && text != "" {
			literal = append(literal, k.path)
		}
	}
	if len(literal) > 0 && openToOthers(info.Mode()) {
		// A secret file is refused for this; a whole configuration, which may stem from a mount that allows no other mode, is not.
		l.config.warnings = append(l.config.warnings, fmt.Sprintf(
			"%s holds a secret (%s) and everybody on this machine can read or change it: run chmod o-rwx %s", path, strings.Join(literal, ", "), path))
	}
	l.add(layer, parser.where)
}

// openToOthers tells whether users besides the owner and the group may read or change a file of that mode.
func openToOthers(mode fs.FileMode) bool { return mode.Perm()&0o006 != 0 }

// addEnvironment adds SDR_SYNC_<SECTION>_<KEY>, and SDR_SYNC_STREAMS_<NAME>_EVERY.
func (l *loader) addEnvironment(env map[string]string) {
	paths := map[string]string{}
	for _, path := range settable(l.keys) {
		paths[envName(path)] = path
	}
	known := append(sortedKeys(paths), configEnv, todayEnv) // a failpoint is nothing to be suggested

	layer := map[string]any{}
	for _, name := range sortedKeys(env) {
		path, ok := paths[name]
		if !ok {
			path, ok = streamOfEnv(name)
		}
		switch {
		case name == configEnv || name == todayEnv || name == failpoint.Env:
		case !ok:
			l.problem("unknown environment variable %s%s", name, suggestion(name, known, "_"))
		case env[name] != "":
			layer[path] = env[name]
		}
	}
	l.addMap(layer, func(path string) string { return "environment " + envName(path) })
}

// addOverrides adds what flags set.
func (l *loader) addOverrides(overrides map[string]string) {
	layer := map[string]any{}
	for _, path := range sortedKeys(overrides) {
		// Everybody on a machine sees everybody's command lines.
		if i := slices.IndexFunc(l.keys, func(k configKey) bool { return k.path == path && k.isSecret() }); i >= 0 {
			l.problem("%s is a secret and can't be set by a flag: set %s, or %s_file to the path of a file that holds it", path, envName(path), path)
			continue
		}
		layer[path] = overrides[path]
	}
	l.addMap(layer, func(string) string { return "flag" })
}

func (l *loader) addMap(values map[string]any, where func(path string) string) {
	layer := koanf.New(".")
	if err := layer.Load(confmap.Provider(values, "."), nil); err != nil {
		l.problem("read configuration from %s: %w", where(""), err)
		return
	}
	l.add(layer, where)
}

// add checks the names in a layer and lays it over the ones before. A key without a value (`lookback:`) is not set.
func (l *loader) add(layer *koanf.Koanf, where func(path string) string) {
	known := settable(l.keys)
	var sections []string
	for _, k := range l.keys {
		sections = append(sections, k.section())
	}
	for _, path := range layer.Keys() {
		value := layer.Get(path)
		section, name, _ := strings.Cut(path, ".")
		switch {
		case slices.Contains(sections, path) && isEmpty(value):
			layer.Delete(path)
		case slices.Contains(sections, path):
			l.problem("%s (%s): want keys below it, got %s", path, where(path), shapeOf(value))
			layer.Delete(path)
		case section == streamsSection:
			l.addStream(layer, name, value, where)
		case !slices.Contains(known, path):
			l.problem("unknown key %s (%s)%s", path, where(path), suggestion(path, known, "."))
			layer.Delete(path)
		case value == nil:
			layer.Delete(path)
		default:
			l.config.origins[path] = where(path)
		}
	}
	if err := l.values.Merge(layer); err != nil {
		l.problem("merge configuration: %w", err)
	}
}

// addStream checks one leaf below streams; name is "audit_logs.every" if it has the right shape.
func (l *loader) addStream(layer *koanf.Koanf, name string, value any, where func(path string) string) {
	path := streamsSection + "." + name
	stream, key, nested := strings.Cut(name, ".")
	every := streamsSection + "." + stream + ".every"
	switch {
	case !streamAlphabet.MatchString(stream):
		l.problem("%s (%s): the name of a stream has only lower-case letters, digits and '_'", path, where(path))
	case isEmpty(value):
		l.problem("%s (%s) is not set: want a duration such as 24h", every, where(path))
	case !nested:
		l.problem("%s (%s): want {every: 24h}, got %s", path, where(path), shapeOf(value))
	case key != "every":
		l.problem("unknown key %s (%s): did you mean %s?", path, where(path), every)
	default:
		l.config.origins[path] = where(path)
		return
	}
	layer.Delete(path)
}

// fill sets every field of the configuration from its default or the merged layers.
func (l *loader) fill() {
	for _, k := range l.keys {
		target := k.field(l.config)
		if k.path == streamsSection {
			l.fillStreams()
			continue
		}
		if err := parseValue(target, k.value); err != nil {
			panic(fmt.Sprintf("default of %s: %v", k.path, err))
		}
		if secret, ok := target.(*pipeline.Secret); ok {
			l.fillSecret(k.path, secret)
			continue
		}
		if err := l.fillOne(k.path, target); err != nil {
			l.problem("%w", err)
		}
	}
}

// fillOne sets a field from the merged layers, if they have it.
func (l *loader) fillOne(path string, target any) error {
	value := l.values.Get(path)
	if value == nil {
		return nil
	}
	if err := parseValue(target, value); err != nil {
		return fmt.Errorf("%s (%s): %w", path, l.config.origins[path], err)
	}
	return nil
}

func (l *loader) fillStreams() {
	l.config.Streams = map[string]StreamConfig{}
	for _, name := range l.values.MapKeys(streamsSection) {
		var stream StreamConfig
		path := streamsSection + "." + name + ".every"
		if err := l.fillOne(path, &stream.Every); err != nil {
			l.problem("%w", err)
			continue
		}
		l.config.Streams[name] = stream
	}
}

// fillSecret sets a secret from its literal or from the file that <path>_file names. The one may stand in the configuration file and the
// other in the environment: that is refused as well, since nobody could tell which of them was meant.
func (l *loader) fillSecret(path string, target *pipeline.Secret) {
	pathFile := path + "_file"
	var name string
	if err := l.fillOne(path, target); err != nil {
		l.problem("%w", err)
		return
	}
	if err := l.fillOne(pathFile, &name); err != nil {
		l.problem("%w", err)
		return
	}
	switch {
	case name == "":
	case *target != "":
		l.problem("%s is given twice, as %s (%s) and as %s (%s): keep one", path,
			path, l.config.origins[path], pathFile, l.config.origins[pathFile])
	default:
		text, err := readSecret(name)
		if err != nil {
			l.problem("%s (%s): %w", pathFile, l.config.origins[pathFile], err)
			return
		}
		*target = pipeline.Secret(text)
		l.config.origins[path] = fmt.Sprintf("secret file %s, %s", name, l.config.origins[pathFile])
	}
}

// readSecret reads a file with one line. Errors never quote its content.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if openToOthers(info.Mode()) {
		return "", fmt.Errorf("everybody on this machine can read or change the secret file %s: run chmod o-rwx %s", path, path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	secret := strings.TrimRight(string(content), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("the secret file %s is empty", path)
	}
	if strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("the secret file %s has more than one line", path)
	}
	return secret, nil
}

// Need is something that a command can't do without. A command names its needs, so that `status` doesn't demand a password.
type Need int

// The needs of commands.
const (
	NeedVendor   Need = iota + 1 // iam and esm are complete
	NeedDatabase                 // demands nothing: without a postgres.url there is the private Postgres
	NeedLake                     // parquet.dir is set
	NeedLanding                  // landing.dir is set
	NeedBSS                      // bss has its endpoint and domain_id
	NeedBMS                      // bms has its endpoint and project_id
)

// Validate checks that every value is in its range and that everything the needs demand is set; the error is a *ConfigError.
func (c *Config) Validate(needs ...Need) error {
	problems := c.problems()
	for _, k := range configKeys() {
		if !slices.Contains(needs, k.need) || formatValue(k.field(c)) != "" {
			continue
		}
		if k.isSecret() {
			problems = append(problems, fmt.Errorf("%s is not set: set %s, or %s_file to the path of a file that holds it", k.path, envName(k.path), k.path))
			continue
		}
		where := "a configuration file"
		if c.file != "" {
			where = c.file
		}
		problems = append(problems, fmt.Errorf("%s is not set: write it in %s or set %s", k.path, where, envName(k.path)))
	}
	return configError(problems)
}

// problems checks what is set, not whether anything is missing.
func (c *Config) problems() []error {
	var problems []error
	for _, k := range configKeys() {
		if k.valid == nil || k.valid(c) {
			continue
		}
		got := ""
		if !k.isSecret() {
			got = ", got " + cmp.Or(hideUser(formatValue(k.field(c))), "nothing")
		}
		problems = append(problems, fmt.Errorf("%s%s: want %s%s", k.path, c.where(k.path), k.allowed, got))
	}
	for _, name := range sortedKeys(c.Streams) {
		path := streamsSection + "." + name + ".every"
		if c.Streams[name].Every <= 0 {
			problems = append(problems, fmt.Errorf("%s%s: want more than 0", path, c.where(path)))
		}
	}
	if (c.BSS.AccessKey == "") != (c.BSS.SecretKey == "") {
		problems = append(problems, errors.New("bss.access_key and bss.secret_key are a pair: set both or neither"))
	}
	if overlap(c.Landing.Dir, c.Parquet.Dir) {
		problems = append(problems, fmt.Errorf("landing.dir (%s) and parquet.dir (%s) must be folders apart, neither inside the other", c.Landing.Dir, c.Parquet.Dir))
	}
	return append(problems, c.scopeProblems()...)
}

// overlap tells whether two folders are one, or one is inside the other.
func overlap(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	if errA != nil || errB != nil {
		return false
	}
	return a == b || strings.HasPrefix(a, b+string(filepath.Separator)) || strings.HasPrefix(b, a+string(filepath.Separator))
}

// scopeProblems checks each scope, and that a site uses either one all-regions scope or named regions: both together would count
// every record of the named regions twice.
func (c *Config) scopeProblems() []error {
	const path = "esm.scopes"
	var problems []error
	seen := map[pipeline.Scope]bool{}
	named := map[string]string{} // site to its first named region
	for _, scope := range c.ESM.Scopes {
		if err := scope.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("%s%s: %w", path, c.where(path), err))
		}
		if seen[scope] {
			problems = append(problems, fmt.Errorf("%s%s: scope %s stands there twice", path, c.where(path), scope))
		}
		seen[scope] = true
		if scope.Region != "" && named[scope.Site] == "" {
			named[scope.Site] = scope.Region
		}
	}
	for _, site := range sortedKeys(named) {
		if seen[pipeline.Scope{Site: site}] {
			problems = append(problems, fmt.Errorf(
				"%s%s: site %s has a scope for all regions and one for %s, so records would count twice: keep the one scope with an empty region, or only named regions",
				path, c.where(path), site, named[site]))
		}
	}
	return problems
}

// where returns " (file sdr-sync.yaml:7)" for a key that was set, "" for a default.
func (c *Config) where(path string) string {
	if c.origins[path] == "" {
		return ""
	}
	return " (" + c.origins[path] + ")"
}
