package node_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/node"
	"nodeagent/internal/node/nodetest"
)

// TestAtRest: in an hour without a change there are the renewals, one report in
// five minutes, and nothing else but the watch begun anew.
func TestAtRest(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(10 * time.Minute)
		before := len(s.server.Requests("", ""))
		renewals, reports := len(s.server.Requests("update", "leases")), len(s.server.Requests("patch", "nodes"))
		s.wait(time.Hour)
		all := s.server.Requests("", "")[before:]
		renewals, reports = len(s.server.Requests("update", "leases"))-renewals, len(s.server.Requests("patch", "nodes"))-reports
		if renewals < 345 || renewals > 360 {
			t.Errorf("%d renewals in an hour, want one in 10 to 10.4 seconds", renewals)
		}
		if reports != 12 {
			t.Errorf("%d reports in an hour, want 12", reports)
		}
		if more := len(all) - renewals - reports; more > 0 {
			t.Errorf("%d requests more: the watch of this server does not end", more)
		}
		updates := s.server.Requests("update", "leases")
		for i := 1; i < len(updates); i++ {
			if gap := updates[i].At.Sub(updates[i-1].At); gap > 10400*time.Millisecond {
				t.Errorf("%s between two renewals", gap)
			}
		}
		if c := s.condition(corev1.NodeReady); time.Since(c.LastHeartbeatTime.Time) > 5*time.Minute+time.Second || time.Since(c.LastTransitionTime.Time) < time.Hour {
			t.Errorf("ready is %+v", c)
		}
	})
}

// TestSaidAtOnce: a change of a condition is written in no time, one of images
// within ten seconds; a node that changes its mind all the time is bounded.
func TestSaidAtOnce(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Hour)
		s.judge(func(v *node.Verdicts) { v.Memory = new(true) })
		if c := s.condition(corev1.NodeMemoryPressure); c.Status != corev1.ConditionTrue || time.Since(c.LastTransitionTime.Time) > time.Second {
			t.Errorf("memory pressure is %+v", c)
		}
		s.mu.Lock()
		s.facts.Images = append(slices.Clone(s.facts.Images), node.Image{Names: []string{"b:1"}, Size: 20})
		s.mu.Unlock()
		writes := len(s.server.Requests("patch", "nodes"))
		s.node.Wake()
		s.wait(9 * time.Second)
		if now := len(s.server.Requests("patch", "nodes")); now != writes {
			t.Error("images were written at once")
		}
		s.wait(2 * time.Second)
		if n := s.server.Node(); len(n.Status.Images) != 2 || n.Status.Images[0].Names[0] != "b:1" {
			t.Errorf("images are %v", n.Status.Images)
		}
		writes = len(s.server.Requests("patch", "nodes"))
		for i := range 6000 { // ten minutes
			s.judge(func(v *node.Verdicts) { v.Disk = new(i%2 == 0) })
			s.wait(100 * time.Millisecond)
		}
		if n := len(s.server.Requests("patch", "nodes")) - writes; n > 310 {
			t.Errorf("%d writes in ten minutes", n)
		}
	})
}

// TestOldServer: what a server is too old to keep is not written again and again.
func TestOldServer(t *testing.T) {
	play(t, func(_ *node.Config, s *scene) {
		s.facts.Machine.Swap, s.facts.Declared = 1<<30, []string{"New"}
		s.server.Forget(func(n *corev1.Node) { n.Status.NodeInfo.Swap, n.Status.DeclaredFeatures = nil, nil })
	}, func(s *scene) {
		t := s.t
		s.wait(10 * time.Minute)
		writes := len(s.server.Requests("patch", "nodes"))
		s.wait(time.Hour)
		if n := len(s.server.Requests("patch", "nodes")) - writes; n != 12 {
			t.Errorf("%d writes in an hour, want 12", n)
		}
	})
}

// TestPutRight: what others do to what is ours is put right, but slowly: it is
// no race.
func TestPutRight(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		writes := len(s.server.Requests("patch", "nodes"))
		for range 60 {
			s.server.Change(func(n *corev1.Node) { delete(n.Labels, "kubernetes.io/arch"); n.Labels["theirs"] = "x" })
			s.wait(time.Second)
		}
		if n := len(s.server.Requests("patch", "nodes")) - writes; n < 4 || n > 7 {
			t.Errorf("%d writes in a minute, want one in ten seconds", n)
		}
		s.wait(10 * time.Second)
		if n := s.server.Node(); n.Labels["kubernetes.io/arch"] != runtime.GOARCH || n.Labels["theirs"] != "x" {
			t.Errorf("labels %v", n.Labels)
		}
	})
}

