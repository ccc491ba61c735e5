package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// cli runs verbs of the command line inside a bed, with the daemon's
// configuration.
type cli struct {
	b   *bed.Bed
	a   *bed.AgentProcess
	bin string
	env []string
}

func newCLI(t *testing.T, ctx context.Context, b *bed.Bed, a *bed.AgentProcess) *cli {
	t.Helper()
	dir, err := bed.Built(ctx, "nodeagent", bed.Variant{})
	if err != nil {
		t.Fatal(err)
	}
	return &cli{b: b, a: a, bin: filepath.Join(dir, "nodeagent")}
}

// output is what a run of the command line said.
type output struct {
	out, err string
	code     int
}

// command is a verb with its flags; what follows "--" stays last.
func (c *cli) command(args ...string) *exec.Cmd {
	flags := []string{"--config", c.a.ConfigFile(), "--root-dir", c.a.RootDir(), "--hostname-override", "node", "--node-ip", bed.NodeIP}
	i := slices.Index(args, "--")
	if i < 0 {
		i = len(args)
	}
	cmd := exec.Command(c.bin, slices.Concat(args[:i], flags, args[i:])...)
	cmd.Env = append(c.b.Env(), c.env...)
	return cmd
}

func (c *cli) run(t *testing.T, args ...string) output {
	t.Helper()
	return c.do(t, nil, args...)
}

