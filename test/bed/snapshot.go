package bed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
)

// Snapshot is everything in a bed that a pod could leave behind, and everything
// of others that it could break: "kind name" to a detail. Two snapshots of a node
// without pods must be equal.
type Snapshot map[string]string

// Snapshot takes one. The daemons' logs and sockets are not part of it.
func (b *Bed) Snapshot(ctx context.Context) (Snapshot, error) {
	s := Snapshot{}
	for _, part := range []func(context.Context, Snapshot) error{
		b.snapContainerd, b.snapMounts, b.snapPins, b.snapCgroups, b.snapNet, b.snapRules, b.snapFiles, b.snapProcesses,
	} {
		if err := part(ctx, s); err != nil {
			return nil, fmt.Errorf("take a snapshot of the bed: %w", err)
		}
	}
	return s, nil
}

// Diff returns what differs: "- gone", "+ new" and "~ changed" lines, sorted.
func (s Snapshot) Diff(now Snapshot) []string {
	var d []string
	for k, v := range s {
		switch w, ok := now[k]; {
		case !ok:
			d = append(d, "- "+k+" "+v)
		case w != v:
			d = append(d, "~ "+k+" "+v+" -> "+w)
		}
	}
	for k, v := range now {
		if _, ok := s[k]; !ok {
			d = append(d, "+ "+k+" "+v)
		}
	}
	slices.SortFunc(d, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	return d
}

// WaitSame waits until the bed is again as it was in before, and otherwise tells
// what differs when ctx ends. Only kinds named in skip may differ ("file", …).
func (b *Bed) WaitSame(ctx context.Context, before Snapshot, skip ...string) error {
	wait := 5 * time.Millisecond
	var diff []string
	for {
		now, err := b.Snapshot(ctx)
		if err != nil && ctx.Err() != nil && diff != nil {
			return fmt.Errorf("the bed is not as it was (%w):\n%s", ctx.Err(), strings.Join(diff, "\n"))
		}
		if err != nil {
			return err
		}
		diff = slices.DeleteFunc(before.Diff(now), func(line string) bool {
			kind, _, _ := strings.Cut(line[2:], " ")
			return slices.Contains(skip, kind)
		})
		if len(diff) == 0 {
			return nil
		}
		// Nothing tells when the last of kernel, containerd and shim is done.
		select {
		case <-ctx.Done():
			return fmt.Errorf("the bed is not as it was (%w):\n%s", ctx.Err(), strings.Join(diff, "\n"))
		case <-time.After(wait):
			wait = min(2*wait, 200*time.Millisecond)
		}
	}
}

func (b *Bed) snapContainerd(ctx context.Context, s Snapshot) error {
	c, err := b.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.NamespaceService().List(ctx)
	if err != nil {
		return fmt.Errorf("list containerd's namespaces: %w", err)
	}
	for _, ns := range all {
		if err := snapNamespace(namespaces.WithNamespace(ctx, ns), c, ns, s); err != nil {
			return fmt.Errorf("list what containerd has in %s: %w", ns, err)
		}
	}
	return nil
}

func snapNamespace(ctx context.Context, c *client.Client, ns string, s Snapshot) error {
	containers, err := c.ContainerService().List(ctx)
	if err != nil {
		return err
	}
	for _, ctr := range containers {
		s["container "+ns+"/"+ctr.ID] = ctr.Image
		s.task(ctx, c, ns, ctr.ID)
	}
	err = c.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		s["snapshot "+ns+"/"+i.Name] = i.Kind.String()
		return nil
	})
	if err != nil {
		return err
	}
	leases, err := c.LeasesService().List(ctx)
	if err != nil {
		return err
	}
	for _, l := range leases {
		s["lease "+ns+"/"+l.ID] = ""
	}
	err = c.ContentStore().Walk(ctx, func(i content.Info) error {
		s["content "+ns+"/"+i.Digest.String()] = strconv.FormatInt(i.Size, 10)
		return nil
	})
	if err != nil {
		return err
	}
	ingests, err := c.ContentStore().ListStatuses(ctx)
	if err != nil {
		return err
	}
	for _, i := range ingests {
		s["ingest "+ns+"/"+i.Ref] = ""
	}
	images, err := c.ImageService().List(ctx)
	if err != nil {
		return err
	}
	for _, i := range images {
		s["image "+ns+"/"+i.Name] = i.Target.Digest.String()
	}
	boxes, err := c.SandboxStore().List(ctx)
	for _, x := range boxes {
		s["sandbox "+ns+"/"+x.ID] = ""
	}
	return err
}