// nodesUnplugged and leasesUnplugged are an API that is away without a try to
// connect, which takes longer than all else here.
type nodesUnplugged struct {
	node.Nodes
	away *atomic.Bool
}

type leasesUnplugged struct {
	node.Leases
	away *atomic.Bool
}

var errUnplugged = errors.New("unplugged")

func (u nodesUnplugged) List(ctx context.Context, name string) (*corev1.Node, string, error) {
	if u.away.Load() {
		return nil, "", errUnplugged
	}
	return u.Nodes.List(ctx, name)
}

func (u nodesUnplugged) PatchStatus(ctx context.Context, name string, patch []byte) (*corev1.Node, error) {
	if u.away.Load() {
		return nil, errUnplugged
	}
	return u.Nodes.PatchStatus(ctx, name, patch)
}

func (u leasesUnplugged) Get(ctx context.Context, name string) (*coordinationv1.Lease, error) {
	if u.away.Load() {
		return nil, errUnplugged
	}
	return u.Leases.Get(ctx, name)
}

func (u leasesUnplugged) Update(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	if u.away.Load() {
		return nil, errUnplugged
	}
	return u.Leases.Update(ctx, l)
}

// TestAway: 72 hours without an API server cost little and grow nothing, and
// when it is back the node is too, within seconds. Two of the hours client-go
// tries to connect.
func TestAway(t *testing.T) {
	var away atomic.Bool
	play(t, func(c *node.Config, _ *scene) {
		c.Nodes = nodesUnplugged{c.Nodes, &away}
		c.Leases = leasesUnplugged{c.Leases, &away}
	}, func(s *scene) {
		t := s.t
		s.wait(time.Hour)
		s.server.Refuse(true)
		s.wait(time.Hour)
		heap, dials := inUse(), s.server.Dials()
		s.wait(time.Hour)
		if n := s.server.Dials() - dials; n > 3*3600/5 {
			t.Errorf("%d tries to connect in an hour", n)
		}
		away.Store(true)
		s.wait(70 * time.Hour)
		away.Store(false)
		if grown := inUse() - heap; grown > 1<<20 {
			t.Errorf("the heap grew by %d KiB", grown>>10)
		}
		if s.node.Show().RenewError == "" {
			t.Error("it does not show that the lease is not renewed")
		}
		s.judge(func(v *node.Verdicts) { v.NotReady = []error{errRuntime} })
		s.server.Refuse(false)
		s.wait(11 * time.Second)
		if c := s.condition(corev1.NodeReady); c.Status != corev1.ConditionFalse {
			t.Errorf("ready is %+v", c)
		}
		if l := s.server.Lease(); time.Since(l.Spec.RenewTime.Time) > 11*time.Second {
			t.Errorf("the lease was renewed at %s, now is %s", l.Spec.RenewTime, time.Now())
		}
		if shown := s.node.Show(); shown.RenewError != "" || shown.WriteError != "" {
			t.Errorf("it still shows %+v", shown)
		}
	})
}

func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestFaults: whatever the server does, the lease is renewed in time again once
// it stops, and it is never asked more than it can bear.
func TestFaults(t *testing.T) {
	tooMany := apierrors.NewTooManyRequests("later", 30)
	for name, fault := range map[string]nodetest.Fault{
		"500":       {Error: apierrors.NewInternalError(errRuntime)},
		"forbidden": {Error: apierrors.NewForbidden(corev1.Resource("nodes"), "node", errRuntime)},
		"429":       {Error: tooMany},
		"hang":      {Hang: true},
		"slow":      {Delay: 8 * time.Second},
		"lost":      {Drop: true},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *scene) {
				t := s.t
				s.wait(time.Minute)
				s.server.SetFault(func(nodetest.Request) *nodetest.Fault { return &fault })
				before := len(s.server.Requests("", ""))
				s.wait(10 * time.Minute)
				n := len(s.server.Requests("", "")) - before
				if most := 3 * 600 / 5; n > most {
					t.Errorf("%d requests in ten minutes, want at most %d", n, most)
				}
				if most := 3*600/30 + 20; fault.Error == tooMany && n > most {
					t.Errorf("%d requests in ten minutes, want at most %d: it asked for 30 seconds", n, most)
				}
				s.judge(func(v *node.Verdicts) { v.PIDs = new(true) })
				s.server.SetFault(func(nodetest.Request) *nodetest.Fault { return nil })
				s.wait(50 * time.Second)
				if c := s.condition(corev1.NodePIDPressure); c.Status != corev1.ConditionTrue {
					t.Errorf("PID pressure is %+v", c)
				}
				if l := s.server.Lease(); time.Since(l.Spec.RenewTime.Time) > 11*time.Second {
					t.Errorf("the lease was renewed at %s, now is %s", l.Spec.RenewTime, time.Now())
				}
			})
		})
	}
}

