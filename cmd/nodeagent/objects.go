package main

import (
	"errors"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/config"
	"nodeagent/internal/pod"
	"nodeagent/internal/source"
)

// fromFiles tells whether objects come from the manifest directory: with an API
// server there are none but its own.
func fromFiles(cfg *config.Config) bool { return cfg.Cluster == nil }

// fileObjects are the ConfigMaps, Secrets and Services of the manifest directory,
// which a node without an API server has in place of that server's.
type fileObjects struct {
	latest atomic.Pointer[source.Objects]
}

func (f *fileObjects) now() source.Objects {
	if o := f.latest.Load(); o != nil {
		return *o
	}
	return source.Objects{}
}

// put takes those of a new snapshot and tells which are others now.
func (f *fileObjects) put(now source.Objects, changed func(pod.ObjectRef)) {
	before := f.now()
	f.latest.Store(&now)
	for _, ref := range now.Changed(before) {
		changed(ref)
	}
}

func (f *fileObjects) ConfigMap(namespace, name string) (*corev1.ConfigMap, error) {
	return f.now().ConfigMap(namespace, name)
}

func (f *fileObjects) Secret(namespace, name string) (*corev1.Secret, error) {
	return f.now().Secret(namespace, name)
}

// Variables are what containers are told of services. Pods come after the objects
// of their snapshot, so that no container is made before these are known.
func (f *fileObjects) Variables(namespace string, links bool) (map[string]string, error) {
	if f.latest.Load() == nil {
		return nil, errors.New("services have not yet been read at least once, cannot construct envvars")
	}
	return f.now().Variables(namespace, links), nil
}
