package spec

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestNotBuilt(t *testing.T) {
	for _, c := range []struct {
		goarch, text string
		want         []specs.Arch
	}{
		{"amd64", "CONFIG_X86_64=y\n# CONFIG_X86_X32_ABI is not set\nCONFIG_IA32_EMULATION=y\n", []specs.Arch{specs.ArchX32}},
		{"amd64", "CONFIG_IA32_EMULATION=y\nCONFIG_X86_X32_ABI=y\nCONFIG_X86_64=y\n", nil},
		{"amd64", "CONFIG_X86_64=y\nCONFIG_X86_X32=y\n# CONFIG_IA32_EMULATION is not set\n", []specs.Arch{specs.ArchX86}},
		{"amd64", "CONFIG_X86_64=y\n# CONFIG_IA32_EMULATION_DEFAULT_DISABLED is not set\n", []specs.Arch{specs.ArchX32, specs.ArchX86}},
		{"amd64", "", nil}, // not a configuration: nothing is known
		{"amd64", "CONFIG_ARM64=y\n", nil},
		{"arm64", "CONFIG_ARM64=y\nCONFIG_COMPAT=y\n", nil},
		{"arm64", "CONFIG_ARM64=y\n# CONFIG_COMPAT is not set\n", []specs.Arch{specs.ArchARM}},
		{"riscv64", "CONFIG_RISCV=y\n", nil},
	} {
		if got := notBuilt(c.goarch, strings.NewReader(c.text)); !slices.Equal(got, c.want) {
			t.Errorf("notBuilt(%s, %q) = %v, want %v", c.goarch, c.text, got, c.want)
		}
	}
}

// Asking must not change what the thread's programs are told of the machine.
func TestRuns32(t *testing.T) {
	if runtime.GOARCH == "amd64" && !runs32() {
		t.Error("an x86-64 kernel refuses PER_LINUX32")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := runs32()
	if after := runs32(); after != before {
		t.Errorf("asked twice: %t, %t", before, after)
	}
}

// TestLackedABIs drops an ABI only where the kernel is known to lack it.
func TestLackedABIs(t *testing.T) {
	second := map[string]specs.Arch{"amd64": specs.ArchX32, "arm64": specs.ArchARM}[runtime.GOARCH]
	for _, lacked := range [][]specs.Arch{nil, {second}} {
		in := base()
		in.Host.LackedABIs = lacked
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		if has := slices.Contains(s.Linux.Seccomp.Architectures, second); has == (lacked != nil) {
			t.Errorf("kernel lacks %v; architectures are %v", lacked, s.Linux.Seccomp.Architectures)
		}
	}
}
