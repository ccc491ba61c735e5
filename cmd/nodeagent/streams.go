package main

import (
	"context"
	"net"

	"nodeagent/internal/cri"
	"nodeagent/internal/net/podnet"
	"nodeagent/internal/pod"
	"nodeagent/internal/server"
)

// streams fits the runtime to what the node API asks of it.
type streams struct{ runtime *cri.Native }

// Exec implements server.Streams.
func (s streams) Exec(ctx context.Context, container string, o server.Session) (int32, error) {
	sizes, end := resized(ctx, o.Resize)
	defer end()
	return s.runtime.Exec(ctx, container, cri.ExecOptions{
		Args: o.Command, TTY: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Resize: sizes,
	})
}

// Attach implements server.Streams.
func (s streams) Attach(ctx context.Context, sandbox, container string, o server.Session) error {
	sizes, end := resized(ctx, o.Resize)
	defer end()
	return s.runtime.Attach(ctx, sandbox, container, cri.AttachOptions{
		TTY: o.TTY, StdinOnce: o.StdinOnce, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Resize: sizes,
	})
}

// Dial implements server.Streams.
func (s streams) Dial(ctx context.Context, sandbox pod.Sandbox, port uint16) (net.Conn, error) {
	return podnet.Dial(ctx, sandbox.Netns, port)
}

// resized hands sizes on until end is called.
func resized(ctx context.Context, from <-chan server.Size) (to <-chan cri.TerminalSize, end func()) {
	if from == nil {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	sizes := make(chan cri.TerminalSize)
	go func() { // ends with ctx
		for {
			select {
			case <-ctx.Done():
				return
			case size := <-from:
				select {
				case sizes <- cri.TerminalSize{Width: size.Width, Height: size.Height}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return sizes, cancel
}
