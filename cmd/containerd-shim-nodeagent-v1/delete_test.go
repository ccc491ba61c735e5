//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nodeagent/internal/shimapi"
)

// TestEnded: only what nothing is left of is answered here.
func TestEnded(t *testing.T) {
	const id = "c1"
	for name, c := range map[string]struct {
		change func(bundle, root, run string) error
		ended  bool
	}{
		"all is done":            {func(string, string, string) error { return nil }, true},
		"its shim serves others": {func(_, _, run string) error { return writeShim(run, os.Getpid()) }, true},
		"its shim is dead":       {func(_, _, run string) error { return writeShim(run, 1<<22+1) }, false},
		"runc still knows it": {func(_, root, _ string) error {
			return os.MkdirAll(filepath.Join(root, "k8s.io", id), 0o700)
		}, false},
		"no end on record": {func(_, _, run string) error { return shimapi.RemoveExit(run, id) }, false},
		"no log of ours":   {func(b, _, _ string) error { return os.Remove(filepath.Join(b, shimapi.NoteFile)) }, false},
		"no options":       {func(b, _, _ string) error { return os.Remove(filepath.Join(b, "options.json")) }, false},
		"a note that is none": {func(b, _, _ string) error {
			return os.WriteFile(filepath.Join(b, shimapi.NoteFile), []byte("x"), 0o600)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bundle, root, run := filepath.Join(t.TempDir(), id), t.TempDir(), t.TempDir()
			uri := shimapi.LogURI{Path: "/var/log/0.log", MaxSize: 1 << 20, MaxFiles: 2, Sandbox: "s1", RunDir: run}
			record := shimapi.ExitRecord{ContainerID: id, SandboxID: "s1", Pid: 9, ExitCode: 7, ExitedAt: time.Unix(1790000000, 5)}
			err := errors.Join(os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o700),
				os.WriteFile(filepath.Join(bundle, shimapi.NoteFile), []byte(uri.String()), 0o600),
				os.WriteFile(filepath.Join(bundle, "options.json"), []byte(`{"binary_name":"runc","root":"`+root+`"}`), 0o600),
				shimapi.WriteExit(run, record), c.change(bundle, root, run))
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(bundle)
			end, ok := ended(arguments{namespace: "k8s.io", id: id})
			if ok != c.ended || ok && (end.ExitCode != 7 || end.Pid != 9 || !end.ExitedAt.Equal(record.ExitedAt)) {
				t.Errorf("%+v, %t; want %t", end, ok, c.ended)
			}
		})
	}
}

func writeShim(run string, pid int) error {
	born, _ := shimapi.ProcessStartTime(pid)
	return shimapi.WriteShim(run, shimapi.ShimRecord{SandboxID: "s1", Namespace: "k8s.io", Pid: pid, StartTime: born})
}
