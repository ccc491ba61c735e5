package nftables

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/test/need"
)

var thisNode = hosttest.ThisNode

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func backend(t testing.TB, cfg Config) *Backend {
	t.Helper()
	if cfg.Pods == nil && cfg.PodInterfaces == nil {
		cfg.Pods = hosttest.Pods
	}
	b, err := New(cfg)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := b.Remove(ctx); err != nil {
			t.Error(err)
		}
		b.Close()
	})
	return b
}

func nft(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// kind is what all backends are tested by.
var kind = hosttest.Kind{
	New:    func(t testing.TB) hosttest.Programmer { return backend(t, Config{}) },
	List:   func(t testing.TB) string { return nft(t, "list", "ruleset") },
	Flush:  func(t testing.TB) { nft(t, "flush", "ruleset") },
	Ranges: true,
}

func TestMatrix(t *testing.T) { hosttest.Matrix(t, kind) }

// TestMatrixByInterface: a pod is known by where its packets come in.
func TestMatrixByInterface(t *testing.T) {
	for _, names := range [][]string{{"v-here+"}, {"v-here1", "v-here2", "v-here3"}} {
		t.Run(names[0], func(t *testing.T) {
			k := kind
			k.New = func(t testing.TB) hosttest.Programmer { return backend(t, Config{PodInterfaces: names}) }
			hosttest.Matrix(t, k)
		})
	}
}

// TestInvalid: what belongs to no connection does not pass, unless it may.
func TestInvalid(t *testing.T) {
	hosttest.Invalid(t, func(t testing.TB, keep bool) hosttest.Programmer { return backend(t, Config{KeepInvalid: keep}) })
}

// TestHeld: who explains is told what the kernel has.
func TestHeld(t *testing.T) { need.Have(t, need.Root); hosttest.Held(t, "nftables", kind) }

func TestBalance(t *testing.T) { hosttest.Balance(t, kind) }

func TestAffinity(t *testing.T) { hosttest.Affine(t, kind) }

func TestConnectionsSurvive(t *testing.T) { hosttest.Survive(t, kind) }
