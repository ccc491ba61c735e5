package oracle

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// generator makes pods that are mostly right. It walks the types, so that no
// field can be forgotten; pools.go says which values fit, and fix.go repairs
// what hangs together.
type generator struct {
	rng    *rand.Rand
	loose  bool // leave out the repairs
	sparse bool // set only what must be set
}

// oneOf are the structs of which exactly one field is set.
var oneOf = map[reflect.Type]bool{
	reflect.TypeFor[corev1.VolumeSource]():     true,
	reflect.TypeFor[corev1.EnvVarSource]():     true,
	reflect.TypeFor[corev1.VolumeProjection](): true,
	reflect.TypeFor[corev1.ProbeHandler]():     true,
	reflect.TypeFor[corev1.LifecycleHandler](): true,
}

// always are fields that are optional in JSON, but not in a valid pod.
var always = map[string]bool{
	"Container.Image": true, "SecretVolumeSource.SecretName": true, "LocalObjectReference.Name": true,
	"ExecAction.Command": true, "EphemeralVolumeSource.VolumeClaimTemplate": true, "ImageVolumeSource.Reference": true,
	"PersistentVolumeClaimSpec.AccessModes": true, "PersistentVolumeClaimSpec.Resources": true,
	"PodSchedulingGroup.PodGroupName": true, "ContainerRestartRule.ExitCodes": true, "ContainerRestartRule.Action": true,
	"NodeSelectorRequirement.Values": true, "LabelSelectorRequirement.Values": true, "PodDNSConfig.Nameservers": true,
	"PodDNSConfigOption.Name": true, "Toleration.Operator": true, "PodCertificateProjection.SignerName": true,
	"PodCertificateProjection.KeyType": true, "FCVolumeSource.Lun": true, "EnvFromSource.ConfigMapRef": true,
	"Toleration.Key": true, "HTTPGetAction.Path": true, "GitRepoVolumeSource.Repository": true,
	"OwnerReference.UID": true, "ManagedFieldsEntry.Operation": true,
}

// rare are fields that make nearly every pod invalid, or of no interest.
var rare = map[string]bool{
	"PodSpec.EphemeralContainers": true, "PodSpec.SchedulingGates": true, "PodSpec.OS": true, "PodSpec.HostUsers": true,
	"PodSecurityContext.WindowsOptions": true, "SecurityContext.WindowsOptions": true,
	"PersistentVolumeClaimTemplate.ObjectMeta": true,
}

// chance says how likely an optional field is set, by the depth of its struct:
// few things at a time, each of them with some detail, or nothing in a sparse
// pod.
func (g *generator) chance(key string, depth int) bool {
	switch {
	case always[key]:
		return true
	case g.sparse:
		return false
	case rare[key]:
		return g.rng.Float64() < 0.015
	case depth == 0: // PodSpec
		return g.rng.Float64() < 0.12
	case depth == 1:
		return g.rng.Float64() < 0.18
	default:
		return g.rng.Float64() < 0.3
	}
}

// pod makes a pod in which the field at the path want is set, if it can; an
// empty path leaves all to chance.
func (g *generator) pod(want []string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}}
	g.meta(&pod.ObjectMeta)
	g.fill(reflect.ValueOf(&pod.Spec).Elem(), "Pod.Spec", 0, want)
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []corev1.Container{{Name: "c0", Image: "busybox"}}
	}
	if !g.loose {
		g.fixPod(pod)
	}
	return pod
}

