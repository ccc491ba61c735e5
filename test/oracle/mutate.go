package oracle

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// mutate breaks, or only changes, one place of the pod: one that belongs to the
// field key ("Struct.Field") if there is one, else any.
func (g *generator) mutate(pod *corev1.Pod, key string) {
	var places []place
	collect(reflect.ValueOf(&pod.Spec).Elem(), "Pod.Spec", nil, &places)
	collect(reflect.ValueOf(&pod.ObjectMeta).Elem(), "Pod.ObjectMeta", nil, &places)
	var near []place
	for _, p := range places {
		if p.key == key {
			near = append(near, p)
		}
	}
	if len(near) > 0 {
		places = near
	} else if g.rng.IntN(8) > 0 { // metadata has many places and few rules
		places = slices.DeleteFunc(places, func(p place) bool { return strings.HasPrefix(p.key, "ObjectMeta.") })
	}
	g.change(pick(g.rng, places))
}

// place is a field, element or map in the pod that can be set.
type place struct {
	v    reflect.Value
	key  string   // "Struct.Field"
	path []string // from where the walk began, as people write it
}

// collect lists every place under v, v itself left out if it is a struct.
func collect(v reflect.Value, key string, path []string, out *[]place) {
	switch v.Type() {
	case quantityType, listType, portType:
		*out = append(*out, place{v, key, path})
		return
	case timeType, fieldsType:
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			collect(v.Field(i), v.Type().Name()+"."+f.Name, append(slices.Clip(path), f.Name), out)
		}
	case reflect.Pointer:
		*out = append(*out, place{v, key, path})
		if !v.IsNil() {
			collect(v.Elem(), key, path, out)
		}
	case reflect.Slice:
		*out = append(*out, place{v, key, path})
		for i := range v.Len() {
			collect(v.Index(i), key, append(slices.Clip(path), "*"), out)
		}
	default:
		*out = append(*out, place{v, key, path})
	}
}

func (g *generator) change(p place) {
	v := p.v
	switch v.Type() {
	case quantityType:
		v.Set(reflect.ValueOf(resource.MustParse(pick(g.rng, nastyQuantities))))
		return
	case listType:
		list := corev1.ResourceList{}
		for k, q := range v.Interface().(corev1.ResourceList) {
			list[k] = q
		}
		list[corev1.ResourceName(g.text())] = resource.MustParse(pick(g.rng, nastyQuantities))
		if g.rng.IntN(2) == 0 {
			list = corev1.ResourceList{corev1.ResourceName(pick(g.rng, resourceNames)): resource.MustParse(pick(g.rng, nastyQuantities))}
		}
		v.Set(reflect.ValueOf(list))
		return
	case portType:
		v.Set(reflect.ValueOf(pick(g.rng, []intstr.IntOrString{
			intstr.FromInt32(0), intstr.FromInt32(-1), intstr.FromInt32(65536), intstr.FromString(g.text()), intstr.FromInt32(1)})))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && g.rng.IntN(2) == 0 {
			v.SetZero()
			return
		}
		g.fill(v, p.key, 2, nil)
	case reflect.Slice:
		g.changeSlice(v, p.key)
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		for _, k := range v.MapKeys() {
			m.SetMapIndex(k, v.MapIndex(k))
		}
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		g.change(place{v: k})
		g.change(place{v: e})
		m.SetMapIndex(k, e)
		v.Set(m)
	case reflect.String:
		if g.rng.IntN(4) == 0 {
			g.fillPlain(v, p.key)
			return
		}
		switch g.rng.IntN(6) {
		case 0:
			v.SetString("")
		case 1, 2:
			v.SetString(g.perturb(v.String()))
		default:
			v.SetString(g.text())
		}
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Uint8: // of raw bytes
	default:
		v.SetInt(pick(g.rng, nastyInts))
	}
}

// changeSlice takes an element away, doubles one, adds one, or takes all.
func (g *generator) changeSlice(v reflect.Value, key string) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return
	}
	switch n := v.Len(); g.rng.IntN(4) {
	case 0:
		if n > 0 {
			v.Set(v.Slice(0, n-1))
		}
	case 1:
		if n > 0 {
			v.Set(reflect.Append(v, v.Index(g.rng.IntN(n))))
		}
	case 2:
		e := reflect.New(v.Type().Elem()).Elem()
		g.fill(e, key, 2, nil)
		v.Set(reflect.Append(v, e))
	default:
		if g.rng.IntN(3) == 0 {
			v.SetZero()
		} else if n > 0 { // past every limit of a list
			for range pick(g.rng, []int{4, 21, 33, 256}) {
				v.Set(reflect.Append(v, v.Index(0)))
			}
		}
	}
}

// perturb returns what is nearly the text.
func (g *generator) perturb(text string) string {
	return pick(g.rng, []string{
		"-" + text, text + "-", "." + text, text + ".", "/" + text, text + "/", " " + text, text + " ", "../" + text, text + "/..", ".." + text,
		strings.ToUpper(text), text + "_", text + ":", text + "." + text, text + "/" + text, text + "-1", text + "0", text + "@", text + `\`, `\` + text,
		strings.Repeat(text, 17), strings.Repeat(text, 70), text[len(text)/2:], text[:len(text)/2], strings.ReplaceAll(text, "/", ""), strings.ReplaceAll(text, ".", ""),
	})
}

func (g *generator) text() string {
	switch g.rng.IntN(8) {
	case 0:
		return strings.Repeat("a", pick(g.rng, long))
	case 1:
		return strings.Repeat("a.", pick(g.rng, long)/2) + "a"
	default:
		return pick(g.rng, nasty)
	}
}
