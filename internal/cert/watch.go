package cert

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long files are left alone after the first sign of a change: a
// certificate and its key are two files, and seldom change in one instant.
const settle = 50 * time.Millisecond

// watcher tells that one of some files may have changed. It watches the
// directories, since files are replaced by renaming; those of a link's target
// too; and where a directory is missing, the nearest one above it.
type watcher struct {
	fs   *fsnotify.Watcher
	wake chan<- struct{}
	dirs map[string]bool
	done chan struct{}

	mu    sync.Mutex
	files map[string]bool // those that are followed, and what links lead to
}

func newWatcher(wake chan<- struct{}) (*watcher, error) {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch certificates for changes: %w", err)
	}
	w := &watcher{fs: fs, wake: wake, dirs: map[string]bool{}, done: make(chan struct{})}
	go w.run()
	return w, nil
}

// close ends the watcher's goroutine and waits for it.
func (w *watcher) close() {
	_ = w.fs.Close()
	<-w.done
}

func (w *watcher) run() {
	defer close(w.done)
	var quiet <-chan time.Time
	for {
		select {
		case e, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if w.elsewhere(e) {
				continue
			}
		case _, ok := <-w.fs.Errors: // events were lost: look at everything
			if !ok {
				return
			}
		case <-quiet:
			quiet = nil
			poke(w.wake)
			continue
		}
		if quiet == nil {
			quiet = time.After(settle)
		}
	}
}

// elsewhere tells that only the content of another file has changed: whoever has a log
// beside a kubeconfig would have all of it read anew with each line. What is made, renamed
// or removed may be a link on the way to a file, and counts.
func (w *watcher) elsewhere(e fsnotify.Event) bool {
	if e.Op&^(fsnotify.Write|fsnotify.Chmod) != 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.files[e.Name]
}

// poke wakes somebody up who has one slot.
func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// follow replaces the files that are watched. It tells whether a file or a directory
// was added: what changed there before that, nobody has told.
func (w *watcher) follow(paths []string) (added bool, err error) {
	want, files := map[string]bool{}, map[string]bool{}
	for _, path := range paths {
		if path == "" {
			continue
		}
		want[filepath.Dir(path)], files[filepath.Clean(path)] = true, true
		if target, err := filepath.EvalSymlinks(path); err == nil {
			want[filepath.Dir(target)], files[target] = true, true
		}
	}
	w.mu.Lock()
	for file := range files { // what was written to it until now, nobody has told
		added = added || !w.files[file]
	}
	w.files = files
	w.mu.Unlock()
	have := map[string]bool{}
	for _, dir := range slices.Sorted(maps.Keys(want)) {
		// Also one that is watched is added: it may be another of that name.
		e := w.fs.Add(dir)
		for e != nil && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			e = w.fs.Add(dir)
		}
		if e != nil {
			err = fmt.Errorf("watch certificates for changes: %w", e)
			continue
		}
		added = added || !w.dirs[dir]
		have[dir] = true
	}
	for dir := range w.dirs {
		if !have[dir] {
			_ = w.fs.Remove(dir) // gone already where the directory is
		}
	}
	w.dirs = have
	return added, err
}
