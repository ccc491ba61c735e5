package node

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/version/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/hostcheck/gather"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// report is the document of "check".
type report struct {
	Findings []struct{ ID, Severity, Title, Seen, Cause, Cure string }
	Unseen   []struct{ What, Why string }
	Errors   int

	full [2]bool // this host's disk, before the look and after it
}

func (r report) ids() []string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, f.ID)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (r report) seen(id string) string {
	for _, f := range r.Findings {
		if f.ID == id {
			return f.Seen
		}
	}
	return ""
}

// check runs the verb, which must end with 3 exactly if there is an error.
func (c *cli) check(t *testing.T, args ...string) report {
	t.Helper()
	cmd := c.command("check", "-o", "json", "--timeout", lookTime.String())
	cmd.Args = append(cmd.Args, args...) // the last flag wins
	return runCheck(t, c.b, cmd)
}

// lookTime is what one look has.
var lookTime = need.Slow(gather.Limit)

// wantMore holds a report against what the same host has when nothing is broken:
// what broke is found under these IDs and no other.
func wantMore(t *testing.T, base, got report, ids ...string) {
	t.Helper()
	got.holds(t, got.ids(), append(base.ofOthers(), ids...))
	for _, id := range ids {
		t.Logf("%s: %s", id, got.seen(id))
	}
}

// fullDisk is the finding of a disk that is nearly full: this host's is there or not, and
// may become so while a test runs.
const fullDisk = "NA-DISK-002"

func withoutDisk(ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == fullDisk })
}

// ofOthers are the IDs but for this host's disk.
func (r report) ofOthers() []string { return withoutDisk(r.ids()) }

// holds compares what a report found with what it has to, and that of this host's disk
// as this was at that very time.
func (r report) holds(t *testing.T, found, want []string) {
	t.Helper()
	if want = slices.Clone(want); r.full[0] {
		want = append(want, fullDisk)
	}
	if r.full[0] != r.full[1] { // somebody filled or emptied it during the look
		found, want = withoutDisk(found), withoutDisk(want)
	}
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(found, want) {
		t.Errorf("found are %v, want %v\n%+v", found, want, r)
	}
}

// diskFull tells it of the disk on which containerd's images are.
func diskFull(t *testing.T, b *bed.Bed) bool {
	t.Helper()
	var fs unix.Statfs_t
	must(t, unix.Statfs(b.Dir(), &fs))
	return fs.Bavail*100 < fs.Blocks*15
}

