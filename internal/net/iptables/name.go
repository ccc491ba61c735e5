package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nodeagent/internal/net"
)

// The chains that are there whatever services there are, in the table nat.
const (
	services    = "SERVICES"    // from PREROUTING and OUTPUT
	picks       = "PICK"        // looks into the slots
	nodePorts   = "NODEPORTS"   // is it an address that serves node ports?
	outsiders   = "OUTSIDERS"   // who is no pod is marked for masquerade
	postrouting = "POSTROUTING" // masquerades
	reached     = "SELF"        // masquerades who reached itself
	addresses   = "IP"          // tree: service addresses
	ports       = "PORT"        // tree: node ports
	hairpin     = "HAIR"        // tree: endpoints of this node that reached themselves
	slot        = "EP"          // with a number, trees: the first endpoints of cluster IPs, the second ones, …
	names       = "NAME"        // tree, to which nothing leads: of whom such a cluster IP is
)

// And in the table filter.
const (
	closed      = "CLOSED" // from INPUT, FORWARD and OUTPUT
	closedNodes = "CLOSED-NODEPORTS"
	refuse      = "REFUSE"
	accept      = "ACCEPT"  // from FORWARD, whose policy may be to drop
	closedIPs   = "CIP"     // tree: service addresses that not everybody is served at
	closedPorts = "CPORT"   // tree: the same of node ports
	unknown     = "UNKNOWN" // tree: cluster IPs in no known range, of which no other port is served
)

// Chains of one service.
const (
	toCluster = "SVC" // picks an endpoint of policy Cluster
	toLocal   = "SVL" // of policy Local
	toGroup   = "SVG" // a part of many endpoints
	outside   = "EXT" // for addresses other than the cluster IP
	gate      = "FW"  // source ranges
)

var (
	fixedNames = []string{services, picks, nodePorts, outsiders, postrouting, reached, closed, closedNodes, refuse, accept}
	treeNames  = append(slices.Clone(slotNames), names, addresses, ports, hairpin, closedIPs, closedPorts, unknown)
	ownKinds   = []string{toCluster, toLocal, toGroup, outside, gate}
)

// entrances are those of our chains that the kernel's own jump to.
var entrances = []string{services, postrouting, closed, accept}

// maxName is what the kernel takes for a chain's name.
const maxName = 28

// own tells whether a chain is ours by its name.
func own(prefix, chain string) bool {
	rest, ok := strings.CutPrefix(chain, prefix)
	if !ok || rest == "" || rest[0] != '-' {
		return false
	}
	rest = rest[1:]
	kind, _, more := strings.Cut(rest, "-")
	return slices.Contains(fixedNames, rest) || slices.Contains(treeNames, kind) || (more && slices.Contains(ownKinds, kind))
}

// hash is of text that tells things apart, and the same in every run.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return base32.StdEncoding.EncodeToString(sum[:])
}

// entryID tells a port of a service from all others.
func entryID(e *net.Entry) string { return e.Name() + " " + e.Addr.String() }

// chainOf is the name of a service's chain.
func (l *layout) chainOf(kind string, e *net.Entry, more ...string) string {
	name := l.prefix + "-" + kind + "-"
	return name + hash(append([]string{entryID(e)}, more...)...)[:min(16, maxName-len(l.prefix)-5)]
}

// listOf is the name of the list of clients that affinity leads to an endpoint,
// whatever address of the service they call.
func (l *layout) listOf(e *net.Entry, part string, to netip.AddrPort) string {
	return l.prefix + "-" + hash(entryID(e), part, to.String())[:16]
}

func (l *layout) name(s string) string { return l.prefix + "-" + s }

// anyOrder tells chains whose rules may stand in any order: each is about other packets. In
// the trees of what is closed an item may have some, one after another.
func anyOrder(chain string) bool {
	_, rest, _ := strings.Cut(chain, "-")
	kind, _, _ := strings.Cut(rest, "-")
	return slices.Contains(treeNames, kind) && kind != closedIPs && kind != closedPorts
}

func slotName(i int) string { return slot + strconv.Itoa(i) }

var slotNames = func() (all []string) {
	for i := range maxSlots {
		all = append(all, slotName(i))
	}
	return all
}()
