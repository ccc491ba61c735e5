package source

import "k8s.io/apimachinery/pkg/util/validation/field"

// describe words a validation error without the value that it is about, which
// may be a secret.
func describe(e *field.Error) string {
	text := e.Field + ": " + e.Type.String()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return plain(text)
}
