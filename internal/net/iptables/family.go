package iptables

import (
	"net/netip"
	"strconv"
	"strings"

	"nodeagent/internal/net"
)

// fam is what differs between the families.
type fam struct {
	v6       bool
	command  string // what the programs' names begin with
	tables   string // where the kernel tells the legacy tables that there are
	full     string // mask of one address
	refuse   string // how what is not TCP is refused
	loopback netip.Prefix
}

var (
	ipv4 = fam{false, "iptables", "/proc/thread-self/net/ip_tables_names", "255.255.255.255", "icmp-port-unreachable", netip.MustParsePrefix("127.0.0.0/8")}
	ipv6 = fam{true, "ip6tables", "/proc/thread-self/net/ip6_tables_names", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "icmp6-port-unreachable", netip.MustParsePrefix("::1/128")}
)

func (f fam) has(a netip.Addr) bool { return a.Is6() == f.v6 }

func (f fam) of(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		if f.has(p.Addr()) {
			out = append(out, p.Masked())
		}
	}
	return out
}

// Rules are written as iptables-save prints them, so that what is there can be
// compared with what shall be.

// words joins parts that are not empty.
func words(parts ...string) string {
	n := 0
	for _, p := range parts {
		n += len(p) + 1
	}
	var b strings.Builder
	b.Grow(n)
	for _, p := range parts {
		if p == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p)
	}
	return b.String()
}

// within is "-s" or "-d" with a prefix; that of all addresses is not printed.
func within(flag string, p netip.Prefix) string {
	if p.Bits() == 0 {
		return ""
	}
	return flag + " " + p.String()
}

func at(flag string, a netip.Addr) string {
	return flag + " " + netip.PrefixFrom(a, a.BitLen()).String()
}

func proto(p net.Proto) string { return strings.ToLower(p.String()) }

func over(p net.Proto) string { return "-p " + proto(p) }

func dport(p net.Proto, port string) string { return "-m " + proto(p) + " --dport " + port }

func port(n uint16) string { return strconv.Itoa(int(n)) }

// maxComment keeps rules readable; the kernel would take 255 bytes.
const maxComment = 120

// comment is a comment that is safe in the input and output of tools: names come
// from whoever may make Services. One that is empty or needs no quotes would be
// printed in another way; ours have spaces or slashes.
func comment(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' || r == '\'' || r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxComment {
		s = s[:maxComment-3] + "..."
	}
	return `-m comment --comment "` + s + `"`
}