func (s Snapshot) task(ctx context.Context, c *client.Client, ns, id string) {
	ctr, err := c.LoadContainer(ctx, id)
	if err != nil {
		return
	}
	t, err := ctr.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return
	}
	if err != nil {
		s["task "+ns+"/"+id] = "error: " + err.Error()
		return
	}
	s["task "+ns+"/"+id] = strconv.Itoa(int(t.Pid()))
}

// seen is the pid whose mounts are the bed's.
func (b *Bed) seen() string {
	if b.opts.Private {
		return strconv.Itoa(os.Getpid()) + "/task/" + strconv.Itoa(b.thread.tid)
	}
	return "self"
}

func (b *Bed) snapMounts(_ context.Context, s Snapshot) error {
	mounts, err := mountinfo(b.seen())
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, m := range mounts {
		below := strings.HasPrefix(m.Point, b.data+"/") || strings.HasPrefix(m.Point, b.dir+"/")
		another := strings.HasPrefix(m.Point, home+"/") // that was there when this one was made, and may go
		if below || b.opts.Private && !another {
			count["mount "+m.Point+" "+m.Type]++
		}
	}
	for k, n := range count {
		s[k] = strconv.Itoa(n)
	}
	return nil
}

// snapPins lists the pinned network namespaces: in a private bed all of them
// are the bed's, else those that its containerd has known.
func (b *Bed) snapPins(_ context.Context, s Snapshot) error {
	if !b.opts.Private {
		for _, p := range netnsPins(b.data) {
			s["pin "+p] = ""
		}
		return nil
	}
	entries, err := os.ReadDir(filepath.Join("/proc", b.seen(), "root/run/netns"))
	for _, e := range entries {
		s["pin /run/netns/"+e.Name()] = ""
	}
	return err
}

func (b *Bed) snapCgroups(_ context.Context, s Snapshot) error {
	for _, name := range cgroupNames(b.id) {
		dirs, err := cgroupDirs(name)
		if err != nil {
			return err
		}
		for _, d := range dirs {
			s["cgroup "+d] = ""
		}
	}
	return nil
}

// snapNet lists interfaces, addresses, routes and neighbours that somebody made.
func (b *Bed) snapNet(ctx context.Context, s Snapshot) error {
	for {
		links := Snapshot{}
		err := b.listNet(links)
		// The kernel's answer to a list that changed meanwhile: ask again.
		if errors.Is(err, netlink.ErrDumpInterrupted) && ctx.Err() == nil {
			continue
		}
		maps.Copy(s, links)
		return err
	}
}

func (b *Bed) listNet(s Snapshot) error {
	return b.Do(func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		links, err := h.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			s["link "+l.Attrs().Name] = l.Type()
			addrs, err := h.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				if !a.IP.IsLinkLocalUnicast() { // come and go with the carrier
					s["address "+l.Attrs().Name+" "+a.IPNet.String()] = ""
				}
			}
		}
		routes, err := h.RouteList(nil, netlink.FAMILY_ALL)
		for _, r := range routes {
			if r.Dst == nil || !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast() {
				s["route "+r.Dst.String()] = ""
			}
		}
		return err
	})
}

// snapRules lists the lines of the whole rule set with their number, without
// the counters, which every packet changes.
func (b *Bed) snapRules(ctx context.Context, s Snapshot) error {
	out, err := b.Run(ctx, "nft", "--numeric", "--stateless", "list", "ruleset")
	if err != nil {
		return err
	}
	count, where := map[string]int{}, ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "table ") {
			where = strings.TrimSuffix(line, " {")
		}
		if line != "" && line != "}" {
			count["rule "+where+": "+line]++
		}
	}
	for k, n := range count {
		s[k] = strconv.Itoa(n)
	}
	return nil
}

// snapFiles lists the files below the daemons' directories. A log grows and a
// socket is made again: their names count, sizes do not.
func (b *Bed) snapFiles(_ context.Context, s Snapshot) error {
	skip := map[string]bool{"root": true, "state": true, "k": true, "containerd.log": true}
	top, err := os.ReadDir(b.data)
	if err != nil {
		return err
	}
	for _, e := range top {
		if skip[e.Name()] {
			continue
		}
		err := filepath.WalkDir(filepath.Join(b.data, e.Name()), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil {
				s["file "+strings.TrimPrefix(path, b.data+"/")] = d.Type().String()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(filepath.Join(b.data, "k"))
	for _, e := range entries {
		if len(e.Name()) == 64 { // a shim's socket: the hash of its name
			s["shim-socket "+e.Name()] = ""
		}
	}
	return err
}

// snapProcesses counts the bed's processes by what they run.
func (b *Bed) snapProcesses(_ context.Context, s Snapshot) error {
	count := map[string]int{}
	for pid := range b.Processes() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil {
			count["process "+filepath.Base(exe)]++
		}
	}
	for k, n := range count {
		s[k] = strconv.Itoa(n)
	}
	return nil
}
