package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

var update = flag.Bool("update", false, "rewrite the files that tests compare with")

// write puts a configuration file that only its owner can read into a folder of its own.
func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sdr-sync.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load loads a configuration that must be right. A file is always named, so that no test depends on the files of the machine.
func load(t *testing.T, content string, environ []string, overrides map[string]string) *Config {
	t.Helper()
	c, err := LoadConfig(write(t, content), environ, overrides)
	if err != nil {
		t.Fatalf("load configuration: %v", err)
	}
	return c
}

// complaint returns the text of the *ConfigError, with FILE for the path of the configuration file.
func complaint(t *testing.T, err error, path string) string {
	t.Helper()
	var configErr *ConfigError
	if !errors.As(err, &configErr) {
		t.Fatalf("got error %v (%T), want a *ConfigError", err, err)
	}
	if path == "" {
		return err.Error()
	}
	return strings.ReplaceAll(err.Error(), path, "FILE")
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	got := load(t, "", nil, nil)
	want := &Config{
		BSS:     BSSConfig{API: "v1"},
		Parquet: ParquetConfig{Dir: "./lake", Partition: pipeline.Month},
		Landing: LandingConfig{Dir: "./landing", Keep: 2},
		HTTP:    HTTPConfig{MaxBody: 32 << 20, Timeout: time.Minute, RetryFor: 5 * time.Minute},
		Sync: SyncConfig{
			Window: pipeline.Month, Lookback: 7 * 24 * time.Hour, Settle: 24 * time.Hour, Parallel: 4, SourceTimezone: time.UTC, FileTimezone: time.UTC,
			JobDeadline: 6 * time.Hour, AdoptMaxAge: 24 * time.Hour, Lease: time.Minute, MinRatio: 0.5, QuarantineMax: 0.01,
			PollInitial: 2 * time.Second, PollMax: 30 * time.Second,
		},
		Streams: map[string]StreamConfig{},
		file:    got.file, origins: map[string]string{},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("defaults\ngot  %+v\nwant %+v", got, want)
	}
}

// everything sets every key to something that is not its default.
const everything = `
iam: {endpoint: https://iam.example.com, user: sdr, password: pw-iam, domain: acme, project: cn-north-213}
esm:
  endpoint: https://esm.example.com/gateway
  domain_id: 00123456789012345678901234567890
  scopes: [{site: hcso-213, region: cn-north-213}, hcso-213/cn-east-264, {site: hcso-9}]
  apig_appcode: code-apig
  hcso_appcode: code-hcso
  hcso_domain_id: 1e5
  share_ids: [2f5c7f0a9d4e4b1c8a63, 1e9]
bss: {endpoint: https://bss.example.com, domain_id: 0x12, api: v2, access_key: key-access, secret_key: key-secret}
bms: {endpoint: "http://127.0.0.1:8080", project_id: 007}
postgres: {url: "postgres://u:pw-postgres@db/billing", data_dir: /srv/pg}
parquet: {dir: /srv/lake, partition: day}
landing: {dir: /srv/landing, keep: 0}
http: {ca_file: /etc/ca.pem, requests_per_second: 0.5, max_body: 10MB, timeout: 90s, retry_for: 1h}
sync: {window: day, lookback: 2w, settle: 1d12h, parallel: 64, source_timezone: Asia/Shanghai, file_timezone: Europe/Berlin,
  job_deadline: 90m, adopt_max_age: 0s, lease: 250ms, min_ratio: 25%, quarantine_max: 0.5, ignore_fields: [time_stamp, page],
  poll_initial: 1s, poll_max: 1s}
streams: {audit_logs: {every: 24h}, resource_types: {every: 1w}}
`

// secrets are the literals of everything.
var secrets = []string{"pw-iam", "code-apig", "code-hcso", "key-access", "key-secret", "pw-postgres"}

func TestEveryKeyFromFile(t *testing.T) {
	t.Parallel()
	got := load(t, everything, nil, nil)
	shanghai, berlin := got.Sync.SourceTimezone, got.Sync.FileTimezone
	if shanghai.String() != "Asia/Shanghai" || berlin.String() != "Europe/Berlin" {
		t.Errorf("time zones %s and %s, want Asia/Shanghai and Europe/Berlin", shanghai, berlin)
	}
	want := &Config{
		IAM: IAMConfig{Endpoint: "https://iam.example.com", User: "sdr", Password: "pw-iam", Domain: "acme", Project: "cn-north-213"},
		ESM: ESMConfig{
			Endpoint: "https://esm.example.com/gateway", DomainID: "00123456789012345678901234567890",
			Scopes: []pipeline.Scope{
				{Site: "hcso-213", Region: "cn-north-213"},
				{Site: "hcso-213", Region: "cn-east-264"},
				{Site: "hcso-9"},
			},
			APIGAppcode: "code-apig", HCSOAppcode: "code-hcso", HCSODomainID: "1e5",
			ShareIDs: []string{"2f5c7f0a9d4e4b1c8a63", "1e9"},
		},
		BSS:      BSSConfig{Endpoint: "https://bss.example.com", DomainID: "0x12", API: "v2", AccessKey: "key-access", SecretKey: "key-secret"},
		BMS:      BMSConfig{Endpoint: "http://127.0.0.1:8080", ProjectID: "007"},
		Postgres: PostgresConfig{URL: "postgres://u:pw-postgres@db/billing", DataDir: "/srv/pg"},
		Parquet:  ParquetConfig{Dir: "/srv/lake", Partition: pipeline.Day},
		Landing:  LandingConfig{Dir: "/srv/landing", Keep: 0},
		HTTP:     HTTPConfig{CAFile: "/etc/ca.pem", RequestsPerSecond: 0.5, MaxBody: 10_000_000, Timeout: 90 * time.Second, RetryFor: time.Hour},
		Sync: SyncConfig{
			Window: pipeline.Day, Lookback: 14 * 24 * time.Hour, Settle: 36 * time.Hour, Parallel: 64, SourceTimezone: shanghai, FileTimezone: berlin,
			JobDeadline: 90 * time.Minute, AdoptMaxAge: 0, Lease: 250 * time.Millisecond, MinRatio: 0.25, QuarantineMax: 0.5,
			IgnoreFields: []string{"time_stamp", "page"}, PollInitial: time.Second, PollMax: time.Second,
		},
		Streams: map[string]StreamConfig{"audit_logs": {Every: 24 * time.Hour}, "resource_types": {Every: 7 * 24 * time.Hour}},
		file:    got.file, origins: got.origins,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("configuration of the file differs: got %+v, want %+v", got, want)
	}
	for _, k := range configKeys() {
		if k.path != streamsSection && got.origins[k.path] == "" {
			t.Errorf("the file of this test does not set %s", k.path)
		}
	}
}

