package main

import (
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"nodeagent/internal/pod"
	"nodeagent/internal/pod/validate"
	"nodeagent/internal/source"
	"nodeagent/internal/status"
	"nodeagent/internal/worker"
)

// Names of the sources' snapshots.
const (
	sourceFile = "file" // the manifest directory
	sourceURL  = "http" // staticPodURL
	sourceAPI  = "api"  // the API server
)

// sources are those that pods come from here. Nothing is ended for being absent until
// each of them is trusted.
func (d *daemon) sources() []string {
	all := []string{sourceFile}
	if d.cfg.Kubelet.StaticPodURL != "" {
		all = append(all, sourceURL)
	}
	if d.cluster != nil {
		all = append(all, sourceAPI)
	}
	return all
}

func (d *daemon) fitSource() (err error) {
	d.source, err = source.NewManifests(source.Config{
		Path: d.cfg.Kubelet.StaticPodPath, NodeName: d.cfg.NodeName,
		Rescan:  d.cfg.Kubelet.FileCheckFrequency.Duration,
		Default: validate.Default, Validate: d.validator(),
		Objects: fromFiles(d.cfg),
		Emit:    d.offer,
	})
	d.parts = append(d.parts, part{"manifests", d.source.Run})
	if err != nil {
		return err
	}
	return d.fitURL()
}

// fitURL has static pods come from a URL, too. They may refer to nothing of an API
// server, as those of files in a cluster.
func (d *daemon) fitURL() error {
	k := &d.cfg.Kubelet
	if k.StaticPodURL == "" {
		return nil
	}
	header := http.Header{}
	for name, values := range k.StaticPodURLHeader {
		for _, v := range values {
			header.Add(name, v)
		}
	}
	u, err := source.NewURL(source.URLConfig{
		URL: k.StaticPodURL, Header: header, NodeName: d.cfg.NodeName, Rescan: k.HTTPCheckFrequency.Duration,
		Default: validate.Default, Validate: d.validator(), Emit: d.offerURL,
	})
	if err != nil {
		return err
	}
	d.parts = append(d.parts, part{"static pods of a URL", u.Run})
	return nil
}

// validatePod judges a pod as the API server does, and refuses fields that are
// younger than the level that this program implements.
func validatePod(p *corev1.Pod) field.ErrorList {
	return append(validate.Validate(p), validate.Younger(p)...)
}

// validator judges static pods. In a cluster, what others keep at the API server is
// not for them.
func (d *daemon) validator() func(*corev1.Pod) field.ErrorList {
	if d.cluster == nil {
		return validatePod
	}
	return func(p *corev1.Pod) field.ErrorList { return append(validatePod(p), validate.NoReferences(p)...) }
}

// offer hands a snapshot of the manifest directory to the pod set.
func (d *daemon) offer(s source.Snapshot) {
	d.latest.put(s, d.log)
	d.objects.put(s.Objects, d.set.ObjectChanged)
	d.offerStatic(s)
}

// offerURL does it with one of the URL.
func (d *daemon) offerURL(s source.Snapshot) {
	d.latestURL.put(s, d.log)
	d.offerStatic(s)
}

// offerStatic hands static pods on: to who shows them to the API server, and to who
// decides which are taken on.
func (d *daemon) offerStatic(s source.Snapshot) {
	if d.cluster != nil {
		d.statics.put(s, d.sources(), d.cluster.writer.OfferStatic)
		d.admission.offer(s)
		return
	}
	allowed := allowed(d.cfg)
	snap := worker.Snapshot{Source: s.Source, Synced: s.Synced, Trusted: s.Trusted}
	for _, p := range s.Pods {
		desired := pod.Desired{Wish: pod.WishRun, Pod: p}
		if r, rejected := s.Rejected[p.UID]; rejected {
			desired.Rejected = &r
		} else {
			desired.Rejected = pod.Admit(p, allowed)
		}
		snap.Pods = append(snap.Pods, desired)
	}
	d.set.Offer(snap)
}

// statics joins what the sources of static pods want, for who shows it to the API
// server: a mirror pod goes only when all of them are trusted and none wants it.
type statics struct {
	mu     sync.Mutex
	latest map[string]source.Snapshot
}

// put takes a source's snapshot and tells what all want. It holds its lock while it
// tells, so that what is told last is the latest.
func (j *statics) put(s source.Snapshot, sources []string, tell func(status.Static)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.latest == nil {
		j.latest = map[string]source.Snapshot{}
	}
	j.latest[s.Source] = s
	all := status.Static{Trusted: true}
	for _, name := range sources {
		if name != sourceAPI {
			all.Pods = append(all.Pods, j.latest[name].Pods...)
			all.Trusted = all.Trusted && j.latest[name].Trusted
		}
	}
	tell(all)
}
