package spec

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// probe is what a container says of itself.
const probe = `exec 2>&1
grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
echo "oom: $(cat /proc/self/oom_score_adj)"
echo "cwd: $(cat /proc/self/environ | tr '\0' '\n' | grep -c .) $(ls -l /proc/self/cwd | grep -o '[^ ]*$')"
echo "cgroup: $(grep -E '(:memory:|^0:)' /proc/self/cgroup | head -1)"
echo "pid: $$"
echo "kcore: $(cat /proc/kcore 2>/dev/null | head -c1 | grep -c .)"
echo "keys: $(cat /proc/keys 2>/dev/null | grep -c .)"
echo "firmware: $(ls /sys/firmware 2>/dev/null | grep -c .)"
echo "procsys: $(grep -c ' /proc/sys ro,' /proc/self/mountinfo)"
echo "root: $(touch /x 2>&1 | grep -c -i 'read-only')"
echo "rwcgroups: $(grep ' - cgroup' /proc/self/mountinfo | grep -c -v ' ro,')"
echo "fds: $(ls /proc/self/fd | grep -v 3 | tr '\n' ' ')"
echo "dev: $(test -c /dev/null && test -c /dev/urandom && echo ok) $(ls /dev | grep -c -E '^(sda|vda|mem|kmsg)$')"
`

// TestKernel starts what Build makes and asks the kernel what came of it.
func TestKernel(t *testing.T) {
	b := bed.Containerd(t, bed.Options{Stock: true})
	if err := b.Import(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := &kernel{T: t, bed: b, client: b.Client(t)}
	host, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	k.host = host
	accounts := Accounts{Passwd: []byte("root:x:0:0::/:\napp:x:1000:1001::/:\n"), Group: []byte("extra:x:4242:app\nwheel:x:10:root,app\n")}

	t.Run("usual", func(t *testing.T) {
		got := k.run(t, accounts, nil)
		want := map[string]string{
			"Uid": "1000", "Gid": "1001", "Groups": "10 1001 4242 5000",
			"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "00000000a80425fb", "CapAmb": "0000000000000000",
			"NoNewPrivs": "1", "Seccomp": "2", "pid": "1", "kcore": "0", "keys": "0", "firmware": "0", "root": "1", "procsys": "1", "rwcgroups": "0", "fds": "0 1 2", "dev": "ok 0", "oom": "900",
		}
		k.compare(t, got, want)
		if !strings.HasSuffix(got["cwd"], " /tmp") {
			t.Errorf("cwd: %s", got["cwd"])
		}
	})
	t.Run("root, Strict", func(t *testing.T) {
		got := k.run(t, accounts, func(in *Input, r *UserRequest) {
			r.ImageUser = ""
			r.Security.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
			security(in).ReadonlyRootfs, security(in).NoNewPrivs = false, false
		})
		k.compare(t, got, map[string]string{
			"Uid": "0", "Gid": "0", "Groups": "0 5000", "CapInh": "0000000000000000", "CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb",
			"NoNewPrivs": "0", "Seccomp": "2", "kcore": "0", "firmware": "0", "root": "0", "procsys": "1", "rwcgroups": "0",
		})
	})
	t.Run("privileged", func(t *testing.T) {
		got := k.run(t, accounts, func(in *Input, r *UserRequest) {
			r.ImageUser = "0"
			makePrivileged(in)
			var err error
			if in.HostDevices, err = HostDevices(); err != nil {
				t.Fatal(err)
			}
		})
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		own := ""
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
				own = strings.TrimSpace(rest)
			}
		}
		k.compare(t, got, map[string]string{"CapEff": own, "CapInh": "0000000000000000", "Seccomp": "0", "procsys": "0"})
	})
}

type kernel struct {
	*testing.T
	bed    *bed.Bed
	client *containerd.Client
	host   Host
	n      int
}

func (k *kernel) compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for key, w := range want {
		if got[key] != w {
			t.Errorf("%s: %q, want %q", key, got[key], w)
		}
	}
}

// input is a container in the bed's own network and a cgroup below the bed's.
func (k *kernel) input(t *testing.T) Input {
	k.n++
	in := base()
	in.ContainerID = fmt.Sprintf("spec%d", k.n)
	in.Host = k.host
	parent := path.Join(k.bed.CgroupRoot(), "kubepods", "podx")
	in.Sandbox.Linux.CgroupParent = parent
	in.CgroupsPath = path.Join(parent, in.ContainerID)
	in.Sandbox.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER,
	}
	in.Namespaces = Namespaces{}
	in.ShmPath = t.TempDir()
	in.Container.Command, in.Container.Args = []string{"/bin/sh", "-c", probe}, nil
	in.Container.Mounts, in.Image.Env, in.Image.WorkingDir = nil, []string{"PATH=/bin:/"}, "/tmp/"
	in.Container.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: 900}
	security(&in).NoNewPrivs, security(&in).ReadonlyRootfs = true, true
	return in
}

// run starts one container to its end and returns what it printed.
func (k *kernel) run(t *testing.T, accounts Accounts, change func(*Input, *UserRequest)) map[string]string {
	t.Helper()
	in := k.input(t)
	r := UserRequest{ImageUser: "app", Accounts: accounts, Security: security(&in)}
	r.Security.SupplementalGroups = []int64{5000}
	if change != nil {
		change(&in, &r)
	}
	var err error
	if in.User, err = ResolveUser(r); err != nil {
		t.Fatal(err)
	}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	out := k.start(t, in.ContainerID, s)
	got := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(line, ":")
		if ok {
			got[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	for _, id := range []string{"Uid", "Gid"} {
		got[id], _, _ = strings.Cut(got[id], " ")
	}
	if c := got["cgroup"]; !strings.HasSuffix(c, in.CgroupsPath) && !strings.HasSuffix(c, ":/") {
		t.Errorf("cgroup: %s, want %s", c, in.CgroupsPath)
	}
	if t.Failed() || len(got) < 10 {
		t.Errorf("the container printed:\n%s", out)
	}
	return got
}

func (k *kernel) start(t *testing.T, id string, s *specs.Spec) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(t.Context(), bed.Namespace), 60*time.Second)
	defer cancel()
	img, err := k.client.GetImage(ctx, image.Shell)
	if err != nil {
		t.Fatal(err)
	}
	c, err := k.client.NewContainer(ctx, id, containerd.WithSnapshotter("overlayfs"), containerd.WithNewSnapshot(id, img),
		containerd.WithRuntime("io.containerd.runc.v2", nil), containerd.WithSpec(s))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
			t.Error(err)
		}
	}()
	var out bytes.Buffer
	task, err := c.NewTask(ctx, cio.NewCreator(cio.WithStreams(nil, &out, io.Discard), cio.WithFIFODir(filepath.Join(k.bed.Dir(), "tmp"))))
	if err != nil {
		t.Fatal(err)
	}
	exit, err := task.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(ctx); err != nil {
		t.Error(err)
	} else {
		if st := <-exit; st.Error() != nil || st.ExitCode() != 0 {
			t.Logf("exit: %d %v", st.ExitCode(), st.Error())
		}
	}
	if _, err := task.Delete(ctx, containerd.WithProcessKill); err != nil {
		t.Error(err)
	}
	return out.String()
}
