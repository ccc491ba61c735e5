//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// program is the shim itself.
const program = "nodeagent-shim"

// findProgram looks beside this program, then in containerd's PATH.
func findProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), program)
	if unix.Access(beside, unix.X_OK) == nil {
		return beside, nil
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("find the shim: there is no %s, nor one in the PATH of containerd: install it beside %s: %w", beside, self, err)
	}
	return path, nil
}

// serve starts the shim in a process group of its own, with the socket as its
// descriptor 3.
func serve(a arguments, socket *os.File) error {
	path, err := findProgram()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	argv := []string{path, "-namespace", a.namespace, "-id", a.id, "-address", a.address}
	if a.debug {
		argv = append(argv, "-debug")
	}
	p, err := os.StartProcess(path, argv, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{null, null, null, socket}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("start the shim: %w", err)
	}
	if err := setOOMScore(p.Pid); err != nil {
		return errors.Join(fmt.Errorf("set the shim's oom_score_adj: %w", err), p.Kill())
	}
	return nil
}

// setOOMScore makes the shim one step more likely to be killed than containerd.
func setOOMScore(pid int) error {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getppid()) + "/oom_score_adj")
	if err != nil {
		return err
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	score = min(score+1, 1000)
	err = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(score)), 0)
	if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
		return nil
	}
	return err
}

// become goes on as the shim's program, with the same arguments and what was read
// of the input, if it was.
func become(args []string, input []byte) error {
	path, err := findProgram()
	if err != nil {
		return err
	}
	if input != nil {
		if err := giveBack(input); err != nil {
			return fmt.Errorf("hand the input on: %w", err)
		}
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, append([]string{path}, args...), os.Environ()))
}

// giveBack makes input what the standard input will read.
func giveBack(input []byte) error {
	fd, err := unix.MemfdCreate("input", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "input")
	defer f.Close()
	if _, err := f.Write(input); err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	return unix.Dup3(fd, 0, 0)
}
