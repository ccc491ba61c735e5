package object

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"

	"nodeagent/internal/pod"
)

// tracker is client-go's fake of an API server, which knows no selectors and no
// watch that begins with a state, and gives its objects no versions.
type tracker struct{ clienttesting.ObjectTracker }

var (
	configMaps    = corev1.SchemeGroupVersion.WithResource("configmaps")
	configMapKind = corev1.SchemeGroupVersion.WithKind("ConfigMap")
)

func newTracker(t *testing.T) tracker {
	types := runtime.NewScheme()
	if err := corev1.AddToScheme(types); err != nil {
		t.Fatal(err)
	}
	return tracker{clienttesting.NewObjectTracker(types, serializer.NewCodecFactory(types).UniversalDecoder())}
}

func (k tracker) Get(_ context.Context, ref pod.ObjectRef) (runtime.Object, error) {
	return k.ObjectTracker.Get(configMaps, ref.Namespace, ref.Name)
}

func (k tracker) List(_ context.Context, ref pod.ObjectRef) (runtime.Object, string, error) {
	o, err := k.ObjectTracker.List(configMaps, configMapKind, ref.Namespace)
	if err != nil {
		return nil, "", err
	}
	l := o.(*corev1.ConfigMapList)
	for i := range l.Items {
		if l.Items[i].Name == ref.Name {
			return &l.Items[i], l.ResourceVersion, nil
		}
	}
	return nil, l.ResourceVersion, nil
}

func (k tracker) Watch(_ context.Context, ref pod.ObjectRef, options metav1.ListOptions) (watch.Interface, error) {
	if options.SendInitialEvents != nil {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil)
	}
	return k.ObjectTracker.Watch(configMaps, ref.Namespace, options)
}

func (k tracker) Token(context.Context, string, string, *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return nil, apierrors.NewMethodNotSupported(schema.GroupResource{}, "create")
}

// TestTracker: what client-go's own fake does is understood too.
func TestTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTracker(t)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(k.Create(configMaps, configMap("a", "1"), "ns"))
		b := &bench{t: t}
		b.start(k)
		b.store.Keep([]*corev1.Pod{user("one", "a", "none")})
		time.Sleep(time.Second) // the first watch is refused
		b.want("at first", "a", "1")
		if _, err := b.store.ConfigMap("ns", "none"); !apierrors.IsNotFound(err) {
			t.Errorf("what does not exist is told as %v", err)
		}
		must(k.Update(configMaps, configMap("a", "2"), "ns"))
		b.want("an update", "a", "2")
		must(k.Create(configMaps, configMap("none", "1"), "ns"))
		b.want("it came", "none", "1")
		must(k.Delete(configMaps, "ns", "a"))
		synctest.Wait()
		if _, err := b.store.ConfigMap("ns", "a"); !apierrors.IsNotFound(err) {
			t.Errorf("what was deleted is told as %v", err)
		}
	})
}
