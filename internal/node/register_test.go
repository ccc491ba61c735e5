package node_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"nodeagent/internal/node"
	"nodeagent/internal/node/nodetest"
)

// TestRegisters: a node that nobody knows makes its Node and its lease, by few
// requests, and says it is Ready as soon as it is.
func TestRegisters(t *testing.T) {
	play(t, func(c *node.Config, s *scene) { s.verdicts.NotReady = []error{errRuntime} }, func(s *scene) {
		t := s.t
		n := s.server.Node()
		if n == nil {
			t.Fatal("it made no Node")
		}
		for key, value := range map[string]string{
			"team": "a", "kubernetes.io/hostname": "node", "kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux",
		} {
			if n.Labels[key] != value {
				t.Errorf("label %s is %q, want %q", key, n.Labels[key], value)
			}
		}
		if n.Annotations["volumes.kubernetes.io/controller-managed-attach-detach"] != "true" || len(n.Spec.Taints) != 1 {
			t.Errorf("annotations %v, taints %v", n.Annotations, n.Spec.Taints)
		}
		if i := n.Status.NodeInfo; i.KubeletVersion != "v1.36.3+nodeagent.test" || i.ContainerRuntimeVersion != "containerd://2.4.2" || i.BootID != "boot-1" {
			t.Errorf("info is %+v", i)
		}
		if q := n.Status.Capacity["hugepages-2Mi"]; q.String() != "8Mi" {
			t.Errorf("capacity is %v", n.Status.Capacity)
		}
		if len(n.Status.Addresses) != 3 || n.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 {
			t.Errorf("addresses %v, endpoints %v", n.Status.Addresses, n.Status.DaemonEndpoints)
		}
		if c := s.condition(corev1.NodeReady); c.Status != corev1.ConditionFalse || c.Message != errRuntime.Error() {
			t.Errorf("ready is %+v", c)
		}
		s.judge(func(v *node.Verdicts) { v.NotReady = nil }) // no time passes
		if c := s.condition(corev1.NodeReady); c.Status != corev1.ConditionTrue || c.Reason != "KubeletReady" {
			t.Errorf("ready is %+v", c)
		}
		if l := s.server.Lease(); l == nil || *l.Spec.LeaseDurationSeconds != 40 || *l.Spec.HolderIdentity != "node" ||
			len(l.OwnerReferences) != 1 || l.OwnerReferences[0].UID != n.UID || l.OwnerReferences[0].Kind != "Node" {
			t.Errorf("lease is %+v", l)
		}
		var verbs []string
		for _, r := range s.server.Requests("", "") {
			verbs = append(verbs, r.Verb+" "+r.Resource)
		}
		slices.Sort(verbs)
		want := []string{"create leases", "create nodes", "get leases", "list nodes", "patch nodes", "patch nodes", "watch nodes"}
		if !slices.Equal(slices.Compact(verbs), slices.Compact(want)) || len(verbs) > len(want)+1 {
			t.Errorf("requests %v, want %v", verbs, want)
		}
		if got := s.reasons(); !slices.Contains(got, "NodeReady") {
			t.Errorf("events %v", got)
		}
		if shown := s.node.Show(); !shown.Registered || shown.UID != string(n.UID) || shown.Rival || shown.Renewed.IsZero() {
			t.Errorf("it shows %+v", shown)
		}
	})
}

// TestRegisterNode: with --register-node=false nothing is made, and what comes
// is taken up at once.
func TestRegisterNode(t *testing.T) {
	play(t, func(c *node.Config, _ *scene) { c.Register = false }, func(s *scene) {
		t := s.t
		s.wait(time.Hour)
		if s.server.Node() != nil || s.server.Lease() != nil {
			t.Error("it made an object")
		}
		n := &corev1.Node{}
		n.Name = "node"
		s.server.Put(n)
		synctest.Wait()
		if c := s.condition(corev1.NodeReady); c.Status != corev1.ConditionTrue {
			t.Errorf("ready is %+v", c)
		}
		if s.server.Lease() == nil {
			t.Error("there is no lease")
		}
	})
}

