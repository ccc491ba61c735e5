package spec

import (
	"runtime"
	"strings"
	"testing"
)

func TestOffersX32(t *testing.T) {
	for text, want := range map[string]bool{
		"CONFIG_X86_64=y\n# CONFIG_X86_X32_ABI is not set\n": false,
		"CONFIG_X86_64=y\nCONFIG_X86_X32_ABI=y\n":            true,
		"CONFIG_X86_64=y\nCONFIG_X86_X32=y\n":                true,
		"":                                                   true, // not a configuration: nothing is known
	} {
		if got := offersX32(strings.NewReader(text)); got != want {
			t.Errorf("offersX32(%q) = %t", text, got)
		}
	}
}

// TestX32 drops the ABI only where the kernel is known to lack it.
func TestX32(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		return // no other architecture has it
	}
	for _, lacks := range []bool{false, true} {
		in := base()
		in.Host.NoX32 = lacks
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		has := false
		for _, a := range s.Linux.Seccomp.Architectures {
			has = has || a == "SCMP_ARCH_X32"
		}
		if has == lacks {
			t.Errorf("kernel lacks x32: %t; architectures are %v", lacks, s.Linux.Seccomp.Architectures)
		}
	}
}
