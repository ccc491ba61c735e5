package oracle

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// kept are the fields that shrink leaves alone: without them every pod is refused
// for more reasons than the one that matters.
var kept = map[string]bool{
	"ObjectMeta.Name": true, "ObjectMeta.Namespace": true, "Container.Name": true, "Container.Image": true, "Volume.Name": true,
}

// shrink takes away from the pod whatever it can, as long as bad still holds.
func shrink(pod *corev1.Pod, bad func(*corev1.Pod) bool) *corev1.Pod {
	for again := true; again; {
		again = false
		for i := 0; i < len(podPlaces(pod)); {
			smaller := without(pod, i, true)
			if smaller == nil || !bad(smaller) {
				smaller = without(pod, i, false)
			}
			if smaller == nil || !bad(smaller) {
				i++
				continue
			}
			pod, again = smaller, true
		}
	}
	return pod
}

// without returns the pod with its i-th place made smaller, nil if it cannot be.
func without(pod *corev1.Pod, i int, first bool) *corev1.Pod {
	smaller := pod.DeepCopy()
	p := podPlaces(smaller)[i]
	if kept[p.key] || !reduce(p.v, first) {
		return nil
	}
	return smaller
}

func podPlaces(pod *corev1.Pod) []place {
	var places []place
	collect(reflect.ValueOf(&pod.ObjectMeta).Elem(), "", []string{"metadata"}, &places)
	collect(reflect.ValueOf(&pod.Spec).Elem(), "", []string{"spec"}, &places)
	return places
}

// reduce makes one place smaller, a list by its first or last element, and
// reports whether it could.
func reduce(v reflect.Value, first bool) bool {
	switch {
	case v.IsZero():
		return false
	case v.Kind() == reflect.Slice && v.Len() > 1 && first:
		v.Set(v.Slice(1, v.Len()))
	case v.Kind() == reflect.Slice && v.Len() > 1:
		v.Set(v.Slice(0, v.Len()-1))
	case v.Kind() == reflect.Map && v.Len() > 1:
		m := reflect.MakeMap(v.Type())
		for i, k := range v.MapKeys() {
			if i > 0 {
				m.SetMapIndex(k, v.MapIndex(k))
			}
		}
		v.Set(m)
	default:
		v.SetZero()
	}
	return true
}

// differ compares two pods in JSON and names the paths where they part.
func differ(a, b json.RawMessage) ([]string, error) {
	var x, y map[string]any
	if err := json.Unmarshal(a, &x); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &y); err != nil {
		return nil, err
	}
	delete(x, "status")
	delete(y, "status")
	var paths []string
	walkBoth(x, y, "", &paths)
	sort.Strings(paths)
	return paths, nil
}

func walkBoth(x, y any, path string, paths *[]string) {
	if reflect.DeepEqual(x, y) {
		return
	}
	a, okA := x.(map[string]any)
	b, okB := y.(map[string]any)
	if okA && okB {
		for k := range a {
			walkBoth(a[k], b[k], path+"."+k, paths)
		}
		for k := range b {
			if _, there := a[k]; !there && b[k] != nil {
				*paths = append(*paths, fmt.Sprintf("%s.%s: ours none, theirs %v", path, k, b[k]))
			}
		}
		return
	}
	c, okC := x.([]any)
	d, okD := y.([]any)
	if okC && okD && len(c) == len(d) {
		for i := range c {
			walkBoth(c[i], d[i], fmt.Sprintf("%s[%d]", path, i), paths)
		}
		return
	}
	*paths = append(*paths, fmt.Sprintf("%s: ours %v, theirs %v", path, x, y))
}

// setPaths lists what is set in a pod, for people.
func setPaths(pod *corev1.Pod) string {
	var b strings.Builder
	for _, p := range podPlaces(pod) {
		// What a pointer or a list holds follows, unless it is nothing.
		holds := p.v.Kind() == reflect.Slice || p.v.Kind() == reflect.Pointer && !p.v.IsNil() && !p.v.Elem().IsZero()
		if p.v.IsZero() || holds {
			continue
		}
		text, err := json.Marshal(p.v.Interface())
		if err != nil {
			text = []byte(err.Error())
		}
		fmt.Fprintf(&b, "    %s = %.200s\n", strings.Join(p.path, "."), text)
	}
	return b.String()
}
