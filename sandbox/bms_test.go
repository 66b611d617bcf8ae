package sandbox_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/sdr-sync/sdr-sync/sandbox"
)

const bmsPath = "/v1/" + sandbox.DefaultProjectID

func TestBMSServers(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{}).logIn()
	servers, other := 0, ""
	for _, row := range v.server.Subscriptions() {
		if row.CloudServiceTypeCode != "hws.service.type.bms" {
			other = row.ResourceID
			continue
		}
		servers++
		var a struct {
			Server map[string]any
		}
		v.want(http.StatusOK, "GET", bmsPath+"/baremetalservers/"+row.ResourceID, "", &a)
		if a.Server["id"] != row.ResourceID || a.Server["name"] != row.ResourceName || a.Server["flavor"] == nil {
			t.Errorf("got %v, want the server of %+v", a.Server, row)
		}
	}
	if servers < 5 {
		t.Errorf("got %d bare metal servers among the subscriptions, want a few", servers)
	}
	v.want(404, "GET", bmsPath+"/baremetalservers/"+other, "", nil)
	v.want(404, "GET", bmsPath+"/baremetalservers/unknown", "", nil)
	v.want(403, "GET", "/v1/another/baremetalservers/unknown", "", nil)
	v.want(400, "GET", bmsPath+"/baremetalservers/unknown?limit=1", "", nil)
	v.want(405, "PUT", bmsPath+"/baremetalservers/unknown", "{}", nil)
	v.logInToDomain().want(403, "GET", bmsPath+"/baremetalservers/"+other, "", nil)
	v.header.Del("X-Auth-Token")
	v.want(401, "GET", bmsPath+"/baremetalservers/"+other, "", nil)
}

func TestBMSJobs(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{PollsUntilDone: 3}).logIn()
	tests := []struct {
		id   string
		want []string
	}{
		{sandbox.BMSJobSucceeds, []string{"INIT", "RUNNING", "RUNNING", "SUCCESS", "SUCCESS"}},
		{sandbox.BMSJobFails, []string{"INIT", "RUNNING", "RUNNING", "FAIL", "FAIL"}},
		{sandbox.BMSJobUnpaid, []string{"PENDING_PAYMENT", "PENDING_PAYMENT", "PENDING_PAYMENT", "PENDING_PAYMENT", "PENDING_PAYMENT"}},
	}
	for _, tt := range tests {
		var got []string
		var last map[string]any
		for range tt.want {
			last = nil
			v.want(http.StatusOK, "GET", bmsPath+"/jobs/"+tt.id, "", &last)
			got = append(got, last["status"].(string))
		}
		if !slices.Equal(got, tt.want) || last["job_id"] != tt.id {
			t.Errorf("got statuses %v of %v, want %v of %s", got, last["job_id"], tt.want, tt.id)
		}
		if failed := last["status"] == "FAIL"; failed != (last["fail_reason"] != nil) || failed != (last["error_code"] != nil) {
			t.Errorf("got %v, want a reason if and only if the task failed", last)
		}
	}
	v.want(404, "GET", bmsPath+"/jobs/unknown", "", nil)
}

func TestBMSLimits(t *testing.T) {
	t.Parallel()
	v := start(t, sandbox.Config{}).logIn()
	statuses := map[int]int{}
	for range 610 {
		statuses[v.do("GET", bmsPath+"/baremetalservers/unknown", "").status]++
	}
	if statuses[404] != 600 || statuses[429] != 10 {
		t.Errorf("got statuses %v, want 600 calls let through within the minute", statuses)
	}
}
