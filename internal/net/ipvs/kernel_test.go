package ipvs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	lvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/proxy"
	"nodeagent/internal/test/need"
)

// The loop can use it.
var _ proxy.Backend = (*Backend)(nil)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), need.Slow(10*time.Second))
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestMissing: a kernel without IPVS is told of, with what to do, and does not
// hang; there is nothing to remove there.
func TestMissing(t *testing.T) {
	need.Have(t, need.Root)
	b, err := New(Config{})
	must(t, err)
	defer b.Close()
	if need.Lacks(need.IPVS) == "" {
		must(t, present())
		return
	}
	_, err = b.Sync(hosttest.Ctx(t), net.Build(nil, nil, hosttest.ThisNode))
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "nftables") || net.IsRefused(err) {
		t.Errorf("a Sync says %v", err)
	}
	if err := b.Watch(hosttest.Ctx(t), func() {}); !errors.Is(err, ErrMissing) {
		t.Errorf("Watch says %v", err)
	}
	must(t, b.Remove(hosttest.Ctx(t)))
	if gone, err := RemoveKubeProxy(hosttest.Ctx(t), nil); err != nil || len(gone) != 0 {
		t.Errorf("removed was %q, %v", gone, err)
	}
}

func TestNewRefuses(t *testing.T) {
	bad := int32(32)
	for _, cfg := range []Config{{Scheduler: "best"}, {MasqueradeBit: &bad}, {Exclude: []netip.Prefix{{}}}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// lacking is a set of which a kernel without IPVS may lack the type.
const lacking = hairpin

// withSets opens sets in the kernel, and takes them away at the end. Where a kernel
// without IPVS lacks a type, there is a set of that name all the same.
func withSets(t *testing.T) *setConn {
	t.Helper()
	need.Have(t, need.Root)
	s, err := openSets()
	must(t, err)
	must(t, s.bound(hosttest.Ctx(t)))
	t.Cleanup(func() {
		b := &Backend{sets: s}
		there, err := s.headers()
		must(t, err)
		must(t, b.destroyAll(context.Background(), there, isOurs))
		s.close()
	})
	for _, v6 := range []bool{false, true} {
		for k := range setKinds {
			err := s.create(k, v6)
			if k == lacking && errors.Is(err, errNoType) && need.Lacks(need.IPVS) != "" {
				err = s.createAs(k, v6, "hash:ip,port")
			}
			must(t, err)
		}
	}
	return s
}

// TestSets: the kernel gives back what it was given, marks included; elements that
// are there already, and gone ones, are no error; more go than one message holds.
func TestSets(t *testing.T) {
	s := withSets(t)
	there, err := s.headers()
	must(t, err)
	pairs := there[hairpin.name(true)].kind == forms[hairpin].kind
	want := map[element]uint32{}
	for i := range 1000 {
		a := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		b := netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)})
		for _, ip := range []netip.Addr{a, b} {
			at := net.Address{IP: ip, Port: uint16(1 + i), Proto: []net.Proto{net.TCP, net.UDP, net.SCTP}[i%3]}
			want[element{set: served, at: at}] = 0
			want[element{set: local, at: at}] = uint32(markTag + i)
			want[element{set: ranges, at: at, who: netip.PrefixFrom(ip, 1+i%ip.BitLen()).Masked()}] = 0
			want[onlyAddress(ips, ip)] = 0
			if pairs {
				want[itself(ip)] = 0
			}
		}
	}
	write := func(cmd uint16) {
		by := map[string][]element{}
		for x := range want {
			by[x.name()] = append(by[x.name()], x)
		}
		for name, els := range by {
			must(t, s.write(cmd, name, els, want))
		}
	}
	read := func() map[element]uint32 {
		got := map[element]uint32{}
		for _, v6 := range []bool{false, true} {
			for k := range setKinds {
				must(t, s.list(k, k.name(v6), got))
			}
		}
		return got
	}
	write(setAdd)
	write(setAdd)
	if got := read(); !maps.Equal(got, want) {
		t.Errorf("the kernel holds %d elements, and was given %d", len(got), len(want))
	}
	there, err = s.headers()
	must(t, err)
	if h := there["NODEAGENT-6-SERVED"]; h != (header{"hash:ip,port", 1000}) {
		t.Errorf("a set's head is %+v", h)
	}
	write(setDel)
	write(setDel)
	if got := read(); len(got) != 0 {
		t.Errorf("%d elements are left", len(got))
	}
}

