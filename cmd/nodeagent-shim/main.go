//go:build linux

// Command nodeagent-shim is the shim of a pod: containerd's runc
// task service, wrapped so that what must happen while nobody else is there
// does happen. It writes exit records and container logs, serves attach, and
// stays until it is told to go.
//
// It owns one process a pod. It never decides anything about a pod, never
// talks to Kubernetes, and never imports its packages. Without a verb it serves
// on the socket that containerd-shim-nodeagent-v1 hands down, the program that
// containerd runs to begin it; that also hands down containerd's other requests:
// "delete" (clean up after a dead one) and the start of what belongs to no pod.
//
// Goroutines: containerd's own (exit handling, event forwarding, console), one
// that publishes events, one that accepts on the control socket, one a control
// connection, and one a stream of a container. A container's locks are taken
// after the service's.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/pkg/shim"

	"nodeagent/internal/shimapi"
)

func main() {
	m := &podManager{Shim: manager.NewShimManager(shimapi.Runtime)}
	cfg, serve := parseServe(os.Args[1:])
	if !serve {
		shim.RunShim(context.Background(), m)
		return
	}
	if err := run(context.Background(), cfg); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", shimapi.Runtime, err)
		os.Exit(1)
	}
}

// serveConfig is what is on the command line of the server.
type serveConfig struct {
	namespace string
	id        string
	debug     bool
}

// parseServe tells whether the arguments ask for the server. Everything else,
// wrong arguments included, is containerd's to parse.
func parseServe(args []string) (cfg serveConfig, ok bool) {
	fs := flag.NewFlagSet(shimapi.Runtime, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&cfg.namespace, "namespace", "", "")
	fs.StringVar(&cfg.id, "id", "", "")
	fs.BoolVar(&cfg.debug, "debug", false, "")
	fs.String("address", "", "")
	return cfg, fs.Parse(args) == nil && fs.NArg() == 0 && cfg.namespace != "" && cfg.id != ""
}
