package podnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"github.com/google/nftables"
)

// forwardChain holds our two rules for the host's FORWARD chain.
const forwardChain = "NODEAGENT-FORWARD"

// allowForward lets packets of pods through the node's own FORWARD chain where
// its policy is DROP, as a container engine or an administrator may have set
// it: an accept in a table of ours cannot undo a drop in another. It is done
// with the tool whose rules those are.
func allowForward(ctx context.Context, bridge string, v4, v6 bool) error {
	var errs []error
	for _, f := range []struct {
		on     bool
		proto  iptables.Protocol
		family nftables.TableFamily
		names  string // of the tables of the old kind
		tool   string
	}{
		{v4, iptables.ProtocolIPv4, nftables.TableFamilyIPv4, "/proc/thread-self/net/ip_tables_names", "iptables"},
		{v6, iptables.ProtocolIPv6, nftables.TableFamilyIPv6, "/proc/thread-self/net/ip6_tables_names", "ip6tables"},
	} {
		if !f.on {
			continue
		}
		if dropsNft(ctx, f.family) {
			errs = append(errs, acceptIn(f.tool, f.proto, bridge))
		}
		legacy := f.tool + "-legacy"
		if hasFilter(f.names) {
			if _, err := exec.LookPath(legacy); err != nil {
				legacy = f.tool
			}
			errs = append(errs, acceptIn(legacy, f.proto, bridge))
		}
	}
	return errors.Join(errs...)
}

// dropsNft tells whether the chain that iptables-nft calls FORWARD drops.
func dropsNft(ctx context.Context, family nftables.TableFamily) bool {
	c, err := nftConn(deadlineOf(ctx))
	if err != nil {
		return false
	}
	chains, err := c.ListChainsOfTableFamily(family)
	if err != nil {
		return false
	}
	for _, ch := range chains {
		if ch.Table.Name == "filter" && ch.Name == "FORWARD" && ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
			return true
		}
	}
	return false
}

// hasFilter tells whether the old kind of iptables has a filter table in this
// network namespace. It tells nobody when its rules change.
func hasFilter(names string) bool {
	b, err := os.ReadFile(names)
	return err == nil && strings.Contains("\n"+string(b), "\nfilter\n")
}

// acceptIn adds the rules with one tool, if its FORWARD chain drops.
func acceptIn(tool string, proto iptables.Protocol, bridge string) error {
	path, err := exec.LookPath(tool)
	if err != nil {
		return fmt.Errorf("let pods through the FORWARD chain, whose policy is DROP: %w", err)
	}
	ipt, err := iptables.New(iptables.IPFamily(proto), iptables.Path(path), iptables.Timeout(5))
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", tool, err)
	}
	rules, err := ipt.List("filter", "FORWARD")
	if err != nil {
		return fmt.Errorf("list the FORWARD chain with %s: %w", tool, err)
	}
	if len(rules) == 0 || rules[0] != "-P FORWARD DROP" {
		return nil
	}
	if ok, err := ipt.ChainExists("filter", forwardChain); err == nil && !ok {
		if err := ipt.NewChain("filter", forwardChain); err != nil {
			return fmt.Errorf("make chain %s with %s: %w", forwardChain, tool, err)
		}
	}
	for _, dir := range []string{"-i", "-o"} {
		if err := ipt.AppendUnique("filter", forwardChain, dir, bridge, "-j", "ACCEPT"); err != nil {
			return fmt.Errorf("accept pods' packets with %s: %w", tool, err)
		}
	}
	if err := ipt.InsertUnique("filter", "FORWARD", 1, "-j", forwardChain); err != nil {
		return fmt.Errorf("let the FORWARD chain call ours with %s: %w", tool, err)
	}
	return nil
}
