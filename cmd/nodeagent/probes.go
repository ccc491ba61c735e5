package main

import (
	"context"
	"io"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/cri"
	"nodeagent/internal/probe"
)

// kubernetesLevel is the release of Kubernetes that this program stands in for,
// as a probe's user agent shows it.
const kubernetesLevel = "1.36"

// fitProbes fits the probes to the runtime and to the pod set.
func (d *daemon) fitProbes() error {
	records, err := probe.NewFiles(d.cfg.Agent.RunDir)
	if err != nil {
		return err
	}
	d.probes, err = probe.New(probe.Config{
		Prober: &probe.Probers{
			Exec: probeExec{d.runtime}, HTTP: probe.NewHTTP(kubernetesLevel), GRPC: &probe.GRPC{Version: kubernetesLevel},
		},
		Records: records, NodeHost: d.addrs.first,
		Wake:   func(uid types.UID) { d.set.Wake(uid) },
		Event:  d.probeEvent,
		Logger: d.log,
	})
	d.parts = append(d.parts, part{"probes", d.probes.Run})
	return err
}

// probeEvent writes what probes say into the log, and what they say again only at
// the level of debugging.
func (d *daemon) probeEvent(e probe.Event) {
	if d.cluster != nil {
		d.cluster.events.Pod(e.Pod, e.Container, corev1.EventTypeWarning, e.Reason, e.Message)
	}
	level := slog.LevelWarn
	if e.Again {
		level = slog.LevelDebug
	}
	d.log.Log(context.Background(), level, e.Message, "reason", e.Reason,
		"pod", e.Pod.Namespace+"/"+e.Pod.Name, "podUID", e.Pod.UID, "container", e.Container)
}

// probeExec fits the runtime's exec to what probes ask of it.
type probeExec struct{ *cri.Native }

func (x probeExec) Exec(ctx context.Context, container string, args []string, out io.Writer) (int32, error) {
	return x.Native.Exec(ctx, container, cri.ExecOptions{Args: args, Stdout: out, Stderr: out})
}
