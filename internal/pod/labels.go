package pod

// Labels on containerd's records. The io.kubernetes ones are the contract that
// crictl, node-problem-detector and cAdvisor read; the others are ours and are
// enough, together with the kernel, to rebuild everything after a crash.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	// LabelGrace is the pod's terminationGracePeriodSeconds, so that a pod
	// whose manifest went away while no daemon ran still ends politely.
	LabelGrace = "io.nodeagent.pod.grace"
	// LabelHash is the hash of the container's spec when it was created.
	LabelHash = "io.nodeagent.container.hash"
	// LabelBackoff is how long to wait after this container's end before the
	// next one of the same name starts, as a Go duration.
	LabelBackoff = "io.nodeagent.container.backoff"
	// LabelInit marks an init container: "true", or of a sidecar its place among
	// the init containers, from 1.
	LabelInit = "io.nodeagent.container.init"
	// LabelRecursiveReadOnly tells that mounts of this run that ask for it, if
	// possible or in any case, are read-only with all that is below them.
	LabelRecursiveReadOnly = "io.nodeagent.container.recursive-read-only"
	// LabelPreStop is the container's preStop hook (EncodeHook), so that a
	// container whose manifest is gone still gets it.
	LabelPreStop = "io.nodeagent.container.pre-stop"
)

// AnnotationNonRoot on a container's CRI configuration is "true" where it must
// not run as uid 0. Only the runtime learns the uid, from the image, and CRI has
// no field for it. It is made from the spec, never from a pod's annotations.
const AnnotationNonRoot = "io.nodeagent.run-as-non-root"

// AnnotationPostStart on a container's CRI configuration is "true" where the container
// has a postStart hook: the runtime keeps, with the mark that the container was
// started, that the hook is due. It is made from the spec too.
const AnnotationPostStart = "io.nodeagent.post-start"
