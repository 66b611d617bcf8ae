package sandbox

import (
	"fmt"
	"net/http"
	"time"
)

// The read calls of BMS: "API Overview" (2022-02-22), table 2, with the answers of the pages "Querying Details About a BMS" and
// "Querying Task Status" of the public API reference.

// The endpoints of BMS.
const (
	EndpointBMSServer Endpoint = "bms_server"
	EndpointBMSJob    Endpoint = "bms_job"
)

func bmsEndpoints() []Endpoint { return []Endpoint{EndpointBMSServer, EndpointBMSJob} }

// The tasks that BMS knows. A task is INIT when it is first asked for and RUNNING the next Config.PollsUntilDone-1 times.
const (
	BMSJobSucceeds = "ff80808288d41e1b018990260955686a" // a server is created: SUCCESS in the end
	BMSJobFails    = "ff80808288d41e1b018990260955686b" // a disk is attached: FAIL in the end
	BMSJobUnpaid   = "ff80808288d41e1b018990260955686c" // PENDING_PAYMENT for ever
)

// The limits of table 2, per minute.
const (
	bmsServersPerMinute = 600
	bmsJobsPerMinute    = 2000
)

func (s *Server) bmsRoutes() []route {
	servers := s.throttled(EndpointBMSServer, bmsServersPerMinute, time.Minute, s.showServer)
	jobs := s.throttled(EndpointBMSJob, bmsJobsPerMinute, time.Minute, s.showBMSJob)
	return []route{
		{http.MethodGet, "/v1/{project_id}/baremetalservers/{server_id}", EndpointBMSServer, true, s.ofProject(servers)},
		{http.MethodGet, "/v1/{project_id}/jobs/{job_id}", EndpointBMSJob, true, s.ofProject(jobs)},
	}
}

// ofProject lets through what comes with a good token of the project or with a good signature, and asks for that project.
func (s *Server) ofProject(handle func(*call) reply) func(*call) reply {
	return func(c *call) reply {
		if signed(c) {
			if rep, ok := s.checkSignature(c); !ok {
				return rep
			}
			if id := c.Header.Get("X-Project-Id"); id != "" && id != DefaultProjectID {
				return bmsDenied()
			}
		} else {
			t, rep, ok := s.checkToken(c)
			if !ok {
				return rep
			}
			if !t.ofProject {
				return bmsDenied()
			}
		}
		if c.PathValue("project_id") != DefaultProjectID {
			return bmsDenied()
		}
		if len(c.URL.RawQuery) > 0 {
			return bmsError(http.StatusBadRequest, "BMS.0001", "Fail to parse request, reason: there are no parameters.")
		}
		return handle(c)
	}
}

