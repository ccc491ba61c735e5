package source

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFirstSnapshot(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "b.yaml"), manifest("b")+"---\n"+manifest("a"))
	put(t, filepath.Join(dir, "a.json"), `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"j"},"spec":{"containers":[{"name":"m","image":"i"}]}}`)
	put(t, filepath.Join(dir, "w.yml"), manifest("w")+"  os: {name: windows}\n")
	f := start(t, dir, nil)
	s := f.last
	if !slices.Equal(f.pods(), []string{"j", "b", "a", "w"}) || !s.Synced || !s.Trusted || s.Source != "file" || len(s.Problems) > 0 || f.count != 1 {
		t.Fatalf("got %v %+v", f.pods(), s)
	}
	if r := s.Rejected[s.Pods[3].UID]; len(s.Rejected) != 1 || r.Reason != "PodOSNotSupported" {
		t.Fatalf("rejected %v", s.Rejected)
	}
}

func TestAddChangeRemove(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	if len(f.last.Pods) != 0 || !f.last.Synced || !f.last.Trusted {
		t.Fatalf("got %+v", f.last)
	}
	begin := time.Now()
	f.write("a.yaml", manifest("a"))
	first := f.untilPods("a").Pods[0]
	added := time.Since(begin)
	f.write("a.yaml", manifest("a", "    args: [x]\n"))
	second := f.until("the change", func(s Snapshot) bool { return len(s.Pods) == 1 && s.Pods[0].UID != first.UID }).Pods[0]
	if len(second.Spec.Containers[0].Args) != 1 || len(first.Spec.Containers[0].Args) != 0 {
		t.Error("the pod of the first snapshot was changed, or the second was not")
	}
	begin = time.Now()
	f.remove("a.yaml")
	f.untilPods()
	t.Logf("added in %s, removed in %s", added, time.Since(begin))
}

func TestMovedAwayEnds(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", manifest("a"))
	f.untilPods("a")
	do(t, os.Rename(f.path("a.yaml"), filepath.Join(t.TempDir(), "a.yaml")))
	f.untilPods()
}

func TestRenamedFileIsAnotherPod(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("b.yaml", manifest("a"))
	uid := f.untilPods("a").Pods[0].UID
	f.rename("b.yaml", "c.yaml")
	f.until("another uid", func(s Snapshot) bool { return len(s.Pods) == 1 && s.Pods[0].UID != uid })
}

// A daemon that restarts gives every pod the identity that it had.
func TestRestartKeepsIdentity(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
	if a, b := start(t, dir, nil), start(t, dir, nil); a.last.Pods[0].UID != b.last.Pods[0].UID {
		t.Fatal("another uid")
	}
}

// What is half written is never seen, though here every half parses.
func TestPartialWrites(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	w, err := os.Create(f.path("a.yaml"))
	do(t, err)
	for _, part := range []string{manifest("a"), "---\n", manifest("b")} {
		_, err := w.WriteString(part)
		do(t, err)
		f.settle()
		if len(f.last.Pods) != 0 || len(f.last.Problems) != 0 {
			t.Fatalf("an unfinished file was read: %v %v", f.pods(), f.last.Problems)
		}
	}
	do(t, w.Close())
	f.untilPods("a", "b")

	f.keeps("a", "b")
	w, err = os.OpenFile(f.path("a.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	do(t, err)
	f.settle()
	_, err = w.WriteString(manifest("a"))
	do(t, err)
	do(t, os.Chmod(f.path("a.yaml"), 0o644)) // an event while it is written
	f.settle()
	_, err = w.WriteString("---\n" + manifest("b"))
	do(t, err)
	do(t, w.Close())
	f.settle()
	if len(f.last.Problems) > 0 {
		t.Fatal(f.last.Problems)
	}
}

func TestStartWhileAFileIsWritten(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "b.yaml"), manifest("b"))
	w, err := os.Create(filepath.Join(dir, "a.yaml"))
	do(t, err)
	defer w.Close()
	_, err = w.WriteString(manifest("a"))
	do(t, err)
	f := start(t, dir, nil)
	if !slices.Equal(f.pods(), []string{"b"}) || f.last.Trusted || !f.last.Synced {
		t.Fatalf("got %v, trusted %t", f.pods(), f.last.Trusted)
	}
	do(t, w.Close())
	if s := f.untilPods("a", "b"); !s.Trusted {
		t.Fatal("not trusted")
	}
}

