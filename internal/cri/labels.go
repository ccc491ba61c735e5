package cri

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// Labels of this package on containerd's records, beside those of package pod.
const (
	labelKind     = "io.nodeagent.kind" // sandbox, container or init
	labelSandbox  = "io.nodeagent.sandbox"
	labelAttempt  = "io.nodeagent.attempt"
	labelBoot     = "io.nodeagent.boot"
	labelNetns    = "io.nodeagent.netns"
	labelAddrs    = "io.nodeagent.addresses"
	labelHandler  = "io.nodeagent.handler"  // of the sandbox's containers; none: the default
	labelImage    = "io.nodeagent.image"    // as the pod's spec wrote it
	labelImageID  = "io.nodeagent.image.id" // repository digest or config digest
	labelLog      = "io.nodeagent.log"
	labelCgroup   = "io.nodeagent.cgroup" // path below each hierarchy's mount point
	labelSignal   = "io.nodeagent.stop.signal"
	labelUser     = "io.nodeagent.user" // encodeUser
	labelExit     = "io.nodeagent.exit" // exitLabel as JSON
	kindSandbox   = "sandbox"
	kindContainer = "container"
	kindInit      = "init"

	// sandboxExtension holds the PodSandboxConfig, so that a sandbox can be
	// stopped and removed with nothing but its record.
	sandboxExtension = "io.nodeagent.sandbox.config"

	maxLabel = 4096 // containerd's limit for key and value together
)

// ourRecords is the filter of ListContainers for everything this package made.
const ourRecords = `labels."` + labelKind + `"`

// kept are the labels of a ContainerConfig or PodSandboxConfig that are stored.
// Nothing else of a pod's or an image's labels and annotations ever is: a label
// of containerd's own namespace would be an order to it.
var kept = []string{pod.LabelGrace, pod.LabelHash, pod.LabelBackoff, pod.LabelInit, pod.LabelPreStop, pod.LabelRecursiveReadOnly}

func keptLabels(from map[string]string) map[string]string {
	out := map[string]string{}
	for _, k := range kept {
		if v, ok := from[k]; ok {
			out[k] = v
		}
	}
	return out
}

func checkLabels(labels map[string]string) error {
	for k, v := range labels {
		if len(k)+len(v) > maxLabel {
			return fmt.Errorf("value of %s is longer than %d bytes", k, maxLabel-len(k))
		}
	}
	return nil
}

// exitLabel is a container's end on its record.
type exitLabel struct {
	Code     int32     `json:"code"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished"`
	OOM      bool      `json:"oom,omitempty"`
	Reason   string    `json:"reason"`
	Message  string    `json:"message,omitempty"`
}

func (e exitLabel) encode() string {
	// containerd's limit is for the whole label; the message is the only part
	// that can be long. JSON can make six bytes out of one.
	if len(e.Message) > 512 {
		e.Message = strings.ToValidUTF8(e.Message[:512], "") + "…"
	}
	b, _ := json.Marshal(e) // times in range and strings: cannot fail
	return string(b)
}

func podLabels(meta *runtimeapi.PodSandboxMetadata) map[string]string {
	return map[string]string{
		pod.LabelPodUID:       meta.GetUid(),
		pod.LabelPodName:      meta.GetName(),
		pod.LabelPodNamespace: meta.GetNamespace(),
	}
}

func sandboxLabels(s *sandbox) map[string]string {
	l := podLabels(s.config.GetMetadata())
	maps.Copy(l, keptLabels(s.config.GetLabels()))
	l[labelKind] = kindSandbox
	l[labelAttempt] = strconv.FormatUint(uint64(s.config.GetMetadata().GetAttempt()), 10)
	l[labelBoot] = s.boot
	if s.netns != "" {
		l[labelNetns] = s.netns
	}
	if s.handler != "" {
		l[labelHandler] = s.handler
	}
	if len(s.addrs) > 0 {
		l[labelAddrs] = joinAddrs(s.addrs)
	}
	return l
}

func joinAddrs(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

func splitAddrs(s string) []netip.Addr {
	var out []netip.Addr
	for part := range strings.SplitSeq(s, ",") {
		if a, err := netip.ParseAddr(part); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// sandboxOf reads a sandbox back from its record.
func sandboxOf(r containers.Container) (*sandbox, error) {
	s := newSandbox(r.ID)
	ext, ok := r.Extensions[sandboxExtension]
	if !ok {
		return nil, fmt.Errorf("read sandbox %s: record has no configuration", r.ID)
	}
	s.config = &runtimeapi.PodSandboxConfig{}
	if err := json.Unmarshal(ext.GetValue(), s.config); err != nil {
		return nil, fmt.Errorf("read sandbox %s: %w", r.ID, err)
	}
	s.uid = types.UID(r.Labels[pod.LabelPodUID])
	s.boot, s.netns, s.created = r.Labels[labelBoot], r.Labels[labelNetns], r.CreatedAt
	s.addrs, s.handler = splitAddrs(r.Labels[labelAddrs]), r.Labels[labelHandler]
	s.commit(nil)
	return s, nil
}

// containerOf reads a container back from its record, as far as the record
// knows it.
func containerOf(r containers.Container) *container {
	l := r.Labels
	c := newContainer(r.ID, l[labelSandbox], types.UID(l[pod.LabelPodUID]))
	c.namespace, c.podName = l[pod.LabelPodNamespace], l[pod.LabelPodName]
	c.kind, c.boot, c.cgroup, c.signal = l[labelKind], l[labelBoot], l[labelCgroup], l[labelSignal]
	c.snapshotter, c.runtime = r.Snapshotter, r.Runtime.Name
	attempt, _ := strconv.ParseUint(l[labelAttempt], 10, 32)
	backoff, _ := time.ParseDuration(l[pod.LabelBackoff])
	init, sidecar := pod.InitPlace(l[pod.LabelInit])
	c.info = pod.Container{
		ID: r.ID, Name: l[pod.LabelContainerName], SandboxID: l[labelSandbox],
		Init: init, Sidecar: sidecar, PreStop: l[pod.LabelPreStop], Attempt: uint32(attempt), Hash: l[pod.LabelHash], Backoff: backoff,
		Image: l[labelImage], ImageID: l[labelImageID], LogPath: l[labelLog],
		RecursiveReadOnly: l[pod.LabelRecursiveReadOnly] == "true", User: decodeUser(l[labelUser]),
		State: pod.ContainerCreated, Created: r.CreatedAt,
	}
	var e exitLabel
	if l[labelExit] != "" && json.Unmarshal([]byte(l[labelExit]), &e) == nil {
		c.setExit(e)
		c.durable = true
	}
	return c
}
