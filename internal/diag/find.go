package diag

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// NotFoundError tells that nothing of the node has the name asked for.
type NotFoundError struct{ What, Name, Hint string }

func (e *NotFoundError) Error() string {
	s := fmt.Sprintf("there is no %s %q", e.What, e.Name)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// AmbiguousError tells that a name means more than one thing.
type AmbiguousError struct {
	What, Name string
	Choices    []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q is not one %s; say which: %s", e.Name, e.What, strings.Join(e.Choices, ", "))
}

// minID is the shortest prefix of a container id that counts as one: shorter
// ones are more likely names.
const minID = 4

// Find returns the pod that name means: namespace/name, name, UID, a prefix of
// one of these that fits one pod only, or the start of a container id, whose
// container is returned too. Of several pods with the very same name, one that
// is wanted comes first, then the newest.
func (v *View) Find(name string) (*Pod, *Container, error) {
	if name == "" {
		return nil, nil, &NotFoundError{What: "pod", Name: name, Hint: `"nodeagent pods" lists them`}
	}
	for _, exact := range []func(*Pod) bool{
		func(p *Pod) bool { return p.FullName() == name },
		func(p *Pod) bool { return p.UID == name },
		func(p *Pod) bool { return p.Name == name },
	} {
		found := v.matching(exact)
		if p, one := sameName(found); one {
			return p, nil, nil
		}
		if len(found) > 0 {
			return nil, nil, ambiguous(name, found)
		}
	}
	if p, c, err := v.findContainer(name); p != nil || err != nil {
		return p, c, err
	}
	found := v.matching(func(p *Pod) bool {
		return strings.HasPrefix(p.FullName(), name) || strings.HasPrefix(p.Name, name) || strings.HasPrefix(p.UID, name)
	})
	if p, one := sameName(found); one {
		return p, nil, nil
	}
	if len(found) > 0 {
		return nil, nil, ambiguous(name, found)
	}
	return nil, nil, &NotFoundError{What: "pod", Name: name, Hint: `"nodeagent pods" lists them`}
}

func (v *View) matching(fits func(*Pod) bool) []*Pod {
	var found []*Pod
	for i := range v.Pods {
		if fits(&v.Pods[i]) {
			found = append(found, &v.Pods[i])
		}
	}
	return found
}

// sameName picks one of pods that all have the same full name.
func sameName(found []*Pod) (*Pod, bool) {
	if len(found) == 0 {
		return nil, false
	}
	for _, p := range found {
		if p.FullName() != found[0].FullName() {
			return nil, false
		}
	}
	return slices.MaxFunc(found, func(a, b *Pod) int {
		if a.Wanted != b.Wanted {
			return map[bool]int{true: 1, false: -1}[a.Wanted]
		}
		return cmp.Or(timeOf(a.Created).Compare(timeOf(b.Created)), strings.Compare(a.UID, b.UID))
	}), true
}

func ambiguous(name string, found []*Pod) error {
	e := &AmbiguousError{What: "pod", Name: name}
	for _, p := range found {
		e.Choices = append(e.Choices, p.FullName())
	}
	return e
}

func (v *View) findContainer(id string) (pod *Pod, container *Container, err error) {
	if len(id) < minID {
		return nil, nil, nil
	}
	var all []string
	for i := range v.Pods {
		for j := range v.Pods[i].Containers {
			if c := &v.Pods[i].Containers[j]; strings.HasPrefix(c.ID, id) {
				pod, container = &v.Pods[i], c
				all = append(all, c.ID)
			}
		}
	}
	if len(all) > 1 {
		return nil, nil, &AmbiguousError{What: "container id", Name: id, Choices: all}
	}
	return pod, container, nil
}

// Container returns the newest run of the named container, or, with no name, of
// the pod's only container; init containers are taken by name alone.
func (p *Pod) Container(name string) (*Container, error) {
	var choices []string
	var only *Container
	for i := range p.Containers {
		c := &p.Containers[i]
		if !c.Latest {
			continue
		}
		if c.Name == name {
			return c, nil
		}
		choices = append(choices, c.Name)
		if !c.Init {
			if only != nil {
				only = &Container{}
				continue
			}
			only = c
		}
	}
	if name != "" || len(choices) == 0 {
		hint := "it has " + strings.Join(choices, ", ")
		if len(choices) == 0 {
			hint = "it has none yet"
		}
		return nil, &NotFoundError{What: "container of pod " + p.FullName(), Name: name, Hint: hint}
	}
	if only == nil || only.Name == "" {
		return nil, &AmbiguousError{What: "container of pod " + p.FullName() + " (-c)", Name: name, Choices: choices}
	}
	return only, nil
}
