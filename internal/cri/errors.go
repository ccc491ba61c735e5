package cri

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"nodeagent/internal/cri/spec"
)

var (
	errNotConnected = errors.New("not connected to containerd yet")
	errNotRunning   = errors.New("container is not running")
)

// IsNotFound tells that a sandbox, container, image or task is not there.
func IsNotFound(err error) bool { return errdefs.IsNotFound(err) }

// IsRetryable tells that the same call may succeed later without a change:
// containerd is away, hung, or lost the object meanwhile.
func IsRetryable(err error) bool {
	return errdefs.IsUnavailable(err) || errdefs.IsDeadlineExceeded(err) || errdefs.IsCanceled(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, errSnapshotLost)
}

// IsRefused tells that the pod's or the image's configuration rules the
// container out (CreateContainerConfigError): no retry helps without a change.
func IsRefused(err error) bool { return spec.IsRefused(err) }

// networkError tells that the pod's network could not be set up, and nothing else
// failed of the sandbox.
type networkError struct{ error }

func (e networkError) NetworkError() bool { return true }
func (e networkError) Unwrap() error      { return e.error }

func ofNetwork(err error) error {
	if err == nil {
		return nil
	}
	return networkError{err}
}

func isDeadline(err error) bool {
	return errdefs.IsDeadlineExceeded(err) || errors.Is(err, context.DeadlineExceeded)
}

func native(err error) error { return errgrpc.ToNative(err) }

// overdue makes every call that has used up its time a deadline that was exceeded.
// containerd has the same deadline and may answer first: by then it has called what it
// heard of its shim unknown, and whoever asks would take that for an outcome.
func overdue(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if end, ok := ctx.Deadline(); ok && status.Code(err) == codes.Unknown && !time.Now().Before(end) {
		return status.Error(codes.DeadlineExceeded, status.Convert(err).Message())
	}
	return err
}

func notFound(kind, id string) error {
	return fmt.Errorf("%s %s: %w", kind, id, errdefs.ErrNotFound)
}

// ignoreNotFound makes deletes idempotent.
func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
