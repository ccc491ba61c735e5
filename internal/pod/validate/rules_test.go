package validate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// rule is one line of testdata/rules.txt: a pod, and whether it may be created.
type rule struct {
	Line int         `json:"line"`
	Path string      `json:"path"` // of the error; of all of them, with commas, where one rule never breaks alone; or ""
	Pod  *corev1.Pod `json:"pod"`
}

// rules reads testdata/rules.txt; the head of that file says how it is written.
func rules() ([]rule, error) {
	text, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		return nil, err
	}
	var list []rule
	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		verdict, rest, _ := strings.Cut(line, " | ")
		r := rule{Line: i + 1}
		if verdict = strings.TrimSpace(verdict); verdict != "yes" {
			r.Path = verdict
		}
		if r.Pod, err = rulePod(rest); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		list = append(list, r)
	}
	return list, nil
}

// rulePod makes the pod of a line: parts to be merged, each "kind {YAML}".
func rulePod(text string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace = "web", "default"
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "busybox"}}
	for part := range strings.SplitSeq(text, " | ") {
		kind, body, _ := strings.Cut(strings.TrimSpace(part), " ")
		body = expand(body)
		var target any
		switch kind {
		case "meta":
			target = &pod.ObjectMeta
		case "spec":
			target = &pod.Spec
		case "container":
			target = &pod.Spec.Containers[0]
		case "second":
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "d", Image: "busybox"})
			target = &pod.Spec.Containers[1]
		case "init":
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "i", Image: "busybox"})
			target = &pod.Spec.InitContainers[len(pod.Spec.InitContainers)-1]
		case "volume":
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", len(pod.Spec.Volumes))})
			target = &pod.Spec.Volumes[len(pod.Spec.Volumes)-1]
		case "env":
			pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: "E"})
			target = &pod.Spec.Containers[0].Env[len(pod.Spec.Containers[0].Env)-1]
		default:
			return nil, fmt.Errorf("unknown kind %q", kind)
		}
		if err := decode(body, target); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
	}
	return pod, nil
}

// decode goes by way of JSON: sigs.k8s.io/yaml, unmarshalling into a struct,
// looks up keys in embedded structs once too often, and makes the key rbd.image
// of a volume an image volume as well.
func decode(text string, target any) error {
	data, err := yaml.ToJSON([]byte("---\n" + text)) // "{" at once would be taken for JSON
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(target)
}

// expand replaces <x*n> by n times x, the innermost first.
func expand(text string) string {
	for {
		inner, after, ok := strings.Cut(text, ">")
		if !ok {
			return text
		}
		open := strings.LastIndex(inner, "<")
		what, times, _ := strings.Cut(inner[open+1:], "*")
		n, err := strconv.Atoi(times)
		if err != nil {
			panic("bad repetition in " + text)
		}
		text = inner[:open] + strings.Repeat(what, n) + after
	}
}

// TestRules holds every rule of testdata/rules.txt: a pod that is refused is
// refused for exactly one reason, so that each line fails when its rule is gone.
func TestRules(t *testing.T) {
	list, err := rules()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		pod := r.Pod.DeepCopy()
		Default(pod)
		errs := Validate(pod)
		var got []string
		for _, e := range errs {
			got = append(got, e.Field)
		}
		if strings.Join(got, ",") != r.Path {
			t.Errorf("line %d: got %v, want %q", r.Line, errs, r.Path)
		}
	}
}
