package hostcheck

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// Versions of containerd: the oldest that starts a shim in the way of today, by
// a message on its standard input (an older one's first start of each pod
// fails), and the line that the daemon is tested with.
const (
	OldestContainerd = "2.3.0"
	TestedContainerd = "2.4"
)

// OldContainerd says why a version of containerd is too old to work with, or
// "". One that cannot be read, as of a build from a work tree, passes.
func OldContainerd(v string) string {
	have, err := version.ParseGeneric(v)
	// Pre-releases of the oldest have its interfaces.
	if err != nil || have.AtLeast(version.MustParseGeneric(OldestContainerd)) {
		return ""
	}
	return fmt.Sprintf("containerd %s is too old: %s or newer is needed", v, OldestContainerd)
}

func runtimeRules() []rule {
	return []rule{
		{Kind{"NA-RUNTIME-001", "containerd does not answer", Error,
			"Every container is run by it.",
			"systemctl start containerd; if its socket is elsewhere, set containerRuntimeEndpoint", false}, noContainerd},
		{Kind{"NA-RUNTIME-002", "containerd is too old", Error,
			"It lacks interfaces that the daemon and its shim use; the daemon does not talk to it.",
			"install containerd " + TestedContainerd + " (oldest: " + OldestContainerd + ")", false}, oldContainerd},
		{Kind{"NA-RUNTIME-003", "containerd does not find the shim", Error,
			"Every pod runs below it; containerd looks for it in its own PATH, not in the daemon's.",
			"install -m 755 nodeagent-shim containerd-shim-nodeagent-v1 /usr/local/bin/, and see that this is in the PATH of containerd.service", false}, noShim},
		{Kind{"NA-RUNTIME-004", "runc does not work", Error,
			"The shim starts containers with it; it looks in containerd's PATH.",
			"install runc, or set runtimes.\"\".binary to its path; mend the binary of a handler that is named", false}, noRunc},
		{Kind{"NA-RUNTIME-005", "runc lacks features", Warning,
			"Pods that use them fail, or get less than they ask for.",
			"install runc 1.2 or newer, built with seccomp", false}, weakRunc},
		{Kind{"NA-RUNTIME-006", "the snapshotter does not work", Error,
			"Images are unpacked, and containers' layers made, by it.",
			"ctr plugins ls; journalctl -u containerd says why it was left out", false}, noSnapshotter},
		{Kind{"NA-RUNTIME-007", "containerd's CRI plugin has pods", Error,
			"It and the daemon work in the same namespace of containerd (k8s.io): pods of a kubelet or crictl live here, which nobody may manage beside us.",
			"stop what made them and remove them: crictl pods; crictl rmp -fa", false}, criPods},
		{Kind{"NA-RUNTIME-008", "this version of containerd is not tested", Info,
			"The daemon is tested with " + TestedContainerd + ".", "nothing must be done", false}, untestedContainerd},
	}
}

func noContainerd(f *Facts) []hit {
	r := f.Runtime
	if r == nil || r.Error == "" {
		return nil
	}
	h := hit{seen: r.Address + ": " + r.Error}
	if r.Alive {
		h.cure = "containerd runs, but not, or not in time, at this address: set containerRuntimeEndpoint, or look into journalctl -u containerd"
	}
	return []hit{h}
}

// works tells that containerd is there and can be judged further.
func works(f *Facts) bool {
	return f.Runtime != nil && f.Runtime.Error == "" && OldContainerd(f.Runtime.Version) == ""
}

func oldContainerd(f *Facts) []hit {
	if f.Runtime == nil || f.Runtime.Error != "" {
		return nil
	}
	if why := OldContainerd(f.Runtime.Version); why != "" {
		return one(why)
	}
	return nil
}

func noShim(f *Facts) []hit {
	if !works(f) || f.Runtime.Shim == "" {
		return nil
	}
	return one(f.Config.Shim + ": " + f.Runtime.Shim)
}

func noRunc(f *Facts) []hit {
	if !works(f) || f.Runtime.Shim != "" || f.Runtime.Runc == "" {
		return nil
	}
	return one(f.Runtime.Runc)
}

func weakRunc(f *Facts) []hit {
	if !works(f) || len(f.Runtime.RuncLacks) == 0 {
		return nil
	}
	return one(strings.TrimSpace("runc "+f.Runtime.RuncVersion) + " lacks " + strings.Join(f.Runtime.RuncLacks, ", "))
}

func noSnapshotter(f *Facts) []hit {
	if !works(f) || f.Runtime.Snapshotters == nil {
		return nil
	}
	why, there := f.Runtime.Snapshotters[f.Config.Snapshotter]
	switch {
	case !there:
		return one("containerd has no snapshotter " + f.Config.Snapshotter)
	case why != "":
		return one(f.Config.Snapshotter + ": " + why)
	}
	return nil
}

func criPods(f *Facts) []hit {
	if !works(f) || f.Runtime.CRISandboxes == 0 {
		return nil
	}
	h := hit{seen: fmt.Sprintf("%d sandboxes of the CRI plugin are in namespace k8s.io", f.Runtime.CRISandboxes)}
	if !f.Runtime.CRI {
		h.cure = "the plugin itself is off: remove what it left with ctr -n k8s.io containers ls, then ctr -n k8s.io containers rm"
	}
	return []hit{h}
}

func untestedContainerd(f *Facts) []hit {
	if !works(f) {
		return nil
	}
	v, err := version.ParseGeneric(f.Runtime.Version)
	tested := version.MustParseGeneric(TestedContainerd)
	if err != nil || (v.Major() == tested.Major() && v.Minor() == tested.Minor()) {
		return nil
	}
	return one("containerd " + f.Runtime.Version)
}
