package iptables

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/news"
)

// Flavour is the kind of iptables: the programs differ, and each sees only its
// own rules.
type Flavour string

// The flavours.
const (
	NFT    Flavour = "nft"
	Legacy Flavour = "legacy"
)

// Config is what shapes the fixed rules.
type Config struct {
	// Prefix begins the names of our chains, up to nine capitals and digits.
	// Default: NODEAGENT.
	Prefix string
	// Flavour is which programs are used. Empty: those whose rules the node has.
	Flavour Flavour
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
	// Own is of who does not want to hear of what we write. Empty: the Backend's own.
	Own *news.Own
}

const (
	defaultPrefix = "NODEAGENT"
	defaultBit    = 14
)

var goodPrefix = regexp.MustCompile(`^[A-Z][A-Z0-9]{0,8}$`)

// Backend programs the chains.
type Backend struct {
	cfg  Config
	mark uint32

	mu       sync.Mutex    // guards what Watch shares
	tools    []tool        // of the flavour that is used, one a family; nil: not chosen
	children []int         // the processes that wrote last: their news are no news
	watched  bool          // somebody listens
	changed  bool          // somebody else changed our rules since we looked
	unsure   bool          // and nobody knows where
	spots    map[spot]bool // nft: where
	left     *left
	own      *news.Own

	feeds map[bool]*feed // nft: for small changes; by whether of IPv6

	// What the kernel holds as far as we know. Not known after an error, and
	// before the first Sync.
	known   bool
	swept   bool // the other flavour holds nothing of ours
	layouts []*layout
	edition *net.Edition // of the table that the layouts are of
}

// New returns a backend that has not looked at the kernel yet.
func New(cfg Config) (*Backend, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = defaultPrefix
	}
	if !goodPrefix.MatchString(cfg.Prefix) {
		return nil, fmt.Errorf("prefix %q of chains is not one to nine capitals and digits", cfg.Prefix)
	}
	if cfg.Flavour != "" && cfg.Flavour != NFT && cfg.Flavour != Legacy {
		return nil, fmt.Errorf("flavour %q of iptables is neither %s nor %s", cfg.Flavour, NFT, Legacy)
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
		if n := len(strings.TrimSuffix(name, "+")); n == 0 || n >= unix.IFNAMSIZ || strings.ContainsFunc(name, unicode.IsSpace) || strings.ContainsAny(name, "\"'\\") {
			return nil, fmt.Errorf("%q is no name of an interface", name)
		}
	}
	b := &Backend{cfg: cfg, mark: 1 << bit, own: cmp.Or(cfg.Own, new(news.Own))}
	b.left = newLeft(b.ours, func(pid int) bool { return pid == os.Getpid() || b.isChild(pid) })
	b.feeds = map[bool]*feed{false: b.newFeed(), true: b.newFeed()}
	return b, nil
}

// newFeed returns what starts programs that stay.
func (b *Backend) newFeed() *feed {
	again := func(pid int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.child(pid)
	}
	return &feed{rest: feedRest, hello: feedHello, start: b.start, again: again}
}

// Close ends the programs that stay. What they wrote stays, too.
func (b *Backend) Close() {
	for _, f := range b.feeds {
		f.close()
	}
}

// plan makes the layouts of a whole table, one a family.
func (b *Backend) plan(t *net.Table) []*layout {
	out := []*layout{newLayout(b.cfg, b.mark, ipv4, t.Ranges()), newLayout(b.cfg, b.mark, ipv6, t.Ranges())}
	for _, e := range t.Sorted() {
		for _, l := range out {
			l.plant(e)
		}
	}
	for _, l := range out {
		l.moveRest(net.Addresses{Added: t.ClusterIPs()})
		l.move(l.hair, net.Addresses{Added: t.Here()})
		l.forgetTouched()
	}
	return out
}
