package spec

import (
	"fmt"
	"reflect"
	"testing"
)

// aliases returns the first place at which b reaches memory that a reaches too:
// a pointer, a map, or the array of a slice. "" means that they share nothing.
func aliases(a, b any) string {
	seen := map[uintptr]string{}
	walk(reflect.ValueOf(a), "a", func(p uintptr, path string) bool { seen[p] = path; return true })
	found := ""
	walk(reflect.ValueOf(b), "b", func(p uintptr, path string) bool {
		if at, ok := seen[p]; ok && found == "" {
			found = fmt.Sprintf("%s = %s", path, at)
		}
		return found == ""
	})
	return found
}

// walk calls f with the address of all that v refers to.
func walk(v reflect.Value, path string, f func(uintptr, string) bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && (v.Elem().Type().Size() == 0 || f(v.Pointer(), path)) {
			walk(v.Elem(), path, f)
		}
	case reflect.Interface:
		walk(v.Elem(), path, f)
	case reflect.Slice:
		if v.Cap() == 0 || v.Type().Elem().Size() == 0 || !f(v.Pointer(), path) {
			return
		}
		for i := range v.Len() {
			walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), f)
		}
	case reflect.Map:
		if v.IsNil() || !f(v.Pointer(), path) {
			return
		}
		for it := v.MapRange(); it.Next(); {
			walk(it.Value(), fmt.Sprintf("%s[%v]", path, it.Key()), f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			walk(v.Field(i), path+"."+v.Type().Field(i).Name, f)
		}
	}
}

func TestAliasesFindsSharing(t *testing.T) {
	type deep struct{ M map[string][]*int }
	n := 1
	a := deep{map[string][]*int{"k": {&n}}}
	if aliases(a, deep{map[string][]*int{"k": {&n}}}) == "" {
		t.Error("a shared pointer is not found")
	}
	if s := aliases(a, deep{map[string][]*int{"k": {new(int)}}}); s != "" {
		t.Errorf("found %s where nothing is shared", s)
	}
}
