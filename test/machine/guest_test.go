package machine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nodeagent/test/machine/guest"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestGuest proves what every other test here stands on: a guest comes up from
// its snapshot with systemd, cgroup v2 and the host's clock; commands and files
// go in and out; and nothing of it has a network.
func TestGuest(t *testing.T) {
	t.Parallel()
	g := guest.Start(t, guest.Options{})
	ctx := within(t, time.Minute)
	t.Run("facts", func(t *testing.T) {
		out, err := g.Shell(ctx, "cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; cat /proc/self/oom_score_adj; uname -m")
		arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[g.Arch()]
		if want := "systemd\ncgroup2fs\n0\n" + arch + "\n"; err != nil || out != want {
			t.Errorf("the guest says %q, %v, want %q", out, err, want)
		}
	})
	t.Run("clock", func(t *testing.T) {
		before := time.Now()
		out, err := g.Run(ctx, "date", "+%s%N")
		ns, perr := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if d := time.Unix(0, ns).Sub(before); err != nil || perr != nil || d < -time.Second || d > 10*time.Second {
			t.Errorf("the guest's clock is %v away: %q %v", d, out, err)
		}
	})
	t.Run("clock's pace", func(t *testing.T) {
		// A guest on a busy host that had to measure its clock may be at twice the time.
		before := time.Now()
		out, err := g.Shell(ctx, "a=$(cut -d' ' -f1 /proc/uptime); sleep 3; echo $a; cut -d' ' -f1 /proc/uptime")
		here := time.Since(before).Seconds()
		var from, to float64
		if _, serr := fmt.Sscan(out, &from, &to); err != nil || serr != nil || to-from > here {
			t.Errorf("%.1f s here are %.1f s in the guest: %q %v", here, to-from, out, err)
		}
	})
	t.Run("network", func(t *testing.T) {
		out, err := g.Run(ctx, "ip", "-brief", "link")
		if err != nil || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "lo ") {
			t.Errorf("links: %q %v", out, err)
		}
	})
	t.Run("exit code", func(t *testing.T) {
		code, err := g.Exec(ctx, guest.Command{Argv: []string{"sh", "-c", "kill -9 $$"}})
		if code != 137 || err != nil {
			t.Errorf("a killed command ends with %d, %v", code, err)
		}
		if out, err := g.Run(ctx, "sh", "-c", "echo said; exit 3"); err == nil || out != "said\n" || !strings.Contains(err.Error(), "exit code 3") {
			t.Errorf("a failed command: %q, %v", out, err)
		}
		if _, err := g.Run(ctx, "/no/such/program"); err == nil {
			t.Error("a program that is not there did not fail")
		}
	})
	t.Run("deadline", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		if _, err := g.Run(short, "sh", "-c", "sleep 1234 & sleep 1234"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a command that hangs: %v", err)
		}
		if out, err := g.Run(ctx, "pgrep", "-fc", "sleep 1234"); err == nil {
			t.Errorf("its processes live on: %s", out)
		}
	})
	t.Run("files", func(t *testing.T) { testFiles(t, g) })
}

func testFiles(t *testing.T, g *guest.Guest) {
	ctx := within(t, time.Minute)
	want := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20) // 16 MiB
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, want, 0o640); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := g.Put(ctx, path, "/srv/a/b/file"); err != nil {
		t.Fatal(err)
	}
	put := time.Since(start)
	got, err := g.Get(ctx, "/srv/a/b/file")
	t.Logf("16 MiB put in %v, got in %v", put, time.Since(start)-put)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if out, err := g.Run(ctx, "stat", "-c", "%a", "/srv/a/b/file"); err != nil || out != "640\n" {
		t.Errorf("its mode is %q, %v", out, err)
	}
	if _, err := g.Get(ctx, "/no/such/file"); err == nil {
		t.Error("a file that is not there was got")
	}
	var out bytes.Buffer
	code, err := g.Exec(ctx, guest.Command{Argv: []string{"wc", "-c"}, Stdin: bytes.NewReader(want), Output: &out})
	if code != 0 || err != nil || strings.TrimSpace(out.String()) != strconv.Itoa(len(want)) {
		t.Errorf("standard input: %q, %d, %v", out.String(), code, err)
	}
}

// TestTwoGuests: two at once share nothing, neither disk nor random numbers.
func TestTwoGuests(t *testing.T) {
	t.Parallel()
	a, b := guest.Start(t, guest.Options{}), guest.Start(t, guest.Options{})
	ctx := within(t, time.Minute)
	if err := a.Write(ctx, "/srv/mark", []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, "/srv/mark"); err == nil {
		t.Error("one guest sees the other's file")
	}
	uuid := "/proc/sys/kernel/random/uuid"
	ua, erra := a.Get(ctx, uuid)
	ub, errb := b.Get(ctx, uuid)
	if erra != nil || errb != nil || bytes.Equal(ua, ub) {
		t.Errorf("their random numbers: %s %v, %s %v", ua, erra, ub, errb)
	}
}

// TestPower: a power cut loses what the guest had not flushed and keeps what it
// had; commands in flight are told. A reboot is what TestReboot is about.
func TestPower(t *testing.T) {
	t.Parallel()
	g := guest.Start(t, guest.Options{Durable: true})
	ctx := within(t, 10*time.Minute)
	first := g.BootID()
	hang := make(chan error, 1)
	go func() {
		_, err := g.Run(ctx, "sleep", "infinity")
		hang <- err
	}()
	if _, err := g.Shell(ctx, "echo flushed > /srv/flushed; sync; echo lost > /srv/lost"); err != nil {
		t.Fatal(err)
	}
	if err := g.PowerCut(); err != nil {
		t.Fatal(err)
	}
	if err := <-hang; err == nil {
		t.Error("a command that the power cut ended has ended well")
	}
	if _, err := g.Run(ctx, "true"); err == nil {
		t.Error("a guest without power runs commands")
	}
	if err := g.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	if g.BootID() == first {
		t.Error("the boot id is the old one")
	}
	if out, err := g.Get(ctx, "/srv/flushed"); err != nil || string(out) != "flushed\n" {
		t.Errorf("what was flushed: %q, %v", out, err)
	}
	if out, err := g.Get(ctx, "/srv/lost"); err == nil && string(out) == "lost\n" {
		t.Error("what was never flushed survived: this was no power cut")
	}
	if err := g.PowerOff(ctx); err != nil {
		t.Error(err)
	}
}
