package object

import (
	"log/slog"
	"maps"
	"testing"

	"nodeagent/internal/object/objecttest"
)

// TestTold: Services that somebody tells of are known when he says that it was all; what
// he does not tell again is forgotten, and what was known before serves until then.
func TestTold(t *testing.T) {
	s, err := NewServices(&objecttest.Server{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, want map[string]string) {
		t.Helper()
		if got := hosts(t, s, "ns", true); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	s.Begin()
	s.Tell(service("ns", "a", "10.0.0.1"), false)
	s.Tell(service("ns", "b", "10.0.0.2"), false)
	if _, err := s.Variables("ns", true); err == nil {
		t.Error("half of the services were taken for all")
	}
	s.Tell(service("ns", "b", "10.0.0.2"), true)
	s.Complete()
	want("at first", map[string]string{"A_SERVICE_HOST": "10.0.0.1"})
	s.Tell(service("ns", "c", "10.0.0.3"), false)
	s.Tell(service("ns", "a", "None"), false)
	want("after changes", map[string]string{"C_SERVICE_HOST": "10.0.0.3"})
	s.Begin()
	s.Tell(service("ns", "d", "10.0.0.4"), false)
	want("while all are told again", map[string]string{"C_SERVICE_HOST": "10.0.0.3"})
	s.Begin() // the connection broke
	s.Tell(service("ns", "e", "10.0.0.5"), false)
	s.Complete()
	want("when all were told again", map[string]string{"E_SERVICE_HOST": "10.0.0.5"})
}
