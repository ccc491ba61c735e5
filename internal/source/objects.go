package source

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/pod"
)

// Objects are the ConfigMaps, Secrets and Services of a snapshot. They are never changed.
type Objects struct{ all map[pod.ObjectRef]*object }

// ConfigMap returns one; apierrors.IsNotFound tells that there is none.
func (o Objects) ConfigMap(namespace, name string) (*corev1.ConfigMap, error) {
	found := o.all[pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: namespace, Name: name}]
	if found == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
	}
	return found.configMap, nil
}

// Secret returns one; apierrors.IsNotFound tells that there is none.
func (o Objects) Secret(namespace, name string) (*corev1.Secret, error) {
	found := o.all[pod.ObjectRef{Kind: pod.SecretKind, Namespace: namespace, Name: name}]
	if found == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
	}
	return found.secret, nil
}

// Variables are what containers are told of the services of their namespace and
// of the API server's; without links only of that one. A service of the namespace
// that has the name of the API server's takes its place.
func (o Objects) Variables(namespace string, links bool) map[string]string {
	told := map[string]*pod.Service{}
	for ref, found := range o.all {
		isAPI := ref.Namespace == metav1.NamespaceDefault && ref.Name == pod.APIService
		own := ref.Namespace == namespace && links
		if _, taken := told[ref.Name]; found.service != nil && (own || isAPI && !taken) {
			told[ref.Name] = found.service
		}
	}
	all := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(told)) { // two may have a variable in common
		told[name].Variables(all)
	}
	return all
}

// Has tells whether there is such an object.
func (o Objects) Has(ref pod.ObjectRef) bool { return o.all[ref] != nil }

// Changed lists what came, went or changed since before, in no order.
func (o Objects) Changed(before Objects) []pod.ObjectRef {
	var changed []pod.ObjectRef
	for ref, now := range o.all {
		if before.all[ref] != now {
			changed = append(changed, ref)
		}
	}
	for ref := range before.all {
		if o.all[ref] == nil {
			changed = append(changed, ref)
		}
	}
	return changed
}

// addObjects lists all objects. As with pods, the file whose name sorts first
// has an object that stands in two.
func (m *Manifests) addObjects(s *Snapshot) {
	s.Objects.all = map[pod.ObjectRef]*object{}
	from := map[pod.ObjectRef]string{}
	doubles := map[string]time.Time{}
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		for _, w := range m.files[name].pods {
			if w.object == nil {
				continue
			}
			first, taken := from[w.object.ref]
			if !taken {
				s.Objects.all[w.object.ref], from[w.object.ref] = w.object, name
				continue
			}
			key := name + "\x00" + w.object.String()
			if doubles[key] = m.objectDoubles[key]; doubles[key].IsZero() {
				doubles[key] = time.Now()
			}
			s.Problems = append(s.Problems, Problem{
				File: m.fileOf(name), Line: w.object.line, Since: doubles[key],
				Message: fmt.Sprintf("%s is not taken from here: %s has it too, and sorts first", w.object, first),
			})
		}
	}
	m.objectDoubles = doubles
}
