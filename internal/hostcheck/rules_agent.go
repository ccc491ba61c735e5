package hostcheck

import (
	"fmt"
	"strings"
)

func agentRules() []rule {
	return []rule{
		{Kind{"NA-AGENT-001", "another agent runs on this node", Error,
			"It and the daemon would each remove the other's pods, cgroups and directories.",
			"drain the node, then: systemctl disable --now kubelet", true}, otherAgent},
		{Kind{"NA-AGENT-002", "pods of somebody else run in our place", Error,
			"The daemon removes pods' cgroups and directories that belong to no pod of its own, with the processes in them.",
			"remove these pods with what runs them (crictl rmp -fa), or take another cgroupRoot and --root-dir", true}, strangers},
		{Kind{"NA-AGENT-003", "mounts of pods that are gone", Warning,
			"Directories of pods that nobody runs still have volumes mounted; the daemon removes such directories, but never through a mount.",
			"umount what is below them: findmnt -R", false}, leftMounts},
		{Kind{"NA-AGENT-004", "another agent starts at the next boot", Warning,
			"Its unit is enabled.", "systemctl disable kubelet", false}, enabledAgent},
		{Kind{"NA-PORT-001", "a port of the daemon is taken", Error,
			"The daemon does not start without its ports.",
			"stop what holds it, or give the daemon another port (the setting is named with the finding)", false}, takenPort},
		{Kind{"NA-PORT-002", "the port of the node API is taken", Warning,
			"This node stands alone and does not listen on it; as the node of a cluster (--kubeconfig) the daemon would not start.",
			"stop what holds it, or set another port", false}, takenUnused},
		{Kind{"NA-PORT-003", "a port of the service proxy is taken", Warning,
			"Rules of services are written all the same, and the port is tried again; until it is free, who asks there for health or figures hears another program.",
			"stop what holds it, often a kube-proxy, or give the proxy another (the setting is named with the finding)", false}, takenMeanwhile},
	}
}

func otherAgent(f *Facts) []hit {
	var all []hit
	for _, p := range f.Agents {
		if p.RootDir != f.Config.RootDir && p.CgroupRoot != f.Config.CgroupRoot {
			continue // each has a place of its own
		}
		h := hit{seen: fmt.Sprintf("process %d is %s", p.PID, p.Name)}
		if p.Name != "kubelet" {
			h.cure = fmt.Sprintf("drain the node, then stop the service of %s and disable it", p.Name)
		}
		all = append(all, h)
	}
	return all
}

// shown bounds the names in one finding.
const shown = 3

func some(all []string) string {
	if n := len(all) - shown; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:shown], ", "), n)
	}
	return strings.Join(all, ", ")
}

func strangers(f *Facts) []hit {
	var all []string
	for _, p := range f.Strangers {
		if p.Runtime != "" {
			all = append(all, p.Where+" (below "+p.Runtime+")")
		}
	}
	if len(all) == 0 {
		return nil
	}
	return one(some(all))
}

func leftMounts(f *Facts) []hit {
	var all []string
	for _, p := range f.Strangers {
		if p.Runtime == "" && p.Mounts > 0 {
			all = append(all, fmt.Sprintf("%s (%d mounts)", p.Where, p.Mounts))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return one(some(all))
}

func enabledAgent(f *Facts) []hit {
	if f.Systemd == nil || len(f.Agents) > 0 {
		return nil
	}
	if u, ok := f.Systemd.Units[kubeletUnit]; ok && u.Enabled {
		return one("kubelet.service is enabled")
	}
	return nil
}

func takenPort(f *Facts) []hit {
	return taken(f, func(p Port) bool { return p.Now && !p.Later })
}

func takenUnused(f *Facts) []hit { return taken(f, func(p Port) bool { return !p.Now }) }

func takenMeanwhile(f *Facts) []hit {
	return taken(f, func(p Port) bool { return p.Now && p.Later })
}

// taken names the ports that others hold. One that an agent holds is told with
// the agent.
func taken(f *Facts, of func(Port) bool) []hit {
	agents := map[int]bool{}
	for _, a := range f.Agents {
		agents[a.PID] = true
	}
	var all []hit
	for _, p := range f.Config.Ports {
		if !of(p) {
			continue
		}
		var who []string
		for _, l := range f.Listeners {
			if l.Port != p.Number || l.Own || agents[l.PID] {
				continue
			}
			holder := "a process that this user may not see"
			if l.PID > 0 {
				holder = fmt.Sprintf("process %d (%s)", l.PID, l.Name)
			}
			who = append(who, l.Addr+" by "+holder)
		}
		if len(who) > 0 {
			all = append(all, hit{seen: fmt.Sprintf("%d (%s): %s", p.Number, p.Use, some(who))})
		}
	}
	return all
}
