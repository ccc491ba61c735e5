package volume

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"nodeagent/internal/mkdir"
)

// objects are the ConfigMaps and Secrets of a test, by name.
type objects struct {
	mu      sync.Mutex
	maps    map[string]*corev1.ConfigMap
	secrets map[string]*corev1.Secret
}

func (o *objects) ConfigMap(_, name string) (*corev1.ConfigMap, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m := o.maps[name]; m != nil {
		return m, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
}

func (o *objects) Secret(_, name string) (*corev1.Secret, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.secrets[name]; s != nil {
		return s, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
}

func (o *objects) put(name string, data map[string]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.maps == nil {
		o.maps, o.secrets = map[string]*corev1.ConfigMap{}, map[string]*corev1.Secret{}
	}
	o.maps[name] = &corev1.ConfigMap{Data: data}
	s := &corev1.Secret{Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	o.secrets[name] = s
}

func configMapVolume(name string, s corev1.ConfigMapVolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &s}}
}

func named(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

// content reads what a container sees in the volume: paths without "..", with
// mode, group and text.
func content(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	var walk func(at, rel string)
	walk = func(at, rel string) {
		entries, err := os.ReadDir(at)
		must(t, err)
		for _, e := range entries {
			full, name := filepath.Join(at, e.Name()), filepath.Join(rel, e.Name())
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			var st unix.Stat_t
			must(t, unix.Stat(full, &st))
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				walk(full, name)
				continue
			}
			text, err := os.ReadFile(full)
			must(t, err)
			all = append(all, fmt.Sprintf("%s %o %d %s", name, st.Mode&0o7777, st.Gid, text))
		}
	}
	walk(dir, "")
	slices.Sort(all)
	return all
}

func wantContent(t testing.TB, what, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := content(t, dir); !slices.Equal(got, want) {
		t.Errorf("%s: the volume shows\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// inodes are the directories and links of a volume, by which an unneeded change
// is seen.
func inodes(t testing.TB, dir string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		must(t, err)
		must(t, unix.Lstat(path, &st))
		all[path] = st.Ino
		return nil
	}))
	return all
}

// TestObjects: keys, items, modes, groups, optional ones, and where each kind is.
func TestObjects(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	v := testVolumes(t)
	v.cfg.Place.Allocatable = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
	v.cfg.Objects.(*objects).put("o", map[string]string{"a": "one", "b": "two", ".hidden": "three"})
	optional := new(true)
	p := testPod(t, v, "p",
		configMapVolume("all", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o")}),
		configMapVolume("items", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o"), DefaultMode: new(int32(0o400)), Optional: optional,
			Items: []corev1.KeyToPath{{Key: "a", Path: "dir/sub/a"}, {Key: "b", Path: "dir/b", Mode: new(int32(0o755))}, {Key: "none", Path: "none"}}}),
		configMapVolume("none", corev1.ConfigMapVolumeSource{LocalObjectReference: named("absent"), Optional: optional}),
		corev1.Volume{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "o", DefaultMode: new(int32(0o400))}}},
		corev1.Volume{Name: "down", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			{Path: "memory", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "app", Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}}}}},
		corev1.Volume{Name: "mixed", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: new(int32(0o440)), Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("o"), Items: []corev1.KeyToPath{{Key: "a", Path: "a"}}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: named("o"), Items: []corev1.KeyToPath{{Key: "b", Path: "b"}}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: named("absent"), Optional: optional}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}}}}},
	)
	p.Labels = map[string]string{"app": `a "quoted" one`, "z": ""}
	must(t, v.Setup(t.Context(), p))
	at := func(kind plugin, name string) string { return v.dir(p.UID, kind, name) }
	wantContent(t, "all", at(pluginConfigMap, "all"), "a 644 0 one", "b 644 0 two", ".hidden 644 0 three")
	wantContent(t, "items", at(pluginConfigMap, "items"), "dir/sub/a 400 0 one", "dir/b 755 0 two")
	wantContent(t, "none", at(pluginConfigMap, "none"))
	wantContent(t, "secret", at(pluginSecret, "secret"), "a 400 0 one", "b 400 0 two", ".hidden 400 0 three")
	wantContent(t, "down", at(pluginDownward, "down"), "labels 644 0 app=\"a \\\"quoted\\\" one\"\nz=\"\"", "memory 644 0 1024")
	wantContent(t, "mixed", at(pluginProjected, "mixed"), "a 440 0 one", "b 440 0 two", "name 440 0 p")
	for _, dir := range []string{at(pluginSecret, "secret"), at(pluginDownward, "down"), at(pluginProjected, "mixed")} {
		var st unix.Statfs_t
		must(t, unix.Statfs(dir, &st))
		if st.Type != unix.TMPFS_MAGIC {
			t.Errorf("%s is no tmpfs: what is in it could be found on the disk", dir)
		}
		if bits, _ := mode(t, dir); bits != 0o755 {
			t.Errorf("%s has mode %o, want 755: only root writes to it", dir, bits)
		}
		if bits, _ := mode(t, filepath.Dir(dir)); bits != 0o700 {
			t.Errorf("%s has mode %o, want 700", filepath.Dir(dir), bits)
		}
	}
	mounts, err := v.Mounts(t.Context(), p, &p.Spec.Containers[0])
	must(t, err)
	for _, m := range mounts {
		if !m.Readonly {
			t.Errorf("%s is mounted for writing", m.ContainerPath)
		}
	}
	// A volume that somebody unmounted is back before a container gets it; one
	// whose object is gone is as it was.
	must(t, unix.Unmount(at(pluginDownward, "down"), 0))
	v.cfg.Objects = &objects{}
	_, err = v.Mounts(t.Context(), p, &p.Spec.Containers[0])
	must(t, err)
	wantContent(t, "secret", at(pluginSecret, "secret"), "a 400 0 one", "b 400 0 two", ".hidden 400 0 three")
	if got := content(t, at(pluginDownward, "down")); len(got) != 2 {
		t.Errorf("the lost volume shows %v", got)
	}
	must(t, v.Remove(t.Context(), p.UID))
	wantGone(t, v, p)
}

