package cluster

import (
	"os"
	"strings"
	"testing"
)

// TestVersions holds the versions that the programs are made to tell to those
// that they are built from.
func TestVersions(t *testing.T) {
	b, err := os.ReadFile("programs/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{"k8s.io/kubernetes v" + KubernetesVersion, "go.etcd.io/etcd/server/v3 v" + EtcdVersion} {
		if !strings.Contains(text, want+"\n") && !strings.Contains(text, want+" // indirect\n") {
			t.Errorf("programs/go.mod does not say %s", want)
		}
	}
	flags := versionFlags()
	for _, want := range []string{"version.gitVersion=v" + KubernetesVersion, "version.gitMajor=1 ", "version.gitMinor=36"} {
		if !strings.Contains(flags+" ", want) {
			t.Errorf("the linker's flags are %q, want %s among them", flags, want)
		}
	}
}
