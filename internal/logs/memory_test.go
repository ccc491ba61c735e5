package logs

import (
	"bytes"
	"path/filepath"
	"runtime"
	"testing"

	"nodeagent/internal/test/need"
)

// A line without an end costs no memory, in whatever pieces it comes: the collector of a
// shim at work lets 16 MB of garbage lie.
func TestMemoryOfAnEndlessLine(t *testing.T) {
	need.Have(t, need.NoRace) // under it a sync.Pool forgets on purpose
	for _, size := range []int{100, 4 << 10, 64 << 10} {
		w := newWriter(t, Config{Path: filepath.Join(t.TempDir(), "log"), MaxSize: 8 << 20, MaxFiles: 3})
		s := w.Stream(Stdout)
		piece := bytes.Repeat([]byte{'x'}, size)
		const total = 16 << 20
		s.Write(piece)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for n := 0; n < total; n += size {
			s.Write(piece)
		}
		runtime.ReadMemStats(&after)
		if garbage := after.TotalAlloc - before.TotalAlloc; garbage > total/16 {
			t.Errorf("%d bytes in pieces of %d made %d bytes of garbage", total, size, garbage)
		}
	}
}
