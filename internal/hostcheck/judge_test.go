package hostcheck_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"nodeagent/internal/hostcheck"
)

var update = flag.Bool("update", false, "write the golden files anew")

// healthy is a host of which nothing can be said.
const healthy = `
Config:
  FailSwapOn: true
  Seccomp: true
  CgroupRoot: /
  Shim: io.containerd.nodeagent.v1
  Snapshotter: overlayfs
  RootDir: /var/lib/kubelet
  CIDRs: [10.244.0.0/24]
  Ports:
  - {Number: 10250, Use: 'node API: port', Now: true}
  - {Number: 10248, Use: healthzPort, Now: true}
  - {Number: 10256, Use: 'services: healthzBindAddress', Now: true, Later: true}
  Files:
  - {Path: /etc/nodeagent/config.yaml, Mode: 384}
Kernel:
  Release: 6.1.0-13-cloud-amd64
  Namespaces: [cgroup, ipc, mnt, net, pid, pid_for_children, time, user, uts]
  Seccomp: true
  Pidfd: true
  Openat2: true
  CgroupKill: true
  PSI: true
  Modules: true
  ModulesDir: true
  MaxUserNS: 15000
Tried: {Overlay: "", Bridge: "", Veth: "", Nftables: ""}
Privilege: {Root: true, LowestOOMAdj: -1000}
Cgroups: {Mode: v2, Driver: systemd, PID1: systemd, Swap: true}
Runtime:
  Address: /run/containerd/containerd.sock
  Version: 2.4.2
  RuncVersion: 1.5.2
  Snapshotters: {overlayfs: "", zfs: "skipped"}
  CRI: true
Net:
  BridgeNF: true
  Forward4: "1"
  Addresses: [192.0.2.10]
  Conntrack: [100, 262144]
  Resolv: {Path: /etc/resolv.conf, Servers: [192.0.2.53]}
Firewall: {NftRules: 10, OldRules: 0}
CNI: {BinDir: /opt/cni/bin}
Disks:
- {Mount: /, Type: ext4, Uses: [root-dir /var/lib/kubelet, containerd /var/lib/containerd], Pods: true, Image: true, Options: [rw, relatime], Size: 107374182400, Free: 53687091200, Inodes: 6553600, Left: 6000000}
Limits: {InotifyInstances: 8192, InotifyWatches: 524288, PIDMax: 4194304, ThreadsMax: 127000, FileMax: 9223372036854775807, PodPids: 4096}
Sysctls: {vm.overcommit_memory: "1", vm.panic_on_oom: "0", kernel.panic: "10", kernel.panic_on_oops: "1", kernel.keys.root_maxkeys: "1000000", kernel.keys.root_maxbytes: "25000000"}
Systemd:
  RunDir: /run/nodeagent
  TmpfilesOK: true
  Units:
    nodeagent.service: {Enabled: true, KillMode: process}
    containerd.service: {Enabled: true, KillMode: process}
Node: {Name: node-1, MachineID: 0123456789abcdef0123456789abcdef}
`

// facts lays a change over the healthy host: maps are merged, null takes away,
// anything else is replaced.
func facts(t *testing.T, patch []byte) hostcheck.Facts {
	t.Helper()
	var host, change map[string]any
	if err := errors.Join(yaml.Unmarshal([]byte(healthy), &host), yaml.Unmarshal(patch, &change)); err != nil {
		t.Fatal(err)
	}
	lay(host, change)
	text, err := yaml.Marshal(host)
	if err != nil {
		t.Fatal(err)
	}
	var f hostcheck.Facts
	if err := yaml.UnmarshalStrict(text, &f); err != nil {
		t.Fatalf("%v in\n%s", err, patch)
	}
	return f
}

func lay(onto, change map[string]any) {
	for k, v := range change {
		below, ok := onto[k].(map[string]any)
		if m, isMap := v.(map[string]any); ok && isMap {
			lay(below, m)
		} else if v == nil {
			delete(onto, k)
		} else {
			onto[k] = v
		}
	}
}

