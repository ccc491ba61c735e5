package diag

import (
	"context"
	"time"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/shimapi"
)

// ContainerUsage is what one container used between two readings.
type ContainerUsage struct {
	Namespace   string            `json:"podNamespace"`
	Pod         string            `json:"podName"`
	PodUID      string            `json:"podUID"`
	Container   string            `json:"name"`
	ID          string            `json:"id"`
	At          time.Time         `json:"at"`
	CPUCores    float64           `json:"cpuCores"`          // on average in the interval
	Throttled   float64           `json:"throttledFraction"` // of the periods in the interval
	MemoryLimit *uint64           `json:"memoryLimitBytes,omitempty"`
	OOMKills    uint64            `json:"oomKills"`
	Usage       cgroups.Usage     `json:"usage"`
	Log         *shimapi.LogStats `json:"log,omitempty"`
}

// Meter reads what containers use.
type Meter struct {
	Cgroups Cgroups
	RunDir  string
	Socket  string // of the daemon, which has measured volumes; "": it does not answer
	RootDir string
	Now     func() time.Time
}

// Read reads the running containers of pods; one that ends meanwhile is left
// out.
func (m Meter) Read(ctx context.Context, pods []Pod) []ContainerUsage {
	all := []ContainerUsage{}
	for i := range pods {
		logs := map[string]*shimapi.LogStats{}
		asked := map[string]bool{}
		for j := range pods[i].Containers {
			c := &pods[i].Containers[j]
			if !c.Running() || c.Pid == 0 {
				continue
			}
			if !asked[c.SandboxID] {
				asked[c.SandboxID] = true
				stats, _ := ShimStats(ctx, m.RunDir, c.SandboxID) // a stuck shim costs its log column
				for k := range stats {
					logs[stats[k].ID] = &stats[k].LogStats
				}
			}
			f, err := m.Cgroups.PIDFacts(ctx, int(c.Pid))
			if err != nil {
				continue
			}
			all = append(all, ContainerUsage{
				Namespace: pods[i].Namespace, Pod: pods[i].Name, PodUID: pods[i].UID, Container: c.Name, ID: c.ID,
				At: m.Now().UTC(), Usage: f.Usage, MemoryLimit: f.Limits.MemoryMax, OOMKills: f.OOM.Kills, Log: logs[c.ID],
			})
		}
	}
	return all
}

// Between returns the second reading with the averages since the first.
func Between(before, after []ContainerUsage) []ContainerUsage {
	old := map[string]*ContainerUsage{}
	for i := range before {
		old[before[i].ID] = &before[i]
	}
	for i := range after {
		u := &after[i]
		b := old[u.ID]
		if b == nil {
			continue
		}
		if d := u.At.Sub(b.At); d > 0 {
			u.CPUCores = float64(since(b.Usage.CPUNanos, u.Usage.CPUNanos)) / float64(d.Nanoseconds())
		}
		if periods := since(b.Usage.CPUPeriods, u.Usage.CPUPeriods); periods > 0 {
			u.Throttled = float64(since(b.Usage.CPUThrottled, u.Usage.CPUThrottled)) / float64(periods)
		}
	}
	return after
}

// since is how much a counter grew; 0 where it began anew.
func since(before, after uint64) uint64 {
	if after < before {
		return 0
	}
	return after - before
}
