package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/config"
	"nodeagent/internal/diag"
	"nodeagent/internal/shimapi"
	"nodeagent/internal/volume"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden holds text against testdata/<name>.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, text, want)
	}
}

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) *time.Time {
	t := now.Add(-d)
	return &t
}

func written(t *testing.T, table *table) string {
	t.Helper()
	var b bytes.Buffer
	if err := table.write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// pods are one of each kind, one with what a hostile pod may write.
func pods() []diag.Pod {
	code := int32(3)
	return []diag.Pod{
		{
			Namespace: "default", Name: "web-node", UID: "0123", Status: "Running", Ready: 1, Total: 1, Created: before(90 * time.Minute),
			IPs: []string{"10.244.0.2", "fd00::2"}, QOSClass: "Burstable",
			Containers: []diag.Container{{
				ID: strings.Repeat("ab", 32), Name: "app", State: "Running", Pid: 42, Image: "localhost/app:v1", Latest: true,
				Started: before(90 * time.Minute), SandboxID: strings.Repeat("cd", 32),
			}},
		},
		{
			Namespace: "kube-system", Name: "crash-node", UID: "4567", Status: "CrashLoopBackOff", Total: 1, Restarts: 12,
			Created: before(50 * time.Hour), Message: "back-off \x1b[31m\u202e世界\nsecond line",
			Containers: []diag.Container{{
				ID: strings.Repeat("ef", 32), Name: "app", State: "Exited", ExitCode: &code, Reason: "Error", Attempt: 12,
				Image: "localhost/世界:v1", Latest: true, Started: before(time.Minute), Wait: "CrashLoopBackOff: back-off 5m0s",
			}, {Name: "later", State: "Waiting", Reason: "ContainerCreating", Image: "x\x1b]0;title\a", Latest: true}},
		},
	}
}

func TestTables(t *testing.T) {
	golden(t, "pods.txt", written(t, podTable(pods(), false, now)))
	golden(t, "pods-wide.txt", written(t, podTable(pods(), true, now)))
	var all []containerOfAPod
	for _, p := range pods() {
		for _, c := range p.Containers {
			all = append(all, containerOfAPod{c, p.Namespace, p.Name, p.UID})
		}
	}
	golden(t, "ps.txt", written(t, containerTable(all, false, now)))
	golden(t, "ps-wide.txt", written(t, containerTable(all, true, now)))
	limit := uint64(64 << 20)
	golden(t, "stats-wide.txt", written(t, statsTable([]diag.ContainerUsage{{
		Namespace: "default", Pod: "web-node", Container: "app", CPUCores: 1.25, Throttled: 0.5, MemoryLimit: &limit, OOMKills: 2,
		Usage: cgroups.Usage{MemoryWorkingSet: 3 << 20, MemoryPeak: 5 << 30, Pids: 7, ReadBytes: 1023, WriteBytes: 1024},
		Log:   &shimapi.LogStats{Bytes: 12345},
	}, {Namespace: "default", Pod: "web-node", Container: "side"}}, true)))
	taken := func(name string, u volume.Usage) diag.VolumeUsage {
		u.Name, u.Path = name, "/var/lib/kubelet/pods/0123/volumes/"+name
		return diag.VolumeUsage{Namespace: "default", Pod: "web-node", Usage: u, At: *before(30 * time.Second)}
	}
	golden(t, "stats-volumes.txt", written(t, volumeTable([]diag.VolumeUsage{
		taken("cache", volume.Usage{Kind: "empty-dir", Bytes: 3 << 20, Inodes: 12}),
		taken("fast", volume.Usage{Kind: "empty-dir", Bytes: 8 << 10, Inodes: 2, Capacity: 1 << 20}),
		taken("huge", volume.Usage{Kind: "empty-dir", Bytes: 7 << 30, Inodes: 1 << 20, Partial: true}),
	}, true, now)))
	golden(t, "images-wide.txt", written(t, imageTable([]imageItem{
		{Name: "docker.io/library/busybox:1.37", RepoTags: []string{"docker.io/library/busybox:1.37", "localhost:5000/b:v1"}, ID: "sha256:" + strings.Repeat("1", 64), Target: "sha256:" + strings.Repeat("2", 64), Size: 2_200_000, InUse: true, Platform: "linux/amd64"},
		{Name: "docker.io/library/x@sha256:" + strings.Repeat("3", 64), Problem: "not for this machine"},
	}, true)))
}

// TestInspectPage is the page of a container that differs from what was asked.
func TestInspectPage(t *testing.T) {
	shares, score := uint64(102), 1000
	p := pods()[0]
	in := &diag.Inspection{Pod: p, Containers: []diag.ContainerInspection{{
		Container: p.Containers[0],
		Asked: &diag.Asked{
			Args: []string{"/app", "a b", "\x1b[2J"}, Cwd: "/", UID: 1000, GID: 1000, Groups: []uint32{1000},
			Capabilities: diag.Capabilities{Bounding: []string{"CAP_CHOWN"}}, Seccomp: "filter", NoNewPrivs: true, OOMScoreAdj: &score,
			Cgroup: "/kubepods/pod1/c1", Limits: diag.AskedLimits{CPUShares: &shares},
			Namespaces: map[string]string{"network": "/run/netns/x", "mount": "new", "user": "host"},
			Mounts:     []diag.AskedMount{{Destination: "/data", Source: "/srv", ReadOnly: true, Options: []string{"rbind", "ro"}}},
		},
		Kernel: &diag.Kernel{
			Cgroup:     cgroups.Facts{Mode: "v2", Paths: map[string]string{"unified": "/kubepods/pod1/c1"}, Usage: cgroups.Usage{Pids: 1}},
			Init:       diag.ProcessFacts{UID: 1000, GID: 1000, Seccomp: "filter", Filters: 1, NoNewPrivs: true},
			Processes:  []diag.InspectedProcess{{Process: cgroups.Process{PID: 42, Comm: "app\x1b[2J", State: "S", OOMScoreAdj: 900, OOMScore: 1200}}},
			Namespaces: map[string]diag.Namespace{"network": {ID: 4026532000}, "user": {ID: 4026531837, Host: true}},
			Mounts:     []diag.Mount{{Destination: "/", Type: "overlay", Root: "/", Options: "rw"}},
		},
		Drift: []diag.Drift{{What: "mount /data", Asked: "read-only", Kernel: "writable"}},
	}}}
	var b bytes.Buffer
	if err := inspectText(&b, in, now); err != nil {
		t.Fatal(err)
	}
	golden(t, "inspect.txt", b.String())
}

func TestAges(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 150 * time.Second: "2m30s", 11 * time.Minute: "11m",
		179 * time.Minute: "179m", 3*time.Hour + 5*time.Minute: "3h5m", 9 * time.Hour: "9h", 50 * time.Hour: "2d2h", 48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %s, want %s", d, got, want)
		}
	}
}

