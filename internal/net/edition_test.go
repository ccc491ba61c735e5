package net_test

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/net"
)

// TestRangesEdition: ranges that change make another table, as entries do: who holds the
// edition before has to look.
func TestRangesEdition(t *testing.T) {
	m := net.NewModel(net.Node{Name: "here"})
	was := m.Table().Edition()
	m.SetServiceCIDR(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/12"}}})
	if d := m.Take(); !d.Ranges || m.Table().Edition() == was {
		t.Errorf("%+v, and the edition is another one: %v", d, m.Table().Edition() != was)
	}
}
