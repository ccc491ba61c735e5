package validate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Bounds of resolv.conf as the C libraries read it, and of a host name in Linux.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
	maxHostname    = 64
)

// checkDNS judges host names and name resolution.
func checkDNS(at spot, spec *corev1.PodSpec) {
	someOf(at.child("dnsPolicy"), spec.DNSPolicy, corev1.DNSClusterFirstWithHostNet,
		corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	if spec.Hostname != "" {
		label(at.child("hostname"), spec.Hostname)
	}
	if spec.Subdomain != "" {
		label(at.child("subdomain"), spec.Subdomain)
	}
	checkHostnameOverride(at.child("hostnameOverride"), spec)
	for i, alias := range spec.HostAliases {
		here := at.child("hostAliases").index(i)
		address(here.child("ip"), alias.IP)
		for j, name := range alias.Hostnames {
			here.child("hostnames").index(j).format(name, validation.IsDNS1123Subdomain(name))
		}
	}
	checkResolver(at.child("dnsConfig"), spec)
}

// address demands an IP address in its one unambiguous spelling.
func address(at spot, ip string) {
	at.add(validation.IsValidIPForLegacyField(at.path, ip, true, nil)...)
}

func checkHostnameOverride(at spot, spec *corev1.PodSpec) {
	name := spec.HostnameOverride
	if name == nil {
		return
	}
	if isTrue(spec.SetHostnameAsFQDN) {
		at.forbidden("may not be specified when setHostnameAsFQDN is true")
	}
	if spec.HostNetwork {
		at.forbidden("may not be specified when hostNetwork is true")
	}
	if len(*name) > maxHostname {
		at.tooLong(maxHostname)
	}
	at.format(*name, validation.IsDNS1123Subdomain(*name))
}

func checkResolver(at spot, spec *corev1.PodSpec) {
	c := spec.DNSConfig
	if spec.DNSPolicy == corev1.DNSNone && (c == nil || len(c.Nameservers) == 0) {
		at.child("nameservers").required("must provide at least one DNS nameserver when `dnsPolicy` is None")
	}
	if c == nil {
		return
	}
	if n := len(c.Nameservers); n > maxNameservers {
		at.child("nameservers").tooMany(n, maxNameservers)
	}
	for i, ip := range c.Nameservers {
		address(at.child("nameservers").index(i), ip)
	}
	searches := at.child("searches")
	if n := len(c.Searches); n > maxSearches {
		searches.tooMany(n, maxSearches)
	}
	if len(strings.Join(c.Searches, " ")) > maxSearchChars {
		searches.tooLong(maxSearchChars)
	}
	for i, s := range c.Searches {
		if s != "." {
			searches.index(i).format(s, validation.IsDNS1123SubdomainWithUnderscore(strings.TrimSuffix(s, ".")))
		}
	}
	for i, o := range c.Options {
		at.child("options").index(i).child("name").filled(o.Name)
	}
}
