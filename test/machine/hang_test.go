package machine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest"
)

// TestHang: a guest that does not come up is ended at the deadline, and what it
// said on its console is in the error.
func TestHang(t *testing.T) {
	need.Have(t, need.Root, need.Machine)
	ctx := within(t, time.Minute)
	g, err := guest.New(ctx, guest.Options{Fresh: true, Cmdline: []string{"init=/bin/sleep", "loglevel=7", "--", "infinity"}})
	if err == nil {
		_ = g.Close()
		t.Fatal("a guest without an init came up")
	}
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "[    ") {
		t.Errorf("the error says neither that the deadline passed nor what was on the console: %v", err)
	}
}

// TestOwnerKilled: QEMU does not outlive a test that was killed.
func TestOwnerKilled(t *testing.T) {
	need.Have(t, need.Root, need.Machine)
	if os.Getenv("GUEST_OWNER") != "" {
		guest.Start(t, guest.Options{})
		fmt.Println("guest is up")
		<-t.Context().Done()
		return
	}
	cmd := exec.CommandContext(within(t, 10*time.Minute), os.Args[0], "-test.run=^TestOwnerKilled$", "-test.v")
	cmd.Env = append(os.Environ(), "GUEST_OWNER=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up := false
	for s := bufio.NewScanner(out); !up && s.Scan(); {
		up = strings.Contains(s.Text(), "guest is up")
	}
	qemu := children(cmd.Process.Pid)
	if !up || len(qemu) != 1 {
		t.Fatalf("up %t, children %v", up, qemu)
	}
	fd, err := unix.PidfdOpen(qemu[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 20_000); n != 1 {
		t.Errorf("qemu %d lives after its test: %v", qemu[0], err)
	}
}

// children are the processes that any thread of pid has started.
func children(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range tasks {
		b, _ := os.ReadFile(path)
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}
