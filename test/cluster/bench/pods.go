package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/test/image"
	"nodeagent/test/measure"
)

// limit bounds every wait: an agent that does not do it fails the bench.
const limit = 3 * time.Minute

// clients is how many ask at a time when many pods are made or deleted.
const clients = 8

// sleeps is a program that runs until it is told to end, and then ends at once.
var sleeps = []string{"/podtool", "sleep", "forever"}

// ends is one that ends by itself when its pod was told to be Ready.
var ends = []string{"/podtool", "sleep", "1500ms"}

func pod(name string, command []string, policy corev1.RestartPolicy) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault},
		Spec: corev1.PodSpec{
			NodeName: nodeName, RestartPolicy: policy,
			Containers: []corev1.Container{{Name: "c", Image: image.Example, ImagePullPolicy: corev1.PullNever, Command: command}},
		},
	}
}

func (b *bench) create(ctx context.Context, p *corev1.Pod) error {
	if err := b.core.Post().Namespace(p.Namespace).Resource("pods").Body(p).Do(ctx).Error(); err != nil {
		return fmt.Errorf("make pod %s: %w", p.Name, err)
	}
	return nil
}

func (b *bench) remove(ctx context.Context, name string) error {
	if err := b.core.Delete().Namespace(metav1.NamespaceDefault).Resource("pods").Name(name).Do(ctx).Error(); err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	return nil
}

// name of a pod; none is used twice in a run.
func (b *bench) name(s *side, kind string, i int) string {
	return fmt.Sprintf("%s-%s-%d-%d", s.name, kind, b.turn, i)
}

// oneByOne measures a pod's way up and down, one pod after another.
func (b *bench) oneByOne(ctx context.Context, s *side) error {
	b.say(fmt.Sprintf("%d pods one after another", b.single))
	stop, told := b.listen(ctx, s)
	defer stop()
	for i := range b.single + 1 { // the first one warms up and does not count
		name := b.name(s, "one", i)
		up, err := b.goUp(ctx, name, sleeps, corev1.RestartPolicyAlways)
		if err != nil {
			return err
		}
		if err := b.bed.WaitCatches(ctx, "podtool", 15); err != nil {
			return err
		}
		down, err := b.goDown(ctx, up)
		if err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		up.told, down.told = told.of(name), told.of(name)
		s.lives[goesUp], s.lives[goesDown] = append(s.lives[goesUp], up), append(s.lives[goesDown], down)
		s.values[createOne] = append(s.values[createOne], up.took())
		s.values[removeOne] = append(s.values[removeOne], down.took())
	}
	return nil
}

// listen watches what the agent itself says, where it can be asked.
func (b *bench) listen(ctx context.Context, s *side) (stop func(), told *watcher) {
	if s.told == nil {
		return func() {}, newWatcher()
	}
	ctx, cancel := context.WithCancel(ctx)
	return cancel, s.told(ctx)
}

// goUp makes a pod and waits until it is Ready.
func (b *bench) goUp(ctx context.Context, name string, command []string, policy corev1.RestartPolicy) (l life, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b.seen.Reset()
	l = life{name: name, begun: time.Now()}
	if err := b.create(ctx, pod(name, command, policy)); err != nil {
		return l, err
	}
	l.asked = time.Now()
	if l.seen, err = b.pods.wait(ctx, []string{name}, "Ready", ready); err != nil {
		return l, err
	}
	l.events, err = b.seen.Seen()
	return l, err
}

// goDown deletes a pod and waits until it is gone. What containerd tells of those
// before it does not count: kubelet removes some of that later.
func (b *bench) goDown(ctx context.Context, up life) (l life, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b.seen.Reset()
	l = life{name: up.name, begun: time.Now()}
	if err := b.remove(ctx, l.name); err != nil {
		return l, err
	}
	l.asked = time.Now()
	if l.seen, err = b.pods.wait(ctx, []string{l.name}, "gone", gone); err != nil {
		return l, err
	}
	all, err := b.seen.Seen()
	for _, e := range all {
		if up.made(e.ID) {
			l.events = append(l.events, e)
		}
	}
	return l, err
}

// byThemselves has pods end that nobody told to.
func (b *bench) byThemselves(ctx context.Context, s *side) error {
	b.say(fmt.Sprintf("%d pods that end by themselves", b.ending))
	stop, told := b.listen(ctx, s)
	defer stop()
	for i := range b.ending {
		name := b.name(s, "end", i)
		l, err := b.goUp(ctx, name, ends, corev1.RestartPolicyNever)
		if err != nil {
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, limit)
		l.seen, err = b.pods.wait(bounded, []string{name}, "at their end", ended)
		cancel()
		if err != nil {
			return err
		}
		if l.events, err = b.seen.Seen(); err != nil {
			return err
		}
		l.told = told.of(name)
		s.lives[endsAlone] = append(s.lives[endsAlone], l)
		if _, err := b.goDown(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// atOnce measures many pods at once: up, at rest, down.
func (b *bench) atOnce(ctx context.Context, s *side) error {
	b.say(fmt.Sprintf("%d pods at once", b.many))
	var names []string
	for i := range b.many {
		names = append(names, b.name(s, "many", i))
	}
	up, err := b.together(ctx, names, "Ready", ready, func(ctx context.Context, name string) error {
		return b.create(ctx, pod(name, sleeps, corev1.RestartPolicyAlways))
	})
	if err != nil {
		return err
	}
	if err := b.atRest(ctx, s); err != nil {
		return err
	}
	if err := b.bed.WaitCatches(ctx, "podtool", 15); err != nil {
		return err
	}
	down, err := b.together(ctx, names, "gone", gone, b.remove)
	s.values[createMany], s.values[removeMany] = append(s.values[createMany], up), append(s.values[removeMany], down)
	return err
}

// together asks something for all pods as fast as clients can, and waits until it is
// seen of the last.
func (b *bench) together(ctx context.Context, names []string, what string, of func(sight) time.Time, ask func(context.Context, string) error) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	asking, bounded := errgroup.WithContext(ctx)
	asking.SetLimit(clients)
	for _, name := range names {
		asking.Go(func() error { return ask(bounded, name) })
	}
	if err := asking.Wait(); err != nil {
		return 0, err
	}
	last, err := b.pods.wait(ctx, names, what, of)
	return last.Sub(start).Seconds(), err
}

// atRest measures CPU and memory of the agent while nothing happens.
func (b *bench) atRest(ctx context.Context, s *side) error {
	b.say(fmt.Sprintf("at rest for %v", b.rest))
	if err := measure.Pause(ctx, settle); err != nil { // events, garbage and timers of the start
		return err
	}
	share, _, err := measure.Share(ctx, s.pid(), b.rest)
	if err != nil {
		return err
	}
	pss, err := measure.Rollup(s.pid(), "Pss")
	if err != nil {
		return err
	}
	s.values[restCPU] = append(s.values[restCPU], share)
	s.values[restMemory] = append(s.values[restMemory], float64(pss))
	return nil
}
