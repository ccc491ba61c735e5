package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PodCgroup is a pod's cgroup that is there, in one hierarchy at least.
type PodCgroup struct {
	UID  types.UID          `json:"uid"`
	QOS  corev1.PodQOSClass `json:"qosClass"`
	Path string             `json:"path"`
}

// Pods lists the pods that have a cgroup, sorted by path: what a start must
// adopt or remove. Other cgroups in kubepods are none of ours and left out.
func (t *Tree) Pods(ctx context.Context) ([]PodCgroup, error) {
	var out []PodCgroup
	seen := map[string]bool{}
	for _, h := range t.hierarchies {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, qos := range classes() {
			class := t.class(qos)
			entries, err := os.ReadDir(filepath.Join(h.Dir, class))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list pods' cgroups: %w", err)
			}
			for _, e := range entries {
				p := path.Join(class, e.Name())
				uid, ok := t.uidOf(e.Name())
				if !ok || !e.IsDir() || seen[p] {
					continue
				}
				seen[p] = true
				out = append(out, PodCgroup{UID: uid, QOS: qos, Path: p})
			}
		}
	}
	slices.SortFunc(out, func(a, b PodCgroup) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}