// TestObjectsOfAGroup: who is in the pod's group may read what only root's owner
// could, and nobody may write.
func TestObjectsOfAGroup(t *testing.T) {
	v := testVolumes(t)
	v.cfg.Objects.(*objects).put("o", map[string]string{"a": "one"})
	p := testPod(t, v, "p",
		configMapVolume("m", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o"), DefaultMode: new(int32(0o400)), Items: []corev1.KeyToPath{{Key: "a", Path: "d/a"}}}),
		corev1.Volume{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "o"}}})
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(5000))}
	must(t, v.Setup(t.Context(), p))
	wantContent(t, "m", v.dir(p.UID, pluginConfigMap, "m"), "d/a 440 5000 one")
	wantContent(t, "s", v.dir(p.UID, pluginSecret, "s"), "a 644 5000 one")
	for _, dir := range []string{v.dir(p.UID, pluginConfigMap, "m"), v.dir(p.UID, pluginConfigMap, "m/..data/d"), v.dir(p.UID, pluginSecret, "s")} {
		if bits, gid := mode(t, dir); bits != 0o2755 || gid != 5000 {
			t.Errorf("%s has mode %o and group %d, want 2755 and 5000", dir, bits, gid)
		}
	}
	before := inodes(t, v.volumes(p.UID))
	must(t, v.Setup(t.Context(), p))
	if after := inodes(t, v.volumes(p.UID)); !maps.Equal(before, after) {
		t.Errorf("a setup that changes nothing changed %v into %v", before, after)
	}
	must(t, v.Remove(t.Context(), p.UID))
}

