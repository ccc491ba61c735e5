package main

import "testing"

// TestWhose: our node has our rules of services unless somebody asks for
// kube-proxy's; kubelet always has those.
func TestWhose(t *testing.T) {
	for _, c := range []struct{ agent, proxy, want string }{
		{"nodeagent", "", "nodeagent"},
		{"nodeagent", "kube-proxy", "kube-proxy"},
		{"kubelet", "", "kube-proxy"},
		{"kubelet", "nodeagent", ""},
		{"nodeagent", "cilium", ""},
		{"kubelets", "", ""},
	} {
		o := options{agent: c.agent, proxy: c.proxy}
		if err := o.whose(); (err == nil) != (c.want != "") || err == nil && o.proxy != c.want {
			t.Errorf("-agent %q -proxy %q: %q, %v, want %q", c.agent, c.proxy, o.proxy, err, c.want)
		}
	}
}
