//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	runcC "github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

// listenFD is the task socket that is handed down to it.
const listenFD = 3

// run serves until the control socket, or a signal while no container is left,
// says that it is over. containerd's own loop is not used: it ends on SIGTERM
// whatever it still serves, ties the process to the first container's bundle,
// and wakes each shim of the node every 30 s to return memory.
func run(ctx context.Context, cfg serveConfig) error {
	debug.SetGCPercent(busyGC)
	runtime.GOMAXPROCS(2)
	setLog(cfg.debug)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGPIPE, unix.SIGUSR1)
	if err := reaper.SetSubreaper(1); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	bundle, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find bundle: %w", err)
	}
	listener, err := net.FileListener(os.NewFile(listenFD, "task socket"))
	if err != nil {
		return fmt.Errorf("use task socket: %w", err)
	}
	ctx, sd := shutdown.WithShutdown(namespaces.WithNamespace(ctx, cfg.namespace))
	defer sd.Shutdown()

	svc, err := newService(ctx, serviceConfig{
		namespace: cfg.namespace, bundle: bundle, taskSocket: listener.Addr().String(), shutdown: sd,
	})
	if err != nil {
		return err
	}
	// The bundle goes away with the first container while the shim lives on.
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("leave bundle: %w", err)
	}
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return fmt.Errorf("make task server: %w", err)
	}
	taskAPI.RegisterTTRPCTaskService(server, svc)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	return loop(ctx, svc, signals, served)
}

func loop(ctx context.Context, svc *service, signals <-chan os.Signal, served <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			if ctx.Err() != nil || errors.Is(err, ttrpc.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("serve tasks: %w", err)
		case s := <-signals:
			switch s {
			case unix.SIGCHLD:
				if err := reaper.Reap(); err != nil {
					log.L.WithError(err).Error("reap exit status")
				}
			case unix.SIGTERM, unix.SIGINT:
				if !svc.askedToLeave() {
					log.L.WithField("signal", s).Warn("stay while containers run")
				}
			case unix.SIGUSR1:
				dumpStacks()
			}
		}
	}
}

// newTasks makes containerd's task service, with our hands on its events and
// on the stdio of the containers that it creates.
func newTasks(ctx context.Context, sd shutdown.Service, events *eventQueue) (taskAPI.TTRPCTaskService, *stdioMonitor, error) {
	tasks, err := task.NewTaskService(ctx, events, sd)
	if err != nil {
		return nil, nil, fmt.Errorf("make task service: %w", err)
	}
	monitor := &stdioMonitor{ProcessMonitor: reaper.Default, pending: map[string]stdio{}}
	runcC.Monitor = monitor // after NewTaskService, which sets it
	return tasks, monitor, nil
}

func newPublisher() (shim.Publisher, error) {
	p, err := shim.NewPublisher(os.Getenv("TTRPC_ADDRESS"))
	if err != nil {
		return nil, fmt.Errorf("make event publisher: %w", err)
	}
	return p, nil
}
