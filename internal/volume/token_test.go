package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// unknown is what is said of an object that the API server has not told of.
type unknown struct{}

func (unknown) Error() string { return "not read yet" }
func (unknown) Absent() bool  { return true }
func (unknown) Unread() bool  { return true }

// tokens answers with one text, or an error.
type tokens struct {
	text  string
	err   error
	asked []pod.TokenWish
}

func (t *tokens) Token(_ *corev1.Pod, w pod.TokenWish) (string, error) {
	t.asked = append(t.asked, w)
	return t.text, t.err
}

// apiAccess is the volume that every pod of a cluster gets.
func apiAccess() corev1.Volume {
	return corev1.Volume{Name: "kube-api-access-x", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: new(int32(0o644)), Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: new(int64(3607)), Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("kube-root-ca.crt"), Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
		}}}}
}

// TestAPIAccess: the default volume of a cluster's pods, whose token is readable
// by those alone who need it, and which follows the token.
func TestAPIAccess(t *testing.T) {
	for _, x := range []struct {
		what        string
		user, group *int64
		ca, token   string
		uid         uint32
	}{
		{what: "nobody knows who reads it", ca: "ca.crt 644 0 pem", token: "token 644 0 "},
		{what: "a user", user: new(int64(1000)), ca: "ca.crt 644 0 pem", token: "token 600 0 ", uid: 1000},
		{what: "a group", group: new(int64(5000)), ca: "ca.crt 644 5000 pem", token: "token 640 5000 "},
		{what: "both", user: new(int64(1000)), group: new(int64(5000)), ca: "ca.crt 644 5000 pem", token: "token 640 5000 ", uid: 1000},
	} {
		v, have := testVolumes(t), &tokens{text: "first"}
		v.cfg.Tokens = have
		v.cfg.Objects.(*objects).put("kube-root-ca.crt", map[string]string{"ca.crt": "pem"})
		p := testPod(t, v, "p", apiAccess())
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: x.user, FSGroup: x.group}
		must(t, v.Setup(t.Context(), p))
		dir := v.dir(p.UID, pluginProjected, "kube-api-access-x")
		space := strings.Replace(strings.Replace(x.ca, "ca.crt", "namespace", 1), "pem", "default", 1)
		wantContent(t, x.what, dir, x.token+"first", x.ca, space)
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(dir, "token"), &st))
		if st.Uid != x.uid {
			t.Errorf("%s: the token is user %d's, want %d", x.what, st.Uid, x.uid)
		}
		if len(have.asked) != 1 || have.asked[0] != (pod.TokenWish{Seconds: 3607}) {
			t.Errorf("%s: tokens were asked for as %v", x.what, have.asked)
		}
		before := inodes(t, dir)
		must(t, v.Setup(t.Context(), p))
		if after := inodes(t, dir); len(after) != len(before) || after[filepath.Join(dir, dataLink)] != before[filepath.Join(dir, dataLink)] {
			t.Errorf("%s: the same token was written again", x.what)
		}
		have.text = "second"
		must(t, v.Setup(t.Context(), p))
		wantContent(t, x.what, dir, x.token+"second", x.ca, space)
		must(t, v.Remove(t.Context(), p.UID))
	}
}

// TestUnread: what an API server that is away has not told of keeps a new volume
// from being made, also where it is optional, and leaves one that is shown.
func TestUnread(t *testing.T) {
	v, have := testVolumes(t), &tokens{err: unknown{}}
	v.cfg.Tokens = have
	v.cfg.Objects.(*objects).put("kube-root-ca.crt", map[string]string{"ca.crt": "pem"})
	p := testPod(t, v, "p", apiAccess())
	err := v.Setup(t.Context(), p)
	if err == nil || !isAbsent(err) || !strings.Contains(err.Error(), `MountVolume.SetUp failed for volume "kube-api-access-x" : not read yet`) {
		t.Errorf("a token that is not there: %v", err)
	}
	have.text, have.err = "first", nil
	must(t, v.Setup(t.Context(), p))
	have.text, have.err = "", unknown{}
	must(t, v.Setup(t.Context(), p))
	if text, err := os.ReadFile(filepath.Join(v.dir(p.UID, pluginProjected, "kube-api-access-x"), "token")); err != nil || string(text) != "first" {
		t.Errorf("a token that was shown is %q, %v", text, err)
	}
	have.err = errors.New("something else")
	if err := v.Setup(t.Context(), p); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("another error: %v", err)
	}
	must(t, v.Remove(t.Context(), p.UID))

	v.cfg.Objects = unreadObjects{}
	q := testPod(t, v, "q", configMapVolume("m", corev1.ConfigMapVolumeSource{LocalObjectReference: named("m"), Optional: new(true)}))
	if err := v.Setup(t.Context(), q); err == nil || !isAbsent(err) {
		t.Errorf("an optional object that nobody knows of: %v", err)
	}
}

type unreadObjects struct{}

func (unreadObjects) ConfigMap(string, string) (*corev1.ConfigMap, error) { return nil, unknown{} }
func (unreadObjects) Secret(string, string) (*corev1.Secret, error)       { return nil, unknown{} }

// TestWithoutAnAPIServer: what only that has is refused by its name.
func TestWithoutAnAPIServer(t *testing.T) {
	v := testVolumes(t)
	for want, vol := range map[string]corev1.Volume{
		"cannot show a service account token: this node has no API server": apiAccess(),
		"cannot mount a claim: this node has no API server":                claimVolume("c", false),
	} {
		if err := v.Setup(t.Context(), testPod(t, v, "p", vol)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestAwaits: a setup waits for objects first, and for a bounded time.
func TestAwaits(t *testing.T) {
	v := testVolumes(t)
	waited := false
	v.cfg.Await = func(ctx context.Context, p *corev1.Pod) {
		_, bounded := ctx.Deadline()
		waited = bounded && p.Name == "p"
		v.cfg.Objects.(*objects).put("o", map[string]string{"a": "one"})
	}
	p := testPod(t, v, "p", configMapVolume("m", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o")}))
	must(t, v.Setup(t.Context(), p))
	if !waited {
		t.Error("nobody waited")
	}
	must(t, v.Remove(t.Context(), p.UID))
}