// TestSetsChanged: an element that somebody exchanged for another, or gave another
// mark, is seen, though there are as many; what we write ourselves is no news.
func TestSetsChanged(t *testing.T) {
	b, err := New(Config{})
	must(t, err)
	b.sets, b.plan, b.counts = withSets(t), testPlan(), map[string]uint32{}
	have := map[element]uint32{}
	at := func(i byte) net.Address {
		return net.Address{IP: netip.AddrFrom4([4]byte{10, 96, 0, i}), Port: 80, Proto: net.TCP}
	}
	news := func(what string, want bool) {
		t.Helper()
		if b.setsChanged(hosttest.Ctx(t), true) != want {
			t.Errorf("%s: it is news: %v", what, !want)
		}
	}
	foreign := func(cmd uint16, x element, mark uint32) {
		t.Helper()
		must(t, b.sets.write(cmd, x.name(), []element{x}, map[element]uint32{x: mark}))
	}
	move := func(want map[element]uint32) {
		t.Helper()
		early, late, gone := b.differ(have, want)
		must(t, b.addElements(early[:], have, want))
		must(t, b.addElements(late[:], have, want))
		must(t, b.delElements(gone[:], have))
		have = want
	}
	one, two, three := element{set: served, at: at(1)}, element{set: served, at: at(2)}, element{set: served, at: at(3)}
	marked := element{set: local, at: at(1)}
	move(map[element]uint32{one: 0, two: 0, marked: markTag})
	move(map[element]uint32{one: 0, three: 0, marked: markTag + markStep})
	news("what we wrote", false)
	foreign(setDel, one, 0)
	foreign(setAdd, two, 0)
	news("one element for another", true)
	foreign(setDel, two, 0)
	foreign(setAdd, one, 0)
	news("as it was", false)
	foreign(setAdd, marked, markTag)
	news("another mark", true)
}

// TestForeignWeight: an endpoint to which packets go in another way than ours is not
// one that we left.
func TestForeignWeight(t *testing.T) {
	for flags, want := range map[uint32]int{lvs.ConnFwdMasq: 1, lvs.ConnFwdDirectRoute: foreignWeight, lvs.ConnFwdTunnel: foreignWeight} {
		if w := weightOf(&lvs.Destination{Weight: 1, ConnectionFlags: flags}); w != want {
			t.Errorf("with flags %x it is as if its weight were %d, want %d", flags, w, want)
		}
	}
}

// TestKubeProxyNodePorts: those of all protocols are known, in both families.
func TestKubeProxyNodePorts(t *testing.T) {
	s := withSets(t)
	for name, family := range map[string]uint8{"KUBE-NODE-PORT-SCTP-HASH": unix.AF_INET, "KUBE-6-NODE-PORT-SCTP-HASH": unix.AF_INET6} {
		revision, err := s.revision("hash:ip,port", family)
		must(t, err)
		_, err = s.ask(setCreate, netlink.Acknowledge|netlink.Excl, func(e *netlink.AttributeEncoder) {
			e.String(attrName, name)
			e.String(attrType, "hash:ip,port")
			e.Uint8(attrRevision, revision)
			e.Uint8(attrFamily, family)
			e.Nested(attrData, func(*netlink.AttributeEncoder) error { return nil })
		})
		must(t, err)
		t.Cleanup(func() { must(t, s.destroy(name)) })
		x := element{set: served, at: net.Address{IP: netip.MustParseAddr("10.0.0.1"), Port: 30001, Proto: net.SCTP}}
		if family == unix.AF_INET6 {
			x.at = net.Address{IP: netip.MustParseAddr("fd00::1"), Port: 30002, Proto: net.SCTP}
		}
		must(t, s.write(setAdd, name, []element{x}, nil))
	}
	there, err := s.headers()
	must(t, err)
	ports, err := (&Backend{sets: s}).kubeProxyNodePorts(there)
	must(t, err)
	if want := map[net.Address]bool{{Port: 30001, Proto: net.SCTP}: true, {Port: 30002, Proto: net.SCTP}: true}; !maps.Equal(ports, want) {
		t.Errorf("kube-proxy's node ports are %v, want %v", ports, want)
	}
}

