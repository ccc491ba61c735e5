package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Command is kubectl as an administrator, for who wants its streams; bed.Start
// starts it inside the bed. A --kubeconfig among args makes it somebody else.
func (c *Cluster) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.tools, "kubectl"), args...)
	// A home of its own: kubectl keeps a cache there, and takes orders from it.
	cmd.Env = append(c.bed.Env(), "HOME="+filepath.Join(c.dir, "home"), "KUBECONFIG="+c.Admin())
	return cmd
}

// Kubectl runs kubectl as an administrator and returns what it printed; what it
// said on stderr is part of the error.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.Finish(ctx, c.Command(args...))
}

// Apply makes the objects of a YAML text as "kubectl apply" does.
func (c *Cluster) Apply(ctx context.Context, text string) error {
	cmd := c.Command("apply", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	_, err := c.Finish(ctx, cmd)
	return err
}

// Finish runs a Command to its end and returns what it printed.
func (c *Cluster) Finish(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.WaitDelay = 5 * time.Second
	if err := c.bed.Start(cmd); err != nil {
		return "", fmt.Errorf("start kubectl: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return out.String(), fmt.Errorf("run kubectl %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, said.String())
	}
	return out.String(), nil
}
