package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/test/bed"
)

// suite runs the tests to their end and reads their report.
func (n *node) suite(ctx context.Context, tools string, o options) (report, error) {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	log, result := filepath.Join(o.out, "e2e.log"), filepath.Join(o.out, "report.json")
	for _, old := range []string{log, result} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return report{}, err
		}
	}
	argv := []string{filepath.Join(tools, "ginkgo"), "--procs=" + strconv.Itoa(o.procs), "--no-color", "--silence-skips", "--keep-going",
		"--timeout=" + o.limit.String(), "--output-dir=" + o.out, "--json-report=" + filepath.Base(result), "--focus=" + o.focus}
	if o.skip != "" {
		argv = append(argv, "--skip="+o.skip)
	}
	argv = append(argv, filepath.Join(tools, "e2e.test"), "--",
		"-kubeconfig="+n.Admin(), "-kubectl-path="+n.Tool("kubectl"), "-provider=skeleton",
		"-kubelet-root-dir="+n.root, "-container-runtime-endpoint=unix://"+n.bed.Address(), "-report-dir="+o.out,
		// Logs and metrics of the node are not for the suite to gather at each failure.
		"-disable-log-dump", "-dump-logs-on-failure=false", "-num-nodes=1")
	begun := time.Now()
	fmt.Printf("the suite writes to %s\n", log)
	p, err := n.bed.Spawn("e2e", log, []string{"KUBECONFIG=" + n.Admin()}, argv...)
	if err != nil {
		return report{}, err
	}
	select {
	case <-p.Exited():
	case <-ctx.Done():
		if err := interrupt(p); err != nil {
			return report{}, errors.Join(ctx.Err(), err)
		}
	}
	r, err := readReport(result)
	if err != nil {
		return report{}, errors.Join(err, p.Err(), errors.New(p.LogTail(30)))
	}
	fmt.Printf("the suite took %s\n", time.Since(begun).Round(time.Second))
	return r, nil
}

// interrupt ends the suite before its time: it says what it has done so far. Only
// the processes of the tests listen, which are in ginkgo's group.
func interrupt(p *bed.Process) error {
	if err := unix.Kill(-p.Pid, unix.SIGINT); err != nil {
		return errors.Join(err, p.Kill())
	}
	t := time.NewTimer(2 * time.Minute)
	defer t.Stop()
	select {
	case <-p.Exited():
		return nil
	case <-t.C:
		return errors.Join(errors.New("the suite does not end when it is interrupted"), p.Kill())
	}
}
