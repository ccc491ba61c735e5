package iptables

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// choose finds the programs, once.
func (b *Backend) choose(ctx context.Context) ([]tool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tools != nil {
		return b.tools, nil
	}
	flavour := b.cfg.Flavour
	if flavour == "" {
		var err error
		if flavour, err = Detect(ctx); err != nil {
			return nil, err
		}
	}
	tools, err := toolsOf(ctx, flavour)
	if err != nil {
		return nil, err
	}
	b.tools = tools
	return tools, nil
}

// toolsOf finds the programs of a flavour, one for each family of this kernel.
func toolsOf(ctx context.Context, flavour Flavour) ([]tool, error) {
	var out []tool
	for _, f := range []fam{ipv4, ipv6} {
		if f.v6 && !hasIPv6() {
			continue
		}
		t, err := find(ctx, f, flavour)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// Detect tells which flavour the node's other software uses: rules of both would
// not know of each other. As kubelet's chains say it, where there are some; else
// that with more rules; else what the plain iptables is.
func Detect(ctx context.Context) (Flavour, error) {
	var found []Flavour
	rules := map[Flavour]int{}
	var errs []error
	for _, flavour := range []Flavour{NFT, Legacy} {
		tools, err := toolsOf(ctx, flavour)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		hint, n, err := look(ctx, tools)
		switch {
		case err != nil:
			errs = append(errs, err) // the programs are there, the kernel has none of it
			continue
		case hint:
			return flavour, nil
		}
		found, rules[flavour] = append(found, flavour), n
	}
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("find an iptables that works: %w", errors.Join(errs...))
	case len(found) == 1 || rules[NFT] > rules[Legacy]:
		return found[0], nil
	case rules[Legacy] > rules[NFT]:
		return Legacy, nil
	}
	if path, err := exec.LookPath(ipv4.command); err == nil {
		if v, err := version(ctx, path); err == nil {
			return v.flavour, nil
		}
	}
	return NFT, nil
}

// hints are chains that kubelet and kube-proxy make for this very question.
var hints = []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY", "KUBE-PROXY-CANARY"}

// look counts the rules of a flavour and looks for a hint.
func look(ctx context.Context, tools []tool) (hint bool, rules int, err error) {
	for _, t := range tools {
		if !t.has("") {
			continue
		}
		err := t.read(ctx, "", func(r io.Reader) error {
			s := bufio.NewScanner(r)
			for s.Scan() {
				line := s.Text()
				if strings.HasPrefix(line, "-A ") {
					rules++
				}
				for _, h := range hints {
					hint = hint || strings.HasPrefix(line, ":"+h+" ")
				}
			}
			return s.Err()
		})
		if err != nil {
			return false, 0, err
		}
	}
	return hint, rules, nil
}
