package cri

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ContainerSpec returns what the OCI runtime was asked for when the container
// started. It needs no Run; IsNotFound tells that there is no such container of
// this package.
func (n *Native) ContainerSpec(ctx context.Context, id string) (*specs.Spec, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	record, err := n.client.ContainerService().Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read container record: %w", err)
	}
	if record.Labels[labelKind] != kindContainer {
		return nil, notFound("container", id)
	}
	v, err := typeurl.UnmarshalAny(record.Spec)
	if err != nil {
		return nil, fmt.Errorf("decode container spec: %w", err)
	}
	whole, ok := v.(*specs.Spec)
	if !ok {
		return nil, errors.New("read container record: it holds no spec")
	}
	return whole, nil
}

// ImagesInUse returns the names of the images that containers of the namespace
// were made from, also those that other software made.
func (n *Native) ImagesInUse(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	records, err := n.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers of all owners: %w", err)
	}
	used := map[string]bool{}
	for _, r := range records {
		used[r.Image] = true
	}
	delete(used, "")
	return used, nil
}
