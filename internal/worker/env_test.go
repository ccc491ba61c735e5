package worker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"nodeagent/internal/pod"
)

// canary is the value of a secret, which no error may hold.
const canary = "canary-value"

type envObjects struct{}

func (envObjects) ConfigMap(namespace, name string) (*corev1.ConfigMap, error) {
	if namespace+"/"+name != "ns/cm" {
		return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
	}
	return &corev1.ConfigMap{Data: map[string]string{"B": "cm-b", "A": "cm-a", "my.key-1": "dots", "expand": "$(A)"}}, nil
}

func (envObjects) Secret(namespace, name string) (*corev1.Secret, error) {
	switch namespace + "/" + name {
	case "ns/sec":
		return &corev1.Secret{Data: map[string][]byte{"A": []byte(canary), "Z": []byte("sec-z")}}, nil
	case "ns/nul":
		return &corev1.Secret{Data: map[string][]byte{"bad": []byte(canary + "\x00")}}, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
}

type envFiles struct{}

func (envFiles) EnvFile(_ context.Context, _ *corev1.Pod, volume, path string) ([]byte, error) {
	switch volume + "/" + path {
	case "v/good":
		return []byte("K='" + canary + "'\nNUL='a\x00'\n"), nil
	case "v/bad":
		return []byte("K=" + canary), nil
	}
	return nil, errors.New("open /node/path: no such file")
}

type envServices struct{ err error }

func (s envServices) Variables(_ string, links bool) (map[string]string, error) {
	if !links {
		return map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, s.err
	}
	return map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1", "DB_SERVICE_HOST": "10.96.0.9"}, s.err
}

func envOf(t *testing.T, text string, services Services, links *bool) (string, error) {
	t.Helper()
	var c corev1.Container
	if err := yaml.UnmarshalStrict([]byte(text), &c); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{EnableServiceLinks: links},
	}
	s := &Set{cfg: Config{Objects: envObjects{}, Services: services, EnvFiles: envFiles{}, Logger: quietLogger}}
	env, err := s.environment(t.Context(), p, &c, pod.Place{
		PodIPs:      []netip.Addr{netip.MustParseAddr("10.1.0.2")},
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("4")},
	})
	var all []string
	for _, e := range env {
		all = append(all, e.Key+"="+string(e.Value))
	}
	return strings.Join(all, "|"), err
}