// hostIDs are the findings that this host must give in a bed, by other looks
// than the verb's own, but for its disk.
func hostIDs(t *testing.T, b *bed.Bed) []string {
	t.Helper()
	var all []string
	add := func(is bool, id string) {
		if is {
			all = append(all, id)
		}
	}
	number := func(path string) int {
		text, err := os.ReadFile("/proc/sys/" + path)
		must(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		must(t, err)
		return n
	}
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	v2 := err == nil && strings.Contains(string(controllers), "memory")
	pid1, err := os.ReadFile("/proc/1/comm")
	must(t, err)
	systemd := string(pid1) == "systemd\n"
	add(!v2, "NA-CGROUP-003")
	add(v2 && !strings.Contains(string(controllers), "hugetlb") || !v2 && !exists("/sys/fs/cgroup/hugetlb"), "NA-CGROUP-006")
	add(v2 && systemd, "NA-CGROUP-007") // the bed's daemon has the cgroupfs driver
	add(number("fs/inotify/max_user_instances") < 512 || number("fs/inotify/max_user_watches") < 65536, "NA-LIMIT-001")
	add(number("kernel/pid_max") < 4*4096 || number("kernel/threads-max") < 2*4096, "NA-LIMIT-002")
	add(number("kernel/panic") != 10 || number("kernel/panic_on_oops") != 1 || number("vm/overcommit_memory") != 1, "NA-SYSCTL-001")
	old, err := os.ReadFile("/proc/self/oom_score_adj")
	must(t, err)
	add(os.WriteFile("/proc/self/oom_score_adj", []byte("-998"), 0) != nil, "NA-PRIV-001")
	must(t, os.WriteFile("/proc/self/oom_score_adj", bytes.TrimSpace(old), 0))
	var clock unix.Timex
	_, err = unix.Adjtimex(&clock)
	must(t, err)
	add(clock.Status&unix.STA_UNSYNC != 0, "NA-NODE-002")
	must(t, b.Do(func() error {
		add(!exists("/proc/sys/net/bridge"), "NA-NET-004")
		text, err := os.ReadFile("/proc/thread-self/root/proc/sys/net/ipv4/ip_forward")
		add(string(text) == "0\n", "NA-NET-012")
		return err
	}))
	add(systemd && !exists("/etc/systemd/system/nodeagent.service"), "NA-UNIT-001")
	slices.Sort(all)
	return all
}

// named is a running copy of busybox under another name, as another agent or
// another runtime would have it: its shell runs the script until the end of t.
func named(t *testing.T, b *bed.Bed, name, script string, files []*os.File, args ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	text, err := os.ReadFile("/bin/busybox")
	must(t, err)
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, text, 0o755))
	cmd := &exec.Cmd{Path: path, Args: append([]string{"busybox", "sh", "-c", script, name}, args...), ExtraFiles: files}
	stdin, err := cmd.StdinPipe() // the script's read ends with it
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, b.Start(cmd))
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, stdout
}

// disguised runs a program called kubelet by way of another, which makes it
// somebody who cannot be a kubelet of this host.
func disguised(t *testing.T, b *bed.Bed, by []string, args ...string) {
	t.Helper()
	text, err := os.ReadFile("/bin/busybox")
	must(t, err)
	dir := filepath.Join(b.Dir(), "tmp", "disguised") // below directories that anybody may pass
	must(t, os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, "kubelet")
	must(t, os.WriteFile(path, text, 0o755))
	script := `exec -a busybox "$0" sh -c 'echo ready; read x' kubelet "$@"`
	cmd := exec.Command(by[0], slices.Concat(by[1:], []string{"/bin/bash", "-c", script, path}, args)...)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, b.Start(cmd))
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the program said %q, %v", line, err)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)); err != nil || filepath.Base(exe) != "kubelet" {
		t.Fatalf("the program is %s, %v", exe, err)
	}
}

// hold is a program of that name that listens on the ports of a kubelet.
func hold(t *testing.T, b *bed.Bed, name string, args ...string) {
	t.Helper()
	var files []*os.File
	for _, addr := range []string{"127.0.0.1:10248", "[::]:10250"} {
		must(t, b.Do(func() error {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			defer l.Close()
			f, err := l.(*net.TCPListener).File()
			files = append(files, f)
			return err
		}))
	}
	named(t, b, name, "read x", files, args...)
	for _, f := range files {
		f.Close() // it alone holds them now
	}
}

// newHost is a host on which the daemon was installed and has never run.
func newHost(t *testing.T) (context.Context, *bed.Bed, *bed.AgentProcess, *cli) {
	t.Helper()
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), need.Slow(5*time.Minute))
	t.Cleanup(cancel)
	b := bed.Containerd(t, bed.Options{})
	a, err := b.NewAgent(ctx, bed.AgentOptions{})
	must(t, err)
	return ctx, b, a, newCLI(t, ctx, b, a)
}

