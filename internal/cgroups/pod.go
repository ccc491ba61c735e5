package cgroups

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/pod"
)

// EnsurePod makes a pod's cgroup, or makes an existing one say what it should,
// and returns its path: the parent of its containers' cgroups. It is
// idempotent, writes only what differs, and is fast, since every start of a pod
// waits for it. A memory limit is not lowered below what is in use: EBUSY.
//
// On v1 the directory is made where there is something to limit; the OCI
// runtime makes the others.
func (t *Tree) EnsurePod(ctx context.Context, uid types.UID, qos corev1.PodQOSClass, r pod.Resources) (parent string, err error) {
	if err := t.checkUID(uid); err != nil {
		return "", err
	}
	t.mu.Lock()
	node := t.node
	if node == nil {
		t.mu.Unlock()
		return "", fmt.Errorf("make cgroup of pod %s: the node's cgroups are not made yet", uid)
	}
	p := t.pods[uid]
	if p == nil {
		p = &podCgroup{}
		t.pods[uid] = p
	}
	t.mu.Unlock()

	p.mu.Lock()
	defer p.mu.Unlock()
	p.path = t.podPath(uid, qos)
	p.settings = t.settingsOf(t.withPageSizes(r))
	p.ensured, p.gone = true, false
	err = t.ensurePod(ctx, p, r)
	if errors.Is(err, unix.ENOENT) {
		// Somebody removed a cgroup above: make all of them again.
		if err = t.EnsureNode(ctx, *node); err == nil {
			err = t.ensurePod(ctx, p, r)
		}
	}
	if err != nil {
		return "", err
	}
	t.watchTarget(target{pod: p})
	t.report(nil, t.keepOOMGroup(p)) // containers that were there before this process
	t.mu.Lock()
	p.milli = 0
	if qos == corev1.PodQOSBurstable {
		p.milli = r.CPUMilli
	}
	t.mu.Unlock()
	return p.path, t.count(ctx)
}

func (t *Tree) ensurePod(ctx context.Context, p *podCgroup, r pod.Resources) error {
	if err := failpoint.At(failpoint.CgroupsMkdirBefore); err != nil {
		return err
	}
	if t.systemd != nil {
		if err := t.startSlice(ctx, p.path, r); err != nil {
			return err
		}
	}
	fresh, err := t.mkdir(p.path, t.kernel.Mkdir)
	if err != nil {
		return err
	}
	if err := failpoint.At(failpoint.CgroupsMkdirAfter); err != nil {
		return err
	}
	if err := t.pass(p.path, fresh && t.systemd == nil); err != nil {
		return err
	}
	if err := failpoint.At(failpoint.CgroupsLimitsBefore); err != nil {
		return err
	}
	if fresh && t.systemd == nil {
		err = t.applyFresh(p.path, p.settings)
	} else {
		_, err = t.apply(p.path, p.settings)
	}
	if err != nil {
		return err
	}
	return failpoint.At(failpoint.CgroupsLimitsAfter)
}

// pass gives the controllers to a v2 cgroup's children; a fresh cgroup passes
// none on yet.
func (t *Tree) pass(cgroup string, fresh bool) error {
	if fresh && t.V2() {
		return t.enableBeyond(cgroup, nil)
	}
	return t.enable(cgroup)
}

// withPageSizes limits every huge page size of the kernel that the pod does
// not ask for to nothing.
func (t *Tree) withPageSizes(r pod.Resources) pod.Resources {
	if len(t.pageSizes) == 0 {
		return r
	}
	limits := make(map[string]uint64, len(t.pageSizes))
	for _, size := range t.pageSizes {
		limits[size] = 0
	}
	for size, limit := range r.HugepageLimits {
		if _, ok := limits[size]; ok {
			limits[size] = limit
		}
	}
	r.HugepageLimits = limits
	return r
}
