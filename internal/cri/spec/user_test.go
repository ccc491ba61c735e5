package spec

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/test/need"
)

// hostile makes every odd number a name of root.
const hostilePasswd = `root:x:0:0:root:/root:/bin/sh
# comment:x:5:5::/:
2147483648:x:0:0::/:
4294967296:x:0:0::/:
9223372036854775808:x:0:0::/:
99999999999999999999:x:0:0::/:
-1:x:0:0::/:
+0:x:0:0::/:
 0:x:0:0::/:
٠:x:0:0::/:
1e3:x:0:0::/:
app:x:1000:1001:App:/:
big:x:4294967296:0::/:
word:x:zero:0::/:
neg:x:-1:0::/:
badgid:x:70:99999999999::/:
short:x:80
web:x:33:33:web
`

const hostileGroup = `root:x:0:app
app:x:1000:app,web
wheel:x:10:root,app
audio:x:29: app
games:x:60:web,
bad:x:99999999999:evil
tail:x:77
4294967296:x:0:
staff:x:50:app`

var accounts = Accounts{Passwd: []byte(hostilePasswd), Group: []byte(hostileGroup)}

func TestResolveUser(t *testing.T) {
	id := func(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
	type sec = runtimeapi.LinuxContainerSecurityContext
	cases := []struct {
		name   string
		image  string
		sec    *sec
		uid    uint32
		gid    uint32
		groups []uint32
		err    string
	}{
		{name: "nothing asked for is root", groups: []uint32{0, 10}},
		{name: "nothing, no context", sec: nil, groups: []uint32{0, 10}},
		{name: "image number with account", image: "1000", uid: 1000, gid: 1001, groups: []uint32{0, 10, 50, 1001}},
		{name: "image number without account", image: "1234", uid: 1234, groups: []uint32{0}},
		{name: "image number and group", image: "1234:4321", uid: 1234, gid: 4321, groups: []uint32{4321}},
		{name: "image name", image: "app", uid: 1000, gid: 1001, groups: []uint32{0, 10, 50, 1001}},
		{name: "image name and group name", image: "app:staff", uid: 1000, gid: 50, groups: []uint32{0, 10, 50}},
		{name: "account in four fields", image: "web", uid: 33, gid: 33, groups: []uint32{33, 60, 1000}},
		{name: "runAsUser wins over the image", image: "1234:4321", sec: &sec{RunAsUser: id(7)}, uid: 7, groups: []uint32{0}},
		{name: "runAsUser 0 wins over the image", image: "1234", sec: &sec{RunAsUser: id(0)}, groups: []uint32{0, 10}},
		{name: "runAsGroup", image: "app", sec: &sec{RunAsUser: id(7), RunAsGroup: id(8)}, uid: 7, gid: 8, groups: []uint32{8}},
		{name: "runAsGroup with the image's user", image: "app:staff", sec: &sec{RunAsGroup: id(8)}, uid: 1000, gid: 8, groups: []uint32{0, 8, 10, 50}},
		{name: "user name by CRI", sec: &sec{RunAsUsername: "web"}, uid: 33, gid: 33, groups: []uint32{33, 60, 1000}},
		{name: "highest number", image: "2147483647", uid: 2147483647, groups: []uint32{0}},
		{name: "supplemental and fsGroup", image: "1234", sec: &sec{SupplementalGroups: []int64{5000, 42, 42}}, uid: 1234, groups: []uint32{0, 42, 5000}},
		{name: "Strict leaves the image's groups out", image: "app", sec: &sec{
			SupplementalGroups: []int64{42}, SupplementalGroupsPolicy: runtimeapi.SupplementalGroupsPolicy_Strict,
		}, uid: 1000, gid: 1001, groups: []uint32{42, 1001}},

		{name: "2^31", image: "2147483648", err: "between 0"},
		{name: "2^32", image: "4294967296", err: "between 0"},
		{name: "2^63", image: "9223372036854775808", err: "between 0"},
		{name: "past 64 bits", image: "99999999999999999999", err: "between 0"},
		{name: "-1", image: "-1", err: "between 0"},
		{name: "+0", image: "+0", err: "between 0"},
		{name: "a space", image: " 0", err: "neither"},
		{name: "another script's zero", image: "٠", err: "neither"},
		{name: "NUL", image: "root\x00", err: "neither"},
		{name: "group 2^32", image: "1:4294967296", err: "between 0"},
		{name: "group -1", image: "1:-1", err: "between 0"},
		{name: "group with space", image: "1: 0", err: "neither"},
		{name: "no user", image: ":0", err: "USER"},
		{name: "no group", image: "1:", err: "USER"},
		{name: "three parts", image: "1:2:3", err: "USER"},
		{name: "unknown name", image: "nobody", err: "not in the image"},
		{name: "unknown group", image: "1:nogroup", err: "not in the image"},
		{name: "comment is no account", image: "#", err: "neither"},
		{name: "account with a huge uid", image: "big", err: "not a number up to"},
		{name: "account with a word for uid", image: "word", err: "not a number up to"},
		{name: "account with a negative uid", image: "neg", err: "not a number up to"},
		{name: "account with a huge gid", image: "badgid", err: "not a number up to"},
		{name: "number whose account has a huge gid", image: "70", err: "not a number up to"},
		{name: "account cut short", image: "short", err: "not in the image"},
		{name: "negative runAsUser", sec: &sec{RunAsUser: id(-1)}, err: "between 0"},
		{name: "runAsUser 2^32", sec: &sec{RunAsUser: id(1 << 32)}, err: "between 0"},
		{name: "runAsGroup 2^32", sec: &sec{RunAsGroup: id(1 << 32)}, err: "between 0"},
		{name: "supplemental 2^32", sec: &sec{SupplementalGroups: []int64{1 << 32}}, err: "between 0"},
		{name: "supplemental -1", sec: &sec{SupplementalGroups: []int64{-1}}, err: "between 0"},
		{name: "unknown policy", sec: &sec{SupplementalGroupsPolicy: 7}, err: "unknown"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			u, err := ResolveUser(UserRequest{ImageUser: c.image, Security: c.sec, Accounts: accounts})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !IsRefused(err) {
					t.Fatalf("%+v, %v; want an error with %q", u, err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if u.UID != c.uid || u.GID != c.gid || !slices.Equal(u.AdditionalGids, c.groups) {
				t.Errorf("%d:%d %v, want %d:%d %v", u.UID, u.GID, u.AdditionalGids, c.uid, c.gid, c.groups)
			}
		})
	}
	// A matching group whose number is none must not be left out, nor be 0.
	evil := accounts
	evil.Passwd = []byte("evil:x:5:5::/:\n")
	if u, err := ResolveUser(UserRequest{ImageUser: "5", Accounts: evil}); err == nil {
		t.Errorf("group with gid 99999999999: %+v", u)
	}
	if _, err := ResolveUser(UserRequest{ImageUser: "app"}); err == nil {
		t.Error("a name is found without /etc/passwd")
	}
}

// TestNonRoot holds kubelet's rules and its very words.
func TestNonRoot(t *testing.T) {
	cases := []struct {
		image string
		run   *runtimeapi.Int64Value
		want  string
	}{
		{"", nil, `container has runAsNonRoot and image will run as root (pod: "web_ns(uid-1)", container: app)`},
		{"0", nil, `container has runAsNonRoot and image will run as root (pod: "web_ns(uid-1)", container: app)`},
		{"00:5", nil, `container has runAsNonRoot and image will run as root (pod: "web_ns(uid-1)", container: app)`},
		{"1000", &runtimeapi.Int64Value{}, `container's runAsUser breaks non-root policy (pod: "web_ns(uid-1)", container: app)`},
		{"app", nil, `container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root (pod: "web_ns(uid-1)", container: app)`},
		{"a\x1b[2J", nil, `container has runAsNonRoot and image has non-numeric user (a\x1b[2J), cannot verify user is non-root (pod: "web_ns(uid-1)", container: app)`},
		{"1000", nil, ""},
		{"app", &runtimeapi.Int64Value{Value: 5}, ""},
		{"0", &runtimeapi.Int64Value{Value: 5}, ""},
	}
	for _, c := range cases {
		got := ""
		_, err := ResolveUser(UserRequest{
			ImageUser: c.image, Accounts: accounts, NonRoot: true, Pod: "web_ns(uid-1)", Name: "app",
			Security: &runtimeapi.LinuxContainerSecurityContext{RunAsUser: c.run},
		})
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("USER %q, runAsUser %v:\n got %s\nwant %s", c.image, c.run, got, c.want)
		}
	}
}

// TestUserIsTheSameEachTime is CVE-2019-11245: the uid of the image must not be
// lost on a second start.
func TestUserIsTheSameEachTime(t *testing.T) {
	r := UserRequest{ImageUser: "1000", Accounts: accounts, NonRoot: true}
	first, err := ResolveUser(r)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		again, err := ResolveUser(r)
		if err != nil || again.UID != 1000 || again.GID != first.GID || !slices.Equal(again.AdditionalGids, first.AdditionalGids) {
			t.Fatalf("%+v, %v; first %+v", again, err, first)
		}
	}
}

