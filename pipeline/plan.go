package pipeline

import (
	"fmt"
	"time"
)

// Ask is what a run wants of one scope: the file dates [From, To), as far as they lie before Today.
type Ask struct {
	From, To Date
	Today    Date           // the file date that is still being written; asked for from tomorrow on
	Unit     Unit           // of windows that do not exist yet
	FileZone *time.Location // zone of file dates
	Settle   time.Duration  // how long after its end a window may still get files
	Refresh  bool           // ask again for windows that are published and settled
	Whole    bool           // nightly: every window that meets the span, whole
}

// Planned is one window of a plan. Skip says why nothing needs to be asked, and is empty if it does.
type Planned struct {
	Window    Window
	Published *WindowState // what stands there now, nil if nothing
	Skip      string
	Retire    []WindowState // with a reslice: what the group of new windows replaces; set on the first of the group
}

// Plan slices an ask for one scope into windows. A published month stays a month and is refreshed whole; where days are published, or
// only a part of a month is asked for, windows are days. Windows tile the span without gap or overlap.
func Plan(scope Scope, existing []WindowState, ask Ask) []Planned {
	var plan []Planned
	end := min(ask.To, ask.Today)
	for month := ask.From.Month(); month < end; month = month.AddMonths(1) {
		monthEnd := min(month.AddMonths(1), ask.Today)
		from, to := max(ask.From, month), min(end, monthEnd)
		if from >= to {
			continue
		}
		slicing := within(existing, month)
		switch {
		case len(slicing) > 0 && slicing[0].Unit == Month:
			plan = append(plan, ask.planned(Window{scope, Month, month, max(monthEnd, slicing[0].To)}, &slicing[0]))
		case len(slicing) == 0 && ask.Unit == Month && (ask.Whole || from == month && to == monthEnd):
			plan = append(plan, ask.planned(Window{scope, Month, month, monthEnd}, nil))
		default:
			for day := from; day < to; day++ {
				plan = append(plan, ask.planned(Window{scope, Day, day, day + 1}, startingAt(slicing, day)))
			}
		}
	}
	return plan
}

// PlanWhole plans the one window of a list that is read whole. It is never skipped: only reading the list tells whether it changed.
func PlanWhole(published *WindowState) []Planned {
	return []Planned{{Window: WholeWindow(), Published: published}}
}

// PlanReslice plans the calendar months that the ask touches anew in windows of unit, whatever slicing is published. Months that are
// sliced so already are left alone. The first window of a month carries what it retires.
func PlanReslice(scope Scope, existing []WindowState, ask Ask, unit Unit) [][]Planned {
	var groups [][]Planned
	for month := ask.From.Month(); month < min(ask.To, ask.Today); month = month.AddMonths(1) {
		old := within(existing, month)
		if len(old) == 0 {
			continue
		}
		// With Today set back, what replaces the old windows must still reach as far as they do.
		monthEnd := max(min(month.AddMonths(1), ask.Today), old[len(old)-1].To)
		if sliced(old, unit, month, monthEnd) {
			continue
		}
		var group []Planned
		if unit == Month {
			group = append(group, Planned{Window: Window{scope, Month, month, monthEnd}})
		} else {
			for day := month; day < monthEnd; day++ {
				group = append(group, Planned{Window: Window{scope, Day, day, day + 1}})
			}
		}
		group[0].Retire = old
		groups = append(groups, group)
	}
	return groups
}

func sliced(windows []WindowState, unit Unit, month, end Date) bool {
	if unit == Month {
		return len(windows) == 1 && windows[0].Unit == Month
	}
	return len(windows) == int(end-month) && windows[0].Unit == Day
}

func within(existing []WindowState, month Date) []WindowState {
	var in []WindowState
	for _, w := range existing {
		if w.From.Month() == month {
			in = append(in, w)
		}
	}
	return in
}

func startingAt(windows []WindowState, from Date) *WindowState {
	for i := range windows {
		if windows[i].From == from {
			return &windows[i]
		}
	}
	return nil
}

func (a Ask) planned(w Window, published *WindowState) Planned {
	p := Planned{Window: w, Published: published}
	if published == nil || a.Refresh || a.Whole {
		return p
	}
	closed := w.Unit == Day || w.To == w.From.AddMonths(1)
	settled := !published.JobCreatedAt.Before(w.To.Time(a.FileZone).Add(a.Settle))
	if closed && published.To >= w.To && settled {
		p.Skip = fmt.Sprintf("published, generation %d", published.Generation)
	}
	return p
}
