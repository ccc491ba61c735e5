package nftables

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/news"
	"nodeagent/internal/test/need"
)

// older are the layouts of earlier daemons, by what an address led to. In all of them
// the chain that picks looks the endpoint up.
var older = map[string]nftables.SetDatatype{"a chain": nftables.TypeVerdict, "a number": nftables.TypeMark}

// writeOlder writes what a daemon of an earlier layout had for one service of one
// endpoint.
func writeOlder(t *testing.T, c *nftables.Conn, ledTo nftables.SetDatatype, to net.Address, ep netip.AddrPort) {
	t.Helper()
	table := c.AddTable(&nftables.Table{Name: defaultTable, Family: nftables.TableFamilyINet})
	sets := map[string]*nftables.Set{}
	for i, name := range []string{endpoints, services, picks} {
		s := ipv4.set(name)
		if name == services {
			s.DataType = ledTo
		}
		s.Table, s.Name, s.ID = table, ipv4.name(name), uint32(i+1)
		sets[name] = s
		must(t, c.AddSet(s, nil))
	}
	chain := func(name string, hook *nftables.ChainHook, rules ...exprs) {
		ch := &nftables.Chain{Name: name, Table: table}
		if hook != nil {
			ch.Hooknum, ch.Type, ch.Priority = hook, nftables.ChainTypeNAT, nftables.ChainPriorityNATDest
		}
		c.AddChain(ch)
		for _, r := range rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: r})
		}
	}
	add := func(set string, e nftables.SetElement) {
		must(t, c.SetAddElements(sets[set], []nftables.SetElement{e}))
	}
	way := expr.Verdict{Kind: expr.VerdictGoto, Chain: "cluster4-1"}
	first, follow := nftables.SetElement{Key: []byte(addressPort(to)), VerdictData: &way}, exprs{&expr.Lookup{SourceRegister: reg(0), DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: "services4"}}
	if ledTo == nftables.TypeMark {
		first, follow = nftables.SetElement{Key: []byte(addressPort(to)), Val: []byte(number(1))}, lead(3, "services4", "picks4")
	}
	chain("about", nil, back())
	chain("cluster4-1", nil, join(ipv4.only(), ipv4.called(0), random(3, 1, 0), look(0, end, "endpoints4"), ipv4.dnat(end)))
	chain("services", nil, join(ipv4.only(), ipv4.called(0), follow))
	chain("nat-prerouting", nftables.ChainHookPrerouting, jump("services"))
	chain("nat-output", nftables.ChainHookOutput, jump("services"))
	add(endpoints, nftables.SetElement{Key: []byte(addressPort(to) + mark(0)), Val: []byte(endpoint(ep))})
	add(picks, nftables.SetElement{Key: []byte(number(1)), VerdictData: &way})
	add(services, first)
	must(t, c.Flush())
}

// transactions counts those that the kernel tells of while f runs.
func transactions(t *testing.T, f func()) int {
	t.Helper()
	ctx, cancel := context.WithCancel(hosttest.Ctx(t))
	begun, seen, ended := make(chan struct{}), make(chan int, 1), make(chan error, 1)
	n := 0
	go func() {
		ended <- news.Listen(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m netlink.Message) {
			switch uint16(m.Header.Type) & 0xff {
			case unix.NFT_MSG_NEWGEN:
				n++
			case unix.NFT_MSG_NEWTABLE:
				if bytes.Contains(m.Data, []byte("sentinel")) {
					seen <- n
				}
			}
		}, sync.OnceFunc(func() { close(begun) }))
	}()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	<-begun
	f()
	nft(t, "add table inet sentinel")
	defer nft(t, "delete table inet sentinel")
	select {
	case n := <-seen:
		return n
	case <-ctx.Done():
		t.Fatal("the kernel tells nothing")
		return 0
	}
}

// TestOlderLayout: a daemon that finds the table of an earlier one replaces it in one
// transaction, and neither an established connection nor a new one notices.
func TestOlderLayout(t *testing.T) {
	need.Have(t, need.Root)
	for name, ledTo := range older {
		t.Run("an address led to "+name, func(t *testing.T) { testOlder(t, ledTo) })
	}
}

func testOlder(t *testing.T, ledTo nftables.SetDatatype) {
	hosts := hosttest.Wire(t)
	hosts["there1"].Serve(t, 8080)
	m := net.NewModel(thisNode)
	m.SetService(hosttest.ServiceOf(1))
	for _, s := range hosttest.Ends("s1", hosts, "there1") {
		m.SetSlice(s)
	}
	m.Take()
	b := backend(t, Config{})
	c, err := b.open(hosttest.Ctx(t))
	must(t, err)
	to := netip.MustParseAddrPort("10.96.0.1:80")
	writeOlder(t, c, ledTo, net.Address{IP: to.Addr(), Proto: net.TCP, Port: 80}, netip.AddrPortFrom(hosts["there1"].IP4, 8080))
	old, err := hosts["outside"].Dial("tcp", to, hosttest.Soon)
	must(t, err)
	defer old.Close()
	hear := func() {
		t.Helper()
		buf := make([]byte, 100)
		if n, err := old.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "there1") {
			t.Fatalf("heard %q, %v", buf[:n], err)
		}
		_, err := old.Write([]byte("x"))
		must(t, err)
	}
	hear()

	var calling sync.WaitGroup
	done := make(chan struct{})
	calling.Go(func() { // as long as the table is replaced, and for some more
		for more := 50; more > 0; {
			if got := hosts["here1"].Call("tcp", to, hosttest.Soon); !strings.HasPrefix(got, "there1 ") {
				t.Errorf("a new connection gets %q", got)
			}
			select {
			case <-done:
				more--
			default:
			}
		}
	})
	generations := transactions(t, func() {
		r, err := b.Sync(hosttest.Ctx(t), m.Table())
		must(t, err)
		if !r.Rebuilt {
			t.Errorf("it did %+v", r)
		}
	})
	close(done)
	calling.Wait()
	hear()
	if generations != 1 {
		t.Errorf("the table was replaced in %d transactions", generations)
	}
	if r, err := b.Sync(hosttest.Ctx(t), m.Table()); err != nil || r != (net.Report{}) {
		t.Errorf("a second sync had to do %+v, %v", r, err)
	}
}
