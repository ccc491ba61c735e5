package oracle

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/capabilities"
)

var (
	seed  = flag.Uint64("seed", 0, "seed of the pods; 0 takes one from the clock")
	count = flag.Int("pods", 10_000, "how many pods")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	// kubelet lets privileged containers pass; without this they are refused.
	capabilities.Setup(true, 0)
	os.Exit(m.Run())
}

// maxMismatches is how many are shown before the test gives up.
const maxMismatches = 10

// TestPodsAgree makes pods that reach every field of a PodSpec, breaks about
// half of them in one or two places, and demands the same defaults and the same
// yes or no from nodeagent as from Kubernetes.
func TestPodsAgree(t *testing.T) {
	fmt.Printf("seed %d: go test ./... -seed=%d -pods=%d\n", *seed, *seed, *count)
	j := newJudge(t)
	want := fieldPaths(reflect.TypeFor[corev1.PodSpec]())
	fields := byKey(want)
	if *count < 2*len(want) {
		t.Fatalf("%d pods are too few to reach %d fields", *count, len(want))
	}
	reached := map[string]bool{}
	var tally tally
	bad := 0
	for i := range *count {
		g := &generator{rng: rand.New(rand.NewPCG(*seed, uint64(i)))}
		pod := g.podFor(i, want, fields)
		markSet(reflect.ValueOf(pod).Elem(), "", reached)
		if wrong := tally.compare(t, j, pod); wrong != "" {
			bad++
			small := shrink(pod, func(p *corev1.Pod) bool { return compare(t, j, p).kind == wrong })
			t.Errorf("pod %d of seed %d, as small as it can be:\n%s  %s", i, *seed, setPaths(small), compare(t, j, small))
			if bad == maxMismatches {
				t.Fatalf("gave up after %d mismatches in %d pods", bad, i+1)
			}
		}
	}
	for _, p := range want {
		if key := "/Spec" + pathKey(p.path); !reached[key] {
			t.Errorf("no pod ever set %s", key)
		}
	}
	for _, p := range fieldPaths(reflect.TypeFor[metav1.ObjectMeta]()) {
		if key := "/ObjectMeta" + pathKey(p.path); !reached[key] {
			t.Errorf("no pod ever set %s", key)
		}
	}
	tally.check(t, *count, len(want))
}

// TestRulesAgree asks Kubernetes about each line of the rules that the product's
// own tests hold it to.
func TestRulesAgree(t *testing.T) {
	j := newJudge(t)
	rules := j.rules(t)
	for _, r := range rules {
		v := compare(t, j, r.Pod)
		if v.kind != "" || (len(v.theirs.Errors) > 0) != (r.Path != "") {
			t.Errorf("rule in line %d wants an error at %q: %s", r.Line, r.Path, v)
		}
	}
	fmt.Printf("%d rules\n", len(rules))
}

// podFor makes the i-th pod. The first ones set each field in turn, among much
// else. Of the rest one in four is a rich pod, broken or not; the others have
// little but one field, which is then broken, so that one rule alone decides.
func (g *generator) podFor(i int, want []fieldPath, fields [][]fieldPath) *corev1.Pod {
	switch {
	case i < len(want):
		return g.reach(want[i].path)
	case i%4 == 0:
		pod := g.reach(nil)
		for range g.rng.IntN(3) {
			g.mutate(pod, "")
		}
		return pod
	default:
		target := pick(g.rng, fields[(i/4*3+i%4)%len(fields)])
		g.sparse = true
		pod := g.reach(target.path)
		g.mutate(pod, target.key)
		return pod
	}
}

// byKey sorts the paths into one group for each field of a struct, wherever the
// struct stands. Those of ephemeral containers are left out: a pod with such a
// container is refused, whatever is in it.
func byKey(paths []fieldPath) [][]fieldPath {
	var groups [][]fieldPath
	index := map[string]int{}
	for _, p := range paths {
		if p.path[0] == "EphemeralContainers" {
			continue
		}
		i, there := index[p.key]
		if !there {
			i = len(groups)
			index[p.key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], p)
	}
	return groups
}

