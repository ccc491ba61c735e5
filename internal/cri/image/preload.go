package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/mkdir"
)

// preloadedLabel notes on each image of an archive which file it came from, as
// it was then, and how many others did: <stamp>.<number>. So an archive whose
// images are all there is not read again, and no file of our own has to say so.
const preloadedLabel = "nodeagent.io/preloaded"

// How long to wait after an import that failed for want of containerd.
const (
	preloadRetryFirst = time.Second
	preloadRetryMost  = 5 * time.Minute
)

// Preload imports the archives of a directory, pins their images, and does so
// with each that appears there, until ctx ends. changed is called after each that
// brought something. An archive that cannot be used is told of in the log and
// tried again when it changes; removing one removes no image.
//
// Names are *.tar, *.tar.gz, *.tgz, *.tar.zst; hidden ones are passed over.
func (s *Store) Preload(ctx context.Context, dir string, changed func()) error {
	if err := mkdir.All(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of images: %w", err)
	}
	come, err := watchFiles(ctx, dir)
	if err != nil {
		return err
	}
	seen := map[string]string{} // stamps of what was judged, by name
	again := time.NewTimer(0)
	defer again.Stop()
	wait := preloadRetryFirst
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-come:
		case <-again.C:
		}
		if s.preloadAll(ctx, dir, seen, changed) {
			wait = preloadRetryFirst
			continue
		}
		again.Reset(wait)
		wait = min(2*wait, preloadRetryMost)
	}
}

// preloadAll looks through the directory and tells whether nothing has to be
// tried again.
func (s *Store) preloadAll(ctx context.Context, dir string, seen map[string]string, changed func()) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.cfg.Logger.Warn("look for archives of images", "dir", dir, "err", err)
		return false
	}
	found, done := map[string]bool{}, true
	for _, e := range entries {
		name := e.Name()
		if !isArchive(name) {
			continue
		}
		found[name] = true
		stamp, err := stampOf(filepath.Join(dir, name))
		if err == nil && seen[name] == stamp {
			continue
		}
		if err == nil {
			err = s.preload(ctx, filepath.Join(dir, name), stamp, changed)
		}
		if ctx.Err() != nil {
			return true
		}
		if err != nil {
			s.cfg.Logger.Warn("import an archive of images", "file", filepath.Join(dir, name), "err", err)
		}
		// What is wrong with the archive does not mend itself.
		if err == nil || kindOf(err) != kindOther || errors.Is(err, errOddFile) {
			seen[name] = stamp
		} else {
			done = false
		}
	}
	maps.DeleteFunc(seen, func(name, _ string) bool { return !found[name] })
	return done
}

// preload imports one archive unless all of it is there.
func (s *Store) preload(ctx context.Context, path, stamp string, changed func()) error {
	there, err := s.preloaded(ctx, stamp)
	if err != nil || there {
		return err
	}
	// The name may have become a pipe since: that must not block.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	begun := time.Now()
	names, err := s.Import(ctx, f)
	if err != nil {
		return err
	}
	if err := s.label(ctx, names, map[string]string{pinnedLabel: pinned, preloadedLabel: fmt.Sprintf("%s.%d", stamp, len(names))}); err != nil {
		return err
	}
	s.cfg.Logger.Info("imported an archive of images", "file", path, "images", names, "took", time.Since(begun).Round(time.Millisecond))
	changed()
	return nil
}

// preloaded tells whether every image of the archive is there.
func (s *Store) preloaded(ctx context.Context, stamp string) (bool, error) {
	records, err := s.records(ctx)
	if err != nil {
		return false, err
	}
	have := 0
	want := -1
	for _, r := range records {
		of, number, _ := strings.Cut(r.Labels[preloadedLabel], ".")
		if of == stamp && r.Labels[pinnedLabel] == pinned {
			have++
			_, _ = fmt.Sscan(number, &want)
		}
	}
	return have == want, nil
}

func isArchive(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.ContainsFunc([]string{".tar", ".tar.gz", ".tgz", ".tar.zst"},
		func(ext string) bool { return strings.HasSuffix(name, ext) })
}

// errOddFile says that an archive's name stands for something else.
var errOddFile = errors.New("not a regular file")

// stampOf tells one content of a file from another without reading it.
func stampOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("look at file: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", errOddFile
	}
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d.%d", path, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec))
	return hex.EncodeToString(h[:16]), nil
}

// watchFiles tells when a file of the directory was written and closed, or moved
// there. The channel holds one; the reader ends with ctx.
func watchFiles(ctx context.Context, dir string) (<-chan struct{}, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the directory of images: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_CREATE|unix.IN_ONLYDIR); err != nil {
		events.Close()
		return nil, fmt.Errorf("watch the directory of images %s: %w", dir, err)
	}
	come := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { events.Close() })
	go func() {
		defer stop()
		buf := make([]byte, 4<<10)
		for {
			if _, err := events.Read(buf); err != nil {
				return // closed
			}
			select {
			case come <- struct{}{}:
			default:
			}
		}
	}()
	return come, nil
}
