package main

import (
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// configKey is one key of the configuration. The list of them is the only place where a key is described: loading, validation, the
// file that `init` writes, what `config` prints and docs/configuration.md are all derived from it.
type configKey struct {
	path    string             // "sync.lookback"
	value   string             // the default, as text
	need    Need               // who can't do without the key; 0 for nobody
	allowed string             // what valid accepts, as the end of "want ..."
	valid   func(*Config) bool // nil if whatever can be parsed is right
	field   func(*Config) any  // pointer to the field; its type decides how the text is read
	meaning string             // a sentence or two, with the unit
}

// streamsSection is the one section whose keys are free: names of streams.
const streamsSection = "streams"

var streamAlphabet = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// section returns "sync" for "sync.lookback".
func (k configKey) section() string {
	section, _, _ := strings.Cut(k.path, ".")
	return section
}

// name returns "lookback" for "sync.lookback".
func (k configKey) name() string { return k.path[strings.LastIndexByte(k.path, '.')+1:] }

// isSecret tells whether the value must never be shown.
func (k configKey) isSecret() bool {
	_, ok := k.field(&Config{}).(*pipeline.Secret)
	return ok
}

// configKeys lists every key in the order of the documents.
func configKeys() []configKey {
	const (
		url      = "an absolute URL with https (http only for this machine), without user, query or fragment"
		month    = "month or day"
		positive = "more than 0"
		notNeg   = "0 or more"
		share    = "0 to 1 (or 0% to 100%)"
		path     = "a path"
	)
	return []configKey{
		{
			"iam.endpoint", "", NeedVendor, url,
			func(c *Config) bool { return endpointOK(c.IAM.Endpoint) },
			func(c *Config) any { return &c.IAM.Endpoint },
			"Base URL of IAM, which hands out the tokens, without /v3.",
		},
		{
			"iam.user", "", NeedVendor, "", nil,
			func(c *Config) any { return &c.IAM.User },
			"Name of the IAM user. A HUAWEI ID can't get tokens.",
		},
		{
			"iam.password", "", NeedVendor, "", nil,
			func(c *Config) any { return &c.IAM.Password },
			"Password of the IAM user.",
		},
		{
			"iam.domain", "", NeedVendor, "", nil,
			func(c *Config) any { return &c.IAM.Domain },
			"Name of the account that the user belongs to.",
		},
		{
			"iam.project", "", NeedVendor, "", nil,
			func(c *Config) any { return &c.IAM.Project },
			"Name of the project that the token is for, usually the region.",
		},

		{
			"esm.endpoint", "", NeedVendor, url,
			func(c *Config) bool { return endpointOK(c.ESM.Endpoint) },
			func(c *Config) any { return &c.ESM.Endpoint },
			"Base URL of ESM, whose query jobs return the metering records.",
		},
		{
			"esm.domain_id", "", NeedVendor, "", nil,
			func(c *Config) any { return &c.ESM.DomainID },
			"Account id in the path of the query jobs. One database and one lake belong to one domain_id.",
		},
		{
			"esm.scopes", "", NeedVendor, "", nil,
			func(c *Config) any { return &c.ESM.Scopes },
			"Sites and regions to pull, such as [{site: hcso-213, region: cn-north-213}] or [hcso-213/cn-north-213]. " +
				"An empty region means all regions of the site at once; a site has either that or named regions.",
		},
		{
			"esm.apig_appcode", "", 0, "", nil,
			func(c *Config) any { return &c.ESM.APIGAppcode },
			"Sent as X-APIG-Appcode, where the gateway demands it.",
		},
		{
			"esm.hcso_appcode", "", 0, "", nil,
			func(c *Config) any { return &c.ESM.HCSOAppcode },
			"Sent as x-hcso-appcode, where the site demands it.",
		},
		{
			"esm.hcso_domain_id", "", 0, "", nil,
			func(c *Config) any { return &c.ESM.HCSODomainID },
			"Sent as x-hcso-domainid, which HCS Online demands.",
		},
		{
			"esm.share_ids", "", 0, "", nil,
			func(c *Config) any { return &c.ESM.ShareIDs },
			"Shared screens that the stream service_health asks for.",
		},

		{
			"bss.endpoint", "", NeedBSS, url,
			func(c *Config) bool { return endpointOK(c.BSS.Endpoint) },
			func(c *Config) any { return &c.BSS.Endpoint },
			"Base URL of BSS, for the yearly and monthly resources.",
		},
		{
			"bss.domain_id", "", NeedBSS, "", nil,
			func(c *Config) any { return &c.BSS.DomainID },
			"Account id of the customer whose resources are listed.",
		},
		{
			"bss.api", "v1", 0, "v1 or v2",
			func(c *Config) bool { return c.BSS.API == "v1" || c.BSS.API == "v2" },
			func(c *Config) any { return &c.BSS.API },
			"Which list of resources is asked: v1, the older one, or v2, its successor.",
		},
		{
			"bss.access_key", "", 0, "", nil,
			func(c *Config) any { return &c.BSS.AccessKey },
			"Access key (AK) that signs the requests; without the pair of keys an IAM token is used.",
		},
		{
			"bss.secret_key", "", 0, "", nil,
			func(c *Config) any { return &c.BSS.SecretKey },
			"Secret key (SK) that belongs to the access key.",
		},

		{
			"bms.endpoint", "", NeedBMS, url,
			func(c *Config) bool { return endpointOK(c.BMS.Endpoint) },
			func(c *Config) any { return &c.BMS.Endpoint },
			"Base URL of BMS, for the bare metal servers.",
		},
		{
			"bms.project_id", "", NeedBMS, "", nil,
			func(c *Config) any { return &c.BMS.ProjectID },
			"Id of the project that the servers are in.",
		},

		{
			"postgres.url", "", 0, "", nil,
			func(c *Config) any { return &c.Postgres.URL },
			"Database to publish to, as postgres://user:password@host/database. Empty: a private Postgres that sdr-sync starts from the binaries on this machine.",
		},
		{
			"postgres.data_dir", "", 0, "", nil,
			func(c *Config) any { return &c.Postgres.DataDir },
			"Data folder of the private Postgres. Empty: chosen by sdr-sync, under /var/lib/sdr-sync for root.",
		},

		{
			"parquet.dir", "./lake", NeedLake, path,
			func(c *Config) bool { return c.Parquet.Dir != "" },
			func(c *Config) any { return &c.Parquet.Dir },
			"Folder of the Parquet files, relative to where the program is started.",
		},
		{
			"parquet.partition", "month", 0, month,
			func(c *Config) bool { return unitOK(c.Parquet.Partition) },
			func(c *Config) any { return &c.Parquet.Partition },
			"How much usage one file holds for a site. Pinned in the lake at first use.",
		},

		{
			"landing.dir", "./landing", NeedLanding, path,
			func(c *Config) bool { return c.Landing.Dir != "" },
			func(c *Config) any { return &c.Landing.Dir },
			"Folder of the landing files, relative to where the program is started.",
		},
		{
			"landing.keep", "2", 0, notNeg,
			func(c *Config) bool { return c.Landing.Keep >= 0 },
			func(c *Config) any { return &c.Landing.Keep },
			"How many generations of each window's landing file to keep as evidence of what the vendor sent.",
		},

		{
			"http.ca_file", "", 0, "", nil,
			func(c *Config) any { return &c.HTTP.CAFile },
			"PEM file with further certificate authorities to trust. Empty: those of the system.",
		},
		{
			"http.requests_per_second", "", 0, notNeg,
			func(c *Config) bool { return c.HTTP.RequestsPerSecond >= 0 },
			func(c *Config) any { return &c.HTTP.RequestsPerSecond },
			"Budget of all calls to the vendor together, in requests per second; 0.5 is one in two seconds. Empty or 0: no limit.",
		},
		{
			"http.max_body", "32MiB", 0, positive,
			func(c *Config) bool { return c.HTTP.MaxBody > 0 },
			func(c *Config) any { return &c.HTTP.MaxBody },
			"Longest answer that is read, in bytes after decompression.",
		},
		{
			"http.timeout", "60s", 0, positive,
			func(c *Config) bool { return c.HTTP.Timeout > 0 },
			func(c *Config) any { return &c.HTTP.Timeout },
			"How long one call may take.",
		},
		{
			"http.retry_for", "5m", 0, positive,
			func(c *Config) bool { return c.HTTP.RetryFor > 0 },
			func(c *Config) any { return &c.HTTP.RetryFor },
			"How long a call may take with all its repetitions; one that fails for a passing reason is repeated until then.",
		},

		{
			"sync.window", "month", 0, month,
			func(c *Config) bool { return unitOK(c.Sync.Window) },
			func(c *Config) any { return &c.Sync.Window },
			"How many file dates one query job asks for.",
		},
		{
			"sync.lookback", "7d", 0, "whole days, 1d or more",
			func(c *Config) bool { return c.Sync.Lookback >= day && c.Sync.Lookback%day == 0 },
			func(c *Config) any { return &c.Sync.Lookback },
			"How many file days behind today a nightly run asks again.",
		},
		{
			"sync.settle", "1d", 0, notNeg,
			func(c *Config) bool { return c.Sync.Settle >= 0 },
			func(c *Config) any { return &c.Sync.Settle },
			"How long after a window's end its job must have been created for the window to count as finished.",
		},
		{
			"sync.parallel", "4", 0, "1 to 64",
			func(c *Config) bool { return c.Sync.Parallel >= 1 && c.Sync.Parallel <= 64 },
			func(c *Config) any { return &c.Sync.Parallel },
			"How many windows are pulled at once.",
		},
		{
			"sync.source_timezone", "UTC", 0, "a time zone",
			func(c *Config) bool { return c.Sync.SourceTimezone != nil },
			func(c *Config) any { return &c.Sync.SourceTimezone },
			"Time zone of the times inside the records. Can't be changed over existing data without a replay.",
		},
		{
			"sync.file_timezone", "UTC", 0, "a time zone",
			func(c *Config) bool { return c.Sync.FileTimezone != nil },
			func(c *Config) any { return &c.Sync.FileTimezone },
			"Time zone of the file dates, which decides what today is. Can't be changed over existing data without a replay.",
		},
		{
			"sync.job_deadline", "6h", 0, positive,
			func(c *Config) bool { return c.Sync.JobDeadline > 0 },
			func(c *Config) any { return &c.Sync.JobDeadline },
			"How long a query job may take until it is abandoned.",
		},
		{
			"sync.adopt_max_age", "24h", 0, notNeg,
			func(c *Config) bool { return c.Sync.AdoptMaxAge >= 0 },
			func(c *Config) any { return &c.Sync.AdoptMaxAge },
			"How old a query job of an interrupted run may be to be taken up again. 0: never.",
		},
		{
			"sync.lease", "60s", 0, "100ms or more",
			func(c *Config) bool { return c.Sync.Lease >= 100*time.Millisecond },
			func(c *Config) any { return &c.Sync.Lease },
			"How long a run that died keeps other runs away from its scopes.",
		},
		{
			"sync.min_ratio", "0.5", 0, share,
			func(c *Config) bool { return shareOK(c.Sync.MinRatio) },
			func(c *Config) any { return &c.Sync.MinRatio },
			"A window with fewer than this share of its published records is not published without --accept-shrink.",
		},
		{
			"sync.quarantine_max", "1%", 0, share,
			func(c *Config) bool { return shareOK(c.Sync.QuarantineMax) },
			func(c *Config) any { return &c.Sync.QuarantineMax },
			"A window with more than this share of its records in the quarantine, and more than 100 of them, is not published.",
		},
		{
			"sync.ignore_fields", "", 0, "", nil,
			func(c *Config) any { return &c.Sync.IgnoreFields },
			"Unknown fields of records that are dropped instead of kept in extra, because they change with every pull.",
		},
		{
			"sync.poll_initial", "2s", 0, positive,
			func(c *Config) bool { return c.Sync.PollInitial > 0 },
			func(c *Config) any { return &c.Sync.PollInitial },
			"Pause after the first poll of a query job; it grows with every further poll.",
		},
		{
			"sync.poll_max", "30s", 0, "sync.poll_initial or more",
			func(c *Config) bool { return c.Sync.PollMax >= c.Sync.PollInitial },
			func(c *Config) any { return &c.Sync.PollMax },
			"Longest pause between two polls of a query job.",
		},

		{
			streamsSection, "", 0, "", nil,
			func(c *Config) any { return &c.Streams },
			"What else the nightly run pulls and how often at most, such as {audit_logs: {every: 24h}}.",
		},
	}
}

// endpointOK tells whether an endpoint is unset or a URL that the transport may be given. Plain http is for a stand-in vendor on
// this machine.
func endpointOK(text string) bool {
	if text == "" {
		return true
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return false
	}
	switch u.Scheme {
	case "https":
		return true
	case "http":
		addr, err := netip.ParseAddr(u.Hostname())
		return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
	}
	return false
}

func unitOK(u pipeline.Unit) bool { return u == pipeline.Month || u == pipeline.Day }

func shareOK(s Share) bool { return s >= 0 && s <= 1 }

// settable returns the path of everything that can be set to one value: every key, and for each secret the key that names its file.
func settable(keys []configKey) []string {
	var paths []string
	for _, k := range keys {
		if k.path == streamsSection {
			continue
		}
		paths = append(paths, k.path)
		if k.isSecret() {
			paths = append(paths, k.path+"_file")
		}
	}
	return paths
}

// envName returns SDR_SYNC_SYNC_LOOKBACK for "sync.lookback".
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// streamOfEnv returns "streams.audit_logs.every" for SDR_SYNC_STREAMS_AUDIT_LOGS_EVERY.
func streamOfEnv(name string) (path string, ok bool) {
	stream, ok := strings.CutPrefix(name, envPrefix+"STREAMS_")
	if !ok {
		return "", false
	}
	stream, ok = strings.CutSuffix(stream, "_EVERY")
	stream = strings.ToLower(stream)
	return streamsSection + "." + stream + ".every", ok && streamAlphabet.MatchString(stream)
}

// suggestion returns ": did you mean sync.lookback?" for the known name that is nearest to name, or "" if none is near. separator is what
// stands between section and key: a right key in the wrong section, or without one, is near.
func suggestion(name string, known []string, separator string) string {
	name = strings.TrimPrefix(name, envPrefix)
	key := name
	if separator == "." {
		key = name[strings.LastIndex(name, separator)+1:]
	}
	nearest, least := "", max(2, len(name)/3)+1
	for _, candidate := range known {
		distance := editDistance(name, strings.TrimPrefix(candidate, envPrefix))
		if strings.HasSuffix(candidate, separator+key) {
			distance = min(distance, 2)
		}
		if distance < least {
			nearest, least = candidate, distance
		}
	}
	if nearest == "" {
		return ""
	}
	return ": did you mean " + nearest + "?"
}

// editDistance counts the bytes to insert, delete or replace to get from a to b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1) // distances from a[:i] to each b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
