package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"

	"nodeagent/internal/config"
	"nodeagent/internal/server"
)

// reloader has the daemon take a new configuration: the daemon ends as for a
// restart and the process runs its own program again, with the same process id.
// So every field counts, nothing is half applied, and no part of the daemon
// needs to know how to change while it runs. That costs what a restart costs,
// which touches no pod.
type reloader struct {
	flags   config.Flags
	cfg     *config.Config // in force
	log     *slog.Logger
	end     context.CancelCauseFunc // of the daemon
	refused atomic.Pointer[string]  // why the last one was not taken
}

// reload judges the configuration as it is on the disk now. If it cannot be
// used, the old one stays in force and the error says why.
func (r *reloader) reload() error {
	if err := r.judge(); err != nil {
		why := strings.ReplaceAll(err.Error(), "\n", "; ")
		r.refused.Store(&why)
		r.log.Error("keep the old configuration", "why", why)
		server.Tell(r.log, "STATUS=Reload refused: "+why)
		return err
	}
	r.log.Info("take the new configuration")
	// Before anybody hears that it is done: systemd then waits for READY.
	server.Tell(r.log, server.Reloading())
	r.end(server.ErrReload)
	return nil
}

func (r *reloader) judge() error {
	next, err := config.Load(r.flags)
	if err != nil {
		return err
	}
	if err := r.sameNode(next); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	// A kubelet that came meanwhile would end the daemon that follows.
	if err := refuse(context.Background(), next, quiet); err != nil { // bounds itself
		return err
	}
	// Constructors do nothing but judge.
	d, err := newDaemon(next, quiet)
	if err != nil {
		return err
	}
	if next.Agent.ProxyOnly {
		return nil
	}
	defer d.runtime.Close()
	if d.health == nil || d.health.Addr == healthAddr(r.cfg) {
		return nil
	}
	return d.health.Try()
}

// sameNode refuses changes of what says where this node's state is: the pods
// that run would be strangers to the daemon that follows.
func (r *reloader) sameNode(next *config.Config) error {
	var errs []error
	for _, field := range []struct {
		name     string
		old, new any
	}{
		{"the node's name", r.cfg.NodeName, next.NodeName},
		{"proxyOnly", r.cfg.Agent.ProxyOnly, next.Agent.ProxyOnly},
		{"runDir", r.cfg.Agent.RunDir, next.Agent.RunDir},
		{"stateDir", r.cfg.Agent.StateDir, next.Agent.StateDir},
		{"podLogsDir", r.cfg.Kubelet.PodLogsDir, next.Kubelet.PodLogsDir},
		{"cgroupRoot", r.cfg.Kubelet.CgroupRoot, next.Kubelet.CgroupRoot},
		{"cgroupDriver", r.cfg.Kubelet.CgroupDriver, next.Kubelet.CgroupDriver},
		{"containerRuntimeEndpoint", r.cfg.Endpoint(), next.Endpoint()},
		{"podNetwork.bridge", r.cfg.Agent.PodNetwork.Bridge, next.Agent.PodNetwork.Bridge},
		{"podNetwork.cidrs", r.cfg.CIDRs(), next.CIDRs()},
	} {
		if !reflect.DeepEqual(field.old, field.new) {
			errs = append(errs, fmt.Errorf("%s cannot change under pods that run (%v, now %v): remove the pods and restart the daemon", field.name, field.old, field.new))
		}
	}
	return errors.Join(errs...)
}

// status is what the service manager shows: how the pods are, and that a
// configuration waits to be mended.
func (r *reloader) status(pods string) string {
	if why := r.refused.Load(); why != nil {
		return pods + "; reload refused: " + *why
	}
	return pods
}

// on reloads at each hangup until ctx ends; the answer is in the log and in the
// unit's status.
func (r *reloader) on(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			_ = r.reload() // logged
		}
	}
}

// again runs this very program once more in this process, unless ctx says that it
// was told to end meanwhile. It is not looked up by name: a reload changes the
// configuration, a restart the version.
func again(ctx context.Context) error {
	signal.Ignore(syscall.SIGHUP) // stays so until the program listens for it
	signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	if ctx.Err() != nil {
		return nil
	}
	err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	return fmt.Errorf("run the daemon again: %w", err)
}
