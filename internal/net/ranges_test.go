package net_test

import (
	"fmt"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/net"
)

// TestRanges: what the table has of ServiceCIDRs, each once, and a change of it is one
// for the backend.
func TestRanges(t *testing.T) {
	cidr := func(name string, all ...string) *networkingv1.ServiceCIDR {
		return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: all}}
	}
	m := net.NewModel(node)
	step := func(what string, change func(), moved bool, want string) {
		t.Helper()
		change()
		d := m.Take()
		if got := fmt.Sprint(m.Table().Ranges()); got != want || d.Ranges != moved || d.Empty() == moved {
			t.Errorf("%s: the ranges are %s, want %s, and it is told: %t", what, got, want, d.Ranges)
		}
	}
	step("none", func() {}, false, "[]")
	step("one of each family", func() { m.SetServiceCIDR(cidr("kubernetes", "10.96.0.0/12", "fd96::/108")) }, true, "[10.96.0.0/12 fd96::/108]")
	if m.Dirty() {
		t.Error("there still is something to take")
	}
	step("once more", func() { m.SetServiceCIDR(cidr("kubernetes", "10.96.0.0/12", "fd96::/108")) }, false, "[10.96.0.0/12 fd96::/108]")
	step("within another", func() { m.SetServiceCIDR(cidr("a", "10.100.0.0/16")) }, false, "[10.96.0.0/12 fd96::/108]")
	step("bits behind it", func() { m.SetServiceCIDR(cidr("b", "10.8.0.7/16")) }, true, "[10.8.0.0/16 10.96.0.0/12 fd96::/108]")
	step("nonsense", func() { m.SetServiceCIDR(cidr("c", "10.8.0.0/33", "", "::ffff:10.0.0.0/104")) }, false, "[10.8.0.0/16 10.96.0.0/12 fd96::/108]")
	step("the node's own", func() { m.SetServiceCIDR(cidr("c", "192.168.0.0/16")) }, false, "[10.8.0.0/16 10.96.0.0/12 fd96::/108]")
	step("the node moves", func() { m.SetNode(net.Node{Name: "here", Addrs: node.Addrs[1:]}) }, true, "[10.8.0.0/16 10.96.0.0/12 192.168.0.0/16 fd96::/108]")
	step("a list", func() { m.KeepServiceCIDRs(func(k net.Key) bool { return k.Name == "a" }) }, true, "[10.100.0.0/16]")
	step("the last", func() { m.DeleteServiceCIDR("a"); m.DeleteServiceCIDR("x") }, true, "[]")
	many := cidr("many")
	for i := range 300 {
		many.Spec.CIDRs = append(many.Spec.CIDRs, fmt.Sprintf("10.%d.%d.0/24", i/250, i%250))
	}
	m.SetServiceCIDR(many)
	m.Take()
	if n := len(m.Table().Ranges()); n != 256 {
		t.Errorf("of 300 ranges there are %d", n)
	}
}