// TestCheck breaks a host in one way after the other; each is found, and nothing
// else.
func TestCheck(t *testing.T) {
	ctx, b, a, c := newHost(t)
	base := c.check(t)
	base.holds(t, base.ids(), hostIDs(t, b))
	if t.Failed() {
		return
	}
	if len(base.Unseen) > 0 {
		t.Errorf("root does not see %v", base.Unseen)
	}
	broken := []struct {
		name string
		test func(t *testing.T)
	}{
		{"no containerd", func(t *testing.T) {
			wantMore(t, base, c.check(t, "--container-runtime-endpoint", "unix:///nowhere.sock"), "NA-RUNTIME-001")
		}},
		{"containerd hangs", func(t *testing.T) {
			must(t, b.Stop())
			defer b.Cont()
			began := time.Now()
			wantMore(t, base, c.check(t), "NA-RUNTIME-001")
			if took := time.Since(began); took > lookTime+need.Slow(3*time.Second) {
				t.Errorf("it took %v", took)
			}
		}},
		{"old containerd", func(t *testing.T) {
			wantMore(t, base, c.check(t, "--container-runtime-endpoint", "unix://"+oldContainerd(t)), "NA-RUNTIME-002")
		}},
		{"no runc", func(t *testing.T) {
			wantMore(t, base, c.check(t, variant(t, a, "\nruntimes: {\"\": {binary: /nowhere/runc}}")...), "NA-RUNTIME-004")
		}},
		{"no runc of a handler", func(t *testing.T) {
			wantMore(t, base, c.check(t, variant(t, a, "\nruntimes: {other: {binary: /nowhere/crun}}")...), "NA-RUNTIME-004")
		}},
		{"no shim", func(t *testing.T) {
			wantMore(t, base, c.check(t, variant(t, a, "\nruntimes: {\"\": {shim: io.containerd.nothing.v1}}")...), "NA-RUNTIME-003")
		}},
		{"no snapshotter", func(t *testing.T) {
			wantMore(t, base, c.check(t, variant(t, a, "\nruntimes: {\"\": {snapshotter: none}}")...), "NA-RUNTIME-006")
		}},
		{"cni without plugins", func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "10-x.conflist"), []byte(`{"name":"x","cniVersion":"1.0.0","plugins":[{"type":"flannel"}]}`), 0o644))
			wantMore(t, base, c.check(t, variant(t, a, "  cniConfDir: "+dir+"\n  cniBinDir: "+dir)...), "NA-CNI-001")
		}},
		{"cni of anybody", func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "10-x.conflist")
			must(t, os.WriteFile(file, []byte(`{"name":"x","plugins":[{"type":"bridge"}]}`), 0o644))
			must(t, os.Chmod(file, 0o666))
			wantMore(t, base, c.check(t, variant(t, a, "  cniConfDir: "+dir)...), "NA-CNI-002")
		}},
		{"bad configuration", func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.yaml")
			must(t, os.WriteFile(file, []byte("apiVersion: nodeagent/v1alpha1\nkind: NodeAgentConfiguration\nrunDri: /x\n"), 0o600))
			r := c.check(t, "--config", file, "--container-runtime-endpoint", "unix://"+b.Address())
			if !strings.Contains(r.seen("NA-CONFIG-001"), "runDri") {
				t.Errorf("found are %+v", r)
			}
		}},
		{"open configuration", func(t *testing.T) {
			args := variant(t, a, "")
			must(t, os.Chmod(args[1], 0o606))
			wantMore(t, base, c.check(t, args...), "NA-CONFIG-004")
		}},
		{"ports", func(t *testing.T) {
			hold(t, b, "squatter")
			r := c.check(t)
			wantMore(t, base, r, "NA-PORT-001", "NA-PORT-002")
			for _, id := range []string{"NA-PORT-001", "NA-PORT-002"} {
				if !strings.Contains(r.seen(id), "(squatter)") {
					t.Errorf("%s does not say who: %s", id, r.seen(id))
				}
			}
		}},
		{"kubelet", func(t *testing.T) {
			hold(t, b, "kubelet", "--root-dir", a.RootDir())
			wantMore(t, base, c.check(t), "NA-AGENT-001")
			wantRefusal(t, c, "NA-AGENT-001")
		}},
		{"kubelet with a place of its own", func(t *testing.T) {
			named(t, b, "kubelet", "read x", nil)
			wantMore(t, base, c.check(t))
		}},
		{"kubelet of a container", func(t *testing.T) {
			disguised(t, b, []string{"unshare", "-m"}, "--root-dir", a.RootDir())
			wantMore(t, base, c.check(t))
		}},
		{"kubelet of a user", func(t *testing.T) {
			disguised(t, b, []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, "--root-dir", a.RootDir())
			wantMore(t, base, c.check(t))
		}},
		{"kubelet by its first word only", func(t *testing.T) {
			cmd := &exec.Cmd{Path: "/bin/bash", Args: []string{"kubelet", "-c", "read x", "kubelet", "--root-dir", a.RootDir()}}
			stdin, err := cmd.StdinPipe()
			must(t, err)
			must(t, b.Start(cmd))
			wantMore(t, base, c.check(t))
			stdin.Close()
			_ = cmd.Wait()
		}},
		{"pods of others", func(t *testing.T) {
			plantPod(t, b, "kubepods/pod0123", "containerd-shim-runc-v2")
			wantMore(t, base, c.check(t), "NA-AGENT-002")
			wantRefusal(t, c, "NA-AGENT-002")
		}},
		{"pods of others by the other driver", func(t *testing.T) {
			slice := strings.ReplaceAll(strings.Trim(b.CgroupRoot(), "/"), "-", "_")
			root := filepath.Join("..", slice+".slice")
			plantPod(t, b, filepath.Join(root, slice+"-kubepods.slice", slice+"-kubepods-pod0123.slice"), "containerd-shim-runc-v2")
			wantMore(t, base, c.check(t)) // nothing of it is in our place
			dir := filepath.Join(a.RootDir(), "pods", "0123")
			must(t, os.MkdirAll(dir, 0o755))
			defer os.RemoveAll(filepath.Dir(dir))
			wantMore(t, base, c.check(t), "NA-AGENT-002")
			wantRefusal(t, c, "NA-AGENT-002")
			if _, err := os.Stat(dir); err != nil {
				t.Error("the daemon has removed the directory of somebody else's pod")
			}
		}},
		{"pods of a dead daemon of ours", func(t *testing.T) {
			plantPod(t, b, "kubepods/pod4567", "nodeagent-shim")
			wantMore(t, base, c.check(t))
		}},
		{"mixed iptables", func(t *testing.T) {
			mixIptables(t, ctx, b)
			wantMore(t, base, c.check(t), "NA-NET-005")
		}},
		{"range in use", func(t *testing.T) {
			_, err := b.Run(ctx, "ip", "route", "add", "10.244.1.0/24", "dev", "node0")
			must(t, err)
			defer b.Run(ctx, "ip", "route", "del", "10.244.1.0/24", "dev", "node0")
			wantMore(t, base, c.check(t), "NA-NET-007")
		}},
		{"no default route", func(t *testing.T) {
			// The node's address is given in this bed, so that this is no finding.
			out, err := b.Run(ctx, "ip", "route", "show", "default")
			must(t, err)
			_, err = b.Run(ctx, "ip", "route", "del", "default")
			must(t, err)
			wantMore(t, base, c.check(t))
			_, err = b.Run(ctx, append([]string{"ip", "route", "add"}, strings.Fields(out)...)...)
			must(t, err)
		}},
		{"node's name", func(t *testing.T) {
			wantMore(t, base, c.check(t, "--hostname-override", "no_name"), "NA-NODE-001")
		}},
		{"not root", func(t *testing.T) { checkAsNobody(t, b, c, base) }},
	}
	for _, x := range broken {
		t.Run(x.name, x.test)
	}
	wantMore(t, base, c.check(t)) // with everything mended
}

