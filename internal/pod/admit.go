package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// ReasonUnsupported is the reason of a pod that asks for something that this
// version of the program does not honour yet. A field is never ignored: a static pod
// fails by it, one of the API server waits.
const ReasonUnsupported = "UnsupportedField"

// Allowed is what pods of a node may ask for beyond what every node gives.
type Allowed struct {
	// UnsafeSysctls are those that the operator allows beside the safe ones, as
	// kubelet's allowedUnsafeSysctls: a name, or a beginning of names with a * at
	// the end.
	UnsafeSysctls []string
	// Handlers are the names of the runtime handlers beside the default one.
	Handlers []string
	// NoAppArmor says why AppArmor profiles cannot be enforced; "" where they can.
	NoAppArmor string
	// SELinux: the kernel tells processes and files apart by SELinux labels, which
	// are not built. Where it does not, a label has no effect, and forbids nothing.
	SELinux bool
	// Cluster: there is an API server, which has claims and tokens for pods.
	Cluster bool
}

// Admit tells whether this node can do everything that the static pod asks for; nil
// means yes. The pod is defaulted and valid.
func Admit(p *corev1.Pod, node Allowed) *Rejection {
	if r := admitSysctls(p, node.UnsafeSysctls); r != nil {
		return r
	}
	if r := admitAppArmor(p, node.NoAppArmor); r != nil {
		return r
	}
	return Unbuilt(p, node)
}

// Unbuilt tells what the pod asks for that this node does not give it, or not yet;
// nil means nothing. For a pod of the API server that is no refusal: who made it would
// make the next one at once, and fail again, as fast as it can. It waits, as with a
// kubelet that has no driver for its volume. The pod is defaulted and valid.
func Unbuilt(p *corev1.Pod, node Allowed) *Rejection {
	if r := admitHandler(p, node.Handlers); r != nil {
		return r
	}
	spec := &p.Spec
	if spec.HostUsers != nil && !*spec.HostUsers {
		return unsupported("spec.hostUsers", "user namespaces are not built yet")
	}
	if r := firstSet("spec", []fieldSet{
		{"ephemeralContainers", len(spec.EphemeralContainers) > 0 && (static(p) || !node.Cluster)},
		{"resourceClaims", len(spec.ResourceClaims) > 0},
	}); r != nil {
		return r
	}
	if sc := spec.SecurityContext; sc != nil {
		if r := admitLabels("spec", sc.SELinuxOptions, node); r != nil {
			return r
		}
	}
	if r := admitVolumes(spec, node.Cluster); r != nil {
		return r
	}
	for i := range spec.InitContainers {
		if r := admitContainer(fmt.Sprintf("spec.initContainers[%d]", i), &spec.InitContainers[i], node); r != nil {
			return r
		}
	}
	for i := range spec.Containers {
		if r := admitContainer(fmt.Sprintf("spec.containers[%d]", i), &spec.Containers[i], node); r != nil {
			return r
		}
	}
	return nil
}

func admitContainer(path string, c *corev1.Container, node Allowed) *Rejection {
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		return unsupported(path+".lifecycle.stopSignal", "Kubernetes 1.36 has it as alpha, and off: the image's STOPSIGNAL counts")
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			known := from.FieldRef != nil || from.ResourceFieldRef != nil || from.ConfigMapKeyRef != nil || from.SecretKeyRef != nil || from.FileKeyRef != nil
			if !known {
				return unsupported(fmt.Sprintf("%s.env[%d].valueFrom", path, i), "its source is of a later release")
			}
		}
	}
	if r := firstSet(path, []fieldSet{
		{"volumeDevices", len(c.VolumeDevices) > 0},
		{"resources.claims", len(c.Resources.Claims) > 0},
	}); r != nil {
		return r
	}
	return admitSecurity(path, c, node)
}

func admitSecurity(path string, c *corev1.Container, node Allowed) *Rejection {
	if c.SecurityContext == nil {
		return nil
	}
	return admitLabels(path, c.SecurityContext.SELinuxOptions, node)
}

// admitLabels judges what a pod and a container have alike. windowsOptions are for
// nodes of another kind: as with kubelet, a pod of both is welcome here.
func admitLabels(path string, se *corev1.SELinuxOptions, node Allowed) *Rejection {
	if se != nil && node.SELinux {
		return unsupported(path+".securityContext.seLinuxOptions", "SELinux labels are not built yet, and this kernel has SELinux")
	}
	return nil
}

// fieldSet is a field that is not honoured yet and whether the pod sets it.
type fieldSet struct {
	name string
	set  bool
}

func firstSet(path string, fields []fieldSet) *Rejection {
	for _, f := range fields {
		if f.set {
			return unsupported(path+"."+f.name, "it is not honoured yet")
		}
	}
	return nil
}

func unsupported(field, why string) *Rejection {
	return &Rejection{Reason: ReasonUnsupported, Message: fmt.Sprintf("%s is not supported on this node: %s; remove it to run the pod here", field, why)}
}
