package cluster_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/test/image"
)

// talker is a pod whose container says what it is told: each line of its input, or
// what is written to /tmp/say.
func (n *node) talker(name string, tty bool) {
	n.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: %s
    imagePullPolicy: Never
    stdin: true
    tty: %t
    command: [/bin/sh]
`, name, image.Shell, tty))
	n.kubectl("wait", ready, "pod/"+name, "--timeout=60s")
}

// run: kubectl run with its input, which waits for the end and removes the pod.
func (n *node) run() {
	cmd := n.c.Command("run", "hello", "--rm", "-i", "--restart=Never", "--image="+image.Shell, "--image-pull-policy=Never",
		"--pod-running-timeout=60s", "--command", "--", "/bin/sh", "-c", `read x; echo "got $x"; exit 0`)
	cmd.Stdin = strings.NewReader("a line\n")
	out, err := n.c.Finish(n.ctx, cmd)
	if err != nil || !strings.Contains(out, "got a line") || !strings.Contains(out, "deleted") {
		n.t.Errorf("run says %q, %v", out, err)
	}
	n.kubectl("wait", "--for=delete", "pod/hello", "--timeout=60s")
	_, err = n.c.Kubectl(n.ctx, "run", "fails", "--rm", "-i", "--restart=Never", "--image="+image.Shell, "--image-pull-policy=Never",
		"--pod-running-timeout=60s", "--command", "--", "/bin/sh", "-c", "read x; exit 5")
	if err == nil || !strings.Contains(err.Error(), "exit code 5") && !strings.Contains(err.Error(), "exit status 5") {
		n.t.Errorf("a command that fails is %v", err)
	}
	n.kubectl("wait", "--for=delete", "pod/fails", "--timeout=60s")
}

// follow: a log that is followed shows each line when it is written, and ends with the
// container.
func (n *node) follow() {
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: ` + image.Shell + `
    imagePullPolicy: Never
    command: [/bin/sh, -c, 'for i in 1 2 3; do until rm /tmp/go 2>/dev/null; do sleep 0.05; done; echo "line $i"; done']
`)
	n.kubectl("wait", ready, "pod/writer", "--timeout=60s")
	cmd := n.c.Command("logs", "-f", "writer")
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.bed.Start(cmd); err != nil {
		n.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewReader(out)
	for i := range 3 {
		// The container may end before the last command has, and takes it along.
		if _, err := n.c.Kubectl(n.ctx, "exec", "writer", "--", "touch", "/tmp/go"); err != nil && (i < 2 || !strings.Contains(err.Error(), "exit code 137")) {
			n.t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i+1) {
			n.t.Fatalf("line %d is %q, %v", i+1, line, err)
		}
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		n.t.Errorf("after the end come %q, %v", rest, err)
	}
	n.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/writer", "--timeout=60s")
	n.kubectl("delete", "pod", "writer", "--timeout=60s")
}

// typed is kubectl at a terminal of 30 lines of 100 characters.
type typed struct {
	n      *node
	cmd    *exec.Cmd
	person *os.File
}

func (n *node) atTerminal(args ...string) *typed {
	n.t.Helper()
	person, terminal := pty(n.t)
	defer terminal.Close()
	size := unix.Winsize{Row: 30, Col: 100}
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		n.t.Fatal(err)
	}
	cmd := n.c.Command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	if err := n.bed.Start(cmd); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return &typed{n: n, cmd: cmd, person: person}
}

// until reads until the terminal has shown some words.
func (s *typed) until(words string) {
	s.n.t.Helper()
	var shown bytes.Buffer
	buf := make([]byte, 4096)
	_ = s.person.SetReadDeadline(time.Now().Add(time.Minute))
	for !strings.Contains(shown.String(), words) {
		k, err := s.person.Read(buf)
		shown.Write(buf[:k])
		if err != nil {
			s.n.t.Fatalf("the terminal shows %q and ends: %v", shown.String(), err)
		}
	}
}

// ends types the last line and returns how kubectl ended.
func (s *typed) ends(last string) error {
	fmt.Fprint(s.person, last)
	go func() { _, _ = io.Copy(io.Discard, s.person) }() // ends when the terminal is closed
	return s.cmd.Wait()
}

// terminal: exec -it and attach -it have a terminal of the size of the person's.
func (n *node) terminal() {
	n.talker("term", true)
	s := n.atTerminal("exec", "-it", "term", "--", "/bin/sh")
	fmt.Fprintln(s.person, `until [ "$(stty size)" = "30 100" ]; do sleep 0.1; done; echo its size is $((29+1))`)
	s.until("its size is 30")
	if err := s.ends("exit 3\n"); s.cmd.ProcessState.ExitCode() != 3 {
		n.t.Errorf("exec -it of a shell that ends with 3 ends with %d, %v", s.cmd.ProcessState.ExitCode(), err)
	}
	s = n.atTerminal("attach", "-it", "term")
	fmt.Fprintln(s.person, `until [ "$(stty size)" = "30 100" ]; do sleep 0.1; done; echo attached $((6*7))`)
	s.until("attached 42")
	if err := s.ends("exit 0\n"); err != nil {
		n.t.Errorf("attach -it ends with %v", err)
	}
	n.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/term", "--timeout=60s")
	n.kubectl("delete", "pod", "term", "--timeout=60s")
}

