package cri

import (
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types"
	apitypes "k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// sandbox is the picture of one sandbox. Its lock serialises operations on it;
// the fields below are guarded by the state's mutex once the sandbox is in the
// state, except config, which never changes.
type sandbox struct {
	id   string
	lock lock
	// group serialises the first task of the sandbox with all others: two first
	// tasks at once would start two shims.
	group lock

	// committed is closed when the record is written, or failed to be.
	committed chan struct{}
	commitErr error // read after committed only

	config  *runtimeapi.PodSandboxConfig
	uid     apitypes.UID
	boot    string
	netns   string
	addrs   []netip.Addr
	handler string // of its containers; "" is the default
	created time.Time

	visible  bool // complete enough to be observed
	shimUp   bool // a first task has been made
	stopping bool // a stop is at work, and takes the pins away
	stopped  bool
	reason   string // why it is not ready; "" when it is
	seq      uint64 // of the state when it was added
}

func newSandbox(id string) *sandbox {
	return &sandbox{id: id, lock: newLock(), group: newLock(), committed: make(chan struct{})}
}

func (s *sandbox) commit(err error) {
	s.commitErr = err
	close(s.committed)
}

// hostNetwork tells that the sandbox has no network namespace of its own.
func (s *sandbox) hostNetwork() bool { return namespacesOf(s.config).hostNetwork() }

func (s *sandbox) observe() pod.Sandbox {
	meta := s.config.GetMetadata()
	grace, _ := strconv.ParseInt(s.config.GetLabels()[pod.LabelGrace], 10, 64)
	o := pod.Sandbox{
		ID: s.id, Attempt: meta.GetAttempt(), State: pod.SandboxReady, Stopped: s.stopped, Reason: s.reason,
		Created: s.created, Addrs: slices.Clone(s.addrs), HostNetwork: s.hostNetwork(), Grace: grace, Netns: s.netns,
	}
	if s.reason != "" || s.stopped {
		o.State = pod.SandboxNotReady
	}
	return o
}

// container is the picture of one container; guarded as sandbox is.
type container struct {
	id     string
	lock   lock
	noting sync.Mutex // from a change of stop until it is on disk

	uid                apitypes.UID
	namespace, podName string
	sandbox            string
	kind               string
	boot               string
	cgroup             string // path below each hierarchy's mount point
	signal             string // number of the stop signal
	snapshotter        string
	runtime            string // containerd's name of its shim
	info               pod.Container
	terminal           bool
	stdin, stdinOnce   bool
	mounts             []*types.Mount // of the snapshot; from create to start

	creating bool // its record is being written
	held     bool // it has ended, and is shown as running until that is on the record
	durable  bool // the exit is on the record
	tasked   bool // a task may exist
	asked    bool // the runtime was asked to start the task
	starting bool // StartContainer is at work
	stopping bool // StopContainer was called; removal is likely to follow
	removing bool
	exited   chan struct{} // closed when info.State becomes Exited
	stop     *stopRecord   // of the stop under way; nil: none
	seq      uint64
}

func newContainer(id, sandbox string, uid apitypes.UID) *container {
	return &container{id: id, sandbox: sandbox, uid: uid, kind: kindContainer, lock: newLock(), exited: make(chan struct{})}
}

// setExit marks the end. The caller holds the state's mutex or is the only
// owner; a second end of the same container is ignored.
func (c *container) setExit(e exitLabel) bool {
	if c.info.State == pod.ContainerExited {
		return false
	}
	c.info.State, c.info.ExitCode, c.info.Finished = pod.ContainerExited, e.Code, e.Finished
	c.info.OOMKilled, c.info.Reason, c.info.Message = e.OOM, e.Reason, e.Message
	if !e.Started.IsZero() {
		c.info.Started = e.Started
	}
	c.info.Pid = 0
	close(c.exited)
	return true
}

// state is everything this package knows, by id and by pod. Its mutex is never
// held over I/O.
type state struct {
	mu         sync.Mutex
	seq        uint64
	sandboxes  map[string]*sandbox
	containers map[string]*container
	pods       map[apitypes.UID]*members
	gone       map[string]uint64 // ids removed, by the seq of the removal
}

type members struct {
	namespace, name string
	sandboxes       map[string]*sandbox
	containers      map[string]*container
}

func newState() *state {
	return &state{
		sandboxes: map[string]*sandbox{}, containers: map[string]*container{},
		pods: map[apitypes.UID]*members{}, gone: map[string]uint64{},
	}
}

func (st *state) pod(uid apitypes.UID, namespace, name string) *members {
	m := st.pods[uid]
	if m == nil {
		m = &members{namespace: namespace, name: name, sandboxes: map[string]*sandbox{}, containers: map[string]*container{}}
		st.pods[uid] = m
	}
	return m
}

func (st *state) addSandbox(s *sandbox) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.seq++
	s.seq = st.seq
	st.sandboxes[s.id] = s
	meta := s.config.GetMetadata()
	st.pod(s.uid, meta.GetNamespace(), meta.GetName()).sandboxes[s.id] = s
}

func (st *state) addContainer(c *container) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.seq++
	c.seq = st.seq
	st.containers[c.id] = c
	st.pod(c.uid, c.namespace, c.podName).containers[c.id] = c
}

func (st *state) removeSandbox(s *sandbox) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.sandboxes, s.id)
	if m := st.pods[s.uid]; m != nil {
		delete(m.sandboxes, s.id)
		st.dropEmpty(s.uid, m)
	}
	st.forget(s.id)
}

func (st *state) removeContainer(c *container) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.containers, c.id)
	if m := st.pods[c.uid]; m != nil {
		delete(m.containers, c.id)
		st.dropEmpty(c.uid, m)
	}
	st.forget(c.id)
}

func (st *state) dropEmpty(uid apitypes.UID, m *members) {
	if len(m.sandboxes)+len(m.containers) == 0 {
		delete(st.pods, uid)
	}
}

// renew marks an object as younger than every relist that has begun: its record
// was written just now, and a list that was read before does not hold it.
func (st *state) renew(seq *uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.seq++
	*seq = st.seq
}

// forget remembers that id is gone until the next relist that began after now
// has ended: a list that was read before must not bring it back.
func (st *state) forget(id string) {
	st.seq++
	st.gone[id] = st.seq
}

func (st *state) sandbox(id string) (*sandbox, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if s := st.sandboxes[id]; s != nil {
		return s, nil
	}
	return nil, notFound("sandbox", id)
}

func (st *state) container(id string) (*container, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if c := st.containers[id]; c != nil {
		return c, nil
	}
	return nil, notFound("container", id)
}

// edit runs f under the state's mutex.
func (st *state) edit(f func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	f()
}

// Pods returns the uids of all pods of which the runtime holds anything, in no
// particular order.
func (n *Native) Pods() []apitypes.UID {
	st := n.state
	st.mu.Lock()
	defer st.mu.Unlock()
	out := make([]apitypes.UID, 0, len(st.pods))
	for uid := range st.pods {
		out = append(out, uid)
	}
	return out
}
