package validate

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
)

// envFields are the fields of a pod that an environment variable may show.
var envFields = []string{
	"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
	"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
}

// checkEnv judges a container's environment. The values themselves are free,
// and none of them is ever quoted in an error.
func checkEnv(at spot, vars []corev1.EnvVar, volumes map[string]*corev1.VolumeSource) {
	for i, v := range vars {
		here := at.index(i)
		if n := here.child("name"); n.filled(v.Name) {
			n.format(v.Name, validation.IsRelaxedEnvVarName(v.Name))
		}
		if v.ValueFrom != nil {
			checkEnvSource(here.child("valueFrom"), v.ValueFrom, v.Value != "", volumes)
		}
	}
}

func checkEnvSource(at spot, from *corev1.EnvVarSource, hasValue bool, volumes map[string]*corev1.VolumeSource) {
	sources := 0
	if f := from.FieldRef; f != nil {
		sources++
		checkFieldRef(at.child("fieldRef"), f, envFields)
	}
	if r := from.ResourceFieldRef; r != nil {
		sources++
		checkResourceRef(at.child("resourceFieldRef"), r, false)
	}
	if r := from.ConfigMapKeyRef; r != nil {
		sources++
		checkKeyRef(at.child("configMapKeyRef"), r.Name, r.Key)
	}
	if r := from.SecretKeyRef; r != nil {
		sources++
		checkKeyRef(at.child("secretKeyRef"), r.Name, r.Key)
	}
	if r := from.FileKeyRef; r != nil {
		sources++
		checkFileKeyRef(at.child("fileKeyRef"), r, volumes)
	}
	switch {
	case sources == 0:
		at.invalid("", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case hasValue:
		at.invalid("", "may not be specified when `value` is not empty")
	case sources > 1:
		at.invalid("", "may not have more than one field specified at a time")
	}
}

func checkEnvFrom(at spot, sources []corev1.EnvFromSource) {
	for i, s := range sources {
		here := at.index(i)
		if s.Prefix != "" {
			here.child("prefix").format(s.Prefix, validation.IsRelaxedEnvVarName(s.Prefix))
		}
		switch {
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			here.invalid("", "may not have more than one field specified at a time")
		case s.ConfigMapRef != nil:
			objectPrefix(here.child("configMapRef").child("name"), s.ConfigMapRef.Name)
		case s.SecretRef != nil:
			objectPrefix(here.child("secretRef").child("name"), s.SecretRef.Name)
		default:
			here.invalid("", "must specify one of: `configMapRef` or `secretRef`")
		}
	}
}

// objectPrefix demands a name as envFrom does: it passes a trailing dash.
func objectPrefix(at spot, name string) {
	if at.filled(name) {
		at.format(name, apivalidation.NameIsDNSSubdomain(name, true))
	}
}

func checkKeyRef(at spot, name, key string) {
	subdomain(at.child("name"), name)
	if k := at.child("key"); k.filled(key) {
		k.format(key, validation.IsConfigMapKey(key))
	}
}

// checkFileKeyRef judges a variable read from a file in an emptyDir (KEP-3721).
func checkFileKeyRef(at spot, r *corev1.FileKeySelector, volumes map[string]*corev1.VolumeSource) {
	if k := at.child("key"); k.filled(r.Key) {
		k.format(r.Key, validation.IsRelaxedEnvVarName(r.Key))
	}
	if p := at.child("path"); p.filled(r.Path) {
		noBackSteps(p, r.Path)
	}
	v := at.child("volumeName")
	if v.filled(r.VolumeName) {
		label(v, r.VolumeName)
	}
	switch source := volumes[r.VolumeName]; {
	case source == nil:
		v.notFound(r.VolumeName)
	case source.EmptyDir == nil:
		v.invalid(r.VolumeName, "referenced volume must be of type emptyDir")
	}
}

// checkFieldRef judges a reference to a field of the pod. Only annotations and
// labels take a subscript: metadata.labels['app'].
func checkFieldRef(at spot, ref *corev1.ObjectFieldSelector, allowed []string) {
	if !at.child("apiVersion").filled(ref.APIVersion) || !at.child("fieldPath").filled(ref.FieldPath) {
		return
	}
	if ref.APIVersion != "v1" {
		at.child("apiVersion").invalid(ref.APIVersion, "unsupported pod version")
		return
	}
	path, subscript, subscripted := splitSubscript(ref.FieldPath)
	switch {
	case subscripted && path == "metadata.annotations":
		at.format(subscript, validation.IsQualifiedName(strings.ToLower(subscript)))
	case subscripted && path == "metadata.labels":
		at.format(subscript, validation.IsQualifiedName(subscript))
	case subscripted:
		at.invalid(path, "does not support subscript")
	case path == "spec.host": // what v1 clients of old call spec.nodeName
		oneOf(at.child("fieldPath"), "spec.nodeName", allowed...)
	default:
		oneOf(at.child("fieldPath"), path, allowed...)
	}
}

// splitSubscript splits "path['key']" into path and key.
func splitSubscript(text string) (path, key string, ok bool) {
	inner, ok := strings.CutSuffix(text, "']")
	if !ok {
		return text, "", false
	}
	path, key, ok = strings.Cut(inner, "['")
	if !ok || path == "" {
		return text, "", false
	}
	return path, key, true
}

// refResources are the requests and limits that can be shown to a container.
var refResources = []string{
	"limits.cpu", "limits.memory", "limits.ephemeral-storage",
	"requests.cpu", "requests.memory", "requests.ephemeral-storage",
}

// checkResourceRef judges a reference to a request or limit. In a volume it has
// to say of which container.
func checkResourceRef(at spot, ref *corev1.ResourceFieldSelector, inVolume bool) {
	switch {
	case inVolume && ref.ContainerName == "":
		at.child("containerName").required("")
	case ref.Resource == "":
		at.child("resource").required("")
	case !isHugePageRef(ref.Resource):
		oneOf(at.child("resource"), ref.Resource, refResources...)
	}
	checkDivisor(at.child("divisor"), ref.Resource, ref.Divisor)
}

func isHugePageRef(name string) bool {
	return strings.HasPrefix(name, "requests.hugepages-") || strings.HasPrefix(name, "limits.hugepages-")
}

var (
	cpuDivisors  = []string{"1m", "1"}
	byteDivisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
)

func checkDivisor(at spot, name string, divisor resource.Quantity) {
	if divisor.IsZero() {
		return
	}
	var allowed []string
	switch {
	case strings.HasSuffix(name, ".cpu") && slices.Contains(refResources, name):
		allowed = cpuDivisors
	case slices.Contains(refResources, name), isHugePageRef(name):
		allowed = byteDivisors
	default:
		return
	}
	if text := divisor.String(); !slices.Contains(allowed, text) {
		at.invalid(text, "only these divisors are supported with "+name+": "+strings.Join(allowed, ", "))
	}
}
