package gather

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"

	"nodeagent/internal/hostcheck"
)

// kubeHint is the chain that kubelet leaves for who must know which kind of
// iptables the host uses.
const kubeHint = "KUBE-IPTABLES-HINT"

// firewall counts the rules of both kinds of iptables and finds who drops
// forwarded packets.
func (g *gatherer) firewall(ctx context.Context) (see, error) {
	n := &hostcheck.Firewall{NftRules: -1, OldRules: -1}
	errs := []error{countNft(ctx, n), countOld(ctx, n)}
	if conf, err := text("/etc/ufw/ufw.conf"); err == nil && strings.Contains("\n"+conf, "\nENABLED=yes") && n.Dropping != "" {
		n.Service = "ufw"
	}
	return func(f *hostcheck.Facts) { f.Firewall = n }, errors.Join(errs...)
}

// enough rules were counted; a node with many services has many thousands.
const enough = 1000

// countNft counts the rules in the tables that iptables-nft uses.
func countNft(ctx context.Context, n *hostcheck.Firewall) error {
	c, err := nft(ctx)
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return fmt.Errorf("list chains of nf_tables: %w", err)
	}
	n.NftRules = 0
	for _, ch := range chains {
		t := ch.Table
		if t.Family == nftables.TableFamilyINet && t.Name == "firewalld" {
			n.Service, n.Dropping = "firewalld", "firewalld has its table"
		}
		if (t.Family != nftables.TableFamilyIPv4 && t.Family != nftables.TableFamilyIPv6) ||
			!slices.Contains([]string{"filter", "nat", "mangle", "raw", "security"}, t.Name) {
			continue
		}
		if ch.Name == kubeHint {
			n.KubeHint = "iptables-nft"
		}
		if t.Name == "filter" && ch.Name == "FORWARD" && ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
			n.Dropping = "the policy of iptables-nft's FORWARD is DROP"
		}
		if n.NftRules >= enough {
			continue
		}
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return fmt.Errorf("list rules of chain %s: %w", ch.Name, err)
		}
		n.NftRules += len(rules)
	}
	return nil
}

// countOld counts the rules of the old kind. Its tables exist only when somebody
// asked for them, so that looking makes none.
func countOld(ctx context.Context, n *hostcheck.Firewall) error {
	n.OldRules = 0
	for _, f := range []struct{ names, tool string }{
		{"/proc/self/net/ip_tables_names", "iptables"}, {"/proc/self/net/ip6_tables_names", "ip6tables"},
	} {
		names, err := text(f.names)
		if errors.Is(err, fs.ErrNotExist) || err == nil && names == "" {
			continue
		}
		if err != nil {
			n.OldRules = -1
			return errNotRoot
		}
		path, err := exec.LookPath(f.tool + "-legacy-save")
		if err != nil {
			continue // rules that no tool here can have made; the kernel does not show them otherwise
		}
		out, err := exec.CommandContext(ctx, path).Output()
		if err != nil {
			n.OldRules = -1
			return fmt.Errorf("list rules with %s: %w", path, err)
		}
		for line := range strings.Lines(string(out)) {
			switch {
			case strings.HasPrefix(line, "-A "):
				n.OldRules++
			case strings.HasPrefix(line, ":"+kubeHint+" "):
				n.KubeHint = "iptables-legacy"
			case strings.HasPrefix(line, ":FORWARD DROP"):
				n.Dropping = "the policy of iptables-legacy's FORWARD is DROP"
			}
		}
	}
	return nil
}
