package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"nodeagent/test/bed"
)

const machine = "nodeagent/test/machine"

// longest are the tests that take most, in this order: who begins with them ends
// soonest. The others follow as they are declared.
var longest = []string{"TestReboot", "TestEngine", "TestPowerCut", "TestUnit", "TestServices", "TestCgroupsV1", "TestCheckGuest", "TestInstall"}

// side is how many guests run side by side: a guest has one CPU where nothing asks for
// more, and a third one makes each of them dearer by a quarter.
const side = 2

// idle are the tests that wait for most of their time, and have a lane beside the others.
var idle = []string{"TestHang", "TestOwnerKilled"}

// lanes runs the tests of the bed itself and those of test/machine, each in a process
// of its own.
func (r *run) lanes(ctx context.Context, dir string, env []string, handle func(event)) error {
	only, below, _ := strings.Cut(cmp.Or(r.only, "."), "/")
	bin := filepath.Join(dir, "machine.test")
	if err := command(ctx, nil, "go", "test", "-c", "-vet=off", "-o", bin, machine).Run(); err != nil {
		return fmt.Errorf("compile the tests of %s: %w", machine, err)
	}
	out, err := exec.CommandContext(ctx, bin, "-test.list", only).Output()
	if err != nil {
		return fmt.Errorf("list the tests of %s: %w", machine, err)
	}
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	var lanes sync.WaitGroup
	var mu sync.Mutex
	var failed error
	note := func(err error) {
		mu.Lock()
		failed = errors.Join(failed, err)
		mu.Unlock()
	}
	lane := func(names <-chan string) { // ends with the last test
		for name := range names {
			pattern := "^" + name + "$"
			if below != "" {
				pattern += "/" + below
			}
			test := command(ctx, env, bin, "-test.v=test2json", "-test.run", pattern, "-test.timeout", r.limit.String())
			test.Dir = filepath.Join(root, "test", "machine")
			note(told(test, handle))
		}
	}
	busy, others := apart(inOrder(strings.Fields(string(out))))
	waiting := queued(busy)
	for range side {
		lanes.Go(func() { lane(waiting) })
	}
	lanes.Go(func() {
		note(goTest(ctx, env, handle, "-count=1", "-run", r.only, "./test/machine/guest/...", "./test/machine/run"))
		lane(queued(others))
	})
	lanes.Wait()
	return failed
}

// apart takes out of the names those of tests that are idle.
func apart(names []string) (busy, others []string) {
	for _, name := range names {
		if slices.Contains(idle, name) {
			others = append(others, name)
		} else {
			busy = append(busy, name)
		}
	}
	return busy, others
}

// queued are names, each for whoever asks next.
func queued(names []string) <-chan string {
	all := make(chan string, len(names))
	for _, name := range names {
		all <- name
	}
	close(all)
	return all
}

// inOrder puts those first that take longest.
func inOrder(names []string) []string {
	rank := func(name string) int {
		if i := slices.Index(longest, name); i >= 0 {
			return i
		}
		return len(longest)
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	return names
}

// told runs a test binary, and has test2json tell its lines apart. What ends at
// Ctrl-C is the binary itself, and its guest with it.
func told(test *exec.Cmd, handle func(event)) error {
	conv := exec.Command("go", "tool", "test2json", "-t", "-p", machine) // ends with its input
	in, err := conv.StdinPipe()
	if err != nil {
		return err
	}
	out, err := conv.StdoutPipe()
	if err != nil {
		return err
	}
	if err := conv.Start(); err != nil {
		return err
	}
	test.Stdout, test.Stderr = in, in
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(test.Run(), in.Close()) }() // ends with the test, which has a limit
	events(out, handle)
	if err := errors.Join(<-ended, conv.Wait()); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(test.Args[2:4], " "), err)
	}
	return nil
}
