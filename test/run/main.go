// Command run is "make run": a private node under ./.run with the example pods,
// to look at. It shows each pod's changes of state until Ctrl-C, which leaves
// nothing behind; with -once it ends with 0 as soon as all of them are Ready.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
)

func main() {
	once := flag.Bool("once", false, "end with 0 as soon as all pods are Ready")
	data := flag.String("data", ".run", "keep the node's files in `dir`")
	manifests := flag.String("manifests", "examples/manifests", "run the pods of `dir`")
	limit := flag.Duration("limit", 3*time.Minute, "with -once: give up after `time`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, *once, *data, *manifests, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, once bool, data, manifests string, limit time.Duration) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("namespaces, cgroups and mounts need root: sudo make run")
	}
	want, err := filepath.Glob(filepath.Join(manifests, "*.yaml"))
	if err != nil || len(want) == 0 {
		return fmt.Errorf("no manifest in %s", manifests)
	}
	if manifests, err = filepath.Abs(manifests); err != nil {
		return err
	}
	fmt.Printf("starting containerd %s in %s, in a network namespace without an uplink\n", bed.ContainerdVersion, data)
	b, err := bed.Start(ctx, bed.Options{Data: data, Private: true, Talk: os.Stdout})
	if err != nil {
		return err
	}
	defer func() {
		fmt.Println("removing the node and everything on it")
		err = errors.Join(err, b.Close())
	}()
	fmt.Println("building the example images and importing them")
	if err := b.Import(ctx); err != nil {
		return err
	}
	a, err := b.NewAgent(ctx, bed.AgentOptions{Name: "node", Manifests: manifests})
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("nodeagent runs (pid %d) on %s; its log is %s\n", a.Pid, manifests, filepath.Join(data, "node", "agent.log"))
	fmt.Printf("look at it from another terminal: bin/nodeagent pods --config %s\n", filepath.Join(data, "node", "config.yaml"))
	if !once {
		fmt.Print("Ctrl-C ends it\n\n")
		err := show(ctx, a, 0)
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	fmt.Println()
	if err := show(ctx, a, len(want)); err != nil {
		return fmt.Errorf("%w\n%s", err, a.LogTail(60))
	}
	fmt.Printf("\nall %d pods are Ready\n", len(want))
	return nil
}

// show prints a line for each change of a pod until want pods are Ready (0: for
// ever), ctx ends, or the daemon does.
func show(ctx context.Context, a *bed.AgentProcess, want int) error {
	start, last, ready := time.Now(), map[string]string{}, map[string]bool{}
	fmt.Printf("%8s  %-24s %-10s %s\n", "AFTER", "POD", "PHASE", "CONTAINERS")
	for c, err := range a.Watch(ctx) {
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the pods to be Ready: %w", ctx.Err())
		}
		if err != nil {
			return err
		}
		name := c.Pod.Name
		line := fmt.Sprintf("%-24s %-10s %s", name, c.Pod.Status.Phase, containers(c.Pod))
		if c.Gone {
			line = fmt.Sprintf("%-24s gone", name)
		}
		if last[name] != line {
			last[name] = line
			fmt.Printf("%7.2fs  %s\n", time.Since(start).Seconds(), line)
		}
		ready[name] = !c.Gone && bed.Ready(c.Pod)
		if want > 0 && count(ready) >= want {
			return nil
		}
	}
	return nil
}

func count(m map[string]bool) (n int) {
	for _, ok := range m {
		if ok {
			n++
		}
	}
	return n
}

func containers(p *corev1.Pod) string {
	var parts []string
	for _, s := range append(append([]corev1.ContainerStatus{}, p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...) {
		parts = append(parts, s.Name+" "+state(s.State))
	}
	if p.Status.PodIP != "" {
		parts = append(parts, "at "+p.Status.PodIP)
	}
	return strings.Join(parts, ", ")
}

func state(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		return fmt.Sprintf("ended %d (%s)", s.Terminated.ExitCode, s.Terminated.Reason)
	case s.Waiting != nil:
		return "waits (" + s.Waiting.Reason + ")"
	}
	return "waits"
}
