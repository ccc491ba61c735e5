package source

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Annotations that kubelet puts on static pods (pkg/kubelet/types).
const (
	annotationSource = "kubernetes.io/config.source"
	annotationSeen   = "kubernetes.io/config.seen"
	annotationHash   = "kubernetes.io/config.hash"
	annotationMirror = "kubernetes.io/config.mirror"
)

// sourceFile is what a pod from a file says its source is.
const sourceFile = "file"

// A UID becomes part of paths and of cgroup names.
var validUID = regexp.MustCompile(`^[A-Za-z0-9](?:[-A-Za-z0-9_]{0,61}[A-Za-z0-9])?$`)

// identify makes a static pod of what was written, as kubelet does
// (pkg/kubelet/config/common.go): a UID from content, node and path, the name
// with the node's behind it, the namespace, the node, the annotations and the
// toleration that keeps it when the node has troubles. What only an API server
// may write is cleared, so that a manifest made by kubectl get -o yaml works.
func (m *Manifests) identify(p *corev1.Pod, path string, text []byte) findings {
	if _, ok := p.Annotations[annotationMirror]; ok {
		return findf(0, "metadata.annotations[%s]: is written by the node and must not be in a manifest", annotationMirror)
	}
	if p.UID == "" {
		uid, err := staticUID(m.cfg.NodeName, path, text)
		if err != nil {
			return findf(0, "metadata: %s", plain(err.Error()))
		}
		p.UID = uid
	} else if !validUID.MatchString(string(p.UID)) {
		return findf(0, "metadata.uid: must be at most 63 letters, digits, '-' or '_'; leave it out to get one")
	}
	p.Name = fmt.Sprintf("%s-%s", p.Name, strings.ToLower(m.cfg.NodeName))
	if p.Namespace == "" {
		p.Namespace = metav1.NamespaceDefault
	}
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = nil, nil
	p.ResourceVersion, p.Generation, p.SelfLink, p.ManagedFields = "", 0, "", nil
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	p.Spec.NodeName = m.cfg.NodeName
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[annotationSource] = m.origin
	p.Annotations[annotationHash] = string(p.UID)
	p.Annotations[annotationSeen] = time.Now().Format(time.RFC3339Nano)
	tolerateNoExecute(&p.Spec)
	return nil
}

// staticUID is the identity of a static pod: 128 bits in hex, as kubelet's are.
// Content, node and path decide it, so an edited file is another pod; comments
// and the order of fields do not.
func staticUID(node, path string, text []byte) (types.UID, error) {
	content, err := canonical(text)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, part := range []string{"nodeagent static pod v1", node, path, string(content)} {
		fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	return types.UID(hex.EncodeToString(h.Sum(nil)[:16])), nil
}

func tolerateNoExecute(spec *corev1.PodSpec) {
	all := corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
	for i := range spec.Tolerations {
		if spec.Tolerations[i].MatchToleration(&all) {
			spec.Tolerations[i] = all
			return
		}
	}
	spec.Tolerations = append(spec.Tolerations, all)
}

// keep returns the pods of a file that was read again, with those of before in
// place of equal ones: a pod keeps the time when it was first seen, and a save
// without a change changes nothing.
func keep(before, after []wanted) []wanted {
	old := make(map[types.UID]wanted, len(before))
	for _, w := range before {
		if w.pod != nil {
			old[w.pod.UID] = w
		}
	}
	for i, w := range after {
		if w.object != nil {
			after[i].object = w.object.keep(before)
			continue
		}
		was, ok := old[w.pod.UID]
		if !ok {
			continue
		}
		w.pod.Annotations[annotationSeen] = was.pod.Annotations[annotationSeen]
		if equality.Semantic.DeepEqual(was.pod, w.pod) {
			after[i] = was
		}
	}
	return after
}
