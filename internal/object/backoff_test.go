package object

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/object/objecttest"
	"nodeagent/internal/pod"
)

// TestBackoffAsked: what the API server asks for is given, but for an age.
func TestBackoffAsked(t *testing.T) {
	for asked, want := range map[int]time.Duration{
		7: 7 * time.Second, 119: 119 * time.Second, 1_000_000_000: mostAsked, math.MaxInt32: mostAsked,
	} {
		var b backoff
		if got := b.next(apierrors.NewTooManyRequests("", asked)); got < want || got > want+time.Second {
			t.Errorf("asked for %d s it waits %s, want %s", asked, got, want)
		}
	}
}

// TestTokensOfAMoment: tokens that are over as soon as they are there are asked for once
// a second, and ones that are never over are tokens.
func TestTokensOfAMoment(t *testing.T) {
	for seconds, most := range map[int64]int{1: 70, math.MaxInt64: 1, 10_000_000_000: 1} {
		synctest.Test(t, func(t *testing.T) {
			b := begin(t, &objecttest.Server{TokenSeconds: seconds})
			b.store.Keep([]*corev1.Pod{withTokens(user("one"), pod.TokenWish{})})
			time.Sleep(time.Minute)
			if n := len(b.server.Tokens()); n < 1 || n > most {
				t.Errorf("tokens of %d s are asked for %d times in a minute, want at most %d", seconds, n, most)
			}
		})
	}
}
