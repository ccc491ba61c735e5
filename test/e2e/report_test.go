package main

import (
	"strings"
	"testing"
)

const sample = `[{"SuitePath": "/x", "SpecialSuiteFailureReasons": ["Detected Programmatic Focus"], "SpecReports": [
 {"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeText": "should run", "LeafNodeType": "It", "State": "passed", "RunTime": 1000000000},
 {"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeText": "should end", "LeafNodeType": "It", "State": "failed", "RunTime": 2000000000,
  "Failure": {"Message": "\n  timed out waiting\nand more", "Location": {"FileName": "k8s.io/kubernetes/test/e2e/common/node/pods.go", "LineNumber": 12}}},
 {"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeText": "is for others", "LeafNodeType": "It", "State": "skipped", "Failure": {"Message": "Only for windows"}},
 {"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeText": "is not asked for", "LeafNodeType": "It", "State": "skipped"},
 {"ContainerHierarchyTexts": null, "LeafNodeText": "", "LeafNodeType": "SynchronizedBeforeSuite", "State": "panicked", "Failure": {"Message": "no node"}}
]}]`

// TestReport: what failed is told with its reason, the set-up of the suite counts as
// a failure, what was not asked for is not told.
func TestReport(t *testing.T) {
	r, err := parseReport([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r.print(&out)
	for _, want := range []string{
		"FAILED: [sig-node] Pods should end\n\ttimed out waiting (common/node/pods.go:12), 2 s\n",
		"PANICKED: ", "no node",
		"SKIPPED: [sig-node] Pods is for others\n\tOnly for windows",
		"SUITE: Detected Programmatic Focus",
		"1 of 3 passed, 2 failed\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "is not asked for") {
		t.Errorf("the summary tells of what was not asked for:\n%s", out.String())
	}
}

// TestWanted: names of images out of what the suite prints.
func TestWanted(t *testing.T) {
	got := wanted("I0101 starting: a/b\nregistry.k8s.io/pause:3.10\nregistry.k8s.io/pause:3.10\nregistry.k8s.io/e2e-test-images/agnhost:2.63.0\n")
	if len(got) != 2 || short(got[0]) != "agnhost" || short(got[1]) != "pause" {
		t.Errorf("the images are %q", got)
	}
}
