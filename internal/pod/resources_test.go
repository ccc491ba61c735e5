package pod

import (
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// list makes a resource list from pairs of name and quantity.
func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func needs(requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func sidecarOf(c corev1.Container) corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	c.Name, c.RestartPolicy = "side", &always
	return c
}

func podOf(cs ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{Spec: corev1.PodSpec{Containers: cs}}
}

func withInit(p *corev1.Pod, cs ...corev1.Container) *corev1.Pod {
	p.Spec.InitContainers = cs
	return p
}

func withPodLevel(p *corev1.Pod, requests, limits corev1.ResourceList) *corev1.Pod {
	p.Spec.Resources = &corev1.ResourceRequirements{Requests: requests, Limits: limits}
	return p
}

func withOverhead(p *corev1.Pod, overhead corev1.ResourceList) *corev1.Pod {
	p.Spec.Overhead = overhead
	return p
}

func TestCPUFormulas(t *testing.T) {
	for _, c := range []struct {
		milli  int64
		shares uint64
		weight uint64
		quota  int64 // at the default period; 0 is none
	}{
		// shares = milli*1024/1000 in 2..262144; weight = 1+(shares-2)*9999/262142;
		// quota = milli*100000/1000, 1000 at least.
		{math.MinInt64, 2, 1, 0},
		{-1, 2, 1, 0},
		{0, 2, 1, 0},
		{1, 2, 1, 1000},      // 1.024 shares, 100 µs
		{2, 2, 1, 1000},      // 2.048
		{10, 10, 1, 1000},    // 10.24; 1+79992/262142 = 1.3
		{11, 11, 1, 1100},    // 11.26
		{50, 51, 2, 5000},    // 51.2; 1+489951/262142 = 2.87
		{100, 102, 4, 10000}, // 102.4; 1+999900/262142 = 4.8
		{250, 256, 10, 25000},
		{500, 512, 20, 50000},
		{1000, 1024, 39, 100000}, // KEP-2254's example: 1024 shares are 39
		{1500, 1536, 59, 150000},
		{2000, 2048, 79, 200000},
		{4000, 4096, 157, 400000},
		{64000, 65536, 2500, 6400000},
		{255999, 262142, 9999, 25599900},
		{256000, 262144, 10000, 25600000},
		{256001, 262144, 10000, 25600100},
		{math.MaxInt64 / 1024, 262144, 10000, 1<<44 - 1},
		{math.MaxInt64, 262144, 10000, 1<<44 - 1},
	} {
		if got := CPUShares(c.milli); got != c.shares {
			t.Errorf("shares of %dm are %d, want %d", c.milli, got, c.shares)
		}
		if got := CPUWeight(c.shares); got != c.weight {
			t.Errorf("weight of %d shares is %d, want %d", c.shares, got, c.weight)
		}
		got := CPUQuota(c.milli, 0)
		if (got == nil) != (c.quota == 0) || got != nil && *got != c.quota {
			t.Errorf("quota of %dm is %v, want %d", c.milli, orNone(got), c.quota)
		}
	}
	for _, c := range []struct {
		milli  int64
		period uint64
		quota  int64
	}{
		{250, 10000, 2500}, {100, 5000, 1000}, {2000, 1000000, 2000000}, {math.MaxInt64, 1000000, 1<<44 - 1},
	} {
		if got := CPUQuota(c.milli, c.period); *got != c.quota {
			t.Errorf("quota of %dm in %d µs is %d, want %d", c.milli, c.period, *got, c.quota)
		}
	}
	for _, c := range []struct{ shares, weight uint64 }{{0, 1}, {1, 1}, {2, 1}, {3, 1}, {29, 2}, {math.MaxUint64, 10000}} {
		if got := CPUWeight(c.shares); got != c.weight {
			t.Errorf("weight of %d shares is %d, want %d", c.shares, got, c.weight)
		}
	}
}

func orNone(v *int64) any {
	if v == nil {
		return "none"
	}
	return *v
}

// resourceCase says only what is not zero: shares and weight follow from milli.
type resourceCase struct {
	name   string
	pod    *corev1.Pod
	milli  int64
	quota  int64
	memory int64
	pages  map[string]uint64
}

func (c resourceCase) want() Resources {
	r := Resources{CPUMilli: c.milli, CPUShares: CPUShares(c.milli), CPUWeight: CPUWeight(CPUShares(c.milli)), HugepageLimits: c.pages}
	if c.quota != 0 {
		r.CPUQuota, r.CPUPeriod = &c.quota, 100000
	}
	if c.memory != 0 {
		r.Memory = &c.memory
	}
	return r
}

func TestPodResources(t *testing.T) {
	const Mi = 1 << 20
	small := list("cpu", "100m", "memory", "100Mi")
	big := list("cpu", "2", "memory", "1Gi")
	for _, c := range []resourceCase{
		{name: "nothing asked", pod: podOf(needs(nil, nil))},
		{name: "guaranteed", pod: podOf(needs(small, small), needs(big, big)), milli: 2100, quota: 210000, memory: 1124 * Mi},
		{name: "requests only", pod: podOf(needs(small, nil)), milli: 100},
		{name: "requests below limits", pod: podOf(needs(small, big)), milli: 100, quota: 200000, memory: 1024 * Mi},
		{name: "one container without limits has the pod without", pod: podOf(needs(small, big), needs(small, nil)), milli: 200},
		{name: "each resource for itself", pod: podOf(needs(nil, list("cpu", "1")), needs(nil, list("cpu", "1", "memory", "5Mi"))), quota: 200000},
		{name: "a limit of zero is none", pod: podOf(needs(small, list("cpu", "0", "memory", "5Mi"))), milli: 100, memory: 5 * Mi},
		// max(100m + 200m, 2000m)
		{name: "an init container counts by its maximum", pod: withInit(podOf(needs(small, small), needs(list("cpu", "200m", "memory", "1Mi"), list("cpu", "200m", "memory", "1Mi"))), needs(big, big)),
			milli: 2000, quota: 200000, memory: 1024 * Mi},
		{name: "an init container without limits", pod: withInit(podOf(needs(small, small)), needs(nil, nil)), milli: 100},
		// max(100m + 100m, 100m side + 2 init) = 2100m
		{name: "a sidecar runs beside the later init containers", pod: withInit(podOf(needs(small, small)), sidecarOf(needs(small, small)), needs(big, big)),
			milli: 2100, quota: 210000, memory: 1124 * Mi},
		// kubelet 1.36 takes the first sidecar's limit for one of the second and caps the pod
		{name: "a sidecar without limits after one with", pod: withInit(podOf(needs(small, small)), sidecarOf(needs(small, small)), sidecarOf(needs(nil, nil))), milli: 200},
		{name: "overhead is added", pod: withOverhead(podOf(needs(small, big)), list("cpu", "250m", "memory", "120Mi")), milli: 350, quota: 225000, memory: 1144 * Mi},
		{name: "overhead is no limit", pod: withOverhead(podOf(needs(small, nil)), list("cpu", "250m", "memory", "120Mi")), milli: 350},
		{name: "overhead alone is best effort", pod: withOverhead(podOf(needs(nil, nil)), list("cpu", "250m", "memory", "120Mi"))},
		{name: "pod level", pod: withPodLevel(podOf(needs(small, nil), needs(nil, nil)), list("cpu", "1", "memory", "1Gi"), list("cpu", "3", "memory", "2Gi")),
			milli: 1000, quota: 300000, memory: 2048 * Mi},
		{name: "pod level for CPU only", pod: withPodLevel(podOf(needs(small, list("memory", "200Mi"))), nil, list("cpu", "1")),
			milli: 100, quota: 100000, memory: 200 * Mi},
		{name: "huge pages", pod: podOf(needs(list("hugepages-2Mi", "4Mi", "memory", "1Mi", "cpu", "1"), nil), needs(list("hugepages-2Mi", "2Mi", "hugepages-1Gi", "1Gi"), nil)),
			milli: 1000, pages: map[string]uint64{"2MB": 6 * Mi, "1GB": 1024 * Mi}},
		{name: "a tiny limit", pod: podOf(needs(list("cpu", "1m", "memory", "1"), list("cpu", "1m", "memory", "1"))), milli: 1, quota: 1000, memory: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want()
			if got := PodResources(c.pod, -1); !reflect.DeepEqual(got, want) {
				t.Errorf("got %s\nwant %s", text(got), text(want))
			}
			want.Pids = 4096
			if got := PodResources(c.pod, 4096); !reflect.DeepEqual(got, want) {
				t.Errorf("with a pid limit: got %s\nwant %s", text(got), text(want))
			}
		})
	}
}

