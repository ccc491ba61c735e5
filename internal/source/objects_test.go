package source

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nodeagent/internal/pod"
)

const canary = "canary-4711"

func standalone(c *Config) { c.Objects = true }

func configMap(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {key: " + value + "}\n"
}

func secret(name, value string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", namespace: other}\nstringData: {key: " + value + "}\n"
}

// value is what the snapshot's objects have under "key", "" for none.
func value(s Snapshot, name string) string {
	if m, err := s.Objects.ConfigMap("default", name); err == nil {
		return m.Data["key"]
	}
	if m, err := s.Objects.Secret("other", name); err == nil {
		return string(m.Data["key"])
	}
	return ""
}

func (f *feed) untilValue(name, want string) Snapshot {
	f.t.Helper()
	return f.until(name+"="+want, func(s Snapshot) bool { return value(s, name) == want })
}

// TestObjectsComeChangeAndGo: objects stand in files as pods do, alone, in
// documents and in lists; what did not change is the same object as before.
func TestObjectsComeChangeAndGo(t *testing.T) {
	f := start(t, t.TempDir(), standalone)
	f.write("a.yaml", configMap("m", "one")+"---\n"+manifest("p")+"---\n"+secret("s", canary))
	first := f.untilValue("m", "one")
	if value(first, "s") != canary || len(first.Pods) != 1 || len(first.Problems) > 0 {
		t.Fatalf("got %v, %+v", f.pods(), first.Problems)
	}
	if _, err := first.Objects.Secret("default", "s"); err == nil || err.Error() != `secret "s" not found` {
		t.Errorf("an object of another namespace: %v", err)
	}
	if _, err := first.Objects.ConfigMap("default", "s"); err == nil || err.Error() != `configmap "s" not found` {
		t.Errorf("an object of another kind: %v", err)
	}
	f.write("a.yaml", configMap("m", "two")+"---\n"+manifest("p")+"---\n"+secret("s", canary))
	second := f.untilValue("m", "two")
	if changed := second.Objects.Changed(first.Objects); len(changed) != 1 || changed[0] != (pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: "default", Name: "m"}) {
		t.Errorf("changed are %v", changed)
	}
	if second.Pods[0] != first.Pods[0] {
		t.Error("the pod beside the object is another one")
	}
	f.write("b.json", `{"apiVersion":"v1","kind":"List","items":[`+
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"j","namespace":"other"},"data":{"key":"`+base64.StdEncoding.EncodeToString([]byte("text"))+`"}}]}`)
	f.untilValue("j", "text")
	f.remove("a.yaml")
	last := f.untilValue("m", "")
	if changed := last.Objects.Changed(second.Objects); len(changed) != 3 {
		t.Errorf("gone and come are %v", changed)
	}
}

// TestBrokenFileKeepsItsObjects: only the absence of the file ends an object.
func TestBrokenFileKeepsItsObjects(t *testing.T) {
	f := start(t, t.TempDir(), standalone)
	f.write("a.yaml", configMap("m", "one"))
	f.untilValue("m", "one")
	for _, text := range []string{"", "kind: [", configMap("m", "{no: string}"), configMap("m", "two") + "---\n" + configMap("m", "three"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a/b: x}\n"} {
		f.write("a.yaml", text)
		f.until("a problem", func(s Snapshot) bool { return len(s.Problems) > 0 })
		if value(f.settle(), "m") != "one" {
			t.Errorf("the object did not outlive %q", text)
		}
	}
	f.write("a.yaml", configMap("m", "two"))
	f.untilValue("m", "two")
}

// TestSecretFileMode: what others may read is no secret. A file whose mode is
// wrong is refused by name with the cure, and taken as soon as it is put right.
func TestSecretFileMode(t *testing.T) {
	f := start(t, t.TempDir(), standalone)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o620, 0o604, 0o601} {
		f.write("a.yaml", "# first\n---\n"+secret("s", canary))
		f.untilValue("s", canary)
		f.remove("a.yaml")
		f.untilValue("s", "")
		do(t, os.WriteFile(f.path(".tmp"), []byte("# first\n---\n"+secret("s", canary)), 0o600))
		do(t, os.Chmod(f.path(".tmp"), mode))
		f.rename(".tmp", "a.yaml")
		p := f.untilProblem("only its owner may read a Secret")
		if p.Line != 3 || !strings.Contains(p.Message, fmt.Sprintf("mode %04o", mode)) || !strings.Contains(p.Message, "chmod 600 "+f.path("a.yaml")) || value(f.last, "s") != "" {
			t.Errorf("mode %o: got %+v", mode, p)
		}
		do(t, os.Chmod(f.path("a.yaml"), 0o600)) // nothing is written: the event is of the mode alone
		f.untilValue("s", canary)
		do(t, os.Chmod(f.path("a.yaml"), mode))
		if f.untilProblem("only its owner may read a Secret"); value(f.last, "s") != canary {
			t.Error("a Secret that was good is gone with its file's mode")
		}
		f.remove("a.yaml")
		f.untilValue("s", "")
	}
	// A file without a Secret may be read by all.
	f.write("m.yaml", configMap("m", "one"))
	do(t, os.Chmod(f.path("m.yaml"), 0o644))
	f.untilValue("m", "one")
}

// TestObjectInTwoFiles: the file that sorts first has it, whichever came first.
func TestObjectInTwoFiles(t *testing.T) {
	f := start(t, t.TempDir(), standalone)
	f.write("b.yaml", secret("s", "b"))
	f.untilValue("s", "b")
	f.write("a.yaml", secret("s", "a"))
	f.untilValue("s", "a")
	if p := f.untilProblem("sorts first"); p.File != f.path("b.yaml") || p.Message != "Secret other/s is not taken from here: a.yaml has it too, and sorts first" {
		t.Errorf("got %+v", p)
	}
	f.remove("a.yaml")
	f.untilValue("s", "b")
}

func service(namespace, name, address string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + ", namespace: " + namespace + "}\nspec: {clusterIP: '" + address + "', ports: [{port: 80}]}\n"
}

// hosts are the addresses of services that a pod of the namespace is told of.
func hosts(s Snapshot, namespace string, links bool) string {
	var all []string
	for name, value := range s.Objects.Variables(namespace, links) {
		if short, ok := strings.CutSuffix(name, "_SERVICE_HOST"); ok {
			all = append(all, short+"="+value)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestServices: pods are told of the services of their namespace and of the API
// server's; files have them under the law of all objects.
func TestServices(t *testing.T) {
	f := start(t, t.TempDir(), standalone)
	f.write("a.yaml", service("default", "kubernetes", "10.0.0.1")+"---\n"+service("ns", "my-db", "10.0.0.2")+"---\n"+service("own", "kubernetes", "10.0.0.3"))
	first := f.until("services", func(s Snapshot) bool { return hosts(s, "ns", true) != "" })
	for _, c := range []struct {
		namespace string
		links     bool
		want      string
	}{
		{"ns", true, "KUBERNETES=10.0.0.1 MY_DB=10.0.0.2"},
		{"ns", false, "KUBERNETES=10.0.0.1"},
		{"default", true, "KUBERNETES=10.0.0.1"},
		{"default", false, "KUBERNETES=10.0.0.1"},
		{"own", true, "KUBERNETES=10.0.0.3"},
		{"own", false, "KUBERNETES=10.0.0.1"},
		{"other", true, "KUBERNETES=10.0.0.1"},
	} {
		if got := hosts(first, c.namespace, c.links); got != c.want {
			t.Errorf("in namespace %s, links %v, pods are told of %q, want %q", c.namespace, c.links, got, c.want)
		}
	}
	f.write("a.yaml", service("ns", "my-db", ""))
	f.untilProblem("spec.clusterIP: Required value")
	if got := hosts(f.settle(), "ns", true); got != "KUBERNETES=10.0.0.1 MY_DB=10.0.0.2" {
		t.Errorf("with a broken file pods are told of %q", got)
	}
	f.write("a.yaml", service("default", "kubernetes", "10.0.0.1")+"---\n"+service("ns", "my-db", "10.0.0.4"))
	second := f.until("a change", func(s Snapshot) bool { return hosts(s, "ns", true) == "KUBERNETES=10.0.0.1 MY_DB=10.0.0.4" })
	if changed := second.Objects.Changed(first.Objects); len(changed) != 2 || hosts(second, "own", true) != "KUBERNETES=10.0.0.1" {
		t.Errorf("changed are %v", changed)
	}
	f.write("b.yaml", service("ns", "my-db", "10.0.0.5"))
	f.untilProblem("Service ns/my-db is not taken from here: a.yaml has it too, and sorts first")
	f.remove("a.yaml")
	f.until("the other file's", func(s Snapshot) bool { return hosts(s, "ns", true) == "MY_DB=10.0.0.5" })
}

// TestObjectsNeedNoServer: where there is an API server, its objects count and
// no file's, and no static pod may refer to any.
func TestObjectsNeedNoServer(t *testing.T) {
	refers := manifest("p", "    envFrom:\n    - secretRef: {name: s}\n")
	for _, text := range []string{configMap("m", "x"), secret("s", "x"), service("default", "v", "10.96.0.9"), refers} {
		if got, wrong := testSource(t, "/m", nil).decode("/m/a.yaml", []byte(text)); wrong == nil {
			t.Errorf("with an API server %v is taken from\n%s", got, text)
		}
		if _, wrong := testSource(t, "/m", standalone).decode("/m/a.yaml", []byte(text)); wrong != nil {
			t.Errorf("without one %+v is wrong with\n%s", wrong, text)
		}
	}
}

// TestObjectFindingsHoldNoValue: whatever is wrong with a Secret, what stands in
// it is not told; it may be anywhere where the parser did not expect it.
func TestObjectFindingsHoldNoValue(t *testing.T) {
	head := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
	for _, text := range []string{
		head + "data: {key: " + canary + "}\n",
		head + "data: {key: 4711}\n",
		head + "data: " + canary + "\n",
		head + "data: [" + canary + "]\n",
		head + "stringData: {key: 4711}\n",
		head + "stringData: {key: [" + canary + "]}\n",
		head + "stringData: {key: *" + canary + "}\n",
		head + "stringData: {key: '" + canary + "}\n",
		head + "stringData: {key: \"" + canary + "\\q\"}\n",
		head + "stringData:\n  key: " + canary + "\n bad: x\n",
		head + "stringData:\n  key: %" + canary + "\n",
		head + "stringData:\n  key: `" + canary + "`\n",
		head + "stringData:\n  key: !!int " + canary + "\n",
		head + "stringData:\n  key: !!float " + canary + "\n",
		head + "stringData:\n  key: !!binary " + canary + "\n",
		head + "stringData:\n  key: !!timestamp " + canary + "\n",
		head + "type: [" + canary + "]\n",
		head + "immutable: " + canary + "\n",
		head + "immutable: 4711\n",
		head + "type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{\"" + canary + "\": x'}\n",
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"key":"` + canary + `"}}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"key":4711}}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"key":"` + canary + `}}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":"` + canary + `"}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":4711,"labels":{"a":4711}}}`,
		"apiVersion: v1\nkind: " + canary + "x: *" + canary + "\n",
	} {
		got, wrong := testSource(t, "/m", standalone).decode("/m/a.yaml", []byte(text))
		if wrong == nil {
			t.Errorf("%s is taken from\n%s", got[0].object, text)
		}
		for _, w := range wrong {
			if strings.Contains(w.message, canary) || strings.Contains(w.message, "4711") {
				t.Errorf("told: %s\n of\n%s", w.message, text)
			}
		}
	}
	got, _ := testSource(t, "/m", standalone).decode("/m/a.yaml", []byte(secret("s", canary)))
	if text := fmt.Sprintf("%v %+v %#v", got, got[0].object, got); strings.Contains(text, canary) {
		t.Errorf("an object prints as %s", text)
	}
}

