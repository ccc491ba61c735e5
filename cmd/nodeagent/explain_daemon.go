package main

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	svcnet "nodeagent/internal/net"
	"nodeagent/internal/pod"
	"nodeagent/internal/server"
	"nodeagent/internal/worker"
)

// explain joins what the pod set, the manifests and the probes know of a pod.
func (d *daemon) explain(ctx context.Context, uid string) (any, error) {
	f, err := d.set.Explain(ctx, types.UID(uid))
	if errors.Is(err, worker.ErrUnknown) {
		return nil, refusal{err, server.ErrNotFound}
	}
	if err != nil {
		return nil, err
	}
	d.addRefusals(&f)
	d.addAnswers(&f, uid)
	x := pod.Explain(f, time.Now())
	if f.Behind != "" {
		if earlier, err := d.set.Explain(ctx, f.Behind); err == nil {
			x.Earlier = new(pod.Explain(earlier, time.Now()))
		}
	}
	return &x, nil
}

// tellService tells what the loop of service rules knows of one; of none: which there are.
func (d *daemon) tellService(ctx context.Context, namespace, name string) (any, error) {
	if d.services == nil {
		return nil, refusal{errors.New("no rules of services are asked for"), server.ErrNotFound}
	}
	if name == "" {
		return d.services.Names(ctx)
	}
	return d.services.Ask(ctx, svcnet.Key{Namespace: namespace, Name: name})
}

func (d *daemon) addRefusals(f *pod.Facts) {
	p := f.Desired.Pod
	if p == nil || f.Desired.Wish == pod.WishAbsent {
		return
	}
	for _, problem := range d.problems() {
		if problem.About(p.Namespace, p.Name, d.cfg.NodeName) {
			f.Refused = append(f.Refused, problem.Refusal())
		}
	}
}

func (d *daemon) addAnswers(f *pod.Facts, uid string) {
	for _, p := range d.probes.Show() {
		if p.UID == uid {
			f.Answers = append(f.Answers, pod.Answer{
				Container: p.ContainerID, Probe: p.Probe, Message: p.Message, InRow: int(p.InRow), Next: p.Next,
			})
		}
	}
}
