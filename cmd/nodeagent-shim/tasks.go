//go:build linux

package main

import (
	"context"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	ptypes "github.com/containerd/containerd/v2/pkg/protobuf/types"
)

// Start notes when init begins to run, and leaves no process of an exec that it
// says has not started.
func (s *service) Start(ctx context.Context, r *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
	if c := s.find(r.ID); c != nil && r.ExecID == "" {
		c.starting()
		s.calm.Reset(calmTime)
	}
	resp, err := s.TTRPCTaskService.Start(ctx, r)
	if err != nil && r.ExecID != "" {
		s.endUnstarted(ctx, r)
	}
	return resp, err
}

// Wait returns the exit of a container's init after its record is on disk.
func (s *service) Wait(ctx context.Context, r *taskAPI.WaitRequest) (*taskAPI.WaitResponse, error) {
	c := s.find(r.ID)
	resp, err := s.TTRPCTaskService.Wait(ctx, r)
	if err == nil && c != nil && r.ExecID == "" {
		c.awaitRecord(ctx)
	}
	return resp, err
}

// State says "stopped" after the record is on disk, and names the stdio that
// the client gave.
func (s *service) State(ctx context.Context, r *taskAPI.StateRequest) (*taskAPI.StateResponse, error) {
	c := s.find(r.ID)
	resp, err := s.TTRPCTaskService.State(ctx, r)
	if err == nil && c != nil && r.ExecID == "" {
		if resp.Status == task.Status_STOPPED {
			c.awaitRecord(ctx)
		}
		resp.Stdin, resp.Stdout, resp.Stderr = c.stdin, c.stdout, c.stderr
	}
	return resp, err
}

// Delete removes a container after the record of its exit is on disk.
func (s *service) Delete(ctx context.Context, r *taskAPI.DeleteRequest) (*taskAPI.DeleteResponse, error) {
	if r.ExecID != "" {
		return s.TTRPCTaskService.Delete(ctx, r)
	}
	c := s.find(r.ID)
	if c != nil {
		if st, err := s.TTRPCTaskService.State(ctx, &taskAPI.StateRequest{ID: r.ID}); err == nil && st.Status == task.Status_STOPPED {
			c.awaitRecord(ctx)
		}
	}
	resp, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil {
		return nil, err
	}
	s.calm.Reset(calmTime)
	if c != nil {
		c.close()
		s.forget(c)
		s.rebind(c.uri)
	} else {
		s.mu.Lock()
		delete(s.plain, r.ID)
		s.mu.Unlock()
	}
	return resp, nil
}

// CloseIO closes the stdin that we hold.
func (s *service) CloseIO(ctx context.Context, r *taskAPI.CloseIORequest) (*ptypes.Empty, error) {
	if c := s.find(r.ID); c != nil && r.ExecID == "" && !c.terminal {
		if r.Stdin {
			c.closeStdin()
		}
		return &ptypes.Empty{}, nil
	}
	return s.TTRPCTaskService.CloseIO(ctx, r)
}

// Shutdown is what containerd asks for after each delete. A shim that serves a
// sandbox stays: the next container may be on its way.
func (s *service) Shutdown(ctx context.Context, r *taskAPI.ShutdownRequest) (*ptypes.Empty, error) {
	s.mu.Lock()
	stay := s.sandbox != ""
	s.mu.Unlock()
	if !stay {
		s.leave()
	}
	return &ptypes.Empty{}, nil
}
