package object

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/object/objecttest"
	"nodeagent/internal/pod"
)

func claim(name, volume string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: volume},
		Status: corev1.PersistentVolumeClaimStatus{Phase: phase},
	}
}

func volumeOf(name string, c *corev1.PersistentVolumeClaim, source corev1.PersistentVolumeSource) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		PersistentVolumeSource: source, ClaimRef: &corev1.ObjectReference{Namespace: c.Namespace, Name: c.Name, UID: c.UID},
	}}
}

func claimUser(name, claim string) *corev1.Pod {
	p := user(name)
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
	return p
}

func (b *bench) claimed(p *corev1.Pod) string {
	synctest.Wait()
	v, err := b.store.Claim(p, &p.Spec.Volumes[0])
	if err != nil {
		return err.Error()
	}
	return v.Name
}

// TestClaim: one is asked for until it is bound to its volume and not any more
// then, but for another pod; it is never watched.
func TestClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{})
		p := claimUser("one", "c")
		b.store.Keep([]*corev1.Pod{p})
		want := func(what, text string) {
			t.Helper()
			time.Sleep(2 * lastWait)
			if got := b.claimed(p); !strings.Contains(got, text) {
				t.Errorf("%s: %q, want %q", what, got, text)
			}
		}
		if _, err := b.store.Claim(p, &p.Spec.Volumes[0]); !isAbsent(err) {
			t.Errorf("at first: %v", err)
		}
		want("none", `error processing PVC ns/c: failed to fetch PVC from API server: persistentvolumeclaims "c" not found`)
		c := b.server.Put(claim("c", "", corev1.ClaimPending)).(*corev1.PersistentVolumeClaim)
		want("pending", "PVC is not bound")
		b.server.Put(claim("c", "v", corev1.ClaimBound))
		want("no volume", `failed to fetch PV v from API server: persistentvolumes "v" not found`)
		other := c.DeepCopy()
		other.UID = "another"
		local := corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/mnt"}}
		b.server.Put(volumeOf("v", other, local))
		want("another's volume", "found PV object v but its pv.Spec.ClaimRef.UID another does not point to claim.UID "+string(c.UID))
		b.news()
		b.claimed(p)
		b.server.Put(volumeOf("v", c, local))
		want("bound", "v")
		b.wantNews("bound", pod.ObjectRef{Kind: pod.ClaimKind, Namespace: "ns", Name: "c"})

		before := b.server.Calls("get")
		time.Sleep(24 * time.Hour)
		if n := b.server.Calls("get") - before; n != 0 || b.server.Calls("watch")+b.server.Calls("list") != 0 {
			t.Errorf("a bound claim was read %d times in a day", n)
		}
		two := claimUser("two", "c")
		b.store.Keep([]*corev1.Pod{p, two})
		b.store.Await(t.Context(), two)
		if got := b.claimed(two); got != "v" || b.server.Calls("get")-before != 2 {
			t.Errorf("for another pod it is %q after %d reads, want 2", got, b.server.Calls("get")-before)
		}
		b.wantNews("nothing changed")
		b.server.Delete(pod.ObjectRef{Kind: pod.ClaimKind, Namespace: "ns", Name: "c"})
		b.store.Keep([]*corev1.Pod{p, two, claimUser("three", "c")})
		want("deleted, as is known when another pod comes", "not found")
	})
}

// TestClaimRefused: what this node cannot mount is refused, and why.
func TestClaimRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{})
		host := corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/mnt"}}
		for name, x := range map[string]struct {
			source corev1.PersistentVolumeSource
			change func(*corev1.PersistentVolume)
			want   string
		}{
			"good":  {source: host, want: "good"},
			"nfs":   {source: corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}, want: `"nfs"`},
			"csi":   {source: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d"}}, want: `"csi"`},
			"block": {source: host, change: func(v *corev1.PersistentVolume) { v.Spec.VolumeMode = new(corev1.PersistentVolumeBlock) }, want: "volumeMode Block"},
			"here":  {source: host, change: func(v *corev1.PersistentVolume) { v.Spec.NodeAffinity = onNode("node") }, want: "here"},
			"there": {source: host, change: func(v *corev1.PersistentVolume) { v.Spec.NodeAffinity = onNode("other") }, want: "MountVolume.NodeAffinity check failed"},
			"ext4": {source: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/dev/x", FSType: new("ext4")}},
				want: "fsType"},
			"options": {source: host, change: func(v *corev1.PersistentVolume) { v.Spec.MountOptions = []string{"ro"} }, want: "mountOptions"},
		} {
			c := b.server.Put(claim(name, name, corev1.ClaimBound)).(*corev1.PersistentVolumeClaim)
			v := volumeOf(name, c, x.source)
			if x.change != nil {
				x.change(v)
			}
			b.server.Put(v)
			p := claimUser(name, name)
			b.store.Keep([]*corev1.Pod{p})
			if got := b.claimed(p); !strings.Contains(got, x.want) || !strings.Contains(got, name) {
				t.Errorf("%s: %q, want %q", name, got, x.want)
			}
		}
		// A claim that was made for a pod is that pod's.
		p := user("p")
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}}
		c := claim("p-v", "pv", corev1.ClaimBound)
		c = b.server.Put(c).(*corev1.PersistentVolumeClaim)
		b.server.Put(volumeOf("pv", c, host))
		b.store.Keep([]*corev1.Pod{p})
		if got := b.claimed(p); !strings.Contains(got, "was not created for pod ns/p (pod is not owner)") {
			t.Errorf("another's claim: %q", got)
		}
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: p.UID, Controller: new(true)}}
		b.server.Put(c)
		b.store.Keep(nil)
		b.store.Keep([]*corev1.Pod{p})
		if got := b.claimed(p); got != "pv" {
			t.Errorf("its own claim: %q", got)
		}
	})
}

func onNode(name string) *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "kubernetes.io/hostname", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}}}}}
}
