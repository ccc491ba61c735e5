package nftables

import (
	"slices"
	"strings"
	"testing"

	"nodeagent/internal/net"
	"nodeagent/internal/net/nettest"
	"nodeagent/internal/test/need"
)

// TestTakeOver: of what is not ours only kube-proxy's tables go, and they go once.
func TestTakeOver(t *testing.T) {
	need.Have(t, need.Root)
	b := backend(t, Config{})
	services, endpoints := nettest.Many(2, 1)
	_, err := b.Sync(t.Context(), net.Build(services, endpoints, net.Node{}))
	must(t, err)
	for _, table := range []string{"ip kube-proxy", "ip6 kube-proxy", "inet kube-proxy", "ip kube-proxy-2"} {
		nft(t, append([]string{"add", "table"}, strings.Fields(table)...)...)
		t.Cleanup(func() { // of those that are left
			if strings.Contains(nft(t, "list", "tables"), "table "+table+"\n") {
				nft(t, append([]string{"delete", "table"}, strings.Fields(table)...)...)
			}
		})
	}
	gone, err := b.TakeOver(t.Context())
	must(t, err)
	if !slices.Equal(gone, []string{"ip kube-proxy", "ip6 kube-proxy"}) {
		t.Errorf("it removed %v", gone)
	}
	if gone, err = b.TakeOver(t.Context()); err != nil || gone != nil {
		t.Errorf("a second time it removed %v, %v", gone, err)
	}
	left := nft(t, "list", "tables")
	for _, table := range []string{"inet kube-proxy\n", "ip kube-proxy-2\n", "inet nodeagent-services\n"} {
		if !strings.Contains(left, table) {
			t.Errorf("table %q is gone: %s", table, left)
		}
	}
}
