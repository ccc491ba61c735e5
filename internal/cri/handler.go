package cri

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/typeurl/v2"
)

// Handler is one way to run containers: what a RuntimeClass names.
type Handler struct {
	Runtime string // containerd's name of the shim; default the shim of this project
	Binary  string // the OCI runtime; "" means the runc of containerd's PATH
}

// handler finds the handler of a name; "" is the default one.
func (n *Native) handler(name string) (Handler, error) {
	if name == "" {
		return Handler{Runtime: n.cfg.Runtime, Binary: n.cfg.RuncBinary}, nil
	}
	h, ok := n.cfg.Handlers[name]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(n.cfg.Handlers)), ", ")
		return h, fmt.Errorf("find runtime handler %q: it is not configured; configured are the default one and [%s]", name, known)
	}
	return h, nil
}

// options are what containerd gives to the handler's shim.
func (h Handler) options(systemdCgroup bool) (typeurl.Any, error) {
	options, err := typeurl.MarshalAny(&runcoptions.Options{BinaryName: h.Binary, SystemdCgroup: systemdCgroup})
	if err != nil {
		return nil, fmt.Errorf("encode runtime options: %w", err)
	}
	return options, nil
}