func (c *cli) do(t *testing.T, stdin io.Reader, args ...string) output {
	t.Helper()
	cmd := c.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	cmd.WaitDelay = 5 * time.Second
	must(t, c.b.Start(cmd))
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return output{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// want runs a verb that must end with the code, and returns its stdout.
func (c *cli) want(t *testing.T, code int, args ...string) output {
	t.Helper()
	o := c.run(t, args...)
	if o.code != code {
		t.Errorf("nodeagent %s ended with %d, want %d\n%s%s", strings.Join(args, " "), o.code, code, o.out, o.err)
	}
	return o
}

// document reads JSON output, which must be versioned.
func (o output) document(t *testing.T, kind string, into any) {
	t.Helper()
	var head struct{ APIVersion, Kind string }
	if err := json.Unmarshal([]byte(o.out), &head); err != nil || head.APIVersion != "nodeagent/v1alpha1" || head.Kind != kind {
		t.Fatalf("the head of the document is %+v, %v, want kind %s\n%s", head, err, kind, o.out)
	}
	var whole any
	must(t, json.Unmarshal([]byte(o.out), &whole))
	noNull(t, kind, whole)
	if err := json.Unmarshal([]byte(o.out), into); err != nil {
		t.Fatal(err)
	}
}

// noNull proves that no list is null; a huge page size without a limit is.
func noNull(t *testing.T, path string, v any) {
	t.Helper()
	switch v := v.(type) {
	case nil:
		t.Errorf("%s is null", path)
	case []any:
		for i, x := range v {
			noNull(t, fmt.Sprintf("%s[%d]", path, i), x)
		}
	case map[string]any:
		for k, x := range v {
			if k != "hugepagesMaxBytes" {
				noNull(t, path+"."+k, x)
			}
		}
	}
}

const twoContainers = `  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: ` + image.Example + `
    command: [/podtool, sleep, forever]
  - name: side
    image: ` + image.Example + `
    command: [/podtool, sleep, forever]
`

// hostile is printed by a pod: an escape sequence, a carriage return, a C1
// control and a change of writing direction.
const hostile = "\x1b[31mred\rover\u009bx\u202eend"

const hostilePod = `  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: ` + image.Example + `
    command: [/podtool, seq, stderr, "err-line", ";", stderr, "\e[31mred\rover\u009bx\u202eend", ";", sleep, forever]
`

// TestCommandLine is every reading verb with the daemon alive, then dead.
func TestCommandLine(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{}, bed.AgentOptions{})
	c := newCLI(t, ctx, b, a)
	for name, spec := range map[string]string{"web": sleeper, "two": twoContainers, "evil": hostilePod} {
		must(t, a.WriteManifest(name, manifest(name, spec)))
		must(t, a.WaitPhase(ctx, "default/"+name+"-node", corev1.PodRunning))
	}
	must(t, a.WriteManifest("again", onePod("again", "Always", `[/podtool, seq, stderr, a-run, ";", wait, /tmp/go, ";", exit, "3"]`)))
	must(t, a.WaitPhase(ctx, "default/again-node", corev1.PodRunning))
	c.run(t, "exec", "again", "--", "/podtool", "write", "/tmp/go", "x") // the container's end may take it along: 137
	must(t, a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		p := pods["default/again-node"]
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	}))
	for _, name := range []string{"alive", "dead"} {
		must(t, a.WriteManifest("talk-"+name, onePod("talk-"+name, "Never", `[/podtool, seq, stderr, hello, ";", wait, /tmp/go, ";", stderr, bye]`)))
		must(t, a.WaitPhase(ctx, "default/talk-"+name+"-node", corev1.PodRunning))
	}
	must(t, a.WriteManifest("bad", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: bad\nspec:\n  nonsense: 1\n"))
	must(t, a.WriteManifest("crash", onePod("crash", "Always", `[/podtool, seq, stderr, last-words, ";", exit, "3"]`)))
	crashed := func(pods map[string]*corev1.Pod) bool {
		s := app(pods["default/crash-node"])
		return s.RestartCount > 0 && time.Until(nextStart(t, s)) > 5*time.Second
	}
	must(t, a.WaitPods(ctx, crashed)) // and its next start is not while it is looked at
	t.Run("alive", func(t *testing.T) {
		c.reading(t, "daemon")
		c.follow(t, "talk-alive")
	})
	must(t, a.WaitPods(ctx, crashed))
	must(t, a.Kill())
	before, err := b.Snapshot(ctx)
	must(t, err)
	t.Run("dead", func(t *testing.T) { c.reading(t, "runtime") })
	must(t, b.WaitSame(ctx, before)) // looking changes nothing
	c.follow(t, "talk-dead")
	t.Run("pull", c.pull)
	t.Run("completion", c.completion)
	t.Run("another name", c.anotherName)
	t.Run("drift", c.drift)
	t.Run("terminal", c.onATerminal)
	t.Run("usage", c.codes)
	must(t, b.Stop())
	t.Run("hung", c.hung)
	must(t, b.Cont())
	must(t, b.Kill())
	t.Run("nobody", c.nobody)
}

// nextStart is when a container that is held back is started again; zero for any other.
func nextStart(t *testing.T, s corev1.ContainerStatus) time.Time {
	t.Helper()
	if s.State.Waiting == nil || s.State.Waiting.Reason != "CrashLoopBackOff" || s.LastTerminationState.Terminated == nil {
		return time.Time{}
	}
	var text string
	_, err := fmt.Sscanf(s.State.Waiting.Message, "back-off %s restarting", &text)
	must(t, err)
	wait, err := time.ParseDuration(text)
	must(t, err)
	return s.LastTerminationState.Terminated.FinishedAt.Add(wait)
}

// reading tries the verbs that read, whoever answers.
func (c *cli) reading(t *testing.T, source string) {
	var pods struct {
		Source   string
		Items    []struct{ Namespace, Name, Status, UID string }
		Problems []struct{ File, Message string }
	}
	o := c.want(t, 0, "pods", "-o", "json")
	o.document(t, "PodList", &pods)
	if pods.Source != source || len(pods.Problems) != 1 || !strings.Contains(pods.Problems[0].File, "bad.yaml") {
		t.Errorf("source %q with problems %v, want %q with one of bad.yaml", pods.Source, pods.Problems, source)
	}
	if dead := strings.Contains(o.err, "the daemon does not answer; shown from containerd and the kernel"); dead != (source == "runtime") {
		t.Errorf("stderr says %q while the answer is from the %s", o.err, source)
	}
	status := map[string]string{}
	for _, p := range pods.Items {
		status[p.Name] = p.Status
	}
	for name, want := range map[string]string{"web-node": "Running", "two-node": "Running", "crash-node": "CrashLoopBackOff"} {
		if status[name] != want {
			t.Errorf("pod %s is %q, want %q\n%s", name, status[name], want, o.out)
		}
	}
	table := c.want(t, 0, "pods")
	if !strings.HasPrefix(table.out, "NAMESPACE") || !strings.Contains(table.out, "web-node") || !strings.Contains(table.err, "bad.yaml") {
		t.Errorf("the table is\n%s%s", table.out, table.err)
	}
	var list struct {
		Items []struct{ ID, Name, State, PodName string }
	}
	running := map[string]int{"daemon": 7, "runtime": 6}[source] // one has ended by then
	c.want(t, 0, "ps", "-o", "json").document(t, "ContainerList", &list)
	if len(list.Items) != running {
		t.Errorf("ps shows %d running containers, want %d: %v", len(list.Items), running, list.Items)
	}
	for _, name := range []string{"web", "web-node", "default/web-node", list.Items[0].ID[:12], pods.Items[0].UID} {
		c.want(t, 0, "pods", name, "-o", "name")
	}
	t.Run("logs", c.logs)
	t.Run("exec", c.exec)
	t.Run("inspect", c.inspect)
	t.Run("stats", c.stats)
	t.Run("images", c.images)
	t.Run("config", c.config)
}

func (c *cli) inspect(t *testing.T) {
	var doc struct {
		Containers []struct {
			Name   string
			Asked  struct{ Cgroup string }
			Kernel struct {
				Cgroup    struct{ Paths map[string]string }
				Processes []struct{ PID, OOMScoreAdj int }
			}
			Drift  []struct{ What, Asked, Kernel string }
			Missed []string
		}
	}
	c.want(t, 0, "inspect", "two", "-o", "json").document(t, "PodInspection", &doc)
	if len(doc.Containers) != 2 || len(doc.Containers[0].Kernel.Processes) == 0 {
		t.Fatalf("the inspection is %+v", doc)
	}
	for _, x := range doc.Containers {
		if len(x.Drift)+len(x.Missed) > 0 {
			t.Errorf("container %s differs in %v, not read were %v", x.Name, x.Drift, x.Missed)
		}
	}
	if o := c.want(t, 0, "inspect", "two", "-c", "side"); !strings.Contains(o.out, "the kernel has what was asked for") || strings.Contains(o.out, "Container app") {
		t.Errorf("the page is\n%s", o.out)
	}
	c.want(t, 0, "inspect", "crash")
	c.want(t, 6, "inspect", "nothing")
	c.want(t, 6, "inspect", "two", "-c", "nothing")
}

func (c *cli) stats(t *testing.T) {
	var doc struct {
		Items []struct {
			PodName, Name string
			Usage         struct{ MemoryBytes, Pids uint64 }
			Log           struct{ Bytes uint64 }
		}
	}
	c.want(t, 0, "stats", "--interval", "100ms", "-o", "json").document(t, "StatsList", &doc)
	for _, x := range doc.Items {
		if x.Usage.Pids == 0 || x.Usage.MemoryBytes == 0 || (x.PodName == "evil-node" && x.Log.Bytes == 0) {
			t.Errorf("container %s/%s uses %+v, log %+v", x.PodName, x.Name, x.Usage, x.Log)
		}
	}
	if len(doc.Items) < 6 {
		t.Errorf("stats shows %d containers, want those of all running pods", len(doc.Items))
	}
	c.want(t, 0, "stats", "web", "--interval", "10ms")
}

func (c *cli) images(t *testing.T) {
	var doc struct {
		Items []struct {
			Name  string
			InUse bool
		}
	}
	used := func() map[string]bool {
		all := map[string]bool{}
		c.want(t, 0, "images", "-o", "json").document(t, "ImageList", &doc)
		for _, i := range doc.Items {
			all[i.Name] = i.InUse
		}
		doc.Items = nil
		return all
	}
	if all := used(); !all[image.Example] || all[image.Shell] || len(all) < 2 {
		t.Errorf("images in use are %v, want only %s", all, image.Example)
	}
	c.want(t, 1, "images", "rm", image.Example)
	c.want(t, 6, "images", "rm", "localhost/none:v1")
	c.want(t, 2, "images", "rm", "not a name")
	c.want(t, 1, "images", "prune") // what the bad manifest names is not known
	if o := c.want(t, 0, "images", "prune", "--force"); o.out != image.Shell+"\n" {
		t.Errorf("prune removes %q, want %s", o.out, image.Shell)
	}
	tar, err := bed.ImageTar(t.Context())
	must(t, err)
	file := filepath.Join(t.TempDir(), "images.tar")
	must(t, os.WriteFile(file, tar, 0o600))
	if o := c.want(t, 0, "images", "import", file); !strings.Contains(o.out, image.Shell) {
		t.Errorf("import prints %q", o.out)
	}
	c.want(t, 0, "images", "rm", image.Shell)
	if o := c.do(t, bytes.NewReader(tar), "images", "import", "-"); o.code != 0 {
		t.Errorf("import from stdin: %+v", o)
	}
	if _, there := used()[image.Shell]; !there {
		t.Error("the imported image is not listed")
	}
	c.want(t, 6, "images", "import", "/nothing.tar")
}

func (c *cli) config(t *testing.T) {
	var doc struct {
		NodeName string
		Kubelet  struct{ StaticPodPath string }
		Origin   map[string]string
	}
	c.want(t, 0, "config", "-o", "json").document(t, "Config", &doc)
	if doc.NodeName != "node" || doc.Kubelet.StaticPodPath != c.a.Manifests ||
		doc.Origin["nodeName"] != "--hostname-override" || doc.Origin["kubelet.staticPodPath"] != c.a.ConfigFile() {
		t.Errorf("the configuration is %+v", doc)
	}
	c.want(t, 0, "config")
	c.want(t, 0, "version")
}

// logs tries "logs" with a pod that has crashed and one that writes what a
// terminal must not see.
func (c *cli) logs(t *testing.T) {
	for _, args := range [][]string{{"logs", "crash"}, {"logs", "--previous", "crash"}, {"logs", "-f", "crash", "--tail", "5"}} {
		if o := c.want(t, 0, args...); o.err != "last-words\n" && !strings.HasSuffix(o.err, "\nlast-words\n") {
			t.Errorf("%v shows %q and %q, want last-words on stderr", args, o.out, o.err)
		}
	}
	now, before := c.want(t, 0, "logs", "again", "--timestamps"), c.want(t, 0, "logs", "again", "--timestamps", "-p")
	at := func(o output) string { return o.err[strings.Index(o.err, "a-run")-31:] }
	if !strings.Contains(now.err, "a-run") || !strings.Contains(before.err, "a-run") || at(before) >= at(now) {
		t.Errorf("this run wrote %q, the one before %q", now.err, before.err)
	}
	if o := c.want(t, 0, "logs", "evil"); !strings.HasSuffix(o.err, "err-line\n"+hostile+"\n") {
		t.Errorf("a pipe gets %q, want the log as it was written", o.err)
	}
	if o := c.want(t, 0, "logs", "evil", "--tail", "1", "--timestamps"); strings.Contains(o.err, "err-line") || !strings.Contains(o.err, "Z "+hostile) {
		t.Errorf("one line with its time is %q", o.err)
	}
	if o := c.want(t, 0, "logs", "evil", "--since", "1ms"); strings.Contains(o.err, "red") {
		t.Errorf("nothing was written lately, but there is %q", o.err)
	}
	if o := c.want(t, 2, "logs", "two"); !strings.Contains(o.err, "app") || !strings.Contains(o.err, "side") {
		t.Errorf("of a pod with two containers it says %q, want both names", o.err)
	}
	c.want(t, 0, "logs", "two", "-c", "side")
	c.want(t, 6, "logs", "two", "-c", "none")
	c.want(t, 6, "logs", "--previous", "web")
	c.want(t, 6, "logs", "nothing")
}

// follow proves that a log is shown while it grows, and to its last line when
// the container ends.
func (c *cli) follow(t *testing.T, pod string) {
	t.Helper()
	cmd := c.command("logs", "-f", pod)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	cmd.Stderr = w
	must(t, c.b.Start(cmd))
	w.Close()
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewScanner(r)
	for lines.Scan() && lines.Text() != "hello" {
	}
	c.run(t, "exec", pod, "--", "/podtool", "write", "/tmp/go", "x") // the container's end may take it along: 137
	var rest []string
	last := time.Now()
	for lines.Scan() {
		rest, last = append(rest, lines.Text()), time.Now()
	}
	must(t, cmd.Wait())
	if len(rest) != 1 || rest[0] != "bye" {
		t.Errorf("after the first line it shows %q, want the last line and the end", rest)
	}
	// By the exit record: three seconds is how long it waits for one that does not come.
	if d := time.Since(last); d > need.Slow(2500*time.Millisecond) {
		t.Errorf("it took %v to end with its container", d)
	}
}

func (c *cli) exec(t *testing.T) {
	if o := c.want(t, 0, "exec", "web", "--", "/podtool", "cat", "/etc/passwd"); !strings.Contains(o.out, "root:x:0:0") {
		t.Errorf("exec prints %q", o.out)
	}
	if o := c.do(t, strings.NewReader("through\n"), "exec", "-i", "web", "--", "/podtool", "cat", "/dev/stdin"); o.out != "through\n" {
		t.Errorf("stdin comes back as %+v", o)
	}
	c.want(t, 7, "exec", "web", "--", "/podtool", "exit", "7")
	c.want(t, 2, "exec", "two", "--", "/podtool", "exit", "7")
	c.want(t, 0, "exec", "two", "-c", "side", "--", "/podtool", "exit", "0")
	c.want(t, 6, "exec", "nothing", "--", "/podtool", "exit", "7")
	c.want(t, 1, "exec", "crash", "--", "/podtool", "exit", "7")
	if left, _ := os.ReadDir(filepath.Join(c.a.RunDir(), "exec")); len(left) > 0 {
		t.Errorf("exec leaves %v", left)
	}
}

// completion asks as a shell does when somebody presses Tab.
func (c *cli) completion(t *testing.T) {
	cmd := exec.Command(c.bin, "__complete", "logs", "--config", c.a.ConfigFile(), "--root-dir", c.a.RootDir(), "--hostname-override", "node", "--node-ip", bed.NodeIP, "")
	var out bytes.Buffer
	cmd.Stdout = &out
	must(t, c.b.Start(cmd))
	must(t, cmd.Wait())
	if !strings.Contains(out.String(), "default/web-node\n") {
		t.Errorf("Tab offers %q", out.String())
	}
}

// anotherName leaves out the daemon's flags: which pods are whose must show
// nevertheless.
func (c *cli) anotherName(t *testing.T) {
	cmd := exec.Command(c.bin, "pods", "--config", c.a.ConfigFile(), "--root-dir", c.a.RootDir(), "-o", "json")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	must(t, c.b.Start(cmd))
	must(t, cmd.Wait())
	if strings.Contains(out.String(), "NotWanted") || !strings.Contains(out.String(), `"name": "web-node"`) || !strings.Contains(errs.String(), "--hostname-override") {
		t.Errorf("without --hostname-override pods shows\n%s%s", out.String(), errs.String())
	}
}

// drift changes a limit and the oom_score_adj of a container behind everybody's
// back.
func (c *cli) drift(t *testing.T) {
	var doc struct {
		Containers []struct {
			Kernel struct {
				Cgroup    struct{ Paths map[string]string }
				Processes []struct{ PID int }
			}
			Drift []struct{ What, Asked, Kernel string }
		}
	}
	look := func() []struct{ What, Asked, Kernel string } {
		doc.Containers = nil
		c.want(t, 0, "inspect", "web", "-o", "json").document(t, "PodInspection", &doc)
		return doc.Containers[0].Drift
	}
	if d := look(); len(d) > 0 {
		t.Fatalf("before anything changed: %v", d)
	}
	x := doc.Containers[0]
	dir, limit := filepath.Join("/sys/fs/cgroup/cpu", x.Kernel.Cgroup.Paths["cpu"]), "cpu.shares"
	if need.Lacks(need.CgroupV2) == "" {
		dir, limit = filepath.Join("/sys/fs/cgroup", x.Kernel.Cgroup.Paths["unified"]), "cpu.weight"
	}
	file := filepath.Join(dir, limit)
	was, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte("777"), 0))
	d := look()
	must(t, os.WriteFile(file, was, 0))
	if len(d) != 1 || d[0].What != limit || d[0].Kernel != "777" {
		t.Errorf("with %s at 777 it finds %v", limit, d)
	}
	// Elsewhere: on v2 a cgroup with controllers for its children takes no process.
	elsewhere := filepath.Dir(dir)
	if limit == "cpu.weight" {
		elsewhere = "/sys/fs/cgroup"
	}
	move := func(to string) {
		must(t, os.WriteFile(filepath.Join(to, "cgroup.procs"), fmt.Append(nil, x.Kernel.Processes[0].PID), 0))
	}
	move(elsewhere)
	d = look()
	move(dir)
	if !slices.ContainsFunc(d, func(x struct{ What, Asked, Kernel string }) bool { return strings.HasPrefix(x.What, "cgroup of ") }) {
		t.Errorf("with its process in another cgroup it finds %v", d)
	}
	if d := look(); len(d) > 0 {
		t.Errorf("after all was put right: %v", d)
	}
}

