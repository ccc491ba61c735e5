package iptables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's own view of a legacy table, by the two questions that the
// programs ask it first. What is a rule in it is read only as far as to skip its
// counters, and to know the chain in which it stands.

// Options of getsockopt, the same in both families, and lengths of structures of
// include/uapi/linux/netfilter_ipv4/ip_tables.h and its sibling.
const (
	getInfo    = 64 // IPT_SO_GET_INFO
	getEntries = 65 // IPT_SO_GET_ENTRIES
	nameLen    = 32
	infoLen    = 84
	entriesAt  = 40
)

// shape is where in an entry things stand.
type shape struct {
	level, family int
	target, next  int // offsets
	head          int // where its matches begin
}

var (
	shape4 = shape{unix.SOL_IP, unix.AF_INET, 88, 90, 112}
	shape6 = shape{unix.SOL_IPV6, unix.AF_INET6, 140, 142, 168}
)

func (f fam) shape() shape {
	if f.v6 {
		return shape6
	}
	return shape4
}

// A target is its length, its name, and its value: for the plain one, without a
// name, where to go; for "ERROR" at the head of a chain, the chain's name.
const (
	targetName  = 2
	targetValue = 32
)

// counts change with almost every change of a table.
type counts struct{ entries, size uint32 }

// mark is what a table was when we last looked.
type mark struct {
	counts
	digest uint64 // of what is ours
}

func countsOf(f fam, table string) (counts, error) {
	b := make([]byte, infoLen)
	if err := ask(f, table, getInfo, b); err != nil {
		return counts{}, err
	}
	return counts{binary.NativeEndian.Uint32(b[76:]), binary.NativeEndian.Uint32(b[80:])}, nil
}

// markOf is nothing where the table cannot be read: it differs from all that can.
func (b *Backend) markOf(f fam, table string) mark {
	for range 3 { // it may grow between the questions
		c, err := countsOf(f, table)
		if err != nil {
			return mark{}
		}
		blob := make([]byte, entriesAt+int(c.size))
		binary.NativeEndian.PutUint32(blob[nameLen:], c.size)
		if err := ask(f, table, getEntries, blob); err == nil {
			return mark{c, digest(blob[entriesAt:], f.shape(), b.seed, b.ours)}
		}
	}
	return mark{}
}

// ask asks the kernel about a table; the answer overwrites the question.
func ask(f fam, table string, what int, b []byte) error {
	s := f.shape()
	fd, err := unix.Socket(s.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	copy(b[:nameLen], table)
	n := uint32(len(b))
	_, _, no := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(s.level), uintptr(what),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if no != 0 {
		return no
	}
	if int(n) != len(b) {
		return errors.New("the kernel's answer has another length")
	}
	return nil
}

// digest is of the rules in our chains, and of those that lead to one. Where a
// rule leads is an offset in the table, which moves with rules of others; so the
// name of the chain counts in its place.
func digest(blob []byte, s shape, seed maphash.Seed, ours func(string) bool) uint64 {
	chains := map[int]string{} // by where their first rule is
	walk(blob, s, func(at int, e, target []byte) {
		if text(target[targetName:]) == "ERROR" {
			chains[at+len(e)] = text(target[targetValue:])
		}
	})
	var h maphash.Hash
	h.SetSeed(seed)
	in := false
	walk(blob, s, func(at int, e, target []byte) {
		if name, ok := chains[at+len(e)]; ok && text(target[targetName:]) == "ERROR" {
			if in = ours(name); in {
				h.WriteString(name)
			}
			return
		}
		to, plain := "", text(target[targetName:]) == ""
		if plain {
			to = chains[int(int32(binary.NativeEndian.Uint32(target[targetValue:])))]
		}
		if !in && !ours(to) {
			return
		}
		h.Write(e[:s.target])
		h.Write(e[s.head : len(e)-len(target)])
		if plain && to != "" {
			h.WriteString(to)
		} else {
			h.Write(target)
		}
		h.WriteByte('\n')
	})
	return h.Sum64()
}

// walk calls f for each entry, with its target, as long as they make sense.
func walk(blob []byte, s shape, f func(at int, e, target []byte)) {
	for at := 0; at+s.head <= len(blob); {
		target := int(binary.NativeEndian.Uint16(blob[at+s.target:]))
		next := int(binary.NativeEndian.Uint16(blob[at+s.next:]))
		if target < s.head || next < target+targetValue+4 || at+next > len(blob) {
			return
		}
		e := blob[at : at+next]
		f(at, e, e[target:])
		at += next
	}
}

// text is what is before the first zero.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
