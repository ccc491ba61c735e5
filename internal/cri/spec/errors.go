package spec

import (
	"errors"
	"fmt"
)

// refusal is an input that no retry mends.
type refusal struct{ msg string }

func (r *refusal) Error() string { return r.msg }

// ConfigError tells the callers that do not know this package the same as
// IsRefused.
func (r *refusal) ConfigError() bool { return true }

func refuse(format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...)}
}

// IsRefused tells that the config, the image or the host's abilities rule this
// container out: CreateContainerConfigError, and no retry helps without a
// change of one of them.
func IsRefused(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}
