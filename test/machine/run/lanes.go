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

// lanes runs the tests of the bed itself and then those of test/machine, each in a
// process of its own.
func (r *run) lanes(ctx context.Context, dir string, env []string, handle func(event)) error {
	only, below, _ := strings.Cut(cmp.Or(r.only, "."), "/")
	failed := goTest(ctx, env, handle, "-count=1", "-run", r.only, "./test/machine/guest/...", "./test/machine/run")
	bin := filepath.Join(dir, "machine.test")
	if err := command(ctx, nil, "go", "test", "-c", "-vet=off", "-o", bin, machine).Run(); err != nil {
		return errors.Join(failed, fmt.Errorf("compile the tests of %s: %w", machine, err))
	}
	out, err := exec.CommandContext(ctx, bin, "-test.list", only).Output()
	if err != nil {
		return errors.Join(failed, fmt.Errorf("list the tests of %s: %w", machine, err))
	}
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	waiting := make(chan string)
	var lane sync.WaitGroup
	var mu sync.Mutex
	for range side {
		lane.Go(func() { // ends with the last test
			for name := range waiting {
				pattern := "^" + name + "$"
				if below != "" {
					pattern += "/" + below
				}
				test := command(ctx, env, bin, "-test.v=test2json", "-test.run", pattern, "-test.timeout", r.limit.String())
				test.Dir = filepath.Join(root, "test", "machine")
				err := told(test, handle)
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	for _, name := range inOrder(strings.Fields(string(out))) {
		waiting <- name
	}
	close(waiting)
	lane.Wait()
	return failed
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
