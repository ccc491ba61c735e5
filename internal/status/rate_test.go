package status_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
)

// TestWriterRate: where the API server may be asked once a second only, statuses wait for
// their turns, longer than a request may take, and none is taken for a failure.
func TestWriterRate(t *testing.T) {
	slowly(t, rate.NewLimiter(1, 2), func(b *bed) {
		for i := range 30 {
			p := bound(fmt.Sprint("p", i), fmt.Sprint(i))
			b.api.Add(p)
			b.pods.tell(with(p, corev1.PodRunning, true, 0), false)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if n := len(b.api.Requests()); n != 12 {
			t.Errorf("%d requests in 10 s, want 2 at once and 10 more", n)
		}
		time.Sleep(time.Minute)
		if n := len(b.api.Requests()); n != 30 {
			t.Errorf("%d requests for 30 statuses", n)
		}
	})
}
