package validate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Default fills what the pod leaves open, as the API server does on create, and
// settles what has two spellings: serviceAccount becomes serviceAccountName, a
// negative grace period becomes 1 s, and annotations that once carried init
// containers are dropped. It is idempotent. The status stays as it is.
//
// Sources: SetObjectDefaults_Pod of Kubernetes 1.36, and the conversion to and
// from the internal Pod that a manifest goes through in kubelet.
func Default(pod *corev1.Pod) {
	spec := &pod.Spec
	// The order matters: the pod's requests are summed up before those of its
	// containers are rounded.
	requestLimits(spec)
	defaultPodLimits(pod)
	defaultPodRequests(pod)
	orSet(&spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	orText(&spec.DNSPolicy, corev1.DNSClusterFirst)
	orText(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	orText(&spec.SchedulerName, corev1.DefaultSchedulerName)
	orSet(&spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i].VolumeSource)
	}
	for i := range spec.InitContainers {
		defaultContainer(&spec.InitContainers[i], spec.HostNetwork)
	}
	for i := range spec.Containers {
		defaultContainer(&spec.Containers[i], spec.HostNetwork)
	}
	for i := range spec.EphemeralContainers {
		// The same fields in the same order, checked by the compiler. Host ports
		// are not defaulted here: an ephemeral container has none.
		defaultContainer((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), false)
	}
	roundUp(spec.Overhead)
	if spec.Resources != nil {
		roundUp(spec.Resources.Limits)
		roundUp(spec.Resources.Requests)
	}
	settle(pod)
}

// settle leaves one spelling of each thing that has two.
func settle(pod *corev1.Pod) {
	spec := &pod.Spec
	if spec.ServiceAccountName == "" {
		spec.ServiceAccountName = spec.DeprecatedServiceAccount
	}
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	if *spec.TerminationGracePeriodSeconds < 0 {
		*spec.TerminationGracePeriodSeconds = 1
	}
	for _, stage := range []string{"beta", "alpha"} {
		delete(pod.Annotations, "pod."+stage+".kubernetes.io/init-containers")
		delete(pod.Annotations, "pod."+stage+".kubernetes.io/init-container-statuses")
	}
}

// orText fills an empty text.
func orText[T ~string](field *T, value T) {
	if *field == "" {
		*field = value
	}
}

// orNumber fills a number that is zero.
func orNumber(field *int32, value int32) {
	if *field == 0 {
		*field = value
	}
}

// orSet fills an optional value that is not there.
func orSet[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func defaultContainer(c *corev1.Container, hostNetwork bool) {
	orText(&c.ImagePullPolicy, pullPolicyFor(c.Image))
	orText(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	orText(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		p := &c.Ports[i]
		orText(&p.Protocol, corev1.ProtocolTCP)
		if hostNetwork {
			orNumber(&p.HostPort, p.ContainerPort)
		}
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			defaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				orSet(&from.FileKeyRef.Optional, false)
			}
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	defaultProbe(c.LivenessProbe)
	defaultProbe(c.ReadinessProbe)
	defaultProbe(c.StartupProbe)
	if c.Lifecycle != nil {
		if h := c.Lifecycle.PostStart; h != nil {
			defaultHTTPGet(h.HTTPGet)
		}
		if h := c.Lifecycle.PreStop; h != nil {
			defaultHTTPGet(h.HTTPGet)
		}
	}
}

// pullPolicyFor pulls an image whose tag is latest, said or not, every time.
func pullPolicyFor(image string) corev1.PullPolicy {
	if imageTag(image) == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

func defaultFieldRef(ref *corev1.ObjectFieldSelector) {
	if ref != nil {
		orText(&ref.APIVersion, "v1")
	}
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	orNumber(&p.TimeoutSeconds, 1)
	orNumber(&p.PeriodSeconds, 10)
	orNumber(&p.SuccessThreshold, 1)
	orNumber(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		orSet(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(get *corev1.HTTPGetAction) {
	if get != nil {
		orText(&get.Path, "/")
		orText(&get.Scheme, corev1.URISchemeHTTP)
	}
}

// roundUp rounds amounts up to whole thousandths, which is as fine as they go.
func roundUp(list corev1.ResourceList) {
	for name, q := range list {
		q.RoundUp(resource.Milli)
		list[name] = q
	}
}

// requestLimits makes a container request what it is limited to, where it does
// not say itself what it requests.
func requestLimits(spec *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			r := &list[i].Resources
			if r.Limits != nil && r.Requests == nil {
				r.Requests = corev1.ResourceList{}
			}
			fill(r.Requests, r.Limits, func(corev1.ResourceName) bool { return true })
		}
	}
}

// fill copies to list what is in from, not in list, and wanted.
func fill(list, from corev1.ResourceList, wanted func(corev1.ResourceName) bool) {
	for name, q := range from {
		if _, there := list[name]; !there && wanted(name) {
			list[name] = q.DeepCopy()
		}
	}
}

// defaultPodLimits gives a pod with resources of its own the huge pages that its
// containers together may use (KEP-2837).
func defaultPodLimits(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil || len(r.Limits)+len(r.Requests) == 0 {
		return
	}
	limits := r.Limits
	if limits == nil {
		limits = corev1.ResourceList{}
	}
	fill(limits, resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{}),
		func(name corev1.ResourceName) bool {
			_, requested := r.Requests[name]
			return isHugePage(name) && !requested
		})
	if len(limits) > 0 {
		r.Limits = limits
	}
}

// defaultPodRequests lets a pod with limits of its own request what its
// containers together request, or else what it is limited to (KEP-2837).
func defaultPodRequests(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil || len(r.Limits) == 0 {
		return
	}
	requests := r.Requests
	if requests == nil {
		requests = corev1.ResourceList{}
	}
	fill(requests, resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{}),
		func(name corev1.ResourceName) bool {
			return resourcehelper.IsSupportedPodLevelResource(name) && overcommits(name)
		})
	fill(requests, r.Limits, resourcehelper.IsSupportedPodLevelResource)
	if len(requests) > 0 {
		r.Requests = requests
	}
}