// FuzzObjects: no text ends the decoder or gets past validation, and the same
// text gives the same objects.
func FuzzObjects(f *testing.F) {
	f.Add([]byte(configMap("m", "x")))
	f.Add([]byte(secret("s", "x") + "---\n" + configMap("m", "|\n text\n")))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Secret","metadata":{"name":"j"},"type":"kubernetes.io/tls","data":{"tls.crt":"eA==","tls.key":null}}]}`))
	f.Add([]byte(service("n", "v", "fd00::1")))
	f.Add([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: n}\nbinaryData: {k: !!binary eA==}\n"))
	m := testSource(f, "/m", standalone)
	f.Fuzz(func(t *testing.T, data []byte) {
		all, wrong := m.decode("/m/a.yaml", data)
		if (len(wrong) == 0) == (len(all) == 0) || len(wrong) > maxFindings {
			t.Fatalf("%d objects and %d findings", len(all), len(wrong))
		}
		for _, w := range wrong {
			if w.message == "" || len(w.message) > 1200 || bytes.ContainsAny([]byte(w.message), "\n\r") {
				t.Fatalf("finding %+v", w)
			}
		}
		again, _ := m.decode("/m/a.yaml", data)
		for i, w := range keep(all, again) {
			if o := w.object; o != nil {
				if o != all[i].object {
					t.Fatal("the same file gave another object")
				}
				if o.ref.Name == "" || o.ref.Namespace == "" || strings.ContainsAny(o.ref.Name+o.ref.Namespace, "/\x00") || filepath.Base(o.ref.Name) != o.ref.Name {
					t.Fatalf("an object is called %q", o)
				}
			}
		}
	})
}
