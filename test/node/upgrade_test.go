package node

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// recordUpgrade writes what this build leaves on a node as a new fixture. One
// that is there is never recorded again: it is what some node has.
var recordUpgrade = flag.String("record-upgrade", "", "record `testdata/upgrade/NAME.json`")

// fixture is what an earlier build left on a node with the pods of
// upgradeManifests: what a later build must adopt, by these very names. What
// differs from run to run (ids, addresses, processes, paths of the bed) is
// written as «name».
type fixture struct {
	Records map[string]fixtureRecord // by pod and container: "web", "web/main"
	Files   map[string]string        // below the run and state directories
	Nft     string                   // the ruleset of the pod network
}

// fixtureRecord is one of containerd's container records.
type fixtureRecord struct {
	Labels      map[string]string
	Runtime     string
	Snapshotter string `json:",omitempty"`
	Image       string `json:",omitempty"`
	SpecType    string
	Spec        json.RawMessage
	Extensions  map[string]string `json:",omitempty"` // type URL and base64
}

// upgradeManifestDir is part of static pods' identity, so it is the same in
// every run.
const upgradeManifestDir = "/run/nodeagent-test-upgrade/manifests"

func upgradeManifests() map[string]string {
	container := func(name, argv string) string {
		return fmt.Sprintf("  - name: %s\n    image: %s\n    command: %s\n", name, image.Example, argv)
	}
	return map[string]string{
		"web": manifest("web", "  terminationGracePeriodSeconds: 7\n  initContainers:\n"+container("first", "[/podtool, exit, \"0\"]")+
			"  containers:\n"+container("main", "[/podtool, sleep, forever]")+
			"    ports: [{containerPort: 8080, hostPort: 18080}]\n    resources: {requests: {cpu: 50m, memory: 16Mi}, limits: {cpu: 500m, memory: 64Mi}}\n"),
		"host":  manifest("host", "  hostNetwork: true\n  containers:\n"+container("main", "[/podtool, sleep, forever]")),
		"pids":  manifest("pids", "  shareProcessNamespace: true\n  containers:\n"+container("main", "[/podtool, sleep, forever]")+container("side", "[/podtool, sleep, forever]")),
		"never": manifest("never", "  restartPolicy: Never\n  containers:\n"+container("main", "[/podtool, exit, \"7\"]")),
	}
}

// upgradeNode is a node with those pods, whose daemon is dead.
type upgradeNode struct {
	*testing.T
	ctx     context.Context
	b       *bed.Bed
	a       *bed.AgentProcess
	records map[string]containers.Container // by pod and container
	tokens  map[string]string               // «name»: what it is in this run
}

func newUpgradeNode(t *testing.T) *upgradeNode {
	t.Helper()
	need.Have(t, need.Root)
	root := filepath.Dir(upgradeManifestDir)
	must(t, os.RemoveAll(root))
	must(t, os.MkdirAll(upgradeManifestDir, 0o755))
	t.Cleanup(func() { os.RemoveAll(root) })
	ctx, b, a := newNode(t, bed.Options{Private: true}, bed.AgentOptions{Manifests: upgradeManifestDir})
	n := &upgradeNode{T: t, ctx: ctx, b: b, a: a}
	for name, text := range upgradeManifests() {
		must(t, a.WriteManifest(name, text))
	}
	for name, phase := range map[string]corev1.PodPhase{"web": corev1.PodRunning, "host": corev1.PodRunning, "pids": corev1.PodRunning, "never": corev1.PodFailed} {
		must(t, a.WaitPhase(ctx, "default/"+name+"-node", phase))
	}
	within(t, ctx, 30*time.Second, func() bool { n.look(); return n.settled() })
	must(t, a.Kill())
	n.look()
	n.name()
	return n
}

// settled tells that the daemon has nothing more to write about these pods.
func (n *upgradeNode) settled() bool {
	for key, r := range n.records {
		if strings.HasPrefix(key, "never/") || key == "web/first" {
			if r.Labels["io.nodeagent.exit"] == "" {
				return false
			}
		}
	}
	return len(n.records) == 4+6+1 // sandboxes, containers, the init of pids
}

func (n *upgradeNode) look() {
	n.Helper()
	all, err := n.b.Client(n.T).ContainerService().List(n.ctx)
	must(n.T, err)
	n.records = map[string]containers.Container{}
	for _, r := range all {
		key := strings.TrimSuffix(r.Labels["io.kubernetes.pod.name"], "-node")
		switch r.Labels["io.nodeagent.kind"] {
		case "container":
			key += "/" + r.Labels["io.kubernetes.container.name"]
		case "init":
			key += "/(init)"
		}
		n.records[key] = r
	}
}

