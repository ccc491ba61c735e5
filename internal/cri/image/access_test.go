package image

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pullSecret is a pull secret in either of its forms.
func pullSecret(old bool, auths string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":` + auths + `}`)}}
	if old {
		s.Type, s.Data = corev1.SecretTypeDockercfg, map[string][]byte{corev1.DockerConfigKey: []byte(auths)}
	}
	return s
}

func keysOf(t *testing.T, auths ...string) Keys {
	t.Helper()
	var all []*corev1.Secret
	for i, a := range auths {
		all = append(all, pullSecret(i%2 == 1, a))
	}
	k, err := KeysOf(all)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKeysOf: both forms are read, what cannot be is left out, and nothing of a
// secret is told.
func TestKeysOf(t *testing.T) {
	good := fmt.Sprintf(`{"a.example":{"auth":%q}}`, auth64("me", password))
	k := keysOf(t, good, `{"b.example/team":{"username":"me","password":"`+password+`"}}`)
	if len(k.ring.entries) != 2 || k.sum == "" {
		t.Errorf("got %v", k)
	}
	if a, b := k.ring.entries[0].auth, k.ring.entries[1].auth; a.grant != b.grant || a.grant == "" || strings.Contains(a.grant, password) {
		t.Errorf("the same credentials are %q and %q", a.grant, b.grant)
	}
	if other := keysOf(t, `{"a.example":{"username":"me","password":"x"}}`); other.sum == k.sum || other.ring.entries[0].auth.grant == k.ring.entries[0].auth.grant {
		t.Error("other credentials count as the same")
	}
	for name, s := range map[string]*corev1.Secret{
		"broken":          pullSecret(false, `{"`+password),
		"broken, old":     pullSecret(true, `{"`+password),
		"of another type": {Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"k": []byte(password)}},
		"empty":           {Type: corev1.SecretTypeDockerConfigJson},
	} {
		k, err := KeysOf([]*corev1.Secret{s, pullSecret(false, good)})
		if err == nil || strings.Contains(err.Error(), password) || len(k.ring.entries) != 1 {
			t.Errorf("%s: got %v, %v", name, k, err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", k, k, &k); strings.Contains(text, password) {
		t.Errorf("formatted: %s", text)
	}
}

// testAccess: a pod's secrets are tried before the node's credentials, and an
// image that was pulled with a secret opens to who has it, and to nobody else.
func testAccess(n *node) {
	n.reg.push("v1", simple("access"))
	n.reg.rule(basic("me", password))
	ref, host := n.ref("team/app:v1"), n.reg.host
	mine := keysOf(n.T, fmt.Sprintf(`{%q:{"auth":%q},"%s/team":{"auth":%q}}`, host, auth64("me", password), host, auth64("x", "y")))
	theirs := keysOf(n.T, fmt.Sprintf(`{%q:{"auth":%q}}`, host, auth64("them", "other")))
	pull := func(m *node, k Keys) (Image, error) { return m.store.PullFor(m.ctx(), ref, k, nil) }

	if _, err := pull(n, theirs); !IsUnauthorized(err) || strings.Contains(err.Error(), "other") {
		n.Errorf("with another's secret: %v", err)
	}
	n.absent(ref)
	img, err := pull(n, mine)
	if err != nil {
		n.Fatal(err)
	}
	look := func(what string, k Keys, want bool) {
		n.Helper()
		for _, by := range []string{ref, img.ID.String(), img.RepoDigests[0]} {
			got, err := n.with(n.T, nil).store.Get(n.ctx(), by) // another daemon: the note is on the record
			if err != nil || got.Access.Opens(k) != want || !got.Access.Pulled {
				n.Errorf("%s, by %s: %+v opens %t, %v; want %t", what, by, got.Access, got.Access.Opens(k), err, want)
			}
		}
	}
	look("who pulled it", mine, true)
	look("somebody else", theirs, false)
	look("nobody", Keys{}, false)

	n.reg.rule(basic("them", "other")) // now their secret is good too
	if _, err := pull(n, theirs); err != nil {
		n.Fatal(err)
	}
	look("who pulled it first", mine, true)
	look("who pulled it then", theirs, true)
	look("nobody", Keys{}, false)

	n.reg.push("v1", simple("another content")) // the tag was moved: the first secret was never shown to it
	if img, err = pull(n, theirs); err != nil {
		n.Fatal(err)
	}
	look("who pulled what was there before", mine, false)
	look("who pulled it then", theirs, true)

	n.reg.rule(nil)
	if img, err = pull(n, Keys{}); err != nil {
		n.Fatal(err)
	}
	look("nobody, when all may pull", Keys{}, true)
	if err := n.store.label(n.ctx(), []string{ref}, map[string]string{pinnedLabel: pinned}); err != nil {
		n.Fatal(err)
	}
	if img, err = pull(n, mine); err != nil || !img.Pinned {
		n.Errorf("a pull lost the pin: %+v, %v", img, err)
	}
	look("what all may use stays so", Keys{}, true)
	if err := n.store.Remove(n.ctx(), ref); err != nil {
		n.Error(err)
	}
}

// testLend: a pull in which nothing moves gives its slot to another, so that one
// registry that hangs holds up nobody, even where one pull runs at a time.
func testLend(n *node) {
	n.reg.push("v1", simple("lend"))
	m := n.with(n.T, func(c *Config) { c.Parallel, c.LendAfter = 1, 1 })
	hangs, freed := make(chan struct{}), make(chan struct{})
	var hung atomic.Bool
	n.reg.rule(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/stuck/") {
			return false
		}
		if !hung.Swap(true) {
			close(hangs)
		}
		select {
		case <-freed:
		case <-r.Context().Done():
		}
		return true
	})
	defer close(freed)
	ctx, cancel := context.WithCancel(n.ctx())
	ended := make(chan error, 1)
	go func() { _, err := m.store.Pull(ctx, n.ref("stuck/app:v1"), nil, nil); ended <- err }()
	<-hangs
	if _, err := m.store.Pull(n.ctx(), n.ref("app:v1"), nil, nil); err != nil {
		n.Errorf("beside a registry that hangs: %v", err)
	}
	select {
	case err := <-ended:
		n.Errorf("the other pull held up this one until it had ended with %v", err)
		ended <- err
	default:
	}
	cancel()
	<-ended
}
