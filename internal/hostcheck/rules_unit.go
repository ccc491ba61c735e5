package hostcheck

import (
	"path"
	"slices"
	"strings"
)

func unitRules() []rule {
	return []rule{
		{Kind{"NA-UNIT-001", "nodeagent is no service", Info,
			"systemd runs this machine and knows no nodeagent.service: the daemon does not start at boot.",
			"install systemd/nodeagent.service and systemctl enable --now nodeagent", false}, noUnit},
		{Kind{"NA-UNIT-002", "stopping the service empties the run directory", Error,
			"RuntimeDirectory= takes away namespaces, exit records and sockets of pods that run on.",
			"remove RuntimeDirectory= from the unit; tmpfiles.d/nodeagent.conf makes the directory", false}, emptiedRunDir},
		{Kind{"NA-UNIT-003", "stopping a service ends pods", Error,
			"Without KillMode=process systemd ends the shims, or the helpers of the pods' network, with the daemon that started them.",
			"set KillMode=process in the unit (systemctl edit), then systemctl daemon-reload", false}, killMode},
		{Kind{"NA-UNIT-004", "the service has mounts of its own", Error,
			"What the daemon mounts for pods never reaches containerd: pods see empty directories.",
			"remove these settings from the unit", false}, isolated},
		{Kind{"NA-UNIT-005", "the run directory is not made at boot", Warning,
			"Without a tmpfiles.d entry nothing keeps a clean-up of /run from taking away what pods need.",
			"install systemd/tmpfiles.d/nodeagent.conf in /etc/tmpfiles.d", false}, noTmpfiles},
		{Kind{"NA-UNIT-006", "containerd does not start at boot", Warning,
			"Its unit is not enabled, so after a reboot no pod starts.", "systemctl enable containerd", false}, containerdDisabled},
		{Kind{"NA-UNIT-007", "the service stops the kubelet", Error,
			"nodeagent.service is for a node whose pods the daemon runs; with proxyOnly the kubelet does, and ends whenever this unit starts.",
			"systemctl disable --now nodeagent, then install systemd/nodeagent-proxy.service and systemctl enable --now nodeagent-proxy", false}, stopsKubelet},
	}
}

const (
	ourUnit, theirUnit = "nodeagent.service", "containerd.service"
	proxyUnit          = "nodeagent-proxy.service" // of a daemon with proxyOnly
	kubeletUnit        = "kubelet.service"
)

// Units are those that systemd is asked about.
func Units() []string { return []string{ourUnit, proxyUnit, theirUnit, kubeletUnit} }

func noUnit(f *Facts) []hit {
	if f.Systemd == nil {
		return nil
	}
	_, ours := f.Systemd.Units[ourUnit]
	if !f.Config.ProxyOnly {
		if ours {
			return nil
		}
		return one("there is no nodeagent.service")
	}
	if _, ok := f.Systemd.Units[proxyUnit]; ok || ours {
		return nil // NA-UNIT-007 judges whether ours will do
	}
	return []hit{{seen: "there is no nodeagent-proxy.service", cure: "install systemd/nodeagent-proxy.service and systemctl enable --now nodeagent-proxy"}}
}

func stopsKubelet(f *Facts) []hit {
	if f.Systemd == nil || !f.Config.ProxyOnly {
		return nil
	}
	if u := f.Systemd.Units[ourUnit]; u.Enabled && slices.Contains(u.Conflicts, kubeletUnit) {
		return one("nodeagent.service is enabled and has Conflicts=kubelet.service")
	}
	return nil
}

func emptiedRunDir(f *Facts) []hit {
	if f.Systemd == nil {
		return nil
	}
	u := f.Systemd.Units[ourUnit]
	for _, dir := range u.RuntimeDirectory {
		full := path.Join("/run", dir)
		if u.Preserve != "yes" && (full == f.Systemd.RunDir || strings.HasPrefix(f.Systemd.RunDir, full+"/")) {
			return one("nodeagent.service has RuntimeDirectory=" + dir)
		}
	}
	return nil
}

func killMode(f *Facts) []hit {
	if f.Systemd == nil {
		return nil
	}
	var all []hit
	for _, name := range []string{ourUnit, theirUnit} {
		if u, ok := f.Systemd.Units[name]; ok && u.KillMode != "process" && u.KillMode != "" {
			all = append(all, hit{seen: name + " has KillMode=" + u.KillMode})
		}
	}
	return all
}

func isolated(f *Facts) []hit {
	if f.Systemd == nil {
		return nil
	}
	var all []hit
	for _, name := range []string{ourUnit, theirUnit} {
		if u := f.Systemd.Units[name]; len(u.Isolating) > 0 {
			all = append(all, hit{seen: name + " has " + strings.Join(slices.Sorted(slices.Values(u.Isolating)), ", ")})
		}
	}
	return all
}

func noTmpfiles(f *Facts) []hit {
	if f.Systemd == nil || f.Systemd.TmpfilesOK {
		return nil
	}
	if _, ok := f.Systemd.Units[ourUnit]; !ok {
		return nil // nothing is installed yet
	}
	return one("no file of tmpfiles.d names " + f.Systemd.RunDir)
}

func containerdDisabled(f *Facts) []hit {
	if f.Systemd == nil {
		return nil
	}
	if u, ok := f.Systemd.Units[theirUnit]; ok && !u.Enabled {
		return one("containerd.service is not enabled")
	}
	return nil
}
