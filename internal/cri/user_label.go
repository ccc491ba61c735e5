package cri

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
)

// userOf is whom the first process of a container begins as.
func userOf(s *specs.Spec) *corev1.LinuxContainerUser {
	u := &corev1.LinuxContainerUser{UID: int64(s.Process.User.UID), GID: int64(s.Process.User.GID)}
	for _, g := range s.Process.User.AdditionalGids {
		u.SupplementalGroups = append(u.SupplementalGroups, int64(g))
	}
	return u
}

// encodeUser writes it as uid:gid:group,group; "" for more groups than fit into a
// label, which are known only as long as this daemon lives.
func encodeUser(u *corev1.LinuxContainerUser) string {
	groups := make([]string, len(u.SupplementalGroups))
	for i, g := range u.SupplementalGroups {
		groups[i] = strconv.FormatInt(g, 10)
	}
	text := fmt.Sprintf("%d:%d:%s", u.UID, u.GID, strings.Join(groups, ","))
	if len(labelUser)+len(text) > maxLabel {
		return ""
	}
	return text
}

// decodeUser reads what encodeUser wrote; nil for anything else.
func decodeUser(text string) *corev1.LinuxContainerUser {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil
	}
	ids := parts[:2]
	if parts[2] != "" {
		ids = slices.Concat(ids, strings.Split(parts[2], ","))
	}
	all := make([]int64, len(ids))
	for i, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil
		}
		all[i] = int64(n)
	}
	u := &corev1.LinuxContainerUser{UID: all[0], GID: all[1]}
	if len(all) > 2 {
		u.SupplementalGroups = all[2:]
	}
	return u
}
