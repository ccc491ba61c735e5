package node

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Annotations and the taint that others than core/v1 name.
const (
	annotationAttach      = "volumes.kubernetes.io/controller-managed-attach-detach"
	annotationProvidedIPs = "alpha.kubernetes.io/provided-node-ip"
	taintUninitialized    = "node.cloudprovider.kubernetes.io/uninitialized"
)

// Bounds of the list of images: kubelet's defaults, and what an operator's "no
// limit" comes to here, since the API server refuses objects that are too big.
const (
	defaultImages = 50
	maxImages     = 1000
	maxNames      = 5
)

// wanted is all that the Node shall say and that is this node's to say. It is a
// value: compared, never changed.
type wanted struct {
	labels      map[string]string
	annotations map[string]string // "": shall not be there
	status      corev1.NodeStatus // conditions without times
	external    bool              // addresses belong to a cloud controller
}

func want(id *Identity, f Facts, v Verdicts) *wanted {
	w := &wanted{
		labels:      ownLabels(id, runtime.GOOS, runtime.GOARCH),
		annotations: map[string]string{annotationAttach: "", annotationProvidedIPs: ""},
		external:    id.ExternalCloud,
	}
	for _, key := range kept {
		if value, has := id.Labels[key]; has {
			w.labels[key] = value
		}
	}
	for key := range w.labels { // what an operator says of them comes first
		if value, has := id.Labels[key]; has {
			w.labels[key] = value
		}
	}
	if id.ControllerAttach {
		w.annotations[annotationAttach] = "true"
	}
	if id.ExternalCloud {
		w.annotations[annotationProvidedIPs] = id.ProvidedIPs
	}
	w.status = corev1.NodeStatus{
		Capacity: f.Capacity, Allocatable: f.Allocatable,
		Conditions: conditions(v, f), Addresses: f.Addresses,
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: id.Port}},
		NodeInfo:        info(id, f), Images: listed(f.Images, id.MaxImages),
		RuntimeHandlers: f.Handlers, Features: f.Features, DeclaredFeatures: f.Declared,
	}
	return w
}

func info(id *Identity, f Facts) corev1.NodeSystemInfo {
	m := &f.Machine
	i := corev1.NodeSystemInfo{
		MachineID: m.MachineID, SystemUUID: m.SystemUUID, BootID: m.BootID,
		KernelVersion: m.Kernel, OSImage: m.OSImage,
		ContainerRuntimeVersion: "containerd://" + cmp.Or(f.RuntimeVersion, "Unknown"),
		KubeletVersion:          id.Version,
		OperatingSystem:         runtime.GOOS, Architecture: runtime.GOARCH,
	}
	if m.Swap > 0 {
		i.Swap = &corev1.NodeSwapStatus{Capacity: new(m.Swap)}
	}
	return i
}

// listed is the biggest images, in an order that does not depend on the
// runtime's, with a few names each.
func listed(images []Image, most int) []corev1.ContainerImage {
	if most < 0 {
		most = maxImages
	}
	all := slices.Clone(images)
	slices.SortFunc(all, func(a, b Image) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(strings.Join(a.Names, ","), strings.Join(b.Names, ",")))
	})
	var out []corev1.ContainerImage
	for _, i := range all[:min(len(all), most)] {
		out = append(out, corev1.ContainerImage{Names: i.Names[:min(len(i.Names), maxNames)], SizeBytes: i.Size})
	}
	return out
}

// object is the Node to register.
func (w *wanted) object(id *Identity) *corev1.Node {
	n := &corev1.Node{}
	n.Name = id.Name
	n.Labels = maps.Clone(w.labels)
	maps.Copy(n.Labels, id.Labels)
	for key, value := range w.annotations {
		if value != "" {
			setIn(&n.Annotations, key, value)
		}
	}
	n.Spec = corev1.NodeSpec{ProviderID: id.ProviderID, Unschedulable: id.Unschedulable, Taints: slices.Clone(id.Taints)}
	if id.ExternalCloud {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: taintUninitialized, Value: "true", Effect: corev1.TaintEffectNoSchedule})
	}
	n.Status = *w.status.DeepCopy()
	return n
}

func setIn(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// equal tells whether two wishes say the same, but for what is noise.
func (w *wanted) equal(other *wanted) bool {
	if w == nil || other == nil {
		return w == other
	}
	return maps.Equal(w.labels, other.labels) && maps.Equal(w.annotations, other.annotations) &&
		equality.Semantic.DeepEqual(withoutNoise(w.status), withoutNoise(other.status))
}

// withoutNoise leaves out what changes all the time as pods come and go.
func withoutNoise(s corev1.NodeStatus) corev1.NodeStatus {
	s.Images = nil
	s.Conditions = slices.Clone(s.Conditions)
	for i := range s.Conditions {
		s.Conditions[i].Message = ""
	}
	return s
}