// TestEnvironment: each source of a variable, their order and precedence, and
// what follows when one is not there.
func TestEnvironment(t *testing.T) {
	const (
		cm  = "configMapKeyRef: {name: cm, key: A}"
		sec = "secretKeyRef: {name: sec, key: A}"
	)
	from := func(source string) string { return "env: [{name: V, valueFrom: {" + source + "}}]" }
	for _, c := range []struct{ name, text, want, err string }{
		{"none", "{}", "", ""},
		{"literal", "env: [{name: A, value: a}, {name: B}, {name: A, value: c}]", "A=c|B=", ""},
		{"expansion", "env: [{name: A, value: a}, {name: B, value: '$(A)-$$(A)-$(C)-$'}, {name: C, value: '$(B)$(A'}]", "A=a|B=a-$(A)-$(C)-$|C=a-$(A)-$(C)-$$(A", ""},
		{"later names are not known", "env: [{name: A, value: $(B)}, {name: B, value: b}]", "A=$(B)|B=b", ""},
		{"field", from("fieldRef: {apiVersion: v1, fieldPath: \"metadata.labels['app']\"}"), "V=web", ""},
		{"address", from("fieldRef: {apiVersion: v1, fieldPath: status.podIP}"), "V=10.1.0.2", ""},
		{"limit", from("resourceFieldRef: {resource: limits.cpu}"), "V=4", ""},
		{"config map", from(cm), "V=cm-a", ""},
		{"secret", from(sec), "V=" + canary, ""},
		{"no expansion in objects", from("configMapKeyRef: {name: cm, key: expand}"), "V=$(A)", ""},
		{"expansion of objects", "env: [{name: A, valueFrom: {" + cm + "}}, {name: B, value: '<$(A)>'}]", "A=cm-a|B=<cm-a>", ""},
		{"no config map", from("configMapKeyRef: {name: none, key: A}"), "", `configmap "none" not found`},
		{"no secret", from("secretKeyRef: {name: none, key: A}"), "", `secret "none" not found`},
		{"no key", from("configMapKeyRef: {name: cm, key: none}"), "", "couldn't find key none in ConfigMap ns/cm"},
		{"no key of a secret", from("secretKeyRef: {name: sec, key: none}"), "", "couldn't find key none in Secret ns/sec"},
		{"optional config map", from("configMapKeyRef: {name: none, key: A, optional: true}"), "", ""},
		{"optional secret", from("secretKeyRef: {name: none, key: A, optional: true}"), "", ""},
		{"optional key", from("configMapKeyRef: {name: cm, key: none, optional: true}"), "", ""},
		{"optional key of a secret", from("secretKeyRef: {name: sec, key: none, optional: true}"), "", ""},
		{"an optional key leaves what was there", "envFrom: [{configMapRef: {name: cm}}]\nenv: [{name: A, valueFrom: {secretKeyRef: {name: none, key: A, optional: true}}}]", "A=cm-a|B=cm-b|expand=$(A)|my.key-1=dots", ""},
		{"all of both", "envFrom: [{configMapRef: {name: cm}}, {secretRef: {name: sec}}]", "A=" + canary + "|B=cm-b|expand=$(A)|my.key-1=dots|Z=sec-z", ""},
		{"prefix", "envFrom: [{prefix: P_, secretRef: {name: sec}}]", "P_A=" + canary + "|P_Z=sec-z", ""},
		{"env wins", "envFrom: [{secretRef: {name: sec}}]\nenv: [{name: Z, value: $(A)!}]", "A=" + canary + "|Z=" + canary + "!", ""},
		{"all of none", "envFrom: [{configMapRef: {name: none}}]", "", `configmap "none" not found`},
		{"all of no secret", "envFrom: [{secretRef: {name: none}}]", "", `secret "none" not found`},
		{"all of an optional one", "envFrom: [{configMapRef: {name: none, optional: true}}, {secretRef: {name: none, optional: true}}]", "", ""},
		{"file", from("fileKeyRef: {volumeName: v, path: good, key: K}"), "V=" + canary, ""},
		{"no key of a file", from("fileKeyRef: {volumeName: v, path: good, key: L}"), "", `environment variable key "L" not found in file "good"`},
		{"optional key of a file", from("fileKeyRef: {volumeName: v, path: good, key: L, optional: true}"), "", ""},
		{"nul of a file", from("fileKeyRef: {volumeName: v, path: good, key: NUL}"), "", `key NUL in file "good" holds a NUL byte, which no environment variable can`},
		{"broken file", from("fileKeyRef: {volumeName: v, path: bad, key: K, optional: true}"), "", "couldn't parse env file: invalid environment variable format at line 1: value must be enclosed in single quotes"},
		{"no file", from("fileKeyRef: {volumeName: v, path: none, key: K, optional: true}"), "", "couldn't parse env file"},
		{"nul", from("secretKeyRef: {name: nul, key: bad}"), "", "key bad in Secret ns/nul holds a NUL byte, which no environment variable can"},
		{"nul of all", "envFrom: [{secretRef: {name: nul}}]", "", "key bad in Secret ns/nul holds a NUL byte, which no environment variable can"},
		{"literal nul", "env: [{name: V, value: \"a\\0b\"}]", "", "environment variable V holds a NUL byte, which no variable can"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := envOf(t, c.text, nil, nil)
			text := ""
			if err != nil {
				got, text = "", err.Error()
			}
			if got != c.want || text != c.err {
				t.Errorf("the environment is %q, error %q; want %q, %q", got, text, c.want, c.err)
			}
			if strings.Contains(text, canary) {
				t.Error("the error holds the value of a secret")
			}
			if fromObject := !strings.Contains(c.err, "file") && (strings.Contains(c.err, "not found") || strings.Contains(c.err, "key ")); err != nil && absent(err) != fromObject {
				t.Errorf("that it waits for an object is %v", absent(err))
			}
		})
	}
}

// TestServiceVariables: what is known of services comes behind the container's
// own and loses to it; it can be referred to.
func TestServiceVariables(t *testing.T) {
	for _, c := range []struct {
		links *bool
		want  string
	}{
		{nil, "A=10.96.0.9|KUBERNETES_SERVICE_HOST=mine|DB_SERVICE_HOST=10.96.0.9"},
		{new(false), "A=$(DB_SERVICE_HOST)|KUBERNETES_SERVICE_HOST=mine"},
	} {
		got, err := envOf(t, "env: [{name: A, value: $(DB_SERVICE_HOST)}, {name: KUBERNETES_SERVICE_HOST, value: mine}]", envServices{}, c.links)
		if err != nil || got != c.want {
			t.Errorf("the environment is %q, %v; want %q", got, err, c.want)
		}
	}
	unread := envServices{fmt.Errorf("not read yet")}
	if _, err := envOf(t, "{}", unread, nil); err == nil {
		t.Error("a container gets its variables before services are known")
	}
	s := &Set{cfg: Config{Objects: envObjects{}, Services: unread, Logger: quietLogger}}
	static := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"kubernetes.io/config.source": "file"}}}
	if _, err := s.environment(t.Context(), static, &corev1.Container{}, pod.Place{}); err != nil {
		t.Errorf("a static pod waits for services: %v", err)
	}
}
