package worker

import (
	"errors"
	"fmt"
	"testing"

	"nodeagent/internal/pod"
)

type ofNetwork struct{ error }

func (ofNetwork) NetworkError() bool { return true }

type ofNobody struct{ error }

func (ofNobody) Unavailable() {}

// TestFailuresOfNobody: what failed for want of a runtime is known as such; a registry
// that is away is none.
func TestFailuresOfNobody(t *testing.T) {
	w := newWorker(&Set{cfg: Config{Logger: quietLogger}}, "u", "ns/p", pod.Desired{Wish: pod.WishRun}, false)
	gone := fmt.Errorf("inspect: %w", ofNobody{errors.New("connection refused")})
	for reason, want := range map[string]bool{
		pod.ReasonRunContainerError: true, pod.ReasonImageInspectError: true, pod.ReasonFailedCreatePodSandBox: true,
		pod.ReasonErrImagePull: false, pod.ReasonRegistryUnavailable: false,
	} {
		a := pod.Action{Kind: pod.StartContainer, Name: reason}
		w.finish(result{action: a, err: gone, reason: reason})
		if f := w.failed[a.Op()]; f.Away != want {
			t.Errorf("%s is %+v, want of nobody: %t", reason, f, want)
		}
	}
}

// TestFailuresInARow: a failure knows when the row began, and whether it is the
// network's; nothing is kept of an operation that has ended.
func TestFailuresInARow(t *testing.T) {
	w := newWorker(&Set{cfg: Config{Logger: quietLogger}}, "u", "ns/p", pod.Desired{Wish: pod.WishRun}, false)
	a := pod.Action{Kind: pod.RunSandbox}
	w.begin(a.Op())
	w.reach(a.Op(), pod.GateCreate)
	if f := w.flights[a.Op()]; f.Step != pod.GateCreate || f.Since.IsZero() {
		t.Errorf("what is under way is %+v", f)
	}
	w.finish(result{action: a, err: errors.New("one")})
	first := w.failed[a.Op()]
	if first.Since.IsZero() || first.Network || w.flights != nil {
		t.Errorf("the first failure is %+v, under way is %v", first, w.flights)
	}
	w.finish(result{action: a, err: fmt.Errorf("run sandbox: %w", ofNetwork{errors.New("two")})})
	if second := w.failed[a.Op()]; !second.Since.Equal(first.Since) || second.At.Before(first.At) || !second.Network || second.Count != 2 {
		t.Errorf("the second failure is %+v after %+v", second, first)
	}
	w.reach(a.Op(), pod.GateStart)
	if w.flights != nil {
		t.Error("what has ended is under way again")
	}
}
