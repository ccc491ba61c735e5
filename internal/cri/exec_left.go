package cri

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// leftExec is a command that a process ran which is dead: nobody watches its
// timeout any more, and a container would collect one with each death.
type leftExec struct {
	container, id string
	path          string // of its FIFOs, without "-stdout" and so on
}

// landing is how long commands under way get to end when the daemon does: whoever
// runs one sees the same end and kills it, for which containerd is needed.
const landing = 5 * time.Second

func (n *Native) landExecs() {
	done := make(chan struct{})
	go func() { // ends with the last command, each of which has a deadline
		n.execs.Lock()
		defer n.execs.Unlock()
		close(done)
	}()
	t := time.NewTimer(landing)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// endLeftExecs kills the commands that dead processes left in containers, and
// removes their FIFOs.
func (n *Native) endLeftExecs(ctx context.Context) error {
	dead := n.deadExecDirs()
	select {
	case <-n.synced: // containerd is there
	case <-ctx.Done():
		return nil
	}
	for _, dir := range dead {
		for _, left := range leftIn(dir) {
			n.endLeft(ctx, left)
		}
		if err := os.RemoveAll(dir); err != nil {
			n.log.Warn("cannot remove FIFOs of an exec", "err", err)
		}
	}
	return nil
}

// endLeft kills one command. Its output is opened first: a shim whose client died
// too early still waits for a reader, and knows no pid to kill until it has one.
func (n *Native) endLeft(ctx context.Context, left leftExec) {
	for _, stream := range []string{"-stdout", "-stderr"} {
		f, err := os.OpenFile(left.path+stream, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // a terminal has one stream
		}
		defer f.Close()
	}
	e := &execution{n: n, container: left.container, id: left.id}
	e.kill(ctx)
	e.delete(ctx)
}

// deadExecDirs lists the directories of processes that are no more.
func (n *Native) deadExecDirs() []string {
	root := filepath.Join(n.cfg.RunDir, "exec")
	entries, err := os.ReadDir(root)
	if err != nil {
		n.log.Warn("cannot list exec directories", "err", err)
	}
	var dead []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid != os.Getpid() && unix.Kill(pid, 0) == nil {
			continue
		}
		dead = append(dead, filepath.Join(root, e.Name()))
	}
	return dead
}

// leftIn reads from the names of FIFOs which commands a process ran:
// <dir>/<container>/<any>/<exec>-stdout.
func leftIn(dir string) []leftExec {
	fifos, err := filepath.Glob(filepath.Join(dir, "*", "*", "exec-*-stdout"))
	if err != nil {
		return nil // the pattern is fine
	}
	var all []leftExec
	for _, f := range fifos {
		path := strings.TrimSuffix(f, "-stdout")
		all = append(all, leftExec{container: filepath.Base(filepath.Dir(filepath.Dir(f))), id: filepath.Base(path), path: path})
	}
	return all
}
