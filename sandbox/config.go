package sandbox

import (
	"fmt"
	"regexp"
	"time"
)

// What DefaultConfig answers to. None of it is a secret: the stand-in vendor has nothing to protect.
const (
	DefaultDomainID = "d1803845584b4626850ce57a8a020e4f"
	DefaultUser     = "sdr-reader"
	DefaultPassword = "sandbox-password"
	DefaultDomain   = "hcso-operator"
	DefaultProject  = "cn-north-213"
	DefaultSite     = "hcso-213"
	DefaultRegion   = "cn-north-213"

	DefaultShareID   = "2f5c7f0a9d4e4b1c8a63"             // of the service health
	DefaultProjectID = "0a4c6de1b77b4a30a3a1fd2b6ce5f201" // of DefaultProject, in the paths of BMS
	DefaultAccessKey = "SANDBOXACCESSKEY0001"
	DefaultSecretKey = "sandbox-secret-key"
)

// Scope is a site (hcso_id) and one region of it that the stand-in vendor has metering records of.
type Scope struct {
	Site   string
	Region string
}

// KeyStyle is how the keys of a record are spelt. SdrRecordVo is documented nowhere, so a site may send any of them.
type KeyStyle string

// The spellings of keys.
const (
	Snake  KeyStyle = "snake"  // accumulate_factor_name, as in the sample of ESM API Reference (zh) 4.1.12
	Camel  KeyStyle = "camel"  // accumulateFactorName
	Pascal KeyStyle = "pascal" // AccumulateFactorName
)

// Config says what the stand-in vendor holds and how it behaves. Zero fields mean the default, but for the Every fields, FailRate
// and PageLatency, whose zero means never; DefaultConfig sets all.
type Config struct {
	Seed      int64 // the records follow from it alone
	Resources int   // metered resources per scope; see ResourcesFor

	DomainID string // tenant in the paths of ESM
	User     string
	Password string
	Domain   string // account name of the IAM user
	Project  string // project name that tokens must be asked for

	APIGAppcode  string // X-APIG-Appcode, checked only if set
	HCSOAppcode  string // x-hcso-appcode, checked only if set
	HCSODomainID string // x-hcso-domainid, checked only if set

	Scopes []Scope

	Today func() time.Time // file dates from its date on have no file yet; its zone is the zone of file dates
	First time.Time        // file dates before its date have no file; 2012-01-01 at the earliest, the default

	Subscriptions    int           // yearly/monthly resources of the tenant; 120 by default
	AccessKey        string        // the key pair that BSS and BMS take instead of a token
	SecretKey        string        //
	ClockSkew        time.Duration // how far the vendor's clock is ahead of the real one
	ShiftEvery       int           // about one further page of the subscriptions in so many finds a row gone from an earlier one
	StringTotals     bool          // numbers of rows are texts, as in some of the documents' samples
	DenyDictionaries bool          // the account may not read the dictionaries of BSS

	Generation     string // Generation202503 or Generation202510: whose lists and spellings of ESM there are; empty for both, mixed
	Devices        int    // physical devices of the site; 30 by default
	EventsPerDay   int    // audit logs of a day, half as many alarms of either kind; 12 by default
	ShareID        string // what the service health is asked by
	ExclusiveBegin bool   // what happened at begin_time itself is left out of the lists of ESM
	InclusiveEnd   bool   // what happened at end_time itself is in them
	NoListLimits   bool   // the lists of ESM may be called as often as one likes

	KeyStyle        KeyStyle
	BadEvery        int // about one record in so many can't be parsed
	TwinEvery       int // about one record in so many is an exact twin of another
	LateEvery       int // about one record in so many is of usage 1 to 40 days before its file date
	CorrectionEvery int // about one record in so many is a correction (record_type 30)

	PollsUntilDone int           // the poll that first answers success
	TokenTTL       time.Duration // how long a token is good
	PageLatency    time.Duration // how long a page takes
	FailRate       float64       // share of calls that fail in a way worth retrying, 0 to 1
	Faults         []Fault       // faults on demand from the start
}

// DefaultConfig returns a vendor with one scope, 300 resources and some of every oddity.
func DefaultConfig() Config {
	c := Config{Seed: 1, BadEvery: 20_000, TwinEvery: 2_000, LateEvery: 500, CorrectionEvery: 1_000}
	c.setDefaults()
	return c
}

