package source

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// golden is a manifest with most kinds of value, and the identity that it has
// for ever: where this test fails, an upgrade would restart every static pod.
const golden = `# a comment
apiVersion: v1
kind: Pod
metadata:
  name: web
  creationTimestamp: null
  labels: {app: "web<&>", "unit": 'é'}
spec:
  hostNetwork: yes
  terminationGracePeriodSeconds: 30
  containers:
  - name: main
    image: example/app:1
    args: ["a\tb", 'c"d\e', "\u2028", "\U0001F600"]
    resources: {limits: {cpu: 0.5, memory: 64Mi}}
    ports: []
`

const (
	goldenCanonical = `{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"app":"web<&>","unit":"é"},"name":"web"},"spec":{"containers":[{"args":["a\u0009b","c\"d\\e","` + "\u2028\U0001F600" + `"],"image":"example/app:1","name":"main","ports":[],"resources":{"limits":{"cpu":0.5,"memory":"64Mi"}}}],"hostNetwork":true,"terminationGracePeriodSeconds":30}}`
	goldenUID       = "7cf82d51ca226318f4690394403e8040"
)

func TestIdentityIsForEver(t *testing.T) {
	values, wrong := toJSON(documents([]byte(golden))[0])
	if wrong != nil {
		t.Fatal(wrong)
	}
	text, err := canonical(values[0])
	if want := strings.Replace(goldenCanonical, "\u2028\U0001F600", "\u2028\",\"\U0001F600", 1); err != nil || string(text) != want {
		t.Errorf("got  %s\nwant %s, %v", text, want, err)
	}
	uid, err := staticUID("Node1", "/etc/kubernetes/manifests/web.yaml", values[0])
	if err != nil || uid != goldenUID {
		t.Errorf("got %s, %v; want %s", uid, err, goldenUID)
	}
}

func TestIdentity(t *testing.T) {
	of := func(node, path, text string) *corev1.Pod {
		t.Helper()
		m := testSource(t, "/m", func(c *Config) { c.NodeName = node })
		got, wrong := m.decode(path, []byte(text))
		if wrong != nil {
			t.Fatal(wrong)
		}
		return got[0].pod
	}
	base := of("Node1", "/m/a.yaml", manifest("a"))
	if base.Name != "a-node1" || base.Namespace != "default" || base.Spec.NodeName != "Node1" || base.Status.Phase != corev1.PodPending {
		t.Errorf("got %+v", base)
	}
	if len(base.UID) != 32 || base.Annotations["kubernetes.io/config.hash"] != string(base.UID) || base.Annotations["kubernetes.io/config.source"] != "file" {
		t.Errorf("uid %q, annotations %v", base.UID, base.Annotations)
	}
	if _, err := time.Parse(time.RFC3339Nano, base.Annotations["kubernetes.io/config.seen"]); err != nil {
		t.Error(err)
	}
	for name, same := range map[string]string{
		"comments":       "# hello\n" + manifest("a") + "\n# end\n",
		"order":          "kind: Pod\napiVersion: v1\nspec:\n  containers: [{image: example/app:1, name: main}]\nmetadata: {name: a}\n",
		"null":           manifest("a") + "  volumes: null\n",
		"JSON":           `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"containers":[{"name":"main","image":"example/app:1"}]}}`,
		"a second one":   manifest("a") + "---\n" + manifest("b"),
		"other line end": strings.ReplaceAll(manifest("a"), "\n", "\r\n"),
	} {
		if got := of("Node1", "/m/a.yaml", same); got.UID != base.UID {
			t.Errorf("%s: another uid", name)
		}
	}
	for name, got := range map[string]*corev1.Pod{
		"node":    of("node2", "/m/a.yaml", manifest("a")),
		"path":    of("Node1", "/m/b.yaml", manifest("a")),
		"name":    of("Node1", "/m/a.yaml", manifest("b")),
		"content": of("Node1", "/m/a.yaml", manifest("a", "    args: [x]\n")),
	} {
		if got.UID == base.UID {
			t.Errorf("another %s, but the same uid", name)
		}
	}
}

func TestIdentityOfADump(t *testing.T) {
	m := testSource(t, "/m", nil)
	got, wrong := m.decode("/m/a.yaml", []byte(`apiVersion: v1
kind: Pod
metadata:
  name: a
  namespace: kube-system
  uid: 5d0d5d0e-0000-4000-8000-000000000001
  resourceVersion: "12"
  generation: 3
  deletionTimestamp: "2026-01-01T00:00:00Z"
  deletionGracePeriodSeconds: 1
  annotations: {kubernetes.io/config.hash: x, kubernetes.io/config.source: api, keep: me}
  managedFields: [{manager: m, operation: Update, apiVersion: v1}]
spec:
  nodeName: elsewhere
  tolerations: [{operator: Exists, effect: NoExecute, tolerationSeconds: 5}, {key: a, operator: Exists}]
  containers: [{name: main, image: i}]
status: {phase: Running, podIP: 192.0.2.1}
`))
	if wrong != nil {
		t.Fatal(wrong)
	}
	p := got[0].pod
	if p.UID != "5d0d5d0e-0000-4000-8000-000000000001" || p.Namespace != "kube-system" || p.Annotations["keep"] != "me" ||
		p.Annotations[annotationHash] != string(p.UID) || p.Annotations[annotationSource] != "file" {
		t.Errorf("identity %+v", p.ObjectMeta)
	}
	if p.DeletionTimestamp != nil || p.DeletionGracePeriodSeconds != nil || p.ResourceVersion != "" || p.Generation != 0 || p.ManagedFields != nil {
		t.Errorf("kept what only an API server writes: %+v", p.ObjectMeta)
	}
	if p.Status.Phase != corev1.PodPending || p.Status.PodIP != "" || p.Spec.NodeName != "Node1" {
		t.Errorf("status %+v, node %s", p.Status, p.Spec.NodeName)
	}
	if len(p.Spec.Tolerations) != 2 || p.Spec.Tolerations[0].TolerationSeconds != nil {
		t.Errorf("tolerations %+v", p.Spec.Tolerations)
	}
}

func TestValidUID(t *testing.T) {
	for uid, want := range map[string]bool{
		"a": true, "0123456789abcdef": true, "5d0d5d0e-0000-4000-8000-000000000001": true, strings.Repeat("a", 63): true,
		strings.Repeat("a", 64): false, "..": false, "a/b": false, "a b": false, "-a": false, "a\n": false, "é": false,
	} {
		if got := validUID.MatchString(uid); got != want {
			t.Errorf("%q: got %t", uid, got)
		}
	}
}
