package cri

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestOverdue: a call whose time is over is known as that, also where containerd answers
// before our own clock does, and has no class for what it heard of its shim.
func TestOverdue(t *testing.T) {
	for name, c := range map[string]struct {
		code    codes.Code
		after   time.Duration
		overdue bool
	}{
		"the shim was silent to the end":    {codes.Unknown, time.Second, true},
		"our own clock":                     {codes.DeadlineExceeded, time.Second, true},
		"the shim refused":                  {codes.Unknown, time.Second - 1, false},
		"it is not there, told at the end":  {codes.NotFound, time.Second, false},
		"it is done, and told at the end":   {codes.OK, time.Second, false},
		"containerd goes away at the end":   {codes.Unavailable, time.Second, false},
		"the task runs, as is told in time": {codes.FailedPrecondition, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := overdue(ctx, "Delete", nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				time.Sleep(c.after)
				return status.Error(c.code, "failed to delete task: context deadline exceeded")
			})
			if got := isDeadline(native(err)); got != c.overdue {
				t.Errorf("%s: %v is a deadline: %v, want %v", name, err, got, c.overdue)
			}
			if (err == nil) != (c.code == codes.OK) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
