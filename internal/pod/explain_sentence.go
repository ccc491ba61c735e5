package pod

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What an operator can do, where several gates say the same.
const (
	adviceNetwork     = "set podNetwork.cidrs or mend the CNI configuration, as the error says"
	adviceNetworkGoes = "the CNI plugin that made the network is needed to take it back; mend what the error names"
	adviceVolumesGo   = "end what the error names, or unmount it by what mounted it (findmnt -R); nothing is deleted before"
	adviceHangs       = "look at what hangs: this pod's runc or shim (ps), or a mount in it (/proc/PID/stack); after 60 s it is given up and tried again"
	adviceAbsent      = "create what is missing: the container starts as soon as it is there"
)

// advice says what helps against a failed start of the container.
func (c *containerGates) advice(f Failure) string {
	switch f.Reason {
	case ReasonErrImagePull:
		return fmt.Sprintf(`mend the image's name, its registry or imagePullSecrets; "nodeagent images pull %s" shows the same error at once`, c.spec.Image)
	case ReasonRegistryUnavailable:
		return "look at the way to the registry: names, proxy, certs.d"
	case ReasonErrImageNeverPull:
		return `"nodeagent images import FILE" brings the image, or change imagePullPolicy`
	case ReasonInvalidImageName:
		return "mend the image's name in the pod"
	case ReasonImageInspectError:
		return `the image is there and cannot be used: see "nodeagent images -o wide"`
	case ReasonSignatureValidationFailed:
		return "ask who runs the image verifier of containerd"
	}
	switch {
	case f.Absent:
		return adviceAbsent
	case f.Reason == ReasonCreateContainerConfigError:
		return "mend in the pod, or on the node, what the error names"
	}
	return "the error says what is in the way; containerd's and this daemon's logs say more"
}

// maxSaid is how much of an error the summary quotes; its gate has it in full.
const maxSaid = 400

// summary is the sentence that an operator reads first.
func (e *explainer) summary(x *Explanation) string {
	who := strings.TrimPrefix(x.Namespace+"/"+x.Name, "/")
	g := x.Blocks
	if g == nil {
		return who + e.unblocked() + e.lateNews()
	}
	text := fmt.Sprintf("%s %s %s", who, verbOf(g.State), g.Gate)
	if g.Container != "" {
		text += fmt.Sprintf(" of container %q", g.Container)
	}
	if e.Desired.Pod != nil && e.Desired.Wish != WishAbsent && g.Gate == GateSource && e.isReady() {
		text = who + " is Ready, but by an older manifest: the gate source refuses the newer one"
	}
	if said := said(g); said != "" {
		text += ": " + said
	}
	text += "."
	if g.Next != nil && g.State != GateFailed && !e.Dead {
		text += " " + e.when(g) + "."
	}
	if g.Do != "" {
		text += " To do: " + g.Do + "."
	}
	if e.Dead {
		text += " The daemon does not answer, so nothing is tried: see \"systemctl status nodeagent\"."
	}
	return text
}

func verbOf(s GateState) string {
	switch s {
	case GateFailed:
		return "has failed at"
	case GateBlocked:
		return "is blocked at"
	}
	return "waits at"
}

// said is the reason with the error or else the detail, on one line and short.
func said(g *Gate) string {
	text := g.LastError
	if text == "" || g.State == GateWaiting {
		text = g.Detail
	}
	text = strings.TrimRight(strings.Join(strings.Fields(text), " "), ".")
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + "…"
	}
	switch {
	case g.Reason == "" || strings.HasPrefix(text, g.Reason):
		return text
	case text == "":
		return g.Reason
	}
	return g.Reason + ": " + text
}

// when says when the gate is tried again.
func (e *explainer) when(g *Gate) string {
	what := "Tried again"
	switch {
	case g.Gate == GateProbes:
		what = "Asked again"
	case g.State == GateWaiting:
		what = "At the latest"
	}
	if wait := g.Next.Sub(e.now); wait > 0 {
		return fmt.Sprintf("%s in %s", what, wait.Truncate(time.Second)+time.Second)
	}
	return what + " now"
}

func (e *explainer) isReady() bool {
	if e.status == nil {
		return false
	}
	for _, c := range e.status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// unblocked is what there is to say of a pod that no gate blocks.
func (e *explainer) unblocked() string {
	switch {
	case e.Desired.Pod == nil || e.Desired.Wish == WishAbsent:
		return " is as good as gone: nothing is left of it."
	case e.status.Phase == corev1.PodFailed:
		return " has failed: " + e.status.Reason + "."
	case e.ended():
		return " has completed: its containers ended with 0, and nothing more is to come."
	case e.isReady():
		return " is Ready: every gate is passed."
	}
	return " is about to be Ready: every gate before is passed."
}

// lateNews are errors at gates that a pod has passed nevertheless.
func (e *explainer) lateNews() string {
	for i := range e.gates {
		if g := &e.gates[i]; g.Gate == GateVolumes && g.LastError != "" {
			return fmt.Sprintf(" But at %s: %s.", g.Gate, said(g))
		}
	}
	return ""
}
