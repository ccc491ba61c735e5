package guest

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// spent is what a process that has ended has cost.
func (p *process) spent() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// ended adds to what the guest has cost, over all the times that it had power.
func (g *Guest) ended(p *process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cost += p.spent()
}

// CPU is what emulating the guest has cost the host since it was last started or
// resumed: a measure that other work on the host does not change.
func (g *Guest) CPU() (time.Duration, error) {
	g.mu.Lock()
	p := g.proc
	g.mu.Unlock()
	if p == nil {
		return 0, nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // proc(5): from the third field on
	if len(f) < 13 {
		return 0, fmt.Errorf("read qemu's stat: %q", b)
	}
	user, err := strconv.Atoi(string(f[11]))
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(string(f[12]))
	return time.Duration(user+system) * 10 * time.Millisecond, err
}
