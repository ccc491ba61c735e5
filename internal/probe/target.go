package probe

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Target is what a probe asks.
type Target struct {
	Container string // id
	Spec      *corev1.Container
	Probe     *corev1.Probe
	Host      string // the pod's address, as seen from the node

	request *request // of an HTTP probe, made at its first flight
}

// Result is what a container answered.
type Result uint8

// The results of a probe that could be made. A warning is a success.
const (
	Failure Result = iota
	Success
	Warning
)

// Outcome is how a probe ended.
type Outcome struct {
	Result Result
	Text   string // what there is to say of it, up to 10 KiB, as the container wrote it
	// Err: the probe could not be made, which says nothing of the container.
	Err error
}

// What is counted.
const (
	countSuccess = iota
	countFailure
	countUnknown
	counted
)

func (o Outcome) counted() int {
	switch {
	case o.Err != nil:
		return countUnknown
	case o.Result == Failure:
		return countFailure
	}
	return countSuccess
}

func failed(format string, args ...any) Outcome {
	return Outcome{Result: Failure, Text: fmt.Sprintf(format, args...)}
}

// Probers asks containers in each of the four ways.
type Probers struct {
	Exec Exec
	HTTP *HTTP
	GRPC *GRPC
}

// Probe implements Prober.
func (p *Probers) Probe(ctx context.Context, t *Target) Outcome {
	switch spec := t.Probe; {
	case spec.Exec != nil:
		return execProbe(ctx, p.Exec, t)
	case spec.HTTPGet != nil:
		return p.HTTP.probe(ctx, t)
	case spec.TCPSocket != nil:
		return tcpProbe(ctx, t)
	case spec.GRPC != nil:
		return p.GRPC.probe(ctx, t)
	}
	return Outcome{Err: fmt.Errorf("container %s: the probe has no action", t.Spec.Name)}
}

// port finds the port by its number or by the name that the container gives it.
func port(which intstr.IntOrString, c *corev1.Container) (string, error) {
	n := which.IntValue() // of a name: the number that it spells, or 0
	if which.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == which.StrVal {
				n = int(p.ContainerPort)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return "", fmt.Errorf("container %s has no port %q", c.Name, which.String())
	}
	return strconv.Itoa(n), nil
}

// address is where the probe's port is; own is the host that the probe names
// itself, if any.
func (t *Target) address(own string, which intstr.IntOrString) (string, error) {
	if own == "" {
		own = t.Host
	}
	if own == "" {
		return "", fmt.Errorf("the pod of container %s has no address", t.Spec.Name)
	}
	p, err := port(which, t.Spec)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(own, p), nil
}
