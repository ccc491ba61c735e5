package compat

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"nodeagent/internal/pod"
	"nodeagent/internal/pod/validate"
)

const page = "../../docs/compatibility.md"

func rows(t *testing.T) map[string]Row {
	t.Helper()
	all, err := Read(page)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestEveryField: the page has each field of k8s.io/api, and no other.
func TestEveryField(t *testing.T) {
	all := rows(t)
	fields := Fields(func(field string) bool {
		s := all[field].State
		return s == Honoured || s == Partly
	})
	for _, f := range fields {
		if _, ok := all[f]; !ok {
			t.Errorf("%s is not in %s: say there what the node does with it, and refuse it by name if that is nothing", f, page)
		}
	}
	for f := range all {
		if !slices.Contains(fields, f) {
			t.Errorf("%s is in %s, and k8s.io/api has no such field below what is honoured", f, page)
		}
	}
	if len(fields) < 100 {
		t.Errorf("found %d fields only", len(fields))
	}
}

var (
	rowID    = regexp.MustCompile(`\b[A-Q][0-9]{1,2}\b`)
	testName = regexp.MustCompile(`\bTest[A-Z]\w+`)
)

// TestNotes: what is honoured names a row of coverage.md or a test that exist;
// what is not says why.
func TestNotes(t *testing.T) {
	coverage, err := os.ReadFile("../../docs/coverage.md")
	if err != nil {
		t.Fatal(err)
	}
	covered := map[string]bool{}
	for l := range strings.Lines(string(coverage)) {
		if cells := strings.SplitN(l, "|", 3); len(cells) == 3 {
			for _, id := range rowID.FindAllString(cells[1], -1) {
				covered[id] = true
			}
		}
	}
	for _, r := range rows(t) {
		ids, tests := rowID.FindAllString(r.Note, -1), testName.FindAllString(r.Note, -1)
		switch r.State {
		case Honoured:
			if len(ids)+len(tests) == 0 && !strings.HasPrefix(r.Note, "see ") {
				t.Errorf("%s is honoured, and no row or test proves it: %q", r.Field, r.Note)
			}
		case Partly, Refused, NoBusiness:
		default:
			t.Errorf("%s is %q: known are honoured, partly, refused, no business", r.Field, r.State)
		}
		for _, id := range ids {
			if !covered[id] {
				t.Errorf("%s: row %s is not in docs/coverage.md", r.Field, id)
			}
		}
		for _, name := range tests {
			if err := exec.CommandContext(t.Context(), "git", "grep", "-q", "func "+name+"(", "--", "../..").Run(); err != nil {
				t.Errorf("%s: there is no %s", r.Field, name)
			}
		}
	}
}

// TestRefused: a pod that sets a field which the page calls refused, or a value
// which it calls refused, is refused by that name; and the sample is refused for
// nothing else.
func TestRefused(t *testing.T) {
	all := rows(t)
	for _, r := range all {
		_, ok := samples[r.Field]
		if r.State == Refused && !ok {
			t.Errorf("%s is said to be refused, and no sample proves it", r.Field)
		}
	}
	if why := judge(base(t)); len(why) > 0 {
		t.Fatalf("a plain pod is refused: %v", why)
	}
	for field, s := range samples {
		if st := all[field].State; st != Refused && st != Partly {
			t.Errorf("%s has a sample that shall be refused, and is said to be %q", field, st)
			continue
		}
		p := base(t)
		s.lay(t, p)
		why := judge(p)
		if len(why) == 0 {
			t.Errorf("%s is said to be refused, and the node would run %s", field, s.text)
		}
		_, name, _ := strings.Cut(field, ".")
		for _, w := range why {
			if !strings.Contains(w, name) && (s.says == "" || !strings.Contains(w, s.says)) {
				t.Errorf("%s is refused by %q, which does not name it", field, w)
			}
		}
	}
}

// TestAccepted: what is honoured or no business of the node lets a pod run.
func TestAccepted(t *testing.T) {
	all := rows(t)
	for field, s := range accepted {
		if st := all[field].State; st != Honoured && st != Partly && st != NoBusiness {
			t.Errorf("%s has a sample that shall run, and is said to be %q", field, st)
			continue
		}
		p := base(t)
		s.lay(t, p)
		if why := judge(p); len(why) > 0 {
			t.Errorf("%s is said to be %s, and %s is refused: %v", field, all[field].State, s.text, why)
		}
	}
}

func base(t *testing.T) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	p.Name, p.Namespace = "p", "default"
	if err := yaml.UnmarshalStrict([]byte(`{containers: [{name: c, image: i}], initContainers: [{name: i, image: i}]}`), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

// judge says all that keeps a static pod from running here, as the daemon finds
// it: first the manifest, then, if that is taken, the pod.
func judge(p *corev1.Pod) []string {
	validate.Default(p)
	var why []string
	for _, e := range append(append(validate.Validate(p), validate.Younger(p)...), validate.Static(p)...) {
		why = append(why, e.Error())
	}
	if len(why) == 0 {
		if r := pod.Admit(p, pod.Allowed{Handlers: []string{"other"}, NoAppArmor: "", SELinux: true}); r != nil {
			why = append(why, r.Reason+": "+r.Message)
		}
	}
	return why
}
