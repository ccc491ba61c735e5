package net

import (
	"net/netip"
	"slices"
)

// Held is what the kernel holds for one address, for who explains.
type Held struct {
	Address   string           `json:"address"`           // as Address.String has it, or an address or a range of them whatever the port
	Service   string           `json:"service,omitempty"` // by the comment there: namespace/name:port and what the address is; "": it does not say
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	Closed    string           `json:"closed,omitempty"` // to whom, or how
}

// Covers tells whether an address is held whatever the port: by iptables, which refuses a
// cluster IP, or a range of which they are drawn, as a whole.
func (h Held) Covers(a netip.Addr) bool {
	if p, err := netip.ParsePrefix(h.Address); err == nil {
		return p.Contains(a)
	}
	return h.Address == a.String()
}

// Tidy sorts what was found.
func Tidy(all map[string]*Held) []Held {
	var out []Held
	for _, h := range all {
		slices.SortFunc(h.Endpoints, netip.AddrPort.Compare)
		h.Endpoints = slices.Compact(h.Endpoints)
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b Held) int {
		if a.Address < b.Address {
			return -1
		}
		return 1
	})
	return out
}
