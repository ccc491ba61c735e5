package node

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// TestHugePages: a container uses huge pages through a volume of them, as many as its
// limit says and no more.
func TestHugePages(t *testing.T) {
	need.Have(t, need.Root, need.HugePages, need.CgroupV2, need.HugetlbV2)
	overcommit(t, 16)
	n := newRowsNode(t, bed.AgentOptions{})
	const at = "  volumes: [{name: h, emptyDir: {medium: HugePages}}]\n"
	const mounted = "\nvolumeMounts: [{name: h, mountPath: /h}]\nresources: {limits: {hugepages-2Mi: 4Mi, memory: 64Mi, cpu: 100m}}"
	n.write(t, "modest", at+spec("restartPolicy: Never", "command: [/podtool, huge, /h/f, '4']"+mounted))
	n.write(t, "greedy", at+spec("restartPolicy: Never", "command: [/podtool, huge, /h/f, '8']"+mounted))
	p := n.ended(t, "modest")
	if text := n.log(p, "app", 0); p.Status.Phase != corev1.PodSucceeded || text != "touched 4 MiB\n" {
		t.Errorf("the pod within its limit is %s: %q", p.Status.Phase, text)
	}
	p = n.ended(t, "greedy")
	if text := n.log(p, "app", 0); p.Status.Phase != corev1.PodFailed || strings.Contains(text, "touched") {
		t.Errorf("the pod over its limit is %s: %q", p.Status.Phase, text)
	}
	must(t, n.a.RemoveManifests())
	waitGone(t, n.ctx, n.a)
	if free, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages"); err != nil || strings.TrimSpace(string(free)) != "0" {
		t.Errorf("huge pages that stay behind: %s, %v", free, err)
	}
}

// overcommit lets the kernel make that many huge pages when somebody wants them. None
// is set aside: the machine is as before when they are given back.
func overcommit(t *testing.T, pages int) {
	t.Helper()
	const file = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
	before, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, fmt.Append(nil, pages), 0o644))
	t.Cleanup(func() { must(t, os.WriteFile(file, before, 0o644)) })
}
