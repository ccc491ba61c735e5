package object

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/object/objecttest"
	"nodeagent/internal/pod"
)

// withTokens gives the pod a projected volume with tokens.
func withTokens(p *corev1.Pod, wishes ...pod.TokenWish) *corev1.Pod {
	projected := &corev1.ProjectedVolumeSource{}
	for i, w := range wishes {
		s := &corev1.ServiceAccountTokenProjection{Audience: w.Audience, Path: fmt.Sprint("token", i)}
		if w.Seconds != 0 {
			s.ExpirationSeconds = &w.Seconds
		}
		projected.Sources = append(projected.Sources, corev1.VolumeProjection{ServiceAccountToken: s})
	}
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "tokens", VolumeSource: corev1.VolumeSource{Projected: projected}})
	return p
}

func (b *bench) token(p *corev1.Pod, w pod.TokenWish) string {
	synctest.Wait()
	text, err := b.store.Token(p, w)
	if err != nil {
		return err.Error()
	}
	return text
}

// TestToken: asked for once, as the pod wants it and bound to it, again when four
// fifths of its life are nearly over, and not after the pod is gone.
func TestToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{})
		hour, vault := pod.TokenWish{Seconds: 3607}, pod.TokenWish{Audience: "vault", Seconds: 600}
		p := withTokens(withTokens(user("one"), hour, vault), hour)
		b.store.Keep([]*corev1.Pod{p})
		first, short := b.token(p, hour), b.token(p, vault)
		if !strings.HasPrefix(first, objecttest.TokenText) || !strings.HasPrefix(short, objecttest.TokenText) || first == short {
			t.Fatalf("the tokens are %q and %q", first, short)
		}
		requests := b.server.Tokens()
		if len(requests) != 2 {
			t.Fatalf("%d tokens were asked for, want 2", len(requests))
		}
		for _, r := range requests {
			bound := r.Spec.BoundObjectRef
			if bound == nil || bound.Kind != "Pod" || bound.APIVersion != "v1" || bound.Name != "one" || bound.UID != p.UID {
				t.Errorf("a token is bound to %v", bound)
			}
			switch seconds := *r.Spec.ExpirationSeconds; {
			case seconds == 3607 && len(r.Spec.Audiences) == 0:
			case seconds == 600 && len(r.Spec.Audiences) == 1 && r.Spec.Audiences[0] == "vault":
			default:
				t.Errorf("a token was asked for with %v", r.Spec)
			}
		}
		b.wantNews("the first tokens")
		time.Sleep(600 * 3 / 4 * time.Second)
		if b.token(p, vault) != short {
			t.Error("a token was replaced before three quarters of its life")
		}
		time.Sleep(600 / 20 * time.Second)
		b.wantNews("a token was replaced", pod.ObjectRef{Kind: pod.TokenKind, Namespace: "ns", Name: "uid-one"})
		if b.token(p, vault) == short {
			t.Error("a token was not replaced at four fifths of its life")
		}
		if b.token(p, hour) != first {
			t.Error("the other token was replaced too")
		}
		b.store.Keep(nil)
		before := len(b.server.Tokens())
		time.Sleep(24 * time.Hour)
		if n := len(b.server.Tokens()); n != before {
			t.Errorf("%d tokens were asked for after the pod was gone", n-before)
		}
		if text := b.token(p, hour); strings.Contains(text, objecttest.TokenText) {
			t.Error("a token outlives its pod")
		}
	})
}

// TestTokenOfAYear: no token is shown for longer than a day.
func TestTokenOfAYear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{TokenSeconds: 365 * 24 * 3600})
		p := withTokens(user("one"), pod.TokenWish{})
		b.store.Keep([]*corev1.Pod{p})
		first := b.token(p, pod.TokenWish{})
		time.Sleep(tokenLongest)
		if b.token(p, pod.TokenWish{}) == first {
			t.Error("after a day it is the same")
		}
	})
}

// TestTokenKeptWhileItLives: where a new one cannot be had the old one serves as
// long as it is valid, and then its end is told with the reason.
func TestTokenKeptWhileItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var fault error = apierrors.NewForbidden(corev1.Resource("serviceaccounts"), "account", errors.New("pod not found"))
		set := func(err error) { mu.Lock(); fault = err; mu.Unlock() }
		b := begin(t, &objecttest.Server{Fault: func(context.Context, string, pod.ObjectRef) error {
			mu.Lock()
			defer mu.Unlock()
			return fault
		}})
		w := pod.TokenWish{Seconds: 600}
		p := withTokens(user("one"), w)
		b.store.Keep([]*corev1.Pod{p})
		if got := b.token(p, w); !strings.Contains(got, "failed to fetch token: ") || !strings.Contains(got, "pod not found") {
			t.Errorf("a refusal is told as %q", got)
		}
		set(nil)
		time.Sleep(time.Minute)
		self := pod.ObjectRef{Kind: pod.TokenKind, Namespace: "ns", Name: "uid-one"}
		b.wantNews("it came", self)
		first := b.token(p, w)
		set(errors.New("connection refused"))
		time.Sleep(8 * time.Minute)
		if b.token(p, w) != first {
			t.Error("a valid token is not shown any more")
		}
		b.wantNews("the old one is kept")
		time.Sleep(3 * time.Minute)
		_, err := b.store.Token(p, w)
		if err == nil || !isAbsent(err) || !strings.Contains(err.Error(), "token expired and refresh failed: failed to fetch token: connection refused") {
			t.Errorf("an expired token is told as %v", err)
		}
		set(nil)
		time.Sleep(time.Minute)
		b.wantNews("a new one came", self)
		if got := b.token(p, w); got == first || !strings.HasPrefix(got, objecttest.TokenText) {
			t.Errorf("the new one is %q", got)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if strings.Contains(b.log.String(), objecttest.TokenText) || !strings.Contains(b.log.String(), "keep the old token") {
			t.Errorf("the log is\n%s", &b.log)
		}
	})
}

// TestTokenIsNeverFormatted: whoever formats what holds a token gets its name.
func TestTokenIsNeverFormatted(t *testing.T) {
	tok := &token{pod: user("one"), text: objecttest.TokenText}
	for _, text := range []string{fmt.Sprint(tok), fmt.Sprintf("%v %+v %#v %s", tok, tok, tok, tok), tok.LogValue().String()} {
		if strings.Contains(text, objecttest.TokenText) {
			t.Errorf("it is formatted as %s", text)
		}
	}
}