// TestTakeOver: what a kubelet left is put right where it is ours, and all else
// stays as it is.
func TestTakeOver(t *testing.T) {
	before := &corev1.Node{}
	before.Name = "node"
	before.Labels = map[string]string{"kubernetes.io/arch": "vax", "zone": "z", "kubernetes.io/hostname": "node"}
	before.Spec = corev1.NodeSpec{PodCIDR: "10.244.7.0/24", PodCIDRs: []string{"10.244.7.0/24"}, Unschedulable: true,
		Taints: []corev1.Taint{{Key: "theirs", Effect: corev1.TaintEffectNoExecute}}}
	before.Status = corev1.NodeStatus{
		NodeInfo:     corev1.NodeSystemInfo{KubeletVersion: "v1.35.1", BootID: "boot-0", KubeProxyVersion: "v1.35.1"},
		VolumesInUse: []corev1.UniqueVolumeName{"v"},
		Addresses:    []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.99"}},
		Capacity:     corev1.ResourceList{"example.com/gpu": resource.MustParse("4"), "hugepages-1Gi": resource.MustParse("1Gi"), "cpu": resource.MustParse("2")},
		Allocatable:  corev1.ResourceList{"example.com/gpu": resource.MustParse("4"), "hugepages-1Gi": resource.MustParse("1Gi"), "example.com/old": resource.MustParse("1")},
		Conditions: []corev1.NodeCondition{
			{Type: "KernelDeadlock", Status: corev1.ConditionFalse, Reason: "Theirs"},
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue, Reason: "KubeletHasInsufficientMemory"},
		},
	}
	play(t, func(_ *node.Config, s *scene) { s.verdicts.Memory = nil; s.server.Put(before) }, func(s *scene) {
		t := s.t
		n := s.server.Node()
		if len(s.server.Requests("create", "nodes")) > 0 || n.UID != "uid-1" {
			t.Error("it made a Node where one was")
		}
		if n.Labels["kubernetes.io/os"] != "linux" || n.Labels["kubernetes.io/arch"] == "vax" || n.Labels["zone"] != "z" {
			t.Errorf("labels %v", n.Labels)
		}
		if !n.Spec.Unschedulable || len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != "theirs" {
			t.Errorf("spec %+v", n.Spec)
		}
		if len(n.Status.VolumesInUse) != 1 || n.Status.NodeInfo.KubeProxyVersion != "" || len(n.Status.Addresses) != 3 {
			t.Errorf("status %+v", n.Status)
		}
		if c, ok := n.Status.Capacity["example.com/gpu"]; !ok || !c.IsZero() {
			t.Errorf("capacity %v: stale devices draw pods here", n.Status.Capacity)
		}
		if a := n.Status.Allocatable; len(a) != len(n.Status.Capacity) || !a.Name("example.com/gpu", resource.DecimalSI).IsZero() {
			t.Errorf("allocatable %v of %v", slices.Collect(maps.Keys(a)), slices.Collect(maps.Keys(n.Status.Capacity)))
		}
		if c := s.condition("KernelDeadlock"); c.Reason != "Theirs" {
			t.Errorf("a foreign condition became %+v", c)
		}
		if c := s.condition(corev1.NodeMemoryPressure); c.Status != corev1.ConditionUnknown || c.Reason != "NotJudged" {
			t.Errorf("what nobody judges is %+v", c)
		}
		if got := s.reasons(); !slices.Contains(got, "Rebooted") {
			t.Errorf("events %v", got)
		}
		if len(s.cidrs) != 1 || s.cidrs[0][0].String() != "10.244.7.0/24" {
			t.Errorf("pod CIDRs %v", s.cidrs)
		}
		s.server.Change(func(n *corev1.Node) {
			n.Spec.Unschedulable = false
			n.Status.Capacity["example.com/fpga"] = resource.MustParse("2") // an administrator's, now
		})
		s.wait(15 * time.Second)
		if q := s.server.Node().Status.Allocatable["example.com/fpga"]; q.Value() != 2 {
			t.Errorf("allocatable %v", s.server.Node().Status.Allocatable)
		}
		if got := s.reasons(); !slices.Contains(got, "NodeSchedulable") {
			t.Errorf("events %v", got)
		}
		if len(s.cidrs) != 1 {
			t.Errorf("pod CIDRs that did not change were handed on again: %v", s.cidrs)
		}
		for _, r := range s.server.Requests("patch", "nodes") {
			if strings.Contains(r.Body, `"spec"`) || strings.Contains(r.Body, "ownerReferences") || strings.Contains(r.Body, "volumesInUse") {
				t.Errorf("it wrote what is not its own: %s", r.Body)
			}
		}
	})
}

