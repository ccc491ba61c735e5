package spec

import (
	"bufio"
	"compress/gzip"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// lackedABIs are the second architectures of the default seccomp profile whose
// programs this kernel is known not to run, by its own configuration and, on
// arm64, by the processor's word. Where that cannot be read, none is known.
func lackedABIs() []specs.Arch {
	var lacked []specs.Arch
	if text := kernelConfig(); text != nil {
		defer text.Close()
		lacked = notBuilt(runtime.GOARCH, text)
	}
	if runtime.GOARCH == "arm64" && !runs32() {
		lacked = append(lacked, specs.ArchARM)
	}
	return lacked
}

// kernelConfig opens the running kernel's configuration; nil if there is none.
func kernelConfig() io.ReadCloser {
	if f, err := os.Open("/proc/config.gz"); err == nil {
		if z, err := gzip.NewReader(f); err == nil {
			return struct {
				io.Reader
				io.Closer
			}{z, f}
		}
		f.Close()
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil
	}
	f, err := os.Open("/boot/config-" + unix.ByteSliceToString(uts.Release[:]))
	if err != nil {
		return nil
	}
	return f
}

// abi is what a kernel says of a second architecture.
type abi struct {
	arch    specs.Arch
	of      string   // the mark of a kernel that could have it
	options []string // any of them is it
}

// abis are by GOARCH.
func abis(goarch string) []abi {
	switch goarch {
	case "amd64":
		return []abi{
			{specs.ArchX32, "CONFIG_X86_64=", []string{"CONFIG_X86_X32=y", "CONFIG_X86_X32_ABI=y"}},
			{specs.ArchX86, "CONFIG_X86_64=", []string{"CONFIG_IA32_EMULATION=y"}},
		}
	case "arm64":
		return []abi{{specs.ArchARM, "CONFIG_ARM64=", []string{"CONFIG_COMPAT=y"}}}
	}
	return nil
}

// notBuilt reads a kernel configuration; one that breaks off lacks nothing.
func notBuilt(goarch string, text io.Reader) []specs.Arch {
	lines := bufio.NewScanner(text)
	ours, built := map[specs.Arch]bool{}, map[specs.Arch]bool{}
	for lines.Scan() {
		for _, a := range abis(goarch) {
			ours[a.arch] = ours[a.arch] || strings.HasPrefix(lines.Text(), a.of)
			built[a.arch] = built[a.arch] || slices.Contains(a.options, lines.Text())
		}
	}
	var lacked []specs.Arch
	for _, a := range abis(goarch) {
		if lines.Err() == nil && ours[a.arch] && !built[a.arch] {
			lacked = append(lacked, a.arch)
		}
	}
	return lacked
}

// runs32 asks an arm64 kernel whether its processors run 32-bit programs: newer
// ones do not (arch/arm64/kernel/sys.c refuses the personality then).
func runs32() bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const ask, linux32 = 0xffffffff, 8
	old, _, errno := unix.Syscall(unix.SYS_PERSONALITY, ask, 0, 0)
	if errno != 0 {
		return true
	}
	_, _, errno = unix.Syscall(unix.SYS_PERSONALITY, linux32, 0, 0)
	unix.Syscall(unix.SYS_PERSONALITY, old, 0, 0)
	return errno == 0
}

// withoutABIs drops architectures from a profile that the kernel does not have:
// there is nothing to filter, and what asks for one is killed instead of being
// told that there is no such call. Every architecture costs libseccomp some
// milliseconds of each container's start.
func withoutABIs(p *specs.LinuxSeccomp, lacked []specs.Arch) {
	p.Architectures = slices.DeleteFunc(p.Architectures, func(a specs.Arch) bool { return slices.Contains(lacked, a) })
}
