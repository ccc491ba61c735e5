package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
)

// settled is how long a watch must last to be no failure.
const settled = time.Second

// silent is how long a watch may say nothing: a server sends a bookmark each minute,
// and one that does not is dead behind a proxy that lives.
const silent = 90 * time.Second

var (
	// errEnded is that of a watch which the server ended at once.
	errEnded  = errors.New("the server ended the watch at once")
	errSilent = fmt.Errorf("the watch said nothing for %s", silent)
)

// follow keeps what is known of the Node up to date, until ctx ends: a list,
// then watches, each from where the one before ended.
func (n *Node) follow(ctx context.Context) {
	var retry backoff
	timer := time.NewTimer(0)
	defer timer.Stop()
	for version := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next, lasted, err := n.followOnce(ctx, version)
		version = next
		now := time.Now()
		if ctx.Err() != nil {
			return
		}
		if lasted >= settled {
			retry = backoff{}
		} else if err == nil {
			err = errEnded
		}
		if err == nil {
			n.show(func(s *Shown) { s.FollowError = "" })
			timer.Reset(0)
			continue
		}
		retry = retry.failed(err, now, n.cfg.Dice())
		n.reconnect(err, retry.failures)
		n.show(func(s *Shown) { s.FollowError = err.Error() })
		n.cfg.Logger.Debug("the node is not followed", "err", err)
		timer.Reset(time.Until(retry.until))
	}
}

// followOnce lists the Node if no version is known, and watches it until the
// watch ends. It returns the version to go on from ("" is: list again) and how
// long the watch lasted.
func (n *Node) followOnce(ctx context.Context, version string) (string, time.Duration, error) {
	if version == "" {
		var err error
		if version, err = n.list(ctx); err != nil {
			return "", 0, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(n.timeout(), cancel) // to answer; afterwards it may last
	w, err := n.cfg.Nodes.Watch(ctx, n.cfg.Identity.Name, version)
	if err != nil {
		return "", 0, fmt.Errorf("watch the node: %w", err)
	}
	defer w.Stop()
	if !late.Stop() {
		return version, 0, errors.New("watch the node: no answer in time")
	}
	begun := time.Now()
	quiet := time.NewTimer(silent)
	defer quiet.Stop()
	for {
		select {
		case e, more := <-w.ResultChan():
			if !more {
				return version, time.Since(begun), nil
			}
			if version, err = n.saw(e); err != nil {
				return "", time.Since(begun), fmt.Errorf("watch the node: %w", err)
			}
			quiet.Reset(silent)
		case <-quiet.C:
			return version, time.Since(begun), fmt.Errorf("watch the node: %w", errSilent)
		}
	}
}

// saw takes an event of the watch into account and returns the version that it
// brought.
func (n *Node) saw(e watch.Event) (string, error) {
	if e.Type == watch.Error {
		return "", apierrors.FromObject(e.Object)
	}
	node, ok := e.Object.(*corev1.Node)
	if !ok {
		return "", fmt.Errorf("the server sent a %T", e.Object)
	}
	switch {
	case e.Type == watch.Bookmark:
	case node.Name != n.cfg.Identity.Name: // a server that knows no field selectors
	case e.Type == watch.Deleted:
		n.gone(node)
	default:
		n.sight(node, false, false)
	}
	return node.ResourceVersion, nil
}

// look asks what the Node is, and believes it.
func (n *Node) look(ctx context.Context) error {
	_, err := n.list(ctx)
	return err
}

func (n *Node) list(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout())
	defer cancel()
	node, version, err := n.cfg.Nodes.List(ctx, n.cfg.Identity.Name)
	if err != nil {
		return "", fmt.Errorf("list the node: %w", err)
	}
	n.answered()
	n.sight(node, false, true)
	return version, nil
}

// sight keeps a Node that the API showed, nil for none. What is older than what
// is known already is not news, unless a list says it: after a restore the
// API's own past is the truth. own: the answer to a write of ours.
func (n *Node) sight(node *corev1.Node, own, listed bool) {
	node = trimmed(node)
	n.mu.Lock()
	was := n.seen
	news := listed || was.node == nil || node == nil || was.node.UID != node.UID || newer(node.ResourceVersion, was.node.ResourceVersion)
	if news {
		n.seen = sighting{known: true, node: node}
	}
	changed := news && (!was.known || uid(was.node) != uid(node))
	n.mu.Unlock()
	if changed {
		knock(n.beat)
	}
	if news && !own {
		knock(n.poke)
	}
}

// gone takes a deletion into account, if it is of the Node that is known.
func (n *Node) gone(node *corev1.Node) {
	n.mu.Lock()
	ours := n.seen.node == nil || n.seen.node.UID == node.UID
	if ours {
		n.seen = sighting{known: true}
	}
	n.mu.Unlock()
	if ours {
		n.cfg.Logger.Warn("the node was deleted from the API server; its pods go on", "uid", node.UID)
		knock(n.poke)
	}
}

func (n *Node) sighting() (sighting, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen, n.rival
}

func uid(node *corev1.Node) string {
	if node == nil {
		return ""
	}
	return string(node.UID)
}

// newer tells whether a version is later than another. Versions that cannot be
// compared are news.
func newer(version, than string) bool {
	order, err := resourceversion.CompareResourceVersion(version, than)
	return err != nil || order > 0
}

// trimmed drops what nobody here reads.
func trimmed(node *corev1.Node) *corev1.Node {
	if node != nil {
		node.ManagedFields = nil
	}
	return node
}
