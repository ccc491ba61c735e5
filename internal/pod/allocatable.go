package pod

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ResourcePIDs is the name under which processes are reserved. It is no resource
// of the API: it reaches cgroups only.
const ResourcePIDs corev1.ResourceName = "pid"

// Reserved is what the node keeps back from pods.
type Reserved struct {
	// List is systemReserved and kubeReserved together.
	List corev1.ResourceList
	// Memory and Storage are the hard eviction thresholds of memory.available and
	// nodefs.available: pods never get to use what is below them.
	Memory, Storage Threshold
}

// Threshold is an amount, or a share of the capacity; the zero value is nothing.
type Threshold struct {
	Quantity resource.Quantity
	Fraction float32 // of 1; 0: the quantity counts
}

// Of returns the threshold in the unit of capacity, to the byte as kubelet does.
func (t Threshold) Of(capacity resource.Quantity) resource.Quantity {
	if t.Fraction > 0 {
		return *resource.NewQuantity(int64(float64(capacity.Value())*float64(t.Fraction)), resource.BinarySI)
	}
	return t.Quantity.DeepCopy()
}

// ReservedConfig is the part of KubeletConfiguration that Reserved follows from.
type ReservedConfig struct {
	System, Kube, EvictionHard map[string]string
	// MergeEviction keeps the defaults of the signals that EvictionHard does not
	// name; else one named signal takes the defaults from all others.
	MergeEviction bool
	// CPUs is reservedSystemCPUs, a list as 0-3,8: their number takes the place of
	// the CPU in System and Kube.
	CPUs string
}

// defaultEvictionHard are kubelet's defaults of the two signals that matter here.
var defaultEvictionHard = map[string]string{"memory.available": "100Mi", "nodefs.available": "10%"}

// ParseReserved reads what an operator wants kept back.
func ParseReserved(c ReservedConfig) (Reserved, error) {
	r := Reserved{List: corev1.ResourceList{}}
	var errs []error
	for _, from := range []struct {
		field  string
		amount map[string]string
	}{{"systemReserved", c.System}, {"kubeReserved", c.Kube}} {
		for name, text := range from.amount {
			if err := r.add(name, text); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", from.field, err))
			}
		}
	}
	if c.CPUs != "" {
		n, err := CountCPUs(c.CPUs)
		if err != nil {
			errs = append(errs, fmt.Errorf("reservedSystemCPUs: %w", err))
		}
		r.List[corev1.ResourceCPU] = *resource.NewQuantity(int64(n), resource.DecimalSI)
	}
	for signal, to := range map[string]*Threshold{"memory.available": &r.Memory, "nodefs.available": &r.Storage} {
		text, named := c.EvictionHard[signal]
		if !named && (len(c.EvictionHard) == 0 || c.MergeEviction) {
			text = defaultEvictionHard[signal]
		}
		t, err := ParseThreshold(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("evictionHard[%q]: %w", signal, err))
		}
		*to = t
	}
	return r, errors.Join(errs...)
}

func (r Reserved) add(name, text string) error {
	switch corev1.ResourceName(name) {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, ResourcePIDs:
	default:
		return fmt.Errorf("%q cannot be reserved, only cpu, memory, ephemeral-storage and pid", name)
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return fmt.Errorf("%s: %q is not a quantity such as 500m or 1Gi", name, text)
	}
	sum := r.List[corev1.ResourceName(name)].DeepCopy()
	sum.Add(q)
	r.List[corev1.ResourceName(name)] = sum
	return nil
}

// ParseThreshold reads an eviction threshold: a quantity or a percentage. "", 0%
// and 100% are none.
func ParseThreshold(text string) (Threshold, error) {
	switch text {
	case "", "0%", "100%":
		return Threshold{}, nil
	}
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		f, err := strconv.ParseFloat(percent, 32)
		if err != nil || math.IsNaN(f) || f < 0 || f > 100 {
			return Threshold{}, fmt.Errorf("%q is not a percentage from 0%% to 100%%", text)
		}
		return Threshold{Fraction: float32(f) / 100}, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() <= 0 {
		return Threshold{}, fmt.Errorf("%q is neither a positive quantity such as 100Mi nor a percentage", text)
	}
	return Threshold{Quantity: q}, nil
}

// maxCPU is more than any kernel has: a list that names a higher one is a typing
// error.
const maxCPU = 1 << 16

// CountCPUs returns how many processors a list such as 0-3,8 names.
func CountCPUs(list string) (int, error) {
	named := map[int]bool{}
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		low, high, isRange := strings.Cut(part, "-")
		first, err := strconv.ParseUint(low, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(high, 10, 16)
		}
		if err != nil || last < first || last >= maxCPU {
			return 0, fmt.Errorf("%q is not a list of processors such as 0-3,8", list)
		}
		for i := first; i <= last; i++ {
			named[int(i)] = true
		}
	}
	return len(named), nil
}

// Allocatable is what of the capacity the scheduler may give to pods. Nothing in
// it is negative.
func (r Reserved) Allocatable(capacity corev1.ResourceList) corev1.ResourceList {
	all := corev1.ResourceList{}
	for name, c := range capacity {
		left := c.DeepCopy()
		left.Sub(r.of(name, c))
		all[name] = notNegative(left)
	}
	memory, has := all[corev1.ResourceMemory]
	for name, c := range capacity {
		if has && strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			memory.Sub(c) // the kernel has taken them out of what everybody else can use
		}
	}
	if has {
		all[corev1.ResourceMemory] = notNegative(memory)
	}
	return all
}

// Enforced is what the cgroup of all pods is limited to: the capacity without
// what is reserved. The eviction thresholds stay within it, or the kernel would
// kill before anybody could evict.
func (r Reserved) Enforced(capacity corev1.ResourceList) corev1.ResourceList {
	all := corev1.ResourceList{}
	for name, c := range capacity {
		left := c.DeepCopy()
		left.Sub(r.List[name])
		all[name] = notNegative(left)
	}
	return all
}

// Check refuses to keep back more than there is.
func (r Reserved) Check(capacity corev1.ResourceList) error {
	var errs []error
	for name, c := range capacity {
		if kept := r.of(name, c); kept.Cmp(c) > 0 {
			errs = append(errs, fmt.Errorf("%s: %s is kept back by systemReserved, kubeReserved and evictionHard, but the node has %s", name, kept.String(), c.String()))
		}
	}
	return errors.Join(errs...)
}

// of is how much of a resource is kept back.
func (r Reserved) of(name corev1.ResourceName, capacity resource.Quantity) resource.Quantity {
	kept := r.List[name].DeepCopy()
	switch name {
	case corev1.ResourceMemory:
		kept.Add(r.Memory.Of(capacity))
	case corev1.ResourceEphemeralStorage:
		kept.Add(r.Storage.Of(capacity))
	}
	return kept
}

func notNegative(q resource.Quantity) resource.Quantity {
	if q.Sign() < 0 {
		return *resource.NewQuantity(0, q.Format)
	}
	return q
}
