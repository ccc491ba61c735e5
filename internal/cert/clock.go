package cert

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// clock tells when somebody sets the node's clock, and when it wakes from sleep:
// certificates live by that clock, timers by one that knows of neither.
type clock struct {
	file *os.File
	done chan struct{}
}

func newClock(wake chan<- struct{}) (*clock, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch the clock: %w", err)
	}
	// It never runs out: what is read from it is that the clock was set.
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32}}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch the clock: %w", err)
	}
	c := &clock{os.NewFile(uintptr(fd), "clock"), make(chan struct{})}
	go c.run(wake)
	return c, nil
}

func (c *clock) run(wake chan<- struct{}) {
	defer close(c.done)
	buf := make([]byte, 8)
	for {
		if _, err := c.file.Read(buf); !errors.Is(err, unix.ECANCELED) {
			return // closed, or 2038 on a 32-bit machine
		}
		poke(wake)
	}
}

// close ends the clock's goroutine and waits for it.
func (c *clock) close() {
	_ = c.file.Close()
	<-c.done
}
