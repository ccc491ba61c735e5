package spec

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Build returns the OCI runtime spec of one container. An error names what in
// the config or the image is refused; it is an operator's or an image maker's
// mistake, never worth a retry without a change.
func Build(in Input) (*specs.Spec, error) {
	return nil, errors.New("build spec: not written yet")
}
