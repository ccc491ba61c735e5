package spec

import (
	"strconv"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The real-time signals as programs know them: glibc keeps 32 and 33.
const (
	rtMin = 34
	rtMax = 64
)

// StopSignal returns the signal that asks the container to stop: the config's,
// else the image's STOPSIGNAL, else SIGTERM. ignored is the image's value where
// it is no signal; then SIGTERM is returned, because an image must not be able
// to make itself unstoppable.
func StopSignal(config *runtimeapi.ContainerConfig, image ocispec.ImageConfig) (sig syscall.Signal, ignored string) {
	if s := config.GetStopSignal(); s != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		if sig, ok := parseSignal(criName(s.String())); ok {
			return sig, ""
		}
	}
	if image.StopSignal == "" {
		return syscall.SIGTERM, ""
	}
	if sig, ok := parseSignal(image.StopSignal); ok {
		return sig, ""
	}
	return syscall.SIGTERM, image.StopSignal
}

// criName turns CRI's names (SIGNAL_SIGRTMINPLUS1) into the usual ones
// (SIGRTMIN+1).
func criName(s string) string {
	return strings.NewReplacer("SIGNAL_", "", "PLUS", "+", "MINUS", "-").Replace(s)
}

// parseSignal reads "15", "TERM", "SIGTERM", "SIGRTMIN+3".
func parseSignal(s string) (syscall.Signal, bool) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return syscall.Signal(n), n >= 1 && n <= rtMax
	}
	s = strings.ToUpper(s)
	if !strings.HasPrefix(s, "SIG") {
		s = "SIG" + s
	}
	if offset, ok := strings.CutPrefix(s, "SIGRTMIN"); ok {
		return realTime(rtMin, "+", offset)
	}
	if offset, ok := strings.CutPrefix(s, "SIGRTMAX"); ok {
		return realTime(rtMax, "-", offset)
	}
	if other, ok := signalAlias[s]; ok {
		s = other
	}
	n := unix.SignalNum(s)
	return n, n != 0
}

// signalAlias are the second names of signals, which x/sys leaves out.
var signalAlias = map[string]string{"SIGCLD": "SIGCHLD", "SIGIOT": "SIGABRT", "SIGPOLL": "SIGIO"}

func realTime(base int, sign, offset string) (syscall.Signal, bool) {
	if offset == "" {
		return syscall.Signal(base), true
	}
	digits, ok := strings.CutPrefix(offset, sign)
	n, err := strconv.ParseUint(digits, 10, 8)
	if !ok || err != nil {
		return 0, false
	}
	if sign == "-" {
		base -= int(n)
	} else {
		base += int(n)
	}
	return syscall.Signal(base), base >= rtMin && base <= rtMax
}
