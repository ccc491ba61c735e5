package object

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/object/objecttest"
)

// TestReadRate: where the API server may be asked every four seconds only, objects wait
// for their turns, longer than an answer may take, and none is taken for a failure.
func TestReadRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, server: &objecttest.Server{}, rate: rate.NewLimiter(0.25, 1)}
		b.start(b.server)
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprint("m", i))
			b.server.Put(configMap(names[i], "1"))
		}
		b.store.Keep([]*corev1.Pod{user("one", names...)})
		read := func() (n int) {
			synctest.Wait()
			for _, name := range names {
				if b.value(name) == "1" {
					n++
				}
			}
			return n
		}
		time.Sleep(40*time.Second + time.Millisecond)
		if n := read(); n != 11 {
			t.Errorf("%d objects are read after 40 s, want 11", n)
		}
		time.Sleep(40 * time.Second)
		if n := read(); n != len(names) {
			t.Errorf("%d objects are read after 80 s, want all", n)
		}
	})
}
