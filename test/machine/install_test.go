package machine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/image"
	"nodeagent/test/machine/guest"
)

// TestInstall runs the steps of docs/install.md, as they are written there, on a
// Debian that has nothing of ours but the copied tree.
func TestInstall(t *testing.T) {
	t.Parallel()
	g := guest.Start(t, guest.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := bring(ctx, g); err != nil {
		t.Fatal(err)
	}
	steps, err := installSteps(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		t.Run(s.String(), func(t *testing.T) {
			out, err := s.run(ctx, g)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(s.script, "nodeagent exec hello") && !strings.Contains(out, "hello from a static pod") {
				t.Errorf("the pod's answer is missing:\n%s", out)
			}
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	// The last section removes it all.
	out, err := g.Shell(ctx, `ls -d /run/nodeagent /usr/local/bin/nodeagent /var/lib/kubelet /etc/kubernetes /var/log/pods /var/log/containers /sys/fs/cgroup/kubepods.slice 2>/dev/null || true
ip -o link show nodeagent0 2>/dev/null || true; nft list tables | grep nodeagent || true
ls /run/netns 2>/dev/null; pgrep -a busybox || true`)
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("left: %q, %v", out, err)
	}
}

// step is one shell block of the document.
type step struct {
	section string // "3. nodeagent"
	number  int    // within the section
	network bool
	script  string
}

func (s step) String() string { return fmt.Sprintf("%s (%d)", s.section, s.number) }

var fence = regexp.MustCompile("(?ms)^(?:## ([^\n]*)|```sh( network)?\n(.*?)^```)$")

// installSteps reads the document.
func installSteps(ctx context.Context) ([]step, error) {
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	if err != nil {
		return nil, err
	}
	var all []step
	section, number := "", 0
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		if m[1] != "" {
			section, number = m[1], 0
			continue
		}
		number++
		all = append(all, step{section, number, m[2] != "", m[3]})
	}
	// A document whose form changed must not pass for one without steps.
	if blocks := strings.Count(string(text), "\n```sh"); len(all) != blocks || blocks < 8 {
		return nil, fmt.Errorf("%d of %d blocks of docs/install.md understood", len(all), blocks)
	}
	return all, nil
}

// run runs the block in one shell that stops at the first failure. The guest has
// no network, so a block that fetches is replaced by what puts the same files in
// the same places; nothing else is.
func (s step) run(ctx context.Context, g *guest.Guest) (string, error) {
	if !s.network {
		return g.Shell(ctx, s.script)
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(s.script, "# "), "\n")
	switch name {
	case "packages": // those of the guest's Debian, except curl, which only these blocks use
		return g.Shell(ctx, "command -v sysctl modprobe ip nft")
	case "containerd":
		return g.Shell(ctx, `cd /opt/nodeagent/tools
install -m 755 containerd containerd-shim-runc-v2 ctr /usr/local/bin/
install -m 755 runc /usr/local/sbin/runc`)
	case "image":
		return g.Run(ctx, "nodeagent", "images", "import", imageTar)
	}
	return "", fmt.Errorf("no replacement for the block %q, which needs the network", name)
}

// imageTar is in the guest: the image of the document and those of the tests.
const (
	imageTar = "/root/images.tar"
	busybox  = "docker.io/library/busybox:1.37.0-musl"
)

// bring puts into the guest what an operator copies to a node, and the images.
func bring(ctx context.Context, g *guest.Guest) error {
	if err := g.Programs(ctx); err != nil {
		return err
	}
	_, err := g.Shell(ctx, `mkdir -p /root/nodeagent && cd /root/nodeagent
cp -r /opt/nodeagent/tree/systemd /opt/nodeagent/tree/examples .
mkdir -p bin && cd /opt/nodeagent/bin && cp nodeagent containerd-shim-nodeagent-v1 nodeagent-shim /root/nodeagent/bin/`)
	if err != nil {
		return err
	}
	tar, err := guestImages(ctx, g)
	if err != nil {
		return err
	}
	return g.Write(ctx, imageTar, tar, 0o600)
}

// guestImages are images of the guest's architecture: the example, and the
// guest's own busybox under the name of the document.
func guestImages(ctx context.Context, g *guest.Guest) ([]byte, error) {
	podtool, err := g.Get(ctx, "/opt/nodeagent/built/podtool")
	if err != nil {
		return nil, err
	}
	program, err := g.Get(ctx, "/bin/busybox")
	if err != nil {
		return nil, err
	}
	example := image.ExampleSpec(podtool)
	shell := image.Spec{Name: busybox, Arch: g.Arch(), Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}, Files: map[string]image.File{
		"/bin/busybox": {Mode: 0o755, Data: program},
		"/tmp":         {Mode: 0o1777, Dir: true},
	}}
	for _, applet := range []string{"sh", "httpd", "wget", "cat", "sleep", "ps", "id", "grep", "ip", "ls", "stat"} {
		shell.Files["/bin/"+applet] = image.File{Link: "busybox"}
	}
	example.Arch = g.Arch()
	var buf bytes.Buffer
	err = image.Write(&buf, example, shell)
	return buf.Bytes(), err
}
