package bed

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// thread is an operating system thread of its own that stays in a namespace.
// Closures run on it one after another; a process started from it inherits the
// namespace, and dies with it when started with Pdeathsig.
type thread struct {
	work chan func()
	quit chan struct{}
	done chan struct{}
	tid  int
}

// newThread runs prepare on a new thread and keeps the thread until close. The
// thread is never given back to the scheduler: Go ends it with its goroutine.
func newThread(prepare func() error) (*thread, error) {
	t := &thread{work: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	ready := make(chan error, 1)
	go t.run(prepare, ready)
	if err := <-ready; err != nil {
		<-t.done
		return nil, err
	}
	return t, nil
}

func (t *thread) run(prepare func() error, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The thread group leader outlives its goroutine, and its namespace
		// would be the one that others see as the process's: hold it while
		// another thread takes the work.
		moved := make(chan struct{})
		go func() { defer close(moved); t.run(prepare, ready) }()
		<-moved
		runtime.UnlockOSThread()
		return
	}
	defer close(t.done)
	if err := prepare(); err != nil {
		ready <- err
		return
	}
	t.tid = unix.Gettid()
	ready <- nil
	for {
		select {
		case f := <-t.work:
			f()
		case <-t.quit:
			return
		}
	}
}

var errClosed = errors.New("the bed is closed")

// do runs f on the thread and returns its error.
func (t *thread) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case t.work <- func() { result <- protect(f) }:
	case <-t.done:
		return errClosed
	}
	select {
	case err := <-result:
		return err
	case <-t.done:
		return errClosed
	}
}

// protect turns a panic into an error: the thread must survive a failed test's
// closure (runtime.Goexit by t.FailNow would end it and all its children).
func protect(f func() error) (err error) {
	ended := false
	defer func() {
		if ended {
			return
		}
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in the bed's namespace: %v", r)
		}
	}()
	err = f()
	ended = true
	return err
}

func (t *thread) close() {
	close(t.quit)
	<-t.done
}
