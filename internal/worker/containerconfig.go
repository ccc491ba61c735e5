package worker

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// containerConfig says in CRI's words what the container is to be. What depends
// on the image (entry point, user, environment) is merged by the runtime.
func (s *Set) containerConfig(ctx context.Context, d pod.Desired, c *corev1.Container, a pod.Action, image string, seen pod.RuntimeState) (*runtimeapi.ContainerConfig, error) {
	addrs := s.podAddrs(a.Sandbox, seen)
	mounts, err := s.fileMounts(d.Pod, c, a, addrs)
	if err != nil {
		return nil, err
	}
	security := s.cfg.Node.securityContext(d.Pod, c)
	if err := joinTarget(security.NamespaceOptions, d.Pod, c.Name, seen); err != nil {
		return nil, err
	}
	env, err := s.environment(ctx, d.Pod, c, pod.Place{HostIPs: s.cfg.Node.addrs(), PodIPs: addrs, Allocatable: s.cfg.Node.Allocatable})
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: a.Attempt},
		Image:      &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: c.Image},
		Command:    expandAll(c.Command, env),
		Args:       expandAll(c.Args, env),
		WorkingDir: c.WorkingDir,
		Envs:       env,
		Mounts:     mounts,
		Labels:     containerLabels(d.Pod, c, a),
		Annotations: map[string]string{
			pod.AnnotationNonRoot:   strconv.FormatBool(runAsNonRoot(d.Pod, c)),
			pod.AnnotationPostStart: strconv.FormatBool(c.Lifecycle != nil && c.Lifecycle.PostStart != nil),
		},
		LogPath:   path.Join(c.Name, fmt.Sprintf("%d.log", a.Attempt)),
		Stdin:     c.Stdin,
		StdinOnce: c.StdinOnce,
		Tty:       c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       s.containerResources(d.Pod, c),
			SecurityContext: security,
		},
	}, nil
}

func containerLabels(p *corev1.Pod, c *corev1.Container, a pod.Action) map[string]string {
	l := podLabels(p)
	l[pod.LabelContainerName] = c.Name
	l[pod.LabelHash] = pod.ContainerHash(c)
	l[pod.LabelBackoff] = a.Backoff.String()
	for label, value := range map[string]string{pod.LabelInit: pod.EncodeInit(p, c.Name), pod.LabelPreStop: pod.EncodeHook(c)} {
		if value != "" {
			l[label] = value
		}
	}
	return l
}

// podAddrs are the addresses of the pod in that sandbox.
func (s *Set) podAddrs(sandbox string, seen pod.RuntimeState) []netip.Addr {
	for _, made := range seen.Sandboxes {
		if made.ID == sandbox && !made.HostNetwork {
			return made.Addrs
		}
	}
	return s.cfg.Node.addrs()
}

// fileMounts are the files that the node gives to every container.
func (s *Set) fileMounts(p *corev1.Pod, c *corev1.Container, a pod.Action, addrs []netip.Addr) ([]*runtimeapi.Mount, error) {
	mounts, err := s.cfg.Files.Etc(p, addrs)
	if err != nil {
		return nil, err
	}
	mounts = slices.DeleteFunc(mounts, func(m *runtimeapi.Mount) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(v corev1.VolumeMount) bool {
			return path.Clean(v.MountPath) == m.ContainerPath // the container brings its own
		})
	})
	if c.TerminationMessagePath != "" {
		file, err := s.cfg.Files.TerminationLog(p, c.Name, a.Attempt)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: file})
	}
	return mounts, nil
}

func (s *Set) containerResources(p *corev1.Pod, c *corev1.Container) *runtimeapi.LinuxContainerResources {
	r := s.cfg.Node.Limits.Container(p, c)
	out := &runtimeapi.LinuxContainerResources{
		OomScoreAdj: int64(max(pod.OOMScoreAdj(p, c, s.cfg.Node.MemoryCapacity), s.cfg.Node.MinOOMScoreAdj)),
	}
	if s.cfg.Node.CgroupV2 {
		out.Unified = r.UnifiedFiles(s.cfg.Node.SwapAccounting)
	} else {
		out.CpuShares = int64(r.CPUShares)
	}
	if r.CPUQuota != nil {
		out.CpuQuota, out.CpuPeriod = *r.CPUQuota, int64(r.CPUPeriod)
	}
	if r.Memory != nil {
		out.MemoryLimitInBytes = *r.Memory
	}
	for _, size := range r.PageSizes() {
		out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: size, Limit: r.HugepageLimits[size]})
	}
	return out
}

// joinTarget lets an ephemeral container see the processes of the one that it names.
func joinTarget(o *runtimeapi.NamespaceOption, p *corev1.Pod, name string, seen pod.RuntimeState) error {
	for i := range p.Spec.EphemeralContainers {
		e := &p.Spec.EphemeralContainers[i]
		if e.Name != name || e.TargetContainerName == "" {
			continue
		}
		target := seen.Latest(e.TargetContainerName)
		if target == nil || target.State != pod.ContainerRunning {
			return fmt.Errorf("unable to find target container %s", e.TargetContainerName)
		}
		o.Pid, o.TargetId = runtimeapi.NamespaceMode_TARGET, target.ID
	}
	return nil
}
