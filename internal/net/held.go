package net

import (
	"net/netip"
	"slices"
)

// Held is what the kernel holds for one address, for who explains.
type Held struct {
	Address   string           `json:"address"`           // as Address.String has it
	Service   string           `json:"service,omitempty"` // by the comment there: namespace/name:port and what the address is; "": it does not say
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	Closed    string           `json:"closed,omitempty"` // to whom, or how
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
