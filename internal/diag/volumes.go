package diag

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/volume"
)

// measureTime bounds the count of what a pod's volumes hold.
const measureTime = 2 * time.Second

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
