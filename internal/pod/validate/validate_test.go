package validate

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// podOf makes a pod from the parts of a line of rules.txt.
func podOf(t *testing.T, parts string) *corev1.Pod {
	t.Helper()
	pod, err := rulePod(parts)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestDefaultFillsWhatManifestsLeaveOpen shows the defaults that people know;
// test/oracle compares all of them.
func TestDefaultFillsWhatManifestsLeaveOpen(t *testing.T) {
	for _, c := range []struct{ name, parts, want string }{
		{"restart policy", "spec {}", `"restartPolicy":"Always"`},
		{"DNS policy", "spec {}", `"dnsPolicy":"ClusterFirst"`},
		{"grace period", "spec {}", `"terminationGracePeriodSeconds":30`},
		{"negative grace period", "spec {terminationGracePeriodSeconds: -7}", `"terminationGracePeriodSeconds":1`},
		{"scheduler", "spec {}", `"schedulerName":"default-scheduler"`},
		{"service links", "spec {}", `"enableServiceLinks":true`},
		{"security context", "spec {}", `"securityContext":{}`},
		{"service account alias", "spec {serviceAccount: a}", `"serviceAccountName":"a"`},
		{"termination message", "spec {}", `"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"`},
		{"probe", "container {livenessProbe: {httpGet: {port: 1}}}",
			`{"httpGet":{"path":"/","port":1,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}`},
		{"gRPC service", "container {livenessProbe: {grpc: {port: 1}}}", `"grpc":{"port":1,"service":""}`},
		{"port", "container {ports: [{containerPort: 1}]}", `"ports":[{"containerPort":1,"protocol":"TCP"}]`},
		{"host port", "spec {hostNetwork: true} | container {ports: [{containerPort: 1}]}", `"ports":[{"hostPort":1,"containerPort":1,"protocol":"TCP"}]`},
		{"requests", "container {resources: {limits: {cpu: 1}}}", `"resources":{"limits":{"cpu":"1"},"requests":{"cpu":"1"}}`},
		{"rounding", "container {resources: {requests: {cpu: 1u}}}", `"requests":{"cpu":"1m"}`},
		{"pod requests", "spec {resources: {limits: {cpu: 2}}} | container {resources: {requests: {cpu: 1}}}", `"resources":{"limits":{"cpu":"2"},"requests":{"cpu":"1"}}`},
		{"empty volume", "volume {}", `"volumes":[{"name":"v0","emptyDir":{}}]`},
		{"host path", "volume {hostPath: {path: /a}}", `"hostPath":{"path":"/a","type":""}`},
		{"secret mode", "volume {secret: {secretName: a}}", `"secret":{"secretName":"a","defaultMode":420}`},
		{"field", "env {valueFrom: {fieldRef: {fieldPath: metadata.name}}}", `"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}`},
	} {
		pod := podOf(t, c.parts)
		Default(pod)
		text, err := json.Marshal(pod.Spec)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), c.want) {
			t.Errorf("%s: want %s in\n%s", c.name, c.want, text)
		}
	}
}

// hex64 stands for the digits of a SHA-256 digest.
var hex64 = strings.Repeat("0123456789abcdef", 4)

func TestPullPolicyFollowsTheTag(t *testing.T) {
	for image, want := range map[string]string{
		"busybox":                                "latest",
		"busybox:latest":                         "latest",
		"busybox:1":                              "1",
		"a/b":                                    "latest",
		"host:5000/b":                            "latest",
		"host:5000/b:v1":                         "v1",
		"[::1]:5000/b":                           "latest",
		"localhost/b:x":                          "x",
		"Host/b:latest":                          "latest",
		"docker.io/b":                            "latest",
		"busybox@sha256:" + hex64:                "",
		"busybox:latest@sha256:" + hex64:         "latest",
		"busybox:latest@sha256:" + hex64[1:]:     "",
		"busybox:latest@md5:" + hex64:            "",
		hex64:                                    "",
		"Busybox":                                "",
		"a/B:latest":                             "",
		"a___b:latest":                           "",
		"a__b--c.d:latest":                       "latest",
		"a b:latest":                             "",
		"":                                       "",
		"a//b":                                   "",
		"a:" + strings.Repeat("t", 129):          "",
		"x.y/" + strings.Repeat("a", 256):        "",
		"x.y/" + strings.Repeat("a", 255) + ":b": "b",
	} {
		if got := imageTag(image); got != want {
			t.Errorf("%q: tag %q, want %q", image, got, want)
		}
	}
}

