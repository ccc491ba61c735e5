package oracle

import (
	"reflect"
	"strings"
)

// fieldPath is a field as a path of Go field names, and as "Struct.Field".
type fieldPath struct {
	path []string
	key  string
}

// fieldPaths lists every field under t.
func fieldPaths(t reflect.Type) []fieldPath {
	var paths []fieldPath
	var walk func(t reflect.Type, path []string)
	walk = func(t reflect.Type, path []string) {
		switch t {
		case quantityType, timeType, portType, fieldsType:
			return
		}
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem(), path)
		case reflect.Struct:
			for i := range t.NumField() {
				here := append(append([]string(nil), path...), t.Field(i).Name)
				paths = append(paths, fieldPath{here, t.Name() + "." + t.Field(i).Name})
				walk(t.Field(i).Type, here)
			}
		}
	}
	walk(t, nil)
	return paths
}

// markSet notes in set every field under v that is not zero.
func markSet(v reflect.Value, path string, set map[string]bool) {
	switch v.Type() {
	case quantityType, timeType, portType, fieldsType:
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			markSet(v.Elem(), path, set)
		}
	case reflect.Slice:
		for i := range v.Len() {
			markSet(v.Index(i), path, set)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			markSet(v.MapIndex(k), path, set)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				here := path + "/" + v.Type().Field(i).Name
				set[here] = true
				markSet(f, here, set)
			}
		}
	}
}

func pathKey(path []string) string { return "/" + strings.Join(path, "/") }
