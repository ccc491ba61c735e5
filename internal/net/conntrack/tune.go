package conntrack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Limits are what the operator makes of the table of connections. Zero leaves a
// value as it is.
type Limits struct {
	// Max is how many connections the kernel remembers. AtLeast: only if it would
	// remember fewer.
	Max     int
	AtLeast bool
	// Established and CloseWait are for how long idle TCP connections are
	// remembered; UDP and UDPStream flows without and with an answer.
	Established, CloseWait, UDP, UDPStream time.Duration
	// Liberal takes TCP packets out of the window for valid.
	Liberal bool
}

// bucketShare: a chain of the kernel's hash table has so many connections when
// the table is full.
const bucketShare = 4

// Tune sets the limits and makes the node forward, where it does not: an endpoint
// is hardly ever on the node itself. root is "/". All of it is tried; what the
// kernel lacks is left out.
func (l Limits) Tune(root string) error {
	sys := filepath.Join(root, "proc/sys/net")
	err := set(filepath.Join(sys, "ipv4/ip_forward"), 1, false)
	errs := []error{err, l.size(root, sys)}
	for key, d := range map[string]time.Duration{
		"nf_conntrack_tcp_timeout_established": l.Established, "nf_conntrack_tcp_timeout_close_wait": l.CloseWait,
		"nf_conntrack_udp_timeout": l.UDP, "nf_conntrack_udp_timeout_stream": l.UDPStream,
	} {
		if d > 0 {
			errs = append(errs, set(filepath.Join(sys, "netfilter", key), int(d/time.Second), false))
		}
	}
	if l.Liberal {
		errs = append(errs, set(filepath.Join(sys, "netfilter/nf_conntrack_tcp_be_liberal"), 1, false))
	}
	return errors.Join(errs...)
}

// size sets how many connections there may be, and makes room for them.
func (l Limits) size(root, sys string) error {
	if l.Max <= 0 {
		return nil
	}
	return errors.Join(
		set(filepath.Join(sys, "netfilter/nf_conntrack_max"), l.Max, l.AtLeast),
		set(filepath.Join(root, "sys/module/nf_conntrack/parameters/hashsize"), l.Max/bucketShare, true),
	)
}

// set writes a number where it is not there already, or a larger one will do. A
// file that is not there belongs to something that the kernel lacks.
func set(path string, value int, atLeast bool) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read a kernel setting: %w", err)
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && (now == value || atLeast && now > value) {
		return nil
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(value)), 0); err != nil {
		return fmt.Errorf("set a kernel setting to %d: %w", value, err)
	}
	return nil
}
