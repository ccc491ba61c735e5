package news

import (
	"context"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
)

// ownPorts is how many sockets are known as ours: news of what was done by an earlier
// one may come later.
const ownPorts = 8

// Own are the sockets by which a part of this process changes something. Who listens
// to Others is spared what came by them. The zero value is ready; its methods may be
// called from any goroutine.
type Own struct {
	mu        sync.Mutex
	ports     []uint32                 // netlink's names of the sockets, the latest last
	listeners map[*netlink.Conn]uint32 // and the groups that they listen to
}

// Add notes a socket of ours, as the latest. It is to be called before anything is changed
// by it.
func (o *Own) Add(port uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at := slices.Index(o.ports, port); at >= 0 {
		o.ports = append(slices.Delete(o.ports, at, at+1), port)
		return // whom listeners are spared is what it was
	}
	o.ports = append(o.ports, port)
	o.ports = o.ports[max(0, len(o.ports)-ownPorts):]
	for c := range o.listeners {
		o.spare(c)
	}
}

// Has tells whether a message is news of what one of our sockets did.
func (o *Own) Has(m netlink.Message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Contains(o.ports, m.Header.PID)
}

// Others is Listen, but for what our own sockets do. Some of it may come all the same:
// what was told before a socket was known. Of no Own at all it is Listen.
func (o *Own) Others(ctx context.Context, family int, group uint32, hear func(netlink.Message), unsure func()) error {
	return listen(ctx, o, family, group, hear, unsure)
}

// Aside makes a large change of ours while nobody listens. Where somebody does, the
// kernel makes a message of 4 KiB for each element and keeps them all until the end,
// half a gigabyte for ten thousand services, whether or not they are then wanted.
// change tells how many transactions it was. generation is the number of the ruleset,
// which each transaction raises by one, and since what it was when the caller knew what
// is there: where it says that others, too, changed something, or not all of ours came
// about, the listeners are told that they may have missed it.
func (o *Own) Aside(since uint32, generation func() (uint32, error), change func() (transactions int, err error)) error {
	o.leave()
	n, err := change()
	o.rejoin()
	if err == nil {
		if now, err := generation(); err == nil && now == since+uint32(n) {
			return nil
		}
	}
	o.missed()
	return err
}

func (o *Own) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c, group := range o.listeners {
		_ = c.LeaveGroup(group) // who stays hears more
	}
}

func (o *Own) rejoin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c, group := range o.listeners {
		if c.JoinGroup(group) != nil {
			c.Close() // its owner is told that it ended
		}
	}
}

// missed interrupts those who listen: each says by itself that it is unsure.
func (o *Own) missed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.listeners {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

// begin spares a listener, until end.
func (o *Own) begin(c *netlink.Conn, group uint32) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.listeners == nil {
		o.listeners = map[*netlink.Conn]uint32{}
	}
	o.listeners[c] = group
	o.spare(c)
}

func (o *Own) end(c *netlink.Conn) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.listeners, c)
}

// spare tells the kernel. It is no loss where it cannot: then more is heard, and who
// listens tells by Has.
func (o *Own) spare(c *netlink.Conn) {
	if program, err := bpf.Assemble(filter(o.ports)); err == nil && len(o.ports) > 0 {
		_ = c.SetBPF(program)
	}
}

const (
	portAt  = 12         // nlmsg_pid, in the header of a message
	whole   = 0xffffffff // of what a filter lets through
	nothing = 0
)

// filter lets through what does not begin with a message of one of these sockets. What
// the kernel tells at once is of one transaction, and so of one socket: to look at the
// first message is enough.
func filter(ports []uint32) []bpf.Instruction {
	f := []bpf.Instruction{bpf.LoadAbsolute{Off: portAt, Size: 4}}
	for i, p := range ports {
		f = append(f, bpf.JumpIf{Cond: bpf.JumpEqual, Val: loaded(p), SkipTrue: uint8(len(ports) - i)})
	}
	return append(f, bpf.RetConstant{Val: whole}, bpf.RetConstant{Val: nothing})
}

// loaded is a number of a header, which has the machine's order of bytes, as a filter
// loads it, which takes it for the network's.
func loaded(n uint32) uint32 {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return n
	}
	return bits.ReverseBytes32(n)
}