// TestObjectsAbsent: errors in kubelet's words; those that only an object can
// mend say so, unless time can mend another one.
func TestObjectsAbsent(t *testing.T) {
	v := testVolumes(t)
	v.cfg.Objects.(*objects).put("o", map[string]string{"a": "one"})
	lacks := func(err error) bool {
		var absent interface{ Absent() bool }
		return apierrors.IsNotFound(err) || asAbsent(err, &absent)
	}
	missing := configMapVolume("m", corev1.ConfigMapVolumeSource{LocalObjectReference: named("none")})
	key := configMapVolume("k", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o"), Items: []corev1.KeyToPath{{Key: "x", Path: "x"}}})
	host := corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/dev/null", Type: new(corev1.HostPathDirectory)}}}
	for _, x := range []struct {
		volumes []corev1.Volume
		want    []string
		absent  bool
	}{
		{[]corev1.Volume{missing}, []string{`MountVolume.SetUp failed for volume "m" : configmap "none" not found`}, true},
		{[]corev1.Volume{key}, []string{`volume "k" : references non-existent config key: x`}, true},
		{[]corev1.Volume{missing, key}, []string{`"m"`, `"k"`}, true},
		{[]corev1.Volume{missing, host}, []string{`"m"`, `hostPath type check failed: /dev/null is not a directory`}, false},
	} {
		err := v.Setup(t.Context(), testPod(t, v, "p", x.volumes...))
		for _, want := range x.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
		if lacks(err) != x.absent {
			t.Errorf("%v: waits for an object: %v, want %v", err, lacks(err), x.absent)
		}
	}
}

// TestUpdate: a reader that opens ..data once sees all of one state, whatever
// comes and goes; links of containers see the new one at once; nothing of the
// old ones is left.
func TestUpdate(t *testing.T) {
	v := testVolumes(t)
	o := v.cfg.Objects.(*objects)
	o.put("o", map[string]string{"a": "0", "b": "0", "old": "0"})
	p := testPod(t, v, "p", configMapVolume("m", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o")}))
	must(t, v.Setup(t.Context(), p))
	dir := v.dir(p.UID, pluginConfigMap, "m")
	stop, torn := make(chan struct{}), make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			a, b := readState(dir)
			if a != b {
				torn <- a + " and " + b
				return
			}
		}
	})
	for n := 1; n <= 200; n++ {
		text := fmt.Sprint(n)
		o.put("o", map[string]string{"a": text, "b": text, "new" + text: text})
		must(t, v.Setup(t.Context(), p))
		wantContent(t, text, dir, "a 644 0 "+text, "b 644 0 "+text, "new"+text+" 644 0 "+text)
	}
	close(stop)
	reading.Wait()
	select {
	case states := <-torn:
		t.Errorf("a reader saw the states %s at once", states)
	default:
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 5 { // ..data, its directory, a, b, new200
		t.Errorf("after many updates there are %v", entries)
	}
}

// readState reads a and b through one open directory.
func readState(dir string) (a, b string) {
	fd, err := unix.Open(filepath.Join(dir, dataLink), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", ""
	}
	defer unix.Close(fd)
	x, errA := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/a", fd))
	y, errB := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/b", fd))
	if errA != nil || errB != nil {
		return "", "" // removed meanwhile, as any state but the last one is
	}
	return string(x), string(y)
}

// TestUpdateFollowsNoLink: whatever somebody planted in the volume, 1000 updates
// write and delete nothing elsewhere (CVE-2017-1002102).
func TestUpdateFollowsNoLink(t *testing.T) {
	v := testVolumes(t)
	o := v.cfg.Objects.(*objects)
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	must(t, os.WriteFile(canary, []byte("canary"), 0o600))
	must(t, mkdir.All(filepath.Join(outside, "d"), 0o755))
	before := inodes(t, outside)
	o.put("o", map[string]string{"canary": "x"})
	p := testPod(t, v, "p",
		configMapVolume("m", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o"), Items: []corev1.KeyToPath{{Key: "canary", Path: "d/canary"}, {Key: "canary", Path: "canary"}}}))
	must(t, v.Setup(t.Context(), p))
	dir := v.dir(p.UID, pluginConfigMap, "m")
	plants := []func(){
		func() {
			_ = os.Remove(filepath.Join(dir, dataLink))
			must(t, os.Symlink(outside, filepath.Join(dir, dataLink)))
		},
		func() { must(t, os.Symlink(outside, filepath.Join(dir, fmt.Sprint("..2024_", len(inodes(t, dir)))))) },
		func() {
			_ = os.Remove(filepath.Join(dir, newLink))
			must(t, os.Symlink(outside, filepath.Join(dir, newLink)))
		},
		func() {
			_ = os.Remove(filepath.Join(dir, "d"))
			must(t, os.Symlink(filepath.Join(outside, "d"), filepath.Join(dir, "d")))
		},
		func() {
			_ = os.Remove(filepath.Join(dir, "canary"))
			must(t, os.Symlink(canary, filepath.Join(dir, "canary")))
		},
		func() {
			_ = os.Remove(filepath.Join(dir, dataLink))
			must(t, mkdir.All(filepath.Join(dir, dataLink, "x"), 0o755))
		},
		func() { // in the directory of the files itself
			at := filepath.Join(dir, dataLink, "d")
			_ = os.RemoveAll(at)
			_ = os.Symlink(outside, at)
		},
	}
	for n := range 1000 {
		text := fmt.Sprint(n / 2) // every second time nothing changes but what was planted
		o.put("o", map[string]string{"canary": text})
		plants[n%len(plants)]()
		must(t, v.Setup(t.Context(), p))
		wantContent(t, text, dir, "canary 644 0 "+text, "d/canary 644 0 "+text)
	}
	if text, err := os.ReadFile(canary); err != nil || string(text) != "canary" || !maps.Equal(before, inodes(t, outside)) {
		t.Errorf("what is outside was changed: %q, %v", text, err)
	}
	must(t, v.Remove(t.Context(), p.UID))
	if !maps.Equal(before, inodes(t, outside)) {
		t.Error("what is outside was deleted")
	}
}

// TestKeysLeadNowhere: an object's keys and a pod's items are no paths out.
func TestKeysLeadNowhere(t *testing.T) {
	for _, name := range []string{"..", "../x", "a/../b", "/abs", ".", "", "a//b", "..data", "..data/x", "a\x00b", strings.Repeat("a", 256), strings.Repeat("a/", 2100) + "a"} {
		if err := (payload{name: file{}}).check(); err == nil {
			t.Errorf("the path %.20q is taken", name)
		}
	}
	v := testVolumes(t)
	v.cfg.Objects.(*objects).put("o", map[string]string{"../../x": "one"})
	p := testPod(t, v, "p", configMapVolume("m", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o")}))
	if err := v.Setup(t.Context(), p); err == nil || !strings.Contains(err.Error(), `"../../x"`) {
		t.Errorf("the key ../../x is told as %v", err)
	}
	if err := (payload{"a/b": file{}, ".a": file{}, "a..b": file{}, strings.Repeat("a", 255): file{}}).check(); err != nil {
		t.Error(err)
	}
}

// TestHalfAnUpdate: from whatever a killed daemon left of an update the next one
// gets to the same end.
func TestHalfAnUpdate(t *testing.T) {
	v := testVolumes(t)
	o := v.cfg.Objects.(*objects)
	other := t.TempDir() // holds the same, but is somebody else's to change
	for name, text := range map[string]string{"a": "one", "b": "two"} {
		must(t, os.WriteFile(filepath.Join(other, name), []byte(text), 0o644))
	}
	for what, half := range map[string]func(dir string){
		"a directory that nothing leads to": func(dir string) { must(t, mkdir.All(filepath.Join(dir, "..2020_01_01_00_00_00.1", "a"), 0o755)) },
		"a new link":                        func(dir string) { must(t, os.Symlink("..2020", filepath.Join(dir, newLink))) },
		"no links":                          func(dir string) { must(t, os.Remove(filepath.Join(dir, "a"))) },
		"an old link":                       func(dir string) { must(t, os.Symlink("..data/old", filepath.Join(dir, "old"))) },
		"a truncated file":                  func(dir string) { must(t, os.Truncate(filepath.Join(dir, "a"), 0)) },
		"another mode":                      func(dir string) { must(t, os.Chmod(filepath.Join(dir, "a"), 0o600)) },
		"one file too many":                 func(dir string) { must(t, os.WriteFile(filepath.Join(dir, dataLink, "x"), nil, 0o644)) },
		"a file is gone":                    func(dir string) { must(t, os.Remove(filepath.Join(dir, dataLink, "b"))) },
		"..data leads over a link": func(dir string) {
			must(t, os.Rename(filepath.Join(dir, dataLink), filepath.Join(dir, "..was")))
			must(t, os.Symlink(other, filepath.Join(dir, "..evil")))
			must(t, os.Symlink("..evil", filepath.Join(dir, dataLink)))
		},
		"..data leads to nothing": func(dir string) {
			must(t, os.Remove(filepath.Join(dir, dataLink)))
			must(t, os.Symlink("..nothing", filepath.Join(dir, dataLink)))
		},
	} {
		o.put("o", map[string]string{"a": "one", "b": "two"})
		p := testPod(t, v, "p", configMapVolume("m", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o")}))
		must(t, v.Setup(t.Context(), p))
		dir := v.dir(p.UID, pluginConfigMap, "m")
		half(dir)
		must(t, v.Setup(t.Context(), p))
		wantContent(t, what, dir, "a 644 0 one", "b 644 0 two")
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
			t.Errorf("%s: there are %v, %v", what, entries, err)
		}
		to, err := os.Readlink(filepath.Join(dir, dataLink))
		must(t, err)
		if st, err := os.Lstat(filepath.Join(dir, to)); err != nil || !st.IsDir() {
			t.Errorf("%s: what is shown is %v, %v", what, st, err)
		}
		must(t, v.Remove(t.Context(), p.UID))
	}
}
