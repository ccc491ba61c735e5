//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

// runcRoot is where containerd's library has runc keep its containers, unless the
// options say something else.
const runcRoot = "/run/containerd/runc"

// ended gives the end of a container of which nothing is left to clean up: runc has
// forgotten it, nothing is mounted in its bundle, its exit is on record and its shim
// is not dead. False leaves all to the shim's program, which finds out by itself.
func ended(a arguments) (shimapi.ExitRecord, bool) {
	none := shimapi.ExitRecord{}
	cwd, err := os.Getwd()
	if err != nil || shimapi.CheckID(a.id) != nil {
		return none, false
	}
	bundle := filepath.Join(filepath.Dir(cwd), a.id)
	note, err := os.ReadFile(filepath.Join(bundle, shimapi.NoteFile))
	if err != nil || !forgotten(bundle, a) {
		return none, false
	}
	uri, err := shimapi.ParseLogURI(string(note))
	if err != nil {
		return none, false
	}
	end, err := shimapi.ReadExit(uri.RunDir, a.id)
	if err != nil {
		return none, false
	}
	if s, err := shimapi.ReadShim(uri.RunDir, uri.Sandbox); err == nil && !s.Alive() {
		return none, false
	}
	err = unix.Unmount(filepath.Join(bundle, "rootfs"), unix.UMOUNT_NOFOLLOW)
	return end, err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT)
}

// forgotten tells whether runc keeps nothing of the container: "runc delete --force"
// would find that and do nothing.
func forgotten(bundle string, a arguments) bool {
	text, err := os.ReadFile(filepath.Join(bundle, "options.json"))
	var options struct {
		Root string `json:"root"`
	}
	if err != nil || json.Unmarshal(text, &options) != nil {
		return false
	}
	root := options.Root
	if root == "" {
		root = runcRoot
	}
	_, err = os.Lstat(filepath.Join(root, a.namespace, a.id))
	return errors.Is(err, os.ErrNotExist)
}
