package hosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	stdnet "net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// SCTP is spoken by raw sockets, as far as rules of services have a part in it: the
// first packet of an association, INIT, and the answer to it, INIT ACK. The kernel
// follows and translates these whether or not it speaks SCTP itself, and fewer kernels
// do than translate it. The checksum is looked at on both ends, for who translates a
// port has to make it anew.

// The chunks.
const (
	sctpInit    = 1
	sctpInitAck = 2
)

// sctpRaw is a raw socket's network, by the protocol's number.
func sctpRaw(v6 bool) string {
	if v6 {
		return "ip6:132"
	}
	return "ip4:132"
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sctpPacket is one with one chunk that begins an association, or agrees to. What it
// has to say is a parameter that whoever does not know it skips.
func sctpPacket(from, to uint16, tag uint32, chunk byte, ownTag uint32, says string) []byte {
	for len(says)%4 != 0 {
		says += "\x00"
	}
	be := binary.BigEndian
	b := be.AppendUint16(nil, from)
	b = be.AppendUint16(b, to)
	b = be.AppendUint32(b, tag)
	b = be.AppendUint32(b, 0) // checksum
	b = append(b, chunk, 0)
	b = be.AppendUint16(b, uint16(20+4+len(says)))
	b = be.AppendUint32(b, ownTag)
	b = be.AppendUint32(b, 1<<16) // window
	b = be.AppendUint16(b, 1)     // streams out
	b = be.AppendUint16(b, 1)     // and in
	b = be.AppendUint32(b, 1)     // first TSN
	b = be.AppendUint16(b, 0x8001)
	b = be.AppendUint16(b, uint16(4+len(says)))
	b = append(b, says...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// sctpSeen is such a packet as it came in.
type sctpSeen struct {
	from, to    uint16
	tag, ownTag uint32
	chunk       byte
	says        string
}

func parseSCTP(b []byte) (sctpSeen, error) {
	if len(b) < 16 {
		return sctpSeen{}, errors.New("it is too short")
	}
	b = append([]byte(nil), b...)
	sum := binary.LittleEndian.Uint32(b[8:])
	clear(b[8:12])
	if sum != crc32.Checksum(b, castagnoli) {
		return sctpSeen{}, errors.New("the checksum is wrong")
	}
	be := binary.BigEndian
	s := sctpSeen{from: be.Uint16(b), to: be.Uint16(b[2:]), tag: be.Uint32(b[4:]), chunk: b[12]}
	if len(b) >= 36 {
		s.ownTag, s.says = be.Uint32(b[16:]), strings.TrimRight(string(b[36:]), "\x00")
	}
	return s, nil
}

// serveSCTP agrees to each association with a port, and says who it is.
func (h *Host) serveSCTP(t testing.TB, port int) error {
	for _, v6 := range []bool{false, true} {
		p, err := stdnet.ListenPacket(sctpRaw(v6), h.Addr(v6).String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { p.Close() })
		go func() {
			b := make([]byte, 1500)
			for {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				in, err := parseSCTP(b[:n])
				switch {
				case err != nil:
					t.Errorf("%s hears an SCTP packet of %s: %v", h.Name, from, err)
				case in.chunk == sctpInit && int(in.to) == port:
					_, _ = p.WriteTo(sctpPacket(in.to, in.from, in.ownTag, sctpInitAck, 1, h.says(from)), from)
				}
			}
		}()
	}
	return nil
}

// sctpPorts gives each call a port of its own: what comes late is none of the next's.
var sctpPorts atomic.Uint32

// callSCTP begins an association and returns what the answer to that says.
func (h *Host) callSCTP(to netip.AddrPort, wait time.Duration) (string, error) {
	var c *stdnet.IPConn
	var err error
	h.Do(func() { c, err = stdnet.DialIP(sctpRaw(to.Addr().Is6()), nil, &stdnet.IPAddr{IP: to.Addr().AsSlice()}) })
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	n := sctpPorts.Add(1)
	port, tag := uint16(20000+n%20000), n|1<<31
	if _, err := c.Write(sctpPacket(port, to.Port(), 0, sctpInit, tag, "")); err != nil {
		return "", err
	}
	b := make([]byte, 1500)
	for {
		k, _, err := c.ReadFrom(b) // unlike Read it leaves the header of IPv4 out
		if err != nil {
			return "", err
		}
		in, err := parseSCTP(b[:k])
		switch {
		case err != nil:
			return "", fmt.Errorf("read the answer: %w", err)
		case in.chunk == sctpInitAck && in.to == port && in.from == to.Port() && in.tag == tag:
			return in.says, nil
		}
	}
}
