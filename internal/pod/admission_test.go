package pod

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// testAdmission is a node of 2 cores, 1 GiB and 3 pods with a label and a taint.
func testAdmission() Admission {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1", Labels: map[string]string{"disk": "ssd", corev1.LabelOSStable: "linux"}}}
	n.Status.Allocatable = quantities("cpu=2 memory=1Gi ephemeral-storage=10Gi pods=3 example.com/gpu=1 hugepages-2Mi=4Mi")
	n.Spec.Taints = []corev1.Taint{
		{Key: "no-schedule", Effect: corev1.TaintEffectNoSchedule},
		{Key: "evict", Value: "x", Effect: corev1.TaintEffectNoExecute},
	}
	return Admission{Node: n, OS: "linux"}
}

func quantities(text string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, f := range strings.Fields(text) {
		name, q, _ := strings.Cut(f, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(q)
	}
	return l
}

// asking is a pod with these requests that tolerates the taint.
func asking(uid, requests string, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := testPod(always, "", "a")
	p.UID = types.UID(uid)
	p.Spec.Containers[0].Resources.Requests = quantities(requests)
	p.Spec.Tolerations = []corev1.Toleration{{Key: "evict", Operator: corev1.TolerationOpExists}}
	for _, change := range changes {
		change(p)
	}
	return p
}

func port(ip string, number int32, protocol corev1.Protocol) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostIP: ip, HostPort: number, Protocol: protocol}}
	}
}

func affinity(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}}}}}}}
	}
}

func both(changes ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, change := range changes {
			change(p)
		}
	}
}

func priority(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Priority = &n }
}

func selector(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
}

func strict(p *corev1.Pod) {
	p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroupsPolicy: new(corev1.SupplementalGroupsPolicyStrict)}
}

func fromFile(p *corev1.Pod) { p.Annotations = map[string]string{annotationSource: "file"} }

func sysctlOf(p *corev1.Pod) {
	p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
}

func mapped(p *corev1.Pod) { p.Spec.HostUsers = new(false) }

func confined(p *corev1.Pod) {
	p.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}
}

