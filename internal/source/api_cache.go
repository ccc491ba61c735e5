package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/durable"
)

// The cache's file, and the version of what is in it: a v1 PodList in protobuf.
const (
	cacheName    = "pods"
	cacheVersion = 1
)

// How long the cache waits for more of what comes together, and how long it rests
// after a write. After a failed one it rests longer. What happened in a rest is lost
// where daemon and server die together: a pod that was made is not started again, and
// one that was deleted comes back, perhaps beside its successor on another node.
const (
	cacheWait  = 200 * time.Millisecond
	cacheRest  = time.Second
	cacheRetry = time.Minute
)

// podCache keeps the pods that the API server listed last, so that a daemon which
// starts without the server knows what is to run. It holds what pods hold, so it is
// root's alone. Losing it costs only that.
type podCache struct {
	dir    *durable.Dir
	log    *slog.Logger
	latest chan []*corev1.Pod // holds one
	sum    [sha256.Size]byte  // of what is on the disk
}

func newPodCache(dir *durable.Dir, log *slog.Logger) *podCache {
	return &podCache{dir: dir, log: log, latest: make(chan []*corev1.Pod, 1)}
}

// load reads the pods of the node. What cannot be read is put aside and told of.
func (c *podCache) load(node string) []*corev1.Pod {
	if _, err := c.dir.Prepare(); err != nil {
		c.log.Warn("the pods are not kept over a restart without the API server", "err", err)
	}
	var pods []*corev1.Pod
	found, err := c.dir.Load(cacheName, func(version uint32, payload []byte) (err error) {
		pods, err = decodeCache(version, payload, node)
		return err
	})
	for _, bad := range found.Bad {
		c.log.Warn("go on without what the pod cache held", "file", bad.Path, "aside", bad.Aside, "err", bad.Reason)
	}
	if err != nil {
		c.log.Warn("go on without the pod cache", "err", err)
		return nil
	}
	if found.Generation == durable.None {
		return nil
	}
	c.sum = sha256.Sum256(found.Payload)
	return pods
}

// ReadPodCache reads the pods of the API server that a daemon knew when it last wrote
// them into dir, of a node of whatever name, for who may only look: nothing is changed.
func ReadPodCache(dir *durable.Dir) (pods []*corev1.Pod, err error) {
	found, err := dir.Peek(cacheName, func(version uint32, payload []byte) (err error) {
		pods, err = decodeCache(version, payload, "")
		return err
	})
	if err == nil && found.Generation == durable.None {
		for _, bad := range found.Bad {
			err = errors.Join(err, fmt.Errorf("%s: %w", bad.Path, bad.Reason))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the pod cache: %w", err)
	}
	return pods, nil
}

// decodeCache takes only what this node could have written: identities become paths.
// Without a name any node's is taken.
func decodeCache(version uint32, payload []byte, node string) ([]*corev1.Pod, error) {
	if version != cacheVersion {
		return nil, fmt.Errorf("version %d of the pod cache is not known", version)
	}
	var list corev1.PodList
	if err := list.Unmarshal(payload); err != nil {
		return nil, fmt.Errorf("decode pod cache: %w", err)
	}
	pods := make([]*corev1.Pod, 0, len(list.Items))
	for i := range list.Items {
		p := &list.Items[i]
		if node != "" && p.Spec.NodeName != node {
			continue // the node had another name
		}
		if !validUID.MatchString(string(p.UID)) || p.Name == "" || p.Namespace == "" {
			return nil, fmt.Errorf("decode pod cache: pod %d has no identity", i)
		}
		pods = append(pods, p)
	}
	return pods, nil
}

// offer hands over the latest pods. It never blocks; it is called from one
// goroutine.
func (c *podCache) offer(pods []*corev1.Pod) {
	select {
	case <-c.latest:
	default:
	}
	c.latest <- pods
}

// run writes what is offered until ctx ends, and then what was not written yet.
func (c *podCache) run(ctx context.Context) {
	var pending []*corev1.Pod
	due := time.NewTimer(time.Hour)
	due.Stop()
	armed, next := false, time.Now()
	for {
		select {
		case pending = <-c.latest:
			if !armed {
				due.Reset(max(cacheWait, time.Until(next)))
				armed = true
			}
		case <-due.C:
			next = time.Now().Add(cacheRest)
			if armed = !c.save(pending); armed {
				due.Reset(cacheRetry)
			}
		case <-ctx.Done():
			select {
			case pending = <-c.latest:
				armed = true
			default:
			}
			if armed {
				c.save(pending)
			}
			return
		}
	}
}

func (c *podCache) save(pods []*corev1.Pod) bool {
	list := corev1.PodList{Items: make([]corev1.Pod, 0, len(pods))}
	for _, p := range pods {
		list.Items = append(list.Items, *p)
	}
	payload, err := list.Marshal()
	if err == nil {
		sum := sha256.Sum256(payload)
		if sum == c.sum {
			return true
		}
		if err = c.dir.Save(cacheName, cacheVersion, payload); err == nil {
			c.sum = sum
			return true
		}
	}
	c.log.Warn("keep the pods in memory only, and write them later", "after", cacheRetry, "err", err)
	return false
}

// restore begins with what the cache holds.
func (a *API) restore(pods []*corev1.Pod) {
	for _, p := range pods {
		a.pods[p.UID] = &held{p, p.ResourceVersion}
		if older(a.highest, p.ResourceVersion) {
			a.highest = p.ResourceVersion
		}
	}
	a.changed = a.changed || len(a.pods) > 0
}
