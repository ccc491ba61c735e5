package main

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/source"
	"nodeagent/internal/worker"
)

// admission decides, over the pods of all sources of a cluster's node, which of
// them it takes on, and hands them to the pod set. One goroutine does, so that of
// two pods which want the same the older one gets it, whoever brought them.
type admission struct {
	d    *daemon
	poke chan struct{} // holds one

	mu        sync.Mutex
	snapshots map[string]source.Snapshot

	// The rest belongs to run.
	verdicts pod.Verdicts
	asked    map[types.UID]bool // for whom the Node is being read
	fresh    *corev1.Node       // as it was read for these
}

func newAdmission(d *daemon) *admission {
	return &admission{d: d, poke: make(chan struct{}, 1), snapshots: map[string]source.Snapshot{}}
}

// offer takes the latest snapshot of a source. It never blocks.
func (a *admission) offer(s source.Snapshot) {
	a.mu.Lock()
	a.snapshots[s.Source] = s
	a.mu.Unlock()
	a.wake()
}

func (a *admission) wake() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// run decides until ctx ends. It begins when the runtime has said what it holds,
// since that was admitted before.
func (a *admission) run(ctx context.Context) error {
	var reads sync.WaitGroup
	defer reads.Wait()
	done := make(chan *corev1.Node)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.poke:
		case n := <-done:
			a.fresh = n
		}
		unsure := a.turn()
		if len(unsure) == 0 || a.asked != nil {
			continue
		}
		a.asked = map[types.UID]bool{}
		for _, uid := range unsure {
			a.asked[uid] = true
		}
		reads.Go(func() {
			n := a.read(ctx)
			select {
			case done <- n:
			case <-ctx.Done():
			}
		})
	}
}

// How the Node is read for a decision.
const (
	readLimit = 10 * time.Second
	readAgain = time.Second
)

// read reads the Node anew, until it is there or ctx ends.
func (a *admission) read(ctx context.Context) *corev1.Node {
	again := time.NewTicker(readAgain)
	defer again.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, readLimit)
		n, err := a.d.cluster.freshNode(bounded)
		cancel()
		if err == nil {
			return n
		}
		a.d.log.Debug("pods wait for the node to be read", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// turn decides for all that are not decided, and hands all on.
func (a *admission) turn() (unsure []types.UID) {
	var snapshots []source.Snapshot
	a.mu.Lock()
	for _, name := range a.d.sources() {
		if s, told := a.snapshots[name]; told {
			snapshots = append(snapshots, s)
		}
	}
	a.mu.Unlock()
	all := a.candidates(snapshots...)
	judge := pod.Admission{Allowed: allowed(a.d.cfg), Node: a.d.cluster.node.Seen(), OS: goos, ShuttingDown: a.d.shuttingDown()}
	a.verdicts, unsure = judge.Decide(a.verdicts, all)
	if a.fresh != nil {
		unsure = a.decideFresh(judge, all, unsure)
	}
	for _, s := range snapshots {
		a.d.set.Offer(a.wished(s, judge.Allowed))
	}
	return unsure
}

// decideFresh decides for those for whom the Node was read; others that are not
// sure either have it read again.
func (a *admission) decideFresh(judge pod.Admission, all []pod.Candidate, unsure []types.UID) []types.UID {
	judge.Node, judge.Fresh = a.fresh, true
	later := map[types.UID]bool{}
	for _, uid := range unsure {
		later[uid] = !a.asked[uid]
	}
	var now []pod.Candidate
	for _, c := range all {
		if !later[c.Pod.UID] {
			now = append(now, c)
		}
	}
	a.verdicts, _ = judge.Decide(a.verdicts, now)
	a.fresh, a.asked = nil, nil
	var left []types.UID
	for _, uid := range unsure {
		if later[uid] {
			left = append(left, uid)
		}
	}
	return left
}

// candidates are the pods of all sources; those that a source rejects are none.
func (a *admission) candidates(all ...source.Snapshot) []pod.Candidate {
	held := map[types.UID]bool{}
	for _, uid := range a.d.runtime.Pods() {
		held[uid] = true
	}
	over := map[types.UID]bool{}
	for _, p := range a.d.set.Pods() {
		over[p.UID] = pod.Over(p.Status.Phase)
	}
	var candidates []pod.Candidate
	for _, s := range all {
		for _, p := range s.Pods {
			if _, rejected := s.Rejected[p.UID]; !rejected {
				candidates = append(candidates, pod.Candidate{Pod: p, Held: held[p.UID], Over: over[p.UID]})
			}
		}
	}
	return candidates
}

// wished is a source's snapshot as the pod set takes it. Pods without a verdict
// are left out: nothing of them runs.
func (a *admission) wished(s source.Snapshot, can pod.Allowed) worker.Snapshot {
	snap := worker.Snapshot{Source: s.Source, Synced: s.Synced, Trusted: s.Trusted}
	for _, p := range s.Pods {
		desired := pod.Desired{Wish: pod.WishRun, Pod: p}
		if grace, ending := s.Ending[p.UID]; ending {
			desired.Wish, desired.Grace = pod.WishAbsent, &grace
		}
		r, rejected := s.Rejected[p.UID]
		verdict, decided := a.verdicts[p.UID]
		switch {
		case rejected:
			desired.Rejected = &r
		case decided:
			desired.Rejected = verdict
			if s.Source == sourceAPI { // those of files were refused by it
				desired.Unbuilt = pod.Unbuilt(p, can)
			}
		default:
			continue
		}
		snap.Pods = append(snap.Pods, desired)
	}
	return snap
}

// offerAPI hands on what the API server wants of the node: first to who reads what
// pods refer to and to who tells how they are, so that both know a pod before it
// begins, or has ended.
func (d *daemon) offerAPI(s source.Snapshot) {
	d.count.starts.listed(s.Pods, time.Now())
	d.cluster.problems.put(s, d.log)
	d.cluster.objects.Keep(s.Pods)
	d.cluster.server.put(s, d.cluster.writer.Offer)
	d.admission.offer(s)
}
