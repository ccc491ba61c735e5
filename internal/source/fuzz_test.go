package source

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod/validate"
)

// checkDecoded holds what every decoded file must be, whatever stood in it.
func checkDecoded(t *testing.T, pods []wanted, wrong findings, data []byte) {
	t.Helper()
	if (len(wrong) == 0) == (len(pods) == 0) {
		t.Fatalf("%d pods and %d findings", len(pods), len(wrong))
	}
	if len(wrong) > maxFindings {
		t.Fatalf("%d findings", len(wrong))
	}
	lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + bytes.Count(data, []byte("\u0085")) + 2*bytes.Count(data, []byte("\u2028")) + 2*bytes.Count(data, []byte("\u2029")) + 2
	for _, w := range wrong {
		if w.message == "" || len(w.message) > 1200 || bytes.ContainsAny([]byte(w.message), "\n\r") || w.line < 0 || w.line > lines {
			t.Fatalf("finding %+v, %d lines", w, lines)
		}
	}
	for _, w := range pods {
		p := w.pod
		if p.Name == "" || p.Namespace == "" || !validUID.MatchString(string(p.UID)) || p.Spec.NodeName != "Node1" || p.Annotations[annotationHash] != string(p.UID) {
			t.Fatalf("identity %+v", p.ObjectMeta)
		}
		if errs := validate.Static(p); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
}

func fuzzDecode(f *testing.F, name string) {
	m := testSource(f, "/m", nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		pods, wrong := m.decode("/m/"+name, data)
		checkDecoded(t, pods, wrong, data)
		again, _ := m.decode("/m/"+name, data)
		if kept := keep(pods, again); !slices.Equal(kept, pods) {
			t.Fatal("the same file gave other pods")
		}
	})
}

func FuzzManifestYAML(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(manifest("a") + "---\n" + manifest("b")))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n- &a {kind: Pod, metadata: {name: x}}\n- <<: *a\n"))
	f.Add([]byte("%YAML 1.1\n--- !!map\n? a\n: - b\n...\n"))
	f.Add([]byte(manifest("a", "    imagee: 1\n    image: x\n    env: [{name: 1}]\n")))
	fuzzDecode(f, "a.yaml")
}

func FuzzManifestJSON(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"m","image":"i"}]}}`))
	f.Add([]byte(`{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"a","name":"b"}},{"spec":null}]}{}`))
	f.Add([]byte(`{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"ports":[{"containerPort":1e99}],"x":"\ud83d\ude00"}]}}`))
	fuzzDecode(f, "a.json")
}

// Whatever happens to the files of a directory, a pod runs on unless its file is
// gone or says so itself: 10 000 changes, and after each of them what each file
// would give alone is compared with what is there.
func TestNoChangeStopsAPod(t *testing.T) {
	const files, changes = 20, 10_000 / slowdown
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	var last Snapshot
	m := testSource(t, dir, func(c *Config) { c.Emit = func(s Snapshot) { last = s } })
	names, good := make([]string, files), make([][]byte, files)
	want := map[string][]types.UID{}
	for i := range files {
		id := string(rune('a' + i))
		names[i], good[i] = id+".yaml", []byte(manifest("p"+id, "    args: [x, 'y', \"z\"]\n    env:\n    - {name: A, value: b}\n"))
		put(t, filepath.Join(dir, names[i]), string(good[i]))
		pods, wrong := m.decode(filepath.Join(dir, names[i]), good[i])
		if wrong != nil {
			t.Fatal(wrong)
		}
		want[names[i]] = uidsOf(pods)
	}
	m.scan(nil)
	m.emit()
	refused := 0
	for n := range changes {
		i := r.IntN(files)
		path := filepath.Join(dir, names[i])
		do(t, os.RemoveAll(path))
		if r.IntN(10) == 0 {
			makeOdd(t, r, path)
			refused++
		} else {
			text := mutate(r, good[i], good[r.IntN(files)])
			put(t, path, string(text))
			if pods, wrong := m.decode(path, text); wrong == nil {
				want[names[i]] = uidsOf(pods)
			} else {
				refused++
			}
		}
		m.look(names[i], signFinished)
		m.emit()
		if missing := missingUIDs(want, last); len(missing) > 0 {
			t.Fatalf("change %d, of %s: pods %v stopped", n, names[i], missing)
		}
	}
	t.Logf("%d of %d changes were no manifests", refused, changes)
	if refused < changes/10 || refused > changes*95/100 {
		t.Error("the changes do not reach both sides")
	}
}

func uidsOf(pods []wanted) []types.UID {
	var out []types.UID
	for _, w := range pods {
		out = append(out, w.pod.UID)
	}
	return out
}

// missingUIDs lists the pods that should be there; of two files with a pod of
// one name, one is enough.
func missingUIDs(want map[string][]types.UID, s Snapshot) []types.UID {
	have := map[types.UID]bool{}
	for _, p := range s.Pods {
		have[p.UID] = true
	}
	var missing []types.UID
	for name, uids := range want {
		shadowed := slices.ContainsFunc(s.Problems, func(p Problem) bool {
			return filepath.Base(p.File) == name && p.Pod != "" && bytes.Contains([]byte(p.Message), []byte("sorts first"))
		})
		for _, uid := range uids {
			if !have[uid] && !shadowed {
				missing = append(missing, uid)
			}
		}
	}
	return missing
}

func makeOdd(t *testing.T, r *rand.Rand, path string) {
	t.Helper()
	kinds := []string{"pipe", "socket", "directory", "device", "dangling link", "looping link", "sparse file"}
	do(t, oddFiles[kinds[r.IntN(len(kinds))]].make(path))
}

// mutate damages a manifest as a broken disk, editor or hand does.
func mutate(r *rand.Rand, text, other []byte) []byte {
	out := slices.Clone(text)
	for range 1 + r.IntN(3) {
		if len(out) == 0 {
			return out
		}
		at := r.IntN(len(out))
		to := at + r.IntN(len(out)-at)
		switch r.IntN(8) {
		case 0:
			out = out[:at]
		case 1:
			out[at] ^= 1 << r.IntN(8)
		case 2:
			out = slices.Delete(out, at, to)
		case 3:
			out = slices.Insert(out, at, out[at:to]...)
		case 4:
			out = slices.Insert(out, at, []byte([]string{"\n", "---\n", "&a ", "*a ", "{", "[", "\t", "\x00", ": ", "- ", "<<: "}[r.IntN(11)])...)
		case 5:
			out = slices.Concat(out[:at], other[min(at, len(other)):])
		case 6:
			clear(out[at:to])
		case 7: // a line twice
			if nl := bytes.IndexByte(out[at:], '\n'); nl >= 0 {
				out = slices.Insert(out, at+nl+1, append(slices.Clone(out[at:at+nl]), '\n')...)
			}
		}
	}
	return out
}