// A bad manifest never stops a running pod, and says where it is bad.
func TestBadContentKeepsPods(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", manifest("a")+"---\n"+manifest("b"))
	f.untilPods("a", "b")
	f.keeps("a", "b")
	for _, bad := range []string{
		"", "# nothing\n", "a: b: c\n", "{", manifest("a") + "---\n" + manifest("b") + "  oops: 1\n",
		manifest("a")[:60], manifest("a") + "---\nkind: Pod\n", "\x00", strings.Repeat("[", 1000), strings.Repeat("x", maxFileBytes+1),
	} {
		f.write("a.yaml", bad)
		p := f.until("a problem", func(s Snapshot) bool { return len(s.Problems) > 0 }).Problems[0]
		if p.File != f.path("a.yaml") || p.Since.IsZero() || p.Message == "" {
			t.Errorf("problem %+v", p)
		}
		f.write("a.yaml", manifest("a")+"---\n"+manifest("b"))
		f.until("no problem", func(s Snapshot) bool { return len(s.Problems) == 0 })
	}
	f.write("a.yaml", manifest("a")+"---\n"+manifest("b")+"  oops: 1\n")
	if p := f.untilProblem("spec.oops: unknown field"); p.Line != 18 {
		t.Errorf("line %d", p.Line)
	}
	since := f.last.Problems[0].Since
	f.write("a.yaml", manifest("a")+"---\n"+manifest("b")+"  oops: 2\n  more: 1\n")
	if p := f.untilProblem("spec.more: unknown field"); p.Since != since {
		t.Error("the problem's age was lost")
	}
	f.always = nil
	f.remove("a.yaml")
	if s := f.untilPods(); len(s.Problems) > 0 {
		f.until("no problem", func(s Snapshot) bool { return len(s.Problems) == 0 })
	}
}

// Saving a file without a change is nothing, however an editor does it; and with
// a change there is never a moment without the pod.
func TestEditors(t *testing.T) {
	text := manifest("a")
	for name, save := range map[string]func(f *feed, text string){
		"in place": func(f *feed, text string) { f.write("a.yaml", text) },
		"vim": func(f *feed, text string) {
			f.write(".a.yaml.swp", "swap")
			f.write("4913", "")
			f.remove("4913")
			f.rename("a.yaml", "a.yaml~")
			f.write("a.yaml", text)
			f.remove("a.yaml~")
			f.remove(".a.yaml.swp")
		},
		"emacs": func(f *feed, text string) {
			do(f.t, os.Symlink("me@host.1:2", f.path(".#a.yaml")))
			f.write("#a.yaml#", text)
			f.rename("a.yaml", "a.yaml.~1~")
			f.write("a.yaml", text)
			f.remove("#a.yaml#")
			f.remove(".#a.yaml")
			f.remove("a.yaml.~1~")
		},
		"sed": func(f *feed, text string) {
			f.write("sedAb3dEf", text)
			f.rename("sedAb3dEf", "a.yaml")
		},
		"git": func(f *feed, text string) {
			f.remove("a.yaml")
			f.write("a.yaml", text)
		},
		"backup beside": func(f *feed, text string) {
			f.write("a.yaml.bak", manifest("old"))
			f.write("a.yaml", text)
			f.remove("a.yaml.bak")
		},
		"touch": func(f *feed, text string) {
			now := time.Now()
			do(f.t, os.Chtimes(f.path("a.yaml"), now, now))
			do(f.t, os.Chmod(f.path("a.yaml"), 0o644))
			if text != manifest("a") {
				f.write("a.yaml", text)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := startPatient(t, t.TempDir())
			f.write("a.yaml", text)
			f.untilPods("a")
			f.keeps("a")
			for range 20 {
				save(f, text)
			}
			save(f, "# only a comment\n"+text)
			f.settle()
			if len(f.last.Problems) > 0 {
				t.Errorf("problems %v", f.last.Problems)
			}
			f.always = func(s Snapshot) {
				if !slices.Contains(podNames(s), "a") {
					t.Errorf("without the pod: %v", podNames(s))
				}
			}
			save(f, manifest("a", "    args: [new]\n"))
			f.until("the change", func(s Snapshot) bool { return len(s.Pods[0].Spec.Containers[0].Args) == 1 })
			f.settle()
		})
	}
}

