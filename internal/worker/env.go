package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// environment is the variables of one container while they are put together, as
// kubelet's makeEnvironmentVariables does: first what envFrom brings, then env,
// whose values win and may refer to every variable before them, then what is
// known of services and has no other value.
//
// The order is that of the spec, the keys of an object sorted; a name that comes
// twice has its last value, at its first place. Values of objects appear in no
// error.
type environment struct {
	objects  Objects
	pod      *corev1.Pod
	c        *corev1.Container
	place    pod.Place
	services map[string]string
	file     func(volume, path string) ([]byte, error)

	values map[string]string
	known  map[string]string // values over services: what a reference leads to
	order  []string
}

// environment returns the container's variables.
func (s *Set) environment(ctx context.Context, p *corev1.Pod, c *corev1.Container, place pod.Place) ([]*runtimeapi.KeyValue, error) {
	e := environment{objects: s.cfg.Objects, pod: p, c: c, place: place, values: map[string]string{}, known: map[string]string{}}
	e.file = func(volume, path string) ([]byte, error) { return s.envFile(ctx, p, volume, path) }
	if s.cfg.Services != nil {
		links := p.Spec.EnableServiceLinks == nil || *p.Spec.EnableServiceLinks
		var err error
		// A static pod does not wait for the API server, which may be one itself.
		if e.services, err = s.cfg.Services.Variables(p.Namespace, links); err != nil && !pod.IsStatic(p) {
			return nil, err
		}
		maps.Copy(e.known, e.services)
	}
	for i := range c.EnvFrom {
		if err := e.addAll(&c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		if err := e.add(&c.Env[i]); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.services)) {
		if _, known := e.values[name]; !known {
			e.set(name, e.services[name])
		}
	}
	return e.list(), nil
}

func (e *environment) set(name, value string) {
	if _, twice := e.values[name]; !twice {
		e.order = append(e.order, name)
	}
	e.values[name], e.known[name] = value, value
}

// expandAll expands each argument by the container's variables.
func expandAll(args []string, env []*runtimeapi.KeyValue) []string {
	if len(args) == 0 {
		return nil
	}
	known := make(map[string]string, len(env))
	for _, e := range env {
		known[e.Key] = string(e.Value)
	}
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = pod.Expand(a, known)
	}
	return out
}

func (e *environment) list() []*runtimeapi.KeyValue {
	all := make([]*runtimeapi.KeyValue, 0, len(e.order))
	for _, name := range e.order {
		all = append(all, &runtimeapi.KeyValue{Key: name, Value: []byte(e.values[name])})
	}
	return all
}

// addAll adds every key of an object. Since 1.34 each key of a ConfigMap or
// Secret is a name that a variable may have, so none is left out.
func (e *environment) addAll(from *corev1.EnvFromSource) error {
	switch {
	case from.ConfigMapRef != nil:
		m, err := e.objects.ConfigMap(e.pod.Namespace, from.ConfigMapRef.Name)
		if err != nil {
			return unlessOptional(err, from.ConfigMapRef.Optional)
		}
		return e.setAll(from.Prefix, m.Data, "ConfigMap "+e.pod.Namespace+"/"+from.ConfigMapRef.Name)
	case from.SecretRef != nil:
		s, err := e.objects.Secret(e.pod.Namespace, from.SecretRef.Name)
		if err != nil {
			return unlessOptional(err, from.SecretRef.Optional)
		}
		data := make(map[string]string, len(s.Data))
		for key, value := range s.Data {
			data[key] = string(value)
		}
		return e.setAll(from.Prefix, data, "Secret "+e.pod.Namespace+"/"+from.SecretRef.Name)
	}
	return nil
}

func (e *environment) setAll(prefix string, data map[string]string, object string) error {
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if err := checkValue(data[key], key, object); err != nil {
			return err
		}
		e.set(prefix+key, data[key])
	}
	return nil
}

