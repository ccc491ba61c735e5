package nftables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net/news"
	"nodeagent/internal/test/need"
)

// TestProbe: a kernel that can hold our rules says so, and nothing stays of the
// question; one that cannot is told from one that fails at the moment.
func TestProbe(t *testing.T) {
	need.Have(t, need.Root)
	must(t, Probe())
	if left := nft(t, "list", "tables"); strings.Contains(left, "probe") {
		t.Errorf("the probe is still there: %s", left)
	}
	for err, want := range map[error]bool{
		fmt.Errorf("open: %w", unix.EPROTONOSUPPORT): true, unix.EOPNOTSUPP: true,
		unix.EPERM: false, unix.ENOBUFS: false, errors.New("i/o timeout"): false, nil: false,
	} {
		if IsMissing(err) != want {
			t.Errorf("%v means that nftables is missing: %v", err, !want)
		}
	}
}

// TestProbeIsSeen: the question is really put, and all of it: the kernel tells of each
// set and chain that our rules need.
func TestProbeIsSeen(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := New(Config{})
	must(t, err)
	wanted := slices.Collect(maps.Keys(b.sets))
	for _, ch := range b.fixed() {
		wanted = append(wanted, ch.name)
	}
	listens, done := make(chan struct{}), make(chan struct{})
	var told [][]byte
	go func() {
		defer close(done)
		ctx, stop := context.WithCancel(ctx)
		_ = news.Listen(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m netlink.Message) {
			switch {
			case bytes.Contains(m.Data, []byte("nodeagent-probe")):
				told = append(told, bytes.Clone(m.Data))
			case bytes.Contains(m.Data, []byte("sentinel")):
				stop()
			}
		}, sync.OnceFunc(func() { close(listens) }))
	}()
	<-listens
	must(t, Probe())
	nft(t, "add table inet sentinel")
	defer nft(t, "delete table inet sentinel")
	<-done
	for _, name := range wanted {
		if !slices.ContainsFunc(told, func(m []byte) bool { return bytes.Contains(m, []byte(name+"\x00")) }) {
			t.Errorf("the kernel was not asked for %s", name)
		}
	}
}
