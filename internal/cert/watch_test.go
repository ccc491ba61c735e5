package cert

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fsnotify/fsnotify"
)

// TestElsewhere: a log beside a certificate is no reason to read it again; whatever may
// be a step on the way to it is.
func TestElsewhere(t *testing.T) {
	dir, mounted := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(mounted, "..data_1"), 0o755); err != nil {
		t.Fatal(err)
	}
	cert, link := filepath.Join(dir, "tls.crt"), filepath.Join(mounted, "tls.key")
	key := filepath.Join(mounted, "..data_1", "tls.key")
	for _, err := range []error{
		os.WriteFile(cert, nil, 0o600), os.WriteFile(key, nil, 0o600),
		os.Symlink("..data_1", filepath.Join(mounted, "..data")), os.Symlink("..data/tls.key", link),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := newWatcher(make(chan struct{}, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if added, err := w.follow([]string{cert, link, ""}); !added || err != nil {
		t.Fatal(added, err)
	}
	for _, c := range []struct {
		what string
		name string
		op   fsnotify.Op
		want bool
	}{
		{"a log is written", filepath.Join(dir, "agent.log"), fsnotify.Write, true},
		{"its mode changes", filepath.Join(dir, "agent.log"), fsnotify.Chmod | fsnotify.Write, true},
		{"a log is made", filepath.Join(dir, "agent.log"), fsnotify.Create, false},
		{"a file beside is put in the certificate's place", filepath.Join(dir, "new"), fsnotify.Rename, false},
		{"the certificate is written", cert, fsnotify.Write, false},
		{"what a link leads to is written", key, fsnotify.Write, false},
		{"a link on the way is replaced", filepath.Join(mounted, "..data"), fsnotify.Create, false},
	} {
		if got := w.elsewhere(fsnotify.Event{Name: c.name, Op: c.op}); got != c.want {
			t.Errorf("%s: taken for another file's: %v", c.what, got)
		}
	}
	if added, err := w.follow([]string{cert, link}); added || err != nil {
		t.Errorf("the same files once more: added %v, %v", added, err)
	}
	if added, _ := w.follow([]string{cert, filepath.Join(dir, "other")}); !added {
		t.Error("another file of a directory that is watched: what was written to it before is lost")
	}
}
