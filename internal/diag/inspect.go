package diag

import (
	"context"
	"errors"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/shimapi"
	"nodeagent/internal/volume"
)

// Specs reads what a container was made with.
type Specs interface {
	ContainerSpec(ctx context.Context, id string) (*specs.Spec, error)
}

// Cgroups reads what the kernel has for cgroups.
type Cgroups interface {
	Facts(ctx context.Context, cgroup string) (cgroups.Facts, error)
	PIDFacts(ctx context.Context, pid int) (cgroups.Facts, error)
	Pods(ctx context.Context) ([]cgroups.PodCgroup, error)
}

// Inspection is a pod with all that was asked for and all that the kernel has.
type Inspection struct {
	Pod        Pod                   `json:"pod"`
	Cgroup     *cgroups.Facts        `json:"cgroup,omitempty"` // the pod's, with all that is below
	Volumes    []volume.Usage        `json:"volumes"`
	Containers []ContainerInspection `json:"containers"`
	Missed     []string              `json:"missed"` // what could not be read
}

// ContainerInspection is one container.
type ContainerInspection struct {
	Container
	Asked  *Asked            `json:"asked,omitempty"`
	Kernel *Kernel           `json:"kernel,omitempty"` // nil where it does not run
	Log    *shimapi.LogStats `json:"log,omitempty"`    // as its shim counts
	Drift  []Drift           `json:"drift"`
	Missed []string          `json:"missed"`
}

// Kernel is what a running container really has.
type Kernel struct {
	Cgroup     cgroups.Facts        `json:"cgroup"`
	Init       ProcessFacts         `json:"init"`
	Processes  []InspectedProcess   `json:"processes"`
	Namespaces map[string]Namespace `json:"namespaces"`
	Mounts     []Mount              `json:"mounts"`
}

// InspectedProcess is one process of the container.
type InspectedProcess struct {
	cgroups.Process
	Rights *ProcessFacts `json:"rights,omitempty"` // nil where it has ended
}

// Inspector compares containers with the kernel.
type Inspector struct {
	Specs   Specs
	Cgroups Cgroups
	RunDir  string
	RootDir string
	Proc    string // /proc
}

// Inspect looks at a pod; only at one container where that is named, else at the
// newest run of each.
func (in *Inspector) Inspect(ctx context.Context, p *Pod, only *Container) (*Inspection, error) {
	out := &Inspection{Pod: *p, Containers: []ContainerInspection{}, Missed: []string{}}
	pods, err := in.Cgroups.Pods(ctx)
	if err != nil {
		out.Missed = append(out.Missed, err.Error())
	}
	for _, c := range pods {
		if string(c.UID) != p.UID {
			continue
		}
		facts, err := in.Cgroups.Facts(ctx, c.Path)
		if err != nil {
			out.Missed = append(out.Missed, err.Error())
			continue
		}
		out.Cgroup = &facts
	}
	out.Volumes = volumesOf(ctx, in.RootDir, p, &out.Missed)
	for i := range p.Containers {
		c := &p.Containers[i]
		if (only == nil && !c.Latest) || (only != nil && c != only) {
			continue
		}
		ci, err := in.container(ctx, c)
		if err != nil {
			return nil, err
		}
		out.Containers = append(out.Containers, ci)
	}
	return out, nil
}

func (in *Inspector) container(ctx context.Context, c *Container) (ContainerInspection, error) {
	out := ContainerInspection{Container: *c, Drift: []Drift{}, Missed: []string{}}
	miss := func(err error) {
		if err != nil {
			out.Missed = append(out.Missed, err.Error())
		}
	}
	if c.ID == "" {
		return out, nil
	}
	spec, err := in.Specs.ContainerSpec(ctx, c.ID)
	if err != nil {
		if ctx.Err() != nil {
			return out, err
		}
		miss(err)
	} else {
		out.Asked = askedOf(spec)
	}
	if !c.Running() || c.Pid == 0 {
		return out, nil
	}
	log, err := in.logStats(ctx, c)
	miss(err)
	out.Log = log
	kernel, errs := in.kernel(ctx, int(c.Pid), out.Asked)
	for _, err := range errs {
		miss(err)
	}
	out.Kernel = kernel
	if out.Asked != nil && kernel != nil {
		drift, errs := in.compare(int(c.Pid), out.Asked, kernel)
		out.Drift = append(out.Drift, drift...)
		for _, err := range errs {
			miss(err)
		}
	}
	return out, nil
}

// kernel reads what the kernel has for the container whose init is pid; nil if
// it has ended meanwhile.
func (in *Inspector) kernel(ctx context.Context, pid int, a *Asked) (k *Kernel, errs []error) {
	k = &Kernel{Processes: []InspectedProcess{}}
	var err error
	if k.Init, err = readProcess(in.Proc, pid); errors.Is(err, os.ErrNotExist) {
		return nil, []error{err}
	}
	errs = append(errs, err)
	k.Cgroup, err = in.Cgroups.PIDFacts(ctx, pid)
	errs = append(errs, err)
	k.Namespaces, err = readNamespaces(in.Proc, pid)
	errs = append(errs, err)
	k.Mounts, err = readMounts(in.Proc, pid)
	errs = append(errs, err)
	processes := k.Cgroup.Processes
	if a != nil && path.IsAbs(a.Cgroup) {
		// A process that init has put elsewhere is found where it should be.
		if facts, err := in.Cgroups.Facts(ctx, a.Cgroup); err == nil {
			processes = facts.Processes
		}
	}
	for _, p := range processes {
		ip := InspectedProcess{Process: p}
		if rights, err := readProcess(in.Proc, p.PID); err == nil {
			ip.Rights = &rights
		}
		k.Processes = append(k.Processes, ip)
	}
	k.Cgroup.Processes = []cgroups.Process{} // they are listed above
	return k, errs
}

// logStats asks the shim; a container whose log it does not write has none.
func (in *Inspector) logStats(ctx context.Context, c *Container) (*shimapi.LogStats, error) {
	all, err := ShimStats(ctx, in.RunDir, c.SandboxID)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.ID == c.ID {
			return &s.LogStats, nil
		}
	}
	return nil, nil
}

// ShimStats asks a pod's shim what it counts.
func ShimStats(ctx context.Context, runDir, sandbox string) ([]shimapi.ContainerStats, error) {
	client, err := shimapi.Dial(runDir, sandbox)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	stats, err := client.Stats(ctx)
	return stats.Containers, err
}

// cgroupOf is where a spec's cgroupsPath puts the container: an absolute path, or
// "slice:prefix:name" of systemd, of which the last element is known.
func cgroupOf(asked string) (path, last string) {
	if strings.HasPrefix(asked, "/") {
		return asked, ""
	}
	parts := strings.Split(asked, ":")
	if len(parts) != 3 {
		return "", ""
	}
	return "", parts[1] + "-" + parts[2] + ".scope"
}
