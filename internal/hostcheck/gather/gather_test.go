package gather

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"nodeagent/internal/hostcheck"
	"nodeagent/internal/test/need"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRun: probes run side by side, one that fails or hangs is named, and what a
// late one saw is not used.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		swap := func(name string) see { return func(f *hostcheck.Facts) { f.Swaps = append(f.Swaps, name) } }
		began := time.Now()
		f := run(t.Context(), Config{Limit: Limit}, []probe{
			{"hangs", func(context.Context) (see, error) { <-free; return swap("late"), nil }},
			{"minds", func(ctx context.Context) (see, error) { <-ctx.Done(); return nil, ctx.Err() }},
			{"fails", func(context.Context) (see, error) { return nil, errors.Join(errors.New("a"), errors.New("b")) }},
			{"half", func(context.Context) (see, error) { return swap("half"), errNotRoot }},
			{"slow", func(context.Context) (see, error) { time.Sleep(Limit - time.Millisecond); return swap("slow"), nil }},
			{"sees", func(context.Context) (see, error) { return swap("sees"), nil }},
		})
		if took := time.Since(began); took > Limit+grace {
			t.Errorf("it took %v", took)
		}
		close(free)
		synctest.Wait()
		if want := []string{"half", "slow", "sees"}; !slices.Equal(f.Swaps, want) {
			t.Errorf("seen are %v, want %v", f.Swaps, want)
		}
		var unseen []string
		for _, u := range f.Unseen {
			unseen = append(unseen, u.What+": "+u.Why)
		}
		want := []string{"hangs: no answer within 2s", "minds: no answer within 2s", "fails: a", "fails: b", "half: needs root"}
		if !slices.Equal(unseen, want) {
			t.Errorf("unseen are %q, want %q", unseen, want)
		}
	})
}

func TestParseSocket(t *testing.T) {
	for line, want := range map[string]string{
		"   0: 0100007F:2808 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0":                       "127.0.0.1:10248 12345",
		"   1: 00000000000000000000000000000000:280A 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 777 1 0": "[::]:10250 777",
		"   2: 0000000000000000FFFF00000100007F:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 9 1 0":   "127.0.0.1:22 9",
		"   3: 0100007F:2808 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 12345 1 0":                                    "", // established
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode":                                        "",
		"   4: 01007F:2808 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0":                                          "",
		"   5: 0100007F:12808 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0":                                       "",
		"   6: 0100007F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0":                                             "",
		"": "",
	} {
		got := ""
		if s, ok := parseSocket(line); ok {
			got = s.addr.String() + " " + s.inode
		}
		if got != want {
			t.Errorf("%q is %q, want %q", line, got, want)
		}
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add("   0: 0100007F:2808 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0")
	f.Fuzz(func(t *testing.T, line string) {
		if s, ok := parseSocket(line); ok && !s.addr.IsValid() {
			t.Errorf("%q is taken for a socket at %v", line, s.addr)
		}
	})
}

func TestParentOf(t *testing.T) {
	for stat, want := range map[string]int{
		"7 (sh) S 3 7 7 0": 3, "7 (a) S 9 (b) R 5 1": 5, "7 (x": 0, "": 0, "7 (sh) S x": 0, "7 (sh)": 0,
	} {
		if got := parentOf(stat); got != want {
			t.Errorf("parentOf(%q) = %d, want %d", stat, got, want)
		}
	}
}

func FuzzParentOf(f *testing.F) {
	f.Add("7 (sh) S 3 7 7 0")
	f.Fuzz(func(_ *testing.T, stat string) { parentOf(stat) })
}

func TestFlag(t *testing.T) {
	for args, want := range map[string]string{
		"kubelet": "/d", "kubelet\x00--root-dir=/a/": "/a", "kubelet\x00--root-dir\x00/b\x00": "/b",
		"kubelet\x00--root-dir=/a\x00--root-dir=/c": "/c", "kubelet\x00--root-dir": "/d", "kubelet\x00--root-dirs=/x": "/d",
	} {
		if got := flag([]byte(args), "--root-dir", "/d"); got != want {
			t.Errorf("flag(%q) = %q, want %q", args, got, want)
		}
	}
}

func TestShimName(t *testing.T) {
	for runtime, want := range map[string]string{
		"io.containerd.runc.v2": "containerd-shim-runc-v2", "io.containerd.nodeagent.v1": "containerd-shim-nodeagent-v1",
		"/opt/shims/mine": "mine", "runc": "",
	} {
		if got := shimName(runtime); got != want {
			t.Errorf("shimName(%q) = %q, want %q", runtime, got, want)
		}
	}
	g := &gatherer{Config{Host: hostcheck.Config{Shim: "io.containerd.nodeagent.v1"}}}
	for name, foreign := range map[string]bool{"containerd-shim-runc-v2": true, "conmon": true, "containerd-shim-nodeagent-v1": false, "systemd": false, "": false} {
		if g.foreign(name) != foreign {
			t.Errorf("foreign(%q) = %v", name, !foreign)
		}
	}
}

func TestOverlaps(t *testing.T) {
	g := &gatherer{Config{Host: hostcheck.Config{CIDRs: []string{"10.244.0.0/16", "fd00::/64", "nonsense"}}}}
	for dst, n := range map[string]int{
		"10.244.7.0/24": 1, "10.244.0.0/16": 1, "10.244.3.3/32": 1, "10.0.0.0/8": 0, "192.168.0.0/24": 0, "fd00::1/128": 1, "fd01::/64": 0,
	} {
		if got := g.overlaps(netip.MustParsePrefix(dst), "x"); len(got) != n {
			t.Errorf("%s overlaps %v", dst, got)
		}
	}
}

func TestOn(t *testing.T) {
	for _, v := range []any{true, "yes", "strict", "read-only", []string{"/x"}, "invisible"} {
		if !on(v) {
			t.Errorf("%v is off", v)
		}
	}
	for _, v := range []any{nil, false, "", "no", "default", "all", []string{}, [][]any{}, 7} {
		if on(v) {
			t.Errorf("%v is on", v)
		}
	}
}

// TestTries: what is tried works on every machine that can run the other tests,
// and leaves nothing behind.
func TestTries(t *testing.T) {
	need.Have(t, need.Root)
	before := links(t)
	var f hostcheck.Facts
	for _, look := range []func(context.Context) (see, error){newGatherer(Config{}).tryOverlay, newGatherer(Config{}).tryNetwork} {
		s, err := look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s(&f)
	}
	for name, err := range map[string]*string{"overlay": f.Tried.Overlay, "bridge": f.Tried.Bridge, "veth": f.Tried.Veth, "nftables": f.Tried.Nftables} {
		if err == nil || *err != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := links(t); !slices.Equal(before, after) {
		t.Errorf("interfaces were %v and are %v", before, after)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "nodeagent-check") {
		t.Error("the overlay's tmpfs is still mounted")
	}
}

func links(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "na-check") {
			all = append(all, e.Name())
		}
	}
	return all
}

// TestExisting: a directory that is not there yet is judged by where it will be.
func TestExisting(t *testing.T) {
	dir := t.TempDir()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{dir: real, dir + "/a/b": real, dir + "/link/x": real, "/": "/"} {
		if got, err := existing(in); got != want || err != nil {
			t.Errorf("existing(%s) = %s, %v, want %s", in, got, err, want)
		}
	}
}