// TestJudge holds each refusal's reason, and with two reasons which comes first.
func TestJudge(t *testing.T) {
	others := []*corev1.Pod{
		asking("o1", "cpu=1500m memory=512Mi", port("10.0.0.1", 80, "")),
		asking("o2", "example.com/gpu=1", port("", 53, corev1.ProtocolUDP)),
	}
	for _, c := range []struct {
		name   string
		pod    *corev1.Pod
		change func(*Admission)
		want   string // reason: beginning of the message; "" is admitted
		labels bool
	}{
		{name: "fits exactly", pod: asking("p", "cpu=500m memory=512Mi ephemeral-storage=10Gi")},
		{name: "nothing asked", pod: asking("p", "")},
		{name: "cpu", pod: asking("p", "cpu=501m memory=2Gi"), want: "OutOfcpu: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"},
		{name: "memory", pod: asking("p", "memory=513Mi"), want: "OutOfmemory: Node didn't have enough resource: memory, requested: 537919488, used: 536870912, capacity: 1073741824"},
		{name: "storage", pod: asking("p", "ephemeral-storage=11Gi"), want: "OutOfephemeral-storage: "},
		{name: "extended", pod: asking("p", "example.com/gpu=1"), want: "OutOfexample.com/gpu: "},
		{name: "extended, of the cluster", pod: asking("p", "example.com/license=1")},
		{name: "huge pages", pod: asking("p", "hugepages-2Mi=6Mi"), want: "OutOfhugepages-2Mi: "},
		{name: "huge pages that there are none of", pod: asking("p", "hugepages-1Gi=1Gi"), want: "OutOfhugepages-1Gi: "},
		{name: "pods", pod: asking("p", "cpu=9"), change: func(a *Admission) { a.Node.Status.Allocatable["pods"] = resource.MustParse("2") },
			want: "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"},
		{name: "critical pods get what kubelet would take for them", pod: asking("p", "cpu=9 memory=9Gi", priority(systemCritical))},
		{name: "but no device", pod: asking("p", "example.com/gpu=1", priority(systemCritical)), want: "OutOfexample.com/gpu: "},
		{name: "high is not critical", pod: asking("p", "cpu=9", priority(systemCritical-1)), want: "OutOfcpu: "},

		{name: "selector", pod: asking("p", "", selector("disk", "ssd"))},
		{name: "selector that does not fit", pod: asking("p", "", selector("disk", "hdd")), labels: true,
			want: "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		{name: "affinity", pod: asking("p", "", affinity("disk", "ssd"))},
		{name: "affinity that does not fit", pod: asking("p", "", affinity("disk", "hdd")), want: "NodeAffinity: ", labels: true},
		{name: "labels do not heal resources", pod: asking("p", "cpu=9", selector("disk", "hdd")), want: "OutOfcpu: "},
		{name: "labels do not heal ports", pod: asking("p", "", both(selector("disk", "hdd"), port("", 80, ""))), want: "NodeAffinity: "},
		{name: "operating system by selector, of a node without the label", pod: asking("p", "", selector(corev1.LabelOSStable, "linux")),
			change: func(a *Admission) { a.Node.Labels = nil }},
		{name: "operating system by selector", pod: asking("p", "", selector(corev1.LabelOSStable, "windows")), want: "NodeAffinity: ", labels: true},
		{name: "operating system by label", pod: asking("p", "cpu=9", func(p *corev1.Pod) { p.Labels = map[string]string{corev1.LabelOSStable: "windows"} }),
			want: "PodOSSelectorNodeLabelDoesNotMatch: "},
		{name: "operating system by field", pod: asking("p", "cpu=9", func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }),
			want: "PodOSNotSupported: "},
		{name: "another node", pod: asking("p", "", func(p *corev1.Pod) { p.Spec.NodeName = "node2" }), want: "NodeName: "},

		{name: "port", pod: asking("p", "", port("", 80, corev1.ProtocolTCP)),
			want: "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		{name: "port of another address", pod: asking("p", "", port("10.0.0.2", 80, ""))},
		{name: "port of another protocol", pod: asking("p", "", port("", 53, corev1.ProtocolTCP))},
		{name: "port that is every address's", pod: asking("p", "", port("10.0.0.2", 53, corev1.ProtocolUDP)), want: "NodePorts: "},

		{name: "taint", pod: asking("p", "", func(p *corev1.Pod) { p.Spec.Tolerations = nil }),
			want: "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"},
		{name: "taint by value", pod: asking("p", "", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "evict", Value: "x"}} })},
		{name: "taint by another value", pod: asking("p", "", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "evict", Value: "y"}} }), want: "TaintToleration: "},
		{name: "taint by another effect", pod: asking("p", "", func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
		}), want: "TaintToleration: "},
		{name: "static pods are not repelled", pod: asking("p", "", both(fromFile, func(p *corev1.Pod) { p.Spec.Tolerations = nil }))},

		{name: "groups, whatever the Node says", pod: asking("p", "", strict)},
		{name: "sysctl before resources", pod: asking("p", "cpu=9", sysctlOf), want: "SysctlForbidden: "},
		{name: "resources before AppArmor", pod: asking("p", "cpu=9", confined), change: func(a *Admission) { a.NoAppArmor = "no kernel" }, want: "OutOfcpu: "},
		{name: "AppArmor", pod: asking("p", "", confined), change: func(a *Admission) { a.NoAppArmor, a.ShuttingDown = "no kernel", true }, want: "AppArmor: "},
		{name: "not built, of a file", pod: asking("p", "", both(fromFile, mapped)), want: "UnsupportedField: spec.hostUsers "},
		{name: "not built, of the API server: it waits", pod: asking("p", "", mapped)},
		{name: "shutdown", pod: asking("p", ""), change: func(a *Admission) { a.ShuttingDown = true }, want: "NodeShutdown: "},

		{name: "pressure of memory", pod: asking("p", ""), change: pressed(corev1.NodeMemoryPressure), want: "Evicted: The node had condition: [MemoryPressure]. "},
		{name: "pressure of memory, burstable", pod: asking("p", "cpu=1m"), change: pressed(corev1.NodeMemoryPressure)},
		{name: "pressure of memory, tolerated", pod: asking("p", "", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists})
		}), change: pressed(corev1.NodeMemoryPressure)},
		{name: "pressure of disk", pod: asking("p", "cpu=1m", sysctlOf), change: pressed(corev1.NodeMemoryPressure, corev1.NodeDiskPressure), want: "Evicted: "},
		{name: "pressure, critical", pod: asking("p", "", priority(systemCritical)), change: pressed(corev1.NodeDiskPressure)},
		{name: "no node object", pod: asking("p", "cpu=9", selector("disk", "hdd")), change: func(a *Admission) { a.Node = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := testAdmission()
			if c.change != nil {
				c.change(&a)
			}
			r, labels := a.Judge(c.pod, others)
			if labels != c.labels {
				t.Errorf("labels alone: %t", labels)
			}
			got := ""
			if r != nil {
				got = r.Reason + ": " + r.Message
			}
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func pressed(by ...corev1.NodeConditionType) func(*Admission) {
	return func(a *Admission) { a.Pressure = by }
}

// born gives a pod its age, in minutes.
func born(minutes int) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.CreationTimestamp = metav1.NewTime(t0.Add(-time.Duration(minutes) * time.Minute))
	}
}

