// Command floor measures what the kernel, runc and containerd themselves need for
// a pod, as "make bench" compares the daemon with it: the least that anybody
// could do, with the same containerd, image, argv and cgroup path.
//
// Up: a network namespace made on one locked thread, a veth moved in, a
// container with snapshot, no I/O, containerd's own shim, NewTask, Start. Down:
// TERM, Wait, Delete, snapshot. It decides nothing, remembers nothing and would
// leak after a crash; it runs inside a bed only. It prints one JSON object.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
)

// Result is what floor prints; times in seconds.
type Result struct {
	CreateMedian float64 `json:"createMedian"`
	DeleteMedian float64 `json:"deleteMedian"`
	CreateMany   float64 `json:"createMany"`   // all of -many, -parallel at a time
	DeleteMany   float64 `json:"deleteMany"`   // likewise
	ShimAnon     int64   `json:"shimAnon"`     // bytes, median of the shims of -many
	MaxParallel  int     `json:"maxParallel"`  // of the many
	Many         int     `json:"many"`         // how many
	CreateMax    float64 `json:"createMax"`    // slowest of the single ones
	CreateAll    []int   `json:"createMillis"` // of the single ones, in order
	CreateCPU    float64 `json:"createCPU"`    // CPU time of the many, by -cpu
	DeleteCPU    float64 `json:"deleteCPU"`    // likewise
}

func main() {
	var f floor
	flag.StringVar(&f.address, "address", "", "containerd's `socket`")
	flag.StringVar(&f.image, "image", "", "image `name`, already unpacked")
	flag.StringVar(&f.cgroup, "cgroup", "", "parent cgroup `path`")
	flag.StringVar(&f.cpuStat, "cpu", "", "cpu.stat `file` of everything measured")
	n := flag.Int("n", 20, "pods one after another")
	many := flag.Int("many", 100, "pods at once")
	parallel := flag.Int("parallel", 4, "of them at a time")
	flag.BoolVar(&f.seccomp, "seccomp", false, "filter system calls by the runtime's default profile")
	flag.Parse()
	f.argv = flag.Args()
	if err := f.run(*n, *many, *parallel); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

type floor struct {
	address, image, cgroup string
	cpuStat                string
	argv                   []string
	seccomp                bool
	client                 *containerd.Client
	img                    containerd.Image
}

func (f *floor) run(n, many, parallel int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var err error
	f.client, err = containerd.New(f.address, containerd.WithDefaultNamespace("k8s.io"),
		containerd.WithDefaultRuntime("io.containerd.runc.v2"))
	if err != nil {
		return err
	}
	defer f.client.Close()
	if f.img, err = f.client.GetImage(ctx, f.image); err != nil {
		return fmt.Errorf("find image %s: %w", f.image, err)
	}
	var r Result
	if err := f.single(ctx, n, &r); err != nil {
		return err
	}
	if err := f.together(ctx, many, parallel, &r); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func (f *floor) single(ctx context.Context, n int, r *Result) error {
	var up, down []float64
	for i := range n + 1 { // the first one warms up and does not count
		start := time.Now()
		p, err := f.create(ctx, fmt.Sprintf("floor-%d", i))
		if err != nil {
			return err
		}
		created := time.Since(start).Seconds()
		if err := p.obeys(ctx); err != nil {
			return err
		}
		start = time.Now()
		if err := p.delete(ctx); err != nil {
			return err
		}
		if i > 0 {
			up, down = append(up, created), append(down, time.Since(start).Seconds())
			r.CreateAll = append(r.CreateAll, int(created*1000))
		}
		if err := p.cleanup(); err != nil {
			return err
		}
	}
	if n > 0 {
		r.CreateMedian, r.DeleteMedian, r.CreateMax = median(up), median(down), slices.Max(up)
	}
	return nil
}

func (f *floor) together(ctx context.Context, many, parallel int, r *Result) error {
	pods := make([]*pod, many)
	cpu := f.cpu()
	start := time.Now()
	err := each(many, parallel, func(i int) (err error) {
		pods[i], err = f.create(ctx, fmt.Sprintf("many-%d", i))
		return err
	})
	r.CreateMany, r.Many, r.MaxParallel = time.Since(start).Seconds(), many, parallel
	r.CreateCPU = f.cpu() - cpu
	if err != nil {
		return err
	}
	if r.ShimAnon, err = shimAnon(); err != nil {
		return err
	}
	for _, p := range pods {
		if err := p.obeys(ctx); err != nil {
			return err
		}
	}
	cpu, start = f.cpu(), time.Now()
	err = each(many, parallel, func(i int) error { return pods[i].delete(ctx) })
	r.DeleteMany, r.DeleteCPU = time.Since(start).Seconds(), f.cpu()-cpu
	if err != nil {
		return err
	}
	for _, p := range pods {
		if err := p.cleanup(); err != nil {
			return err
		}
	}
	return nil
}

// cpu is the CPU time that everything measured has used, in seconds; 0 where
// nobody counts it.
func (f *floor) cpu() float64 {
	b, _ := os.ReadFile(f.cpuStat)
	var usec float64
	_, _ = fmt.Sscanf(string(b), "usage_usec %f", &usec)
	return usec / 1e6
}

// each calls f for 0..n-1, parallel at a time, and returns the first error.
func each(n, parallel int, f func(int) error) error {
	var (
		wg    sync.WaitGroup
		next  = make(chan int)
		mu    sync.Mutex
		first error
	)
	for range parallel {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					mu.Lock()
					first = cmpErr(first, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return first
}

func cmpErr(first, err error) error {
	if first != nil {
		return first
	}
	return err
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// shimAnon is the median of the anonymous memory of containerd's own shims in
// the bed, which are those that share our network namespace.
func shimAnon() (int64, error) {
	me, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return 0, err
	}
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	var all []float64
	for _, c := range comms {
		dir := filepath.Dir(c)
		name, _ := os.ReadFile(c)
		if ns, _ := os.Readlink(dir + "/ns/net"); ns != me || !strings.HasPrefix(string(name), "containerd-shim") {
			continue
		}
		b, _ := os.ReadFile(dir + "/smaps_rollup")
		for line := range strings.Lines(string(b)) {
			var kib int64
			if _, err := fmt.Sscanf(line, "Anonymous: %d kB", &kib); err == nil {
				all = append(all, float64(kib<<10))
			}
		}
	}
	if len(all) == 0 {
		return 0, nil
	}
	return int64(median(all)), nil
}
