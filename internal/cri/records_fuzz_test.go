package cri

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzRunDirectory: whatever stands in the files that an earlier daemon left in
// the run directory (an intent, a start mark, a stop), reading them does not
// fail hard, and a sandbox that comes of it can be shown and taken down.
func FuzzRunDirectory(f *testing.F) {
	f.Add([]byte(`{"boot":"b","netns":"/run/netns/x","handler":"h","config":{"metadata":{"uid":"u","name":"a"},"linux":{"cgroup_parent":"/p"}}}`))
	f.Add([]byte(`{"deadline":9223372036854775807,"sent":true}`))
	f.Add([]byte(`{"at":"2026-01-01T00:00:00Z","pid":4294967295}`))
	f.Add([]byte(`{"config":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := &Native{cfg: Config{RunDir: t.TempDir()}}
		const id = "abc"
		for _, path := range []string{filepath.Join(n.nsDir(id), "intent"), n.startedPath(id), n.stopPath(id)} {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := n.readIntent(id); err == nil {
			_ = s.observe()
			_ = netRequest(s.id, s.netns, s.config)
			_ = sandboxLabels(s)
			_ = namespacesOf(s.config).hostNetwork()
		}
		if _, ok := n.readStarted(id); !ok {
			t.Error("a mark that is there says nothing")
		}
		if r, ok := n.readStop(id); ok {
			_ = r.left()
		}
	})
}

// FuzzProfileListed: only a whole name of the kernel's list of AppArmor profiles
// is loaded.
func FuzzProfileListed(f *testing.F) {
	f.Add("docker-default (enforce)\nmy profile (complain)\n/usr/bin/man (enforce)\n", "my profile")
	f.Add("a (enforce)", "a (enforce)")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, list, name string) {
		listed := profileListed([]byte(list), name)
		found := slices.ContainsFunc(strings.SplitAfter(list, "\n"), func(line string) bool {
			rest, ok := strings.CutPrefix(line, name+" (")
			return ok && !strings.Contains(rest, " (")
		})
		if listed != found {
			t.Errorf("%q in %q: %t", name, list, listed)
		}
	})
}
