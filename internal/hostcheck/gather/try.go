package gather

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/google/nftables"
	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/hostcheck"
)

func now() time.Time { return time.Now() }

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// apart runs f on a thread that has left the namespaces named by the flags and
// ends after it, so that nothing else ever runs in what f made.
func apart(flags int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The leader's namespaces would stay for ever. It is held while
			// another thread does it.
			done <- apart(flags, f)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Unshare(flags); err != nil {
			done <- fmt.Errorf("leave the namespaces: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// tryOverlay mounts an overlay on a tmpfs in a mount namespace of its own.
func (g *gatherer) tryOverlay(context.Context) (see, error) {
	if os.Geteuid() != 0 {
		return nil, errNotRoot
	}
	said := ""
	err := apart(unix.CLONE_FS|unix.CLONE_NEWNS, func() error {
		if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		at := "/run"
		if err := unix.Mount("nodeagent-check", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=700"); err != nil {
			return fmt.Errorf("mount a tmpfs: %w", err)
		}
		for _, d := range []string{"lower", "upper", "work", "merged"} {
			if err := os.Mkdir(filepath.Join(at, d), 0o700); err != nil {
				return err
			}
		}
		opts := "lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work"
		err := unix.Mount("overlay", filepath.Join(at, "merged"), "overlay", 0, opts)
		switch {
		case errors.Is(err, unix.ENODEV):
			said = "the kernel has no overlay file system, and could not load the module"
		case err != nil:
			said = err.Error()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return func(f *hostcheck.Facts) { tried(f).Overlay = &said }, nil
}

func tried(f *hostcheck.Facts) *hostcheck.Tried {
	if f.Tried == nil {
		f.Tried = &hostcheck.Tried{}
	}
	return f.Tried
}

// tryNetwork makes the kinds of interfaces and tables that the pod network is
// made of, in a network namespace of its own.
func (g *gatherer) tryNetwork(ctx context.Context) (see, error) {
	if os.Geteuid() != 0 {
		return nil, errNotRoot
	}
	var t hostcheck.Tried
	err := apart(unix.CLONE_NEWNET, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		_ = h.SetSocketTimeout(g.Limit)
		t.Bridge = said(h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "na-check"}}))
		t.Veth = said(h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "na-check0"}, PeerName: "na-check1"}))
		t.Nftables = said(tryTable(ctx))
		if *t.Nftables != "" {
			t.Legacy = said(tryLegacy(ctx))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return func(f *hostcheck.Facts) {
		t.Overlay = tried(f).Overlay
		f.Tried = &t
	}, nil
}

func said(err error) *string {
	s := ""
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		s = "the kernel has no such thing, and could not load the module"
	case err != nil:
		s = err.Error()
	}
	return &s
}

// nft is a connection that only reads or tries.
func nft(ctx context.Context) (*nftables.Conn, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = now().Add(Limit)
	}
	return nftables.New(nftables.WithSockOptions(func(c *mdnetlink.Conn) error { return c.SetDeadline(deadline) }))
}

// tryTable makes a table with a chain that translates and one masquerading rule.
func tryTable(ctx context.Context) error {
	c, err := nft(ctx)
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "nodeagent-check", Family: nftables.TableFamilyINet})
	c.AddChain(&nftables.Chain{
		Name: "post", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	return c.Flush()
}

// tryLegacy lists the old kind's nat table, which the kernel makes for that. The
// process inherits the thread's namespace.
func tryLegacy(ctx context.Context) error {
	for _, name := range []string{"iptables-legacy", "iptables"} {
		if path, err := exec.LookPath(name); err == nil {
			out, err := exec.CommandContext(ctx, path, "-w", "1", "-t", "nat", "-S").CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %.200s", name, err, out)
			}
			return nil
		}
	}
	return errors.New("there is no iptables")
}
