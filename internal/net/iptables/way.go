package iptables

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"nodeagent/internal/net"
)

// step tells which branch leads to an address at some depth: what it adds to the
// chain's name, and the match. No name: the way ends.
type step func(at net.Address, depth int) (name, match string)

// The ways: eight steps of two bits of the address, the last ones first, since these are
// what differs; then two steps of the port.
const (
	addressBits  = 2
	addressSteps = 8
)

func byAddress(f fam, flag string) step {
	return func(at net.Address, depth int) (name, match string) {
		if depth >= addressSteps {
			return "", ""
		}
		b := at.IP.AsSlice()
		low := uint16(b[len(b)-2])<<8 | uint16(b[len(b)-1])
		first := addressBits * depth
		mask := uint16(1<<addressBits-1) << first
		return strconv.Itoa(int(low&mask) >> first), flag + " " + f.low(low&mask) + "/" + f.low(mask)
	}
}

// low is an address of which only the last two bytes are set.
func (f fam) low(n uint16) string {
	if f.v6 {
		return netip.AddrFrom16([16]byte{14: byte(n >> 8), 15: byte(n)}).String()
	}
	return netip.AddrFrom4([4]byte{2: byte(n >> 8), 3: byte(n)}).String()
}

// byPort has 256 ports of a protocol in a first step, and 16 in a second.
func byPort(at net.Address, depth int) (name, match string) {
	size := uint16(256)
	switch depth {
	case 0:
		name = fmt.Sprintf("%c%02x", proto(at.Proto)[0], at.Port>>8)
	case 1:
		name, size = fmt.Sprintf("%x", at.Port>>4&15), 16
	default:
		return "", ""
	}
	first := at.Port &^ (size - 1)
	return name, words(over(at.Proto), dport(at.Proto, port(first)+":"+port(first+(size-1))))
}

// wholePort is in how many steps byWholePort tells a protocol and a port.
const wholePort = 5

// byWholePort begins with the protocol, and has then a digit of the port a step, so that
// the last one leaves one port.
func byWholePort(at net.Address, depth int) (name, match string) {
	if depth == 0 {
		return proto(at.Proto)[:1], over(at.Proto)
	}
	rest := 4 * (wholePort - 1 - depth)
	name = strconv.FormatUint(uint64(at.Port>>rest&15), 16)
	first := at.Port >> rest << rest
	which := port(first)
	if rest > 0 {
		which += ":" + port(first|(1<<rest-1))
	}
	return name, words(over(at.Proto), dport(at.Proto, which))
}

// byPortAndAddress is for addresses of which many have the same port.
func byPortAndAddress(f fam) step { return inTurn(byWholePort, wholePort, byAddress(f, "-d")) }

func byAddressAndPort(f fam) step { return inTurn(byAddress(f, "-d"), addressSteps, byPort) }

// inTurn goes so many steps by one way, and then on by another.
func inTurn(first step, steps int, then step) step {
	return func(at net.Address, depth int) (name, match string) {
		if depth < steps {
			return first(at, depth)
		}
		return then(at, depth-steps)
	}
}

// depthOf is how far from the root a chain of a tree is, by its name.
func depthOf(chain string) int { return len(chain) - strings.LastIndexByte(chain, '-') }
