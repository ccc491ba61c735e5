package news

import (
	"context"
	"errors"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestListen: it says when it listens, ends with ctx, and
// tells why it cannot listen.
func TestListen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begun, heard := 0, 0
	err := Listen(ctx, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, func(netlink.Message) { heard++ }, func() {
		begun++
		cancel()
	})
	if err != nil || begun != 1 || heard != 0 {
		t.Errorf("it ended with %v, began %d times and heard %d messages", err, begun, heard)
	}
	err = Listen(t.Context(), unix.NETLINK_ROUTE, 1<<20, func(netlink.Message) {}, func() { t.Error("it listens to a group that is none") })
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("a group that is none: %v", err)
	}
}
