package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/net"
)

// TestAsk: who explains is told what the loop knows of a service, what went wrong last and
// when it is tried again; while the kernel takes its time nobody waits for longer than he
// likes.
func TestAsk(t *testing.T) {
	play(t, func(s *scene) {
		s.put(webs(2, 1)...)
		s.put(aNode())
		s.begin()
		ask := func(name string) (Answer, error) {
			ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
			defer cancel()
			return s.proxy.Ask(ctx, net.Key{Namespace: "default", Name: name})
		}
		names, err := s.proxy.Names(s.t.Context())
		if err != nil || len(names) != 2 {
			t.Fatalf("the services are %q, %v", names, err)
		}
		_, first, _ := strings.Cut(names[0], "/")
		a, err := ask(first)
		if err != nil || !a.Facts.Seen || len(a.Facts.Addresses) == 0 || !a.Loop.Begun || a.Loop.Mode != "fake" || a.Loop.Failure != "" || a.Loop.Next != nil {
			t.Errorf("told is %+v, %v", a, err)
		}
		if a, err := ask("nobody"); err != nil || a.Facts.Seen {
			t.Errorf("of one that is not there is told %+v, %v", a, err)
		}
		s.kernel.set(func() { s.err = errors.New("no memory") })
		s.put(webs(3, 1)...)
		s.settle()
		if a, err = ask(first); err != nil || !strings.Contains(a.Loop.Failure, "no memory") || a.Loop.Next == nil || a.Loop.Waiting == nil {
			t.Errorf("told is %+v, %v", a.Loop, err)
		}
		s.kernel.set(func() { s.err, s.slow = nil, time.Minute })
		s.after(40 * time.Second) // a try begins
		if _, err := ask(first); !errors.Is(err, errBusy) {
			t.Errorf("while the kernel takes its time: %v", err)
		}
		s.kernel.set(func() { s.slow = 0 })
		s.after(2 * time.Minute)
		if a, err = ask(first); err != nil || a.Loop.Failure != "" || a.Loop.Waiting != nil {
			t.Errorf("told is %+v, %v", a.Loop, err)
		}
		if names, _ := s.proxy.Names(s.t.Context()); len(names) != 3 || !slices.IsSorted(names) {
			t.Errorf("the services are %q", names)
		}
	})
}
