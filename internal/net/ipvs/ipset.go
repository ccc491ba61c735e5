package ipvs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// The kernel's sets by netlink. vishvananda/netlink opens a socket for each
// element, has no deadline, and does not know the marks of elements.

// Commands and attributes of include/uapi/linux/netfilter/ipset/ip_set.h.
const (
	setProtocol = 6

	setCreate  = 2
	setDestroy = 3
	setList    = 7
	setAdd     = 9
	setDel     = 10
	setType    = 13

	attrProtocol = 1
	attrName     = 2
	attrType     = 3
	attrRevision = 4
	attrFamily   = 5
	attrFlags    = 6
	attrData     = 7
	attrElements = 8
	attrLine     = 9

	attrIP       = 1
	attrCIDR     = 3
	attrPort     = 4
	attrProto    = 7
	attrCadt     = 8
	attrMaxElem  = 19
	attrIP2      = 20
	attrCIDR2    = 21
	attrCount    = 24
	attrSkbMark  = 27
	attrIPv4     = 1
	attrIPv6     = 2
	listHeader   = 1 << 2
	withMarks    = 1 << 6
	bigEndian    = netlink.NetByteOrder
	errPrivate   = unix.Errno(4096)
	errNoType    = unix.Errno(4098)
	errSetBusy   = unix.Errno(4100)
	errFull      = unix.Errno(4352)
	maxSet       = 1 << 20 // elements
	setBatch     = 400     // elements of one message
	callTimeout  = 60 * time.Second
	setSubsystem = unix.NFNL_SUBSYS_IPSET << 8
)

// setConn is a socket for sets.
type setConn struct{ c *netlink.Conn }

func openSets() (*setConn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open ipset socket: %w", err)
	}
	return &setConn{c}, nil
}

func (s *setConn) close() { _ = s.c.Close() }

func (s *setConn) bound(ctx context.Context) error {
	limit := time.Now().Add(callTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		limit = d
	}
	return s.c.SetDeadline(limit)
}

// ask sends one command.
func (s *setConn) ask(cmd uint16, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Uint8(attrProtocol, setProtocol)
	fill(e)
	data, err := e.Encode()
	if err != nil {
		return nil, err
	}
	msgs, err := s.c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(setSubsystem | cmd), Flags: netlink.Request | flags},
		Data:   append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	})
	return msgs, plainErrno(err)
}

// plainErrno says what numbers of ipset's own mean.
func plainErrno(err error) error {
	var no syscall.Errno
	if !errors.As(err, &no) {
		return err
	}
	switch no {
	case errFull:
		return net.AsRefused(fmt.Errorf("the set is full: it holds %d elements: %w", maxSet, no))
	case errNoType:
		return fmt.Errorf("the kernel lacks the type, or its module: %w", no)
	case errSetBusy:
		return fmt.Errorf("the set is in use: %w", no)
	}
	if no == unix.EINVAL || no >= errPrivate {
		return net.AsRefused(err)
	}
	return err
}

// create makes a set that is not there, of the newest form that the kernel has.
func (s *setConn) create(k set, v6 bool) error { return s.createAs(k, v6, forms[k].kind) }