// TestEveryKeyFromEnvironment sets each key in the environment to what the file of the test above says, and wants the same.
func TestEveryKeyFromEnvironment(t *testing.T) {
	t.Parallel()
	environ := []string{
		"PATH=/bin", "SDR_SYNC_CONFIG=/nonexistent", "SDR_SYNC_TODAY=2024-04-01",
		"SDR_SYNC_IAM_ENDPOINT=https://iam.example.com", "SDR_SYNC_IAM_USER=sdr", "SDR_SYNC_IAM_PASSWORD=pw-iam", "SDR_SYNC_IAM_DOMAIN=acme",
		"SDR_SYNC_IAM_PROJECT=cn-north-213", "SDR_SYNC_ESM_ENDPOINT=https://esm.example.com/gateway",
		"SDR_SYNC_ESM_DOMAIN_ID=00123456789012345678901234567890", "SDR_SYNC_ESM_SCOPES=hcso-213/cn-north-213, hcso-213/cn-east-264,hcso-9",
		"SDR_SYNC_ESM_APIG_APPCODE=code-apig", "SDR_SYNC_ESM_HCSO_APPCODE=code-hcso", "SDR_SYNC_ESM_HCSO_DOMAIN_ID=1e5",
		"SDR_SYNC_ESM_SHARE_IDS=2f5c7f0a9d4e4b1c8a63,1e9", "SDR_SYNC_BSS_ENDPOINT=https://bss.example.com", "SDR_SYNC_BSS_DOMAIN_ID=0x12", "SDR_SYNC_BSS_API=v2", "SDR_SYNC_BSS_ACCESS_KEY=key-access",
		"SDR_SYNC_BSS_SECRET_KEY=key-secret", "SDR_SYNC_BMS_ENDPOINT=http://127.0.0.1:8080", "SDR_SYNC_BMS_PROJECT_ID=007",
		"SDR_SYNC_POSTGRES_URL=postgres://u:pw-postgres@db/billing", "SDR_SYNC_POSTGRES_DATA_DIR=/srv/pg", "SDR_SYNC_PARQUET_DIR=/srv/lake",
		"SDR_SYNC_PARQUET_PARTITION=day", "SDR_SYNC_LANDING_DIR=/srv/landing", "SDR_SYNC_LANDING_KEEP=0", "SDR_SYNC_HTTP_CA_FILE=/etc/ca.pem",
		"SDR_SYNC_HTTP_REQUESTS_PER_SECOND=0.5", "SDR_SYNC_HTTP_MAX_BODY=10MB", "SDR_SYNC_HTTP_TIMEOUT=90s", "SDR_SYNC_HTTP_RETRY_FOR=1h",
		"SDR_SYNC_SYNC_WINDOW=day", "SDR_SYNC_SYNC_LOOKBACK=2w", "SDR_SYNC_SYNC_SETTLE=1d12h", "SDR_SYNC_SYNC_PARALLEL=64",
		"SDR_SYNC_SYNC_SOURCE_TIMEZONE=Asia/Shanghai", "SDR_SYNC_SYNC_FILE_TIMEZONE=Europe/Berlin", "SDR_SYNC_SYNC_JOB_DEADLINE=90m",
		"SDR_SYNC_SYNC_ADOPT_MAX_AGE=0s", "SDR_SYNC_SYNC_LEASE=250ms", "SDR_SYNC_SYNC_MIN_RATIO=25%", "SDR_SYNC_SYNC_QUARANTINE_MAX=0.5",
		"SDR_SYNC_SYNC_IGNORE_FIELDS=time_stamp,page", "SDR_SYNC_SYNC_POLL_INITIAL=1s", "SDR_SYNC_SYNC_POLL_MAX=1s",
		"SDR_SYNC_STREAMS_AUDIT_LOGS_EVERY=24h", "SDR_SYNC_STREAMS_RESOURCE_TYPES_EVERY=1w",
	}
	want := load(t, everything, nil, nil)
	got := load(t, "", environ, nil)
	for _, k := range configKeys() {
		if k.path == streamsSection {
			continue
		}
		if origin := "environment " + envName(k.path); got.origins[k.path] != origin {
			t.Errorf("%s came from %q, want %q", k.path, got.origins[k.path], origin)
		}
	}
	got.file, got.origins = want.file, want.origins
	if !reflect.DeepEqual(got, want) {
		t.Errorf("configuration of the environment differs from that of the file: got %+v, want %+v", got, want)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	const file = "sync: {parallel: 1, lookback: 1d, settle: 1h, window: }\nstreams: {audit_logs: {every: 1h}, alarms: {every: 1h}}\nhttp:\n"
	c := load(t, file,
		[]string{"SDR_SYNC_SYNC_PARALLEL=2", "SDR_SYNC_SYNC_LOOKBACK=2d", "SDR_SYNC_SYNC_SETTLE=", "SDR_SYNC_STREAMS_AUDIT_LOGS_EVERY=2h"},
		map[string]string{"sync.parallel": "3"})
	if c.Sync.Parallel != 3 {
		t.Errorf("parallel %d, want the flag's 3", c.Sync.Parallel)
	}
	if c.Sync.Lookback != 2*day {
		t.Errorf("lookback %v, want the environment's 2 days", c.Sync.Lookback)
	}
	if c.Sync.Settle != time.Hour {
		t.Errorf("settle %v, want the file's 1h, since the variable is empty", c.Sync.Settle)
	}
	if c.Sync.Window != pipeline.Month {
		t.Errorf("window %q, want the default, since the file's key has no value", c.Sync.Window)
	}
	want := map[string]StreamConfig{"audit_logs": {Every: 2 * time.Hour}, "alarms": {Every: time.Hour}}
	if !reflect.DeepEqual(c.Streams, want) {
		t.Errorf("streams %v, want %v", c.Streams, want)
	}
}

func TestWrongConfigurations(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		file      string
		environ   []string
		overrides map[string]string
		want      string
	}{
		{
			name: "unknown key", file: "sync:\n  lookbak: 7d\n",
			want: `unknown key sync.lookbak (file FILE:2): did you mean sync.lookback?`,
		},
		{
			name: "unknown key without neighbours", file: "sync: {warp_factor_nine: 1}",
			want: `unknown key sync.warp_factor_nine (file FILE:1)`,
		},
		{
			name: "key in the wrong section", file: "http: {lookback: 7d}",
			want: `unknown key http.lookback (file FILE:1): did you mean sync.lookback?`,
		},
		{
			name: "key outside its section", file: "lookback: 7d",
			want: `unknown key lookback (file FILE:1): did you mean sync.lookback?`,
		},
		{
			name: "unknown section", file: "snyc: {lookback: 7d}",
			want: `unknown key snyc.lookback (file FILE:1): did you mean sync.lookback?`,
		},
		{
			name: "unknown key without value", file: "sync:\n  lookbak:\n",
			want: `unknown key sync.lookbak (file FILE:2): did you mean sync.lookback?`,
		},
		{
			name: "key below a key", file: "sync: {lookback: {days: 7}}",
			want: `unknown key sync.lookback.days (file FILE:1): did you mean sync.lookback?`,
		},
		{
			name: "unknown variables", environ: []string{"SDR_SYNC_LOOKBACK=7d", "SDR_SYNC_IAM_PASWORD_FILE=", "SDR_SYNC_CONFG=x", "SDR_SYNC_=1"},
			want: "unknown environment variable SDR_SYNC_\n" +
				"unknown environment variable SDR_SYNC_CONFG: did you mean SDR_SYNC_CONFIG?\n" +
				"unknown environment variable SDR_SYNC_IAM_PASWORD_FILE: did you mean SDR_SYNC_IAM_PASSWORD_FILE?\n" +
				"unknown environment variable SDR_SYNC_LOOKBACK: did you mean SDR_SYNC_SYNC_LOOKBACK?",
		},
		{
			name: "a file for what is no secret", environ: []string{"SDR_SYNC_IAM_USER_FILE=/x"},
			want: "unknown environment variable SDR_SYNC_IAM_USER_FILE",
		},
		{
			name: "unknown override", overrides: map[string]string{"sync.paralel": "3"},
			want: "unknown key sync.paralel (flag): did you mean sync.parallel?",
		},
		{
			name: "secret from a flag", overrides: map[string]string{"iam.password": "hunter2"},
			want: "iam.password is a secret and can't be set by a flag: set SDR_SYNC_IAM_PASSWORD, or iam.password_file to the path of a file that holds it",
		},
		{
			name: "everything at once, in order", file: "sync: {paralel: 3, lease: 1ms}",
			environ:   []string{"SDR_SYNC_NOPE=1", "SDR_SYNC_SYNC_SETTLE=soon"},
			overrides: map[string]string{"sync.lookback": "36h"},
			want: "unknown key sync.paralel (file FILE:1): did you mean sync.parallel?\n" +
				"unknown environment variable SDR_SYNC_NOPE\n" +
				"sync.settle (environment SDR_SYNC_SYNC_SETTLE): want a duration such as 7d, 1d12h, 90m or 250ms, got \"soon\"\n" +
				"sync.lookback (flag): want whole days, 1d or more, got 1d12h\n" +
				"sync.lease (file FILE:1): want 100ms or more, got 1ms",
		},
		{
			name: "values that can't be read",
			file: "landing: {keep: two}\nhttp: {requests_per_second: NaN, max_body: 32 parsecs}\n" +
				"sync: {lookback: 7, min_ratio: half, source_timezone: Mars/Olympus, file_timezone: Local, job_deadline: -1h, parallel: }\n",
			want: "landing.keep (file FILE:1): want a whole number, got \"two\"\n" +
				"http.requests_per_second (file FILE:2): want a number, got \"NaN\"\n" +
				"http.max_body (file FILE:2): want a size such as 32MiB, 10MB or 1048576, got \"32 parsecs\"\n" +
				"sync.lookback (file FILE:3): want a duration such as 7d, 1d12h, 90m or 250ms, got \"7\"\n" +
				"sync.source_timezone (file FILE:3): want a time zone such as UTC or Asia/Shanghai, got \"Mars/Olympus\"\n" +
				"sync.file_timezone (file FILE:3): want a time zone such as UTC or Asia/Shanghai, got \"Local\"\n" +
				"sync.job_deadline (file FILE:3): want a duration such as 7d, 1d12h, 90m or 250ms, got \"-1h\"\n" +
				"sync.min_ratio (file FILE:3): want a share such as 0.01 or 1%, got \"half\"",
		},
		{
			name: "landing files inside the lake",
			file: "parquet: {dir: /srv/lake}\nlanding: {dir: /srv/lake/landing}\n",
			want: "landing.dir (/srv/lake/landing) and parquet.dir (/srv/lake) must be folders apart, neither inside the other",
		},
		{
			name: "values out of range",
			file: "bss: {api: v3}\nparquet: {dir: '', partition: week}\nlanding: {dir: '', keep: -1}\n" +
				"http: {requests_per_second: -1, max_body: 0, timeout: 0s}\n" +
				"sync: {window: week, lookback: 0d, parallel: 65, job_deadline: 0s, lease: 99ms, min_ratio: 50, quarantine_max: 101%, poll_initial: 0s, poll_max: 0s}\n" +
				"streams: {audit_logs: {every: 0s}}\n",
			want: "bss.api (file FILE:1): want v1 or v2, got v3\n" +
				"parquet.dir (file FILE:2): want a path, got nothing\n" +
				"parquet.partition (file FILE:2): want month or day, got week\n" +
				"landing.dir (file FILE:3): want a path, got nothing\n" +
				"landing.keep (file FILE:3): want 0 or more, got -1\n" +
				"http.requests_per_second (file FILE:4): want 0 or more, got -1\n" +
				"http.max_body (file FILE:4): want more than 0, got 0\n" +
				"http.timeout (file FILE:4): want more than 0, got 0s\n" +
				"sync.window (file FILE:5): want month or day, got week\n" +
				"sync.lookback (file FILE:5): want whole days, 1d or more, got 0s\n" +
				"sync.parallel (file FILE:5): want 1 to 64, got 65\n" +
				"sync.job_deadline (file FILE:5): want more than 0, got 0s\n" +
				"sync.lease (file FILE:5): want 100ms or more, got 99ms\n" +
				"sync.min_ratio (file FILE:5): want 0 to 1 (or 0% to 100%), got 50\n" +
				"sync.quarantine_max (file FILE:5): want 0 to 1 (or 0% to 100%), got 1.01\n" +
				"sync.poll_initial (file FILE:5): want more than 0, got 0s\n" +
				"streams.audit_logs.every (file FILE:6): want more than 0",
		},
		{
			name: "first poll after the longest pause", file: "sync: {poll_initial: 1m}",
			want: "sync.poll_max: want sync.poll_initial or more, got 30s",
		},
		{
			name: "endpoints",
			file: "iam: {endpoint: http://iam.example.com}\nesm: {endpoint: esm.example.com}\nbss: {endpoint: 'https://u:hunter2@bss.example.com'}\n" +
				"bms: {endpoint: 'https://bms.example.com/?a=b'}\n",
			want: "iam.endpoint (file FILE:1): want an absolute URL with https (http only for this machine), without user, query or fragment, got http://iam.example.com\n" +
				"esm.endpoint (file FILE:2): want an absolute URL with https (http only for this machine), without user, query or fragment, got esm.example.com\n" +
				"bss.endpoint (file FILE:3): want an absolute URL with https (http only for this machine), without user, query or fragment, got ...@bss.example.com\n" +
				"bms.endpoint (file FILE:4): want an absolute URL with https (http only for this machine), without user, query or fragment, got \"https://bms.example.com/?a=b\"",
		},
		{
			name: "scope by two ways", file: "esm: {scopes: [hcso-213, hcso-213/cn-north-213, {site: hcso-9, region: r}, hcso-9/r]}",
			want: "esm.scopes (file FILE:1): scope hcso-9/r stands there twice\n" +
				"esm.scopes (file FILE:1): site hcso-213 has a scope for all regions and one for cn-north-213, so records would count twice: " +
				"keep the one scope with an empty region, or only named regions",
		},
		{
			name: "scope with a wrong name", environ: []string{"SDR_SYNC_ESM_SCOPES=hcso-213/../x"},
			want: `esm.scopes (environment SDR_SYNC_ESM_SCOPES): scope "hcso-213/../x": the region may only have letters, digits, '-' or '_'`,
		},
		{
			name: "scope with an unknown key", file: "esm:\n  scopes:\n  - {site: hcso-213, regoin: x}\n",
			want: "esm.scopes (file FILE:2): unknown key regoin in a scope: want site and region",
		},
		{
			name: "scope without site", file: "esm: {scopes: [{region: x}]}",
			want: `esm.scopes (file FILE:1): scope "/x": the site must be 1 to 36 letters, digits, '-' or '_'`,
		},
		{
			name: "wrong shapes", file: "iam: [a]\nesm: {scopes: [[a]], endpoint: [a], hcso_appcode: [hunter2]}\nbms: hello\nsync: {parallel: [4], ignore_fields: [{a: b}]}\n",
			want: "bms (file FILE:3): want keys below it, got one value\n" +
				"iam (file FILE:1): want keys below it, got a list\n" +
				"esm.endpoint (file FILE:2): want one value, got a list\n" +
				"esm.scopes (file FILE:2): want scopes such as {site: hcso-213, region: cn-north-213}, got a list\n" +
				"esm.hcso_appcode (file FILE:2): want one value, got a list\n" +
				"sync.parallel (file FILE:4): want one value, got a list\n" +
				"sync.ignore_fields (file FILE:4): want a list of names, got keys in it",
		},
		{
			name: "streams of a wrong shape", file: "streams:\n  a: 1h\n  b: {evry: 1h}\n  C: {every: 1h}\n  d:\n  e: {every: often}\n  f: {every: {x: y}}\n  g: {every: [1h]}\n",
			want: "streams.C.every (file FILE:4): the name of a stream has only lower-case letters, digits and '_'\n" +
				"streams.a (file FILE:2): want {every: 24h}, got one value\n" +
				"unknown key streams.b.evry (file FILE:3): did you mean streams.b.every?\n" +
				"streams.d.every (file FILE:5) is not set: want a duration such as 24h\n" +
				"unknown key streams.f.every.x (file FILE:7): did you mean streams.f.every?\n" +
				"streams.e.every (file FILE:6): want a duration such as 7d, 1d12h, 90m or 250ms, got \"often\"\n" +
				"streams.g.every (file FILE:8): want one value, got a list",
		},
		{
			name: "streams as a list", file: "streams: [audit_logs]",
			want: "streams (file FILE:1): want keys below it, got a list",
		},
		{
			name: "half a pair of keys", environ: []string{"SDR_SYNC_BSS_ACCESS_KEY=hunter2"},
			want: "bss.access_key and bss.secret_key are a pair: set both or neither",
		},
		{
			name: "a key given twice", file: "sync:\n  lookback: 7d\n  lookback: 8d\nsync: {}\n",
			want: "sync.lookback stands in the file twice, first in line 2: keep one (file FILE:3)\n" +
				"sync stands in the file twice, first in line 1: keep one (file FILE:4)",
		},
		{
			name: "dotted key", file: "sync.lookback: 7d\n",
			want: `key "sync.lookback" below "": want a name without dots; sections are written as keys below keys (file FILE:1)`,
		},
		{
			name: "anchor and alias", file: "iam: {user: &u hunter2, domain: *u}\n",
			want: "iam.user: YAML anchors, aliases and tags are not supported: put a value that begins with &, * or ! in quotes (file FILE:1)\n" +
				"iam.domain: YAML anchors, aliases and tags are not supported: put a value that begins with &, * or ! in quotes (file FILE:1)",
		},
		{
			name: "password that looks like an alias", file: "iam:\n  password: *hunter2\n",
			want: "read configuration: FILE: YAML anchors, aliases and tags are not supported: put a value that begins with &, * or ! in quotes",
		},
		{
			name: "passwords that look like anchor and tag", file: "iam: {password: &hunter2 }\nbss: {secret_key: !hunter2 }\n",
			want: "iam.password: YAML anchors, aliases and tags are not supported: put a value that begins with &, * or ! in quotes (file FILE:1)\n" +
				"bss.secret_key: YAML anchors, aliases and tags are not supported: put a value that begins with &, * or ! in quotes (file FILE:2)",
		},
		{
			name: "no sections", file: "- iam\n",
			want: `read configuration: FILE:1: want sections such as "sync:", got a list`,
		},
		{
			name: "two documents", file: "sync: {parallel: 1}\n---\nsync: {parallel: 2}\n",
			want: "read configuration: FILE: want one YAML document, got more",
		},
		{
			name: "broken YAML", file: "sync: {parallel: 1\niam: x",
			want: "read configuration: FILE: yaml: line 1: did not find expected ',' or '}'",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := write(t, test.file)
			c, err := LoadConfig(path, test.environ, test.overrides)
			if err == nil {
				t.Fatalf("accepted: %v", c)
			}
			got := complaint(t, err, path)
			if got != test.want {
				t.Errorf("error text\ngot  %s\nwant %s", strings.ReplaceAll(got, "\n", "\n     "), strings.ReplaceAll(test.want, "\n", "\n     "))
			}
			if strings.Contains(got, "hunter2") {
				t.Error("the error quotes a secret")
			}
		})
	}
}

