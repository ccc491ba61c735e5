package podnet

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net/news"
)

// watchConf wakes Run when something happens in the CNI configuration
// directory, or in the nearest directory above that exists.
func (n *Network) watchConf(ctx context.Context) {
	if n.cfg.CNIConfDir == "" {
		return
	}
	for ctx.Err() == nil {
		if err := n.watchConfOnce(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("cannot watch the cni configuration; trying again", "error", err)
			pause(ctx, retryMost)
		}
	}
}

// watchConfOnce ends without an error when the directory to watch is another
// one now.
func (n *Network) watchConfOnce(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	dir := nearest(n.cfg.CNIConfDir)
	if err := w.Add(dir); err != nil {
		return err
	}
	n.kick() // what changed before the watch began
	if nearest(n.cfg.CNIConfDir) != dir {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err, ok := <-w.Errors:
			if !ok || !errors.Is(err, fsnotify.ErrEventOverflow) {
				return err
			}
			n.kick()
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if !onTheWay(e.Name, n.cfg.CNIConfDir) {
				continue
			}
			n.kick()
			if nearest(n.cfg.CNIConfDir) != dir || (e.Has(fsnotify.Remove|fsnotify.Rename) && e.Name == dir) {
				return nil
			}
		}
	}
}

// nearest returns dir or the closest directory above it that exists.
func nearest(dir string) string {
	for {
		if st, err := os.Stat(dir); (err == nil && st.IsDir()) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// onTheWay tells whether a change of path concerns dir: it is in it, is dir, or
// is a directory above it.
func onTheWay(path, dir string) bool {
	return filepath.Dir(path) == dir || path == dir || strings.HasPrefix(dir, path+"/")
}

// watchRules wakes Run when somebody takes away from our table, or changes the
// FORWARD chain of the host.
func (n *Network) watchRules(ctx context.Context) {
	table := n.ruleSet().name
	n.listen(ctx, "firewall", n.cfg.Services, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m mdl.Message) {
		if concerns(m, table) {
			n.kick()
		}
	})
}

// concerns tells whether an event of nf_tables may have hurt us.
func concerns(m mdl.Message, table string) bool {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return false
	}
	switch uint16(m.Header.Type) & 0xff {
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_NEWGEN: // each change of a service
		return false
	}
	a, err := mdl.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return false
	}
	// Table, chain and rule messages have the table's name in the first
	// attribute; a rule has its chain's in the second, a chain its own in the
	// third.
	names := [4]string{}
	for a.Next() {
		if t := a.Type(); t < 4 {
			names[t] = strings.TrimRight(string(a.Bytes()), "\x00")
		}
	}
	switch uint16(m.Header.Type) & 0xff {
	case unix.NFT_MSG_DELTABLE:
		return names[1] == table
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		return (names[1] == table && uint16(m.Header.Type)&0xff == unix.NFT_MSG_DELCHAIN) ||
			(names[1] == "filter" && names[3] == "FORWARD")
	case unix.NFT_MSG_DELRULE:
		return names[1] == table || (names[1] == "filter" && (names[2] == "FORWARD" || names[2] == forwardChain))
	case unix.NFT_MSG_DELSET:
		return names[1] == table
	}
	return false
}

// watchLinks wakes Run when the bridge goes, and tells of pods' interfaces that
// went.
func (n *Network) watchLinks(ctx context.Context) {
	n.listen(ctx, "interfaces", nil, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, func(m mdl.Message) {
		if m.Header.Type != unix.RTM_DELLINK {
			return
		}
		name, ok := linkOf(m.Data)
		if !ok {
			return
		}
		if name == n.cfg.Bridge {
			n.kick()
			return
		}
		n.linkGone(name)
	})
}

// linkOf returns the interface's name of a deletion. A port that merely leaves
// a bridge is told of as one, too, with the family AF_BRIDGE.
func linkOf(data []byte) (string, bool) {
	if len(data) < unix.SizeofIfInfomsg || data[0] != unix.AF_UNSPEC {
		return "", false
	}
	a, err := mdl.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return "", false
	}
	a.ByteOrder = binary.NativeEndian
	for a.Next() {
		if a.Type() == unix.IFLA_IFNAME {
			return a.String(), true
		}
	}
	return "", false
}

func (n *Network) linkGone(name string) {
	n.mu.Lock()
	lost := ""
	for _, r := range n.recs {
		if r.Link == name && r.Done {
			lost = r.Sandbox
		}
	}
	n.mu.Unlock()
	if lost != "" && n.cfg.Lost != nil {
		n.cfg.Lost(lost)
	}
}

// listen calls f with each message of a multicast group until ctx ends, but for what
// came by one of these sockets.
func (n *Network) listen(ctx context.Context, what string, but *news.Own, family int, group uint32, f func(mdl.Message)) {
	for ctx.Err() == nil {
		if err := but.Others(ctx, family, group, f, n.kick); err != nil && ctx.Err() == nil {
			n.log.Warn("lost the kernel's news; trying again", "of", what, "error", err)
			pause(ctx, retryFirst)
		}
	}
}
