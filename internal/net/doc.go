// Package net owns the decision what the node does with service addresses: from
// Services, EndpointSlices, ServiceCIDRs and a few facts of the node it makes one
// Table that says nothing about nftables, iptables or IPVS.
//
// A Model takes objects one by one, keeps of them only what it needs, and tells
// by Take which entries of the table changed; Build does the same for a whole
// cluster at once, and both give the same table. What an object asks for and
// does not get is told as a Finding, which an event can carry. ExplainService says
// gate by gate why a Service answers or not, of what a Model knows (Facts) and what a
// look at the kernel found (Held).
//
// It never talks to a server or the kernel, has no clock and starts no
// goroutine. A Model is used by one goroutine; the Entries that it hands out
// are never changed again and may be read by any.
package net