// variant is a copy of the daemon's configuration with more text, as the flag
// that names it.
func variant(t *testing.T, a *bed.AgentProcess, more string) []string {
	t.Helper()
	text, err := os.ReadFile(a.ConfigFile())
	must(t, err)
	file := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(file, []byte(strings.TrimRight(string(text), "\n")+"\n"+more+"\n"), 0o600))
	return []string{"--config", file}
}

// wantRefusal proves that the daemon does not start, and says why.
func wantRefusal(t *testing.T, c *cli, id string) {
	t.Helper()
	if o := c.run(t, "run"); o.code != 1 || !strings.Contains(o.err, id) {
		t.Errorf("the daemon ended with %d: %s", o.code, o.err)
	}
}

// plantPod makes a cgroup below the daemon's root with a process in it, that a
// program of the given name runs, and removes it with what it is in.
func plantPod(t *testing.T, b *bed.Bed, cgroup, runtime string) {
	t.Helper()
	_, out := named(t, b, runtime, "/bin/busybox sleep 600 & echo $!; read x; kill $!", nil)
	pid, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	must(t, err)
	fd, err := unix.PidfdOpen(n, 0)
	must(t, err)
	top := "/sys/fs/cgroup"
	if _, err := os.Stat(top + "/pids"); err == nil {
		top += "/pids"
	}
	dir := filepath.Join(top, b.CgroupRoot(), cgroup)
	var made []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		}
		made = append(made, d)
	}
	must(t, os.MkdirAll(dir, 0o755))
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
		unix.Close(fd)
		for _, d := range made { // the innermost first
			if err := os.Remove(d); err != nil {
				t.Error(err)
			}
		}
	})
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strings.TrimSpace(pid)), 0))
}

