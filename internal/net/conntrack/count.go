package conntrack

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// Count says how many connections there are to these addresses. It costs a look at all
// connections of a family.
func (Table) Count(ctx context.Context, to []net.Address) (int, error) {
	s, err := open()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	f := stale{flows: net.Flows{}}
	for _, a := range to {
		f.flows[a] = nil
	}
	if err := f.findLocal(); err != nil {
		return 0, err
	}
	n := 0
	for _, family := range f.families() {
		was := n
		for range maxDumps { // one that was disturbed counts some twice, or not at all
			n = was
			err = request(&nl.SocketHandle{Socket: s}, family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP).ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
				if f.asked(parseEntry(msg)) {
					n++
				}
				return ctx.Err() == nil
			})
			if !errors.Is(err, nl.ErrDumpInterrupted) {
				break
			}
		}
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return n, fmt.Errorf("count connections: %w", err)
		}
	}
	return n, ctx.Err()
}

// asked tells whether an entry is of one of the addresses.
func (f *stale) asked(e entry) bool {
	if !e.called.IsValid() {
		return false
	}
	a := net.Address{IP: e.called.Addr(), Port: e.called.Port(), Proto: net.Proto(e.proto)}
	if _, ok := f.flows[a]; ok {
		return true
	}
	local := f.local[a.IP]
	a.IP = unspecified(a.IP)
	_, ok := f.flows[a]
	return ok && local
}