// bmsError is the error answer of BMS, which differs from the others'.
func bmsError(status int, code, message string) reply {
	return jsonReply(status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}

func bmsDenied() reply {
	return bmsError(http.StatusForbidden, "BMS.0004", "Role check fail, reason: the project is not accessible.")
}

// showServer knows the bare metal servers among the subscriptions.
func (s *Server) showServer(c *call) reply {
	id := c.PathValue("server_id")
	if row, found := s.subscriptions.find(id); found && row.ResourceTypeCode == resourceBareMetal {
		return jsonReply(http.StatusOK, map[string]any{"server": serverOf(&row)})
	}
	return jsonReply(http.StatusNotFound, map[string]any{"itemNotFound": map[string]any{
		"code": http.StatusNotFound, "message": fmt.Sprintf("Instance %s could not be found.", id),
	}})
}

// serverOf describes the server that is subscribed to: frozen ones are shut off.
func serverOf(row *Subscription) map[string]any {
	status, vmState, power := "ACTIVE", "active", 1
	if row.Status == 4 {
		status, vmState, power = "SHUTOFF", "stopped", 4
	}
	h := mixText(1, row.ResourceID)
	return map[string]any{
		"id":        row.ResourceID,
		"name":      row.ResourceName,
		"tenant_id": row.ProjectCode,
		"user_id":   hexText(h, 32),
		"status":    status,
		"created":   row.ValidTime,
		"updated":   row.UpdateTime,
		"hostId":    hexText(h+1, 32) + hexText(h+2, 24),
		"key_name":  "keypair-bms",
		"image":     map[string]string{"id": uuidText(h, h+3)},
		"flavor": map[string]string{
			"id": row.ResourceSpecCode, "name": row.ResourceSpecCode, "disk": "600", "vcpus": "32", "ram": "196608",
		},
		"addresses": map[string]any{uuidText(h, h+4): []any{map[string]any{
			"version": "4", "addr": fmt.Sprintf("192.168.%d.%d", h>>8%256, 2+h>>16%250), "OS-EXT-IPS:type": "fixed",
			"OS-EXT-IPS-MAC:mac_addr": fmt.Sprintf("fa:16:3e:%02x:%02x:%02x", h>>24%256, h>>32%256, h>>40%256),
			"OS-EXT-IPS:port_id":      uuidText(h, h+5),
		}}},
		"security_groups":                      []any{map[string]string{"name": "default", "id": uuidText(h, h+6)}},
		"accessIPv4":                           "",
		"accessIPv6":                           "",
		"config_drive":                         "",
		"host_status":                          "UP",
		"locked":                               false,
		"description":                          nil,
		"tags":                                 []string{"__type_baremetal"},
		"sys_tags":                             []any{map[string]string{"key": "_sys_enterprise_project_id", "value": row.EnterpriseProjectID}},
		"metadata":                             serverMetadata(row),
		"os-extended-volumes:volumes_attached": []any{},
		"OS-EXT-STS:vm_state":                  vmState,
		"OS-EXT-STS:power_state":               power,
		"OS-EXT-STS:task_state":                nil,
		"OS-EXT-AZ:availability_zone":          row.RegionCode + "a",
		"OS-DCF:diskConfig":                    "MANUAL",
		"OS-SRV-USG:launched_at":               row.ValidTime.Format("2006-01-02T15:04:05.000000"),
		"OS-SRV-USG:terminated_at":             nil,
	}
}

// serverMetadata has the billing mode: 1 is yearly/monthly.
func serverMetadata(row *Subscription) map[string]string {
	return map[string]string{
		"chargingMode": "1", "metering.order_id": row.OrderID, "metering.product_id": row.ProductID,
		"metering.resourcespeccode": row.ResourceSpecCode, "metering.resourcetype": "5", "op_svc_userid": hexText(mixText(2, row.ID), 32),
		"baremetalPortIDList": "[]", "os_bit": "64", "os_type": "Linux",
	}
}

// bmsJob is a task. polls is guarded by Server.mu.
type bmsJob struct {
	kind  string
	end   string // its last status
	polls int
}

func newBMSJobs() map[string]*bmsJob {
	return map[string]*bmsJob{
		BMSJobSucceeds: {kind: "baremetalBatchCreate", end: "SUCCESS"},
		BMSJobFails:    {kind: "baremetalAttachVolume", end: "FAIL"},
		BMSJobUnpaid:   {kind: "baremetalBatchCreate", end: "PENDING_PAYMENT"},
	}
}

// bmsTime is the form of a task's times.
const bmsTime = "2006-01-02T15:04:05.000Z"

func (s *Server) showBMSJob(c *call) reply {
	id := c.PathValue("job_id")
	s.mu.Lock()
	j := s.bmsJobs[id]
	var polls int
	if j != nil {
		j.polls++
		polls = j.polls
	}
	s.mu.Unlock()
	if j == nil {
		// Errors of tasks are told without an envelope.
		return jsonReply(http.StatusNotFound, map[string]string{
			"code": "BMS.0001", "message": fmt.Sprintf("Fail to parse request, reason: the job %s does not exist.", id),
		})
	}
	status := "INIT"
	switch {
	case polls > s.config.PollsUntilDone || j.end == "PENDING_PAYMENT":
		status = j.end
	case polls > 1:
		status = "RUNNING"
	}
	begin := subscribed.Add(10*time.Hour + 123*time.Millisecond)
	begun, ended := begin.Format(bmsTime), begin.Add(8*time.Minute).Format(bmsTime)
	answer := map[string]any{
		"job_id": id, "job_type": j.kind, "status": status, "begin_time": begun, "end_time": "",
		"error_code": nil, "fail_reason": nil, "entities": map[string]any{},
	}
	switch status {
	case "SUCCESS":
		answer["end_time"] = ended
		answer["entities"] = map[string]any{"sub_jobs_total": 1, "sub_jobs": []any{map[string]any{
			"job_id": id[:31] + "f", "job_type": "baremetalSingleCreate", "status": status, "begin_time": begun, "end_time": ended,
			"error_code": nil, "fail_reason": nil, "entities": map[string]string{"server_id": uuidText(uint64(s.config.Seed), 1)},
		}}}
	case "FAIL":
		answer["end_time"], answer["error_code"], answer["fail_reason"] = ended, "BMS.3033", "attachVolume failed: the volume is in use"
	}
	return jsonReply(http.StatusOK, answer)
}