func TestContainerResources(t *testing.T) {
	const Mi = 1 << 20
	level := func(c corev1.Container, limits corev1.ResourceList) *corev1.Pod {
		return withPodLevel(podOf(c), nil, limits)
	}
	for _, c := range []resourceCase{
		{name: "nothing asked", pod: podOf(needs(nil, nil))},
		{name: "both", pod: podOf(needs(list("cpu", "100m", "memory", "10Mi"), list("cpu", "2", "memory", "20Mi"))), milli: 100, quota: 200000, memory: 20 * Mi},
		{name: "requests only", pod: podOf(needs(list("cpu", "1500m", "memory", "10Mi"), nil)), milli: 1500},
		{name: "a limit without a request is the request", pod: podOf(needs(nil, list("cpu", "500m"))), milli: 500, quota: 50000},
		{name: "a request of zero is one", pod: podOf(needs(list("cpu", "0"), list("cpu", "500m"))), quota: 50000},
		{name: "the pod's limit", pod: level(needs(nil, nil), list("cpu", "500m", "memory", "64Mi")), milli: 500, quota: 50000, memory: 64 * Mi},
		{name: "its own limit before the pod's", pod: level(needs(nil, list("cpu", "250m", "memory", "1Mi")), list("cpu", "500m", "memory", "64Mi")), milli: 250, quota: 25000, memory: Mi},
		{name: "huge pages", pod: podOf(needs(nil, list("hugepages-2Mi", "4Mi"))), pages: map[string]uint64{"2MB": 4 * Mi}},
		{name: "its own huge pages before the pod's", pod: level(needs(nil, list("hugepages-2Mi", "4Mi")), list("hugepages-2Mi", "8Mi", "hugepages-1Gi", "1Gi")),
			pages: map[string]uint64{"2MB": 4 * Mi, "1GB": 1024 * Mi}},
		{name: "two names of one size", pod: podOf(needs(nil, list("hugepages-2Mi", "4Mi", "hugepages-2048Ki", "2Mi"))), pages: map[string]uint64{"2MB": 6 * Mi}},
		{name: "nonsense names no page size", pod: podOf(needs(nil, list("hugepages-", "4Mi", "hugepages-x", "2Mi", "hugepages-0", "1")))},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want()
			want.MemorySwap = want.Memory // no swap
			want.Unified = map[string]string{"memory.oom.group": "1"}
			if got := ContainerResources(c.pod, &c.pod.Spec.Containers[0]); !reflect.DeepEqual(got, want) {
				t.Errorf("got %s\nwant %s", text(got), text(want))
			}
		})
	}
}

