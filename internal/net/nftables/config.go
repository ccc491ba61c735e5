package nftables

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/news"
)

// Config is what shapes the fixed rules.
type Config struct {
	// Table is the table's name. Default: nodeagent-services.
	Table string
	// Pods are the addresses of all pods of the cluster. Who calls a cluster IP
	// from elsewhere is masqueraded, and a pod that calls an external address is
	// served as one inside. Empty: nobody can be told apart.
	Pods []netip.Prefix
	// PodInterfaces are the interfaces through which packets of pods come in, in
	// place of Pods or beside them. One that ends in + stands for all that begin so.
	PodInterfaces []string
	// KeepInvalid lets packets through that belong to no connection which the kernel
	// knows.
	KeepInvalid bool
	// NodePorts are the addresses of the node at which node ports are served.
	// Empty: all. Loopback addresses never are: the kernel would have to route
	// them (CVE-2020-8558).
	NodePorts []netip.Prefix
	// MasqueradeAll hides every caller of a cluster IP.
	MasqueradeAll bool
	// MasqueradeBit is the bit of the packet mark that says "masquerade". Default
	// and kube-proxy's: 14.
	MasqueradeBit *int32
	// Own is told of our sockets, so that others in this process who listen to what
	// changes in the firewall need not hear of ours. nil: nobody else does.
	Own *news.Own
}

const (
	defaultTable = "nodeagent-services"
	defaultBit   = 14
)

// Backend programs the table.
type Backend struct {
	cfg   Config
	mark  uint32
	table *nftables.Table
	sets  map[string]*nftables.Set

	c     *nftables.Conn // nil: not open
	raw   *netlink.Conn
	own   *news.Own // what we changed ourselves
	opens int

	// What the kernel holds as far as we know. Not known after an error, and
	// before the first Sync.
	known   bool
	picks   map[pick]int // chains that pick or remember an endpoint, and how many need them
	numbers numbers      // by which these are found
	orders  map[pool][]netip.AddrPort

	unswept int // how often chains that nobody needs could not be removed at once
}

// New returns a backend that has not looked at the kernel yet.
func New(cfg Config) (*Backend, error) {
	if cfg.Table == "" {
		cfg.Table = defaultTable
	}
	bit := int32(defaultBit)
	if cfg.MasqueradeBit != nil {
		bit = *cfg.MasqueradeBit
	}
	if bit < 0 || bit > 31 {
		return nil, fmt.Errorf("masquerade bit %d is not 0 to 31", bit)
	}
	for _, p := range append(append([]netip.Prefix{}, cfg.Pods...), cfg.NodePorts...) {
		if !p.IsValid() {
			return nil, errors.New("a prefix of pods or node ports is not valid")
		}
	}
	for _, name := range cfg.PodInterfaces {
		if n := len(strings.TrimSuffix(name, "+")); n == 0 || n >= unix.IFNAMSIZ {
			return nil, fmt.Errorf("%q is no name of an interface", name)
		}
	}
	b := &Backend{
		cfg: cfg, mark: 1 << bit, own: cmp.Or(cfg.Own, new(news.Own)),
		table: &nftables.Table{Name: cfg.Table, Family: nftables.TableFamilyINet},
		picks: map[pick]int{}, numbers: numbers{}, orders: map[pool][]netip.AddrPort{},
	}
	b.sets = setsOf(b.table)
	return b, nil
}

// layout changes with everything that shapes the fixed rules. Raise the number
// when the rules themselves change.
func (b *Backend) layout() string {
	h := fnv.New64a()
	fmt.Fprintln(h, 4, b.cfg.Table, b.cfg.Pods, b.cfg.PodInterfaces, b.cfg.KeepInvalid, b.cfg.NodePorts, b.cfg.MasqueradeAll, b.mark)
	return fmt.Sprintf("%016x", h.Sum64())
}

// pool is one list of endpoints in the kernel.
type pool struct {
	addr  net.Address
	local bool
}
