package main

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/logind"
	"nodeagent/internal/shutdown"
)

// fitShutdown fits what ends pods before the machine goes down, where the
// configuration gives them time for it.
func (d *daemon) fitShutdown() (err error) {
	k := &d.cfg.Kubelet
	groups := shutdown.Groups(k.ShutdownGracePeriod.Duration, k.ShutdownGracePeriodCriticalPods.Duration, k.ShutdownGracePeriodByPodPriority)
	if len(groups) == 0 {
		return nil
	}
	d.shutdown, err = shutdown.New(shutdown.Config{
		Groups: groups, Machine: loginManager{logind.New(logind.Config{})}, Pods: d.set,
		Changed: d.shutdownChanged, Event: d.nodeEvent, Logger: d.log,
	})
	d.parts = append(d.parts, part{"shutdown", d.afterRuntime(d.shutdown.Run)})
	return err
}

// loginManager fits systemd's login manager to who ends pods.
type loginManager struct{ *logind.Logind }

// Hold implements shutdown.Machine.
func (l loginManager) Hold(ctx context.Context, least time.Duration) (shutdown.Hold, error) {
	h, err := l.Logind.Hold(ctx, least)
	if err != nil {
		return nil, err
	}
	return h, nil
}

var errShuttingDown = errors.New("node is shutting down") // kubelet's words

// shuttingDown tells whether the machine goes down, so that the node takes no pods.
func (d *daemon) shuttingDown() bool { return d.shutdown != nil && d.shutdown.Begun() }

// shutdownChanged has the node say so at once, and its admission think again.
func (d *daemon) shutdownChanged() {
	if d.cluster != nil {
		d.cluster.node.Wake()
		d.admission.wake()
	}
}

// nodeEvent tells what happened to the node, where there is somebody to tell.
func (d *daemon) nodeEvent(reason, message string) {
	if d.cluster != nil {
		d.cluster.events.Node(corev1.EventTypeNormal, reason, message)
	}
}
