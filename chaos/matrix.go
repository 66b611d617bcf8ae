package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/sandbox"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// fault is one kind of trouble, and where it can strike.
type fault struct {
	name    string
	number  string // in the list of faults, docs/reliability.md
	what    string
	stages  func() []string
	thrice  bool                  // at the first, a middle and the last occurrence of a stage; otherwise the first alone
	run     string                // scenario; empty: one that passes the stage
	vendor  func(*sandbox.Config) // the last word on the vendor
	crashes bool                  // needs a server that may be stopped
	root    bool                  // needs root
	befall  func(context.Context, *cycle) error
}

// faults lists every kind.
func faults() []fault {
	return slices.Concat(processFaults(), databaseFaults(), diskFaults(), vendorFaults(), httpFaults())
}

// Fault describes a kind of trouble for people.
type Fault struct {
	Name, Number, What string
}

// Faults lists every kind of trouble.
func Faults() []Fault {
	var all []Fault
	for _, f := range faults() {
		all = append(all, Fault{f.name, f.number, f.what})
	}
	return all
}

func faultNamed(name string) (fault, bool) {
	all := faults()
	i := slices.IndexFunc(all, func(f fault) bool { return f.name == name })
	if i < 0 {
		return fault{}, false
	}
	return all[i], true
}

// at are stages of the fault's own.
func at(stages ...string) func() []string {
	return func() []string { return stages }
}

// allPoints are every failpoint.
func allPoints() []string {
	var names []string
	for _, p := range failpoint.All() {
		names = append(names, string(p))
	}
	return names
}

// loadPoints are the failpoints of a first load, which is what the crashed server's worlds can do.
func loadPoints() []string {
	elsewhere := []failpoint.Point{
		failpoint.LandingSynced, failpoint.PublishRetired, failpoint.MergeInserted, failpoint.MergeDeleted, failpoint.PublishRestatement,
		failpoint.PublishUnchanged, failpoint.SettleDiscarded, failpoint.MigrateBegun, failpoint.MigrateSchema, failpoint.Migrated,
	}
	return slices.DeleteFunc(allPoints(), func(p string) bool { return slices.Contains(elsewhere, failpoint.Point(p)) })
}

// failing are the failpoints at which the program looks at an error.
func failing() []string {
	return slices.DeleteFunc(allPoints(), func(p string) bool { return !failpoint.Point(p).CanFail() })
}

// endpoints are the calls that the vendor knows, as stages.
func endpoints() []string {
	vendor, err := sandbox.New(sandbox.Config{Resources: 1, Subscriptions: 1, Devices: 1})
	if err != nil {
		panic(err) // the configuration is a constant
	}
	var names []string
	for e := range vendor.Stats().Calls {
		names = append(names, "http."+string(e))
	}
	slices.Sort(names)
	return names
}

// listEndpoints are those of lists.
func listEndpoints() []string {
	return slices.DeleteFunc(endpoints(), func(stage string) bool {
		e, _ := endpointOf(stage)
		return slices.Contains([]sandbox.Endpoint{
			sandbox.EndpointToken, sandbox.EndpointCreate, sandbox.EndpointPoll, sandbox.EndpointPage, sandbox.EndpointBMSJob, sandbox.EndpointBMSServer,
		}, e)
	})
}

func endpointOf(stage string) (sandbox.Endpoint, bool) {
	name, found := strings.CutPrefix(stage, "http.")
	return sandbox.Endpoint(name), found
}

// Matrix lists every cell: each fault at each of its stages, at each occurrence that a stage may have.
func Matrix() []Cell {
	var all []Cell
	for _, f := range faults() {
		for _, stage := range f.stages() {
			for _, o := range f.occurrences() {
				all = append(all, Cell{f.name, stage, o})
			}
		}
	}
	return all
}

func (f fault) occurrences() []string {
	if f.thrice {
		return []string{First, Middle, Last}
	}
	return []string{First}
}

// Check says what is wrong with a cell, if there is no such one.
func (c Cell) Check() error {
	f, ok := faultNamed(c.Fault)
	if !ok || !slices.Contains(f.stages(), c.Stage) || !slices.Contains(f.occurrences(), c.Occurrence) {
		return fmt.Errorf("there is no cell %s: see sdr-sync chaos --list", c)
	}
	return nil
}

// Matrix lists the cells that differ here: a stage that a run passes once or twice has no middle.
func (h *Harness) Matrix() []Cell {
	return slices.DeleteFunc(Matrix(), func(c Cell) bool {
		n := h.most(c.Stage)
		return n == 1 && c.Occurrence != First || n == 2 && c.Occurrence == Middle
	})
}

// most is how often the undisturbed scenarios pass a stage at most; 0 if nobody counts it.
func (h *Harness) most(stage string) int {
	most := 0
	for _, t := range h.traces {
		most = max(most, t.passes(stage))
	}
	return most
}

// passes is how often a run passes a stage.
func (t trace) passes(stage string) int {
	if e, ok := endpointOf(stage); ok {
		return int(t.calls[e])
	}
	return t.points[stage]
}

// scenarioFor chooses the run that a cell befalls: one that passes the stage.
func (h *Harness) scenarioFor(f fault, c Cell, random *rand.Rand) scenario {
	if f.crashes {
		return scenarioNamed("first")
	}
	if f.run != "" {
		return scenarioNamed(f.run)
	}
	var fit []scenario
	for _, s := range scenarios() {
		if h.traces[s.name].passes(c.Stage) > 0 && s.name != "slow" {
			fit = append(fit, s)
		}
	}
	switch {
	case len(fit) > 0:
		return fit[random.IntN(len(fit))]
	case h.traces["slow"].passes(c.Stage) > 0:
		return scenarioNamed("slow")
	case strings.HasPrefix(c.Stage, "http."):
		return scenarioNamed("again") // with another list
	}
	all := scenarios()[:4]
	return all[random.IntN(len(all))]
}

// nth is the number of the occurrence that the cell names, in the cycle's scenario.
func (c *cycle) nth() int {
	n := max(1, c.trace.passes(c.cell.Stage))
	switch c.cell.Occurrence {
	case Middle:
		return (n + 1) / 2
	case Last:
		return n
	}
	return 1
}

// pullOf makes the world pull the list behind an endpoint, and nothing else, unless its scenario calls the endpoint anyway.
func (c *cycle) pullOf(e sandbox.Endpoint) {
	if c.trace.calls[e] > 0 {
		return
	}
	if e == sandbox.EndpointBMSJob {
		c.streams, c.args = nil, []string{"bms", "job", sandbox.BMSJobSucceeds}
		return
	}
	if e == sandbox.EndpointResourcesV2 {
		c.settings["bss"]["api"] = "v2"
	}
	c.first = c.now().AddDate(0, 0, -2)
	c.streams = []string{streamOf(e)}
	if e == sandbox.EndpointHostMetrics || e == sandbox.EndpointHostVMs { // which are asked for by the devices that are known
		c.streams = append(c.streams, "physical_devices")
	}
	c.args = c.backfill()
}

// streamOf is the stream whose list an endpoint serves.
func streamOf(e sandbox.Endpoint) string {
	switch e {
	case sandbox.EndpointResources, sandbox.EndpointResourcesV2:
		return "subscriptions"
	case sandbox.EndpointMeasurements:
		return "measure_units"
	case sandbox.EndpointBMSServer:
		return "bms_servers"
	}
	if schemas.ByName(string(e)) != nil {
		return string(e)
	}
	return ""
}
