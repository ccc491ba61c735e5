package validate

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// TestObjects: ConfigMaps and Secrets are judged as the API server judges them,
// and what they hold stands in no error.
func TestObjects(t *testing.T) {
	const canary = "canary-value"
	big := strings.Repeat("x", 1<<20)
	for _, c := range []struct{ name, kind, text, want string }{
		{"empty", "ConfigMap", "metadata: {name: a, namespace: d}", ""},
		{"good", "ConfigMap", "metadata: {name: a.b, namespace: d}\ndata: {my.key_1-x: " + canary + "}\nbinaryData: {b: aGk=}", ""},
		{"no name", "ConfigMap", "metadata: {namespace: d}", "metadata.name"},
		{"bad name", "ConfigMap", "metadata: {name: A_b, namespace: d}", "metadata.name"},
		{"bad key", "ConfigMap", "metadata: {name: a, namespace: d}\ndata: {a/b: " + canary + "}", "data[a/b]"},
		{"key that leads up", "ConfigMap", "metadata: {name: a, namespace: d}\ndata: {..: " + canary + "}", "data[..]"},
		{"bad binary key", "ConfigMap", "metadata: {name: a, namespace: d}\nbinaryData: {a b: aGk=}", "binaryData[a b]"},
		{"key twice", "ConfigMap", "metadata: {name: a, namespace: d}\ndata: {k: x}\nbinaryData: {k: aGk=}", "data[k]"},
		{"full", "ConfigMap", "metadata: {name: a, namespace: d}\ndata: {k: " + big + "}", ""},
		{"too large", "ConfigMap", "metadata: {name: a, namespace: d}\ndata: {k: " + big + "x}", "data"},
		{"good", "Secret", "metadata: {name: a, namespace: d}\ndata: {k: aGk=}\nstringData: {l: " + canary + "}", ""},
		{"bad key", "Secret", "metadata: {name: a, namespace: d}\nstringData: {../k: " + canary + "}", "data[../k] data[../k]"},
		{"too large", "Secret", "metadata: {name: a, namespace: d}\nstringData: {k: " + big + ", l: x}", "data"},
		{"token", "Secret", "type: kubernetes.io/service-account-token\nmetadata: {name: a, namespace: d}", "metadata.annotations[kubernetes.io/service-account.name]"},
		{"docker", "Secret", "type: kubernetes.io/dockerconfigjson\nmetadata: {name: a, namespace: d}\nstringData: {.dockerconfigjson: '{\"auths\":{}}'}", ""},
		{"broken docker", "Secret", "type: kubernetes.io/dockerconfigjson\nmetadata: {name: a, namespace: d}\nstringData: {.dockerconfigjson: '{\"" + canary + "'}", "data[.dockerconfigjson]"},
		{"no docker", "Secret", "type: kubernetes.io/dockercfg\nmetadata: {name: a, namespace: d}", "data[.dockercfg]"},
		{"basic", "Secret", "type: kubernetes.io/basic-auth\nmetadata: {name: a, namespace: d}\nstringData: {password: ''}", ""},
		{"no basic", "Secret", "type: kubernetes.io/basic-auth\nmetadata: {name: a, namespace: d}", "data[username] data[password]"},
		{"no key", "Secret", "type: kubernetes.io/ssh-auth\nmetadata: {name: a, namespace: d}\nstringData: {ssh-privatekey: ''}", "data[ssh-privatekey]"},
		{"half tls", "Secret", "type: kubernetes.io/tls\nmetadata: {name: a, namespace: d}\nstringData: {tls.crt: x}", "data[tls.key]"},
	} {
		var errs field.ErrorList
		if c.kind == "ConfigMap" {
			var m corev1.ConfigMap
			if err := yaml.UnmarshalStrict([]byte(c.text), &m); err != nil {
				t.Fatal(err)
			}
			errs = ConfigMap(&m)
		} else {
			var s corev1.Secret
			if err := yaml.UnmarshalStrict([]byte(c.text), &s); err != nil {
				t.Fatal(err)
			}
			DefaultSecret(&s)
			if s.Type == "" || len(s.StringData) > 0 {
				t.Errorf("%s of %s was not defaulted: %+v", c.name, c.kind, s.Type)
			}
			errs = Secret(&s)
		}
		var fields []string
		for _, e := range errs {
			fields = append(fields, e.Field)
			if strings.Contains(e.Error(), canary) || len(e.Error()) > 500 {
				t.Errorf("%s of %s: the error holds a value", c.name, c.kind)
			}
		}
		if got := strings.Join(fields, " "); got != c.want {
			t.Errorf("%s of %s: wrong are %q, want %q", c.name, c.kind, got, c.want)
		}
	}
}

// TestStandalone: without an API server ConfigMaps and Secrets may be referred
// to, and nothing else of it.
func TestStandalone(t *testing.T) {
	named := corev1.LocalObjectReference{Name: "x"}
	good := corev1.PodSpec{
		ImagePullSecrets: []corev1.LocalObjectReference{named},
		Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named}}},
			{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "x"}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: named}}, {ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named}},
			}}}},
		},
		Containers: []corev1.Container{{
			EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named}}, {SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named}}},
			Env: []corev1.EnvVar{
				{ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: named}}},
				{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: named}}},
			},
		}},
	}
	if errs := Standalone(&corev1.Pod{Spec: good}); len(errs) > 0 {
		t.Errorf("references to files are refused: %v", errs)
	}
	if errs := Static(&corev1.Pod{Spec: good}); len(errs) != 9 {
		t.Errorf("with an API server %d of 9 references are refused: %v", len(errs), errs)
	}
	for what, spec := range map[string]corev1.PodSpec{
		"service account": {ServiceAccountName: "x"},
		"claim":           {Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}}}}},
		"token":           {Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}}}}},
		"CSI":             {Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "x"}}}}},
		"driver's secret": {Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{SecretRef: &named}}}}},
		"resource claim":  {ResourceClaims: []corev1.PodResourceClaim{{Name: "x"}}},
	} {
		if len(Standalone(&corev1.Pod{Spec: spec})) == 0 {
			t.Errorf("a %s passes", what)
		}
	}
}
