package away

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	pods   = 100
	shared = 25 // pods that share a ConfigMap and a Secret, one of which has a token
	hours  = 72
	growth = 10 << 20
)

// TestThreeDaysWithoutAPIServer: in 72 hours without an API server, in which each of
// 100 pods changes and has something to report every hour and certificates expire,
// what the daemon holds of it grows by 10 MiB at most; when the server is back, all is
// told within minutes.
func TestThreeDaysWithoutAPIServer(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin func(*server)
		end   func(*server)
	}{
		{"refused", func(s *server) { s.refuse.Store(true); s.cut() }, func(s *server) { s.refuse.Store(false) }},
		{"black hole", func(s *server) { s.freeze.Store(true) }, func(s *server) { s.freeze.Store(false); s.cut() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				defer s.close()
				s.fill()
				d := start(t, s, dir)
				defer d.stop()
				wait(10 * time.Minute)
				d.settled()
				before, cpu := heap(), cpuTime()
				c.begin(s)
				asked, lines := s.asked.Load(), d.log.lines
				for hour := range int32(hours) {
					d.live(hour)
					wait(time.Hour)
				}
				grown := heap() - before
				t.Logf("in %d h the heap went from %d to %d KiB (%+d KiB), %d goroutines; %d tries to connect and requests, %d lines of log, %v of CPU",
					hours, before>>10, (before+grown)>>10, grown>>10, runtime.NumGoroutine(), s.asked.Load()-asked, d.log.lines-lines, cpuTime()-cpu)
				if grown > growth {
					t.Errorf("the heap grew by %d KiB", grown>>10)
				}
				d.held()
				c.end(s)
				wait(20 * time.Minute)
				s.told(t)
			})
		})
	}
}

// fill gives the server 100 pods, and what they read: each object and token is tried by
// itself when there is no server, so that more of them take more time and hold no more.
func (s *server) fill() {
	for i := range pods / shared {
		meta := metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("o", i)}
		s.objects.Put(&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": fmt.Sprintf("%01024d", i)}})
		s.objects.Put(&corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"k": fmt.Appendf(nil, "%01024d", i)}})
	}
	for i := range pods {
		name, reads := fmt.Sprint("p", i), fmt.Sprint("o", i/shared)
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), Generation: 1}}
		p.Spec = corev1.PodSpec{NodeName: "node", ServiceAccountName: "default", Containers: []corev1.Container{{Name: "c", Image: "i"}}, Volumes: []corev1.Volume{
			{Name: "a", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: reads}}}},
			{Name: "b", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: reads}}},
		}}
		if i%shared == 0 {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(3607))}}}}}})
		}
		p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort}
		s.status.Add(p)
	}
}

// live lets each pod restart its container, and report it.
func (d *daemon) live(hour int32) {
	for _, p := range d.seen().Pods {
		p := p.DeepCopy()
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBestEffort, ObservedGeneration: 1,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "c", RestartCount: hour, Ready: true, Started: new(true), ContainerID: fmt.Sprintf("containerd://%s-%d", p.UID, hour),
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}}}
		d.pods.tell(p)
		d.events.Pod(p, "c", corev1.EventTypeNormal, "Started", fmt.Sprintf("Started container c, run %d", hour))
	}
}

// settled proves that everything was read while the server was there.
func (d *daemon) settled() {
	d.t.Helper()
	if n := len(d.seen().Pods); n != pods || !d.seen().Trusted {
		d.t.Fatalf("%d pods are known, want %d: %+v", n, pods, d.seen().Problems)
	}
	d.live(0)
	wait(time.Minute)
	d.held()
	if s := d.node.Show(); s.RenewError != "" || s.WriteError != "" {
		d.t.Fatalf("the node shows %+v", s)
	}
}

// held proves that what was read is still there.
func (d *daemon) held() {
	d.t.Helper()
	if n := len(d.seen().Pods); n != pods {
		d.t.Errorf("%d pods are known, want %d", n, pods)
	}
	for i := range pods / shared {
		m, err := d.objects.ConfigMap("default", fmt.Sprint("o", i))
		if err != nil || len(m.Data["k"]) != 1024 {
			d.t.Fatalf("ConfigMap %d is %v, %v", i, m, err)
		}
	}
}

// told proves that the server knows it all again.
func (s *server) told(t *testing.T) {
	t.Helper()
	all, _ := s.status.Pods()
	for _, p := range all {
		if len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].RestartCount != hours-1 {
			t.Fatalf("pod %s is told as %+v", p.Name, p.Status)
		}
	}
	if l := s.node.Lease(); l == nil || time.Since(l.Spec.RenewTime.Time) > time.Minute {
		t.Errorf("the lease is %+v, now is %s", l, time.Now())
	}
}

func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
