package hostcheck

import (
	"fmt"
	"slices"
	"strings"
)

func limitRules() []rule {
	return []rule{
		{Kind{"NA-LIMIT-001", "few inotify instances or watches", Warning,
			"The daemon, containerd and programs in pods watch files; pods as root share root's.",
			"sysctl -w fs.inotify.max_user_instances=8192 fs.inotify.max_user_watches=524288; sysctl.d/90-nodeagent.conf keeps it", false}, fewWatches},
		{Kind{"NA-LIMIT-002", "few processes", Warning,
			"Pods at their own limit (podPidsLimit) can use up the host's, and then nobody can start anything.",
			"sysctl -w kernel.pid_max=4194304 kernel.threads-max=…, and a file in /etc/sysctl.d", false}, fewPids},
		{Kind{"NA-LIMIT-003", "few open files", Warning,
			"The host's limit of open files; when it is reached, everything fails.",
			"sysctl -w fs.file-max=1000000, and a file in /etc/sysctl.d", false}, fewFiles},
		{Kind{"NA-SYSCTL-001", "kernel tunables are not what kubelet sets", Info,
			"kubelet sets them, or refuses to start with protectKernelDefaults; this version leaves them.",
			"", false}, tunables},
		{Kind{"NA-SYSCTL-002", "running out of memory stops the machine", Warning,
			"The kernel panics instead of killing a process, so that one pod can take the node down.",
			"sysctl -w vm.panic_on_oom=0, and a file in /etc/sysctl.d", false}, panics},
		{Kind{"NA-SYSCTL-003", "memory is not overcommitted", Warning,
			"With vm.overcommit_memory=2 programs in pods fail to get memory that they never use.",
			"sysctl -w vm.overcommit_memory=1, and a file in /etc/sysctl.d", false}, strictMemory},
	}
}

// The least that a node of 110 pods gets along with.
const (
	leastInstances, leastWatches = 512, 65536
	leastFiles                   = 100000
	// So many pods at podPidsLimit must fit; the kernel makes threads-max of the
	// memory, so that a small machine cannot have more.
	podsOfPIDs, podsOfThreads = 4, 2
)

func fewWatches(f *Facts) []hit {
	l := f.Limits
	if l == nil {
		return nil
	}
	var few []string
	if l.InotifyInstances < leastInstances {
		few = append(few, fmt.Sprintf("fs.inotify.max_user_instances is %d, less than %d", l.InotifyInstances, leastInstances))
	}
	if l.InotifyWatches < leastWatches {
		few = append(few, fmt.Sprintf("fs.inotify.max_user_watches is %d, less than %d", l.InotifyWatches, leastWatches))
	}
	if len(few) == 0 {
		return nil
	}
	return one(strings.Join(few, "; "))
}

func fewPids(f *Facts) []hit {
	l := f.Limits
	if l == nil {
		return nil
	}
	var few []string
	for _, k := range []struct {
		name       string
		have, pods int
	}{{"kernel.pid_max", l.PIDMax, podsOfPIDs}, {"kernel.threads-max", l.ThreadsMax, podsOfThreads}} {
		if int64(k.have) < int64(k.pods)*max(l.PodPids, 1024) {
			few = append(few, fmt.Sprintf("%s is %d, less than %d pods at podPidsLimit need", k.name, k.have, k.pods))
		}
	}
	if len(few) == 0 {
		return nil
	}
	return one(strings.Join(few, "; "))
}

func fewFiles(f *Facts) []hit {
	if f.Limits == nil || f.Limits.FileMax >= leastFiles {
		return nil
	}
	return one(fmt.Sprintf("fs.file-max is %d, less than %d", f.Limits.FileMax, leastFiles))
}

// Sysctls are the keys that are looked at, with kubelet's value.
func Sysctls() map[string]string {
	return map[string]string{
		"vm.overcommit_memory":      "1",
		"vm.panic_on_oom":           "0",
		"kernel.panic":              "10",
		"kernel.panic_on_oops":      "1",
		"kernel.keys.root_maxkeys":  "1000000",
		"kernel.keys.root_maxbytes": "25000000",
	}
}

func tunables(f *Facts) []hit {
	var seen, cure []string
	own := map[string]bool{"vm.panic_on_oom": len(panics(f)) > 0, "vm.overcommit_memory": len(strictMemory(f)) > 0}
	for key, want := range Sysctls() {
		have, ok := f.Sysctls[key]
		if ok && have != want && (!own[key] || f.Config.ProtectKernelDefaults) {
			seen = append(seen, fmt.Sprintf("%s is %s, not %s", key, have, want))
			cure = append(cure, key+"="+want)
		}
	}
	if len(seen) == 0 {
		return nil
	}
	slices.Sort(seen)
	slices.Sort(cure)
	h := hit{seen: strings.Join(seen, "; "), cure: "sysctl -w " + strings.Join(cure, " ")}
	if f.Config.ProtectKernelDefaults {
		h.severity = Error
	}
	return []hit{h}
}

func panics(f *Facts) []hit {
	if v, ok := f.Sysctls["vm.panic_on_oom"]; ok && v != "0" {
		return one("vm.panic_on_oom is " + v)
	}
	return nil
}

func strictMemory(f *Facts) []hit {
	if f.Sysctls["vm.overcommit_memory"] == "2" {
		return one("vm.overcommit_memory is 2")
	}
	return nil
}
