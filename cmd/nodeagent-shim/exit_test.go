package main_test

import (
	"strings"
	"testing"
	"time"

	"nodeagent/internal/shimapi"
)

func TestLogAndExit(t *testing.T) {
	n := newNode(t)
	w := want{}
	k := n.shell("s1", "echo out; echo err >&2; printf tail; exit 7", w).run(w)
	if code := k.exit(10 * time.Second); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	r, err := shimapi.ReadExit(n.runDir, k.id) // at once: Wait has returned
	if err != nil || r.ExitCode != 7 || r.SandboxID != "s1" || r.Pid == 0 || r.StartedAt.IsZero() || !r.ExitedAt.After(r.StartedAt) || r.ShimLost || r.OOMKills != 0 {
		t.Errorf("record %+v, %v", r, err)
	}
	log := k.log()
	if out, errs := content(log, "stdout"), content(log, "stderr"); out != "out\ntail" || errs != "err\n" {
		t.Errorf("log %q", log)
	}
	if st := n.stats("s1"); len(st.Containers) != 1 || st.Containers[0].Running || st.Containers[0].Lines != 3 {
		t.Errorf("stats %+v", st)
	}
	if err := n.dial("s1").Exit(t.Context(), false); err == nil || !strings.Contains(err.Error(), "containers are left") {
		t.Errorf("exit with a container left: %v", err)
	}
	k.delete()
	n.end("s1")
}

// The exit of a container whose containerd is dead is known afterwards, and so
// is all that it printed.
func TestExitWithContainerdDead(t *testing.T) {
	n := newNode(t)
	w := want{}
	k := n.shell("s1", "while ! [ -e /go ]; do sleep 0.05; done; /podtool print 20000; echo last; exit 7", w).run(w)
	if err := n.bed.Kill(); err != nil {
		t.Fatal(err)
	}
	pid := k.task.Pid()
	touch(t, pid, "/go")
	var r shimapi.ExitRecord
	eventually(t, 20*time.Second, "an exit record", func() (ok bool) {
		var err error
		r, err = shimapi.ReadExit(n.runDir, k.id)
		return err == nil
	})
	if r.ExitCode != 7 {
		t.Errorf("record %+v, want code 7", r)
	}
	out := content(k.log(), "stdout")
	if !strings.HasSuffix(out, "\nlast\n") || strings.Count(out, "\n") != 20001 {
		t.Errorf("log has %d lines and ends %q", strings.Count(out, "\n"), out[max(0, len(out)-40):])
	}
	if err := n.bed.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := shimapi.ReadExit(n.runDir, k.id); err != nil || r.ExitCode != 7 || r.ShimLost {
		t.Errorf("after containerd is back: %+v, %v", r, err)
	}
	n.connect()
	c, err := n.ctd.LoadContainer(t.Context(), k.id)
	if err != nil {
		t.Fatal(err)
	}
	_ = c
	eventually(t, 10*time.Second, "containerd takes its hands off the task", func() bool {
		_, err := c.Task(t.Context(), nil)
		return err != nil
	})
	n.end("s1")
}
