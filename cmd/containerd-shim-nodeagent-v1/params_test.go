//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"nodeagent/internal/shimapi"
)

// ask is what containerd sends.
func ask(t *testing.T, o *options.Options) []byte {
	t.Helper()
	value, err := anypb.New(o)
	if err != nil {
		t.Fatal(err)
	}
	dir := "/short"
	b, err := proto.Marshal(&bootapi.BootstrapParams{
		InstanceID: "c1", Namespace: "k8s.io", LogLevel: bootapi.LogLevel_LOG_LEVEL_DEBUG, ContainerdVersion: "v2.4.2",
		ContainerdGrpcAddress: "/run/c.sock", ContainerdTtrpcAddress: "/run/c.sock.ttrpc", ContainerdBinary: "/bin/containerd",
		Extensions: []*bootapi.Extension{{Value: value}}, SocketDir: &dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestParseParams reads what containerd's own types write.
func TestParseParams(t *testing.T) {
	want := params{instance: "c1", namespace: "k8s.io", address: "/run/c.sock", socketDir: "/short"}
	for _, o := range []*options.Options{{}, {BinaryName: "/opt/crun", Root: "/run/x", SystemdCgroup: true, IoUid: 7}, {ShimCgroup: "/shims"}} {
		want.shimCgroup = o.ShimCgroup != ""
		if p, err := parseParams(ask(t, o)); err != nil || p != want {
			t.Errorf("options %v: %+v, %v; want %+v", o, p, err, want)
		}
	}
	whole := ask(t, &options.Options{BinaryName: "runc"})
	for n := range whole {
		if p, err := parseParams(whole[:n]); err == nil && (p.instance != "c1" || p.namespace != "k8s.io") {
			t.Errorf("of %d bytes it reads %+v", n, p)
		}
	}
	if _, err := parseParams([]byte(`{"instance_id":"c1"}`)); err == nil {
		t.Error("text is taken for parameters")
	}
}

func FuzzParseParams(f *testing.F) {
	f.Add([]byte("\x0a\x02c1\x12\x06k8s.io"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseParams(b) })
}

// TestResult is read by containerd's own type.
func TestResult(t *testing.T) {
	var r bootapi.BootstrapResult
	if err := proto.Unmarshal(started("unix:///run/s/1"), &r); err != nil {
		t.Fatal(err)
	}
	if r.Version != 3 || r.Address != "unix:///run/s/1" || r.Protocol != "ttrpc" {
		t.Errorf("%v", &r)
	}
}

// TestDeleted is read by containerd's own type.
func TestDeleted(t *testing.T) {
	at := time.Unix(1790000000, 123456789)
	var r taskapi.DeleteResponse
	if err := proto.Unmarshal(deleted(shimapi.ExitRecord{Pid: 77, ExitCode: 137, ExitedAt: at}), &r); err != nil {
		t.Fatal(err)
	}
	if r.Pid != 77 || r.ExitStatus != 137 || !r.ExitedAt.AsTime().Equal(at) {
		t.Errorf("%v", &r)
	}
}

func TestParse(t *testing.T) {
	usual := []string{"-namespace", "k8s.io", "-address", "/a", "-publish-binary", "/c", "-id", "x"}
	for _, c := range []struct {
		args  []string
		verb  string
		debug bool
	}{
		{append(usual, "start"), "start", false}, {append(usual, "-bundle", "/b", "-debug", "start"), "start", true},
		{append(usual, "-bundle", "/b", "delete"), "delete", false}, {usual, "", false}, {append(usual, "-new", "start"), "", false},
		{[]string{"-namespace", "k8s.io", "start"}, "", false}, {[]string{"-info"}, "", false}, {nil, "", false},
	} {
		a, verb := parse(c.args)
		if verb != c.verb || verb != "" && a != (arguments{"k8s.io", "x", "/a", c.debug}) {
			t.Errorf("parse(%q) = %+v, %q", c.args, a, verb)
		}
	}
}

// TestReadGroup: a pod's name in other places of a spec is not the group.
func TestReadGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	for text, want := range map[string]string{
		`{"annotations":{"io.containerd.runc.v2.group":"pod1"}}`:                                      "pod1",
		`{"process":{"env":["\"annotations\":{\"io.containerd.runc.v2.group\":\"pod2\"}"]}}`:          "",
		`{"linux":{"annotations":{"io.containerd.runc.v2.group":"pod3"}},"annotations":{"other":""}}`: "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readGroup(file); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	if err := os.WriteFile(file, []byte(`{"annotations":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readGroup(file); err == nil {
		t.Error("half a spec is read")
	}
}
