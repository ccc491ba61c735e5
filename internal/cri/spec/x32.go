package spec

import (
	"bufio"
	"compress/gzip"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// lacksX32 tells that the kernel was built without the x32 ABI, by its own
// configuration; false where that cannot be read.
func lacksX32() bool {
	if text := kernelConfig(); text != nil {
		defer text.Close()
		return !offersX32(text)
	}
	return false
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

// offersX32 reads a kernel configuration; one that breaks off offers all.
func offersX32(text io.Reader) bool {
	lines := bufio.NewScanner(text)
	seen := false
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "CONFIG_X86_X32=y") || strings.HasPrefix(line, "CONFIG_X86_X32_ABI=y") {
			return true
		}
		seen = seen || strings.HasPrefix(line, "CONFIG_X86_64=")
	}
	return lines.Err() != nil || !seen
}

// withoutX32 drops the x32 ABI from a profile: on a kernel without it there is
// nothing to filter, and what asks for it is killed instead of being told that
// there is no such call. Every architecture costs libseccomp some milliseconds
// of each container's start.
func withoutX32(p *specs.LinuxSeccomp) {
	p.Architectures = slices.DeleteFunc(p.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
}
