package podnet

import (
	"bytes"
	"context"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Counters are what an interface has carried since it was made. Its name may be a
// pod's choice: any bytes but "/", ":" and white space.
type Counters struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// maxDevFile bounds what is read of one pod's list, about 250 interfaces: a pod that
// may make interfaces makes as many as it likes. The node's own list has one for
// each pod.
const (
	maxDevFile  = 32 << 10
	maxHostFile = 1 << 20
)

// ReadCounters tells what the interfaces of network namespaces have carried, by the
// path of each; "" is the host's. Of one that is gone, or is none, nothing is told.
// All are read by one thread, which ends with that.
func ReadCounters(ctx context.Context, netns []string) map[string][]Counters {
	read := make(chan map[string][]Counters, 1)
	go func() { // ends with the last of them, or with ctx
		// Its thread is never given back: it ends with the goroutine, wherever it is.
		runtime.LockOSThread()
		all := map[string][]Counters{}
		// The host's comes first, while the thread is there.
		for _, path := range slices.Sorted(slices.Values(netns)) {
			if ctx.Err() != nil {
				break
			}
			if path != "" && enter(path) != nil {
				continue
			}
			if c, err := readDev(path == ""); err == nil {
				all[path] = c
			}
		}
		read <- all
	}()
	return <-read
}

// enter moves the calling thread into a pod's network.
func enter(path string) error {
	ns, err := openNetns(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

// readDev reads the calling thread's network.
func readDev(host bool) ([]Counters, error) {
	f, err := os.Open("/proc/thread-self/net/dev")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	limit := int64(maxDevFile)
	if host {
		limit = maxHostFile
	}
	text, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, err
	}
	return parseDev(text, host), nil
}

// parseDev parses /proc/net/dev, without loopback and, of the host, without what
// connects it with pods. An incomplete last line is none.
func parseDev(text []byte, host bool) []Counters {
	var all []Counters
	for line := range bytes.Lines(text) {
		name, rest, ok := strings.Cut(string(line), ":")
		fields := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(fields) != 16 || name == "lo" || host && virtual(name) {
			continue
		}
		n := func(i int) uint64 {
			v, _ := strconv.ParseUint(fields[i], 10, 64)
			return v
		}
		all = append(all, Counters{
			Name:    name,
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		})
	}
	return all
}

// virtual tells whether an interface of the host only repeats what others carry,
// by cAdvisor's rule, and the ends of our own pairs.
func virtual(name string) bool {
	return slices.ContainsFunc([]string{linkPrefix, "veth", "docker", "nerdctl"}, func(p string) bool { return strings.HasPrefix(name, p) })
}
