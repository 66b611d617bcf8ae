package list_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// Memory does not grow with the windows of a run: a year of days of a list that is asked for each of two thousand hosts takes no more than a
// week does.
func TestJobsAreForgotten(t *testing.T) {
	hosts := make([]string, 2000)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("host-%04d", i)
	}
	s := parse(t, named(t))
	v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, `{"total_count":1,"data":[1]}`)
	}, values(hosts...))
	day := pipeline.Date(0)
	create := func(jobs int) {
		for range jobs {
			day++
			if _, err := v.client.CreateJob(t.Context(), pipeline.JobRequest{DomainID: "d-1", Min: day.String(), Max: (day + 1).String()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	create(7)
	before := heap()
	create(365)
	if after := heap(); after > before+4<<20 {
		t.Errorf("365 windows hold %d KiB more than 7", (after-before)>>10)
	}
	runtime.KeepAlive(v)
}

// What is read again is read by other pages: a third reading by a quarter of the size.
func TestReadAgainByOtherPages(t *testing.T) {
	t.Parallel()
	s := parse(t, change(t, things, "size: 2", "size: 100"))
	v := open(t, s, s.List, func(w http.ResponseWriter, r *http.Request) { answer(w, 200, `{"total_count":0,"data":[]}`) }, nil)
	for range 4 {
		if _, err := v.read(t); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []string
	for _, line := range v.asked() {
		_, size, _ := strings.Cut(line, "limit=")
		size, _, _ = strings.Cut(size, "&")
		sizes = append(sizes, size)
	}
	if got := strings.Join(sizes, " "); got != "100 50 25 25" {
		t.Errorf("pages of %s were asked for", got)
	}
}
