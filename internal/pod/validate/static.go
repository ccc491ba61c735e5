package validate

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// localVolumes are the kinds of volume that need nothing from an API server.
// Whatever is not named here is refused, kinds of later releases included.
var localVolumes = map[string]bool{
	"emptyDir": true, "hostPath": true, "downwardAPI": true, "image": true, "projected": true, "gitRepo": true,
	"nfs": true, "iscsi": true, "fc": true, "rbd": true, "cephfs": true, "cinder": true, "quobyte": true,
	"flexVolume": true, "flocker": true, "scaleIO": true, "storageos": true, "portworxVolume": true,
	"awsElasticBlockStore": true, "azureDisk": true, "gcePersistentDisk": true, "photonPersistentDisk": true, "vsphereVolume": true,
}

// Likewise for the sources of a projected volume, of a variable and of many.
var (
	localProjections = map[string]bool{"downwardAPI": true}
	localEnvSources  = map[string]bool{"fieldRef": true, "resourceFieldRef": true, "fileKeyRef": true}
	localEnvFroms    = map[string]bool{"prefix": true}
)

// fromFiles are the kinds of volume, projection and source that a ConfigMap or
// Secret stands behind, which a node without an API server has from files.
var fromFiles = map[string]bool{
	"configMap": true, "secret": true, "configMapKeyRef": true, "secretKeyRef": true, "configMapRef": true, "secretRef": true,
}

const noAPI = "a static pod may not use objects of the API server"

// Static finds what a static pod takes from the API server, which would let who
// writes a file on the node read what only the cluster may give. It denies by
// default: a field is allowed because it is known to be local. The pod must have
// passed Validate.
//
// Source: kubelet with the feature gate PreventStaticPodAPIReferences, on by
// default since 1.34.
func Static(p *corev1.Pod) field.ErrorList { return references{}.of(p) }

// Standalone is Static for a node without an API server, whose ConfigMaps and
// Secrets are files of the node: to refer to these is allowed as well.
func Standalone(p *corev1.Pod) field.ErrorList { return references{files: true}.of(p) }

// references judges what a pod refers to; files: ConfigMaps and Secrets are
// files of the node.
type references struct{ files bool }

func (r references) of(p *corev1.Pod) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	deny := func(at *field.Path, used bool) {
		if used {
			errs = append(errs, field.Forbidden(at, noAPI))
		}
	}
	deny(spec.Child("serviceAccountName"), p.Spec.ServiceAccountName != "")
	deny(spec.Child("serviceAccount"), p.Spec.DeprecatedServiceAccount != "" && p.Spec.ServiceAccountName == "")
	for i, s := range p.Spec.ImagePullSecrets {
		deny(spec.Child("imagePullSecrets").Index(i), s.Name != "" && !r.files)
	}
	deny(spec.Child("resourceClaims"), len(p.Spec.ResourceClaims) > 0)
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i].VolumeSource
		at := spec.Child("volumes").Index(i)
		errs = append(errs, r.notLocal(at, v, localVolumes)...)
		if v.Projected == nil {
			continue
		}
		for j := range v.Projected.Sources {
			source, here := &v.Projected.Sources[j], at.Child("projected", "sources").Index(j)
			errs = append(errs, r.notLocal(here, source, localProjections)...)
			deny(here, *source == (corev1.VolumeProjection{})) // of a later release, perhaps
		}
	}
	for i := range p.Spec.InitContainers {
		errs = append(errs, r.container(spec.Child("initContainers").Index(i), &p.Spec.InitContainers[i])...)
	}
	for i := range p.Spec.Containers {
		errs = append(errs, r.container(spec.Child("containers").Index(i), &p.Spec.Containers[i])...)
	}
	return errs
}

func (r references) container(at *field.Path, c *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	for i := range c.Env {
		if c.Env[i].ValueFrom != nil {
			errs = append(errs, r.notLocal(at.Child("env").Index(i).Child("valueFrom"), c.Env[i].ValueFrom, localEnvSources)...)
		}
	}
	for i := range c.EnvFrom {
		errs = append(errs, r.notLocal(at.Child("envFrom").Index(i), &c.EnvFrom[i], localEnvFroms)...)
	}
	if len(c.Resources.Claims) > 0 {
		errs = append(errs, field.Forbidden(at.Child("resources", "claims"), noAPI))
	}
	return errs
}

// notLocal denies each set field of a struct of choices that is not known to be
// local, and each reference to a secret below one that is.
func (r references) notLocal(at *field.Path, choices any, local map[string]bool) field.ErrorList {
	var errs field.ErrorList
	v := reflect.ValueOf(choices).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		switch f := v.Field(i); {
		case f.IsZero():
		case !local[name] && !(r.files && fromFiles[name]):
			errs = append(errs, field.Forbidden(at.Child(name), noAPI))
		case f.Kind() == reflect.Pointer:
			errs = append(errs, secretReferences(at.Child(name), f.Elem())...)
		}
	}
	return errs
}

var (
	localReference  = reflect.TypeFor[*corev1.LocalObjectReference]()
	secretReference = reflect.TypeFor[*corev1.SecretReference]()
)

func secretReferences(at *field.Path, v reflect.Value) field.ErrorList {
	var errs field.ErrorList
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		f := v.Field(i)
		if t := f.Type(); (t == localReference || t == secretReference) && !f.IsNil() && f.Elem().FieldByName("Name").String() != "" {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			errs = append(errs, field.Forbidden(at.Child(name), noAPI))
		}
	}
	return errs
}
