package validate

import (
	"encoding/json"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxObjectData bounds the values of a ConfigMap or Secret together, in bytes.
const maxObjectData = 1 << 20

// DefaultSecret fills in what is left open, as the API server does: the type,
// and what was written as text beside what was written in base64.
func DefaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = map[string][]byte{}
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

// ConfigMap judges a ConfigMap as the API server does. No value is quoted in an
// error.
func ConfigMap(m *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	root := spot{errs: &errs}
	checkMeta(root.child("metadata"), &m.ObjectMeta)
	size := 0
	for _, key := range slices.Sorted(maps.Keys(m.Data)) {
		at := root.child("data").key(key)
		at.format(key, validation.IsConfigMapKey(key))
		if _, twice := m.BinaryData[key]; twice {
			at.invalid(key, "duplicate of key present in binaryData")
		}
		size += len(m.Data[key])
	}
	for _, key := range slices.Sorted(maps.Keys(m.BinaryData)) {
		root.child("binaryData").key(key).format(key, validation.IsConfigMapKey(key))
		size += len(m.BinaryData[key])
	}
	if size > maxObjectData {
		root.child("data").tooLong(maxObjectData)
	}
	return errs
}

// Secret judges a Secret as the API server does; it has been defaulted. No value
// is quoted in an error.
func Secret(s *corev1.Secret) field.ErrorList {
	var errs field.ErrorList
	root := spot{errs: &errs}
	checkMeta(root.child("metadata"), &s.ObjectMeta)
	data := root.child("data")
	size := 0
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		data.key(key).format(key, validation.IsConfigMapKey(key))
		size += len(s.Data[key])
	}
	if size > maxObjectData {
		data.tooLong(maxObjectData)
	}
	checkSecretType(root, data, s)
	return errs
}

// checkSecretType judges what a Secret of a known type must hold.
func checkSecretType(root, data spot, s *corev1.Secret) {
	has := func(key string) bool { _, ok := s.Data[key]; return ok }
	needs := func(keys ...string) {
		for _, key := range keys {
			if !has(key) {
				data.key(key).required("")
			}
		}
	}
	isJSON := func(key string) {
		if needs(key); has(key) && json.Unmarshal(s.Data[key], &map[string]any{}) != nil {
			data.key(key).invalid("<secret contents redacted>", "must be a JSON object")
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if at := root.child("metadata").child("annotations").key(corev1.ServiceAccountNameKey); s.Annotations[corev1.ServiceAccountNameKey] == "" {
			at.required("")
		}
	case corev1.SecretTypeDockercfg:
		isJSON(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		isJSON(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		if !has(corev1.BasicAuthUsernameKey) && !has(corev1.BasicAuthPasswordKey) {
			needs(corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			data.key(corev1.SSHAuthPrivateKey).required("")
		}
	case corev1.SecretTypeTLS:
		needs(corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
}