func TestLimits(t *testing.T) {
	p := podOf(needs(list("cpu", "1", "memory", "1Mi"), list("cpu", "1", "memory", "1Mi", "hugepages-2Mi", "4Mi")))
	l := Limits{PodPids: 7, CPUPeriod: 20000, SingleOOMKill: true, PageSizes: []string{"2MB", "1GB"}}
	c := l.Container(p, &p.Spec.Containers[0])
	if *c.CPUQuota != 20000 || c.CPUPeriod != 20000 || c.Unified != nil || c.Pids != 0 ||
		!maps.Equal(c.HugepageLimits, map[string]uint64{"2MB": 4 << 20, "1GB": 0}) {
		t.Errorf("container: %s", text(c))
	}
	if r := l.Pod(p); *r.CPUQuota != 20000 || r.CPUPeriod != 20000 || r.Pids != 7 {
		t.Errorf("pod: %s", text(r))
	}
	l.NoCPUQuota = true
	if r := l.Pod(p); r.CPUQuota != nil || r.CPUPeriod != 0 || r.CPUShares != 1024 || *r.Memory != 1<<20 {
		t.Errorf("pod without quota: %s", text(r))
	}
	if c := l.Container(p, &p.Spec.Containers[0]); c.CPUQuota != nil || c.CPUPeriod != 0 {
		t.Errorf("container without quota: %s", text(c))
	}
}

func TestNodeAndClassResources(t *testing.T) {
	n := NodeResources(list("cpu", "4", "memory", "8Gi", "pid", "30000", "hugepages-2Mi", "64Mi"))
	if n.CPUShares != 4096 || n.CPUWeight != 157 || *n.Memory != 8<<30 || n.Pids != 30000 || n.CPUQuota != nil ||
		n.HugepageLimits["2MB"] != 64<<20 {
		t.Errorf("node: %s", text(n))
	}
	if b := BurstableResources(1500); b.CPUShares != 1536 || b.CPUWeight != 59 || b.Memory != nil {
		t.Errorf("burstable: %s", text(b))
	}
	if b := BestEffortResources(); b.CPUShares != 2 || b.CPUWeight != 1 || b.Memory != nil {
		t.Errorf("best effort: %s", text(b))
	}
}

func TestUnifiedFiles(t *testing.T) {
	r := Resources{CPUWeight: 39, Unified: map[string]string{"memory.oom.group": "1"}}
	if got := r.UnifiedFiles(true); !maps.Equal(got, map[string]string{"cpu.weight": "39", "memory.oom.group": "1", "memory.swap.max": "0"}) {
		t.Errorf("with swap: %v", got)
	}
	if got := r.UnifiedFiles(false); !maps.Equal(got, map[string]string{"cpu.weight": "39", "memory.oom.group": "1"}) {
		t.Errorf("without swap: %v", got)
	}
	if len(r.Unified) != 1 {
		t.Error("the resources were changed")
	}
}

func text(r Resources) string {
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
