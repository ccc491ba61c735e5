package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func amounts(pairs ...string) corev1.ResourceList {
	all := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		all[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return all
}

// TestAllocatable holds the formulas of kubelet's node allocatable.
func TestAllocatable(t *testing.T) {
	capacity := amounts("cpu", "4", "memory", "8Gi", "ephemeral-storage", "100Gi", "pods", "110", "hugepages-2Mi", "1Gi")
	none := map[string]string{"memory.available": "0%", "nodefs.available": "0%"}
	for _, c := range []struct {
		name                  string
		cfg                   ReservedConfig
		allocatable, enforced corev1.ResourceList
	}{
		{"defaults", ReservedConfig{}, amounts("cpu", "4", "memory", "7068Mi", "ephemeral-storage", "96636764000", "pods", "110"),
			amounts("cpu", "4", "memory", "8Gi", "ephemeral-storage", "100Gi")},
		{"both reserved", ReservedConfig{System: map[string]string{"cpu": "500m", "memory": "1Gi"}, Kube: map[string]string{"cpu": "250m", "memory": "512Mi", "ephemeral-storage": "10Gi"}, EvictionHard: none},
			amounts("cpu", "3250m", "memory", "5632Mi", "ephemeral-storage", "90Gi"), amounts("cpu", "3250m", "memory", "6656Mi", "ephemeral-storage", "90Gi")},
		{"one threshold takes the others away", ReservedConfig{EvictionHard: map[string]string{"memory.available": "1Gi"}},
			amounts("memory", "6Gi", "ephemeral-storage", "100Gi"), amounts("memory", "8Gi")},
		{"but not merged", ReservedConfig{EvictionHard: map[string]string{"memory.available": "1Gi"}, MergeEviction: true},
			amounts("memory", "6Gi", "ephemeral-storage", "96636764000"), nil},
		{"a signal of another room", ReservedConfig{EvictionHard: map[string]string{"imagefs.available": "5%"}},
			amounts("memory", "7Gi", "ephemeral-storage", "100Gi"), nil},
		{"processors by number", ReservedConfig{System: map[string]string{"cpu": "3"}, Kube: map[string]string{"cpu": "3"}, CPUs: "0,2-2"}, amounts("cpu", "2"), amounts("cpu", "2")},
		{"never negative", ReservedConfig{System: map[string]string{"cpu": "5", "memory": "9Gi"}}, amounts("cpu", "0", "memory", "0"), amounts("cpu", "0", "memory", "0")},
	} {
		r, err := ParseReserved(c.cfg)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for what, pair := range map[string][2]corev1.ResourceList{"allocatable": {r.Allocatable(capacity), c.allocatable}, "enforced": {r.Enforced(capacity), c.enforced}} {
			for name, want := range pair[1] {
				got := pair[0][name]
				if name == "ephemeral-storage" && want.Value() == 96636764000 { // 10% is 0.1 of 32 bits there
					want = *resource.NewQuantity(int64(100<<30)-int64(float64(int64(100<<30))*float64(float32(10)/100)), resource.BinarySI)
				}
				if got.Cmp(want) != 0 {
					t.Errorf("%s: %s of %s is %s, want %s", c.name, what, name, got.String(), want.String())
				}
			}
			if len(pair[0]) != len(capacity) {
				t.Errorf("%s: %s is %v", c.name, what, pair[0])
			}
		}
		if err := r.Check(capacity); (err != nil) != (c.name == "never negative") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestReservedRefuses(t *testing.T) {
	for field, c := range map[string]ReservedConfig{
		"systemReserved":                   {System: map[string]string{"pods": "1"}},
		"kubeReserved":                     {Kube: map[string]string{"memory": "-1"}},
		"systemReserved: cpu":              {System: map[string]string{"cpu": "many"}},
		"reservedSystemCPUs":               {CPUs: "0-"},
		`evictionHard["memory.available"]`: {EvictionHard: map[string]string{"memory.available": "101%"}},
		`evictionHard["nodefs.available"]`: {EvictionHard: map[string]string{"nodefs.available": "NaN%"}},
	} {
		if _, err := ParseReserved(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{
		"0": 1, "0-3": 4, "0-3,8": 5, "0-3,2-5\n": 6, "65535": 1,
		"": 0, "3-1": 0, "a": 0, "0,": 0, "-1": 0, "0-65536": 0, "0-4294967296": 0,
	} {
		got, err := CountCPUs(list)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %d, %v, want %d", list, got, err, want)
		}
	}
}

func FuzzCountCPUs(f *testing.F) {
	f.Add("0-3,8")
	f.Fuzz(func(t *testing.T, list string) {
		if n, err := CountCPUs(list); err == nil && (n < 1 || n > maxCPU) {
			t.Errorf("%q: %d", list, n)
		}
	})
}

func FuzzThreshold(f *testing.F) {
	f.Add("10%")
	f.Add("100Mi")
	f.Fuzz(func(t *testing.T, text string) {
		capacity := resource.MustParse("8Gi")
		if r, err := ParseThreshold(text); err == nil {
			if q := r.Of(capacity); q.Sign() < 0 {
				t.Errorf("%q of 8Gi is %s", text, q.String())
			}
		}
	})
}
