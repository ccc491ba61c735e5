package etc

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Limits of the kernel's nodename field: 64 bytes (sethostname(2)). Kubelet
// keeps short names to 63, the length of a DNS label, and lets only a fully
// qualified name use all 64.
const (
	maxShortName = 63
	maxKernel    = 64
)

// Name is what a pod is called inside.
type Name struct {
	Short  string // the host name, at most 63 bytes
	Domain string // "<subdomain>.<namespace>.svc.<cluster domain>", or ""
	Kernel string // for sethostname(2) and /etc/hostname; "" on the host network: the pod has the node's
}

// FQDN is the short name with its domain, or the short name alone.
func (n Name) FQDN() string {
	if n.Domain == "" {
		return n.Short
	}
	return n.Short + "." + n.Domain
}

// File is the text of /etc/hostname; nil where the pod has the node's name.
func (n Name) File() []byte {
	if n.Kernel == "" {
		return nil
	}
	return []byte(n.Kernel + "\n")
}

// Hostname derives the pod's names from its specification as kubelet does:
// spec.hostnameOverride, else spec.hostname, else the pod's name, cut to 63
// bytes (never ending in '-' or '.'). spec.subdomain gives it a domain below
// clusterDomain; spec.setHostnameAsFQDN shows the whole of it to the kernel.
//
// It fails where a name is no DNS label, and where a fully qualified name longer
// than 64 bytes was asked for: such a pod waits until its owner changes it.
func Hostname(pod *corev1.Pod, clusterDomain string) (Name, []Warning, error) {
	n, warnings, err := shortAndDomain(pod, clusterDomain)
	if err != nil {
		return Name{}, nil, err
	}
	if pod.Spec.HostNetwork {
		return n, warnings, nil
	}
	n.Kernel = n.Short
	if want := pod.Spec.SetHostnameAsFQDN; want != nil && *want && n.Domain != "" {
		n.Kernel = n.FQDN()
		if len(n.Kernel) > maxKernel {
			return Name{}, nil, fmt.Errorf("set host name as FQDN: %q is %d bytes long, the kernel takes at most %d: shorten spec.hostname or spec.subdomain, or unset spec.setHostnameAsFQDN", n.Kernel, len(n.Kernel), maxKernel)
		}
	}
	return n, warnings, nil
}

func shortAndDomain(pod *corev1.Pod, clusterDomain string) (Name, []Warning, error) {
	if override := pod.Spec.HostnameOverride; override != nil {
		if msgs := validation.IsDNS1123Subdomain(*override); len(msgs) > 0 {
			return Name{}, nil, fmt.Errorf("use spec.hostnameOverride %q: %s", *override, strings.Join(msgs, "; "))
		}
		short, warnings, err := cut(*override)
		return Name{Short: short}, warnings, err
	}
	full := pod.Name
	if h := pod.Spec.Hostname; h != "" {
		if msgs := validation.IsDNS1123Label(h); len(msgs) > 0 {
			return Name{}, nil, fmt.Errorf("use spec.hostname %q: %s", h, strings.Join(msgs, "; "))
		}
		full = h
	}
	short, warnings, err := cut(full)
	if err != nil {
		return Name{}, nil, err
	}
	n := Name{Short: short}
	if sub := pod.Spec.Subdomain; sub != "" {
		if msgs := validation.IsDNS1123Label(sub); len(msgs) > 0 {
			return Name{}, nil, fmt.Errorf("use spec.subdomain %q: %s", sub, strings.Join(msgs, "; "))
		}
		n.Domain = sub + "." + pod.Namespace + ".svc." + clusterDomain
	}
	return n, warnings, nil
}

func cut(full string) (string, []Warning, error) {
	if len(full) <= maxShortName {
		return full, nil, nil
	}
	short := strings.TrimRight(full[:maxShortName], "-.")
	if short == "" {
		return "", nil, fmt.Errorf("make a host name of %q: nothing is left of its first %d bytes", full, maxShortName)
	}
	return short, []Warning{{
		Reason:  ReasonHostnameTruncated,
		Message: fmt.Sprintf("host name %q is longer than %d bytes and was cut to %q", full, maxShortName, short),
	}}, nil
}
