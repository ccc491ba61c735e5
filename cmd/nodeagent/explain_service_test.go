package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	svcnet "nodeagent/internal/net"
)

// TestServiceText: what blocks comes first; each address shows what the kernel has where
// that is something else; nothing that a name holds acts on a terminal.
func TestServiceText(t *testing.T) {
	ends := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8080")}
	for i := range 9 {
		ends = append(ends, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 8080))
	}
	f := svcnet.Facts{
		Namespace: "default", Name: "web", Seen: true, Slices: []string{"web-\x1b[31m"},
		Addresses: []svcnet.AddressFacts{
			{Address: "10.96.0.1:80/TCP", Port: "http", Kind: "clusterIP", Inside: "cluster", Outside: "cluster", Endpoints: ends},
			{Address: "0.0.0.0:30080/TCP", Port: "http", Kind: "nodePort", Inside: "cluster", Outside: "local", Endpoints: ends[:1]},
		},
		Endpoints: []svcnet.EndpointFacts{{Address: "10.0.0.1", Slice: "web-\x1b[31m", State: "ready", Here: true, Chosen: true}, {Address: "10.0.9.9", Slice: "web-b", State: "not ready", Why: "its pod is not Ready, or does not serve any more"}},
		Health:    &svcnet.HealthFacts{Port: 32000, Local: 1},
	}
	next := now.Add(3 * time.Second)
	x := svcnet.ExplainService(f, svcnet.Loop{Mode: "nftables", Begun: true, Failure: "no room", Next: &next}, svcnet.Ground{Mode: "nftables", Held: []svcnet.Held{
		{Address: "10.96.0.1:80/TCP", Endpoints: ends}, {Address: "0.0.0.0:30080/TCP", Closed: "drop"},
	}})
	var b bytes.Buffer
	if err := serviceText(&b, &x, now); err != nil {
		t.Fatal(err)
	}
	golden(t, "explain_service.txt", b.String())
	if strings.ContainsRune(b.String(), '\x1b') {
		t.Error("a name acts on the terminal")
	}
}

func TestServiceKey(t *testing.T) {
	for s, want := range map[string]string{"web": "default/web", "kube-system/dns": "kube-system/dns", "": "", "a/": "", "/b": "", "a/b/c": ""} {
		k, err := serviceKey(s)
		if (err == nil) != (want != "") || err == nil && k.String() != want {
			t.Errorf("%q is %v, %v", s, k, err)
		}
	}
}
