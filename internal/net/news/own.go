package news

import (
	"context"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
)

// ownPorts is how many sockets are known as ours: news of what was done by an earlier
// one may come later.
const ownPorts = 4

// Own are the sockets by which a part of this process changes something. Who listens
// to Others is spared what came by them: of ten thousand services the kernel tells in
// more than a hundred thousand messages, and where they fill a listener's buffer it
// lets the listener run before each of the next, in the middle of the transaction.
// The zero value is ready; its methods may be called from any goroutine.
type Own struct {
	mu        sync.Mutex
	ports     []uint32 // netlink's names of the sockets, the latest last
	listeners map[filtered]bool
}

// filtered is a listener that the kernel asks before it tells it something.
type filtered interface {
	SetBPF(filter []bpf.RawInstruction) error
}

// Add notes a socket of ours. It is to be called before anything is changed by it.
func (o *Own) Add(port uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.Contains(o.ports, port) {
		return
	}
	o.ports = append(o.ports, port)
	o.ports = o.ports[max(0, len(o.ports)-ownPorts):]
	for l := range o.listeners {
		o.spare(l)
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

// begin spares a listener, until end.
func (o *Own) begin(l filtered) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.listeners == nil {
		o.listeners = map[filtered]bool{}
	}
	o.listeners[l] = true
	o.spare(l)
}

func (o *Own) end(l filtered) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.listeners, l)
}

// spare tells the kernel. It is no loss where it cannot: then more is heard, and who
// listens tells by Has.
func (o *Own) spare(l filtered) {
	if program, err := bpf.Assemble(filter(o.ports)); err == nil && len(o.ports) > 0 {
		_ = l.SetBPF(program)
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
