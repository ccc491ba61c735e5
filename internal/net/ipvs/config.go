package ipvs

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	lvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"
)

// Config is what shapes the servers and the fixed rules.
type Config struct {
	// Device has the service addresses. Default and kube-proxy's: kube-ipvs0.
	Device string
	// Scheduler picks endpoints, as ipvsadm names it. Default: rr.
	Scheduler string
	// TCP, TCPFin and UDP are for how long the kernel remembers idle connections;
	// zero leaves its values.
	TCP, TCPFin, UDP time.Duration
	// StrictARP makes the node answer ARP for addresses of the asked device only.
	StrictARP bool
	// Exclude are addresses that stay on the device, and virtual servers that stay
	// at them, also if they are no service's.
	Exclude []netip.Prefix
	// Flavour tells which iptables the node's other rules are in: "nft" or
	// "legacy". Nil, or "": what the plain name is.
	Flavour func(context.Context) (string, error)
	// Pods are the addresses of all pods of the cluster. Who calls a cluster IP
	// from elsewhere is masqueraded, and a pod that calls an external address is
	// served as one inside. Empty: nobody can be told apart.
	Pods []netip.Prefix
	// Addrs are the node's primary addresses, from which it would call an address of
	// a load balancer: the address itself is its source, which source ranges say
	// nothing of.
	Addrs []netip.Addr
	// PodInterfaces are the interfaces through which packets of pods come in, in
	// place of Pods or beside them. One that ends in + stands for all that begin so.
	PodInterfaces []string
	// KeepInvalid lets packets through that belong to no connection which the kernel
	// knows.
	KeepInvalid bool
	// NodePorts are the addresses of the node at which node ports are served.
	// Empty: all. Loopback addresses never are.
	NodePorts []netip.Prefix
	// MasqueradeAll hides every caller of a cluster IP.
	MasqueradeAll bool
	// MasqueradeBit is the bit of the packet mark that says "masquerade". Default
	// and kube-proxy's: 14.
	MasqueradeBit *int32
}

const (
	defaultDevice    = "kube-ipvs0"
	defaultScheduler = "rr"
	defaultBit       = 14
)

// Schedulers are those of the kernel, by ipvsadm's names.
var Schedulers = []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh", "fo", "ovf", "twos"}

// Backend programs the virtual servers.
type Backend struct {
	cfg Config
	bit uint32

	mu    sync.Mutex // guards all below: Watch looks when nobody else does
	h     *lvs.Handle
	sets  *setConn
	tools []tool

	// What the kernel holds as far as we know. Not known after an error, and
	// before the first Sync.
	known  bool
	plan   *plan
	drains map[drain]time.Time // what is quiesced, and since when
	sum    sum                 // of all virtual servers, ours or not
	counts map[string]uint32   // elements of our sets
	writes int                 // changes that were made

	elements sum // of our sets
	seed     maphash.Seed

	links atomic.Bool // somebody may have changed addresses since the last look
	rules atomic.Bool // or rules
}

// New returns a backend that has not looked at the kernel yet.
func New(cfg Config) (*Backend, error) {
	if cfg.Device == "" {
		cfg.Device = defaultDevice
	}
	if cfg.Scheduler == "" {
		cfg.Scheduler = defaultScheduler
	}
	if !slices.Contains(Schedulers, cfg.Scheduler) {
		return nil, fmt.Errorf("IPVS has no scheduler %q: it has %v", cfg.Scheduler, Schedulers)
	}
	bit := int32(defaultBit)
	if cfg.MasqueradeBit != nil {
		bit = *cfg.MasqueradeBit
	}
	if bit < 0 || bit > 31 {
		return nil, fmt.Errorf("masquerade bit %d is not 0 to 31", bit)
	}
	for _, p := range slices.Concat(cfg.Pods, cfg.NodePorts, cfg.Exclude) {
		if !p.IsValid() {
			return nil, errors.New("a prefix of pods, node ports or excluded addresses is not valid")
		}
	}
	for _, name := range cfg.PodInterfaces {
		if n := len(strings.TrimSuffix(name, "+")); n == 0 || n >= unix.IFNAMSIZ || strings.ContainsFunc(name, unicode.IsSpace) || strings.ContainsAny(name, "\"'\\") {
			return nil, fmt.Errorf("%q is no name of an interface", name)
		}
	}
	return &Backend{cfg: cfg, bit: 1 << bit, drains: map[drain]time.Time{}, seed: maphash.MakeSeed()}, nil
}

// Close frees the sockets. What the kernel holds stays.
func (b *Backend) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.close()
}

func (b *Backend) close() {
	if b.h != nil {
		b.h.Close()
		b.h = nil
	}
	if b.sets != nil {
		b.sets.close()
		b.sets = nil
	}
}