func (c *Config) setDefaults() {
	for _, f := range []struct {
		field *string
		value string
	}{
		{&c.DomainID, DefaultDomainID},
		{&c.User, DefaultUser},
		{&c.Password, DefaultPassword},
		{&c.Domain, DefaultDomain},
		{&c.Project, DefaultProject},
		{&c.AccessKey, DefaultAccessKey},
		{&c.SecretKey, DefaultSecretKey},
		{&c.ShareID, DefaultShareID},
		{(*string)(&c.KeyStyle), string(Snake)},
	} {
		if *f.field == "" {
			*f.field = f.value
		}
	}
	if c.Resources == 0 {
		c.Resources = 300
	}
	if c.Subscriptions == 0 {
		c.Subscriptions = 120
	}
	if c.Devices == 0 {
		c.Devices = 30
	}
	if c.EventsPerDay == 0 {
		c.EventsPerDay = 12
	}
	if len(c.Scopes) == 0 {
		c.Scopes = []Scope{{DefaultSite, DefaultRegion}}
	}
	if c.Today == nil {
		c.Today = func() time.Time { return time.Now().UTC() }
	}
	if c.First.IsZero() {
		c.First = time.Date(2012, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if c.PollsUntilDone == 0 {
		c.PollsUntilDone = 2
	}
	if c.TokenTTL == 0 {
		c.TokenTTL = 24 * time.Hour
	}
}

// The alphabets of ESM API Reference 4.2, tables 4-1, 4-4 and 4-7, anchored at both ends.
var (
	idAlphabet     = regexp.MustCompile(`^[-_0-9a-zA-Z]{0,36}$`)
	regionAlphabet = regexp.MustCompile(`^[-_0-9a-zA-Z]{0,255}$`)
	markerAlphabet = regexp.MustCompile(`^[-_+/=0-9a-zA-Z]{0,200}$`)
	timeForm       = regexp.MustCompile(`^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}$`)
)

func (c *Config) validate() error {
	if !idAlphabet.MatchString(c.DomainID) {
		return fmt.Errorf("domain id %q: want at most 36 letters, digits, '-' or '_'", c.DomainID)
	}
	seen := map[Scope]bool{}
	for _, s := range c.Scopes {
		if s.Site == "" || s.Region == "" || !idAlphabet.MatchString(s.Site) || !regionAlphabet.MatchString(s.Region) || seen[s] {
			return fmt.Errorf("scope %s/%s: want a site and a region, once, of letters, digits, '-' or '_'", s.Site, s.Region)
		}
		seen[s] = true
	}
	switch c.KeyStyle {
	case Snake, Camel, Pascal:
	default:
		return fmt.Errorf("key style %q: want %s, %s or %s", c.KeyStyle, Snake, Camel, Pascal)
	}
	switch c.Generation {
	case "", Generation202503, Generation202510:
	default:
		return fmt.Errorf("generation %q: want %s, %s or none", c.Generation, Generation202503, Generation202510)
	}
	if c.EventsPerDay > maxEventsPerDay {
		return fmt.Errorf("events per day %d: want %d at most", c.EventsPerDay, maxEventsPerDay)
	}
	for _, f := range []struct {
		name  string
		value int
	}{
		{"resources", c.Resources},
		{"subscriptions", c.Subscriptions},
		{"devices", c.Devices},
		{"events per day", c.EventsPerDay},
		{"shift every", c.ShiftEvery},
		{"bad every", c.BadEvery},
		{"twin every", c.TwinEvery},
		{"late every", c.LateEvery},
		{"correction every", c.CorrectionEvery},
		{"polls until done", c.PollsUntilDone},
	} {
		if f.value < 0 {
			return fmt.Errorf("%s %d: want 0 or more", f.name, f.value)
		}
	}
	if c.First.Year() < 2012 {
		return fmt.Errorf("first file date %s: want 2012 or later, since usage before 2010 counts as garbage", dayOf(c.First))
	}
	if c.FailRate < 0 || c.FailRate > 1 {
		return fmt.Errorf("fail rate %v: want 0 to 1", c.FailRate)
	}
	for _, f := range c.Faults {
		if err := f.validate(); err != nil {
			return err
		}
	}
	return nil
}

// ResourcesFor returns how many resources make a span of so many file days hold about so many records per scope.
func ResourcesFor(records, days int) int {
	if records <= 0 || days <= 0 {
		return 1
	}
	want := (records + 12*days) / (24 * days) // series
	cycles := want / seriesPerCycle
	resources, series := cycles*len(resourceCycle), cycles*seriesPerCycle
	for _, kind := range resourceCycle {
		next := series + len(kind.factors)
		if next-want > want-series {
			break
		}
		resources, series = resources+1, next
	}
	return max(1, resources)
}