// TestDeleted: a Node that somebody deletes is there again at once, and the
// lease goes with the new one.
func TestDeleted(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		s.server.Delete()
		s.wait(time.Second)
		n := s.server.Node()
		if n == nil || n.UID != "uid-2" {
			t.Fatalf("the Node is %v", n)
		}
		if c := s.condition(corev1.NodeReady); c.Status != corev1.ConditionTrue {
			t.Errorf("ready is %+v", c)
		}
		if l := s.server.Lease(); len(l.OwnerReferences) != 1 || l.OwnerReferences[0].UID != "uid-2" {
			t.Errorf("the lease is of %v", l.OwnerReferences)
		}
	})
}

// TestDeletedUnseen: the same while no watch tells.
func TestDeletedUnseen(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		s.server.Refuse(true)
		s.wait(time.Minute)
		s.server.Delete()
		s.server.Refuse(false)
		s.wait(15 * time.Second)
		if n := s.server.Node(); n == nil || n.UID != "uid-2" {
			t.Errorf("the Node is %v", n)
		}
	})
}

// TestSameNameOtherUID: a Node made anew by somebody else under our name gets all
// of the status, and nothing that was meant for the old one.
func TestSameNameOtherUID(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		s.server.Delete()
		n := &corev1.Node{}
		n.Name = "node"
		s.server.Put(n)
		s.wait(5 * time.Second)
		if got := s.server.Node(); got.UID != "uid-2" || len(got.Status.Addresses) != 3 || got.Labels["kubernetes.io/os"] != "linux" {
			t.Errorf("the Node is %+v", got)
		}
		if l := s.server.Lease(); l.OwnerReferences[0].UID != "uid-2" {
			t.Errorf("the lease is of %v", l.OwnerReferences)
		}
		for _, r := range s.server.Requests("patch", "nodes") {
			if !strings.Contains(r.Body, `"uid":"uid-`) {
				t.Errorf("a patch without a UID: %s", r.Body)
			}
		}
	})
}

// TestReplacedUnseen: the same while nothing tells: the first write is refused for
// its UID, the second is what the new Node needs.
func TestReplacedUnseen(t *testing.T) {
	play(t, nil, func(s *scene) {
		t := s.t
		s.wait(time.Minute)
		refused := false // under the server's lock
		s.server.SetFault(func(r nodetest.Request) *nodetest.Fault {
			refused = refused || r.Verb == "patch"
			if r.Resource == "nodes" && r.Verb != "patch" && !refused {
				return &nodetest.Fault{Error: apierrors.NewInternalError(errRuntime)}
			}
			return nil
		})
		s.server.EndWatches()
		s.wait(time.Second)
		s.server.Delete()
		n := &corev1.Node{}
		n.Name = "node"
		s.server.Put(n)
		s.judge(func(v *node.Verdicts) { v.Disk = new(true) }) // no time passes
		if c := s.condition(corev1.NodeDiskPressure); c.Status != corev1.ConditionTrue {
			t.Errorf("disk pressure is %+v", c)
		}
		if got := s.server.Node(); got.UID != "uid-2" || len(got.Status.Addresses) != 3 {
			t.Errorf("the Node is %+v", got)
		}
	})
}
