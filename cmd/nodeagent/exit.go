package main

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes, as documented in "nodeagent help exit-codes".
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitFindings    = 3
	exitUnreachable = 5
	exitNotFound    = 6
	exitBadConfig   = 78
)

// exitCode ends the program with a code and without a word.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// configError is a configuration that cannot work.
type configError struct{ error }

// notFoundError is an object that is not there.
type notFoundError struct{ error }

// unreachableError is an agent or a runtime that does not answer.
type unreachableError struct{ error }

func codeOf(err error) int {
	var (
		usage       usageError
		config      configError
		notFound    notFoundError
		unreachable unreachableError
	)
	switch {
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	case errors.As(err, &config):
		return exitBadConfig
	case errors.As(err, &notFound):
		return exitNotFound
	case errors.As(err, &unreachable):
		return exitUnreachable
	}
	return exitFailed
}
