package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// world is a wish, and a Node that shows it.
func world(change func(*Facts, *Verdicts)) (*wanted, *corev1.Node) {
	f := Facts{Capacity: corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"),
		"pods": resource.MustParse("110"), "ephemeral-storage": resource.MustParse("1Gi")}, RuntimeVersion: "2.4.2"}
	f.Allocatable = f.Capacity
	v := Verdicts{Judged: true, Memory: new(false)}
	if change != nil {
		change(&f, &v)
	}
	id := &Identity{Name: "node", Hostname: "node", MaxImages: defaultImages, Version: "v1.36.3+nodeagent.test"}
	w := want(id, f, v)
	n := w.object(id)
	n.UID = "uid-1"
	return w, n
}

// TestPlan holds what is done, and when it is looked at again.
func TestPlan(t *testing.T) {
	w, n := world(nil)
	under, _ := world(func(_ *Facts, v *Verdicts) { v.Memory = new(true) })
	images, _ := world(func(f *Facts, _ *Verdicts) { f.Images = []Image{{Size: 1}} })
	message, notReady := world(func(_ *Facts, v *Verdicts) { v.NotReady = []error{errors.New("a")} })
	message2, _ := world(func(_ *Facts, v *Verdicts) { v.NotReady = []error{errors.New("b")} })
	now := time.Unix(1e9, 0)
	settled := last{uid: "uid-1", wanted: w, at: now.Add(-time.Minute), due: now.Add(time.Minute)}
	with := func(change func(*last)) last { l := settled; change(&l); return l }
	there := sighting{known: true, node: n}
	for _, c := range []struct {
		name     string
		w        *wanted
		s        sighting
		l        last
		register bool
		do       verb
		in       time.Duration // 0: when told
	}{
		{"not asked yet", w, sighting{}, last{}, true, wait, 0},
		{"there is none", w, sighting{known: true}, last{}, true, create, 0},
		{"there is none, and somebody else makes it", w, sighting{known: true}, last{}, false, wait, 0},
		{"there is one", w, there, last{}, true, patch, 0},
		{"another one", w, there, with(func(l *last) { l.uid = "uid-0" }), true, patch, 0},
		{"at rest", w, there, settled, true, wait, time.Minute},
		{"a condition", under, there, settled, true, patch, 0},
		{"a condition, once more", under, there, with(func(l *last) { l.credit = now.Add(13 * time.Second) }), true, wait, 3 * time.Second},
		{"images", images, there, settled, true, patch, 0},
		{"images, once more", images, there, with(func(l *last) { l.at = now.Add(-time.Second) }), true, wait, 9 * time.Second},
		{"a message", message2, sighting{true, notReady}, with(func(l *last) { l.wanted = message; l.at = now }), true, wait, 10 * time.Second},
		{"a report", w, there, with(func(l *last) { l.due = now }), true, patch, 0},
		{"what the server does not keep", images, there, with(func(l *last) { l.wanted = images; l.refused = images.diff(n, false).key() }), true, wait, time.Minute},
		{"a failure", under, there, with(func(l *last) { l.retry.until = now.Add(5 * time.Second) }), true, wait, 5 * time.Second},
		{"a rival", under, there, with(func(l *last) { l.yielded = true }), true, wait, 0},
	} {
		got := plan(c.w, c.s, c.l, c.register, now)
		if got.do != c.do {
			t.Errorf("%s: does %d, want %d", c.name, got.do, c.do)
		}
		if in := got.at.Sub(now); got.do == wait && (c.in == 0) != got.at.IsZero() || c.in > 0 && in != c.in {
			t.Errorf("%s: looks again at %s, want in %s", c.name, got.at, c.in)
		}
	}
	if got := plan(w, there, with(func(l *last) { l.due = now }), true, now); !got.report || got.change.any() {
		t.Errorf("a report is %+v", got)
	}
}

// TestPatchIsSmall: a report says the conditions and no more, a change only what
// changed.
func TestPatchIsSmall(t *testing.T) {
	w, n := world(nil)
	now := metav1.NewTime(time.Unix(1e9, 0))
	keys := func(w *wanted) string {
		text, err := w.patch(n, w.diff(n, false), now)
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Metadata, Status map[string]any }
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %d %v", len(p.Metadata), len(p.Status), p.Metadata["uid"])
	}
	if got := keys(w); got != "1 1 uid-1" {
		t.Errorf("a report has %s", got)
	}
	more, _ := world(func(f *Facts, _ *Verdicts) { f.Images = []Image{{Size: 1}} })
	if got := keys(more); got != "1 2 uid-1" {
		t.Errorf("a change of images has %s", got)
	}
}

// TestImagesAreBounded: the biggest few, in an order of our own.
func TestImagesAreBounded(t *testing.T) {
	var all []Image
	for i := range 2000 {
		all = append(all, Image{Names: strings.Split(strings.Repeat("n,", 20), ","), Size: int64(i % 7)})
	}
	if got := listed(all, 50); len(got) != 50 || got[0].SizeBytes != 6 || len(got[0].Names) != 5 {
		t.Errorf("%d images, the first is %v", len(got), got[0])
	}
	if got := listed(all, -1); len(got) != maxImages {
		t.Errorf("without a limit of the operator's, %d images", len(got))
	}
	if got := listed(nil, 0); got != nil {
		t.Errorf("no images are %v", got)
	}
}

