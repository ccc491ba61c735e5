package spec

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Accounts are an image's /etc/passwd and /etc/group as read out of its root
// file system; nil where there is no such file. They depend on the layers only,
// so that they may be kept by chain id.
type Accounts struct {
	Passwd, Group []byte
}

// UserRequest is what decides a container's user.
type UserRequest struct {
	ImageUser string                                    // USER of the image; hostile
	Security  *runtimeapi.LinuxContainerSecurityContext // supplemental groups hold the fsGroup, as kubelet sends them
	Accounts  Accounts                                  // hostile
	NonRoot   bool                                      // runAsNonRoot
	Pod, Name string                                    // namespace/name and container name, for messages
}

// ResolveUser works out uid, gid and additional groups.
func ResolveUser(r UserRequest) (specs.User, error) {
	return specs.User{}, errors.New("resolve user: not written yet")
}

// ReadAccounts reads /etc/passwd and /etc/group below the root file system dir.
// Links are resolved inside dir only (openat2 RESOLVE_IN_ROOT); a file over
// 1 MiB, or one that is not regular, is an error.
func ReadAccounts(dir string) (Accounts, error) {
	return Accounts{}, errors.New("read accounts: not written yet")
}
