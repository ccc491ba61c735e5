package iptables

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"slices"
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
	headValue   = 64 // length of the target at the head of a chain
)

// counts change with almost every change of a table.
type counts struct{ entries, size uint32 }

// mark is what a table was when we last looked.
type mark struct {
	counts
	chains []chainSum
}

// chainSum is a chain of ours, both parts hashed; or, under no name, all rules of
// others' chains that lead to one of ours.
type chainSum struct{ name, digest uint64 }

func countsOf(f fam, table string) (counts, error) {
	b := make([]byte, infoLen)
	if err := ask(f, table, getInfo, b); err != nil {
		return counts{}, err
	}
	return counts{binary.NativeEndian.Uint32(b[76:]), binary.NativeEndian.Uint32(b[80:])}, nil
}

// markOf is nothing where the table cannot be read: it differs from all that can.
func (l *left) markOf(f fam, table string) mark {
	for range 3 { // it may grow between the questions
		c, err := countsOf(f, table)
		if err != nil {
			return mark{}
		}
		blob := make([]byte, entriesAt+int(c.size))
		binary.NativeEndian.PutUint32(blob[nameLen:], c.size)
		if err := ask(f, table, getEntries, blob); err == nil {
			return mark{c, sums(blob[entriesAt:], f.shape(), l.seed, l.ours)}
		}
	}
	return mark{}
}

// others tells whether chains differ that are not among those which we wrote
// ourselves. Both lists are sorted.
func (m mark) others(now mark, wrote map[uint64]bool) bool {
	a, b := m.chains, now.chains
	for len(a) > 0 || len(b) > 0 {
		var name uint64
		switch {
		case len(a) > 0 && len(b) > 0 && a[0] == b[0]:
			a, b = a[1:], b[1:]
			continue
		case len(b) == 0 || (len(a) > 0 && a[0].name <= b[0].name):
			name = a[0].name
		default:
			name = b[0].name
		}
		if !wrote[name] {
			return true
		}
		for len(a) > 0 && a[0].name == name {
			a = a[1:]
		}
		for len(b) > 0 && b[0].name == name {
			b = b[1:]
		}
	}
	return false
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

// sums are of our chains, and of others' rules that lead to one, sorted. Where a
// rule leads is an offset in the table, which moves with rules of others; so the
// name of the chain counts in its place.
func sums(blob []byte, s shape, seed maphash.Seed, ours func(string) bool) []chainSum {
	var out []chainSum
	var inside, outside maphash.Hash
	inside.SetSeed(seed)
	outside.SetSeed(seed)
	at, in := uint64(0), false
	end := func() {
		if in {
			out = append(out, chainSum{at, inside.Sum64()})
		}
		inside.Reset()
	}
	walk(blob, s, func(e, target []byte) {
		if isHead(target) {
			end()
			name := text(target[targetValue:])
			at, in = maphash.Bytes(seed, name), ours(string(name))
			return
		}
		to := s.leads(blob, target)
		h := &inside
		if !in {
			if len(to) == 0 || !ours(string(to)) {
				return
			}
			h = &outside
		}
		h.Write(e[:s.target])
		h.Write(e[s.head : len(e)-len(target)])
		if len(to) > 0 {
			h.Write(to)
		} else {
			h.Write(target)
		}
		h.WriteByte('\n')
	})
	end()
	out = append(out, chainSum{outsideOf(seed), outside.Sum64()})
	slices.SortFunc(out, func(a, b chainSum) int { return cmp.Compare(a.name, b.name) })
	return out
}

// outsideOf stands for the name of all chains that are not ours.
func outsideOf(seed maphash.Seed) uint64 { return maphash.Bytes(seed, nil) }

// isHead tells the entry at the head of a chain.
func isHead(target []byte) bool { return string(text(target[targetName:])) == "ERROR" }

// leads is the name of the chain to which a plain target leads, or nothing. Its
// value is where the first rule of that chain is: the chain's head is right before.
func (s shape) leads(blob, target []byte) []byte {
	if target[targetName] != 0 {
		return nil
	}
	at := int(int32(binary.NativeEndian.Uint32(target[targetValue:]))) - s.head - headValue
	if at < 0 || at+s.head+headValue > len(blob) || int(binary.NativeEndian.Uint16(blob[at+s.next:])) != s.head+headValue {
		return nil
	}
	if head := blob[at+s.head : at+s.head+headValue]; isHead(head) {
		return text(head[targetValue:])
	}
	return nil
}

// walk calls f for each entry, with its target, as long as they make sense.
func walk(blob []byte, s shape, f func(e, target []byte)) {
	for at := 0; at+s.head <= len(blob); {
		target := int(binary.NativeEndian.Uint16(blob[at+s.target:]))
		next := int(binary.NativeEndian.Uint16(blob[at+s.next:]))
		if target < s.head || next < target+targetValue+4 || at+next > len(blob) {
			return
		}
		e := blob[at : at+next]
		f(e, e[target:])
		at += next
	}
}

// text is what is before the first zero.
func text(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return b
}
