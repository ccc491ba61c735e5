package podnet

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// record is what is known of one sandbox's network. It is written before
// anything is made, so that whatever a crash leaves can be found and undone.
type record struct {
	Sandbox   string       `json:"sandbox"`
	Namespace string       `json:"namespace,omitempty"`
	Name      string       `json:"name,omitempty"`
	UID       string       `json:"uid,omitempty"`
	Netns     string       `json:"netns"`
	Addrs     []netip.Addr `json:"addrs,omitempty"`
	Ports     []port       `json:"ports,omitempty"`
	// Link is the host's end of the veth pair; empty where a plugin made it.
	Link string `json:"link,omitempty"`
	// CNI is the call that made, or is making, the network.
	CNI *cniCall `json:"cni,omitempty"`
	// Done: Setup came to its end.
	Done bool `json:"done,omitempty"`
	// Doomed: Setup failed and its rollback too; nobody but us may ever ask for
	// this sandbox's Teardown.
	Doomed bool `json:"doomed,omitempty"`
	// closing: being taken back. Only in memory; after a restart whoever wanted it
	// gone asks again.
	closing bool
}

const maxRecord = 4 << 20

// decodeRecord checks what was read from a file called name.
func decodeRecord(name string, b []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	if r.Sandbox != name || !plain.MatchString(name) {
		return nil, fmt.Errorf("record is of sandbox %q", r.Sandbox)
	}
	if r.CNI == nil && r.Link != linkName(r.Sandbox) {
		return nil, fmt.Errorf("record names link %q", r.Link)
	}
	for _, a := range r.Addrs {
		if !a.IsValid() {
			return nil, errors.New("record holds no valid address")
		}
	}
	for _, p := range r.Ports {
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

// linkName returns the name of the host's end of a sandbox's veth pair: 65 bits
// of its hash fill the 15 characters that a kernel allows.
func linkName(sandbox string) string {
	sum := sha256.Sum256([]byte(sandbox))
	return linkPrefix + strings.ToLower(base32.HexEncoding.EncodeToString(sum[:]))[:13]
}

const linkPrefix = "na"

// The alias of the host's end repeats what must not be forgotten even when all
// our files are: whose it is and which addresses are taken. The kernel keeps at
// most 255 bytes.
const aliasPrefix = "nodeagent:"

func alias(sandbox string, addrs []netip.Addr) string {
	parts := make([]string, 0, 2)
	for _, a := range addrs {
		parts = append(parts, a.String())
	}
	return aliasPrefix + sandbox + " " + strings.Join(parts, ",")
}

func parseAlias(s string) (sandbox string, addrs []netip.Addr, ok bool) {
	rest, ok := strings.CutPrefix(s, aliasPrefix)
	if !ok {
		return "", nil, false
	}
	sandbox, list, ok := strings.Cut(rest, " ")
	if !ok || !plain.MatchString(sandbox) {
		return "", nil, false
	}
	for one := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddr(one)
		if err != nil || a.Zone() != "" {
			return "", nil, false
		}
		addrs = append(addrs, a)
	}
	return sandbox, addrs, len(addrs) <= 2
}
