package pod

import (
	"crypto/sha256"
	"encoding/hex"
	"io"

	corev1 "k8s.io/api/core/v1"
)

// ContainerHash identifies what of a container's spec cannot change while it
// runs: its name and image, as kubelet since 1.31. It is written on the record
// of each container and must stay the same over upgrades of this program and
// its libraries, or an upgrade restarts every container of the node; so it is
// made of the two strings alone.
func ContainerHash(c *corev1.Container) string {
	h := sha256.New()
	_, _ = io.WriteString(h, "v1\x00"+c.Name+"\x00"+c.Image)
	return hex.EncodeToString(h.Sum(nil)[:8])
}
