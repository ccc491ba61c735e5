package podnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// crashScript holds, for a second daemon in the namespaces of the test, what it
// shall do before it dies.
const crashScript = "PODNET_TEST_CRASH"

type script struct {
	StateDir, RunDir, ConfDir, BinDir string
	CIDRs                             []netip.Prefix
	Req                               Request
	Down                              bool // tear down after the setup
}

// crashHelper is that daemon: 0 done, 3 the network failed, 1 anything else.
func crashHelper(text string) int {
	var s script
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	n, err := New(Config{StateDir: s.StateDir, RunDir: s.RunDir, CNIConfDir: s.ConfDir, CNIBinDir: s.BinDir, CIDRs: s.CIDRs})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() { _ = n.Run(ctx) }()
	if _, err = n.Setup(ctx, s.Req); err == nil && s.Down {
		err = n.Teardown(ctx, s.Req)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	return 0
}

// die runs such a daemon with fail-points and returns its exit code, or -1 for
// a kill.
func (h *host) die(t *testing.T, req Request, down bool, failpoints string) int {
	t.Helper()
	c := h.cfg
	s := script{c.StateDir, c.RunDir, c.CNIConfDir, c.CNIBinDir, c.CIDRs, req, down}
	text, err := json.Marshal(s)
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashScript+"="+string(text), "NODEAGENT_FAILPOINTS="+failpoints)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return -1
	case errors.As(err, &exit):
		t.Logf("%s", out)
		return exit.ExitCode()
	}
	t.Fatal(err)
	return 1
}

// TestSecondProcess proves the helper itself: one process sets up, another one
// finds it and takes it back.
func TestSecondProcess(t *testing.T) {
	h := newHost(t, dual...)
	p := h.newPod(PortMapping{ContainerPort: 80, HostPort: 8080})
	if code := h.die(t, p.req, false, ""); code != 0 {
		t.Fatalf("exit %d", code)
	}
	n := h.start()
	serve(t, p.netns, "tcp", "a", 80)
	wantAnswer(t, h.outside, "tcp", nodeAddr4, 8080, "a", outsideAddr4)
	must(t, n.Check(context.Background(), p.req))
	h.down(n, p)
}
