package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nodeagent/test/bed"
)

// packages are what tests call in the agnhost image, besides what is essential.
var packages = []string{"ca-certificates", "curl", "netcat-openbsd", "iproute2", "bind9-dnsutils", "iputils-ping", "procps", "util-linux", "iperf"}

const suite = "bookworm"

// debian returns the path of a tar of a small Debian, which the cache keeps.
func debian(ctx context.Context) (string, error) {
	argv := []string{"mmdebstrap", "--quiet", "--variant=essential", "--include=" + strings.Join(packages, ",")}
	for _, dir := range []string{"doc", "locale", "man", "info"} {
		argv = append(argv, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	argv = append(argv, `--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*`, suite)
	path := filepath.Join(bed.CacheDir(), fmt.Sprintf("e2e-root-%.6x.tar", sha256.Sum256([]byte(strings.Join(argv, " ")))))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	fmt.Println("building a small Debian into", path)
	tmp, err := os.MkdirTemp(bed.CacheDir(), "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	tree := filepath.Join(tmp, "root.tar")
	if text, err := exec.CommandContext(ctx, argv[0], append(argv[1:], tree)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build a Debian for the images (package mmdebstrap): %w\n%s", err, text)
	}
	return path, os.Rename(tree, path)
}
