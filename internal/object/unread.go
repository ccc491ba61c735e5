package object

import (
	"fmt"

	"nodeagent/internal/pod"
)

// unread is an object of which the API server has not told yet. It is not the
// same as one that does not exist: even an optional one is waited for.
type unread struct {
	ref  pod.ObjectRef
	name string // what an operator knows it by
	err  error  // why the last attempt failed; nil: the first is under way
}

// Error does not unwrap: that a server which was not understood has said "not
// found" of something else must not be taken for an answer.
func (u unread) Error() string {
	if u.err == nil {
		return fmt.Sprintf("%s %s was not read from the API server yet", u.ref.Kind, u.name)
	}
	return fmt.Sprintf("%s %s could not be read from the API server yet: %v", u.ref.Kind, u.name, u.err)
}

// Absent tells that trying again is of no use before Changed was called.
func (u unread) Absent() bool { return true }

// Unread tells that nobody knows whether the object exists.
func (u unread) Unread() bool { return true }
