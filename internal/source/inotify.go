package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sign is what the kernel told about a name.
type sign int

const (
	signSeen     sign = iota // a scan came upon it
	signTouched              // made, linked or given other permissions
	signFinished             // its writer closed it, or it was moved here
	signMoved                // moved away
	signDeleted              // deleted
)

// news is what happened since somebody last asked.
type news struct {
	names map[string]sign // the latest of each name
	all   bool            // more happened than is known: look at everything
	place bool            // the directory itself, or the way to it, is another
}

// maxNews bounds the names that are kept until somebody asks.
const maxNews = 16 << 10

// notifier reads inotify. It watches one directory, and the directory through
// which that one is reached. fsnotify is not used because it does not tell when
// a writer closes a file, which is the moment when a manifest is complete.
type notifier struct {
	file *os.File
	fd   int           // of file, which must not be asked for it: that would make it block
	wake chan struct{} // one slot: there is news
	done chan struct{} // the reader has ended

	mu      sync.Mutex
	news    news
	dir     int // watch descriptors; -1 for none
	way     int
	wayName string
}

const (
	dirMask = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
		unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	wayMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
)

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch for changes: %w", err)
	}
	n := &notifier{
		file: os.NewFile(uintptr(fd), "inotify"),
		fd:   fd,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
		dir:  -1, way: -1,
	}
	go n.read()
	return n, nil
}

// close ends the reader and waits for it.
func (n *notifier) close() {
	_ = n.file.Close()
	<-n.done
}

// watch replaces what is watched: dir, where it exists, and the name in the
// directory way. Either may be "".
func (n *notifier) watch(dir, way, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(&n.dir)
	n.drop(&n.way)
	n.wayName = name
	var err error
	if dir != "" {
		err = errors.Join(err, n.add(&n.dir, dir, dirMask))
	}
	if way != "" && way != dir {
		err = errors.Join(err, n.add(&n.way, way, wayMask))
	}
	return err
}

func (n *notifier) drop(wd *int) {
	if *wd >= 0 {
		_, _ = unix.InotifyRmWatch(n.fd, uint32(*wd)) // gone already where the directory is
	}
	*wd = -1
}

func (n *notifier) add(wd *int, path string, mask uint32) error {
	got, err := unix.InotifyAddWatch(n.fd, path, mask)
	if err != nil {
		return fmt.Errorf("watch %s for changes: %w", path, err)
	}
	*wd = got
	return nil
}

// take returns the news and forgets them.
func (n *notifier) take() news {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := n.news
	n.news = news{}
	return got
}

func (n *notifier) read() {
	defer close(n.done)
	buf := make([]byte, 64<<10)
	for {
		got, err := n.file.Read(buf)
		if err != nil {
			return // closed; nothing else ends an inotify descriptor
		}
		n.mu.Lock()
		n.digest(buf[:got])
		n.mu.Unlock()
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

func (n *notifier) digest(buf []byte) {
	for len(buf) >= unix.SizeofInotifyEvent {
		wd := int(int32(binary.NativeEndian.Uint32(buf[0:])))
		mask := binary.NativeEndian.Uint32(buf[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		if end > len(buf) {
			return
		}
		name := string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00"))
		buf = buf[end:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			n.news.all, n.news.place = true, true
		case wd == n.dir && mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0:
			n.news.place = true
		case wd == n.dir:
			n.note(name, signOf(mask))
		case wd == n.way && (name == n.wayName || name == ""):
			n.news.place = true
		}
	}
}

func (n *notifier) note(name string, s sign) {
	if n.news.names == nil {
		n.news.names = map[string]sign{}
	}
	if len(n.news.names) >= maxNews {
		n.news.all = true
		return
	}
	n.news.names[name] = s
}

func signOf(mask uint32) sign {
	switch {
	case mask&unix.IN_DELETE != 0:
		return signDeleted
	case mask&unix.IN_MOVED_FROM != 0:
		return signMoved
	case mask&(unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO) != 0:
		return signFinished
	default:
		return signTouched
	}
}
