package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"nodeagent/internal/net"
)

// kernel is a Backend that holds what it is told, whole or not at all, as a kernel
// does.
type kernel struct {
	t *testing.T

	mu      sync.Mutex
	holds   map[net.Address]*net.Entry
	refuses map[string]bool // services
	only    int             // and these only with so many endpoints; 0: with any number
	all     bool            // it refuses everything
	moody   int             // so many calls more
	err     error           // all fails with it
	slow    time.Duration   // a call takes
	ranges  string
	sure    bool
	calls   []string // "sync 3" wrote three entries, "apply 1"
	at      []time.Time
	wake    func()
	took    int
	stays   int               // what another proxy left, for so many tries
	looks   []map[string]bool // the services that it held after each call
}

func newKernel(t *testing.T) *kernel {
	return &kernel{t: t, holds: map[net.Address]*net.Entry{}, refuses: map[string]bool{}}
}

// hold makes it hold the table, and says how many entries differ.
func (k *kernel) hold(verb string, t *net.Table) (int, error) {
	k.mu.Lock()
	slow := k.slow
	k.mu.Unlock()
	time.Sleep(slow)
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for a, e := range t.Entries {
		if old := k.holds[a]; old == nil || show(old) != show(e) {
			n++
		}
	}
	for a := range k.holds {
		if t.Entries[a] == nil {
			n++
		}
	}
	ips := map[string]bool{}
	for a := range t.Entries {
		ips[a.IP.String()] = true
	}
	if len(t.ClusterIPs()) != len(ips) {
		k.t.Errorf("the table has cluster IPs %v for %d services", t.ClusterIPs(), len(ips))
	}
	k.calls, k.at = append(k.calls, fmt.Sprint(verb, " ", n)), append(k.at, time.Now())
	defer func() {
		now := map[string]bool{}
		for _, e := range k.holds {
			now[e.Service.Name] = true
		}
		k.looks = append(k.looks, now)
	}()
	if k.err != nil {
		return 0, k.err
	}
	for _, e := range t.Entries {
		if k.all || k.moody > 0 || k.refuses[e.Service.Name] && (k.only == 0 || k.only == len(e.Cluster)) {
			k.sure = false
			k.moody--
			return 0, net.AsRefused(fmt.Errorf("no room for %s", e.Service))
		}
	}
	k.holds, k.sure, k.ranges = maps.Clone(t.Entries), true, fmt.Sprint(t.Ranges())
	return n, nil
}

func show(e *net.Entry) string {
	return fmt.Sprintf("%v %v %v %v %v", e.Name(), e.Addr, e.Fronts, e.Cluster, e.Local)
}

func (k *kernel) Sync(_ context.Context, t *net.Table) (net.Report, error) {
	n, err := k.hold("sync", t)
	return net.Report{Elements: n}, err
}

// Apply holds the diff against what it says to be the diff of.
func (k *kernel) Apply(ctx context.Context, t *net.Table, d *net.Diff) error {
	k.mu.Lock()
	sure, made := k.sure, maps.Clone(k.holds)
	k.mu.Unlock()
	for _, c := range d.Entries {
		if c.New == nil {
			delete(made, c.Old.Addr)
		} else {
			made[c.New.Addr] = c.New
		}
	}
	if sure && !maps.Equal(made, t.Entries) {
		k.t.Errorf("a diff makes %v of what there is, and the table is %v", made, t.Entries)
	}
	_, err := k.hold("apply", t)
	return err
}

func (k *kernel) Watch(ctx context.Context, wake func()) error {
	k.mu.Lock()
	k.wake = wake
	k.mu.Unlock()
	wake()
	<-ctx.Done()
	return nil
}

func (k *kernel) TakeOver(context.Context) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.took++
	if k.stays >= k.took {
		return nil, errors.New("somebody holds the lock")
	}
	return nil, nil
}

