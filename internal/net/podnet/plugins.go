package podnet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	gocni "github.com/containerd/go-cni"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
)

// killGrace is how long plugins' pipes may take to close after a kill.
const killGrace = 5 * time.Second

// runPlugins calls fn, which runs plugins, and does not outlive ctx by much. The
// library kills the plugin itself at the end of ctx, but then waits for its
// pipes, which a child of the plugin may hold for ever: so all processes of
// this call are found by their environment, and killed.
func (n *Network) runPlugins(ctx context.Context, sandbox string, fn func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	deadline := time.NewTimer(killGrace)
	defer deadline.Stop()
	again := time.NewTicker(100 * time.Millisecond) // a child may be forking
	defer again.Stop()
	for {
		killPlugins(sandbox)
		select {
		case err := <-done:
			return fmt.Errorf("%w: %v", context.Cause(ctx), err)
		case <-deadline.C:
			n.log.Error("cni plugins of a sandbox cannot be killed", "sandbox", sandbox)
			return fmt.Errorf("%w: plugins cannot be killed", context.Cause(ctx))
		case <-again.C:
		}
	}
}

// killPlugins kills every process whose environment says that it serves a CNI
// call for the sandbox. It runs only after a call timed out.
func killPlugins(sandbox string) {
	want := []byte("CNI_CONTAINERID=" + sandbox)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// The descriptor is taken first: it stays that process's even if the
		// number goes to another one.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		env, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		for one := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(one, want) {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				break
			}
		}
		unix.Close(fd)
	}
}

// The bounds of a bandwidth, in bits a second: those of kubelet.
const (
	minBandwidth = 1_000
	maxBandwidth = 1_000_000_000_000_000
)

// bandwidth reads the annotations that limit a pod's traffic.
func bandwidth(annotations map[string]string) (*gocni.BandWidth, error) {
	in, err := rate(annotations, "kubernetes.io/ingress-bandwidth")
	if err != nil {
		return nil, err
	}
	out, err := rate(annotations, "kubernetes.io/egress-bandwidth")
	if err != nil || (in == 0 && out == 0) {
		return nil, err
	}
	// The burst may not be 0 for the plugin; containerd's is the largest.
	const burst = 1<<31 - 1
	b := &gocni.BandWidth{}
	if in > 0 {
		b.IngressRate, b.IngressBurst = in, burst
	}
	if out > 0 {
		b.EgressRate, b.EgressBurst = out, burst
	}
	return b, nil
}

func rate(annotations map[string]string, key string) (uint64, error) {
	s, ok := annotations[key]
	if !ok {
		return 0, nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, fmt.Errorf("parse annotation %s=%q: %w", key, s, err)
	}
	if v := q.Value(); v < minBandwidth || v > maxBandwidth {
		return 0, fmt.Errorf("use annotation %s=%q: not between 1k and 1P", key, s)
	}
	return uint64(q.Value()), nil
}
