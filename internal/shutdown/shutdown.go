package shutdown

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Machine is what can be shut down.
type Machine interface {
	// Hold holds up shutdowns that begin from now on, for at least so long, and tells
	// of them. The hold lasts until it is let go, and with it the machine goes down.
	Hold(ctx context.Context, least time.Duration) (Hold, error)
}

// Hold is a shutdown that waits for us.
type Hold interface {
	// Next waits for the next news: that a shutdown has begun, or that it was called
	// off. The first one tells at once what is so. It fails when the machine cannot tell
	// any more.
	Next(ctx context.Context) (begun bool, err error)
	// Release lets the machine go. It may be called more than once.
	Release()
}

// Pods is the pod set as far as pods are ended by it.
type Pods interface {
	Pods() []*corev1.Pod
	// OfferEndings says which pods the node ends; the latest counts. It must not block.
	OfferEndings(map[types.UID]*pod.Ending)
	// AwaitEnded waits until nothing of the pods runs and their volumes are gone.
	AwaitEnded(ctx context.Context, uids []types.UID) error
}

// Config is what a Shutdown works with; all but Changed, Event and Logger must be set.
type Config struct {
	Groups  []Group
	Machine Machine
	Pods    Pods
	// Changed is called when Begun has changed. It must not block.
	Changed func()
	// Event tells of the node, in kubelet's words. It must not block.
	Event  func(reason, message string)
	Logger *slog.Logger
}

// Shutdown ends pods before the machine goes down.
type Shutdown struct {
	cfg   Config
	begun atomic.Bool

	// All below belongs to the goroutine of Run, and endings to the one that ends pods
	// while there is one.
	endings map[types.UID]*pod.Ending
	cancel  context.CancelFunc // of the one that ends pods
	ending  sync.WaitGroup
}

// New returns a Shutdown that does nothing until Run.
func New(cfg Config) (*Shutdown, error) {
	if len(cfg.Groups) == 0 || cfg.Machine == nil || cfg.Pods == nil {
		return nil, errors.New("configure the node's shutdown: groups, machine and pods are needed")
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Event == nil {
		cfg.Event = func(string, string) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Shutdown{cfg: cfg, endings: map[types.UID]*pod.Ending{}, cancel: func() {}}, nil
}

// Begun tells whether the machine is going down.
func (s *Shutdown) Begun() bool { return s.begun.Load() }

// How long it is until a machine that could not be held is asked again.
const (
	leastAgain = time.Second
	mostAgain  = time.Minute
)

// Run holds up shutdowns until ctx ends. A machine that cannot be held, or cannot tell,
// is asked again and again; pods run all the same.
func (s *Shutdown) Run(ctx context.Context) error {
	defer s.ending.Wait()
	defer func() { s.cancel() }()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	wait, said := leastAgain, ""
	for ctx.Err() == nil {
		held, err := s.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if held {
			wait, said = leastAgain, ""
		}
		if text := err.Error(); text != said {
			said = text
			s.cfg.Logger.Warn("the machine's shutdown would not wait for pods; trying again", "err", err)
		}
		again.Reset(wait)
		wait = min(2*wait, mostAgain)
		select {
		case <-ctx.Done():
		case <-again.C:
		}
	}
	return nil
}

// follow holds the machine and does what it tells until it cannot tell any more. held
// tells that it was held.
func (s *Shutdown) follow(ctx context.Context) (held bool, err error) {
	for {
		hold, err := s.cfg.Machine.Hold(ctx, Whole(s.cfg.Groups))
		if err != nil {
			return held, err
		}
		held = true
		err = s.serve(ctx, hold)
		if err != nil {
			return held, err
		}
	}
}

// serve does what the machine tells by one hold. It returns without an error when that
// was let go and a shutdown was called off: another is needed for the next.
func (s *Shutdown) serve(ctx context.Context, hold Hold) error {
	for {
		begun, err := hold.Next(ctx)
		switch {
		case err != nil:
			if !s.begun.Load() { // else who ends the pods lets it go
				hold.Release()
			}
			return err
		case begun && !s.begun.Swap(true):
			s.begin(ctx, hold)
		case !begun && s.begun.Swap(false):
			s.callOff()
			hold.Release() // it may be another than the one that pods ended under
			return nil
		}
	}
}

// begin ends the pods in a goroutine of its own, which lets the machine go at its end.
func (s *Shutdown) begin(ctx context.Context, hold Hold) {
	s.cfg.Logger.Info("the machine shuts down; pods end", "within", Whole(s.cfg.Groups))
	s.cfg.Event("NodeShutdown", "Shutdown manager detected shutdown event")
	s.cfg.Changed()
	ctx, s.cancel = context.WithCancel(ctx)
	s.ending.Go(func() {
		defer hold.Release()
		for _, step := range Plan(s.cfg.Groups, s.cfg.Pods.Pods()) {
			if ctx.Err() != nil {
				return
			}
			s.end(ctx, step)
		}
		s.cfg.Logger.Info("pods have ended; the machine goes down")
	})
}

// end ends the pods of a group, for as long as the group may take.
func (s *Shutdown) end(ctx context.Context, step Step) {
	ending := step.ending()
	for _, uid := range step.Pods {
		s.endings[uid] = ending
	}
	s.cfg.Pods.OfferEndings(maps.Clone(s.endings))
	bounded, cancel := context.WithTimeout(ctx, step.Grace)
	defer cancel()
	if err := s.cfg.Pods.AwaitEnded(bounded, step.Pods); err != nil && ctx.Err() == nil {
		s.cfg.Logger.Warn("pods did not end in the time of their group", "priority", step.Priority, "within", step.Grace, "err", err)
	}
}

// callOff goes on with the pods whose turn had not come. Those that were told to end
// have failed, and what made them makes others.
func (s *Shutdown) callOff() {
	s.cancel()
	s.ending.Wait()
	s.cfg.Logger.Info("the machine's shutdown was called off")
	s.cfg.Event("NodeShutdown", "Shutdown manager detected shutdown cancellation")
	s.cfg.Changed()
}