// every calls f with each command below root.
func every(root *cobra.Command, f func(*cobra.Command)) {
	for _, c := range root.Commands() {
		f(c)
		every(c, f)
	}
}

func TestEveryVerbHasAnExample(t *testing.T) {
	verbs := 0
	every(newRoot(), func(c *cobra.Command) {
		if !c.Runnable() || c.Name() == "help" || strings.HasPrefix(c.Name(), "__") {
			return
		}
		verbs++
		var b bytes.Buffer
		c.SetOut(&b)
		if err := c.Help(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(b.String(), "Examples:\n  ") || !strings.Contains(c.Example, "nodeagent ") {
			t.Errorf("the help of %s has no example:\n%s", c.CommandPath(), b.String())
		}
		if c.Args == nil {
			t.Errorf("%s takes any argument", c.CommandPath())
		}
	})
	if verbs < 14 {
		t.Errorf("there are %d verbs, want at least 14", verbs)
	}
}

// execute runs a command line that needs no node.
func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := newRoot()
	var b bytes.Buffer
	root.SetOut(&b)
	root.SetErr(&b)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return b.String(), err
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if text, err := execute(t, "completion", shell); err != nil || !strings.Contains(text, "nodeagent") {
			t.Errorf("%s: %v, %d bytes", shell, err, len(text))
		}
	}
	if _, err := execute(t, "completion", "csh"); codeOf(err) != exitUsage {
		t.Errorf("an unknown shell: %v", err)
	}
}