// Two files with one pod: the first by name has it, the other one is told of,
// and nothing that happens to the other one matters.
func TestTwoFilesOnePod(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.yaml"), manifest("p"))
	put(t, filepath.Join(dir, "b.yaml"), manifest("p", "    args: [b]\n"))
	f := start(t, dir, nil)
	f.untilPods("p")
	f.keeps("p")
	p := f.untilProblem("a.yaml has one of the same name")
	if p.File != f.path("b.yaml") || p.Pod != "default/p-node1" {
		t.Errorf("problem %+v", p)
	}
	for i := range 5 {
		f.write("b.yaml", manifest("p", fmt.Sprintf("    args: [b%d]\n", i)))
	}
	f.settle()
	if again := f.untilProblem("a.yaml has one"); again.Since != p.Since {
		t.Error("the problem's age was lost")
	}
	f.write("a.yaml", "broken") // its last good pod still counts
	f.untilProblem("no Kubernetes object")
	f.settle()
	f.always = nil
	f.remove("a.yaml")
	f.until("the pod of b.yaml, and no problem", func(s Snapshot) bool {
		return len(s.Pods) == 1 && len(s.Pods[0].Spec.Containers[0].Args) == 1 && len(s.Problems) == 0
	})
}

func TestTwoFilesOneUID(t *testing.T) {
	dir := t.TempDir()
	withUID := func(name string) string {
		return strings.Replace(manifest(name), "metadata:", "metadata:\n  uid: same", 1)
	}
	put(t, filepath.Join(dir, "a.yaml"), withUID("p"))
	put(t, filepath.Join(dir, "b.yaml"), withUID("q"))
	f := start(t, dir, nil)
	f.untilPods("p")
	f.untilProblem("same name or uid")
}

// 5 000 manifests at once are one snapshot, and cost little.
func TestManyFiles(t *testing.T) {
	const many = 5000
	root := t.TempDir()
	do(t, os.Mkdir(filepath.Join(root, "new"), 0o700))
	for i := range many {
		put(t, filepath.Join(root, "new", fmt.Sprintf("p%d.yaml", i)), manifest(fmt.Sprintf("p%d", i)))
	}
	f := start(t, filepath.Join(root, "manifests"), nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin, count := time.Now(), f.count
	do(t, os.Rename(filepath.Join(root, "new"), filepath.Join(root, "manifests")))
	s := f.until("all pods", func(s Snapshot) bool { return len(s.Pods) > 0 })
	took := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if len(s.Pods) != many || f.count != count+1 || len(s.Problems) > 0 {
		t.Fatalf("%d pods in %d snapshots, problems %v", len(s.Pods), f.count-count, s.Problems)
	}
	kept := (after.HeapAlloc - before.HeapAlloc) >> 10
	if kept > 64<<10 {
		t.Errorf("%d KiB are kept", kept)
	}
	t.Logf("%d manifests in %s, %d KiB kept", many, took, kept)

	for i := range 300 { // and some by themselves
		put(t, filepath.Join(root, "manifests", fmt.Sprintf("p%d.yaml", i)), manifest(fmt.Sprintf("p%d", i), "    args: [x]\n"))
	}
	f.until("all changes", func(s Snapshot) bool {
		changed := 0
		for _, p := range s.Pods {
			changed += len(p.Spec.Containers[0].Args)
		}
		return len(s.Pods) == many && changed == 300
	})
	for i := range many {
		f.remove(fmt.Sprintf("p%d.yaml", i))
	}
	f.untilPods()
}