func (s *setConn) createAs(k set, v6 bool, kind string) error {
	family := uint8(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	revision, err := s.revision(kind, family)
	if err != nil {
		return fmt.Errorf("ask for sets of type %s: %w", kind, err)
	}
	_, err = s.ask(setCreate, netlink.Acknowledge|netlink.Excl, func(e *netlink.AttributeEncoder) {
		e.String(attrName, k.name(v6))
		e.String(attrType, kind)
		e.Uint8(attrRevision, revision)
		e.Uint8(attrFamily, family)
		e.Nested(attrData, func(e *netlink.AttributeEncoder) error {
			e.Uint32(bigEndian|attrMaxElem, maxSet)
			if k.marked() {
				e.Uint32(bigEndian|attrCadt, withMarks)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("create set %s: %w", k.name(v6), err)
	}
	return nil
}

// revision is the newest form of a type: what a kernel knows differs.
func (s *setConn) revision(kind string, family uint8) (uint8, error) {
	msgs, err := s.ask(setType, 0, func(e *netlink.AttributeEncoder) {
		e.String(attrType, kind)
		e.Uint8(attrFamily, family)
	})
	if err != nil {
		return 0, err
	}
	var out uint8
	for _, m := range msgs {
		err = errors.Join(err, attributes(m.Data, func(d *netlink.AttributeDecoder) {
			if d.Type() == attrRevision {
				out = d.Uint8()
			}
		}))
	}
	return out, err
}

func (s *setConn) destroy(name string) error {
	_, err := s.ask(setDestroy, netlink.Acknowledge, func(e *netlink.AttributeEncoder) { e.String(attrName, name) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("destroy set %s: %w", name, err)
	}
	return nil
}

// write adds or removes elements of one set; what is there, or not, already is no
// error.
func (s *setConn) write(cmd uint16, name string, els []element, marks map[element]uint32) error {
	for part := range slices.Chunk(els, setBatch) {
		_, err := s.ask(cmd, netlink.Acknowledge, func(e *netlink.AttributeEncoder) {
			e.String(attrName, name)
			e.Uint32(bigEndian|attrLine, 0)
			e.Nested(attrElements, func(e *netlink.AttributeEncoder) error {
				for _, x := range part {
					e.Nested(attrData, func(e *netlink.AttributeEncoder) error {
						x.encode(e, cmd == setAdd, marks[x])
						return nil
					})
				}
				return nil
			})
		})
		if err != nil {
			return fmt.Errorf("change %d elements of set %s: %w", len(part), name, err)
		}
	}
	return nil
}

func (x element) encode(e *netlink.AttributeEncoder, add bool, mark uint32) {
	putIP := func(typ uint16, a netip.Addr) {
		e.Nested(typ, func(e *netlink.AttributeEncoder) error {
			of := uint16(attrIPv4)
			if a.Is6() {
				of = attrIPv6
			}
			e.Bytes(bigEndian|of, a.AsSlice())
			return nil
		})
	}
	putIP(attrIP, x.at.IP)
	if x.at.Port != 0 {
		e.Uint16(bigEndian|attrPort, x.at.Port)
		e.Uint8(attrProto, uint8(x.at.Proto))
	}
	if x.who.IsValid() {
		putIP(attrIP2, x.who.Addr())
		e.Uint8(attrCIDR2, uint8(x.who.Bits()))
	}
	if add && x.set.marked() {
		e.Uint64(bigEndian|attrSkbMark, uint64(mark)<<32|0xffffffff)
	}
}

// header is what the kernel tells of a set besides its elements.
type header struct {
	kind  string
	count uint32
}

// headers lists all sets that there are.
func (s *setConn) headers() (map[string]header, error) {
	msgs, err := s.ask(setList, netlink.Dump, func(e *netlink.AttributeEncoder) { e.Uint32(bigEndian|attrFlags, listHeader) })
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	out := map[string]header{}
	for _, m := range msgs {
		var name string
		var h header
		err = errors.Join(err, attributes(m.Data, func(d *netlink.AttributeDecoder) {
			switch d.Type() {
			case attrName:
				name = d.String()
			case attrType:
				h.kind = d.String()
			case attrData:
				d.Nested(func(d *netlink.AttributeDecoder) error {
					for d.Next() {
						if d.Type() == attrCount {
							h.count = d.Uint32()
						}
					}
					return nil
				})
			}
		}))
		out[name] = h
	}
	return out, err
}

// list reads the elements of a set; k tells of which kind they are.
func (s *setConn) list(k set, name string, into map[element]uint32) error {
	msgs, err := s.ask(setList, netlink.Dump, func(e *netlink.AttributeEncoder) { e.String(attrName, name) })
	if err != nil {
		return fmt.Errorf("list set %s: %w", name, err)
	}
	for _, m := range msgs {
		err = errors.Join(err, attributes(m.Data, func(d *netlink.AttributeDecoder) {
			if d.Type() != attrElements {
				return
			}
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					d.Nested(func(d *netlink.AttributeDecoder) error {
						x, mark := decode(k, d)
						into[x] = mark
						return nil
					})
				}
				return nil
			})
		}))
	}
	return err
}

// decode reads an element.
func decode(k set, d *netlink.AttributeDecoder) (element, uint32) {
	x, mark := element{set: k}, uint32(0)
	var who netip.Addr
	bits := -1
	getIP := func(d *netlink.AttributeDecoder) (a netip.Addr) {
		d.Nested(func(d *netlink.AttributeDecoder) error {
			for d.Next() {
				a, _ = netip.AddrFromSlice(d.Bytes())
			}
			return nil
		})
		return a
	}
	for d.Next() {
		switch d.Type() {
		case attrIP:
			x.at.IP = getIP(d)
		case attrIP2:
			who = getIP(d)
		case attrCIDR2:
			bits = int(d.Uint8())
		case attrPort:
			x.at.Port = d.Uint16()
		case attrProto:
			x.at.Proto = net.Proto(d.Uint8())
		case attrSkbMark:
			mark = uint32(d.Uint64() >> 32)
		}
	}
	if who.IsValid() {
		if bits < 0 {
			bits = who.BitLen()
		}
		x.who = netip.PrefixFrom(who, bits)
	}
	return x, mark
}

// attributes calls f for each attribute of a message.
func attributes(data []byte, f func(*netlink.AttributeDecoder)) error {
	if len(data) < 4 {
		return errors.New("the kernel's answer is too short")
	}
	d, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return err
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		f(d)
	}
	return d.Err()
}
