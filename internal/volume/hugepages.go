package volume

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// pageSize is the size of the huge pages that a medium stands for, in bytes:
// "HugePages-<size>" names one that a container of the pod must ask for,
// "HugePages" is the only one that containers ask for (kubelet, emptydir,
// getPageSizeMountOption).
func pageSize(p *corev1.Pod, medium corev1.StorageMedium) (int64, error) {
	asked := hugeSizes(p)
	if medium != corev1.StorageMediumHugePages {
		size, err := hugeSize(string(medium), string(corev1.StorageMediumHugePagesPrefix))
		if err != nil {
			return 0, err
		}
		if !asked[size] {
			return 0, fmt.Errorf("medium %q: no container of the pod asks for huge pages of that size", medium)
		}
		return size, nil
	}
	if len(asked) != 1 {
		return 0, fmt.Errorf("medium %q: the containers of the pod ask for %d sizes of huge pages, want one", medium, len(asked))
	}
	for size := range asked {
		return size, nil
	}
	return 0, nil
}

// hugeSizes are the sizes that the pod or a container of it asks for. Limits are
// the same as requests.
func hugeSizes(p *corev1.Pod) map[int64]bool {
	var lists []corev1.ResourceList
	if p.Spec.Resources != nil {
		lists = append(lists, p.Spec.Resources.Requests)
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		lists = append(lists, c.Resources.Requests)
	}
	asked := map[int64]bool{}
	for _, l := range lists {
		for name := range l {
			if size, err := hugeSize(string(name), corev1.ResourceHugePagesPrefix); err == nil {
				asked[size] = true
			}
		}
	}
	return asked
}

func hugeSize(text, prefix string) (int64, error) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return 0, fmt.Errorf("%q names no size of huge pages", text)
	}
	q, err := resource.ParseQuantity(rest)
	if err != nil {
		return 0, fmt.Errorf("%q names no size of huge pages: %w", text, err)
	}
	return q.Value(), nil
}

// mountHuge mounts huge pages at dir, of no more than limit. What a container
// takes of them counts against its own limit.
func mountHuge(dir string, size int64, limit *resource.Quantity, o owner) error {
	options := []option{
		{key: "pagesize", value: strconv.FormatInt(size, 10)},
	}
	if o.gid >= 0 {
		options = append(options, option{key: "gid", value: strconv.FormatInt(o.gid, 10)})
	}
	if limit != nil && limit.Sign() > 0 {
		options = append(options, option{key: "size", value: strconv.FormatInt(limit.Value(), 10)})
	}
	return mountNew(dir, "hugetlbfs", options, o.bits())
}