// name gives everything that differs from run to run a name.
func (n *upgradeNode) name() {
	n.Helper()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	must(n.T, err)
	n.tokens = map[string]string{
		"«boot»": strings.TrimSpace(string(boot)), "«agent»": n.a.Dir, "«cgroups»": n.b.CgroupRoot(), "«bed»": n.b.Dir(),
	}
	for key, r := range n.records {
		n.tokens["«id "+key+"»"] = r.ID
		if mark, err := os.ReadFile(filepath.Join(n.a.RunDir(), "started", r.ID)); err == nil {
			var m struct{ Pid json.Number }
			must(n.T, json.Unmarshal(mark, &m))
			if m.Pid != "" && m.Pid != "0" {
				n.tokens["\"pid\":«pid "+key+"»"] = "\"pid\":" + m.Pid.String()
			}
		}
		if strings.Contains(key, "/") {
			continue
		}
		for label, name := range map[string]string{"io.nodeagent.netns": "netns"} {
			if v := r.Labels[label]; v != "" {
				n.tokens["«"+name+" "+key+"»"] = v
			}
		}
		for i, addr := range strings.Split(r.Labels["io.nodeagent.addresses"], ",") {
			if addr != "" && addr != bed.NodeIP {
				n.tokens[fmt.Sprintf("«address %d of %s»", i, key)] = addr
			}
		}
		if text, err := os.ReadFile(filepath.Join(n.a.RunDir(), "podnet", r.ID)); err == nil {
			var rec struct{ Link string }
			must(n.T, json.Unmarshal(text, &rec))
			n.tokens["«link "+key+"»"] = rec.Link
		}
	}
}

// replacer replaces what this run has by names, or names by what this run has.
func (n *upgradeNode) replacer(toNames bool) *strings.Replacer {
	// Longest first: a path before its beginning.
	names := slices.SortedFunc(maps.Keys(n.tokens), func(a, b string) int { return len(n.tokens[b]) - len(n.tokens[a]) })
	var pairs []string
	for _, name := range names {
		if toNames {
			pairs = append(pairs, n.tokens[name], name)
		} else {
			pairs = append(pairs, name, n.tokens[name])
		}
	}
	return strings.NewReplacer(pairs...)
}

// record is the fixture of this build.
func (n *upgradeNode) record() fixture {
	n.Helper()
	names := n.replacer(true)
	f := fixture{Records: map[string]fixtureRecord{}, Files: n.files(names)}
	for key, r := range n.records {
		out := fixtureRecord{Labels: map[string]string{}, Runtime: r.Runtime.Name, Snapshotter: r.Snapshotter, Image: r.Image,
			SpecType: r.Spec.GetTypeUrl(), Spec: json.RawMessage(names.Replace(string(r.Spec.GetValue()))), Extensions: map[string]string{}}
		for k, v := range r.Labels {
			out.Labels[k] = names.Replace(v)
		}
		for k, v := range r.Extensions {
			out.Extensions[k] = v.GetTypeUrl() + " " + base64.StdEncoding.EncodeToString([]byte(names.Replace(string(v.GetValue()))))
		}
		f.Records[key] = out
	}
	out, err := n.b.Run(n.ctx, "nft", "list", "table", "inet", "nodeagent-podnet")
	must(n.T, err)
	f.Nft = names.Replace(out)
	return f
}

// files are what the daemon keeps in files.
func (n *upgradeNode) files(names *strings.Replacer) map[string]string {
	n.Helper()
	all := map[string]string{}
	for _, root := range []string{n.a.RunDir(), n.a.StateDir()} {
		must(n.T, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(n.a.Dir, path)
			if err != nil || !e.Type().IsRegular() || !recorded(rel) {
				return err
			}
			text, err := os.ReadFile(path)
			all[names.Replace(rel)] = names.Replace(string(text))
			return err
		}))
	}
	return all
}

// recorded tells which files an upgrade must understand. Shims' own notes stay
// with the shims that run; pins are no files.
func recorded(rel string) bool {
	dir := filepath.Base(filepath.Dir(rel))
	return dir == "started" || dir == "stop" || dir == "podnet" || filepath.Base(rel) == "intent" || strings.HasPrefix(rel, "state/")
}

