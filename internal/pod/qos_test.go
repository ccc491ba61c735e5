package pod

import (
	"math"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestQOSClass(t *testing.T) {
	full := list("cpu", "100m", "memory", "100Mi")
	const g, b, e = corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort
	lying := podOf(needs(full, full))
	lying.Status.QOSClass = e
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want corev1.PodQOSClass
	}{
		{"no containers", podOf(), e},
		{"nothing asked", podOf(needs(nil, nil), needs(nil, nil)), e},
		{"all equal", podOf(needs(full, full)), g},
		{"all equal in two containers", podOf(needs(full, full), needs(full, full)), g},
		{"equal in other words", podOf(needs(list("cpu", "0.1", "memory", "0.1Gi"), list("cpu", "100m", "memory", "107374182400m"))), g},
		{"one of two without limits", podOf(needs(full, full), needs(nil, nil)), b},
		{"requests only", podOf(needs(full, nil)), b},
		{"limits without requests", podOf(needs(nil, full)), b}, // defaulting makes it Guaranteed before it gets here
		{"request below limit", podOf(needs(list("cpu", "50m", "memory", "100Mi"), full)), b},
		{"CPU only", podOf(needs(list("cpu", "1"), list("cpu", "1"))), b},
		{"memory only", podOf(needs(list("memory", "1Gi"), list("memory", "1Gi"))), b},
		{"sums equal but not each", podOf(needs(list("cpu", "1", "memory", "1"), list("cpu", "2", "memory", "1")), needs(list("cpu", "2", "memory", "1"), list("cpu", "1", "memory", "1"))), g},
		{"zero is nothing", podOf(needs(list("cpu", "0", "memory", "0"), list("cpu", "0"))), e},
		{"other resources do not count", podOf(needs(list("example.com/gpu", "1", "ephemeral-storage", "1Gi"), list("example.com/gpu", "1"))), e},
		{"other resources do not spoil it", podOf(needs(list("cpu", "1", "memory", "1Gi", "ephemeral-storage", "1Gi"), list("cpu", "1", "memory", "1Gi"))), g},
		{"an init container counts", withInit(podOf(needs(full, full)), needs(nil, nil)), b},
		{"an equal init container", withInit(podOf(needs(full, full)), needs(full, full)), g},
		{"only the init container asks", withInit(podOf(needs(nil, nil)), needs(full, full)), b},
		{"overhead does not count", withOverhead(podOf(needs(nil, nil)), full), e},
		{"pod level, all equal", withPodLevel(podOf(needs(nil, nil)), full, full), g},
		{"pod level stands in for the containers", withPodLevel(podOf(needs(full, full)), list("cpu", "1"), nil), b},
		{"pod level with one limit", withPodLevel(podOf(needs(nil, nil)), list("cpu", "1"), list("cpu", "1")), b},
		{"pod level, empty", withPodLevel(podOf(needs(full, full)), nil, nil), e},
		{"status is no fact", lying, g},
	} {
		if got := QOSClass(c.pod); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestOOMScoreAdj(t *testing.T) {
	const capacity = 8_000_000_000
	static := func(p *corev1.Pod, source string) *corev1.Pod {
		p.Annotations = map[string]string{"kubernetes.io/config.source": source}
		p.Spec.PriorityClassName = "system-node-critical"
		return p
	}
	priority := func(p *corev1.Pod, class string, value int32) *corev1.Pod {
		p.Spec.PriorityClassName, p.Spec.Priority = class, &value
		return p
	}
	full := list("cpu", "1", "memory", "1Gi")
	asks := func(memory string) corev1.Container { return needs(list("memory", memory), nil) }
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want int
	}{
		{"best effort", podOf(needs(nil, nil)), 1000},
		{"guaranteed", podOf(needs(full, full)), -997},
		{"burstable by CPU alone", podOf(needs(list("cpu", "1"), nil)), 999},  // 1000-0 is best effort's
		{"a byte", podOf(asks("1")), 999},                                     // 1000 is best effort's
		{"1 % of the node", podOf(asks("80M")), 990},                          // 1000-10
		{"10 % of the node", podOf(asks("800M")), 900},                        // kubelet's own example
		{"12.5 % of the node", podOf(asks("1G")), 875},                        // 1000-125
		{"half of it", podOf(asks("4G")), 500},                                // 1000-500
		{"rounded up", podOf(asks("4000000001")), 500},                        // 500.000000125
		{"99.7 %", podOf(asks("7976M")), 3},                                   // 1000-997
		{"99.9 %", podOf(asks("7992M")), 3},                                   // 1000-999 is 1, below 3
		{"all of it", podOf(asks("8G")), 3},                                   // 0
		{"more than it", podOf(asks("1Ti")), 3},                               // below 0
		{"where kubelet's product overflows", podOf(asks("7Ei")), 3},          // 1000*7*2^60
		{"another container's request", podOf(asks("800M"), asks("4G")), 900}, // each its own
		{"static and node-critical", static(podOf(needs(nil, nil)), "file"), -997},
		{"from the API and only named so", static(podOf(needs(nil, nil)), "api"), 1000},
		{"node-critical by admission", priority(podOf(needs(nil, nil)), "system-node-critical", 2000001000), -997},
		{"cluster-critical", priority(podOf(needs(nil, nil)), "system-cluster-critical", 2000000000), 1000},
		{"a small priority of that name", priority(podOf(needs(nil, nil)), "system-node-critical", 5), 1000},
		// (2G - 800M) / 1 container left over: 800M + 1.2G = 25 %
		{"pod level", withPodLevel(podOf(asks("800M")), list("memory", "2G"), nil), 750},
		// (2G - 800M) / 2 left over: 800M + 600M = 17.5 %
		{"pod level, two containers", withPodLevel(podOf(asks("800M"), needs(nil, nil)), list("memory", "2G"), nil), 825},
		{"pod level for CPU only", withPodLevel(podOf(asks("800M")), list("cpu", "2"), nil), 900},
	} {
		if got := OOMScoreAdj(c.pod, &c.pod.Spec.Containers[0], capacity); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// A sidecar has at most the score of the regular container that asks for least.
func TestOOMScoreAdjOfSidecar(t *testing.T) {
	const capacity = 8_000_000_000
	asks := func(memory string) corev1.Container { return needs(list("memory", memory), nil) }
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want int
	}{
		{"it asks for less", withInit(podOf(asks("4G"), asks("2G")), sidecarOf(asks("80M"))), 750},
		{"it asks for more", withInit(podOf(asks("2G")), sidecarOf(asks("4G"))), 500},
		{"the others ask for nothing", withInit(podOf(needs(nil, nil)), sidecarOf(asks("800M"))), 900},
		{"nobody asks for memory", withInit(podOf(needs(list("cpu", "1"), nil)), sidecarOf(needs(nil, nil))), 999},
		// requests 2G + 0.8G = 2.8G; 4.8G - 2.8G = 2G over two: 2G + 1G = 37.5 %
		{"pod level", withPodLevel(withInit(podOf(asks("2G")), sidecarOf(asks("800M"))), list("memory", "4800M"), nil), 625},
	} {
		if got := OOMScoreAdj(c.pod, &c.pod.Spec.InitContainers[0], capacity); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	plain := withInit(podOf(asks("4G")), asks("80M"))
	if got := OOMScoreAdj(plain, &plain.Spec.InitContainers[0], capacity); got != 990 {
		t.Errorf("an init container that is no sidecar: %d, want 990", got)
	}
}

// Whatever a manifest says, the score is one that the kernel takes and that
// lies between Guaranteed's and BestEffort's.
func FuzzOOMScoreAdj(f *testing.F) {
	f.Add(int64(1), int64(1), int64(0), int64(8e9))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(1))
	f.Add(int64(-1), int64(0), int64(math.MinInt64), int64(0))
	f.Fuzz(func(t *testing.T, a, b, level, capacity int64) {
		quantity := func(v int64) string { return strconv.FormatInt(v, 10) }
		p := withInit(podOf(needs(list("memory", quantity(a)), nil)), sidecarOf(needs(list("memory", quantity(b)), nil)))
		if level != 0 {
			withPodLevel(p, list("memory", quantity(level)), nil)
		}
		for _, c := range []*corev1.Container{&p.Spec.Containers[0], &p.Spec.InitContainers[0]} {
			got := OOMScoreAdj(p, c, capacity)
			if QOSClass(p) == corev1.PodQOSBestEffort {
				if got != 1000 {
					t.Errorf("best effort: %d", got)
				}
			} else if got < 3 || got > 999 {
				t.Errorf("burstable: %d", got)
			}
		}
	})
}

// Whatever a manifest says, the limits are ones that the kernel takes.
func FuzzResources(f *testing.F) {
	f.Add(int64(100), int64(200), int64(1<<20), "hugepages-2Mi")
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), "hugepages-")
	f.Add(int64(-1), int64(-1), int64(-1), "hugepages-1e30")
	f.Fuzz(func(t *testing.T, request, limit, memory int64, page string) {
		c := needs(corev1.ResourceList{"cpu": *resource.NewQuantity(request, resource.DecimalSI), corev1.ResourceName(page): *resource.NewQuantity(memory, resource.BinarySI)},
			corev1.ResourceList{"cpu": *resource.NewQuantity(limit, resource.DecimalSI), "memory": *resource.NewQuantity(memory, resource.BinarySI)})
		p := withInit(podOf(c), c)
		for _, r := range []Resources{PodResources(p, request), ContainerResources(p, &p.Spec.Containers[0])} {
			switch {
			case r.CPUShares < 2 || r.CPUShares > 262144, r.CPUWeight < 1 || r.CPUWeight > 10000,
				r.CPUQuota != nil && (*r.CPUQuota < 1000 || *r.CPUQuota > 1<<44-1),
				r.Memory != nil && *r.Memory <= 0, r.Pids < 0, r.CPUMilli < 0:
				t.Errorf("%s", text(r))
			}
		}
	})
}
