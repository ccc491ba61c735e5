package main_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/containerd/containerd/api/types/runc/options"

	"nodeagent/internal/shimapi"
)

// TestRate floods a log for 2 s: every number is there, at half the rate of a
// plain cat of the same program's pipe to a file at least. The machine may have
// other work at any moment, so one good round of three is enough; the bench
// measures on a quiet one.
func TestRate(t *testing.T) {
	n := newNode(t)
	best := 0.0
	for range 3 {
		plain, plainCost := catRate(t, n)
		w := want{}
		k := n.container("s1", w, "/podtool", "flood", "2s").run(w)
		before := cpu(t, n.stats("s1").Pid)
		k.exit(60 * time.Second)
		st := n.stats("s1")
		used := cpu(t, st.Pid) - before
		bytesOut := float64(st.Containers[len(st.Containers)-1].Bytes)
		rate := bytesOut / 2 / 1e6
		t.Logf("shim %.0f MB/s (%.2f ms CPU a MB), cat %.0f MB/s (%.2f ms): %.2f",
			rate, used.Seconds()*1000/(bytesOut/1e6), plain, plainCost, rate/plain)
		checkFlood(t, k.uri.Path)
		_ = os.Remove(k.uri.Path)
		k.delete()
		best = max(best, rate/plain)
	}
	if best < 0.5 {
		t.Errorf("the log reaches %.2f of cat's rate at best", best)
	}
	n.end("s1")
}

// checkFlood reads the numbers of a flood back.
func checkFlood(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	next := int64(0)
	buf := make([]byte, 0, 1<<20)
	ended := false
	for {
		m, err := io.ReadAtLeast(f, buf[len(buf):cap(buf)], 1)
		buf = buf[:len(buf)+m]
		for {
			i := bytes.IndexByte(buf, '\n')
			if i < 0 {
				break
			}
			body := buf[len("2006-01-02T15:04:05.000000000Z stdout F "):i]
			if bytes.HasPrefix(body, []byte("end ")) {
				ended = string(body) == fmt.Sprintf("end %d", next)
			} else if got, err := strconv.ParseInt(string(body[:12]), 10, 64); err != nil || got != next {
				t.Fatalf("line %d is %.60q", next, body)
			}
			next++
			buf = buf[i+1:]
		}
		buf = append(make([]byte, 0, 1<<20), buf...)
		if err != nil {
			break
		}
	}
	if !ended {
		t.Errorf("the last line is missing after %d", next)
	}
}

// catRate is what a pipe of the same program into cat and a file brings: MB/s,
// and ms of cat's CPU a MB.
func catRate(t *testing.T, n *node) (rate, cost float64) {
	t.Helper()
	tool := filepath.Join(n.bed.Dir(), "podtool")
	if _, err := os.Stat(tool); err != nil {
		if out, err := exec.Command("go", "build", "-o", tool, "nodeagent/test/image/podtool").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(n.bed.Dir(), "cat.out"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	flood, cat := exec.Command(tool, "flood", "2s"), exec.Command("cat")
	flood.Stdout, cat.Stdin, cat.Stdout = w, r, out
	for _, cmd := range []*exec.Cmd{flood, cat} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = r.Close(), w.Close()
	for _, cmd := range []*exec.Cmd{flood, cat} {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	mb := float64(info.Size()) / 1e6
	used := cat.ProcessState.UserTime() + cat.ProcessState.SystemTime()
	return mb / 2, used.Seconds() * 1000 / mb
}

// cpu is the time a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	ticks := 0
	for _, s := range f[11:13] {
		v, _ := strconv.Atoi(s)
		ticks += v
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func cpuOf(t *testing.T, pids []int) (sum time.Duration) {
	for _, pid := range pids {
		sum += cpu(t, pid)
	}
	return sum
}

// anonymous is the memory of a process that nobody shares, in bytes.
func anonymous(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Anonymous:" {
			kb, _ := strconv.Atoi(f[1])
			return kb << 10
		}
	}
	t.Fatal("no Anonymous in smaps_rollup")
	return 0
}

// TestMemory: a shim of ours needs at most 1.1 × the anonymous memory of
// containerd's own with the same containers.
func TestMemory(t *testing.T) {
	n := newNode(t)
	const pods, each = 5, 2
	var ours, stock []int
	for p := range pods {
		w := want{}
		for range each {
			n.shell(fmt.Sprintf("p%d", p), "echo hello; sleep 1000", w).run(w)
		}
		ours = append(ours, n.stats(fmt.Sprintf("p%d", p)).Pid)
		stock = append(stock, n.stockPod(fmt.Sprintf("q%d", p), each))
	}
	sum := func(pids []int) (total int) {
		for _, pid := range pids {
			total += anonymous(t, pid)
		}
		return total
	}
	// At once, after ours has given memory back, and (not with -short) after
	// containerd's has.
	for _, after := range []time.Duration{0, 7 * time.Second, 30 * time.Second} {
		if after > 10*time.Second && testing.Short() {
			break
		}
		before := cpuOf(t, ours)
		<-time.After(after)
		a, b := sum(ours), sum(stock)
		t.Logf("%v later: ours %.2f MB a shim, containerd's %.2f MB: %.3f; CPU of all %d of ours %v", after,
			float64(a)/pods/1e6, float64(b)/pods/1e6, float64(a)/float64(b), pods, cpuOf(t, ours)-before)
		if float64(a) > 1.1*float64(b) {
			t.Errorf("%d bytes are more than 1.1 × %d", a, b)
		}
	}
}

// stockPod runs containers in containerd's own shim, with FIFOs that are read,
// and returns the shim's pid.
func (n *node) stockPod(sandbox string, each int) int {
	n.t.Helper()
	ctx := n.t.Context()
	var task containerd.Task
	for i := range each {
		id := fmt.Sprintf("%s-c%d", sandbox, i)
		c, err := n.ctd.NewContainer(ctx, id, containerd.WithNewSnapshot(id, n.img),
			containerd.WithRuntime("io.containerd.runc.v2", &options.Options{}),
			containerd.WithNewSpec(oci.WithImageConfig(n.img), oci.WithProcessArgs("/bin/sh", "-c", "echo hello; sleep 1000"),
				oci.WithCgroup(n.bed.CgroupRoot()+"/"+sandbox+"/"+id),
				oci.WithAnnotations(map[string]string{shimapi.GroupAnnotation: sandbox})))
		if err != nil {
			n.t.Fatal(err)
		}
		if task, err = c.NewTask(ctx, cio.NewCreator(cio.WithStreams(nil, io.Discard, io.Discard), cio.WithFIFODir(n.bed.Dir()))); err != nil {
			n.t.Fatal(err)
		}
		if err := task.Start(ctx); err != nil {
			n.t.Fatal(err)
		}
	}
	return parent(n.t, int(task.Pid()))
}

func parent(t *testing.T, pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	ppid, _ := strconv.Atoi(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[1])
	return ppid
}
