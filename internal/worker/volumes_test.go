package worker

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestSubPathExpr: a subPathExpr is expanded by the container's variables; one
// without a value is told, and the pod's own spec is never changed.
func TestSubPathExpr(t *testing.T) {
	env := []*runtimeapi.KeyValue{{Key: "A", Value: []byte("one")}, {Key: "UP", Value: []byte("..")}, {Key: "EMPTY"}}
	for _, x := range []struct{ expr, want, missing string }{
		{"$(A)/x", "one/x", ""}, {"$$(A)", "$(A)", ""}, {"$(UP)/x", "../x", ""}, {"plain", "plain", ""},
		{"$(B)$(C)/$(B)", "", "missing value for B, C"}, {"$(EMPTY)", "", "missing value for EMPTY"},
	} {
		c := &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", SubPath: "kept"}, {Name: "v", SubPathExpr: x.expr}}}
		got, err := withSubPaths(c, env)
		if x.missing != "" {
			if err == nil || !strings.HasSuffix(err.Error(), x.missing) {
				t.Errorf("%s: %v, want %s", x.expr, err, x.missing)
			}
			continue
		}
		if err != nil || got.VolumeMounts[1].SubPath != x.want || got.VolumeMounts[0].SubPath != "kept" {
			t.Errorf("%s became %+v, %v, want %s", x.expr, got, err, x.want)
		}
		if c.VolumeMounts[1].SubPath != "" {
			t.Errorf("%s: the pod's spec was changed", x.expr)
		}
	}
}