// copyFiles: kubectl cp there and back, a directory with what is no text.
func (n *node) copyFiles() {
	n.talker("store", false)
	dir := filepath.Join(n.t.TempDir(), "there")
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data) // never fails
	for name, b := range map[string][]byte{"a/big": data, "a/b/empty": {}} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			n.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
	n.kubectl("cp", filepath.Join(dir, "a"), "store:/tmp/a")
	back := filepath.Join(n.t.TempDir(), "back")
	n.kubectl("cp", "store:/tmp/a", back)
	if got, err := os.ReadFile(filepath.Join(back, "big")); err != nil || !bytes.Equal(got, data) {
		n.t.Errorf("of %d bytes %d came back, %v", len(data), len(got), err)
	}
	if st, err := os.Stat(filepath.Join(back, "b", "empty")); err != nil || st.Size() != 0 {
		n.t.Errorf("the empty file is %v, %v", st, err)
	}
	n.kubectl("delete", "pod", "store", "--timeout=60s")
}

// deleted: a pod has its grace to end in, a shorter one counts, and one that is
// forced is gone from the API server at once and from the node after its grace.
func (n *node) deleted() {
	stubborn := func(name string, grace int) {
		n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: ` + fmt.Sprint(grace) + `
  containers: [{name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sh, -c, "trap '' TERM; while :; do sleep 1; done"]}]
`)
		n.kubectl("wait", ready, "pod/"+name, "--timeout=60s")
	}
	stubborn("stubborn", 600)
	n.kubectl("delete", "pod", "stubborn", "--wait=false")
	if _, err := n.c.Kubectl(n.ctx, "wait", "--for=delete", "pod/stubborn", "--timeout=3s"); err == nil {
		n.t.Error("a pod that does not heed TERM was gone within its grace")
	}
	n.kubectl("delete", "pod", "stubborn", "--grace-period=1", "--timeout=60s")
	stubborn("forced", 3)
	n.kubectl("delete", "pod", "forced", "--force", "--grace-period=0", "--timeout=60s")
	for deadline := time.Now().Add(time.Minute); ; {
		out, err := n.CLI(n.ctx, "pods", "-o", "name")
		if err == nil && !strings.Contains(out, "forced") {
			break
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the daemon still has %q, %v", out, err)
		}
	}
}

// pty is a terminal and the end that a person would hold.
func pty(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	raw, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	_ = raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if failed != nil {
		t.Fatal(failed)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return person, terminal
}

// nodeLogs: through the API server who may read a node's logs finds their directory,
// and who may not does not.
func (n *node) nodeLogs() {
	if got := n.raw("/logs/"); !strings.Contains(got, "<pre>") {
		n.t.Errorf("the logs of the node are %q", got)
	}
	_, err := n.c.Kubectl(n.ctx, "get", "--raw", "/api/v1/nodes/node/proxy/logs/none-of-this-name")
	refused(n.t, err, "NotFound")
	if got := n.raw("/logs/?query=none-of-this-name"); got != "\nlog not found for none-of-this-name\n" {
		n.t.Errorf("the log of a service that is not there is %q", got)
	}
	_, err = n.c.Kubectl(n.ctx, "get", "--raw", "/api/v1/nodes/node/proxy/logs/?query=kubelet&tailLines=100001")
	refused(n.t, err, "tailLines")
	for _, path := range []string{"", "?query=kubelet"} {
		_, err = n.c.Kubectl(n.ctx, "--as=nobody", "get", "--raw", "/api/v1/nodes/node/proxy/logs/"+path)
		refused(n.t, err, "Forbidden")
	}
}

// explainedDead: with the daemon dead a pod of the API server is told of by what the
// daemon left on the disk.
func (n *node) explainedDead() {
	n.apply(sleeper("known", ""))
	n.kubectl("wait", ready, "pod/known", "--timeout=60s")
	uid := n.jsonpath("{.metadata.uid}", "pod", "known")
	for deadline := time.Now().Add(time.Minute); ; { // it is written a moment later
		text, err := os.ReadFile(filepath.Join(n.StateDir(), "pods", "pods"))
		if err == nil && strings.Contains(string(text), uid) {
			break
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the pod is not kept on the disk: %v", err)
		}
	}
	if err := n.Kill(); err != nil {
		n.t.Fatal(err)
	}
	out, err := n.CLI(n.ctx, "explain", "pod", "known")
	if err != nil || !strings.Contains(out, "default/known is Ready") {
		n.t.Errorf("of a pod of the API server a dead daemon says %q, %v", out, err)
	}
	if err := n.Start(n.ctx); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("delete", "pod", "known", "--timeout=60s")
}
