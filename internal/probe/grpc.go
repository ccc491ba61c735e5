package probe

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// GRPC asks by the gRPC health checking protocol (grpc.health.v1).
type GRPC struct {
	Version string // in the user agent
}

// maxReply is how large an answer to a health check may be, in bytes; a right one
// has two.
const maxReply = 16 << 10

// probe is a success when the service is SERVING. As kubelet has it, whatever
// else happens is a failure, not an error.
func (g *GRPC) probe(ctx context.Context, t *Target) Outcome {
	spec, limit := t.Probe.GRPC, timeout(t.Probe)
	address, err := t.address("", intstr.FromInt32(spec.Port))
	if err != nil {
		return Outcome{Err: err}
	}
	service := ""
	if spec.Service != nil {
		service = *spec.Service
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/"+g.Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
		grpc.WithMaxHeaderListSize(maxReply),
		grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer(t, time.Now()).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return failed("error: failed to connect service at %q: %s", address, err)
	}
	defer conn.Close()
	reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return grpcFailure(ctx, err, address, limit)
	}
	if reply.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return failed("service unhealthy (responded with %q)", reply.GetStatus().String())
	}
	return Outcome{Result: Success, Text: "service healthy"}
}

func grpcFailure(ctx context.Context, err error, address string, limit time.Duration) Outcome {
	s, _ := status.FromError(err)
	switch {
	case s.Code() == codes.Unimplemented:
		return failed("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", s.Message())
	case s.Code() == codes.DeadlineExceeded, errors.Is(ctx.Err(), context.DeadlineExceeded):
		return failed("timeout: health rpc did not complete within %s", limit)
	case s.Code() == codes.Unavailable:
		return failed("error: failed to connect service at %q: %s", address, s.Message())
	}
	return failed("error: health rpc probe failed: %s", err)
}
