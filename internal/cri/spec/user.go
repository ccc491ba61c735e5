package spec

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxID is the highest uid and gid: runc's limit, and the API's.
const maxID = math.MaxInt32

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// UserRequest is what decides a container's user.
type UserRequest struct {
	ImageUser string // USER of the image; hostile
	// Security is the container's. As kubelet sends it, the supplemental groups
	// hold the fsGroup too. RunAsUser is the pod's wish only: the image's user
	// comes by ImageUser.
	Security *runtimeapi.LinuxContainerSecurityContext
	Accounts Accounts
	NonRoot  bool // runAsNonRoot

	Pod, Name string // pod as "name_namespace(uid)", container; for messages
}

// ResolveUser works out uid, gid and additional groups. The user is the
// config's, else the image's, else 0. A number beyond 2^31-1 is refused, never
// looked up as a name (CVE-2024-40635), and so is a matching account with
// numbers that are none: nothing that cannot be read becomes 0.
//
// An explicit group wins, then the group of USER, then the account's primary
// group, then 0. With policy Merge the groups that list the user as a member
// are added, with Strict they are not.
func ResolveUser(r UserRequest) (specs.User, error) {
	who, err := r.wanted()
	if err != nil {
		return specs.User{}, err
	}
	if err := r.checkName(who); err != nil {
		return specs.User{}, err
	}
	u, name, err := r.identity(who)
	if err != nil {
		return specs.User{}, err
	}
	if r.NonRoot && u.UID == 0 {
		return specs.User{}, r.nonRoot()
	}
	groups, err := r.groups(name)
	if err != nil {
		return specs.User{}, err
	}
	groups = append(groups, u.GID)
	slices.Sort(groups)
	u.AdditionalGids = slices.Compact(groups)
	if len(u.AdditionalGids) > maxGroups {
		return specs.User{}, refuse("the user has %d groups, over %d", len(u.AdditionalGids), maxGroups)
	}
	return u, nil
}

// wish is a user and a group, each a name or a number; group may be "".
type wish struct{ user, group string }

func (r UserRequest) wanted() (wish, error) {
	var w wish
	switch {
	case r.Security.GetRunAsUser() != nil:
		w.user = strconv.FormatInt(r.Security.GetRunAsUser().GetValue(), 10)
	case r.Security.GetRunAsUsername() != "":
		w.user = r.Security.GetRunAsUsername()
	case r.ImageUser != "":
		user, group, both := strings.Cut(r.ImageUser, ":")
		if user == "" || both && group == "" || strings.Contains(group, ":") {
			return wish{}, refuse("the image's USER %q is not user, or user:group", r.ImageUser)
		}
		w = wish{user, group}
	default:
		w.user = "0"
	}
	if r.Security.GetRunAsGroup() != nil {
		w.group = strconv.FormatInt(r.Security.GetRunAsGroup().GetValue(), 10)
	}
	return w, nil
}

// checkName keeps kubelet's rule, and its words: where runAsNonRoot asks for
// proof, a name from the image is none.
func (r UserRequest) checkName(w wish) error {
	_, numeric, err := number(w.user)
	if !r.NonRoot || numeric || err != nil {
		return nil
	}
	return refuse("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)", quoteless(w.user), r.Pod, r.Name)
}

// quoteless is a name that comes from an image, made safe for a message that
// shows it without quotes.
func quoteless(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

func (r UserRequest) nonRoot() error {
	if r.Security.GetRunAsUser() != nil {
		return refuse("container's runAsUser breaks non-root policy (pod: %q, container: %s)", r.Pod, r.Name)
	}
	return refuse("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", r.Pod, r.Name)
}

// identity returns uid and gid, and the account's name, "" where the uid has
// none.
func (r UserRequest) identity(w wish) (u specs.User, name string, err error) {
	uid, numeric, err := number(w.user)
	if err != nil {
		return u, "", refuse("user %q: %v", w.user, err)
	}
	var found account
	var ok bool
	if numeric {
		found, ok = findAccount(r.Accounts.Passwd, func(a account) bool {
			n, is, err := number(a.uid)
			return is && err == nil && n == uid
		})
	} else {
		if err := checkAccountName(w.user); err != nil {
			return u, "", err
		}
		if found, ok = findAccount(r.Accounts.Passwd, func(a account) bool { return a.name == w.user }); !ok {
			return u, "", refuse("user %q is not in the image's /etc/passwd", w.user)
		}
		if uid, numeric, err = number(found.uid); err != nil || !numeric {
			return u, "", refuse("user %q: its uid %q in the image's /etc/passwd is not a number up to %d", w.user, found.uid, maxID)
		}
	}
	gid := uint32(0)
	switch {
	case w.group != "":
		gid, err = r.group(w.group)
	case ok:
		gid, numeric, err = number(found.gid)
		if err != nil || !numeric {
			return u, "", refuse("user %q: its gid %q in the image's /etc/passwd is not a number up to %d", w.user, found.gid, maxID)
		}
	}
	return specs.User{UID: uid, GID: gid}, found.name, err
}

func (r UserRequest) group(want string) (uint32, error) {
	gid, numeric, err := number(want)
	if err != nil {
		return 0, refuse("group %q: %v", want, err)
	}
	if numeric {
		return gid, nil
	}
	if err := checkAccountName(want); err != nil {
		return 0, err
	}
	for g := range groupLines(r.Accounts.Group) {
		if g.name != want {
			continue
		}
		if gid, numeric, err = number(g.gid); err != nil || !numeric {
			return 0, refuse("group %q: its gid %q in the image's /etc/group is not a number up to %d", want, g.gid, maxID)
		}
		return gid, nil
	}
	return 0, refuse("group %q is not in the image's /etc/group", want)
}

// groups are the supplemental ones of the config and, with Merge, those of the
// image that list name.
func (r UserRequest) groups(name string) ([]uint32, error) {
	var out []uint32
	for _, g := range r.Security.GetSupplementalGroups() {
		if g < 0 || g > maxID {
			return nil, refuse("supplemental group %d is not between 0 and %d", g, maxID)
		}
		out = append(out, uint32(g))
	}
	switch p := r.Security.GetSupplementalGroupsPolicy(); p {
	case runtimeapi.SupplementalGroupsPolicy_Strict:
		return out, nil
	case runtimeapi.SupplementalGroupsPolicy_Merge:
	default:
		return nil, refuse("supplementalGroupsPolicy %d is unknown", p)
	}
	if name == "" {
		return out, nil
	}
	for g := range groupLines(r.Accounts.Group) {
		if g.name == name || !slices.Contains(strings.Split(g.members, ","), name) {
			continue
		}
		gid, numeric, err := number(g.gid)
		if err != nil || !numeric {
			return nil, refuse("group %q: its gid %q in the image's /etc/group is not a number up to %d", g.name, g.gid, maxID)
		}
		out = append(out, gid)
	}
	return out, nil
}