// TestHangHoldsUpNothing: a status that hangs holds up no renewal.
func TestHangHoldsUpNothing(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.server.SetFault(func(r nodetest.Request) *nodetest.Fault {
			if r.Resource == "nodes" {
				return &nodetest.Fault{Hang: true}
			}
			return nil
		})
		s.judge(func(v *node.Verdicts) { v.Disk = new(true) })
		for range 60 {
			s.wait(10 * time.Second)
			if l := s.server.Lease(); time.Since(l.Spec.RenewTime.Time) > 25*time.Second {
				t.Fatalf("the lease was renewed at %s, now is %s", l.Spec.RenewTime, time.Now())
			}
		}
	})
}

// TestGoneOn: a watch that ends, or that the server has forgotten (410), is begun
// anew, and nothing is missed.
func TestGoneOn(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		for _, end := range []func(){s.server.EndWatches, s.server.Expire} {
			end()
			s.server.Change(func(n *corev1.Node) { n.Spec.Unschedulable = !n.Spec.Unschedulable })
			s.wait(time.Minute)
			if s.node.Seen().Spec.Unschedulable != s.server.Node().Spec.Unschedulable {
				t.Error("it missed a change")
			}
		}
		if n := len(s.server.Requests("list", "nodes")); n != 2 {
			t.Errorf("%d lists, want one at the start and one for 410", n)
		}
	})
}

// TestSilent: a watch that says nothing, not even where it is, is of a server that is
// dead behind a proxy; another one goes on from there.
func TestSilent(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Hour)
		s.server.Mute()
		s.server.Change(func(n *corev1.Node) { n.Labels["rack"] = "7" })
		s.wait(2 * time.Minute)
		if got := s.node.Seen().Labels["rack"]; got != "7" {
			t.Errorf("behind a watch that is silent the label is %q", got)
		}
		if lists, watches := len(s.server.Requests("list", "nodes")), len(s.server.Requests("watch", "nodes")); lists != 1 || watches != 2 {
			t.Errorf("%d lists and %d watches, want one and another watch", lists, watches)
		}
	})
}

// TestClock: a clock that is put back or forward stops no heartbeat, and the
// time of renewal never goes back.
func TestClock(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		latest := time.Time{}
		for _, ahead := range []time.Duration{0, -time.Hour, 24 * time.Hour, -24 * time.Hour, 0} {
			s.mu.Lock()
			s.ahead = ahead
			s.mu.Unlock()
			begun := len(s.server.Requests("update", "leases"))
			for range 10 {
				s.wait(12 * time.Second)
				at := s.server.Lease().Spec.RenewTime.Time
				if !at.After(latest) {
					t.Errorf("clock %s ahead: the time of renewal went from %s to %s", ahead, latest, at)
				}
				latest = at
			}
			if n := len(s.server.Requests("update", "leases")) - begun; n < 11 || n > 12 {
				t.Errorf("clock %s ahead: %d renewals in two minutes", ahead, n)
			}
		}
	})
}

// TestRival: who else renews this node's lease is left to it, lease and status,
// until it stops.
func TestRival(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		renew := func() {
			s.server.ChangeLease(func(l *coordinationv1.Lease) *coordinationv1.Lease {
				l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
				return l
			})
		}
		for range 60 { // ten minutes
			renew()
			s.wait(10 * time.Second)
		}
		if !s.node.Show().Rival {
			t.Error("it did not notice")
		}
		renewals, writes := len(s.server.Requests("update", "leases")), len(s.server.Requests("patch", "nodes"))
		for range 60 {
			renew()
			s.wait(10 * time.Second)
		}
		if n := len(s.server.Requests("update", "leases")) - renewals; n > 0 {
			t.Errorf("two write one lease: %d renewals", n)
		}
		if n := len(s.server.Requests("patch", "nodes")) - writes; n > 0 {
			t.Errorf("two write one status: %d writes", n)
		}
		stopped := time.Now()
		s.wait(39 * time.Second)
		if l := s.server.Lease(); !l.Spec.RenewTime.After(stopped) {
			t.Errorf("the lease ran out: renewed at %s, now is %s", l.Spec.RenewTime, time.Now())
		}
		s.wait(10 * time.Second)
		if s.node.Show().Rival {
			t.Error("the other one is gone")
		}
		s.judge(func(v *node.Verdicts) { v.Disk = new(true) })
		s.wait(time.Second)
		if c := s.condition(corev1.NodeDiskPressure); c.Status != corev1.ConditionTrue {
			t.Errorf("disk pressure is %+v", c)
		}
	})
}

