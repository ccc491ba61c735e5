package validate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkHooks judges probes, lifecycle hooks and the stop signal of a container
// or sidecar.
func checkHooks(at spot, c *corev1.Container, spec *corev1.PodSpec) {
	grace := spec.TerminationGracePeriodSeconds
	checkOneSuccess(at.child("livenessProbe"), c.LivenessProbe)
	checkOneSuccess(at.child("startupProbe"), c.StartupProbe)
	if p := c.ReadinessProbe; p != nil {
		ready := at.child("readinessProbe")
		checkProbe(ready, p)
		if p.TerminationGracePeriodSeconds != nil {
			ready.child("terminationGracePeriodSeconds").invalid(*p.TerminationGracePeriodSeconds, "must not be set for readinessProbes")
		}
	}
	if l := c.Lifecycle; l != nil {
		here := at.child("lifecycle")
		if l.PostStart != nil {
			checkHandler(here.child("postStart"), hookHandler(l.PostStart), grace)
		}
		if l.PreStop != nil {
			checkHandler(here.child("preStop"), hookHandler(l.PreStop), grace)
		}
		if l.StopSignal != nil {
			checkStopSignal(here.child("stopSignal"), *l.StopSignal, spec.OS)
		}
	}
}

// checkOneSuccess judges a probe that kills: one success is always enough.
func checkOneSuccess(at spot, p *corev1.Probe) {
	if p == nil {
		return
	}
	checkProbe(at, p)
	if p.SuccessThreshold != 1 {
		at.child("successThreshold").invalid(p.SuccessThreshold, "must be 1")
	}
}

func checkProbe(at spot, p *corev1.Probe) {
	checkHandler(at, handler{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, nil)
	notNegative(at.child("initialDelaySeconds"), p.InitialDelaySeconds)
	notNegative(at.child("timeoutSeconds"), p.TimeoutSeconds)
	notNegative(at.child("periodSeconds"), p.PeriodSeconds)
	notNegative(at.child("successThreshold"), p.SuccessThreshold)
	notNegative(at.child("failureThreshold"), p.FailureThreshold)
	if g := p.TerminationGracePeriodSeconds; g != nil && *g <= 0 {
		at.child("terminationGracePeriodSeconds").invalid(*g, "must be greater than 0")
	}
}

func notNegative(at spot, n int32) {
	if n < 0 {
		at.invalid(n, "must be greater than or equal to 0")
	}
}

// handler is what a probe or a hook does: exactly one of these.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func hookHandler(h *corev1.LifecycleHandler) handler {
	return handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}
}

// checkHandler judges a handler. A sleep has to fit into the grace period, in
// seconds; nil means that there is none to fit into.
func checkHandler(at spot, h handler, grace *int64) {
	kinds := 0
	if h.exec != nil {
		kinds++
		if len(h.exec.Command) == 0 {
			at.child("exec").child("command").required("")
		}
	}
	if h.http != nil {
		kinds++
		checkHTTPGet(at.child("httpGet"), h.http)
	}
	if h.tcp != nil {
		kinds++
		portNumberOrName(at.child("tcpSocket").child("port"), h.tcp.Port)
	}
	if h.grpc != nil {
		kinds++
		portNumber(at.child("grpc").child("port"), h.grpc.Port)
	}
	if h.sleep != nil {
		kinds++
		if s := h.sleep.Seconds; grace != nil && (s < 0 || s > *grace) {
			at.child("sleep").invalid(s, fmt.Sprintf("must be non-negative and at most terminationGracePeriodSeconds (%d)", *grace))
		}
	}
	switch {
	case kinds == 0:
		at.required("must specify a handler type")
	case kinds > 1:
		at.forbidden("may not specify more than 1 handler type")
	}
}

func checkHTTPGet(at spot, get *corev1.HTTPGetAction) {
	at.child("path").filled(get.Path)
	portNumberOrName(at.child("port"), get.Port)
	oneOf(at.child("scheme"), get.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for i, header := range get.HTTPHeaders {
		at.child("httpHeaders").index(i).child("name").format(header.Name, validation.IsHTTPHeaderName(header.Name))
	}
}

func portNumberOrName(at spot, port intstr.IntOrString) {
	if port.Type == intstr.String {
		at.format(port.StrVal, validation.IsValidPortName(port.StrVal))
		return
	}
	portNumber(at, port.IntVal)
}

// linuxSignals are the signals that have a name of their own; the real-time
// ones are counted from SIGRTMIN (to +15) or from SIGRTMAX (to -14).
const linuxSignals = "SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL " +
	"SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU " +
	"SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIGRTMIN SIGRTMAX"

// checkStopSignal judges a stop signal by the pod's OS, which has to be named.
func checkStopSignal(at spot, signal corev1.Signal, os *corev1.PodOS) {
	switch {
	case os == nil:
		at.forbidden("may not be set for containers with empty `spec.os.name`")
	case os.Name == corev1.Windows:
		oneOf(at, signal, corev1.SIGKILL, corev1.SIGTERM)
	case os.Name == corev1.Linux && !isLinuxSignal(string(signal)):
		at.invalid(signal, "must be the name of a Linux signal, such as SIGTERM or SIGRTMIN+3")
	}
}

func isLinuxSignal(name string) bool {
	if slices.Contains(strings.Fields(linuxSignals), name) {
		return true
	}
	for n := 1; n <= 15; n++ {
		if name == fmt.Sprintf("SIGRTMIN+%d", n) || n <= 14 && name == fmt.Sprintf("SIGRTMAX-%d", n) {
			return true
		}
	}
	return false
}