func TestHelpOfExitCodes(t *testing.T) {
	text, err := execute(t, "help", "exit-codes")
	if err != nil || !strings.Contains(text, "78") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestConfigOrigins(t *testing.T) {
	dir := t.TempDir()
	file, dropins := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "config.d")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	write(file, kubelet+"podPidsLimit: 7\nclusterDomain: a.example\nmaxPods: 3\nstaticPodURL: http://u:s3cret@h.example/pods?key=s3cret\nstaticPodURLHeader:\n  Authorization: [\"Bearer s3cret\"]\n")
	write(filepath.Join(dropins, "10.conf"), kubelet+"clusterDomain: b.example\n")
	flags := config.Flags{Config: file, ConfigDir: dropins, RootDir: "/elsewhere"}
	doc, err := readConfig(flags)
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"kubelet.podPidsLimit": file, "kubelet.clusterDomain": filepath.Join(dropins, "10.conf"), "rootDir": "--root-dir", "kubelet.healthzPort": "",
		"kubelet.staticPodURLHeader": file,
	} {
		if got := doc.Origin[field]; got != want {
			t.Errorf("%s is set by %q, want %q", field, got, want)
		}
	}
	if len(doc.Unused) != 1 || !strings.Contains(doc.Unused[0], "maxPods") {
		t.Errorf("unused fields are %v", doc.Unused)
	}
	text, err := json.Marshal(doc)
	if err != nil || strings.Contains(string(text), "s3cret") {
		t.Errorf("a token is shown: %v %s", err, text)
	}
	out, err := execute(t, "config", "--config", file, "--config-dir", dropins)
	if err != nil || strings.Contains(out, "s3cret") || !strings.Contains(out, "b.example") || !strings.Contains(out, "http://h.example/pods") {
		t.Errorf("config shows %v\n%s", err, out)
	}
}

// TestConfigView: what is shown can be given to --config again, and says who set what.
func TestConfigView(t *testing.T) {
	dir := t.TempDir()
	file, again := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "again.yaml")
	text := "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDNS: [192.0.2.1]\nevictionHard: {memory.available: 5%}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--config", file, "--max-pods=7", "--hostname-override", "n", "--kubeconfig", "/k"}
	out, err := execute(t, append([]string{"config", "view", "--show-origin"}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"maxPods: 7 # --max-pods\n", "memory.available: 5% # " + file, "# " + file + "\nclusterDNS:"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, "podPidsLimit") {
		t.Errorf("a default is in\n%s", out)
	}
	for _, more := range [][]string{nil, {"--merged"}, {"--merged", "--show-origin"}} {
		if out, err = execute(t, slices.Concat([]string{"config", "view"}, more, flags)...); err != nil {
			t.Fatal(err)
		}
		if len(more) > 0 && !strings.Contains(out, "podPidsLimit: 4096") {
			t.Errorf("the defaults are not in\n%s", out)
		}
		if err := os.WriteFile(again, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		first, err := config.Load(config.Flags{Config: file, HostnameOverride: "n", Kubeconfig: "/k", Kubelet: map[string]string{"max-pods": "7"}})
		if err != nil {
			t.Fatal(err)
		}
		second, err := config.Load(config.Flags{Config: again, HostnameOverride: "n", Kubeconfig: "/k"})
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		first.Kubelet.TypeMeta, second.Kubelet.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
		first.Agent.TypeMeta, second.Agent.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
		if a, b := asJSON(t, first.Kubelet), asJSON(t, second.Kubelet); a != b {
			t.Errorf("read again it is\n%s\nand was\n%s", b, a)
		}
		if a, b := asJSON(t, first.Agent), asJSON(t, second.Agent); a != b {
			t.Errorf("read again it is\n%s\nand was\n%s", b, a)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSplitTag(t *testing.T) {
	for in, want := range map[string][2]string{
		"a/b:v1":                    {"a/b", "v1"},
		"localhost:5000/b":          {"localhost:5000/b", "-"},
		"a@sha256:0123456789abcdef": {"a", "0123456789ab"},
	} {
		if repo, tag := splitTag(in); repo != want[0] || tag != want[1] {
			t.Errorf("splitTag(%s) = %s, %s", in, repo, tag)
		}
	}
}