// mixIptables makes one rule with each kind of iptables, and takes them away.
func mixIptables(t *testing.T, ctx context.Context, b *bed.Bed) {
	t.Helper()
	for _, tool := range []string{"iptables-nft", "iptables-legacy"} {
		rule := []string{"OUTPUT", "-d", "192.0.2.99", "-j", "ACCEPT"}
		_, err := b.Run(ctx, append([]string{tool, "-A"}, rule...)...)
		must(t, err)
		t.Cleanup(func() { _, _ = b.Run(context.WithoutCancel(ctx), append([]string{tool, "-D"}, rule...)...) })
	}
}

func runCheck(t *testing.T, b *bed.Bed, cmd *exec.Cmd) report {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, need.Slow(5*time.Second)
	cmd.Env = b.Env()
	before := diskFull(t, b)
	must(t, b.Start(cmd))
	_ = cmd.Wait()
	r := report{full: [2]bool{before, diskFull(t, b)}}
	o := output{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	o.document(t, "CheckReport", &r)
	if want := map[bool]int{true: 3}[r.Errors > 0]; o.code != want {
		t.Errorf("check ended with %d, want %d\n%s", o.code, want, o.out)
	}
	return r
}

// checkAsNobody: what may not be looked at is said, and is no finding.
func checkAsNobody(t *testing.T, b *bed.Bed, c *cli, base report) {
	text, err := os.ReadFile(c.bin)
	must(t, err)
	bin := filepath.Join(b.Dir(), "tmp", "check-as-nobody") // below directories that anybody may pass
	must(t, os.WriteFile(bin, text, 0o755))
	t.Cleanup(func() { os.Remove(bin) })
	r := runCheck(t, b, exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		bin, "check", "-o", "json", "--timeout", lookTime.String(), "--container-runtime-endpoint", "unix://"+b.Address(), "--node-ip", bed.NodeIP))
	// Without the configuration there is no range for pods, and the driver is the host's.
	want := slices.DeleteFunc(append(base.ofOthers(), "NA-CNI-003"), func(id string) bool {
		return id == "NA-PRIV-001" || id == "NA-CGROUP-007" || id == "NA-LIMIT-002"
	})
	r.holds(t, slices.DeleteFunc(r.ids(), func(id string) bool { return id == "NA-LIMIT-002" }), want) // by nobody
	for _, what := range []string{"overlay mount", "privileges", "containerd"} {
		if !slices.ContainsFunc(r.Unseen, func(u struct{ What, Why string }) bool {
			return u.What == what && strings.Contains(u.Why, "needs root")
		}) {
			t.Errorf("nobody is not told that %s was not seen: %v", what, r.Unseen)
		}
	}
}

