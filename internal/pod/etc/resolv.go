package etc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxResolvBytes is the largest resolv.conf that is read, as in kubelet.
const maxResolvBytes = 10 << 20

// ResolvConf is what resolv.conf(5) says, without comments.
type ResolvConf struct {
	Servers  []string
	Searches []string
	Options  []string // "name" or "name:value", each name once
}

// ParseResolvConf reads a resolv.conf(5) as kubelet reads the node's: name
// servers accumulate, the last search line wins, each option's last value wins.
// "domain" and what nobody knows are ignored, and a name server line without an
// address too, as the C library ignores it. A dot after a search domain is
// dropped, so that one domain counts once; the root domain alone is dropped.
//
// It fails only where the text is longer than 10 MiB.
func ParseResolvConf(text []byte) (ResolvConf, error) {
	if len(text) > maxResolvBytes {
		return ResolvConf{}, fmt.Errorf("read resolv.conf: %d bytes are more than the limit of %d", len(text), maxResolvBytes)
	}
	var r ResolvConf
	for line := range strings.SplitSeq(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || slices.ContainsFunc(fields, breaksLine) {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) > 1 {
				r.Servers = append(r.Servers, fields[1])
			}
		case "search":
			r.Searches = nil
			for _, s := range fields[1:] {
				if s = strings.TrimRight(s, "."); s != "" {
					r.Searches = append(r.Searches, s)
				}
			}
		case "options":
			r.Options = mergeOptions(r.Options, fields[1:])
		}
	}
	return r, nil
}

// Text is the file, in the order in which containerd's CRI plugin writes it. It
// is empty where nothing is known.
func (r ResolvConf) Text() []byte {
	var b strings.Builder
	if len(r.Searches) > 0 {
		b.WriteString("search " + strings.Join(r.Searches, " ") + "\n")
	}
	for _, s := range r.Servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.Options) > 0 {
		b.WriteString("options " + strings.Join(r.Options, " ") + "\n")
	}
	return []byte(b.String())
}

// OnlyLoopback says that every name server is an address of the node's own
// loopback, as with systemd-resolved's stub 127.0.0.53. A pod with a network of
// its own cannot reach it, and a cluster DNS that forwards to it asks itself;
// the caller then reads /run/systemd/resolve/resolv.conf instead.
func (r ResolvConf) OnlyLoopback() bool {
	for _, s := range r.Servers {
		ip, err := netip.ParseAddr(s)
		if err != nil || !ip.IsLoopback() {
			return false
		}
	}
	return len(r.Servers) > 0
}

// mergeOptions adds options to a list, where the last one of a name wins and
// keeps the place of the first.
func mergeOptions(have, more []string) []string {
	merged := make([]string, 0, len(have)+len(more))
	place := make(map[string]int, len(have)+len(more))
	for _, o := range slices.Concat(have, more) {
		name, _, _ := strings.Cut(o, ":")
		if at, ok := place[name]; ok {
			merged[at] = o
			continue
		}
		place[name] = len(merged)
		merged = append(merged, o)
	}
	return merged
}