// TestValidateRequiresDefaults shows that nothing is filled in silently.
func TestValidateRequiresDefaults(t *testing.T) {
	pod := podOf(t, "container {ports: [{containerPort: 1}], livenessProbe: {httpGet: {port: 1}}} | volume {} | env {valueFrom: {fieldRef: {fieldPath: metadata.name}}}")
	got := map[string]bool{}
	for _, e := range Validate(pod) {
		got[e.Field] = true
	}
	for _, path := range []string{
		"spec.restartPolicy", "spec.dnsPolicy", "spec.terminationGracePeriodSeconds", "spec.volumes[0]",
		"spec.containers[0].imagePullPolicy", "spec.containers[0].terminationMessagePolicy", "spec.containers[0].ports[0].protocol",
		"spec.containers[0].livenessProbe.httpGet.path", "spec.containers[0].livenessProbe.httpGet.scheme",
		"spec.containers[0].livenessProbe.successThreshold", "spec.containers[0].env[0].valueFrom.fieldRef.apiVersion",
	} {
		if !got[path] {
			t.Errorf("no error at %s", path)
		}
	}
}

// TestVolumesHaveOneSource adds each source that there is to an emptyDir, so that
// none is forgotten when the types get a new one.
func TestVolumesHaveOneSource(t *testing.T) {
	for f := range reflect.TypeFor[corev1.VolumeSource]().Fields() {
		if f.Name == "EmptyDir" {
			continue
		}
		pod := podOf(t, "volume {emptyDir: {}}")
		reflect.ValueOf(&pod.Spec.Volumes[0].VolumeSource).Elem().FieldByIndex(f.Index).Set(reflect.New(f.Type.Elem()))
		Default(pod)
		want := "spec.volumes[0]." + jsonName(f)
		errs := Validate(pod)
		if len(errs) != 1 || errs[0].Field != want || !strings.Contains(errs[0].Detail, "more than 1 volume type") {
			t.Errorf("%s beside emptyDir: got %v", f.Name, errs)
		}
	}
}

// TestErrorsHideSecrets plants a canary where a pod keeps secrets, and breaks
// everything around it.
func TestErrorsHideSecrets(t *testing.T) {
	const canary = "hunter2hunter2"
	pod := podOf(t, "env {name: A=, value: "+canary+", valueFrom: {fieldRef: {fieldPath: x}}}"+
		" | spec {os: {name: linux}, securityContext: {windowsOptions: {gmsaCredentialSpec: "+canary+strings.Repeat("x", 65536)+"}}}")
	Default(pod)
	errs := Validate(pod)
	if len(errs) < 4 {
		t.Fatalf("too few errors: %v", errs)
	}
	for _, e := range errs {
		if strings.Contains(e.Error(), canary) {
			t.Errorf("quotes a secret: %s", e.Field)
		}
	}
}

// TestYounger sets each younger field, and demands that it is found where it is.
func TestYounger(t *testing.T) {
	pod := podOf(t, "volume {emptyDir: {mode: 511}} | volume {secret: {secretName: a, items: [{key: a, path: a, user: 1}]}}"+
		" | container {livenessProbe: {grpc: {port: 1, mode: TLS}}}")
	var got []string
	for _, e := range Younger(pod) {
		got = append(got, e.Field)
	}
	want := []string{"spec.volumes[0].emptyDir.mode", "spec.volumes[1].secret.items[0].user", "spec.containers[0].livenessProbe.grpc.mode"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if errs := Younger(podOf(t, "volume {emptyDir: {sizeLimit: 1}}")); len(errs) > 0 {
		t.Errorf("an old field is called young: %v", errs)
	}
}

// BenchmarkPod is what one manifest costs, with two containers, probes, mounts
// and limits.
func BenchmarkPod(b *testing.B) {
	pod, err := rulePod(`volume {configMap: {name: a}} | volume {} | second {} | env {valueFrom: {fieldRef: {fieldPath: metadata.name}}}` +
		` | container {livenessProbe: {httpGet: {port: 80}}, resources: {limits: {cpu: 1, memory: 1Gi}}, volumeMounts: [{name: v0, mountPath: /a}]}`)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p := pod.DeepCopy()
		Default(p)
		if errs := Validate(p); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}

// FuzzPod demands that no pod whatsoever makes the package panic, that Default
// has nothing left to do the second time, and that judging changes nothing.
func FuzzPod(f *testing.F) {
	list, err := rules()
	if err != nil {
		f.Fatal(err)
	}
	for i, r := range list {
		if text, err := json.Marshal(r.Pod); err == nil && i%10 == 0 && len(text) < 4096 {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		pod := new(corev1.Pod)
		if json.Unmarshal(text, pod) != nil {
			t.Skip()
		}
		Validate(pod)
		Default(pod)
		once := pod.DeepCopy()
		Validate(pod)
		Static(pod)
		Younger(pod)
		Default(pod)
		a, errA := json.Marshal(once)
		b, errB := json.Marshal(pod)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("Default is not idempotent:\n%s\n%s (%v, %v)", a, b, errA, errB)
		}
	})
}

// FuzzImageTag demands that a tag is one that the image really ends with.
func FuzzImageTag(f *testing.F) {
	for _, s := range []string{"busybox", "a.b:1/c:d@sha256:" + hex64, "[::]/a", "A/b", ":", "@", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, image string) {
		tag := imageTag(image)
		name, _, _ := strings.Cut(image, "@")
		if tag != "" && tag != "latest" && !strings.HasSuffix(name, ":"+tag) {
			t.Errorf("%q has no tag %q", image, tag)
		}
	})
}