// oldContainerd is something that answers as an old containerd does.
func oldContainerd(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	s := grpc.NewServer()
	version.RegisterVersionServer(s, oldVersion{})
	go s.Serve(l) // ends with Stop
	t.Cleanup(s.Stop)
	return path
}

type oldVersion struct {
	version.UnimplementedVersionServer
}

func (oldVersion) Version(context.Context, *emptypb.Empty) (*version.VersionResponse, error) {
	return &version.VersionResponse{Version: "1.6.20~ds1"}, nil
}

// TestCheckDisks breaks the file system of the daemon's root directory.
func TestCheckDisks(t *testing.T) {
	_, _, a, c := newHost(t)
	base := c.check(t)
	for _, x := range []struct {
		options string
		flags   uintptr
		fill    int // bytes
		files   int
		ids     []string
	}{
		{options: "size=8m"},
		{options: "size=8m", flags: unix.MS_RDONLY, ids: []string{"NA-DISK-001"}},
		{options: "size=8m", fill: 7800 << 10, ids: []string{"NA-DISK-002"}},
		{options: "size=8m,nr_inodes=64", files: 62, ids: []string{"NA-DISK-003"}},
		{options: "size=8m", flags: unix.MS_NOEXEC, ids: []string{"NA-DISK-004"}},
		{options: "size=8m", flags: unix.MS_NOSUID | unix.MS_NODEV, ids: []string{"NA-DISK-005"}},
	} {
		t.Run(fmt.Sprintf("%s %#x %d %d", x.options, x.flags, x.fill, x.files), func(t *testing.T) {
			must(t, unix.Mount("check", a.RootDir(), "tmpfs", x.flags, x.options))
			defer unix.Unmount(a.RootDir(), unix.MNT_DETACH)
			if x.fill > 0 {
				must(t, os.WriteFile(filepath.Join(a.RootDir(), "fill"), make([]byte, x.fill), 0o600))
			}
			for i := range x.files {
				must(t, os.WriteFile(filepath.Join(a.RootDir(), fmt.Sprint(i)), nil, 0o600))
			}
			wantMore(t, base, c.check(t), x.ids...)
		})
	}
	t.Run("dead FUSE daemon", func(t *testing.T) {
		dir := filepath.Join(a.RootDir(), "pods", "0123", "volumes")
		must(t, os.MkdirAll(dir, 0o755))
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Mount("lxcfs", dir, "fuse.lxcfs", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)))
		defer unix.Unmount(dir, unix.MNT_DETACH)
		// While the connection is open and nobody answers, it hangs; then it is dead.
		wantMore(t, base, c.check(t), "NA-LXCFS-001", "NA-AGENT-003")
		must(t, unix.Close(fd))
		r := c.check(t)
		wantMore(t, base, r, "NA-LXCFS-001", "NA-AGENT-003")
		if !strings.Contains(r.seen("NA-LXCFS-001"), "not connected") {
			t.Error(r.seen("NA-LXCFS-001"))
		}
	})
}

// TestCheckALivingNode: a node that works, with pods of its own, gives no finding
// of its own making, and a daemon starts again beside its own pods.
func TestCheckALivingNode(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{}, bed.AgentOptions{})
	c := newCLI(t, ctx, b, a)
	must(t, a.WriteManifest("web", manifest("web", sleeper)))
	must(t, a.WaitPhase(ctx, "default/web-node", corev1.PodRunning))
	want := hostIDs(t, b)
	got := c.check(t)
	got.holds(t, got.ids(), want)
	must(t, a.Kill())
	got = c.check(t)
	got.holds(t, got.ids(), want)
	must(t, a.Start(ctx))
	must(t, a.WaitPhase(ctx, "default/web-node", corev1.PodRunning))
}
