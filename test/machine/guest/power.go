package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// PowerOn boots the guest's disk as it is and returns when systemd has started
// everything, whether or not each unit did well.
func (g *Guest) PowerOn(ctx context.Context) error {
	g.mu.Lock()
	on := g.proc != nil
	g.mu.Unlock()
	if on {
		return errors.New("power the guest on: it is on")
	}
	ctx, cancel := context.WithTimeout(ctx, machines[g.opts.Arch].boot)
	defer cancel()
	s := g.spec
	s.incoming = false
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.proc = p
	g.mu.Unlock()
	return g.up(ctx, "")
}

// up waits for a boot other than last, and until systemd is done with it.
func (g *Guest) up(ctx context.Context, last string) error {
	ch, err := g.channel()
	if err != nil {
		return err
	}
	id, err := ch.waitBoot(ctx, last)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.bedded = g.bedded && last == ""
	g.boot = id
	g.mu.Unlock()
	// "degraded" is an exit code of 1: some unit failed, which may be the test.
	out, err := g.Run(ctx, "systemctl", "is-system-running", "--wait")
	switch state := strings.TrimSpace(out); {
	case state == "running" || state == "degraded":
		return nil
	case err != nil:
		return fmt.Errorf("wait for systemd: %w", err)
	default:
		return fmt.Errorf("wait for systemd: it is %q", state)
	}
}

// BootID is the kernel's boot id.
func (g *Guest) BootID() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.boot
}

// Reboot runs systemctl reboot and returns when the guest is back, with another
// boot id.
func (g *Guest) Reboot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*machines[g.opts.Arch].boot)
	defer cancel()
	last := g.BootID()
	// The command's end may or may not arrive before the guest's.
	if _, err := g.Run(ctx, "systemctl", "reboot"); err != nil && !errors.Is(err, errGone) {
		return err
	}
	return g.up(ctx, last)
}

// PowerCut ends the guest as a power failure does: QEMU is killed, and what the
// guest's page cache held is lost. Only a Durable guest has a disk worth booting.
func (g *Guest) PowerCut() error {
	g.mu.Lock()
	p := g.proc
	g.proc = nil
	g.mu.Unlock()
	if p == nil {
		return errors.New("cut the guest's power: it has none")
	}
	p.kill()
	g.ended(p)
	return nil
}

// PowerOff shuts the guest down in order, and waits for its end.
func (g *Guest) PowerOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	g.mu.Lock()
	p := g.proc
	g.mu.Unlock()
	if p == nil {
		return errors.New("power the guest off: it is off")
	}
	if _, err := g.Run(ctx, "systemctl", "poweroff"); err != nil && !errors.Is(err, errGone) {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("power the guest off: %w", ctx.Err())
	}
	g.mu.Lock()
	g.proc = nil
	g.mu.Unlock()
	p.wait()
	g.ended(p)
	return nil
}

// CutsTime is how long a test may take that cuts the power so often, with what it
// does in between. The runner's limit of a test goes by it, too.
func CutsTime(cuts uint64) time.Duration {
	return time.Duration(cuts+1) * 5 * time.Minute
}
