package stats

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene is a node with pods whose cgroups, networks and disks are values.
type scene struct {
	mu      sync.Mutex
	pods    []*corev1.Pod
	states  map[types.UID]pod.RuntimeState
	cgroups map[string]Figures
	broken  map[string]error
	reads   int // of the node's cgroup
	wait    chan struct{}
	network map[string][]Interface
	volumes map[types.UID][]Volume
	layers  map[string]Space
	counted []string // layers, in order
	slow    map[string]bool
}

func newScene() *scene {
	return &scene{
		states: map[types.UID]pod.RuntimeState{}, broken: map[string]error{}, layers: map[string]Space{}, slow: map[string]bool{},
		cgroups: map[string]Figures{
			"/":         {Usage: Usage{CPUNanos: 90e9, MemoryBytes: 900, MemoryWorkingSet: 700, SwapBytes: 3}},
			"/kubepods": {Usage: Usage{CPUNanos: 50e9, MemoryBytes: 500, MemoryWorkingSet: 400}},
		},
		network: map[string][]Interface{"": {{Name: "eth0", RxBytes: 11, TxBytes: 12}}},
	}
}

func (s *scene) meter(t *testing.T) *Meter {
	t.Helper()
	m, err := New(Config{
		NodeName: "node", Machine: Machine{CPUs: 2, Memory: 1000, Swap: 10, Boot: time.Unix(1000, 0), BootID: "b", Kernel: "6.1"},
		Pods: s, Runtime: s, Cgroups: s, Network: s, Disk: s, Proc: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run adds a pod of which containers run, each with those figures.
func (s *scene) run(namespace, name string, containers map[string]Figures) *corev1.Pod {
	uid := types.UID("uid-" + name)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}}
	state := pod.RuntimeState{UID: uid, Sandboxes: []pod.Sandbox{{ID: "sb-" + name, State: pod.SandboxReady, Netns: "/run/netns/" + name, Created: time.Unix(2000, 0)}}}
	path, _ := s.PodPath(uid, "")
	for c, f := range containers {
		state.Containers = append(state.Containers, pod.Container{ID: "id-" + name + "-" + c, Name: c, Image: "img", State: pod.ContainerRunning,
			Started: time.Unix(3000, 500e6), LogPath: "/logs/" + name + "/" + c + "/0.log"})
		s.cgroups[s.ContainerCgroup(path, "id-"+name+"-"+c)] = f
		whole := s.cgroups[path]
		whole.CPUNanos, whole.MemoryWorkingSet = whole.CPUNanos+f.CPUNanos, whole.MemoryWorkingSet+f.MemoryWorkingSet
		s.cgroups[path] = whole
	}
	s.pods, s.states[uid] = append(s.pods, p), state
	s.network["/run/netns/"+name] = []Interface{{Name: "eth0", RxBytes: 1, TxBytes: 2, RxPackets: 3, TxDropped: 4}}
	return p
}

func (s *scene) Pods() []*corev1.Pod                      { return s.pods }
func (s *scene) Observe(uid types.UID) pod.RuntimeState   { return s.states[uid] }
func (s *scene) ContainerCgroup(parent, id string) string { return parent + "/" + id }
func (s *scene) Kubepods() string                         { return "/kubepods" }
func (s *scene) PodPath(uid types.UID, _ corev1.PodQOSClass) (string, error) {
	return "/kubepods/pod" + string(uid), nil
}

func (s *scene) Figures(ctx context.Context, cgroup string) (Figures, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cgroup == "/" {
		s.reads++
		if s.wait != nil {
			<-s.wait
		}
	}
	if err := s.broken[cgroup]; err != nil {
		return Figures{}, err
	}
	f, ok := s.cgroups[cgroup]
	if !ok {
		return Figures{}, os.ErrNotExist
	}
	return f, ctx.Err()
}

func (s *scene) Counters(_ context.Context, netns []string) map[string][]Interface {
	out := map[string][]Interface{}
	for _, path := range netns {
		if all, ok := s.network[path]; ok {
			out[path] = all
		}
	}
	return out
}

func (s *scene) FileSystems(context.Context) (node, images FileSystem, err error) {
	at := time.Now()
	return FileSystem{"/dev/a", at, 100, 40, 50, 20, 8}, FileSystem{"/dev/b", at, 1000, 400, 500, 200, 80}, nil
}

func (s *scene) Volumes(context.Context, []*corev1.Pod) map[types.UID][]Volume { return s.volumes }

func (s *scene) Layer(ctx context.Context, container string) (bytes, inodes uint64, err error) {
	s.counted = append(s.counted, container)
	if s.slow[container] {
		<-ctx.Done()
		return 0, 0, ctx.Err()
	}
	return s.layers[container].Bytes, s.layers[container].Inodes, nil
}

func (s *scene) Logs(string) (bytes, inodes uint64, err error) { return 7, 1, nil }

// figures are a page as a scraper reads it: by name, and then by labels.
type figures map[string]map[string]float64

// scrape writes and reads one, with the parser of those who scrape.
func scrape(t *testing.T, write func(context.Context, *bytes.Buffer) error) figures {
	t.Helper()
	var text bytes.Buffer
	if err := write(t.Context(), &text); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text.Bytes()))
	if err != nil {
		t.Fatalf("a scraper cannot read it: %v\n%s", err, text.String())
	}
	out := figures{}
	for name, f := range families {
		out[name] = map[string]float64{}
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			out[name][strings.Join(labels, ",")] = value(m)
		}
		if len(out[name]) != len(f.Metric) {
			t.Errorf("%s has a figure twice", name)
		}
	}
	return out
}

func value(m *dto.Metric) float64 {
	if m.Counter != nil {
		return m.Counter.GetValue()
	}
	return m.Gauge.GetValue()
}
