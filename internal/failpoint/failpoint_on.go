//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled tells whether this binary was built with the tag "failpoints".
const Enabled = true

// At does what NODEAGENT_FAILPOINTS asks for at the place name.
func At(name Name) error {
	s := loaded()
	s.visit(name)
	return s.next(name).do(name)
}

// loaded parses the environment once: a fail-point cannot return a parse error
// to anybody who would look at it, so a bad term ends the process.
var loaded = sync.OnceValue(func() *state {
	s, err := parse(os.Getenv("NODEAGENT_FAILPOINTS"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "parse NODEAGENT_FAILPOINTS: %v\n", err)
		os.Exit(78)
	}
	s.visitedPath = os.Getenv("NODEAGENT_FAILPOINTS_VISITED")
	return s
})

type term struct {
	left   int // times left; negative: for ever
	action string
	arg    string
}

type state struct {
	mu          sync.Mutex
	terms       map[Name][]term
	visited     map[Name]bool
	visitedPath string
}

func parse(text string) (*state, error) {
	s := &state{terms: map[Name][]term{}, visited: map[Name]bool{}}
	for one := range strings.SplitSeq(text, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		name, script, ok := strings.Cut(one, "=")
		if !ok {
			return nil, fmt.Errorf("term %q has no '='", one)
		}
		for step := range strings.SplitSeq(script, "->") {
			t, err := parseTerm(step)
			if err != nil {
				return nil, err
			}
			s.terms[Name(name)] = append(s.terms[Name(name)], t)
		}
	}
	return s, nil
}

func parseTerm(text string) (term, error) {
	t := term{left: -1}
	if n, rest, ok := strings.Cut(text, "*"); ok {
		count, err := strconv.Atoi(n)
		if err != nil {
			return t, fmt.Errorf("count of %q: %w", text, err)
		}
		t.left, text = count, rest
	}
	t.action = text
	if i := strings.IndexByte(text, '('); i >= 0 {
		if !strings.HasSuffix(text, ")") {
			return t, fmt.Errorf("action %q lacks ')'", text)
		}
		t.action, t.arg = text[:i], text[i+1:len(text)-1]
	}
	switch t.action {
	case "off", "error", "panic", "kill":
	case "delay":
		if _, err := time.ParseDuration(t.arg); err != nil {
			return t, err
		}
	default:
		return t, fmt.Errorf("action %q is none of off, error, panic, delay, kill", t.action)
	}
	return t, nil
}

func (s *state) visit(name Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.visitedPath == "" || s.visited[name] {
		return
	}
	s.visited[name] = true
	f, err := os.OpenFile(s.visitedPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, name)
}

func (s *state) next(name Name) term {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.terms[name] {
		t := &s.terms[name][i]
		if t.left == 0 {
			continue
		}
		if t.left > 0 {
			t.left--
		}
		return *t
	}
	return term{action: "off"}
}

func (t term) do(name Name) error {
	switch t.action {
	case "error":
		return errors.New("fail-point " + string(name) + ": " + t.arg)
	case "panic":
		panic("fail-point " + string(name) + ": " + t.arg)
	case "delay":
		d, _ := time.ParseDuration(t.arg)
		time.Sleep(d)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return nil
}
