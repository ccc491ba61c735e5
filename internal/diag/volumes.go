package diag

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/volume"
)

const (
	// measureTime bounds the count of what a pod's volumes hold, measureAll that of
	// all pods' together.
	measureTime = 2 * time.Second
	measureAll  = 10 * time.Second
)

// VolumeUsage is what one volume of a pod takes, and when that was counted.
type VolumeUsage struct {
	Namespace string `json:"podNamespace"`
	Pod       string `json:"podName"`
	PodUID    string `json:"podUID"`
	volume.Usage
	At time.Time `json:"at"`
}

// Volumes tells what the volumes of the pods take. The daemon has it measured a
// moment ago; without the daemon it is counted now. missed says what is not told.
func (m Meter) Volumes(ctx context.Context, pods []Pod) (all []VolumeUsage, missed []string) {
	all, missed = []VolumeUsage{}, []string{}
	readings, err := map[string]volume.Reading(nil), error(nil)
	if m.Socket == "" {
		readings = m.measure(ctx, pods)
	} else if readings, err = (daemon{m.Socket}).volumes(ctx); err != nil {
		return all, append(missed, fmt.Sprintf("what volumes take: %v", err))
	}
	for i := range pods {
		p := &pods[i]
		r := readings[p.UID]
		if r.Missed != "" {
			missed = append(missed, fmt.Sprintf("what volumes of pod %s take: %s", p.FullName(), r.Missed))
		}
		for _, u := range r.Volumes {
			all = append(all, VolumeUsage{Namespace: p.Namespace, Pod: p.Name, PodUID: p.UID, Usage: u, At: r.At})
		}
	}
	return all, missed
}

func (m Meter) measure(ctx context.Context, pods []Pod) map[string]volume.Reading {
	ctx, cancel := context.WithTimeout(ctx, measureAll)
	defer cancel()
	all := map[string]volume.Reading{}
	for i := range pods {
		r, missed := volume.Reading{At: m.Now().UTC()}, []string{}
		r.Volumes = volumesOf(ctx, m.RootDir, &pods[i], &missed)
		if len(missed) > 0 {
			r.Missed = missed[0]
		}
		all[pods[i].UID] = r
	}
	return all
}

// volumesOf tells what the pod's volumes take.
func volumesOf(ctx context.Context, rootDir string, p *Pod, missed *[]string) []volume.Usage {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	all, err := volume.Measure(ctx, rootDir, types.UID(p.UID))
	if err != nil {
		*missed = append(*missed, err.Error())
	}
	return append([]volume.Usage{}, all...)
}
