package status_test

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/status"
)

// fromFile is a static pod as the manifest directory gives it.
func fromFile(name, uid string) *corev1.Pod {
	p := bound(name, uid)
	p.Labels = map[string]string{"app": name}
	p.Annotations = map[string]string{
		"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": uid, "kubernetes.io/config.seen": "2026-01-01T00:00:00Z",
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	return p
}

func (b *bed) static(trusted bool, pods ...*corev1.Pod) {
	b.writer.OfferStatic(status.Static{Pods: pods, Trusted: trusted})
	synctest.Wait()
}

const createPod, patchDNS, deleteDNS = "create pods", "patch pods/status dns", "delete pods dns"

// TestMirror: a static pod is shown by a mirror pod of the Node's from its beginning to
// its end.
func TestMirror(t *testing.T) {
	live(t, func(b *bed) {
		dns := fromFile("dns", "hash-1")
		b.static(true, dns)
		running := with(dns, corev1.PodRunning, true, 0)
		b.pods.tell(running, false)
		b.asked("when it runs", createPod, patchDNS)
		m := b.api.Pod("default", "dns")
		owner := metav1.GetControllerOf(m)
		if owner == nil || owner.Kind != "Node" || owner.Name != "node" || owner.UID != "node-uid" || owner.BlockOwnerDeletion != nil {
			t.Errorf("the mirror belongs to %+v", owner)
		}
		for a, want := range map[string]string{"mirror": "hash-1", "hash": "hash-1", "source": "file", "seen": "2026-01-01T00:00:00Z"} {
			if got := m.Annotations["kubernetes.io/config."+a]; got != want {
				t.Errorf("annotation %s is %q, want %q", a, got, want)
			}
		}
		if m.UID == dns.UID || m.Labels["app"] != "dns" || m.Spec.NodeName != "node" || m.Status.Phase != corev1.PodRunning || readyOf(m) != corev1.ConditionTrue {
			t.Errorf("the mirror is %+v", m)
		}
		if _, changed := dns.Annotations[corev1.MirrorPodAnnotationKey]; changed {
			t.Error("the static pod was changed")
		}
		time.Sleep(time.Hour)
		b.asked("at rest")
		b.static(true) // the file goes; the pod takes its time
		b.pods.tell(running, false)
		time.Sleep(20 * time.Second)
		b.asked("while it ends")
		b.pods.tell(with(dns, corev1.PodSucceeded, false, 0), true)
		b.asked("when it is gone", deleteDNS)
		time.Sleep(time.Hour)
		b.asked("after its end")
	})
}

// TestMirrorComesBack: who deletes or changes a mirror pod gets another, and the static
// pod knows nothing of it.
func TestMirrorComesBack(t *testing.T) {
	live(t, func(b *bed) {
		dns := fromFile("dns", "hash-1")
		b.static(true, dns)
		b.pods.tell(with(dns, corev1.PodRunning, true, 4), false)
		synctest.Wait()
		first := b.api.Pod("default", "dns").UID
		b.api.Asked()
		b.api.Delete("default", "dns", false)
		b.asked("after kubectl delete", deleteDNS, createPod, patchDNS)
		second := b.api.Pod("default", "dns")
		if second.UID == first || second.DeletionTimestamp != nil || second.Status.ContainerStatuses[0].RestartCount != 4 {
			t.Errorf("the mirror is %+v, want a new one that says the same", second)
		}
		b.api.Delete("default", "dns", true)
		b.asked("after kubectl delete --force", createPod, patchDNS)
		time.Sleep(time.Minute) // else it is limited
		b.api.Edit("default", "dns", func(p *corev1.Pod) { p.Annotations["kubernetes.io/config.source"] = "api" })
		b.asked("after somebody changed what it says to be", deleteDNS, createPod, patchDNS)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.node.UID = "node-uid-2"
		b.writer.NodeChanged()
		b.asked("after the Node was made anew", deleteDNS, createPod, patchDNS)
		for range 1000 {
			b.api.Delete("default", "dns", true)
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(b.api.Asked()); n > 250 {
			t.Errorf("%d requests against who deletes it all the time, want them limited", n)
		}
	})
}

// TestMirrorOfEdited: a static pod whose file was changed is another pod: its mirror
// follows when the old one has ended.
func TestMirrorOfEdited(t *testing.T) {
	live(t, func(b *bed) {
		before, after := fromFile("dns", "hash-1"), fromFile("dns", "hash-2")
		b.static(true, before)
		b.pods.tell(with(before, corev1.PodRunning, true, 2), false)
		synctest.Wait()
		b.static(true, after)
		time.Sleep(10 * time.Second)
		b.api.Asked()
		b.pods.tell(with(before, corev1.PodSucceeded, false, 2), true)
		synctest.Wait()
		b.pods.tell(with(after, corev1.PodRunning, true, 0), false)
		b.asked("when the new one runs", deleteDNS, createPod, patchDNS)
		m := b.api.Pod("default", "dns")
		if m.Annotations[corev1.MirrorPodAnnotationKey] != "hash-2" || m.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("the mirror is %+v, want one of the new pod", m)
		}
	})
}

// TestMirrorLeftOver: a mirror of a pod that nobody wants any more goes when the
// manifests can be trusted, and no earlier: a file may be broken for now.
func TestMirrorLeftOver(t *testing.T) {
	live(t, func(b *bed) {
		dns, old := fromFile("dns", "hash-1"), fromFile("old", "hash-0")
		b.static(true, dns, old)
		b.pods.tell(with(dns, corev1.PodRunning, true, 0), false)
		b.pods.tell(with(old, corev1.PodRunning, true, 0), false)
		synctest.Wait()
		b.api.Asked()
		b.stop()
		clear(b.pods.pods)
		b.start()
		time.Sleep(time.Minute)
		b.asked("before the manifests were read")
		b.static(false, dns)
		time.Sleep(time.Minute)
		b.asked("while a manifest is broken")
		b.static(true, dns)
		b.asked("when all manifests are known", "delete pods old")
		b.pods.tell(with(dns, corev1.PodRunning, true, 0), false)
		time.Sleep(time.Minute)
		b.api.Asked()
		if m := b.api.Pod("default", "dns"); m == nil {
			t.Error("the mirror of a wanted pod is gone")
		}
	})
}

// TestMirrorWaits: there is no mirror without a Node, and none in place of a pod that is
// somebody else's.
func TestMirrorWaits(t *testing.T) {
	live(t, func(b *bed) {
		b.node.UID = ""
		dns := fromFile("dns", "hash-1")
		b.static(true, dns)
		b.api.Add(bound("dns", "others"))
		b.pods.tell(with(dns, corev1.PodRunning, true, 0), false)
		time.Sleep(time.Minute)
		b.asked("without a Node")
		b.node.UID = "node-uid"
		b.writer.NodeChanged()
		time.Sleep(time.Hour)
		if n := len(b.api.Asked()); n < 10 || n > 150 {
			t.Errorf("%d requests in an hour while a pod of somebody else has the name, want about two a minute", n)
		}
		if p := b.api.Pod("default", "dns"); p == nil || p.UID != "others" || p.Status.Phase != corev1.PodPending {
			t.Errorf("the pod of somebody else is %+v", p)
		}
		b.api.Delete("default", "dns", true)
		time.Sleep(2 * time.Minute)
		if m := b.api.Pod("default", "dns"); m == nil || m.Annotations[corev1.MirrorPodAnnotationKey] != "hash-1" {
			t.Errorf("there is %+v, want the mirror", m)
		}
	})
}

// TestMirrorLostAnswer: a mirror whose making was not answered is found, not made twice.
func TestMirrorLostAnswer(t *testing.T) {
	live(t, func(b *bed) {
		b.see(false)
		dns := fromFile("dns", "hash-1")
		b.static(true, dns)
		b.api.Faults(loseFirst("create"))
		b.pods.tell(with(dns, corev1.PodRunning, true, 0), false)
		time.Sleep(5 * time.Second)
		_, mirrors := b.api.Pods()
		if len(mirrors) != 1 || mirrors[0].UID == types.UID("hash-1") || readyOf(mirrors[0]) != corev1.ConditionTrue {
			t.Errorf("there are %+v, want one mirror that says that the pod is ready", mirrors)
		}
	})
}