func TestWhereTheFileIsLookedFor(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	named, local := filepath.Join(dir, "named.yaml"), filepath.Join(dir, "sdr-sync.yaml")
	for path, parallel := range map[string]string{named: "11", local: "12"} {
		if err := os.WriteFile(path, []byte("sync: {parallel: "+parallel+"}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name    string
		path    string
		environ []string
		want    int
	}{
		{"named", named, []string{"SDR_SYNC_CONFIG=/nonexistent"}, 11},
		{"named by the environment", "", []string{"SDR_SYNC_CONFIG=" + named}, 11},
		{"in the folder", "", []string{"SDR_SYNC_CONFIG="}, 12},
	} {
		c, err := LoadConfig(test.path, test.environ, nil)
		if err != nil || c.Sync.Parallel != test.want {
			t.Errorf("%s: got %v, error %v; want the file with parallel %d", test.name, c, err, test.want)
		}
	}

	_, err := LoadConfig("", []string{"SDR_SYNC_CONFIG=" + dir + "/gone.yaml"}, nil)
	want := "read configuration: stat " + dir + "/gone.yaml: no such file or directory"
	if got := complaint(t, err, ""); got != want {
		t.Errorf("file that is named but missing: got %s, want %s", got, want)
	}

	if err := os.Remove(local); err != nil {
		t.Fatal(err)
	}
	// The system's file is there or not; a local one isn't, and that is fine.
	if path := findConfig(nil); path != "" && path != systemConfig {
		t.Errorf("found %q, want no file or that of the system", path)
	}
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := secret("good", "hunter2\n", 0o440)
	other := secret("other", " hunter2 with spaces \r\n", 0o600)
	open := secret("open", "hunter2", 0o644)
	empty := secret("empty", "\n", 0o600)
	long := secret("long", "hunter2\nhunter2\n", 0o600)

	for _, test := range []struct {
		name    string
		file    string
		environ []string
		want    string // the password
		err     string // or the error, with DIR for the folder
	}{
		{name: "in the file", file: "iam: {password_file: " + good + "}", want: "hunter2"},
		{name: "in the environment", environ: []string{"SDR_SYNC_IAM_PASSWORD_FILE=" + other}, want: " hunter2 with spaces "},
		{
			name: "the environment's file overrides the file's", file: "iam: {password_file: /nonexistent}",
			environ: []string{"SDR_SYNC_IAM_PASSWORD_FILE=" + good}, want: "hunter2",
		},
		{name: "an empty literal is none", file: "iam: {password: '', password_file: " + good + "}", want: "hunter2"},
		{
			name: "twice in the file", file: "iam:\n  password: hunter2\n  password_file: " + good + "\n",
			err: "iam.password is given twice, as iam.password (file FILE:2) and as iam.password_file (file FILE:3): keep one",
		},
		{
			name: "twice in the environment", environ: []string{"SDR_SYNC_IAM_PASSWORD=hunter2", "SDR_SYNC_IAM_PASSWORD_FILE=" + good},
			err: "iam.password is given twice, as iam.password (environment SDR_SYNC_IAM_PASSWORD) and as iam.password_file (environment SDR_SYNC_IAM_PASSWORD_FILE): keep one",
		},
		{
			name: "once in the file and once in the environment", file: "iam: {password_file: " + good + "}", environ: []string{"SDR_SYNC_IAM_PASSWORD=hunter2"},
			err: "iam.password is given twice, as iam.password (environment SDR_SYNC_IAM_PASSWORD) and as iam.password_file (file FILE:1): keep one",
		},
		{
			name: "readable by everybody", file: "iam: {password_file: " + open + "}",
			err: "iam.password_file (file FILE:1): everybody on this machine can read or change the secret file DIR/open: run chmod o-rwx DIR/open",
		},
		{
			name: "missing", environ: []string{"SDR_SYNC_IAM_PASSWORD_FILE=" + dir + "/gone"},
			err: "iam.password_file (environment SDR_SYNC_IAM_PASSWORD_FILE): read secret: stat DIR/gone: no such file or directory",
		},
		{name: "empty", file: "iam: {password_file: " + empty + "}", err: "iam.password_file (file FILE:1): the secret file DIR/empty is empty"},
		{name: "the wrong file", file: "iam: {password_file: " + long + "}", err: "iam.password_file (file FILE:1): the secret file DIR/long has more than one line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := write(t, test.file)
			c, err := LoadConfig(path, test.environ, nil)
			if test.err != "" {
				if got := strings.ReplaceAll(complaint(t, err, path), dir, "DIR"); got != test.err {
					t.Errorf("error text\ngot  %s\nwant %s", got, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.IAM.Password.Reveal(); got != test.want {
				t.Errorf("password %q, want %q", got, test.want)
			}
		})
	}
}

// TestEverySecretFromFile reads each secret from a file of its own, in both ways.
func TestEverySecretFromFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, way := range []string{"file", "environment"} {
		sections := map[string]map[string]string{}
		var environ []string
		count := 0
		for _, k := range configKeys() {
			if !k.isSecret() {
				continue
			}
			count++
			path := filepath.Join(dir, k.path)
			if err := os.WriteFile(path, []byte("secret of "+k.path+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if sections[k.section()] == nil {
				sections[k.section()] = map[string]string{}
			}
			sections[k.section()][k.name()+"_file"] = path
			environ = append(environ, envName(k.path)+"_FILE="+path)
		}
		if count != 6 {
			t.Errorf("%d secrets, want 6", count)
		}
		file, err := yaml.Marshal(sections)
		if err != nil {
			t.Fatal(err)
		}
		if way == "file" {
			environ = nil
		} else {
			file = nil
		}
		c := load(t, string(file), environ, nil)
		for _, k := range configKeys() {
			if secret, ok := k.field(c).(*pipeline.Secret); ok && secret.Reveal() != "secret of "+k.path {
				t.Errorf("%s from the %s: got %q", k.path, way, secret.Reveal())
			}
		}
	}
}

func TestConfigurationReadableByEverybody(t *testing.T) {
	t.Parallel()
	path := write(t, "iam: {password: hunter2}\npostgres: {url: 'postgres://u:hunter2@db/x'}\n")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{path + " holds a secret (iam.password, postgres.url) and everybody on this machine can read or change it: run chmod o-rwx " + path}
	if got := c.Warnings(); !slices.Equal(got, want) {
		t.Errorf("got warnings %v, want %v", got, want)
	}

	if err := os.WriteFile(path, []byte("iam: {password: , password_file: }\nsync: {parallel: 3}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := LoadConfig(path, nil, nil); err != nil || len(c.Warnings()) > 0 {
		t.Errorf("a file without secrets may be read by everybody: got error %v, warnings %v", err, c.Warnings())
	}
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	empty := load(t, "", nil, nil)
	if err := empty.Validate(); err != nil {
		t.Errorf("no needs: %v", err)
	}
	if err := empty.Validate(NeedDatabase, NeedLake, NeedLanding); err != nil {
		t.Errorf("the defaults have a private Postgres, a lake and a landing folder: %v", err)
	}
	err := empty.Validate(NeedVendor, NeedBSS, NeedBMS)
	want := `iam.endpoint is not set: write it in FILE or set SDR_SYNC_IAM_ENDPOINT
iam.user is not set: write it in FILE or set SDR_SYNC_IAM_USER
iam.password is not set: set SDR_SYNC_IAM_PASSWORD, or iam.password_file to the path of a file that holds it
iam.domain is not set: write it in FILE or set SDR_SYNC_IAM_DOMAIN
iam.project is not set: write it in FILE or set SDR_SYNC_IAM_PROJECT
esm.endpoint is not set: write it in FILE or set SDR_SYNC_ESM_ENDPOINT
esm.domain_id is not set: write it in FILE or set SDR_SYNC_ESM_DOMAIN_ID
esm.scopes is not set: write it in FILE or set SDR_SYNC_ESM_SCOPES
bss.endpoint is not set: write it in FILE or set SDR_SYNC_BSS_ENDPOINT
bss.domain_id is not set: write it in FILE or set SDR_SYNC_BSS_DOMAIN_ID
bms.endpoint is not set: write it in FILE or set SDR_SYNC_BMS_ENDPOINT
bms.project_id is not set: write it in FILE or set SDR_SYNC_BMS_PROJECT_ID`
	if got := complaint(t, err, empty.file); got != want {
		t.Errorf("error text\ngot  %s\nwant %s", got, want)
	}
	full := load(t, everything, nil, nil)
	if err := full.Validate(NeedVendor, NeedDatabase, NeedLake, NeedLanding, NeedBSS, NeedBMS); err != nil {
		t.Errorf("everything is set: %v", err)
	}
	full.Sync.Parallel = 0
	if got, want := complaint(t, full.Validate(), full.file), "sync.parallel (file FILE:17): want 1 to 64, got 0"; got != want {
		t.Errorf("a field changed after loading: got %s, want %s", got, want)
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]bool{
		"": true, "https://iam.example.com": true, "https://iam.example.com:8443/gateway": true, "http://localhost:1": true,
		"http://127.0.0.1:1": true, "http://127.8.8.8": true, "http://[::1]:1": true,
		"http://example.com": false, "http://localhost.example.com": false, "http://127.0.0.1.example.com": false, "http://0.0.0.0": false,
		"ftp://localhost": false, "https://": false, "https://:443": false, "//example.com": false, "example.com:443": false, "https:example.com": false,
		"https://example.com/#a": false, "https://example.com?": false, "https://u@example.com": false, "https://a b.example.com": false,
	} {
		if got := endpointOK(endpoint); got != want {
			t.Errorf("endpoint %q: got %t, want %t", endpoint, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	const none = time.Duration(-1)
	for text, want := range map[string]time.Duration{
		"7d": 7 * day, "1w": 7 * day, "1w2d": 9 * day, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "250ms": 250 * time.Millisecond,
		"0": 0, "0d": 0, "1.5h": 90 * time.Minute, "1d0.5s": day + time.Second/2, "106751d": 106751 * day,
		"": none, "7": none, "d": none, "-7d": none, "1d-2h": none, "+1h": none, "1.5d": none, "2d1w": none, "1d1d": none, "7 d": none, "1h1d": none,
		"106752d": none, "15251w": none, "106751d24h": none, "99999999999999999999d": none, "9223372036854775807w": none, "week": none,
	} {
		got, err := parseDuration(text)
		if err != nil {
			got = none
		}
		if got != want {
			t.Errorf("duration %q: got %d, want %d", text, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", time.Minute: "1m", time.Hour: "1h", day: "1d", 36 * time.Hour: "1d12h", day + time.Second: "1d1s", time.Hour + time.Second: "1h0m1s",
		10 * time.Minute: "10m", 20 * time.Hour: "20h", 10 * day: "10d", 250 * time.Millisecond: "250ms",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("format %v: got %s, want %s", d, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := time.Duration(rapid.Int64Min(0).Draw(t, "duration"))
		if got, err := parseDuration(formatDuration(want)); err != nil || got != want {
			t.Fatalf("%d is written as %s and read as %d, error %v", want, formatDuration(want), got, err)
		}
	})
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Bytes{
		"1048576": 1 << 20, "32MiB": 32 << 20, "10MB": 10_000_000, "1 GiB": 1 << 30, "1kb": 1000, "5B": 5, "0": 0, "8388607TiB": 8388607 << 40,
		"": -1, "MiB": -1, "-1": -1, "1.5MiB": -1, "1MM": -1, "1Mi": -1, "8388608TiB": -1, "1MiB1": -1, "9223372036854775808": -1,
	} {
		got, err := parseBytes(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("size %q: got %d, want %d", text, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := Bytes(rapid.Int64Min(0).Draw(t, "size"))
		if got, err := parseBytes(formatBytes(want)); err != nil || got != want {
			t.Fatalf("%d is written as %s and read as %d, error %v", want, formatBytes(want), got, err)
		}
	})
}

// TestTextSurvivesYAML writes any text as YAML and reads it back.
func TestTextSurvivesYAML(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.OneOf(rapid.String(), rapid.StringMatching(`[-a-z0-9:#%@. ]{1,5}|null|true|0x1f|~`)).Draw(t, "text")
		parser := yamlParser{lines: map[string]int{}}
		sections, err := parser.Unmarshal([]byte("iam: {user: " + yamlText(want) + "}"))
		if err != nil || len(parser.problems) > 0 {
			t.Fatalf("%q is written as %s: %v %v", want, yamlText(want), err, parser.problems)
		}
		if got, _ := sections["iam"].(map[string]any)["user"].(string); got != want {
			t.Fatalf("%q is written as %s and read as %q", want, yamlText(want), got)
		}
	})
}

func FuzzYAML(f *testing.F) {
	f.Add(everything)
	f.Add(InitTemplate())
	f.Add("a: &a [*a]\n? [b]\n: c\n")
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(t.TempDir(), "fuzz.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		// Whatever stands in the file, it is either a configuration or a ConfigError.
		c, err := LoadConfig(path, nil, nil)
		var configErr *ConfigError
		if (c == nil) == (err == nil) || err != nil && !errors.As(err, &configErr) {
			t.Errorf("got %v and error %v", c, err)
		}
	})
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	c := load(t, everything, nil, nil)
	outputs := map[string]string{}
	for verb := 'A'; verb <= 'z'; verb++ {
		// p and w of something that is no pointer and no error make fmt bypass every method of a type; go vet refuses both.
		if verb == 'p' || verb == 'w' {
			continue
		}
		for _, flags := range []string{"", "+", "#", "-20", " ", "020", ".3"} {
			format := "%" + flags + string(verb)
			outputs[format] = fmt.Sprintf(format, c) + fmt.Sprintf(format, *c) + fmt.Sprintf(format, c.IAM) + fmt.Sprintf(format, c.Postgres.URL)
		}
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	outputs["json"] = string(asJSON)
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	outputs["yaml"] = string(asYAML)
	var printed strings.Builder
	if err := c.Print(&printed); err != nil {
		t.Fatal(err)
	}
	outputs["Print"] = printed.String()
	for name, output := range outputs {
		for _, secret := range secrets {
			if strings.Contains(output, secret) || strings.Contains(strings.ToLower(output), fmt.Sprintf("%x", secret)) {
				t.Errorf("%s shows the secret %s: %s", name, secret, output)
			}
		}
	}
	for _, name := range []string{"%v", "%+v", "json", "yaml", "Print"} {
		if !strings.Contains(outputs[name], "[secret]") {
			t.Errorf("%s has no [secret], so it proves nothing: %s", name, outputs[name])
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	passwordFile := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(passwordFile, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := load(t, "iam:\n  user: 中文 user\nesm:\n  scopes: [hcso-213/cn-north-213, hcso-9]\nstreams:\n  audit_logs: {every: 36h}\n",
		[]string{"SDR_SYNC_IAM_PASSWORD_FILE=" + passwordFile, "SDR_SYNC_IAM_ENDPOINT=https://iam.example.com", "SDR_SYNC_STREAMS_ALARMS_EVERY=1h"},
		map[string]string{"sync.parallel": "8"})
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	printed := strings.NewReplacer(c.file, "FILE", passwordFile, "PASSWORD").Replace(b.String())
	// The columns move with the length of the paths.
	got := regexp.MustCompile(` {2,}#`).ReplaceAllString(printed, "  #")
	const want = `# configuration file FILE
iam:
  endpoint: https://iam.example.com  # environment SDR_SYNC_IAM_ENDPOINT
  user: "中文 user"  # file FILE:2
  password: [secret]  # secret file PASSWORD, environment SDR_SYNC_IAM_PASSWORD_FILE
  domain:  # default
  project:  # default
esm:
  endpoint:  # default
  domain_id:  # default
  scopes: [{site: hcso-213, region: cn-north-213}, {site: hcso-9, region: }]  # file FILE:4
  apig_appcode:  # default
  hcso_appcode:  # default
  hcso_domain_id:  # default
  share_ids: []  # default
bss:
  endpoint:  # default
  domain_id:  # default
  api: v1  # default
  access_key:  # default
  secret_key:  # default
bms:
  endpoint:  # default
  project_id:  # default
postgres:
  url:  # default
  data_dir:  # default
parquet:
  dir: ./lake  # default
  partition: month  # default
landing:
  dir: ./landing  # default
  keep: 2  # default
http:
  ca_file:  # default
  requests_per_second:  # default
  max_body: 32MiB  # default
  timeout: 1m  # default
  retry_for: 5m  # default
sync:
  window: month  # default
  lookback: 7d  # default
  settle: 1d  # default
  parallel: 8  # flag
  source_timezone: UTC  # default
  file_timezone: UTC  # default
  job_deadline: 6h  # default
  adopt_max_age: 1d  # default
  lease: 1m  # default
  min_ratio: 0.5  # default
  quarantine_max: 0.01  # default
  ignore_fields: []  # default
  poll_initial: 2s  # default
  poll_max: 30s  # default
streams:
  alarms: {every: 1h}  # environment SDR_SYNC_STREAMS_ALARMS_EVERY
  audit_logs: {every: 1d12h}  # file FILE:6
`
	if got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

// TestPrintedConfigurationLoads prints a configuration with every key set, without its secrets, and loads what was printed.
func TestPrintedConfigurationLoads(t *testing.T) {
	t.Parallel()
	want := load(t, everything, nil, nil)
	for _, k := range configKeys() {
		if secret, ok := k.field(want).(*pipeline.Secret); ok {
			*secret = ""
		}
	}
	var b strings.Builder
	if err := want.Print(&b); err != nil {
		t.Fatal(err)
	}
	got := load(t, b.String(), nil, nil)
	got.file, got.origins = want.file, want.origins
	if !reflect.DeepEqual(got, want) {
		t.Errorf("printed and loaded: got %+v, want %+v", got, want)
	}

	// With a secret, what was printed must not become a password of "[secret]".
	want.IAM.Password = "hunter2"
	b.Reset()
	if err := want.Print(&b); err != nil {
		t.Fatal(err)
	}
	path := write(t, b.String())
	_, err := LoadConfig(path, nil, nil)
	if got, want := complaint(t, err, path), "iam.password (file FILE:5): want one value, got a list"; got != want {
		t.Errorf("printed with a secret and loaded: got %s, want %s", got, want)
	}
}

// commentedKey matches a key that is commented out in the template; prose has a space after its #.
var commentedKey = regexp.MustCompile(`(?m)^( *)#([a-z_]+:)`)

// TestTemplateDocumentsEveryKey proves that the template has exactly the known keys, each with its real default.
func TestTemplateDocumentsEveryKey(t *testing.T) {
	t.Parallel()
	defaults := load(t, "", nil, nil)
	open := commentedKey.ReplaceAllString(InitTemplate(), "$1$2")
	for name, content := range map[string]string{"as written": InitTemplate(), "with its comments opened": open} {
		c := load(t, content, nil, nil)
		c.file, c.origins = defaults.file, defaults.origins
		if !reflect.DeepEqual(c, defaults) {
			t.Errorf("template %s: got %+v, want the defaults %+v", name, c, defaults)
		}
	}

	var want []string
	for _, k := range configKeys() {
		if k.isSecret() {
			want = append(want, k.path+"_file")
		} else {
			want = append(want, k.path)
		}
	}
	slices.Sort(want)
	parser := &yamlParser{lines: map[string]int{}}
	sections, err := parser.Unmarshal([]byte(open))
	if err != nil || len(parser.problems) > 0 {
		t.Fatalf("read the template: %v %v", err, parser.problems)
	}
	layer := koanf.New(".")
	for section, keys := range sections {
		if err := layer.Set(section, keys); err != nil {
			t.Fatal(err)
		}
	}
	if got := layer.Keys(); !slices.Equal(got, want) {
		t.Errorf("keys of the template\ngot  %v\nwant %v", got, want)
	}
	for _, k := range configKeys() {
		if k.value != "" && layer.String(k.path) != k.value {
			t.Errorf("template says %s: %q, want the default %q", k.path, layer.String(k.path), k.value)
		}
		if k.isSecret() && !strings.Contains(open, k.environmentName()) {
			t.Errorf("the template does not say how to set %s", k.path)
		}
	}
}

func TestConfigDocument(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "configuration.md")
	if *update {
		if err := os.WriteFile(path, []byte(configDocument()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != configDocument() {
		t.Error("docs/configuration.md is stale: run go test ./cmd/sdr-sync -run TestConfigDocument -update")
	}
}
