package cri

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"

	"nodeagent/internal/cri/image"
	"nodeagent/internal/cri/spec"
)

// Native is the container runtime over containerd's native client.
type Native struct {
	rro    rro
	cfg    Config
	log    *slog.Logger
	host   spec.Host
	boot   string // boot id of this kernel
	client *containerd.Client
	images *image.Store

	state    *state
	accounts *accountsCache
	armor    *armor
	synced   chan struct{}
	health   health
	settles  *settler
	execs    sync.RWMutex // held for reading while a command runs in a container
}

// Images returns the node's images.
func (n *Native) Images() *image.Store { return n.images }

// Synced is closed after the first complete adoption.
func (n *Native) Synced() <-chan struct{} { return n.synced }

// call bounds one RPC.
func (n *Native) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, n.cfg.CallTimeout)
}

// detached bounds a clean-up that must run although its cause was cancelled.
func (n *Native) detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), n.cfg.CreateTimeout)
}

// newID returns a fresh id. It has the form of containerd's own CRI ids,
// because tools find containers in cgroup paths by it.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// The directories below RunDir that this package owns.
func (n *Native) nsDir(sandbox string) string {
	return filepath.Join(n.cfg.RunDir, "ns", sandbox)
}

func (n *Native) startedPath(id string) string {
	return filepath.Join(n.cfg.RunDir, "started", id)
}

func (n *Native) stopPath(id string) string {
	return filepath.Join(n.cfg.RunDir, "stop", id+".json")
}