// add adds one variable of env.
func (e *environment) add(v *corev1.EnvVar) error {
	if v.ValueFrom == nil || v.Value != "" {
		if strings.Contains(v.Value, "\x00") {
			return fmt.Errorf("environment variable %s holds a NUL byte, which no variable can", v.Name)
		}
		e.set(v.Name, pod.Expand(v.Value, e.known))
		return nil
	}
	value, there, err := e.from(v.ValueFrom)
	if err == nil && there {
		e.set(v.Name, value)
	}
	return err
}

// from resolves a reference; there is false where it is optional and leads to
// nothing.
func (e *environment) from(from *corev1.EnvVarSource) (value string, there bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = e.place.Field(e.pod, from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = e.place.Resource(e.pod, e.c, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		return e.configMapKey(from.ConfigMapKeyRef)
	case from.SecretKeyRef != nil:
		return e.secretKey(from.SecretKeyRef)
	}
	if from.FileKeyRef != nil {
		return e.fileKey(from.FileKeyRef)
	}
	return "", false, fmt.Errorf("environment variable of a source that is not known")
}

// fileKey finds a variable in a file that a container has left. A file that is
// not there is an error even where the variable is optional, as with kubelet.
func (e *environment) fileKey(ref *corev1.FileKeySelector) (string, bool, error) {
	text, err := e.file(ref.VolumeName, ref.Path)
	if err != nil {
		return "", false, err
	}
	value, there, err := pod.FileVariable(string(text), ref.Key)
	switch {
	case err != nil:
		return "", false, fmt.Errorf("couldn't parse env file: %w", err)
	case !there && !is(ref.Optional):
		return "", false, fmt.Errorf("environment variable key %q not found in file %q", ref.Key, ref.Path)
	case strings.Contains(value, "\x00"):
		return "", false, fmt.Errorf("key %s in file %q holds a NUL byte, which no environment variable can", ref.Key, ref.Path)
	}
	return value, there, nil
}

// envFile reads a file of variables. What exactly is wrong with it is in the log
// only, since its path is a container's and the error may tell of the node.
func (s *Set) envFile(ctx context.Context, p *corev1.Pod, volume, path string) ([]byte, error) {
	if s.cfg.EnvFiles == nil {
		return nil, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", volume)
	}
	text, err := s.cfg.EnvFiles.EnvFile(ctx, p, volume, path)
	if err != nil {
		s.cfg.Logger.Warn("read a file of variables", "pod", fullName(p), "volume", volume, "path", path, "err", err)
		return nil, errors.New("couldn't parse env file")
	}
	return text, nil
}

func (e *environment) configMapKey(ref *corev1.ConfigMapKeySelector) (string, bool, error) {
	m, err := e.objects.ConfigMap(e.pod.Namespace, ref.Name)
	if err != nil {
		return "", false, unlessOptional(err, ref.Optional)
	}
	object := "ConfigMap " + e.pod.Namespace + "/" + ref.Name
	value, there := m.Data[ref.Key]
	if !there && !is(ref.Optional) {
		return "", false, unusable("couldn't find key " + ref.Key + " in " + object)
	}
	return value, there, checkValue(value, ref.Key, object)
}

func (e *environment) secretKey(ref *corev1.SecretKeySelector) (string, bool, error) {
	s, err := e.objects.Secret(e.pod.Namespace, ref.Name)
	if err != nil {
		return "", false, unlessOptional(err, ref.Optional)
	}
	object := "Secret " + e.pod.Namespace + "/" + ref.Name
	value, there := s.Data[ref.Key]
	if !there && !is(ref.Optional) {
		return "", false, unusable("couldn't find key " + ref.Key + " in " + object)
	}
	return string(value), there, checkValue(string(value), ref.Key, object)
}

// unlessOptional is nil where an object is not there and need not be.
func unlessOptional(err error, optional *bool) error {
	if is(optional) && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// unusable says what is wrong with an object that is there. Only its change
// mends that.
type unusable string

func (u unusable) Error() string { return string(u) }

// Absent tells that trying again is of no use before the object has changed.
func (u unusable) Absent() bool { return true }

// checkValue refuses what cannot be a variable, which the kernel would cut off.
func checkValue(value, key, object string) error {
	if strings.Contains(value, "\x00") {
		return unusable("key " + key + " in " + object + " holds a NUL byte, which no environment variable can")
	}
	return nil
}
