package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"nodeagent/test/measure"
)

// auditPolicy has the API server write down what a node asks of it, and nothing else.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ["system:nodes"]}
- level: None
`

// request is one that a node made, as the API server's audit log has it.
type request struct {
	AuditID   string `json:"auditID"`
	Stage     string `json:"stage"`
	Verb      string `json:"verb"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Name        string `json:"name"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Received time.Time `json:"requestReceivedTimestamp"`
	Answered time.Time `json:"stageTimestamp"` // of the last stage that is known
}

// kind says what was asked for, without whom it was about.
func (r request) kind() string {
	text := r.Verb + " " + r.ObjectRef.Resource
	if r.ObjectRef.Subresource != "" {
		text += "/" + r.ObjectRef.Subresource
	}
	return text
}

// ofNode tells whether the request is about the node and not about its pods.
func (r request) ofNode() bool {
	return r.ObjectRef.Resource == "nodes" || r.ObjectRef.Resource == "leases"
}

// readAudit reads requests, each once, in the order in which they were received. A
// watch has a line when it begins and one when it ends.
func readAudit(in io.Reader) ([]request, error) {
	byID := map[string]request{}
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var r request
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("read the API server's audit log: %w", err)
		}
		byID[r.AuditID] = r
	}
	var all []request
	for _, r := range byID {
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y request) int { return x.Received.Compare(y.Received) })
	return all, s.Err()
}

// besides are the requests in this time for what the pod refers to: nobody else's,
// since these pods come one after another.
func (l life) besides(all []request) (of []request) {
	for _, r := range all {
		if kind := r.kind(); (kind == askToken || kind == askConfigMap) && r.Received.After(l.begun) && r.Received.Before(l.seen) {
			of = append(of, r)
		}
	}
	return of
}

// What a pod waits for beside its own object.
const (
	askToken     = "create serviceaccounts/token"
	askConfigMap = "get configmaps"
)

// requests counts what the agent asked since a moment, and gives the lives of its
// pods of this turn the API server's own view.
func (b *bench) requests(ctx context.Context, s *side, since time.Time) error {
	if err := measure.Pause(ctx, settle); err != nil { // its events come late
		return err
	}
	f, err := os.Open(b.audit)
	if err != nil {
		return err
	}
	defer f.Close()
	all, err := readAudit(f)
	if err != nil {
		return err
	}
	kinds, count := map[string]int{}, 0
	about := map[string][]request{}
	for _, r := range all {
		if r.Received.Before(since) || r.ofNode() {
			continue
		}
		count++
		kinds[r.kind()]++
		if r.ObjectRef.Resource == "pods" {
			about[r.ObjectRef.Name] = append(about[r.ObjectRef.Name], r)
		}
	}
	for i := range s.lives {
		for k := range s.lives[i] {
			if l := &s.lives[i][k]; len(about[l.name]) > 0 {
				l.requests = append(about[l.name], l.besides(all)...)
			}
		}
	}
	pods := float64(b.single + 1 + b.ending + b.many)
	s.values[perPod] = append(s.values[perPod], float64(count)/pods)
	s.kinds = kinds
	return nil
}
