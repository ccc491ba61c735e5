package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"nodeagent/test/measure"
)

// audit is what a kube-apiserver 1.36 wrote, shortened.
const audit = `{"kind":"Event","level":"Metadata","auditID":"b","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/pods/p/status","verb":"patch","user":{"username":"system:node:node","groups":["system:nodes"]},"objectRef":{"resource":"pods","namespace":"default","name":"p","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-22T02:00:01.000100Z","stageTimestamp":"2026-11-22T02:00:01.004100Z"}
{"kind":"Event","auditID":"a","stage":"ResponseStarted","verb":"watch","objectRef":{"resource":"pods","apiVersion":"v1"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-11-22T02:00:00.000000Z","stageTimestamp":"2026-11-22T02:00:00.100000Z"}
{"kind":"Event","auditID":"c","stage":"ResponseComplete","verb":"update","objectRef":{"resource":"leases","namespace":"kube-node-lease","name":"node"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-11-22T02:00:02.000000Z","stageTimestamp":"2026-11-22T02:00:02.000500Z"}
{"kind":"Event","auditID":"a","stage":"ResponseComplete","verb":"watch","objectRef":{"resource":"pods","apiVersion":"v1"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-11-22T02:00:00.000000Z","stageTimestamp":"2026-11-22T02:00:09.000000Z"}
`

// TestAudit: each request counts once, with what it was about and when.
func TestAudit(t *testing.T) {
	all, err := readAudit(strings.NewReader(audit))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, r := range all {
		kinds = append(kinds, r.kind())
	}
	if got := strings.Join(kinds, ", "); got != "watch pods, patch pods/status, update leases" {
		t.Errorf("the requests are %s", got)
	}
	if all[0].ofNode() || all[1].ofNode() || !all[2].ofNode() {
		t.Errorf("those of the node and not of its pods: %v", all)
	}
	if took := all[1].Answered.Sub(all[1].Received); took != 4*time.Millisecond {
		t.Errorf("the patch took %v", took)
	}
	if _, err := readAudit(strings.NewReader(audit[:200])); err == nil {
		t.Error("half a line is taken for a request")
	}
}

// TestStages: the way of a pod falls into parts that add up, and a part that nobody
// saw belongs to the next.
func TestStages(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1_000_000, 0).Add(time.Duration(ms) * time.Millisecond) }
	l := life{
		name: "p", begun: at(0), asked: at(5), seen: at(100),
		events: []measure.Event{
			{Topic: measure.RecordMade, ID: "s", At: at(15)}, {Topic: measure.TaskMade, ID: "s", At: at(20)}, {Topic: measure.TaskStarted, ID: "s", At: at(25)},
			{Topic: measure.RecordMade, ID: "c", At: at(40)}, {Topic: measure.TaskMade, ID: "c", At: at(60)}, {Topic: measure.TaskStarted, ID: "c", At: at(80)},
		},
		requests: []request{
			patched(at(50), at(52)), // the sandbox's address
			patched(at(90), at(110)),
			patched(at(120), at(121)), // after the watcher had seen it
		},
	}
	l.requests = append(l.requests, l.besides([]request{
		asked("serviceaccounts", "token", "create", at(-5), at(-4)), // the one before
		asked("serviceaccounts", "token", "create", at(10), at(18)),
		asked("configmaps", "", "get", at(9), at(12)),
		asked("configmaps", "", "watch", at(12), at(500)),
	})...)
	way := ways()[goesUp]
	got := between([]life{l, {}}, way.begin, way.steps)
	want := []float64{5, 18, 12, 15, 25, 20, 20, -1, 10, 20, 10}
	sum := 0.0
	for i, v := range got {
		switch {
		case want[i] < 0 && len(v) == 0:
		case len(v) != 1 || v[0] < want[i]/1000-1e-9 || v[0] > want[i]/1000+1e-9:
			t.Errorf("%s took %v, want %v ms", way.steps[i].work, v, want[i])
		case !way.steps[i].beside:
			sum += v[0]
		}
	}
	if took := l.took(); sum < took-1e-9 || sum > took+1e-9 {
		t.Errorf("the stages are %v s together, the way %v", sum, took)
	}
}

func patched(received, answered time.Time) request {
	return asked("pods", "status", "patch", received, answered)
}

func asked(resource, sub, verb string, received, answered time.Time) request {
	r := request{Verb: verb, Received: received, Answered: answered}
	r.ObjectRef.Resource, r.ObjectRef.Subresource, r.ResponseStatus.Code = resource, sub, 200
	return r
}

// TestTable: rows are ratios of medians, and one over its limit is told.
func TestTable(t *testing.T) {
	ours, peer := &side{name: "nodeagent"}, &side{name: "kubelet"}
	for at := range valueCount {
		ours.values[at], peer.values[at] = []float64{0.01, 9, 0.02}, []float64{1, 1, 0.1}
	}
	b := &bench{options: options{many: 100}, sides: []*side{ours, peer}}
	var out bytes.Buffer
	if measure.Table(&out, "KUBELET", b.rows()) {
		t.Errorf("all are within their limits:\n%s", out.String())
	}
	ours.values[removeOne] = []float64{0.081}
	if !measure.Table(&out, "KUBELET", b.rows()) || strings.Count(out.String(), "OVER") != 1 {
		t.Errorf("a pod's removal is over its limit:\n%s", out.String())
	}
	b.printStages(&out) // nobody saw anything
}
