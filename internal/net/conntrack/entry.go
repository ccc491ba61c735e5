package conntrack

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// entry is what matters here of one of the kernel's: who was called, and who answers.
type entry struct {
	proto        uint8
	called, ends netip.AddrPort
}

// header is how long that of netfilter's messages is.
const header = nl.SizeofNfgenmsg

// parseEntry reads a message of a dump; of what is not as it should be, as much as is.
func parseEntry(msg []byte) (e entry) {
	if len(msg) < header {
		return e
	}
	walk(msg[header:], func(kind uint16, tuple []byte) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			_, e.called, e.proto = parseTuple(tuple)
		case nl.CTA_TUPLE_REPLY:
			e.ends, _, _ = parseTuple(tuple)
		}
	})
	return e
}

func parseTuple(b []byte) (src, dst netip.AddrPort, proto uint8) {
	var from, to netip.Addr
	var ports [2]uint16
	walk(b, func(kind uint16, in []byte) {
		switch kind {
		case nl.CTA_TUPLE_IP:
			walk(in, func(kind uint16, ip []byte) {
				a, _ := netip.AddrFromSlice(ip)
				switch kind {
				case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
					from = a.Unmap()
				case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
					to = a.Unmap()
				}
			})
		case nl.CTA_TUPLE_PROTO:
			walk(in, func(kind uint16, v []byte) {
				switch {
				case kind == nl.CTA_PROTO_NUM && len(v) == 1:
					proto = v[0]
				case kind == nl.CTA_PROTO_SRC_PORT && len(v) == 2:
					ports[0] = binary.BigEndian.Uint16(v)
				case kind == nl.CTA_PROTO_DST_PORT && len(v) == 2:
					ports[1] = binary.BigEndian.Uint16(v)
				}
			})
		}
	})
	return netip.AddrPortFrom(from, ports[0]), netip.AddrPortFrom(to, ports[1]), proto
}

// walk calls f for each attribute.
func walk(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:n])
		b = b[min((n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
}
