package source

import (
	"crypto/sha256"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// How long a name must stay away before its pods end. Programs that replace a
// file by unlink and create, or by moving it aside, do so within microseconds;
// without these times a save in an editor would restart the pod.
type patience struct{ deleted, moved time.Duration }

const (
	confirmDeleted = 5 * time.Millisecond
	confirmMoved   = 100 * time.Millisecond
)

// The kernel tells of a close just before the file loses its writer, so a busy
// file is looked at again, soon at first.
const (
	retryFirst = time.Millisecond
	retryMost  = time.Second
	busyReport = 10 * time.Second // then somebody is told
)

// readDeadline bounds one read: a link may lead to a file system that hangs.
const (
	readDeadline = time.Second
	maxStuck     = 8
)

// file is what is known of one name in the directory.
type file struct {
	pods       []wanted // the last good ones
	understood bool     // it was read at least once, or can hold no pod
	link       bool
	stamp      stamp // of the content that was judged
	sum        [sha256.Size]byte
	mode       uint32
	judgedAt   time.Time
	wrong      findings
	since      time.Time // since when it is wrong

	goneAt    time.Time // when the name was missed first; zero while it is there
	confirmAt time.Time
	retry     time.Duration
	busySince time.Time
}

type readResult struct {
	content content
	err     error
}

func (m *Manifests) path(name string) string { return filepath.Join(m.here.dir, name) }

// look brings what is known of one name up to date. Only a name that is gone,
// and was gone for long enough, loses its pods.
func (m *Manifests) look(name string, s sign) {
	var st unix.Stat_t
	err := unix.Lstat(m.path(name), &st)
	f := m.files[name]
	if err == unix.ENOENT {
		m.miss(name, f, s)
		return
	}
	if err == unix.ENOTDIR {
		return // what is wrong is the directory, and is said of it
	}
	if f == nil {
		f = &file{}
		m.files[name] = f
	}
	if !f.goneAt.IsZero() {
		f.goneAt, f.confirmAt = time.Time{}, time.Time{}
		delete(m.pending, name)
	}
	if err != nil {
		f.judgedAt = time.Time{}
		m.blame(f, findf(0, "look at file: %v", err))
		return
	}
	f.link = st.Mode&unix.S_IFMT == unix.S_IFLNK
	if m.here.only == "" && kindOf(name) == kindForeign {
		m.foreign(name, f, &st)
		return
	}
	if s == signSeen && f.unchanged(&st) {
		f.retry, f.busySince = 0, time.Time{}
		return
	}
	m.judge(name, f, s)
}

// miss notes that a name is not there. Its pods stay until it is confirmed.
func (m *Manifests) miss(name string, f *file, s sign) {
	if f == nil {
		return
	}
	now := time.Now()
	if len(f.pods) > 0 {
		if f.goneAt.IsZero() {
			f.goneAt, f.confirmAt = now, now.Add(m.cfg.Rescan)
		}
		switch s {
		case signDeleted:
			f.confirmAt = earlier(f.confirmAt, now.Add(m.patience.deleted))
		case signMoved:
			f.confirmAt = earlier(f.confirmAt, now.Add(m.patience.moved))
		}
		if now.Before(f.confirmAt) {
			m.pending[name] = f.confirmAt
			return
		}
	}
	delete(m.files, name)
	delete(m.pending, name)
	delete(m.stuck, name)
	m.changed = true
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// foreign reports a file that kubelet would read and this program does not.
func (m *Manifests) foreign(name string, f *file, st *unix.Stat_t) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		delete(m.files, name)
		return
	}
	f.understood = true
	m.blame(f, findf(0, "file is not read: only names that end in .yaml, .yml or .json are manifests"))
}

// unchanged says that a scan need not read the file. A file that changed just
// before it was read may have changed once more without another time stamp; and
// what a link leads to is looked at by the reader, which may take its time.
func (f *file) unchanged(st *unix.Stat_t) bool {
	return !f.link && !f.judgedAt.IsZero() && stampOf(st) == f.stamp &&
		f.judgedAt.Sub(time.Unix(st.Mtim.Unix())) > quietFor
}

// judge reads a file and takes its pods, or keeps the last good ones and says
// what is wrong.
func (m *Manifests) judge(name string, f *file, s sign) {
	got, err := m.readInTime(name, s == signFinished)
	if errors.Is(err, errBusy) {
		m.postpone(name, f)
		return
	}
	f.retry, f.busySince = 0, time.Time{}
	delete(m.pending, name)
	if vanished(err) && !f.link {
		// Between two looks: it is missing, which is no fault of the file.
		f.judgedAt = time.Time{}
		m.miss(name, f, s)
		return
	}
	if err != nil {
		if errors.Is(err, errStuck) {
			m.pending[name] = time.Now().Add(retryMost)
		}
		var t typeError
		f.understood = f.understood || errors.As(err, &t)
		f.judgedAt = time.Time{}
		m.blame(f, findf(0, "%s", plain(err.Error())))
		return
	}
	sum := sha256.Sum256(got.data)
	same := !f.judgedAt.IsZero() && sum == f.sum && got.mode == f.mode
	f.stamp, f.sum, f.mode, f.judgedAt = got.stamp, sum, got.mode, got.at
	if same {
		return
	}
	pods, wrong := m.decode(m.path(name), got.data)
	if wrong == nil {
		wrong = readable(m.path(name), got.mode, pods)
	}
	if wrong != nil {
		m.blame(f, wrong)
		return
	}
	f.understood = true
	pods = keep(f.pods, pods)
	if !slices.Equal(f.pods, pods) {
		f.pods = pods
		m.changed = true
	}
	m.blame(f, nil)
}

// vanished tells that a file was not there any more when it was to be read.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// postpone looks at a file that is being written again later. The end of the
// writing is an event; the timer is for what no event tells.
func (m *Manifests) postpone(name string, f *file) {
	now := time.Now()
	f.retry = min(max(2*f.retry, retryFirst), retryMost)
	m.pending[name] = now.Add(f.retry)
	if f.busySince.IsZero() {
		f.busySince = now
	}
	if now.Sub(f.busySince) >= busyReport {
		f.judgedAt = time.Time{}
		m.blame(f, findf(0, "file is not read while a program has it open for writing: close it, or move a finished file here"))
	}
}

// blame sets what is wrong with a file; nil is nothing.
func (m *Manifests) blame(f *file, wrong findings) {
	if !slices.Equal(f.wrong, wrong) {
		if f.wrong == nil || f.since.IsZero() {
			f.since = time.Now()
		}
		f.wrong = wrong
		m.changed = true
	}
	if wrong == nil {
		f.since = time.Time{}
	}
}

var errStuck = errors.New("reading the file takes too long: the file system does not answer")

// readInTime reads a file in a goroutine of its own, which a hanging file system
// cannot be made to give back. It ends with the read; there is at most one for
// each file and maxStuck in all.
func (m *Manifests) readInTime(name string, finished bool) (content, error) {
	result, waiting := m.stuck[name]
	if !waiting {
		if len(m.stuck) >= maxStuck {
			return content{}, errStuck
		}
		result = make(chan readResult, 1)
		path := m.path(name)
		go func() {
			c, err := m.read(path, finished)
			result <- readResult{c, err}
		}()
		timer := time.NewTimer(readDeadline)
		defer timer.Stop()
		select {
		case r := <-result:
			return r.content, r.err
		case <-timer.C:
			m.stuck[name] = result
			return content{}, errStuck
		}
	}
	select {
	case <-result: // it is old by now: read again
		delete(m.stuck, name)
		return content{}, errBusy
	default:
		return content{}, errStuck
	}
}
