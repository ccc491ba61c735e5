package net

import "errors"

// refusal is an error that says: this very content, and not the moment, is what
// the kernel does not take.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// AsRefused marks an error of a backend as the kernel's answer to what it was asked
// to hold, so that who asked looks for the service at fault. nil stays nil.
func AsRefused(err error) error {
	if err == nil {
		return nil
	}
	return refusal{err}
}

// IsRefused tells whether the kernel does not take the rules as they are.
func IsRefused(err error) bool {
	var r refusal
	return errors.As(err, &r)
}