func shown(all []hostcheck.Finding) []byte {
	var b bytes.Buffer
	for _, f := range all {
		fatal := ""
		if f.Fatal {
			fatal = " fatal"
		}
		fmt.Fprintf(&b, "%s %s%s\n\t%s\n\tcure: %s\n", f.ID, f.Severity, fatal, f.Seen, f.Cure)
	}
	return b.Bytes()
}

// TestJudge holds each case of the archive, a change to a healthy host, against
// the findings that follow it.
func TestJudge(t *testing.T) {
	const file = "testdata/judge.txtar"
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for i := 0; i+1 < len(a.Files); i += 2 {
		in, want := a.Files[i], &a.Files[i+1]
		if want.Name != in.Name+": findings" {
			t.Fatalf("%s is followed by %s", in.Name, want.Name)
		}
		t.Run(in.Name, func(t *testing.T) {
			all := hostcheck.Judge(facts(t, in.Data))
			got := shown(all)
			for _, f := range all {
				found[f.ID] = true
			}
			if *update {
				want.Data = got
			} else if !bytes.Equal(got, want.Data) {
				t.Errorf("got\n%swant\n%s", got, want.Data)
			}
		})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range hostcheck.Catalogue() {
		if !found[k.ID] {
			t.Errorf("no case of %s finds %s", file, k.ID)
		}
	}
}

// TestNothingSeen: what was not looked at is no finding.
func TestNothingSeen(t *testing.T) {
	if all := hostcheck.Judge(hostcheck.Facts{}); len(all) > 0 {
		t.Errorf("without facts there are findings:\n%s", shown(all))
	}
}

func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range hostcheck.Catalogue() {
		if seen[k.ID] {
			t.Errorf("%s is there twice", k.ID)
		}
		seen[k.ID] = true
		if !strings.HasPrefix(k.ID, "NA-") || k.Title == "" || k.Cause == "" || !slices.Contains([]hostcheck.Severity{hostcheck.Error, hostcheck.Warning, hostcheck.Info}, k.Severity) {
			t.Errorf("%+v is not complete", k)
		}
		if k.Fatal && k.Severity != hostcheck.Error {
			t.Errorf("%s is fatal and no error", k.ID)
		}
	}
}

// TestDocs holds docs/checks.md against the catalogue.
func TestDocs(t *testing.T) {
	const file = "../../docs/checks.md"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const mark = "## Findings\n"
	prose, _, ok := strings.Cut(string(b), mark)
	if !ok {
		t.Fatalf("%s has no %q", file, mark)
	}
	var w strings.Builder
	w.WriteString(prose + mark + "| ID | severity | what | cause, and what it does | cure |\n|---|---|---|---|---|\n")
	for _, k := range hostcheck.Catalogue() {
		severity := string(k.Severity)
		if k.Fatal {
			severity += ", the daemon does not start"
		}
		cure := k.Cure
		if cure == "" {
			cure = "named with the finding"
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s |\n", k.ID, severity, k.Title, k.Cause, cure)
	}
	if *update {
		if err := os.WriteFile(file, []byte(w.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if w.String() != string(b) {
		t.Errorf("%s is not what the catalogue says: run go test ./internal/hostcheck -update", file)
	}
}

func TestOldContainerd(t *testing.T) {
	for v, old := range map[string]bool{
		"1.6.20~ds1": true, "v1.7.24": true, "1.7": true, "2.0.5": true, "2.2.9": true, "2.3.0": false, "v2.3.0-rc.1": false, "2.4.2": false, "3.0.0": false, "(devel)": false, "": false,
	} {
		if got := hostcheck.OldContainerd(v) != ""; got != old {
			t.Errorf("OldContainerd(%q) = %v, want %v", v, got, old)
		}
	}
}
