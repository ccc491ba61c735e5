package nftables

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// TestProbeIsSeen: the question is really put: the kernel tells of a table.
func TestProbeIsSeen(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	listens, seen := make(chan struct{}), make(chan struct{}, 100)
	go func() {
		_ = news.Listen(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m netlink.Message) {
			if strings.Contains(string(m.Data), "nodeagent-probe") {
				seen <- struct{}{}
			}
		}, func() { close(listens) })
	}()
	<-listens
	must(t, Probe())
	select {
	case <-seen:
	case <-ctx.Done():
		t.Error("the kernel was not asked")
	}
}
