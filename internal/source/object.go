package source

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/pod"
	"nodeagent/internal/pod/validate"
)

// object is a ConfigMap, Secret or Service of a file.
type object struct {
	ref       pod.ObjectRef
	configMap *corev1.ConfigMap // exactly one of the three
	secret    *corev1.Secret
	service   *pod.Service
	line      int // where it stands in its file
}

// String keeps what a Secret holds out of everything that formats an object.
func (o *object) String() string {
	return fmt.Sprintf("%s %s/%s", o.ref.Kind, o.ref.Namespace, o.ref.Name)
}

// GoString is String.
func (o *object) GoString() string { return o.String() }

func (o *object) equal(other *object) bool {
	return o.ref == other.ref && equality.Semantic.DeepEqual(o.configMap, other.configMap) && equality.Semantic.DeepEqual(o.secret, other.secret) &&
		equality.Semantic.DeepEqual(o.service, other.service)
}

func (m *Manifests) decodeConfigMap(text []byte, where *tree, prefix string) ([]wanted, findings) {
	c := &corev1.ConfigMap{}
	if bad := strict(text, c, where, prefix); bad != nil {
		return nil, bad
	}
	clearMeta(&c.ObjectMeta)
	if bad := explained(validate.ConfigMap(c), where, prefix, ""); bad != nil {
		return nil, bad
	}
	ref := pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: c.Namespace, Name: c.Name}
	return []wanted{{object: &object{ref: ref, configMap: c, line: where.line(prefix)}}}, nil
}

func (m *Manifests) decodeSecret(text []byte, where *tree, prefix string) ([]wanted, findings) {
	s := &corev1.Secret{}
	if bad := strict(text, s, where, prefix); bad != nil {
		return nil, bad
	}
	clearMeta(&s.ObjectMeta)
	validate.DefaultSecret(s)
	if bad := explained(validate.Secret(s), where, prefix, ""); bad != nil {
		return nil, bad
	}
	ref := pod.ObjectRef{Kind: pod.SecretKind, Namespace: s.Namespace, Name: s.Name}
	return []wanted{{object: &object{ref: ref, secret: s, line: where.line(prefix)}}}, nil
}

func (m *Manifests) decodeService(text []byte, where *tree, prefix string) ([]wanted, findings) {
	s := &corev1.Service{}
	if bad := strict(text, s, where, prefix); bad != nil {
		return nil, bad
	}
	clearMeta(&s.ObjectMeta)
	if bad := explained(validate.Service(s), where, prefix, ""); bad != nil {
		return nil, bad
	}
	told, ok := pod.ServiceOf(s)
	if !ok {
		return nil, findf(where.line(prefix), "service has no address and ports that pods could be told of")
	}
	ref := pod.ObjectRef{Kind: pod.ServiceKind, Namespace: s.Namespace, Name: s.Name}
	return []wanted{{object: &object{ref: ref, service: &told, line: where.line(prefix)}}}, nil
}

// clearMeta fills in the namespace and clears what only an API server may write,
// and the copy of the whole object that kubectl apply keeps in an annotation.
func clearMeta(o *metav1.ObjectMeta) {
	if o.Namespace == "" {
		o.Namespace = metav1.NamespaceDefault
	}
	delete(o.Annotations, corev1.LastAppliedConfigAnnotation)
	*o = metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, Labels: o.Labels, Annotations: o.Annotations}
}

// readable refuses a file with a Secret that others than its owner may read or
// write: what stands in it would be no secret.
func readable(path string, mode uint32, all []wanted) findings {
	if mode&0o077 == 0 {
		return nil
	}
	for _, w := range all {
		if w.object != nil && w.object.secret != nil {
			return findf(w.object.line, "file holds %s and has mode %04o: only its owner may read a Secret; chmod 600 %s", w.object, mode&0o7777, path)
		}
	}
	return nil
}

// keep is the object of before that is equal to o, or else o.
func (o *object) keep(before []wanted) *object {
	for _, w := range before {
		if w.object != nil && w.object.equal(o) {
			return w.object
		}
	}
	return o
}
