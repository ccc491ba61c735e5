package diag

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/source"
)

// Runtime lists what the container runtime holds, without changing anything.
type Runtime interface {
	Snapshot(ctx context.Context) ([]pod.RuntimeState, error)
}

// Config says where to look.
type Config struct {
	Socket  string // of the daemon
	Runtime Runtime
	// Manifests reads what the manifest directory asks a node of that name for;
	// it is only called with the daemon dead.
	Manifests func(ctx context.Context, node string) (source.Snapshot, error)
	NodeName  string
	// Addrs are the node's addresses, which pods on its network have.
	Addrs []netip.Addr
	// Allowed is what pods of the node may ask for.
	Allowed pod.Allowed
	Now     func() time.Time

	// Cluster tells that pods may come from an API server, too.
	Cluster bool
	// Kept reads the pods of the API server that a dead daemon knew last; nil: none.
	Kept func() ([]*corev1.Pod, error)

	// What Explain asks besides with the daemon dead; each may be nil.
	// Health are the probes' verdicts that it left, by container id.
	Health func() (map[string]pod.Health, error)
	// HasImage tells whether an image is on the node.
	HasImage func(ctx context.Context, name string) (bool, error)
	// Mounts lists what is mounted in the directory of a pod.
	Mounts func(uid types.UID) ([]string, error)
}

// Eye looks at the node.
type Eye struct{ cfg Config }

