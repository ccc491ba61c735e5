package need

import (
	"os"
	"strconv"
	"time"
)

// Slow is a limit on time as this machine needs it: d on a host, a multiple of d
// in a guest under software emulation, which says by NODEAGENT_SLOW how much
// slower it is. Limits that state what the product promises are not scaled by
// hand anywhere else.
func Slow(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("NODEAGENT_SLOW")); err == nil && n > 1 {
		return d * time.Duration(n)
	}
	return d
}

// Raced is a limit on time where the race detector may watch, which makes a program two
// to twenty times slower (its manual, go.dev/doc/articles/race_detector).
func Raced(d time.Duration) time.Duration {
	if race {
		return 10 * d
	}
	return d
}
