package news

import (
	"encoding/binary"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
)

// TestFilter: what begins with a message of one of our latest sockets is not let
// through, and all else is.
func TestFilter(t *testing.T) {
	var o Own
	for _, p := range []uint32{1, 21, 22, 23, 24, 4711, 0xfedcba98, 1 << 31, 0x01020304, 4711} {
		o.Add(p)
	}
	vm, err := bpf.NewVM(filter(o.ports))
	if err != nil {
		t.Fatal(err)
	}
	for port, ours := range map[uint32]bool{1: false, 4711: true, 0xfedcba98: true, 1 << 31: true, 0x01020304: true, 0x04030201: false, 0: false} {
		if has := o.Has(netlink.Message{Header: netlink.Header{PID: port}}); has != ours {
			t.Errorf("%d is ours: %v", port, has)
		}
		m := make([]byte, 64)
		binary.NativeEndian.PutUint32(m[portAt:], port)
		if n, err := vm.Run(m); err != nil || n > 0 == ours {
			t.Errorf("of what %d does, %d bytes are let through, %v", port, n, err)
		}
	}
}
