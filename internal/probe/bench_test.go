package probe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// serveEnv makes the test binary the server of a benchmark, so that its CPU is
// not counted with the prober's.
const serveEnv = "PROBE_TEST_SERVE"

const answerOK = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

// serveForever answers every connection, and prints its address first.
func serveForever() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("http://" + l.Addr().String())
	go func() { // ends with the process that started this one
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, answerOK)
		}()
	}
}

// answering starts a server in a process of its own and returns its URL.
func answering(t testing.TB) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	var server string
	if _, err := fmt.Fscanln(out, &server); err != nil {
		t.Fatal(err)
	}
	return server
}

// cpu is what this process has used so far.
func cpu() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// counting counts probes.
type counting struct {
	Prober
	n, bad  atomic.Int64
	last    int64         // 0: nobody waits
	reached chan struct{} // closed by the last
}

func (c *counting) Probe(ctx context.Context, t *Target) Outcome {
	out := c.Prober.Probe(ctx, t)
	if c.n.Add(1) == c.last {
		close(c.reached)
	}
	if out.Err != nil || out.Result != Success {
		c.bad.Add(1)
	}
	return out
}

// turn is what a worker hands over.
type turn struct {
	d    pod.Desired
	seen pod.RuntimeState
}

// manyPods are so many pods whose only container has the probe.
func manyPods(pods int, p func() *corev1.Probe, started time.Time) []turn {
	var all []turn
	for i := range pods {
		uid := types.UID(fmt.Sprintf("pod-%d", i))
		all = append(all, turn{
			pod.Desired{Wish: pod.WishRun, Pod: &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{UID: uid},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", ReadinessProbe: p()}}},
			}},
			pod.RuntimeState{UID: uid,
				Sandboxes:  []pod.Sandbox{{ID: "s", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}},
				Containers: []pod.Container{{ID: string(uid), Name: "app", SandboxID: "s", State: pod.ContainerRunning, Started: started}}},
		})
	}
	return all
}

// BenchmarkHTTP is what 1 000 HTTP probes a second cost, as a share of a core,
// beside the floor: a connection, the same request and the same answer by bare
// system calls, as many a second.
func BenchmarkHTTP(b *testing.B) {
	server := answering(b)
	u, err := url.Parse(server)
	if err != nil {
		b.Fatal(err)
	}
	request, err := NewHTTP("1.36").request(targetAt(b, server, "/healthz"))
	if err != nil {
		b.Fatal(err)
	}
	address := netip.MustParseAddrPort(u.Host)
	measure := func(run func(time.Duration) int64) float64 {
		before := cpu()
		n := run(5 * time.Second)
		return float64(cpu()-before) / float64(n) / float64(time.Millisecond) * 100 // percent at 1 000 a second
	}
	for b.Loop() {
		floor := measure(func(d time.Duration) int64 { return paced(b, d, address, request.bytes) })
		ours := measure(func(d time.Duration) int64 { return probing(b, d, server) })
		b.ReportMetric(ours, "%core/1000/s")
		b.ReportMetric(floor, "%core-floor")
		b.ReportMetric(ours/floor, "ratio")
		b.ReportMetric(0, "ns/op")
	}
}

// probing runs 1 000 pods with a probe a second.
func probing(b testing.TB, d time.Duration, server string) int64 {
	prober := &counting{Prober: &Probers{HTTP: NewHTTP("1.36")}}
	s, err := New(Config{Prober: prober, Records: &memory{all: map[string]pod.Health{}}, Wake: func(types.UID) {}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	// Older than the daemon: their times are spread over the period.
	for _, t := range manyPods(1000, func() *corev1.Probe {
		p := targetAt(b, server, "/healthz").Probe
		p.PeriodSeconds = 1
		return p
	}, time.Now().Add(-time.Hour)) {
		s.Watch(t.d, t.seen)
	}
	if err := s.Run(ctx); err != nil {
		b.Fatal(err)
	}
	if bad := prober.bad.Load(); bad > prober.n.Load()/10 {
		b.Errorf("%d of %d probes were no success", bad, prober.n.Load())
	}
	return prober.n.Load()
}

// paced makes 1 000 requests a second by system calls, ten every 10 ms.
func paced(b testing.TB, d time.Duration, to netip.AddrPort, request []byte) (n int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	address := &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		for range 10 {
			if err := bare(address, request); err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
	return n
}

func bare(to syscall.Sockaddr, request []byte) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := syscall.Connect(fd, to); err != nil {
		return err
	}
	if _, err := syscall.Write(fd, request); err != nil {
		return err
	}
	var buf [4096]byte
	for {
		if n, err := syscall.Read(fd, buf[:]); n == 0 || err != nil {
			return err
		}
	}
}

// maxMemory is what a probe at rest may cost, in bytes: its run, its verdict and
// its request.
const maxMemory = 2 << 10

// TestMemory: what 5 000 HTTP probes keep after they have been asked, and that
// none of them keeps a goroutine.
func TestMemory(t *testing.T) {
	const probes = 5000
	prober := &counting{Prober: &Probers{HTTP: NewHTTP("1.36")}, last: probes, reached: make(chan struct{})}
	s, err := New(Config{Prober: prober, Records: &memory{all: map[string]pod.Health{}}, Wake: func(types.UID) {}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	pods := manyPods(probes, func() *corev1.Probe {
		p := targetAt(t, "http://127.0.0.1:1", "/healthz").Probe
		p.PeriodSeconds = 3600 // each is asked once
		return p
	}, time.Now())
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, one := range pods {
		s.Watch(one.d, one.seen)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-prober.reached
	s.flights.Wait()
	if n := runtime.NumGoroutine(); n > 50 {
		t.Errorf("%d goroutines at rest", n)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / probes
	t.Logf("%d bytes a probe that fails", each)
	if each > maxMemory {
		t.Errorf("a probe keeps %d bytes, want at most %d", each, maxMemory)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(pods)
}
