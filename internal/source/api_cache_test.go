package source

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/durable"
)

func cacheDir(t *testing.T) (*durable.Dir, string) {
	path := filepath.Join(t.TempDir(), "cache")
	dir, err := durable.New(durable.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return dir, path
}

// TestCache: a daemon that starts without the server goes on with the pods that run,
// begins the others when it is sure that the server cannot be asked, and lets go of
// what the server does not want any more.
func TestCache(t *testing.T) {
	dir, _ := cacheDir(t)
	var cfg APIConfig
	play(t, true, func(s *scene, c *APIConfig) {
		s.add("a", "b")
		c.Cache = dir
		c.Running = func() []types.UID { return []types.UID{uidOf("a")} }
		cfg = *c
	}, func(s *scene) {
		s.wants("seen", "a b")
		s.stop()
		s.last = Snapshot{}
		may := make(chan struct{})
		cfg.After = may
		s.start(cfg)
		s.wants("what runs", "a")
		if !s.last.Synced || s.last.Trusted {
			t.Errorf("others are held up, or something may end: %+v", s.last)
		}
		s.after(awayAfter)
		s.wants("the server is away", "a b")
		s.remove("b")
		close(may)
		s.wants("the server is there", "a")
		if !s.last.Trusted {
			t.Error("not trusted")
		}
		s.add("c")
		s.after(cacheRest + time.Second)
		if got := newPodCache(dir, cfg.Logger).load("node1"); len(got) != 2 {
			t.Errorf("%d pods were written while it runs", len(got))
		}
		if got, err := ReadPodCache(dir); err != nil || len(got) != 2 {
			t.Errorf("who only looks finds %d pods, %v", len(got), err)
		}
		if got := newPodCache(dir, cfg.Logger).load("node2"); len(got) != 0 {
			t.Errorf("%d pods of another node", len(got))
		}
	})
}

// TestCacheBrake: an empty list is doubted for pods that are known from the cache
// alone.
func TestCacheBrake(t *testing.T) {
	dir, _ := cacheDir(t)
	var cfg APIConfig
	play(t, true, func(s *scene, c *APIConfig) {
		sixPods(s, c)
		c.Cache = dir
		cfg = *c
	}, func(s *scene) {
		s.stop()
		s.set(func() { s.hidden = true })
		s.start(cfg)
		s.wants("doubted", six)
		s.after(confirmAfter + time.Second)
		s.wants("said twice", "")
	})
}

// TestCacheSpoilt: whatever stands in the file, the daemon starts.
func TestCacheSpoilt(t *testing.T) {
	for name, spoil := range map[string]func(*durable.Dir, string) error{
		"garbage": func(_ *durable.Dir, path string) error {
			return os.WriteFile(filepath.Join(path, cacheName), []byte("garbage"), 0o600)
		},
		"no pods":       func(d *durable.Dir, _ string) error { return d.Save(cacheName, cacheVersion, []byte("\xff\xff")) },
		"of the future": func(d *durable.Dir, _ string) error { return d.Save(cacheName, cacheVersion+1, nil) },
		"no identity": func(d *durable.Dir, _ string) error {
			return d.Save(cacheName, cacheVersion, encoded(&corev1.Pod{Spec: corev1.PodSpec{NodeName: "node1"}}))
		},
		"not a file":     func(_ *durable.Dir, path string) error { return os.Mkdir(filepath.Join(path, cacheName), 0o700) },
		"others' folder": func(_ *durable.Dir, path string) error { return os.Chmod(path, 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := cacheDir(t)
			if _, err := dir.Prepare(); err != nil {
				t.Fatal(err)
			}
			if err := spoil(dir, path); err != nil {
				t.Fatal(err)
			}
			if got, err := ReadPodCache(dir); err == nil || len(got) != 0 {
				t.Errorf("who only looks finds %d pods, %v", len(got), err)
			}
			play(t, true, func(s *scene, c *APIConfig) { s.add("a"); c.Cache = dir }, func(s *scene) {
				s.wants("all the same", "a")
			})
		})
	}
}

func encoded(pods ...*corev1.Pod) []byte {
	var list corev1.PodList
	for _, p := range pods {
		list.Items = append(list.Items, *p)
	}
	b, err := list.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

// FuzzDecodeCache: what the cache's file holds never harms, and no pod without an
// identity that can stand in a path comes out of it.
func FuzzDecodeCache(f *testing.F) {
	p := apiPod("a")
	p.Spec.NodeName = "node1"
	f.Add(encoded(p))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		pods, err := decodeCache(cacheVersion, payload, "node1")
		if err != nil {
			return
		}
		for _, p := range pods {
			if !validUID.MatchString(string(p.UID)) || p.Name == "" || p.Namespace == "" || p.Spec.NodeName != "node1" {
				t.Errorf("got %s/%s %q", p.Namespace, p.Name, p.UID)
			}
		}
	})
}
