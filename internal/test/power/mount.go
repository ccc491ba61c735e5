package power

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Mount mounts the image of an ext4 file system at dir, on a loop device that
// ends with its last mount, and returns that device.
//
// The device is always a new one. mount -o loop would take one that has the
// image already, and with it the file system that was cut: a process that copied
// its mount namespace a moment ago, as every start of a container does, still
// holds it for some milliseconds after umount.
func Mount(image, dir string, options ...string) (device string, err error) {
	out, err := run("losetup", "--find", "--show", image)
	if err != nil {
		return "", err
	}
	device = strings.TrimSpace(out)
	argv := []string{"mount", "-t", "ext4", device, dir}
	if len(options) > 0 {
		argv = append(argv, "-o", strings.Join(options, ","))
	}
	_, err = run(argv...)
	// The kernel keeps a device that is in use until it is not.
	_, detached := run("losetup", "--detach", device)
	return device, errors.Join(err, detached)
}

func run(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, exit.Stderr)
	}
	return string(out), err
}
