package validate

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// toldService are the fields of a Service's spec that variables tell of, or that
// mean nothing beside a fixed address; where a value stands, only that one. Fields
// of later releases are not among them.
var toldService = map[string]string{
	"ports": "", "clusterIP": "", "clusterIPs": "", "ipFamilies": "", "ipFamilyPolicy": "",
	"type": string(corev1.ServiceTypeClusterIP), "sessionAffinity": string(corev1.ServiceAffinityNone),
	"internalTrafficPolicy": string(corev1.ServiceInternalTrafficPolicyCluster),
}

const onlyTold = "without an API server pods are only told of a service's address and ports: nothing leads there by this"

// Service judges a Service of a file of the node as the API server does, as far
// as pods are told of it by variables. What the API server or a service proxy
// would have to do about it is refused by name: nobody would do it.
func Service(s *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	root := spot{errs: &errs}
	at := root.child("metadata")
	at.add(apivalidation.ValidateObjectMeta(&s.ObjectMeta, true, apivalidation.NameIsDNSLabel, at.path)...)
	spec := root.child("spec")
	v := reflect.ValueOf(s.Spec)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		only, told := toldService[name]
		if f := v.Field(i); !f.IsZero() && (!told || only != "" && fmt.Sprint(reflect.Indirect(f)) != only) {
			spec.child(name).forbidden(onlyTold)
		}
	}
	checkServiceAddress(spec, &s.Spec)
	checkServicePorts(spec.child("ports"), s.Spec.Ports)
	return errs
}

func checkServiceAddress(at spot, s *corev1.ServiceSpec) {
	if s.ClusterIP == "" || s.ClusterIP == corev1.ClusterIPNone {
		at.child("clusterIP").required("without an API server nobody gives a service an address")
		return
	}
	all := s.ClusterIPs
	if len(all) == 0 {
		all = []string{s.ClusterIP}
	}
	if all[0] != s.ClusterIP {
		at.child("clusterIPs").invalid(all, "first value must match `clusterIP`")
	}
	families := seen{}
	for _, text := range all {
		ip, err := netip.ParseAddr(text)
		switch {
		case err != nil || ip.Is4In6() || ip.Zone() != "":
			at.child("clusterIP").invalid(text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
		case families.again(fmt.Sprint(ip.Is4())):
			at.child("clusterIPs").invalid(all, "may specify no more than one IP for each IP family")
		}
	}
}

func checkServicePorts(at spot, ports []corev1.ServicePort) {
	if len(ports) == 0 {
		at.required("")
	}
	names, numbers := seen{}, seen{}
	for i, p := range ports {
		here := at.index(i)
		switch name := here.child("name"); {
		case p.Name == "" && len(ports) > 1:
			name.required("")
		case p.Name != "":
			name.format(p.Name, validation.IsDNS1123Label(p.Name))
			if names.again(p.Name) {
				name.duplicate(p.Name)
			}
		}
		here.child("port").format(p.Port, validation.IsValidPortNum(int(p.Port)))
		if protocols := []corev1.Protocol{"", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}; !slices.Contains(protocols, p.Protocol) {
			here.child("protocol").add(field.NotSupported(here.child("protocol").path, p.Protocol, protocols[1:]))
		}
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		if numbers.again(fmt.Sprint(protocol, p.Port)) {
			here.duplicate(fmt.Sprintf("%s %d", protocol, p.Port))
		}
		if p.NodePort != 0 {
			here.child("nodePort").forbidden(onlyTold)
		}
	}
}