// TestLeaving: an address that is excluded keeps the device, and nothing else stays.
func TestLeaving(t *testing.T) {
	one, two := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("192.0.2.1")
	b, err := New(Config{Exclude: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	must(t, err)
	if gone, stay := b.leaving(map[netip.Addr]bool{one: true, two: true}); !slices.Equal(gone, []netip.Addr{one}) || !stay {
		t.Errorf("%v go, some stay: %v", gone, stay)
	}
	if gone, stay := b.leaving(map[netip.Addr]bool{one: true}); !slices.Equal(gone, []netip.Addr{one}) || stay {
		t.Errorf("%v go, some stay: %v", gone, stay)
	}
}

// TestSetIsThere: a set that is there is not taken for one of our making.
func TestSetIsThere(t *testing.T) {
	s := withSets(t)
	err := s.create(ips, false)
	if err == nil || !strings.Contains(err.Error(), "NODEAGENT-IPS") {
		t.Errorf("a set that is there was made again: %v", err)
	}
}

// TestRules: both flavours print our rules as we write them, so that a second look
// finds nothing to do; what somebody damages is mended; all of it goes, and what is
// not ours stays.
func TestRules(t *testing.T) {
	withSets(t)
	bit := int32(14)
	for _, flavour := range []string{"nft", "legacy"} {
		t.Run(flavour, func(t *testing.T) {
			ctx := hosttest.Ctx(t)
			b, err := New(Config{Pods: hosttest.Pods, MasqueradeBit: &bit, Flavour: func(context.Context) (string, error) { return flavour, nil }})
			must(t, err)
			tools, err := b.choose(ctx)
			must(t, err)
			for _, x := range tools {
				if x.nft != (flavour == "nft") {
					t.Fatalf("%s is said to be nft: %t", x.restore, x.nft)
				}
				base := x.f.command + "-" + flavour
				command(t, base, "-t", "mangle", "-A", "INPUT", "-p", "tcp")
				empty := x.text(t)
				x.mend(t, b)
				if text := b.patch(x.f, x.look(t)); text != "" {
					t.Errorf("%s prints other rules than it was given:\n%s\nwanted are\n%s", x.save, x.text(t), text)
				}
				for _, damage := range []string{"-t filter -F NODEAGENT-IPVS-CLOSED", "-t nat -D POSTROUTING 1", "-t mangle -A NODEAGENT-IPVS-IN -p tcp", "-t filter -N NODEAGENT-IPVS-X"} {
					was := x.counts()
					command(t, base, strings.Fields(damage)...)
					if flavour == "legacy" && x.counts() == was {
						t.Errorf("%s: the counts are the same", damage)
					}
					if b.patch(x.f, x.look(t)) == "" {
						t.Errorf("%s is not seen", damage)
					}
					if strings.Contains(damage, "-N") {
						command(t, base, "-t", "filter", "-X", "NODEAGENT-IPVS-X")
					}
					x.mend(t, b)
					if text := b.patch(x.f, x.look(t)); text != "" {
						t.Errorf("%s is not mended:\n%s", damage, text)
					}
				}
				must(t, x.write(ctx, undo(x.look(t))))
				if got := x.text(t); got != empty {
					t.Errorf("left is\n%s\nof\n%s", got, empty)
				}
				command(t, base, "-t", "mangle", "-F")
			}
		})
	}
}

// ruler writes the fixed rules alone, which a kernel without IPVS has, too.
type ruler struct{ b *Backend }

func (r ruler) Sync(ctx context.Context, _ *net.Table) (net.Report, error) {
	tools, err := r.b.choose(ctx)
	for _, x := range tools {
		have, err2 := x.read(ctx)
		err = errors.Join(err, err2)
		if err == nil {
			err = x.write(ctx, r.b.patch(x.f, have))
		}
	}
	return net.Report{}, err
}

func (ruler) Apply(context.Context, *net.Table, *net.Diff) error { return nil }

// TestInvalidRules: what belongs to no connection does not pass, unless it may, by
// either flavour's rules.
func TestInvalidRules(t *testing.T) {
	withSets(t)
	for _, flavour := range []string{"nft", "legacy"} {
		t.Run(flavour, func(t *testing.T) {
			hosttest.Invalid(t, func(t testing.TB, keep bool) hosttest.Programmer {
				b, err := New(Config{Pods: hosttest.Pods, KeepInvalid: keep, Flavour: func(context.Context) (string, error) { return flavour, nil }})
				must(t, err)
				t.Cleanup(func() {
					tools, err := b.choose(hosttest.Ctx(t))
					must(t, err)
					for _, x := range tools {
						must(t, x.write(hosttest.Ctx(t), undo(x.look(t))))
					}
				})
				return ruler{b}
			})
		})
	}
}

func (t tool) look(tb testing.TB) inForce {
	tb.Helper()
	have, err := t.read(hosttest.Ctx(tb))
	must(tb, err)
	return have
}

func (t tool) mend(tb testing.TB, b *Backend) {
	tb.Helper()
	must(tb, t.write(hosttest.Ctx(tb), b.patch(t.f, t.look(tb))))
}

// text is the rules that there are.
func (t tool) text(tb testing.TB) string {
	tb.Helper()
	text, err := run(hosttest.Ctx(tb), "", t.save)
	must(tb, err)
	var out []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":NODEAGENT") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

const table = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 rr persistent 1000 FFFFFFFF
  -> 0A000109:1F90      Masq    1      0          3         
  -> 0A000209:1F90      Masq    0      0          1         
UDP  [fd96:0000:0000:0000:0000:0000:0000:0001]:0050 wlc 
  -> [fd10:0000:0000:0001:0000:0000:0000:0009]:1F90      Masq    0      2          1         
FWM  69700004 rr 
  -> 0A000109:1F90      Masq    1      1          0         
  -> 0A000209:1F90      Route   0      0          0         
`

// TestReadTable: what /proc prints has the sum of what netlink tells.
func TestReadTable(t *testing.T) {
	total, idle, err := readTable(strings.NewReader(table))
	must(t, err)
	tcp := server{at: net.Address{IP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: net.TCP}}
	udp := server{at: net.Address{IP: netip.MustParseAddr("fd96::1"), Port: 80, Proto: net.UDP}}
	mark := server{at: anyOf(tcp.at.IP), mark: 0x69700004}
	one, two := netip.MustParseAddrPort("10.0.1.9:8080"), netip.MustParseAddrPort("10.0.2.9:8080")
	want := tcp.sum(pool{scheduler: "rr", keep: 1000}) + tcp.sumEnd(one, 1) + tcp.sumEnd(two, 0) +
		udp.sum(pool{scheduler: "wlc"}) + udp.sumEnd(netip.MustParseAddrPort("[fd10:0:0:1::9]:8080"), 0) +
		mark.sum(pool{scheduler: "rr"}) + mark.sumEnd(one, 1) + mark.sumEnd(two, foreignWeight)
	if total != want {
		t.Errorf("the sum is %x, want %x", total, want)
	}
	if keys := slices.Collect(maps.Keys(idle)); !slices.Equal(keys, []string{drain{tcp, two}.text()}) {
		t.Errorf("idle are %q", keys)
	}
}

func FuzzReadTable(f *testing.F) {
	f.Add(table)
	f.Add("TCP  0A:0050 rr\n  -> x:1 Masq 1 0 0\nFWM z rr")
	f.Fuzz(func(t *testing.T, text string) { _, _, _ = readTable(strings.NewReader(text)) })
}

func FuzzParseSave(f *testing.F) {
	f.Add("*nat\n:NODEAGENT-IPVS-X - [0:0]\n-A NODEAGENT-IPVS-X -j ACCEPT\n-A INPUT -j NODEAGENT-IPVS-X\nCOMMIT\n")
	b, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		have := parseSave(text)
		b.patch(ipv4, have)
		undo(have)
	})
}

func TestSettings(t *testing.T) {
	b := &Backend{}
	for release, reuse := range map[string]bool{"5.8.0-rc1": true, "4.19.0": true, "5.9.1": false, "6.1.0-56-cloud": false, "x": false} {
		if got := slices.Contains(b.settings(release), setting{"ipv4/vs/conn_reuse_mode", "0"}); got != reuse {
			t.Errorf("%s: the mode of reuse is set: %t", release, got)
		}
	}
	if arp := fmt.Sprint(b.settings("6.1")); strings.Contains(arp, "arp_") {
		t.Errorf("ARP is set without being asked for: %s", arp)
	}
	b.cfg.StrictARP = true
	if !slices.Contains(b.settings("6.1"), setting{"ipv4/conf/all/arp_announce", "2"}) {
		t.Error("ARP is not strict")
	}
}
