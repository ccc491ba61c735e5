package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"nodeagent/test/bed"
)

// Versions of what is built. etcd's and CoreDNS' are those that this Kubernetes
// names in its build/dependencies.yaml; programs/go.mod says the first two once
// more, and a test holds it to these.
const (
	KubernetesVersion = "1.36.3"
	EtcdVersion       = "3.6.8"
	CoreDNSVersion    = "1.14.2"
)

const commands = "k8s.io/kubernetes/cmd/"

// Programs returns the directory with etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler and kubectl, building what the cache
// lacks. NODEAGENT_CLUSTER_TOOLS names a directory to take all programs of this
// package from instead.
func Programs(ctx context.Context, talk io.Writer) (string, error) {
	return build(ctx, "cluster", talk, bed.Toolset{
		Binaries: []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"},
		Packages: []string{"./etcd", commands + "kube-apiserver", commands + "kube-controller-manager", commands + "kube-scheduler", commands + "kubectl"},
	})
}

// Peers returns the directory with kubelet and kube-proxy, whose place nodeagent
// takes: to be compared with, and to stand in for what it cannot do yet.
func Peers(ctx context.Context, talk io.Writer) (string, error) {
	return build(ctx, "peers", talk, bed.Toolset{
		Binaries: []string{"kubelet", "kube-proxy"},
		Packages: []string{commands + "kubelet", commands + "kube-proxy"},
	})
}

// Suite returns the directory with the public end-to-end suite, e2e.test, with
// ginkgo, which runs it, and with what its images consist of.
func Suite(ctx context.Context, talk io.Writer) (string, error) {
	const images = "k8s.io/kubernetes/test/images/"
	return build(ctx, "e2e", talk, bed.Toolset{
		Binaries: []string{"ginkgo", "agnhost", "nonewprivs", "e2e.test"},
		Packages: []string{"github.com/onsi/ginkgo/v2/ginkgo", images + "agnhost", images + "nonewprivs"},
		Test:     "k8s.io/kubernetes/test/e2e",
	})
}

// Source returns the directory of k8s.io/kubernetes' own source.
func Source(ctx context.Context) (string, error) {
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "k8s.io/kubernetes@v"+KubernetesVersion)
	cmd.Dir = filepath.Join(root, "test", "cluster", "programs")
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the source of k8s.io/kubernetes: %w", err)
	}
	var module struct{ Dir string }
	err = json.Unmarshal(text, &module)
	return module.Dir, err
}

// DNS returns the directory with coredns.
func DNS(ctx context.Context, talk io.Writer) (string, error) {
	if dir := os.Getenv("NODEAGENT_CLUSTER_TOOLS"); dir != "" {
		return dir, nil
	}
	return bed.Build(ctx, "coredns", nil, []bed.Toolset{{
		Binaries: []string{"coredns"},
		Packages: []string{"github.com/coredns/coredns@v" + CoreDNSVersion},
		Cgo:      "0",
		Flags:    []string{"-trimpath", "-ldflags", "-s -w"},
	}}, talk)
}

// MetricsServerProgram returns the directory with metrics-server.
func MetricsServerProgram(ctx context.Context, talk io.Writer) (string, error) {
	if dir := os.Getenv("NODEAGENT_CLUSTER_TOOLS"); dir != "" {
		return dir, nil
	}
	return bed.Build(ctx, "metrics-server", nil, []bed.Toolset{{
		Binaries: []string{"metrics-server"},
		Packages: []string{"sigs.k8s.io/metrics-server/cmd/metrics-server@v" + MetricsServerVersion},
		Cgo:      "0",
		Flags:    []string{"-trimpath", "-ldflags", "-s -w"},
	}}, talk)
}

// build builds a set out of the module in programs, whose files are part of the
// key.
func build(ctx context.Context, name string, talk io.Writer, set bed.Toolset) (string, error) {
	if dir := os.Getenv("NODEAGENT_CLUSTER_TOOLS"); dir != "" {
		return dir, nil
	}
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return "", err
	}
	set.Dir = filepath.Join(root, "test", "cluster", "programs")
	var inputs []byte
	for _, f := range []string{"go.mod", "go.sum", "etcd/main.go"} {
		b, err := os.ReadFile(filepath.Join(set.Dir, f))
		if err != nil {
			return "", err
		}
		inputs = slices.Concat(inputs, b)
	}
	set.Cgo = "0"
	set.Flags = []string{"-trimpath", "-buildvcs=false", "-ldflags", "-s -w" + versionFlags()}
	return bed.Build(ctx, name, inputs, []bed.Toolset{set}, talk)
}

// versionFlags let the programs say which version they are: built as part of
// another module they would call themselves v0.0.0.
func versionFlags() (flags string) {
	var major, minor, patch int
	fmt.Sscanf(KubernetesVersion, "%d.%d.%d", &major, &minor, &patch)
	for _, p := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags += fmt.Sprintf(" -X %[1]s.gitVersion=v%[2]s -X %[1]s.gitMajor=%[3]d -X %[1]s.gitMinor=%[4]d", p, KubernetesVersion, major, minor)
	}
	return flags
}