func phase(of corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase = of }
}

// TestDecide: who is judged, beside whom, and how long that stands. The node has
// room for one pod of 1500m.
func TestDecide(t *testing.T) {
	const large = "cpu=1500m"
	leaving := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: t0} }
	acknowledged := func(p *corev1.Pod) { p.Status.StartTime = &metav1.Time{Time: t0} }
	no := &Rejection{Reason: "Earlier"}
	for _, c := range []struct {
		name   string
		before Verdicts
		all    []Candidate
		want   string // the pods with their reasons
	}{
		{"the oldest comes first", nil, []Candidate{{Pod: asking("new", large, born(1))}, {Pod: asking("old", large, born(2))}}, "new=OutOfcpu old="},
		{"of one age, by uid", nil, []Candidate{{Pod: asking("b", large)}, {Pod: asking("a", large)}}, "a= b=OutOfcpu"},
		{"what the runtime holds is first, whatever its age", nil, []Candidate{{Pod: asking("old", large, born(2))}, {Pod: asking("held", large, born(1)), Held: true}}, "held= old=OutOfcpu"},
		{"what runs is not judged again", nil, []Candidate{{Pod: asking("a", large, selector("disk", "hdd")), Held: true}}, "a="},
		{"nor what an earlier daemon has taken on", nil, []Candidate{{Pod: asking("a", "cpu=9", acknowledged)}}, "a="},
		{"a refusal stands though there is room", Verdicts{"a": no}, []Candidate{{Pod: asking("a", "")}}, "a=Earlier"},
		{"an admission stands though there is none", Verdicts{"a": nil, "b": nil}, []Candidate{{Pod: asking("a", large)}, {Pod: asking("b", large)}}, "a= b="},
		{"who is refused uses nothing", Verdicts{"a": no}, []Candidate{{Pod: asking("a", large)}, {Pod: asking("b", large)}}, "a=Earlier b="},
		{"who is over uses nothing", Verdicts{"a": nil}, []Candidate{{Pod: asking("a", large), Held: true, Over: true}, {Pod: asking("b", large)}}, "a= b="},
		{"who is over by its status uses nothing", nil, []Candidate{{Pod: asking("a", large, phase(corev1.PodFailed))}, {Pod: asking("b", large)}}, "a= b="},
		{"who leaves uses what it holds", nil, []Candidate{{Pod: asking("a", large, leaving), Held: true}, {Pod: asking("b", large)}}, "a= b=OutOfcpu"},
		{"who leaves and holds nothing uses nothing", nil, []Candidate{{Pod: asking("a", large, leaving)}, {Pod: asking("b", large)}}, "a= b="},
		{"who has gone is forgotten", Verdicts{"gone": nil}, []Candidate{{Pod: asking("b", large)}}, "b="},
		{"of a label nobody is sure", nil, []Candidate{{Pod: asking("a", "", born(2), selector("disk", "hdd"))}, {Pod: asking("b", large)}}, "a? b="},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, unsure := testAdmission().Decide(c.before, c.all)
			if text := told(got, unsure); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
			again, unsure := testAdmission().Decide(got, c.all)
			if text := told(again, unsure); text != c.want && len(unsure) == 0 {
				t.Errorf("asked again: %s", text)
			}
		})
	}
	a := testAdmission()
	a.Fresh = true
	got, unsure := a.Decide(nil, []Candidate{{Pod: asking("a", "", selector("disk", "hdd"))}})
	if text := told(got, unsure); text != "a=NodeAffinity" {
		t.Errorf("with the node read anew: %s", text)
	}
}

func told(v Verdicts, unsure []types.UID) string {
	var all []string
	for uid, r := range v {
		reason := ""
		if r != nil {
			reason = r.Reason
		}
		all = append(all, string(uid)+"="+reason)
	}
	for _, uid := range unsure {
		all = append(all, string(uid)+"?")
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestOverByItsStatus: a pod that the API server knows to have ended starts nothing,
// though the node has lost all that it knew of it; what still runs of it is ended.
func TestOverByItsStatus(t *testing.T) {
	p := testPod(always, "", "a")
	p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfcpu", Message: "m"}
	d := Desired{Wish: WishRun, Pod: p}
	for _, c := range []struct {
		o    Observed
		want string
	}{{observed(nil), ""}, {observed(ready, "a#0@s0 running"), "StopContainer a0"}} {
		c.o.Dirty = false
		if got := show(Plan(d, c.o, t0)); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if s := Status(d, observed(nil), Node{}, p.Status, t0); s.Phase != corev1.PodFailed || s.Reason != "OutOfcpu" || s.Message != "m" {
		t.Errorf("status %+v", s)
	}
}