func TestReadAccounts(t *testing.T) {
	// What lies outside of the root file system, where a link may point to.
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret:x:0:0::/:\n")
	cases := map[string]struct {
		make  func(t *testing.T, root string)
		want  string // of passwd
		error string
	}{
		"plain":   {func(t *testing.T, r string) { write(t, r+"/etc/passwd", "a:x:1:1") }, "a:x:1:1", ""},
		"missing": {func(t *testing.T, r string) {}, "", ""},
		"absolute link inside": {func(t *testing.T, r string) {
			write(t, r+"/usr/lib/passwd", "in")
			link(t, "/usr/lib/passwd", r+"/etc/passwd")
		}, "in", ""},
		"link that climbs out": {func(t *testing.T, r string) {
			link(t, strings.Repeat("../", 20)+outside+"/secret", r+"/etc/passwd")
		}, "", ""},
		"absolute link out": {func(t *testing.T, r string) { link(t, outside+"/secret", r+"/etc/passwd") }, "", ""},
		"directory is a link out": {func(t *testing.T, r string) {
			os.RemoveAll(r + "/etc")
			write(t, outside+"/passwd", "secret")
			link(t, outside, r+"/etc")
		}, "", ""},
		"link to /proc":   {func(t *testing.T, r string) { link(t, "/proc/self/environ", r+"/etc/passwd") }, "", ""},
		"loop":            {func(t *testing.T, r string) { link(t, "passwd", r+"/etc/passwd") }, "", "loop"},
		"directory":       {func(t *testing.T, r string) { os.Mkdir(r+"/etc/passwd", 0o755) }, "", "not a regular"},
		"fifo":            {func(t *testing.T, r string) { unix.Mkfifo(r+"/etc/passwd", 0o644) }, "", "not a regular"},
		"device":          {func(t *testing.T, r string) { device(t, r+"/etc/passwd") }, "", "not a regular"},
		"1 MiB":           {func(t *testing.T, r string) { write(t, r+"/etc/passwd", strings.Repeat("x", 1<<20)) }, strings.Repeat("x", 1<<20), ""},
		"over 1 MiB":      {func(t *testing.T, r string) { write(t, r+"/etc/passwd", strings.Repeat("x", 1<<20+1)) }, "", "larger"},
		"huge, sparse":    {func(t *testing.T, r string) { write(t, r+"/etc/passwd", ""); os.Truncate(r+"/etc/passwd", 1<<40) }, "", "larger"},
		"etc is a file":   {func(t *testing.T, r string) { os.RemoveAll(r + "/etc"); write(t, r+"/etc", "x") }, "", ""},
		"huge group file": {func(t *testing.T, r string) { write(t, r+"/etc/group", strings.Repeat("x", 1<<20+1)) }, "", "larger"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(root+"/etc", 0o755); err != nil {
				t.Fatal(err)
			}
			c.make(t, root)
			got, err := ReadAccounts(root)
			if c.error != "" {
				if err == nil || !strings.Contains(err.Error(), c.error) {
					t.Fatalf("err = %v, want one with %q", err, c.error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Passwd) != c.want {
				t.Errorf("read %.40q, want %.40q", got.Passwd, c.want)
			}
		})
	}
}

func TestCheckRootfs(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev"} {
		root := t.TempDir()
		if err := CheckRootfs(root); err != nil {
			t.Errorf("an empty root: %v", err)
		}
		link(t, "/etc", filepath.Join(root, name))
		if err := CheckRootfs(root); !IsRefused(err) {
			t.Errorf("/%s is a link: %v", name, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func device(t *testing.T, path string) {
	t.Helper()
	need.Have(t, need.Root)
	if err := unix.Mknod(path, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app:staff", hostilePasswd, hostileGroup, int64(5))
	f.Add("2147483648", "2147483648:x:0:0::/:", "", int64(-1))
	f.Add("a", "a:x:00:0", "a:x::b", int64(1<<40))
	f.Fuzz(func(t *testing.T, image, passwd, group string, supplemental int64) {
		sec := &runtimeapi.LinuxContainerSecurityContext{SupplementalGroups: []int64{supplemental}}
		u, err := ResolveUser(UserRequest{ImageUser: image, Security: sec, Accounts: Accounts{[]byte(passwd), []byte(group)}, NonRoot: true})
		if err != nil {
			return
		}
		// What passed runAsNonRoot is a number in range, as the image wrote it.
		user, _, _ := strings.Cut(image, ":")
		n, err := strconv.ParseUint(user, 10, 31)
		if err != nil || n == 0 || uint32(n) != u.UID {
			t.Fatalf("USER %q became uid %d", image, u.UID)
		}
		if !slices.Contains(u.AdditionalGids, u.GID) || !slices.Contains(u.AdditionalGids, uint32(supplemental)) || supplemental < 0 || supplemental > maxID {
			t.Fatalf("groups %v of gid %d, supplemental %d", u.AdditionalGids, u.GID, supplemental)
		}
		for _, g := range append(u.AdditionalGids, u.GID) {
			if g > maxID {
				t.Fatalf("gid %d", g)
			}
		}
	})
}
