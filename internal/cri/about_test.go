package cri_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"nodeagent/internal/cri"
)

type oldVersion struct {
	version.UnimplementedVersionServer
}

func (oldVersion) Version(context.Context, *emptypb.Empty) (*version.VersionResponse, error) {
	return &version.VersionResponse{Version: "1.6.20~ds1"}, nil
}

// said hands on what is logged.
type said struct {
	slog.Handler
	lines chan string
}

func (said) Enabled(context.Context, slog.Level) bool { return true }

func (s said) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	select {
	case s.lines <- text:
	default:
	}
	return nil
}

// TestOldContainerd: one that is too old is as one that does not answer, and the
// runtime says why; nothing else is asked of it.
func TestOldContainerd(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "c.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer() // any other call than that for the version fails
	version.RegisterVersionServer(s, oldVersion{})
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	defer func() { s.Stop(); <-served }()
	lines := make(chan string, 10)
	n, err := cri.New(cri.Config{
		Address: l.Addr().String(), RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), NetnsDir: filepath.Join(dir, "netns"),
		Logger: slog.New(said{slog.DiscardHandler, lines}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	a, err := n.About(t.Context())
	if err != nil || a.Version != "1.6.20~ds1" || a.Snapshotters == nil {
		t.Errorf("About is %+v, %v", a, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	for heard := false; !heard; {
		select {
		case line := <-lines:
			heard = strings.Contains(line, "containerd 1.6.20~ds1 is too old")
		case <-ctx.Done():
			t.Fatal("the runtime does not say that containerd is too old")
		}
	}
	if err := n.Healthy(); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("Healthy is %v", err)
	}
	select {
	case <-n.Synced():
		t.Error("the runtime has adopted from a containerd that is too old")
	default:
	}
	cancel()
	<-ended
}