// TestBackoffSpreads: nodes whose server comes back do not come together, and no
// answer takes a node away for long.
func TestBackoffSpreads(t *testing.T) {
	now, refused := time.Unix(1e9, 0), errors.New("refused")
	for failures := range 100 {
		var least, most time.Duration = time.Hour, 0
		for i := range 100 {
			d := backoff{failures: failures}.failed(refused, now, float64(i)/100).until.Sub(now)
			least, most = min(least, d), max(most, d)
		}
		if most > lastRetry || most < least*18/10 || least < firstRetry/2 {
			t.Errorf("after %d failures: from %s to %s", failures, least, most)
		}
	}
	asked := apierrors.NewTooManyRequests("later", 30)
	for _, dice := range []float64{0, 0.99} {
		if d := (backoff{}).failed(fmt.Errorf("write: %w", asked), now, dice).until.Sub(now); d < 30*time.Second || d > 38*time.Second {
			t.Errorf("asked for 30 s, waits %s", d)
		}
	}
	if d := (backoff{}).failed(apierrors.NewTooManyRequests("never", 1e6), now, 0).until.Sub(now); d > maxAsked {
		t.Errorf("asked for days, waits %s", d)
	}
	var l last
	w, n := world(nil)
	spread := map[time.Duration]bool{}
	for i := range 100 {
		spread[l.wrote(n, w, false, 5*time.Minute, now, float64(i)/100).due.Sub(now)] = true
	}
	if len(spread) != 100 {
		t.Errorf("nodes that changed together report at %d times", len(spread))
	}
}

// TestRenewalNeverGoesBack, whatever the clock and whoever wrote before.
func TestRenewalNeverGoesBack(t *testing.T) {
	base := &coordinationv1.Lease{}
	base.Spec.RenewTime = &metav1.MicroTime{Time: time.Unix(2e9, 0)}
	l := lease{}.saw(base, time.Unix(1e9, 0))
	at := base.Spec.RenewTime.Time
	for i := range 20 {
		next := l.renewal("node", "uid", 40*time.Second, time.Unix(1e9, 0))
		if !next.Spec.RenewTime.After(at) {
			t.Fatalf("from %s to %s", at, next.Spec.RenewTime)
		}
		at = next.Spec.RenewTime.Time
		if l = l.sending(next); i%3 == 0 { // the others are lost
			l = l.wrote(next)
		}
	}
	if len(l.sent) > maxSent {
		t.Errorf("it keeps %d", len(l.sent))
	}
}

// TestReady: all that is wrong is told; what nobody looks at is no health.
func TestReady(t *testing.T) {
	f := Facts{Capacity: corev1.ResourceList{"cpu": {}, "memory": {}, "pods": {}, "ephemeral-storage": {}}}
	two := Verdicts{Judged: true, NotReady: []error{errors.New("runtime is down"), errors.New("no network")}}
	for _, c := range []struct {
		v       Verdicts
		f       Facts
		status  corev1.ConditionStatus
		message string
	}{
		{Verdicts{Judged: true}, f, corev1.ConditionTrue, "kubelet is posting ready status"},
		{Verdicts{}, f, corev1.ConditionUnknown, "nodeagent does not know yet whether pods can run"},
		{two, f, corev1.ConditionFalse, "runtime is down, no network"},
		{Verdicts{Judged: true}, Facts{Capacity: corev1.ResourceList{"cpu": {}, "memory": {}, "pods": {}}}, corev1.ConditionFalse, "missing node capacity for resources: ephemeral-storage"},
	} {
		if got := ready(c.v, c.f); got.Status != c.status || got.Message != c.message {
			t.Errorf("%+v: %+v", c.v, got)
		}
	}
	long := Verdicts{Judged: true, NotReady: []error{errors.New(strings.Repeat("é", 1<<20))}}
	if got := ready(long, f); len(got.Message) > maxMessage+4 {
		t.Errorf("a message of %d bytes", len(got.Message))
	}
	if got := (Verdicts{Judged: true, Disk: new(true)}).Absent(); len(got) != 2 || got[0] != corev1.NodeMemoryPressure || got[1] != corev1.NodePIDPressure {
		t.Errorf("absent are %v", got)
	}
	all := conditions(Verdicts{Others: []corev1.NodeCondition{{Type: "ClockSkew"}}}, f)
	if len(all) != 5 || all[4].Type != corev1.NodeReady {
		t.Errorf("conditions are %v", all)
	}
}

// TestClockSkew: seconds are nothing, minutes are told.
func TestClockSkew(t *testing.T) {
	for ahead, want := range map[time.Duration]string{
		0: "agree", 59 * time.Second: "agree", -time.Minute: "agree",
		24 * time.Hour: "24h0m0s ahead of", -time.Hour: "1h0m0s behind", -1 << 63: "behind",
	} {
		c := ClockSkew(ahead)
		if !strings.Contains(c.Message, want) || (c.Status == corev1.ConditionTrue) == (want == "agree") {
			t.Errorf("%s: %+v", ahead, c)
		}
	}
}
