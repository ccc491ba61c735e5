package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// change is what of a Node is not as wanted: a strategic merge patch of its
// status. The API server also takes labels and annotations that way.
type change struct {
	meta   map[string]any
	status map[string]any
}

func (c change) any() bool { return len(c.meta)+len(c.status) > 0 }

// diff compares what is wanted with what the API shows. Whatever it does not
// name (volumes, foreign conditions, labels and resources) stays as others left
// it. first: this Node was never written to before.
func (w *wanted) diff(n *corev1.Node, first bool) change {
	c := change{meta: map[string]any{}, status: map[string]any{}}
	put(c.meta, "labels", texts(w.labels, n.Labels))
	put(c.meta, "annotations", texts(w.annotations, n.Annotations))
	put(c.status, "capacity", w.capacity(n, first))
	put(c.status, "allocatable", w.allocatable(n, first))
	s, seen := &w.status, &n.Status
	for _, f := range []struct {
		name         string
		wanted, seen any
	}{
		{"daemonEndpoints", s.DaemonEndpoints, seen.DaemonEndpoints},
		{"images", s.Images, seen.Images},
		{"runtimeHandlers", s.RuntimeHandlers, seen.RuntimeHandlers},
		{"features", s.Features, seen.Features},
		{"declaredFeatures", s.DeclaredFeatures, seen.DeclaredFeatures},
	} {
		if !equality.Semantic.DeepEqual(f.wanted, f.seen) {
			c.status[f.name] = f.wanted
		}
	}
	if !equality.Semantic.DeepEqual(s.NodeInfo, seen.NodeInfo) {
		c.status["nodeInfo"] = nodeInfo(s.NodeInfo)
	}
	if !equality.Semantic.DeepEqual(s.Addresses, seen.Addresses) && !(w.external && len(seen.Addresses) > 0) {
		c.status["addresses"] = replaced(s.Addresses)
	}
	if !w.conditionsAre(seen.Conditions) {
		c.status["conditions"] = s.Conditions // without times: patch gives them
	}
	return c
}

// nodeInfo also takes away what is not known any more.
func nodeInfo(i corev1.NodeSystemInfo) any {
	m := map[string]any{"swap": i.Swap, "kubeProxyVersion": ""}
	for name, value := range map[string]string{
		"machineID": i.MachineID, "systemUUID": i.SystemUUID, "bootID": i.BootID,
		"kernelVersion": i.KernelVersion, "osImage": i.OSImage, "containerRuntimeVersion": i.ContainerRuntimeVersion,
		"kubeletVersion": i.KubeletVersion, "operatingSystem": i.OperatingSystem, "architecture": i.Architecture,
	} {
		m[name] = value
	}
	return m
}

// replaced makes a list that takes the place of the one that is there: merged,
// two addresses of one type would be one.
func replaced(addresses []corev1.NodeAddress) []any {
	all := []any{map[string]any{"$patch": "replace"}}
	for _, a := range addresses {
		all = append(all, a)
	}
	return all
}

// conditionsAre tells whether all ours are there and say the same.
func (w *wanted) conditionsAre(seen []corev1.NodeCondition) bool {
	for i := range w.status.Conditions {
		c := &w.status.Conditions[i]
		was := find(seen, c.Type)
		if was == nil || was.Status != c.Status || was.Reason != c.Reason || was.Message != c.Message {
			return false
		}
	}
	return true
}

// texts are the entries to set, or to take away where "" is wanted.
func texts(wanted, seen map[string]string) map[string]any {
	changed := map[string]any{}
	for key, value := range wanted {
		switch was, has := seen[key]; {
		case value == "" && has:
			changed[key] = nil
		case value != "" && was != value:
			changed[key] = value
		}
	}
	return changed
}

func (w *wanted) capacity(n *corev1.Node, first bool) map[string]any {
	changed := amounts(w.status.Capacity, n.Status.Capacity)
	if first && stale(n) {
		for name, q := range n.Status.Capacity {
			if _, ours := w.status.Capacity[name]; !ours && extended(name) && !q.IsZero() {
				changed[string(name)] = "0"
			}
		}
	}
	return changed
}

// allocatable gives resources that somebody else put on the node to pods in
// full, as kubelet does.
func (w *wanted) allocatable(n *corev1.Node, first bool) map[string]any {
	all := maps.Clone(w.status.Allocatable)
	if all == nil {
		all = corev1.ResourceList{}
	}
	for name, q := range n.Status.Capacity {
		if _, ours := w.status.Capacity[name]; ours || !extended(name) {
			continue
		}
		if all[name] = q; first && stale(n) {
			all[name] = *resource.NewQuantity(0, resource.DecimalSI)
		}
	}
	changed := amounts(all, n.Status.Allocatable)
	for name := range n.Status.Allocatable {
		if _, has := n.Status.Capacity[name]; !has && extended(name) {
			changed[string(name)] = nil
		}
	}
	return changed
}

// stale tells whether the resources of devices on the Node are those of a kubelet
// that ran here before. Nobody serves them now: pods that need one shall not come
// until somebody does.
func stale(n *corev1.Node) bool {
	v := n.Status.NodeInfo.KubeletVersion
	return v != "" && !strings.Contains(v, versionMark)
}

// amounts are the resources that differ, and sizes of huge pages that the
// machine does not have any more.
func amounts(wanted, seen corev1.ResourceList) map[string]any {
	changed := map[string]any{}
	for name, q := range wanted {
		if was, has := seen[name]; !has || was.Cmp(q) != 0 {
			changed[string(name)] = q.String()
		}
	}
	for name := range seen {
		if _, has := wanted[name]; !has && strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			changed[string(name)] = nil
		}
	}
	return changed
}

// extended tells whether a resource is one that devices or administrators add.
func extended(name corev1.ResourceName) bool {
	space, _, has := strings.Cut(string(name), "/")
	return has && space != "kubernetes.io" && !strings.HasSuffix(space, ".kubernetes.io") &&
		!strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
}

func put(to map[string]any, key string, changed map[string]any) {
	if len(changed) > 0 {
		to[key] = changed
	}
}

// patch writes the change down. It always tells the conditions, for their
// heartbeat, and the UID: a Node made anew under the same name refuses it.
func (w *wanted) patch(n *corev1.Node, c change, now metav1.Time) ([]byte, error) {
	meta := maps.Clone(c.meta)
	meta["uid"] = n.UID
	status := maps.Clone(c.status)
	status["conditions"] = stamped(w.status.Conditions, n.Status.Conditions, now)
	text, err := json.Marshal(map[string]any{"metadata": meta, "status": status})
	if err != nil {
		return nil, fmt.Errorf("write the node's patch down: %w", err)
	}
	return text, nil
}

// key tells changes apart.
func (c change) key() string {
	text, err := json.Marshal([]any{c.meta, c.status}) // maps are sorted
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// names tells what a change is about, for the log.
func (c change) names() []string {
	return append(slices.Sorted(maps.Keys(c.meta)), slices.Sorted(maps.Keys(c.status))...)
}
