package source

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// emit hands over a snapshot where anything changed since the latest.
func (m *Manifests) emit() {
	if trust := m.trusted || m.allKnown(); trust != m.trusted {
		m.trusted, m.changed = trust, true
	}
	if !m.changed {
		return
	}
	m.changed = false
	s := Snapshot{Source: sourceFile, Synced: true, Trusted: m.trusted}
	m.addPods(&s)
	m.addObjects(&s)
	m.addProblems(&s)
	m.cfg.Emit(s)
}

// allKnown says that each file of the directory was understood at least once.
func (m *Manifests) allKnown() bool {
	if m.here == (place{}) || !m.listed {
		return false
	}
	for _, f := range m.files {
		if !f.understood {
			return false
		}
	}
	return true
}

// addPods lists all pods. Where two files want one pod, the file whose name
// sorts first has it, whichever came first: the same directory always gives the
// same pods, so a restart of the daemon changes none.
func (m *Manifests) addPods(s *Snapshot) {
	names := make(map[types.NamespacedName]string, len(m.files))
	uids := make(map[types.UID]string, len(m.files))
	doubles := map[string]time.Time{}
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		for _, w := range m.files[name].pods {
			if w.pod == nil {
				continue
			}
			full := types.NamespacedName{Namespace: w.pod.Namespace, Name: w.pod.Name}
			if first := cmp.Or(names[full], uids[w.pod.UID]); first != "" {
				key := name + "\x00" + fullName(w.pod)
				doubles[key] = m.doubles[key]
				if doubles[key].IsZero() {
					doubles[key] = time.Now()
				}
				s.Problems = append(s.Problems, Problem{
					File: m.fileOf(name), Pod: fullName(w.pod), Since: doubles[key],
					Message: fmt.Sprintf(doubled+"%s has one of the same name or uid, and sorts first", first),
				})
				continue
			}
			names[full], uids[w.pod.UID] = name, name
			s.add(w)
		}
	}
	m.doubles = doubles
}

// doubled begins what is said of a second manifest of one pod.
const doubled = "pod is not taken from here: "

func (s *Snapshot) add(w wanted) {
	s.Pods = append(s.Pods, w.pod)
	if w.rejected == nil {
		return
	}
	if s.Rejected == nil {
		s.Rejected = map[types.UID]pod.Rejection{}
	}
	s.Rejected[w.pod.UID] = *w.rejected
}

func (m *Manifests) addProblems(s *Snapshot) {
	for _, p := range m.problems {
		s.Problems = append(s.Problems, p)
	}
	for name, f := range m.files {
		for _, w := range f.wrong {
			s.Problems = append(s.Problems, Problem{File: m.fileOf(name), Line: w.line, Pod: w.pod, Message: w.message, Since: f.since})
		}
	}
	slices.SortFunc(s.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
}

// fileOf is the path of a file, also while its directory is away.
func (m *Manifests) fileOf(name string) string {
	if m.here != (place{}) {
		return m.path(name)
	}
	if m.asFile {
		return m.cfg.Path
	}
	return m.cfg.Path + "/" + name
}