// meta gives a pod metadata that validation looks at.
func (g *generator) meta(m *metav1.ObjectMeta) {
	if g.sparse && g.rng.IntN(20) > 0 {
		return
	}
	if g.rng.IntN(4) == 0 {
		name := m.Name
		g.fill(reflect.ValueOf(m).Elem(), "Pod.ObjectMeta", 1, nil)
		m.Name, m.Namespace = name, "default"
		if len(m.OwnerReferences) > 1 {
			m.OwnerReferences[1].Controller = nil
		}
		if len(m.Finalizers) > 1 {
			m.Finalizers = m.Finalizers[:1]
		}
	}
	keys := make([]string, 0, len(annotations))
	for k := range annotations {
		keys = append(keys, k)
	}
	slices.Sort(keys) // one seed, one pod
	for _, k := range keys {
		if g.rng.IntN(25) == 0 {
			if m.Annotations == nil {
				m.Annotations = map[string]string{}
			}
			m.Annotations[k] = pick(g.rng, annotations[k])
		}
	}
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

var (
	quantityType = reflect.TypeFor[resource.Quantity]()
	listType     = reflect.TypeFor[corev1.ResourceList]()
	portType     = reflect.TypeFor[intstr.IntOrString]()
	timeType     = reflect.TypeFor[metav1.Time]()
	fieldsType   = reflect.TypeFor[metav1.FieldsV1]()
)

// fill sets v, which belongs to the field key ("Struct.Field"). depth counts
// structs; want is the path of a field that must be set, from v on.
func (g *generator) fill(v reflect.Value, key string, depth int, want []string) {
	switch v.Type() {
	case quantityType:
		v.Set(reflect.ValueOf(g.quantity(key)))
		return
	case listType:
		v.Set(reflect.ValueOf(g.resources()))
		return
	case portType:
		v.Set(reflect.ValueOf(pick(g.rng, []intstr.IntOrString{intstr.FromInt32(80), intstr.FromString("http"), intstr.FromInt32(65535)})))
		return
	case timeType:
		v.Set(reflect.ValueOf(metav1.NewTime(time.Unix(1e9, 0).UTC())))
		return
	case fieldsType:
		v.Set(reflect.ValueOf(metav1.FieldsV1{Raw: []byte(`{"f:a":{}}`)}))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		g.fill(v.Elem(), key, depth, want)
	case reflect.Slice:
		n := 1 + g.rng.IntN(2)
		if g.sparse && g.rng.IntN(4) > 0 {
			n = 1
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			g.fill(v.Index(i), key, depth, want)
			want = nil
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		k.SetString(pick(g.rng, []string{"app", "example.com/part", "tier"}))
		g.fill(e, key, depth, want)
		v.SetMapIndex(k, e)
	case reflect.Struct:
		g.fillStruct(v, depth, want)
	default:
		g.fillPlain(v, key)
	}
}

func (g *generator) fillStruct(v reflect.Value, depth int, want []string) {
	t := v.Type()
	only := -1
	if oneOf[t] && len(want) == 0 {
		only = g.rng.IntN(t.NumField())
	}
	for i := range t.NumField() {
		f := t.Field(i)
		key := t.Name() + "." + f.Name
		wanted := len(want) > 0 && want[0] == f.Name
		set := wanted
		switch {
		case oneOf[t]:
			set = wanted || i == only
		case f.Anonymous, !strings.Contains(f.Tag.Get("json"), "omit"), g.chance(key, depth):
			set = true
		}
		if !set {
			continue
		}
		var rest []string
		if wanted {
			rest = want[1:]
		}
		deeper := depth + 1
		if f.Anonymous {
			deeper = depth
		}
		g.fill(v.Field(i), key, deeper, rest)
		if wanted && len(rest) == 0 && v.Field(i).Kind() == reflect.Bool {
			v.Field(i).SetBool(true)
		}
	}
	if !g.loose {
		g.fix(v.Addr().Interface())
	}
}

// fillPlain sets a text, number or switch from its pool.
func (g *generator) fillPlain(v reflect.Value, key string) {
	pool := pools[key]
	if pool == nil {
		pool = pools[v.Type().Name()]
	}
	switch {
	case pool != nil:
	case v.Kind() == reflect.String:
		pool = plainNames
	case v.Kind() == reflect.Bool:
		pool = []any{true, false}
	default:
		pool = intValues
	}
	if len(pool) > 0 {
		v.Set(reflect.ValueOf(pick(g.rng, pool)).Convert(v.Type()))
	}
}

func (g *generator) quantity(key string) resource.Quantity {
	var pool []string
	for _, q := range pools[key] {
		pool = append(pool, q.(string))
	}
	if pool == nil {
		pool = quantities
	}
	return resource.MustParse(pick(g.rng, pool))
}

// resources makes a list of resources whose amounts are mostly right.
func (g *generator) resources() corev1.ResourceList {
	list := corev1.ResourceList{}
	for range 1 + g.rng.IntN(2) {
		switch name := pick(g.rng, resourceNames); name {
		case "hugepages-2Mi":
			list["hugepages-2Mi"] = resource.MustParse(pick(g.rng, []string{"2Mi", "4Mi", "1Gi"}))
			list["memory"] = resource.MustParse("1Gi")
		case "hugepages-1Gi":
			list["hugepages-1Gi"] = resource.MustParse(pick(g.rng, []string{"1Gi", "2Gi"}))
			list["cpu"] = resource.MustParse("1")
		case "example.com/gpu":
			list["example.com/gpu"] = resource.MustParse(pick(g.rng, []string{"1", "2", "1k"}))
		default:
			list[corev1.ResourceName(name)] = resource.MustParse(pick(g.rng, quantities))
		}
	}
	return list
}
