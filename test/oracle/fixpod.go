package oracle

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// fixPod repairs what hangs together across a pod: names that are referred to,
// names and ports that may be there once only, and rules between fields.
func (g *generator) fixPod(pod *corev1.Pod) {
	s := &pod.Spec
	for i := range s.Volumes {
		s.Volumes[i].Name = fmt.Sprintf("v%d", i)
		g.fixProjected(s, s.Volumes[i].Projected)
	}
	port := int32(9000)
	for i := range s.Containers {
		s.Containers[i].Name = fmt.Sprintf("c%d", i)
		g.fixUse(s, &s.Containers[i], &port)
	}
	for i := range s.InitContainers {
		c := &s.InitContainers[i]
		c.Name = fmt.Sprintf("i%d", i)
		g.fixUse(s, c, &port)
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			c.Lifecycle, c.LivenessProbe, c.ReadinessProbe, c.StartupProbe, c.ResizePolicy = nil, nil, nil, nil, nil
		}
	}
	g.fixHost(s)
	g.fixWhole(s)
}

// fixProjected lets each source of a volume write files of its own.
func (g *generator) fixProjected(s *corev1.PodSpec, p *corev1.ProjectedVolumeSource) {
	if p == nil {
		return
	}
	for i, source := range p.Sources {
		rename := func(path *string) {
			if *path != "" {
				*path = fmt.Sprintf("s%d/%s", i, *path)
			}
		}
		if c := source.PodCertificate; c != nil {
			rename(&c.CredentialBundlePath)
			rename(&c.KeyPath)
			rename(&c.CertificateChainPath)
		}
		if b := source.ClusterTrustBundle; b != nil {
			rename(&b.Path)
		}
		if t := source.ServiceAccountToken; t != nil && s.ServiceAccountName == "" {
			s.ServiceAccountName = "robot"
		}
		for _, items := range [][]corev1.KeyToPath{secretItems(source), configItems(source)} {
			for j := range items {
				items[j].Path = fmt.Sprintf("s%d/%d", i, j)
			}
		}
		if d := source.DownwardAPI; d != nil {
			for j := range d.Items {
				d.Items[j].Path = fmt.Sprintf("s%d/%d", i, j)
			}
		}
	}
}

func secretItems(p corev1.VolumeProjection) []corev1.KeyToPath {
	if p.Secret == nil {
		return nil
	}
	return p.Secret.Items
}

func configItems(p corev1.VolumeProjection) []corev1.KeyToPath {
	if p.ConfigMap == nil {
		return nil
	}
	return p.ConfigMap.Items
}

// fixUse makes a container use volumes, claims and ports that it can have.
func (g *generator) fixUse(s *corev1.PodSpec, c *corev1.Container, port *int32) {
	volume := func(fits func(*corev1.VolumeSource) bool, make func() corev1.VolumeSource) string {
		for _, v := range s.Volumes {
			if fits(&v.VolumeSource) {
				return v.Name
			}
		}
		name := fmt.Sprintf("v%d", len(s.Volumes))
		s.Volumes = append(s.Volumes, corev1.Volume{Name: name, VolumeSource: make()})
		return name
	}
	empty := func() corev1.VolumeSource {
		return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	}
	for i := range c.VolumeMounts {
		c.VolumeMounts[i].Name = volume(func(v *corev1.VolumeSource) bool {
			return v.PersistentVolumeClaim == nil && v.Ephemeral == nil
		}, empty)
		c.VolumeMounts[i].MountPath = fmt.Sprintf("/mnt/%d", i)
	}
	if len(c.VolumeDevices) > 0 {
		c.VolumeDevices = c.VolumeDevices[:1]
		c.VolumeDevices[0].Name = volume(func(v *corev1.VolumeSource) bool { return v.PersistentVolumeClaim != nil },
			func() corev1.VolumeSource {
				return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}
			})
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil && from.FileKeyRef != nil {
			from.FileKeyRef.VolumeName = volume(func(v *corev1.VolumeSource) bool { return v.EmptyDir != nil }, empty)
		}
	}
	for i := range c.Ports {
		*port++
		if s.HostNetwork {
			c.Ports[i].ContainerPort, c.Ports[i].HostPort = *port, 0
		} else if c.Ports[i].HostPort != 0 {
			c.Ports[i].HostPort = *port
		}
	}
	c.Resources.Claims = c.Resources.Claims[:min(1, len(c.Resources.Claims))]
	for i := range c.Resources.Claims {
		c.Resources.Claims[i].Name = "claim0"
		if len(s.ResourceClaims) == 0 {
			name := "rc"
			s.ResourceClaims = []corev1.PodResourceClaim{{Name: "claim0", ResourceClaimName: &name}}
		}
	}
	if s.RestartPolicy == corev1.RestartPolicyNever {
		c.ResizePolicy = nil
	}
	if l := c.Lifecycle; l != nil && l.StopSignal != nil && s.OS == nil {
		s.OS = &corev1.PodOS{Name: corev1.Linux}
	}
}

// fixHost takes away what a pod may not share with the host at a time.
func (g *generator) fixHost(s *corev1.PodSpec) {
	if s.HostUsers != nil && !*s.HostUsers {
		s.HostNetwork, s.HostPID, s.HostIPC = false, false, false
		for i := range s.Containers {
			s.Containers[i].VolumeDevices = nil
		}
	}
	if s.HostPID {
		s.ShareProcessNamespace = nil
	}
	if sc := s.SecurityContext; sc != nil && (s.HostNetwork || s.HostIPC) {
		sc.Sysctls = nil
	}
	if s.HostNetwork || s.SetHostnameAsFQDN != nil {
		s.HostnameOverride = nil
	}
	if sc := s.SecurityContext; sc != nil && len(sc.Sysctls) > 1 {
		sc.Sysctls = sc.Sysctls[:1]
	}
}

// fixWhole repairs the rest.
func (g *generator) fixWhole(s *corev1.PodSpec) {
	if s.DNSPolicy == corev1.DNSNone && s.DNSConfig == nil {
		s.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"10.0.0.10"}}
	}
	if t := s.TerminationGracePeriodSeconds; t != nil && *t < 30 && g.rng.IntN(2) == 0 {
		*t = 30
	}
	if len(s.SchedulingGates) > 0 {
		s.NodeName = ""
	}
	for i := range s.ResourceClaims {
		s.ResourceClaims[i].Name = fmt.Sprintf("claim%d", i)
	}
	if len(s.TopologySpreadConstraints) > 1 {
		s.TopologySpreadConstraints = s.TopologySpreadConstraints[:1]
	}
	if r := s.Resources; r != nil {
		r.Claims = nil
		if g.rng.IntN(3) > 0 {
			r.Limits = corev1.ResourceList{"cpu": resource.MustParse("100"), "memory": resource.MustParse("1Ti")}
			r.Requests = nil
		}
	}
	if s.OS != nil && s.OS.Name == corev1.Windows && g.rng.IntN(3) > 0 {
		s.OS.Name = corev1.Linux
	}
}
