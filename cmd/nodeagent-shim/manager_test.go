package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"nodeagent/internal/shimapi"
)

// A late cleaner of a dead shim takes its names away, but not those of the next shim,
// which are the same.
func TestRemoveDead(t *testing.T) {
	uri := shimapi.LogURI{RunDir: t.TempDir(), Sandbox: "s"}
	dead := shimapi.ShimRecord{SandboxID: "s", Pid: os.Getpid(), StartTime: 1, Socket: filepath.Join(t.TempDir(), "shim")}
	if err := os.MkdirAll(shimapi.ShimDir(uri.RunDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := shimapi.WriteShim(uri.RunDir, dead); err != nil {
		t.Fatal(err)
	}
	next, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	next.SetUnlinkOnClose(false)
	if err := removeDead(uri); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dead.Socket); err != nil {
		t.Errorf("the next shim's socket: %v", err)
	}
	if _, err := shimapi.ReadShim(uri.RunDir, "s"); err != nil {
		t.Errorf("the record that the next shim may have written: %v", err)
	}

	_ = next.Close()
	if err := removeDead(uri); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(dead.Socket)); err != nil || len(left) != 0 {
		t.Errorf("of a dead shim there is %v, %v", left, err)
	}
	if _, err := shimapi.ReadShim(uri.RunDir, "s"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead shim's record: %v", err)
	}
}