// TestNoRival: what is no renewal by another one is none: a lost answer, a note
// on the lease, its deletion.
func TestNoRival(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		for name, do := range map[string]func(){
			"a lost answer": func() {
				s.server.SetFault(func(r nodetest.Request) *nodetest.Fault {
					if r.Verb == "update" {
						return &nodetest.Fault{Drop: true}
					}
					return nil
				})
				s.wait(30 * time.Second)
				s.server.SetFault(func(nodetest.Request) *nodetest.Fault { return nil })
			},
			"a note": func() {
				s.server.ChangeLease(func(l *coordinationv1.Lease) *coordinationv1.Lease {
					l.Annotations = map[string]string{"note": "x"}
					return l
				})
			},
			"deletion": func() {
				s.server.ChangeLease(func(*coordinationv1.Lease) *coordinationv1.Lease { return nil })
			},
		} {
			do()
			s.wait(12 * time.Second)
			if l := s.server.Lease(); l == nil || time.Since(l.Spec.RenewTime.Time) > 12*time.Second {
				t.Errorf("%s: the lease is %v", name, l)
			}
			if s.node.Show().Rival {
				t.Errorf("%s is no rival", name)
			}
		}
	})
}

// TestRestart: the next daemon goes on with the Node and the lease that are
// there, and the one that ended left them.
func TestRestart(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		for range 3 {
			s.stop()
			if s.server.Node() == nil || s.server.Lease() == nil {
				t.Error("a daemon that ends is no node that goes")
			}
			s.run()
			s.wait(time.Second)
		}
		if n := len(s.server.Requests("create", "")); n != 2 {
			t.Errorf("%d objects made, want a Node and a lease", n)
		}
		if c := s.condition(corev1.NodeReady); time.Since(c.LastTransitionTime.Time) < time.Minute {
			t.Errorf("ready is %+v", c)
		}
	})
}

// TestProtobuf: the same with protobuf on the wire, as in a daemon.
func TestProtobuf(t *testing.T) {
	play(t, func(c *node.Config, s *scene) {
		cfg := s.server.Config()
		cfg.ContentType = "application/vnd.kubernetes.protobuf"
		cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		client, err := node.Dial(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Nodes, c.Leases = client.Nodes(), client.Leases()
	}, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		s.server.Delete()
		s.wait(time.Second)
		if n := s.server.Node(); n == nil || n.UID != "uid-2" {
			t.Errorf("the Node is %v", n)
		}
		for _, r := range s.server.Requests("create", "") {
			if r.ContentType != "application/vnd.kubernetes.protobuf" {
				t.Errorf("%s %s came as %s", r.Verb, r.Resource, r.ContentType)
			}
		}
		if s.node.Seen().UID != "uid-2" {
			t.Error("it does not follow")
		}
	})
}

// TestProgress: to rest, and to wait for an API server that does not answer, is
// progress; a loop that does not come back from what it asks of the node makes none.
func TestProgress(t *testing.T) {
	var stuck atomic.Int64 // how long the next looks at the facts take
	play(t, func(c *node.Config, _ *scene) {
		facts := c.Facts
		c.Facts = func() node.Facts { time.Sleep(time.Duration(stuck.Load())); return facts() }
	}, func(s *scene) {
		want := func(what string, silent time.Duration) {
			s.t.Helper()
			if got := time.Since(s.node.Progress()); got != silent {
				s.t.Errorf("%s: silent for %v, want %v", what, got, silent)
			}
		}
		s.wait(time.Hour)
		want("at rest", 0)
		s.server.SetFault(func(nodetest.Request) *nodetest.Fault { return &nodetest.Fault{Hang: true} })
		s.node.Wake()
		for range 300 {
			s.wait(7 * time.Second)
			want("without an answer", 0)
		}
		s.server.SetFault(func(nodetest.Request) *nodetest.Fault { return nil })
		s.wait(10 * time.Minute)
		stuck.Store(int64(time.Hour))
		s.node.Wake()
		s.wait(20 * time.Second)
		want("while a request would have time", 0)
		s.wait(time.Minute)
		want("in a look that hangs", time.Minute)
		stuck.Store(0)
		s.wait(2 * time.Hour)
		want("behind it", 0)
	})
}
