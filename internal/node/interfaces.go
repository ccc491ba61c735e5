package node

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// Nodes is the API server's collection of Nodes, of which only the one of the
// name is ever asked for. What it returns is the caller's.
type Nodes interface {
	// List returns the Node, nil if there is none, and the version to watch from.
	List(ctx context.Context, name string) (*corev1.Node, string, error)
	// Watch follows the Node from a version on, with bookmarks. It returns once
	// the server has answered, and the server ends it after a while.
	Watch(ctx context.Context, name, version string) (watch.Interface, error)
	Create(ctx context.Context, n *corev1.Node) (*corev1.Node, error)
	// PatchStatus applies a strategic merge patch.
	PatchStatus(ctx context.Context, name string, patch []byte) (*corev1.Node, error)
}

// Leases is the API server's collection of nodes' leases.
type Leases interface {
	Get(ctx context.Context, name string) (*coordinationv1.Lease, error)
	Create(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error)
	// Update replaces the version that l was read at, no other.
	Update(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error)
}