// codes are the exit codes of wrong command lines and configurations.
func (c *cli) codes(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"}, {"pods", "--nonsense"}, {"pods", "-o", "nonsense"}, {"logs"}, {"logs", "a", "b"},
		{"exec", "web"}, {"exec", "web", "/podtool"}, {"images", "nonsense"}, {"logs", "web", "--since", "soon"},
	} {
		c.want(t, 2, args...)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	must(t, os.WriteFile(bad, []byte("apiVersion: nodeagent/v1alpha1\nkind: NodeAgentConfiguration\nnonsense: 1\n"), 0o600))
	for _, verb := range []string{"pods", "config", "images"} {
		cmd := exec.Command(c.bin, verb, "--config", bad)
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != 78 {
			t.Errorf("%s with a bad configuration ends with %d, want 78", verb, code)
		}
	}
}

// hung is the time when the daemon is dead and containerd takes calls and never
// answers.
func (c *cli) hung(t *testing.T) {
	for code, args := range map[int][]string{5: {"pods"}, 0: {"logs", "crash"}} {
		began := time.Now()
		c.want(t, code, args...)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%v took %v", args, d)
		}
	}
}

// nobody is the time when neither the daemon nor containerd lives.
func (c *cli) nobody(t *testing.T) {
	for _, args := range [][]string{{"pods"}, {"ps"}, {"images"}, {"stats"}, {"inspect", "web"}, {"exec", "web", "--", "/podtool", "exit", "0"}} {
		c.want(t, 5, args...)
	}
	if o := c.want(t, 0, "logs", "crash"); !strings.HasSuffix(o.err, "last-words\n") {
		t.Errorf("logs from the files alone are %q", o.err)
	}
	c.want(t, 6, "logs", "nothing")
	c.want(t, 0, "config")
	c.want(t, 0, "version")
}
