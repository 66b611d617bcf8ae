package chaos

import (
	"slices"
	"time"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

// prepared is what a world begins with.
type prepared string

const (
	bare     prepared = "bare"   // an empty database
	migrated prepared = "empty"  // a migrated one
	loaded   prepared = "loaded" // a first load, published and exported
)

// scenario is the run that a fault befalls.
type scenario struct {
	name    string
	from    prepared
	night   bool // one has passed since
	change  func(*sandbox.Config)
	command func(*world) []string
}

// login is the role that the program works as.
func (s scenario) login() string {
	if s.from == bare {
		return superuser // which migrates
	}
	return writer
}

// scenarios are the ways in which the program changes anything.
func scenarios() []scenario {
	return []scenario{
		{name: "first", from: migrated, command: func(w *world) []string { return w.backfill() }},
		{name: "night", from: loaded, night: true, command: func(w *world) []string { return w.nightly() }},
		{name: "reslice", from: loaded, night: true, command: func(w *world) []string {
			w.streams = []string{"sdr"}
			return w.backfill("--reslice", "day")
		}},
		{name: "again", from: loaded, command: func(w *world) []string { return w.nightly() }},
		{name: "slow", from: migrated, change: func(c *sandbox.Config) { c.PageLatency = 60 * time.Millisecond }, command: func(w *world) []string {
			return w.backfill()
		}},
		{name: "replay", from: loaded, command: func(w *world) []string { return []string{"replay", "--all"} }},
		{name: "export", from: loaded, command: func(w *world) []string { return []string{"export", "--all"} }},
		{name: "migrate", from: bare, command: func(*world) []string { return []string{"migrate"} }},
	}
}

func scenarioNamed(name string) scenario {
	all := scenarios()
	return all[slices.IndexFunc(all, func(s scenario) bool { return s.name == name })]
}
