package image

import (
	"context"
	"errors"
	"net/http"
	"strings"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// kind is the class of a failure.
type kind int

const (
	kindOther        kind = iota
	kindInvalidName       // no reference at all
	kindNoPlatform        // not for this machine
	kindStalled           // no progress
	kindRefused           // over a limit, or broken content
	kindUnauthorized      // credentials
	kindNotFound          // no such image
	kindUnavailable       // the registry, or the way to it
	kindUnverified        // an image verifier of containerd's forbids it
)

// failure is an error with its class.
type failure struct {
	kind kind
	msg  string
	err  error // may be nil
}

func (f *failure) Error() string {
	if f.err == nil {
		return f.msg
	}
	return f.msg + ": " + f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

func kindOf(err error) kind {
	var f *failure
	if errors.As(err, &f) {
		return f.kind
	}
	return kindOther
}

// IsInvalidName tells that a reference cannot be parsed (InvalidImageName).
func IsInvalidName(err error) bool { return kindOf(err) == kindInvalidName }

// IsNotFound tells that the image is not there: in the store for Get, in the
// registry for Pull.
func IsNotFound(err error) bool { return kindOf(err) == kindNotFound }

// IsUnauthorized tells that the registry refused the credentials, or the lack
// of them.
func IsUnauthorized(err error) bool { return kindOf(err) == kindUnauthorized }

// IsUnverified tells that a verifier of images forbids the image
// (SignatureValidationFailed).
func IsUnverified(err error) bool { return kindOf(err) == kindUnverified }

// IsNoPlatform tells that the image exists, but not for this machine.
func IsNoPlatform(err error) bool { return kindOf(err) == kindNoPlatform }

// IsStalled tells that a pull made no progress for Config.ProgressDeadline.
func IsStalled(err error) bool { return kindOf(err) == kindStalled }

// IsRegistryUnavailable tells that the registry could not be reached, is
// limiting us, or failed on its own side (RegistryUnavailable).
func IsRegistryUnavailable(err error) bool {
	k := kindOf(err)
	return k == kindUnavailable || k == kindStalled
}

// IsRetryable tells that the same pull may succeed later without a change on
// this node or in its manifests. What is not found or refused may appear in the
// registry too, so only a name that is none, a missing platform and content
// over a limit are final.
func IsRetryable(err error) bool {
	switch kindOf(err) {
	case kindInvalidName, kindNoPlatform, kindRefused:
		return false
	}
	return err != nil
}

// classify gives an error of containerd's transfer service its class. Beyond
// errdefs' classes the service sends text only; what is matched here is the
// wording of net, net/http and containerd's docker resolver.
func classify(msg string, err error) error {
	return &failure{kind: classOf(err), msg: msg, err: err}
}

func classOf(err error) kind {
	var status remoteerrors.ErrUnexpectedStatus
	text := err.Error()
	switch {
	case errors.As(err, &status):
		return classOfStatus(status.StatusCode)
	case has(text, "blocked pull of"): // containerd's core/transfer/local
		return kindUnverified
	case has(text, "401 Unauthorized", "403 Forbidden", "authorization failed", "failed to authorize", "insufficient_scope", "pull access denied"):
		return kindUnauthorized
	case has(text, "429 Too Many", "toomanyrequests", "500 Internal", "502 Bad", "503 Service", "504 Gateway"):
		return kindUnavailable
	case errdefs.IsNotFound(err), has(text, "404 Not Found"):
		return kindNotFound
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return kindUnauthorized
	case has(text, "no such host", "connection refused", "connection reset", "i/o timeout", "TLS handshake", "x509:",
		"no route to host", "network is unreachable", "server misbehaving", "unexpected EOF", ": EOF", "stopped after", "broken pipe"):
		return kindUnavailable
	case errdefs.IsUnavailable(err), errors.Is(err, context.DeadlineExceeded), errdefs.IsDeadlineExceeded(err):
		return kindUnavailable
	}
	return kindOther
}

func classOfStatus(code int) kind {
	switch {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return kindUnauthorized
	case code == http.StatusNotFound:
		return kindNotFound
	case code == http.StatusTooManyRequests || code >= 500:
		return kindUnavailable
	}
	return kindOther
}

func has(text string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}
