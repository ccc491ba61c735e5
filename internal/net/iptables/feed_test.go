package iptables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/test/need"
)

// fedPatch gives a chain of one service other rules.
func fedPatch(last int, more ...string) []patch {
	rules := append([]string{fmt.Sprintf("-d 10.96.0.1/32 -p tcp -j DNAT --to-destination 10.128.0.%d:8080", last)}, more...)
	return []patch{{table: nat, write: []rewrite{{chain: chain{nat, "NODEAGENT-EP0-t", rules}}}}}
}

// fedOf is the program that stays, of IPv4.
func fedOf(t *testing.T, b *Backend) int {
	t.Helper()
	if b.feeds[false].fed == nil {
		t.Fatal("no program stays")
	}
	return b.feeds[false].fed.c.Process.Pid
}

// ended waits until a process, which is to end, has.
func ended(t *testing.T, fd int) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			t.Fatalf("a program that should have ended has not: %v", err)
		}
		return
	}
}

func pidfd(t *testing.T, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestFeed: one program makes all small changes. It sees what others did between two of
// them; what it refuses is quoted, and is not made; and one that went, is killed or was
// refused something is followed by another.
func TestFeed(t *testing.T) {
	need.Have(t, need.Root)
	ctx := hosttest.Ctx(t)
	b := backend(t, Config{Flavour: NFT})
	tools, err := b.choose(ctx)
	must(t, err)
	has := func(last int) {
		t.Helper()
		out := command(t, "iptables", NFT, "", "-t", nat, "-S", "NODEAGENT-EP0-t")
		if strings.Count(out, "DNAT") != 1 || !strings.Contains(out, fmt.Sprintf("10.128.0.%d:8080", last)) {
			t.Errorf("wanted is one rule to 10.128.0.%d, and there is\n%s", last, out)
		}
	}
	write := func(last int) {
		t.Helper()
		must(t, b.write(ctx, tools[0], fedPatch(last)))
		has(last)
	}
	write(1)
	first := fedOf(t, b)
	for i := range 20 {
		write(2 + i)
	}
	command(t, "iptables", NFT, "", "-t", nat, "-F", "NODEAGENT-EP0-t")
	command(t, "iptables", NFT, "", "-t", nat, "-X", "NODEAGENT-EP0-t")
	write(30)
	command(t, "iptables", NFT, "", "-t", nat, "-A", "NODEAGENT-EP0-t", "-p", "tcp", "-j", "DNAT", "--to-destination", "10.128.9.9:1")
	write(31)
	c, err := nftables.New()
	must(t, err)
	c.DelTable(&nftables.Table{Name: nat, Family: nftables.TableFamilyIPv4})
	must(t, c.Flush())
	write(31)
	if now := fedOf(t, b); now != first {
		t.Errorf("what process %d began, %d goes on with", first, now)
	}

	gone := pidfd(t, first)
	err = b.write(ctx, tools[0], fedPatch(32, "-d 10.96.0.999 -j ACCEPT"))
	if !net.IsRefused(err) || !strings.Contains(err.Error(), ` is "-A NODEAGENT-EP0-t -d 10.96.0.999 -j ACCEPT")`) {
		t.Errorf("an address that is none: %v", err)
	}
	ended(t, gone)
	has(31)
	write(33)
	second := fedOf(t, b)
	must(t, unix.Kill(second, unix.SIGKILL))
	ended(t, pidfd(t, second))
	write(34)
	third := fedOf(t, b)
	if second == first || third == second {
		t.Errorf("after %d and %d there is %d", first, second, third)
	}

	// One that takes too long.
	third = fedOf(t, b)
	must(t, unix.Kill(third, unix.SIGSTOP))
	stop, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	gone = pidfd(t, third)
	if err := b.write(stop, tools[0], fedPatch(35)); !errors.Is(err, context.DeadlineExceeded) || net.IsRefused(err) {
		t.Errorf("a change for which there was no time: %v", err)
	}
	ended(t, gone)
	write(36)
	last := pidfd(t, fedOf(t, b))
	b.Close()
	ended(t, last)
	write(37)
}

// TestFeedRests: a program stays only where changes are frequent, and not for ever.
func TestFeedRests(t *testing.T) {
	need.Have(t, need.Root)
	ctx := hosttest.Ctx(t)
	b := backend(t, Config{Flavour: NFT})
	tools, err := b.choose(ctx)
	must(t, err)
	f := b.feeds[false]
	f.last = time.Now().Add(-time.Hour)
	must(t, b.write(ctx, tools[0], fedPatch(1)))
	if f.fed != nil {
		t.Error("the first change in an hour is made by a program that stays")
	}
	must(t, b.write(ctx, tools[0], fedPatch(2)))
	fd := pidfd(t, fedOf(t, b))
	f.mu.Lock()
	f.rest = time.Millisecond
	f.settle()
	f.mu.Unlock()
	ended(t, fd)

	f.mu.Lock() // who ends it lets go
	f.rest = time.Hour
	f.mu.Unlock()
	must(t, b.write(ctx, tools[0], fedPatch(3)))
	fd = pidfd(t, fedOf(t, b))
	f.fed.changes = maxChanges
	must(t, b.write(ctx, tools[0], fedPatch(4)))
	ended(t, fd)
	if f.fed != nil {
		t.Error("a program stays that has done enough")
	}

	must(t, b.write(ctx, tools[0], fedPatch(5)))
	before := f.fed.changes
	must(t, b.write(ctx, tools[0], fedPatch(6, strings.Split(strings.Repeat("-d 10.96.0.2/32 -p tcp -j DNAT --to-destination 10.128.0.7:8080\n", 1200)[:1200*64-1], "\n")...)))
	if f.fed.changes != before {
		t.Error("a long change is made by the program that stays")
	}
	func() { // beside one that is being made
		f.mu.Lock()
		defer f.mu.Unlock()
		must(t, b.write(ctx, tools[0], fedPatch(7)))
	}()
	if f.fed.changes != before {
		t.Error("two changes are made by one program at once")
	}
}

// TestFeedUnable: a program that ends at once, or says nothing of what it does, is not
// waited for twice; changes are made all the same.
func TestFeedUnable(t *testing.T) {
	need.Have(t, need.Root)
	for name, script := range map[string]string{
		"ends":   "exit 3",
		"silent": "exec cat >/dev/null",
		"deaf":   "exec >&- 2>&-; exec cat",
		"apart":  "sh -c 'cat <&3 >/dev/null' 3<&0", // who is killed is another
	} {
		t.Run(name, func(t *testing.T) {
			ctx := hosttest.Ctx(t)
			b := backend(t, Config{Flavour: NFT})
			tools, err := b.choose(ctx)
			must(t, err)
			x := tools[0]
			real := x.restore
			x.restore = filepath.Join(t.TempDir(), "restore")
			text := fmt.Sprintf("#!/bin/sh\ncase $* in *verbose*) echo >>%s.begun; %s;; *) exec %s \"$@\";; esac\n", x.restore, script, real)
			must(t, os.WriteFile(x.restore, []byte(text), 0o700))
			b.feeds[false].hello = 2 * time.Second
			for i := range 3 {
				must(t, b.write(ctx, x, fedPatch(i)))
			}
			if begun, err := os.ReadFile(x.restore + ".begun"); err != nil || len(begun) != 1 {
				t.Errorf("it was begun %d times: %v", len(begun), err)
			}
			if out := dump(t, NFT); !strings.Contains(out, "10.128.0.2:8080") {
				t.Errorf("there is\n%s", out)
			}
		})
	}
}

// TestFeedNews: what the program that stays writes is no news, though many others began
// since it did.
func TestFeedNews(t *testing.T) {
	need.Have(t, need.Root)
	w := newWard(t, NFT, 40)
	w.move(0, "1")
	pid := fedOf(t, w.Backend)
	drain(w.wakes)
	for i := range maxChildren + 6 {
		w.mu.Lock()
		w.child(1<<30 + i)
		w.mu.Unlock()
	}
	w.move(0, "2")
	for i := range maxChildren - 1 {
		w.mu.Lock()
		w.child(1<<29 + i)
		w.mu.Unlock()
	}
	if !w.isChild(pid) || fedOf(t, w.Backend) != pid {
		t.Error("the program that stays is no longer known")
	}
	command(t, "iptables", NFT, "", "-t", nat, "-F", w.chain(7))
	woken(t, w.wakes, "what somebody else did")
	w.mu.Lock()
	defer w.mu.Unlock()
	if want := (spot{ipv4.v6, nat, w.chain(7)}); len(w.spots) != 1 || !w.spots[want] || w.unsure {
		t.Errorf("heard is %v, and wanted %v alone", w.spots, want)
	}
}