// replay puts the fixture in the place of what this build has written.
func (n *upgradeNode) replay(f fixture) {
	n.Helper()
	values := n.replacer(false)
	client := n.b.Client(n.T).ContainerService()
	for key, want := range f.Records {
		r, ok := n.records[key]
		if !ok {
			n.Fatalf("this build has no record of %s: have %v", key, slices.Sorted(maps.Keys(n.records)))
		}
		if r.Runtime.Name != want.Runtime || r.Snapshotter != want.Snapshotter {
			n.Errorf("%s is run by %s on %s, an earlier build had %s on %s: containers that run would be strangers", key, r.Runtime.Name, r.Snapshotter, want.Runtime, want.Snapshotter)
		}
		r.Labels = map[string]string{}
		for k, v := range want.Labels {
			r.Labels[k] = values.Replace(v)
		}
		r.Spec = &anypb.Any{TypeUrl: want.SpecType, Value: []byte(values.Replace(string(want.Spec)))}
		r.Extensions = map[string]typeurl.Any{}
		for k, v := range want.Extensions {
			url, encoded, _ := strings.Cut(v, " ")
			value, err := base64.StdEncoding.DecodeString(encoded)
			must(n.T, err)
			r.Extensions[k] = &anypb.Any{TypeUrl: url, Value: []byte(values.Replace(string(value)))}
		}
		_, err := client.Update(n.ctx, r, "labels", "spec", "extensions")
		must(n.T, err)
	}
	for rel := range n.files(strings.NewReplacer()) {
		must(n.T, os.Remove(filepath.Join(n.a.Dir, rel)))
	}
	for rel, text := range f.Files {
		path := filepath.Join(n.a.Dir, values.Replace(rel))
		must(n.T, os.MkdirAll(filepath.Dir(path), 0o700))
		must(n.T, os.WriteFile(path, []byte(values.Replace(text)), 0o600))
	}
	rules := filepath.Join(n.TempDir(), "rules")
	must(n.T, os.WriteFile(rules, []byte("add table inet nodeagent-podnet\ndelete table inet nodeagent-podnet\n"+values.Replace(f.Nft)), 0o600))
	if out, err := n.b.Run(n.ctx, "nft", "-f", rules); err != nil {
		n.Fatalf("%v\n%s", err, out)
	}
}

// TestUpgrade: the pods that an earlier build left running are adopted by this
// one, with all their names, and none is started again.
func TestUpgrade(t *testing.T) {
	if *recordUpgrade != "" {
		text, err := json.MarshalIndent(newUpgradeNode(t).record(), "", " ")
		must(t, err)
		must(t, os.WriteFile(filepath.Join("testdata", "upgrade", *recordUpgrade+".json"), append(text, '\n'), 0o644))
		return
	}
	all, err := filepath.Glob("testdata/upgrade/*.json")
	if err != nil || len(all) == 0 {
		t.Fatalf("no fixture, %v", err)
	}
	for _, path := range all {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			must(t, err)
			var f fixture
			must(t, json.Unmarshal(text, &f))
			testUpgrade(t, f)
		})
	}
}

func testUpgrade(t *testing.T, f fixture) {
	n := newUpgradeNode(t)
	before, err := n.b.Running(n.ctx)
	must(t, err)
	ids := slices.Sorted(maps.Values(idsOf(n.records)))
	n.replay(f)
	must(t, n.a.Start(n.ctx))
	soon, cancel := context.WithTimeout(n.ctx, 2*time.Minute)
	defer cancel()
	must(t, n.a.WaitPods(soon, func(pods map[string]*corev1.Pod) bool {
		for _, p := range pods {
			if p.Name != "never-node" && !bed.Ready(p) {
				return false
			}
		}
		return len(pods) == len(upgradeManifests())
	}))
	pods, err := n.a.Pods(n.ctx)
	must(t, err)
	for _, p := range pods {
		want := f.Records[strings.TrimSuffix(p.Name, "-node")].Labels["io.kubernetes.pod.uid"]
		if string(p.UID) != want {
			t.Errorf("%s has the uid %s, an earlier build gave it %s", p.Name, p.UID, want)
		}
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount != 0 || p.Name == "never-node" && (c.State.Terminated == nil || c.State.Terminated.ExitCode != 7) {
				t.Errorf("%s: %+v", p.Name, c)
			}
		}
	}
	// A daemon that thinks again would do it when it is woken: by a manifest.
	must(t, n.a.WriteManifest("other", manifest("other", sleeper)))
	must(t, n.a.WaitPhase(n.ctx, "default/other-node", corev1.PodRunning))
	after, err := n.b.Running(n.ctx)
	must(t, err)
	for id, mark := range before {
		if after[id] != mark {
			t.Errorf("container %s was %q and is %q", id, mark, after[id])
		}
	}
	n.look()
	for key := range n.records {
		if strings.HasPrefix(key, "other") {
			delete(n.records, key)
		}
	}
	if now := slices.Sorted(maps.Values(idsOf(n.records))); !slices.Equal(now, ids) {
		t.Errorf("containerd's records were\n%v\nand are\n%v", ids, now)
	}
	// They can also be taken away by these names.
	must(t, n.a.RemoveManifests())
	waitGone(t, n.ctx, n.a)
	if left, err := n.b.Running(n.ctx); err != nil || len(left) > 0 {
		t.Errorf("left running: %v, %v", left, err)
	}
}

func idsOf(records map[string]containers.Container) map[string]string {
	out := map[string]string{}
	for key, r := range records {
		out[key] = r.ID
	}
	return out
}