// flush is somebody else's doing.
func (k *kernel) flush() {
	k.mu.Lock()
	k.holds = map[net.Address]*net.Entry{}
	wake := k.wake
	k.mu.Unlock()
	wake()
}

func (k *kernel) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// told returns the calls since it was last asked, and when they were.
func (k *kernel) told() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.calls
	k.calls, k.at = nil, nil
	return all
}

// names are the services that it holds.
func (k *kernel) names() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for _, e := range k.holds {
		out = append(out, e.Service.Name)
	}
	slices.Sort(out)
	return out
}

// events takes what the cluster is told.
type events struct {
	mu   sync.Mutex
	said []string
}

func (e *events) Service(k net.Key, uid types.UID, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.said = append(e.said, fmt.Sprintf("%s %s %s: %s", k.Name, uid, reason, message))
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.said
	e.said = nil
	return out
}

// flowTable notes what it is to forget.
type flowTable struct {
	mu   sync.Mutex
	err  error
	said []net.Flows
}

func (f *flowTable) Forget(_ context.Context, flows net.Flows) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, maps.Clone(flows))
	return len(flows), f.err
}

func (f *flowTable) all() []net.Flows {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.said
	f.said = nil
	return out
}

// scene is a proxy between a server and a kernel, in a bubble of time.
type scene struct {
	*apiServer
	*kernel
	t      *testing.T
	events *events
	flows  *flowTable
	ports  map[string]http.Handler
	taken  map[string]bool // ports
	portMu sync.Mutex
	proxy  *Proxy
	change func(*Config)
	stop   func()
}

func (s *scene) serve(ctx context.Context, addr string, h http.Handler, opened func()) error {
	s.portMu.Lock()
	if s.taken[addr] {
		s.portMu.Unlock()
		return errors.New("address already in use")
	}
	s.ports[addr] = h
	s.portMu.Unlock()
	opened()
	<-ctx.Done()
	s.portMu.Lock()
	delete(s.ports, addr)
	s.portMu.Unlock()
	return nil
}

func (s *scene) port(addr string) http.Handler {
	s.portMu.Lock()
	defer s.portMu.Unlock()
	return s.ports[addr]
}

// play runs a test in a bubble; the proxy begins with begin.
func play(t *testing.T, test func(*scene)) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{apiServer: newAPIServer(), kernel: newKernel(t), t: t, events: &events{}, flows: &flowTable{}, ports: map[string]http.Handler{}, taken: map[string]bool{}}
		server := &http.Server{Handler: s.apiServer, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		go func() { _ = server.Serve(s.apiServer) }()
		test(s)
		if s.stop != nil {
			s.stop()
		}
		close(s.closed)
		s.cut()
		_ = server.Close()
	})
}

// begin starts a proxy; one that runs is killed before.
func (s *scene) begin() {
	s.t.Helper()
	if s.stop != nil {
		s.stop()
	}
	transport := &http.Transport{DialContext: s.dial, MaxIdleConnsPerHost: 10}
	cfg := Config{
		NodeName: "here", Rest: &rest.Config{Host: "http://api"}, HTTP: &http.Client{Transport: transport}, Mode: "fake",
		Backend: func(Facts) (Backend, error) { return s.kernel, nil },
		Flows:   s.flows, Teller: s.events, Serve: s.serve, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(s.t.Output(), nil))
	}
	if s.change != nil {
		s.change(&cfg)
	}
	var err error
	if s.proxy, err = New(cfg); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.proxy.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("Run ended with %v", err)
		}
		transport.CloseIdleConnections()
		s.stop = nil
	}
	s.settle()
}

// settle lets everything happen that happens at once.
func (s *scene) settle() { s.after(0) }

// after lets time pass.
func (s *scene) after(d time.Duration) {
	synctest.Wait()
	time.Sleep(d + full + time.Millisecond)
	synctest.Wait()
}

func (s *scene) want(what string, got, want []string) {
	s.t.Helper()
	if !slices.Equal(got, want) {
		s.t.Errorf("%s: %q, want %q", what, got, want)
	}
}
