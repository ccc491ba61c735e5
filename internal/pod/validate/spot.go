package validate

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// spot is one place in the pod, together with the list that collects what is
// wrong anywhere in the pod. A spot is passed down by value.
type spot struct {
	path *field.Path
	errs *field.ErrorList
}

func (s spot) child(name string) spot {
	if s.path == nil {
		return spot{field.NewPath(name), s.errs}
	}
	return spot{s.path.Child(name), s.errs}
}
func (s spot) index(i int) spot  { return spot{s.path.Index(i), s.errs} }
func (s spot) key(k string) spot { return spot{s.path.Key(k), s.errs} }

func (s spot) add(list ...*field.Error)      { *s.errs = append(*s.errs, list...) }
func (s spot) required(why string)           { s.add(field.Required(s.path, why)) }
func (s spot) forbidden(why string)          { s.add(field.Forbidden(s.path, why)) }
func (s spot) invalid(value any, why string) { s.add(field.Invalid(s.path, value, why)) }
func (s spot) duplicate(value any)           { s.add(field.Duplicate(s.path, value)) }
func (s spot) notFound(value any)            { s.add(field.NotFound(s.path, value)) }
func (s spot) tooLong(most int)              { s.add(field.TooLong(s.path, "", most)) }
func (s spot) tooMany(has, most int)         { s.add(field.TooMany(s.path, has, most)) }
func (s spot) within(value, low, high int64) {
	if value < low || value > high {
		s.invalid(value, validation.InclusiveRangeError(int(low), int(high)))
	}
}

// filled reports whether value is there, and records that it is required if not.
func (s spot) filled(value string) bool {
	if value == "" {
		s.required("")
	}
	return value != ""
}

// format records value as invalid once for each message of a format check.
func (s spot) format(value any, messages []string) {
	for _, m := range messages {
		s.invalid(value, m)
	}
}

// oneOf records value unless it is one of those that are supported.
func oneOf[T ~string](s spot, value T, supported ...T) {
	if !slices.Contains(supported, value) {
		s.add(field.NotSupported(s.path, value, supported))
	}
}

// someOf is oneOf for a value that may not be left empty.
func someOf[T ~string](s spot, value T, supported ...T) {
	if s.filled(string(value)) {
		oneOf(s, value, supported...)
	}
}

// seen tells the second and later appearances of a name from the first.
type seen map[string]bool

// again reports whether the name was there before, and remembers it.
func (s seen) again(name string) bool {
	was := s[name]
	s[name] = true
	return was
}

// isTrue reports whether an optional switch is there and on.
func isTrue(b *bool) bool { return b != nil && *b }
