package main

import (
	"bufio"
	"net"
	"testing"
	"testing/synctest"

	"nodeagent/internal/shimapi"
)

// What a container says after a client has its answer reaches the client, however late
// the shim's own goroutine goes on.
func TestAttachedWhenAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs, ours := net.Pipe()
		c := &container{id: "c"}
		s := &service{containers: map[string]*container{"c": c}}
		go s.attach(ours, bufio.NewReader(ours), shimapi.Request{Verb: shimapi.VerbAttach, Container: "c", Stderr: true})
		synctest.Wait() // the answer waits to be read
		c.tee.write(shimapi.FrameStderr, []byte("said\n"))
		c.tee.end()

		r := bufio.NewReader(theirs)
		var answer shimapi.Response
		if err := shimapi.ReadLine(r, &answer); err != nil || answer.Error != "" {
			t.Fatalf("the answer is %+v, %v", answer, err)
		}
		for _, want := range []struct {
			kind shimapi.FrameType
			data string
		}{{shimapi.FrameStderr, "said\n"}, {shimapi.FrameExit, ""}} {
			kind, data, err := shimapi.ReadFrame(r, nil)
			if err != nil || kind != want.kind || string(data) != want.data {
				t.Fatalf("frame %v with %q, %v; want %v with %q", kind, data, err, want.kind, want.data)
			}
		}
		_ = theirs.Close()
		synctest.Wait()
		if n := c.tee.count.Load(); n != 0 {
			t.Errorf("%d clients are left", n)
		}
	})
}
