package podnet

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openNetns opens a network namespace by path and makes sure that it is one,
// and not the node's own: an error in a path must never reconfigure the node.
func openNetns(path string) (*os.File, error) {
	if path == "" {
		return nil, errors.New("open pod network namespace: no path given")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open pod network namespace: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil, fmt.Errorf("open pod network namespace %s: not a namespace", path)
	}
	if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		f.Close()
		return nil, fmt.Errorf("open pod network namespace %s: not a network namespace", path)
	}
	var pod, host unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &pod), unix.Stat("/proc/thread-self/ns/net", &host)); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat pod network namespace %s: %w", path, err)
	}
	if pod.Ino == host.Ino && pod.Dev == host.Dev {
		f.Close()
		return nil, fmt.Errorf("use network namespace %s for a pod: it is the node's own", path)
	}
	return f, nil
}

// inNetns runs fn on a thread that is in the namespace ns. A thread that cannot
// be brought back is not unlocked, so that the runtime destroys it with its
// goroutine and no other goroutine ever runs there.
func inNetns(ns *os.File, fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("enter pod network namespace: %w", err)
			return
		}
		err = fn()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// routesIn opens a routing socket in the namespace ns, having done first there.
func routesIn(ns *os.File, first func() error) (h *netlink.Handle, err error) {
	err = inNetns(ns, func() (err error) {
		if first != nil {
			if err := first(); err != nil {
				return err
			}
		}
		h, err = routes()
		return err
	})
	return h, err
}