// New returns an Eye; it looks at nothing yet.
func New(cfg Config) (*Eye, error) {
	if cfg.Socket == "" || cfg.Runtime == nil || cfg.Manifests == nil {
		return nil, errors.New("configure diagnostics: socket, runtime and manifests are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Eye{cfg: cfg}, nil
}

// ErrUnreachable tells that nobody answers who could know.
var ErrUnreachable = errors.New("neither the daemon nor containerd answers")

// Look joins what the daemon says with containerd's records; without a daemon
// it works the same out of the manifests, containerd's records and the kernel.
// ErrUnreachable is its only error besides ctx's.
func (e *Eye) Look(ctx context.Context) (*View, error) {
	v := &View{Source: FromDaemon, Pods: []Pod{}, Problems: []Problem{}, node: e.cfg.NodeName, facts: map[types.UID]pod.Facts{}, kept: map[types.UID]bool{}}
	wanted, daemonErr := daemon{e.cfg.Socket}.pods(ctx)
	states, runtimeErr := e.cfg.Runtime.Snapshot(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if daemonErr != nil && runtimeErr != nil {
		return nil, fmt.Errorf("%w: %w; %w", ErrUnreachable, daemonErr, runtimeErr)
	}
	if runtimeErr != nil {
		v.Notes = append(v.Notes, "containerd does not answer; shown from the daemon alone")
	}
	byUID := map[types.UID]pod.RuntimeState{}
	for _, s := range states {
		byUID[s.UID] = s
	}
	if daemonErr != nil {
		v.Source = FromRuntime
		v.Notes = append(v.Notes, "the daemon does not answer; shown from containerd and the kernel")
		wanted = e.rebuild(ctx, v, byUID)
	} else if problems, err := (daemon{e.cfg.Socket}).problems(ctx); err == nil {
		v.setProblems(problems)
	}
	for i := range wanted {
		v.Pods = append(v.Pods, wantedPod(&wanted[i], byUID[wanted[i].UID]))
		v.know(&wanted[i], byUID[wanted[i].UID])
		delete(byUID, wanted[i].UID)
	}
	for _, s := range byUID {
		v.Pods = append(v.Pods, foundPod(s))
		v.facts[s.UID] = pod.Facts{Desired: pod.Desired{Wish: pod.WishAbsent}, Observed: pod.Observed{RuntimeState: s}}
	}
	slices.SortFunc(v.Pods, func(a, b Pod) int {
		return strings.Compare(a.FullName()+" "+a.UID, b.FullName()+" "+b.UID)
	})
	return v, nil
}

func (v *View) setProblems(all []source.Problem) {
	for _, p := range all {
		v.Problems = append(v.Problems, Problem{File: p.File, Line: p.Line, Pod: p.Pod, Message: p.Message, Since: instant(p.Since)})
	}
}

// rebuild works out what the daemon would say: the manifests are what is wanted,
// the records and the kernel what there is, and the same function makes a status
// of them. Only what the daemon alone remembers, such as the error of the last
// pull, is missing.
func (e *Eye) rebuild(ctx context.Context, v *View, byUID map[types.UID]pod.RuntimeState) []corev1.Pod {
	kept := e.kept(v, byUID)
	snap, err := e.cfg.Manifests(ctx, e.cfg.NodeName)
	if other := otherNode(snap.Pods, e.cfg.NodeName, byUID); err == nil && other != "" {
		v.Notes = append(v.Notes, fmt.Sprintf("the containers here are of a node named %s, not %s; shown as the former (--hostname-override)", other, e.cfg.NodeName))
		v.node = other
		snap, err = e.cfg.Manifests(ctx, other)
	}
	if err != nil {
		v.Notes = append(v.Notes, fmt.Sprintf("cannot read the manifests, pods that have not started are missing: %v", err))
		return kept
	}
	v.setProblems(snap.Problems)
	v.objects = &snap.Objects
	now := e.cfg.Now()
	var all []corev1.Pod
	for _, p := range snap.Pods {
		d := pod.Desired{Wish: pod.WishRun, Pod: p, Rejected: pod.Admit(p, e.cfg.Allowed)}
		if r, rejected := snap.Rejected[p.UID]; rejected {
			d.Rejected = &r
		}
		v.facts[p.UID] = pod.Facts{Desired: d}
		out := *p // shallow: spec and metadata are only read
		out.Status = pod.Status(d, pod.Observed{RuntimeState: byUID[p.UID]}, pod.Node{Addrs: e.cfg.Addrs}, corev1.PodStatus{}, now)
		all = append(all, out)
	}
	return append(all, kept...)
}

// kept are the pods of the API server, as the daemon knew them last, with the status
// that follows from what is there. It leaves what they are to their facts.
func (e *Eye) kept(v *View, byUID map[types.UID]pod.RuntimeState) []corev1.Pod {
	if e.cfg.Kept == nil {
		return nil
	}
	pods, err := e.cfg.Kept()
	if err != nil {
		v.Notes = append(v.Notes, fmt.Sprintf("pods of the API server that have not started are missing: %v", err))
	}
	if len(pods) > 0 {
		v.Notes = append(v.Notes, "pods of the API server are shown as the daemon knew them last")
	}
	now := e.cfg.Now()
	var all []corev1.Pod
	for _, p := range pods {
		d := pod.Desired{Wish: pod.WishRun, Pod: p, Unbuilt: pod.Unbuilt(p, e.cfg.Allowed)}
		if p.DeletionTimestamp != nil {
			d.Wish = pod.WishAbsent
		}
		out := *p // shallow, as those of files
		out.Status = pod.Status(d, pod.Observed{RuntimeState: byUID[p.UID]}, pod.Node{Addrs: e.cfg.Addrs}, pod.Told(d, corev1.PodStatus{}), now)
		v.facts[p.UID] = pod.Facts{Desired: d, Told: new(out.Status)}
		v.kept[p.UID] = true
		all = append(all, out)
	}
	return all
}

// otherNode finds the name that the daemon gave the node where it is not ours,
// since a static pod's name ends with it and its UID is made of it; "" where ours
// fits or nothing tells.
func otherNode(wanted []*corev1.Pod, node string, found map[types.UID]pod.RuntimeState) string {
	other := ""
	for _, p := range wanted {
		if _, ours := found[p.UID]; ours {
			return ""
		}
		base := strings.TrimSuffix(p.Name, node) // with its dash
		for _, s := range found {
			name, fits := strings.CutPrefix(s.Name, base)
			switch {
			case !fits || s.Namespace != p.Namespace || name == node || name == "":
			case other != "" && other != name:
				return ""
			default:
				other = name
			}
		}
	}
	return other
}

// ReadManifests reads a manifest directory once.
func ReadManifests(ctx context.Context, cfg source.Config) (source.Snapshot, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first *source.Snapshot
	cfg.Emit = func(s source.Snapshot) {
		if first == nil {
			first = &s
		}
		cancel()
	}
	m, err := source.NewManifests(cfg)
	if err != nil {
		return source.Snapshot{}, err
	}
	if err := m.Run(ctx); err != nil {
		return source.Snapshot{}, err
	}
	if first == nil {
		return source.Snapshot{}, errors.New("read the manifests: interrupted")
	}
	return *first, nil
}
