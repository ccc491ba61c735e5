package main

import (
	"context"

	"nodeagent/internal/cri"
)

// exec runs the command of a hook; what it says is dropped.
func (d *daemon) exec(ctx context.Context, id string, command []string) (int32, error) {
	return d.runtime.Exec(ctx, id, cri.ExecOptions{Args: command})
}
