package podnet

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"nodeagent/internal/failpoint"
)

// grave deletes links, many at the price of one: the deletion of a link waits
// for every processor to forget it (10 ms and more) with the routing lock held,
// so that a hundred deletions are a second in which no pod can start. Callers
// that come while one deletion runs wait and go together in the next, as a
// group of links of a number of our own. There is no goroutine: one of the
// callers works for all.
type grave struct {
	group uint32

	mu      sync.Mutex
	next    *burial // collects callers
	digging bool
}

// burial is one deletion of several links.
type burial struct {
	names []string
	done  chan struct{}
	err   map[string]error
}

// del deletes the host's end of a pair, and with it the pod's. A link that is
// gone is no error.
func (g *grave) del(ctx context.Context, name string) error {
	if err := failpoint.At(failpoint.PodnetUnlinkBefore); err != nil {
		return err
	}
	b, lead := g.join(name)
	if lead {
		g.work()
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return fmt.Errorf("delete interface %s: %w", name, context.Cause(ctx))
	}
	if err := b.err[name]; err != nil {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return failpoint.At(failpoint.PodnetUnlinkAfter)
}

// join adds a name to the next burial and tells whether the caller has to lead.
func (g *grave) join(name string) (b *burial, lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		g.next = &burial{done: make(chan struct{}), err: map[string]error{}}
	}
	g.next.names = append(g.next.names, name)
	lead = !g.digging
	g.digging = true
	return g.next, lead
}

// work deletes until nobody waits.
func (g *grave) work() {
	for {
		g.mu.Lock()
		b := g.next
		g.next = nil
		if b == nil {
			g.digging = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		b.dig(g.group)
		close(b.done)
	}
}

func (b *burial) dig(group uint32) {
	h, err := routes()
	if err != nil {
		b.fail(err)
		return
	}
	defer h.Close()
	var links []netlink.Link
	for _, name := range b.names {
		l, err := h.LinkByName(name)
		switch {
		case err == nil:
			links = append(links, l)
		case !isNoLink(err):
			b.err[name] = err
		}
	}
	if len(links) > 1 && together(h, links, group) == nil {
		return
	}
	// One link, or one that would not go with the others.
	for _, l := range links {
		if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			b.err[l.Attrs().Name] = err
		}
	}
}

// together deletes links as one group.
func together(h *netlink.Handle, links []netlink.Link, group uint32) error {
	for _, l := range links {
		if err := h.LinkSetGroup(l, int(group)); err != nil && !isNoLink(err) {
			return err
		}
	}
	// The library has no call for this one.
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func (b *burial) fail(err error) {
	for _, name := range b.names {
		b.err[name] = err
	}
}
