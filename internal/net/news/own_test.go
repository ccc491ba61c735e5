package news

import (
	"encoding/binary"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
)

// told is a listener that keeps what it shall be spared.
type told struct{ vm *bpf.VM }

func (l *told) SetBPF(program []bpf.RawInstruction) error {
	f, _ := bpf.Disassemble(program)
	vm, err := bpf.NewVM(f)
	l.vm = vm
	return err
}

func (l *told) hears(t *testing.T, port uint32) bool {
	t.Helper()
	m := make([]byte, 64)
	binary.NativeEndian.PutUint32(m[portAt:], port)
	n, err := l.vm.Run(m)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// TestOwn: who listens is spared the news of our latest sockets, of those that come
// while it listens, too, and of nobody else's.
func TestOwn(t *testing.T) {
	var o Own
	var early, late told
	o.begin(&early)
	if early.vm != nil {
		t.Error("it is spared something while we have no socket")
	}
	ports := []uint32{1, 4711, 0xfedcba98, 1 << 31, 0x01020304, 4711}
	for _, p := range ports {
		o.Add(p)
		if early.hears(t, p) {
			t.Errorf("it hears what %d does, which is ours now", p)
		}
	}
	o.begin(&late)
	for port, ours := range map[uint32]bool{1: false, 4711: true, 0xfedcba98: true, 1 << 31: true, 0x01020304: true, 0x04030201: false, 0: false} {
		if has := o.Has(netlink.Message{Header: netlink.Header{PID: port}}); has != ours {
			t.Errorf("%d is ours: %v", port, has)
		}
		if early.hears(t, port) == ours || late.hears(t, port) == ours {
			t.Errorf("what %d does is heard: %v, and by one that began later: %v", port, early.hears(t, port), late.hears(t, port))
		}
	}
	o.end(&early)
	if o.Add(7); !early.hears(t, 7) || late.hears(t, 7) {
		t.Errorf("of two who listened, one has ended; heard is %v, and by the other one %v", early.hears(t, 7), late.hears(t, 7))
	}
}
