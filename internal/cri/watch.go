package cri

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"

	"nodeagent/internal/mkdir"
	"nodeagent/internal/shimapi"
)

// watchFiles learns of exits from the shims' records, also while containerd is
// away, and of deleted network namespaces.
func (n *Native) watchFiles(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch run directory: %w", err)
	}
	defer w.Close()
	for _, dir := range []string{n.exitDir(), n.cfg.NetnsDir} {
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("watch run directory: the watch ended")
			}
			if e.Has(fsnotify.Remove) && (e.Name == n.exitDir() || e.Name == n.cfg.NetnsDir) {
				// Somebody emptied /run below us; the shims make it anew as well.
				if err := watchAgain(w, e.Name); err != nil {
					return err
				}
				n.scanExits(ctx)
			}
			n.handleFile(ctx, e)
		case err := <-w.Errors:
			// An overflow: look at all of them.
			n.log.Warn("watch of the run directory lost events", "err", err)
			n.scanExits(ctx)
			n.checkPins()
		}
	}
}

func watchAgain(w *fsnotify.Watcher, dir string) error {
	if err := mkdir.All(dir, 0o711); err != nil {
		return fmt.Errorf("make %s anew: %w", dir, err)
	}
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	return nil
}

func (n *Native) handleFile(ctx context.Context, e fsnotify.Event) {
	dir, name := filepath.Split(e.Name)
	switch filepath.Clean(dir) {
	case filepath.Clean(n.exitDir()):
		if id, ok := strings.CutSuffix(name, ".json"); ok && e.Has(fsnotify.Create) {
			n.noticeExit(ctx, id)
			n.dropLateExit(id)
		}
	case filepath.Clean(n.cfg.NetnsDir):
		if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
			n.checkPins()
		}
	}
}

// dropLateExit removes an exit record that was written after its container was
// removed: what cleans up after a dead shim may come last.
func (n *Native) dropLateExit(id string) {
	var gone bool
	n.state.edit(func() {
		_, gone = n.state.gone[id]
		_, back := n.state.containers[id]
		gone = gone && !back
	})
	if !gone {
		return
	}
	if err := shimapi.RemoveExit(n.cfg.RunDir, id); err != nil {
		n.log.Warn("cannot remove the exit record of a container that is gone", "container", id, "err", err)
	}
}

// scanExits notices every exit record there is.
func (n *Native) scanExits(ctx context.Context) {
	ids, err := shimapi.ListExits(n.cfg.RunDir)
	if err != nil {
		n.log.Warn("cannot list exit records", "err", err)
		return
	}
	for _, id := range ids {
		n.noticeExit(ctx, id)
	}
}

// watchPins looks at the namespaces when the kernel tells that something was
// mounted or unmounted, at most once each Config.PinInterval: while pods come and
// go it tells of nothing else.
func (n *Native) watchPins(ctx context.Context) error {
	w, err := newMountWatch()
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	changed := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- w.run(func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	for {
		select {
		case <-ctx.Done():
			w.close()
			<-ended
			return nil
		case err := <-ended:
			w.close()
			return fmt.Errorf("watch mounts: %w", err)
		case <-changed:
			n.checkPins()
			sleep(ctx, n.cfg.PinInterval)
		}
	}
}

// checkPins marks sandboxes whose namespaces were taken away.
func (n *Native) checkPins() {
	var ready []*sandbox
	n.state.edit(func() {
		for _, s := range n.state.sandboxes {
			if s.visible && !s.stopped && s.reason == "" {
				ready = append(ready, s)
			}
		}
	})
	for _, s := range ready {
		if !n.pinsOf(s).intact() {
			n.lose(s, "namespaces of a sandbox were taken away")
		}
	}
}

// LoseNetwork says that a sandbox's interface is gone although nobody stopped
// the sandbox: it is not ready any more. It never blocks.
func (n *Native) LoseNetwork(id string) {
	if s, err := n.state.sandbox(id); err == nil {
		n.lose(s, "the network interface of a sandbox was taken away")
	}
}

func (n *Native) lose(s *sandbox, what string) {
	lost := false
	n.state.edit(func() {
		// A stop at work unpins as well; it marks the sandbox itself.
		if s.visible && !s.stopping && !s.stopped && s.reason == "" {
			s.reason, lost = reasonNetworkLost, true
		}
	})
	if lost {
		n.log.Warn(what, "sandbox", s.id, "podUID", s.uid)
		n.cfg.Wake(s.uid)
	}
}
