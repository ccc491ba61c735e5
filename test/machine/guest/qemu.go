package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is how QEMU is told about an architecture.
type machine struct {
	binary  string
	args    []string
	console string
	kernel  string        // Debian's package
	binfmt  string        // qemu-user-static's name, where the host is of another architecture
	boot    time.Duration // a cold boot that takes longer hangs; ten times what it takes alone on two CPUs
}

// machines: QEMU's default CPU for amd64 lacks x86-64-v2, so "max", without what
// makes a walk of the page tables longer (la57), ends a translated block at each
// access to a user's memory (smap, pku), or has the kernel copy byte by byte
// (erms). For arm64 a CPU without pointer authentication, whose emulation doubles
// every time.
var machines = map[string]machine{
	"amd64": {
		binary: "qemu-system-x86_64", args: []string{"-M", "pc", "-cpu", "max,la57=off,smap=off,pku=off,erms=off"},
		console: "ttyS0", kernel: "linux-image-cloud-amd64", binfmt: "qemu-x86_64", boot: 8 * time.Minute,
	},
	"arm64": {
		binary: "qemu-system-aarch64", args: []string{"-M", "virt,gic-version=3", "-cpu", "neoverse-n1"},
		console: "ttyAMA0", kernel: "linux-image-cloud-arm64", binfmt: "qemu-aarch64", boot: 16 * time.Minute,
	},
}

// parameters of every guest's kernel. At random addresses (without norandmaps) the
// blocks of a program are translated anew for each process: a shell's command takes
// three times as long. Timers by the tick only (highres=off): each other one is a turn
// of QEMU's main loop, and a Go program at work asks for one every 20 µs.
const parameters = "root=/dev/vda rw loglevel=5 systemd.show_status=1 module_blacklist=kvm,kvm_amd,kvm_intel,powernow_k8 panic=-1 norandmaps mitigations=off highres=off"

// clock makes the kernel take the TSC for its clock, which it distrusts unless
// told: each look at the time would then be an exit to the emulated HPET, and a Go
// program looks thousands of times a second. The TSC is the host's, so its
// frequency is known; a guest's own measurement goes wrong where the host is busy.
func clock(arch string) string {
	if arch != "amd64" || runtime.GOARCH != "amd64" {
		return ""
	}
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "bogomips" { // twice the frequency
			continue
		}
		if mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
			return fmt.Sprintf("tsc=reliable tsc_early_khz=%.0f", mhz/2*1000)
		}
	}
	return ""
}

// spec is what a QEMU process is started with.
type spec struct {
	arch     string
	dir      string // sockets and console
	kernel   string
	initrd   string
	cmdline  []string
	memory   int
	cpus     int
	disks    []drive // the root, and the one with the programs
	incoming bool    // wait for a snapshot
}

type drive struct {
	path, format string
	durable      bool   // what the guest flushed is on the disk
	name         string // of one that can only be read
}

// process is one running QEMU.
type process struct {
	cmd  *exec.Cmd
	qmp  *qmp
	ch   *channel
	done chan struct{} // closed when it has ended
	log  *os.File
}

func (s spec) argv() []string {
	m := machines[s.arch]
	argv := append([]string{m.binary}, m.args...)
	argv = append(argv,
		"-accel", "tcg,thread=multi,tb-size=512",
		"-m", strconv.Itoa(s.memory), "-smp", strconv.Itoa(s.cpus),
		"-nodefaults", "-no-user-config", "-display", "none", "-nic", "none",
		"-rtc", "base=utc,clock=host",
		"-serial", "file:"+filepath.Join(s.dir, "console"),
		"-chardev", "socket,id=qmp,server=on,wait=off,path=qmp", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=wire,server=on,wait=off,path=wire",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=wire,name=nodeagent",
		"-device", "virtio-rng-pci",
		"-kernel", s.kernel, "-initrd", s.initrd,
		"-append", strings.Join(append([]string{parameters, "console=" + m.console, clock(s.arch)}, s.cmdline...), " "),
	)
	for i, d := range s.disks {
		cache := "unsafe"
		if d.durable {
			cache = "writeback"
		}
		serial, readonly := d.name, "on"
		if d.name == "" {
			serial, readonly = fmt.Sprintf("disk%d", i), "off"
		}
		argv = append(argv,
			"-drive", fmt.Sprintf("if=none,id=d%d,format=%s,cache=%s,discard=unmap,readonly=%s,file=%s", i, d.format, cache, readonly, d.path),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,serial=%s", i, serial))
	}
	if s.incoming {
		argv = append(argv, "-S", "-incoming", "defer")
	}
	return argv
}

// start starts QEMU and connects to it. It dies with this process: the kernel
// kills it when the thread that started it ends, and that thread is kept.
func (s spec) start(ctx context.Context) (*process, error) {
	argv := s.argv()
	log, err := os.OpenFile(filepath.Join(s.dir, "qemu.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	for _, name := range []string{"qmp", "wire"} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, log.Close())
		}
	}
	p := &process{cmd: cmd, done: make(chan struct{}), log: log}
	started := make(chan error)
	go p.hold(started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s (make test-machine installs it): %w", argv[0], err), log.Close())
	}
	q, err := p.dial(ctx, s.dir, "qmp")
	if err == nil {
		p.qmp = newQMP(q)
		err = p.qmp.do(ctx, "qmp_capabilities", nil)
	}
	if err == nil {
		var w net.Conn
		if w, err = p.dial(ctx, s.dir, "wire"); err == nil {
			p.ch = newChannel(w)
		}
	}
	if err != nil {
		p.kill()
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("connect to qemu: %w\n%s", err, said)
	}
	return p, nil
}

// hold starts QEMU on a thread that lives as long as QEMU does: PDEATHSIG fires
// when the parent thread ends, not the parent process.
func (p *process) hold(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait()
		close(p.done)
	}
}

// dial connects to a socket that QEMU is about to make. Paths are relative to
// dir, which a socket's 108 bytes may not hold.
func (p *process) dial(ctx context.Context, dir, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name)
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-p.done:
			return nil, errors.New("it ended at once")
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond): // QEMU tells nobody that it listens
		}
	}
}

// kill ends QEMU by SIGKILL and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.wait()
}

// wait waits until QEMU has ended, and closes what belonged to it.
func (p *process) wait() {
	<-p.done
	if p.ch != nil {
		p.ch.close(errGone)
	}
	if p.qmp != nil {
		p.qmp.conn.Close()
	}
	p.log.Close()
}
