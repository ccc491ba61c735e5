package validate

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkContainers judges the init containers and the containers of a pod.
func checkContainers(at spot, spec *corev1.PodSpec) {
	if len(spec.Containers) == 0 {
		at.child("containers").required("")
	}
	names, ports := seen{}, seen{}
	volumes := volumesByName(spec)
	for i := range spec.Containers {
		c, here := &spec.Containers[i], at.child("containers").index(i)
		checkContainer(here, c, spec, volumes)
		checkHooks(here, c, spec)
		if names.again(c.Name) {
			here.child("name").duplicate(c.Name)
		}
		checkHostPorts(here.child("ports"), c.Ports, ports)
	}
	for i := range spec.InitContainers {
		c, here := &spec.InitContainers[i], at.child("initContainers").index(i)
		checkContainer(here, c, spec, volumes)
		checkInit(here, c, spec)
		if names.again(c.Name) {
			here.child("name").duplicate(c.Name)
		}
		// Init containers run one after another and may share a host port.
		checkHostPorts(here.child("ports"), c.Ports, seen{})
	}
}

// checkContainer judges what init containers and containers have in common.
func checkContainer(at spot, c *corev1.Container, spec *corev1.PodSpec, volumes map[string]*corev1.VolumeSource) {
	if n := at.child("name"); n.filled(c.Name) {
		label(n, c.Name)
	}
	if i := at.child("image"); i.filled(c.Image) && strings.TrimSpace(c.Image) != c.Image {
		i.invalid(c.Image, "must not have leading or trailing whitespace")
	}
	someOf(at.child("terminationMessagePolicy"), c.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	pullPolicy(at.child("imagePullPolicy"), c.ImagePullPolicy)
	checkPorts(at.child("ports"), c.Ports)
	checkEnv(at.child("env"), c.Env, volumes)
	checkEnvFrom(at.child("envFrom"), c.EnvFrom)
	checkMounts(at.child("volumeMounts"), c, volumes)
	checkDevices(at.child("volumeDevices"), c, volumes)
	checkResources(at.child("resources"), &c.Resources, containerResource)
	checkClaimRefs(at.child("resources").child("claims"), c.Resources.Claims, spec.ResourceClaims)
	checkResizePolicy(at.child("resizePolicy"), c.ResizePolicy, spec.RestartPolicy)
	checkRestartRules(at, c)
	checkSecurity(at.child("securityContext"), c.SecurityContext, spec)
}

// checkInit judges what only init containers must obey. One that restarts
// Always is a sidecar: it may have probes and hooks like a container.
func checkInit(at spot, c *corev1.Container, spec *corev1.PodSpec) {
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		checkHooks(at, c, spec)
		return
	}
	const why = "may not be set for init containers without restartPolicy=Always"
	for name, set := range map[string]bool{
		"lifecycle": c.Lifecycle != nil, "livenessProbe": c.LivenessProbe != nil,
		"readinessProbe": c.ReadinessProbe != nil, "startupProbe": c.StartupProbe != nil,
	} {
		if set {
			at.child(name).forbidden(why)
		}
	}
	for i, p := range c.ResizePolicy {
		if p.RestartPolicy == corev1.RestartContainer {
			at.child("resizePolicy").index(i).child("restartPolicy").invalid(p.RestartPolicy,
				"must not be set to 'RestartContainer' for non-sidecar initContainers")
		}
	}
}

func pullPolicy(at spot, policy corev1.PullPolicy) {
	someOf(at, policy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

func checkPorts(at spot, ports []corev1.ContainerPort) {
	names := seen{}
	for i, p := range ports {
		here := at.index(i)
		if p.Name != "" {
			if bad := validation.IsValidPortName(p.Name); len(bad) > 0 {
				here.child("name").format(p.Name, bad)
			} else if names.again(p.Name) {
				here.child("name").duplicate(p.Name)
			}
		}
		if p.ContainerPort == 0 {
			here.child("containerPort").required("")
		} else {
			portNumber(here.child("containerPort"), p.ContainerPort)
		}
		if p.HostPort != 0 {
			portNumber(here.child("hostPort"), p.HostPort)
		}
		someOf(here.child("protocol"), p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	}
}

func portNumber(at spot, port int32) {
	at.format(port, validation.IsValidPortNum(int(port)))
}

// checkHostPorts refuses a host port that taken holds already. Two addresses
// are told apart as text: 0.0.0.0 does not collide with 127.0.0.1 here.
func checkHostPorts(at spot, ports []corev1.ContainerPort, taken seen) {
	for i, p := range ports {
		if p.HostPort == 0 {
			continue
		}
		if name := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort); taken.again(name) {
			at.index(i).child("hostPort").duplicate(name)
		}
	}
}