// reach makes a pod that has the field at path; repairs are left out if they
// keep taking it away.
func (g *generator) reach(path []string) *corev1.Pod {
	var pod *corev1.Pod
	for try := range 12 {
		g.loose = try >= 8
		pod = g.pod(path)
		set := map[string]bool{}
		markSet(reflect.ValueOf(&pod.Spec).Elem(), "", set)
		if path == nil || set[pathKey(path)] {
			break
		}
	}
	g.loose = false
	return pod
}

// tally counts the answers of Kubernetes.
type tally struct{ yes, no, static int }

func (n *tally) compare(t *testing.T, j *judge, pod *corev1.Pod) string {
	t.Helper()
	r := compare(t, j, pod)
	switch {
	case len(r.theirs.Errors) > 0:
		n.no++
	case len(r.theirs.Static) > 0:
		n.yes++
	default:
		n.yes++
		n.static++
	}
	return r.kind
}

func (n *tally) check(t *testing.T, pods, fields int) {
	t.Helper()
	fmt.Printf("%d pods over %d fields: %d accepted (%d as static pods too), %d refused\n", pods, fields, n.yes, n.static, n.no)
	lopsided := func(what string, some, all int) {
		if some*4 < all {
			t.Errorf("only %d of %d pods are %s: the generator is lopsided", some, all, what)
		}
	}
	lopsided("accepted", n.yes, pods)
	lopsided("refused", n.no, pods)
	lopsided("accepted as static pods", n.static, n.yes)
	lopsided("refused as static pods", n.yes-n.static, n.yes)
}

// result is one comparison; kind is empty where both agree.
type result struct {
	kind         string
	ours, theirs verdict
	differences  []string
}

func compare(t *testing.T, j *judge, pod *corev1.Pod) result {
	t.Helper()
	line, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if r.ours, err = j.answer(line); err != nil {
		t.Fatal(err)
	}
	if r.theirs, err = kubernetes(line); err != nil {
		t.Fatal(err)
	}
	if r.differences, err = differ(r.ours.Pod, r.theirs.Pod); err != nil {
		t.Fatal(err)
	}
	switch {
	case len(r.differences) > 0:
		r.kind = "defaults"
	case len(r.ours.Errors) == 0 && len(r.theirs.Errors) > 0:
		r.kind = "accepted by us alone"
	case len(r.ours.Errors) > 0 && len(r.theirs.Errors) == 0:
		r.kind = "refused by us alone"
	case len(r.theirs.Errors) == 0 && (len(r.ours.Static) == 0) != (len(r.theirs.Static) == 0):
		r.kind = "static"
	}
	return r
}

func (r result) String() string {
	return fmt.Sprintf("%s\n  ours:   %q, static %q\n  theirs: %q, static %q\n  defaults: %s",
		r.kind, r.ours.Errors, r.ours.Static, r.theirs.Errors, r.theirs.Static, strings.Join(r.differences, "\n    "))
}

// TestYoungerFields demands that the product itself names the fields that its
// API level has and the oracle's has not: nobody can judge them here.
func TestYoungerFields(t *testing.T) {
	known := map[string]bool{}
	for _, f := range jsonPaths(reflect.TypeFor[corev1.PodSpec](), "spec") {
		known[f] = true
	}
	ours, count := newJudge(t).fields(t), 0
	for f, younger := range ours {
		if younger {
			count++
		}
		if younger == known[f] {
			t.Errorf("%s: the oracle knows it: %t; the product calls it younger: %t", f, known[f], younger)
		}
		delete(known, f)
	}
	for f := range known {
		t.Errorf("%s: the product's API level has lost it", f)
	}
	fmt.Printf("%d fields of a PodSpec, %d of them younger than the oracle\n", len(ours), count)
}

// jsonPaths lists the fields under t as the judge does.
func jsonPaths(t reflect.Type, path string) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return jsonPaths(t.Elem(), path)
	case reflect.Struct:
		var paths []string
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case !f.IsExported():
			case f.Anonymous:
				paths = append(paths, jsonPaths(f.Type, path)...)
			default:
				paths = append(append(paths, path+"."+name), jsonPaths(f.Type, path+"."+name)...)
			}
		}
		return paths
	}
	return nil
}
