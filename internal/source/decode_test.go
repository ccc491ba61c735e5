package source

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func names(pods []wanted) []string {
	var out []string
	for _, w := range pods {
		out = append(out, w.pod.Name)
	}
	return out
}

func TestDecodeForms(t *testing.T) {
	one := manifest("a")
	asJSON := func(name string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q},"spec":{"containers":[{"name":"main","image":"example/app:1"}]}}`, name)
	}
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"YAML", one, []string{"a-node1"}},
		{"windows line ends", strings.ReplaceAll(one+"---\n"+manifest("b"), "\n", "\r\n"), []string{"a-node1", "b-node1"}},
		{"byte order mark", "\xef\xbb\xbf" + one, []string{"a-node1"}},
		{"documents", "# first\n---\n" + one + "---\n# nothing\n---\n" + manifest("b") + "...\n---\n" + manifest("c"), []string{"a-node1", "b-node1", "c-node1"}},
		{"directive", "%YAML 1.1\n---\n" + one, []string{"a-node1"}},
		{"a mark with content", "--- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, image: i}]}}", []string{"a-node1"}},
		{"JSON", asJSON("a"), []string{"a-node1"}},
		{"JSON after JSON", asJSON("a") + "\n\t" + asJSON("b"), []string{"a-node1", "b-node1"}},
		{"JSON documents", asJSON("a") + "\n---\n" + asJSON("b"), []string{"a-node1", "b-node1"}},
		{"JSON and YAML", asJSON("a") + "\n---\n" + manifest("b"), []string{"a-node1", "b-node1"}},
		{"JSON list", `{"apiVersion":"v1","kind":"PodList","metadata":{},"items":[` + asJSON("a") + "," + strings.Replace(asJSON("b"), `"apiVersion":"v1","kind":"Pod",`, "", 1) + `]}`, []string{"a-node1", "b-node1"}},
		{"YAML list", "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(one), "\n", "\n  "), []string{"a-node1"}},
		{"anchors", "apiVersion: v1\nkind: Pod\nmetadata: {name: &n a, labels: {app: *n}}\nspec: {containers: [{name: *n, image: i}]}", []string{"a-node1"}},
		{"merge key", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - &c {name: x, image: i}\n  - {<<: *c, name: two}\n", []string{"a-node1"}},
		{"marks in a block of text", manifest("a", "    args:\n    - |\n      ---\n      ...\n")[:0] + manifest("a", "    args:\n    - |\n      ---\n      ...\n"), []string{"a-node1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, wrong := testSource(t, "/m", nil).decode("/m/a.yaml", []byte(tc.text))
			if wrong != nil || !slices.Equal(names(got), tc.want) {
				t.Fatalf("got %v, %v; want %v", names(got), wrong, tc.want)
			}
		})
	}
}

// As kubelet reads YAML: version 1.1, so that a manifest means the same to both.
func TestDecodeYAML11(t *testing.T) {
	got, wrong := testSource(t, "/m", nil).decode("/m/a.yaml", []byte(manifest("a", "    stdin: yes\n    args: ['no', \"1\"]\n")+"  hostNetwork: on\n"))
	if wrong != nil {
		t.Fatal(wrong)
	}
	if s := got[0].pod.Spec; !s.HostNetwork || !s.Containers[0].Stdin || s.Containers[0].Args[0] != "no" {
		t.Fatalf("got %+v", s)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		line       int
		want       string
	}{
		{"nothing", "", 0, "holds no pod"},
		{"comments", "# a\n---\n# b\n", 0, "holds no pod"},
		{"unknown field", manifest("a", "    imagePullPolcy: Always\n"), 9, "spec.containers[0].imagePullPolcy: unknown field"},
		{"unknown field, other case", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nSpec: {}\n", 4, `Spec: unknown field (is "spec" meant?)`},
		{"unknown field in the second document", manifest("a") + "---\n" + manifest("b") + "  hostnetwork: true\n", 18, "spec.hostnetwork: unknown field"},
		{"unknown field behind a merge", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - &c {name: x, image: i,\n       bad: 1}\n  - {<<: *c, name: two}\n", 7, "spec.containers[0].bad: unknown field"},
		{"field twice", manifest("a", "    image: other\n"), 9, `"image"`},
		{"field twice beside a merge", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - &c {name: x, image: i}\n  - <<: *c\n    name: two\n    name: three\n", 9, `"name"`},
		{"field twice in JSON", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\n\"metadata\":{\"name\":\"a\",\n\"name\":\"b\"},\"spec\":{\"containers\":[]}}", 3, "metadata.name: field stands twice"},
		{"label twice in JSON", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\n\"metadata\":{\"name\":\"a\",\"labels\":{\"a.b/c\":\"1\",\n\"a.b/c\":\"2\"}}}", 3, "metadata.labels[a.b/c]: field stands twice"},
		{"unknown field in JSON", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\n\t\"metadata\":{\"name\":\"a\",\n\t\"nam\":\"b\"}}", 3, "metadata.nam: unknown field"},
		{"unknown field in a list", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n  spec:\n    contaners: []\n", 8, "items[0].spec.contaners: unknown field"},
		{"number for a string", manifest("a") + "  nodeSelector:\n    disk: 1\n", 10, "spec.nodeSelector[disk]: expected a string (put it in quotes), found a number"},
		{"yes for a string", manifest("a", "    env:\n    - {name: A, value: yes}\n"), 10, "spec.containers[0].env[0].value: expected a string (put it in quotes), found true or false"},
		{"string for a number", manifest("a", "    ports:\n    - containerPort: http\n"), 10, "spec.containers[0].ports[0].containerPort: expected a whole number"},
		{"bad quantity", manifest("a", "    resources:\n      limits:\n        memory: lots\n"), 11, "spec.containers[0].resources.limits[memory]: expected a valid Quantity"},
		{"list for a mapping", manifest("a", "    resources: []\n"), 9, "spec.containers[0].resources: expected a mapping of fields, found a list"},
		{"mapping for a list", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n    name: a\n", 6, "spec.containers: expected a list"},
		{"validation", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: ok\n    image: i\n  - name: main\n", 8, "spec.containers[1].image: Required value"},
		{"no name", strings.Replace(manifest("a"), "name: a", "labels: {}", 1), 3, "metadata.name"},
		{"generateName is no name", strings.Replace(manifest("a"), "name: a", "generateName: a", 1), 3, "metadata.name"},
		{"uid with a path", strings.Replace(manifest("a"), "name: a", "name: a\n  uid: ../../../etc", 1), 5, "metadata.uid"},
		{"mirror annotation", strings.Replace(manifest("a"), "name: a", "name: a\n  annotations:\n    kubernetes.io/config.mirror: x", 1), 6, "must not be in a manifest"},
		{"another kind", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", 2, `kind "Deployment" of apiVersion "apps/v1" cannot run from a file`},
		{"another version", strings.Replace(manifest("a"), "v1", "v2", 1), 2, `apiVersion "v2"`},
		{"no kind", "metadata: {name: a}\n", 1, "apiVersion or kind is missing"},
		{"a list in a list", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"List","items":[]}]}`, 1, `kind "List"`},
		{"an empty list", "apiVersion: v1\nkind: List\nitems: []\n", 3, "list holds no pod"},
		{"no object", "just text\n", 1, "no Kubernetes object"},
		{"a list without a kind", "- a\n", 1, "no Kubernetes object"},
		{"broken YAML", "apiVersion: v1\nkind: [Pod\n", 2, "read YAML"},
		{"broken YAML in the second document", manifest("a") + "---\na: b: c\n", 10, "read YAML"},
		{"broken JSON", "{\"apiVersion\": \"v1\",\n\"kind\": \x01}", 1, "read JSON"},
		{"two pods of one name", manifest("a") + "---\n" + manifest("a"), 9, "two pods of this name"},
		{"a document behind a lone carriage return", manifest("a") + "\r---\r" + manifest("b"), 1, "unusual line break"},
		{"too deep", "a: " + strings.Repeat("[", 200) + strings.Repeat("]", 200), 1, "nested deeper than 100"},
		{"too deep in JSON", `{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}", 1, "nested deeper than 100"},
		{"unknown anchor", "a: *b # &\n", 1, "anchor"},
		{"text that is not text", "\x00\x01\x02", 1, "read YAML"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, wrong := testSource(t, "/m", nil).decode("/m/a.yaml", []byte(tc.text))
			if got != nil || len(wrong) == 0 {
				t.Fatalf("got %v, want it refused", names(got))
			}
			if !strings.Contains(wrong[0].message, tc.want) || wrong[0].line != tc.line {
				t.Errorf("got line %d: %s\nwant line %d: %s", wrong[0].line, wrong[0].message, tc.line, tc.want)
			}
			if strings.Contains(wrong[0].message, "\n") {
				t.Error("the message is more than one line")
			}
		})
	}
}

// Each fault of a pod is told at once, not one after the other.
func TestDecodeTellsAllUnknownFields(t *testing.T) {
	_, wrong := testSource(t, "/m", nil).decode("/m/a.yaml", []byte(manifest("a", "    x: 1\n    y: 2\n")+"  z: 3\n"))
	var lines []int
	for _, w := range wrong {
		lines = append(lines, w.line)
	}
	if !slices.Equal(lines, []int{9, 10, 11}) {
		t.Fatalf("got %v", wrong)
	}
}

// No value of a field is told: it may be a password.
func TestDecodeKeepsSecrets(t *testing.T) {
	const secret = "hunter2"
	for _, text := range []string{
		manifest("a", "    env: [{name: P, value: "+secret+", x: "+secret+"}]\n"),
		manifest("a", "    stdin: "+secret+"\n"),
		manifest("a", "    resources: {limits: {memory: "+secret+"}}\n"),
		manifest("a", "    env: "+secret+"\n"),
		manifest("a", "    args: [\""+secret+"]\n"),
		manifest("a", "    args: ["+secret+": *"+secret+"]\n"),
	} {
		_, wrong := testSource(t, "/m", nil).decode("/m/a.yaml", []byte(text))
		if len(wrong) == 0 {
			t.Errorf("taken:\n%s", text)
		}
		for _, w := range wrong {
			if strings.Contains(w.message, secret) {
				t.Errorf("told: %s", w.message)
			}
		}
	}
}

func TestReject(t *testing.T) {
	for _, tc := range []struct{ name, text, reason string }{
		{"fits", manifest("a") + "  os: {name: linux}\n  nodeSelector: {kubernetes.io/os: linux, kubernetes.io/arch: amd64, disk: ssd}\n", ""},
		{"field", manifest("a") + "  os: {name: windows}\n", "PodOSNotSupported"},
		{"label", strings.Replace(manifest("a"), "name: a", "name: a\n  labels: {kubernetes.io/os: windows}", 1), "PodOSSelectorNodeLabelDoesNotMatch"},
		{"selector by system", manifest("a") + "  nodeSelector: {kubernetes.io/os: windows}\n", "NodeAffinity"},
		{"selector by architecture", manifest("a") + "  nodeSelector: {kubernetes.io/arch: arm64}\n", "NodeAffinity"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, wrong := testSource(t, "/m", nil).decode("/m/a.yaml", []byte(tc.text))
			if wrong != nil {
				t.Fatal(wrong)
			}
			reason := ""
			if r := got[0].rejected; r != nil {
				reason = r.Reason
			}
			if reason != tc.reason {
				t.Errorf("got %q, want %q", reason, tc.reason)
			}
		})
	}
}

func TestKindOf(t *testing.T) {
	for want, list := range map[kind][]string{
		kindManifest: {"a.yaml", "a.yml", "a.json", "a.bak.yaml", "kube-apiserver.yaml"},
		kindSilent:   {".a.yaml.swp", "..data", ".#a.yaml", "#a.yaml#", "a.yaml~", "a.yaml.bak", "a.yaml.BAK", "a.yaml.swp", "4913", "sedAb3dEf", "a.yaml.~1~", "a.yaml.dpkg-old", "a.yaml.rpmsave", "~$a.yaml", "a.yaml.tmp"},
		kindForeign:  {"kube-proxy.manifest", "README", "a.YAML", "a.yaml.txt"},
	} {
		for _, name := range list {
			if got := kindOf(name); got != want {
				t.Errorf("%s: got %d, want %d", name, got, want)
			}
		}
	}
}
