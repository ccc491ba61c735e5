package cri

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nodeagent/internal/shimapi"
)

// AttachOptions are the streams that are wanted of a container; nil ones are not.
type AttachOptions struct {
	TTY bool
	// StdinOnce: the container's input ends with the first that was attached, and
	// its output is still wanted then. Else who has no more input leaves.
	StdinOnce      bool
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan TerminalSize // with TTY; may be nil
}

// Attach carries what a running container writes from now on, and reads, until it
// ends, its reader is too slow, or ctx ends. The container stays as it is. A
// goroutine reads Stdin until that ends or fails. It works without Run.
func (n *Native) Attach(ctx context.Context, sandbox, id string, o AttachOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := shimapi.Dial(n.cfg.RunDir, sandbox)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	stream, err := client.Attach(ctx, shimapi.AttachOptions{
		Container: id, Stdin: o.Stdin != nil, Stdout: o.Stdout != nil, Stderr: o.Stderr != nil, TTY: o.TTY,
	})
	if err != nil {
		_ = client.Close()
		return fmt.Errorf("attach: %w", err)
	}
	defer stream.Close()
	if o.Stdin != nil {
		go func() { // ends with Stdin, or with the stream at the next thing read
			_, _ = io.Copy(stream, o.Stdin)
			if _ = stream.CloseStdin(); !o.StdinOnce {
				cancel()
			}
		}()
	}
	if o.Resize != nil {
		go n.resize(ctx, sandbox, id, o.Resize)
	}
	return receive(ctx, stream, o)
}

// receive hands on what the container writes.
func receive(ctx context.Context, stream *shimapi.Stream, o AttachOptions) error {
	for {
		data, stderr, err := stream.Read()
		switch {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("attach: %w", err)
		}
		to := o.Stdout
		if stderr {
			to = o.Stderr
		}
		if to == nil {
			continue
		}
		if _, err := to.Write(data); err != nil {
			return nil // who asked is gone
		}
	}
}

// resize tells the shim each new size of a terminal, until ctx ends.
func (n *Native) resize(ctx context.Context, sandbox, id string, sizes <-chan TerminalSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			if err := n.resizeOnce(ctx, sandbox, id, size); err != nil {
				n.log.Debug("cannot resize a terminal", "container", id, "err", err)
			}
		}
	}
}

func (n *Native) resizeOnce(ctx context.Context, sandbox, id string, size TerminalSize) error {
	client, err := shimapi.Dial(n.cfg.RunDir, sandbox)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Resize(ctx, id, size.Width, size.Height)
}
