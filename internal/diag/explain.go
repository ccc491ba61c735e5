package diag

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/source"
)

// Explain tells the gates of the pod that name means (see Find), or of the pod of a
// manifest that cannot be used. The daemon tells where it answers; else the same is
// worked out of what was seen, and of what it left.
func (e *Eye) Explain(ctx context.Context, v *View, name string) (*pod.Explanation, error) {
	awaited := map[string]types.UID{}
	if v.Source == FromDaemon {
		for _, p := range e.awaited(ctx) {
			awaited[p.Namespace+"/"+p.Name] = p.UID
			v.Pods = append(v.Pods, wantedPod(&p, pod.RuntimeState{}))
			v.know(&p, pod.RuntimeState{})
		}
	}
	p, _, err := v.Find(name)
	if missing := (*NotFoundError)(nil); errors.As(err, &missing) || err == nil && !v.exactly(p, name) {
		if x := v.refused(name, e.cfg.Now()); x != nil {
			return x, nil
		}
	}
	if err != nil {
		return nil, err
	}
	uid := types.UID(p.UID)
	if later, ok := awaited[p.FullName()]; ok && name != p.UID {
		uid = later // it is the one that is wanted
	}
	if v.Source == FromDaemon {
		var x pod.Explanation
		err := daemon{e.cfg.Socket}.get(ctx, "explain?uid="+url.QueryEscape(string(uid)), &x)
		if err == nil {
			return &x, nil
		}
		v.Notes = append(v.Notes, fmt.Sprintf("the daemon does not tell how the gates of the pod stand; worked out of its status and containerd's records: %v", err))
	}
	return e.workOut(ctx, v, uid, name == p.UID), nil
}

func (e *Eye) awaited(ctx context.Context) []corev1.Pod {
	var list []corev1.Pod
	if err := (daemon{e.cfg.Socket}).get(ctx, "awaited", &list); err != nil {
		return nil // an earlier version's daemon: it has none to tell of
	}
	return list
}

// know keeps what was seen of a pod that somebody wants.
func (v *View) know(p *corev1.Pod, s pod.RuntimeState) {
	f := v.facts[p.UID]
	if f.Desired.Pod == nil { // the daemon's word, with its status
		f.Desired = pod.Desired{Wish: pod.WishRun, Pod: p}
		if p.DeletionTimestamp != nil || p.DeletionGracePeriodSeconds != nil {
			f.Desired.Wish = pod.WishAbsent
		}
		f.Told = &p.Status
	}
	f.Observed.RuntimeState = s
	v.facts[p.UID] = f
}

// refused explains a pod of which there is nothing but a manifest that cannot be used.
func (v *View) refused(name string, now time.Time) *pod.Explanation {
	var f pod.Facts
	for _, p := range v.Problems {
		if !p.means(name, v.node) {
			continue
		}
		f.Refused = append(f.Refused, p.refusal())
		if f.Name == "" {
			f.Name = name
		}
		if p.Pod != "" {
			f.Namespace, f.Name, _ = strings.Cut(p.Pod, "/")
		}
	}
	if f.Refused == nil {
		return nil
	}
	f.Dead = v.Source != FromDaemon
	return new(pod.Explain(f, now))
}

// workOut explains a pod without the daemon's word.
func (e *Eye) workOut(ctx context.Context, v *View, uid types.UID, exact bool) *pod.Explanation {
	f := v.facts[uid]
	f.Dead = v.Source != FromDaemon
	p := f.Desired.Pod
	if p == nil || f.Desired.Wish == pod.WishAbsent {
		f.Mounts, f.Unsure = e.mounts(v, uid), f.Dead && e.cfg.Cluster
		return new(pod.Explain(f, e.cfg.Now()))
	}
	for _, problem := range v.Problems {
		if problem.source().About(p.Namespace, p.Name, v.node) {
			f.Refused = append(f.Refused, problem.refusal())
		}
	}
	if f.Dead {
		e.readLeft(ctx, v, &f)
	}
	var earlier *pod.Explanation
	if f.Observed.RuntimeState.Empty() && !exact {
		if at := v.sameName(p); at != "" {
			f.Behind, earlier = at, e.workOut(ctx, v, at, true)
		}
	}
	x := pod.Explain(f, e.cfg.Now())
	x.Earlier = earlier
	return &x
}

// readLeft adds what a dead daemon left: verdicts of probes, images, and of a static pod
// the objects in files.
func (e *Eye) readLeft(ctx context.Context, v *View, f *pod.Facts) {
	if e.cfg.Health != nil {
		health, err := e.cfg.Health()
		if err != nil {
			v.Notes = append(v.Notes, fmt.Sprintf("cannot read what the probes said: %v", err))
		}
		f.Observed.Health = health
	}
	f.Images = map[string]bool{}
	for _, list := range [][]corev1.Container{f.Desired.Pod.Spec.InitContainers, f.Desired.Pod.Spec.Containers} {
		for i := range list {
			if e.cfg.HasImage == nil {
				break
			}
			if has, err := e.cfg.HasImage(ctx, list[i].Image); err == nil {
				f.Images[list[i].Image] = has
			}
		}
	}
	if v.kept[f.Desired.Pod.UID] {
		return // its objects are the API server's, whom nobody asks here
	}
	f.Lacks = map[pod.ObjectRef]bool{}
	for _, ref := range pod.References(f.Desired.Pod) {
		f.Lacks[ref] = v.objects != nil && !v.objects.Has(ref)
	}
}

func (e *Eye) mounts(v *View, uid types.UID) []string {
	if e.cfg.Mounts == nil {
		return nil
	}
	all, err := e.cfg.Mounts(uid)
	if err != nil {
		v.Notes = append(v.Notes, fmt.Sprintf("cannot read what is mounted in the pod's directory: %v", err))
	}
	return all
}

// sameName finds an earlier pod of the same name that the runtime holds.
func (v *View) sameName(p *corev1.Pod) types.UID {
	for uid, f := range v.facts {
		s := f.Observed.RuntimeState
		if uid != p.UID && !s.Empty() && s.Namespace == p.Namespace && s.Name == p.Name {
			return uid
		}
	}
	return ""
}

// exactly tells whether the name is the pod's, but for its node and its namespace.
func (v *View) exactly(p *Pod, name string) bool {
	_, short, slash := strings.Cut(name, "/")
	if !slash {
		short = name
	}
	return name == p.UID || short == p.Name || short+"-"+strings.ToLower(v.node) == p.Name
}

// means tells whether the problem is of the pod, or in the file, that is called so.
func (p Problem) means(name, node string) bool {
	if name == p.File || name == filepath.Base(p.File) {
		return true
	}
	_, short, slash := strings.Cut(name, "/")
	if !slash {
		short = name
	}
	node = strings.ToLower(node)
	at := source.Problem{File: p.File}
	if p.Pod == "" || !slash && at.About("", short, node) {
		return at.About("", short, node)
	}
	own := strings.TrimSuffix(p.Pod, "-"+node)
	_, base, _ := strings.Cut(own, "/")
	_, full, _ := strings.Cut(p.Pod, "/")
	return name == p.Pod || name == own || name == base || name == full
}

func (p Problem) source() source.Problem {
	return source.Problem{File: p.File, Line: p.Line, Pod: p.Pod, Message: p.Message, Since: timeOf(p.Since)}
}

func (p Problem) refusal() pod.Refusal { return p.source().Refusal() }
